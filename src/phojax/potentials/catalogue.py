"""Potentials by name, as on the command line.

    chgnet            CHGNet
    lj:Ar             Lennard-Jones crystals of Ne, Ar, Kr, Xe
    ions:NaCl         point ions with a Born-Mayer repulsion
    file:NAME.json    pair potentials and charges of one's own

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
from dataclasses import replace
from typing import Any

from phojax.checks import InputError, fail
from phojax.potentials.ase_calculator import calculator_by_name
from phojax.potentials.contract import Potential
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham, lennard_jones, morse, springs

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


def available() -> dict[str, str]:
    """Return every name that `potential` knows with a line on what it is."""
    lines = {"chgnet": "CHGNet 0.3.0, a graph network for inorganic crystals (needs its weights)"}
    for symbol in _RARE_GASES:
        lines[f"lj:{symbol}"] = f"Lennard-Jones {symbol}, cutoff 2.5 σ, switched from 2 σ"
    lines["ions:NaCl"] = "point ions with Born-Mayer repulsion between Na and Cl, Ewald sum"
    lines["file:NAME.json"] = "pair potentials and charges from a parameter file"
    return lines


def potential(name: str) -> Potential:
    """Return the potential of that name.

    Raises:
        InputError: a name that does not exist, a parameter file that cannot be used, or what
            the loader of a network raises when its weights are missing.
    """
    kind, _, which = name.partition(":")
    if name == "chgnet":
        from phojax.potentials.chgnet import chgnet  # heavy, and may be absent

        return chgnet()
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
    if kind == "file" and which:
        return from_file(pathlib.Path(which))
    raise fail(f"potential {name!r}", f"one of {', '.join(available())}")


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
