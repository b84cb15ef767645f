"""Phonon figures: bands, participation and density of states side by side, saved as PNG and PDF.

No pyplot: figures made here share no state with the user's own, in any thread.
"""

import os
import pathlib
import textwrap

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from phojax.checks import fail
from phojax.io.atomic import replacing
from phojax.plots.data import FigureData, check_figure_data
from phojax.plots.panels import draw_bands, draw_cutoffs, draw_dos, draw_participation
from phojax.plots.style import (
    ALERT,
    INK,
    LARGE,
    NORMAL,
    SMALL,
    coupling_colours,
    displacement_colours,
    letter_panel,
)

_SIZE = (7.2, 4.1)  # inches: two columns of a journal
_DPI = 300


def phonon_figure(data: FigureData, colour: str = "msd") -> Figure:
    """Return bands, participation and density of states in one figure.

    Args:
        data: Plain arrays (see `FigureData`).
        colour: "msd": mean-square displacement of the mobile ions, logarithmic; "coupling":
            coupling of mobile ions and host.

    Raises:
        InputError: another colour, arrays that do not fit together.
    """
    if colour not in ("msd", "coupling"):
        raise fail(f"colour {colour!r}", '"msd" or "coupling"')
    check_figure_data(data)
    name = "msd_A2" if colour == "msd" else "coupling"
    on_path, on_mesh = (np.asarray(getattr(h, name), float) for h in (data.bands, data.mesh))
    if colour == "msd":
        # The mesh samples the zone evenly; a path dwells near Γ.
        cmap, norm = displacement_colours(on_mesh if np.isfinite(on_mesh).any() else on_path)
        label = f"MSD of {data.mobile} per mode (Å²), {data.temperature_K:g} K"
    else:
        cmap, norm = coupling_colours()
        label = f"Coupling of {data.mobile} and host"

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(np.atleast_1d(figure.subplots(1, 3, sharey=True, width_ratios=(2.2, 1.2, 1.2))))
    draw_bands(panels[0], data.bands, on_path, cmap, norm)
    draw_participation(panels[1], data.mesh, on_mesh, cmap, norm, data.participation_label)
    draw_dos(panels[2], data.dos, data.mobile)
    draw_cutoffs(panels, dict(data.acoustic_cutoff_THz))
    _frame(panels, data)
    bar = figure.colorbar(
        ScalarMappable(norm, cmap),
        ax=panels,
        pad=0.012,
        fraction=0.03,
        aspect=32,
        extend="both" if colour == "msd" else "neither",
    )
    bar.set_label(label, fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    handles = [h for axes in panels for h in axes.get_legend_handles_labels()[0]]
    columns = 3 if len(handles) <= 6 else 4
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False,
        fontsize=SMALL, handlelength=2.2, columnspacing=1.6, labelspacing=0.3, borderpad=0,
    )  # fmt: skip
    _title(figure, data)
    return figure


def save_figure(figure: Figure, stem: str | os.PathLike) -> list[pathlib.Path]:
    """Write `stem`.png (300 dpi) and `stem`.pdf (text as text); return their paths."""
    stem = pathlib.Path(stem)
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    for path in paths:
        with replacing(path) as temporary, matplotlib.rc_context({"pdf.fonttype": 42}):
            # Without a date, the same data give the same file.
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(temporary, dpi=_DPI, metadata=metadata)
    return paths


def _frame(panels: list, data: FigureData) -> None:
    """Set the common frequency range, the zero line and letters of the panels."""
    every = np.concatenate(
        [np.ravel(data.bands.frequencies_THz), np.ravel(data.mesh.frequencies_THz)]
    )
    low, high = min(0.0, float(np.nanmin(every))), float(np.nanmax(every))
    # Rounding at Γ is no imaginary mode.
    low = low if low < -0.02 * high else 0.0
    room = 0.03 * (high - low)
    for letter, axes in zip("abc", panels, strict=True):
        axes.set_ylim(low - (room if low else 0.0), high + room)
        if low:
            axes.axhline(0, color=INK, linewidth=0.7, zorder=0.5)
            axes.axhspan(low - 2 * room, 0, color=ALERT, alpha=0.05, linewidth=0, zorder=0)
        letter_panel(axes, letter)
    panels[0].tick_params(axis="x", labelsize=NORMAL, length=0)


def _title(figure: Figure, data: FigureData) -> None:
    notes = "\n".join(textwrap.wrap("; ".join(data.notes), 125))
    figure.suptitle(data.title, x=0.01, ha="left", fontsize=LARGE, color=INK)
    if notes:
        lines = notes.count("\n") + 1
        height = figure.get_figheight() + 0.14 * lines
        figure.set_figheight(height)
        figure.suptitle(data.title + "\n" * lines, x=0.01, ha="left", fontsize=LARGE)
        figure.text(
            0.01, 1 - 0.25 / height, notes, fontsize=SMALL, color=ALERT, va="top", ha="left"
        )
