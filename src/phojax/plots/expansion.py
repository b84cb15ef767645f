"""Thermal expansion: the cell and its expansion over temperature, and the modes behind it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phojax.plots.style import ALERT, GREY, HOSTS, MOBILE, NORMAL, SMALL, letter_panel, set_title

_SIZE = (7.2, 2.7)  # inches: two columns of a journal
_DPI = 300
_SAME = 1e-3  # of the largest: axes that expand alike


@dataclass(frozen=True)
class ExpansionData:
    """Plain arrays over ascending temperatures; NaN where there is no minimum.

    Attributes:
        title: A line.
        temperatures: K.
        volume: V over that of the static minimum.
        expansion: α along x, y, z, 1/K.
        linear: α to first order about the static minimum, 1/K.
        frequencies_THz: Of modes at the static minimum, translations left out.
        gruneisen: Of the volume, of these modes.
        trusted: Where nothing speaks against the cell.
        notes: Sentences that must not be missed.
    """

    title: str
    temperatures: Float[np.ndarray, " T"]
    volume: Float[np.ndarray, " T"]
    expansion: Float[np.ndarray, "T 3"]
    linear: Float[np.ndarray, "T 3"]
    frequencies_THz: Float[np.ndarray, " mode"]
    gruneisen: Float[np.ndarray, " mode"]
    trusted: np.ndarray
    notes: tuple[str, ...] = ()


def expansion_figure(data: ExpansionData) -> Figure:
    """Return the three panels."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, 3))
    _draw_volume(panels[0], data)
    _draw_expansion(panels[1], data)
    _draw_modes(panels[2], data)
    for letter, axes in zip("abc", panels, strict=True):
        letter_panel(axes, letter)
    set_title(figure, data.title, data.notes)
    return figure


def _draw_volume(axes: Axes, data: ExpansionData) -> None:
    T = data.temperatures
    percent = 100 * (data.volume - 1)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.plot(T, percent, color=MOBILE, lw=1.3)
    _draw_doubtful(axes, data, percent)
    axes.set_xlabel("Temperature (K)", fontsize=NORMAL)
    axes.set_ylabel("Volume above the static one (%)", fontsize=NORMAL)


def _draw_expansion(axes: Axes, data: ExpansionData) -> None:
    T = data.temperatures
    largest = np.nanmax(np.abs(data.expansion), initial=1e-12)
    drawn: list[int] = []
    names = ["x", "y", "z"]
    for axis in range(3):
        for other in drawn:
            apart = np.abs(data.expansion[:, axis] - data.expansion[:, other])
            if np.nanmax(apart, initial=0.0) < _SAME * largest:
                names[other] += f", {names[axis]}"
                break
        else:
            drawn.append(axis)
    axes.axhline(0, color=GREY, lw=0.6)
    for colour, axis in zip((MOBILE, *HOSTS), drawn, strict=False):
        y = 1e6 * data.expansion[:, axis]
        label = "" if len(drawn) == 1 else f" along {names[axis]}"
        axes.plot(T, y, color=colour, lw=1.3, label=f"quasi-harmonic{label}")
        axes.plot(T, 1e6 * data.linear[:, axis], color=colour, lw=0.9, ls=(0, (4, 2)),
                  label="first order" if axis == drawn[-1] else None)  # fmt: skip
        _draw_doubtful(axes, data, y)
    axes.set_xlabel("Temperature (K)", fontsize=NORMAL)
    axes.set_ylabel("Linear expansion (10⁻⁶/K)", fontsize=NORMAL)
    axes.legend(fontsize=SMALL, frameon=False)


def _draw_doubtful(axes: Axes, data: ExpansionData, y: np.ndarray) -> None:
    doubtful = ~data.trusted
    if np.any(doubtful & np.isfinite(y)):
        axes.plot(data.temperatures[doubtful], y[doubtful], "x", color=ALERT, ms=3.5, mew=0.8)


def _draw_modes(axes: Axes, data: ExpansionData) -> None:
    axes.axhline(0, color=GREY, lw=0.6)
    axes.plot(data.frequencies_THz, data.gruneisen, "o", color=HOSTS[0], ms=2.0, mew=0, alpha=0.6)
    axes.set_xlabel("Frequency (THz)", fontsize=NORMAL)
    axes.set_ylabel("Grüneisen parameter", fontsize=NORMAL)


__all__ = ["ExpansionData", "expansion_figure"]
