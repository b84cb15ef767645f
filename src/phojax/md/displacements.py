"""Displacement statistics of a kept trajectory, from all time origins.

With prefix sums of x_a x_b and a correlation, the sum over origins t in a window [p, q) is

    Σ_t Δa Δb = Σ_t (a b)(t+τ) + Σ_t (a b)(t) - Σ_t [a(t+τ) b(t) + a(t) b(t+τ)]            (1)

where the last sum is a correlation of the series with itself, masked to the window, which Fourier
transforms give for all lags at once (Kneller et al., Comput. Phys. Commun. 91, 191 (1995)). For few
lags the left side is summed as it stands.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from scipy import fft

from phojax.checks import fail
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.trajectory import Trajectory, host_of, without_drift

_BLOCK = 100_000  # numbers per axis at a time
_FEW = 30  # lags below which sums are cheaper than transforms
_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # components of a symmetric tensor
_FULL = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # place of each element among them
_LEFT, _RIGHT = np.array(_PAIRS).T


def multilevel_lags(frames: int, longest: int | None = None) -> Int[np.ndarray, " lag"]:
    """Return 1 … 32 and k·2^l with k = 17 … 32, up to `longest` (default: frames - 1)."""
    most = frames - 1 if longest is None else min(longest, frames - 1)
    lags, level = list(range(1, 33)), 1
    while lags[-1] < most:
        lags += [k * 2**level for k in range(17, 33)]
        level += 1
    return np.array([k for k in lags if k <= most])


def displacement_statistics(
    trajectory: Trajectory,
    mobile: int,
    *,
    lags: Sequence[int] | Int[np.ndarray, " lag"] | None = None,
    sections: int = 8,
) -> DisplacementStatistics:
    """Return the second moments of displacements, averaged over all time origins.

    Args:
        trajectory: Frames; the drift of the host's centre of mass is subtracted.
        mobile: Atomic number of the mobile ion.
        lags: In frames, ascending; by default those of `multilevel_lags`.
        sections: Parts of equal length that the origins are sorted into.

    Raises:
        InputError: fewer than 2 frames, lags that are not ascending in 1 … frames - 1, or an
            element that is not there.
    """
    frames = len(trajectory)
    if frames < 2:
        raise fail(f"{frames} frames", "at least 2")
    taken = multilevel_lags(frames) if lags is None else np.asarray(lags, int)
    if not len(taken) or taken[0] < 1 or taken[-1] >= frames or np.any(np.diff(taken) < 1):
        raise fail(f"lags {list(taken[:5])} … of {frames} frames", "ascending, 1 … frames - 1")
    if not 1 <= sections <= frames:
        raise fail(
            f"{frames} frames in {sections} sections",
            "at least 1 section, of at least 1 frame each",
            "Run longer, or write frames more often",
        )
    x = _relative(trajectory, mobile)
    numbers = np.asarray(trajectory.numbers)
    species = np.unique(numbers[numbers > 0])
    # Section s begins with the first origin t for which t · sections // frames = s.
    bounds = -(-np.arange(sections + 1) * frames // sections)
    sums_of = _by_sums if len(taken) < _FEW else _by_transforms
    atoms = np.empty((len(taken), len(numbers), 6))
    per_section = np.zeros((sections, len(taken), len(species), 6))
    for k, z in enumerate(species):
        members = np.flatnonzero(numbers == z)
        for block in np.array_split(members, -(-len(members) * frames // _BLOCK)):
            of_sections = sums_of(x[:, block], taken, bounds)
            atoms[:, block] = of_sections.sum(axis=0)
            per_section[:, :, k] += of_sections.sum(axis=2) / len(members)
    for z in numbers[numbers == 0]:  # padding does not move
        atoms[:, numbers == z] = 0
    totals = np.stack([x[:, numbers == z].sum(axis=1) for z in species], axis=1)
    collective = sums_of(totals, taken, np.array([0, frames])).sum(axis=0)
    origins = frames - taken
    lower, upper = bounds[:-1, None], bounds[1:, None]
    return DisplacementStatistics(
        lags=taken,
        origins=origins,
        spacing=np.ones_like(taken),
        frames=frames,
        interval_ps=trajectory.interval_ps,
        atoms=atoms[..., _FULL] / origins[:, None, None, None],
        collective=collective[..., _FULL] / origins[:, None, None, None],
        section_sums=per_section[..., _FULL],
        section_origins=np.maximum(0, np.minimum(upper, origins) - lower),
        numbers=numbers,
        species=tuple(int(z) for z in species),
        mobile=mobile,
    )


def single_origin_msd(trajectory: Trajectory, mobile: int) -> Float[np.ndarray, "frame species 3"]:
    """Return the mean squared displacement from the first frame, Å², per element and axis.

    Elements are in ascending order; the drift of the host's centre of mass is subtracted.
    """
    x = _relative(trajectory, mobile)
    squared = (x - x[0]) ** 2
    numbers = np.asarray(trajectory.numbers)
    species = np.unique(numbers[numbers > 0])
    return np.stack([squared[:, numbers == z].mean(axis=1) for z in species], axis=1)


def merged(statistics: Sequence[DisplacementStatistics]) -> DisplacementStatistics:
    """Return the mean over independent runs of one system, all of the same length.

    Moments are averaged, origins added up, and sections put one after the other; `frames` remains
    the length of one run.

    Raises:
        InputError: no runs, or runs that differ in atoms, length, interval, lags or origins.
    """
    if not statistics:
        raise fail("no runs", "at least one")
    first = statistics[0]
    for other in statistics[1:]:
        same = (
            np.array_equal(other.numbers, first.numbers)
            and other.mobile == first.mobile
            and other.frames == first.frames
            and np.isclose(other.interval_ps, first.interval_ps)
            and np.array_equal(other.lags, first.lags)
            and np.array_equal(other.origins, first.origins)
        )
        if not same:
            raise fail(
                f"runs of {first.frames} and {other.frames} frames, {first.interval_ps} and "
                f"{other.interval_ps} ps apart, or different atoms or lags",
                "runs of one system, equally long, with the same lags",
                "Leave out runs that ended early",
            )
    return replace(
        first,
        origins=np.sum([s.origins for s in statistics], axis=0),
        atoms=np.mean([s.atoms for s in statistics], axis=0),
        collective=np.mean([s.collective for s in statistics], axis=0),
        section_sums=np.concatenate([s.section_sums for s in statistics]),
        section_origins=np.concatenate([s.section_origins for s in statistics]),
    )


def _relative(trajectory: Trajectory, mobile: int) -> np.ndarray:
    """Return positions without drift, about the first frame: small numbers, little rounding."""
    numbers = np.asarray(trajectory.numbers)
    if mobile not in numbers:
        raise fail(f"mobile element {mobile}", f"one of {sorted(set(numbers.tolist()))}")
    host = host_of(numbers, mobile)
    x = without_drift(np.asarray(trajectory.positions, float), trajectory.masses, host)
    return x - x[0]


def _by_sums(x: np.ndarray, lags: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the left side of eq. (1): (section, lag, atom, 6)."""
    out = np.zeros((len(bounds) - 1, len(lags), x.shape[1], 6))
    x = np.moveaxis(x, -1, 0).copy()
    for n, lag in enumerate(lags):
        d = x[:, lag:] - x[:, :-lag]
        begun = bounds[:-1][bounds[:-1] < d.shape[1]]
        for c, (a, b) in enumerate(_PAIRS):
            out[: len(begun), n, :, c] = np.add.reduceat(d[a] * d[b], begun, axis=0)
    return out


