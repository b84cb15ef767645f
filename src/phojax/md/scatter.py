"""How much more estimates scatter than independent Gaussian ions would: between ions, and in time.

The variance of windows.py holds for ions that move independently by displacements that are
Gaussian. Rare jumps are not (few events carry the slope): then slopes of single ions scatter more.
Ions that move in concert count as fewer: then sections of the run scatter more than the scatter
between ions lets expect. The second ratio, the concert, is taken over all six components of M,
which move in concert alike, and has many more degrees of freedom than the trace alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.slopes import Line
from phojax.md.windows import Kernels, Windows, gaussian_weights, window_kernels

_LAGS = 4  # of a section's slope, at most
_LEFT = (0, 1, 2, 1, 0, 0)
_RIGHT = (0, 1, 2, 2, 2, 1)


@dataclass(frozen=True)
class Concert:
    """Scatter between sections over what independent ions lead to expect.

    Attributes:
        ratio: 1 for ions that know nothing of each other, g for rigid groups of g.
        freedom: Its degrees of freedom; 0 where it is not known.
        events: Share of the excess scatter between ions that the sections allow to be events in
            time; the rest is that ions differ for good, which is no error of their mean.
    """

    ratio: float = 1.0
    freedom: float = 0.0
    events: float = 1.0


def between_ions(
    statistics: DisplacementStatistics, number: int, line: Line, A: np.ndarray
) -> np.ndarray:
    """Return A:D of every ion, Å²/ps."""
    ions = statistics.atoms[line.used][:, statistics.numbers == number]
    return np.einsum("l,liab,ab->i", line.slope, ions, A)


def concert(statistics: DisplacementStatistics, number: int, line: Line) -> Concert:
    """Return how much more sections scatter than independent ions would."""
    longest = statistics.frames / 8
    few = [n for n, place in enumerate(line.used[:_LAGS]) if statistics.lags[place] <= longest]
    few = few if len(few) > 1 else [0, 1]
    places = line.used[few]
    species = statistics.species.index(number)
    counts = statistics.section_origins[:, places]
    whole = np.all(counts >= 0.5 * counts.max(axis=0), axis=1)
    if whole.sum() < 3:
        return Concert()
    weights = _slope_weights(line, few)
    means = statistics.section_sums[whole][:, places, species] / counts[whole][..., None, None]
    _, frame = np.linalg.eigh(line.diffusion + 1e-9 * line.vibration)
    rotated = frame.T @ means @ frame
    ions = frame.T @ statistics.atoms[places][:, statistics.numbers == number] @ frame
    D, O = (frame.T @ t @ frame for t in (line.diffusion, line.vibration))
    of_section = np.einsum("l,slab->sab", weights, rotated)[:, _LEFT, _RIGHT]
    of_ion = np.einsum("l,liab->iab", weights, ions)[:, _LEFT, _RIGHT]
    count = len(of_ion)
    in_time = _between_sections(statistics, line, places, whole, weights)
    whole_run = [weights @ k[np.ix_(few, few)] @ weights / line.runs for k in _kinds(line.kernels)]
    observed, gaussian, excess, spread = np.zeros(6), np.zeros(6), np.zeros(6), 0.0
    centred = np.eye(int(whole.sum())) - 1 / whole.sum()
    for n, (a, b) in enumerate(zip(_LEFT, _RIGHT, strict=True)):
        A = np.zeros((3, 3))
        A[a, b] = A[b, a] = 1.0 if a == b else 0.5
        factors = gaussian_weights(A, D, O)
        alone = sum(f * v for f, v in zip(factors, whole_run[:3], strict=True))
        if alone <= 0:
            continue
        S = centred @ sum(f * k for f, k in zip(factors, in_time[:3], strict=True)) / count
        observed[n] = of_section[:, n] @ centred @ of_section[:, n]
        gaussian[n] = np.trace(S)
        spread = max(spread, float(np.trace(S @ S) / np.trace(S) ** 2))
        if count > 1:
            kappa = (of_ion[:, n].var(ddof=1) - alone) / whole_run[3]
            excess[n] = kappa * np.trace(centred @ in_time[3]) / count
    # ions of a rigid group scatter less than independent ones
    expected = gaussian + (excess if excess.sum() > 0 else 0)
    if not gaussian.sum() > 0:
        return Concert()
    alike = np.eye(6)
    if count > 2:
        std = of_ion.std(axis=0)
        moving = np.outer(std > 0, std > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            alike = np.where(moving, np.corrcoef(of_ion.T), np.eye(6)) ** 2
        # independent components look alike by chance by 1 / (ions - 1)
        alike = np.maximum(alike - 1 / (count - 1), 0)
    np.fill_diagonal(alike, 1)
    size = np.maximum(expected, 0)
    freedom = float(size.sum() ** 2 / (size @ alike @ size * spread))
    ratio = float(observed.sum() / expected.sum())
    events = 1.0
    if ratio < 1 and excess.sum() > 0:
        upper = observed.sum() * freedom / stats.chi2.ppf(0.1, freedom)
        events = float(np.clip((upper - gaussian.sum()) / excess.sum(), 0, 1))
    return Concert(ratio, freedom, events)


def _kinds(kernels: Kernels) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return kernels.overlaps, kernels.mixed, kernels.noise, kernels.events


def _slope_weights(line: Line, few: list[int]) -> np.ndarray:
    """Return weights that give the slope from few lags: least squares, since they are few."""
    tau = line.lags_ps[few]
    return np.linalg.pinv(np.stack([tau, np.ones_like(tau)], axis=1))[0]


def _between_sections(statistics, line: Line, places, whole, weights) -> list[np.ndarray]:
    """Return the parts of the covariance of the slopes of sections, of one ion."""
    group = len(whole) // line.runs
    counts = statistics.section_origins[:group][:, places]
    first = (np.cumsum(counts, axis=0) - counts) * statistics.spacing[places]
    size = len(places)
    windows = Windows(
        np.tile(statistics.lags[places], group),
        first.ravel(),
        np.maximum(1, counts.ravel()),
        np.tile(statistics.spacing[places], group),
    )
    kernels = window_kernels(windows, line.forgotten, statistics.interval_ps, size)
    out = []
    for kind in _kinds(kernels):
        apart = np.einsum("k,krl,l->r", weights, kind[:size].reshape(size, group, size), weights)
        between = linalg.toeplitz(apart)  # sections are alike: their distance counts
        out.append(np.kron(np.eye(line.runs), between)[np.ix_(whole, whole)])
    return out
