"""What `phojax md` and `phojax diffusion` write: records, arrays, densities, figures."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from phojax.checks import fail
from phojax.io.records import read_record, write_modes
from phojax.io.structures import write_structure
from phojax.io.trajectory_writers import write_ase_traj, write_extxyz, write_trajectory_npz
from phojax.io.volumetric import write_chgcar, write_cube
from phojax.md.activation import Activation, activation
from phojax.md.density import IonDensity
from phojax.md.diffusion import Diffusion
from phojax.md.observed import Observed
from phojax.md.trajectory import Trajectory
from phojax.md.transport import Transport, transport
from phojax.md.transport_record import activation_record, transport_record
from phojax.plots.figures import save_figure
from phojax.plots.transport import (
    ArrheniusPoints,
    DensityMap,
    DisplacementCurves,
    Spectra,
    arrhenius_figure,
    transport_figure,
)
from phojax.structure import Structure

FILES = ("transport-*.*", "density-*.*", "trajectory-*.*", "structure.extxyz", "arrhenius.*")
"""Patterns of what is written beside the record."""

_WRITERS: dict[str, Callable[[pathlib.Path, Trajectory], None]] = {
    "npz": lambda path, run: write_trajectory_npz(path, run),
    "extxyz": lambda path, run: write_extxyz(path, run),
    "traj": lambda path, run: write_ase_traj(path, run),
}


def write_transport(
    folder: pathlib.Path,
    observed: Sequence[Observed],
    crystal: Structure,
    record: dict[str, Any],
    *,
    begin_ps: float,
    charge: float,
    figures: bool,
    phonons: pathlib.Path | None = None,
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Write everything but the record of one input, and return that.

    Args:
        folder: Of the input.
        observed: At each of its temperatures.
        crystal: To show with densities.
        record: What is known otherwise, with "name", "flags" and "notes", which grow.
        begin_ps: Where the ballistic part ends.
        charge: Of a mobile ion, in e.
        figures: Whether there are any.
        phonons: Record of phonons of the same crystal, or a folder of such, by name.
        sources: What each temperature is from, for titles; by default that of the record.

    Raises:
        InputError: no record of phonons there.
    """
    cutoff = None if phonons is None else acoustic_cutoff(phonons, record["name"])
    folder.mkdir(parents=True, exist_ok=True)
    write_structure(folder / "structure.extxyz", crystal)
    found = [transport(one, begin_ps=begin_ps, charge=charge) for one in observed]
    records = {}
    for place, one in enumerate(found):
        label = temperature_label(one.observed.temperature_K)
        source = sources[place] if sources else record["source"]
        title = f"{record['formula']}, {label}, {_brief(source)}"
        drawn = _figure(one, crystal, title, cutoff) if figures else None
        records[label.removesuffix(" K")] = _written(folder, label, one, crystal, drawn)
        record["flags"] += [f for f in one.flags if f not in record["flags"]]
        record["notes"] += [f"{label}: {note}" for note in one.notes]
    over = activation(found)
    record["notes"] += over.notes
    record["temperatures"] = records
    record["arrhenius"] = activation_record(over)
    if cutoff is not None:
        record["acoustic_cutoff_THz"] = cutoff
    if figures and len(found) > 1 and all(one.total is not None for one in found):
        drawn = arrhenius_figure(
            f"{record['formula']}, "
            + (f"{len(sources)} trajectories" if len(sources) > 1 else _brief(record["source"])),
            record["mobile"],
            _points(found, over),
        )
        save_figure(drawn, folder / "arrhenius")
    return record


def temperature_label(temperature_K: float | None) -> str:
    """Return the name of a temperature: "800 K", or "unknown"."""
    return "unknown" if temperature_K is None else f"{temperature_K:g} K"


def _brief(text: str, most: int = 44) -> str:
    """Return a text that fits into a title."""
    return text if len(text) <= most else text[: most - 1] + "…"


