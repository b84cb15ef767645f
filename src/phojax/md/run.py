"""A run from its first step to its last: chunks on the device, the host between them.

Between chunks the host keeps what is worth keeping, writes checkpoints, gives graphs more room
where they overflowed and has that chunk done again, and looks after systems that blew up or melted.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from phojax.capacities import grown, largest
from phojax.checks import fail
from phojax.forces import in_precision_of
from phojax.md.accumulators import Accumulators, accumulated, accumulators
from phojax.md.checkpoint import RunCheckpoints
from phojax.md.density import grid_shape
from phojax.md.integrator import Frames, State, advanced, started
from phojax.md.protocol import Protocol
from phojax.md.systems import Systems
from phojax.potentials.contract import Potential, check_elements
from phojax.structure import Structure
from phojax.units import KB

CHUNK = 50
"""Frames that stay on the device at a time."""

_GROWTHS = (1.2, 1.2, *10 * (2.0,))  # at one place, one after the other
_RATTLED = 0.15  # Å: hot crystals have neighbours that those at rest do not have

Report = Callable[[str, int, int, str], None]
"""(stage, steps done, of, remark) -> None."""


@dataclass
class Series:
    """Numbers per frame of production, on the host: (frame, system[, species, xyz])."""

    energies: np.ndarray
    kinetic: np.ndarray
    first_msd: np.ndarray
    alive: np.ndarray


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        systems: What moved, as it was in the beginning.
        protocol: How.
        state: Where it is in the end.
        sums: What was accumulated.
        series: Numbers per frame of production.
        reasons: Why each system was stopped before its time; "" where it was not.
        remarks: What happened on the way and does not concern one system.
        steps_per_second: Of the part that this process did, the median over its last chunks; 0
            where there were too few.
        capacity: Of the graphs, in the end.
    """

    systems: Systems
    protocol: Protocol
    state: State
    sums: Accumulators
    series: Series
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    steps_per_second: float
    capacity: Hashable

    def temperatures(self) -> np.ndarray:
        """Return (frame, system) kinetic temperatures in K, of 3N - 3 degrees of freedom."""
        freedom = 3 * np.asarray(self.systems.real).sum(axis=1) - 3
        return 2 * self.series.kinetic / (freedom * KB)


Watch = Callable[[int, np.ndarray, np.ndarray, np.ndarray], str]
"""(system, (frame, species, xyz) squared displacements from the first frame, (atom, xyz) first and
last positions) -> why to stop it, or ""."""


