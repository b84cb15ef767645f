"""Thermal displacements against phonopy, limits, and derivatives at degenerate modes."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.descriptors import displacements as d
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.container import force_constants
from phojax.structure import structure, supercell
from phojax.units import HBAR, KB, eigenvalue_from_THz

FLOOR = float(eigenvalue_from_THz(jnp.asarray(0.01)))


def on_mesh(crystal, mesh):
    fc = reference.converted(crystal)
    q = jnp.asarray(reference.gamma_mesh(mesh))
    return fc, reference.solved(fc, q)


mode_displacements = jax.jit(d.mode_displacements)
cumulative_displacements = jax.jit(d.cumulative_displacements)


@jax.jit
def tensors(found, temperature):
    return d.displacement_tensor(found, temperature, d.oscillators(found, FLOOR).kept)


def compare_with_phonopy(crystal, mesh, temperatures):
    """Γ-centred meshes, freq_min passed, and no symmetry: phonopy then sums over the same modes.

    The constants (kB, ħ, amu) of its CODATA and ours move U by about 1e-7 relative.
    """
    _, found = on_mesh(crystal, mesh)
    crystal.run_mesh(
        [mesh] * 3, is_gamma_center=True, is_mesh_symmetry=False, with_eigenvectors=True
    )
    crystal.run_thermal_displacement_matrices(temperatures=temperatures, freq_min=0.01)
    for T, U in zip(
        temperatures,
        crystal.thermal_displacement_matrices.thermal_displacement_matrices,
        strict=True,
    ):
        ours = tensors(found, T)
        np.testing.assert_allclose(ours, U.real, atol=1e-6 * np.abs(U).max(), rtol=1e-6)
    return found


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_tensors_are_phonopys(name):
    compare_with_phonopy(getattr(reference, name)(), 4, [0, 300, 800])


@pytest.mark.parametrize(("name", "mesh"), [("NaCl", 4), ("SnO2", 3), ("NaMgF3", 2)])
def test_tensors_are_phonopys_on_real_crystals(shared, name, mesh):
    crystal = reference.shared_crystal(shared, name)
    crystal.symmetrize_force_constants()
    compare_with_phonopy(crystal, mesh, [0, 300, 800])


def test_debye_waller_of_a_cubic_site_is_isotropic():
    _, found = on_mesh(reference.rocksalt(), 4)
    U = np.asarray(tensors(found, 300.0))
    np.testing.assert_allclose(U, U[:, :1, :1] * np.eye(3), atol=1e-14)
    measures = d.msd_axis(jnp.asarray(U), found.structure.numbers == 11)
    for value in (measures.mean, measures.largest, measures.largest_eigenvalue):
        np.testing.assert_allclose(value, U[0, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(d.msd_total(jnp.asarray(U)), 3 * U[:, 0, 0], rtol=1e-12)


def test_measures_along_axes_of_a_known_tensor():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    U = jnp.asarray([turn @ np.diag([0.1, 0.2, 0.6]) @ turn.T, np.diag([0.3, 0.1, 0.1])])
    both = d.msd_axis(U, jnp.asarray([True, True]))
    np.testing.assert_allclose(both.mean, (0.3 + 0.5 / 3) / 2)
    np.testing.assert_allclose(both.largest_eigenvalue, 0.6)
    one = d.msd_axis(U, jnp.asarray([False, True]))
    np.testing.assert_allclose([one.mean, one.largest, one.largest_eigenvalue], [0.5 / 3, 0.3, 0.3])


def einstein(k=2.0, mass=23.0):
    """Return one light atom bound to one that does not move: an Einstein solid."""
    crystal = structure(np.eye(3) * 4, [[0, 0, 0], [2, 2, 2]], [11, 53], [mass, 1e12])
    values = np.zeros((2, 16, 3, 3))
    values[0, 0] = values[1, 8] = k * np.eye(3)
    values[0, 8] = values[1, 0] = -k * np.eye(3)
    return force_constants(jnp.asarray(values), supercell(crystal, (2, 2, 2)))


@pytest.mark.parametrize("temperature", [0.0, 1.0, 300.0, 1e5])
def test_einstein_solid(temperature):
    """U = ħ coth(ħω/2kT)/2mω at every q, by hand; kT/k when hot."""
    k, mass = 2.0, 23.0
    fc = einstein(k, mass)
    found = reference.solved(fc, jnp.asarray([[0.0, 0, 0], [0.5, 0, 0]]))
    U = tensors(found, temperature)[0]
    omega = np.sqrt(k / mass)
    occupation = 0.0 if temperature == 0 else 1 / np.expm1(HBAR * omega / KB / temperature)
    np.testing.assert_allclose(
        U, HBAR / (2 * mass * omega) * (1 + 2 * occupation) * np.eye(3), rtol=1e-9, atol=1e-14
    )
    if temperature == 1e5:
        np.testing.assert_allclose(U[0, 0], KB * temperature / k, rtol=1e-6)


def test_matrix_function_gives_the_same_numbers():
    @jax.jit
    def from_matrices(fc, q, weights, T):
        D, crystal = dynamical_matrices(fc, q), fc.supercell.primitive
        return d.displacement_tensor_from_matrices(D, q, weights, crystal, T, FLOOR)

    for crystal in (reference.rocksalt(), reference.triclinic()):
        fc, found = on_mesh(crystal, 3)
        for T in (0.0, 300.0):
            U = from_matrices(fc, found.q, found.weights, T)
            np.testing.assert_allclose(U, tensors(found, T), atol=1e-12 * float(jnp.max(U)), rtol=0)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_derivatives_by_force_constants_masses_and_temperature(name):
    fc, found = on_mesh(getattr(reference, name)(), 3)

    def value(values, masses, T):
        primitive = replace(fc.supercell.primitive, masses=masses)
        changed = replace(fc, values=values, supercell=replace(fc.supercell, primitive=primitive))
        D = dynamical_matrices(changed, found.q)
        U = d.displacement_tensor_from_matrices(D, found.q, found.weights, primitive, T, FLOOR)
        return U[0, 0, 0] + 0.3 * U[1, 0, 1]

    # Random changes of Φ lift every degeneracy, and break the sum rule: the translations at Γ
    # stay out all the same.
    rng = np.random.default_rng(0)
    at = (fc.values, found.masses, jnp.asarray(300.0))
    along = (
        jnp.asarray(rng.normal(size=fc.values.shape)) * 1e-2,
        jnp.asarray(rng.normal(size=found.masses.shape)),
        jnp.asarray(30.0),
    )
    value = jax.jit(value)
    gradients = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*at)
    h = 1e-3
    for k, (g, change) in enumerate(zip(gradients, along, strict=True)):
        points = [
            value(*(a + s * h * change if n == k else a for n, a in enumerate(at)))
            for s in (-2, -1, 1, 2)
        ]
        expected = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * h)
        np.testing.assert_allclose(jnp.sum(g * change), expected, rtol=1e-6, atol=1e-12)


def test_modes_add_up_and_do_not_depend_on_the_eigenvectors_chosen():
    _, found = on_mesh(reference.rocksalt(), 4)
    kept = d.oscillators(found, FLOOR).kept
    per_mode = mode_displacements(found, 800.0, kept)
    total = jnp.einsum("q,qni->i", found.weights, per_mode)
    np.testing.assert_allclose(total, d.msd_total(tensors(found, 800.0)), rtol=1e-13)
    turned = reference.rotated_in_blocks(found)
    np.testing.assert_allclose(
        mode_displacements(turned, 800.0, kept), per_mode, atol=1e-13 * float(jnp.max(per_mode))
    )
    np.testing.assert_allclose(
        d.displacement_tensor(turned, 800.0, kept), tensors(found, 800.0), atol=1e-14
    )


def test_cumulative_displacements_end_at_the_total():
    _, found = on_mesh(reference.triclinic(), 3)
    kept = d.oscillators(found, FLOOR).kept
    per_mode = mode_displacements(found, 300.0, kept)
    nu = jnp.linspace(0.0, 1.001 * float(found.frequencies_THz.max()), 40)
    curve = cumulative_displacements(found, per_mode, nu)
    np.testing.assert_allclose(curve[-1], d.msd_total(tensors(found, 300.0)), rtol=1e-12)
    assert np.all(np.diff(curve, axis=0) >= 0)
    middle = 17
    by_hand = np.einsum(
        "q,qn,qni->i", found.weights, np.asarray(found.frequencies_THz) <= nu[middle], per_mode
    )
    np.testing.assert_allclose(curve[middle], by_hand, rtol=1e-12)
    np.testing.assert_allclose(
        d.share_below(found, per_mode, float(nu[middle])), by_hand / curve[-1], rtol=1e-12
    )


def test_what_is_left_out_is_counted():
    crystal = structure(np.diag([3.0, 3.1, 3.2]), [[0, 0, 0], [1.5, 1.6, 1.7]], [11, 53])
    optical = np.diag([-0.5, 1.0, 2.0])
    values = np.zeros((2, 16, 3, 3))
    values[0, 0] = values[1, 8] = optical
    values[0, 8] = values[1, 0] = -optical
    fc = force_constants(jnp.asarray(values), supercell(crystal, (2, 2, 2)))
    q = jnp.asarray([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0.1], [0, 0, 0.25]])
    found = reference.solved(fc, q)
    seen = d.oscillators(found, FLOOR)
    # One imaginary mode at every q, and the three zeros that are no translations away from Γ.
    assert int(seen.translations.sum()) == 3
    assert int(seen.count_imaginary) == 1 + 3 * 4
    np.testing.assert_allclose(seen.lost, 13 / 24)
    D = dynamical_matrices(fc, q)
    counted = jax.jit(d.eigenvalue_count_below)(D, q, crystal, FLOOR)
    np.testing.assert_array_equal(counted, seen.imaginary.sum(axis=1))
    assert np.all(np.isfinite(d.displacement_tensor(found, 300.0, seen.kept)))


def test_listed_displacements_of_NaCl_and_SnO2(shared):
    """The values of phonopy's own test suite, which hold the non-analytic term: with its D(q)."""
    expected = shared / "data" / "oracles" / "expected"
    q = reference.gamma_mesh(5)
    listed = json.loads((expected / "NaCl_thermal_displacements_555.json").read_text())["values"]
    found = reference.modes_of_phonopys_matrices(
        reference.shared_crystal(shared, "NaCl", nac=True), q
    )
    for T, U in zip(listed["T"], listed["U_A2"], strict=True):
        along = jnp.diagonal(tensors(found, T), axis1=1, axis2=2)
        np.testing.assert_allclose(along.reshape(-1), U, atol=1e-5)
    listed = json.loads((expected / "SnO2_thermal_displacement_matrices_555.json").read_text())
    found = reference.modes_of_phonopys_matrices(
        reference.shared_crystal(shared, "SnO2", nac=True), q
    )
    for T, U in zip(listed["values"]["T"], listed["values"]["U_A2"], strict=True):
        np.testing.assert_allclose(tensors(found, T), U, atol=1e-5)


def test_variance_limits():
    x = jnp.asarray([1e-3, 0.1, 2.0])
    np.testing.assert_allclose(d.oscillator_variance(x, 0.0), HBAR / (2 * np.sqrt(x)))
    np.testing.assert_allclose(d.oscillator_variance(x, 1e6), KB * 1e6 / x, rtol=1e-6)
    slope = jax.vmap(jax.grad(d.oscillator_variance), in_axes=(0, None))(x, 0.0)
    np.testing.assert_allclose(slope, -HBAR / 4 / x**1.5)
    assert np.all(np.isfinite(jax.jacfwd(d.oscillator_variance, argnums=1)(x, 0.0)))
