"""Diffusion coefficients of synthetic walks of known D, and beside kinisi.

The 95 % interval holds D in 90 to 98 % of 200 walks: what a binomial of 95 % gives at ± 2 to 3 σ.
"""

import time

import numpy as np
import pytest
import walks
from scipy.spatial.transform import Rotation

from phojax.checks import InputError
from phojax.md.diffusion import diffusion, diffusion_axes, diffusion_tensor
from phojax.md.displacements import displacement_statistics, merged, single_origin_msd
from phojax.md.through_origin import artefact, through_origin
from phojax.md.windows import Windows, window_kernels

WALKS = 200
_TURN = Rotation.from_euler("zyx", [20, 35, 50], degrees=True).as_matrix()
TENSOR = _TURN @ np.diag([0.01, 0.05, 0.3]) @ _TURN.T

KINDS = {
    "independent": (0.1, lambda rng: walks.brownian(rng, 0.1)),
    "vibrating": (0.02, lambda rng: walks.brownian(rng, 0.02) + walks.vibration(rng)),
    # 27 jumps in all
    "few hops": (0.02, lambda rng: walks.hops(rng, 0.02) + walks.vibration(rng)),
    "pairs": (0.1, lambda rng: walks.groups(rng, 0.1, 2) + walks.vibration(rng)),
    "sixes": (0.1, lambda rng: walks.groups(rng, 0.1, 6) + walks.vibration(rng)),
    "anisotropic": (0.12, lambda rng: walks.anisotropic(rng, TENSOR) + walks.vibration(rng)),
}


def _held(found, D):
    return np.mean([d.interval[0] <= D <= d.interval[1] for d in found])


@pytest.mark.parametrize("kind", KINDS)
def test_the_95_percent_interval_holds_D_in_90_to_98_percent(kind):
    D, walk = KINDS[kind]
    rng = np.random.default_rng(20)
    found = [diffusion(walks.statistics(walk(rng))) for _ in range(WALKS)]
    assert 0.90 <= _held(found, D) <= 0.98
    values = np.array([d.D for d in found])
    assert abs(values.mean() - D) < 3.5 * values.std() / np.sqrt(WALKS)  # no bias
    errors = np.sqrt(np.mean([d.standard_error**2 for d in found]))
    assert 0.8 < errors / values.std() < 1.35
    assert np.mean([d.below_detection for d in found]) == 0
    assert np.mean([d.poor_fit for d in found]) < 0.03
    assert np.mean([d.subdiffusive for d in found]) < 0.01
    together = np.mean([d.in_concert for d in found])
    assert together > 0.9 if kind == "sixes" else together < 0.06 or kind == "pairs"


def test_no_diffusion_is_censored_and_the_paper_fit_returns_an_artefact():
    rng = np.random.default_rng(21)
    size = 0.25
    found, paper = [], []
    for _ in range(WALKS):
        run = walks.trajectory(walks.vibration(rng, size))
        found.append(diffusion(displacement_statistics(run, 11, lags=walks.LAGS)))
        paper.append(through_origin(single_origin_msd(run, 11)[:, 0], walks.INTERVAL))
    assert np.mean([d.below_detection for d in found]) >= 0.95
    values = np.array([d.D for d in found])
    assert abs(values.mean()) < 3.5 * values.std() / np.sqrt(WALKS)  # consistent with zero
    assert _held(found, 0) >= 0.95
    assert all(d.subdiffusive for d in found)
    t_max = (walks.FRAMES - 1) * walks.INTERVAL
    wanted = artefact(np.array(size**2), t_max)
    assert wanted == pytest.approx(1.5 * size**2 / t_max)
    averages = np.array([p.average for p in paper])
    assert averages.mean() == pytest.approx(wanted, rel=0.03)
    assert averages.min() > 10 * np.abs(values).max()  # far above what intercepts leave
    assert np.mean([p.at_rest.mean() for p in paper]) == pytest.approx(wanted, rel=0.03)


def test_tensor_of_a_triclinic_crystal():
    rng = np.random.default_rng(22)
    held, middle = [], []
    for _ in range(60):
        stats = walks.statistics(walks.anisotropic(rng, TENSOR) + walks.vibration(rng))
        found = diffusion_tensor(stats)
        assert np.trace(found.tensor) / 3 == pytest.approx(diffusion(stats).D, rel=1e-9)
        axes = diffusion_axes(stats)
        held += [d.interval[0] <= TENSOR[n, n] <= d.interval[1] for n, d in enumerate(axes)]
        middle.append(found.tensor)
        np.testing.assert_allclose(
            found.tensor @ found.eigenvectors, found.eigenvectors * found.eigenvalues, atol=1e-12
        )
    assert 0.9 <= np.mean(held) <= 0.99
    np.testing.assert_allclose(np.mean(middle, axis=0), TENSOR, atol=0.006)
    assert abs(found.eigenvectors[:, 2] @ _TURN[:, 2]) > 0.97


