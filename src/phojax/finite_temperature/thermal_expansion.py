"""Thermal expansion of a crystal from a potential: relax, expand, solve, and expand again.

D is expanded in strain at the static minimum, which gives the expansion to first order at all
temperatures, and a cell at the highest one. A second expansion is made half-way there; cells at all
temperatures are solved for with it. What the two differ by says how good an expansion is over that
strain: the second one has half as far to go, so an eighth of the error in D.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from phojax.brillouin import Mesh
from phojax.finite_temperature.quasiharmonic import (
    FirstOrder,
    State,
    first_order,
    states,
    with_reach,
)
from phojax.finite_temperature.strain_expansion import STEP, Kept, StaticEnergy, expanded
from phojax.finite_temperature.strained_matrices import StrainedMatrices
from phojax.gradients.supercells import route_for
from phojax.implicit import minimum
from phojax.potentials.contract import Potential
from phojax.relax import Relaxation
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup

_BEYOND = 1.25  # times the distance of the two expansions
_STILL = 1e-5  # strain: no need to expand again


@dataclass(frozen=True)
class ThermalExpansion:
    """What a crystal's cell does with temperature.

    Attributes:
        at_rest: The crystal at the static minimum.
        relaxation: How it was reached.
        first_order: About the static minimum.
        states: From the last expansion.
        matrices: Of the expansion at the static minimum.
        last: Of the last expansion.
        difference: |α_V of the last expansion - α_V of the first one|, 1/K; NaN where there was
            one alone, or no minimum.
        rows: Second derivatives of the energy that D(q) took, each at all strains.
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
        return None if on_part is None else lambda part, of: on_part(stage, part, of)

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
    warm = [one for one in found if one.found]
    far = warm and max(warm, key=lambda one: float(np.linalg.norm(one.strain)))
    if again and far and np.linalg.norm(far.strain) > _STILL:
        half = np.einsum("aij,ij->a", static.strains, far.strain) / 2
        middle = static(static.settled(half)).crystal
        static = StaticEnergy(potential, middle, group, pressure)
        route = route_for(potential, middle, mesh, group)
        last = with_reach(
            expanded(
                static, route, step=step, on_part=told(f"{stage}, half-way"), kept=kept,
                name="half-way",
            ),
            _BEYOND * float(np.linalg.norm(half)),
        )  # fmt: skip
        say("cells at temperatures")
        better = states(static, last, temperatures)
        pairs = zip(better, found, strict=True)
        difference = np.array([abs(b.volume_expansion - a.volume_expansion) for b, a in pairs])
        found = better
    return ThermalExpansion(
        here.crystal, how, linear, found, matrices, last, difference, len(route)
    )


__all__ = ["ThermalExpansion", "thermal_expansion"]
