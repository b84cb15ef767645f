"""Results of one input as a JSON record and an array file; the records of a folder as a table.

A record is a nested dictionary of scalars, texts and lists with the units in its key names.
Files appear complete or not at all, so what an interrupted run left behind can be trusted.
JSON has no NaN: a value that could not be computed is null.
"""

import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from phojax.checks import fail
from phojax.io.atomic import replacing

SCHEMA_VERSION = 1
"""Version of the keys of a record; raised when one changes its name or meaning."""

RECORD_NAME = "record.json"


def write_record(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Write a record with its "schema_version", NaN as null.

    Raises:
        InputError: infinite or complex values, objects that JSON does not know; the key is named.
    """
    stated = record.get("schema_version", SCHEMA_VERSION)
    if stated != SCHEMA_VERSION:
        raise fail(f"schema_version {stated} in the record", f"{SCHEMA_VERSION} or no such key")
    tree = {"schema_version": SCHEMA_VERSION, **_plain(record, "")}
    with replacing(path) as temporary:
        text = json.dumps(tree, indent=1, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """Return a record; null comes back as None.

    Raises:
        InputError: the file is missing, is not a record, or has another schema version.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise fail(f"{path} does not exist", "a record", "Run phojax phonons first")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise fail(
            f"{path} is not JSON ({error})", "a complete record", "Delete it and run again"
        ) from error
    found = record.get("schema_version") if isinstance(record, dict) else None
    if found != SCHEMA_VERSION:
        raise fail(
            f"{path} has schema version {found}",
            f"{SCHEMA_VERSION}, which this version of phojax reads",
            "Delete it and run again, or use the version of phojax that wrote it",
        )
    return record


def load_records(directory: str | os.PathLike) -> pd.DataFrame:
    """Return the records DIR/*/record.json as a table, one row each, by the name of its folder.

    Nested keys are joined by dots: `msd_axis_mean_A2.300.Na`. Lists stay lists.

    Raises:
        InputError: no record there, or one that `read_record` refuses.
    """
    directory = pathlib.Path(directory)
    paths = sorted(directory.glob(f"*/{RECORD_NAME}"))
    if not paths:
        raise fail(
            f"no {directory}/*/{RECORD_NAME}",
            "a folder that phojax phonons --out has written",
            "Check the path",
        )
    table = pd.json_normalize([read_record(p) for p in paths], sep=".")
    table.index = pd.Index([p.parent.name for p in paths], name="name")
    return table


def write_modes(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as a compressed .npz.

    Raises:
        InputError: an array of Python objects; its name is given.
    """
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype == object:
            raise fail(f"{name} is an array of Python objects", "numbers or texts")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **plain)


def read_modes(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays that `write_modes` wrote.

    Raises:
        InputError: the file is missing or broken.
    """
    if not pathlib.Path(path).is_file():
        raise fail(f"{path} does not exist", "a file of modes", "Run phojax phonons first")
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise fail(
            f"{path} cannot be read ({error})", "a complete .npz", "Delete it and run again"
        ) from error


def _plain(value: Any, key: str) -> Any:
    """Return `value` in JSON's types; `key` is its dotted name, for messages."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_plain(v, f"{key}[{n}]") for n, v in enumerate(items)]
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return _plain(np.asarray(value).tolist(), key)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise fail(f"{key} is infinite", "a finite number, or NaN where there is none")
        return None if math.isnan(value) else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise fail(f"{key} is a {type(value).__name__}", "numbers, texts, lists and dictionaries")
