"""The three panels of a phonon figure, frequency upwards in each: arrays to axes."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize

from phojax.plots.data import Bands, DensityOfStates, MeshModes
from phojax.plots.style import GREY, HOSTS, INK, MOBILE, NORMAL, joined_ticks


def draw_bands(
    axes: Axes, bands: Bands, values: np.ndarray, cmap: Colormap, norm: Normalize
) -> None:
    """Draw the bands coloured by `values` (point, mode), broken where the path is."""
    x, y = np.asarray(bands.distance), np.asarray(bands.frequencies_THz)
    bounds = sorted({0, *bands.starts, len(x)})
    pieces, colours = [], []
    for start, end in itertools.pairwise(bounds):
        piece = np.stack(np.broadcast_arrays(x[start:end, None], y[start:end]), -1)
        pieces.append(np.stack([piece[:-1], piece[1:]], axis=2).reshape(-1, 2, 2))
        colours.append(_between(values[start:end]).ravel())
    lines = LineCollection(
        list(np.concatenate(pieces)), cmap=cmap, norm=norm, linewidths=1.3, capstyle="round"
    )
    lines.set_array(np.concatenate(colours))
    axes.add_collection(lines, autolim=False)
    places, names = joined_ticks(bands.ticks, bands.labels)
    for place in places:
        axes.axvline(place, color=GREY, linewidth=0.5, zorder=0)
    axes.set_xlim(x.min(), x.max())
    axes.set_xticks(places, names, fontsize=NORMAL)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("Frequency (THz)", fontsize=NORMAL)


def draw_participation(
    axes: Axes, mesh: MeshModes, values: np.ndarray, cmap: Colormap, norm: Normalize, label: str
) -> None:
    """Draw participation against frequency, one dot per mode, coloured by `values`."""
    order = np.argsort(np.where(np.isfinite(values), np.abs(values), -np.inf))  # vivid ones on top
    axes.scatter(
        np.asarray(mesh.participation)[order],
        np.asarray(mesh.frequencies_THz)[order],
        c=values[order],
        s=5 if len(order) > 1000 else 9,
        cmap=cmap,
        norm=norm,
        linewidths=0,
        plotnonfinite=True,
        rasterized=len(order) > 500,
    )
    axes.set_xlim(0, 1.03)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xlabel(label, fontsize=NORMAL)


def draw_dos(axes: Axes, dos: DensityOfStates, mobile: str) -> None:
    """Draw the density of states and its parts; a dashed line at the centre of each part."""
    f = np.asarray(dos.frequencies_THz)
    total = np.asarray(dos.total)
    axes.fill_betweenx(f, 0, total, color="#e6e6e6", linewidth=0, label="all atoms")
    axes.plot(total, f, color=GREY, linewidth=0.6)
    colours = species_colours(tuple(dos.by_species), mobile)
    top = max(float(total.max(initial=0.0)), 1e-12) * 1.08
    for symbol, curve in dos.by_species.items():
        width = 1.5 if symbol == mobile else 1.0
        centre = dos.center_THz.get(symbol)
        name = symbol if centre is None else f"{symbol}, centre {centre:.2f} THz"
        axes.plot(curve, f, color=colours[symbol], linewidth=width, label=name)
        if centre is not None:
            axes.plot([0, top], [centre, centre], color=colours[symbol], lw=0.9, ls=(0, (5, 2)))
    axes.set_xlim(0, top)
    axes.set_xticks([0], ["0"])
    axes.set_xlabel("Density of states", fontsize=NORMAL)


def draw_cutoffs(panels: list[Axes], cutoffs: dict[str, float]) -> None:
    """Draw the acoustic cutoffs through all panels, the first strongest."""
    styles = [(1.1, (0, (1, 1.4))), (0.7, (0, (4, 1.5, 1, 1.5))), (0.7, (0, (1, 3)))]
    for n, (name, place) in enumerate(cutoffs.items()):
        if not np.isfinite(place):
            continue
        width, dashes = styles[min(n, len(styles) - 1)]
        for axes in panels:
            text = f"acoustic cutoff ({name}) {place:.2f} THz" if axes is panels[-1] else None
            axes.axhline(place, color=INK, lw=width, ls=dashes, zorder=1.5, label=text)


def species_colours(symbols: tuple[str, ...], mobile: str) -> dict[str, str]:
    """Return a colour per species, the mobile one always the same."""
    hosts = [s for s in symbols if s != mobile]
    return {mobile: MOBILE, **{s: HOSTS[n % len(HOSTS)] for n, s in enumerate(hosts)}}


def _between(values: np.ndarray) -> np.ndarray:
    """Return values on the segments between points: the mean, or the one that is defined."""
    first, second = values[:-1], values[1:]
    mean = (first + second) / 2
    return np.where(np.isnan(first), second, np.where(np.isnan(second), first, mean))
