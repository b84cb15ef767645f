"""What becomes of a design: rounded to a real composition, and computed again from scratch."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from phojax.brillouin import gamma_mesh
from phojax.compiled import let_go_of_compiled
from phojax.design.goals import Goal
from phojax.design.loop import Descent, stability
from phojax.design.problem import FORCE, STRESS, Problem, Variables
from phojax.design.rounding import rounded
from phojax.gradients.supercells import route_for
from phojax.gradients.total import vibrations
from phojax.implicit import minimum
from phojax.structure import Structure, strained
from phojax.symmetry import space_group, symmetrized

SURVIVES = 0.5
"""Share of the predicted gain above which the recomputed one is said to survive."""


def recomputed(given: Problem, crystal: Structure, x: Variables, goal: Goal) -> dict[str, Any]:
    """Return the descriptor of a real composition, relaxed and computed anew (host).

    No mixture and no gradient takes part: the pure potential, symmetry found again, full rows.

    Raises:
        InputError: values that are not finite.
    """
    let_go_of_compiled()
    group = space_group(crystal)
    crystal = symmetrized(crystal, group)
    here, how = minimum(
        given.potential, crystal, symmetry=group, force_tolerance=FORCE, stress_tolerance=STRESS
    )  # fmt: skip
    converged = how.converged
    if given.vary_strain:
        under = strained(here.crystal, jnp.asarray(given.strain(x)))
        here, again = minimum(
            given.potential, under, cell=False, symmetry=group,
            force_tolerance=FORCE, stress_tolerance=STRESS,
        )  # fmt: skip
        converged = converged and again.converged
    mesh = gamma_mesh(given.mesh.divisions, group)
    zero = sum(given.references.get(symbol, 0.0) for symbol in here.crystal.symbols)
    found = vibrations(here, route_for(given.potential, here.crystal, mesh, group), zero=zero)
    lowest = here.lowest_curvature
    return {
        "formula": here.crystal.symbols,
        "space_group": group.symbol,
        "value": float(goal.value(found)),
        **stability(found),
        "volume_A3": float(here.crystal.volume),
        "energy_eV": float(found.energy),
        "converged": converged,
        "saddle": lowest is not None and lowest < 0,
        "beyond_limits": goal.beyond(found),
        "crystal": here.crystal,
    }


def outcome(given: Problem, goal: Goal, path: Descent) -> dict[str, Any]:
    """Return the gain that the descent predicts and the one that is found again (host).

    Keys: "before" and "after", as `recomputed`; "predicted" at the end of the descent; gains,
    positive where the goal got better; and "notes", what has to be said.
    """
    x0 = given.first()
    before = recomputed(given, given.start, x0, goal)
    notes = _flags("start", before)
    if path.best is None:
        notes.append("no step was stable, converged and within the limits")
        return {"before": before, "notes": notes}
    step = path.trail[path.best]
    x = {name: np.asarray(step[name]) for name in ("shares", "strain") if name in step}
    real = rounded(given, x)
    if real is None:
        notes.append(
            "no whole numbers of atoms in this cell meet the constraints: start from a larger cell"
        )
        return {"before": before, "step": path.best, "predicted": step["value"], "notes": notes}
    crystal, facts = real
    after = recomputed(given, crystal, x, goal)
    notes += _flags("result", after)
    sign = 1.0 if goal.largest else -1.0
    predicted = sign * (step["value"] - before["value"])
    gain = sign * (after["value"] - before["value"])
    if facts["orders"] != facts["tried"]:
        among = facts["orders"] or f"more than {facts['tried']}"
        notes.append(f"the order of atoms is the best of {facts['tried']} tried, of {among}")
    if gain <= 0:
        notes.append("there is no gain: the result is no better than the start")
    elif gain < SURVIVES * predicted:
        notes.append(f"{gain / predicted:.0%} of the predicted gain survives")
    if "strain" in x and np.any(np.abs(x["strain"]) > 0.999 * given.largest_strain):
        notes.append("the strain is at its bound")
    return {
        "before": before, "after": after, "step": path.best, "predicted": step["value"],
        "predicted_gain": predicted, "gain": gain, "rounding": facts, "notes": notes,
    }  # fmt: skip


def _flags(which: str, found: dict[str, Any]) -> list[str]:
    notes = []
    if not found["stable"]:
        notes.append(f"the {which} is unstable: {found['modes_left_out']} modes at or below 0, "
                     "left out")  # fmt: skip
    if not found["converged"]:
        notes.append(f"the relaxation of the {which} did not converge")
    if found["saddle"]:
        notes.append(f"the {which} is on a saddle, no minimum")
    notes += [
        f"the {which} is beyond a limit: {name} {value:g}"
        for name, value in found["beyond_limits"].items()
    ]
    return notes


def with_references(given: Problem) -> tuple[Problem, dict[str, float]]:
    """Return the problem with energies above those of its ends, and energies of these in eV (host).

    An end has one of the elements on all mixed sites: shared equally among those, its energy at
    rest is the reference of the element, and that of a mixture its energy of mixing. Where
    composition is held the start is the only end, and all atoms share.

    Raises:
        InputError: values that are not finite.
    """
    ends, references = {}, {}
    model, group = given.potential, given.group
    for symbol in given.elements or ("",):
        crystal = given.start
        if symbol:
            assert given.composition is not None
            place = given.elements.index(symbol)
            shares = np.eye(len(given.elements))[[place] * len(given.composition.counts)]
            model, crystal = given.composed({"shares": shares}, given.start)
        _, how = minimum(
            model, crystal, symmetry=group, force_tolerance=FORCE, stress_tolerance=STRESS
        )
        name = symbol or "start"
        ends[name] = how.energy_eV
        sites = int(np.sum(given.sites >= 0)) if symbol else len(crystal)
        for each in (symbol,) if symbol else sorted(set(crystal.symbols)):
            references[each] = ends[name] / sites
    return replace(given, references=references), ends


__all__ = ["outcome", "recomputed", "rounded", "with_references"]
