"""Databases of ASE (.db of SQLite, and ASE's own .json)."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable
from typing import Any

from phojax.checks import InputError, fail
from phojax.io.sources.entries import entry
from phojax.io.sources.metadata import identifier, scalars
from phojax.io.structures import check_readable, checked_structure
from phojax.screening.candidates import SOURCE, Candidate
from phojax.structure import Structure


def is_ase_json(document: Any) -> bool:
    """Return whether a JSON document is a database of ASE."""
    return isinstance(document, dict) and {"ids", "nextid"} <= set(document)


def ase_database_entries(path: pathlib.Path) -> list[Candidate]:
    """Return the rows of a database, `key_value_pairs` and the energy as metadata.

    A row is called what its key-value pairs say (uid, material_id, name), or by the name of the
    file and its id, which stays with it.

    Raises:
        InputError: no database of ASE, or no rows.
    """
    import ase.db

    check_readable(path)
    kind = "json" if path.suffix.lower() == ".json" else "db"
    found: list[Candidate] = []
    try:
        if kind == "db":
            _check_tables(path)
        database: Any = ase.db.connect(path, type=kind)
        for row in database.select(sort="id"):
            pairs = scalars(row.key_value_pairs)
            energy = scalars({"energy": row.get("energy")})
            where = {SOURCE: f"{path.name} row {row.id}", "row": int(row.id)}
            name = identifier(pairs) or f"{path.stem}-{row.id}"
            found.append(entry(name, _builder(row), {**energy, **pairs, **where}))
    except InputError:
        raise
    except Exception as error:  # sqlite3, json and ASE have their own ones
        raise fail(
            f"{path} cannot be read as a database of ASE ({type(error).__name__}: {error})",
            "what ase.db.connect opens",
        ) from error
    if not found:
        raise fail(f"{path} holds no rows", "a database of ASE with structures")
    return found


def _check_tables(path: pathlib.Path) -> None:
    """Raise InputError for other databases of SQLite: ASE would write its tables into them."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "systems" not in tables:
        raise fail(f"{path} has no table of systems", "a database of ASE")


def _builder(row: Any) -> Callable[[], Structure]:
    return lambda: checked_structure(row.toatoms())
