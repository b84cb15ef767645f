"""How good predictions with uncertainties are, on rows of which some are censored.

The probability integral transform u = Φ((y - μ)/√(s² + σ²)) is uniform on [0, 1] if predictions are
calibrated. A censored row says no more than 0 ≤ u ≤ Φ((log₁₀ L - μ)/s) and counts evenly over
that range (Czado, Gneiting, Held, Biometrics 65, 1254 (2009)). Taking detected rows alone selects
large D and makes a calibrated prediction seem too low: both are given.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from phojax.learn.correlation import spearman
from phojax.learn.target import Target

_SHARES = {"68": 0.6826894921370859, "95": 0.95}
_GRID = np.geomspace(0.3, 4.0, 131)


def prediction_metrics(
    mean: Float[np.ndarray, "row"], deviation: Float[np.ndarray, "row"], target: Target
) -> dict[str, float]:
    """Return what predictions of log10 D are worth.

    Keys: rmse and bias of detected rows, spearman of all (see `correlation`), nll per row (natural
    log, density per decade), coverage_68 and coverage_95 of detected rows, coverage_68_all and
    coverage_95_all with the censored ones, limits_violated (share of censored rows predicted
    above their limit).
    """
    seen, c = target.detected, target.censored
    residual = (target.value - mean)[seen]
    total = np.hypot(deviation, target.error)
    z = residual / total[seen]
    found = {
        "rmse": _rms(residual),
        "bias": float(-np.mean(residual)) if len(residual) else np.nan,
        "spearman": spearman(mean, target.value, c, resamples=0).value if len(mean) > 2 else np.nan,
        "nll": float(np.mean(_nll(mean, deviation, target))) if len(mean) else np.nan,
    }
    lowest, highest = pit_bounds(mean, deviation, target)
    for name, share in _SHARES.items():
        edge = stats.norm.ppf(0.5 + share / 2)
        found[f"coverage_{name}"] = float(np.mean(np.abs(z) <= edge)) if len(z) else np.nan
        ends = pit_distribution(lowest, highest, np.array([0.5 - share / 2, 0.5 + share / 2]))
        found[f"coverage_{name}_all"] = float(ends[1] - ends[0])
    found["limits_violated"] = float(np.mean(mean[c] > target.value[c])) if c.any() else np.nan
    return found


def pit_bounds(
    mean: Float[np.ndarray, "row"], deviation: Float[np.ndarray, "row"], target: Target
) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row"]]:
    """Return the ends of what is known of u of each row; the same twice for detected rows."""
    u = stats.norm.cdf((target.value - mean) / np.hypot(deviation, target.error))
    return np.where(target.censored, 0.0, u), u


def pit_distribution(
    lowest: Float[np.ndarray, "row"],
    highest: Float[np.ndarray, "row"],
    at: Float[np.ndarray, "point"],
) -> Float[np.ndarray, "point"]:
    """Return the distribution function of u at points of [0, 1]; calibrated: the points."""
    width = np.maximum(highest - lowest, 1e-12)
    return np.clip((at[:, None] - lowest) / width, 0.0, 1.0).mean(1)


def spread_factor(
    mean: Float[np.ndarray, "row"],
    deviation: Float[np.ndarray, "row"],
    target: Target,
    beside: Float[np.ndarray, "row"] | float = 0.0,
) -> float:
    """Return the factor on the deviations that makes the values most likely, in [0.3, 4].

    Args:
        mean: Of log10 D.
        deviation: That is multiplied.
        target: The values.
        beside: Another deviation, added in squares, that is not.
    """
    loss = [np.sum(_nll(mean, np.hypot(factor * deviation, beside), target)) for factor in _GRID]
    return float(_GRID[int(np.argmin(loss))])


def resampled_rmse(
    mean: Float[np.ndarray, "row"],
    other: Float[np.ndarray, "row"],
    target: Target,
    systems: tuple[str, ...],
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Return 95 % bootstrap intervals over chemical systems of an RMSE and of its lead.

    Keys: rmse_low, rmse_high, and gain, gain_low, gain_high: RMSE of the other minus this one.
    """
    seen = target.detected
    place = np.unique(np.asarray(systems, str)[seen], return_inverse=True)[1]
    count = int(place.max(initial=-1)) + 1
    if count < 2:
        return {}
    squares = np.stack([
        np.bincount(place, (target.value - m)[seen] ** 2) for m in (mean, other)
    ])  # fmt: skip
    rows = np.bincount(place)
    w = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    rmse = np.sqrt(w @ squares.T / (w @ rows)[:, None])
    own, gain = rmse[:, 0], rmse[:, 1] - rmse[:, 0]
    ends = [0.025, 0.975]
    whole = np.sqrt(squares.sum(1) / rows.sum())
    return {
        **dict(zip(("rmse_low", "rmse_high"), map(float, np.quantile(own, ends)), strict=True)),
        "gain": float(whole[1] - whole[0]),
        **dict(zip(("gain_low", "gain_high"), map(float, np.quantile(gain, ends)), strict=True)),
    }


def _nll(mean, deviation, target: Target) -> np.ndarray:
    """Eqs. (1) and (2) of target.py, in numpy: called for single rows many times over."""
    seen = -stats.norm.logpdf(target.value, mean, np.hypot(deviation, target.error))
    below = -stats.norm.logcdf(target.value, mean, deviation)
    return np.where(target.censored, below, seen)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else np.nan
