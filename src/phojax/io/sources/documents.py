"""Structures of pymatgen in JSON: single ones, lists, one per line, entries, database documents.

What is recognised as a document with a structure:

    {"lattice": …, "sites": …}                    Structure.as_dict()
    {"structure": {…}, "band_gap": …, …}          Materials Project, ComputedStructureEntry
    {"computed_structure_entry": {…}, …}          WBM

and around documents: a list, {"entries": […]} (Alexandria), {id: document}, one per line.
"""

import bz2
import gzip
import json
import lzma
import pathlib
from collections.abc import Callable
from typing import Any

from phojax.checks import InputError, fail
from phojax.convert import structure_from_pymatgen
from phojax.io.sources.entries import FRAME, entry
from phojax.io.sources.metadata import identifier, scalars
from phojax.io.structures import check_readable
from phojax.screening.candidates import SOURCE, Candidate
from phojax.structure import Structure

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_STRUCTURES = ("structure", "final_structure", "computed_structure_entry", "entry")
_LISTS = ("entries", "structures", "documents", "docs", "data")
_SKIPPED = (*_STRUCTURES, "composition", "composition_reduced", "sites", "lattice", "structures")


def read_json(path: pathlib.Path) -> tuple[Any, list[str]]:
    """Return the document of a JSON file, or the list of those on its lines, and remarks.

    Args:
        path: Plain or compressed (.gz, .bz2, .xz).

    Raises:
        InputError: not there, empty, cut short, or no JSON.
    """
    check_readable(path)
    opened = _OPENERS.get(path.suffix.lower(), open)
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise fail(f"{path} cannot be read ({error})", "JSON, plain or compressed") from error
    try:
        return json.loads(text), []
    except json.JSONDecodeError as error:
        lines = _lines(text)
        if not lines:
            raise fail(
                f"{path} is no JSON: {error}",
                "one document, or one per line",
                "It may be cut short",
            ) from error
    documents = [d for d, _ in lines if d is not None]
    bad = [str(n) for d, n in lines if d is None]
    said = f"lines {', '.join(bad[:8])}{' …' * (len(bad) > 8)} are no JSON: not read"
    return documents, [said] if bad else []


def document_entries(document: Any, source: str) -> list[Candidate]:
    """Return the structures in a document; those of no known form have an error.

    Raises:
        InputError: nothing in it looks like a structure of pymatgen.
    """
    documents = _listed(document)
    if not any(_holds_structure(inner) for _, inner in documents):
        keys = ", ".join(sorted(map(str, document))[:8]) if isinstance(document, dict) else "a list"
        raise fail(
            f"{source} holds no structures that are known ({keys})",
            "structures of pymatgen as dictionaries, documents with a `structure`, an OPTIMADE "
            "response, or a database of ASE",
        )
    found = []
    for number, (name, inner) in enumerate(documents, 1):
        said = _said(inner)
        own = name or identifier(said) or _nested_name(said)
        where: dict[str, Any] = {SOURCE: said.get(SOURCE) or source}
        if not own and len(documents) > 1:
            where[FRAME] = number
        if len(documents) == 1 and not own:
            own = pathlib.PurePath(source).name.split(".")[0]
        found.append(entry(own, _builder(inner), {**said, **where}))
    return found


def _lines(text: str) -> list[tuple[Any, int]]:
    """Return the objects on the lines of a text and their numbers; [] where the first is none."""
    found: list[tuple[Any, int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            value = None
        value = value if isinstance(value, dict) else None
        if value is None and not found:
            return []
        found.append((value, number))
    return found


def _listed(document: Any) -> list[tuple[str, Any]]:
    if isinstance(document, list):
        return [("", inner) for inner in document]
    if not isinstance(document, dict) or _holds_structure(document):
        return [("", document)]
    for key in _LISTS:
        if isinstance(document.get(key), list | dict):
            return _listed(document[key])
    return [(str(name), inner) for name, inner in document.items() if not name.startswith("@")]


def _structure_of(document: Any) -> Any:
    """Return the dictionary of the structure inside a document, None where there is none."""
    if isinstance(document, str) and document.lstrip().startswith("{"):
        try:
            document = json.loads(document)
        except json.JSONDecodeError:
            return None
    if not isinstance(document, dict):
        return None
    if "lattice" in document and "sites" in document:
        return document
    found = (_structure_of(document[key]) for key in _STRUCTURES if key in document)
    return next((inner for inner in found if inner is not None), None)


def _holds_structure(document: Any) -> bool:
    return _structure_of(document) is not None


def _said(document: Any) -> dict[str, Any]:
    """Return the scalars of a document; what pymatgen keeps under `data` stands at the top."""
    if not isinstance(document, dict):
        return {}
    inner = [document[key] for key in _STRUCTURES if isinstance(document.get(key), dict)]
    found: dict[str, Any] = {}
    for part in (*inner[:1], document):
        top = {**part, **part["data"]} if isinstance(part.get("data"), dict) else dict(part)
        if isinstance(part.get("properties"), dict):
            top = {**top, **part["properties"]}
        found |= scalars({k: v for k, v in top.items() if k not in ("data", "properties")},
                         _SKIPPED)  # fmt: skip
    return found


def _nested_name(said: dict[str, Any]) -> str:
    return identifier({name.rsplit(".", 1)[-1]: value for name, value in said.items()})


def _builder(document: Any) -> Callable[[], Structure]:
    def build() -> Structure:
        from pymatgen.core import Structure as PymatgenStructure

        inner = _structure_of(document)
        if inner is None:
            raise InputError("the document holds no structure; expected lattice and sites")
        return structure_from_pymatgen(PymatgenStructure.from_dict(inner))

    return build
