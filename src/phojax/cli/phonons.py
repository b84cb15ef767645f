"""`phojax phonons`: structures or phonopy files to phonons, descriptors, figures and a table."""

import argparse
import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.checks import InputError, fail
from phojax.cli.exports import EXPORTS, write_exports
from phojax.cli.jobs import ONE_AT_A_TIME, Job, jobs_of, phonopy_input, structure_input
from phojax.cli.progress import Progress, seconds
from phojax.cli.table import printed_table, write_csv
from phojax.forces import evaluate
from phojax.io.phonopy_files import write_phonopy
from phojax.io.records import read_record, write_modes, write_record
from phojax.io.structures import check_readable, write_structure
from phojax.nac import BornCharges
from phojax.plots.figures import phonon_figure, save_figure
from phojax.plots.phonons import figure_data
from phojax.potentials.catalogue import available, potential
from phojax.potentials.contract import Potential
from phojax.screening.prepare import planned
from phojax.screening.row import PhononRow, row_from_force_constants, row_from_potential, versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint, key_of
from phojax.screening.user import source_digest, user_function

_COLUMNS_PER_FORCE_CALL = 4.0  # cost of a Hessian-vector product in force calls
_COMPILATION = 40.0  # s per structure, on a laptop
_ANALYSIS = 15.0  # s per set of force constants, likewise
_OURS = ("phonons-*.p*", "structure.*", "modes.npz", "phonopy.yaml", "force_constants.hdf5")
_FILES_BESIDE = ("force_constants.hdf5", "FORCE_CONSTANTS", "FORCE_SETS", "BORN")


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "phonons",
        help="phonons and mode-resolved descriptors of structures",
        description="Structure files (CIF, POSCAR, extxyz, …) with a potential, or phonopy files "
        "without one, to phonons, descriptors, figures and one table. The same command goes on "
        "where it was interrupted.",
    )
    default = PhononSettings()
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        type=pathlib.Path,
        help="structure files, phonopy_params.yaml[.xz], phonopy_disp.yaml or phonopy.yaml",
    )
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder of the results")
    add(
        "--potential",
        default="chgnet",
        metavar="NAME",
        help="for structure files: " + ", ".join(available()) + " (default: chgnet)",
    )
    add(
        "--mobile",
        default=default.mobile,
        metavar="SYMBOL",
        help=f"mobile element (default: {default.mobile})",
    )
    add(
        "--temperature",
        nargs="+",
        type=float,
        default=list(default.temperatures),
        metavar="T",
        help="temperatures in K (default: 300 800)",
    )
    add(
        "--supercell-atoms",
        type=int,
        default=default.supercell_atoms,
        metavar="N",
        help=f"atoms of the supercell at least (default: {default.supercell_atoms})",
    )
    add(
        "--width",
        type=float,
        default=None,
        metavar="Å",
        help="Gaussian width over which the Hessian is averaged; 0 for the plain one "
        "(default: what the potential recommends)",
    )
    add(
        "--pairs",
        type=int,
        default=default.pairs,
        metavar="N",
        help=f"± pairs of displacements in that average (default: {default.pairs})",
    )
    add(
        "--mesh",
        nargs=3,
        type=int,
        default=None,
        metavar="N",
        help=f"Γ-centred q mesh (default: points at most {default.mesh_spacing} Å⁻¹ apart)",
    )
    add("--no-relax", action="store_true", help="take the structure as it is")
    add(
        "--relax-on-average",
        action="store_true",
        help="relax on the surface averaged with the same width",
    )
    add(
        "--force-tolerance",
        type=float,
        default=default.force_tolerance,
        metavar="eV/Å",
        help=f"of the relaxation (default: {default.force_tolerance})",
    )
    add(
        "--stress-tolerance",
        type=float,
        default=default.stress_tolerance,
        metavar="eV/Å³",
        help=f"of the relaxation (default: {default.stress_tolerance})",
    )
    add(
        "--seed",
        type=int,
        default=default.seed,
        metavar="N",
        help=f"of all random numbers (default: {default.seed})",
    )
    add("--force-sets", type=pathlib.Path, metavar="FILE", help="FORCE_SETS of a phonopy input")
    add(
        "--force-constants",
        type=pathlib.Path,
        metavar="FILE",
        help="FORCE_CONSTANTS or force_constants.hdf5 of a phonopy input",
    )
    add(
        "--born",
        type=pathlib.Path,
        metavar="FILE",
        help="BORN of a phonopy input: Born charges for the non-analytic term",
    )
    add("--no-nac", action="store_true", help="no non-analytic term, even with Born charges")
    add(
        "--no-sum-rules",
        action="store_true",
        help="leave the force constants of a phonopy input as they are",
    )
    add(
        "--jobs",
        type=int,
        default=None,
        metavar="N",
        help="inputs at a time (default: 2 on a CPU, 1 on a GPU)",
    )
    add(
        "--descriptor",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a descriptor of your own: a function of (analysis, settings) that returns a number, "
        "or a dictionary of numbers; may be repeated",
    )
    add(
        "--export",
        nargs="+",
        default=[],
        choices=EXPORTS,
        metavar="FILE",
        help="write for other programs as well: " + ", ".join(EXPORTS) + " (the last one in "
        "the folder phonopy-text)",
    )
    add("--no-figures", action="store_true", help="no figures")
    add("--dry-run", action="store_true", help="say what would be done and about how long it takes")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    settings = _settings(options)
    for name in settings.descriptors:
        user_function(name)  # before anything is computed
    jobs = jobs_of(options)
    model = None
    if not all(job.is_phonopy for job in jobs):
        model = potential(options.potential)
    if options.dry_run:
        return _dry_run(jobs, model, settings, options)

    table = options.out / "phonons.csv"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
        if table.is_dir():
            raise IsADirectoryError(errno.EISDIR, "the table cannot be written", str(table))
    except OSError as error:
        raise fail(
            f"--out {options.out}: {error.strerror or error} ({error.filename})",
            "a folder that can be written to",
        ) from error
    records = _all_done(jobs, model, settings, options)
    print(printed_table(records, settings))
    failed = [r for r in records if "error" in r]
    for record in records:
        for note in record.get("notes", []):
            print(f"  {record['name']}: {note}")
    for record in failed:
        print(f"  {record['name']}: FAILED: {record['error']}")
    print(f"results in {options.out}/, table in {table}")
    return 1 if failed else 0


