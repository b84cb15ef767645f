"""Densities of ions on a grid: numbers, places, the host's frame, smoothing."""

import numpy as np
import pytest

from phojax.checks import InputError
from phojax.md.density import (
    IonDensity,
    counts_on_grid,
    density_from_counts,
    grid_shape,
    ion_density,
    smoothed,
)
from phojax.md.trajectory import Trajectory

CELL = np.array([[5.0, 0.2, 0.0], [2.4, 6.0, -0.3], [-2.0, 1.0, 7.0]])


def test_shape_of_the_grid():
    assert grid_shape(np.diag([6.0, 6.1, 0.1])) == (30, 31, 1)
    assert grid_shape(np.diag([6.000000001, 5.999999, 12])) == (30, 30, 60)
    lengths = np.linalg.norm(CELL, axis=1)
    steps = lengths / grid_shape(CELL, 0.3)
    assert np.all(steps <= 0.3)
    assert np.all(lengths / (np.array(grid_shape(CELL, 0.3)) - 1) > 0.3)
    with pytest.raises(InputError, match="positive"):
        grid_shape(CELL, 0.0)
    with pytest.raises(InputError, match="2e8"):
        grid_shape(CELL, 1e-3)


def test_counts_as_histogramdd_has_them():
    rng = np.random.default_rng(0)
    shape = (7, 8, 9)
    positions = rng.normal(0, 9, (50, 40, 3))
    counts = counts_on_grid(positions, CELL, shape)
    half = 0.5 / np.array(shape)
    fractions = (positions.reshape(-1, 3) @ np.linalg.inv(CELL) + half) % 1
    expected, _ = np.histogramdd(fractions, bins=shape, range=[(0, 1)] * 3)
    np.testing.assert_array_equal(counts, expected)


def test_an_ion_is_counted_at_the_point_that_it_is_on():
    shape = (5, 6, 7)
    at = np.array([[1, 2, 3], [4, 5, 6], [-1, 6, 8]])
    counts = counts_on_grid(at / np.array(shape) @ CELL, CELL, shape)
    assert counts[1, 2, 3] == 1
    assert counts[4, 5, 6] == 1
    assert counts[4, 0, 1] == 1
    assert counts.sum() == 3


def test_density_in_the_frame_of_the_host():
    rng = np.random.default_rng(1)
    frames, drift = 40, np.linspace(0, 9, 40)[:, None, None] * np.array([1.0, -2.0, 0.5])
    start = np.array([[0.3, 0.2, 0.9], [0.7, 0.6, 0.1], [0.0, 0.0, 0.0]]) @ CELL
    host = np.zeros((frames, 3, 3))
    host[:, 2] += rng.normal(0, 0.1, (frames, 3))  # sways against nothing: it defines the frame
    run = Trajectory(start + drift, CELL, np.array([11, 11, 17]), np.array([23.0, 23, 35]), 0.1)
    density = ion_density(run, 11)
    occupied = np.argwhere(density.values > 0)
    assert len(occupied) == 2  # the ions are at rest against the host
    np.testing.assert_allclose(
        occupied / np.array(density.values.shape), [[0.3, 0.2, 0.9], [0.7, 0.6, 0.1]], atol=0.02
    )
    assert density.values.sum() * density.voxel == pytest.approx(2)
    assert density.samples == 80
    with pytest.raises(InputError, match="element 3"):
        ion_density(run, 3)


def test_smoothing_is_a_gaussian_in_a_skewed_cell():
    shape = grid_shape(CELL, 0.2)
    counts = np.zeros(shape, int)
    counts[3, 28, 34] = 5
    density = smoothed(density_from_counts(counts, 5, CELL, 3), 0.5)
    grid = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), -1)
    apart = grid - np.array([3, 28, 34]) / shape
    expected = np.zeros(shape)
    for image in np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), -1).reshape(-1, 3):
        squares = np.sum(((apart + image) @ CELL) ** 2, axis=-1)
        expected += np.exp(-0.5 * squares / 0.5**2) / (2 * np.pi * 0.5**2) ** 1.5
    np.testing.assert_allclose(density.values, expected, atol=1e-6)
    assert density.values.sum() * density.voxel == pytest.approx(1)
    with pytest.raises(InputError, match="spacing of the grid"):
        smoothed(density, 0.1)


def test_nothing_counted_is_refused():
    with pytest.raises(InputError, match="0 counts"):
        density_from_counts(np.zeros((3, 3, 3), int), 10, CELL, 3)
    assert IonDensity(np.ones((2, 2, 2)), np.eye(3) * 2, 3, 1).voxel == pytest.approx(1)


def test_probability_as_pymatgen_diffusion_has_it():
    pathway = pytest.importorskip("pymatgen.analysis.diffusion.aimd.pathway")
    from pymatgen.core import Lattice, Structure

    rng = np.random.default_rng(3)
    cell = np.diag([4.0, 5.0, 6.0])
    sites = Structure(Lattice(cell), ["Na", "Cl"], [[0.25, 0.3, 0.5], [0.75, 0.8, 0.0]])
    moves = rng.normal(0, 0.25, (3000, 2, 3))
    moves[:, 1] = 0
    run = Trajectory(
        sites.cart_coords + moves, cell, np.array([11, 17]), np.array([23.0, 35.0]), 0.1
    )
    theirs = pathway.ProbabilityDensityAnalysis(
        sites, run.positions @ np.linalg.inv(cell), interval=0.5, species=("Na",)
    )
    ours = ion_density(run, 11, spacing=0.5)

    np.testing.assert_allclose(
        theirs.Pr / theirs.Pr.sum(), ours.values / ours.values.sum(), atol=1e-12
    )
