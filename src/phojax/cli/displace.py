"""`phojax displace`: displaced supercells of structures, for a program that computes forces."""

import argparse
import pathlib
import shutil

import numpy as np

from phojax.checks import InputError
from phojax.cli.jobs import named_jobs, structure_input
from phojax.cli.options import add_common, settings_of
from phojax.cli.progress import Progress
from phojax.cli.recorded import check_out
from phojax.force_constants.displacements import (
    computed_forces,
    random_displacements,
    single_displacements,
)
from phojax.io.displacement_files import write_displacements
from phojax.potentials.catalogue import potential
from phojax.screening.prepare import supercell_of

_FILES = ("POSCAR", "POSCAR-*", "displaced.extxyz", "phonopy_disp.yaml")


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "displace",
        help="displaced supercells, for DFT or with the forces of a potential",
        description="Displaced supercells of structure files as POSCAR-NNN, displaced.extxyz and "
        "phonopy_disp.yaml: the fewest displacements of single atoms that determine the force "
        "constants, or (--random) all atoms displaced at random. `phojax fit` takes the forces.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="structure files")
    add(
        "--random",
        nargs="?",
        const=30,
        type=int,
        metavar="N",
        help="N supercells with every atom displaced (default: 30)",
    )
    add(
        "--distance",
        type=float,
        metavar="Å",
        help="of the displaced atoms (default: 0.01 for single ones, 0.03 at random)",
    )
    add(
        "--potential",
        metavar="NAME",
        help="write its forces into phonopy_disp.yaml and displaced.extxyz",
    )
    add_common(parser, ("--out", "--supercell-atoms", "--seed"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    settings = settings_of(options)
    jobs = named_jobs(options.inputs, options.out)
    model = potential(options.potential) if options.potential else None
    check_out(options.out)
    failed = False
    for number, job in enumerate(jobs):
        progress = Progress(f"[{number + 1}/{len(jobs)}] {job.name}")
        try:
            crystal, remarks = structure_input(job)
            cells, group = supercell_of(crystal, settings)
            given = (
                random_displacements(cells, options.random, _distance(options, 0.03), settings.seed)
                if options.random is not None
                else single_displacements(cells, group, _distance(options, 0.01))
            )
            if model is not None:
                given = computed_forces(
                    model, given, on_part=lambda k, n, p=progress: p("forces", k, n)
                )
            _set_aside(job.folder)
            write_displacements(job.folder, given)
        except (InputError, OSError) as error:
            failed = True
            text = str(error) if str(job.path) in str(error) else f"{job.path}: {error}"
            progress.end(f"FAILED: {text}")
            continue
        progress.end(
            f"{len(given)} supercells of {len(cells.structure)} atoms "
            f"({'×'.join(f'{x:.1f}' for x in np.linalg.norm(cells.structure.cell, axis=1))} Å), "
            f"displaced by {given.distance:g} Å, in {job.folder}"
        )
        for remark in remarks:
            print(f"  {job.name}: {remark}")
    return 1 if failed else 0


def _set_aside(folder: pathlib.Path) -> None:
    """Move an earlier set into the folder `previous`: calculations may rest on it."""
    old = [path for pattern in _FILES for path in folder.glob(pattern)]
    if not old:
        return
    previous = folder / "previous"
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    for path in old:
        path.replace(previous / path.name)


def _distance(options: argparse.Namespace, usual: float) -> float:
    return usual if options.distance is None else options.distance
