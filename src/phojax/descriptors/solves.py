"""Thermal displacements without eigenvectors: a Matsubara sum of inverses, its tail a polynomial.

    g(λ, T) = ħ coth(ħω/2k_BT) / 2ω = k_BT [1/λ + a f(aλ)],   a = (ħ/2k_BT)²,  λ = ω²     (1)
    f(s) = (√s coth √s − 1)/s = Σ_{k≥1} 2/(s + k²π²)                                     (2)

so g(D) is a sum of inverses of D + p with p ≥ 0, which are positive definite where the crystal is
stable: a Cholesky factor each, no eigenvectors. Truncated, (2) converges like 1/k. Two ways make
it exact to a wanted accuracy on 0 ≤ s ≤ s_max, the square of the largest ħω/2k_BT:
- the first K terms as they are and the rest, whose nearest singularity is s = −(K+1)²π², as its
  Chebyshev polynomial of degree 4, for which one squaring of D is enough;
- the Padé approximant [N−1/N] of (2), a sum over N poles −1/μ² with weights 2v²/3μ²: μ > 0 and v
  the eigenvalues and first components of eigenvectors of the tridiagonal matrix with
  1/√((2m+1)(2m+3)), m = 1 … 2N−1, beside its diagonal of zeros.
The first is the cheaper one where it is warm: K = 0 below s_max ≈ 0.2 (15 THz at 800 K), K = 1
below 0.8 (11 THz at 300 K).

Inverse and powers are taken in real arithmetic: with D = R + iS, the real part of D⁻¹ is
(R + S R⁻¹ S)⁻¹, the imaginary part −R⁻¹S times that; and D² costs two real products.
Source: Hu, Xu, Yan, J. Chem. Phys. 133, 101106 (2010), for the poles of the Padé approximant, here
with the weights of a Gauss quadrature.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax.linalg import triangular_solve
from jaxtyping import Array, Bool, Complex, Float
from numpy.polynomial import chebyshev

from phojax.checks import check_float64, fail
from phojax.dynmat import padding
from phojax.modes import shift_of, without_translations
from phojax.pytree import pytree
from phojax.spectral import Scalar, hermitian_part
from phojax.structure import Structure
from phojax.units import HBAR, KB

_MOST = 64  # terms of a Padé approximant: enough for s_max of 1e5, 10 THz at 1 K
_SAMPLES = 200
_INVERSE, _SQUARE = 2.0, 1.0  # costs, about as measured


@pytree()
class RationalSum:
    """f of eq. (2) as Σ_k weight_k/(s + pole_k) + Σ_j power_j t^j, t = 2s/reach − 1.

    Attributes:
        poles: Positive.
        weights: One per pole.
        powers: 0 or 5 coefficients, the lowest first.
        reach: s_max.
        error: The largest relative error of √s coth √s on [0, s_max].
    """

    poles: Float[Array, " pole"]
    weights: Float[Array, " pole"]
    powers: Float[Array, " power"]
    reach: Float[Array, ""]
    error: Float[Array, ""]

    def __call__(self, s: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Return f(s)."""
        value = jnp.sum(self.weights / (s[..., None] + self.poles), axis=-1)
        t = 2 * s / self.reach - 1
        return value + sum((c * t**j for j, c in enumerate(self.powers)), jnp.zeros_like(s))


