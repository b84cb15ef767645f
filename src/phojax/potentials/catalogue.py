"""Potentials by name, as on the command line; `ENTRIES` lists them.

A parameter file is one JSON object. Lengths are in Å, energies in eV, charges in e:

    {
      "source": "where the numbers come from",
      "cutoff": 10.0,
      "onset": 8.0,                         optional, where the switch begins (see pair)
      "charges": {"Na": 1.0, "Cl": -1.0},   optional, adds an Ewald sum
      "accuracy": 1e-14,                    optional, of the Ewald sum
      "pairs": [
        {"elements": ["Na", "Cl"], "form": "buckingham", "A": 1092.0, "rho": 0.321, "C": 0.0}
      ]
    }

Forms and their keys: lennard_jones (epsilon, sigma), morse (depth, width, length), buckingham
(A, rho, C), springs (k, length). A pair may appear once under each form; what is not named does
not interact.
Sources: Kittel, Introduction to Solid State Physics, 8th ed. (2005), ch. 3, table 4 (rare gases:
ε, σ) and table 7 (NaCl: z λ = 1.05e-8 erg, ρ = 0.321 Å).
"""

import json
import pathlib
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from phojax.checks import InputError, fail
from phojax.potentials import fairchem_checkpoint
from phojax.potentials.ase_calculator import calculator_by_name, made_by_name
from phojax.potentials.chgnet import weights as chgnet_weights
from phojax.potentials.contract import Potential
from phojax.potentials.equiformer import official as equiformer_official
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham, lennard_jones, morse, springs
from phojax.potentials.parameter_files import read_about, with_parameters

_KITTEL = "Kittel, Introduction to Solid State Physics, 8th ed. (2005), ch. 3"
_RARE_GASES = {
    "Ne": (0.0031, 2.74),
    "Ar": (0.0104, 3.40),
    "Kr": (0.0140, 3.65),
    "Xe": (0.0200, 3.98),
}
_FORMS = {
    "lennard_jones": (lennard_jones, ("epsilon", "sigma")),
    "morse": (morse, ("depth", "width", "length")),
    "buckingham": (buckingham, ("A", "rho", "C")),
    "springs": (springs, ("k", "length")),
}
_FILE_KEYS = {"source", "cutoff", "onset", "charges", "accuracy", "pairs"}


@dataclass(frozen=True)
class Entry:
    """A name, or a pattern of names, that `potential` knows.

    Attributes:
        name: What to type; capitals stand for what the user fills in.
        what: In a line.
        modules: Python modules that it needs beside those of phojax.
        install: The line that installs them.
        conservative: Whether forces are the gradient of an energy.
        derivatives: What can be had beyond forces.
        elements: That it covers.
    """

    name: str
    what: str
    modules: tuple[str, ...] = ()
    install: str = ""
    conservative: str = "yes"
    derivatives: str = "any"
    elements: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules that are not installed."""
        return tuple(module for module in self.modules if not _is_installed(module))


def entries() -> tuple[Entry, ...]:
    """Return what `potential` knows, the recommended ones first."""
    return (
        Entry(
            "nequix[:NAME|:FILE.nqx]",
            "Nequix, smooth, fine-tuned on phonons: recommended (weights: downloaded once)",
            elements="H-Bi, Ac-Pu",
        ),
        Entry(
            "chgnet",
            "CHGNet 0.3.0; rough at 0.01 Å: averaged force constants",
            ("chgnet",), chgnet_weights.INSTALL, elements="H-Pu",
        ),
        Entry(
            "equiformer:FILE.pt",
            "EquiformerV2 of fairchem 1 (OMat24), a checkpoint of your own",
            conservative="no", derivatives="any, of predicted forces", elements="Z ≤ 96 or fewer",
        ),
        Entry(
            "equiformer-torch:FILE.pt",
            "the same by fairchem itself, to compare with",
            ("torch", "fairchem.core", "e3nn"), equiformer_official.INSTALL,
            "no", "Jacobian of forces", "Z ≤ 96 or fewer",
        ),
        Entry(
            "fairchem:FILE.pt[:TASK]",
            "eSEN and UMA of fairchem 2, a checkpoint of your own",
            ("torch", "fairchem.core"), fairchem_checkpoint.INSTALL,
            "as the model", "second", "as the model",
        ),
        Entry(
            "ase:MODULE:NAME",
            "any ASE calculator (MACE, MatterSim, …), or ase:FILE.py:NAME",
            conservative="as the calculator", derivatives="none: displacements",
            elements="as the calculator",
        ),
        Entry(
            "python:FILE.py:NAME",
            "a function of your own that returns a potential, or python:MODULE:NAME",
            conservative="as made", derivatives="as made", elements="as made",
        ),
        Entry(
            ", ".join(f"lj:{symbol}" for symbol in _RARE_GASES),
            "Lennard-Jones crystals of rare gases, cutoff 2.5 σ, switched from 2 σ",
            elements="one each",
        ),
        Entry("ions:NaCl", "point ions with Born-Mayer repulsion between Na and Cl, Ewald sum",
              elements="Na, Cl"),
        Entry("file:NAME.json", "pair potentials and charges from a parameter file",
              elements="as named"),
        Entry("tuned:FILE.npz", "another potential with parameters that `gradients.tuning` changed",
              conservative="as it", derivatives="as it", elements="as it"),
    )  # fmt: skip


def potential(name: str) -> Potential:
    """Return the potential of that name, in float64 where JAX is set to it.

    Raises:
        InputError: a name that does not exist, a parameter file or checkpoint that cannot be
            used, or a package that is missing; the message quotes the line that installs it.
    """
    kind, _, which = name.partition(":")
    if name == "chgnet":
        from phojax.potentials.chgnet import chgnet  # heavy, and may be absent

        return chgnet()
    if kind == "nequix":
        from phojax.potentials.nequix import nequix

        return replace(nequix(which), name=name) if which else nequix()
    if kind == "equiformer" and which:
        from phojax.potentials.equiformer_v2 import equiformer_v2

        return replace(equiformer_v2(which), name=name)
    if kind == "equiformer-torch" and which:
        from phojax.potentials.equiformer import equiformer

        return replace(equiformer(which), name=name)
    if kind == "fairchem" and which:
        from phojax.potentials.fairchem import fairchem

        path, colon, task = which.rpartition(":")
        return fairchem(path, task=task) if colon else fairchem(which)
    if kind == "lj" and which in _RARE_GASES:
        epsilon, sigma = _RARE_GASES[which]
        made = lennard_jones({(which, which): (epsilon, sigma)}, cutoff=2.5 * sigma)
        return _named(made, name, f"{_KITTEL}, table 4")
    if name == "ions:NaCl":
        # z λ = 1.05e-8 erg shared by z = 6 neighbours.
        repulsion = buckingham({("Na", "Cl"): (1092.3, 0.321, 0.0)}, cutoff=8.0)
        return _named(
            summed(repulsion, ewald({"Na": 1.0, "Cl": -1.0})), name, f"{_KITTEL}, table 7"
        )
    if kind == "ase" and which:
        return calculator_by_name(which)
    if kind == "python" and which:
        wanted = "a phojax Potential, or a function without arguments that returns one"
        made, digest = made_by_name(which, wanted, lambda found: isinstance(found, Potential))
        return replace(made, name=name, fingerprint=made.fingerprint + digest)
    if kind == "tuned" and which:
        stated = str(read_about(which)["base"])
        if stated.startswith("tuned:"):
            raise fail(f"{which}, which changes {stated}", "changes of a potential as it came")
        return with_parameters(which, potential(stated))
    if kind == "file" and which:
        return from_file(pathlib.Path(which))
    known = ", ".join(entry.name for entry in entries())
    raise fail(f"potential {name!r}", f"one of {known}", "`phojax potentials` lists them")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def from_file(path: pathlib.Path) -> Potential:
    """Return the potential of a parameter file (format: header of this module).

    Raises:
        InputError: a file that cannot be read, that is not JSON, or with missing, unknown or
            unusable entries; the message names the file and the entry.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise fail(f"parameter file {path}: {error.strerror}", "a file that can be read") from error
    except ValueError as error:
        raise fail(f"parameter file {path} is not JSON ({error})", "one JSON object") from error
    try:
        parts = _parts(given)
        return summed(*parts, name=f"file:{path}", provenance=str(given.get("source", "")))
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"parameter file {path}: {error}") from error


