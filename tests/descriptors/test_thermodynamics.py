"""Thermodynamic functions against phonopy, thermodynamic identities, limits, derivatives."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy.physical_units import get_physical_units

from phojax.descriptors import thermodynamics as t
from phojax.descriptors.displacements import oscillators
from phojax.dynmat import dynamical_matrices
from phojax.units import HBAR, KB, eigenvalue_from_THz

FLOOR = float(eigenvalue_from_THz(jnp.asarray(0.01)))


@jax.jit
def sums(found, temperatures):
    kept = oscillators(found, FLOOR).kept
    return jax.vmap(lambda T: t.thermodynamics(found, T, kept))(temperatures)


@jax.jit
def sums_from_matrices(fc, q, temperature):
    D, crystal = dynamical_matrices(fc, q), fc.supercell.primitive
    weights = jnp.full(len(q), 1 / len(q))
    return t.thermodynamics_from_matrices(D, q, weights, crystal, temperature, FLOOR)


def on_mesh(crystal, mesh):
    fc = reference.converted(crystal)
    return fc, reference.solved(fc, jnp.asarray(reference.gamma_mesh(mesh)))


def compare_with_phonopy(crystal, mesh):
    temperatures = np.array([0.0, 1.0, 20.0, 300.0, 3000.0])
    crystal.run_mesh([mesh] * 3, is_gamma_center=True, is_mesh_symmetry=False)
    crystal.run_thermal_properties(
        temperatures=temperatures, cutoff_frequency=0.01, exclude_gamma_acoustic=True
    )
    theirs = crystal.thermal_properties
    _, found = on_mesh(crystal, mesh)
    # Its constants are of another year: ħω is a times ours, and its kB is b times ours.
    units = get_physical_units()
    a, b = units.DefaultToTHz * units.THzToEv / HBAR, units.KB / KB
    assert abs(a - 1) < 3e-6
    assert abs(b - 1) < 3e-6
    ours = sums(found, jnp.asarray(temperatures * b / a))
    c = units.EvTokJmol
    scale = 1e-9 * np.abs(theirs.free_energy).max()
    np.testing.assert_allclose(c * a * ours.free_energy, theirs.free_energy, atol=scale)
    for mine, value in ((ours.entropy, theirs.entropy), (ours.heat_capacity, theirs.heat_capacity)):
        np.testing.assert_allclose(1e3 * c * b * mine, value, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(t.kJ_per_mol(jnp.asarray(1.0)), c, rtol=1e-5)
    np.testing.assert_allclose(t.J_per_K_mol(jnp.asarray(1.0)), 1e3 * c, rtol=1e-5)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_functions_are_phonopys(name):
    compare_with_phonopy(getattr(reference, name)(), 3)


def test_functions_are_phonopys_on_a_real_crystal(shared):
    crystal = reference.shared_crystal(shared, "NaMgF3")
    crystal.symmetrize_force_constants()
    compare_with_phonopy(crystal, 2)


def test_identities():
    """S = −dF/dT, C = T dS/dT, and energy = −T² d(F/T)/dT, by derivatives."""
    _, found = on_mesh(reference.triclinic(), 3)
    kept = oscillators(found, FLOOR).kept

    def at(T):
        return t.thermodynamics(found, T, kept)

    for T in (3.0, 100.0, 2000.0):
        here, slope = at(T), jax.jacfwd(at)(T)
        np.testing.assert_allclose(here.entropy, -slope.free_energy, rtol=1e-12, atol=1e-20)
        np.testing.assert_allclose(here.heat_capacity, T * slope.entropy, rtol=1e-11, atol=1e-20)
        np.testing.assert_allclose(here.energy, here.free_energy - T * slope.free_energy)


def test_limits_of_temperature():
    _, found = on_mesh(reference.triclinic(), 3)
    kept = oscillators(found, FLOOR).kept
    cold, hot = t.thermodynamics(found, 0.0, kept), t.thermodynamics(found, 1e5, kept)
    zero_point = jnp.sum(jnp.where(kept, HBAR * jnp.sqrt(jnp.abs(found.eigenvalues)) / 2, 0)) / 27
    np.testing.assert_allclose(cold.free_energy, zero_point, rtol=1e-13)
    assert float(cold.entropy) == float(cold.heat_capacity) == 0
    # Dulong, Petit; the three translations of the 27 points are left out.
    np.testing.assert_allclose(hot.heat_capacity, (15 - 3 / 27) * KB, rtol=1e-5)
    np.testing.assert_allclose(hot.energy, hot.heat_capacity * 1e5, rtol=1e-5)
    for T in (0.0, 1e-300, 1e-3):
        slope = jax.jacfwd(lambda T: t.thermodynamics(found, T, kept))(T)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slope))


@pytest.mark.parametrize("temperature", [0.5, 30.0, 300.0])
def test_one_oscillator(temperature):
    """By hand, from its levels."""
    omega = 0.03 / HBAR
    levels = 0.03 * (np.arange(400) + 0.5)
    weight = np.exp(-(levels - levels[0]) / (KB * temperature))
    mean = np.sum(levels * weight) / weight.sum()
    variance = np.sum((levels - mean) ** 2 * weight) / weight.sum()
    F = levels[0] - KB * temperature * np.log(weight.sum())
    at = (jnp.asarray(omega**2), temperature)
    np.testing.assert_allclose(t.oscillator_free_energy(*at), F, rtol=1e-12)
    np.testing.assert_allclose(
        t.oscillator_entropy(*at), (mean - F) / temperature, rtol=1e-10, atol=1e-16
    )
    np.testing.assert_allclose(
        t.oscillator_heat_capacity(*at), variance / (KB * temperature**2), rtol=1e-10, atol=1e-16
    )


def test_matrix_functions_give_the_same_numbers():
    for crystal in (reference.rocksalt(), reference.triclinic()):
        fc, found = on_mesh(crystal, 3)
        for T in (0.0, 300.0):
            ours = sums_from_matrices(fc, found.q, T)
            expected = jax.tree.map(lambda x: x[0], sums(found, jnp.asarray([T])))
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_derivatives_by_force_constants_masses_and_temperature(name):
    fc, found = on_mesh(getattr(reference, name)(), 3)
    check_derivatives(fc, found)


def test_derivatives_on_NaCl(shared):
    fc, found = on_mesh(reference.shared_crystal(shared, "NaCl"), 3)
    check_derivatives(fc, found)


def check_derivatives(fc, found):
    def value(values, masses, T):
        primitive = replace(fc.supercell.primitive, masses=masses)
        changed = replace(fc, values=values, supercell=replace(fc.supercell, primitive=primitive))
        at = sums_from_matrices(changed, found.q, T)
        return jnp.stack([at.free_energy, 300 * at.entropy, 1000 * at.heat_capacity])

    rng = np.random.default_rng(0)
    at = (fc.values, found.masses, jnp.asarray(300.0))
    along = (
        jnp.asarray(rng.normal(size=fc.values.shape)) * 1e-2,
        jnp.asarray(rng.normal(size=found.masses.shape)),
        jnp.asarray(30.0),
    )
    value = jax.jit(value)
    gradients = jax.jit(jax.jacrev(value, argnums=(0, 1, 2)))(*at)
    h = 1e-3
    for k, (g, change) in enumerate(zip(gradients, along, strict=True)):
        points = [
            value(*(a + s * h * change if n == k else a for n, a in enumerate(at)))
            for s in (-2, -1, 1, 2)
        ]
        expected = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * h)
        ours = jnp.sum((g * change).reshape(3, -1), axis=1)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)


def test_second_derivatives():
    """By two force constants: trace functions hold twice."""
    fc, found = on_mesh(reference.rocksalt(), 2)
    rng = np.random.default_rng(5)
    a, b = (jnp.asarray(rng.normal(size=fc.values.shape)) * 1e-2 for _ in range(2))

    def F(x, y):
        changed = replace(fc, values=fc.values + x * a + y * b)
        return sums_from_matrices(changed, found.q, 300.0).free_energy

    slope = jax.jit(jax.grad(F))
    second = jax.jit(jax.grad(jax.grad(F), argnums=1))(0.0, 0.0)
    h = 1e-3
    points = [slope(0.0, s * h) for s in (-2, -1, 1, 2)]
    expected = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * h)
    np.testing.assert_allclose(second, expected, rtol=1e-6)
