"""`phojax potentials`: what there is, what each needs, and what one of them is worth."""

import argparse
import pathlib
from dataclasses import asdict
from textwrap import dedent

from phojax.checks import InputError, fail
from phojax.cli.progress import Progress
from phojax.examination import ROUGH, Examination, examined
from phojax.io.records import write_record
from phojax.io.structures import read_structure
from phojax.potentials.catalogue import entries, potential


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "potentials",
        help="list potentials; with --check, examine some",
        description="What --potential can name, what each one needs and covers. With --check: "
        "equivariance, periodic images, forces and stress against the energy, symmetry of the "
        "Jacobian, smoothness, and speed, measured on one crystal.",
    )
    add = parser.add_argument
    add("--check", nargs="+", metavar="NAME", help="potentials to examine")
    add(
        "--structure",
        type=pathlib.Path,
        metavar="FILE",
        help="crystal to examine them on, near its minimum (default: rock salt)",
    )
    add("--json", type=pathlib.Path, metavar="FILE", help="write the measures, too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    if not options.check:
        if options.structure or options.json:
            raise fail("--structure or --json without --check", "--check NAME")
        print(listed())
        return 0
    crystal = read_structure(options.structure) if options.structure else None
    done: list[Examination] = []
    for name in options.check:
        progress = Progress(name)
        try:
            done.append(examined(potential(name), crystal, progress))
        except InputError as error:  # the others are examined all the same
            progress.end(f"FAILED: {error}")
            continue
        except Exception as error:  # likewise
            progress.end(f"FAILED: unexpected {type(error).__name__}: {error}")
            continue
        progress.end("done")
        if options.json:
            write_record(options.json, {e.potential: asdict(e) for e in done})
    if done:
        print(compared(done))
        if options.json:
            print(f"\nmeasures in {options.json}")
    return 0 if len(done) == len(options.check) else 1


def listed() -> str:
    """Return the list of potentials as text."""
    lines = []
    for entry in entries():
        missing = entry.missing
        state = "installed" if not missing else f"needs {', '.join(missing)}: {entry.install}"
        lines += [
            f"{entry.name}",
            f"    {entry.what}",
            f"    conservative: {entry.conservative}; derivatives: {entry.derivatives}; "
            f"elements: {entry.elements or 'any'}",
            f"    {state}",
        ]
    return "\n".join(lines)


def compared(done: list[Examination]) -> str:
    """Return a table of examinations, one column each, with what the lines mean."""
    names = [e.potential.replace("\\", "/").rpartition("/")[2] for e in done]
    names = [
        name if name.startswith(e.potential.partition(":")[0])
        else f"{e.potential.partition(':')[0]}:{name}"
        for name, e in zip(names, done, strict=True)
    ]  # fmt: skip
    width = max(14, *map(len, names)) + 2
    rows = [("crystal", *(e.crystal for e in done))]
    rows += [
        (label, *(_text(value(e)) for e in done))
        for label, value in (
            ("conservative by design", lambda e: e.conservative),
            (
                "derivatives of forces",
                lambda e: "any" if e.derivatives is None else e.derivatives - 1,
            ),
            ("energy of the rotated crystal, eV/atom", lambda e: e.rotation_energy_eV_atom),
            ("forces of the rotated crystal", lambda e: e.rotation_forces),
            ("energy of the doubled cell, eV/atom", lambda e: e.images_energy_eV_atom),
            ("forces of the doubled cell", lambda e: e.images_forces),
            ("net force", lambda e: e.net_force),
            ("forces against -dE/dx", lambda e: e.force_against_energy),
            ("stress against dE/dε", lambda e: e.stress_against_energy),
            ("Jacobian: |J - Jᵀ| / |J + Jᵀ|", lambda e: e.antisymmetric),
        )
    ]
    for step in done[0].by_step:
        rows.append((f"row, steps of {step:g} Å", *(_text(e.by_step[step]) for e in done)))
    for w in done[0].by_width:
        rows.append((f"row, averaged over {w:g} Å", *(_text(e.by_width[w]) for e in done)))
    rows += [
        ("row, other gauge", *(_text(e.gauge) for e in done)),
        ("surface", *("ROUGH" if e.rough else "smooth" for e in done)),
        ("time, ms per atom", *(f"{e.ms_per_atom:.3g}" for e in done)),
        ("  of a cell of", *(f"{e.atoms_timed} atoms" for e in done)),
    ]
    left = max(len(row[0]) for row in rows) + 2
    width = max(width, *(len(cell) + 2 for row in rows for cell in row[1:]))
    head = "".ljust(left) + "".join(name.rjust(width) for name in names)
    body = [row[0].ljust(left) + "".join(cell.rjust(width) for cell in row[1:]) for row in rows]
    note = dedent(f"""
        Changes are relative to the norm of what they are compared with. A row of force constants
        is that of one displaced atom; it is compared with automatic differentiation (for a
        predicted force at the graph of the undisplaced crystal), or with the smallest step where
        there is none. Rough: a step of 0.01 Å changes it by more than {ROUGH:.0%}; use averaged
        force constants (--width).""")
    return "\n".join([head, *body, note])


def _text(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.1e}" if isinstance(value, float) else str(value)


__all__ = ["add_parser", "compared", "listed", "run"]
