"""Functions of Hermitian matrices with derivatives that hold at degenerate eigenvalues.

    f(D) = Σ_n f(λ_n) e_n e_n†                                                    (1)
    df(D) = E (Δ ∘ E†dD E) E†,   Δ_nm = (f_n − f_m)/(λ_n − λ_m),  Δ_nn = f'(λ_n)    (2)
    d Tr f(D) = Tr f'(D) dD                                                       (3)

A sum over modes that weighs them by frequency alone is such a function. It is smooth where
single eigenvectors are not, at crossings. The quotient in (2) loses digits when λ_n and λ_m are
close. Δ is also the mean of f' between the two, so Simpson's rule takes over where its error
(estimated from its distance to the trapezoidal rule) is the smaller one: both change hands at
relative gaps of about 1e-3, where either is good to about 1e-12.
Source: Daleckii, Krein (1951); Higham, Functions of Matrices (2008), theorem 3.11.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Complex, Float, Inexact, Real

from phojax.checks import check_float64, fail

Scalar = Real[Array, ""] | float | int
"""A real number, traced or not."""

DEGENERATE = 1e-6
"""Gaps up to this share of the spectrum's width count as none."""

_EPS = 2.0**-52
_TINY = 1e-300
_ALIKE = 1e8  # errors of f beyond rounding, by which two good estimates may differ


def matrix_function(
    f: Callable, D: Inexact[Array, "*batch n n"], *params: Scalar
) -> Inexact[Array, "*batch n n"]:
    """Return f(D), eq. (1), for f(λ, *params) acting element by element.

    Differentiable in D and `params`, forward and reverse, once with respect to D (and any number
    of times in `params`): a second derivative in D raises. What f depends on and is to be
    differentiated goes into `params`, not into the closure of f.

    Args:
        f: Takes λ of any shape and the parameters; returns the shape of λ.
        D: Hermitian, or real symmetric; its Hermitian part is used.
        *params: Scalars; vmap for more.

    Raises:
        InputError: D in float32; a parameter that is no scalar; a second derivative with respect
            to D.
    """
    check_float64("matrix", D)
    return _matrix_function(f, hermitian_part(D), *map(_scalar, params))


def trace_function(
    f: Callable, D: Inexact[Array, "*batch n n"], *params: Scalar
) -> Float[Array, "*batch"]:
    """Return Tr f(D) = Σ_n f(λ_n); arguments as for `matrix_function`.

    Differentiable twice with respect to D (the third raises), by eq. (3).

    Raises:
        InputError: D in float32; a third derivative with respect to D.
    """
    check_float64("matrix", D)
    return _trace_function(f, hermitian_part(D), *map(_scalar, params))


