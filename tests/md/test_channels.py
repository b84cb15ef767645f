"""Dimensionality of channels: shapes whose answer is known, in any cell and supercell."""

import itertools

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from phojax.checks import InputError
from phojax.md.channels import (
    channels,
    channels_above,
    connected,
    extended,
    percolation,
    percolation_barriers,
)
from phojax.md.density import IonDensity, grid_shape
from phojax.units import KB

SKEWED = np.array([[7.0, 0.5, 0.0], [3.4, 7.5, -0.3], [-3.0, 2.0, 8.0]])


def _grid(shape) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"), -1)


def _around(shape, points, cell, radius) -> np.ndarray:
    """Return which grid points are within `radius` (Å) of any of the points (fractional)."""
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    everywhere = (np.asarray(points, float)[:, None] % 1 + images).reshape(-1, 3) @ cell
    distance, _ = cKDTree(everywhere).query(_grid(shape) @ cell, distance_upper_bound=radius)
    return np.isfinite(distance)


def _rod(start, along, steps=80) -> np.ndarray:
    return np.asarray(start) + np.linspace(0, 1, steps)[:, None] * np.asarray(along)


def _density(inside, cell=SKEWED) -> IonDensity:
    return IonDensity(inside.astype(float), cell, 11, 1)


def _same_lattice(one, other) -> bool:
    reduced: tuple = ()
    for vector in other:
        reduced = extended(reduced, vector)
    return one == reduced


NETWORK = np.concatenate([_rod((0.1, 0.2, 0.3), v) for v in np.eye(3)])
HELIX = np.stack(
    [
        0.5 + 0.25 * np.cos(2 * np.pi * np.linspace(0, 1, 90)),
        0.5 + 0.25 * np.sin(2 * np.pi * np.linspace(0, 1, 90)),
        np.linspace(0, 1, 90),
    ],
    axis=1,
)
SHAPES = {
    "ball": ([(0.0, 0.0, 0.0)], [()]),
    "two balls": ([(0.0, 0.0, 0.0), (0.5, 0.5, 0.5)], [(), ()]),
    "a dumbbell across a corner": (_rod((0.9, 0.9, 0.9), (0.25, 0.2, 0.2)), [()]),
    "rod along b": (_rod((0.2, 0.7, 0.4), (0, 1, 0)), [((0, 1, 0),)]),
    "rod along 110": (_rod((0.2, 0.7, 0.4), (1, 1, 0)), [((1, 1, 0),)]),
    "rod along 1-11": (_rod((0.2, 0.7, 0.4), (1, -1, 1)), [((1, -1, 1),)]),
    "an open rod": (_rod((0.2, 0.1, 0.4), (0, 0.6, 0)), [()]),
    "helix": (HELIX, [((0, 0, 1),)]),
    "two rods": (
        np.concatenate([_rod((0, 0, 0), (1, 0, 0)), _rod((0, 0.5, 0.5), (0, 1, 0))]),
        [((1, 0, 0),), ((0, 1, 0),)],
    ),
    "crossing rods": (
        np.concatenate([_rod((0, 0, 0), (1, 0, 0)), _rod((0, 0, 0), (0, 1, 0))]),
        [((1, 0, 0), (0, 1, 0))],
    ),
    "a net along 110 and 001": (
        np.concatenate([_rod((0, 0, 0), (1, 1, 0)), _rod((0, 0, 0), (0, 0, 1))]),
        [((1, 1, 0), (0, 0, 1))],
    ),
    "network": (NETWORK, [((1, 0, 0), (0, 1, 0), (0, 0, 1))]),
    "two networks, one in the other": (
        np.concatenate([NETWORK, NETWORK + 0.5]),
        [((1, 0, 0), (0, 1, 0), (0, 0, 1))] * 2,
    ),
    "a network and a ball": (
        np.concatenate([NETWORK, [(0.6, 0.7, 0.8)]]),
        [((1, 0, 0), (0, 1, 0), (0, 0, 1)), ()],
    ),
}


