"""Snapshots in the record and in the table: distributions over ions, who stands out, what to doubt.

Statistics are of clean snapshots: converged, of the same structure, without imaginary modes. A
minimum that several snapshots fall into counts as often as it was found.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula
from jaxtyping import Float

from phojax.finite_temperature.snapshots import Snapshots
from phojax.potentials.contract import Potential
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.snapshots import Minimum, SnapshotRow
from phojax.screening.trust import relaxation_record

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_STATES = ("own", "other", "off_sites")


def snapshot_record(
    name: str, row: SnapshotRow, potential: Potential, settings: PhononSettings, how: Snapshots
) -> dict[str, Any]:
    """Return everything scalar about the snapshots of a run, plain Python for JSON."""
    run = row.run
    symbols = [chemical_symbols[z] for z in run.numbers]
    flags, notes = _doubts(row, how)
    return {
        "name": name,
        "formula": Formula.from_list(symbols).reduce()[0].format("metal"),
        "potential": potential.name,
        "potential_provenance": potential.provenance,
        "mobile": settings.mobile,
        "atoms": len(symbols),
        "mobile_ions": int(row.mobile.sum()),
        "cell_A": run.cell.tolist(),
        "volume_A3": float(abs(np.linalg.det(run.cell))),
        "frames": len(run),
        "interval_ps": run.interval_ps if np.isfinite(run.interval_ps) else None,
        "mesh": list(settings.mesh or (1, 1, 1)),
        "force_constants": {
            "method": "autodiff" if row.step is None else "displacements",
            "displacement_A": row.step,
            "width_A": row.width,
            "pairs": row.pairs,
            "columns": sum(m.columns for m in _all(row)),
        },
        "reference": _reference(row, settings),
        "snapshots": [_snapshot(n, m, row, settings) for n, m in enumerate(row.minima)],
        "temperatures": {
            f"{T:g}": _statistics(row, k, how) for k, T in enumerate(settings.temperatures)
        },
        "settings": settings.as_dict(),
        "snapshot_settings": how.as_dict(),
        "seed": settings.seed,
        "versions": versions(),
        "flags": flags,
        "notes": [*run.notes, *notes],
    }


def snapshot_table(row: SnapshotRow, settings: PhononSettings) -> list[dict[str, Any]]:
    """Return a row per mobile ion of every snapshot that was computed, units in the names."""
    found: list[dict[str, Any]] = []
    for number, minimum in enumerate(row.minima):
        at, seen = minimum.sites, minimum.displacements
        if at is None or seen is None:
            continue
        for atom in np.flatnonzero(row.mobile):
            entry: dict[str, Any] = {
                "snapshot": number,
                "frame": minimum.frame,
                "time_ps": _time(row, minimum.frame),
                "atom": int(atom),
                "element": settings.mobile,
                "site": _state(minimum, int(atom)),
                "site_of_atom": int(at.site[atom]),
                "distance_from_own_site_A": float(at.moved[atom]),
            }
            for k, T in enumerate(settings.temperatures):
                entry[f"msd_total_{T:g}K_A2"] = float(seen.msd[k, atom])
                if np.isfinite(seen.errors[k, atom]):
                    entry[f"msd_total_error_{T:g}K_A2"] = float(seen.errors[k, atom])
                for axis, name in enumerate("xyz"):
                    entry[f"msd_{name}_{T:g}K_A2"] = float(seen.tensors[k, atom, axis, axis])
                if row.ideal is not None and row.ideal.displacements is not None:
                    ideal = row.ideal.displacements.msd[k, at.site[atom]]
                    entry[f"msd_total_ideal_site_{T:g}K_A2"] = float(ideal)
            entry["clean"] = minimum.clean
            entry["flags"] = " ".join(minimum.flags)
            found.append(entry)
    return found


def usable(row: SnapshotRow) -> list[int]:
    """Return the snapshots that statistics are of: the clean ones, or all if none is clean."""
    clean = [n for n, m in enumerate(row.minima) if m.clean]
    return clean or [n for n, m in enumerate(row.minima) if m.displacements is not None]


def ion_msd(row: SnapshotRow, k: int, chosen: Sequence[int]) -> Float[np.ndarray, "snapshot ion"]:
    """Return the MSD of every mobile ion at temperature number k in some snapshots, Å²."""
    each = [row.minima[n].displacements for n in chosen]
    found = [d.msd[k, row.mobile] for d in each if d is not None]
    return np.array(found).reshape(len(found), int(row.mobile.sum()))


def _all(row: SnapshotRow) -> list[Minimum]:
    return [*row.minima, *([] if row.ideal is None else [row.ideal])]


def _time(row: SnapshotRow, frame: int) -> float | None:
    return frame * row.run.interval_ps if np.isfinite(row.run.interval_ps) else None


def _state(minimum: Minimum, atom: int) -> str:
    at = minimum.sites
    assert at is not None
    return _STATES[0] if at.on_own[atom] else _STATES[1 + int(at.off_sites[atom])]


def _reference(row: SnapshotRow, settings: PhononSettings) -> dict[str, Any] | None:
    """Return the ideal crystal by the same sampling, or what stands for it."""
    if row.reference is None:
        return None
    record: dict[str, Any] = {
        "given": row.ideal is not None,
        "relaxation": relaxation_record(row.reference),
    }
    if row.ideal is None or row.ideal.displacements is None:
        return record
    seen = row.ideal.displacements
    record |= {
        **row.ideal.facts,
        "columns": row.ideal.columns,
        "frequency_min_THz": seen.frequency_min_THz,
        "imaginary_modes": seen.imaginary,
        "imaginary_share": seen.lost,
        "flags": list(row.ideal.flags),
        "msd_total_A2": {
            f"{T:g}": {
                "mean": float(seen.msd[k, row.mobile].mean()),
                "smallest_of_sites": float(seen.msd[k, row.mobile].min()),
                "largest_of_sites": float(seen.msd[k, row.mobile].max()),
                "host_mean": _mean(seen.msd[k, ~row.mobile]),
            }
            for k, T in enumerate(settings.temperatures)
        },
    }
    return record


def _snapshot(
    number: int, minimum: Minimum, row: SnapshotRow, settings: PhononSettings
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "snapshot": number,
        "frame": minimum.frame,
        "time_ps": _time(row, minimum.frame),
        "flags": list(minimum.flags),
    }
    if minimum.error:
        record["error"] = minimum.error
    if minimum.relaxation is not None:
        record["relaxation"] = relaxation_record(minimum.relaxation)
        if row.reference is not None:
            above = minimum.relaxation.energy_eV - row.reference.energy_eV
            record["energy_above_reference_eV_atom"] = above / len(row.run.numbers)
    at = minimum.sites
    if at is not None:
        mobile, host = row.mobile, ~row.mobile
        record |= {
            "mobile_on_own_sites": int(np.sum(at.on_own & mobile)),
            "mobile_on_other_sites": int(np.sum(at.on_others & mobile)),
            "mobile_off_sites": int(np.sum(at.off_sites & mobile)),
            "mobile_moved": np.flatnonzero(~at.on_own & mobile).tolist(),
            "framework_moved": np.flatnonzero(at.off_sites & host).tolist(),
            "framework_exchanged": np.flatnonzero(at.on_others & host).tolist(),
            "framework_distance_max_A": _largest(at.distances[host]),
            "mobile_distance_max_A": float(at.moved[mobile].max()),
        }
    seen = minimum.displacements
    if seen is not None:
        record |= {
            "duplicate_of": minimum.duplicate_of,
            **minimum.facts,
            "columns": minimum.columns,
            "frequency_min_THz": seen.frequency_min_THz,
            "imaginary_modes": seen.imaginary,
            "imaginary_share": seen.lost,
            "msd_total_mean_A2": {
                f"{T:g}": float(seen.msd[k, row.mobile].mean())
                for k, T in enumerate(settings.temperatures)
            },
            "msd_total_max_A2": {
                f"{T:g}": float(seen.msd[k, row.mobile].max())
                for k, T in enumerate(settings.temperatures)
            },
            "msd_total_host_A2": {
                f"{T:g}": _mean(seen.msd[k, ~row.mobile])
                for k, T in enumerate(settings.temperatures)
            },
        }
    return record


def _statistics(row: SnapshotRow, k: int, how: Snapshots) -> dict[str, Any]:
    """Return the distribution over ions and snapshots at one temperature."""
    chosen = usable(row)
    values = ion_msd(row, k, chosen)
    if not values.size:
        return {"snapshots": 0, "clean": False}
    by_snapshot = values.mean(axis=1)
    different = [n for n, m in enumerate(chosen) if row.minima[m].duplicate_of is None]
    median = float(np.median(values))
    record: dict[str, Any] = {
        "snapshots": len(chosen),
        "different_minima": len(different),
        "clean": all(row.minima[n].clean for n in chosen),
        "msd_total_mean_A2": float(values.mean()),
        "msd_total_mean_error_A2": _error(by_snapshot),
        "msd_total_median_A2": median,
        "msd_total_smallest_A2": float(values.min()),
        "msd_total_largest_A2": float(values.max()),
        "msd_total_quantiles_A2": {
            f"{q:g}": float(v)
            for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
        },
    }
    if row.ideal is not None and row.ideal.displacements is not None:
        ideal = float(row.ideal.displacements.msd[k, row.mobile].mean())
        record["msd_total_ideal_A2"] = ideal
        record["msd_total_over_ideal"] = record["msd_total_mean_A2"] / ideal if ideal else None
    places = np.flatnonzero(row.mobile)
    out = np.argwhere(values > how.stands_out * median)
    record["stand_out"] = [
        {
            "snapshot": chosen[n],
            "frame": row.minima[chosen[n]].frame,
            "atom": int(places[ion]),
            "msd_total_A2": float(values[n, ion]),
            "over_median": float(values[n, ion] / median),
            "site": _state(row.minima[chosen[n]], int(places[ion])),
        }
        for n, ion in sorted(out.tolist(), key=lambda at: -values[at[0], at[1]])
    ]
    record["stand_out_share"] = len(out) / values.size
    return record


def _doubts(row: SnapshotRow, how: Snapshots) -> tuple[list[str], list[str]]:
    """Return flags of the whole, and what they mean for these snapshots."""
    flags, notes = [], []
    texts = {
        "failed": "failed",
        "not_converged": "not relaxed to the tolerance",
        "other_structure": "relaxed to another structure: the framework moved farther than "
        f"{how.site_radius:g} Å from its sites, or the energy is more than "
        f"{how.energy_window:g} eV/atom away",
        "imaginary_modes": "imaginary modes, which are left out",
        "duplicate": "in the minimum of an earlier one, not computed again",
    }
    for flag, text in texts.items():
        which = [n for n, m in enumerate(row.minima) if flag in m.flags]
        if which:
            flags.append(flag)
            several = "s" if len(which) > 1 else ""
            notes.append(f"snapshot{several} {', '.join(map(str, which))}: {text}")
    for n, m in enumerate(row.minima):
        if m.error:
            notes.append(f"snapshot {n} (frame {m.frame}): {m.error}")
    if not any(m.clean for m in row.minima):
        flags.append("no_clean_snapshot")
        notes.append("no snapshot is clean: statistics are of all that were computed")
    if row.ideal is None:
        flags.append("no_reference")
        notes.append(
            "no ideal crystal was given: sites are those of the lowest minimum, and there is no "
            "value of the primitive cell"
        )
    else:
        for flag in row.ideal.flags:
            flags.append(f"reference_{flag}")
            notes.append(f"the ideal crystal: {texts[flag]}")
    return flags, notes


def _error(means: np.ndarray) -> float | None:
    """Return the standard error of the mean over snapshots; None of one."""
    return float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _largest(values: np.ndarray) -> float | None:
    return float(values.max()) if values.size else None


__all__ = ["ion_msd", "snapshot_record", "snapshot_table", "usable"]
