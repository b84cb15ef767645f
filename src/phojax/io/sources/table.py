"""Tables of metadata beside structures: CSV, one row per structure."""

import csv
import io
import math
import pathlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from phojax.checks import fail
from phojax.io.sources.metadata import MISSING, standard
from phojax.io.structures import check_readable
from phojax.screening.candidates import SOURCE, Candidate

_COLUMNS = ("file", "filename", "id", "material_id", "mat_id", "name")
_FORMULAS = ("formula", "formula_pretty", "reduced_formula", "chemical_formula")
_SHOWN = 8

Row = dict[str, Any]


def read_table(path: pathlib.Path) -> list[Row]:
    """Return the rows of a CSV file (comma, semicolon or tab), numbers as numbers.

    A column is one of numbers where every value in it is; "NaN" in a column of formulas is
    sodium nitride. Missing values have no key.

    Raises:
        InputError: not there, empty, no header, or no column that names the structures.
    """
    check_readable(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    rows = list(
        csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    )
    columns = [c for c in (rows[0] if rows else {}) if c is not None and c.strip()]
    if not rows or not any(c.strip().lower() in _COLUMNS for c in columns):
        raise fail(
            f"{path} has the columns {', '.join(columns) or '(none)'}",
            f"a row of names, one of them {', '.join(_COLUMNS)}, and rows below",
            "Name the column that holds files or ids so",
        )
    found: list[Row] = [{} for _ in rows]
    for column in columns:
        texts = [(row[column] or "").strip() for row in rows]
        values = _values(texts, column.strip().lower() in _COLUMNS)
        for row, value in zip(found, values, strict=True):
            if value is not None:
                row[column.strip()] = value
    return found


def with_table(
    candidates: Sequence[Candidate], rows: list[Row], table: str
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Return the candidates with what the table says about them, and remarks.

    A row belongs to the structure whose path, file name, name without ending or id its
    identifying column holds; of several such columns the one that finds most structures counts.
    What the table says replaces what the source said.

    Args:
        candidates: With their final ids.
        rows: Of `read_table`.
        table: What it is called in remarks.
    """
    keys = _keys(candidates)
    names = {c.lower(): c for row in rows for c in row}
    columns = [names[c] for c in _COLUMNS if c in names]
    if not columns:
        return tuple(candidates), (f"{table}: no row names a structure",)

    def matches(column: str) -> list[set[int]]:
        return [keys.get(str(row.get(column, "")).strip().casefold(), set()) for row in rows]

    found = {column: matches(column) for column in columns}
    column = max(columns, key=lambda c: sum(len(k) == 1 for k in found[c]))
    changed, remarks = list(candidates), []
    lone, unclear, again, done = [], [], [], set()
    for row, which in zip(rows, found[column], strict=True):
        label = str(row.get(column, "(no name)"))
        if len(which) != 1:
            (unclear if which else lone).append(label)
            continue
        (k,) = which
        if k in done:
            again.append(label)
            continue
        done.add(k)
        changed[k] = _joined(candidates[k], row, column, table)
    without = [c.id for k, c in enumerate(candidates) if k not in done]
    for said, what in (
        (lone, "rows without a structure"),
        (unclear, "rows that fit several structures and were used for none"),
        (again, "rows for a structure that had one already, not used"),
        (without, "structures without a row"),
    ):
        if said:
            more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
            remarks.append(f"{table}: {what} ({len(said)}): {', '.join(said[:_SHOWN])}{more}")
    return tuple(changed), tuple(remarks)


def _keys(candidates: Sequence[Candidate]) -> dict[str, set[int]]:
    """Return which candidates a text may mean: a full path or an id before anything shorter."""
    exact: dict[str, set[int]] = defaultdict(set)
    short: dict[str, set[int]] = defaultdict(set)
    for k, candidate in enumerate(candidates):
        exact[candidate.id.casefold()].add(k)
        file = candidate.metadata.get("file")
        if file:
            path = pathlib.PurePosixPath(str(file))
            exact[str(path).casefold()].add(k)
            short[path.name.casefold()].add(k)
            short[path.stem.casefold()].add(k)
        for name in ("source_id", "material_id", "id", "name"):
            if name in candidate.metadata:
                short[str(candidate.metadata[name]).casefold()].add(k)
    return {**short, **exact}


def _joined(candidate: Candidate, row: Row, column: str, table: str) -> Candidate:
    known, remarks = standard({k: v for k, v in row.items() if k != column})
    before = candidate.metadata
    said = [
        f"{key} is {known[key]:g} in {table}; the source says {before[key]:g}"
        for key in known
        if key.endswith(("_eV", "_eV_atom")) and key in before
        and isinstance(before[key], float) and abs(known[key] - before[key]) > 1e-6
    ]  # fmt: skip
    said += _other_formula(candidate, known, table)
    metadata = {**before, **known}
    metadata.setdefault(SOURCE, table)
    return replace(candidate, metadata=metadata, remarks=(*candidate.remarks, *remarks, *said))


def _other_formula(candidate: Candidate, row: Row, table: str) -> list[str]:
    """Return a remark where the table has another compound under this name."""
    texts = [row[c] for c in row if c.lower() in _FORMULAS and isinstance(row[c], str)]
    if candidate.structure is None or not texts:
        return []
    from pymatgen.core import Composition

    own = Composition.from_dict(_counts(candidate.structure.symbols))
    try:
        stated = Composition(texts[0])
    except ValueError:
        return []
    if stated.reduced_formula == own.reduced_formula:
        return []
    return [f"the formula is {own.reduced_formula}, {table} says {texts[0]}"]


def _counts(symbols: list[str]) -> dict[str, int]:
    return {s: symbols.count(s) for s in dict.fromkeys(symbols)}


def _values(texts: list[str], names: bool) -> list[Any]:
    """Return the values of a column, None where there is none."""
    present = [t for t in texts if t.lower() not in MISSING]
    if names or not present or any(_as_number(t) is None for t in present):
        truth = {"true": True, "false": False}
        if present and not names and all(t.lower() in truth for t in present):
            return [truth.get(t.lower()) for t in texts]
        return [t or None for t in texts]
    numbers = [None if t.lower() in MISSING else _as_number(t) for t in texts]
    if all(n is None or ("." not in t and "e" not in t.lower())
           for n, t in zip(numbers, texts, strict=True)):  # fmt: skip
        return [None if n is None else int(n) for n in numbers]
    return numbers


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
