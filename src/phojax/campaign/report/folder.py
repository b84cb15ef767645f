"""What a screen has left in its folder. Only the table must be there; other damage is told."""

import contextlib
import pathlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from phojax.campaign.report.texts import mapping
from phojax.checks import InputError, fail
from phojax.io.records import RECORD_NAME, read_modes, read_record

Row = dict[str, Any]


@dataclass(frozen=True)
class ScreenFolder:
    """The folder of a screen.

    Attributes:
        path: Where it is.
        screen: screen.json, empty where it is missing.
        rows: Of the table, one for each candidate; "id" is a text in all of them.
        units: Of its columns.
        learning: learn/learn.json; None where nothing was learnt.
        correlations: learn/correlation.csv, its rows.
        problems: What could not be read.
    """

    path: pathlib.Path
    screen: dict[str, Any]
    rows: list[Row]
    units: dict[str, str]
    learning: dict[str, Any] | None
    correlations: list[Row]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StructureFiles:
    """What there is about one structure.

    Attributes:
        folder: Its folder; None where there is none.
        record: Empty where it is missing or damaged.
        arrays: Of modes.npz, likewise.
        transport: Arrays by label of temperature ("800").
        problems: What is missing or damaged.
    """

    folder: pathlib.Path | None
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    transport: dict[str, dict[str, np.ndarray]]
    problems: list[str]


def read_folder(path: pathlib.Path) -> ScreenFolder:
    """Return what a screen has left.

    Raises:
        InputError: no such folder, no table in it, or one that cannot be read.
    """
    rows, units = _table(path)
    problems: list[str] = []
    screen: dict[str, Any] = {}
    learning, correlations = None, []
    try:
        screen = read_record(path / "screen.json")
    except (InputError, OSError) as error:
        problems.append(f"about the screen as a whole: {error}")
    if (path / "learn").is_dir():
        try:
            learning = read_record(path / "learn" / "learn.json")
            frame = pd.read_csv(path / "learn" / "correlation.csv")
            correlations = frame.to_dict("records")
        except (InputError, OSError, ValueError) as error:
            problems.append(f"correlations: {error}")
    return ScreenFolder(path, screen, rows, units, learning, correlations, problems)


def _table(path: pathlib.Path) -> tuple[list[Row], dict[str, str]]:
    expected = "the folder that phojax screen --out has written"
    if not path.is_dir():
        raise fail(f"{path} is no folder", expected, "Check the path")
    place = path / "table.parquet"
    if not place.is_file():
        raise fail(f"{place} does not exist", expected, "Run phojax screen first")
    try:
        table = pyarrow.parquet.read_table(place)
    except (pyarrow.ArrowException, OSError) as error:
        raise fail(f"{place} cannot be read ({error})", "a Parquet file", "Run the screen again") \
            from error  # fmt: skip
    if "id" not in table.column_names:
        raise fail(f"{place} has no column id", "one row per candidate", "Run the screen again")
    units = {}
    for one in table.schema:
        with contextlib.suppress(UnicodeDecodeError):
            units[one.name] = (one.metadata or {}).get(b"unit", b"").decode()
    rows = table.to_pylist()
    for n, row in enumerate(rows):
        row["id"] = str(row["id"]) if row["id"] is not None else f"row {n + 1}"
    return rows, units


def structure_files(screen: pathlib.Path, name: str) -> StructureFiles:
    """Return what there is about a structure, and what is missing; never raises for bad files.

    Args:
        screen: Folder of the screen.
        name: The structure's id.
    """
    base = screen / "structures"
    folder = base / name
    # An id from a file must not lead elsewhere.
    if not name or "\0" in name or folder.resolve().parent != base.resolve():
        return StructureFiles(None, {}, {}, {}, [f"{name!r} is no name of a folder"])
    if not folder.is_dir():
        return StructureFiles(None, {}, {}, {}, ["there is no folder of this structure"])
    problems: list[str] = []
    record: dict[str, Any] = {}
    try:
        record = read_record(folder / RECORD_NAME)
    except (InputError, OSError) as error:
        problems.append(_without(screen, error))
    arrays = _arrays(screen, folder / "modes.npz", problems, wanted="space_group" in record)
    transport = {}
    for label in mapping(mapping(record.get("transport")).get("temperatures")):
        if "/" in label or "\\" in label:
            continue
        name = f"transport-{label}{'' if label == 'unknown' else 'K'}.npz"
        places = (folder / "dynamics" / name, folder / name)
        place = next((p for p in places if p.is_file()), places[0])
        found = _arrays(screen, place, problems, wanted=True)
        if found:
            transport[label] = found
    return StructureFiles(folder, record, arrays, transport, problems)


def _arrays(screen: pathlib.Path, path: pathlib.Path, problems: list[str], wanted: bool) -> dict:
    if not path.is_file() and not wanted:
        return {}
    try:
        return read_modes(path)
    except Exception as error:  # zlib, struct, zipfile, tokenize: damage has many names
        problems.append(_without(screen, error))
        return {}


def _without(screen: pathlib.Path, error: Exception) -> str:
    """Return the message, its paths relative to the folder of the screen."""
    return str(error).replace(f"{screen}/", "")
