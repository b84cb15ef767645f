"""Tetrahedron densities of states: laws, exact answers, phonopy, derivatives."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.brillouin import gamma_mesh, q_mesh
from phojax.descriptors import dos
from phojax.descriptors import tetrahedra as t
from phojax.structure import structure
from phojax.symmetry import space_group

tetrahedron_dos = jax.jit(t.tetrahedron_dos)
tetrahedron_weights = jax.jit(t.tetrahedron_weights)
CELL = [[4.2, 0.1, 0.3], [0.9, 4.9, 0.2], [-0.7, 0.6, 5.3]]


def on_mesh(crystal, mesh, *, reduced=False, shift=0.0):
    fc = reference.converted(crystal)
    cell = fc.supercell.primitive
    points = q_mesh((mesh,) * 3, space_group(cell) if reduced else None, (shift,) * 3)
    found = reference.solved(fc, jnp.asarray(points.q), jnp.asarray(points.weights))
    return found, t.tetrahedron_neighbours(points, cell)


def compare_with_phonopy(crystal, mesh, *, shift=0.0, atoms=False, xyz=False):
    """phonopy's curves on the full mesh: the total, each species and (asked for) each atom."""
    crystal.run_mesh(
        [mesh] * 3,
        shift=[shift] * 3,
        is_gamma_center=True,
        is_mesh_symmetry=False,
        with_eigenvectors=True,
    )
    ratio = reference.constants_ratio()
    found, neighbours = on_mesh(crystal, mesh, shift=shift)
    top = float(found.frequencies_THz.max())
    span = {"freq_min": -0.01, "freq_max": top, "freq_pitch": (top + 0.01) / 30}
    crystal.run_total_dos(**span)
    crystal.run_projected_dos(**span, xyz_projection=xyz)
    nu = jnp.asarray(np.asarray(crystal.total_dos.frequency_points) / ratio)
    theirs = np.asarray(crystal.projected_dos.projected_dos)
    np.testing.assert_array_equal(
        crystal.projected_dos.frequency_points, crystal.total_dos.frequency_points
    )
    names, groups = dos.species_groups(found.structure)
    count = len(found.structure)
    if xyz:
        groups = jnp.eye(3 * count).reshape(-1, count, 3)
    elif atoms:
        groups = jnp.concatenate([groups, jnp.eye(count)])
    ours = tetrahedron_dos(found, neighbours, nu, groups) / ratio
    if not xyz:
        # The translations at Γ are off 0 by the root of a rounding error in phonopy.
        np.testing.assert_allclose(ours[0], crystal.total_dos.dos, atol=2e-6, rtol=1e-6)
        species = np.asarray(groups)[: len(names)] @ theirs
        np.testing.assert_allclose(ours[: len(names)], species, atol=2e-6, rtol=1e-6)
        ours = ours[len(names) :]
    if atoms or xyz:
        np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=1e-6)


def test_densities_are_phonopys_of_a_triclinic_crystal():
    compare_with_phonopy(reference.triclinic(), 3, atoms=True)


def test_densities_per_direction_are_phonopys():
    """Off Γ, where the three translations mix as rounding will."""
    compare_with_phonopy(reference.triclinic(), 3, shift=0.5, xyz=True)


def test_densities_are_phonopys_of_a_cubic_crystal():
    compare_with_phonopy(reference.rocksalt(), 4)


def test_densities_are_phonopys_of_a_real_crystal(shared):
    crystal = reference.shared_crystal(shared, "NaMgF3")
    crystal.symmetrize_force_constants()
    compare_with_phonopy(crystal, 3)


def test_reduced_meshes_are_phonopys():
    """phonopy, too, sums its total over irreducible points alone."""
    crystal = reference.rocksalt()
    crystal.run_mesh([4] * 3, is_gamma_center=True)
    found, neighbours = on_mesh(crystal, 4, reduced=True)
    assert len(found.q) == len(crystal.mesh.qpoints)
    crystal.run_total_dos(freq_min=0, freq_max=9, freq_pitch=0.3)
    ratio = reference.constants_ratio()
    nu = jnp.asarray(np.asarray(crystal.total_dos.frequency_points) / ratio)
    ours = tetrahedron_dos(found, neighbours, nu, jnp.ones((1, 2)))[0] / ratio
    np.testing.assert_allclose(ours, crystal.total_dos.dos, atol=2e-6, rtol=1e-6)


