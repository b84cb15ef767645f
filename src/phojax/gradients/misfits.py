"""How far phonons are from others that were measured or computed: functions to be minimised.

A misfit is any function of `Vibrations` that returns a scalar. Of force constants,

    Σ_q w_q |Φ(q) - Φ°(q)|² / Σ_q w_q |Φ°(q)|²,   Φ_ij(q) = √(m_i m_j) D_ij(q)              (1)

is smooth everywhere. At the points that fit a supercell it is the same sum over the force constants
of that supercell (Parseval), and nothing is interpolated. Of frequencies,

    Σ_qg w_q n_g (ν(λ_g) - ν°_g)² / Σ_qg w_q n_g,   λ_g the mean of λ over a group g         (2)

sorts bands at each q and gives those that are degenerate in the reference, n_g of them, one mean:
single sorted eigenvalues have no derivative where they are degenerate, their sum has. Where bands
of different groups cross it has a kink, and what is returned there is one of its slopes.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from phojax.checks import check_finite, check_shape, fail
from phojax.gradients.vibrations import Vibrations
from phojax.spectral import eigenvalues
from phojax.units import THZ, eigenvalue_from_THz

Misfit = Callable[[Vibrations], Float[Array, ""]]

SAME = 0.01
"""THz that the bands of one group are apart at most."""

_ROUNDED = 1e-5  # eV Å⁻² amu⁻¹ (0.05 THz): below, ν(λ) is linear


def force_constant_misfit(reference: Complex[Array, "q mode mode"]) -> Misfit:
    """Return eq. (1), dimensionless: its root is the relative error of force constants.

    Args:
        reference: D(q) in eV Å⁻² amu⁻¹ in the convention of `dynmat`, at the points of the route
            and with the masses of its crystal.

    Raises:
        InputError: values that are not finite.
    """
    check_finite("reference", reference)
    wanted = jnp.asarray(reference)

    def misfit(found: Vibrations) -> Float[Array, ""]:
        check_shape("reference", wanted, found.matrices.shape, "one matrix per point of the route")
        mass = jnp.repeat(found.crystal.masses, 3)
        share = found.weights[:, None, None] * mass[:, None] * mass
        off = found.matrices - wanted
        size = jnp.sum(share * (wanted.real**2 + wanted.imag**2))
        return jnp.sum(share * (off.real**2 + off.imag**2)) / size

    return misfit


def frequency_misfit(
    frequencies: Float[np.ndarray, "q mode"],
    *,
    same: float = SAME,
    weights: np.ndarray | None = None,
) -> Misfit:
    """Return eq. (2) in THz²: the mean square error of frequencies.

    Args:
        frequencies: THz, imaginary ones negative, ascending at each point of the route; NaN for
            those that are not known.
        same: THz; neighbours in this list that are closer are one group.
        weights: One per point; by default those of the route.

    Raises:
        InputError: frequencies that do not ascend, or none at all.
    """
    given = np.asarray(frequencies, float)
    check_shape("frequencies", given, (None, None), "one row per point of the route")
    known = np.isfinite(given)
    if not known.any():
        raise fail("a reference without frequencies", "one or more")
    steps = np.diff(given, axis=1)
    if np.any(steps[np.isfinite(steps)] < 0):
        raise fail("frequencies that do not ascend", "each row sorted")
    to_group, wanted, count = _groups(given, known, same)

    def misfit(found: Vibrations) -> Float[Array, ""]:
        own = eigenvalues(found.matrices)
        check_shape("frequencies", given, own.shape, "one per mode and point of the route")
        share = found.weights if weights is None else jnp.asarray(weights, float)
        mean = jnp.einsum("qgn,qn->qg", to_group, own)
        off = smooth_frequency(mean) - wanted
        many = share[:, None] * count
        return jnp.sum(many * off**2) / jnp.sum(many)

    return misfit


def smooth_frequency(eigenvalue: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return ν = λ / (λ² + ε²)^(1/4) in THz, negative for λ < 0.

    That is ±√|λ| beyond 0.05 THz (to 2e-6 at 1 THz), and has a derivative at 0, which the root
    has not.
    """
    return THZ * eigenvalue / (eigenvalue**2 + _ROUNDED**2) ** 0.25


def _groups(given: np.ndarray, known: np.ndarray, same: float):
    """Return per group the mean over its modes, its frequency and their number; 0 for padding."""
    to_group = np.zeros((*given.shape, given.shape[1]))
    wanted, count = np.zeros(given.shape), np.zeros(given.shape)
    for q, row in enumerate(given):
        apart = ~(np.diff(row) <= same)  # NaN is apart
        labels = np.concatenate([[0], np.cumsum(apart)])
        for g in np.unique(labels[known[q]]):
            inside = np.flatnonzero(labels == g)
            to_group[q, g, inside] = 1 / len(inside)
            level = np.mean(eigenvalue_from_THz(jnp.asarray(row[inside])))
            wanted[q, g], count[q, g] = smooth_frequency(jnp.asarray(level)), len(inside)
    return jnp.asarray(to_group), jnp.asarray(wanted), jnp.asarray(count)


__all__ = [
    "SAME",
    "Misfit",
    "force_constant_misfit",
    "frequency_misfit",
    "smooth_frequency",
]
