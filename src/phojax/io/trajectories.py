"""Trajectories of molecular dynamics from files, made continuous and checked.

How atoms are followed from frame to frame: `trajectory_run`.
"""

import itertools
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator
from dataclasses import replace

import ase.io
import numpy as np
from jaxtyping import Float

from phojax.checks import InputError, fail
from phojax.io.structures import check_readable
from phojax.io.trajectory_formats import (
    ASE_VELOCITY,
    Frame,
    Types,
    ase_frame,
    extxyz_frames,
    lammps_frames,
    opened,
    traj_frames,
    vasprun_frames,
    xdatcar_frames,
)
from phojax.io.trajectory_run import SAME_CELL, Run, change_of, follow
from phojax.md.trajectory import Trajectory
from phojax.structure import STANDARD_MASSES

_FAR = 0.4  # of a cell between frames, where the nearest image begins to be a guess
_UNITS = {"Å/ps": 1.0, "Å/fs": 1e3, "Å per ASE's unit of time": ASE_VELOCITY}


def read_trajectory(
    path: str | os.PathLike,
    *,
    interval_ps: float | None = None,
    every: int = 1,
    start: int = 0,
    types: Types | None = None,
    timed: bool = True,
) -> Trajectory:
    """Return the frames of a run at constant volume, positions unwrapped.

    Args:
        path: ASE .traj, extxyz, XDATCAR, vasprun.xml, a LAMMPS text dump in units metal or real,
            the .npz of `write_trajectory_npz`, or another format that ASE recognises. A time is
            taken from `time_ps` or `time_fs` in extxyz and .traj, from what ASE's dynamics say in
            their .traj, from POTIM in vasprun.xml and, for LAMMPS, from
            `dump_modify time yes units yes`.
        interval_ps: Time between successive frames of the file, where it does not hold it.
        every: Keep every n-th frame; all are read to follow the atoms.
        start: Frames left out at the beginning.
        types: Elements of the types of a LAMMPS dump without a column `element`.
        timed: Whether times matter. Without, one frame is enough, and where the file has no time
            between frames, or an uneven one, the interval is infinite.

    Raises:
        InputError: a file that cannot be read; no time between frames, or one that varies; other
            atoms or another order than in the first frame; a cell that changes by more than
            1e-3; fewer than 2 frames.
    """
    path = pathlib.Path(path)
    check_readable(path)
    if every < 1 or start < 0:
        raise fail(f"every {every}, start {start}", "every at least 1, start at least 0")
    try:
        if zipfile.is_zipfile(path):
            return _stored(path, interval_ps, every, start, timed)
        run = Run(every)
        follow(run, _frames(path, types), start)
        return _assembled(run, interval_ps, timed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def holds_frames(path: str | os.PathLike) -> bool:
    """Return whether a file holds several frames of a run, rather than a structure.

    Two of them are looked at; what cannot be read holds none.
    """
    path = pathlib.Path(path)
    try:
        if zipfile.is_zipfile(path) or _begins(path, "ITEM:"):
            return True
        if path.name.lower().endswith(".cif"):  # several data blocks are no run
            return False
        return len(list(itertools.islice(_frames(path, None), 2))) > 1
    except Exception:  # every parser fails in its own way
        return False


def _begins(path: pathlib.Path, text: str) -> bool:
    with opened(path) as file:
        return file.read(len(text)) == text


def _frames(path: pathlib.Path, types: Types | None) -> Iterator[Frame]:
    """Return the reader that the name or the content asks for."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start.startswith(b"- of Ulm"):
        return traj_frames(path)
    with opened(path) as file:
        head = "".join(line for line, _ in zip(file, range(8), strict=False))
    if head.startswith("ITEM:"):
        return lammps_frames(path, types)
    if types is not None:
        raise fail(
            "elements of types for a file that is no LAMMPS dump",
            "a dump, which begins with ITEM:",
            "Leave out types=…, or --types: this file names its elements itself",
        )
    if "<modeling>" in head:
        return vasprun_frames(path)
    if "Direct configuration" in head or "XDATCAR" in path.name.upper():
        return xdatcar_frames(path)
    second = head.split("\n")[1] if "\n" in head else ""
    if "Lattice=" in second or "Properties=" in second:
        return extxyz_frames(path)
    return (ase_frame(atoms) for atoms in ase.io.iread(path, ":"))


def _assembled(run: Run, interval_ps: float | None, timed: bool) -> Trajectory:
    least = 2 if timed else 1
    if run.first is None or len(run.positions) < least:
        raise fail(
            f"{len(run.positions)} frames", f"at least {least}", "Check start, every and the file"
        )
    first, notes = run.first, run.notes
    if run.repeated:
        notes.append(f"{run.repeated} frames repeat the time of the frame before and are left out")
    interval = _interval(run, interval_ps) if timed else _untimed_interval(run, interval_ps)
    if run.far > _FAR:
        notes.append(
            f"an atom moves by {run.far:.2f} of a lattice vector between frames; at 0.5 its path "
            "is lost: write frames more often"
        )
    positions = np.array(run.positions)
    run.positions.clear()
    cell = first.cell
    change = max(change_of(c, cell) for c in run.cells)
    if change > SAME_CELL:
        mean = np.mean(run.cells, axis=0)
        positions = positions @ np.linalg.solve(cell, mean)
        notes.append(f"the cell varies by up to {change:.2g}: positions refer to its mean")
        cell = mean
    masses = STANDARD_MASSES[first.numbers] if first.masses is None else first.masses
    velocities = _velocities(run, len(positions), interval)
    return Trajectory(
        positions, cell, first.numbers, masses, interval * run.every, velocities, tuple(notes)
    )


def _interval(run: Run, given: float | None) -> float:
    """Return the time between successive frames in ps; raise where it varies or is not known."""
    assert run.first is not None
    known: float | None = None
    if len(run.clock) == run.read:
        steps = np.diff(run.clock)
        # 1e-3 of an interval, and what twelve digits leave of a long time
        allowed = 1e-3 * abs(np.median(steps)) + 1e-11 * abs(run.clock[-1])
        uneven = np.flatnonzero(np.abs(steps - np.median(steps)) > allowed)
        if len(uneven) or np.median(steps) <= 0:
            at = int(uneven[0]) if len(uneven) else 0
            raise fail(
                f"{steps[at]:.6g} between frames {at + 1} and {at + 2} (ps or steps), "
                f"{np.median(steps):.6g} between most",
                "equal intervals",
                "Frames are missing, or runs were joined: read them apart",
            )
        if run.first.time_ps is not None:
            known = float((run.clock[-1] - run.clock[0]) / (len(run.clock) - 1))
    if given is None and known is None:
        held = run.first.time_open
        raise fail(
            "the time between frames is not in the file"
            + ("" if held is None else " (it holds times, but not their unit)"),
            "a time",
            "Give it: --interval in ps (interval_ps=…)",
        )
    if given is None:
        assert known is not None
        return known
    if known is not None and abs(known - given) > 1e-3 * given:
        run.notes.append(f"the file says {known:.6g} ps between frames; {given:.6g} ps were given")
    return float(given)


def _untimed_interval(run: Run, given: float | None) -> float:
    """Return the time between frames, infinite where it varies or is not known."""
    try:
        return _interval(run, given) if run.read > 1 else math.inf
    except InputError:
        return math.inf


def _velocities(run: Run, frames: int, interval: float) -> Float[np.ndarray, "frame atom 3"] | None:
    """Return velocities in Å/ps; without a stated unit, that which the positions bear out."""
    assert run.first is not None
    if not run.velocities:
        return None
    if len(run.velocities) != frames:
        run.notes.append("velocities that only some frames have are left out")
        return None
    velocities = np.array(run.velocities)
    if not np.isfinite(velocities).all() or not velocities.any():
        run.notes.append("velocities that are zero or not finite are left out")
        return None
    unit = run.first.velocity_unit
    if unit is not None:
        return velocities * unit
    name = _recognised(np.array(run.early), np.array(run.early_velocities), interval)
    if name is None:
        run.notes.append("velocities of a unit that the positions do not bear out are left out")
        return None
    run.notes.append(f"velocities are taken to be in {name}, as the positions say")
    return velocities * _UNITS[name]


def _recognised(positions: np.ndarray, velocities: np.ndarray, interval: float) -> str | None:
    """Return the unit in which velocities agree with central differences of positions."""
    if len(positions) < 3:
        return None
    moved = (positions[2:] - positions[:-2]) / (2 * interval)
    stated = velocities[1:-1]
    product = np.sum(moved * stated)
    likeness = product / np.sqrt(np.sum(moved**2) * np.sum(stated**2))
    ratio = product / np.sum(stated**2)
    if not likeness > 0.5:
        return None
    for name, unit in _UNITS.items():
        if 0.4 < ratio / unit < 1.5:  # differences over finite times miss part of the motion
            return name
    return None


def _stored(
    path: pathlib.Path, interval_ps: float | None, every: int, start: int, timed: bool
) -> Trajectory:
    """Return what `write_trajectory_npz` has written."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise fail(f"it cannot be read ({error})", "a complete .npz") from error
    missing = {"positions", "cell", "numbers", "masses", "interval_ps"} - set(held)
    if missing:
        raise fail(f"no array {', '.join(sorted(missing))}", "arrays of write_trajectory_npz")
    kept = slice(start, None, every)
    velocities = held.get("velocities")
    found = Trajectory(
        held["positions"][kept].astype(float),
        held["cell"],
        held["numbers"],
        held["masses"],
        float(held["interval_ps"]) * every,
        None if velocities is None else velocities[kept].astype(float),
        tuple(str(n) for n in held.get("notes", ())),
    )
    least = 2 if timed else 1
    if len(found) < least:
        raise fail(f"{len(found)} frames", f"at least {least}", "Check start and every")
    if interval_ps is not None and abs(interval_ps * every / found.interval_ps - 1) > 1e-3:
        note = f"the file says {found.interval_ps / every:.6g} ps between frames"
        notes = (*found.notes, f"{note}; {interval_ps:.6g} ps were given")
        found = replace(found, interval_ps=interval_ps * every, notes=notes)
    return found
