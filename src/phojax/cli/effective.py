"""`phojax effective`: effective harmonic phonons of structures at finite temperature."""

import argparse
import pathlib
from functools import partial
from typing import Any

import numpy as np

from phojax.campaign.row_files import write_row_files
from phojax.checks import fail
from phojax.cli.jobs import ONE_AT_A_TIME, Job, named_jobs, structure_input
from phojax.cli.options import add_common, settings_of
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.finite_temperature.effective import Sampling
from phojax.io.records import write_record
from phojax.io.structures import check_readable
from phojax.plots.figures import phonon_figure, save_figure
from phojax.plots.phonons import figure_data
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.effective import (
    EffectiveRow,
    effective_rows,
    effective_summary,
    sampling_potential,
)
from phojax.screening.prepare import prepared
from phojax.screening.row import PhononRow, row_of_prepared, versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint, identity, key_of

_FILES = ("harmonic", "T*K")


def add_parser(commands) -> None:
    """Add the command and its options."""
    default = Sampling()
    parser = commands.add_parser(
        "effective",
        help="effective harmonic phonons at finite temperature, stable or not",
        description="Structure files to effective harmonic force constants at temperatures: "
        "self-consistent averages over their own Gaussian ensembles, with errors; phonons and all "
        "descriptors from them, beside the harmonic ones. Every folder DIR/NAME/T300K holds "
        "phonopy.yaml and force_constants.hdf5. The same command goes on where it was interrupted.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="structure files")
    add("--potential", default="nequix", metavar="NAME",
        help="as `phojax potentials` lists them (default: nequix)")  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quantum", action="store_true", help="quantum widths (the default)")
    which.add_argument("--classical", action="store_true", help="classical widths, as in MD")
    add("--pairs", type=int, default=default.pairs, metavar="N",
        help=f"± pairs of the first population (default: {default.pairs})")  # fmt: skip
    add("--samples", type=int, default=default.samples, metavar="N",
        help=f"supercells at most, per temperature (default: {default.samples})")  # fmt: skip
    add("--tolerance", type=float, default=default.tolerance_THz, metavar="THz",
        help="standard error of frequencies, root mean square over the modes of the supercell "
        f"(default: {default.tolerance_THz})")  # fmt: skip
    add("--msd-tolerance", type=float, default=default.tolerance_msd, metavar="X",
        help="relative standard error of the mean squared displacement "
        f"(default: {default.tolerance_msd})")  # fmt: skip
    add("--floor", type=float, default=default.floor_THz, metavar="THz",
        help="softer and imaginary modes are sampled with this width "
        f"(default: {default.floor_THz})")  # fmt: skip
    add("--cutoff", type=float, metavar="Å", help="of the force constants (default: none)")
    add("--sobol", action="store_true", help="displacements from a Sobol sequence")
    add("--fixed-centroids", action="store_true", help="keep atoms where they are at rest")
    add("--precision", choices=("single", "double"),
        help="of the forces (default: single for networks, double for others)")  # fmt: skip
    add_common(
        parser,
        ("--out", "--mobile", "--temperature", "--supercell-atoms", "--mesh", "--no-relax",
         "--fixed-cell", "--force-tolerance", "--stress-tolerance", "--seed", "--no-figures"),
    )  # fmt: skip
    parser.set_defaults(run=run)


def sampling_of(options: argparse.Namespace) -> Sampling:
    """Return the sampling that parsed options ask for; InputError where it means nothing."""
    return Sampling(
        statistics="classical" if options.classical else "quantum",
        pairs=options.pairs,
        samples=options.samples,
        tolerance_THz=options.tolerance,
        tolerance_msd=options.msd_tolerance,
        floor_THz=options.floor,
        cutoff=options.cutoff,
        kind="sobol" if options.sobol else "random",
        relax_centroids=not options.fixed_centroids,
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    how, settings = sampling_of(options), settings_of(options)
    if options.classical and min(settings.temperatures) == 0:
        raise fail("--classical at 0 K", "a temperature above 0", "At 0 K take quantum widths")
    jobs = named_jobs(options.inputs, options.out)
    model = potential(options.potential)
    works = {job.name: partial(_done_or_computed, job, model, settings, how, options)
             for job in jobs}  # fmt: skip
    return over_inputs(
        works, options.out / "effective.csv",
        lambda records: [row for record in records for row in _rows(record, settings.mobile)],
    )  # fmt: skip


def _done_or_computed(
    job: Job, model: Potential, settings: PhononSettings, how: Sampling, options, progress: Progress
) -> dict[str, Any]:
    def key() -> str:
        check_readable(job.path)
        found = versions()
        return key_of(
            input=job.path.read_bytes(), settings=settings.as_dict(), sampling=vars(how),
            precision=options.precision, versions={k: found[k] for k in ("phojax", "jax")},
            **identity(model),
        )  # fmt: skip

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        progress("reading", 0, 0)
        crystal, notes = structure_input(job)
        # A smooth average is what follows: harmonic force constants are where it starts.
        made = prepared(crystal, model, settings, progress, checkpoint)
        harmonic = row_of_prepared(job.name, made, model, settings)
        sampled, precision = sampling_potential(model, options.precision)
        rows = effective_rows(
            job.name, made, sampled, settings, how, settings.temperatures, progress, checkpoint
        )
        progress("writing", 0, 0)
        _write(job.folder / "harmonic", harmonic, options)
        for row in rows:
            _write(job.folder / f"T{row.temperature:g}K", row.row, options)
        return _record(job.name, harmonic, rows, notes) | {"precision": precision}

    return recorded(job, key, computed, progress, files=_FILES)


def _write(folder: pathlib.Path, row: PhononRow, options) -> None:
    write_row_files(folder, row)
    write_record(folder / "record.json", row.record)
    if not options.no_figures:
        with ONE_AT_A_TIME:
            data = figure_data(row, max(row.record["settings"]["temperatures"]))
            save_figure(phonon_figure(data, "msd"), folder / "phonons-msd")


def _record(
    name: str, harmonic: PhononRow, rows: list[EffectiveRow], notes: list[str]
) -> dict[str, Any]:
    """Return the record of all temperatures: scalars of the folders beside each other."""
    still = harmonic.record
    record: dict[str, Any] = {k: still[k] for k in ("name", "formula", "space_group", "atoms")}
    record |= {
        "name": name,
        "potential": still["potential"],
        "supercell_atoms": still["force_constants"]["supercell_atoms"],
        "harmonic": {
            k: still[k] for k in ("stable", "frequency_min_THz", "msd_total_mean_A2", "flags")
        },
        "effective": {},
        "versions": still["versions"],
        "notes": list(notes),
    }
    for one in rows:
        record["effective"][f"{one.temperature:g}"] = effective_summary(one)
        if one.found.flags:
            record["notes"].append(f"{one.temperature:g} K: {one.found.message}")
    return record


def _rows(record: dict[str, Any], mobile: str) -> list[dict[str, Any]]:
    """Return a row of the table per temperature."""
    if "error" in record:
        return [{"name": record["name"], "flags": "failed"}]
    rows = []
    for T, own in record["effective"].items():
        error = own["msd_total_mean_error_A2"]
        still = record["harmonic"]
        msd = f"{own['msd_total_mean_A2'][mobile]:.4f}"
        before = f"{still['msd_total_mean_A2'][T][mobile]:.4f}"
        rows.append(
            {
                "name": record["name"],
                "formula": record["formula"],
                "group": record["space_group"],
                "T/K": T,
                "stable": "yes" if own["stable"] and own["stable_on_mesh"] else "NO",
                "ν min/THz": f"{own['frequency_min_THz']:.2f}",
                "± THz": _text(own["frequency_error_THz"], 3),
                "harmonic ν min/THz": f"{still['frequency_min_THz']:.2f}",
                f"MSD {mobile}/Å²": msd if own["stable_on_mesh"] else f"({msd})",
                "± Å²": _text(error, 4),
                f"harmonic MSD {mobile}/Å²": before if still["stable"] else f"({before})",
                "force calls": own["force_calls"],
                "flags": " ".join(own["flags"]),
            }
        )
    return rows


def _text(value: float | None, digits: int) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


__all__ = ["add_parser", "run", "sampling_of"]
