"""Runs of `phojax md`: what is prepared, what moves together, and what is kept on the way."""

import contextlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from phojax.checks import InputError
from phojax.io.records import read_modes, write_modes
from phojax.md.checkpoint import RunCheckpoints
from phojax.md.framework import FrameworkCheck, framework_check, polyanions_after
from phojax.md.integrator import Frames
from phojax.md.observed import Observed, observed_of_sums
from phojax.md.protocol import Protocol
from phojax.md.run import Run, Watch, run
from phojax.md.systems import Systems, systems
from phojax.md.trajectory import Trajectory
from phojax.potentials.contract import Potential
from phojax.relax import Relaxation
from phojax.screening.prepare import planned, relaxed
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.structure import Structure, supercell
from phojax.symmetry import space_group

NETWORK = 1000
"""Potentials of more parameters than that run in float32 by default."""


@dataclass(frozen=True)
class Prepared:
    """A crystal ready to move.

    Attributes:
        crystal: The supercell.
        matrix: Its vectors in units of the primitive ones.
        space_group: Of the primitive cell.
        relaxation: None where none was asked for.
        notes: What a reader of the record should know.
    """

    crystal: Structure
    matrix: tuple[tuple[int, int, int], ...]
    space_group: str
    relaxation: Relaxation | None
    notes: list[str]


@dataclass(frozen=True)
class Moved:
    """What one crystal's systems have done: their numbers in the run, and the run.

    Attributes:
        run: Of all systems that moved together.
        numbers: The places of this crystal's systems in it.
        temperatures: K, of each.
        replicas: Of each.
        trajectories: (place in the run) -> its frames, where they were asked for.
    """

    run: Run
    numbers: tuple[int, ...]
    temperatures: tuple[float, ...]
    replicas: tuple[int, ...]
    trajectories: Callable[[int], Trajectory] | None


def prepared(
    crystal: Structure,
    notes: list[str],
    model: Potential,
    settings: PhononSettings,
    progress,
    checkpoint: Checkpoint,
    repeat: tuple[int, int, int] | None,
) -> Prepared:
    """Return the supercell that will move, of the relaxed primitive cell.

    Args:
        crystal: As read.
        notes: What its reader warned of.
        model: In float64.
        settings: Of relaxation and supercell.
        progress: Where progress is told.
        checkpoint: Where the relaxation is kept.
        repeat: Repetitions of the cell as read, which then is neither standardised nor made
            near-cubic; None for the near-cubic supercell.

    Raises:
        InputError: no mobile ion, unknown elements, a potential without finite values.
    """
    plan = planned(crystal, model, settings)
    if repeat is not None:
        group = space_group(crystal, settings.symmetry_tolerance)
        plan = replace(plan, primitive=crystal, group=group, cell=supercell(crystal, repeat))
    primitive, relaxation = plan.primitive, None
    if settings.relax:
        relaxation = relaxed(plan, model, settings, progress, checkpoint)
        primitive = relaxation.structure
    cell = replace(plan.cell, primitive=primitive)
    return Prepared(cell.structure, cell.matrix, plan.group.symbol, relaxation, list(notes))


def moved(
    crystals: list[Prepared],
    model: Potential,
    mobile: str,
    temperatures: tuple[float, ...],
    replicas: int,
    protocol: Protocol,
    folder: pathlib.Path,
    key: str,
    *,
    checkpoint_every: int,
    report,
    keep_frames: bool,
) -> list[Moved]:
    """Return what the systems of some crystals did, all of them side by side.

    Args:
        crystals: What moves.
        model: In the precision it is to run in.
        mobile: Symbol of the mobile element.
        temperatures: K, each of every crystal.
        replicas: Systems per crystal and temperature.
        protocol: How.
        folder: Where checkpoints and frames are kept until all is done.
        key: What all of it depends on.
        checkpoint_every: Steps.
        report: Where progress is told.
        keep_frames: Whether frames are kept.
    """
    each = [(T, r) for T in temperatures for r in range(replicas)]
    together = systems(
        [c.crystal for c in crystals for _ in each],
        [T for _ in crystals for T, _ in each],
        mobile,
        seed=protocol.seed,
        replicas=[r for _ in crystals for _, r in each],
    )
    parts = _Parts(folder / "frames") if keep_frames else None
    done = run(
        model,
        together,
        protocol,
        checkpoints=RunCheckpoints(folder / "run", key),
        checkpoint_every=checkpoint_every,
        report=report,
        on_frames=parts.add if parts else None,
        watch=framework_watch(together, atomic_numbers[mobile], protocol.interval_ps),
    )
    found = []
    for place in range(len(crystals)):
        numbers = tuple(range(place * len(each), (place + 1) * len(each)))
        found.append(
            Moved(
                done,
                numbers,
                tuple(T for T, _ in each),
                tuple(r for _, r in each),
                (lambda n: parts.of(done, n)) if parts else None,
            )
        )
    return found


