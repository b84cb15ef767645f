"""Figures of ion transport: displacements with their fit, spectra, densities, Arrhenius."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from phojax.plots.panels import species_colours
from phojax.plots.style import ALERT, GREY, INK, LARGE, MOBILE, NORMAL, SMALL


@dataclass(frozen=True)
class DisplacementCurves:
    """Mean squared displacements and the line fitted to one of them.

    Attributes:
        lags_ps: ps.
        by_species: Å², by symbol.
        fit_ps: First and last lag of the fit.
        slope: Å²/ps.
        slope_interval: Its 95 % interval.
        intercept: Å².
        label: What the fit says, for the legend.
        doubt: Why there is a bound only; empty where there is a value.
    """

    lags_ps: np.ndarray
    by_species: dict[str, np.ndarray]
    fit_ps: tuple[float, float] | None
    slope: float
    slope_interval: tuple[float, float]
    intercept: float
    label: str
    doubt: str


@dataclass(frozen=True)
class Spectra:
    """Vibrational densities of states.

    Attributes:
        frequencies_THz: THz.
        by_species: 1/THz, by symbol.
        center_THz: By symbol, above the diffusive part.
        highest_THz: Where the axis ends.
        acoustic_cutoff_THz: Of the phonons, where it is known.
    """

    frequencies_THz: np.ndarray
    by_species: dict[str, np.ndarray]
    center_THz: dict[str, float]
    highest_THz: float
    acoustic_cutoff_THz: float | None = None


@dataclass(frozen=True)
class DensityMap:
    """A density averaged along one lattice vector, and what else the panel shows.

    Attributes:
        values: Å⁻³ on (first, second) of the other two vectors.
        vectors: These two in the plane, Å: rows.
        axis: Name of the vector averaged along.
        hosts: Places of the other atoms in the plane, by symbol, Å.
        label: What is said about channels.
    """

    values: np.ndarray
    vectors: np.ndarray
    axis: str
    hosts: dict[str, np.ndarray]
    label: str


@dataclass(frozen=True)
class ArrheniusPoints:
    """Diffusion against temperature, and its fit.

    Attributes:
        temperatures_K: K.
        diffusion: Å²/ps; of censored points the upper end of the interval.
        interval: 95 % interval, (temperature, 2).
        censored: Only that upper end is known.
        left_out: No part in the fit: not diffusion yet, or not of a host at rest.
        paper: Fits through the origin, NaN where there are none.
        line_K: Temperatures of the fitted line; empty without one.
        line: Å²/ps.
        band: Its 95 % band, (point, 2).
        label: What the fit says.
    """

    temperatures_K: np.ndarray
    diffusion: np.ndarray
    interval: np.ndarray
    censored: np.ndarray
    left_out: np.ndarray
    paper: np.ndarray
    line_K: np.ndarray
    line: np.ndarray
    band: np.ndarray
    label: str


def transport_figure(
    title: str,
    mobile: str,
    curves: DisplacementCurves,
    spectra: Spectra | None,
    density: DensityMap | None,
    notes: tuple[str, ...] = (),
) -> Figure:
    """Return one figure of a run at one temperature; what is None has no panel."""
    panels = 1 + (spectra is not None) + (density is not None)
    figure = Figure(figsize=(3.5 * panels + 0.3, 3.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, panels))
    draw_displacements(axes[0], curves, mobile)
    if spectra is not None:
        draw_spectra(axes[1], spectra, mobile)
    if density is not None:
        draw_density(figure, axes[-1], density, mobile)
    figure.suptitle(title, fontsize=LARGE)
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=SMALL, color=ALERT)
    return figure


def draw_displacements(axes: Axes, curves: DisplacementCurves, mobile: str) -> None:
    """Draw displacements against lag; the fitted line over its lags, the part cut off shaded."""
    colours = species_colours(tuple(curves.by_species), mobile)
    t = curves.lags_ps
    for symbol, values in curves.by_species.items():
        axes.plot(t, values, color=colours[symbol], lw=1.5 if symbol == mobile else 1.0,
                  label=symbol, marker="." if len(t) < 20 else None)  # fmt: skip
    if curves.fit_ps is not None:
        begin, end = curves.fit_ps
        x = np.array([begin, end])
        axes.axvspan(0, begin, color="#eeeeee", zorder=0, label=f"cut off, below {begin:g} ps")
        axes.plot(x, curves.intercept + curves.slope * x, color=INK, lw=1.2, ls="--",
                  label=curves.label)  # fmt: skip
        # About the middle of the fit, where slope and intercept do not pull at each other.
        middle = curves.intercept + curves.slope * x.mean()
        low, high = (middle + s * (x - x.mean()) for s in curves.slope_interval)
        axes.fill_between(x, np.minimum(low, high), np.maximum(low, high), color=GREY, alpha=0.25,
                          label="slopes in the 95 % interval")  # fmt: skip
        axes.set_xlim(0, end * 1.15)
        shown = t <= end * 1.15
        top = max(float(np.max(v[shown], initial=0.0)) for v in curves.by_species.values())
        axes.set_ylim(0, 1.45 * top if top > 0 else 1.0)  # room for the legend
    axes.set_xlabel("Time (ps)", fontsize=NORMAL)
    axes.set_ylabel("Mean squared displacement (Å²)", fontsize=NORMAL)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left")
    if curves.doubt:
        axes.text(0.97, 0.04, curves.doubt, color=ALERT, fontsize=SMALL,
                  ha="right", transform=axes.transAxes)  # fmt: skip


def draw_spectra(axes: Axes, spectra: Spectra, mobile: str) -> None:
    """Draw densities of states with their centres and the acoustic cutoff."""
    colours = species_colours(tuple(spectra.by_species), mobile)
    f = spectra.frequencies_THz
    shown = f <= spectra.highest_THz
    for symbol, values in spectra.by_species.items():
        name = symbol
        center = spectra.center_THz.get(symbol)
        if center is not None and np.isfinite(center):
            name += f", centre {center:.2f} THz"
            axes.axvline(center, color=colours[symbol], lw=0.9, ls=(0, (5, 2)))
        axes.plot(f[shown], values[shown], color=colours[symbol], label=name,
                  lw=1.5 if symbol == mobile else 1.0)  # fmt: skip
    if spectra.acoustic_cutoff_THz is not None:
        axes.axvline(spectra.acoustic_cutoff_THz, color=INK, lw=1.1, ls=(0, (1, 1.4)),
                     label=f"acoustic cutoff {spectra.acoustic_cutoff_THz:.2f} THz")  # fmt: skip
    axes.set_xlim(0, spectra.highest_THz)
    most = max(float(np.max(v[shown], initial=0.0)) for v in spectra.by_species.values())
    axes.set_ylim(0, 1.5 * most if most > 0 else 1.0)  # room for the legend
    axes.set_xlabel("Frequency (THz)", fontsize=NORMAL)
    axes.set_ylabel("Vibrational density of states (1/THz)", fontsize=NORMAL)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper right")


def draw_density(figure: Figure, axes: Axes, density: DensityMap, mobile: str) -> None:
    """Draw a density in the plane of two lattice vectors, with the places of the host."""
    a, b = (np.linspace(0, 1, n + 1) for n in density.values.shape)
    corners = a[:, None, None] * density.vectors[0] + b[None, :, None] * density.vectors[1]
    # Not white at the bottom: what is empty must differ from the paper.
    mesh = axes.pcolormesh(
        corners[..., 0], corners[..., 1], density.values, cmap="cividis", rasterized=True
    )
    colours = species_colours((mobile, *density.hosts), mobile)
    for symbol, places in density.hosts.items():
        axes.scatter(places[:, 0], places[:, 1], s=7, color=colours[symbol], edgecolors="white",
                     linewidths=0.4, label=symbol)  # fmt: skip
    axes.set_aspect("equal")
    first, second = (name for name in "abc" if name != density.axis)
    axes.set_xlabel(f"Along {first} (Å)", fontsize=NORMAL)
    axes.set_ylabel(f"In the plane of {first} and {second} (Å)", fontsize=NORMAL)
    told = f"{mobile} averaged along {density.axis}"
    axes.set_title(f"{told}; {density.label}" if density.label else told, fontsize=SMALL)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8)
    bar.set_label("Density (Å⁻³)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    if density.hosts:
        axes.legend(fontsize=SMALL, loc="upper right", framealpha=0.7)


def arrhenius_figure(title: str, mobile: str, points: ArrheniusPoints) -> Figure:
    """Return log D against 1/T with its fit; censored points as arrows downwards."""
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.subplots()
    x = 1e3 / points.temperatures_K
    for left_out, label, fill in (
        (False, f"D of {mobile}, 95 %", MOBILE),
        (True, "takes no part in the line", "white"),
    ):
        seen = ~points.censored & (points.left_out == left_out)
        if not seen.any():
            continue
        D, (low, high) = points.diffusion[seen], points.interval[seen].T
        # An interval that reaches below zero has no lower end on a logarithmic axis.
        lower = np.maximum(np.where(low > 0, D - low, 0.9 * D), 0)
        axes.errorbar(x[seen], D, yerr=[lower, np.maximum(high - D, 0)], fmt="o", color=MOBILE,
                      mfc=fill, ms=4, capsize=2, lw=1.0, label=label)  # fmt: skip
    if points.censored.any():
        bounds = points.diffusion[points.censored]
        axes.errorbar(x[points.censored], bounds, yerr=0.3 * bounds, uplims=True, fmt="none",
                      color=ALERT, lw=1.0)  # fmt: skip
        axes.plot(x[points.censored], bounds, "_", color=ALERT, ms=8, label="D is below (95 %)")
    kept = np.isfinite(points.paper) & (points.paper > 0)
    if kept.any():
        axes.plot(x[kept], points.paper[kept], "x", color=GREY, ms=4,
                  label="paper: through the origin")  # fmt: skip
    if len(points.line_K):
        axes.plot(1e3 / points.line_K, points.line, color=INK, lw=1.0, label=points.label)
        axes.fill_between(1e3 / points.line_K, points.band[:, 0], points.band[:, 1], color=GREY,
                          alpha=0.25)  # fmt: skip
    elif points.label:
        axes.plot([], [], " ", label=points.label)
    axes.set_yscale("log")
    if np.ptp(np.log10(axes.get_ylim())) < 2:  # ticks between powers of ten, without crowding
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("1000 / T (1/K)", fontsize=NORMAL)
    axes.set_ylabel("Diffusion coefficient (Å²/ps)", fontsize=NORMAL)
    axes.set_title(title, fontsize=NORMAL)
    axes.legend(fontsize=SMALL, frameon=False)
    return figure
