"""Parity of potentials with a reference, and bands laid over each other."""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phojax.plots.style import ALERT, GREY, HOSTS, INK, LARGE, MOBILE, NORMAL, SMALL, joined_ticks

_DPI = 300
_DOTS = 20_000  # of a panel at most; more would hide each other
_COLOURS = (MOBILE, *HOSTS)


def parity_figure(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    label: str,
    title: str = "",
) -> Figure:
    """Return one panel per potential: what it finds against the reference.

    Args:
        panels: For each potential, for each group of dots (an element, say), reference and found.
        label: Quantity and unit.
        title: Of the figure.
    """
    names = list(panels)
    groups = sorted({group for panel in panels.values() for group in panel})
    colours = dict(zip(groups, itertools.cycle(_COLOURS), strict=False))
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    head = textwrap.wrap(title, 36 * columns)
    size = (2.6 * columns + 0.3, 2.7 * lines + 0.3 + 0.17 * len(head))
    figure = Figure(size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(np.ravel(figure.subplots(lines, columns, squeeze=False)))
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    values = [
        x for panel in panels.values() for pair in panel.values() for x in map(np.ravel, pair)
    ]
    low, high = _limits(np.concatenate(values))
    for axes, name in zip(grid, names, strict=False):
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.7, zorder=0)
        square, count = 0.0, 0
        for group, (reference, found) in panels[name].items():
            x, y = np.ravel(reference), np.ravel(found)
            square, count = square + float(np.sum((y - x) ** 2)), count + len(x)
            step = max(1, len(x) // _DOTS)
            axes.plot(
                x[::step], y[::step], ".", color=colours[group], alpha=0.6,
                markersize=3 if len(x) < 3000 else 1.8,
                markeredgewidth=0, rasterized=True, label=group,
            )  # fmt: skip
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.text(
            0.04, 0.96, f"RMSE {math.sqrt(square / count):.3g}", transform=axes.transAxes,
            va="top", fontsize=SMALL, color=INK,
        )  # fmt: skip
        axes.set_title(_short(name), fontsize=NORMAL)
        axes.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    grid[0].set_ylabel(f"potential: {label}", fontsize=NORMAL)
    figure.supxlabel(f"reference: {label}", fontsize=NORMAL)
    if len(groups) > 1:
        grid[0].legend(
            loc="lower right", fontsize=SMALL, frameon=False, markerscale=5, handletextpad=0.1
        )
    if head:
        figure.suptitle("\n".join(head), fontsize=NORMAL, x=0.01, ha="left")
    return figure


def overlaid_bands(
    distance: np.ndarray,
    reference: np.ndarray,
    others: Mapping[str, np.ndarray],
    ticks: np.ndarray,
    labels: Sequence[str],
    starts: Sequence[int],
    reference_name: str,
    title: str = "",
) -> Figure:
    """Return bands (point, mode) in THz of potentials over those of the reference.

    Args:
        distance: (point,) along the path.
        reference: Drawn in black, below the others.
        others: By potential.
        ticks: Positions of the special points.
        labels: Their names.
        starts: First points of unconnected pieces of the path.
        reference_name: For the legend.
        title: Of the figure.
    """
    figure = Figure((4.8, 3.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _bands(axes, distance, reference, starts, INK, 1.6, reference_name)
    for (name, bands), colour in zip(others.items(), itertools.cycle(_COLOURS), strict=False):
        _bands(axes, distance, bands, starts, colour, 0.9, _short(name))
    places, names = joined_ticks(ticks, tuple(labels))
    for place in places:
        axes.axvline(place, color=GREY, linewidth=0.5, zorder=0)
    axes.set_xlim(distance.min(), distance.max())
    axes.set_xticks(places, names, fontsize=NORMAL)
    axes.tick_params(axis="x", length=0)
    axes.tick_params(labelsize=SMALL)
    axes.set_ylabel("Frequency (THz)", fontsize=NORMAL)
    low, high = axes.get_ylim()
    if min(map(np.min, (reference, *others.values()))) > -0.02 * high:
        axes.set_ylim(0, high)
    else:
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axhspan(low, 0, color=ALERT, alpha=0.05, linewidth=0, zorder=0)
        axes.set_ylim(low, high)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    if title:
        figure.suptitle(title, fontsize=LARGE, x=0.01, ha="left")
    return figure


def _bands(axes: Axes, distance, bands, starts, colour, width, name) -> None:
    bounds = sorted({0, *starts, len(distance)})
    for n, (start, end) in enumerate(itertools.pairwise(bounds)):
        lines = axes.plot(distance[start:end], bands[start:end], color=colour, linewidth=width)
        if n == 0:
            lines[0].set_label(name)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _short(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]
