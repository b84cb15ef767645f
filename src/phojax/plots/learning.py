"""Figures of what was learnt: correlations with their control, parity, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phojax.plots.style import ALERT, GREY, HOSTS, INK, LARGE, MOBILE, NORMAL, SMALL

_DPI = 300
_COLOURS = (MOBILE, *HOSTS)


@dataclass(frozen=True)
class Bars:
    """Coefficients of descriptors, from the top of the figure down.

    Attributes:
        names: Of descriptors.
        values: (name,), NaN where undefined.
        low: Ends of the intervals, NaN where there are none.
        high: The other ends.
        control: (name,) the same through the origin; NaN where unknown.
        needs_md: (name,) whether a descriptor is of the dynamics that D is of.
        label: Of the axis.
    """

    names: Sequence[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    control: np.ndarray
    needs_md: np.ndarray
    label: str


@dataclass(frozen=True)
class Parity:
    """Predictions beside measurements, log10 of Å²/ps.

    Attributes:
        measured: (row,) values, or limits of censored rows.
        error: (row,) of the measurement.
        censored: (row,).
        predicted: (row,) by models without the chemical system.
        deviation: (row,) of the prediction.
        label: What is said in the panel.
    """

    measured: np.ndarray
    error: np.ndarray
    censored: np.ndarray
    predicted: np.ndarray
    deviation: np.ndarray
    label: str


def correlation_figure(bars: Bars, title: str) -> Figure:
    """Return bars of coefficients with 95 % intervals, and the control as open circles."""
    count = len(bars.names)
    figure = _figure((5.2, 1.25 + 0.21 * max(count, 3)))
    axes = figure.add_subplot()
    y = np.arange(count)
    colours = [GREY if md else HOSTS[0] for md in bars.needs_md]
    axes.barh(y, np.nan_to_num(bars.values), height=0.62, color=colours, alpha=0.75)
    known = np.isfinite(bars.low) & np.isfinite(bars.high)
    axes.hlines(y[known], bars.low[known], bars.high[known], color=INK, linewidth=1.0)
    for end in (bars.low, bars.high):
        axes.plot(end[known], y[known], "|", color=INK, markersize=4)
    shown = np.isfinite(bars.control)
    axes.plot(bars.control[shown], y[shown], "o", markerfacecolor="white", color=ALERT,
              markersize=4, zorder=4)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set(xlim=(-1, 1), ylim=(count - 0.4, -0.6))
    axes.set_yticks(y, bars.names, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel(bars.label, fontsize=NORMAL)
    handles = [
        axes.barh([np.nan], [0], color=HOSTS[0], alpha=0.75, label="fit with an intercept, 95 %")
    ]
    if np.any(bars.needs_md):
        handles.append(axes.barh([np.nan], [0], color=GREY, alpha=0.75, label="from dynamics, too"))
    if shown.any():
        handles += axes.plot([], [], "o", markerfacecolor="white", color=ALERT, markersize=4,
                             label="control: through the origin")  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False
    )
    figure.suptitle(title, fontsize=LARGE, x=0.01, ha="left")
    return figure


def parity_figure(panels: Mapping[str, Parity], title: str) -> Figure:
    """Return predicted against measured log10 D, a panel for each model, censored rows as arrows.

    Args:
        panels: By name of the model.
        title: Of the figure.
    """
    count = len(panels)
    figure = _figure((0.5 + 2.35 * count, 3.35))
    grid = list(np.atleast_1d(figure.subplots(1, count, sharex=True, sharey=True)))
    every = np.concatenate([np.concatenate([p.measured, p.predicted]) for p in panels.values()])
    every = every[np.isfinite(every)]
    room = 0.08 * float(np.ptp(every)) or 0.5
    low, high = float(every.min()) - room, float(every.max()) + room
    for axes, (name, of) in zip(grid, panels.items(), strict=True):
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.7, zorder=0)
        seen = ~of.censored
        axes.errorbar(of.measured[seen], of.predicted[seen], xerr=of.error[seen],
                      yerr=of.deviation[seen], fmt="o", markersize=2.6, color=HOSTS[0],
                      ecolor="#9fc3dd", elinewidth=0.5, label="detected")  # fmt: skip
        if of.censored.any():
            length = 0.05 * (high - low)
            axes.errorbar(of.measured[~seen], of.predicted[~seen], xerr=length, xuplims=True,
                          fmt="|", color=ALERT, markersize=5, elinewidth=0.7,
                          label="below detection: the limit")  # fmt: skip
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.text(0.04, 0.96, of.label, transform=axes.transAxes, va="top", fontsize=SMALL)
        axes.set_title(name, fontsize=NORMAL)
        axes.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    grid[0].set_ylabel("predicted log$_{10}$ D/(Å²/ps)", fontsize=NORMAL)
    grid[count // 2].set_xlabel("measured log$_{10}$ D/(Å²/ps)", fontsize=NORMAL)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
                  fontsize=SMALL, frameon=False)  # fmt: skip
    figure.suptitle(title, fontsize=LARGE, x=0.01, ha="left")
    return figure


def calibration_figure(
    at: np.ndarray,
    observed: Mapping[str, np.ndarray],
    histogram: np.ndarray,
    band: float,
    title: str,
) -> Figure:
    """Return observed against expected shares, and the histogram of one model.

    Args:
        at: (point,) expected shares in [0, 1].
        observed: (point,) distribution of the probability integral transform, by model; the first
            is drawn as the one that matters.
        histogram: (bin,) density of the first model's transform; 1 if calibrated.
        band: Half width of the 95 % band of a calibrated model.
        title: Of the figure.
    """
    figure = _figure((6.4, 3.2))
    left, right = figure.subplots(1, 2)
    left.fill_between([0, 1], [-band, 1 - band], [band, 1 + band], color=GREY, alpha=0.2,
                      linewidth=0, label="calibrated, 95 %")  # fmt: skip
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.7)
    for n, (name, values) in enumerate(observed.items()):
        left.plot(at, values, color=_COLOURS[n % len(_COLOURS)], label=name,
                  linewidth=1.8 if n == 0 else 0.9, zorder=4 if n == 0 else 3)  # fmt: skip
    left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    left.set_xlabel("expected share below", fontsize=NORMAL)
    left.set_ylabel("observed share below", fontsize=NORMAL)
    left.legend(fontsize=SMALL, frameon=False, loc="upper left")
    edges = np.linspace(0, 1, len(histogram) + 1)
    right.bar(edges[:-1], histogram, width=np.diff(edges), align="edge", color=_COLOURS[0],
              alpha=0.6, edgecolor="white")  # fmt: skip
    right.axhline(1, color=INK, linewidth=0.8)
    right.set(xlim=(0, 1), ylim=(0, 1.25 * max(1.5, float(np.max(histogram)))))
    right.set_xlabel(f"probability integral transform, {next(iter(observed))}", fontsize=NORMAL)
    right.set_ylabel("density (calibrated: 1)", fontsize=NORMAL)
    _few_ticks(left, right)
    figure.suptitle(title, fontsize=LARGE, x=0.01, ha="left")
    return figure


def _few_ticks(*panels: Axes) -> None:
    for axes in panels:
        axes.tick_params(labelsize=SMALL, width=0.6, length=2.5)


def _figure(size: tuple[float, float]) -> Figure:
    figure = Figure(size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
