"""What a function of phonons depends on: atoms in their cell, pairs over distance, modes."""

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from phojax.plots.style import GREY, HOSTS, INK, MOBILE, NORMAL, SMALL, letter_panel, set_title

_SIZE = (7.2, 2.9)  # inches: two columns of a journal
_DPI = 300
_BONDED = 1.15  # of the sum of covalent radii
_EDGE = 1e-3  # of a cell: atoms on its faces are drawn on both
_BINS = 40


@dataclass(frozen=True)
class SensitivityData:
    """Plain arrays; all that depends is in per cent of the value, per ln of what is scaled.

    Attributes:
        title: A line.
        name: Of the function, as in "MSD of Na".
        cell: Å, rows.
        positions: Å.
        numbers: Atomic numbers.
        symbols: One per atom.
        by_atom: What scaling the force constants about an atom does.
        pair_names: Such as "Na-S", one per shell.
        distances: Å, of shells.
        by_shell: What scaling the force constants of a shell does.
        frequencies_THz: Of modes.
        by_mode: What scaling λ of a mode does.
        mode_shares: Of the value itself; None where it is no sum over modes.
        notes: Sentences that must not be missed.
    """

    title: str
    name: str
    cell: Float[np.ndarray, "3 3"]
    positions: Float[np.ndarray, "atom 3"]
    numbers: Int[np.ndarray, " atom"]
    symbols: tuple[str, ...]
    by_atom: Float[np.ndarray, " atom"]
    pair_names: tuple[str, ...]
    distances: Float[np.ndarray, " shell"]
    by_shell: Float[np.ndarray, " shell"]
    frequencies_THz: Float[np.ndarray, " mode"]
    by_mode: Float[np.ndarray, " mode"]
    mode_shares: Float[np.ndarray, " mode"] | None = None
    notes: tuple[str, ...] = ()


