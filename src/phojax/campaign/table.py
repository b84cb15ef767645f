"""The table of a screen: one row per candidate, flat columns whose names end in their units.

What a record holds by temperature, element and group becomes columns of its own:

    msd_axis_mean_A2["800"]["Na"]   ->  msd_axis_mean_800K_A2      of the mobile element
    pdos_center_THz["Na"]           ->  pdos_center_mobile_THz
    pdos_center_THz[others]         ->  pdos_center_host_THz        weighted by their atoms
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ase.io
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.data import chemical_symbols
from ase.db import connect

from phojax.campaign.store import Record, Store
from phojax.checks import InputError, fail
from phojax.io.atomic import replacing

UNITS = {
    "_eV_K_per_cell": "eV/K per cell", "_eV_per_cell": "eV per cell", "_eV_atom": "eV/atom",
    "_per_A3": "1/Å³", "_A2_ps": "Å²/ps", "_S_cm": "S/cm", "_eV_A2": "eV/Å²", "_eV_A": "eV/Å",
    "_eV_A3": "eV/Å³", "_A2": "Å²", "_A3": "Å³", "_THz": "THz", "_GPa": "GPa", "_km_s": "km/s",
    "_meV": "meV", "_eV": "eV", "_A": "Å", "_K": "K", "_ps": "ps", "_s": "s",
}  # fmt: skip
"""Endings of names and the units they stand for; longer ones first."""

_TEXTS = ("id", "formula", "chemical_system", "status", "reason", "flags", "space_group")
_BY_TEMPERATURE = (
    "coupling_mean_below_low_frequency", "coupling_mean_below_acoustic_cutoff",
    "coupling_paper_mean_below_low_frequency", "free_energy_eV_per_cell", "entropy_eV_K_per_cell",
    "heat_capacity_eV_K_per_cell",
)  # fmt: skip
_BY_TEMPERATURE_AND_ELEMENT = (
    "msd_axis_mean_A2", "msd_axis_max_A2", "msd_axis_max_eigenvalue_A2", "msd_total_mean_A2",
    "msd_total_mean_extrapolated_A2", "msd_share_below_low_frequency",
)  # fmt: skip
_BY_GROUP = (
    "pdos_center_THz", "pdos_deviation_THz", "pdos_skewness", "pdos_kurtosis", "pdos_width_THz",
    "pdos_center_to_acoustic_cutoff",
)  # fmt: skip
_PLAIN = (
    "volume_A3", "frequency_min_THz", "frequency_max_THz", "acoustic_cutoff_THz",
    "acoustic_cutoff_connected_THz", "acoustic_cutoff_mesh_THz", "pdos_overlap",
    "pdos_overlap_below_3THz", "debye_temperature_K",
)  # fmt: skip
_MODULI = (
    "bulk_GPa", "shear_GPa", "young_GPa", "poisson", "pugh_ratio", "hardness_GPa",
    "sound_velocity_mean_km_s",
)  # fmt: skip
_EFFECTIVE = (
    "frequency_min_THz", "acoustic_cutoff_THz", "frequency_error_THz", "force_calls",
)  # fmt: skip
_EFFECTIVE_BY_ELEMENT = (
    "msd_axis_mean_A2", "msd_axis_max_A2", "msd_total_mean_A2", "msd_total_mean_error_A2",
)  # fmt: skip
_TRANSPORT = (
    "D_A2_ps", "D_error_A2_ps", "D_detection_limit_A2_ps", "D_paper_A2_ps",
    "D_paper_maximum_A2_ps", "D_paper_if_at_rest_A2_ps", "D_collective_A2_ps", "haven_ratio",
    "simulated_ps",
)  # fmt: skip

_TAKEN = ("formula", "atoms")  # by ASE's databases


def row_of(record: Record, mobile: str) -> dict[str, Any]:
    """Return the row of a record: what is not known is not in it."""
    row: dict[str, Any] = {"id": record.get("name", ""), "status": "done", "reason": ""}
    failures = record.get("failures", {})
    row["flags"] = list(record.get("flags", []))
    if "formula" not in record:
        row["status"] = "failed" if failures else "pending"
    else:
        row |= _phonons(record, mobile)
    row["reason"] = "; ".join(f"{stage}: {why}" for stage, why in failures.items())
    if row["status"] == "pending":
        row["reason"] = "not finished: the same command goes on"
    elastic = record.get("moduli")
    if elastic:
        row |= {k: elastic[k] for k in _MODULI} | {"elastically_stable": elastic["stable"]}
        row["flags"] += [f for f in elastic["flags"] if f not in row["flags"]]
    hot = record.get("effective")
    if hot:
        row |= _effective(hot, mobile)
        flags = [f for one in hot["temperatures"].values() for f in one["flags"]]
        row["flags"] += [f for f in dict.fromkeys(flags)
                         if f.startswith("effective_") and f not in row["flags"]]  # fmt: skip
    moved = record.get("transport")
    if moved:
        row |= _transport(moved, record.get("acoustic_cutoff_THz"), mobile)
        row["flags"] += [f for f in moved.get("flags", []) if f not in row["flags"]]
        if row.get("D_A2_ps") is None:
            told = [note for note in moved.get("notes", []) if "no diffusion coefficient" in note]
            row["reason"] = "; ".join([*filter(None, [row["reason"]]), *told])
            row["flags"].append("no_diffusion")
    for name, value in record.get("metadata", {}).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            row.setdefault(f"source_{name}", float(value))
    row["flags"] = " ".join(row["flags"])
    return row


def _phonons(record: Record, mobile: str) -> dict[str, Any]:
    row: dict[str, Any] = {k: record[k] for k in ("formula", "space_group", "stable")}
    row["space_group_number"], row["atoms"] = record["space_group_number"], record["atoms"]
    row["chemical_system"] = chemical_system(record)
    row |= {k: record.get(k) for k in _PLAIN}
    for key in _BY_TEMPERATURE:
        for T, value in record.get(key, {}).items():
            row[_inserted(key, f"{T}K")] = value
    for key in _BY_TEMPERATURE_AND_ELEMENT:
        for T, values in record.get(key, {}).items():
            row[_inserted(key, f"{T}K")] = values.get(mobile)
    counts = _counts(record)
    for key in _BY_GROUP:
        values = record.get(key, {})
        row[_inserted(key, "mobile")] = values.get(mobile)
        row[_inserted(key, "total")] = values.get("total")
    for key in ("pdos_center_THz", "pdos_center_to_acoustic_cutoff"):
        # Every atom has three modes' worth of states, so that centres add up by atoms.
        host = {s: v for s, v in record.get(key, {}).items() if s not in ("total", mobile)}
        if host and None not in host.values() and all(s in counts for s in host):
            total = sum(counts[s] for s in host)
            row[_inserted(key, "host")] = sum(counts[s] * v for s, v in host.items()) / total
    row |= {
        k: v for k, v in record.get("structural", {}).items()
        if isinstance(v, int | float) and not isinstance(v, bool)
    }  # fmt: skip
    relaxation = record.get("relaxation") or {}
    row["energy_eV_atom"] = relaxation.get("energy_eV_atom")
    for name, value in record.get("descriptors", {}).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, number in parts:
            if number is None or isinstance(number, int | float):
                row[f"{name.partition(':')[2]} {part}".strip()] = number
    return row


def _effective(found: Record, mobile: str) -> dict[str, Any]:
    """Return the columns of effective phonons: names of harmonic ones after "effective_"."""
    row: dict[str, Any] = {}
    for T, one in found["temperatures"].items():
        row[f"effective_stable_{T}K"] = one["stable"] and one["stable_on_mesh"]
        row |= {f"effective_{_inserted(k, f'{T}K')}": one[k] for k in _EFFECTIVE}
        for key in _EFFECTIVE_BY_ELEMENT:
            of = one[key]
            value = of.get(mobile) if isinstance(of, dict) else of
            row[f"effective_{_inserted(key, f'{T}K')}"] = value
        centre = one["pdos_center_THz"].get(mobile)
        row[f"effective_pdos_center_mobile_{T}K_THz"] = centre
    return row


def _transport(moved: Record, cutoff: float | None, mobile: str) -> dict[str, Any]:
    temperatures = moved.get("temperatures", {})
    if not temperatures:
        return {}
    label = max(temperatures, key=float)
    of = temperatures[label]
    row: dict[str, Any] = {"md_temperature_K": float(label)}
    row |= {k: of.get(k) for k in _TRANSPORT}
    low, high = of.get("D_interval_A2_ps") or (None, None)
    row |= {"D_low_A2_ps": low, "D_high_A2_ps": high, "D_censored": of.get("D_censored")}
    centre = of.get("vdos_centre_vibrational_THz", {}).get(mobile)
    row["vdos_center_mobile_THz"] = centre
    if centre is not None and cutoff:
        row["vdos_center_mobile_to_acoustic_cutoff"] = centre / cutoff
    row["channel_dimensionality"] = of.get("channels", {}).get("dimensionality")
    host = of.get("framework", {})
    row["framework_holds"] = host.get("polyanions_hold") or host.get("holds")
    arrhenius = moved.get("arrhenius") or {}
    row["activation_energy_meV"] = arrhenius.get("activation_energy_meV")
    row["activation_energy_error_meV"] = arrhenius.get("activation_energy_error_meV")
    return row


def chemical_system(record: Record) -> str:
    """Return the elements of a record, sorted: "Cl-Na-Y"."""
    return "-".join(sorted(_counts(record)))


def _counts(record: Record) -> dict[str, int]:
    return dict(Atoms(record["formula"]).symbols.formula.count())


def _inserted(key: str, part: str) -> str:
    """Return a name with a part before its unit: ("msd_A2", "800K") -> msd_800K_A2."""
    unit = unit_ending(key)
    return f"{key.removesuffix(unit)}_{part}{unit}"


def unit_ending(name: str) -> str:
    """Return the unit at the end of a name, "" where it has none."""
    return max((u for u in UNITS if name.endswith(u)), key=len, default="")


def table_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a table, texts first; columns in the order in which they first occur."""
    frame = pd.DataFrame(list(rows))
    for name in _TEXTS:
        if name not in frame:
            frame[name] = ""
        frame[name] = frame[name].fillna("").astype(str)
    for name in frame.columns:
        if name in _TEXTS:
            continue
        kinds = {type(v) for v in frame[name] if v is not None and v == v}
        if kinds <= {bool, np.bool_}:
            frame[name] = frame[name].astype("boolean")
        elif kinds <= {int, float}:
            frame[name] = frame[name].astype(float)
        else:
            frame[name] = frame[name].astype(str)
    for name in ("space_group_number", "atoms", "channel_dimensionality"):
        if name in frame:
            frame[name] = frame[name].astype("Int64")
    return frame.loc[:, [*_TEXTS, *(c for c in frame.columns if c not in _TEXTS)]]