def atomic_traces(F: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch atom"]:
    """Return Σ_α F_iα,iα per atom i of matrices over (atom, xyz), such as f(D)."""
    return jnp.trace(atomic_blocks(F), axis1=-2, axis2=-1)


def atomic_blocks(F: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch atom 3 3"]:
    """Return the real parts of the blocks F_iα,iβ on the diagonal."""
    atoms = F.shape[-1] // 3
    F = F.reshape(*F.shape[:-2], atoms, 3, atoms, 3)
    return jnp.einsum("...iaib->...iab", F).real


def eigenpairs(
    D: Inexact[Array, "*batch n n"],
) -> tuple[Float[Array, "*batch n"], Inexact[Array, "*batch n n"]]:
    """Return eigenvalues, ascending, and eigenvectors (columns) of Hermitian D.

    Only the lower triangle is read. Derivatives of the eigenvalues are right for each single one
    away from degeneracy and for sums over a block inside. Those of eigenvectors exist only away
    from degeneracy; where two eigenvalues are closer than 1e-6 of the width of the matrix's
    spectrum they are NaN instead of wrong. To differentiate there, use `eigenvalues`,
    `matrix_function` or `trace_function`.
    """
    return _eigenpairs(D)


def eigenvalues(D: Inexact[Array, "*batch n n"]) -> Float[Array, "*batch n"]:
    """Return the eigenvalues of Hermitian D, ascending; only the lower triangle is read.

    Differentiable once; inside a degenerate block only sums over the block have the derivative.
    """
    return _eigenvalues(D)


def divided_differences(f: Callable, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n n"]:
    """Return Δ of eq. (2) for elementwise f; the choice of formula is in the module's header."""
    y, slope = value_and_slope(f, x)
    a, b = x[..., :, None], x[..., None, :]
    rise, gap = y[..., :, None] - y[..., None, :], a - b
    quotient = rise / jnp.where(gap == 0, 1.0, gap)
    size = jnp.abs(y)
    lost = 2 * _EPS * (size[..., :, None] + size[..., None, :])
    quotient_error = lost / jnp.maximum(jnp.abs(gap), _TINY)

    _, middle = value_and_slope(f, (a + b) / 2)
    trapezoid = (slope[..., :, None] + slope[..., None, :]) / 2
    simpson = (trapezoid + 2 * middle) / 3
    # The trapezoidal error is of second order in the gap, Simpson's of fourth.
    scale = jnp.maximum(jnp.abs(simpson), _TINY)
    simpson_error = jnp.abs(simpson - trapezoid) / scale * jnp.abs(simpson - trapezoid)
    # Written such that NaN (f singular half-way) leaves the quotient.
    # A step between a and b is seen by the quotient alone: there the two are far apart.
    alike = jnp.abs(simpson - quotient) <= _ALIKE * (quotient_error + simpson_error)
    near = (gap == 0) | ((simpson_error <= quotient_error) & alike)
    return jnp.where(near, jnp.where(gap == 0, trapezoid, simpson), quotient)


def value_and_slope(
    f: Callable, x: Float[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Return f(x) and f'(x) for elementwise f."""
    return jax.jvp(f, (x,), (jnp.ones_like(x),))


def dagger(E: Inexact[Array, "*batch n m"]) -> Inexact[Array, "*batch m n"]:
    """Return the conjugate transpose."""
    return E.conj().swapaxes(-1, -2)


def hermitian_part(D: Inexact[Array, "*batch n n"]) -> Inexact[Array, "*batch n n"]:
    """Return (D + D†)/2."""
    return (D + dagger(D)) / 2


# --- derivative rules --------------------------------------------------------------------------


def _matrix_function_rule(f, primals, tangents):
    (D, *params), (dD, *dparams) = primals, tangents
    f_at = _bind(f, params)
    if isinstance(dD, SymbolicZero):
        F, dF = _matrix_function(f, D, *params), jnp.zeros_like(D)
    else:
        x, E = _eigh(_once(D))
        F = _rebuild(E, f_at(x))
        turn = divided_differences(f_at, x).astype(D.dtype) * (dagger(E) @ dD @ E)
        dF = E @ turn @ dagger(E)
    for change, dp in _in_params(f, dparams):
        dF = dF + _matrix_function(change, D, *params) * dp
    return F, dF


def _trace_function_rule(f, primals, tangents):
    (D, *params), (dD, *dparams) = primals, tangents
    trace = _trace_function(f, D, *params)
    slope = jnp.zeros_like(trace)
    if not isinstance(dD, SymbolicZero):
        F = _matrix_function(lambda x, *p: value_and_slope(_bind(f, p), x)[1], D, *params)
        slope = slope + jnp.einsum("...nm,...mn->...", F, dD).real
    for change, dp in _in_params(f, dparams):
        slope = slope + _trace_function(change, D, *params) * dp
    return trace, slope


def _bind(f, params):
    return lambda x: f(x, *params)


def _in_params(f, dparams):
    """Return pairs of ∂f/∂p, a function like f, and dp, for the parameters that change.

    dp stays outside of f: JAX can transpose a product with it, but not a custom rule.
    """

    def derivative(k):
        def change(x, *params):
            def varied(p):
                return f(x, *params[:k], p, *params[k + 1 :])

            return jax.jvp(varied, (params[k],), (jnp.ones_like(params[k]),))[1]

        return change

    return [(derivative(k), dp) for k, dp in enumerate(dparams) if not isinstance(dp, SymbolicZero)]


def _plain_matrix_function(f, D, *params):
    x, E = _eigh(D)
    return _rebuild(E, f(x, *params))


def _plain_trace_function(f, D, *params):
    return jnp.sum(f(jnp.linalg.eigvalsh(D, symmetrize_input=False), *params), axis=-1)


_matrix_function = jax.custom_jvp(_plain_matrix_function, nondiff_argnums=(0,))
_matrix_function.defjvp(_matrix_function_rule, symbolic_zeros=True)
_trace_function = jax.custom_jvp(_plain_trace_function, nondiff_argnums=(0,))
_trace_function.defjvp(_trace_function_rule, symbolic_zeros=True)


@jax.custom_jvp
def _once(D):
    """Return D; a derivative through here would be a second one, which eq. (2) does not give."""
    return D


@_once.defjvp
def _once_rule(primals, tangents):
    raise fail(
        "one derivative too many of a function of a matrix with respect to the matrix",
        "first derivatives of matrix_function and eigenvalues, up to second of trace_function",
        "Take finite differences of the gradient",
    )


@jax.custom_jvp
def _eigenpairs(D: Complex[Array, "*batch n n"]):
    return _eigh(D)


@_eigenpairs.defjvp
def _eigenpairs_rule(primals, tangents):
    (D,), (dD,) = primals, tangents
    x, E = _eigenpairs(D)
    turn = dagger(E) @ hermitian_part(dD) @ E
    gap = x[..., None, :] - x[..., :, None]
    width = (x[..., -1] - x[..., 0])[..., None, None]
    same = jnp.eye(x.shape[-1], dtype=bool)
    near = (jnp.abs(gap) <= DEGENERATE * width) & ~same
    inverse = jnp.where(near, jnp.nan, 1 / jnp.where(near | same, jnp.inf, gap))
    dx = jnp.diagonal(turn, axis1=-2, axis2=-1).real
    return (x, E), (dx, E @ (inverse.astype(E.dtype) * turn))


@jax.custom_jvp
def _eigenvalues(D):
    return jnp.linalg.eigvalsh(D, symmetrize_input=False)


@_eigenvalues.defjvp
def _eigenvalues_rule(primals, tangents):
    (D,), (dD,) = primals, tangents
    x, E = _eigh(_once(D))
    return x, jnp.einsum("...an,...ab,...bn->...n", E.conj(), hermitian_part(dD), E).real


def _eigh(D):
    return tuple(jnp.linalg.eigh(D, symmetrize_input=False))


def _rebuild(E, values):
    return (E * values[..., None, :].astype(E.dtype)) @ dagger(E)


def _scalar(value):
    value = jnp.asarray(value)
    if value.ndim:
        raise fail(
            f"a parameter of shape {value.shape} for a function of a matrix",
            "a scalar",
            "Use jax.vmap over matrices and parameters",
        )
    return value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(float)
