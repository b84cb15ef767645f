"""The page of one structure as data: curves for the browser to draw, numbers, flags, files."""

import itertools
import os
import pathlib
import urllib.parse
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from phojax.campaign.report.folder import Row, StructureFiles
from phojax.campaign.report.texts import (
    drawn,
    flattened,
    listing,
    mapping,
    number,
    plain,
    shown,
)

_BYTES = 22  # that a mode of the bands takes with its colours
_CURVE = 240  # points of a curve
_REST = 44_000  # bytes that all but the bands takes
_LEAST = 4  # points of a segment of the path

Data = dict[str, Any]


def structure_data(
    row: Row, files: StructureFiles, page: pathlib.Path, standing: str, room: int
) -> Data:
    """Return what the browser needs to show one structure.

    Args:
        row: Of the table.
        files: What there is of it.
        page: Folder of the page, for links.
        standing: Its rank or why it has none.
        room: Bytes that it may take, about; curves and bands are thinned to fit.
    """
    record, problems = files.record, list(files.problems)
    points = _CURVE if room > 4 * _REST else _CURVE // 2
    rest = _REST if room > 4 * _REST else _REST // 2
    data: Data = {
        "id": row["id"],
        "formula": shown(row.get("formula")) or shown(record.get("formula")),
        "standing": standing,
        "mobile": shown(record.get("mobile")),
        "flags": _texts(record.get("flags")) or shown(row.get("flags")).split(),
        "notes": _texts(record.get("notes")),
        "table": [[key, plain(value)] for key, value in row.items() if value not in (None, "")],
        "record": _numbers(record),
        "files": _files(files.folder, page),
        "problems": problems,
    }
    if shown(row.get("reason")):
        data["notes"] = [shown(row.get("reason")), *data["notes"]]
    for key, made in (
        ("bands", lambda: _bands(files.arrays, max(room - rest, _REST // 4))),
        ("dos", lambda: _dos(files.arrays, record, points)),
        ("runs", lambda: _runs(files, points)),
    ):
        try:
            data[key] = made()
        except (KeyError, ValueError, IndexError, TypeError) as error:
            problems.append(f"{key} cannot be shown: {type(error).__name__} {error}")
    if number(record, "acoustic_cutoff_THz") is not None:
        data["cutoff"] = plain(record["acoustic_cutoff_THz"])
    return data


def _texts(value: Any) -> list[str]:
    return [shown(one) for one in listing(value)]


def _numbers(record: Data) -> list[list[str]]:
    left_out = {"flags", "notes", "settings", "versions", "schema_version", "key"}
    kept = {key: value for key, value in record.items() if key not in left_out}
    return [[key, shown(value, 5)] for key, value in flattened(kept) if value is not None]


def _files(folder: pathlib.Path | None, page: pathlib.Path) -> list[list[str]]:
    """Return (name, link, size) of the files of a structure."""
    if folder is None:
        return []
    # stages/ holds what later stages build on, nothing to look at.
    found = sorted(
        p for p in folder.rglob("*")
        if p.is_file() and not _hidden(p, folder) and "stages" not in p.relative_to(folder).parts
    )  # fmt: skip
    return [
        [str(p.relative_to(folder)), link(p, page), size_text(p.stat().st_size)] for p in found[:60]
    ]


def _hidden(path: pathlib.Path, folder: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def link(path: pathlib.Path, page: pathlib.Path) -> str:
    """Return the relative URL of a file, seen from the folder of the page."""
    way = os.path.relpath(path.resolve(), page.resolve())
    # "./" first: a name with a colon must not read as a scheme.
    return "./" + urllib.parse.quote(pathlib.PurePath(way).as_posix())


def size_text(size: float) -> str:
    """Return a number of bytes for a reader."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _bands(arrays: dict[str, np.ndarray], room: int) -> Data | None:
    """Return bands by mode, with what colours them, thinned to `room` bytes."""
    if "path_frequencies_THz" not in arrays:
        return None
    frequencies = np.asarray(arrays["path_frequencies_THz"], float)
    distance = np.asarray(arrays["path_distance_per_A"], float)
    segments = [(int(a), int(b)) for a, b in arrays["path_segments"]]
    points, modes = frequencies.shape
    kept = _thinned(segments, max(room // (_BYTES * modes), 2), points)
    ends = [n for a, b in segments for n in (a, b - 1)]
    labels = [str(name) for name in np.ravel(arrays["path_labels"])]
    q = arrays.get("path_q")
    starts = [
        int(np.searchsorted(kept, b[0]))
        for a, b in itertools.pairwise(segments)
        if q is not None and np.abs(q[a[1] - 1] - q[b[0]]).max() > 1e-8
    ]
    T = np.asarray(arrays["temperatures_K"], float)
    n = int(np.argmax(T))
    msd = np.asarray(arrays["path_msd_mobile_A2"], float)[n]
    colours = {
        "participation": np.asarray(arrays["path_participation_ratio"], float),
        "coupling": np.asarray(arrays["path_coupling"], float),
        "msd": np.where(msd > 0, msd, np.nan),
    }
    return {
        "x": plain(distance[kept]),
        "y": plain(frequencies[kept].T),
        "colours": {
            name: plain(values[kept].T if name == "msd" else np.round(values[kept].T, 3), 3)
            for name, values in colours.items()
        },
        "ticks": _ticks(distance[ends], labels),
        "starts": starts,
        "temperature": shown(float(T[n])),
        "of": points if len(kept) < points else None,
    }


def _thinned(segments: Sequence[tuple[int, int]], budget: int, points: int) -> np.ndarray:
    """Return indices of at most about `budget` points, the ends of all segments among them."""
    if budget >= points:
        return np.arange(points)
    chosen = [
        np.unique(np.linspace(a, b - 1, max(_LEAST, budget * (b - a) // points)).round())
        for a, b in segments
    ]
    return np.unique(np.concatenate(chosen)).astype(int)


def _ticks(places: np.ndarray, labels: list[str]) -> list[list[Any]]:
    """Return (place, label), those at one place joined."""
    found: list[list[Any]] = []
    for x, name in zip(plain(places), labels, strict=True):
        name = "Γ" if name.upper() in ("GAMMA", "G") else name
        letter, _, digit = drawn(name).partition("_")
        name = f"{letter}<sub>{digit}</sub>" if digit else letter
        if found and abs(found[-1][0] - x) < 1e-4:
            if name not in found[-1][1].split("|"):
                found[-1][1] += f"|{name}"
        else:
            found.append([x, name])
    return found


def _dos(arrays: dict[str, np.ndarray], record: Data, points: int) -> Data | None:
    if "dos_per_THz" not in arrays:
        return None
    grid = np.asarray(arrays["dos_frequency_THz"], float)
    every = _even(len(grid), 2 * points)
    names = [str(name) for name in arrays["dos_groups"]]
    return {
        "x": plain(grid[every]),
        "y": {
            name: plain(np.asarray(curve, float)[every], 4)
            for name, curve in zip(names, arrays["dos_per_THz"], strict=True)
        },
        "centres": plain(mapping(record.get("pdos_center_THz"))),
    }


def _even(count: int, most: int) -> np.ndarray:
    """Return at most `most` indices below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _runs(files: StructureFiles, points: int) -> list[Data]:
    """Return displacements, their fits and spectra at every temperature with dynamics."""
    records = mapping(mapping(files.record.get("transport")).get("temperatures"))
    runs = []
    for label, found in records.items():
        arrays, one = files.transport.get(label, {}), mapping(found)
        run: Data = {"temperature": label, "said": _said(one), "flags": _texts(one.get("flags")),
                     "notes": _texts(one.get("notes"))}  # fmt: skip
        if "lags_ps" in arrays:
            lags = np.asarray(arrays["lags_ps"], float)
            every = _even(len(lags), points)
            curves = {
                key.removeprefix("msd_").removesuffix("_A2"): plain(np.asarray(value)[every])
                for key, value in arrays.items()
                if key.startswith("msd_") and key.endswith("_A2") and np.shape(value) == lags.shape
            }
            run["msd"] = {"x": plain(lags[every]), "y": curves, "fit": _fit(one)}
        if "vdos_per_THz" in arrays:
            run["vdos"] = _vdos(arrays, one, points)
        if "channel_shares" in arrays:
            shares = np.asarray(arrays["channel_shares"], float)
            every = _even(len(shares), points)
            run["channels"] = {
                "x": plain(shares[every]),
                "y": plain(np.asarray(arrays["channel_dimensionality"])[every]),
            }
        if "density_plane_per_A3" in arrays:
            run["density"] = _density(arrays)
        runs.append(run)
    return runs


def _density(arrays: dict[str, np.ndarray], most: int = 60) -> Data:
    """Return a density on the plane of two lattice vectors, in their fractions."""
    plane = np.asarray(arrays["density_plane_per_A3"], float)
    a, b = (_even(n, most) for n in plane.shape)
    lengths = np.linalg.norm(np.asarray(arrays["density_vectors_A"], float), axis=1)
    return {
        "x": plain(a / plane.shape[0] * lengths[0]),
        "y": plain(b / plane.shape[1] * lengths[1]),
        "z": plain(plane[np.ix_(a, b)].T),
        "axis": str(arrays["density_axis"]),
    }


def _fit(record: Data) -> Data | None:
    """Return the fitted line: D, its interval (Å²/ps), intercept (Å²) and lags (ps)."""
    D, intercept = number(record, "D_A2_ps"), number(record, "D_intercept_A2")
    lags, interval = listing(record.get("D_fit_ps")), listing(record.get("D_interval_A2_ps"))
    if D is None or intercept is None or len(lags) != 2:
        return None
    return plain({"D": D, "intercept": intercept, "lags": lags, "interval": interval,
                  "censored": bool(record.get("D_censored"))})  # fmt: skip


def _said(record: Data) -> str:
    """Return what a fit says in words."""
    D = number(record, "D_A2_ps")
    if D is None:
        return "no fit of the diffusion"
    ends = [shown(x) or "?" for x in listing(record.get("D_interval_A2_ps"))]
    if record.get("D_censored"):
        said = f"D below {ends[-1] if ends else '?'} Å²/ps (95 %)"
    else:
        said = f"D = {shown(D)} Å²/ps, 95 %: {' to '.join(ends)}"
    intercept, lags = number(record, "D_intercept_A2"), listing(record.get("D_fit_ps"))
    if intercept is not None:
        said += f"; intercept {shown(intercept)} Å²"
    if len(lags) == 2:
        said += f"; fitted from {shown(lags[0])} to {shown(lags[1])} ps"
    paper = number(record, "D_paper_A2_ps")
    if paper is not None:
        said += f"; through the origin {shown(paper)} Å²/ps"
        rest = number(record, "D_paper_if_at_rest_A2_ps")
        said += f" (vibrations alone would give {shown(rest)})" if rest is not None else ""
    return said


def _vdos(arrays: dict[str, np.ndarray], record: Data, points: int) -> Data:
    grid = np.asarray(arrays["vdos_frequencies_THz"], float)
    density = np.asarray(arrays["vdos_per_THz"], float)
    grown = np.cumsum(density[:, -1])
    end = int(1.2 * np.searchsorted(grown, 0.98 * grown[-1])) + 1
    every = _even(min(end, len(grid)), 2 * points)
    return {
        "x": plain(grid[every]),
        "y": {
            chemical_symbols[z]: plain(density[every, n], 4)
            for n, z in enumerate(int(z) for z in arrays["vdos_species"])
            if z > 0
        },
        "centres": plain(mapping(record.get("vdos_centre_vibrational_THz"))),
    }


__all__ = ["link", "size_text", "structure_data"]
