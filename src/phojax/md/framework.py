"""Whether the host stays in place (PHYSICS E4).

A host element, or a kind of polyanion taken by its centre of mass, does not where

    D_α ≥ 1e-2 Å²/ps on all three axes (through_origin.py), or                             (1)
    ⟨MSD_α⟩ over the last 20 % of the run > 1 Å² on any axis,                              (2)

both from displacements from the first frame. In the first part of a run a line through the origin
takes vibrations for diffusion (1.5 ⟨u²⟩/t is 0.01 Å²/ps at 7.5 ps for u² = 0.05 Å²): there the
slopes of (1) are from lines with an intercept. A polyanion that rotates trips (1) or (2) by its
outer atoms, and not by its centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int

from phojax.checks import check_finite, check_shape, fail
from phojax.md.polyanions import Polyanion, polyanions, unwrapped_centres
from phojax.md.through_origin import through_origin
from phojax.md.trajectory import Trajectory, host_of, without_drift

MOST_D = 1e-2
"""Å²/ps of eq. (1)."""

MOST_MSD = 1.0
"""Å² of eq. (2)."""

_LAST = 0.2


@dataclass(frozen=True)
class FrameworkCheck:
    """What was found for each host element, or unit.

    Attributes:
        names: Of elements or units.
        D: Å²/ps, per axis.
        last_msd: Å², per axis, over the last 20 %.
        reasons: What tripped, by name and axis; empty where the framework holds.
    """

    names: tuple[str, ...]
    D: Float[np.ndarray, "name 3"]
    last_msd: Float[np.ndarray, "name 3"]
    reasons: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing tripped."""
        return not self.reasons


def framework_check(
    msd: Float[np.ndarray, "frame species 3"],
    species: Sequence[int],
    mobile: int,
    interval_ps: float,
    *,
    early: bool = False,
) -> FrameworkCheck:
    """Return whether the host elements stay in place.

    Args:
        msd: Displacements from the first frame, Å², per element and axis, frame 0 included.
        species: Atomic numbers of its columns.
        mobile: Atomic number of the ion that may move.
        interval_ps: Time between frames.
        early: The frames are the first part of a run; see the module's header.

    Raises:
        InputError: shapes that do not fit, fewer than 5 frames, values that are not finite.
    """
    check_shape("msd", msd, (None, len(species), 3), "columns for the elements and axes")
    host = [k for k, z in enumerate(species) if z != mobile]
    names = [chemical_symbols[species[k]] for k in host]
    return _checked(msd[:, host], names, interval_ps, early)


def polyanion_check(
    trajectory: Trajectory, mobile: int, *, stretch: float = 1.1, early: bool = False
) -> FrameworkCheck:
    """Return whether polyanions stay in place, by their centres of mass, and host atoms in none.

    Args:
        trajectory: Frames.
        mobile: Atomic number of the ion that may move.
        stretch: Bonds are up to so many times the sum of covalent radii; see `polyanions`.
        early: As for `framework_check`.
    """
    names, msd = _unit_msd(
        np.asarray(trajectory.positions, float), trajectory.cell, np.asarray(trajectory.numbers),
        trajectory.masses, mobile, stretch,
    )  # fmt: skip
    return _checked(msd, names, trajectory.interval_ps, early)


def polyanions_after(
    first: Float[np.ndarray, "atom 3"],
    last: Float[np.ndarray, "atom 3"],
    cell: Float[np.ndarray, "3 3"],
    numbers: Int[np.ndarray, " atom"],
    masses: Float[np.ndarray, " atom"],
    mobile: int,
    elapsed_ps: float | None,
    *,
    stretch: float = 1.1,
) -> FrameworkCheck:
    """Return `polyanion_check` of the first and the last frame alone.

    Args:
        first: Å.
        last: Å, continuous from `first`.
        cell: Lattice vectors as rows, Å.
        numbers: Atomic numbers.
        masses: u.
        mobile: Atomic number of the ion that may move.
        elapsed_ps: Time between both; None to judge by eq. (2) alone, early in a run.
        stretch: As for `polyanions`.
    """
    x = np.stack([np.asarray(first, float), np.asarray(last, float)])
    names, msd = _unit_msd(x, cell, numbers, masses, mobile, stretch)
    check_finite("positions", msd)
    D = np.zeros_like(msd[1]) if elapsed_ps is None else msd[1] / (2 * elapsed_ps)
    return FrameworkCheck(tuple(names), D, msd[1], _reasons(names, D, msd[1]))


def _unit_msd(
    positions: np.ndarray, cell, numbers: np.ndarray, masses, mobile: int, stretch: float
) -> tuple[list[str], np.ndarray]:
    """Return (frame, kind, 3) displacements of units, and of host atoms in none, from the first."""
    host = host_of(numbers, mobile)
    x = without_drift(positions, masses, host)
    units = polyanions(x[0], cell, numbers, mobile, stretch=stretch)
    centres = unwrapped_centres(x, cell, masses, units)
    kinds: dict[str, list[np.ndarray]] = {}
    for unit, centre in zip(units, centres, strict=True):
        kinds.setdefault(unit.formula, []).append(centre)
    inside = {atom for unit in units for atom in unit.atoms}
    for atom in np.flatnonzero(host & (numbers != mobile)):
        if atom not in inside:
            kinds.setdefault(chemical_symbols[numbers[atom]], []).append(x[:, atom])
    names = sorted(kinds)
    moved = [np.mean([(c - c[0]) ** 2 for c in kinds[name]], axis=0) for name in names]
    return names, np.stack(moved, axis=1) if moved else np.zeros((len(x), 0, 3))


def _checked(msd: np.ndarray, names: list[str], interval_ps: float, early: bool) -> FrameworkCheck:
    check_finite("msd", msd, "Leave out the frames after a run that ended early")
    if len(msd) < 5:
        raise fail(f"{len(msd)} frames", "at least 5")
    D = np.zeros((len(names), 3))
    last = msd[-max(1, round(_LAST * len(msd))) :].mean(axis=0)
    for k in range(len(names)):
        D[k] = (
            _late_slope(msd[:, k], interval_ps)
            if early
            else through_origin(msd[:, k], interval_ps).axes
        )
    return FrameworkCheck(tuple(names), D, last, _reasons(names, D, last))


def _reasons(names: Sequence[str], D: np.ndarray, last: np.ndarray) -> tuple[str, ...]:
    """Return what eqs. (1) and (2) say."""
    reasons = []
    for k, name in enumerate(names):
        if np.all(D[k] >= MOST_D):
            values = ", ".join(f"{d:.3g}" for d in D[k])
            reasons.append(f"{name} diffuses on all axes: D = {values} Å²/ps")
        reasons += [
            f"{name} moves along {axis}: MSD {value:.3g} Å² at the end"
            for axis, value in zip("xyz", last[k], strict=True)
            if value > MOST_MSD
        ]
    return tuple(reasons)


def _late_slope(msd: np.ndarray, interval_ps: float) -> np.ndarray:
    """Return half the slope over the second half of the frames, with an intercept."""
    late = msd[len(msd) // 2 :]
    t = np.arange(len(late)) * interval_ps
    t = t - t.mean()
    return t @ late / (t @ t) / 2


__all__ = [
    "MOST_D",
    "MOST_MSD",
    "FrameworkCheck",
    "Polyanion",
    "framework_check",
    "polyanion_check",
    "polyanions_after",
]
