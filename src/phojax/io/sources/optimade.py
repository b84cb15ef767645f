"""Responses of OPTIMADE: structures of many databases in one form.

Read here, and not through `pymatgen.ext.optimade.OptimadeRester`: that takes the list of species
for the list of sites where both are of one length (half-Heusler compounds come back with their
elements exchanged) and otherwise drops the concentrations, so that disordered crystals pass for
ordered ones. From it only come the addresses of databases.

Source: OPTIMADE API specification 1.1-1.2, section "Structures Entries"; Andersen et al., Sci.
Data 8, 217 (2021).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from phojax.checks import fail
from phojax.io.sources.entries import entry
from phojax.io.sources.metadata import scalars
from phojax.screening.candidates import SOURCE, Candidate
from phojax.structure import Structure, structure

_FULL = 1e-3  # how far from 1 a concentration may be
_INCOMPLETE = {
    "assemblies": "sites occupied in a correlated way (assemblies)",
    "site_attachments": "atoms attached to sites, without positions",
    "implicit_atoms": "atoms without sites",
    "unknown_positions": "sites without positions",
}
_OF_STRUCTURE = (
    "lattice_vectors", "cartesian_site_positions", "species", "species_at_sites", "assemblies",
    "structure_features", "elements_ratios", "dimension_types",
)  # fmt: skip


def is_response(document: Any) -> bool:
    """Return whether a JSON document is a response of OPTIMADE with structures, or a list of
    its entries (OPTIMADE JSON lines, one entry per line).
    """
    data = document.get("data") if isinstance(document, dict) else document
    listed = data if isinstance(data, list) else [data]
    said = isinstance(document, dict) and "data" in document and "meta" in document
    return any(_is_entry(e) for e in listed) or (said and data == [])


def response_entries(document: Any, source: str) -> tuple[list[Candidate], tuple[str, ...]]:
    """Return the structures of a response, and remarks.

    Metadata are the scalars of the attributes, those of the provider without their prefix where
    they mean a standard key.

    Args:
        document: Of JSON.
        source: Where it is from, for what does not name its provider.
    """
    meta: dict[str, Any] = {}
    data, remarks = document, []
    if isinstance(document, dict):
        data, meta = document.get("data"), document.get("meta") or {}
        if next_link(document):
            available = meta.get("data_returned")
            more = f" of {available}" if isinstance(available, int) else ""
            held = len(data) if isinstance(data, list) else 1
            remarks.append(
                f"{source} is one page of a longer response ({held}{more} entries): the link to "
                "the next page was not followed"
            )
    prefix = (meta.get("provider") or {}).get("prefix")
    source = str(prefix) if prefix else source
    listed = data if isinstance(data, list) else [data]
    kept = [_candidate(e, source) for e in listed if e is not None and _is_entry(e)]
    return kept, tuple(remarks)


def next_link(document: dict[str, Any]) -> str:
    """Return the address of the next page, "" where this one is the last."""
    link = (document.get("links") or {}).get("next")
    link = link.get("href") if isinstance(link, dict) else link
    return str(link) if link else ""


def optimade_structure(attributes: dict[str, Any]) -> Structure:
    """Return the crystal that the attributes of an entry describe.

    Masses are taken where every species has one.

    Raises:
        InputError: missing attributes, partial occupancy, vacancies or unknown species, atoms
            without positions, no periodicity in three directions.
    """
    needed = ("lattice_vectors", "cartesian_site_positions", "species", "species_at_sites")
    missing = [name for name in needed if not attributes.get(name)]
    if missing:
        raise fail(
            f"the response lacks {', '.join(missing)}",
            f"{', '.join(needed)}",
            "Ask for them with response_fields",
        )
    features = attributes.get("structure_features") or []
    for feature, meaning in _INCOMPLETE.items():
        if feature in features:
            raise fail(meaning, "all atoms of an ordered crystal, each with a position")
    directions = attributes.get("dimension_types") or [1, 1, 1]
    cell = np.array(attributes["lattice_vectors"], dtype=object)
    if list(directions) != [1, 1, 1] or any(x is None for x in cell.ravel()):
        raise fail(f"periodic directions {list(directions)}", "a crystal, periodic along three")
    species = {s["name"]: s for s in attributes["species"]}
    sites = attributes["species_at_sites"]
    unknown = sorted({s for s in sites if s not in species})
    if unknown:
        raise fail(f"sites of species {', '.join(unknown)}", "each one described under species")
    of = {name: _element(species[name]) for name in dict.fromkeys(sites)}
    masses = {name: _mass(species[name]) for name in of}
    given = None if None in masses.values() else [masses[s] for s in sites]
    positions = np.array(attributes["cartesian_site_positions"], dtype=float)
    return structure(cell.astype(float), positions, [atomic_numbers[of[s]] for s in sites], given)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") == "structures" and "attributes" in entry


def _candidate(found: dict[str, Any], source: str) -> Candidate:
    attributes = found["attributes"] or {}
    said = scalars(attributes, _OF_STRUCTURE)
    return entry(str(found.get("id") or ""), _builder(attributes), {SOURCE: source, **said})


def _builder(attributes: dict[str, Any]) -> Callable[[], Structure]:
    return lambda: optimade_structure(attributes)


def _element(species: dict[str, Any]) -> str:
    symbols = species.get("chemical_symbols") or []
    shares = species.get("concentration") or [1.0] * len(symbols)
    present = [(s, float(c)) for s, c in zip(symbols, shares, strict=True) if float(c) > 0]
    mixture = " + ".join(f"{c:g} {s}" for s, c in present) or "nothing"
    if species.get("attached"):
        raise fail(f"species {species['name']} has atoms attached", "a position for every atom")
    if len(present) != 1 or abs(present[0][1] - 1) > _FULL:
        raise fail(
            f"partial occupancy ({species['name']}: {mixture})",
            "every site fully occupied by one element",
            "Build an ordered structure first (for example with pymatgen)",
        )
    symbol = present[0][0]
    if symbol not in atomic_numbers or symbol == "X":
        raise fail(f"species {species['name']} is {symbol}", "a chemical element")
    return symbol


def _mass(species: dict[str, Any]) -> float | None:
    mass = species.get("mass")
    mass = mass[0] if isinstance(mass, list) and len(mass) == 1 else mass
    return float(mass) if isinstance(mass, int | float) and mass > 0 else None
