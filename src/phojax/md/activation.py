"""Activation energies from transport at several temperatures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phojax.checks import InputError
from phojax.md.arrhenius import Arrhenius, arrhenius, arrhenius_fit
from phojax.md.transport import Transport

_NOT_DIFFUSION = {
    "framework_moves": "the framework moves",
    "subdiffusive": "displacements do not grow in proportion to time",
    "too_short": "the run is too short",
}


@dataclass(frozen=True)
class Activation:
    """Fits over temperatures; None where there are too few.

    Attributes:
        fit: With errors, censored temperatures as such.
        paper: Of the fits through the origin.
        notes: Why one is missing.
        left_out: Of each of the runs, whether it takes no part because it shows no diffusion yet.
    """

    fit: Arrhenius | None
    paper: Arrhenius | None
    notes: tuple[str, ...]
    left_out: tuple[bool, ...]


def activation(found: Sequence[Transport]) -> Activation:
    """Return the activation energy from several temperatures; those whose host moves left out."""
    notes: list[str] = []
    kept = []
    known = [o for o in found if o.observed.temperature_K is not None and o.total is not None]
    several = len({one.observed.temperature_K for one in known}) > 1
    for one in known:
        why = [said for flag, said in _NOT_DIFFUSION.items() if flag in one.flags]
        if one.total is not None and one.total.below_detection and not one.total.poor_fit:
            # Flat because nothing diffuses: a bound, which is what the fit needs.
            why = [said for said in why if said != _NOT_DIFFUSION["subdiffusive"]]
        if not why:
            kept.append(one)
        elif several:
            T = one.observed.temperature_K
            notes.append(f"{T:g} K takes no part in the activation energy: {', '.join(why)}")
    left_out = tuple(
        any(one is other for other in known) and not any(one is other for other in kept)
        for one in found
    )
    T = np.array([one.observed.temperature_K for one in kept], float)
    if len(np.unique(T)) < 2:
        if several:
            notes.append("no activation energy: fewer than two temperatures take part")
        return Activation(None, None, tuple(notes), left_out)
    fit = paper = None
    try:
        fit = arrhenius(T, [one.total for one in kept if one.total is not None])
    except InputError as error:
        notes.append(f"no activation energy: {error}")
    origin = np.array([np.nan if one.paper is None else one.paper.average for one in kept])
    try:
        paper = arrhenius_fit(T[origin > 0], origin[origin > 0])
    except InputError as error:
        notes.append(f"no activation energy by fits through the origin: {error}")
    return Activation(fit, paper, tuple(notes), left_out)


__all__ = ["Activation", "activation"]
