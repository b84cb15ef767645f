"""Functions of matrices: values against scipy, derivatives against differences and mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.linalg

from phojax import spectral
from phojax.checks import InputError

CUBIC = [1.0, 1.0, 1.0, 2.5, 4.0, 4.0]
NEARLY = [1.0, 1.0 + 1e-11, 1.0 + 1e-7, 2.5, 4.0, 4.0 + 1e-5]


def hermitian(values, seed=0, real=False):
    rng = np.random.default_rng(seed)
    n = len(values)
    A = rng.normal(size=(n, n)) + (0 if real else 1j) * rng.normal(size=(n, n))
    Q, _ = np.linalg.qr(A)
    return jnp.asarray((Q * values) @ Q.conj().T)


def direction(n, seed=1):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    return jnp.asarray((A + A.conj().T) / np.linalg.norm(A))


def coth_over_root(x, T):
    return 1 / (jnp.sqrt(x) * jnp.tanh(jnp.sqrt(x) / T))


@pytest.mark.parametrize("values", [CUBIC, NEARLY, [0.1, 0.7, 1.3, 2.0, 2.9, 5.0]])
@pytest.mark.parametrize(
    ("f", "reference"),
    [
        (jnp.exp, scipy.linalg.expm),
        (jnp.sqrt, scipy.linalg.sqrtm),
        (jnp.log, scipy.linalg.logm),
        (lambda x: 1 / x, np.linalg.inv),
    ],
)
def test_values_are_those_of_scipy(values, f, reference):
    D = hermitian(values)
    np.testing.assert_allclose(
        spectral.matrix_function(f, D), reference(np.asarray(D)), rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(
        spectral.trace_function(f, D), np.trace(reference(np.asarray(D))).real, rtol=1e-12
    )


@pytest.mark.parametrize("values", [CUBIC, NEARLY])
def test_first_derivative_of_the_exponential_is_scipys_frechet_derivative(values):
    D, dD = hermitian(values), direction(6)
    _, dF = jax.jvp(lambda D: spectral.matrix_function(jnp.exp, D), (D,), (dD,))
    expected = scipy.linalg.expm_frechet(np.asarray(D), np.asarray(dD), compute_expm=False)
    np.testing.assert_allclose(dF, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("values", [CUBIC, NEARLY])
def test_derivatives_against_finite_differences_where_eigenvalues_coincide(values):
    D, dD = hermitian(values), direction(6)
    weight = direction(6, seed=2)

    def value(D, T):
        F = spectral.matrix_function(coth_over_root, D, T)
        return jnp.sum((weight.conj() * F).real)

    def central(g, h):
        return (8 * (g(h) - g(-h)) - (g(2 * h) - g(-2 * h))) / (12 * h)

    _, forward = jax.jvp(value, (D, 0.9), (dD, 0.0))
    np.testing.assert_allclose(forward, central(lambda h: value(D + h * dD, 0.9), 1e-3), rtol=1e-9)
    # Reverse: jax's gradient of a real function of complex D is the conjugate.
    reverse = jax.jit(jax.grad(value))(D, 0.9)
    np.testing.assert_allclose(jnp.sum(reverse * dD).real, forward, rtol=1e-12)
    slope = jax.grad(value, argnums=1)(D, 0.9)
    np.testing.assert_allclose(slope, central(lambda h: value(D, 0.9 + h), 1e-3), rtol=1e-9)


def test_batches_jit_and_vmap_agree():
    D = jnp.stack([hermitian(CUBIC), hermitian(NEARLY, seed=4)])
    dD = jnp.stack([direction(6), direction(6, seed=5)])

    def push(D, dD):
        return jax.jvp(lambda D: spectral.matrix_function(coth_over_root, D, 0.9), (D,), (dD,))

    together, single = jax.jit(push)(D, dD), [push(*pair) for pair in zip(D, dD, strict=True)]
    for a, b, c in zip(together, jax.vmap(push)(D, dD), zip(*single, strict=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(a, jnp.stack(c), rtol=1e-11, atol=1e-12)


def oscillator(x):
    return mpmath.coth(mpmath.sqrt(x) / mpmath.mpf("0.3")) / mpmath.sqrt(x)


@pytest.mark.parametrize(
    ("f", "exact"),
    [
        (lambda x: coth_over_root(x, 0.3), oscillator),
        (jnp.sqrt, mpmath.sqrt),
        (jnp.exp, mpmath.exp),
        (lambda x: 1 / x, lambda x: 1 / x),
        (lambda x: jnp.exp(-0.5 * ((jnp.sqrt(x) - 0.5) / 0.01) ** 2),
         lambda x: mpmath.exp(-((mpmath.sqrt(x) - 0.5) / mpmath.mpf(0.01)) ** 2 / 2)),
    ],
    ids=["coth", "sqrt", "exp", "inverse", "narrow Gaussian"],
)  # fmt: skip
@pytest.mark.parametrize("base", [1e-4, 0.26, 3.0])
def test_divided_differences_are_good_at_any_gap(f, exact, base):
    """The quotient alone loses up to 12 digits here, the mean slope alone 4."""
    gaps = base * np.logspace(-15, -1, 57)
    x = np.stack([np.full_like(gaps, base), base + gaps], axis=-1)
    ours = np.asarray(jax.vmap(lambda x: spectral.divided_differences(f, x))(jnp.asarray(x)))
    with mpmath.workdps(60):
        for pair, found in zip(x, ours, strict=True):
            a, b = (mpmath.mpf(float(v)) for v in pair)
            wanted = mpmath.diff(exact, a) if a == b else (exact(b) - exact(a)) / (b - a)
            # The Gaussian is as good as its own value: its slope may vanish beside it.
            floor = abs(float(exact(a))) * 1e-9 / base if abs(wanted) < 1e-200 else 0
            np.testing.assert_allclose(found[0, 1], float(wanted), rtol=1e-8, atol=floor)
            np.testing.assert_allclose(found[1, 0], found[0, 1], rtol=1e-15)


def test_functions_smooth_at_zero_have_their_derivative_for_eigenvalues_around_zero():
    x = jnp.asarray([-1e-13, 0.0, 3e-12, 1e-5])
    # exp has the slope 1 + (a + b)/2 there.
    expected = 1 + (x[:, None] + x) / 2
    np.testing.assert_allclose(spectral.divided_differences(jnp.exp, x), expected, rtol=1e-10)


def test_a_second_derivative_raises_and_that_of_a_trace_is_right():
    D, dD = hermitian(CUBIC), direction(6)

    def entry(h):
        return spectral.matrix_function(jnp.exp, D + h * dD)[0, 0].real

    for twice in (jax.grad(jax.grad(entry)), jax.jacfwd(jax.jacfwd(entry)), jax.hessian(entry)):
        with pytest.raises(InputError, match="one derivative too many"):
            twice(0.0)
        with pytest.raises(InputError, match="one derivative too many"):
            jax.jit(twice)(0.0)

    def trace(h):
        return spectral.trace_function(coth_over_root, D + h * dD, 0.9)

    first, second = jax.grad(trace), jax.grad(jax.grad(trace))
    h = 1e-3
    np.testing.assert_allclose(first(0.0), (trace(h) - trace(-h)) / (2 * h), rtol=1e-5)
    np.testing.assert_allclose(second(0.0), (first(h) - first(-h)) / (2 * h), rtol=1e-4)
    with pytest.raises(InputError, match="one derivative too many"):
        jax.grad(second)(0.0)


def test_mixed_derivatives_in_matrix_and_parameter_agree_in_both_orders():
    D, dD = hermitian(CUBIC), direction(6)

    def value(h, T):
        return spectral.matrix_function(coth_over_root, D + h * dD, T)[1, 1].real

    by_h_first = jax.grad(jax.grad(value, 0), 1)(0.0, 0.9)
    by_T_first = jax.grad(jax.grad(value, 1), 0)(0.0, 0.9)
    h = 1e-4
    expected = (jax.grad(value, 0)(0.0, 0.9 + h) - jax.grad(value, 0)(0.0, 0.9 - h)) / (2 * h)
    np.testing.assert_allclose(by_h_first, expected, rtol=1e-6)
    np.testing.assert_allclose(by_T_first, expected, rtol=1e-6)
    twice = jax.grad(jax.grad(value, 1), 1)(0.0, 0.9)
    step = (jax.grad(value, 1)(0.0, 0.9 + h) - jax.grad(value, 1)(0.0, 0.9 - h)) / (2 * h)
    np.testing.assert_allclose(twice, step, rtol=1e-6)


def test_eigenvector_derivatives_are_right_or_nan():
    dD, weight = direction(6), direction(6, seed=2)

    def value(h, D):
        _, E = spectral.eigenpairs(D + h * dD)
        lowest = E[:, :1] @ E[:, :1].conj().T
        return jnp.sum((weight.conj() * lowest).real)

    D = hermitian([0.1, 0.7, 1.3, 2.0, 2.9, 5.0])
    h = 1e-4
    expected = (value(h, D) - value(-h, D)) / (2 * h)
    np.testing.assert_allclose(jax.grad(value)(0.0, D), expected, rtol=1e-6)
    for values in (CUBIC, NEARLY):
        assert np.isnan(jax.grad(value)(0.0, hermitian(values)))


@pytest.mark.parametrize("values", [CUBIC, NEARLY])
def test_sums_of_degenerate_eigenvalues_have_derivatives(values):
    D, dD = hermitian(values), direction(6)

    def block(h):
        return jnp.sum(spectral.eigenvalues(D + h * dD)[:3])

    h = 1e-3
    expected = (block(h) - block(-h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(block)(0.0), expected, rtol=1e-5)


def test_float32_is_refused():
    with pytest.raises(InputError, match="float32"):
        spectral.matrix_function(jnp.exp, jnp.eye(3, dtype=jnp.float32))


def test_atomic_blocks_and_traces():
    F = hermitian(CUBIC)
    np.testing.assert_allclose(spectral.atomic_blocks(F)[1], F[3:, 3:].real)
    np.testing.assert_allclose(spectral.atomic_traces(F).sum(), sum(CUBIC))