def _all_done(jobs, model, settings: PhononSettings, options) -> list[dict[str, Any]]:
    """Return the records of all inputs in their order, several inputs at a time."""
    at_a_time = max(1, min(options.jobs or _default_jobs(), len(jobs)))
    if "band.yaml" in options.export:
        at_a_time = 1  # its velocities need an eigensolver of XLA's, which other threads can hang
    options.workers = max(1, (os.cpu_count() or 1) // at_a_time)
    if jax.default_backend() != "cpu":
        options.workers = 1
    records: dict[int, dict[str, Any]] = {}

    def one(number: int) -> None:
        label = f"[{number + 1}/{len(jobs)}] {jobs[number].name}"
        progress = Progress(label, several=at_a_time > 1)
        record = _done_or_computed(jobs[number], model, settings, options, progress)
        with ONE_AT_A_TIME:
            records[number] = record
            write_csv(options.out / "phonons.csv", [records[k] for k in sorted(records)])

    if at_a_time == 1:
        for number in range(len(jobs)):
            one(number)
    else:
        pool = ThreadPoolExecutor(at_a_time)
        try:
            for finished in [pool.submit(one, number) for number in range(len(jobs))]:
                finished.result()
        except KeyboardInterrupt:
            # The threads are in compiled code and cannot be stopped; what they finished is on
            # disk, and files appear whole or not at all.
            print("\nphojax: interrupted; the same command goes on from here", file=sys.stderr)
            sys.stderr.flush()
            os._exit(130)
    return [records[number] for number in range(len(jobs))]


def _default_jobs() -> int:
    """Return 2 on a CPU of several cores, where one input compiles while another computes."""
    return 2 if jax.default_backend() == "cpu" and (os.cpu_count() or 1) > 1 else 1


def _settings(options: argparse.Namespace) -> PhononSettings:
    return PhononSettings(
        mobile=options.mobile,
        temperatures=tuple(options.temperature),
        supercell_atoms=options.supercell_atoms,
        supercell_atoms_max=max(PhononSettings.supercell_atoms_max, options.supercell_atoms),
        width=options.width,
        pairs=options.pairs,
        mesh=tuple(options.mesh) if options.mesh else None,
        relax=not options.no_relax,
        relax_on_average=options.relax_on_average,
        force_tolerance=options.force_tolerance,
        stress_tolerance=options.stress_tolerance,
        sum_rules=not options.no_sum_rules,
        nac=not options.no_nac,
        seed=options.seed,
        descriptors=tuple(options.descriptor),
    )


def _done_or_computed(job: Job, model, settings, options, progress: Progress) -> dict[str, Any]:
    """Return the record of an input: read, where it is done, else computed and written."""
    target = job.folder / "record.json"
    begin = time.monotonic()
    try:
        key = _key(job, model, settings, options)
        with contextlib.suppress(InputError, OSError):
            record = read_record(target)
            drawn = options.no_figures or (job.folder / "phonons-msd.png").exists()
            if record.get("key") == key and "error" not in record and drawn:
                progress.end("done before")
                return record
        _set_aside(job)
        checkpoint = Checkpoint(job.folder / ".partial", key)
        row, born = _computed(job, model, settings, options, progress, checkpoint)
        row.record.update(key=key, input=str(job.path), wall_time_s=time.monotonic() - begin)
        progress("writing", 0, 0)
        _write(job, row, born, settings, options)
        checkpoint.clear()
        progress.end(f"done in {seconds(time.monotonic() - begin)}")
        return row.record
    except (InputError, FloatingPointError, OSError) as error:
        text = str(error) if str(job.path) in str(error) else f"{job.path}: {error}"
        return _failed(job, text, progress)
    except Exception as error:  # one bad structure never stops a batch
        with contextlib.suppress(OSError):
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "error.txt").write_text(traceback.format_exc())
        return _failed(job, f"{job.path}: unexpected {type(error).__name__}: {error}", progress)


