"""`phojax elastic`: structures to elastic tensors, moduli, and sound velocities."""

import argparse
import pathlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from ase.formula import Formula

from phojax.campaign.moduli import STRAIN, at_rest, moduli, route
from phojax.checks import fail
from phojax.cli.jobs import Job, named_jobs, structure_input
from phojax.cli.options import add_common, settings_of
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.cli.table import text_of
from phojax.io.structures import check_readable, write_structure
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.prepare import planned
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint, identity, key_of


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "elastic",
        help="elastic tensors with relaxed ions, moduli, hardness, sound velocities",
        description="Structure files to elastic tensors with relaxed ions (GPa, Voigt's order "
        "xx yy zz yz xz xy): by automatic differentiation, or by finite strains for potentials "
        "that are rough or have no second derivatives.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="structure files")
    add(
        "--potential",
        default="chgnet",
        metavar="NAME",
        help="as `phojax potentials` lists them (default: chgnet)",
    )
    add(
        "--strain",
        type=float,
        metavar="H",
        help=f"finite strains of ±H (default: {STRAIN} where derivatives do not serve, else none)",
    )
    add(
        "--width",
        type=float,
        metavar="Å",
        help="Gaussian width over which derivatives are averaged (default: 0)",
    )
    add_common(
        parser,
        ("--out", "--supercell-atoms", "--no-relax", "--fixed-cell", "--seed"),
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    if options.strain is not None and not 0 < options.strain <= 0.1:
        raise fail(f"--strain {options.strain}", "a number above 0 and up to 0.1")
    settings = at_rest(settings_of(options))
    jobs = named_jobs(options.inputs, options.out)
    model = potential(options.potential)
    width = options.width or 0.0
    strain = route(model, options.strain, width)
    works = {job.name: partial(_done_or_computed, job, model, settings, strain, width)
             for job in jobs}  # fmt: skip
    return over_inputs(
        works, options.out / "elastic.csv", list,
        lambda records: text_of([_row(record) for record in records]),
    )  # fmt: skip


def _done_or_computed(
    job: Job, model: Potential, settings: PhononSettings, strain, width: float, progress: Progress
) -> dict[str, Any]:
    def key() -> str:
        check_readable(job.path)
        found = versions()
        return key_of(
            input=job.path.read_bytes(),
            settings=settings.as_dict(),
            strain=strain,
            width=width,
            versions={k: found[k] for k in ("phojax", "jax")},
            **identity(model),
        )

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        progress("reading", 0, 0)
        crystal, notes = structure_input(job)
        # Whatever the crystal holds is mobile enough for a plan.
        free = replace(settings, mobile=crystal.symbols[0])
        plan = planned(crystal, model, free)
        primitive, found = moduli(plan, model, free, strain, width, progress, checkpoint)
        write_structure(job.folder / "structure.extxyz", primitive)
        return {
            "name": job.name,
            "formula": Formula("".join(primitive.symbols)).reduce()[0].format("metal"),
            "space_group": plan.group.symbol,
            "atoms": len(primitive),
            "potential": model.name,
            **found,
            "versions": versions(),
            "notes": notes + found["notes"],
        }

    return recorded(job, key, computed, progress, files=("structure.extxyz",))


def _row(record: dict[str, Any]) -> dict[str, str]:
    if "error" in record:
        return {"name": record["name"], "flags": "failed"}
    row = {
        "name": record["name"],
        "formula": record["formula"],
        "group": record["space_group"],
        "stable": "yes" if record["stable"] else "NO",
    }
    for label, key, digits in (
        ("K/GPa", "bulk_GPa", 2), ("G/GPa", "shear_GPa", 2), ("E/GPa", "young_GPa", 2),
        ("ν", "poisson", 3), ("H/GPa", "hardness_GPa", 2), ("K/G", "pugh_ratio", 2),
        ("A", "anisotropy_universal", 2), ("v/(km/s)", "sound_velocity_mean_km_s", 2),
        ("θD/K", "debye_temperature_K", 0),
    ):  # fmt: skip
        value = record[key]
        text = "" if value is None or np.isnan(value) else f"{value:.{digits}f}"
        row[label] = text if record["stable"] or not text else f"({text})"
    return row | {"how": record["method"], "flags": " ".join(record["flags"])}