def rational_sum(highest: float, temperature: float, accuracy: float = 1e-12) -> RationalSum:
    """Return the cheapest sum that is accurate for λ up to `highest` and T from `temperature` up.

    On the host. For λ beyond, or T below, its error grows without a word.

    Args:
        highest: Upper bound of λ in eV Å⁻² amu⁻¹ over all q; some per cent too much do not matter.
        temperature: The lowest T in K, above 0.
        accuracy: Relative, of g(λ); 1e-13 at best.

    Raises:
        InputError: a bound or temperature that is not positive and finite, or an accuracy out of
            reach (very low temperatures: take `displacement_tensor_from_matrices`).
    """
    if not (0 < highest < np.inf and 0 < temperature < np.inf):
        raise fail(
            f"eigenvalues up to {highest} at {temperature} K",
            "both positive and finite",
            "At T = 0 take displacement_tensor_from_matrices",
        )
    reach = float(highest) * (HBAR / (2 * KB * float(temperature))) ** 2
    found, best = None, np.inf
    for build, cost in _candidates():
        if cost >= best:
            continue
        candidate = build(reach)
        if candidate.error <= accuracy:
            found, best = candidate, cost
    if found is None:
        raise fail(
            f"accuracy {accuracy} for ħω/k_BT up to {2 * np.sqrt(reach):.3g}",
            f"an accuracy of at least 1e-13 and a ratio up to about {4 * _MOST}",
            "Take displacement_tensor_from_matrices",
        )
    return found


def displacement_tensor_by_solves(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    temperature: Scalar,
    terms: RationalSum,
    *,
    free: bool = True,
) -> Float[Array, "atom 3 3"]:
    """Return U = Σ_q w_q [g(D)]_ii / m_i in Å², the displacement tensor, from Cholesky solves.

    The numbers of `displacement_tensor_from_matrices` with a floor of 0, for stable crystals. No
    mode can be left out here: where an eigenvalue other than the translations' at Γ is not
    positive, the result is NaN, and `stable_points` tells where. NaN, too, where D has an
    eigenvalue that must exceed what `terms` were made for (a lower bound is tested, so that not
    all such cases are seen).
    Differentiable in D, masses and T to any order, at degenerate modes as well.
    Measured on one CPU core (benchmarks/displacements_by_solves.py): values in 0.35 to 0.75 of the
    time of the eigenvector form; with gradients 0.5 to 0.8 of it where no pole is needed (hot, 60
    modes and more), no gain or a loss otherwise.
    Memory: some 100 bytes per entry of D; twice that for gradients.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹.
        q: Fractional; tells Γ, where the translations are projected out.
        weights: Sum to one.
        crystal: The primitive cell.
        temperature: T in K, not below that of `terms`.
        terms: From `rational_sum`.
        free: Whether the crystal may move as a whole (`ForceConstants.free`).

    Raises:
        InputError: D in float32.
    """
    check_float64("D", D)
    temperature = jnp.asarray(temperature, float)
    a = (HBAR / (2 * KB * temperature)) ** 2
    held = jax.lax.stop_gradient(terms.reach / a)  # λ that the sum reaches
    inside, rigid, real = _prepared(D, q, crystal, free, held / 2)
    R, S = a * inside.real, a * inside.imag
    unit = jnp.eye(R.shape[-1])

    def add(total, term):
        pole, weight = term
        return total + weight * _inverse_blocks(R + pole * unit, S), None

    # One after the other: XLA on CPUs (jaxlib 0.10) may lock up in independent batched
    # factorisations that it runs at the same time.
    poles = jnp.concatenate([jnp.zeros(1), terms.poles])
    shares = jnp.concatenate([jnp.ones(1), terms.weights])
    total, _ = jax.lax.scan(add, jnp.zeros_like(rigid), (poles, shares))
    if terms.powers.shape[0]:
        t = 2 * R / terms.reach - unit, 2 * S / terms.reach
        total = total + _polynomial_blocks(terms.powers, *t)
    middle = a * held / 2  # reach/2, but with its derivative by T
    total = total - (1 / middle + terms(middle)) * rigid
    # The norm of a column of D is at most its largest eigenvalue.
    columns = jnp.max(jnp.where(real, jnp.sum(R**2 + S**2, axis=-2), 0.0))
    total = jnp.where(columns > (1.001 * terms.reach) ** 2, jnp.nan, total)
    U = KB * temperature * a * jnp.einsum("q,qiab->iab", weights, total)
    return jnp.where((crystal.numbers > 0)[:, None, None], U / crystal.masses[:, None, None], 0.0)


