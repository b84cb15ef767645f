"""Groups of bands: against sums over modes, and derivatives against differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.checks import InputError
from phojax.descriptors import groups as g
from phojax.descriptors.coupling import bonds, coupling
from phojax.descriptors.dos import gaussian_dos
from phojax.descriptors.participation import participation_ratio
from phojax.dynmat import dynamical_matrices
from phojax.modes import atomic_weights, translations
from phojax.spectral import eigenvalues
from phojax.units import THZ

Q = jnp.asarray([[0.5, 0.5, 0.0], [0.5, 0.0, 0.0], [0.2, 0.1, 0.4]])


@pytest.fixture(scope="module")
def salt():
    fc = reference.converted(reference.rocksalt())
    D = dynamical_matrices(fc, Q)
    rng = np.random.default_rng(0)
    dD = rng.normal(size=D.shape) + 1j * rng.normal(size=D.shape)
    dD = jnp.asarray(dD + dD.conj().swapaxes(1, 2)) * 1e-2
    among = bonds(fc.supercell.primitive, jnp.asarray([True, False]), 3.0)
    return D, dD, fc.supercell.primitive, among, fc


def check_derivative(f, D, dD, rtol=1e-6):
    f = jax.jit(f)
    found = jax.jit(lambda D: jax.jvp(f, (D,), (dD,))[1])(D)
    h = 2e-3

    def central(h):
        a, b, c, d = (f(D + s * h * dD) for s in (-2, -1, 1, 2))
        return (a - 8 * b + 8 * c - d) / (12 * h)

    wanted = (16 * central(h / 2) - central(h)) / 15
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())
    weight = jnp.cos(jnp.arange(1.0, found.size + 1)).reshape(found.shape)
    pulled = jax.jit(jax.grad(lambda D: jnp.sum(weight * f(D))))(D)
    np.testing.assert_allclose(jnp.sum(pulled * dD).real, jnp.sum(weight * found), rtol=1e-8)


def groups_apart(D):
    """Return groups of bands at least 0.05 THz apart at all q, one of them degenerate inside."""
    count = D.shape[-1]
    cuts = [0, *[k for k in range(1, count) if np.all(g.group_gaps(D, (0, k)) > 0.06)], count]
    return [(a, b) for a, b in itertools.pairwise(cuts)]


def test_groups_are_sums_over_modes(salt):
    D, _, crystal, among, fc = salt
    found = reference.solved(fc, Q)
    weights, e = atomic_weights(found), np.asarray(found.eigenvectors)
    apart = groups_apart(D)
    assert any(b - a > 1 for a, b in apart)
    C = np.asarray(coupling(found, among))
    for first, stop in apart:
        w = g.group_atomic_weights_from_matrix(D, (first, stop))
        np.testing.assert_allclose(w, weights[:, first:stop].mean(axis=1), atol=1e-12)
        np.testing.assert_allclose(participation_ratio(w), 1 / (2 * np.sum(w**2, axis=1)))
        got = g.group_coupling_from_matrix(D, Q, crystal, among, (first, stop))
        x = np.asarray(crystal.fractional)
        vectors = x[among.host] + np.asarray(among.image) - x[among.mobile]
        phase = np.exp(2j * np.pi * np.asarray(Q) @ vectors.T)
        own, others = e[:, first:stop, among.mobile], e[:, first:stop, among.host]
        top = np.einsum("qnba,qnba,qb->q", own.conj(), others, phase).real
        norm = [np.sum(np.abs(v) ** 2, axis=(1, 2, 3)) for v in (own, others)]
        rests = np.minimum(*norm) < 1e-10
        np.testing.assert_array_equal(np.isnan(got), rests)
        size = np.sqrt(norm[0] * norm[1])
        np.testing.assert_allclose(got[~rests], (top / size)[~rests], atol=1e-12)
        if stop - first == 1:
            np.testing.assert_allclose(got[~rests], C[~rests, first], atol=1e-12)


def test_derivatives_of_groups(salt):
    D, dD, crystal, among, _ = salt
    # At X and L one sublattice rests in some modes, where coupling is undefined.
    D, dD = D[2:], dD[2:]
    q = Q[2:]
    for bands in groups_apart(D):
        if bands == (0, D.shape[-1]):
            continue
        check_derivative(lambda D, b=bands: g.group_atomic_weights_from_matrix(D, b), D, dD)
        check_derivative(
            lambda D, b=bands: g.group_coupling_from_matrix(D, q, crystal, among, b), D, dD
        )


def known(nu):
    rng = np.random.default_rng(1)
    E, _ = np.linalg.qr(rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6)))
    return jnp.asarray((E * (np.asarray(nu) / THZ) ** 2) @ E.conj().T)[None]


def test_close_groups_raise_and_are_nan_under_jit():
    D = known([1.0, 1.0, 2.0, 2.04, 3.0, 4.0])
    np.testing.assert_allclose(g.group_gaps(D, (0, 3)), 0.04, rtol=1e-6)
    with pytest.raises(InputError, match=r"bands 0 to 2 are 0\.04 THz from others"):
        g.group_atomic_weights_from_matrix(D, (0, 3))
    assert np.all(np.isnan(jax.jit(lambda D: g.group_atomic_weights_from_matrix(D, (0, 3)))(D)))
    assert np.all(np.isfinite(g.group_atomic_weights_from_matrix(D, (0, 2))))
    with pytest.raises(InputError, match="first < stop"):
        g.group_atomic_weights_from_matrix(D, (4, 9))
    with pytest.raises(InputError, match=r"band 2 is 0\.04 THz"):
        g.group_top_from_matrix(D)
    np.testing.assert_allclose(g.group_top_from_matrix(D, (4, 6)), 4.0, rtol=1e-10)


def test_second_derivatives_raise():
    D = known([1.0, 1.0, 2.0, 2.5, 3.0, 4.0])
    dD = jnp.eye(6)[None] + 0j

    def f(h):
        return g.group_atomic_weights_from_matrix(D + h * dD, (0, 2))[0, 0]

    with pytest.raises(InputError, match="second derivative"):
        jax.jit(jax.grad(jax.grad(f)))(0.0)
    with pytest.raises(InputError, match="one derivative too many"):
        jax.jit(jax.grad(jax.grad(lambda h: g.group_top_from_matrix(D + h * dD, (4, 6)))))(0.0)


def test_top_of_a_group(salt):
    D = known([1.0, 1.0, 2.0, 2.5, 3.0, 4.0])
    dD = salt[1][:1]
    check_derivative(lambda D: g.group_top_from_matrix(D)[None], D, dD)


def test_smooth_forms(salt):
    D, dD, crystal, _, fc = salt
    w = jnp.full(len(Q), 1 / len(Q))
    check_derivative(lambda D: g.windowed_atomic_weights(D, Q, w, crystal, 3.0, 0.4), D, dD)
    check_derivative(
        lambda D: g.smooth_dos_from_matrices(D, Q, w, crystal, jnp.asarray([3.0]), 0.4)[:, 0], D, dD
    )
    check_derivative(lambda D: g.smooth_acoustic_top(D, 0.02, 5.0)[None], D, dD)
    # Their limits.
    sharp = float(jnp.max(jnp.sqrt(eigenvalues(D)[:, 2]))) * THZ
    np.testing.assert_allclose(g.smooth_acoustic_top(D, 1e-5, 200.0), sharp, rtol=5e-3)
    q = jnp.asarray(reference.gamma_mesh(2))
    found = reference.solved(fc, q)
    axis, each = jnp.asarray([1.0, 3.0]), jnp.eye(2, dtype=bool)
    wanted = gaussian_dos(found, axis, 0.5, each, ~translations(found))
    D = dynamical_matrices(fc, q)
    curve = g.smooth_dos_from_matrices(D, q, found.weights, crystal, axis, 0.5)
    np.testing.assert_allclose(curve, wanted, rtol=1e-10)
