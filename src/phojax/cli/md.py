"""`phojax md`: structures to molecular dynamics, diffusion, spectra and channels."""

import argparse
import math
import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from ase.data import atomic_numbers
from ase.formula import Formula

from phojax.campaign.md_runs import (
    Moved,
    Prepared,
    in_precision,
    moved,
    observed_of,
    prepared,
    stopped,
)
from phojax.campaign.transport_files import FILES, write_trajectories, write_transport
from phojax.checks import InputError, fail
from phojax.cli.jobs import Job, named_jobs, structure_input
from phojax.cli.options import add_common, settings_of, whole_number
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.cli.transport_report import all_table_rows, printed_table
from phojax.io.structures import check_readable
from phojax.md.protocol import Protocol
from phojax.potentials.catalogue import potential
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint, identity, key_of
from phojax.screening.trust import relaxation_flags, relaxation_record

SUPERCELL_ATOMS = 100
TRAJECTORIES = ("npz", "extxyz", "traj")


def add_parser(commands) -> None:
    """Add the command and its options."""
    default = Protocol()
    parser = commands.add_parser(
        "md",
        help="molecular dynamics: diffusion with error bars, spectra, channels",
        description="Structure files to molecular dynamics at one or several temperatures: "
        "diffusion coefficients with error bars and detection limits, activation energies, "
        "vibrational densities of states, densities of the mobile ions and their channels. The "
        "same command goes on where it was interrupted.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="structure files")
    add("--potential", default="chgnet", metavar="NAME",
        help="as `phojax potentials` lists them (default: chgnet)")  # fmt: skip
    add("--temperature", nargs="+", type=float, default=[800.0], metavar="T",
        help="temperatures in K (default: 800)")  # fmt: skip
    add("--steps", type=whole_number, default=default.steps, metavar="N",
        help=f"steps that count (default: {default.steps})")  # fmt: skip
    add("--equilibration", type=whole_number, default=default.equilibration_steps, metavar="N",
        help=f"steps before them (default: {default.equilibration_steps})")  # fmt: skip
    add("--timestep", type=float, default=default.timestep_fs, metavar="fs",
        help=f"(default: {default.timestep_fs})")  # fmt: skip
    add("--friction", type=float, default=default.friction_per_ps, metavar="1/ps",
        help=f"of the Langevin thermostat (default: {default.friction_per_ps:g})")  # fmt: skip
    add("--ensemble", choices=("nvt", "nve"), default="nvt",
        help="nvt: Langevin (BAOAB); nve: velocity Verlet (default: nvt)")  # fmt: skip
    add("--frame-every", type=int, default=default.frame_every, metavar="N",
        help=f"steps between frames (default: {default.frame_every})")  # fmt: skip
    add("--replicas", type=int, default=1, metavar="N",
        help="independent systems per structure and temperature (default: 1)")  # fmt: skip
    add("--together", type=int, default=1, metavar="N",
        help="structures side by side in one padded batch, for GPUs (default: 1)")  # fmt: skip
    add("--repeat", type=int, nargs=3, metavar="N",
        help="repetitions of the cell as it is read (default: a near-cubic supercell)")  # fmt: skip
    add("--precision", choices=("single", "double"),
        help="of the potential (default: single for networks, double for others)")  # fmt: skip
    add("--skin", type=float, default=0.0, metavar="Å",
        help="of the neighbour list, for pair potentials (default: 0, a new list every "
        "step)")  # fmt: skip
    add("--checkpoint-every", type=int, default=1000, metavar="N",
        help="steps that are lost at most (default: 1000)")  # fmt: skip
    add("--trajectory", nargs="+", choices=TRAJECTORIES, default=[], metavar="FORMAT",
        help="keep the frames as " + ", ".join(TRAJECTORIES))  # fmt: skip
    add_analysis(parser)
    add("--keep-melted", action="store_true",
        help="go on with systems whose framework does not hold at a tenth of the run")  # fmt: skip
    add_common(
        parser,
        ("--out", "--mobile", "--supercell-atoms", "--no-relax", "--fixed-cell",
         "--force-tolerance", "--stress-tolerance", "--seed", "--no-figures"),
    )  # fmt: skip
    parser.set_defaults(run=run, supercell_atoms=SUPERCELL_ATOMS)


def add_analysis(parser) -> None:
    """Add the options of the analysis, which `phojax diffusion` has as well."""
    parser.add_argument("--ballistic", type=float, default=2.0, metavar="ps",
        help="lags below this are cut off (default: 2)")  # fmt: skip
    parser.add_argument("--charge", type=float, default=1.0, metavar="e",
        help="of a mobile ion, for conductivities (default: 1)")  # fmt: skip
    parser.add_argument("--phonons", type=pathlib.Path, metavar="PATH",
        help="record.json of `phojax phonons`, or its folder of results with the same names: the "
        "acoustic cutoff is recorded and drawn")  # fmt: skip


def check_analysis(options: argparse.Namespace) -> None:
    """Raise InputError where options of the analysis have no meaning."""
    if not (math.isfinite(options.ballistic) and options.ballistic > 0):
        raise fail(f"--ballistic {options.ballistic:g}", "a positive time in ps")
    if not math.isfinite(options.charge) or options.charge == 0:
        raise fail(f"--charge {options.charge:g}", "a charge in e, not 0")


def check_temperatures(given: Sequence[float]) -> None:
    """Raise InputError for temperatures without meaning."""
    for T in given:
        if not (math.isfinite(T) and T > 0):
            raise fail(f"a temperature of {T:g} K", "positive ones")


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    protocol = Protocol(
        ensemble=options.ensemble, timestep_fs=options.timestep,
        friction_per_ps=options.friction, equilibration_steps=options.equilibration,
        steps=options.steps, frame_every=options.frame_every, seed=options.seed,
        skin=options.skin, stop_melted=not options.keep_melted,
    )  # fmt: skip
    for name in ("replicas", "together", "checkpoint_every"):
        if getattr(options, name) < 1:
            raise fail(f"--{name.replace('_', '-')} {getattr(options, name)}", "at least 1")
    if options.repeat is not None and min(options.repeat) < 1:
        raise fail(f"--repeat {options.repeat}", "three numbers of at least 1")
    check_temperatures(options.temperature)
    check_analysis(options)
    settings = settings_of(options)
    jobs = named_jobs(options.inputs, options.out)
    work = _Work(jobs, settings, protocol, options)
    works = {job.name: partial(work.record, job) for job in jobs}
    return over_inputs(works, options.out / "md.csv", all_table_rows, printed_table)


class _Work:
    """All inputs of the command: what moves together is computed when the first of it is due."""

    def __init__(
        self, jobs: list[Job], settings: PhononSettings, protocol: Protocol, options
    ) -> None:
        self._jobs = jobs
        self._settings = settings
        self._protocol = protocol
        self._options = options
        self._model = potential(options.potential)
        self._mover, self._precision = in_precision(self._model, options.precision)
        self._prepared: dict[str, Prepared | InputError] = {}
        self._moved: dict[str, Moved] = {}

    def record(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Return the record of an input, computed where it is not there."""
        place = self._jobs.index(job)

        def computed(checkpoint: Checkpoint) -> dict[str, Any]:
            self._prepare(job, progress, checkpoint)
            found = self._prepared[job.name]
            if isinstance(found, InputError):
                raise found
            if job.name not in self._moved:
                self._move(job, place, progress)
            done = self._moved.pop(job.name)
            progress("writing", 0, 0)
            return self._written(job, found, done)

        return recorded(
            job,
            lambda: self._key(job),
            computed,
            progress,
            files=FILES,
            whole=lambda: self._options.no_figures or any(job.folder.glob("transport-*.png")),
        )

    def _key(self, job: Job) -> str:
        check_readable(job.path)
        options, found = self._options, versions()
        return key_of(
            input=job.path.read_bytes(),
            settings=self._settings.as_dict(),
            protocol=self._protocol.as_dict(),
            temperatures=options.temperature,
            replicas=options.replicas,
            ballistic=options.ballistic,
            charge=options.charge,
            repeat=options.repeat,
            precision=self._precision,
            trajectory=sorted(options.trajectory),
            versions={k: found[k] for k in ("phojax", "jax")},
            **identity(self._model),
        )

    def _prepare(self, job: Job, progress, checkpoint: Checkpoint) -> None:
        if job.name in self._prepared:
            return
        progress("reading", 0, 0)
        try:
            crystal, notes = structure_input(job)
            self._prepared[job.name] = prepared(
                crystal, notes, self._model, self._settings, progress, checkpoint,
                None if self._options.repeat is None else tuple(self._options.repeat),
            )  # fmt: skip
        except InputError as error:
            self._prepared[job.name] = error

    def _move(self, job: Job, place: int, progress: Progress) -> None:
        """Move this input, and those after it that go with it."""
        group = [job]
        for other in self._jobs[place + 1 : place + self._options.together]:
            if not (other.folder / "record.json").exists():
                self._prepare(other, progress, Checkpoint(other.folder / ".partial", ""))
                if isinstance(self._prepared[other.name], Prepared):
                    group.append(other)

        def report(stage: str, done: int, of: int, remark: str) -> None:
            progress(stage + (f" ({remark})" if remark else ""), done, of)

        crystals = [self._prepared[member.name] for member in group]
        done = moved(
            [c for c in crystals if isinstance(c, Prepared)],
            self._mover,
            self._options.mobile,
            tuple(self._options.temperature),
            self._options.replicas,
            self._protocol,
            job.folder / ".partial",
            key_of(members=[self._key(member) for member in group]),
            checkpoint_every=self._options.checkpoint_every,
            report=report,
            keep_frames=bool(self._options.trajectory),
        )
        self._moved.update({m.name: d for m, d in zip(group, done, strict=True)})

    def _written(self, job: Job, found: Prepared, done: Moved) -> dict[str, Any]:
        options = self._options
        flags, notes = relaxation_flags(found.relaxation, self._settings)
        why = stopped(done)
        flags += ["stopped_early"] if why else []
        mobile = atomic_numbers[options.mobile]
        observed = observed_of(done, mobile)
        if not observed:
            raise InputError("no system lasted: " + ("; ".join(why) or "no two frames of it"))
        if options.trajectory:
            assert done.trajectories is not None
            for n, T, r in zip(done.numbers, done.temperatures, done.replicas, strict=True):
                label = f"{T:g}K" + (f"-{r}" if options.replicas > 1 else "")
                write_trajectories(job.folder, label, done.trajectories(n), options.trajectory)
        symbols = "".join(found.crystal.symbols)
        formula = Formula(symbols).reduce()[0].format("metal")
        record: dict[str, Any] = {
            "name": job.name,
            "formula": formula,
            "space_group": found.space_group,
            "atoms": len(found.crystal),
            "supercell": [list(row) for row in found.matrix],
            "potential": self._model.name,
            "precision": self._precision,
            "source": self._model.name,
            "mobile": options.mobile,
            "relaxation": relaxation_record(found.relaxation),
            "protocol": self._protocol.as_dict(),
            "steps_per_second": done.run.steps_per_second,
            "systems_side_by_side": len(done.run.systems),
            "flags": flags,
            "notes": [*found.notes, *notes, *why, *done.run.remarks],
            "versions": versions(),
        }
        return write_transport(
            job.folder,
            observed,
            found.crystal,
            record,
            begin_ps=options.ballistic,
            charge=options.charge,
            phonons=options.phonons,
            figures=not options.no_figures,
        )