def stable_points(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    crystal: Structure,
    *,
    free: bool = True,
) -> Bool[Array, " q"]:
    """Return where all λ but those of translations at Γ are positive, by Cholesky.

    Eigenvalues within rounding of 0 (1e-16 of the largest) may count either way.
    """
    inside, _, _ = _prepared(jax.lax.stop_gradient(D), q, crystal, free, shift_of(D) / 2)
    factor = jnp.linalg.cholesky(inside)
    return jnp.all(jnp.isfinite(factor.real), axis=(-2, -1))


def _prepared(D, q, crystal, free, level):
    """Return D with its translations at `level`, the blocks of TT†, and which rows are atoms'."""
    shifted, T = without_translations(hermitian_part(D), q, crystal, free)
    # The eigenvalue that the translations have now, a constant (`shift_of` D and its padding).
    above = jax.lax.stop_gradient(jnp.einsum("qmc,qmn,qnc->q", T.conj(), shifted, T).real / 3)
    down = jnp.broadcast_to(level, above.shape) - above
    shifted = shifted + down[:, None, None] * (T @ T.conj().swapaxes(-1, -2))
    T = T.reshape(T.shape[0], -1, 3, 3)
    return shifted, jnp.einsum("qiac,qibc->qiab", T, T.conj()).real, ~padding(crystal)


# --- inverses and powers in real arithmetic ----------------------------------------------------


def _factors(R, S):
    """Return L, B = S L⁻ᵀ and X with R = LLᵀ and XXᵀ = (R + S R⁻¹ S)⁻¹, the real part of D⁻¹."""
    # Solves from the right: XLA multiplies A Bᵀ twice as fast as Aᵀ B.
    L = jnp.linalg.cholesky(R, symmetrize_input=False)
    B = _solve(L, S, left_side=False)
    F = jnp.linalg.cholesky(R - B @ _t(B), symmetrize_input=False)  # Sᵀ = −S
    return L, B, _solve(F, jnp.broadcast_to(jnp.eye(R.shape[-1]), R.shape), left_side=False)


@jax.custom_jvp
def _inverse(R, S):
    """Return real and imaginary part of (R + iS)⁻¹."""
    L, B, X = _factors(R, S)
    x = X @ _t(X)
    return x, _solve(L, _t(B) @ x, left_side=True)  # −R⁻¹ S x


@_inverse.defjvp
def _inverse_rule(primals, tangents):
    (x, y), (dR, dS) = _inverse(*primals), tangents
    a, b = _product(dR, dS, x, y)
    da, db = _product(x, y, a, b)
    return (x, y), (-da, -db)


@jax.custom_jvp
def _inverse_blocks(R, S):
    """Return the diagonal 3×3 blocks of the real part of (R + iS)⁻¹."""
    X = _t(_factors(R, S)[2])
    return _column_blocks(X, X)


@_inverse_blocks.defjvp
def _inverse_blocks_rule(primals, tangents):
    (x, y), (dR, dS) = _inverse(*primals), tangents
    a, b = _product(dR, dS, x, y)
    return _own_blocks(x), -_column_blocks(x, a) - _column_blocks(y, b)


def _polynomial_blocks(powers, R, S):
    """Return the blocks of Σ_j c_j t^j for t = R + iS, j up to 4."""
    R2, S2 = _square(R, S)
    _, one, two, three, four = powers
    right = three * R + four * R2, three * S + four * S2
    blocks = _column_blocks(R2, right[0]) + _column_blocks(S2, right[1])
    return blocks + _own_blocks(one * R + two * R2) + powers[0] * jnp.eye(3)


@jax.custom_jvp
def _square(R, S):
    """Return (R + iS)² for symmetric R and antisymmetric S: two products."""
    P, Q = R @ S, (R + S) @ (R - S)
    return Q + P + _t(P), P - _t(P)


