"""Densities of states with Gaussian smearing, and what is read off them.

    g_S(ν) = Σ_qn w_q W_S,qn N(ν − ν_qn; σ),   W_S,qn = Σ_{i∈S,α} |e_qn,iα|²                (1)
    centre  ν̄_S = Σ w W ν / Σ w W    (eq. 7 of the paper)                                   (2)
    μ_k = Σ w W (ν − ν̄)^k / Σ w W,   deviation √μ₂, skewness μ₃/μ₂^(3/2), kurtosis μ₄/μ₂² − 3   (3)

Frequencies ν are in THz, negative for imaginary modes. g_S integrates to three times the number of
atoms in S. Moments come from the sums over modes, not from a smeared curve, whose width they would
inherit. With D instead of modes they are traces of matrix functions, Σ_q w_q Tr[P_S ν(D)^k], and
keep their derivatives at degenerate modes (`moments_from_matrices`).
Source: Aghoghovbia, Rurali, Al-Fahdi, Ojih, Jiang, Hu, Machine-learning-assisted discovery of
lattice dynamics signatures of sodium superionic conductors (here "the paper"), eq. 7.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from phojax.modes import Modes, shift_of, without_translations
from phojax.pytree import pytree
from phojax.spectral import Scalar, atomic_traces, dagger, matrix_function
from phojax.structure import Structure
from phojax.units import frequency_THz

_PER_CHUNK = 4096  # modes whose Gaussians are in memory at a time


@pytree()
class Moments:
    """Moments of densities of states, one per group of atoms.

    Attributes:
        centre: THz.
        deviation: Standard deviation, THz.
        skewness: Dimensionless.
        kurtosis: Excess kurtosis, 0 for a Gaussian.
    """

    centre: Float[Array, " group"]
    deviation: Float[Array, " group"]
    skewness: Float[Array, " group"]
    kurtosis: Float[Array, " group"]


def species_groups(crystal: Structure) -> tuple[list[str], Bool[Array, "group atom"]]:
    """Return "total" and the chemical symbols present, with the atoms of each; on the host."""
    symbols = np.asarray(crystal.symbols)
    names = list(dict.fromkeys(crystal.symbols))
    masks = [np.ones(len(symbols), bool), *[symbols == name for name in names]]
    return ["total", *names], jnp.asarray(np.stack(masks))


def gaussian_dos(
    found: Modes,
    frequencies: Float[Array, " f"],
    smearing: Scalar,
    groups: Bool[Array, "group atom"],
    kept: Bool[Array, "q mode"] | None = None,
) -> Float[Array, "group f"]:
    """Return g_S, eq. (1), in modes per THz and cell, one row per group of atoms.

    Args:
        found: Modes on a mesh, weights summing to one.
        frequencies: Grid in THz.
        smearing: σ in THz.
        groups: The sets S, for instance from `species_groups`.
        kept: Modes that count; all if not given.
    """
    weight = _group_weights(found, groups, kept)
    return gaussian_curves(found.frequencies_THz, weight, frequencies, smearing)


def gaussian_curves(
    nu: Float[Array, "q mode"],
    weight: Float[Array, "q mode group"],
    frequencies: Float[Array, " f"],
    smearing: Scalar,
) -> Float[Array, "group f"]:
    """Return Σ w N(ν − ν_qn; σ) for weights w W given per mode; units as of `gaussian_dos`."""
    groups = weight.shape[-1]
    weight, nu = weight.reshape(-1, groups), nu.reshape(-1)
    spare = -len(nu) % min(_PER_CHUNK, len(nu))
    size = (len(nu) + spare) // min(_PER_CHUNK, len(nu))
    nu = jnp.pad(nu, (0, spare)).reshape(size, -1)
    weight = jnp.pad(weight, ((0, spare), (0, 0))).reshape(size, -1, groups)

    def add(curve, part):
        nu, weight = part
        peaks = jnp.exp(-0.5 * ((frequencies - nu[:, None]) / smearing) ** 2)
        return curve + weight.T @ peaks, None

    empty = jnp.zeros((groups, len(frequencies)))
    curve, _ = jax.lax.scan(add, empty, (nu, weight))
    return curve / (smearing * jnp.sqrt(2 * jnp.pi))


def moments(
    found: Modes, groups: Bool[Array, "group atom"], kept: Bool[Array, "q mode"] | None = None
) -> Moments:
    """Return the moments (2), (3) of every group from the sums over modes.

    Args:
        found: Modes on a mesh.
        groups: The sets S.
        kept: Modes that count. Without it imaginary modes count at negative frequencies and the
            translations at 0.
    """
    return weighted_moments(found.frequencies_THz, _group_weights(found, groups, kept))


def weighted_moments(nu: Float[Array, "q mode"], weight: Float[Array, "q mode group"]) -> Moments:
    """Return the moments (2), (3) of frequencies with weights w W given per mode."""
    weight = weight / jnp.sum(weight, axis=(0, 1))
    nu = nu[:, :, None]
    centre = jnp.sum(weight * nu, axis=(0, 1))
    apart = nu - centre
    second, third, fourth = (jnp.sum(weight * apart**k, axis=(0, 1)) for k in (2, 3, 4))
    return Moments(centre, jnp.sqrt(second), third / second**1.5, fourth / second**2 - 3)


def moments_from_matrices(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    groups: Bool[Array, "group atom"],
    floor: Scalar,
    *,
    free: bool = True,
) -> Moments:
    """Return the moments (2), (3) as traces of matrix functions of D.

    Differentiable in D and masses, at degenerate modes as well; once in D. The same numbers as
    `moments` of the oscillators above the same floor, to rounding.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹.
        q: Fractional; tells Γ, where the translations are left out.
        weights: Sum to one.
        crystal: The primitive cell.
        groups: The sets S.
        floor: Modes with λ ≤ floor (eV Å⁻² amu⁻¹) are left out.
        free: Whether the crystal may move as a whole (`ForceConstants.free`).
    """
    shifted, T = without_translations(D, q, crystal, free)
    s = shift_of(D)[:, None, None]
    rigid = T @ dagger(T)

    def oscillators_only(f, *params):
        return matrix_function(f, shifted, *params) - f(s, *params) * rigid

    def per_group(atomic):  # (q, atom) -> (group,)
        return groups.astype(atomic.dtype) @ (weights @ atomic)

    counted = atomic_traces(oscillators_only(_counted, floor))
    middle = atomic_traces(oscillators_only(_frequency_from, 0.0, floor))
    # Moments about a common constant near all centres: little is lost in the differences below.
    origin = jax.lax.stop_gradient(jnp.sum(weights @ middle) / jnp.sum(weights @ counted))
    F = oscillators_only(_frequency_from, origin, floor)
    FF = F @ F
    powers = [F, FF, F @ FF, FF @ FF]
    norm = per_group(counted)
    m1, m2, m3, m4 = (per_group(atomic_traces(power)) / norm for power in powers)
    second = m2 - m1**2
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    return Moments(origin + m1, jnp.sqrt(second), third / second**1.5, fourth / second**2 - 3)


def curve_width(
    frequencies: Float[Array, " f"], curve: Float[Array, " f"], level: float = 0.01
) -> Float[Array, ""]:
    """Return the range in THz from where g first exceeds `level` times its maximum to where last.

    Ends are interpolated linearly. The smearing of the curve is part of the width.
    """
    high = level * jnp.max(curve)
    above = curve > high
    last = len(curve) - 1
    i, j = jnp.argmax(above), last - jnp.argmax(above[::-1])
    return _crossing(frequencies, curve, high, j, jnp.minimum(j + 1, last)) - _crossing(
        frequencies, curve, high, i, jnp.maximum(i - 1, 0)
    )


def dos_overlap(
    frequencies: Float[Array, " f"],
    first: Float[Array, " f"],
    second: Float[Array, " f"],
    below: Scalar | None = None,
) -> Float[Array, ""]:
    """Return ∫ min(g_1, g_2) dν of two curves, each normalised to 1 over the whole grid.

    Args:
        frequencies: Grid in THz, ascending.
        first: g_1, for instance of the mobile ions, any norm.
        second: g_2, for instance of the host.
        below: Upper limit of the integral in THz; the whole grid if not given.
    """
    common = jnp.minimum(
        first / jnp.trapezoid(first, frequencies), second / jnp.trapezoid(second, frequencies)
    )
    if below is None:
        return jnp.trapezoid(common, frequencies)
    clipped = jnp.minimum(frequencies, below)
    return jnp.trapezoid(jnp.interp(clipped, frequencies, common), clipped)


def centre_to_cutoff(
    centre: Float[Array, "*batch"], cutoff: Float[Array, ""]
) -> Float[Array, "*batch"]:
    """Return the ratio of a centre of a density of states to the acoustic cutoff, both in THz."""
    return centre / cutoff


def _group_weights(found, groups, kept):
    e = found.eigenvectors
    weight = jnp.sum(e.real**2 + e.imag**2, axis=-1) @ groups.T.astype(found.weights.dtype)
    weight = weight * found.weights[:, None, None]
    return weight if kept is None else weight * kept[:, :, None]


def _counted(eigenvalue, floor):
    return jnp.where(eigenvalue > floor, 1.0, 0.0)


def _frequency_from(eigenvalue, origin, floor):
    kept = eigenvalue > floor
    return jnp.where(kept, frequency_THz(jnp.where(kept, eigenvalue, 1.0)) - origin, 0.0)


def _crossing(x, y, level, inside, outside):
    """Return where y passes `level` between two neighbouring points, x[inside] at the rim."""
    rise = y[inside] - y[outside]
    part = jnp.where(rise > 0, (y[inside] - level) / jnp.where(rise > 0, rise, 1.0), 0.0)
    return x[inside] + jnp.minimum(part, 1.0) * (x[outside] - x[inside])
