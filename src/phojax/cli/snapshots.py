"""`phojax snapshots`: harmonic displacements about the local minima of molecular dynamics."""

import argparse
import hashlib
import pathlib
from functools import partial
from typing import Any

import numpy as np

from phojax.campaign.md_runs import in_precision, moved, prepared, stopped
from phojax.checks import InputError, fail
from phojax.cli.jobs import ONE_AT_A_TIME, Job, named_jobs, structure_input
from phojax.cli.options import add_common, settings_of, whole_number
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.cli.table import write_csv
from phojax.finite_temperature.snapshots import Snapshots
from phojax.io.structures import check_readable, read_structure, write_structure
from phojax.io.trajectories import holds_frames, read_trajectory
from phojax.io.trajectory_writers import write_trajectory_npz
from phojax.md.protocol import Protocol
from phojax.md.trajectory import Trajectory
from phojax.plots.figures import save_figure
from phojax.plots.snapshots import SnapshotData, snapshot_figure
from phojax.plots.style import without_folders
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential, check_elements
from phojax.screening.prepare import Report, check_mobile
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.snapshot_record import ion_msd, snapshot_record, snapshot_table
from phojax.screening.snapshots import SnapshotRow, snapshot_row
from phojax.screening.store import Checkpoint, identity, key_of
from phojax.structure import Structure, structure

_FILES = ("snapshots.csv", "snapshots-*", "minima", "trajectory.npz", "ideal.extxyz")
_RELAX_STEPS = 1000
_MD_STEPS, _MD_EQUILIBRATION, _MD_ATOMS = 10_000, 2000, 100
_IDEAL = "structure.extxyz"  # beside a trajectory of `phojax md`: the crystal before the run


def add_parser(commands) -> None:
    """Add the command and its options."""
    how, settings = Snapshots(), PhononSettings()
    parser = commands.add_parser(
        "snapshots",
        help="displacements about the local minima of MD snapshots, ion by ion",
        description="Trajectories, or structures that molecular dynamics is run of first, to the "
        "local minima below some snapshots and the harmonic mean-square displacement of every "
        "mobile ion there, beside that of the ideal crystal. The same command goes on where it "
        "was interrupted.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path,
        help="trajectories (npz, extxyz, traj, XDATCAR, vasprun.xml, LAMMPS dump) or "
        "structures")  # fmt: skip
    add("--potential", default="chgnet", metavar="NAME",
        help="as `phojax potentials` lists them (default: chgnet)")  # fmt: skip
    add("--count", type=int, default=how.count, metavar="N",
        help=f"snapshots, at equal distances (default: {how.count})")  # fmt: skip
    add("--start", type=int, default=how.start, metavar="N",
        help="frames left out at the beginning (default: 0)")  # fmt: skip
    add("--reference", type=pathlib.Path, metavar="FILE",
        help="the ideal crystal, its supercell or a cell it is made of (default: "
        f"{_IDEAL} beside the trajectory, if it is there)")  # fmt: skip
    add("--as-they-are", action="store_true",
        help="take a file with one frame for a snapshot, not for a structure to be "
        "moved")  # fmt: skip
    add("--types", nargs="+", metavar="SYMBOL", help="elements of the types of a LAMMPS dump")
    add("--steps", type=whole_number, default=_MD_STEPS, metavar="N",
        help=f"of molecular dynamics of a structure (default: {_MD_STEPS})")  # fmt: skip
    add("--equilibration", type=whole_number, default=_MD_EQUILIBRATION, metavar="N",
        help=f"steps before them (default: {_MD_EQUILIBRATION})")  # fmt: skip
    add("--md-temperature", type=float, metavar="T",
        help="of the dynamics (default: the highest of --temperature)")  # fmt: skip
    add("--timestep", type=float, default=Protocol().timestep_fs, metavar="fs",
        help=f"(default: {Protocol().timestep_fs})")  # fmt: skip
    add("--repeat", type=int, nargs=3, metavar="N",
        help="repetitions of the cell as it is read (default: a near-cubic supercell)")  # fmt: skip
    add("--together", type=int, metavar="N",
        help="snapshots relaxed side by side (default: 1 on a CPU, 8 elsewhere)")  # fmt: skip
    add("--relax-steps", type=int, default=_RELAX_STEPS, metavar="N",
        help=f"evaluations per relaxation at most (default: {_RELAX_STEPS})")  # fmt: skip
    add("--width", type=float, metavar="Å",
        help="of the averaged Hessian (default: what the potential asks for; 0: none)")  # fmt: skip
    add("--pairs", type=int, default=settings.pairs, metavar="N",
        help=f"± displacements in that average (default: {settings.pairs})")  # fmt: skip
    add("--displacement", type=float, metavar="Å",
        help="differences of forces in place of derivatives")  # fmt: skip
    add("--site-radius", type=float, default=how.site_radius, metavar="Å",
        help=f"within which an atom is on a site (default: {how.site_radius:g})")  # fmt: skip
    add("--energy-window", type=float, default=how.energy_window, metavar="eV",
        help="per atom, beyond which a minimum is of another structure (default: "
        f"{how.energy_window:g})")  # fmt: skip
    add("--stands-out", type=float, default=how.stands_out, metavar="X",
        help=f"medians beyond which an ion is named (default: {how.stands_out:g})")  # fmt: skip
    add_common(
        parser,
        ("--out", "--mobile", "--temperature", "--supercell-atoms", "--fixed-cell",
         "--force-tolerance", "--seed", "--no-figures"),
    )  # fmt: skip
    add("--mesh", nargs=3, type=int, metavar="N",
        help="Γ-centred q mesh of the supercell (default: Γ alone)")  # fmt: skip
    parser.set_defaults(run=run, supercell_atoms=_MD_ATOMS)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    how = Snapshots(
        count=options.count, start=options.start, site_radius=options.site_radius,
        energy_window=options.energy_window, stands_out=options.stands_out,
    )  # fmt: skip
    settings = settings_of(options)
    protocol = Protocol(
        timestep_fs=options.timestep, equilibration_steps=options.equilibration,
        steps=options.steps, seed=options.seed,
    )  # fmt: skip
    if options.together is not None and options.together < 1:
        raise fail(f"--together {options.together}", "at least 1")
    if options.repeat is not None and min(options.repeat) < 1:
        raise fail(f"--repeat {options.repeat}", "three numbers of at least 1")
    if _md_temperature(options) <= 0:
        raise fail("molecular dynamics at 0 K", "a temperature above 0", "Give --md-temperature")
    jobs = named_jobs(options.inputs, options.out)
    model = potential(options.potential)
    works = {job.name: partial(_done_or_computed, job, model, settings, how, protocol, options)
             for job in jobs}  # fmt: skip
    return over_inputs(
        works, options.out / "snapshots.csv",
        lambda records: [row for record in records for row in _rows(record)],
    )  # fmt: skip