def run(
    potential: Potential,
    given: Systems,
    protocol: Protocol,
    *,
    checkpoints: RunCheckpoints | None = None,
    checkpoint_every: int = 1000,
    report: Report = lambda stage, done, of, remark: None,
    on_frames: Callable[[int, Frames], None] | None = None,
    watch: Watch | None = None,
) -> Run:
    """Return the run, taken up where its checkpoints left it.

    Args:
        potential: In the precision it is to run in.
        given: What moves.
        protocol: How.
        checkpoints: Where the run is kept on its way; nowhere by default.
        checkpoint_every: Steps between checkpoints.
        report: Where progress is told.
        on_frames: Called with the number of the first frame of a chunk of production and the
            frames, on the device; after a resume with some of them again.
        watch: Asked at a tenth of production about every system that is sane.

    Raises:
        InputError: elements that the potential does not know, too few atoms, a skin for a
            potential that takes none, forces that are not finite in the first place.
    """
    checkpoints = checkpoints or RunCheckpoints(None)
    _check(potential, given, protocol)
    moving = _with_skin(potential, protocol.skin)
    capacity = _capacity(moving, given)
    about = checkpoints.latest()
    state, capacity = _begun(moving, given, capacity, about)
    sums = accumulators(given, protocol, _grids(given, protocol))
    series = _empty_series(given, protocol)
    remarks: list[str] = []
    reasons = [""] * len(given)
    done = 0
    if about is not None:
        state, sums, kept = checkpoints.load((state, sums, vars(series)))
        series = Series(**{k: np.array(v) for k, v in kept.items()})
        state, sums = jax.tree.map(jnp.asarray, (state, sums))
        done, reasons, remarks = about["frames"], about["reasons"], about["remarks"]
    last, total = protocol.equilibration_frames, protocol.equilibration_frames + protocol.frames
    look = last + max(1, protocol.frames // 10)
    every = max(1, checkpoint_every // protocol.frame_every)
    rates: list[float] = []
    growths = 0
    while done < total and bool(jnp.any(state.alive)):
        ends = [total, *(x for x in (last, look) if x > done), (done // every + 1) * every]
        count = min(CHUNK, min(ends) - done)
        begin = time.monotonic()
        found, frames, overflow = advanced(
            moving, given, state, jnp.int32(count), protocol.timestep, protocol.friction,
            capacity=capacity, longest=CHUNK, every=protocol.frame_every,
            thermostat=protocol.ensemble == "nvt", skin=protocol.skin,
        )  # fmt: skip
        overflow = np.asarray(overflow)
        if overflow.any():
            if growths == len(_GROWTHS):
                state = _given_up(state, overflow, reasons)
                growths = 0
                continue
            capacity = grown(capacity, _GROWTHS[growths])
            growths += 1
            remarks.append(f"the graph needed more room at step {int(state.step)}")
            continue
        growths = 0
        _note_deaths(state, found, protocol, reasons)
        state = found
        if done >= last:
            sums, per_frame = accumulated(given, sums, frames)
            at = slice(done - last, done - last + count)
            series.energies[at] = np.asarray(frames.energies)[:count]
            series.kinetic[at] = np.asarray(frames.kinetic)[:count]
            series.alive[at] = np.asarray(frames.alive)[:count]
            series.first_msd[at] = np.asarray(per_frame.first_msd)[:count]
            if on_frames is not None:
                on_frames(done - last, frames)
        done += count
        if done == last:
            sums = replace(sums, first=jnp.array(state.positions))
        if done == look and watch is not None and protocol.stop_melted:
            state = _watched(state, sums, series, done - last, watch, reasons)
        if done < total and done % every == 0:
            told = {"frames": done, "reasons": reasons, "remarks": remarks,
                    "capacity": jax.tree.leaves(capacity)}  # fmt: skip
            checkpoints.save(done, (state, sums, vars(series)), told)
        jax.block_until_ready((state, sums))
        rates.append(count * protocol.frame_every / (time.monotonic() - begin))
        rate = _usual(rates)
        stage = "dynamics" if done > last else "equilibration"
        remark = f"{rate:.3g} steps/s" if rate else ""
        report(stage, done * protocol.frame_every, total * protocol.frame_every, remark)
    return Run(
        given, protocol, state, sums, series, tuple(reasons), tuple(dict.fromkeys(remarks)),
        _usual(rates), capacity,
    )  # fmt: skip


def _usual(rates: list[float]) -> float:
    """Return the median of the latest rates, which those of chunks that compiled do not move."""
    return float(np.median(rates[-100:])) if len(rates) > 2 else 0.0


def single(given: Systems, number: int) -> Structure:
    """Return one system's crystal without padding, where it was in the beginning."""
    real = np.asarray(given.real[number])
    one = jax.tree.map(lambda x: x[number], given.crystals)
    return replace(
        one, positions=one.positions[real], numbers=one.numbers[real], masses=one.masses[real]
    )


def species_of(given: Systems, number: int) -> list[str]:
    """Return the symbols of the elements of one system, in the order of its sums."""
    numbers = np.asarray(given.crystals.numbers[number])
    return [chemical_symbols[int(z)] for z in np.unique(numbers[numbers > 0])]


def _check(potential: Potential, given: Systems, protocol: Protocol) -> None:
    for number in range(len(given)):
        crystal = single(given, number)
        check_elements(potential, crystal)
        if len(crystal) < 2:
            raise fail("a single atom", "at least two", "Make a supercell")
    if protocol.skin > 0 and potential.with_skin is None:
        raise fail(
            f"a skin of {protocol.skin} Å with {potential.name}",
            "none: its graph is made anew at every step",
        )


def _with_skin(potential: Potential, skin: float) -> Potential:
    if skin == 0:
        return potential
    assert potential.with_skin is not None
    return potential.with_skin(skin)


def _capacity(potential: Potential, given: Systems) -> Hashable:
    rng, inside = np.random.default_rng(0), []
    for number in range(len(given)):
        crystal = in_precision_of(potential, single(given, number))
        x = np.asarray(crystal.positions)
        rattled = (x + rng.normal(scale=_RATTLED, size=x.shape)).astype(x.dtype)
        inside += [
            potential.capacity(crystal),
            potential.capacity(replace(crystal, positions=jnp.asarray(rattled))),
        ]
    return largest(inside)


def _begun(potential, given: Systems, capacity, about) -> tuple[State, Hashable]:
    """Return the systems at their start, and room that holds there, or that of a checkpoint."""
    if about is not None:
        structure = jax.tree.structure(capacity)
        capacity = jax.tree.unflatten(structure, about["capacity"])
        return started(potential, given, capacity)[0], capacity
    for growth in _GROWTHS:
        state, overflow = started(potential, given, capacity)
        if not bool(jnp.any(overflow)):
            break
        capacity = grown(capacity, growth)
    else:
        raise fail(f"the neighbours of {potential.name} do not fit", "finite positions")
    if not bool(jnp.any(state.alive)):
        raise fail(
            f"{potential.name} returned values that are not finite for the first positions",
            "finite energies and forces",
            "Check for atoms that are too close, or choose another potential",
        )
    return state, capacity


def _grids(given: Systems, protocol: Protocol) -> np.ndarray:
    cells = np.asarray(given.crystals.cell)
    return np.array([grid_shape(cell, protocol.density_spacing) for cell in cells])


def _empty_series(given: Systems, protocol: Protocol) -> Series:
    shape = (protocol.frames, len(given))
    return Series(
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full((*shape, given.species_count, 3), np.nan),
        np.zeros(shape, bool),
    )


def _note_deaths(before: State, now: State, protocol: Protocol, reasons: list[str]) -> None:
    gone = np.flatnonzero(np.asarray(before.alive & ~now.alive))
    for number in gone:
        step = int(now.died_at[number])
        reasons[number] = (
            f"it blew up at step {step} ({step * protocol.timestep_fs * 1e-3:.3f} ps): a shorter "
            f"time step than {protocol.timestep_fs:g} fs, a relaxed structure, or another potential"
        )


def _given_up(state: State, overflow: np.ndarray, reasons: list[str]) -> State:
    for number in np.flatnonzero(overflow):
        reasons[number] = (
            f"its atoms piled up after step {int(state.step)}: more neighbours than any crystal has"
        )
    return replace(
        state,
        alive=state.alive & ~overflow,
        died_at=jnp.where(state.alive & overflow, state.step, state.died_at),
    )


def _watched(state, sums, series: Series, frames: int, watch: Watch, reasons) -> State:
    stopped = np.zeros(len(reasons), bool)
    for number in np.flatnonzero(np.asarray(state.alive)):
        both = (np.asarray(x[number], float) for x in (sums.first, state.positions))
        why = watch(int(number), series.first_msd[:frames, number], *both)
        if why:
            reasons[number] = f"stopped at a tenth of the run: {why}"
            stopped[number] = True
    return replace(state, alive=state.alive & ~stopped)


__all__ = ["CHUNK", "Run", "Series", "Watch", "run", "single", "species_of"]
