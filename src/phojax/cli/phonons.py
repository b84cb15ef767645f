"""`phojax phonons`: structures or phonopy files to phonons, descriptors, figures and a table."""

import argparse
import os
import sys
import time
from typing import Any

import jax
import numpy as np

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.campaign.row_files import write_row_files
from phojax.checks import InputError, fail
from phojax.cli.exports import EXPORTS, write_exports
from phojax.cli.jobs import ONE_AT_A_TIME, Job, jobs_of, phonopy_input, structure_input
from phojax.cli.options import add_options, settings_of
from phojax.cli.progress import Progress, seconds
from phojax.cli.recorded import check_out, recorded, told
from phojax.cli.table import printed_table, write_csv
from phojax.cli.third import THIRD_ORDER_FILES, third_order_of, write_third_order
from phojax.compiled import let_go_of_compiled
from phojax.forces import evaluate
from phojax.io.structures import check_readable
from phojax.nac import BornCharges
from phojax.plots.figures import phonon_figure, save_figure
from phojax.plots.phonons import figure_data
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.prepare import Plan, planned
from phojax.screening.row import PhononRow, row_from_force_constants, row_from_potential, versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint, identity, key_of
from phojax.screening.supercell_check import supercell_check
from phojax.screening.user import source_digest, user_function
from phojax.threads import in_threads

_COLUMNS_PER_FORCE_CALL = 4.0  # cost of a Hessian-vector product in force calls
_COMPILATION = 40.0  # s per structure, on a laptop
_ANALYSIS = 15.0  # s per set of force constants, likewise
_OURS = (
    "phonons-*.p*", "structure.*", "modes.npz", "phonopy.yaml", "force_constants.hdf5",
    *THIRD_ORDER_FILES,
)  # fmt: skip
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
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    settings = settings_of(options)
    for name in settings.descriptors:
        user_function(name)  # before anything is computed
    jobs = jobs_of(options)
    if options.third_order and any(job.is_phonopy for job in jobs):
        raise fail("--third-order with a phonopy file", "structure files and a potential")
    for name in ("check_supercell", "exact"):
        if getattr(options, name) and any(job.is_phonopy for job in jobs):
            raise fail(
                f"--{name.replace('_', '-')} with a phonopy file", "structure files and a potential"
            )
    if options.third_cutoff is not None and not options.third_order:
        raise fail("--third-cutoff without --third-order", "both, or neither")
    model = None
    if not all(job.is_phonopy for job in jobs):
        model = potential(options.potential)
    if options.dry_run:
        return _dry_run(jobs, model, settings, options)

    table = options.out / "phonons.csv"
    check_out(options.out, table)
    records = _all_done(jobs, model, settings, options)
    print(printed_table(records, settings))
    return told(records, table)


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
        let_go_of_compiled()
        with ONE_AT_A_TIME:
            records[number] = record
            write_csv(options.out / "phonons.csv", [records[k] for k in sorted(records)])

    for _ in in_threads(one, range(len(jobs)), at_a_time):
        pass
    return [records[number] for number in range(len(jobs))]


def _default_jobs() -> int:
    """Return 2 on a CPU of several cores, where one input compiles while another computes."""
    return 2 if jax.default_backend() == "cpu" and (os.cpu_count() or 1) > 1 else 1


def _done_or_computed(job: Job, model, settings, options, progress: Progress) -> dict[str, Any]:
    """Return the record of an input: read, where it is done, else computed and written."""

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        row, born = _computed(job, model, settings, options, progress, checkpoint)
        if options.third_order:
            assert model is not None
            cutoff, workers = options.third_cutoff, options.workers
            third = third_order_of(row, model, cutoff, progress, checkpoint, workers)
            write_third_order(job.folder, third)
        if options.check_supercell:
            assert model is not None
            check = supercell_check(
                model, row.force_constants.supercell, row.group, mobile=settings.mobile,
                temperature=max(settings.temperatures), smallest_THz=settings.smallest_THz,
                on_part=lambda done, of: progress("exact D(q)", done, of),
            )  # fmt: skip
            row.record["supercell_check"] = check.as_record()
            row.record["notes"].append(check.said())
        progress("writing", 0, 0)
        _write(job, row, born, settings, options)
        return row.record

    return recorded(
        job,
        lambda: _key(job, model, settings, options),
        computed,
        progress,
        files=(*_OURS, *EXPORTS, "phonopy-text"),
        whole=lambda: options.no_figures or (job.folder / "phonons-msd.png").exists(),
    )


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
        parts |= identity(model)
    for name in settings.descriptors:
        parts[name] = source_digest(name)
    parts["export"] = sorted(options.export)
    if options.check_supercell:
        parts["check_supercell"] = True
    if options.third_order:
        parts["third_order"] = [True, options.third_cutoff]
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
    """Write everything of one input but the record."""
    write_row_files(job.folder, row, born)
    write_exports(job.folder, row, born, options.export)
    if not options.no_figures:
        data = figure_data(row, max(settings.temperatures))
        with ONE_AT_A_TIME:  # matplotlib is not made for threads
            for colour in ("msd", "coupling"):
                if colour == "msd" or np.isfinite(data.bands.coupling).any():
                    save_figure(phonon_figure(data, colour), job.folder / f"phonons-{colour}")


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
                calls = plan.columns * _COLUMNS_PER_FORCE_CALL
                if not model.on_host:
                    calls /= os.cpu_count() or 1
                # A wave has two parts, and lives in the primitive cell.
                moved = 2 * len(plan.primitive) if plan.by_waves else atoms
                cost = calls * per_atom * moved + _COMPILATION
                mesh = gamma_mesh(
                    settings.mesh or mesh_divisions(plan.primitive, settings.mesh_spacing),
                    plan.group,
                )
                text = (
                    f"{plan.group.symbol}, {len(plan.primitive)} atoms, supercell of {atoms}, "
                    f"{plan.columns} {_work(plan)} (width {plan.width:g} Å), mesh "
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


def _work(plan: Plan) -> str:
    return "Hessian-vector products" if plan.step is None else f"differences of {plan.step:g} Å"


def _force_call(model: Potential, crystal) -> float:
    """Return the time of one evaluation in s, compilation left out."""
    evaluate(model, crystal)
    begin = time.perf_counter()
    evaluate(model, crystal)
    return time.perf_counter() - begin
