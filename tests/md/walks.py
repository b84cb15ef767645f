"""Synthetic walks of known diffusion, beside a host at rest."""

import numpy as np
from scipy.signal import lfilter

from phojax.md.diffusion import Diffusion, diffusion
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.displacements import displacement_statistics
from phojax.md.trajectory import Trajectory

INTERVAL = 0.1  # ps
FRAMES = 800
IONS = 18
LAGS = [1, 2, 3, 4, 6, 8, 11, 14, 17, *range(20, 81, 20), *range(100, 401, 50)]
CELL = np.array([[15.0, 0, 0], [6.0, 12.0, 0], [3.0, 4.5, 18.0]])


def trajectory(ions: np.ndarray, interval: float = INTERVAL) -> Trajectory:
    """Return Na ions about an I that stays in place."""
    x = np.concatenate([ions, np.zeros((len(ions), 1, 3))], axis=1)
    numbers = np.array([11] * ions.shape[1] + [53])
    return Trajectory(x, CELL, numbers, np.where(numbers == 11, 22.99, 126.9), interval)


def statistics(ions: np.ndarray, lags=LAGS) -> DisplacementStatistics:
    """Return the statistics of ions at a few lags."""
    return displacement_statistics(trajectory(ions), 11, lags=lags)


def brownian(rng, D: float, ions: int = IONS, frames: int = FRAMES) -> np.ndarray:
    """Return independent walkers."""
    return np.cumsum(rng.normal(0, np.sqrt(2 * D * INTERVAL), (frames, ions, 3)), axis=0)


def vibration(rng, size: float = 0.25, ions: int = IONS, frames: int = FRAMES) -> np.ndarray:
    """Return an Ornstein-Uhlenbeck process of `size` Å per axis that forgets in 0.3 ps."""
    keep = np.exp(-INTERVAL / 0.3)
    kicks = rng.normal(0, size * np.sqrt(1 - keep**2), (frames, ions, 3))
    kicks[0] = rng.normal(0, size, (ions, 3))
    return lfilter([1], [1, -keep], kicks, axis=0)


def hops(rng, D: float, length: float = 2.5, ions: int = IONS, frames: int = FRAMES) -> np.ndarray:
    """Return jumps along ±x, ±y, ±z at random times: D = rate length² / 6."""
    count = rng.poisson(6 * D / length**2 * INTERVAL, (frames, ions))
    axis = rng.integers(0, 3, (frames, ions, 1))
    x = np.zeros((frames, ions, 3))
    sign = rng.choice([-length, length], (frames, ions))
    np.put_along_axis(x, axis, (count * sign)[..., None], axis=2)
    return np.cumsum(x, axis=0)


def groups(rng, D: float, size: int) -> np.ndarray:
    """Return ions that move as rigid groups."""
    return np.repeat(brownian(rng, D, IONS // size), size, axis=1)


def anisotropic(rng, tensor: np.ndarray) -> np.ndarray:
    """Return independent walkers with a tensor of diffusion."""
    return brownian(rng, 1.0) @ np.linalg.cholesky(tensor).T


WALKS = 200


def checked_estimates(D: float, walk, seed: int = 20) -> list[Diffusion]:
    """Return estimates from 200 walks, their intervals, bias and errors checked."""
    rng = np.random.default_rng(seed)
    found = [diffusion(statistics(walk(rng))) for _ in range(WALKS)]
    held = np.mean([d.interval[0] <= D <= d.interval[1] for d in found])
    assert 0.90 <= held <= 0.98
    values = np.array([d.D for d in found])
    assert abs(values.mean() - D) < 3.5 * values.std() / np.sqrt(WALKS)  # no bias
    errors = np.sqrt(np.mean([d.standard_error**2 for d in found]))
    assert 0.8 < errors / values.std() < 1.35
    assert np.mean([d.below_detection for d in found]) == 0
    assert np.mean([d.poor_fit for d in found]) < 0.03
    assert np.mean([d.subdiffusive for d in found]) < 0.01
    return found
