"""Trajectories written to files: our own arrays, and extxyz and .traj for other programs.

`read_trajectory` reads all of them back, time and velocities included. Velocities go out as momenta
in ASE's unit, which is the only one whose meaning extxyz fixes; the time as `time_ps`.
"""

import os
import pathlib

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryWriter

from phojax.checks import fail
from phojax.io.atomic import replacing
from phojax.io.trajectory_formats import ASE_VELOCITY
from phojax.md.trajectory import Trajectory


def write_trajectory_npz(path: str | os.PathLike, run: Trajectory, *, single: bool = False) -> None:
    """Write a trajectory as a compressed .npz.

    Args:
        path: File; it appears complete or not at all.
        run: The trajectory.
        single: Whether to store positions and velocities in float32: half the size, 1e-6 Å.
    """
    real = np.float32 if single else np.float64
    arrays = {
        "positions": run.positions.astype(real),
        "cell": run.cell,
        "numbers": run.numbers,
        "masses": run.masses,
        "interval_ps": np.array(run.interval_ps),
        "notes": np.array(run.notes, str),
    }
    if run.velocities is not None:
        arrays["velocities"] = run.velocities.astype(real)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def write_extxyz(
    path: str | os.PathLike, run: Trajectory, *, append: bool = False, start_ps: float = 0.0
) -> None:
    """Write a trajectory as extxyz, or append it to one, so that long runs write as they go.

    Args:
        path: File. A fresh one appears complete or not at all; an interrupted append leaves a last
            frame cut short, which `read_trajectory` drops and `trim_extxyz` removes.
        run: The frames, positions to 1e-9 Å, not wrapped.
        append: Whether to append; the file is made where it is missing.
        start_ps: Time of the first frame.
    """
    path = pathlib.Path(path)
    if append:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(_texts(run, start_ps))
        return
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(_texts(run, start_ps))


def _texts(run: Trajectory, start_ps: float):
    """Yield the frames as text."""
    lattice = " ".join(repr(float(x)) for x in run.cell.ravel())
    columns = "species:S:1:pos:R:3:masses:R:1"
    parts = [run.positions]
    rows = [
        f"{s} %.9f %.9f %.9f {float(m)!r}"
        for s, m in zip(Atoms(run.numbers).symbols, run.masses, strict=True)
    ]
    if run.velocities is not None:
        columns += ":momenta:R:3"
        parts.append(run.velocities / ASE_VELOCITY * run.masses[:, None])
        rows = [row + " %.9f %.9f %.9f" for row in rows]
    form = "\n".join(rows)
    for n in range(len(run)):
        time = start_ps + n * run.interval_ps
        head = f'Lattice="{lattice}" Properties={columns} time_ps={time:.12g} pbc="T T T"'
        values = np.concatenate([p[n] for p in parts], axis=1)
        yield f"{len(run.numbers)}\n{head}\n" + form % tuple(values.ravel().tolist()) + "\n"


def trim_extxyz(path: str | os.PathLike, frames: int) -> None:
    """Cut an extxyz file to its first `frames` frames: back to a checkpoint, to append anew.

    Raises:
        InputError: fewer complete frames than that.
    """
    with open(path, "rb+") as file:
        for n in range(frames):
            line = file.readline()
            rest = [file.readline() for _ in range(int(line) + 1)] if line.strip() else [b""]
            if not rest[-1].endswith(b"\n"):
                raise fail(f"{path} has {n} complete frames", f"{frames}", "Start the run anew")
        file.truncate(file.tell())


def write_ase_traj(path: str | os.PathLike, run: Trajectory, *, start_ps: float = 0.0) -> None:
    """Write a trajectory as an ASE .traj file; `start_ps` is the time of its first frame."""
    with replacing(path) as temporary, TrajectoryWriter(temporary, "w") as file:
        for n, positions in enumerate(run.positions):
            atoms = Atoms(
                run.numbers, positions=positions, cell=run.cell, masses=run.masses, pbc=True
            )
            if run.velocities is not None:
                atoms.set_velocities(run.velocities[n] / ASE_VELOCITY)
            atoms.info["time_ps"] = start_ps + n * run.interval_ps
            file.write(atoms)
