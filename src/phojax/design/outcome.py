"""What becomes of a design: rounded to a real composition, and computed again from scratch."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from phojax.brillouin import gamma_mesh
from phojax.design.goals import Goal
from phojax.design.loop import Descent, stability
from phojax.design.problem import FORCE, STRESS, Problem, Variables, problem
from phojax.gradients.supercells import route_for
from phojax.gradients.total import vibrations
from phojax.implicit import minimum
from phojax.potentials.pair import symbol_number
from phojax.structure import STANDARD_MASSES, Structure, strained, structure
from phojax.symmetry import space_group, symmetrized

SURVIVES = 0.5
"""Share of the predicted gain above which the recomputed one is said to survive."""


def rounded(given: Problem, x: Variables) -> tuple[Structure, Variables]:
    """Return the start with the largest share of every mixture as its element, and the shares.

    All sites of a mixture become one element: the smallest ordered cell is that of the start.
    """
    if "shares" not in x:
        return given.start, x
    chosen = np.argmax(x["shares"], axis=1)
    numbers = np.asarray(given.start.numbers).copy()
    for k, place in enumerate(chosen):
        numbers[given.sites == k] = symbol_number(given.elements[place])
    masses = np.where(given.sites >= 0, STANDARD_MASSES[numbers], given.start.masses)
    crystal = structure(given.start.cell, given.start.positions, numbers, masses)
    shares = np.eye(len(given.elements))[chosen]
    return crystal, {**x, "shares": shares}


def recomputed(given: Problem, crystal: Structure, x: Variables, goal: Goal) -> dict[str, Any]:
    """Return the descriptor of a real composition, relaxed and computed anew (host).

    No mixture and no gradient takes part: the pure potential, symmetry found again, full rows.

    Raises:
        InputError: values that are not finite.
    """
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
    found = vibrations(here, route_for(given.potential, here.crystal, mesh, group))
    return {
        "formula": here.crystal.symbols,
        "space_group": group.symbol,
        "value": float(goal.value(found)),
        **stability(found),
        "volume_A3": float(here.crystal.volume),
        "energy_eV": float(found.energy),
        "converged": converged,
        "crystal": here.crystal,
    }


def outcome(given: Problem, goal: Goal, path: Descent) -> dict[str, Any]:
    """Return the gain that the descent predicts and the one that is found again (host).

    Keys: "before" and "after", as `recomputed`; "predicted" at the end of the descent; gains,
    positive where the goal got better; and "notes", what has to be said.
    """
    notes: list[str] = []
    x0 = given.first()
    before = recomputed(given, rounded(given, x0)[0], x0, goal)
    if not before["stable"]:
        notes.append(
            f"the start is unstable: {before['modes_left_out']} modes at or below 0, left out"
        )
    if path.best is None:
        return {"before": before, "notes": [*notes, "no step was stable and converged"]}
    step = path.trail[path.best]
    x = {name: np.asarray(step[name]) for name in ("shares", "strain") if name in step}
    crystal, real = rounded(given, x)
    after = recomputed(given, crystal, real, goal)
    sign = 1.0 if goal.largest else -1.0
    predicted = sign * (step["value"] - before["value"])
    gain = sign * (after["value"] - before["value"])
    for said, found in (("start", before), ("result", after)):
        if not found["converged"]:
            notes.append(f"the relaxation of the {said} did not converge")
    if not after["stable"]:
        notes.append(
            f"the result is unstable: {after['modes_left_out']} modes at or below 0, left out"
        )
    if gain <= 0:
        notes.append("there is no gain: the result is no better than the start")
    elif gain < SURVIVES * predicted:
        notes.append(f"{gain / predicted:.0%} of the predicted gain survives")
    if "strain" in x and np.any(np.abs(x["strain"]) > 0.999 * given.largest_strain):
        notes.append("the strain is at its bound")
    return {
        "before": before, "after": after, "step": path.best, "predicted": step["value"],
        "predicted_gain": predicted, "gain": gain,
        "variables": {k: np.asarray(v).tolist() for k, v in real.items()}, "notes": notes,
    }  # fmt: skip


__all__ = ["outcome", "problem", "recomputed", "rounded"]
