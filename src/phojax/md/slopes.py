"""Slope and intercept of mean squared displacements by generalised least squares.

    y(τ) = A:M(τ) = D τ · 2 tr A + offset,   M the tensor of second moments                 (1)

is linear in M, so that the weights that give slope and intercept serve for the mean over ions, for
each of them, and for sections of a run alike. The covariance that the weights come from is that of
windows.py; D, the offset, and how fast the vibration forgets (φ) are those of the fit before.

Lags are at least `begin` apart, and each at least 1.12 times the one before. Closer ones would let
the fit see differences over times shorter than `begin`, where the motion is not diffusion.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from phojax.checks import fail
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.windows import Kernels, Windows, gaussian_weights, window_kernels

_APART = 1.12
_ROUNDS = 2


@dataclass(frozen=True)
class Line:
    """A straight line through second moments.

    Attributes:
        used: Places of the lags that were fitted.
        lags_ps: Those lags.
        slope: Weights of M at those lags that give 2D (their sum with τ is 1, their sum is 0).
        offset: Weights that give the intercept.
        diffusion: Tensor D, Å²/ps, negative eigenvalues set to 0.
        vibration: Tensor of intercepts, Å², negative eigenvalues set to 0.
        forgotten: φ of windows.py.
        kernels: Of one run, K of windows.py.
        runs: Independent runs averaged over.
    """

    used: Int[np.ndarray, " used"]
    lags_ps: Float[np.ndarray, " used"]
    slope: Float[np.ndarray, " used"]
    offset: Float[np.ndarray, " used"]
    diffusion: Float[np.ndarray, "3 3"]
    vibration: Float[np.ndarray, "3 3"]
    forgotten: Float[np.ndarray, " frame"]
    kernels: Kernels
    runs: int

    def variances(self) -> np.ndarray:
        """Return the parts of the variance of the slope, to be weighted by eq. (3) there."""
        return self._variances(self.slope)

    def offset_variances(self) -> np.ndarray:
        """Return the parts of the variance of the intercept."""
        return self._variances(self.offset)

    def _variances(self, w: np.ndarray) -> np.ndarray:
        K = self.kernels
        return np.array([w @ k @ w / self.runs for k in (K.overlaps, K.mixed, K.noise)])


def independent_runs(statistics: DisplacementStatistics) -> int:
    """Return how many runs were merged: origins beyond those that one run has."""
    one = (statistics.frames - statistics.lags - 1) // statistics.spacing + 1
    return max(1, round(float(statistics.origins[0] / max(1, one[0]))))


def fitted_lags(statistics: DisplacementStatistics, begin_ps: float) -> Int[np.ndarray, " used"]:
    """Return the places of the lags from `begin_ps` to half the run that a fit takes."""
    begin = begin_ps / statistics.interval_ps
    taken: list[int] = []
    for place, lag in enumerate(statistics.lags):
        before = statistics.lags[taken[-1]] if taken else 0
        # a grid that is not fine enough to hit `begin` twice is forgiven 7 %
        far = lag >= before + 0.93 * begin and lag >= _APART * before
        if lag >= begin * (1 - 1e-9) and 2 * lag <= statistics.frames and far:
            taken.append(place)
    return np.array(taken, int)


def straight_line(
    statistics: DisplacementStatistics,
    moments: Float[np.ndarray, "lag 3 3"],
    A: Float[np.ndarray, "3 3"],
    begin_ps: float,
) -> Line:
    """Return the line through A:M.

    Args:
        statistics: For lags and origins.
        moments: M, Å², at all lags.
        A: What is fitted: the identity for the trace, n nᵀ for a direction.
        begin_ps: First lag.

    Raises:
        InputError: fewer than two lags between `begin_ps` and half the run, or begin ≤ 0.
    """
    if not begin_ps > 0:
        raise fail(f"a fit from {begin_ps} ps on", "a positive time")
    used = fitted_lags(statistics, begin_ps)
    if len(used) < 2:
        total = statistics.frames * statistics.interval_ps
        raise fail(
            f"{len(used)} lags between {begin_ps:g} ps and half of a run of {total:.3g} ps",
            "at least 2",
            "Run longer, or begin the fit earlier",
        )
    tau = statistics.lags_ps[used]
    runs = independent_runs(statistics)
    windows = Windows(
        statistics.lags[used],
        np.zeros_like(used),
        statistics.origins[used] // runs,
        statistics.spacing[used],
    )
    X = np.stack([tau, np.ones_like(tau)], axis=1)
    weights = np.linalg.pinv(X)
    forgotten, kernels = np.zeros(1), Kernels(*np.zeros((4, len(tau), len(tau))))
    for _ in range(_ROUNDS):
        D, O = _tensors(moments[used], weights)
        forgotten = _forgotten(statistics, moments, D, O, int(windows.lags[0]))
        kernels = window_kernels(windows, forgotten, statistics.interval_ps)
        factors = gaussian_weights(A, D, O)
        if max(factors) <= 0:
            factors = (1.0, 0.0, 0.0)
        covariance = kernels.covariance(factors)
        scale = np.sqrt(np.diag(covariance))
        scaled = covariance / np.outer(scale, scale) + 1e-9 * np.eye(len(tau))
        solved = np.linalg.solve(scaled, X / scale[:, None]) / scale[:, None]
        weights = np.linalg.solve(X.T @ solved, solved.T)
    D, O = _tensors(moments[used], weights)
    return Line(used, tau, weights[0], weights[1], D, O, forgotten, kernels, runs)


def _tensors(moments: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return D and the offset."""
    slope, offset = np.einsum("wl,lab->wab", weights, moments)
    return _positive(slope / 2), _positive(offset)


def _positive(tensor: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((tensor + tensor.T) / 2)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def _forgotten(statistics, moments, D, O, begin: int) -> np.ndarray:
    """Return φ up to the first lag of the fit, from what is above the line through the origin."""
    size = np.trace(O)
    early = statistics.lags < begin
    lags = np.concatenate([[0], statistics.lags[early], [begin]])
    if size <= 0 or not early.any():
        return np.concatenate([[0.0], np.ones(min(begin, 1))])
    above = np.trace(
        moments[early] - 2 * D * statistics.lags_ps[early, None, None], axis1=1, axis2=2
    )
    phi = np.concatenate([[0.0], np.clip(above / size, 0, 2), [1.0]])
    return np.interp(np.arange(begin + 1), lags, phi)
