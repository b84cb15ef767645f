"""Densities of states and their moments: laws, phonopy, and derivatives."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
import scipy.stats

from phojax.descriptors import dos
from phojax.descriptors.displacements import oscillators
from phojax.dynmat import dynamical_matrices
from phojax.units import eigenvalue_from_THz

FLOOR = float(eigenvalue_from_THz(jnp.asarray(0.01)))
gaussian_dos = jax.jit(dos.gaussian_dos)
moments = jax.jit(dos.moments)
moments_from_matrices = jax.jit(dos.moments_from_matrices)


def on_mesh(crystal, mesh):
    fc = reference.converted(crystal)
    return fc, reference.solved(fc, jnp.asarray(reference.gamma_mesh(mesh)))


def compare_with_phonopy(crystal, mesh, width=0.2):
    _, found = on_mesh(crystal, mesh)
    names, groups = dos.species_groups(found.structure)
    crystal.run_mesh(
        [mesh] * 3, is_gamma_center=True, is_mesh_symmetry=False, with_eigenvectors=True
    )
    crystal.run_projected_dos(sigma=width, freq_pitch=0.05, use_tetrahedron_method=False)
    theirs = crystal.projected_dos
    # Frequencies of different constants: shift the grid by their ratio, 1e-7.
    ratio = reference.constants_ratio()
    nu = jnp.asarray(np.asarray(theirs.frequency_points) / ratio)
    ours = gaussian_dos(found, nu, width / ratio, groups) / ratio
    by_atom = np.asarray(theirs.projected_dos)
    # Its translations at Γ are off 0 by the root of a rounding error; the slope of a Gaussian is
    # at most 0.25/σ².
    rounding = 3 * np.abs(crystal.mesh.frequencies[0, :3]).max() / mesh**3 * 0.25 / width**2
    assert rounding < 1e-5
    for name, curve, atoms in zip(names, ours, np.asarray(groups), strict=True):
        expected = by_atom[atoms].sum(0)
        np.testing.assert_allclose(curve, expected, atol=rounding + 1e-9, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_smeared_densities_are_phonopys(name):
    compare_with_phonopy(getattr(reference, name)(), 3)


def test_smeared_densities_are_phonopys_on_real_crystals(shared):
    crystal = reference.shared_crystal(shared, "NaMgF3")
    crystal.symmetrize_force_constants()
    compare_with_phonopy(crystal, 2)


def test_moments_of_NaCl_are_the_published_ones(shared):
    """Raw moments of order 1 and 2 of phonopy's test suite, which has the non-analytic term.

    Its force constants miss the sum rule, so that the translations at Γ come out at −0.04 THz and
    are left out there as they are here.
    """
    file = shared / "data" / "oracles" / "expected" / "NaCl_moments_13.json"
    listed = json.loads(file.read_text())["values"]
    crystal = reference.shared_crystal(shared, "NaCl", nac=True, sum_rule=False)
    found = reference.modes_of_phonopys_matrices(crystal, reference.gamma_mesh(13))
    _, groups = dos.species_groups(found.structure)
    ours = moments(found, groups, oscillators(found, FLOOR).kept)
    np.testing.assert_allclose(ours.centre, listed[1], atol=1e-5)
    np.testing.assert_allclose(ours.deviation**2 + ours.centre**2, listed[2], atol=1e-4)


def test_curves_hold_all_modes_and_species_add_up():
    _, found = on_mesh(reference.triclinic(), 2)
    names, groups = dos.species_groups(found.structure)
    assert names == ["total", "Na", "S", "Cl"]
    nu = jnp.linspace(-3, float(found.frequencies_THz.max()) + 3, 2000)
    curves = gaussian_dos(found, nu, 0.2, groups)
    np.testing.assert_allclose(jnp.trapezoid(curves, nu), [15, 6, 3, 6], rtol=1e-10)
    np.testing.assert_allclose(curves[0], curves[1:].sum(0), atol=1e-12)
    turned = gaussian_dos(reference.rotated_in_blocks(found), nu, 0.2, groups)
    np.testing.assert_allclose(turned, curves, atol=1e-6)


def test_moments_are_those_of_weighted_samples():
    _, found = on_mesh(reference.triclinic(), 2)
    groups = jnp.ones((1, 5), bool)
    kept = oscillators(found, FLOOR).kept
    ours = moments(found, groups, kept)
    sample = np.asarray(found.frequencies_THz)[np.asarray(kept)]
    np.testing.assert_allclose(ours.centre[0], sample.mean(), rtol=1e-12)
    np.testing.assert_allclose(ours.deviation[0], sample.std(), rtol=1e-12)
    np.testing.assert_allclose(ours.skewness[0], scipy.stats.skew(sample), rtol=1e-10)
    np.testing.assert_allclose(ours.kurtosis[0], scipy.stats.kurtosis(sample), rtol=1e-10)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_moments_as_matrix_functions_and_their_derivatives(name):
    fc, found = on_mesh(getattr(reference, name)(), 2)
    _, groups = dos.species_groups(found.structure)
    at = (found.q, found.weights, found.structure, groups, FLOOR)
    D = dynamical_matrices(fc, found.q)
    expected = moments(found, groups, oscillators(found, FLOOR).kept)
    for a, b in zip(
        jax.tree.leaves(moments_from_matrices(D, *at)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

    change = jnp.asarray(np.random.default_rng(0).normal(size=fc.values.shape)) * 1e-2

    @jax.jit
    def value(h):
        D = dynamical_matrices(replace(fc, values=fc.values + h * change), found.q)
        m = dos.moments_from_matrices(D, *at)
        return jnp.stack([m.centre[1], m.deviation[1], m.skewness[1], m.kurtosis[1]])

    h = 1e-3
    expected = (value(-2 * h) - 8 * value(-h) + 8 * value(h) - value(2 * h)) / (12 * h)
    np.testing.assert_allclose(jax.jacfwd(value)(0.0), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(jax.jacrev(value)(0.0), expected, rtol=1e-6, atol=1e-9)


def test_width_and_overlap_of_known_curves():
    nu = jnp.linspace(-10, 20, 30001)
    a, b = (jnp.exp(-0.5 * ((nu - c) / 0.5) ** 2) for c in (3.0, 4.0))
    # A Gaussian falls to 1 % at σ √(2 ln 100) on either side.
    np.testing.assert_allclose(dos.curve_width(nu, a), np.sqrt(2 * np.log(100)), rtol=1e-6)
    # Two equal Gaussians a distance d apart overlap by 2 Φ(−d/2σ).
    both = 2 * scipy.stats.norm.cdf(-1.0)
    np.testing.assert_allclose(dos.dos_overlap(nu, 7 * a, b), both, rtol=1e-6)
    np.testing.assert_allclose(
        dos.dos_overlap(nu, a, b, 3.50005), both / 2, rtol=3e-4
    )  # symmetric about 3.5 THz
    np.testing.assert_allclose(dos.dos_overlap(nu, a, a), 1.0, rtol=1e-12)
    np.testing.assert_allclose(dos.dos_overlap(nu, a, b, 3.0), scipy.stats.norm.cdf(-2), rtol=1e-5)
    box = jnp.where((nu > 1) & (nu < 5), 1.0, 0.0)
    np.testing.assert_allclose(dos.curve_width(nu, box), 4.0, atol=2e-3)
    np.testing.assert_allclose(dos.centre_to_cutoff(jnp.asarray(3.0), jnp.asarray(1.5)), 2.0)
