"""Colours, line widths and names in figures, fit for readers who do not tell red from green."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

INK, GREY, UNDEFINED = "#1a1a1a", "#8c8c8c", "#b8b8b8"
ALERT = "#a3262a"
# Okabe and Ito, jfly.uni-koeln.de/color (2008); the mobile ion takes the first.
MOBILE = "#d55e00"
HOSTS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#7a5c00", "#444444")
SMALL, NORMAL, LARGE = 7.0, 8.0, 9.5  # points


def letter_panel(axes: Axes, letter: str) -> None:
    """Set the letter of a panel, its ticks and the lines about it."""
    axes.set_title(letter, loc="left", fontsize=NORMAL, fontweight="bold", pad=3)
    axes.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)


def set_title(figure: Figure, title: str, notes: Sequence[str]) -> None:
    """Set the title of a figure, and under its panels what is to be said of it."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE, color=INK)
    if notes:
        figure.supxlabel("; ".join(notes), x=0.01, ha="left", fontsize=SMALL, color=ALERT)


def without_folders(text: str) -> str:
    """Return a line with the names of files alone: paths are longer than a figure is wide."""
    return re.sub(r"\S*/(\S+)", r"\1", text)


def displacement_colours(values: np.ndarray) -> tuple[Colormap, Normalize]:
    """Return a map for MSD and its logarithmic scale, from the 1st to the 99th percentile.

    The MSD of acoustic modes has no bound towards Γ: they saturate, so that the others differ.
    The bright end of plasma is left out: it would be lost on white.
    """
    chosen = colormaps["plasma"](np.linspace(0.0, 0.87, 256))
    cmap = LinearSegmentedColormap.from_list("displacement", chosen).with_extremes(bad=UNDEFINED)
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return cmap, LogNorm(1e-3, 1.0)
    low, high = np.percentile(positive, [1, 99])
    # A scale needs an extent, and more than three decades would hide differences.
    return cmap, LogNorm(min(max(low, high * 1e-3), high / 3), high)


def coupling_colours() -> tuple[Colormap, Normalize]:
    """Return a diverging map on [-1, 1] whose middle is grey, so that it shows on white."""
    ends = ["#0b4f9e", "#4f8fce", "#a9a9a9", "#e08a3c", "#a84300"]
    cmap = LinearSegmentedColormap.from_list("coupling", ends).with_extremes(bad="#dddddd")
    return cmap, Normalize(-1.0, 1.0)


def point_label(name: str) -> str:
    """Return the name of a point of the zone for matplotlib: Γ, Σ and subscripts."""

    def one(part: str) -> str:
        greek = {"GAMMA": "Γ", "G": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}
        match = re.fullmatch(r"\\?([A-Za-zΓΣΔΛ]+)_?\{?(\d*)\}?", part)
        if match is None:
            return part
        letter = greek.get(match[1].upper(), match[1])
        return f"{letter}$_{{{match[2]}}}$" if match[2] else letter

    return "|".join(one(part) for part in name.split("|"))


def joined_ticks(ticks: np.ndarray, labels: tuple[str, ...]) -> tuple[list[float], list[str]]:
    """Return ticks with those at one place joined, "U" and "K" to "U|K"."""
    places: list[float] = []
    names: list[str] = []
    for x, label in zip(np.asarray(ticks, float), map(point_label, labels), strict=True):
        if places and abs(x - places[-1]) < 1e-8:
            if label not in names[-1].split("|"):
                names[-1] += f"|{label}"
        else:
            places.append(float(x))
            names.append(label)
    return places, names
