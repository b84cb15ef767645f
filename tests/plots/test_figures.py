"""Figures: every number drawn is one that was given, and the files open in other programs."""

import dataclasses
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from PIL import Image

from phojax.checks import InputError
from phojax.plots.data import Bands, DensityOfStates, FigureData, MeshModes
from phojax.plots.figures import phonon_figure, save_figure
from phojax.plots.style import coupling_colours, displacement_colours, joined_ticks, point_label

POINTS, MODES = 21, 6


def figure_data(lowest=0.0, notes=()):
    """A chain of springs in six branches, on a path of two unconnected pieces."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(0, 1, 11), np.linspace(1, 1.8, 10)])
    q = np.abs(np.sin(np.pi * x))[:, None]
    f = lowest + np.array([2.0, 2.5, 3.0, 4.5, 5.0, 6.0]) * (0.2 + q)
    msd = 0.02 / np.maximum(f, 0.1) ** 2
    msd[f < 0.1] = np.nan
    bands = Bands(
        x, f, msd, np.clip(rng.normal(size=f.shape), -1, 1),
        np.array([0, 0.5, 1, 1, 1.8]), ("GAMMA", "X", "U", "K", "L_1"), (0, 11),
    )  # fmt: skip
    k = 200
    mf = lowest + rng.uniform(0.1, 7.0, k)
    mm = np.where(mf > 0.1, 0.02 / np.maximum(mf, 0.1) ** 2, np.nan)
    mesh = MeshModes(mf, rng.uniform(0.2, 1, k), mm, np.clip(rng.normal(size=k), -1, 1))
    grid = np.linspace(lowest - 0.5, 7.5, 100)
    by = {"Na": np.exp(-((grid - 3) ** 2)), "Cl": np.exp(-((grid - 2) ** 2) / 2)}
    dos = DensityOfStates(grid, by["Na"] + by["Cl"], by, {"Na": 3.0, "Cl": 2.0})
    cutoffs = {"path": 3.2, "branches": 3.0, "mesh": float("nan")}
    return FigureData(bands, mesh, dos, cutoffs, "Na", 300.0, "NaCl, Fm-3m", tuple(notes))


def parts(figure):
    panels = figure.axes[:3]
    lines = next(c for c in panels[0].collections if isinstance(c, LineCollection))
    dots = next(c for c in panels[1].collections if isinstance(c, PathCollection))
    return panels, lines, dots


@pytest.mark.parametrize("colour", ["msd", "coupling"])
def test_shows_the_numbers_given(colour):
    data = figure_data()
    panels, lines, dots = parts(phonon_figure(data, colour))
    # 19 steps, not 20: the path is broken once.
    segments = np.array(lines.get_segments())
    assert segments.shape == (19 * MODES, 2, 2)
    # No segment spans the break, where the branches would jump.
    assert np.abs(np.diff(segments[:, :, 0], axis=1)).max() < 0.11
    values = data.bands.msd_A2 if colour == "msd" else data.bands.coupling
    np.testing.assert_allclose(lines.get_array()[:MODES], values[:2].mean(0))
    drawn = np.asarray(dots.get_offsets())
    given = np.stack([data.mesh.participation, data.mesh.frequencies_THz], 1)
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(given, axis=0))
    # The same colours mean the same in both panels.
    assert (lines.norm.vmin, lines.norm.vmax) == (dots.norm.vmin, dots.norm.vmax)
    assert len({axes.get_ylim() for axes in panels}) == 1
    texts = [t.get_text() for legend in phonon_figure(data).legends for t in legend.get_texts()]
    assert "Na, centre 3.00 THz" in texts
    assert "acoustic cutoff (path) 3.20 THz" in texts
    assert not any("mesh" in t for t in texts)  # it is NaN


def test_labels_of_the_path():
    panels, _, _ = parts(phonon_figure(figure_data()))
    names = [t.get_text() for t in panels[0].get_xticklabels()]
    assert names == ["Γ", "X", "U|K", "L$_{1}$"]
    assert point_label("SIGMA_0") == "Σ$_{0}$"
    assert point_label("X|U_1") == "X|U$_{1}$"
    assert joined_ticks(np.array([0.0, 0.0]), ("X", "X")) == ([0.0], ["X"])


def test_imaginary_modes_are_below_a_zero_line():
    stable, _, _ = parts(phonon_figure(figure_data()))
    assert stable[0].get_ylim()[0] == 0
    panels, lines, _ = parts(phonon_figure(figure_data(lowest=-1.5)))
    assert panels[0].get_ylim()[0] < -1.0
    assert any(np.allclose(line.get_ydata(), 0) for line in panels[0].get_lines())
    assert np.isnan(np.ma.filled(lines.get_array(), np.nan)).any()


def test_rounding_at_gamma_is_no_imaginary_mode():
    data = figure_data()
    data.bands.frequencies_THz[0, 0] = -1e-3
    panels, _, _ = parts(phonon_figure(data))
    assert panels[0].get_ylim()[0] == 0


def test_notes_are_shown():
    notes = ("unstable: 12 imaginary modes", "non-analytic term not applied")
    figure = phonon_figure(figure_data(notes=notes))
    shown = " ".join(t.get_text() for t in figure.texts)
    assert "12 imaginary modes; non-analytic" in shown
    assert figure.get_suptitle().startswith("NaCl, Fm-3m")


@pytest.mark.parametrize("colour", ["msd", "coupling"])
def test_saved_files(tmp_path, colour):
    stem = tmp_path / "new" / "NaCl.v1"
    paths = save_figure(phonon_figure(figure_data(notes=("a flag",)), colour), stem)
    assert [p.name for p in paths] == ["NaCl.v1.png", "NaCl.v1.pdf"]
    assert sorted(p.name for p in stem.parent.iterdir()) == ["NaCl.v1.pdf", "NaCl.v1.png"]
    with Image.open(paths[0]) as image:
        assert image.width == 2160
        pixels = np.asarray(image.convert("RGB"))
    # Nothing is cut off: the rim is white.
    assert all((edge > 250).all() for edge in (pixels[:3], pixels[-3:], pixels[:, :3]))
    assert (pixels[:, -3:] > 250).all()
    assert paths[1].read_bytes().startswith(b"%PDF")
    again = save_figure(phonon_figure(figure_data(notes=("a flag",)), colour), tmp_path / "again")
    assert again[1].read_bytes() == paths[1].read_bytes()


def test_nothing_global_changes(tmp_path):
    """Also from a thread, where pyplot would complain."""
    before = dict(matplotlib.rcParams)
    failed = []

    def work():
        try:
            save_figure(phonon_figure(figure_data()), tmp_path / "thread")
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert dict(matplotlib.rcParams) == before


def test_colours_can_be_told_apart_in_grey():
    """MSD: lightness rises along the map, for any kind of colour vision, and never to white."""
    cmap, _ = displacement_colours(np.array([1e-3, 1.0]))
    rgb = cmap(np.linspace(0, 1, 64))[:, :3]
    light = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()
    assert light[-1] < 0.8
    # Coupling: blue and orange differ in their blue part, which no common defect confuses.
    cmap, norm = coupling_colours()
    low, high = cmap(norm(-1.0)), cmap(norm(1.0))
    assert low[2] - low[0] > 0.4
    assert high[0] - high[2] > 0.4


@pytest.mark.parametrize("values", [[np.nan], [0.0], [-1.0, np.nan], [0.3], [1e-9, 1.0]])
def test_scales_of_odd_values(values):
    _, norm = displacement_colours(np.array(values))
    assert 0 < norm.vmin < norm.vmax


def test_a_figure_without_any_colour_value():
    data = figure_data()
    empty = np.full_like(data.bands.msd_A2, np.nan)
    mesh = dataclasses.replace(data.mesh, msd_A2=np.full_like(data.mesh.msd_A2, np.nan))
    data = dataclasses.replace(data, bands=dataclasses.replace(data.bands, msd_A2=empty), mesh=mesh)
    phonon_figure(data).canvas.draw()


def test_arrays_that_do_not_fit():
    data = figure_data()
    # As happens where the annotations are not checked.
    bad = object.__new__(Bands)
    for field in dataclasses.fields(Bands):
        object.__setattr__(bad, field.name, getattr(data.bands, field.name))
    object.__setattr__(bad, "coupling", data.bands.coupling[:, :3])
    with pytest.raises(InputError, match=r"bands\.coupling has shape \(21, 3\)"):
        phonon_figure(dataclasses.replace(data, bands=bad))
    bad = dataclasses.replace(data.bands, labels=("GAMMA", "X"))
    with pytest.raises(InputError, match=r"bands\.labels has shape \(2,\)"):
        phonon_figure(dataclasses.replace(data, bands=bad))
    with pytest.raises(InputError, match="msd"):
        phonon_figure(data, "speed")
