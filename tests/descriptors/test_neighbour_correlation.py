"""Correlated displacements of neighbours against the covariance of a whole supercell."""

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.descriptors.neighbour_correlation import neighbour_correlation_from_matrices
from phojax.dynmat import dynamical_matrices
from phojax.structure import commensurate_points
from phojax.units import HBAR, KB

T, CUTOFF, SOFTNESS = 300.0, 3.2, 0.2


def of_supercell(crystal):
    """Return eq. (1) from the covariance matrix of all atoms of phonopy's supercell."""
    Phi = np.asarray(crystal.force_constants).swapaxes(1, 2)
    cells = crystal.supercell
    n, m = len(cells), np.repeat(np.asarray(cells.masses), 3)
    values, E = np.linalg.eigh(Phi.reshape(3 * n, 3 * n) / np.sqrt(np.outer(m, m)))
    omega = np.sqrt(values[3:])
    g = HBAR / np.tanh(HBAR * omega / (2 * KB * T)) / (2 * omega)
    cov = np.einsum("xn,n,yn->xy", E[:, 3:], g, E[:, 3:]) / np.sqrt(np.outer(m, m))
    cov = np.trace(cov.reshape(n, 3, n, 3), axis1=1, axis2=3)
    x, box, Z = (
        np.asarray(cells.scaled_positions),
        np.asarray(cells.cell),
        np.asarray(cells.numbers),
    )
    top = mobile = host = 0.0
    for i in np.flatnonzero(Z == 11):
        for j in np.flatnonzero(Z != 11):
            for L in np.ndindex(3, 3, 3):
                r = np.linalg.norm((x[j] - x[i] + np.array(L) - 1) @ box)
                w = 1 / (1 + np.exp((r - CUTOFF) / SOFTNESS))
                top, mobile, host = (
                    top + w * cov[i, j],
                    mobile + w * cov[i, i],
                    host + w * cov[j, j],
                )
    return top / np.sqrt(mobile * host)


def correlated(fc, D, q):
    crystal = fc.supercell.primitive
    return neighbour_correlation_from_matrices(
        D, q, jnp.full(len(q), 1 / len(q)), crystal, crystal.numbers == 11, T, 1e-6,
        cutoff=CUTOFF, softness=SOFTNESS,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_against_the_covariance_of_a_supercell(name):
    given = getattr(reference, name)()
    if given.force_constants.shape[0] != given.force_constants.shape[1]:
        pytest.fail("the reference needs all rows")
    fc = reference.converted(given)
    q = jnp.asarray(commensurate_points(fc.supercell))
    found = correlated(fc, dynamical_matrices(fc, q), q)
    np.testing.assert_allclose(found, of_supercell(given), rtol=1e-8)
    assert 0 < found < 1


def test_derivative_at_degenerate_modes():
    fc = reference.converted(reference.rocksalt())
    q = jnp.asarray(reference.gamma_mesh(2))
    D = dynamical_matrices(fc, q)
    rng = np.random.default_rng(0)
    change = rng.normal(size=D.shape) + 1j * rng.normal(size=D.shape)
    change = 0.01 * jnp.asarray(change + change.conj().swapaxes(1, 2))

    def f(t):
        return correlated(fc, D + t * change, q)

    h = 1e-4
    np.testing.assert_allclose(jax.grad(f)(0.0), (f(h) - f(-h)) / (2 * h), rtol=1e-6)