def observed_of(done: Moved, mobile: int) -> list[Observed]:
    """Return what was seen of one crystal, one entry per temperature that has any, in order."""
    found = []
    for T in dict.fromkeys(done.temperatures):
        numbers = [n for n, t in zip(done.numbers, done.temperatures, strict=True) if t == T]
        first = [done.run.series.first_msd[:, n] for n in numbers]
        with contextlib.suppress(InputError):  # its reason is told beside
            observed = observed_of_sums(
                done.run.sums, done.run.systems, numbers, first, mobile,
                done.run.protocol.interval_ps,
            )  # fmt: skip
            found.append(replace(observed, polyanions=_polyanions_in(done.run, numbers, mobile)))
    return found


def _polyanions_in(done: Run, numbers: list[int], mobile: int) -> FrameworkCheck | None:
    """Return whether polyanions are where they began: of the first replica where they are not."""
    check = None
    for n in numbers:
        frames = int(done.sums.counted[n])
        if frames < 2 or (check is not None and not check.holds):
            continue
        first, last = done.sums.first[n], done.state.positions[n]
        elapsed = (frames - 1) * done.protocol.interval_ps
        check = _polyanions_of(
            done.systems, n, mobile, np.asarray(first, float), np.asarray(last, float), elapsed
        )
    return check


def _polyanions_of(
    given: Systems, number: int, mobile: int, first, last, elapsed_ps: float | None
) -> FrameworkCheck | None:
    """Return the check of a system whose host is made of polyanions, None of others.

    Elements are looked at more closely than this, in every frame.
    """
    real = np.asarray(given.real[number])
    crystal = jax.tree.map(lambda x: np.asarray(x[number]), given.crystals)
    found = polyanions_after(
        first[real], last[real], np.asarray(crystal.cell, float), crystal.numbers[real],
        np.asarray(crystal.masses, float)[real], mobile, elapsed_ps,
    )  # fmt: skip
    return None if set(found.names) & set(chemical_symbols) else found


def stopped(done: Moved) -> list[str]:
    """Return why systems of one crystal were stopped, by temperature and replica."""
    several = len(set(done.replicas)) > 1
    return [
        f"{T:g} K{f', replica {r}' if several else ''}: {done.run.reasons[n]}"
        for n, T, r in zip(done.numbers, done.temperatures, done.replicas, strict=True)
        if done.run.reasons[n]
    ]


def framework_watch(given: Systems, mobile: int, interval_ps: float) -> Watch:
    """Return what stops systems whose framework does not hold (PHYSICS E4).

    Where polyanions have moved no farther than they rotate, the system goes on.
    """

    def watch(number: int, msd: np.ndarray, first: np.ndarray, last: np.ndarray) -> str:
        numbers = np.asarray(given.crystals.numbers[number])
        species = [int(z) for z in np.unique(numbers[numbers > 0])]
        if len(msd) < 5:
            return ""
        whole = np.concatenate([np.zeros((1, len(species), 3)), msd[:, : len(species)]])
        found = framework_check(whole, species, mobile, interval_ps, early=True)
        if found.holds:
            return ""
        units = _polyanions_of(given, number, mobile, first, last, None)
        return "" if units and units.holds else "; ".join(found.reasons)

    return watch


def in_precision(model: Potential, wanted: str | None) -> tuple[Potential, str]:
    """Return the potential in the precision that it moves atoms in, and its name.

    Args:
        model: In float64.
        wanted: "single", "double", or None for single where it is a network.
    """
    size = sum(np.size(x) for x in jax.tree.leaves(model.params))
    name = wanted or ("single" if size > NETWORK else "double")
    return (model.astype(jnp.float32) if name == "single" else model), name


class _Parts:
    """Frames of a run on disk, a file per chunk: the same ones written again are the same."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def add(self, first: int, frames: Frames) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        count = int(frames.count)
        write_modes(
            self._folder / f"{first:09d}.npz",
            {
                "positions": np.asarray(frames.positions)[:count],
                "velocities": np.asarray(frames.velocities)[:count],
                "alive": np.asarray(frames.alive)[:count],
            },
        )

    def of(self, done: Run, number: int) -> Trajectory:
        """Return the frames of one system, up to where it was sane."""
        files = [read_modes(path) for path in sorted(self._folder.glob("*.npz"))]
        alive = np.concatenate([f["alive"][:, number] for f in files])
        if alive.sum() < 2:
            raise InputError("fewer than 2 frames were sane; expected a trajectory")
        real = np.asarray(done.systems.real[number])
        one: dict[str, Any] = {
            name: np.concatenate([f[name][:, number] for f in files])[alive][:, real]
            for name in ("positions", "velocities")
        }
        crystal = jax.tree.map(lambda x: np.asarray(x[number]), done.systems.crystals)
        return Trajectory(
            cell=crystal.cell, numbers=crystal.numbers[real], masses=crystal.masses[real],
            interval_ps=done.protocol.interval_ps, **one,
        )  # fmt: skip
