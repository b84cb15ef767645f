"""The descent of a design, step by step, kept so that it can be taken up again.

Steps are Adam's, variables brought back to where they may be after each one. All points are kept;
the best one that is stable and converged is where the design ends.
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax

from phojax.checks import InputError, fail
from phojax.design.goals import Goal
from phojax.design.problem import Point, Problem, Variables, evaluated
from phojax.kept_steps import KeptSteps, Trail
from phojax.modes import without_translations
from phojax.spectral import eigenvalues
from phojax.units import frequency_THz

SHARES, STRAIN = 0.1, 0.005
"""Length of a step in each share, and in each coordinate of strain."""

_WAYS_BACK = 5


@dataclass(frozen=True)
class Descent:
    """A finished descent.

    Attributes:
        trail: Its steps.
        best: Number of the step it ends at; None where no step was stable, converged and within
            the limits.
    """

    trail: Trail
    best: int | None


def descended(
    given: Problem,
    goal: Goal,
    steps: int,
    folder: pathlib.Path | None = None,
    *,
    rate: float = 1.0,
    on_part: Callable[[str, int, int], None] | None = None,
) -> Descent:
    """Return the descent of a goal from the start of a problem (host).

    Args:
        given: What may vary.
        goal: To be minimised.
        steps: Evaluations, the start among them.
        folder: Where steps are kept, with orbax, and found again; none to keep nothing.
        rate: Times `SHARES` and `STRAIN`.
        on_part: Called with (what, parts done, parts in all).

    Raises:
        InputError: fewer than two steps; values that are not finite at the start; a goal that does
            not depend on what varies.
    """
    if steps < 2 or not rate > 0:
        raise fail(f"{steps} steps at a rate of {rate}", "2 or more, at a rate above 0")
    size = {"shares": rate * SHARES, "strain": rate * STRAIN}
    x = given.first()
    # In units of the steps all variables are alike.
    adam = optax.adam(1.0, b1=0.8, b2=0.95)
    state = adam.init({k: v / size[k] for k, v in x.items()})
    if "shares" in x:  # away from the corner, where all slopes but one point outward
        x["shares"] = 0.9 * x["shares"] + 0.1 / x["shares"].shape[1]
        x = given.projected(x)
    trail: Trail = []
    with KeptSteps(folder) as kept:
        held = kept.latest({"x": x, "optimiser": state})
        if held is not None:
            x, state, trail = held[0]["x"], held[0]["optimiser"], held[1]
        while len(trail) < steps:
            point, x, failed = _reached(given, x, goal, trail, _told(on_part, len(trail), steps))
            if not trail and not any(np.any(slope) for slope in point.slopes.values()):
                raise fail(
                    "an objective that does not depend on what varies: its gradient is 0",
                    "one that is differentiable in JAX and depends on the phonons",
                )
            trail.append({**_said(goal, point), "failed_on_the_way": failed})
            slopes = {k: v * size[k] for k, v in point.slopes.items()}
            if "shares" in slopes:  # along the simplex
                slopes["shares"] = slopes["shares"] - slopes["shares"].mean(axis=1, keepdims=True)
            found, state = adam.update(slopes, state)
            changes: Any = found
            change = {k: np.asarray(changes[k]) for k in x}
            x = given.projected({k: v + change[k] * size[k] for k, v in x.items()})
            kept.keep(len(trail), {"x": x, "optimiser": state}, trail)
    fine = [k for k, step in enumerate(trail) if step["stable"] and step["converged"]
            and not step["saddle"] and not step["beyond_limits"]]  # fmt: skip
    return Descent(trail, min(fine, key=lambda k: trail[k]["loss"]) if fine else None)


def _told(on_part, step: int, steps: int) -> Callable[[str, int, int], None] | None:
    if on_part is None:
        return None
    return lambda stage, done, of: on_part(f"step {step + 1} of {steps}: {stage}", done, of)


def _reached(
    given: Problem, x: Variables, goal: Goal, trail: Trail, on_part
) -> tuple[Point, Variables, list[str]]:
    """Return the point at x, or half way back to the one before, as often as it takes."""
    failed: list[str] = []
    while True:
        try:
            return evaluated(given, x, goal, on_part=on_part), x, failed
        except InputError as error:
            if not trail or len(failed) == _WAYS_BACK:
                raise
            failed.append(str(error))
            x = {k: (v + np.asarray(trail[-1][k])) / 2 for k, v in x.items()}


def _said(goal: Goal, point: Point) -> dict[str, Any]:
    crystal = point.crystal
    return {
        "value": float(goal.value(point.vibrations)),
        "loss": point.loss,
        **{name: value.tolist() for name, value in point.variables.items()},
        "slopes": {name: np.asarray(value).tolist() for name, value in point.slopes.items()},
        **stability(point.vibrations),
        "volume_A3": float(crystal.volume),
        "energy_eV": float(point.vibrations.energy),
        "converged": point.converged,
        "saddle": point.saddle,
        "beyond_limits": goal.beyond(point.vibrations),
        "relaxation_steps": point.steps,
        "products_of_solves": [solve.products for solve in point.solves],
    }


def stability(found) -> dict[str, Any]:
    """Return the lowest frequency of the mesh, negative if imaginary, and what is below 0."""
    shifted, _ = without_translations(found.matrices, found.q, found.crystal, True)
    lowest = eigenvalues(shifted).min()
    left_out = int(found.count_left_out())
    return {
        "lowest_THz": float(frequency_THz(lowest)),
        "modes_left_out": left_out,
        "stable": left_out == 0,
    }


__all__ = ["Descent", "descended", "stability"]