def write_table(path: pathlib.Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, the unit of a column in its metadata under "unit"."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = []
    for field in table.schema:
        ending = unit_ending(field.name)
        fields.append(field.with_metadata({"unit": UNITS[ending]}) if ending else field)
    schema = pa.schema(fields, metadata=table.schema.metadata)
    with replacing(path) as temporary:
        pq.write_table(table.cast(schema), temporary)


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """Return a table that `write_table` wrote; InputError where it is not there or broken."""
    if not path.is_file():
        raise fail(f"{path} does not exist", "the table of a screen", "Run phojax screen first")
    try:
        return pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise fail(f"{path} cannot be read ({error})", "a Parquet table") from error


def export_table(store: Store, frame: pd.DataFrame, path: pathlib.Path) -> None:
    """Write the table for other programs, by the ending of the name: .csv, .json, .db (ASE).

    Raises:
        InputError: another ending.
    """
    if path.suffix == ".csv":
        with replacing(path) as temporary:
            frame.to_csv(temporary, index=False)
    elif path.suffix == ".json":
        with replacing(path) as temporary:
            frame.to_json(temporary, orient="records", indent=1)
    elif path.suffix == ".db":
        with replacing(path) as temporary:
            _write_database(store, frame, temporary)
    else:
        raise fail(f"{path.name}", "a name that ends in .csv, .json or .db (an ASE database)")


def _write_database(store: Store, frame: pd.DataFrame, path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    database: Any = connect(path, type="db")
    with database:
        for row in frame.to_dict(orient="records"):
            place = store.place(str(row["id"]))
            try:
                atoms = ase.io.read(place / "structure.extxyz")
            except (OSError, ValueError):
                try:
                    given = store.given(str(row["id"])).structure
                except InputError:
                    continue
                assert given is not None
                atoms = Atoms(
                    [chemical_symbols[int(z)] for z in given.numbers],
                    positions=np.asarray(given.positions), cell=np.asarray(given.cell), pbc=True,
                )  # fmt: skip
            values = {k: v for k, v in row.items() if k != "id" and not pd.isna(v) and v != ""}
            # ASE keeps some names for itself, and takes no text that reads as a number.
            plain = {
                (f"row_{k}" if k in _TAKEN else k.replace(" ", "_")): (
                    bool(v) if isinstance(v, bool | np.bool_) else v
                )
                for k, v in values.items() if not (isinstance(v, str) and _is_number(v))
            }  # fmt: skip
            database.write(atoms, name=str(row["id"]), data={}, **plain)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