def acoustic_cutoff(phonons: pathlib.Path, name: str) -> float:
    """Return the acoustic cutoff in THz from a record of phonons.

    Args:
        phonons: The record, its folder, or a folder of results.
        name: Of the input, where it is a folder of results.

    Raises:
        InputError: no record there, or none of phonons.
    """
    places = (phonons, phonons / "record.json", phonons / name / "record.json")
    found = read_record(next((place for place in places if place.is_file()), places[-1]))
    cutoff = found.get("acoustic_cutoff_THz")
    if not isinstance(cutoff, float):
        raise fail(f"{phonons}: no acoustic_cutoff_THz", "a record of `phojax phonons`")
    return cutoff


def _written(
    folder: pathlib.Path, label: str, found: Transport, crystal: Structure, drawn: Figure | None
) -> dict[str, Any]:
    """Write arrays, densities and the figure of one temperature; return its record."""
    label = label.replace(" ", "")
    write_modes(folder / f"transport-{label}.npz", arrays_of(found))
    density = found.observed.density
    if density is not None:
        write_chgcar(folder / f"density-{label}.vasp", density, crystal)
        write_cube(folder / f"density-{label}.cube", density, crystal)
    if drawn is not None:
        save_figure(drawn, folder / f"transport-{label}")
    return transport_record(found)


