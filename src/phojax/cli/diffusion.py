"""`phojax diffusion`: trajectories of any program to diffusion, spectra and channels."""

import argparse
import pathlib
import re
from functools import partial
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.formula import Formula

from phojax.campaign.transport_files import FILES, temperature_label, write_transport
from phojax.checks import InputError, fail
from phojax.cli.jobs import Job, named_jobs
from phojax.cli.md import add_analysis, check_analysis, check_temperatures
from phojax.cli.options import add_common
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.cli.transport_report import all_table_rows, printed_table
from phojax.io.structures import check_readable, read_structure
from phojax.io.trajectories import read_trajectory
from phojax.md.density import smoothed
from phojax.md.jumps import (
    correlation_factor,
    site_jumps,
    sites_from_density,
    sites_from_structure,
)
from phojax.md.observed import Observed, observed_of_trajectory
from phojax.md.trajectory import Trajectory
from phojax.md.transport import SMOOTHING
from phojax.screening.row import versions
from phojax.screening.store import Checkpoint, key_of
from phojax.structure import Structure, structure

_KELVIN = re.compile(r"(\d+(?:\.\d+)?)\s?K(?![a-zA-Z])")


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "diffusion",
        help="the same analysis of anybody's trajectories",
        description="Trajectories (extxyz, ASE .traj, XDATCAR, vasprun.xml, LAMMPS dumps, the .npz "
        "of phojax md) to diffusion coefficients with error bars and detection limits, spectra, "
        "densities, channels and jumps. Trajectories of one material at several temperatures "
        "together give an activation energy.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="TRAJECTORY", type=pathlib.Path, help="trajectory files")
    add("--temperature", nargs="+", type=float, metavar="T",
        help="of each trajectory in K (default: as in its name, like run-800K.xyz)")  # fmt: skip
    add("--interval", type=float, metavar="ps",
        help="between frames of the file, where it does not say")  # fmt: skip
    add("--start", type=float, default=0.0, metavar="ps",
        help="left out at the beginning: the equilibration (default: 0)")  # fmt: skip
    add("--every", type=int, default=1, metavar="N", help="use every N-th frame (default: 1)")
    add("--types", nargs="+", metavar="SYMBOL",
        help="elements of the types of a LAMMPS dump, in their order")  # fmt: skip
    add("--sites", type=pathlib.Path, metavar="FILE",
        help="structure whose mobile ions are the sites of jumps (default: the maxima of the "
        "density)")  # fmt: skip
    add("--together", action="store_true",
        help="the trajectories are of one material at several temperatures")  # fmt: skip
    add_analysis(parser)
    add_common(parser, ("--out", "--mobile", "--no-figures"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    paths = options.inputs
    given = options.temperature
    if given is not None and len(given) != len(paths):
        raise fail(f"{len(given)} temperatures for {len(paths)} trajectories", "one for each")
    check_temperatures(given or [])
    check_analysis(options)
    if options.mobile not in atomic_numbers:
        raise fail(f"mobile element {options.mobile!r}", "a chemical symbol such as Na")
    if options.interval is not None and not options.interval > 0:
        raise fail(f"--interval {options.interval}", "a positive time in ps")
    if options.every < 1 or options.start < 0:
        raise fail(f"--every {options.every} --start {options.start}", "at least 1, at least 0")
    jobs = named_jobs(paths, options.out)
    temperatures = {
        job.name: given[n] if given is not None else _named(job.path) for n, job in enumerate(jobs)
    }
    groups = [jobs] if options.together else [[job] for job in jobs]
    works = {group[0].name: partial(_record, group, temperatures, options) for group in groups}
    return over_inputs(works, options.out / "diffusion.csv", all_table_rows, printed_table)


def _named(path: pathlib.Path) -> float | None:
    """Return the temperature that the name of a file says."""
    found = _KELVIN.findall(path.stem)
    return float(found[-1]) if found else None


def _record(
    group: list[Job], temperatures: dict[str, float | None], options, progress: Progress
) -> dict[str, Any]:
    def key() -> str:
        for job in group:
            check_readable(job.path)
        sites = options.sites
        return key_of(
            inputs=[job.path.read_bytes() for job in group],
            temperatures=[temperatures[job.name] for job in group],
            options={
                name: getattr(options, name)
                for name in ("interval", "start", "every", "types", "mobile", "ballistic", "charge")
            },
            sites=None if sites is None else sites.read_bytes(),
            phonons=str(options.phonons),
            versions={k: v for k, v in versions().items() if k == "phojax"},
        )

    def computed(_: Checkpoint) -> dict[str, Any]:
        mobile = atomic_numbers[options.mobile]
        observed: list[Observed] = []
        jumps: dict[str, Any] = {}
        notes: list[str] = []
        first: Structure | None = None
        for job in group:
            progress(f"reading {job.path.name}", 0, 0)
            T = temperatures[job.name]
            frames = _read(job.path, options)
            crystal = structure(frames.cell, frames.positions[0], frames.numbers, frames.masses)
            if first is None:
                first = crystal
            elif sorted(crystal.symbols) != sorted(first.symbols):
                raise fail(
                    f"{job.path} holds other atoms than {group[0].path}", "one material",
                    "Leave out --together",
                )  # fmt: skip
            if T is not None and any(o.temperature_K == T for o in observed):
                raise fail(f"two trajectories at {T:g} K", "one for each temperature")
            if T is None and len(group) > 1:
                raise fail(f"{job.path} does not name its temperature", "--temperature T …")
            progress("displacements, spectra, density", 0, 0)
            seen = observed_of_trajectory(frames, mobile, T)
            observed.append(seen)
            progress("jumps", 0, 0)
            label = temperature_label(T).removesuffix(" K")
            jumps[label], more = _jumps(frames, seen, options)
            of = f"{job.path.name}: " if len(group) > 1 else ""
            notes += [f"{of}{note}" for note in (*frames.notes, *more)]
        assert first is not None
        record: dict[str, Any] = {
            "name": group[0].name,
            "formula": Formula("".join(first.symbols)).reduce()[0].format("metal"),
            "atoms": len(first),
            "mobile": options.mobile,
            "source": ", ".join(job.path.name for job in group),
            "flags": [],
            "notes": notes,
            "versions": versions(),
        }
        progress("writing", 0, 0)
        record = write_transport(
            group[0].folder,
            observed,
            first,
            record,
            begin_ps=options.ballistic,
            charge=options.charge,
            phonons=options.phonons,
            figures=not options.no_figures,
            sources=[job.path.name for job in group],
        )
        for label, found in jumps.items():
            if found is not None:
                D = record["temperatures"][label].get("D_A2_ps", np.nan)
                censored = record["temperatures"][label].get("D_censored", True)
                factor = np.nan if censored else correlation_factor(found, D)
                record["temperatures"][label]["jumps"] = _jump_record(found, factor)
        return record

    def whole() -> bool:
        return options.no_figures or any(group[0].folder.glob("transport-*.png"))

    return recorded(group[0], key, computed, progress, files=FILES, whole=whole)


def _read(path: pathlib.Path, options) -> Trajectory:
    frames = read_trajectory(
        path, interval_ps=options.interval, every=options.every, types=options.types
    )
    skipped = round(options.start / frames.interval_ps)
    if skipped >= len(frames) - 1:
        raise fail(
            f"--start {options.start:g} ps of {len(frames) * frames.interval_ps:g} ps",
            "a part that leaves frames",
        )
    velocities = None if frames.velocities is None else frames.velocities[skipped:]
    return Trajectory(
        frames.positions[skipped:], frames.cell, frames.numbers, frames.masses,
        frames.interval_ps, velocities, frames.notes,
    )  # fmt: skip


def _jumps(frames: Trajectory, seen: Observed, options):
    """Return jump statistics and notes; None where there are no sites to jump between."""
    try:
        if options.sites is not None:
            sites = sites_from_structure(frames, read_structure(options.sites), seen.mobile)
        else:
            assert seen.density is not None
            sites = sites_from_density(smoothed(seen.density, SMOOTHING))
        found = site_jumps(frames, seen.mobile, sites)
    except InputError as error:
        return None, [f"no jumps: {error}"]
    return found, list(found.notes)


def _jump_record(found, factor: float) -> dict[str, Any]:
    residence = found.mean_residence_ps
    lengths = found.distances
    return {
        "sites": len(found.sites),
        "jumps": len(found),
        "rate_per_ps": found.rate_per_ps,
        "rate_error_per_ps": found.rate_error_per_ps,
        "residence_mean_ps": residence if np.isfinite(residence) else np.nan,
        "distance_mean_A": float(lengths.mean()) if len(lengths) else np.nan,
        "D_jump_A2_ps": found.jump_diffusion,
        "correlation_factor": factor,
        "back_jump_share": found.back_jump_share,
        "core_radius_A": found.core_radius,
        "core_share": found.core_share,
        "vibration_A": found.vibration_A,
    }
