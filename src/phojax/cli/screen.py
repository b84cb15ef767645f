"""`phojax screen`: a source of structures to a ranked table."""

import argparse
import os
import pathlib
import time
from typing import Any

import pandas as pd

from phojax.campaign.engine import Work, local, parsl_engine
from phojax.campaign.screen import funnel, reasons, screen, summed
from phojax.campaign.settings import DynamicsSettings, ScreenSettings
from phojax.campaign.store import Store
from phojax.campaign.table import export_table, table_of
from phojax.checks import fail
from phojax.cli.options import add_common, add_route, settings_of, whole_number
from phojax.cli.progress import Progress, seconds
from phojax.cli.recorded import check_out
from phojax.cli.table import text_of
from phojax.finite_temperature.effective import Sampling
from phojax.io.sources import read_candidates
from phojax.md.protocol import Protocol
from phojax.potentials.catalogue import potential
from phojax.screening.filters import Filters

_SHOWN = 30


def add_parser(commands) -> None:
    """Add the command and its options."""
    default = Protocol()
    parser = commands.add_parser(
        "screen",
        help="a folder of structures to a ranked table, restartable",
        description="A folder of structure files (with a CSV of metadata, if any), an extxyz, an "
        "ASE database, JSON of pymatgen structures, an OPTIMADE response or a query (optimade:, "
        "oqmd:, mp:) to a table of descriptors, and of diffusion for those chosen. The same "
        "command goes on where it was interrupted; with other settings it computes only what "
        "depends on them.",
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder, file or query")
    add("--metadata", type=pathlib.Path, metavar="CSV", help="more about the structures: formation "
        "energies, band gaps (default: a single .csv in the folder)")  # fmt: skip
    add("--potential", default="chgnet", metavar="NAME",
        help="as `phojax potentials` lists them (default: chgnet)")  # fmt: skip
    add("--min-gap", type=float, default=0.0, metavar="eV",
        help="band gaps must be above this, where known; negative for no limit (default: "
        "0)")  # fmt: skip
    add("--max-formation-energy", type=float, default=0.0, metavar="eV/atom",
        help="formation energies must be below this, where known; inf for no limit (default: "
        "0)")  # fmt: skip
    add("--max-atoms", type=int, metavar="N", help="of the primitive cell (default: no limit)")
    add("--exclude", nargs="+", default=[], metavar="SYMBOL", help="elements not wanted")
    add("--require-metadata", action="store_true",
        help="drop structures whose band gap or formation energy is not known")  # fmt: skip
    add("--keep-duplicates", action="store_true", help="compute equal structures again")
    add("--width", type=float, metavar="Å", help="Gaussian width over which Hessians are averaged; "
        "0 for plain ones (default: what the potential recommends)")  # fmt: skip
    add_route(parser)
    add("--pairs", type=int, default=6, metavar="N",
        help="± pairs of displacements in that average (default: 6)")  # fmt: skip
    add("--descriptor", action="append", default=[], metavar="MODULE:FUNCTION",
        help="a descriptor of your own, as `phojax phonons` takes it")  # fmt: skip
    add("--moduli", action="store_true",
        help="elastic moduli of the stable ones, as `phojax elastic` computes them")  # fmt: skip
    add("--phonons", choices=("harmonic", "effective"), default="harmonic",
        help="effective: beside the harmonic ones, those of self-consistent averages at every "
        "--temperature, as `phojax effective` computes them (default: harmonic)")  # fmt: skip
    add("--effective-tolerance", type=float, default=Sampling().tolerance_THz, metavar="THz",
        help="standard error of their frequencies (default: "
        f"{Sampling().tolerance_THz})")  # fmt: skip
    add("--effective-samples", type=whole_number, default=Sampling().samples, metavar="N",
        help=f"supercells at most, per temperature (default: {Sampling().samples})")  # fmt: skip
    add("--md", default="none", metavar="all|none|N",
        help="which stable structures move: the first N by --md-by (default: none)")  # fmt: skip
    add("--md-names", nargs="+", default=[], metavar="ID",
        help="these move, stable or not, instead of --md")  # fmt: skip
    add("--md-by", metavar="COLUMN", help="descriptor, the largest first (default: the MSD at the "
        "highest temperature)")  # fmt: skip
    add("--md-temperature", nargs="+", type=float, default=[800.0], metavar="T",
        help="K (default: 800)")  # fmt: skip
    add("--md-steps", type=whole_number, default=default.steps, metavar="N",
        help=f"that count (default: {default.steps})")  # fmt: skip
    add("--md-equilibration", type=whole_number, default=default.equilibration_steps, metavar="N",
        help=f"steps before them (default: {default.equilibration_steps})")  # fmt: skip
    add("--md-timestep", type=float, default=default.timestep_fs, metavar="fs",
        help=f"(default: {default.timestep_fs})")  # fmt: skip
    add("--md-atoms", type=int, default=100, metavar="N",
        help="of the supercell at least (default: 100)")  # fmt: skip
    add("--md-replicas", type=int, default=1, metavar="N",
        help="per structure and temperature (default: 1)")  # fmt: skip
    add("--md-batch", type=int, default=1, metavar="N",
        help="structures that move side by side, for GPUs (default: 1)")  # fmt: skip
    add("--engine", choices=("local", "parsl"), default="local",
        help="local: this process; parsl: workers on this or other machines (default: "
        "local)")  # fmt: skip
    add("--config", type=pathlib.Path, metavar="FILE", help="Python file that defines a "
        "parsl.Config named config (default: processes on this machine)")  # fmt: skip
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N",
        help="processes, where there is no such file (default: one per core)")  # fmt: skip
    add("--batch", type=int, default=64, metavar="N",
        help="structures that a piece of work holds (default: 64)")  # fmt: skip
    add("--retry-failed", action="store_true",
        help="compute again what failed before (with a newer version, say)")  # fmt: skip
    add("--export", nargs="+", type=pathlib.Path, default=[], metavar="FILE",
        help="write the table as .csv, .json or .db (ASE) as well")  # fmt: skip
    add_common(
        parser,
        ("--out", "--mobile", "--temperature", "--supercell-atoms", "--mesh", "--no-relax",
         "--fixed-cell", "--force-tolerance", "--stress-tolerance", "--seed"),
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    settings = _settings(options)
    for path in options.export:
        if path.suffix not in (".csv", ".json", ".db"):
            raise fail(f"--export {path}", "names that end in .csv, .json or .db")
    for name in ("batch", "workers", "md_batch"):
        if getattr(options, name) < 1:
            raise fail(f"--{name.replace('_', '-')} {getattr(options, name)}", "at least 1")
    if options.config is not None and options.engine != "parsl":
        raise fail("--config without --engine parsl", "both, or neither")
    source = read_candidates(options.source, options.metadata)
    check_out(options.out)
    store = Store(options.out)
    model = potential(options.potential)
    progress = Progress("screen")
    if options.retry_failed:
        print(f"{store.forget_failures()} structures are tried again")

    if options.engine == "parsl":
        do = parsl_engine(options.config, options.workers, options.out / "parsl", progress)
    else:
        do = local(model, progress)

    def engine(kind: str, pieces: list[list[str]]) -> dict[str, Any]:
        begin = time.monotonic()
        found = do(
            [
                Work(str(options.out.resolve()), kind, tuple(names), settings, options.potential)
                for names in pieces
            ]
        )
        cost = summed(found)
        hours = (time.monotonic() - begin) / 3600
        return cost | {f"{kind}_structures_per_hour": cost.get(f"{kind}_computed", 0) / hours}

    try:
        rows = screen(
            store, source, settings, model, engine,
            about={"source": options.source}, piece=options.batch,
            moving_together=options.md_batch, tell=progress,
        )  # fmt: skip
    except OSError as error:
        raise fail(
            f"{options.out}: {error.strerror or error}", "room to write",
            "What is finished is kept: the same command goes on from here",
        ) from error  # fmt: skip
    progress.end(f"{len(rows)} candidates")
    frame = table_of(rows)
    for path in options.export:
        export_table(store, frame, path)
    _print(frame, rows, store, settings)
    return 1 if any(row["status"] in ("failed", "pending") for row in rows) else 0


def _settings(options: argparse.Namespace) -> ScreenSettings:
    phonons = settings_of(options)
    if options.md not in ("all", "none") and not options.md.isdecimal():
        raise fail(f"--md {options.md}", "all, none, or a number of structures")
    crystals = {"all": None, "none": 0}.get(options.md, 0)
    if options.md.isdecimal():
        crystals = int(options.md)
    hottest = f"{max(phonons.temperatures):g}"
    energy = options.max_formation_energy
    return ScreenSettings(
        phonons,
        Filters(
            mobile=phonons.mobile,
            band_gap_above=options.min_gap if options.min_gap >= 0 else None,
            formation_energy_below=energy if energy != float("inf") else None,
            atoms_max=options.max_atoms,
            excluded=tuple(options.exclude),
            require_metadata=options.require_metadata,
            symmetry_tolerance=phonons.symmetry_tolerance,
        ),
        DynamicsSettings(
            crystals=crystals,
            names=tuple(options.md_names),
            descriptor=options.md_by or f"msd_total_mean_{hottest}K_A2",
            temperatures=tuple(options.md_temperature),
            replicas=options.md_replicas,
            atoms=options.md_atoms,
            protocol=Protocol(
                steps=options.md_steps,
                equilibration_steps=options.md_equilibration,
                timestep_fs=options.md_timestep,
                seed=options.seed,
            ),
        ),
        moduli=options.moduli,
        effective=Sampling(
            samples=options.effective_samples, tolerance_THz=options.effective_tolerance
        )
        if options.phonons == "effective"
        else None,
        duplicates=not options.keep_duplicates,
    )


def _print(frame: pd.DataFrame, rows, store: Store, settings: ScreenSettings) -> None:
    """Print the head of the ranking, the funnel, and what there is to be said."""
    T = f"{max(settings.phonons.temperatures):g}"
    rank = f"msd_total_mean_{T}K_A2"
    done = [row for row in rows if row["status"] == "done"]
    key = lambda row: (not row["stable"], -(row.get("D_A2_ps") or 0), -(row.get(rank) or 0))  # noqa: E731
    shown = []
    for row in sorted(done, key=key)[:_SHOWN]:
        line = {
            "id": row["id"], "formula": row["formula"], "stable": "yes" if row["stable"] else "NO",
            f"MSD {T} K/Å²": _number(row.get(rank), ".4f", row["stable"]),
            "cutoff/THz": _number(row.get("acoustic_cutoff_THz"), ".2f"),
            "centre/THz": _number(row.get("pdos_center_mobile_THz"), ".2f"),
        }  # fmt: skip
        if (hot := row.get(f"effective_{rank}")) is not None:
            line[f"effective MSD {T} K/Å²"] = _number(
                hot, ".4f", row.get(f"effective_stable_{T}K", False)
            )
        if row.get("D_A2_ps") is not None:
            low, high = row.get("D_low_A2_ps"), row.get("D_high_A2_ps")
            line["D/Å²/ps"] = (
                f"< {_number(high, '.2g')}" if row.get("D_censored")
                else f"{row['D_A2_ps']:.3g} ({_number(low, '.2g')} to {_number(high, '.2g')})"
            )  # fmt: skip
        line["flags"] = row["flags"]
        shown.append(line)
    print(text_of(shown))
    if len(done) > _SHOWN:
        print(f"  … and {len(done) - _SHOWN} more in the table")
    for step in funnel(rows):
        print(f"  {step['count']:6d}  {step['stage']}")
    for why in reasons(rows):
        names = ", ".join(why["names"][:4]) + (" …" if why["count"] > 4 else "")
        print(f"  {why['count']} × {why['reason']}: {names}")
    about = store.about()
    for remark in about.get("remarks", []):
        print(f"  {remark}")
    cost = about.get("cost", {})
    for lost in cost.get("lost", []):
        print(f"  LOST, to be done by the same command: {lost}")
    for line in _cost_lines(cost):
        print(f"  {line}")
    print(f"results in {store.folder}/, table in {store.folder / 'table.parquet'}")


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    """Return what the work of this command cost, in words; nothing where there was none."""
    rates = [
        f"{cost[key]:.3g} structures/h ({kind})"
        for kind in ("phonons", "moduli", "effective", "dynamics")
        if cost.get(key := f"{kind}_structures_per_hour")
    ]
    if not rates:
        return []
    told = [f"{seconds(cost['wall_time_s'])} in all: {', '.join(rates)}"]
    line = f"{cost['compilations']} functions compiled in {seconds(cost['compilations_s'])}"
    if cost.get("shapes_of_supercells"):
        line += (
            f"; {cost['shapes_of_primitive_cells']} shapes of primitive cells, "
            f"{cost['shapes_of_supercells']} for force constants, "
            f"{cost['padding_of_supercells']:.0%} of the work on them padding"
        )
    told.append(f"{line}; at most {cost['memory_GiB']:.2g} GiB of memory")
    return told


def _number(value, form: str, clean: bool = True) -> str:
    if value is None:
        return ""
    return format(value, form) if clean else f"({format(value, form)})"


__all__ = ["add_parser", "run"]
