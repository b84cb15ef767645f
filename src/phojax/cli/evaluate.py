"""`phojax evaluate`: potentials against reference forces, in one table."""

import argparse
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase.formula import Formula

from phojax.checks import InputError, fail
from phojax.cli.evaluation_report import compared, csv_rows, slug, write_figures
from phojax.cli.jobs import Job, named_jobs, structure_input
from phojax.cli.options import add_common, settings_of
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.evaluation import (
    Lattice,
    force_errors,
    forces_of,
    lattice_errors,
    lattice_solver,
)
from phojax.force_constants.displacements import (
    DisplacementSet,
    random_displacements,
    with_forces,
)
from phojax.io.displacement_files import read_displacement_set
from phojax.io.frames import read_frames
from phojax.io.records import write_modes
from phojax.io.structures import check_readable
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.prepare import planned, relaxed
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint, identity, key_of
from phojax.screening.trust import relaxation_flags
from phojax.structure import supercell
from phojax.symmetry import SpaceGroup, space_group

_FILES = ("evaluation.npz", "parity-*.p*", "bands.p*")


@dataclass(frozen=True)
class Case:
    """Reference forces on displaced copies of one crystal.

    Attributes:
        sets: Each of one cell; several where a file holds frames of different cells.
        group: Of the primitive cell; None where the crystal at rest is not known: forces only.
        rest_forces: On the undisplaced crystal, where they are known.
        source: Where the forces come from.
    """

    sets: list[DisplacementSet]
    group: SpaceGroup | None
    rest_forces: np.ndarray | None
    source: str


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="potentials against reference forces",
        description="Errors of forces, force constants, frequencies and displacements against a "
        "reference: forces in phonopy files (phonopy_params.yaml, phonopy_disp.yaml with "
        "FORCE_SETS or --forces) or in a file that ASE reads (extxyz, vasprun.xml, …: forces "
        "only); or, for structure files, another potential (--reference).",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="see above")
    add("--potential", nargs="+", required=True, metavar="NAME", help="the potentials to evaluate")
    add(
        "--reference",
        metavar="NAME",
        help="potential that relaxes structure files and gives the reference forces",
    )
    add(
        "--forces",
        nargs="+",
        type=pathlib.Path,
        metavar="FILE",
        help="forces for one phonopy_disp.yaml: FORCE_SETS, vasprun.xml, OUTCAR, extxyz",
    )
    add(
        "--snapshots",
        type=int,
        default=30,
        metavar="N",
        help="with --reference: supercells with all atoms displaced at random (default: 30)",
    )
    add(
        "--distance",
        type=float,
        default=0.03,
        metavar="Å",
        help="with --reference: by how much (default: 0.03)",
    )
    add("--no-third", action="store_true", help="no third-order force constants")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    settings = settings_of(options)
    jobs = named_jobs(options.inputs, options.out)
    if options.forces and not (len(jobs) == 1 and jobs[0].is_phonopy):
        raise fail("--forces", "one phonopy_disp.yaml as the input that they belong to")
    if len({slug(name) for name in options.potential}) < len(options.potential):
        raise fail(f"--potential {' '.join(options.potential)}", "each one once")
    models = {name: potential(name) for name in options.potential}
    reference = potential(options.reference) if options.reference else None
    works = {job.name: partial(_done_or_computed, job, models, reference, settings, options)
             for job in jobs}  # fmt: skip
    return over_inputs(
        works, options.out / "evaluate.csv", csv_rows,
        lambda records: compared(records, list(models), settings), _remarks,
    )  # fmt: skip


def _remarks(record: dict[str, Any]) -> Iterator[str]:
    """Yield what is to be said of each potential."""
    for name, entry in record.get("potentials", {}).items():
        for remark in entry.get("remarks", []):
            yield f"{name}: {remark}"
        if "error" in entry:
            yield f"{name} FAILED: {entry['error']}"


