"""Harmonic displacements about the local minima below the snapshots of a run (PHYSICS D9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import jax
import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Bool, Int

from phojax.checks import InputError, fail
from phojax.finite_temperature.minima import Sites, same_minimum, sites_of
from phojax.finite_temperature.reference import fitted_reference
from phojax.finite_temperature.snapshots import (
    HarmonicDisplacements,
    Snapshots,
    chosen_frames,
    frame_structure,
    harmonic_displacements,
    usable_group,
)
from phojax.force_constants.hessian import hessian
from phojax.md.trajectory import Trajectory, host_of
from phojax.potentials.contract import Potential, check_elements
from phojax.relax import Descent, Relaxation, explained, relaxing
from phojax.relax_together import driven_together
from phojax.rooms import Room, merged, room_of
from phojax.screening.prepare import (
    DISPLACEMENT,
    Report,
    check_mobile,
    keep_relaxation,
    kept_relaxation,
    remembered,
)
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.structure import Structure, supercell
from phojax.symmetry import SpaceGroup, no_symmetry

_DOUBTFUL = frozenset({"failed", "not_converged", "other_structure", "imaginary_modes"})
_FACTS: tuple[str, ...] = (
    "columns", "residual_translation_eV_A2", "residual_permutation_eV_A2",
    "antisymmetric_over_symmetric",
)  # fmt: skip


@dataclass(frozen=True)
class Minimum:
    """What became of one snapshot.

    Attributes:
        frame: Of the trajectory.
        relaxation: None where it failed.
        sites: Where its atoms are; None where it failed.
        displacements: About it; those of the snapshot it is a duplicate of, atom by atom, if it is.
        duplicate_of: Place of an earlier snapshot with the same minimum.
        facts: Of its Hessian, by the names they have in records; empty for duplicates.
        flags: Reasons for doubt, and "duplicate".
        error: Why it failed.
    """

    frame: int
    relaxation: Relaxation | None = None
    sites: Sites | None = None
    displacements: HarmonicDisplacements | None = None
    duplicate_of: int | None = None
    facts: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    error: str = ""

    @property
    def columns(self) -> int:
        """Hessian-vector products, or differences of forces, that it took."""
        return int(self.facts.get("columns", 0))

    @property
    def clean(self) -> bool:
        """Whether it counts in the distribution: nothing about it is in doubt."""
        return self.displacements is not None and not _DOUBTFUL & set(self.flags)


@dataclass(frozen=True)
class SnapshotRow:
    """All snapshots of a run.

    Attributes:
        minima: One per snapshot, in the order of time.
        run: The trajectory.
        mobile: Which atoms are mobile ions.
        reference: What snapshots are compared with: the ideal crystal in the cell of the run,
            relaxed; the minimum of lowest energy where none was given; None where there is neither.
        ideal: What is known about the ideal crystal; None where none was given.
        width: σ of averaged Hessians, Å.
        pairs: Of displacements in these; 0 at width 0.
        step: Å, of differences of forces; None for derivatives.
    """

    minima: list[Minimum]
    run: Trajectory
    mobile: Bool[np.ndarray, " atom"]
    reference: Relaxation | None
    ideal: Minimum | None
    width: float
    pairs: int
    step: float | None


def snapshot_row(
    run: Trajectory,
    reference: Structure | None,
    potential: Potential,
    settings: PhononSettings,
    how: Snapshots,
    *,
    slots: int | None = None,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
    workers: int | None = None,
) -> SnapshotRow:
    """Return the minima below the snapshots of a run and the displacements about them.

    Positions are relaxed, the cell is held. What fails is told, and the others go on.

    Args:
        run: The trajectory.
        reference: The ideal crystal, as `fitted_reference` takes it; None for the lowest minimum.
        potential: In float64.
        settings: Temperatures, mobile element, tolerances, width and mesh.
        how: Which snapshots, and what tells minima apart.
        slots: Snapshots relaxed side by side; by default 1 on a CPU, where it saves nothing, and 8
            elsewhere.
        report: Called with the stage and how much of it is done.
        checkpoint: Where finished parts are kept and found again, by snapshot.
        workers: Evaluations at a time (see `hessian`).

    Raises:
        InputError: no mobile ion, unknown elements, too few frames, a reference that does not fit.
    """
    checkpoint = checkpoint or Checkpoint(None)
    frames = chosen_frames(len(run), how)
    crystals = [frame_structure(run, int(n)) for n in frames]
    check_mobile(crystals[0], settings.mobile)
    check_elements(potential, crystals[0])
    work = _Work(run, potential, settings, how, report, checkpoint, workers)
    ideal = None if reference is None else work.ideal(reference, crystals[0])
    slots = slots or (1 if jax.default_backend() == "cpu" else 8)
    ends = work.relaxed(crystals, slots)
    lowest = ideal.relaxation if ideal is not None else _lowest(ends)
    minima: list[Minimum] = []
    for number, (frame, end) in enumerate(zip(frames, ends, strict=True)):
        minima.append(work.minimum(number, int(frame), end, lowest, minima))
    width = work.width
    return SnapshotRow(
        minima, run, work.mobile, lowest, ideal, width, settings.pairs if width else 0,
        work.step,
    )  # fmt: skip


def _lowest(ends: Sequence[Relaxation | Exception]) -> Relaxation | None:
    """Return the converged minimum of lowest energy, any other where none converged."""
    found = [e for e in ends if isinstance(e, Relaxation) and np.isfinite(e.energy_eV)]
    return min(found, key=lambda e: (not e.converged, e.energy_eV), default=None)


class _Work:
    """What the snapshots of one run have in common."""

    def __init__(
        self, run: Trajectory, potential: Potential, settings: PhononSettings, how: Snapshots,
        report: Report, checkpoint: Checkpoint, workers: int | None,
    ) -> None:  # fmt: skip
        z = atomic_numbers[settings.mobile]
        self.mobile = np.asarray(run.numbers == z)
        self.width = potential.smoothing_width if settings.width is None else settings.width
        step = settings.displacement
        self.step = DISPLACEMENT if step is None and potential.derivatives == 1 else step
        self._run, self._potential, self._settings, self._how = run, potential, settings, how
        self._report, self._checkpoint, self._workers = report, checkpoint, workers
        self._z, self._host = z, host_of(run.numbers, z)
        self._room: Room | None = None

    def ideal(self, given: Structure, frame: Structure) -> Minimum:
        """Return the ideal crystal in the cell of a frame, relaxed, with its displacements."""
        s = self._settings
        crystal = fitted_reference(given, frame, self._z, s.symmetry_tolerance)
        group = usable_group(crystal, s.symmetry_tolerance)
        self._widen([crystal])
        descent = self._descent("ideal", crystal, group)
        assert self._room is not None
        end = driven_together([descent], [self._room], self._potential)[0]
        if isinstance(end, Exception):
            raise end
        if "not finite" in end.message:
            raise fail(f"the ideal crystal with {self._potential.name}: {end.message}",
                       "finite energies and forces")  # fmt: skip
        found, facts = self._displacements("ideal", "ideal crystal", end.structure, group)
        flags = [] if end.converged else ["not_converged"]
        flags += ["imaginary_modes"] if found.imaginary else []
        return Minimum(-1, end, None, found, None, facts, tuple(flags))

    def relaxed(self, crystals: list[Structure], slots: int) -> list[Relaxation | Exception]:
        """Return the end of each snapshot's relaxation, or why it has none."""
        self._widen(crystals)
        steps = [0] * len(crystals)
        ended = 0

        def on_step(number: int) -> Callable[..., None]:
            def told(step: int, *_) -> None:
                steps[number] = step
                stage = f"relaxation, {ended} of {len(crystals)} snapshots done"
                self._report(stage, sum(steps), 0)

            return told

        def on_end(number: int, end) -> None:
            nonlocal ended
            ended += 1

        descents = [
            self._descent(f"snapshot-{n}", c, None, on_step(n)) for n, c in enumerate(crystals)
        ]
        if self._room is None:  # no graph of any of them: each says why
            return [self._told(c) for c in crystals]
        rooms = [self._room] * len(crystals)
        return driven_together(descents, rooms, self._potential, slots=slots, on_end=on_end)

    def minimum(
        self, number: int, frame: int, end: Relaxation | Exception, reference: Relaxation | None,
        earlier: Sequence[Minimum],
    ) -> Minimum:  # fmt: skip
        """Return what became of a snapshot, its displacements computed where they are new."""
        if isinstance(end, Exception) or reference is None or "not finite" in end.message:
            text = str(end) if isinstance(end, Exception) else end.message
            return Minimum(frame, flags=("failed",), error=text)
        try:
            return self._found(number, frame, end, reference, earlier)
        except (InputError, FloatingPointError, jax.errors.JaxRuntimeError) as error:
            return Minimum(frame, end, None, flags=("failed",), error=str(error))

    def _found(
        self, number: int, frame: int, end: Relaxation, reference: Relaxation,
        earlier: Sequence[Minimum],
    ) -> Minimum:  # fmt: skip
        how, run = self._how, self._run
        positions, own = (
            np.asarray(e.structure.positions, float) for e in (end, reference)
        )  # fmt: skip
        sites = sites_of(positions, own, run.cell, run.numbers, self._host, how.site_radius)
        flags = [] if end.converged else ["not_converged"]
        apart = abs(end.energy_eV - reference.energy_eV) / len(run.numbers)
        if apart > how.energy_window or np.any(sites.off_sites[~self.mobile]):
            flags.append("other_structure")
        same = self._duplicate(end, sites, earlier) if end.converged else None
        if same is not None:
            place, partner = same
            first = earlier[place]
            assert first.displacements is not None
            if "imaginary_modes" in first.flags:
                flags.append("imaginary_modes")
            found = first.displacements.of_atoms(partner)
            return Minimum(frame, end, sites, found, place, {}, (*flags, "duplicate"))
        found, facts = self._displacements(
            f"snapshot-{number}", f"snapshot {number}", end.structure, no_symmetry(len(run.numbers))
        )
        flags += ["imaginary_modes"] if found.imaginary else []
        return Minimum(frame, end, sites, found, None, facts, tuple(flags))

    def _duplicate(
        self, end: Relaxation, sites: Sites, earlier: Sequence[Minimum]
    ) -> tuple[int, Int[np.ndarray, " atom"]] | None:
        """Return an earlier snapshot with the same minimum, and its atom for each of this one."""
        how, run = self._how, self._run
        for place, other in enumerate(earlier):
            if other.duplicate_of is not None or other.displacements is None:
                continue
            if other.relaxation is None or other.sites is None or not other.relaxation.converged:
                continue
            if abs(other.relaxation.energy_eV - end.energy_eV) > how.same_energy * len(run.numbers):
                continue
            partner = same_minimum(
                sites, other.sites, run.cell, run.numbers, self._host, how.same_distance
            )
            if partner is not None:
                return place, partner
        return None

    def _descent(
        self, name: str, crystal: Structure, group: SpaceGroup | None, on_step=None
    ) -> Descent:
        """Return the relaxation of positions in the cell as it is, which can be taken up."""
        s, kept = self._settings, self._checkpoint.part(name)
        before = kept_relaxation(crystal, kept)
        if before is not None:
            return before
        descent = relaxing(
            crystal, cell=False, force_tolerance=s.force_tolerance, max_steps=s.relax_steps,
            symmetry=group, conservative=self._potential.conservative, on_step=on_step,
        )  # fmt: skip
        end = yield from remembered(descent, crystal, kept)
        end = explained(end, self._potential)
        if "not finite" not in end.message:  # what failed may succeed when it is tried again
            keep_relaxation(end, kept)
        return end

    def _displacements(
        self, name: str, told: str, crystal: Structure, group: SpaceGroup
    ) -> tuple[HarmonicDisplacements, dict[str, float]]:
        """Return the displacements about a minimum and facts of its Hessian, as far as new."""
        s, kept = self._settings, self._checkpoint.part(name)
        before = kept.load("displacements")
        if before and np.array_equal(before["positions"], np.asarray(crystal.positions)):
            return _unpacked(before), {name: float(before[name]) for name in _FACTS}
        # Parts of another end of the relaxation would be those of another crystal.
        done = kept.load("responses")
        where = done.pop("positions", None)
        if where is None or not np.array_equal(where, np.asarray(crystal.positions)):
            done = {}
        count = len(done)

        def on_part(part: int, of: int) -> None:
            nonlocal count
            if len(done) > count:
                kept.save("responses", positions=np.asarray(crystal.positions), **done)
                count = len(done)
            self._report(f"force constants of {told}", part, of)

        self._widen([crystal])
        result = hessian(
            self._potential, supercell(crystal, (1, 1, 1)), group, width=self.width,
            pairs=s.pairs, key=jax.random.key(s.seed), step=self.step, room=self._room,
            workers=self._workers, on_part=on_part, done=done,
        )  # fmt: skip
        self._report(f"modes of {told}", 0, 0)
        found = harmonic_displacements(
            result.force_constants, s.temperatures, s.smallest_THz, s.mesh,
            result.leave_one_out(),
        )  # fmt: skip
        facts = dict(
            zip(
                _FACTS,
                (float(result.columns), result.residuals.translation,
                 result.residuals.permutation, result.antisymmetric),
                strict=True,
            )
        )  # fmt: skip
        kept.save("displacements", positions=np.asarray(crystal.positions), **facts, **vars(found))
        return found, facts

    def _widen(self, crystals: Sequence[Structure]) -> None:
        """Make the shape that all share large enough for these as well, where they have any."""
        rooms = [] if self._room is None else [self._room]
        for crystal in crystals:
            try:
                rooms.append(room_of(self._potential, crystal))
            except InputError:  # told where it is evaluated
                continue
        self._room = reduce(merged, rooms) if rooms else None

    def _told(self, crystal: Structure) -> Exception:
        try:
            room_of(self._potential, crystal)
        except InputError as error:
            return error
        return fail("no graph of any snapshot", "one that the potential can make")


def _unpacked(kept: dict[str, np.ndarray]) -> HarmonicDisplacements:
    return HarmonicDisplacements(
        kept["tensors"], int(kept["imaginary"]), float(kept["lost"]),
        float(kept["frequency_min_THz"]), kept["errors"],
    )  # fmt: skip


__all__ = ["Minimum", "SnapshotRow", "snapshot_row"]
