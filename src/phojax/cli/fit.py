"""`phojax fit`: displacements and forces to second- and third-order force constants."""

import argparse
import pathlib
from functools import partial
from typing import Any

import numpy as np
from ase.formula import Formula

from phojax.checks import fail
from phojax.cli.jobs import Job, named_jobs
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.cli.table import text_of
from phojax.cli.third import THIRD_ORDER_FILES, write_third_order
from phojax.force_constants.basis import symmetry_adapted_basis
from phojax.force_constants.displacements import DisplacementSet
from phojax.force_constants.fit import METHODS, Fit, fitted
from phojax.force_constants.shells import third_order_cutoff
from phojax.io.displacement_files import read_displacement_set
from phojax.io.phonopy_files import write_phonopy
from phojax.screening.row import versions
from phojax.screening.store import Checkpoint, key_of
from phojax.symmetry import space_group

_FILES = ("phonopy.yaml", "force_constants.hdf5", *THIRD_ORDER_FILES)
_METHODS = {name.replace(" ", "-"): name for name in METHODS}


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "fit",
        help="force constants from displacements and forces",
        description="phonopy_disp.yaml or phonopy_params.yaml with forces (inside, in FORCE_SETS "
        "beside it, or --forces) to force constants of second and, on request, third order in a "
        "symmetry-adapted basis, as phonopy, phono3py and ShengBTE read them. "
        "`phojax phonons DIR/NAME/phonopy.yaml` goes on from there.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="phonopy files, see above")
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder of the results")
    add(
        "--forces",
        nargs="+",
        type=pathlib.Path,
        metavar="FILE",
        help="forces for one input: FORCE_SETS, vasprun.xml, OUTCAR, extxyz",
    )
    add(
        "--method",
        choices=tuple(_METHODS),
        default="least-squares",
        help="l1 is compressive sensing (default: least-squares)",
    )
    add(
        "--penalty",
        type=float,
        metavar="X",
        help="μ in Å/eV of l1, α of ridge (default: by cross-validation)",
    )
    add("--third", action="store_true", help="third order together with second")
    add("--cutoff2", type=float, metavar="Å", help="of second order (default: none)")
    add(
        "--cutoff3",
        type=float,
        metavar="Å",
        help="of third order (default: the third shell of neighbours)",
    )
    add(
        "--rotational",
        action="store_true",
        help="second order invariant under rotations (see the documentation for what that means in "
        "a supercell)",
    )
    add(
        "--accept",
        action="store_true",
        help="go on where forces do not seem to belong to the displacements, or not to be in eV/Å",
    )
    add("--folds", type=int, default=5, metavar="N", help="of the cross-validation (default: 5)")
    add("--seed", type=int, default=0, metavar="N", help="of its split (default: 0)")
    add(
        "--tolerance",
        type=float,
        default=1e-3,
        metavar="Å",
        help="of the space group (default: 0.001)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    jobs = named_jobs(options.inputs, options.out)
    for job in jobs:
        if not job.is_phonopy:
            raise fail(
                f"{job.path}",
                "phonopy_disp.yaml or phonopy_params.yaml (phonopy in the name)",
                "`phojax displace` makes one of a structure",
            )
    if options.forces and len(jobs) > 1:
        raise fail("--forces with several inputs", "the one input that they belong to")
    if options.cutoff3 is not None and not options.third:
        raise fail("--cutoff3 without --third", "both, or neither")
    if options.penalty is not None and options.method == "least-squares":
        raise fail("--penalty with least squares", "--method l1 or ridge")
    works = {job.name: partial(_done_or_computed, job, options) for job in jobs}
    return over_inputs(
        works, options.out / "fit.csv", list,
        lambda records: text_of([_row(record) for record in records]),
    )  # fmt: skip


def _done_or_computed(job: Job, options, progress: Progress) -> dict[str, Any]:
    def key() -> str:
        paths = [job.path, *(options.forces or [job.path.with_name("FORCE_SETS")])]
        found = versions()
        asked = {
            k: v for k, v in vars(options).items()
            if k not in ("inputs", "out", "forces", "run", "command")
        }  # fmt: skip
        return key_of(
            inputs=[p.read_bytes() if p.is_file() else None for p in paths],
            options=asked,
            versions={k: found[k] for k in ("phojax", "symfc", "jax")},
        )

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        progress("reading", 0, 0)
        given, remarks = read_displacement_set(job.path, options.forces)
        if given.forces is None:
            raise fail(f"{job.path} holds no forces", "forces, or --forces with their files")
        found = _fit(given, options, progress)
        if found.doubts and not options.accept:
            raise fail(
                " ".join(f"{doubt}." for doubt in found.doubts),
                "forces in eV/Å of these displacements",
                "--accept goes on all the same",
            )
        progress("writing", 0, 0)
        return _written(job, given, found, list(remarks))

    def whole() -> bool:
        names = _FILES if options.third else _FILES[:2]
        return all((job.folder / name).exists() for name in names)

    return recorded(job, key, computed, progress, files=_FILES, whole=whole)


def _fit(given: DisplacementSet, options, progress: Progress) -> Fit:
    cells = given.supercell
    group = space_group(cells.primitive, options.tolerance)
    cutoffs: dict[int, float | None] = {2: options.cutoff2}
    if options.third:
        given3 = options.cutoff3
        cutoffs[3] = third_order_cutoff(cells) if given3 is None else given3
    progress("basis", 0, 0)
    basis = symmetry_adapted_basis(
        cells, group, orders=(2, 3) if options.third else (2,), cutoffs=cutoffs,
        rotational=options.rotational, residual_forces=True,
    )  # fmt: skip
    progress(f"fit of {len(basis)} unknowns", 0, 0)
    penalty = {"l1": "mu", "ridge": "alpha"}.get(options.method)
    return fitted(
        given, basis, _METHODS[options.method], folds=options.folds, seed=options.seed,
        **({penalty: options.penalty} if penalty else {}),
    )  # fmt: skip


def _written(job: Job, given: DisplacementSet, found: Fit, notes: list[str]) -> dict[str, Any]:
    cells = given.supercell
    assert found.second is not None
    write_phonopy(job.folder, found.second)
    if found.third is not None:
        write_third_order(job.folder, found.third)
    held = found.held_out
    rest = found.residual_forces
    cutoffs = {str(part.order): part.cutoff for part in found.basis.parts if part.order > 1}
    return {
        "name": job.name,
        "formula": Formula("".join(cells.primitive.symbols)).reduce()[0].format("metal"),
        "space_group": found.basis.group.symbol,
        "supercell_atoms": len(cells.structure),
        "snapshots": len(given),
        "distance_A": given.distance,
        "method": found.method,
        "penalty": found.penalty,
        "orders": [order for order in found.basis.orders if order > 1],
        "cutoffs_A": cutoffs,
        "rotational": found.basis.rotational,
        "unknowns": found.unknowns,
        "nonzero": {str(order): count for order, count in found.nonzero.items()},
        "equations": found.equations,
        "rank": found.rank,
        "condition": found.condition if np.isfinite(found.condition) else None,
        "rmse_eV_A": found.rmse,
        "relative_residual": found.relative,
        "held_out_rmse_eV_A": None if held is None else float(held.mean[held.chosen]),
        "held_out_error_eV_A": None if held is None else float(held.error[held.chosen]),
        "rest_force_max_eV_A": 0.0 if rest is None else float(np.abs(rest).max(initial=0.0)),
        "optimality_violation": found.violation,
        "versions": versions(),
        "flags": ["fit_remarks"] if found.warnings else [],
        "notes": [*notes, *found.warnings],
    }


def _row(record: dict[str, Any]) -> dict[str, str]:
    if "error" in record:
        return {"name": record["name"], "method": "failed"}
    held = record["held_out_rmse_eV_A"]
    return {
        "name": record["name"],
        "formula": record["formula"],
        "group": record["space_group"],
        "snapshots": str(record["snapshots"]),
        "orders": " ".join(map(str, record["orders"])),
        "method": record["method"],
        "unknowns": str(record["unknowns"]),
        "not 0": str(sum(record["nonzero"].values())),
        "rmse meV/Å": f"{1e3 * record['rmse_eV_A']:.2f}",
        "of forces %": f"{100 * record['relative_residual']:.2f}",
        "held out meV/Å": "" if held is None else f"{1e3 * held:.2f}",
    }
