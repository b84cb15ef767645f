"""Options that commands share, and the settings they ask for."""

import argparse
import pathlib
from collections.abc import Sequence

from phojax.cli.exports import EXPORTS
from phojax.design.goals import DESCRIPTORS
from phojax.screening.settings import PhononSettings

SPACING = 0.5
"""Å⁻¹ between points where gradients are taken: coarser than for tables, for the rows are many."""


def whole_number(text: str) -> int:
    """Return a whole number; 1e5 is one as well."""
    value = float(text)
    if value != int(value):
        raise ValueError(f"{text}; expected a whole number")
    return int(value)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add inputs and options of `phojax phonons` to a parser."""
    default = PhononSettings()
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        type=pathlib.Path,
        help="structure files, phonopy_params.yaml[.xz], phonopy_disp.yaml or phonopy.yaml",
    )
    add_common(parser)
    add(
        "--potential",
        default="chgnet",
        metavar="NAME",
        help="for structure files, as `phojax potentials` lists them (default: chgnet)",
    )
    add(
        "--width",
        type=float,
        default=None,
        metavar="Å",
        help="Gaussian width over which the Hessian is averaged; 0 for the plain one "
        "(default: what the potential recommends)",
    )
    add(
        "--pairs",
        type=int,
        default=default.pairs,
        metavar="N",
        help=f"± pairs of displacements in that average (default: {default.pairs})",
    )
    add(
        "--displacement",
        type=float,
        default=None,
        metavar="Å",
        help="force constants by differences of forces with this step (default: by automatic "
        "differentiation; 0.01 Å for potentials that give forces alone)",
    )
    add(
        "--relax-on-average",
        action="store_true",
        help="relax on the surface averaged with the same width",
    )
    add("--force-sets", type=pathlib.Path, metavar="FILE", help="FORCE_SETS of a phonopy input")
    add(
        "--force-constants",
        type=pathlib.Path,
        metavar="FILE",
        help="FORCE_CONSTANTS or force_constants.hdf5 of a phonopy input",
    )
    add(
        "--born",
        type=pathlib.Path,
        metavar="FILE",
        help="BORN of a phonopy input: Born charges for the non-analytic term",
    )
    add("--no-nac", action="store_true", help="no non-analytic term, even with Born charges")
    add(
        "--no-sum-rules",
        action="store_true",
        help="leave the force constants of a phonopy input as they are",
    )
    add(
        "--jobs",
        type=int,
        default=None,
        metavar="N",
        help="inputs at a time (default: 2 on a CPU, 1 on a GPU)",
    )
    add(
        "--descriptor",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a descriptor of your own: a function of (analysis, settings) that returns a number, "
        "or a dictionary of numbers; may be repeated",
    )
    add(
        "--export",
        nargs="+",
        default=[],
        choices=EXPORTS,
        metavar="FILE",
        help="write for other programs as well: " + ", ".join(EXPORTS) + " (the last one in "
        "the folder phonopy-text)",
    )
    add(
        "--exact",
        action="store_true",
        help="mesh and bands from D(q) of the potential itself, with nothing interpolated "
        "(networks and pair potentials of phojax, width 0)",
    )
    add_route(parser)
    add(
        "--check-supercell",
        action="store_true",
        help="compare the supercell at some q between those that fit it with the exact D(q) of the "
        "potential, which needs none (networks and pair potentials of phojax, width 0)",
    )
    add(
        "--third-order",
        action="store_true",
        help="third-order force constants of the potential as well: fc3.hdf5 (phono3py), "
        "FORCE_CONSTANTS_3RD (ShengBTE)",
    )
    add(
        "--third-cutoff",
        type=float,
        metavar="Å",
        help="of every pair of a triplet (default: the third shell of neighbours)",
    )
    add("--dry-run", action="store_true", help="say what would be done and about how long it takes")


def add_common(parser: argparse.ArgumentParser, only: Sequence[str] = ()) -> None:
    """Add options that several commands on crystals understand; some of them by name, or all."""
    default = PhononSettings()

    def add(name: str, **how) -> None:
        if not only or name in only:
            parser.add_argument(name, **how)

    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder of the results")
    add(
        "--mobile",
        default=default.mobile,
        metavar="SYMBOL",
        help=f"mobile element (default: {default.mobile})",
    )
    add(
        "--temperature",
        nargs="+",
        type=float,
        default=list(default.temperatures),
        metavar="T",
        help="temperatures in K (default: 300 800)",
    )
    add(
        "--supercell-atoms",
        type=int,
        default=default.supercell_atoms,
        metavar="N",
        help=f"atoms of the supercell at least (default: {default.supercell_atoms})",
    )
    add(
        "--mesh",
        nargs=3,
        type=int,
        default=None,
        metavar="N",
        help=f"Γ-centred q mesh (default: points at most {default.mesh_spacing} Å⁻¹ apart)",
    )
    add("--no-relax", action="store_true", help="take the structure as it is")
    add("--fixed-cell", action="store_true", help="relax positions only")
    add(
        "--force-tolerance",
        type=float,
        default=default.force_tolerance,
        metavar="eV/Å",
        help=f"of the relaxation (default: {default.force_tolerance})",
    )
    add(
        "--stress-tolerance",
        type=float,
        default=default.stress_tolerance,
        metavar="eV/Å³",
        help=f"of the relaxation (default: {default.stress_tolerance})",
    )
    add(
        "--seed",
        type=int,
        default=default.seed,
        metavar="N",
        help=f"of all random numbers (default: {default.seed})",
    )
    add("--no-figures", action="store_true", help="no figures")


def add_route(parser: argparse.ArgumentParser) -> None:
    """Add the option for where force constants are computed."""
    parser.add_argument(
        "--force-constants-from",
        choices=("auto", "primitive", "supercell"),
        default="auto",
        help="cell that gives force constants at width 0, the same to rounding (default: auto, "
        "what costs less)",
    )


def settings_of(options: argparse.Namespace) -> PhononSettings:
    """Return the settings that parsed options ask for; InputError for values without meaning.

    Those of options that a command does not have keep their defaults.
    """
    given = vars(options)
    direct = (
        "mobile", "supercell_atoms", "width", "pairs", "displacement", "relax_on_average",
        "force_tolerance", "stress_tolerance", "relax_steps", "seed", "force_constants_from",
        "exact",
    )  # fmt: skip
    named = {name: given[name] for name in direct if name in given}
    for name, option in (
        ("relax", "no_relax"), ("relax_cell", "fixed_cell"), ("sum_rules", "no_sum_rules"),
        ("nac", "no_nac"),
    ):  # fmt: skip
        if option in given:
            named[name] = not given[option]
    for name, option in (("temperatures", "temperature"), ("descriptors", "descriptor")):
        if option in given:
            named[name] = tuple(given[option])
    if "supercell_atoms" in given:
        most = max(PhononSettings.supercell_atoms_max, options.supercell_atoms)
        named["supercell_atoms_max"] = most
    if given.get("mesh"):
        named["mesh"] = tuple(options.mesh)
    return PhononSettings(**named)


def add_objective(parser: argparse.ArgumentParser) -> None:
    """Add what the commands that follow a descriptor's gradient share, their structure included."""
    add = parser.add_argument
    add("structure", type=pathlib.Path, help="a structure file")
    add(
        "--potential", default="nequix", metavar="NAME",
        help="a smooth one, in JAX (default: nequix; `phojax potentials` lists them)",
    )  # fmt: skip
    add(
        "--objective", default="msd", choices=tuple(DESCRIPTORS),
        help="of the mobile ions or of the crystal (default: msd)",
    )  # fmt: skip
    add("--temperature", type=float, default=300.0, metavar="T", help="in K (default: 300)")
    add("--mobile", default="Na", metavar="SYMBOL", help="mobile element (default: Na)")
    add(
        "--mesh", nargs=3, type=int, metavar="N",
        help=f"Γ-centred q mesh (default: points at most {SPACING} Å⁻¹ apart)",
    )  # fmt: skip
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder of the results")