def _failed(job: Job, text: str, progress: Progress) -> dict[str, Any]:
    progress.end(f"FAILED: {text}")
    record = {"name": job.name, "input": str(job.path), "error": text, "flags": ["failed"],
              "notes": []}  # fmt: skip
    target = job.folder / "record.json"
    with contextlib.suppress(OSError, InputError):
        _set_aside(job)
        write_record(target, record)
    return record


def _set_aside(job: Job) -> None:
    """Move what an earlier run made into the folder `previous`, so that nothing stale looks new."""
    target = job.folder / "record.json"
    try:
        if "error" in read_record(target):
            return
    except (InputError, OSError):
        return
    previous = job.folder / "previous"
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    # The record last: as long as it is there, an interrupted move is taken up again.
    for pattern in (*_OURS, *EXPORTS, "phonopy-text", "record.json"):
        for path in job.folder.glob(pattern):
            path.replace(previous / path.name)


def _key(job: Job, model: Potential | None, settings: PhononSettings, options) -> str:
    """Return what a result depends on, as a hash."""
    check_readable(job.path)
    parts: dict[str, Any] = {"input": job.path.read_bytes(), "settings": settings.as_dict()}
    if job.is_phonopy:
        for name in ("force_sets", "force_constants", "born"):
            path = getattr(options, name)
            parts[name] = path.read_bytes() if path and path.is_file() else str(path)
        for name in _FILES_BESIDE:  # which the reader takes where no option names another
            beside = job.path.with_name(name)
            parts[name] = beside.read_bytes() if beside.is_file() else None
    else:
        assert model is not None
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(model.params):
            digest.update(np.asarray(leaf).tobytes())
        parts |= {"potential": model.name, "parameters": digest.hexdigest()}
    for name in settings.descriptors:
        parts[name] = source_digest(name)
    parts["export"] = sorted(options.export)
    found = versions()
    return key_of(**parts, versions={k: found[k] for k in ("phojax", "jax")})


