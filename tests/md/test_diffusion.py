"""Diffusion where there is none, along directions, of merged runs, late, and beside kinisi."""

import time

import numpy as np
import pytest
import walks
from ase import Atoms
from scipy.spatial.transform import Rotation

from phojax.checks import InputError
from phojax.md.diffusion import diffusion, diffusion_axes, diffusion_tensor
from phojax.md.displacements import displacement_statistics, merged, single_origin_msd
from phojax.md.through_origin import artefact, through_origin
from phojax.md.windows import Windows, window_kernels

WALKS = 200
_TURN = Rotation.from_euler("zyx", [20, 35, 50], degrees=True).as_matrix()
TENSOR = _TURN @ np.diag([0.01, 0.05, 0.3]) @ _TURN.T


def _held(found, D):
    return np.mean([d.interval[0] <= D <= d.interval[1] for d in found])


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
    wanted = artefact(np.full(3, size**2), t_max)[0]
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
        axes = diffusion_axes(stats)
        held += [d.interval[0] <= TENSOR[n, n] <= d.interval[1] for n, d in enumerate(axes)]
        middle.append(found.tensor)
        np.testing.assert_allclose(
            found.tensor @ found.eigenvectors, found.eigenvectors * found.eigenvalues, atol=1e-12
        )
    assert np.trace(found.tensor) / 3 == pytest.approx(diffusion(stats).D, rel=1e-9)
    assert 0.9 <= np.mean(held) <= 0.99
    np.testing.assert_allclose(np.mean(middle, axis=0), TENSOR, atol=0.006)
    assert abs(found.eigenvectors[:, 2] @ _TURN[:, 2]) > 0.97


def test_direction_turns_with_the_crystal():
    x = walks.anisotropic(np.random.default_rng(23), TENSOR)
    n = np.array([1.0, 2.0, -1.0])
    turned = diffusion(walks.statistics(x @ _TURN.T), direction=_TURN @ n)
    found = diffusion(walks.statistics(x), direction=n)
    assert pytest.approx(found.D, rel=1e-6) == turned.D
    assert turned.interval == pytest.approx(found.interval, rel=1e-3)


def test_merged_runs_have_smaller_errors():
    rng = np.random.default_rng(24)
    held, ratio = [], []
    for _ in range(25):
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
        Windows(lags, first, origins, spacing), 1 - np.exp(-np.arange(25) / memory), 1.0
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


def _caged(rng, frames: int, memory_ps: float) -> np.ndarray:
    """Return a slow vibration of 1 Å per axis."""
    keep = np.exp(-walks.INTERVAL / memory_ps)
    x = np.zeros((frames, walks.IONS, 3))
    for t in range(1, frames):
        x[t] = keep * x[t - 1] + rng.normal(0, np.sqrt(1 - keep**2), x.shape[1:])
    return x


def test_slow_motion_in_a_cage_is_no_diffusion():
    rng = np.random.default_rng(27)
    long = diffusion(
        walks.statistics(_caged(rng, 3000, 8.0), [*walks.LAGS, *range(500, 1501, 100)])
    )
    assert long.begins_late
    assert long.subdiffusive
    assert long.D < 0.002  # a line from 2 ps on has 0.05
    short = diffusion(walks.statistics(_caged(rng, 800, 8.0)))
    assert short.subdiffusive


def test_diffusion_that_begins_late_is_found():
    rng = np.random.default_rng(29)
    lags = [*walks.LAGS, *range(500, 1501, 100)]
    found, held = [], []
    for _ in range(20):
        x = _caged(rng, 3000, 4.0) + walks.brownian(rng, 0.05, frames=3000)
        found.append(diffusion(walks.statistics(x, lags)))
        held.append(found[-1].interval[0] <= 0.05 <= found[-1].interval[1])
    assert all(d.begins_late for d in found)
    # a line from 2 ps on has 0.14
    assert np.mean([d.D for d in found]) == pytest.approx(0.05, rel=0.06)
    assert np.mean(held) >= 0.8


def test_a_fit_takes_less_than_a_tenth_of_a_second():
    frames = 12_500
    rng = np.random.default_rng(28)
    x = np.cumsum(rng.normal(0, 0.02, (frames, 12, 3)), axis=0)
    stats = displacement_statistics(walks.trajectory(x, 0.006), 11)
    begin = time.process_time()
    found = [diffusion(stats) for _ in range(5)]
    assert (time.process_time() - begin) / 5 < 0.1
    assert found[0].interval[0] < 0.02**2 / (2 * 0.006) < found[0].interval[1]


@pytest.mark.filterwarnings("ignore")
def test_beside_kinisi():
    """Values agree within errors, and errors are alike, for the same walk (kinisi 2.1)."""
    sc = pytest.importorskip("scipp")
    analyze = pytest.importorskip("kinisi.analyze")
    rng = np.random.default_rng(30)
    x = walks.brownian(rng, 0.1) + walks.vibration(rng)
    run = walks.trajectory(x)
    frames = [Atoms(run.numbers, p + 7, cell=run.cell, pbc=True) for p in run.positions]
    lags = sc.array(dims=["time interval"], values=np.arange(2.0, 40.1, 2.0), unit="ps")
    theirs = analyze.DiffusionAnalyzer.from_ase(
        frames,
        specie="Na",
        time_step=walks.INTERVAL * sc.Unit("ps"),
        step_skip=1 * sc.Unit("dimensionless"),
        dt=lags,
        progress=False,
    )
    theirs.diffusion(
        2.0 * sc.Unit("ps"), progress=False, n_samples=400, random_state=np.random.RandomState(1)
    )
    sampled = theirs.D.values * 1e4  # cm²/s to Å²/ps
    found = diffusion(walks.statistics(x))
    assert abs(found.D - sampled.mean()) < 2 * max(found.standard_error, sampled.std())
    assert 0.4 < found.standard_error / sampled.std() < 2.5
