"""Records of transport as rows: a line per structure and temperature, for people and for CSV."""

from typing import Any

from phojax.cli.table import text_of

Record = dict[str, Any]

CM2_S_PER_A2_PS = 1e-4
"""1 Å²/ps in cm²/s."""


def all_table_rows(records: list[Record]) -> list[Record]:
    """Return the rows of the table for programs."""
    return [row for record in records for row in table_rows(record)]


def printed_table(records: list[Record]) -> str:
    """Return the table for people."""
    return text_of([row for record in records for row in printed_rows(record)])


def table_rows(record: Record) -> list[Record]:
    """Return a record as rows of a table for programs, one per temperature, keys joined by dots."""
    head = {k: record.get(k) for k in ("name", "formula", "space_group", "atoms", "potential")}
    if "error" in record:
        return [head | {"error": record["error"], "flags": " ".join(record["flags"])}]
    rows = []
    for found in record["temperatures"].values():
        row = head | _flat(found, "")
        row |= _flat(record["arrhenius"], "arrhenius.") if record.get("arrhenius") else {}
        rows.append(row | {"flags": " ".join(record["flags"])})
    return rows


def printed_rows(record: Record) -> list[Record]:
    """Return a record as rows for people, one per temperature."""
    if "error" in record:
        return [{"name": record["name"], "flags": "failed"}]
    rows = []
    for T, found in record["temperatures"].items():
        row: Record = {"name": record["name"], "T/K": T}
        if "D_A2_ps" in found:
            row |= _diffusion(found)
        row["framework"] = _framework(found)
        for symbol, centre in (found.get("vdos_centre_vibrational_THz") or {}).items():
            if symbol == record["mobile"]:
                row["VDOS/THz"] = _number(centre, 2)
        channels = found.get("channels")
        if channels:
            row["channels"] = f"{channels['dimensionality']}D"
        arrhenius = record.get("arrhenius")
        if arrhenius and arrhenius.get("activation_energy_meV") is not None:
            low, high = arrhenius["activation_energy_interval_meV"]
            row["Ea/meV"] = f"{arrhenius['activation_energy_meV']:.0f} ({low:.0f}…{high:.0f})"
        row["flags"] = " ".join(found["flags"])
        rows.append(row)
    return rows


def _diffusion(found: Record) -> Record:
    low, high = found["D_interval_A2_ps"]
    if found["D_censored"]:
        text = f"< {_scientific(high)}"  # the bound; the limit of detection is not one
    else:
        text = _scientific(found["D_A2_ps"])
        if {"subdiffusive", "too_short"} & set(found["D_flags"]):  # not yet that of diffusion
            text = f"({text})"
    return {
        "D/(Å²/ps)": text,
        "95 %": f"{_scientific(low)}…{_scientific(high)}",
        "D/(cm²/s)": "" if found["D_censored"] else _scientific(found["D_A2_ps"] * CM2_S_PER_A2_PS),
        "D by origin": _scientific(found.get("D_paper_A2_ps")),
        "Haven": _ranged(found.get("haven_ratio"), found.get("haven_ratio_interval")),
        "σNE/(S/cm)": ""
        if found["D_censored"]
        else _scientific(found.get("conductivity_nernst_einstein_S_cm")),
    }


def _ranged(value: float | None, interval: list[float] | None) -> str:
    """Return a value with its interval, nothing where it is not known."""
    if value is None or value != value:
        return ""
    low, high = interval or (float("nan"), float("nan"))
    return f"{value:.2f} ({_number(low, 2) or '0'}…{_number(high, 2) or '∞'})"


def _framework(found: Record) -> str:
    framework = found.get("framework")
    if framework is None:
        return ""
    if framework["holds"]:
        return "holds"
    elements = dict.fromkeys(reason.split()[0] for reason in framework["tripped"])
    return f"{', '.join(elements)} {'rotates' if framework.get('polyanions_hold') else 'moves'}"


def _flat(tree: Record, before: str) -> Record:
    row: Record = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            row |= _flat(value, f"{before}{key}.")
        elif isinstance(value, list):
            if value and all(isinstance(x, str) for x in value):
                row[before + key] = "; ".join(value)
            elif len(value) <= 3 and not any(isinstance(x, list) for x in value):
                row |= {f"{before}{key}.{n}": x for n, x in enumerate(value)}
        else:
            row[before + key] = value
    return row


def _scientific(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.2e}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"