def test_every_mode_is_on_the_curve_and_species_add_up():
    found, neighbours = on_mesh(reference.triclinic(), 3)
    top = float(found.frequencies_THz.max())
    nu = jnp.linspace(-0.01, top + 0.01, 9000)
    _, groups = dos.species_groups(found.structure)
    curves = tetrahedron_dos(found, neighbours, nu, groups)
    # Kinks leave the trapezoidal rule an error of second order in the step.
    np.testing.assert_allclose(jnp.trapezoid(curves, nu), [15, 6, 3, 6], rtol=5e-5)
    np.testing.assert_allclose(curves[0], curves[1:].sum(0), atol=1e-12)
    weights = tetrahedron_weights(found.frequencies_THz, neighbours, nu)
    np.testing.assert_allclose(jnp.trapezoid(weights, nu), 1.0, rtol=3e-3)
    total = jnp.einsum("q,qnf->f", found.weights, weights)
    np.testing.assert_allclose(curves[0], total, atol=1e-11)


def test_equivalent_atoms_share_alike_and_eigenvectors_do_not_matter(shared):
    crystal = reference.shared_crystal(shared, "SnO2")
    crystal.symmetrize_force_constants()
    found, neighbours = on_mesh(crystal, 4, reduced=True)
    means = t.orbit_means(space_group(found.structure))
    nu = jnp.linspace(0, float(found.frequencies_THz.max()), 30)
    _, groups = dos.species_groups(found.structure)
    groups = jnp.concatenate([groups, means])
    curves, atoms = jnp.split(tetrahedron_dos(found, neighbours, nu, groups), [3])
    np.testing.assert_allclose(4 * atoms[0], curves[1], atol=1e-12)
    np.testing.assert_allclose(atoms.sum(0), curves[0], atol=1e-12)
    turned = reference.rotated_in_blocks(found)
    again = tetrahedron_dos(turned, neighbours, nu, groups)
    np.testing.assert_allclose(again[3:], atoms, atol=1e-11)


def test_narrow_and_wide_modes_take_the_same_curve():
    """However many points of the grid a mode spreads over."""
    found, neighbours = on_mesh(reference.triclinic(), 3)
    nu = jnp.linspace(0, float(found.frequencies_THz.max()), 300)
    curve = tetrahedron_dos(found, neighbours, nu, jnp.ones((1, 5)))[0]
    weights = tetrahedron_weights(found.frequencies_THz, neighbours, nu)
    np.testing.assert_allclose(
        curve, jnp.einsum("q,qnf->f", found.weights, weights), atol=1e-11 * float(curve.max())
    )


def band(mesh, values, grid, cell=CELL):
    crystal = structure(np.asarray(cell), [[0.0, 0, 0]], [11])
    points = gamma_mesh((mesh,) * 3)
    v = jnp.asarray(values(points.q @ (2 * np.pi * np.linalg.inv(np.asarray(cell)).T)))[:, None]
    neighbours = t.tetrahedron_neighbours(points, crystal)
    return jnp.asarray(points.weights) @ tetrahedron_weights(v, neighbours, grid)[:, 0], v


def test_free_particles_have_the_root_of_the_energy():
    """ε = |k|² about Γ: g = V_cell √ε / 4π², below the zone boundary; error of order 1/n²."""
    grid = jnp.linspace(0.1, 0.3, 20)
    volume = np.linalg.det(CELL)
    exact = volume * np.sqrt(grid) / (4 * np.pi**2)
    errors = []
    for mesh in (12, 24):
        g, _ = band(mesh, lambda k: np.sum(k**2, axis=1), grid)
        errors.append(np.abs(np.mean(g / exact - 1)))
    assert errors[1] < 0.01
    assert errors[1] < errors[0] / 3