def _parts(given: Any) -> list[Potential]:
    if not isinstance(given, dict):
        raise fail(f"a JSON {type(given).__name__}", "an object")
    unknown = set(given) - _FILE_KEYS
    if unknown:
        raise fail(f"unknown keys {sorted(unknown)}", f"only {sorted(_FILE_KEYS)}")
    if "cutoff" not in given or not ("pairs" in given or "charges" in given):
        raise fail(f"keys {sorted(given)}", "cutoff, and pairs or charges or both")
    cutoff = float(given["cutoff"])
    onset = float(given["onset"]) if "onset" in given else None

    tables: dict[str, dict[tuple[str, str], tuple[float, ...]]] = {}
    if not isinstance(given.get("pairs", []), list):
        raise fail(f"pairs {given['pairs']!r}", "a list of objects")
    for number, entry in enumerate(given.get("pairs", [])):
        form, pair, values = _entry(number, entry)
        table = tables.setdefault(form, {})
        if pair in table:
            raise fail(f"pairs[{number}], {form} of {pair}, given twice", "each pair once a form")
        table[pair] = values
    charges = given.get("charges", {})
    if not isinstance(charges, dict):
        raise fail(f"charges {charges!r}", 'an object such as {"Na": 1.0, "Cl": -1.0}')
    # A sum knows what all of its parts know: each part is told of all elements.
    elements = {symbol for table in tables.values() for pair in table for symbol in pair}
    elements |= set(charges)
    parts = [
        _FORMS[form][0](table, cutoff=cutoff, onset=onset, elements=sorted(elements))
        for form, table in tables.items()
    ]
    if charges:
        values = {symbol: float(charges.get(symbol, 0.0)) for symbol in elements}
        accuracy = float(given.get("accuracy", 1e-14))
        parts.append(ewald(values, cutoff=cutoff, accuracy=accuracy))
    return parts


def _entry(number: int, entry: Any) -> tuple[str, tuple[str, str], tuple[float, ...]]:
    """Return form, sorted pair and parameters of one entry of "pairs"."""
    where = f"pairs[{number}]"
    if not isinstance(entry, dict) or entry.get("form") not in _FORMS:
        raise fail(f"{where} is {entry!r}", f'an object with a "form" among {sorted(_FORMS)}')
    form = entry["form"]
    keys = _FORMS[form][1]
    wanted = {"form", "elements", *keys}
    if set(entry) != wanted:
        raise fail(f"{where} has the keys {sorted(entry)}", f"{sorted(wanted)}")
    pair = entry["elements"]
    if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(s, str) for s in pair)):
        raise fail(f"{where} has the elements {pair!r}", 'two symbols such as ["Na", "Cl"]')
    first, second = sorted(pair)
    return form, (first, second), tuple(float(entry[key]) for key in keys)


def _named(made: Potential, name: str, provenance: str) -> Potential:
    return replace(made, name=name, provenance=provenance)
