"""Thermal expansion of a crystal from a potential: relax, expand, solve, and expand again.

D is expanded in strain at the static minimum, which gives the expansion to first order at all
temperatures, and a cell at the highest one. A second expansion is made there (and again, if that
cell was off), and the two are joined: cells between need no extrapolation. How far the cubic
polynomial between them, made without second derivatives, gives another α is a measure of what is
wrong with the quintic one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from phojax.brillouin import Mesh
from phojax.finite_temperature.quasiharmonic import (
    FirstOrder,
    State,
    first_order,
    states,
)
from phojax.finite_temperature.strain_expansion import REACH, STEP, Kept, StaticEnergy, expanded
from phojax.finite_temperature.strained_matrices import StrainedMatrices, coarser, joined
from phojax.gradients.supercells import route_for
from phojax.implicit import minimum
from phojax.potentials.contract import Potential
from phojax.relax import Relaxation
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup

_TURNS = 3  # at most: a first guess of the hottest cell may be off
_NEAR = 0.03  # of the strain, by which it may be off
_ASIDE = 0.1  # of the line between two expansions: how far off it, or beyond, they are meant
_STILL = 1e-5  # strain: no need to expand again


@dataclass(frozen=True)
class ThermalExpansion:
    """What a crystal's cell does with temperature.

    Attributes:
        at_rest: The crystal at the static minimum.
        relaxation: How it was reached.
        first_order: About the static minimum.
        states: From both expansions.
        matrices: Expanded at the static minimum.
        last: Both expansions joined, or the only one.
        difference: Between α_V of the quintic and of the cubic polynomial in strain, 1/K; NaN where
            there was one expansion alone, or no minimum.
        rows: Second derivatives of the energy that D(q) took at each strain.
    """

    at_rest: Structure
    relaxation: Relaxation
    first_order: list[FirstOrder]
    states: list[State]
    matrices: StrainedMatrices
    last: StrainedMatrices
    difference: Float[np.ndarray, " temperature"]
    rows: int


def thermal_expansion(
    potential: Potential,
    start: Structure,
    mesh: Mesh,
    group: SpaceGroup | None,
    temperatures: Sequence[float],
    *,
    pressure: float = 0.0,
    step: float | None = STEP,
    again: bool = True,
    on_part: Callable[[str, int, int], None] | None = None,
    kept: Kept | None = None,
) -> ThermalExpansion:
    """Return the thermal expansion of the minimum nearest to a start (host).

    Args:
        potential: With an energy in JAX, in float64.
        start: Primitive, exactly symmetric.
        mesh: Γ-centred, reduced by the group, or by time reversal alone without one. The
            translations at Γ are not in it, so that α is low by about one part in the number of
            atoms times points.
        group: Whose symmetry is kept; only strains that keep it are there.
        temperatures: T ≥ 0 in K.
        pressure: eV/Å³.
        step: Strain of central differences; None for forward mode.
        again: Whether to expand a second time.
        on_part: Called with what is done, and how much of it.
        kept: As for `expanded`.

    Raises:
        InputError: as `minimum`, `route_for`, `expanded` and `first_order`.
    """

    def told(stage: str):
        return None if on_part is None else partial(on_part, stage)

    def say(stage: str) -> None:
        if on_part is not None:
            on_part(stage, 0, 0)

    say("relaxation")
    here, how = minimum(potential, start, symmetry=group, pressure=pressure)
    route = route_for(potential, here.crystal, mesh, group)
    static = StaticEnergy(potential, here.crystal, group, pressure)
    stage = "matrices and their strain derivatives"
    matrices = expanded(
        static, route, step=step, on_part=told(stage), kept=kept, name="at-rest"
    )  # fmt: skip
    say("cells at temperatures")
    linear = first_order(static, matrices, temperatures)
    found = states(static, matrices, temperatures)
    last, difference = matrices, np.full(len(found), np.nan)
    end = np.zeros(len(static.strains))
    for turn in range(_TURNS if again else 0):
        warm = [one for one in found if one.found]
        if not warm:
            break
        far = max(warm, key=lambda one: float(np.linalg.norm(one.strain)))
        wanted = np.einsum("aij,ij->a", static.strains, far.strain)
        if np.linalg.norm(wanted - end) <= _NEAR * np.linalg.norm(wanted) + _STILL:
            break
        end = wanted
        other = expanded(
            static, route_for(potential, far.crystal, mesh, group), about=end, step=step,
            on_part=told(f"{stage}, at {far.temperature:g} K"), kept=kept,
            name=f"strained-{turn}",
        )  # fmt: skip
        last = joined(matrices, other, max(REACH / 2, _ASIDE * float(np.linalg.norm(end))))
        say("cells at temperatures")
        found = states(static, last, temperatures)
        pairs = zip(found, states(static, coarser(last), temperatures), strict=True)
        difference = np.array([abs(a.volume_expansion - b.volume_expansion) for a, b in pairs])
    return ThermalExpansion(
        here.crystal, how, linear, found, matrices, last, difference, len(route)
    )


__all__ = ["ThermalExpansion", "thermal_expansion"]