def _computed(
    job: Job, model, settings, options, progress: Progress, checkpoint: Checkpoint
) -> tuple[PhononRow, BornCharges | None]:
    progress("reading", 0, 0)
    if job.is_phonopy:
        given, remarks = phonopy_input(job, options)
        progress("modes and descriptors", 0, 0)
        row = row_from_force_constants(
            job.name, given.force_constants, settings, given.source,
            given.born, given.notes,
        )  # fmt: skip
        born = given.born
    else:
        crystal, remarks = structure_input(job)
        row = row_from_potential(
            job.name, crystal, model, settings, progress, checkpoint, options.workers
        )
        born = None
    row.record["notes"] += remarks
    return row, born


def _write(job: Job, row: PhononRow, born, settings: PhononSettings, options) -> None:
    """Write everything of one input; the record last, as the sign that all is there."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_structure(job.folder / "structure.cif", row.structure)
    write_structure(job.folder / "structure.extxyz", row.structure)
    write_phonopy(job.folder, row.force_constants, born=born)
    write_modes(job.folder / "modes.npz", row.arrays)
    write_exports(job.folder, row, born, options.export)
    if not options.no_figures:
        data = figure_data(row, max(settings.temperatures))
        with ONE_AT_A_TIME:  # matplotlib is not made for threads
            for colour in ("msd", "coupling"):
                if colour == "msd" or np.isfinite(data.bands.coupling).any():
                    save_figure(phonon_figure(data, colour), job.folder / f"phonons-{colour}")
    write_record(job.folder / "record.json", row.record)


def _dry_run(jobs, model: Potential | None, settings: PhononSettings, options) -> int:
    """Say what would be done."""
    total, status, per_atom = 0.0, 0, None
    for job in jobs:
        try:
            if job.is_phonopy:
                given, _ = phonopy_input(job, options)
                atoms = len(given.force_constants.supercell.primitive)
                text, cost = f"force constants of {atoms} atoms from phonopy's files", _ANALYSIS
            else:
                assert model is not None
                plan = planned(structure_input(job)[0], model, settings)
                atoms = len(plan.cell.structure)
                per_atom = per_atom or _force_call(model, plan.cell.structure) / atoms
                calls = plan.columns * _COLUMNS_PER_FORCE_CALL / (os.cpu_count() or 1)
                cost = calls * per_atom * atoms + _COMPILATION
                mesh = gamma_mesh(
                    settings.mesh or mesh_divisions(plan.primitive, settings.mesh_spacing),
                    plan.group,
                )
                text = (
                    f"{plan.group.symbol}, {len(plan.primitive)} atoms, supercell of {atoms}, "
                    f"{plan.columns} Hessian-vector products (width {plan.width:g} Å), mesh "
                    f"{'×'.join(map(str, mesh.divisions))} ({len(mesh.q)} q)"
                )
                if settings.relax:
                    text = "relaxation; " + text
            total += cost
            print(f"{job.path} -> {job.folder}: {text}; about {seconds(cost)}")
        except InputError as error:
            print(f"{job.path}: would fail: {error}", file=sys.stderr)
            status = 1
    total /= min(options.jobs or _default_jobs(), len(jobs))
    print(f"{len(jobs)} inputs, about {seconds(total)} in all on this machine, unless done before")
    return status


def _force_call(model: Potential, crystal) -> float:
    """Return the time of one evaluation in s, compilation left out."""
    evaluate(model, crystal)
    begin = time.perf_counter()
    evaluate(model, crystal)
    return time.perf_counter() - begin
