"""What a phonon figure shows, as plain arrays: nothing is computed after this point."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from phojax.checks import check_shape


@dataclasses.dataclass(frozen=True, eq=False)
class Bands:
    """Modes along a path; imaginary modes as negative frequencies.

    Attributes:
        distance: Position of every point along the path, any unit, not decreasing.
        frequencies_THz: Frequencies.
        msd_A2: Mean-square displacement of the mobile ions in each mode, Å²; NaN where it is
            undefined (imaginary modes, translations).
        coupling: Coupling of mobile ions and host in each mode, -1 to 1; NaN where undefined.
        ticks: Positions of the special points.
        labels: Their names; "GAMMA" becomes Γ, "X_1" gets a subscript. Two at one place are
            joined by a bar.
        starts: Indices of the points at which a new, unconnected piece of the path begins.
    """

    distance: Float[np.ndarray, " point"]
    frequencies_THz: Float[np.ndarray, "point mode"]
    msd_A2: Float[np.ndarray, "point mode"]
    coupling: Float[np.ndarray, "point mode"]
    ticks: Float[np.ndarray, " tick"]
    labels: tuple[str, ...]
    starts: tuple[int, ...] = (0,)


@dataclasses.dataclass(frozen=True, eq=False)
class MeshModes:
    """Modes of a q mesh in any order, one entry each; NaN as in `Bands`.

    Attributes:
        frequencies_THz: Frequencies.
        participation: Participation ratio, 0 to 1.
        msd_A2: As in `Bands`, that is of a mode, without the weight 1/N_q of its q point.
        coupling: As in `Bands`.
    """

    frequencies_THz: Float[np.ndarray, " entry"]
    participation: Float[np.ndarray, " entry"]
    msd_A2: Float[np.ndarray, " entry"]
    coupling: Float[np.ndarray, " entry"]


@dataclasses.dataclass(frozen=True, eq=False)
class DensityOfStates:
    """Densities of states on one grid.

    Attributes:
        frequencies_THz: The grid.
        total: Total density, any unit.
        by_species: Its parts, by symbol.
        center_THz: Centre of each part, by symbol; a species may be missing.
    """

    frequencies_THz: Float[np.ndarray, " grid"]
    total: Float[np.ndarray, " grid"]
    by_species: Mapping[str, Float[np.ndarray, " grid"]]
    center_THz: Mapping[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class FigureData:
    """All of one figure.

    Attributes:
        bands: Along the band path.
        mesh: On the q mesh.
        dos: Densities of states.
        acoustic_cutoff_THz: By the name of its definition; the first is drawn strongest.
        mobile: Symbol of the mobile ion.
        temperature_K: Of the displacements.
        title: Formula, space group, potential: what the reader should know first.
        notes: Flags and warnings, shown under the title.
        participation_label: Which of the two participation ratios it is.
    """

    bands: Bands
    mesh: MeshModes
    dos: DensityOfStates
    acoustic_cutoff_THz: Mapping[str, float]
    mobile: str
    temperature_K: float
    title: str
    notes: tuple[str, ...] = ()
    participation_label: str = "Participation ratio"


def check_figure_data(data: FigureData) -> None:
    """Raise InputError where two arrays of the figure do not fit together."""
    bands, mesh, dos = data.bands, data.mesh, data.dos
    points, modes = np.shape(bands.frequencies_THz)
    _check("bands", bands, ("msd_A2", "coupling"), (points, modes))
    check_shape("bands.distance", bands.distance, (points,), "one per point")
    check_shape("bands.labels", bands.labels, (len(bands.ticks),), "one per tick")
    entries = np.shape(mesh.frequencies_THz)
    _check("mesh", mesh, ("participation", "msd_A2", "coupling"), entries)
    grid = np.shape(dos.frequencies_THz)
    _check("dos", dos, ("total",), grid)
    for symbol, curve in dos.by_species.items():
        check_shape(f"dos.by_species[{symbol}]", curve, grid, "one per frequency of the grid")


def _check(owner: str, holder: Any, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
    for name in names:
        check_shape(f"{owner}.{name}", getattr(holder, name), shape, "as the frequencies")