def _done_or_computed(
    job: Job, models, reference, settings: PhononSettings, options, progress: Progress
) -> dict[str, Any]:
    asked = {
        "settings": settings.as_dict(),
        "snapshots": options.snapshots,
        "distance": options.distance,
        "third": not options.no_third,
    }

    def key() -> str:
        check_readable(job.path)
        paths = [job.path, *(options.forces or ())]
        if job.is_phonopy and not options.forces:
            paths.append(job.path.with_name("FORCE_SETS"))
        inputs = [p.read_bytes() if p.is_file() else None for p in paths]
        found = versions()
        return key_of(
            inputs=inputs,
            potentials={name: identity(model) for name, model in models.items()},
            reference=identity(reference) if reference else None,
            versions={k: found[k] for k in ("phojax", "jax")},
            **asked,
        )

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        progress("reading", 0, 0)
        flags: list[str] = []
        notes: list[str] = []
        case = _case(job, reference, settings, options, progress, checkpoint, flags, notes)
        record, arrays = _evaluated(
            job, case, models, settings, not options.no_third, progress, flags, notes
        )
        job.folder.mkdir(parents=True, exist_ok=True)
        write_modes(job.folder / "evaluation.npz", arrays)
        if not options.no_figures:
            write_figures(job.folder, record, arrays, list(models))
        return record

    def whole() -> bool:
        drawn = options.no_figures or (job.folder / "parity-forces.png").exists()
        return drawn and (job.folder / "evaluation.npz").exists()

    return recorded(job, key, computed, progress, files=_FILES, whole=whole)


def _case(
    job: Job, reference, settings, options, report, checkpoint, flags: list[str], notes: list[str]
) -> Case:
    """Return the reference forces of an input."""
    if job.is_phonopy:
        given, remarks = read_displacement_set(job.path, options.forces)
        notes += remarks
        if given.forces is None:
            raise fail(f"{job.path} holds no forces", "forces, or --forces with their files")
        group = space_group(given.supercell.primitive, settings.symmetry_tolerance)
        return Case([given], group, None, f"forces of {job.path.name}")
    if reference is None:
        sets = read_frames(job.path)
        notes.append(
            "forces only: for force constants, give the undisplaced crystal as well "
            "(phonopy_disp.yaml and --forces)"
        )
        return Case(sets, None, None, f"forces of {job.path.name}")
    crystal, remarks = structure_input(job)
    notes += remarks
    plan = planned(crystal, reference, settings)
    primitive = plan.primitive
    relaxation = None
    if settings.relax:
        relaxation = relaxed(plan, reference, settings, report, checkpoint)
        primitive = relaxation.structure
    more_flags, more_notes = relaxation_flags(relaxation, settings)
    flags += more_flags
    notes += more_notes
    cells = supercell(primitive, plan.cell.matrix)
    given = random_displacements(cells, options.snapshots, options.distance, settings.seed)
    forces, rest = forces_of(reference, given, report, checkpoint, "reference")
    return Case([with_forces(given, forces)], plan.group, rest, f"potential {reference.name}")


