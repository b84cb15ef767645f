"""What `phojax evaluate` shows: tables and figures from its records."""

import pathlib
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from phojax.cli.table import text_of
from phojax.evaluation import kept_elements, pooled
from phojax.plots.evaluation import overlaid_bands, parity_figure
from phojax.plots.figures import save_figure
from phojax.screening.settings import PhononSettings

_UNITS = {"forces": "meV_A", "forces_beyond_rest": "meV_A", "phi2": "meV_A2", "phi3": "meV_A3"}


def csv_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a flat row for every structure and potential."""
    rows = []
    for record in records:
        shared = {k: v for k, v in record.items() if k not in ("potentials", "versions")}
        for name, entry in record.get("potentials", {None: {}}).items():
            rows.append({"potential": name, **shared, **entry})
    return rows


def compared(records: list[dict[str, Any]], names: list[str], settings: PhononSettings) -> str:
    """Return the table of all structures, and of the potentials over all of them."""
    T = f"{settings.temperatures[0]:g}"
    rows, totals = [], []
    for name in names:
        entries = []
        for record in records:
            entry = record.get("potentials", {}).get(name)
            if entry is None or "error" in entry:
                rows.append({"potential": name, "structure": record["name"], "stable": "failed"})
                continue
            entries.append(entry)
            rows.append(
                {"potential": name, "structure": record["name"], **_cells(entry, T, settings)}
            )
        if entries:
            totals.append({"potential": name, **_total(entries, T, settings)})
    # The same structure's lines together, so that potentials are compared at a glance.
    place = {record["name"]: n for n, record in enumerate(records)}
    rows.sort(key=lambda row: place[row["structure"]])
    rows = [{"structure": row.pop("structure"), **row} for row in rows]
    note = (
        "Root mean square errors: forces F in meV/Å, Φ² in meV/Å², Φ³ in meV/Å³, frequencies ν in "
        "THz; in % of the reference's root mean square where it says so. F-F₀: without the forces "
        "on the undisplaced crystal, which each potential has of its own.\nMSD: of "
        f"{settings.mobile} (of all elements, where there is none) at {T} K. Stable: reference / "
        "potential; (in brackets) where one is not."
    )
    return "\n\n".join([text_of(rows), "all structures together", text_of(totals), note])


def _cells(entry: dict[str, Any], T: str, settings: PhononSettings) -> dict[str, str]:
    row = {
        "F": f"{entry['forces']['rmse_meV_A']:.3g}",
        "F %": _percent(entry["forces"]["relative"]),
    }
    if "forces_beyond_rest" in entry:
        beyond = entry["forces_beyond_rest"]
        row |= {"F-F₀": f"{beyond['rmse_meV_A']:.3g}", "F-F₀ %": _percent(beyond["relative"])}
    if "phi2" not in entry:
        return row
    row |= {
        "Φ²": f"{entry['phi2']['rmse_meV_A2']:.1f}",
        "Φ² %": _percent(entry["phi2"]["relative"]),
    }
    if "phi3" in entry:
        row |= {
            "Φ³": f"{entry['phi3']['rmse_meV_A3']:.0f}",
            "Φ³ %": _percent(entry["phi3"]["relative"]),
        }
    row |= {
        "ν": f"{entry['frequency_rmse_THz']:.2f}",
        "ν bias": f"{entry['frequency_bias_THz']:+.2f}",
        "ν min": f"{entry['reference_frequency_min_THz']:.2f} / {entry['frequency_min_THz']:.2f}",
        "MSD error %": _signed(
            _msd_error(entry, T, settings), bare=entry["stable"] and entry["reference_stable"]
        ),
        "stable": f"{_yes(entry['reference_stable'])} / {_yes(entry['stable'])}",
    }
    return row


def _total(entries: list[dict[str, Any]], T: str, settings: PhononSettings) -> dict[str, str]:
    row = {"structures": str(len(entries))}
    for what, sign, digits in (
        ("forces", "F", 1), ("forces_beyond_rest", "F-F₀", 1), ("phi2", "Φ²", 1), ("phi3", "Φ³", 0),
    ):  # fmt: skip
        mine = [e[what] for e in entries if what in e]
        if mine:
            found = pooled(mine, _UNITS[what])
            row |= {
                sign: f"{found[f'rmse_{_UNITS[what]}']:.{digits}f}",
                f"{sign} %": _percent(found["relative"]),
            }
    lattices = [e for e in entries if "phi2" in e]
    if lattices:
        counts = np.array([e["frequency_modes"] for e in lattices], float)
        square = np.array([e["frequency_rmse_THz"] ** 2 for e in lattices])
        row["ν"] = f"{np.sqrt(square @ counts / counts.sum()):.2f}"
        both = [e for e in lattices if e["reference_stable"] and e["stable"]]
        errors = [abs(x) for e in both if (x := _msd_error(e, T, settings)) is not None]
        row["|MSD error| %, both stable"] = _percent(float(np.mean(errors)) if errors else None)
        stable = sum(e["reference_stable"] for e in lattices)
        row["stable in both"] = f"{len(both)} of {stable}"
        lost = sum(e["stable"] and not e["reference_stable"] for e in lattices)
        row["in the potential alone"] = str(lost)
    return row


def _msd_error(entry: dict[str, Any], T: str, settings: PhononSettings) -> float | None:
    found = entry["msd"][T]
    mine = [found[settings.mobile]] if settings.mobile in found else list(found.values())
    errors = [e["relative_error"] for e in mine]
    return None if None in errors else float(np.mean(errors))


def write_figures(
    folder: pathlib.Path, record: dict[str, Any], arrays: dict[str, np.ndarray], names: list[str]
) -> None:
    """Write parity of forces, Φ² and Φ³, and the bands, for the potentials that worked."""
    names = [n for n in names if "error" not in record["potentials"][n]]
    if not names:
        return
    title = f"{record['formula']}, reference: {record['reference']}"
    symbols = np.array([chemical_symbols[z] for z in arrays["numbers"]])

    def by_element(name: str):
        return {
            s: (
                arrays["forces_reference"][symbols == s],
                arrays[f"forces_{slug(name)}"][symbols == s],
            )
            for s in sorted(set(symbols))
        }

    panels = {name: by_element(name) for name in names}
    save_figure(parity_figure(panels, "force (eV/Å)", title), folder / "parity-forces")
    for what, unit in (("phi2", "Φ² (eV/Å²)"), ("phi3", "Φ³ (eV/Å³)")):
        if f"{what}_reference" not in arrays:
            continue
        reference = arrays[f"{what}_reference"]
        shown = {
            name: {"all": (reference[at], arrays[f"{what}_{slug(name)}"][at])}
            for name in names
            if f"{what}_{slug(name)}" in arrays
            for at in [kept_elements(reference, arrays[f"{what}_{slug(name)}"])]
        }
        save_figure(parity_figure(shown, unit, title), folder / f"parity-{what}")
    if "path_distance" in arrays:
        figure = overlaid_bands(
            arrays["path_distance"],
            arrays["path_frequencies_THz_reference"],
            {name: arrays[f"path_frequencies_THz_{slug(name)}"] for name in names},
            arrays["path_ticks"],
            [str(x) for x in arrays["path_labels"]],
            arrays["path_starts"].tolist(),
            record["reference"],
            record["formula"],
        )
        save_figure(figure, folder / "bands")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _signed(value: float | None, bare: bool) -> str:
    """Return a percentage, in brackets where it compares what modes left out have spoilt."""
    if value is None:
        return ""
    return f"{100 * value:+.1f}" if bare else f"({100 * value:+.1f})"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def slug(name: str) -> str:
    """Return the name of a potential as part of names of files and arrays."""
    return "".join(c if c.isalnum() else "-" for c in name)[-60:]
