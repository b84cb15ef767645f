"""Plain models beside the surrogate, trained on the same rows and judged on the same rows.

The mean, ridge regression and extremely randomised trees know no censoring: they are trained on
detected rows alone. The linear Tobit model is trained on all. Each gets one deviation, from
rows that its inner folds (of chemical systems) left out.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge

from phojax.learn.folds import grouped_folds
from phojax.learn.metrics import prediction_metrics, spread_factor
from phojax.learn.target import Target
from phojax.learn.tobit import tobit

_INNER = 5
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)

KNOWS_CENSORING = frozenset({"linear Tobit"})

Model = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, Target], Model]


def _mean(features: np.ndarray, target: Target) -> Model:
    middle = target.value[target.detected].mean()
    return lambda x: np.full(len(x), middle)


def _ridge(strength: float) -> Fit:
    def fit(features, target):
        seen = target.detected
        return Ridge(alpha=strength).fit(features[seen], target.value[seen]).predict

    return fit


def _tobit(strength: float) -> Fit:
    return lambda features, target: tobit(features, target, strength).mean


def _trees(count: int, seed: int) -> Fit:
    def fit(features, target):
        seen = target.detected
        trees = ExtraTreesRegressor(
            count, min_samples_leaf=2, max_features=0.5, random_state=seed, n_jobs=1
        )
        return trees.fit(features[seen], target.value[seen]).predict

    return fit


def baselines(trees: int, seed: int) -> dict[str, list[Fit]]:
    """Return the choices of each baseline, of which inner folds take the best."""
    return {
        "mean": [_mean],
        "ridge": [_ridge(a) for a in _STRENGTHS],
        "linear Tobit": [_tobit(a) for a in _STRENGTHS],
        "extra trees": [_trees(trees, seed)],
    }


def baseline_prediction(
    choices: Sequence[Fit],
    features: Float[np.ndarray, "row feature"],
    target: Target,
    systems: Sequence[str],
    asked: Float[np.ndarray, "other feature"],
    *,
    knows_censoring: bool,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "other"], float]:
    """Return predictions of log10 D and their deviation.

    Args:
        choices: Of which inner folds choose by likelihood.
        features: Of the rows to train on.
        target: Of them.
        systems: Their chemical systems.
        asked: Features to predict for.
        knows_censoring: Whether it is judged by censored rows as well.
        seed: Of the inner folds.
    """
    parts = grouped_folds(systems, _INNER, detected=target.detected, seed=seed)
    best = (np.inf, choices[0], 1.0)
    for fit in choices:
        mean = np.empty(len(target))
        for part in range(parts.max() + 1):
            inside = parts != part
            mean[~inside] = fit(features[inside], target[inside])(features[~inside])
        # Those that have seen detected rows alone are judged by them.
        judged = np.ones(len(target), bool) if knows_censoring else target.detected
        base = max(float(np.std((target.value - mean)[target.detected])), 1e-3)
        deviation = np.full(judged.sum(), base)
        factor = spread_factor(mean[judged], deviation, target[judged])
        loss = prediction_metrics(mean[judged], factor * deviation, target[judged])["nll"]
        if loss < best[0]:
            best = (loss, fit, factor * base)
    return best[1](features, target)(asked), best[2]