@_square.defjvp
def _square_rule(primals, tangents):
    a, b = _product(*tangents, *primals)
    return _square(*primals), (a + _t(a), b - _t(b))


def _product(a, b, c, d):
    """Return (a + ib)(c + id) by three products.

    Tangents stand on the left in the rules above: then forward and reverse mode are A B and A Bᵀ,
    twice as fast in XLA as Aᵀ B.
    """
    p, q, r = a @ c, b @ d, (a + b) @ (c + d)
    return p - q, r - p - q


def _column_blocks(A, B):
    """Return Re Σ_k A_k,iα B_k,iβ, taken to be symmetric in α and β; by three shifted products.

    Products of commuting Hermitian matrices are. Rows stay contiguous, unlike in an einsum.
    """
    sums = tuple(jnp.sum(A * jnp.roll(B, -d, axis=-1), axis=-2) for d in range(3))
    zero, one, two = jax.lax.optimization_barrier(sums)
    zero, one, two = (e.reshape(*e.shape[:-1], -1, 3) for e in (zero, one, two))
    xx, yy, zz = (zero[..., a] for a in range(3))
    xy, yz, xz = one[..., 0], one[..., 1], two[..., 0]
    flat = jnp.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1)
    return flat.reshape(*flat.shape[:-1], 3, 3)


def _own_blocks(A):
    """Return the diagonal 3×3 blocks of A; without a gather, whose transpose would be a scatter."""
    return _column_blocks(jnp.eye(A.shape[-1]), A)


def _solve(L, B, left_side):
    """Return L⁻ᵀB, or B L⁻ᵀ."""
    return triangular_solve(L, B, left_side=left_side, lower=True, transpose_a=True)


def _t(A):
    return A.swapaxes(-1, -2)


# --- choice of terms, on the host --------------------------------------------------------------


def _candidates():
    """Return (builder, cost) pairs; the inverse of D itself is common to all."""
    for kept in range(8):
        yield partial(_tail, kept), kept * _INVERSE + _SQUARE
    for count in range(1, _MOST + 1):
        yield partial(_pade, count), count * _INVERSE


def _pade_poles(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poles and weights of the approximant [count − 1/count] of eq. (2)."""
    b = 2 * np.arange(1, 2 * count + 1) + 1.0
    off = 1 / np.sqrt(b[:-1] * b[1:])
    mu, v = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    mu, v = mu[count:], v[0, count:]
    return 1 / mu**2, 2 * v**2 / (3 * mu**2)


def _pade(count: int, reach: float) -> RationalSum:
    return _checked(*_pade_poles(count), np.zeros(0), reach)


def _tail(kept: int, reach: float) -> RationalSum:
    """Return `kept` terms of (2) and the Chebyshev polynomial of the others."""
    poles = (np.arange(1, kept + 1) * np.pi) ** 2
    fine, weights = _pade_poles(_MOST)

    def tail(t):
        s = (t[:, None] + 1) * reach / 2
        return np.sum(weights / (s + fine), axis=1) - np.sum(2 / (s + poles), axis=1)

    powers = chebyshev.cheb2poly(chebyshev.chebinterpolate(tail, 24)[:5])
    return _checked(poles, np.full(kept, 2.0), powers, reach)


def _checked(poles, weights, powers, reach) -> RationalSum:
    """Return the sum with its error, measured against √s coth √s."""
    x = np.sqrt(reach) * np.arange(1, _SAMPLES + 1) / _SAMPLES
    s = x**2
    value = np.sum(weights / (s[:, None] + poles), axis=1)
    value = value + sum(c * (2 * s / reach - 1) ** j for j, c in enumerate(powers))
    error = np.max(np.abs((1 + s * value) / (x / np.tanh(x)) - 1))
    return RationalSum(*(jnp.asarray(v, float) for v in (poles, weights, powers, reach, error)))
