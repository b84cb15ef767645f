"""Participation, coupling and cutoff of groups of bands: quantities that have derivatives.

A single band's eigenvector has no derivative where bands meet. A group of bands apart from all
others has a projector that is a smooth function of D,

    P = Σ_n e_n e_n†,   dP = Σ_nm (e_m e_m† dD e_n e_n† + h.c.)/(λ_n − λ_m),  n in, m out    (1)

(the Daleckii-Krein rule of a function that is 1 on the group and 0 elsewhere), whatever happens
inside the group. Of P are made, at each q,

    w_i = Tr P_ii / |group|                      atomic weights, averaged over the group      (2)
    C = Σ_b Re[P_ji exp(iq·(r_jL − r_i))] / √(Σ_b Tr P_ii Σ_b Tr P_jj)      coupling          (3)

with P_ji = Σ_n e_j·e_i* and bonds b = (i mobile, j host, L) as in `coupling`; for the group that is
a degenerate block both are what `modes.atomic_weights` and `coupling.coupling` give its members.

Groups closer than 0.05 THz to another band are refused. What is defined for all modes, and smooth,
is another quantity and has another name: `windowed_atomic_weights` (a Gaussian window in frequency
instead of a group) and `smooth_top` (log-sum-exp instead of a maximum).
Source: Higham, Functions of Matrices (2008), theorem 3.11.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from phojax.checks import check_float64, fail
from phojax.descriptors.coupling import Bonds
from phojax.modes import shift_of, without_translations
from phojax.spectral import (
    Scalar,
    atomic_traces,
    dagger,
    eigenpairs,
    eigenvalues,
    hermitian_part,
    matrix_function,
    trace_function,
)
from phojax.structure import Structure
from phojax.units import frequency_THz

GAP = 0.05
"""Distance in THz that a group of bands must keep from all others."""

_AT_REST = 1e-12  # share of a mode's weight below which atoms count as not moving


def group_projectors(
    D: Complex[Array, "q mode mode"], bands: tuple[int, int], gap: float = GAP
) -> Complex[Array, "q mode mode"]:
    """Return P of eq. (1) for bands[0] ≤ n < bands[1], counted from 0 in order of λ at each q.

    Differentiable once in D, forward and reverse, whatever is degenerate inside the group. Under
    jit, where nothing can be raised, P is NaN at q where the group is too close to other bands.

    Args:
        D: Dynamical matrices, eV Å⁻² amu⁻¹. At Γ the translations are the bands that they are by
            λ.
        bands: First band and one past the last.
        gap: THz by which the group must be apart.

    Raises:
        InputError: bands that are not there; a gap smaller than `gap`, outside of jit; a second
            derivative; float32.
    """
    check_float64("D", D)
    first, stop = bands
    count = D.shape[-1]
    if not 0 <= first < stop <= count:
        raise fail(f"bands {first} to {stop} (exclusive)", f"0 ≤ first < stop ≤ {count}")
    D = hermitian_part(D)
    apart = group_gaps(jax.lax.stop_gradient(D), bands)
    if not isinstance(apart, Tracer) and not np.all(np.asarray(apart) >= gap):
        at = int(np.argmin(np.asarray(apart)))
        raise fail(
            f"bands {first} to {stop - 1} are {float(apart[at]):.4g} THz from others at q-point"
            f" {at}",
            f"at least {gap:g} THz",
            "Take the neighbours into the group, or a smooth form such as windowed_atomic_weights",
        )
    return jnp.where((apart >= gap)[:, None, None], _projector(D, first, stop), jnp.nan)


def group_gaps(D: Complex[Array, "q mode mode"], bands: tuple[int, int]) -> Float[Array, " q"]:
    """Return the distance in THz of a group of bands to the nearest other, infinite for all."""
    nu = frequency_THz(eigenvalues(D))
    first, stop = bands
    below = nu[:, first] - nu[:, first - 1] if first else jnp.full(nu.shape[0], jnp.inf)
    above = nu[:, stop] - nu[:, stop - 1] if stop < nu.shape[1] else jnp.inf
    return jnp.minimum(below, above)


def group_atomic_weights_from_matrix(
    D: Complex[Array, "q mode mode"], bands: tuple[int, int], gap: float = GAP
) -> Float[Array, "q atom"]:
    """Return w of eq. (2), which sum to one; arguments, errors, NaN as of `group_projectors`.

    `participation.participation_ratio` makes of them the participation ratio of the group.
    """
    return atomic_traces(group_projectors(D, bands, gap)) / (bands[1] - bands[0])


def group_coupling_from_matrix(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    crystal: Structure,
    among: Bonds,
    bands: tuple[int, int],
    gap: float = GAP,
) -> Float[Array, " q"]:
    """Return C of eq. (3), in [−1, 1]; NaN where no bonded ion or no bonded host atom moves.

    Args:
        D: Dynamical matrices at q.
        q: Fractional.
        crystal: The primitive cell.
        among: From `coupling.bonds`.
        bands: As for `group_projectors`, which also tells errors and NaN.
        gap: THz.
    """
    P = group_projectors(D, bands, gap)
    atoms = len(crystal)
    inner = jnp.einsum("qjaia->qji", P.reshape(len(q), atoms, 3, atoms, 3))
    x = crystal.fractional
    vectors = x[among.host] + among.image.astype(x.dtype) - x[among.mobile]
    angle = 2 * jnp.pi * q @ vectors.T
    of_bond = inner[:, among.host, among.mobile]
    bond = of_bond.real * jnp.cos(angle) - of_bond.imag * jnp.sin(angle)
    size = atomic_traces(P)
    mobile, host = size[:, among.mobile] @ among.counted, size[:, among.host] @ among.counted
    # Where one side is at rest C has no value and, next to it, no derivative.
    moves = jnp.minimum(mobile, host) > _AT_REST * (bands[1] - bands[0])
    norm = jnp.where(moves, mobile * host, 1.0)
    return jnp.where(moves, bond @ among.counted / jnp.sqrt(norm), jnp.nan)


def group_top_from_matrix(
    D: Complex[Array, "q mode mode"], bands: tuple[int, int] = (0, 3), gap: float = GAP
) -> Float[Array, ""]:
    """Return the highest frequency in THz of a group of bands over all q; of (0, 3) the cutoff.

    The derivative is that of the highest band at the highest q, so this band must be
    `gap` apart from all others there, inside the group too, and the q from others: take
    `smooth_top` where it is not (on the corners of cubic zones the top is degenerate).

    Raises:
        InputError: the highest band closer than `gap` to another at its q, outside of jit (NaN
            under jit); float32.
    """
    check_float64("D", D)
    top = bands[1] - 1
    if not 0 <= bands[0] < bands[1] <= D.shape[-1]:
        raise fail(f"bands {bands}", f"0 ≤ first < stop ≤ {D.shape[-1]}")
    nu = frequency_THz(eigenvalues(D)[:, top])
    at = jnp.argmax(jax.lax.stop_gradient(nu))
    apart = group_gaps(jax.lax.stop_gradient(D), (top, top + 1))[at]
    if not isinstance(apart, Tracer) and not apart >= gap:
        raise fail(
            f"band {top} is {float(apart):.4g} THz from another at its highest point",
            f"at least {gap:g} THz",
            "Take smooth_top",
        )
    return jnp.where(apart >= gap, nu[at], jnp.nan)


# --- smooth forms, under their own names -------------------------------------------------------


def windowed_atomic_weights(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    frequency: Scalar,
    width: Scalar,
    *,
    free: bool = True,
) -> Float[Array, " atom"]:
    """Return Σ_q w_q Tr [G(D)]_ii / Σ_q w_q Tr G(D), the share of each atom in modes near ν.

    G = exp(−(ν_n − ν)²/2σ²). Smooth for all modes; the atomic weights of a group only where the
    window holds it and nothing else. `participation.participation_ratio` makes of them a
    participation ratio of the window. Differentiable in D (once), masses, ν and σ.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹; modes with λ ≤ 0 are left out.
        q: Fractional; at Γ the translations are left out.
        weights: Sum to one.
        crystal: The primitive cell.
        frequency: ν in THz, some σ above 0.
        width: σ in THz.
        free: Whether the crystal may move as a whole.
    """
    share = weights @ _windows(D, q, crystal, free)(frequency, width)
    return share / jnp.sum(share)


def smooth_dos_from_matrices(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    frequencies: Float[Array, " f"],
    smearing: Scalar,
    *,
    free: bool = True,
) -> Float[Array, "atom f"]:
    """Return the density of states of every atom, smeared by Gaussians, in modes per THz and cell.

    The numbers of `dos.gaussian_dos` of the modes with λ > 0 without the translations.
    Differentiable in D (once), masses, frequencies and smearing, at degenerate modes as well.
    Arguments as of `windowed_atomic_weights`; one decomposition of D per frequency, so for
    derivatives at some frequencies rather than for curves.
    """
    at = _windows(D, q, crystal, free)
    curve = jax.lax.map(lambda frequency: weights @ at(frequency, smearing), frequencies)
    return curve.T / (smearing * jnp.sqrt(2 * jnp.pi))


def smooth_acoustic_top(
    D: Complex[Array, "q mode mode"],
    width: Scalar,
    sharpness: Scalar,
    band: int = 2,
    weights: Float[Array, " q"] | None = None,
) -> Float[Array, ""]:
    """Return a smooth stand-in for the highest frequency (THz) of the three lowest bands.

        Σ_n 1/(1 + exp((λ_n − μ_q)/τ)) = band + 1/2,   ν = (1/β) ln Σ_q exp(β √μ_q)

    As τ -> 0, μ_q is the third λ at q; as β -> ∞, ν is the largest √μ_q. Always above, by up to
    ln(number of q)/β. Smooth whatever bands touch. Differentiable once in D.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹.
        width: τ, in the unit of λ.
        sharpness: β in 1/THz.
        band: Number of the band, from 0.
        weights: Of q on a mesh that symmetry reduced: a point counts as often as it stands for
            others. Once each by default.
    """
    wanted = band + 0.5
    held = eigenvalues(jax.lax.stop_gradient(D))
    tau = jnp.asarray(width, float)
    still = jax.lax.stop_gradient(tau)
    low, high = held[:, 0] - 50 * still, held[:, -1] + 50 * still

    def halved(_, ends):
        low, high = ends
        middle = (low + high) / 2
        count = jnp.sum(jax.nn.sigmoid((middle[:, None] - held) / still), axis=1)
        return jnp.where(count < wanted, middle, low), jnp.where(count < wanted, high, middle)

    low, high = jax.lax.fori_loop(0, 80, halved, (low, high))
    level = jax.lax.stop_gradient((low + high) / 2)
    # One Newton step from the solution carries its derivative.
    count = jax.vmap(lambda D, level: trace_function(_occupied, D, level, tau))(D, level)
    occupied = jax.nn.sigmoid((level[:, None] - held) / still)
    slope = jnp.sum(occupied * (1 - occupied), axis=1) / still
    level = level - (count - wanted) / slope
    positive = level > 0
    nu = jnp.where(positive, frequency_THz(jnp.where(positive, level, 1.0)), 0.0)
    often = None if weights is None else weights / jnp.min(weights)
    return jax.nn.logsumexp(sharpness * nu, b=often) / sharpness


def _windows(D, q, crystal, free):
    """Return the function (ν, σ) -> (q, atom) traces of the window G, translations left out."""
    shifted, T = without_translations(hermitian_part(D), q, crystal, free)
    rigid, above = atomic_traces(T @ dagger(T)), shift_of(D)[:, None]

    def at(frequency, width):
        G = atomic_traces(matrix_function(_window, shifted, frequency, width))
        return G - _window(above, frequency, width) * rigid

    return at


def _window(eigenvalue, frequency, width):
    kept = eigenvalue > 0
    nu = frequency_THz(jnp.where(kept, eigenvalue, 1.0))
    return jnp.where(kept, jnp.exp(-0.5 * ((nu - frequency) / width) ** 2), 0.0)


def _occupied(eigenvalue, level, width):
    return jax.nn.sigmoid((level - eigenvalue) / width)


# --- the rule (1) ------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _projector(D, first, stop):
    E = eigenpairs(D)[1][..., first:stop]
    return E @ dagger(E)


@_projector.defjvp
def _projector_rule(first, stop, primals, tangents):
    (D,), (dD,) = primals, tangents
    x, E = eigenpairs(_once(D))
    inside = jnp.zeros(D.shape[-1], bool).at[first:stop].set(True)
    cross = inside[:, None] != inside
    gap = x[..., :, None] - x[..., None, :]
    sign = inside[:, None].astype(x.dtype) - inside
    quotient = jnp.where(cross, sign / jnp.where(cross & (gap != 0), gap, 1.0), 0.0)
    turn = quotient.astype(D.dtype) * (dagger(E) @ dD @ E)
    own = E[..., first:stop]
    return own @ dagger(own), E @ turn @ dagger(E)


@jax.custom_jvp
def _once(D):
    """Return D; a derivative through here would be a second one, which eq. (1) does not give."""
    return D


@_once.defjvp
def _once_rule(primals, tangents):
    raise fail(
        "a second derivative of a group of bands",
        "first derivatives",
        "Take finite differences of the gradient",
    )
