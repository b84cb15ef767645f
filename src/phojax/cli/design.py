"""`phojax design`: a structure that follows the gradient of what its phonons give."""

import argparse
import csv
import json
from typing import Any

import jax
import jax.numpy as jnp
from ase.data import chemical_symbols
from ase.formula import Formula

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.checks import fail
from phojax.cli import md
from phojax.cli.options import SPACING, add_objective
from phojax.cli.progress import Progress
from phojax.cli.recorded import check_out
from phojax.cli.table import text_of
from phojax.design.goals import STABLE, Limit, goal
from phojax.design.loop import descended
from phojax.design.outcome import outcome, with_references
from phojax.design.problem import Problem, problem
from phojax.force_constants.average import averaged
from phojax.io.records import write_record
from phojax.io.structures import read_structure, write_structure
from phojax.potentials.catalogue import potential
from phojax.potentials.pair import symbol_number
from phojax.screening.row import versions
from phojax.screening.store import identity, key_of
from phojax.structure import supercell
from phojax.symmetry import near_cubic_matrix, primitive_cell, space_group, symmetrized

VARY = ("strain", "composition")


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "design",
        help="follow the gradient of a descriptor in strain and composition",
        description="Change the strain and the composition of a structure along the gradient of "
        "what its phonons give, the relaxation within it; round to a real composition, compute "
        "that from scratch, and say what of the predicted gain is left.",
    )
    add_objective(parser)
    add = parser.add_argument
    add("--opposite", action="store_true", help="make it smaller where it would grow, or larger")
    add(
        "--vary", default="strain", metavar="WHAT",
        help="strain, composition, or both with a comma between (default: strain)",
    )  # fmt: skip
    add(
        "--elements", default="", metavar="Cl,Br,I",
        help="that may stand for each other, for a composition that varies",
    )  # fmt: skip
    add(
        "--charges", nargs="+", default=[], metavar="Cl=-1",
        help="of these elements, where they differ: mixed sites keep their charge",
    )  # fmt: skip
    add(
        "--fraction", nargs="+", default=[], metavar="I=0:0.5",
        help="ends for the share of an element among the mixed sites",
    )  # fmt: skip
    add(
        "--limit", nargs="+", default=[], metavar="volume=40:60",
        help="ends for a descriptor, one of them may be left out",
    )  # fmt: skip
    add("--max-strain", type=float, default=0.05, metavar="X", help="per coordinate (default 0.05)")
    add("--steps", type=int, default=20, metavar="N", help="evaluations (default: 20)")
    add("--rate", type=float, default=1.0, metavar="X", help="times the usual step (default: 1)")
    add(
        "--margin", type=float, default=STABLE, metavar="THz",
        help=f"that the softest mode should stay above 0 (default: {STABLE})",
    )  # fmt: skip
    add(
        "--width", type=float, metavar="Å",
        help="over which energy and force constants are averaged in a supercell; 0 for none "
        "(default: what the potential recommends)",
    )  # fmt: skip
    add("--pairs", type=int, default=3, metavar="N", help="± pairs in that average (default: 3)")
    add(
        "--supercell-atoms", type=int, default=80, metavar="N",
        help="at least, in that supercell (default: 80)",
    )  # fmt: skip
    add(
        "--verify", choices=("md",),
        help="also run molecular dynamics of the start and of the result",
    )  # fmt: skip
    add(
        "--md-temperature", type=float, default=800.0, metavar="T",
        help="in K (default: 800); other settings as the defaults of `phojax md`",
    )  # fmt: skip
    add("--md-steps", type=int, metavar="N", help="of that run (default: as `phojax md`)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    vary = [word.strip() for word in options.vary.split(",") if word.strip()]
    if not vary or not set(vary) <= set(VARY):
        raise fail(f"--vary {options.vary}", "strain, composition or both")
    elements = tuple(word.strip() for word in options.elements.split(",") if word.strip())
    if ("composition" in vary) != bool(elements):
        raise fail(
            f"--vary {options.vary} with --elements {options.elements or '(none)'}",
            "--elements where composition varies, and only there",
        )
    target = options.out / "design.json"
    check_out(options.out, target)
    model = potential(options.potential).astype(jnp.float64)
    limits = [Limit(name, *ends) for name, ends in map(_ends, options.limit)]
    aim = goal(
        options.objective, symbol_number(options.mobile), options.temperature,
        opposite=options.opposite, margin=options.margin, limits=limits,
    )  # fmt: skip
    given = _problem(options, model, elements, "strain" in vary)
    options.out.mkdir(parents=True, exist_ok=True)
    asked = {
        "structure": options.structure.read_text(errors="replace"), "vary": vary,
        "elements": list(elements), "max_strain": options.max_strain, "rate": options.rate,
        "objective": options.objective, "opposite": options.opposite, "margin": options.margin,
        "temperature": options.temperature, "mobile": options.mobile,
        "mesh": list(given.mesh.divisions), "pairs": options.pairs,
        "limits": options.limit, "fractions": options.fraction, "charges": options.charges,
    }  # fmt: skip
    # Steps of another question are none of this one: they have a folder of their own.
    steps = options.out / f"steps-{key_of(**asked, **identity(given.potential))[:12]}"
    progress = Progress(options.structure.stem)
    ends: dict[str, float] = {}
    if "formation-energy" in (options.objective, *(limit.name for limit in limits)):
        progress("pure compounds for reference", 0, 0)
        given, ends = with_references(given)
    path = descended(given, aim, options.steps, steps, rate=options.rate, on_part=progress)
    progress("computing the result from scratch", 0, 0)
    found = outcome(given, aim, path)
    record = _record(options, given, model, asked, path.trail, found)
    if ends:
        record["energies_of_the_ends_eV"] = ends
    for name in ("before", "after"):
        if name in found:
            write_structure(options.out / f"{name}.extxyz", found[name]["crystal"])
    write_record(target, record)
    progress.end("done")
    _print(record, aim.unit)
    if options.verify and "after" in found:
        record["molecular_dynamics"] = _dynamics(options)
        write_record(target, record)
    print(f"results in {options.out}/: design.json, before.extxyz, after.extxyz")
    return 0 if "after" in found else 1


def _dynamics(options: argparse.Namespace) -> list[dict[str, str]]:
    """Run `phojax md` on both structures, as they are; return the rows of its table."""
    out = options.out / "md"
    parser = argparse.ArgumentParser()
    md.add_parser(parser.add_subparsers())
    asked = [
        "md", *(str(options.out / f"{name}.extxyz") for name in ("before", "after")),
        "--potential", options.potential, "--temperature", str(options.md_temperature),
        "--mobile", options.mobile, "--no-relax", "--out", str(out),
    ]  # fmt: skip
    if options.md_steps is not None:
        asked += ["--steps", str(options.md_steps)]
    print("molecular dynamics of the start and of the result:")
    md.run(parser.parse_args(asked))
    with (out / "md.csv").open() as table:
        return list(csv.DictReader(table))


def _named(text: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise fail(text, f"a name and a value, such as {example}")
    return name, value


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise fail(f"{text!r} in {whole}", "a number") from None


def _ends(text: str) -> tuple[str, tuple[float | None, float | None]]:
    """Return a name and its ends from name=low:high."""
    name, value = _named(text, "volume=40:60")
    low, colon, high = value.partition(":")
    if not colon:
        raise fail(text, "two ends with a colon between, such as volume=40:60 or volume=:60")
    ends = [_number(end, text) if end else None for end in (low, high)]
    return name, (ends[0], ends[1])


def _charges(options: argparse.Namespace, elements: tuple[str, ...]) -> dict[str, float]:
    """Return the charges asked for; none where the elements have an oxidation state in common.

    Raises:
        InputError: elements of different valence, and no charges to balance them.
    """
    found = {name: _number(value, f"{name}={value}")
             for name, value in (_named(text, "Cl=-1") for text in options.charges)}  # fmt: skip
    if found or not elements:
        return found
    from pymatgen.core import Element

    known = [e for e in elements if e in chemical_symbols]  # others are told of later
    states = [set(Element(e).common_oxidation_states) for e in known]
    if known and not set.intersection(*states):
        said = ", ".join(f"{e} {'/'.join(map(str, sorted(s)))}"
                         for e, s in zip(known, states, strict=True))  # fmt: skip
        raise fail(
            f"elements of different valence ({said})", "elements that can take each other's place",
            "Give their charges with --charges, so that the cell stays neutral",
        )  # fmt: skip
    return {}


def _problem(options: argparse.Namespace, model, elements, strain: bool) -> Problem:
    crystal = primitive_cell(read_structure(options.structure), 1e-3)
    if options.mobile not in crystal.symbols:
        raise fail(
            f"no {options.mobile} in {', '.join(sorted(set(crystal.symbols)))}",
            "a structure with the mobile element", "Name another one with --mobile",
        )  # fmt: skip
    group = space_group(crystal, 1e-3)
    crystal = symmetrized(crystal, group)
    mesh = gamma_mesh(options.mesh or mesh_divisions(crystal, SPACING), group)
    width = model.smoothing_width if options.width is None else options.width
    if width > 0:
        cells = supercell(crystal, near_cubic_matrix(crystal, group, options.supercell_atoms))
        model = averaged(model, cells, width, options.pairs, jax.random.key(0))
    fractions = {
        name: (low or 0.0, 1.0 if high is None else high)
        for name, (low, high) in map(_ends, options.fraction)
    }
    return problem(
        model, crystal, group, mesh, elements=elements, strain=strain,
        largest_strain=options.max_strain, charges=_charges(options, elements),
        fractions=fractions,
    )  # fmt: skip


def _formula(symbols: list[str]) -> str:
    return Formula("".join(symbols)).reduce()[0].format("metal")


def _record(options, given: Problem, model, asked, trail, found) -> dict[str, Any]:
    def plain(result):
        rest = {k: v for k, v in result.items() if k != "crystal"}
        return {**rest, "formula": _formula(result["formula"])}

    notes = list(found["notes"])
    if given.potential.smoothing_width > 0:
        notes.append(
            f"{model.name} is rough: gradients at width 0 follow its roughness; "
            "prefer a smooth potential, or average with --width"
        )
    kept = {k: v for k, v in found.items() if k not in ("before", "after", "notes")}
    results = {k: plain(found[k]) for k in ("before", "after") if k in found}
    return {
        "input": str(options.structure), "potential": model.name,
        "asked": {k: v for k, v in asked.items() if k != "structure"},
        "atoms": len(given.start), "q_points": len(given.mesh.q), **results, **kept,
        "trail": json.loads(json.dumps(trail)), "versions": versions(), "notes": notes,
    }  # fmt: skip


def _print(record: dict[str, Any], unit: str) -> None:
    rows = []
    for number, step in enumerate(record["trail"]):
        row = {"step": str(number), f"value/{unit}": f"{step['value']:.5f}"}
        if "shares" in step:
            row["shares"] = "; ".join(" ".join(f"{s:.2f}" for s in mix) for mix in step["shares"])
        if "strain" in step:
            row["strain"] = " ".join(f"{s:+.4f}" for s in step["strain"])
        row["lowest/THz"] = f"{step['lowest_THz']:.3f}"
        row["flags"] = " ".join(
            [*([] if step["stable"] else ["UNSTABLE"]),
             *([] if step["converged"] else ["unconverged"]),
             *(["saddle"] if step["saddle"] else []),
             *(f"{name}={value:.4g}" for name, value in step["beyond_limits"].items()),
             *(["came back half way"] if step["failed_on_the_way"] else [])]
        )  # fmt: skip
        rows.append(row)
    print(text_of(rows))
    for name in ("before", "after"):
        if name in record:
            of = record[name]
            print(
                f"{name}: {of['formula']}, {of['space_group']}, {of['value']:.5f} {unit}, lowest "
                f"{of['lowest_THz']:.3f} THz{'' if of['stable'] else ', UNSTABLE'}"
            )
    if "gain" in record:
        print(
            f"gain predicted {record['predicted_gain']:+.5f} {unit}, recomputed from scratch "
            f"{record['gain']:+.5f} {unit}"
        )
    for note in record["notes"]:
        print(f"  {note}")