def _by_transforms(x: np.ndarray, lags: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the right side of eq. (1): (section, lag, atom, 6)."""
    frames = len(x)
    length = fft.next_fast_len(2 * frames - 1, real=True) or 2 * frames
    x = np.moveaxis(x - x.mean(axis=0), 0, -1).copy()  # atom, axis, time
    products = x[:, _LEFT] * x[:, _RIGHT]
    before = np.zeros((*products.shape[:2], frames + 1))
    np.cumsum(products, axis=-1, out=before[..., 1:])
    whole = np.asarray(fft.rfft(x, length))
    out = np.empty((len(bounds) - 1, len(lags), len(x), 6))
    for s in range(len(bounds) - 1):
        p, q = bounds[s], bounds[s + 1]
        masked = np.zeros_like(x)
        masked[..., p:q] = x[..., p:q]
        part = np.conj(np.asarray(fft.rfft(masked, length)))
        both = part[:, _LEFT] * whole[:, _RIGHT] + part[:, _RIGHT] * whole[:, _LEFT]
        cross = np.asarray(fft.irfft(both, length))[..., lags]
        last = np.clip(frames - lags, p, q)  # origins p … last - 1 have a partner
        early = before[..., last] - before[..., p, None]
        late = before[..., last + lags * (last > p)] - before[..., p + lags * (last > p)]
        out[s] = np.moveaxis(early + late - cross, -1, 0)
    # Where no origin has a partner, what is left is rounding.
    out[(frames - lags)[None, :] <= bounds[:-1, None]] = 0
    return out
