"""The table of all inputs: a few columns on the screen, everything in the CSV file."""

import io
import os
import pathlib
from typing import Any

import pandas as pd

from phojax.io.atomic import replacing
from phojax.screening.settings import PhononSettings


def ranked(records: list[dict[str, Any]], settings: PhononSettings) -> list[dict[str, Any]]:
    """Return stable crystals by falling MSD of the mobile ions, then unstable, then failed ones."""
    T = f"{max(settings.temperatures):g}"

    def place(record):
        if "error" in record:
            return (2, 0.0)
        msd = record["msd_total_mean_A2"][T][settings.mobile]
        return (0 if record["stable"] else 1, -msd)

    return sorted(records, key=place)


def printed_table(records: list[dict[str, Any]], settings: PhononSettings) -> str:
    """Return the table for the screen."""
    rows = []
    symbol = settings.mobile
    for record in ranked(records, settings):
        if "error" in record:
            rows.append({"name": record["name"], "flags": "failed"})
            continue
        row: dict[str, Any] = {
            "name": record["name"],
            "formula": record["formula"],
            "group": record["space_group"],
            "stable": "yes" if record["stable"] else "NO",
            "ν min/THz": f"{record['frequency_min_THz']:.2f}",
            "cutoff/THz": f"{record['acoustic_cutoff_THz']:.2f}",
            f"{symbol} centre/THz": f"{record['pdos_center_THz'][symbol]:.2f}",
        }
        for T in settings.temperatures:
            value = record["msd_axis_mean_A2"][f"{T:g}"][symbol]
            # An unstable crystal's displacements leave modes out: shown, but not as if clean.
            row[f"U {symbol} {T:g} K/Å²"] = f"{value:.4f}" if record["stable"] else f"({value:.4f})"
        T = f"{max(settings.temperatures):g}"
        coupling = record["coupling_mean_below_low_frequency"].get(T)
        row["coupling"] = "" if coupling is None or coupling != coupling else f"{coupling:.2f}"
        for name, value in _user_values(record.get("descriptors", {})):
            row[name] = "" if value is None else f"{value:.5g}"
        row["flags"] = " ".join(record["flags"])
        rows.append(row)
    return text_of(rows)


def text_of(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table of text; what a row lacks is left blank."""
    if not rows:
        return "(nothing to show)"
    text = io.StringIO()
    table = pd.DataFrame(rows).astype(object)
    table.where(table.notna(), "").to_string(text, index=False)
    return text.getvalue()


def _user_values(descriptors: dict[str, Any]):
    """Yield (column, number) of the user's own descriptors; texts are in the CSV file alone."""
    for name, value in descriptors.items():
        short = name.partition(":")[2]
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, number in parts:
            if number is None or isinstance(number, int | float):
                yield f"{short} {part}".strip(), number


def write_csv(path: str | os.PathLike, records: list[dict[str, Any]]) -> None:
    """Write everything scalar of all records, one row each."""
    with replacing(pathlib.Path(path)) as temporary:
        pd.json_normalize(records, sep=".").to_csv(temporary, index=False)