@pytest.mark.parametrize("cell", [np.eye(3) * 8, SKEWED], ids=["cubic", "skewed"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, cell):
    points, expected = SHAPES[name]
    inside = _around((26, 27, 28), points, cell, 0.8)
    found = channels(_density(inside, cell), 1.0)
    assert found.dimensionality == max(len(v) for v in expected)
    assert sorted(len(c.directions) for c in found.components) == sorted(len(v) for v in expected)
    for lattice in expected:
        assert any(_same_lattice(c.directions, lattice) for c in found.components)
    assert sum(c.share for c in found.components) == pytest.approx(1)
    assert sum(c.volume for c in found.components) == pytest.approx(inside.mean())


def test_a_plane_is_two_dimensional_wherever_it_lies():
    shape = (20, 21, 22)
    for axis, shift in itertools.product(range(3), (0, 1, 10)):
        inside = np.zeros(shape, bool)
        inside[(slice(None),) * axis + (shift,)] = True
        (plane,) = channels(_density(inside), 1.0).components
        assert plane.dimensionality == 2
        assert all(v[axis] == 0 for v in plane.directions)
    tilted = np.abs((_grid((24, 24, 24)).sum(axis=-1) + 0.5) % 1 - 0.5) < 0.1  # (111) planes
    (plane,) = channels(_density(tilted), 1.0).components
    assert plane.dimensionality == 2
    assert all(sum(v) == 0 for v in plane.directions)
    assert channels(_density(np.ones((3, 4, 5), bool)), 1.0).dimensionality == 3


@pytest.mark.parametrize("copies", [(2, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("name", SHAPES)
def test_a_supercell_has_channels_of_the_same_dimensionality(name, copies):
    inside = _around((18, 18, 18), SHAPES[name][0], SKEWED, 0.8)
    one = channels(_density(inside), 1.0)
    many = channels(_density(np.tile(inside, copies)), 1.0)
    assert {c.dimensionality for c in one.components} == {c.dimensionality for c in many.components}


@pytest.mark.parametrize("seed", range(4))
def test_random_regions_in_another_setting_of_the_cell(seed):
    """Where the cell begins, and how its vectors are ordered, changes no dimensionality."""
    rng = np.random.default_rng(seed)
    n = 12
    noise = ndimage.gaussian_filter(rng.normal(size=(n, n, n)), 1.2, mode="wrap")
    for level in (0.6, 0.5, 0.4):
        inside = noise > np.quantile(noise, level)
        rolled = np.roll(inside, (3, 5, 7), (0, 1, 2)).transpose(2, 0, 1)
        flipped = inside[::-1, :, ::-1]
        ranks = sorted(len(v) for v in connected(inside)[1])
        assert ranks == sorted(len(v) for v in connected(rolled)[1])
        assert ranks == sorted(len(v) for v in connected(flipped)[1])


def test_ranks_against_a_supercell_flood():
    """A component of rank n joins 5^n of 5³ copies, if it joins neighbouring ones."""
    rng = np.random.default_rng(8)
    seen = set()
    for _ in range(12):
        noise = ndimage.gaussian_filter(rng.normal(size=(8, 8, 8)), 0.8, mode="wrap")
        inside = noise > np.quantile(noise, rng.uniform(0.55, 0.8))
        labels, lattices = connected(inside)
        big, big_lattices = connected(np.tile(inside, (5, 5, 5)))
        for n, vectors in enumerate(lattices, 1):
            if any(abs(x) > 1 for v in vectors for x in v):
                continue
            at = np.argwhere(labels == n)[0]
            copies = big[at[0] :: 8, at[1] :: 8, at[2] :: 8]
            joined = np.sum(copies == copies[0, 0, 0])
            assert joined == 5 ** len(vectors)
            assert len(big_lattices[copies[0, 0, 0] - 1]) == len(vectors)
            seen.add(len(vectors))
    assert {0, 3} <= seen


def test_lattices_are_reduced_exactly():
    rng = np.random.default_rng(0)
    for _ in range(200):
        vectors = rng.integers(-6, 7, (rng.integers(1, 5), 3)).tolist()
        basis: tuple = ()
        for v in vectors:
            basis = extended(basis, tuple(v))
        assert len(basis) == np.linalg.matrix_rank(np.array(vectors))
        again: tuple = ()
        for v in reversed(vectors):
            again = extended(again, tuple(v))
        assert basis == again  # the normal form is unique
        if len(basis) == 3:
            minors = [
                abs(round(np.linalg.det(np.array(c)))) for c in itertools.combinations(vectors, 3)
            ]
            assert abs(round(np.linalg.det(np.array(basis)))) == np.gcd.reduce(minors)


def test_thresholds_of_a_landscape():
    """exp(-V/kT) with passes of different height along a, b and c: they open one by one."""
    T, passes = 600.0, np.array([0.05, 0.1, 0.2])
    shape = (20, 24, 28)
    energy = np.sum(passes * np.sin(np.pi * _grid(shape)) ** 2, axis=-1)
    density = IonDensity(np.exp(-energy / (KB * T)), SKEWED, 11, 1)
    found = percolation(density)
    np.testing.assert_allclose(percolation_barriers(found, T), passes, rtol=1e-9)
    assert np.all(np.diff(found.dimensionality) >= 0)
    for rank, level, ions in zip(
        (1, 2, 3), found.critical_densities, found.critical_shares, strict=True
    ):
        assert channels_above(density, level).dimensionality == rank
        assert channels_above(density, level * (1 + 1e-9)).dimensionality == rank - 1
        assert channels(density, ions).dimensionality == rank
        assert channels(density, ions - 1e-3).dimensionality == rank - 1
    for s, d in zip(found.shares, found.dimensionality, strict=True):
        assert channels(density, float(s)).dimensionality == d


def test_what_is_never_reached_is_nan():
    inside = _around((20, 20, 20), _rod((0, 0, 0), (1, 0, 0)), SKEWED, 0.8)
    found = percolation(_density(inside))
    np.testing.assert_array_equal(np.isnan(found.critical_shares), [False, True, True])
    assert found.dimensionality.max() == 1
    np.testing.assert_array_equal(np.isnan(percolation_barriers(found, 300.0)), [False, True, True])


def test_the_share_is_that_of_the_ions():
    values = np.zeros((4, 4, 4))
    values[0, 0, 0], values[2, 2, 2], values[1, 3, 0] = 80, 15, 5
    density = IonDensity(values, np.eye(3) * 4, 3, 100)
    for share, expected, parts in ((0.5, 0.8, 1), (0.8, 0.8, 1), (0.9, 0.95, 2), (1.0, 1.0, 3)):
        found = channels(density, share)
        assert found.share == pytest.approx(expected)
        assert len(found.components) == parts
    assert grid_shape(density.cell, 1.0) == (4, 4, 4)
    for share in (0.0, 1.1):
        with pytest.raises(InputError, match="share"):
            channels(density, share)
    with pytest.raises(InputError, match="threshold"):
        channels_above(density, 81.0)
    with pytest.raises(InputError, match="zero everywhere"):
        channels(IonDensity(np.zeros((2, 2, 2)), np.eye(3), 3, 1))
