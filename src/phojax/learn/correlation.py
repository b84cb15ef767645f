"""Correlation coefficients with bootstrap intervals, where some values are censored.

Pearson's r is of detected rows. Spearman's ρ is Pearson's r of ranks; a censored value ranks below
whatever its limit allows and ties with the rest (Gehan, Biometrika 52, 203 (1965)):

    s_i = #{j surely below i} - #{j surely above i}                                        (1)

which is linear in the mid-rank if nothing is censored, and ties all censored values at the bottom
if every limit is below every detected value. The share of pairs without an order is told.

Structures of one chemical system are no independent draws: the bootstrap draws whole systems.
Intervals are BCa (Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 14), from
statistics of rows with integer weights, so that no sample is ever sorted again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from phojax.checks import check_shape

RESAMPLES = 2000
LEAST = 8
"""With fewer independent rows an interval would be a fiction: there is none."""

_LEVEL = 0.95
_BLOCK = 2_000_000  # weights held at a time


@dataclass(frozen=True)
class Coefficient:
    """A correlation coefficient.

    Attributes:
        value: NaN where it is undefined: fewer than three rows, or no variation.
        low: Of the 95 % bootstrap interval; NaN where there are too few rows.
        high: The other end.
        p: Two-sided, of no correlation, by Student's t with n - 2 degrees of freedom.
        n: Rows that took part.
        n_censored: Those of them that are censored.
        n_left_out: Rows that could not take part: a value is missing, or censored (Pearson).
        systems: Independent groups of rows.
        undecided: Share of pairs without an order, because a limit is above the other value.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    n_censored: int
    n_left_out: int
    systems: int
    undecided: float = 0.0