def _md_temperature(options: argparse.Namespace) -> float:
    given = options.md_temperature
    return max(options.temperature) if given is None else given


def _done_or_computed(
    job: Job, model: Potential, settings: PhononSettings, how: Snapshots, protocol: Protocol,
    options, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    beside = job.path.parent / _IDEAL

    def key() -> str:
        check_readable(job.path)
        found = versions()
        reference = options.reference or (beside if beside.is_file() else None)
        if reference is not None:
            check_readable(reference)
        return key_of(
            input=_digest(job.path), reference=reference and _digest(reference),
            settings=settings.as_dict(), snapshots=how.as_dict(), protocol=protocol.as_dict(),
            md_temperature=_md_temperature(options), repeat=options.repeat,
            as_they_are=options.as_they_are, types=options.types,
            versions={k: found[k] for k in ("phojax", "jax")}, **identity(model),
        )  # fmt: skip

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        progress("reading", 0, 0)
        reference: Structure | None = None
        extra: dict[str, Any] = {"molecular_dynamics": None}
        if options.as_they_are or holds_frames(job.path):
            frames = read_trajectory(job.path, types=options.types, timed=False)
            source = options.reference or (beside if beside.is_file() else None)
            reference = None if source is None else read_structure(source)
        else:
            frames, reference, extra = _moved(
                job, model, settings, protocol, options, progress, checkpoint
            )
            if options.reference is not None:
                reference = read_structure(options.reference)
        try:
            row = snapshot_row(
                frames, reference, model, settings, how, slots=options.together, report=progress,
                checkpoint=checkpoint,
            )  # fmt: skip
        except InputError as error:
            if reference is not None and options.reference is None and "reference" in str(error):
                raise InputError(f"{error} ({beside} was taken for the reference)") from error
            raise
        progress("writing", 0, 0)
        record = snapshot_record(job.name, row, model, settings, how)
        record["notes"] = [*extra.pop("notes", ()), *record["notes"]]
        if extra["molecular_dynamics"] is not None and frames.notes:
            record["flags"].append("stopped_early")
        _write(job.folder, row, record, settings, options)
        return record | extra

    return recorded(
        job, key, computed, progress, files=_FILES,
        whole=lambda: options.no_figures or any(job.folder.glob("snapshots-*.png")),
    )  # fmt: skip


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _moved(
    job: Job, model: Potential, settings: PhononSettings, protocol: Protocol, options,
    progress: Report, checkpoint: Checkpoint,
) -> tuple[Trajectory, Structure, dict[str, Any]]:  # fmt: skip
    """Return the frames of molecular dynamics of a structure, and the crystal before it."""
    crystal, notes = structure_input(job)
    check_mobile(crystal, settings.mobile)
    check_elements(model, crystal)
    T = _md_temperature(options)
    repeat = None if options.repeat is None else tuple(options.repeat)
    ideal = prepared(crystal, notes, model, settings, progress, checkpoint, repeat)
    mover, precision = in_precision(model, None)
    extra = {
        "molecular_dynamics": {
            "protocol": protocol.as_dict(), "temperature_K": T, "precision": precision,
            "supercell": [list(row) for row in ideal.matrix], "space_group": ideal.space_group,
        },
        "notes": notes,
    }  # fmt: skip
    kept = checkpoint.load("dynamics")
    if not kept:

        def report(stage: str, done: int, of: int, remark: str) -> None:
            progress(stage + (f" ({remark})" if remark else ""), done, of)

        done = moved(
            [ideal], mover, settings.mobile, (T,), 1, protocol, job.folder / ".partial",
            key_of(crystal=np.asarray(ideal.crystal.positions).tobytes(), T=T,
                   protocol=protocol.as_dict(), **identity(mover)),
            checkpoint_every=1000, report=report, keep_frames=True,
        )[0]  # fmt: skip
        assert done.trajectories is not None
        frames = done.trajectories(done.numbers[0])
        kept = {
            "positions": frames.positions, "cell": frames.cell, "numbers": frames.numbers,
            "masses": frames.masses, "interval_ps": np.array(frames.interval_ps),
            "notes": np.array(stopped(done), str),
        }  # fmt: skip
        checkpoint.save("dynamics", **kept)
    frames = Trajectory(
        kept["positions"], kept["cell"], kept["numbers"], kept["masses"],
        float(kept["interval_ps"]), notes=tuple(str(n) for n in kept["notes"]),
    )  # fmt: skip
    job.folder.mkdir(parents=True, exist_ok=True)
    write_trajectory_npz(job.folder / "trajectory.npz", frames, single=True)
    return frames, ideal.crystal, extra


def _write(
    folder: pathlib.Path,
    row: SnapshotRow,
    record: dict[str, Any],
    settings: PhononSettings,
    options,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "snapshots.csv", snapshot_table(row, settings))
    (folder / "minima").mkdir(exist_ok=True)
    run = row.run
    for number, minimum in enumerate(row.minima):
        if minimum.sites is not None:
            at = structure(run.cell, minimum.sites.positions, run.numbers, run.masses)
            write_structure(folder / "minima" / f"snapshot-{number:03d}.extxyz", at)
    if row.ideal is not None and row.ideal.relaxation is not None:
        write_structure(folder / "ideal.extxyz", row.ideal.relaxation.structure)
    if options.no_figures:
        return
    with ONE_AT_A_TIME:
        for k, T in enumerate(settings.temperatures):
            data = _figure_data(row, record, settings, k)
            save_figure(snapshot_figure(data), folder / f"snapshots-{T:g}K")


def _figure_data(
    row: SnapshotRow, record: dict[str, Any], settings: PhononSettings, k: int
) -> SnapshotData:
    T = settings.temperatures[k]
    chosen = [n for n, m in enumerate(row.minima) if m.displacements is not None]
    minima = [row.minima[n] for n in chosen]
    median = record["temperatures"][f"{T:g}"].get("msd_total_median_A2", np.nan)
    ideal = None
    if row.ideal is not None and row.ideal.displacements is not None:
        ideal = row.ideal.displacements.msd[k, row.mobile]
    moved_ = [~m.sites.on_own[row.mobile] for m in minima if m.sites is not None]
    ions = int(row.mobile.sum())
    doubts = [f for f in record["flags"] if f not in ("duplicate", "no_reference")]
    return SnapshotData(
        title=f"{record['formula']}, {without_folders(record['potential'])}, "
        f"{len(row.run.numbers)} atoms",
        mobile=settings.mobile,
        temperature_K=T,
        atoms=np.flatnonzero(row.mobile),
        labels=tuple(f"snapshot {n}" for n in chosen),
        msd_A2=ion_msd(row, k, chosen),
        clean=np.array([m.clean for m in minima], bool),
        moved=np.array(moved_, bool).reshape(len(chosen), ions),
        stands_out_A2=float(record["snapshot_settings"]["stands_out"] * median),
        ideal_A2=ideal,
        notes=tuple(doubts),
    )


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row of the table per temperature."""
    if "error" in record:
        return [{"name": record["name"], "flags": "failed"}]
    rows = []
    for T, own in record["temperatures"].items():
        row = {
            "name": record["name"],
            "formula": record["formula"],
            "T/K": T,
            "snapshots": own["snapshots"],
            "minima": own.get("different_minima"),
        }
        if own["snapshots"]:
            mean = f"{own['msd_total_mean_A2']:.4f}"
            row |= {
                f"MSD {record['mobile']}/Å²": mean if own["clean"] else f"({mean})",
                "± Å²": _text(own["msd_total_mean_error_A2"]),
                "median/Å²": _text(own["msd_total_median_A2"]),
                "largest/Å²": _text(own["msd_total_largest_A2"]),
                "ideal/Å²": _text(own.get("msd_total_ideal_A2")),
                "stand out": len(own["stand_out"]),
            }
        rows.append(row | {"flags": " ".join(record["flags"])})
    return rows


def _text(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.4f}"


__all__ = ["add_parser", "run"]
