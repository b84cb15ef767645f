"""Displacement statistics of a kept trajectory, beside sums by hand and tidynamics."""

import numpy as np
import pytest

from phojax.checks import InputError
from phojax.md.displacements import (
    displacement_statistics,
    merged,
    multilevel_lags,
    single_origin_msd,
)
from phojax.md.trajectory import Trajectory

NUMBERS = np.array([11, 17, 11, 8, 17, 11, 17, 17, 17, 17, 17, 17, 17, 17])
MASSES = np.linspace(10, 40, len(NUMBERS))
FRAMES = 130


def _walk(seed: int, frames: int = FRAMES) -> Trajectory:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(0, 0.3, (frames, len(NUMBERS), 3)), axis=0) + 50
    return Trajectory(x, np.eye(3) * 9, NUMBERS, MASSES, 0.1)


def _relative(walk: Trajectory) -> np.ndarray:
    w = MASSES * (NUMBERS != 11)
    return walk.positions - np.einsum("i,tia->ta", w / w.sum(), walk.positions)[:, None]


@pytest.mark.parametrize("lags", [None, [1, 2, 7, 64, 129]])
def test_beside_sums_by_hand(lags):
    walk = _walk(1)
    r = _relative(walk)
    found = displacement_statistics(walk, 11, lags=lags, sections=3)
    assert found.species == (8, 11, 17)
    for n, lag in enumerate(found.lags):
        d = r[lag:] - r[:-lag]
        assert found.origins[n] == len(d) == FRAMES - lag
        np.testing.assert_allclose(
            found.atoms[n], np.einsum("tia,tib->iab", d, d) / len(d), rtol=1e-10, atol=1e-11
        )
        of_section = np.arange(len(d)) * 3 // FRAMES
        for k, z in enumerate(found.species):
            mine = d[:, z == NUMBERS]
            total = mine.sum(axis=1)
            np.testing.assert_allclose(
                found.collective[n, k], total.T @ total / len(d), rtol=1e-9, atol=1e-10
            )
            for s in range(3):
                part = mine[of_section == s]
                assert found.section_origins[s, n] == len(part)
                np.testing.assert_allclose(
                    found.section_sums[s, n, k],
                    np.einsum("tia,tib->ab", part, part) / mine.shape[1],
                    rtol=1e-10,
                    atol=1e-10,
                )


def test_beside_tidynamics():
    tidynamics = pytest.importorskip("tidynamics")
    walk = _walk(2)
    found = displacement_statistics(walk, 11)
    wanted = np.mean(
        [tidynamics.msd(x) for x in _relative(walk)[:, NUMBERS == 11].swapaxes(0, 1)], 0
    )
    np.testing.assert_allclose(found.msd(11), wanted[found.lags], rtol=1e-9)


def test_default_lags_are_those_of_the_dynamics():
    wanted = [*range(1, 33), *range(34, 65, 2), *range(68, 129, 4), *range(136, 257, 8)]
    np.testing.assert_array_equal(multilevel_lags(200), [k for k in wanted if k < 200])


def test_single_origin():
    walk = _walk(3)
    moved = (_relative(walk) - _relative(walk)[0]) ** 2
    found = single_origin_msd(walk, 11)
    assert found.shape == (FRAMES, 3, 3)
    for k, z in enumerate((8, 11, 17)):
        np.testing.assert_allclose(found[:, k], moved[:, z == NUMBERS].mean(1), atol=1e-10)


def test_the_same_in_a_frame_that_moves():
    walk = _walk(4)
    drift = np.linspace(0, 1000, FRAMES)[:, None, None]
    moving = Trajectory(walk.positions + drift, walk.cell, NUMBERS, MASSES, 0.1)
    np.testing.assert_allclose(
        displacement_statistics(moving, 11).atoms,
        displacement_statistics(walk, 11).atoms,
        atol=1e-9,
    )


def test_merged_runs():
    runs = [displacement_statistics(_walk(seed), 11, sections=4) for seed in (5, 6, 7)]
    both = merged(runs)
    np.testing.assert_allclose(both.msd(11), np.mean([r.msd(11) for r in runs], axis=0))
    np.testing.assert_array_equal(both.origins, 3 * runs[0].origins)
    assert both.section_sums.shape[0] == 12
    with pytest.raises(InputError, match="ended early"):
        merged([runs[0], displacement_statistics(_walk(8, 100), 11)])


def test_what_cannot_be_used_is_refused():
    with pytest.raises(InputError, match="ascending"):
        displacement_statistics(_walk(1), 11, lags=[5, 3])
    with pytest.raises(InputError, match="mobile element 3"):
        displacement_statistics(_walk(1), 3)
