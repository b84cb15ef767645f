"""Sources of structures for a screening: folders, files, databases, queries."""

import pathlib

from phojax.checks import InputError, fail
from phojax.io.sources.ase_database import ase_database_entries, is_ase_json
from phojax.io.sources.documents import document_entries, read_json
from phojax.io.sources.entries import Source, named
from phojax.io.sources.files import file_entries, folder_entries
from phojax.io.sources.online import materials_project_query, optimade_query, oqmd_query
from phojax.io.sources.optimade import is_response, response_entries
from phojax.io.sources.table import read_table, with_table
from phojax.screening.candidates import Candidate

__all__ = ["Candidate", "Source", "read_candidates"]

_QUERIES = {"optimade": optimade_query, "oqmd": oqmd_query, "mp": materials_project_query}
_JSON = {".json", ".jsonl", ".ndjson"}
_PACKED = {".gz", ".bz2", ".xz"}


def read_candidates(source: str, metadata: pathlib.Path | None = None) -> Source:
    """Return the structures of a source with what it says about them.

    What cannot be read or used (partial occupancy, atoms too close, cut short) is a candidate
    with an error, never an exception.

    Args:
        source: A folder (structure files at any depth, and one .csv with metadata directly in
            it), a structure file (all blocks of a CIF, all frames of an extxyz), an ASE database
            (.db or .json), JSON or JSON lines of pymatgen structures, entries or documents
            (also .gz, .bz2, .xz), an OPTIMADE response, or a query over the network:
            "optimade:<address or name>?filter=…", "oqmd:Na-P-S", "mp:Na-P-S" (see
            `phojax.io.sources.online`). A file of such a name is meant by "./mp:…".
        metadata: CSV whose rows add to the structures (`phojax.io.sources.table`).

    Raises:
        InputError: the source is not there, empty, or of an unknown kind; the metadata file
            cannot be read; a query fails.
    """
    kind, _, question = source.partition(":")
    ignored = 0
    remarks: tuple[str, ...] = ()
    if kind in _QUERIES and question:
        found, remarks = _QUERIES[kind](question)
        if not found:
            raise fail(f"{source} finds nothing", "a query that finds structures")
        folder = None
    else:
        path = _path(source)
        folder = path if path.is_dir() else None
        if folder is not None:
            found, ignored = folder_entries(folder)
        else:
            found, remarks = _file(path)
    candidates, said = named(found)
    remarks = (*remarks, *said)
    if metadata is not None:
        candidates, said = with_table(candidates, read_table(metadata), metadata.name)
        remarks = (*remarks, *said)
    elif folder is not None:
        candidates, said, used = _with_table_of_folder(candidates, folder)
        remarks, ignored = (*remarks, *said), ignored - used
    return Source(candidates, remarks, ignored)


def _path(source: str) -> pathlib.Path:
    try:
        there = bool(source.strip()) and pathlib.Path(source).exists()
    except (OSError, ValueError):  # longer than names may be, or holding a null
        there = False
    if not there:
        raise fail(
            f"{source!r} does not exist",
            "a folder, a file of structures, or a query optimade:, oqmd: or mp:",
            "Check the path",
        )
    return pathlib.Path(source)


def _file(path: pathlib.Path) -> tuple[list[Candidate], tuple[str, ...]]:
    suffixes = [s.lower() for s in path.suffixes]
    plain = suffixes[-2] if suffixes[-1:] and suffixes[-1] in _PACKED and suffixes[1:] else (
        suffixes[-1] if suffixes else ""
    )  # fmt: skip
    if plain == ".db":
        return ase_database_entries(path), ()
    if plain in _JSON:
        return _json(path)
    found = file_entries(path)
    if len(found) == 1 and "format is not known" in found[0].error:
        raise fail(
            f"{path} is of no kind that is known",
            "a structure file (CIF, POSCAR, extxyz), .db or .json of ASE, .json or .jsonl of "
            "pymatgen, an OPTIMADE response in .json, or a folder",
        )
    return found, ()


def _json(path: pathlib.Path) -> tuple[list[Candidate], tuple[str, ...]]:
    document, bad = read_json(path)
    if is_ase_json(document):
        return ase_database_entries(path), ()
    if is_response(document):
        found, remarks = response_entries(document, path.name)
        if not found:
            raise fail(f"{path} is an OPTIMADE response without structures", "at least one")
        return found, (*bad, *remarks)
    return document_entries(document, path.name), tuple(bad)


def _with_table_of_folder(
    candidates: tuple[Candidate, ...], folder: pathlib.Path
) -> tuple[tuple[Candidate, ...], tuple[str, ...], int]:
    """Return the candidates, remarks, and how many tables were read."""
    tables = sorted(p for p in folder.glob("*.csv") if not p.name.startswith("."))
    if len(tables) > 1:
        names = ", ".join(p.name for p in tables)
        return candidates, (f"several tables ({names}): none was read; name one as metadata",), 0
    if not tables:
        return candidates, (), 0
    try:
        rows = read_table(tables[0])
    except InputError as error:
        return candidates, (f"not used as metadata: {error}",), 0
    return *with_table(candidates, rows, tables[0].name), 1
