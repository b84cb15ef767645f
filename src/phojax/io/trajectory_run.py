"""A run as it is read: each frame checked against the first, atoms followed across the cell.

Most programs wrap atoms back into the cell. An atom that moves by less than half the cell between
two frames is followed by the nearest image,

    s_t = s_(t-1) + f - round(f),   f = (r_t - s_(t-1)) h⁻¹,

in units of a reduced basis h of the lattice, whose vectors are as short and as orthogonal as can
be. Only lattice vectors are added, so positions that were continuous come back bit by bit. Where a
file says how atoms were wrapped (LAMMPS xu or ix, our own arrays), it is believed instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ase.geometry.minkowski_reduction import minkowski_reduce
from ase.io.formats import UnknownFileTypeError

from phojax.checks import InputError, fail
from phojax.io.trajectory_formats import (
    CutShort,
    Frame,
)

SAME_CELL = 1e-6  # of the cell: rounding in files
_STEADY_CELL = 1e-3  # beyond this the run was not at constant volume
_FOR_UNITS = 50  # frames that the unit of velocities is recognised from


@dataclass
class Run:
    """What has been read so far; the cell is that of the first frame."""

    every: int
    first: Frame | None = None
    read: int = 0
    positions: list[np.ndarray] = field(default_factory=list)
    velocities: list[np.ndarray] = field(default_factory=list)
    early: list[np.ndarray] = field(default_factory=list)
    early_velocities: list[np.ndarray] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    far: float = 0.0
    repeated: int = 0


def follow(run: Run, frames: Iterator[Frame], start: int) -> None:
    """Read all frames, check each against the first and follow the atoms."""
    number, last = 0, np.zeros(0)
    basis = inverse = np.eye(3)
    try:
        for number, frame in enumerate(frames, 1):
            if number <= start:
                continue
            first = run.first
            if first is None:
                first = run.first = frame
                _check_first(frame)
                basis = np.asarray(minkowski_reduce(frame.cell)[0])
                inverse = np.linalg.inv(basis)
            _check_same(frame, first, number)
            now = _clock(frame)
            if run.clock and now is not None and now == run.clock[-1]:
                run.repeated += 1  # restarted runs write the frame they start from again
                continue
            positions = frame.positions
            if change_of(frame.cell, first.cell) > SAME_CELL:
                positions = positions @ np.linalg.solve(frame.cell, first.cell)
            if not frame.continuous and run.read:
                step = (positions - last) @ inverse
                whole = np.rint(step)
                run.far = max(run.far, float(np.abs(step - whole).max(initial=0.0)))
                positions = positions - whole @ basis
            last = positions
            _keep(run, frame, positions, now)
    except InputError:
        raise
    except CutShort as error:
        if not run.positions:
            raise fail("it ends inside its first frame", "complete frames") from error
        run.notes.append(f"the file ends inside frame {number + 1}, which is left out")
    except UnknownFileTypeError as error:
        raise fail(
            "a file of no format that is known",
            "extxyz, .traj, XDATCAR, vasprun.xml, a LAMMPS text dump (it begins with ITEM:) or the "
            ".npz of phojax md",
        ) from error
    except Exception as error:  # every parser fails in its own way
        raise fail(
            f"frame {number + 1} cannot be read ({type(error).__name__}: {error})",
            "a trajectory in a format known here",
            "The file may be damaged, or of another format than its name says",
        ) from error


def _keep(run: Run, frame: Frame, positions: np.ndarray, now: float | None) -> None:
    if run.read % run.every == 0:
        run.positions.append(positions)
        if frame.velocities is not None:
            run.velocities.append(frame.velocities)
    if run.read < _FOR_UNITS and frame.velocities is not None:
        run.early.append(positions)
        run.early_velocities.append(frame.velocities)
    run.cells.append(frame.cell)
    if now is not None:
        run.clock.append(now)
    run.read += 1


def _clock(frame: Frame) -> float | None:
    """Return the time, or the number of the step where there is none."""
    return frame.time_ps if frame.time_ps is not None else frame.step


def change_of(cell: np.ndarray, first: np.ndarray) -> float:
    """Return by how much a cell differs from another, relative to its longest vector."""
    return float(np.abs(cell - first).max() / np.linalg.norm(first, axis=1).max())


def _check_first(frame: Frame) -> None:
    if abs(np.linalg.det(frame.cell)) < 1e-3:
        raise fail("a first frame without a cell", "three lattice vectors in the file")
    if len(frame.numbers) == 0 or frame.numbers.min() < 1:
        raise fail("a first frame without atoms or with dummy atoms", "elements")


def _check_same(frame: Frame, first: Frame, number: int) -> None:
    if len(frame.numbers) != len(first.numbers):
        raise fail(
            f"frame {number} has {len(frame.numbers)} atoms",
            f"{len(first.numbers)} as in the first",
            "Atoms may not come or go; the file may hold several runs",
        )
    other = np.flatnonzero(frame.numbers != first.numbers)
    if len(other):
        at = int(other[0])
        raise fail(
            f"frame {number} has element {frame.numbers[at]} as atom {at + 1}",
            f"{first.numbers[at]} as in the first frame: the order of the atoms must not change",
            "Sort the frames (LAMMPS: dump_modify sort id)",
        )
    lost = np.flatnonzero(~np.isfinite(frame.positions).all(axis=1))
    if len(lost):
        raise fail(
            f"frame {number} has no finite position of atom {int(lost[0]) + 1}"
            + (f" and {len(lost) - 1} others" if len(lost) > 1 else ""),
            "finite positions",
            "The run blew up there, or the file is damaged: keep the frames before",
        )
    change = change_of(frame.cell, first.cell)
    if change > _STEADY_CELL:
        raise fail(
            f"the cell of frame {number} differs from the first by {change:.2g} of its length",
            f"a constant cell (at most {_STEADY_CELL:g})",
            "Diffusion and densities are of a run at constant volume: use NVT, or start=… after "
            "the cell has settled",
        )


__all__ = ["SAME_CELL", "Run", "change_of", "follow"]