def _evaluated(
    job: Job,
    case: Case,
    models: dict[str, Potential],
    settings: PhononSettings,
    third: bool,
    report,
    flags: list[str],
    notes: list[str],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    first = case.sets[0]
    whole = first.supercell.structure
    record: dict[str, Any] = {
        "name": job.name,
        "formula": Formula("".join(first.supercell.primitive.symbols)).reduce()[0].format("metal"),
        "reference": case.source,
        "snapshots": sum(map(len, case.sets)),
        "distance_A": first.distance,
        "supercell_atoms": len(whole),
        "settings": settings.as_dict(),
        "versions": versions(),
        "potentials": {},
        "flags": flags,
        "notes": notes,
    }
    arrays: dict[str, np.ndarray] = {"forces_reference": _flat([s.forces for s in case.sets])}
    arrays["numbers"] = np.concatenate(
        [np.tile(np.asarray(s.supercell.structure.numbers), len(s)) for s in case.sets]
    )
    solve: Callable[[np.ndarray], Lattice] | None = None
    reference: Lattice | None = None
    if case.group is not None:
        record["space_group"] = case.group.symbol
        report("force constants of the reference", 0, 0)
        solve, remarks = lattice_solver(first, case.group, settings, third)
        notes += remarks
        assert first.forces is not None
        rest = 0.0 if case.rest_forces is None else case.rest_forces
        reference = solve(first.forces - rest)
        notes += [f"reference: {remark}" for remark in reference.remarks]
        arrays |= _lattice_arrays(reference, "reference")
        arrays |= _path_arrays(reference)
    for name, model in models.items():
        try:
            entry, more = _one(job, case, name, model, solve, reference, settings, report)
        except InputError as error:  # the other potentials are evaluated all the same
            entry, more = {"error": str(error)}, {}
            flags.append("potential_failed")
        record["potentials"][name] = entry
        arrays |= more
    return record, arrays


def _one(job: Job, case: Case, name, model, solve, reference, settings, report):
    """Return the entry of one potential, and its arrays."""
    found, at_rest = [], []
    for number, given in enumerate(case.sets):
        # The forces stay on disk: they serve again beside other potentials or settings.
        at = key_of(set=[given.displacements.tobytes(), *_bytes_of(given)], **identity(model))
        kept = Checkpoint(job.folder / "forces", at)
        forces, rest = forces_of(model, given, report, kept, f"{slug(name)}-{number}")
        found.append(forces)
        at_rest.append(rest)
    symbols, theirs, ours = [], [], []
    for given, forces in zip(case.sets, found, strict=True):
        symbols += given.supercell.structure.symbols * len(given)
        theirs.append(given.forces)
        ours.append(forces)
    entry: dict[str, Any] = {
        "forces": force_errors(symbols, _flat(theirs)[None], _flat(ours)[None]),
        "rest_force_max_eV_A": float(max(np.abs(f).max() for f in at_rest)),
    }
    arrays = {f"forces_{slug(name)}": _flat(ours)}
    if solve is not None:
        report(f"force constants of {name}", 0, 0)
        lattice = solve(found[0] - at_rest[0])
        entry |= lattice_errors(reference, lattice, settings)
        entry["remarks"] = list(lattice.remarks)
        # What displacements change: without the forces at rest, which differ between potentials.
        rest = case.rest_forces if case.rest_forces is not None else reference.rest_forces
        if rest is not None:
            first = case.sets[0]
            assert first.forces is not None
            entry["forces_beyond_rest"] = force_errors(
                first.supercell.structure.symbols, first.forces - rest, found[0] - at_rest[0]
            )
        arrays |= _lattice_arrays(lattice, slug(name))
    return entry, arrays


def _bytes_of(given: DisplacementSet) -> list[bytes]:
    crystal = given.supercell.structure
    return [np.asarray(x).tobytes() for x in (crystal.cell, crystal.positions, crystal.numbers)]


def _flat(sets) -> np.ndarray:
    return np.concatenate([np.reshape(forces, (-1, 3)) for forces in sets])


def _lattice_arrays(lattice: Lattice, name: str) -> dict[str, np.ndarray]:
    found = {
        f"phi2_{name}": np.asarray(lattice.second.values),
        f"path_frequencies_THz_{name}": lattice.analysis.on_path.frequencies_THz,
        f"mesh_frequencies_THz_{name}": lattice.analysis.on_mesh.frequencies_THz,
    }
    if lattice.third is not None:
        found[f"phi3_{name}"] = np.asarray(lattice.third.values)
    return found


def _path_arrays(lattice: Lattice) -> dict[str, np.ndarray]:
    path = lattice.analysis.path
    ends = [s.start for s in path.segments], [s.stop - 1 for s in path.segments]
    starts = [
        s.start
        for before, s in zip(path.segments, path.segments[1:], strict=False)
        if np.abs(path.q[before.stop - 1] - path.q[s.start]).max() > 1e-8
    ]
    return {
        "path_distance": path.distance,
        "path_ticks": path.distance[np.ravel(ends, order="F")],
        "path_labels": np.array(list(np.ravel(path.labels))),
        "path_starts": np.array([0, *starts]),
        "mesh_weights": lattice.analysis.mesh.weights,
    }