def test_direction_turns_with_the_crystal():
    x = walks.anisotropic(np.random.default_rng(23), TENSOR)
    n = np.array([1.0, 2.0, -1.0])
    turned = diffusion(walks.statistics(x @ _TURN.T), direction=_TURN @ n)
    found = diffusion(walks.statistics(x), direction=n)
    assert turned.D == pytest.approx(found.D, rel=1e-6)
    assert turned.interval == pytest.approx(found.interval, rel=1e-3)


def test_merged_runs_have_smaller_errors():
    rng = np.random.default_rng(24)
    held, ratio = [], []
    for _ in range(40):
        runs = [
            walks.statistics(walks.brownian(rng, 0.05) + walks.vibration(rng)) for _ in range(4)
        ]
        alone, all_ = diffusion(runs[0]), diffusion(merged(runs))
        held.append(all_.interval[0] <= 0.05 <= all_.interval[1])
        ratio.append(all_.standard_error / alone.standard_error)
    assert np.mean(held) >= 0.88
    assert np.mean(ratio) == pytest.approx(0.5, abs=0.06)


def test_covariance_of_overlapping_windows_beside_samples():
    rng = np.random.default_rng(25)
    D, O, memory, walkers = 0.3, 1.0, 3.0, 8000
    lags, first = np.array([4, 16, 16, 40]), np.array([0, 0, 50, 0])
    spacing, origins = np.array([1, 2, 2, 4]), np.array([100, 30, 40, 25])
    x = np.cumsum(rng.normal(0, np.sqrt(2 * D), (150, walkers)), axis=0)
    keep, v = np.exp(-1 / memory), rng.normal(0, np.sqrt(O / 2), walkers)
    for t in range(150):
        x[t] += v
        v = keep * v + rng.normal(0, np.sqrt(O / 2 * (1 - keep**2)), walkers)
    sets = zip(lags, first, origins, spacing, strict=True)
    means = [
        np.mean([(x[f + k * s + lag] - x[f + k * s]) ** 2 for k in range(n)], axis=0)
        for lag, f, n, s in sets
    ]
    kernels = window_kernels(
        Windows(lags, first, origins, spacing), 1 - np.exp(-np.arange(40) / memory), 1.0
    )
    found = kernels.covariance((8 * D**2, 8 * D * O, 2 * O**2))
    sample = np.cov(means)
    scale = np.sqrt(np.outer(np.diag(sample), np.diag(sample)))
    np.testing.assert_allclose(found / scale, sample / scale, atol=5 * 1.6 / np.sqrt(walkers))


def test_short_runs_and_wrong_elements():
    short = walks.brownian(np.random.default_rng(26), 0.1, frames=100)
    few = [k for k in walks.LAGS if k < 100]
    assert diffusion(walks.statistics(short, few)).too_short
    with pytest.raises(InputError, match="at least 2"):
        diffusion(walks.statistics(short[:41], few[:-3]))
    with pytest.raises(InputError, match="element 3"):
        diffusion(walks.statistics(short, few), 3)


def test_confined_motion_is_subdiffusive():
    """A slow vibration (20 ps) in a cage: the end of the run shows a plateau."""
    rng = np.random.default_rng(27)
    keep = np.exp(-walks.INTERVAL / 8.0)
    x = np.zeros((3000, walks.IONS, 3))
    for t in range(1, 3000):
        x[t] = keep * x[t - 1] + rng.normal(0, np.sqrt(1 - keep**2), x.shape[1:])
    found = diffusion(walks.statistics(x, [*walks.LAGS, *range(500, 1501, 100)]))
    assert found.subdiffusive
    assert found.poor_fit


def test_a_fit_takes_less_than_a_tenth_of_a_second():
    frames = 12_500
    rng = np.random.default_rng(28)
    x = np.cumsum(rng.normal(0, 0.02, (frames, 12, 3)), axis=0)
    stats = displacement_statistics(walks.trajectory(x, 0.006), 11)
    begin = time.process_time()
    found = [diffusion(stats) for _ in range(5)]
    assert (time.process_time() - begin) / 5 < 0.1
    assert found[0].interval[0] < 0.02**2 / (2 * 0.006) < found[0].interval[1]


def test_beside_kinisi():
    """The same walk: values agree within errors, which are alike (kinisi 2.1)."""
    sc = pytest.importorskip("scipp")
    pytest.importorskip("kinisi")
    from kinisi.analyze import DiffusionAnalyzer  # noqa: F401
    del sc