def sensitivity_figure(data: SensitivityData) -> Figure:
    """Return the three panels."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, 3, width_ratios=(1.15, 1.25, 1.25)))
    _draw_crystal(panels[0], data)
    _draw_pairs(panels[1], data)
    _draw_modes(panels[2], data)
    for letter, axes in zip("abc", panels, strict=True):
        letter_panel(axes, letter)
    set_title(figure, data.title, data.notes)
    return figure


def _draw_crystal(axes: Axes, data: SensitivityData) -> None:
    cmap, norm = _colours(data.by_atom)
    at, of = _drawn_atoms(data)
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], float)
    view = _view()
    flat, box = at @ view.T, corners @ data.cell @ view.T
    for m in range(8):
        for n in range(m + 1, 8):
            if np.sum(np.abs(corners[m] - corners[n])) == 1:
                axes.plot(*zip(box[m, :2], box[n, :2], strict=True), color=GREY, lw=0.5, zorder=0)
    radii = covalent_radii[data.numbers][of]
    order = np.argsort(np.argsort(flat[:, 2]))  # the nearest last
    for m in range(len(at)):
        for n in range(m + 1, len(at)):
            sodium = 11 in (data.numbers[of[m]], data.numbers[of[n]])
            near = np.linalg.norm(at[m] - at[n]) < _BONDED * (radii[m] + radii[n])
            if near and not sodium:
                ends = zip(flat[m, :2], flat[n, :2], strict=True)
                axes.plot(*ends, color=INK, lw=1.4, zorder=1 + min(order[m], order[n]))
    for m, (x, y, _) in enumerate(flat):
        colour = cmap(norm(data.by_atom[of[m]]))
        where = 1.5 + order[m]
        axes.add_patch(Circle((x, y), 0.42 * radii[m], fc=colour, ec=INK, lw=0.5, zorder=where))
        dark = np.dot(colour[:3], (0.3, 0.59, 0.11)) < 0.5
        axes.text(x, y, data.symbols[of[m]], ha="center", va="center", fontsize=5.5,
                  color="white" if dark else INK, zorder=where)  # fmt: skip
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.margins(0.06)
    axes.autoscale_view()
    bar = axes.figure.colorbar(
        ScalarMappable(norm, cmap), ax=axes, location="bottom", fraction=0.05, pad=0.02, aspect=25
    )
    bar.set_label(f"{data.name} per ln Φ\nabout an atom (%)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]


def _draw_pairs(axes: Axes, data: SensitivityData) -> None:
    names = list(dict.fromkeys(data.pair_names))
    colours = dict(zip(names, (MOBILE, *HOSTS), strict=False))
    axes.axhline(0, color=INK, lw=0.6)
    for name in names:
        mine = np.array([other == name for other in data.pair_names])
        x, y = data.distances[mine], data.by_shell[mine]
        colour = colours.get(name, GREY)
        axes.vlines(x, 0, y, color=colour, lw=0.9)
        axes.plot(x, y, "o", color=colour, ms=3.2, mew=0, label=name)
    axes.set_xlabel("Distance (Å)", fontsize=NORMAL)
    axes.set_ylabel(f"{data.name} per ln Φ of a shell (%)", fontsize=NORMAL)
    axes.legend(fontsize=SMALL, frameon=False, ncols=2, handletextpad=0.1, columnspacing=0.8)


def _draw_modes(axes: Axes, data: SensitivityData) -> None:
    nu = data.frequencies_THz
    edges = np.linspace(min(0.0, float(nu.min())), float(nu.max()) * 1.001, _BINS + 1)
    worth = np.histogram(nu, edges, weights=data.by_mode)[0]
    if data.mode_shares is not None:
        shares = np.histogram(nu, edges, weights=data.mode_shares)[0]
        axes.stairs(shares, edges, color=MOBILE, lw=1.1, label=f"share of {data.name}", zorder=3)
    axes.stairs(worth, edges, fill=True, color=HOSTS[0], alpha=0.75, label="per ln λ of its modes")
    axes.axhline(0, color=INK, lw=0.6)
    axes.set_xlabel("Frequency (THz)", fontsize=NORMAL)
    axes.set_ylabel(f"{data.name} (%)", fontsize=NORMAL)
    axes.set_xlim(edges[0], edges[-1])
    axes.legend(fontsize=SMALL, frameon=False)


def _colours(values: np.ndarray) -> tuple[LinearSegmentedColormap, Normalize]:
    """Return a map from the strongest value to 0, or about 0 where both signs matter."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    largest = max(-low, high, 1e-12)
    if min(-low, high) > 0.05 * largest:
        ends = colormaps["RdBu_r"](np.linspace(0.08, 0.92, 256))
        return LinearSegmentedColormap.from_list("worth", ends), Normalize(-largest, largest)
    ends = colormaps["Blues_r" if -low > high else "Oranges"](np.linspace(0.02, 0.98, 256))
    ends = LinearSegmentedColormap.from_list("worth", ends)
    return ends, Normalize(low, 0.0) if -low > high else Normalize(0.0, high)


def _drawn_atoms(data: SensitivityData) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of atoms in the cell, those on faces on both, and which atoms they are."""
    x = data.positions @ np.linalg.inv(data.cell)
    x = x - np.floor(x + _EDGE)
    steps = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3)
    copies = x[:, None] + steps
    atom, step = np.nonzero(np.all(copies < 1 + _EDGE, axis=-1))
    return copies[atom, step] @ data.cell, atom


def _view() -> np.ndarray:
    """Return a rotation: z upwards, seen along y, from a little above and to the side."""
    side, above = np.deg2rad(14.0), np.deg2rad(9.0)
    about_z = np.array([[np.cos(side), -np.sin(side), 0], [np.sin(side), np.cos(side), 0],
                        [0, 0, 1]])  # fmt: skip
    upright = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    tilt = np.array([[1, 0, 0], [0, np.cos(above), -np.sin(above)],
                     [0, np.sin(above), np.cos(above)]])  # fmt: skip
    return tilt @ upright @ about_z


__all__ = ["SensitivityData", "sensitivity_figure"]