def write_trajectories(
    folder: pathlib.Path, label: str, run: Trajectory, formats: Sequence[str]
) -> None:
    """Write the frames of one system in the formats asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in formats:
        _WRITERS[name](folder / f"trajectory-{label}.{name}", run)


def arrays_of(found: Transport) -> Mapping[str, Any]:
    """Return the arrays behind record and figure, units in their names."""
    seen = found.observed
    stats = seen.statistics
    arrays: dict[str, Any] = {
        "lags_ps": stats.lags_ps,
        "origins": stats.origins,
        "moments_atoms_A2": stats.atoms.astype(np.float32),
        "numbers": stats.numbers,
        "collective_A2": stats.collective,
        "first_msd_A2": np.stack([_cut(x, seen.first_msd) for x in seen.first_msd]),
        "interval_ps": stats.interval_ps,
    }
    for z in stats.species:
        arrays[f"msd_{chemical_symbols[z]}_A2"] = stats.msd(z)
    if seen.vacf is not None:
        arrays["vacf_amu_A2_ps2"] = seen.vacf.values
    if found.vdos is not None:
        arrays["vdos_frequencies_THz"] = found.vdos.frequencies_THz
        arrays["vdos_per_THz"] = found.vdos.density
        arrays["vdos_species"] = np.array(found.vdos.species)
    density = found.observed.density
    if density is not None:
        along, _, vectors = _plane(density.cell)
        arrays["density_plane_per_A3"] = density.values.mean(axis=along).astype(np.float32)
        arrays["density_vectors_A"] = vectors
        arrays["density_axis"] = np.array("abc"[along])
    if found.opening is not None:
        arrays["channel_shares"] = found.opening.shares
        arrays["channel_dimensionality"] = found.opening.dimensionality
    return arrays


def _cut(x: np.ndarray, all_: Sequence[np.ndarray]) -> np.ndarray:
    return x[: min(len(y) for y in all_)]


def _figure(found: Transport, crystal: Structure, title: str, cutoff: float | None) -> Figure:
    symbol = chemical_symbols[found.observed.mobile]
    notes = tuple(found.flags)
    return transport_figure(
        title, symbol, _curves(found), _spectra(found, cutoff), _map(found, crystal), notes
    )


def _curves(found: Transport) -> DisplacementCurves:
    stats, total = found.observed.statistics, found.total
    symbols = {chemical_symbols[z]: stats.msd(z) for z in stats.species}
    if total is None:
        return DisplacementCurves(stats.lags_ps, symbols, None, 0, (0, 0), 0, "", "")
    low, high = total.interval
    label = f"D = {total.D:.3g} Å²/ps, 95 %: {low:.3g} to {high:.3g}"
    if total.below_detection:
        label = f"D < {high:.3g} Å²/ps (95 %)"
    return DisplacementCurves(
        stats.lags_ps, symbols, (float(total.lags_ps[0]), float(total.lags_ps[-1])),
        6 * total.D, (6 * low, 6 * high), total.intercept, label, _doubt(total),
    )  # fmt: skip


def _doubt(total: Diffusion) -> str:
    """Return why there is a bound only."""
    if not total.below_detection:
        return ""
    bent = total.subdiffusive and total.poor_fit
    return "not on a line: a bound only" if bent else "below the detection limit"


def _spectra(found: Transport, cutoff: float | None) -> Spectra | None:
    if found.vdos is None:
        return None
    of = found.vdos
    columns = [(n, z) for n, z in enumerate(of.species) if z > 0]
    names = {chemical_symbols[z]: n for n, z in columns}
    # All but a hundredth of the density is shown.
    grown = np.cumsum(of.density[:, -1])
    place = int(np.searchsorted(grown, 0.99 * grown[-1]))
    return Spectra(
        of.frequencies_THz,
        {symbol: of.density[:, n] for symbol, n in names.items()},
        {symbol: float(of.centre_vibrational_THz[n]) for symbol, n in names.items()},
        float(of.frequencies_THz[min(place, len(grown) - 1)]) * 1.1,
        cutoff,
    )


def _points(found: Sequence[Transport], over: Activation) -> ArrheniusPoints:
    total = [one.total for one in found if one.total is not None]
    T = np.array([one.observed.temperature_K for one in found], float)
    hidden = np.array([d.below_detection for d in total])
    shown = np.array([d.interval[1] if d.below_detection else d.D for d in total])
    paper = np.array([np.nan if one.paper is None else one.paper.average for one in found])
    line, values, band, label = np.zeros(0), np.zeros(0), np.zeros((0, 2)), ""
    if over.fit is not None:
        line = 1 / np.linspace(1 / T.max(), 1 / T.min(), 50)
        at = [over.fit.diffusion_at(float(x)) for x in line]
        values, band = np.array([d for d, _ in at]), np.array([i for _, i in at])
        low, high = over.fit.activation_interval_meV
        label = f"{over.fit.activation_meV:.0f} meV, 95 %: {low:.0f} to {high:.0f}"
    return ArrheniusPoints(
        T, shown, np.array([d.interval for d in total]), hidden, np.array(over.left_out, bool),
        paper, line, values, band, label or "no line: fewer than two detected points",
    )  # fmt: skip


def _map(found: Transport, crystal: Structure) -> DensityMap | None:
    density: IonDensity | None = found.observed.density
    if density is None:
        return None
    along, (a, b), (x, y) = _plane(density.cell)
    fraction = np.asarray(crystal.positions) @ np.linalg.inv(density.cell)
    fraction -= np.floor(fraction)
    hosts = {
        s: np.stack([fraction[k, a] * x + fraction[k, b] * y for k in _of(crystal, s)])
        for s in sorted(set(crystal.symbols))
        if s != chemical_symbols[found.observed.mobile]
    }
    label = ""
    if found.channels is not None:
        label = f"channels: {found.channels.dimensionality}D, 90 % of the ions inside"
    return DensityMap(density.values.mean(axis=along), np.stack([x, y]), "abc"[along], hosts, label)


def _plane(cell: np.ndarray) -> tuple[int, tuple[int, int], np.ndarray]:
    """Return the shortest lattice vector, the other two, and these in a plane, first along x."""
    lengths = np.linalg.norm(cell, axis=1)
    along = int(np.argmin(lengths))
    a, b = (n for n in range(3) if n != along)
    shadow = float(cell[a] @ cell[b]) / lengths[a]
    height = float(np.sqrt(max(lengths[b] ** 2 - shadow**2, 0.0)))
    return along, (a, b), np.array([[lengths[a], 0.0], [shadow, height]])


def _of(crystal: Structure, symbol: str) -> list[int]:
    return [k for k, s in enumerate(crystal.symbols) if s == symbol]


__all__ = [
    "FILES",
    "arrays_of",
    "temperature_label",
    "write_trajectories",
    "write_transport",
]
