"""MSD of every mobile ion about the minima of snapshots, beside that of the ideal crystal."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from phojax.plots.style import ALERT, GREY, INK, LARGE, MOBILE, NORMAL, SMALL, letter_panel

_SIZE = (7.2, 3.1)  # inches: two columns of a journal
_DPI = 300
_BINS = 30
_NAMED = 12  # ions that stand out, with their number beside them
_NAME = 0.11, 0.04  # width and height of a name, shares of the panel
_WIDE = 8.0  # largest over median, from which on the scale is logarithmic
_SPREAD = 0.6  # of the distance between ions, over which snapshots are spread
_LISTED = 10  # snapshots in the legend


@dataclass(frozen=True)
class SnapshotData:
    """Plain arrays.

    Attributes:
        title: A line.
        mobile: Symbol.
        temperature_K: Of the displacements.
        atoms: Number of each mobile ion in the supercell.
        labels: Of the snapshots.
        msd_A2: ⟨u²⟩ of every ion in every snapshot.
        clean: Snapshots about which nothing is in doubt.
        moved: Ions that are not on their own site.
        stands_out_A2: MSD beyond which an ion stands out.
        ideal_A2: ⟨u²⟩ of the ions of the ideal crystal, one per ion; None where it is not known.
        notes: Sentences that must not be missed.
    """

    title: str
    mobile: str
    temperature_K: float
    atoms: Int[np.ndarray, " ion"]
    labels: tuple[str, ...]
    msd_A2: Float[np.ndarray, "snapshot ion"]
    clean: Bool[np.ndarray, " snapshot"]
    moved: Bool[np.ndarray, "snapshot ion"]
    stands_out_A2: float
    ideal_A2: Float[np.ndarray, " ion"] | None = None
    notes: tuple[str, ...] = ()


def snapshot_figure(data: SnapshotData) -> Figure:
    """Return ions one by one on the left, how they are distributed on the right."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    ions, share = figure.subplots(1, 2, sharey=True, width_ratios=(3.0, 1.0))
    wide = data.msd_A2.size > 0 and data.msd_A2.max() > _WIDE * np.median(data.msd_A2)
    if wide:
        ions.set_yscale("log")
    _draw_ions(ions, data)
    _draw_distribution(share, data, bool(wide))
    for axes, letter in ((ions, "a"), (share, "b")):
        letter_panel(axes, letter)
        _draw_lines(axes, data)
    if not wide:
        ions.set_ylim(bottom=0)
    handles = [h for h in ions.get_legend_handles_labels()[0] if h is not None]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(6, max(1, len(handles))),
        frameon=False, fontsize=SMALL, handletextpad=0.3, columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    figure.suptitle(data.title, x=0.01, ha="left", fontsize=LARGE, color=INK)
    if data.notes:
        share.text(
            0.98, 0.98, "\n".join(data.notes), transform=share.transAxes, fontsize=SMALL,
            color=ALERT, ha="right", va="top",
        )  # fmt: skip
    return figure


def _named(beyond: np.ndarray, data: SnapshotData) -> list[tuple[int, int]]:
    """Return (snapshot, ion) of the farthest ions whose names do not lie on each other."""
    wide, high = _NAME[0] * data.msd_A2.shape[1], _NAME[1] * np.nanmax(data.msd_A2)
    named: list[tuple[int, int]] = []
    for n, ion in sorted(beyond.tolist(), key=lambda at: -data.msd_A2[at[0], at[1]]):
        value = data.msd_A2[n, ion]
        if not any(abs(ion - b) < wide and abs(value - data.msd_A2[a, b]) < high for a, b in named):
            named.append((n, ion))
    return named[:_NAMED]


def _draw_ions(axes: Axes, data: SnapshotData) -> None:
    colours = colormaps["viridis"](np.linspace(0.0, 0.9, max(2, len(data.labels))))
    listed = len(data.labels) <= _LISTED
    for n, label in enumerate(data.labels):
        # Side by side: minima that are alike would hide each other.
        x = np.arange(len(data.atoms)) + _SPREAD * ((n + 0.5) / len(data.labels) - 0.5)
        own = ~data.moved[n]
        fill = colours[n] if data.clean[n] else "none"
        for mine, mark in ((own, "o"), (~own, "D")):
            if mine.any():
                axes.plot(
                    x[mine], data.msd_A2[n, mine], mark, ms=3.2, mfc=fill, mec=colours[n], mew=0.6,
                    label=label if listed and mark == ("o" if own.any() else "D") else None,
                )  # fmt: skip
    if data.moved.any():
        axes.plot([], [], "D", ms=3.2, mfc="none", mec=INK, mew=0.6, label="not on its own site")
    if not data.clean.all():
        axes.plot([], [], "o", ms=3.2, mfc="none", mec=INK, mew=0.6, label="in doubt")
    beyond = np.argwhere(data.msd_A2 > data.stands_out_A2)
    for n, ion in _named(beyond, data):
        axes.annotate(
            f"atom {data.atoms[ion]}", (ion, data.msd_A2[n, ion]), xytext=(3, 1),
            textcoords="offset points", fontsize=SMALL - 1, color=INK,
        )  # fmt: skip
    axes.set_xlabel(f"{data.mobile} ion", fontsize=NORMAL)
    axes.set_ylabel(f"MSD at {data.temperature_K:g} K (Å²)", fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.margins(x=0.02)


def _draw_distribution(axes: Axes, data: SnapshotData, wide: bool) -> None:
    used = data.msd_A2[data.clean] if data.clean.any() else data.msd_A2
    values = used.ravel()
    if values.size:
        # From zero, so that ions that are alike make one bar, not noise drawn large.
        edges = np.linspace(0.0, 1.001 * values.max(), _BINS + 1)
        if wide:
            edges = np.geomspace(0.999 * values.min(), 1.001 * values.max(), _BINS + 1)
        axes.hist(values, edges.tolist(), orientation="horizontal", color=MOBILE, alpha=0.7, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("Ions", fontsize=NORMAL)


def _draw_lines(axes: Axes, data: SnapshotData) -> None:
    if data.ideal_A2 is not None:
        for number, value in enumerate(np.unique(np.round(data.ideal_A2, 6))):
            axes.axhline(
                value, color=INK, lw=0.9, zorder=0.5,
                label="primitive cell, each site" if number == 0 else None,
            )  # fmt: skip
    if np.isfinite(data.stands_out_A2):
        axes.axhline(
            data.stands_out_A2, color=GREY, lw=0.8, ls="--", zorder=0.5, label="stands out above"
        )


__all__ = ["SnapshotData", "snapshot_figure"]
