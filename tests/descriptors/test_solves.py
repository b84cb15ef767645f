"""Displacements from Cholesky solves: against the eigenvector form, phonopy, and differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.checks import InputError
from phojax.descriptors.displacements import displacement_tensor_from_matrices
from phojax.descriptors.solves import (
    displacement_tensor_by_solves,
    rational_sum,
    stable_points,
)
from phojax.dynmat import dynamical_matrices
from phojax.spectral import eigenvalues
from phojax.structure import padded
from phojax.units import HBAR, KB

by_solves = jax.jit(displacement_tensor_by_solves)
by_eigenvectors = jax.jit(displacement_tensor_from_matrices)


def matrices(crystal, mesh=2):
    fc = reference.converted(crystal)
    q = jnp.asarray(reference.gamma_mesh(mesh))
    D = jax.jit(dynamical_matrices)(fc, q)
    return D, q, jnp.full(len(q), 1 / len(q)), fc.supercell.primitive


@pytest.mark.parametrize("temperature", [5.0, 60.0, 300.0, 2000.0])
@pytest.mark.parametrize("accuracy", [1e-6, 1e-12])
def test_sums_are_as_accurate_as_asked(temperature, accuracy):
    """Σ_k 2/(s + k²π²) against mpmath's coth, up to the highest λ."""
    highest = 1.3
    terms = rational_sum(highest, temperature, accuracy)
    reach = float(terms.reach)
    np.testing.assert_allclose(reach, highest * (HBAR / (2 * KB * temperature)) ** 2, rtol=1e-12)
    s = reach * np.asarray([1e-6, 1e-3, 0.1, 0.31, 0.77, 0.99, 1.0])
    found = np.asarray(terms(jnp.asarray(s)))
    with mpmath.workdps(40):
        for at, f in zip(s, found, strict=True):
            x = mpmath.sqrt(mpmath.mpf(float(at)))
            exact = x * mpmath.coth(x)
            assert abs((1 + float(at) * f) / float(exact) - 1) < accuracy


def test_colder_takes_more_terms_and_out_of_reach_is_refused():
    counts = [len(rational_sum(1.0, T).poles) for T in (2000.0, 300.0, 100.0, 10.0, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == 0
    for highest, T in ((0.0, 300.0), (1.0, 0.0), (np.nan, 300.0)):
        with pytest.raises(InputError, match="positive and finite"):
            rational_sum(highest, T)
    with pytest.raises(InputError, match="displacement_tensor_from_matrices"):
        rational_sum(1.0, 1e-3)
    with pytest.raises(InputError, match="accuracy"):
        rational_sum(1.0, 300.0, 1e-18)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_the_numbers_of_the_eigenvector_form(name):
    D, *rest = matrices(getattr(reference, name)())
    highest = float(eigenvalues(D).max()) * 1.02
    for T in (20.0, 300.0, 800.0):
        U = by_solves(D, *rest, T, rational_sum(highest, T))
        wanted = by_eigenvectors(D, *rest, T, 0.0)
        np.testing.assert_allclose(U, wanted, atol=3e-12 * float(jnp.max(wanted)), rtol=0)


def test_phonopys_tensors():
    crystal = reference.rocksalt()
    D, *rest = matrices(crystal, 4)
    crystal.run_mesh([4] * 3, is_gamma_center=True, is_mesh_symmetry=False, with_eigenvectors=True)
    crystal.run_thermal_displacement_matrices(temperatures=[300], freq_min=0.01)
    wanted = crystal.thermal_displacement_matrices.thermal_displacement_matrices[0].real
    terms = rational_sum(float(eigenvalues(D).max()), 300.0)
    U = by_solves(D, *rest, 300.0, terms)
    np.testing.assert_allclose(U, wanted, rtol=1e-6, atol=1e-6 * wanted.max())


@pytest.mark.parametrize("temperature", [60.0, 800.0])
def test_derivatives_to_second_order_at_degenerate_modes(temperature):
    D, q, w, crystal = matrices(reference.rocksalt())
    terms = rational_sum(1.3 * float(eigenvalues(D).max()), 0.9 * temperature)
    rng = np.random.default_rng(0)
    dD = jnp.asarray(rng.normal(size=D.shape) + 1j * rng.normal(size=D.shape)) * 1e-2
    dD = (dD + dD.conj().swapaxes(1, 2)) / 2
    weight = jnp.asarray(rng.normal(size=(2, 3, 3)))

    def along(h, m, T, solve=True):
        bent = replace(crystal, masses=crystal.masses * (1 + m))
        if solve:
            U = displacement_tensor_by_solves(D + h * dD, q, w, bent, T, terms)
        else:
            U = displacement_tensor_from_matrices(D + h * dD, q, w, bent, T, 0.0)
        return 100 * jnp.sum((weight + weight.swapaxes(1, 2)) * U)

    at = (0.0, 0.0, temperature)
    first = jax.jit(jax.grad(along, argnums=(0, 1, 2)))
    wanted = jax.jit(jax.grad(lambda *a: along(*a, solve=False), argnums=(0, 1, 2)))(*at)
    np.testing.assert_allclose(first(*at), wanted, rtol=1e-9)
    forward = jax.jit(jax.jacfwd(along))(*at)
    np.testing.assert_allclose(forward, wanted[0], rtol=1e-9)
    step = 1e-3
    points = [first(s * step, 0.0, temperature)[0] for s in (-2, -1, 1, 2)]
    curvature = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / (12 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(along)))(*at), curvature, rtol=1e-6)


def test_unstable_crystals_are_nan_and_known():
    D, q, w, crystal = matrices(reference.rocksalt())
    terms = rational_sum(float(eigenvalues(D).max()) * 1.5, 300.0)
    assert np.all(stable_points(D, q, crystal))
    shifted = D.at[3].add(-0.5 * float(eigenvalues(D).max()) * jnp.eye(6))
    np.testing.assert_array_equal(stable_points(shifted, q, crystal), np.arange(len(q)) != 3)
    assert np.all(np.isnan(by_solves(shifted, q, w, crystal, 300.0, terms)))
    # An optical mode at Γ below zero beside the translations.
    unstable = D.at[0].multiply(-1.0)
    assert not stable_points(unstable, q, crystal)[0]


def test_a_sum_used_beyond_its_reach_is_nan():
    D, q, w, crystal = matrices(reference.rocksalt())
    terms = rational_sum(float(eigenvalues(D).max()) / 4, 300.0)
    assert np.all(np.isnan(by_solves(D, q, w, crystal, 300.0, terms)))


def test_padding_does_not_matter():
    D, q, w, crystal = matrices(reference.rocksalt())
    terms = rational_sum(float(eigenvalues(D).max()), 300.0)
    wide = jnp.pad(D, ((0, 0), (0, 6), (0, 6)))
    U = by_solves(wide, q, w, padded(crystal, 4), 300.0, terms)
    np.testing.assert_allclose(
        U[:2], by_solves(D, q, w, crystal, 300.0, terms), rtol=1e-11, atol=1e-13
    )
    np.testing.assert_array_equal(U[2:], 0)
