"""Cross-validation by chemical systems, the surrogate and plain models on the same rows.

A random split would put a structure's polymorphs and neighbours in composition on both sides and
make every model look good. Here a chemical system is predicted by models that never saw it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from phojax.learn.baselines import KNOWS_CENSORING, baseline_prediction, baselines
from phojax.learn.ensemble import ensemble_prediction, fitted_ensemble
from phojax.learn.features import scaling
from phojax.learn.folds import grouped_folds
from phojax.learn.metrics import prediction_metrics, resampled_rmse
from phojax.learn.settings import LearnSettings
from phojax.learn.target import Target
from phojax.screening.store import Checkpoint

SURROGATE = "surrogate"


@dataclass(frozen=True)
class Validation:
    """Predictions of rows by models that saw no row of their chemical system.

    Attributes:
        fold: (row,) the part in which a row was predicted.
        mean: (row,) of log10 D, by model.
        deviation: (row,) by model.
        metrics: By model, see `prediction_metrics` and `resampled_rmse` (gain over the mean).
    """

    fold: Int[np.ndarray, "row"]
    mean: dict[str, Float[np.ndarray, "row"]]
    deviation: dict[str, Float[np.ndarray, "row"]]
    metrics: dict[str, dict[str, float]]


def cross_validated(
    values: Float[np.ndarray, "row column"],
    columns: Sequence[str],
    target: Target,
    systems: Sequence[str],
    settings: LearnSettings | None = None,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Validation:
    """Return how well log10 D of unseen chemical systems is predicted.

    Args:
        values: Descriptors, NaN where unknown.
        columns: Their names.
        target: log10 D.
        systems: Chemical systems.
        settings: How the surrogate is trained, and the number of parts.
        checkpoint: Where finished parts are kept.
        progress: Told of every part.

    Raises:
        InputError: fewer than two chemical systems.
    """
    settings = LearnSettings() if settings is None else settings
    checkpoint = Checkpoint(None) if checkpoint is None else checkpoint
    fold = grouped_folds(systems, settings.folds, detected=target.detected, seed=settings.seed)
    models = baselines(settings.trees, settings.seed)
    names = (SURROGATE, *models)
    mean = {name: np.full(len(target), np.nan) for name in names}
    deviation = {name: np.full(len(target), np.nan) for name in names}
    labels = np.asarray(systems, str)
    parts = int(fold.max()) + 1
    for part in range(parts):
        if progress is not None:
            progress("cross-validation", part, parts)
        asked, used = fold == part, fold != part
        kept = checkpoint.load(f"fold-{part}")
        if not kept:
            kept = {}
            fitted = fitted_ensemble(values, columns, target, systems, settings, used)
            found = ensemble_prediction(fitted, values[asked])
            kept[f"mean.{SURROGATE}"], kept[f"deviation.{SURROGATE}"] = found.mean, found.deviation
            scaled = scaling(values, columns, used)
            for name, choices in models.items():
                middle, wide = baseline_prediction(
                    choices, scaled.features(values[used]), target[used], labels[used].tolist(),
                    scaled.features(values[asked]), knows_censoring=name in KNOWS_CENSORING,
                    seed=settings.seed,
                )  # fmt: skip
                kept[f"mean.{name}"], kept[f"deviation.{name}"] = middle, np.full(len(middle), wide)
            checkpoint.save(f"fold-{part}", **kept)
        for name in names:
            mean[name][asked] = kept[f"mean.{name}"]
            deviation[name][asked] = kept[f"deviation.{name}"]
    metrics = {
        name: prediction_metrics(mean[name], deviation[name], target)
        | resampled_rmse(mean[name], mean["mean"], target, tuple(systems), seed=settings.seed)
        for name in names
    }
    metrics["mean"]["spearman"] = float("nan")  # of numbers that differ by their part alone
    return Validation(fold, mean, deviation, metrics)