def test_a_linear_band_is_exact_at_every_point():
    """In the row of a point whose neighbours lie on a plane: the spline of a parallelepiped.

    ν = v·k linear around a point, weighed by hat functions on the 24 tetrahedra: the curve is the
    distribution of the barycentric weight, drawn at random here.
    """
    crystal = structure(np.asarray(CELL), [[0.0, 0, 0]], [11])
    points = q_mesh((6, 6, 6))
    neighbours = np.asarray(t.tetrahedron_neighbours(points, crystal))
    slope = np.array([0.31, -0.2, 0.57])
    gradient = np.where(np.abs(points.q) < 0.49, points.q, 0.0) @ slope
    row = np.argmin(np.linalg.norm(points.q - [0.0, 0.0, 1 / 6], axis=1))
    rng = np.random.default_rng(0)
    corners = gradient[neighbours[row]]  # (24, 4)
    where = rng.dirichlet([2, 1, 1, 1], size=(200_000, 24))
    samples = np.sum(where * corners, axis=-1).ravel()
    edges = np.linspace(corners.min(), corners.max(), 21)
    drawn, _ = np.histogram(samples, edges, density=True)
    fine = jnp.linspace(corners.min(), corners.max(), 20 * 50 + 1)
    curve = tetrahedron_weights(jnp.asarray(gradient)[:, None], jnp.asarray(neighbours), fine)
    curve = np.asarray(curve[row, 0])
    steps = (curve[1:] + curve[:-1]) / 2 * np.diff(fine)
    ours = steps.reshape(20, 50).sum(1) / np.diff(edges)
    # Counts of 4.8e6 draws: five deviations.
    sigma = np.sqrt(ours / (len(samples) * np.diff(edges)))
    assert np.all(np.abs(ours - drawn) < 5 * sigma + 1e-9)
    np.testing.assert_allclose(steps.sum(), 1, rtol=1e-6)


def test_flat_bands_are_no_numbers_lost_but_counted():
    grid = jnp.linspace(0, 2, 11)
    for values in (lambda k: np.ones(len(k)), lambda k: 1 + 1e-14 * np.arange(len(k))):
        g, v = band(3, values, grid)
        np.testing.assert_array_equal(g, 0)
    crystal = structure(np.asarray(CELL), [[0.0, 0, 0]], [11])
    points = gamma_mesh((3, 3, 3))
    neighbours = t.tetrahedron_neighbours(points, crystal)
    both = jnp.concatenate([v, jnp.asarray(points.q[:, :1])], axis=1)
    weights = jnp.asarray(points.weights)
    np.testing.assert_allclose(t.flat_share(v, neighbours, weights), 1)
    lost = float(t.flat_share(both, neighbours, weights))
    assert 0.5 <= lost < 1
    slope = jax.jit(jax.grad(lambda v: t.tetrahedron_weights(v, neighbours, grid).sum()))(both)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tetrahedra_with_equal_corners(count):
    """Some corners equal: still a density with integral 1."""
    rng = np.random.default_rng(count)
    values = np.concatenate([np.zeros(count), rng.uniform(0.3, 1, 4 - count)])
    for order in range(4):
        corners = jnp.asarray(np.roll(values, order))
        x = jnp.linspace(-0.1, 1.1, 60_001)
        curve = t._spline(x, t._knots(corners))
        np.testing.assert_allclose(jnp.trapezoid(curve, x), 1, rtol=2e-4)
        mean = (jnp.sum(corners) + corners[0]) / 5
        np.testing.assert_allclose(jnp.trapezoid(curve * x, x), mean, rtol=2e-4, atol=1e-5)


def test_derivatives_of_curves_by_eigenvalues():
    found, neighbours = on_mesh(reference.triclinic(), 3)
    # The last point away from the top, where the curve has a kink.
    nu = jnp.linspace(0.3, 0.97 * float(found.frequencies_THz.max()), 30)
    groups = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5)))
    along = jnp.asarray(np.random.default_rng(2).normal(size=found.eigenvalues.shape))
    along = along.at[0, :3].set(0.0)  # the translations at Γ
    pull = jnp.asarray(np.random.default_rng(3).normal(size=(2, 30)))

    @jax.jit
    def value(eigenvalues):
        curves = t.tetrahedron_dos(replace(found, eigenvalues=eigenvalues), neighbours, nu, groups)
        return jnp.sum(pull * curves)

    at = found.eigenvalues
    slope = jnp.sum(jax.jit(jax.grad(value))(at) * along)
    assert np.isfinite(slope)
    h = 1e-7
    points = [value(at + s * h * along) for s in (-2, -1, 1, 2)]
    expected = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