def pearson(
    x: Float[np.ndarray, "row"],
    y: Float[np.ndarray, "row"],
    censored: Bool[np.ndarray, "row"] | None = None,
    systems: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Coefficient:
    """Return Pearson's r of two quantities over the rows where both are known.

    Args:
        x: NaN where unknown.
        y: NaN where unknown.
        censored: Rows to leave out; none by default.
        systems: Rows of one chemical system stay together; by default each is on its own.
        resamples: Of the bootstrap; 0 for no interval.
        seed: Of the bootstrap.
    """
    _check(x, y, censored, systems)
    kept = np.isfinite(x) & np.isfinite(y)
    kept &= True if censored is None else ~censored
    a, b = x[kept], y[kept]
    return _coefficient(
        lambda w: _weighted_pearson(a, b, w), a, b, kept, systems, resamples, seed, 0, 0.0
    )


def spearman(
    x: Float[np.ndarray, "row"],
    y: Float[np.ndarray, "row"],
    censored: Bool[np.ndarray, "row"] | None = None,
    systems: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Coefficient:
    """Return Spearman's ρ, eq. (1), over the rows where both are known.

    Args:
        x: NaN where unknown.
        y: The value, or for censored rows the limit that it is below.
        censored: None by default.
        systems: As for `pearson`.
        resamples: Of the bootstrap; 0 for no interval.
        seed: Of the bootstrap.
    """
    _check(x, y, censored, systems)
    kept = np.isfinite(x) & np.isfinite(y)
    a, b = x[kept], y[kept]
    c = np.zeros(len(b), bool) if censored is None else censored[kept]
    order = surely_above(b, c)
    undecided = 0.0
    if c.any() and not c.all():
        pair = ~(c[:, None] & c[None, :])
        np.fill_diagonal(pair, False)
        undecided = float(np.mean((order == 0)[pair] & (b[:, None] != b[None, :])[pair]))
    statistic = _rank_statistic(a, order)
    return _coefficient(
        statistic, a, b, kept, systems, resamples, seed, int(c.sum()), undecided,
        varies=bool(order.any()),
    )  # fmt: skip


def control(
    x: Float[np.ndarray, "row"],
    y: Float[np.ndarray, "row"],
    censored: Bool[np.ndarray, "row"],
    limit: Float[np.ndarray, "row"],
    through_origin: Float[np.ndarray, "row"],
    systems: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Coefficient]:
    """Return what fits through the origin add to a correlation (PHYSICS E3), on the same rows.

    A line through the origin takes vibrations for diffusion. For Pearson's r, D with an intercept
    is the estimate itself in rows below detection as well: it scatters around the truth there.

    Args:
        x: The descriptor.
        y: D with an intercept, Å²/ps; any sign in censored rows.
        censored: Rows below detection.
        limit: Detection limits, Å²/ps.
        through_origin: D through the origin, Å²/ps.
        systems: As for `pearson`.
        resamples: Of the bootstrap; 0 for no interval.
        seed: Of the bootstrap.

    Returns:
        dict: "pearson", "spearman" of the fit with intercept; "pearson_paper", "spearman_paper"
        through the origin; "pearson_difference", "spearman_difference": the latter minus the
        former, their p from the interval alone and so NaN.
    """
    _check(x, y, censored, systems)
    bound = np.where(censored, limit, y)
    known = np.isfinite(x) & np.isfinite(through_origin)
    found: dict[str, Coefficient] = {}
    for name in ("pearson", "spearman"):
        kept = known & np.isfinite(y if name == "pearson" else bound)
        a, b, o, c = x[kept], y[kept], through_origin[kept], censored[kept]
        if name == "pearson":
            statistics = [
                lambda w, a=a, b=b: _weighted_pearson(a, b, w),
                lambda w, a=a, o=o: _weighted_pearson(a, o, w),
            ]
        else:
            nobody = np.zeros(len(o), bool)
            statistics = [
                _rank_statistic(a, surely_above(bound[kept], c)),
                _rank_statistic(a, surely_above(o, nobody)),
            ]
        plain, paper = statistics
        censored_rows = int(c.sum())
        for suffix, statistic in (
            ("", plain),
            ("_paper", paper),
            ("_difference", lambda w, f=paper, g=plain: f(w) - g(w)),
        ):
            found[name + suffix] = _coefficient(
                statistic, a, o, kept, systems, resamples, seed, censored_rows, 0.0,
                tested=suffix != "_difference",
            )  # fmt: skip
    return found


def surely_above(
    value: Float[np.ndarray, "row"], censored: Bool[np.ndarray, "row"]
) -> Float[np.ndarray, "row row"]:
    """Return 1 where row i is surely above row j, -1 where below, 0 where tied or unknown."""
    i, j = value[:, None], value[None, :]
    ci, cj = censored[:, None], censored[None, :]
    above = ~ci & np.where(cj, i >= j, i > j)
    return above.astype(float) - above.T


def _rank_statistic(x: np.ndarray, order: np.ndarray):
    """Return the statistic of eq. (1) as a function of weights (sample, row)."""
    place = np.unique(x, return_inverse=True)[1]
    rising = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[rising], np.arange(place.max(initial=-1) + 1))

    def statistic(w: np.ndarray) -> np.ndarray:
        mass = np.add.reduceat(w[:, rising], starts, axis=1)
        rank = (np.cumsum(mass, 1) - 0.5 * mass)[:, place]
        return _weighted_pearson(rank, w @ order.T, w)

    return statistic


def _weighted_pearson(a: np.ndarray, b: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return r of each sample; a and b are (row,) or (sample, row), w (sample, row)."""
    total = np.maximum(w.sum(1, keepdims=True), 1e-300)
    most_a, most_b = (w * a * a).sum(1), (w * b * b).sum(1)
    a = a - (w * a).sum(1, keepdims=True) / total
    b = b - (w * b).sum(1, keepdims=True) / total
    aa, bb, ab = (w * a * a).sum(1), (w * b * b).sum(1), (w * a * b).sum(1)
    # Rounding of equal values must not pass for variation.
    varied = (aa > 1e-24 * most_a) & (bb > 1e-24 * most_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(varied, np.clip(ab / np.sqrt(aa * bb), -1, 1), np.nan)


def _coefficient(
    statistic, a, b, kept, systems, resamples, seed, n_censored, undecided, *, tested=True,
    varies=True,
) -> Coefficient:  # fmt: skip
    n = len(a)
    labels = np.arange(n) if systems is None else np.asarray(systems, str)[kept]
    groups = np.unique(labels, return_inverse=True)[1] if n else np.zeros(0, int)
    count = int(groups.max()) + 1 if n else 0
    value = low = high = p = np.nan
    if n >= 3 and varies and np.ptp(a) > 0 and np.ptp(b) > 0:
        value = float(statistic(np.ones((1, n)))[0])
        if tested and np.isfinite(value):
            freedom = n - 2
            t = value * np.sqrt(freedom / max(1 - value**2, 1e-300))
            p = float(2 * stats.t.sf(abs(t), freedom))
        if count >= LEAST and resamples and np.isfinite(value):
            low, high = _interval(statistic, value, groups, count, resamples, seed)
    return Coefficient(
        value, low, high, p, n, n_censored, len(kept) - n, count, undecided
    )  # fmt: skip


def _interval(
    statistic, value: float, groups: Int[np.ndarray, "row"], count: int, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the BCa interval over groups of rows."""
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(groups))
    sampled = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.multinomial(count, np.full(count, 1 / count), size=size).astype(float)
        sampled.append(statistic(drawn[:, groups]))
    boot = np.concatenate(sampled)
    boot = boot[np.isfinite(boot)]
    if len(boot) < 0.9 * resamples:
        return np.nan, np.nan
    without = 1.0 - np.eye(count)
    left = statistic(without[:, groups])
    left = left[np.isfinite(left)]
    pull = left.mean() - left
    spread = np.sum(pull**2) ** 1.5
    acceleration = float(np.sum(pull**3) / (6 * spread)) if spread > 0 else 0.0
    below = (np.sum(boot < value) + 0.5 * np.sum(boot == value)) / len(boot)
    bias = stats.norm.ppf(np.clip(below, 1 / len(boot), 1 - 1 / len(boot)))
    ends = stats.norm.ppf([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    level = stats.norm.cdf(bias + (bias + ends) / (1 - acceleration * (bias + ends)))
    low, high = np.quantile(boot, level)
    return float(low), float(high)


def _check(x, y, censored, systems) -> None:
    check_shape("y", y, x.shape, "one for each x")
    if censored is not None:
        check_shape("censored", censored, x.shape, "one for each x")
    if systems is not None:
        check_shape("systems", systems, x.shape, "one for each x")
