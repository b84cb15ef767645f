"""Mixtures of elements on a site, so that composition has a derivative.

A mixture k holds shares p_ke ≥ 0 of elements e, Σ_e p_ke = 1. What a potential knows of an element
is mixed by them: the rows of a network's embedding and reference energies, the charge of a point
ion, and pair by pair the energy of a pair potential, φ_ij = Σ_st p_is p_jt φ_st. Masses are the
mean. Where shares are 0 and 1 all of this is the pure compound, to the last digit or so; between
there is no compound at all, but a path along which to follow a gradient.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import check_shape, fail
from phojax.potentials.contract import Potential
from phojax.potentials.pair import symbol_number
from phojax.structure import MIXTURE, STANDARD_MASSES, Structure


def with_mixtures(potential: Potential, elements: Sequence[str], shares) -> Potential:
    """Return the potential for crystals that hold mixtures, differentiable in their shares.

    Args:
        potential: Whose elements mix: pair potentials, charges, their sums, CHGNet, Nequix.
        elements: Symbols.
        shares: (mixture, element), each row adding up to 1: `params["shares"]` of the result.

    Raises:
        InputError: a potential for which mixing is meaningless, an element it does not know,
            shares of another shape.
    """
    if potential.mixed is None:
        raise fail(
            f"mixtures with {potential.name}, which says of no element what could be mixed",
            "pair potentials, point charges, sums of them, CHGNet or Nequix",
        )  # fmt: skip
    numbers = tuple(symbol_number(symbol) for symbol in elements)
    if len(set(numbers)) != len(numbers) or not numbers:
        raise fail(f"elements {', '.join(elements)}", "different ones")
    unknown = [
        symbol for symbol, z in zip(elements, numbers, strict=True)
        if potential.elements is not None and z not in potential.elements
    ]  # fmt: skip
    if unknown:
        raise fail(f"mixtures with {', '.join(unknown)}", f"elements that {potential.name} knows")
    check_shape("shares", shares, (None, len(numbers)), "one row per mixture")
    energy, capacity = potential.mixed(numbers)
    known = potential.elements
    mixtures = range(MIXTURE, MIXTURE + len(shares))
    return replace(
        potential,
        name=f"{potential.name} with mixtures of {', '.join(elements)}",
        params={"pure": potential.params, "shares": jnp.asarray(shares, float)},
        energy=energy,
        capacity=capacity,
        elements=None if known is None else known | set(mixtures),
        reaching=None,
        mixed=None,
    )


def mixed_crystal(
    crystal: Structure,
    sites: Sequence[int] | np.ndarray,
    elements: Sequence[str],
    shares: Float[Array, "k e"],
) -> Structure:
    """Return the crystal with mixtures on some sites; traceable in shares, differentiable (masses).

    Args:
        crystal: Concrete.
        sites: For each atom its mixture, -1 for none.
        elements: Symbols.
        shares: Of each mixture.

    Raises:
        InputError: sites of another length, or beyond the mixtures there are.
    """
    at = np.asarray(sites)
    check_shape("sites", at, (len(crystal),), "one per atom")
    if at.max(initial=-1) >= len(shares) or at.min(initial=0) < -1:
        raise fail(f"sites {at.tolist()}", f"numbers of {len(shares)} mixtures, or -1")
    numbers = np.where(at >= 0, MIXTURE + at, np.asarray(crystal.numbers))
    return replace(
        crystal,
        numbers=jnp.asarray(numbers, jnp.int32),
        masses=mixed_masses(crystal, at, elements, shares),
    )


def mixed_masses(
    crystal: Structure,
    sites: Sequence[int] | np.ndarray,
    elements: Sequence[str],
    shares: Float[Array, "k e"],
) -> Float[Array, " atom"]:
    """Return masses in amu, those of mixtures the means of standard atomic weights."""
    at = np.asarray(sites)
    pure = jnp.asarray(STANDARD_MASSES[[symbol_number(symbol) for symbol in elements]])
    mean = (shares @ pure)[np.maximum(at, 0)]
    return jnp.where(at >= 0, mean, crystal.masses)


__all__ = ["mixed_crystal", "mixed_masses", "with_mixtures"]
