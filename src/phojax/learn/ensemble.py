"""Networks fitted to rows of a table, and what they say together.

    μ = ⟨μ_m⟩,   s² = c² ⟨s_m²⟩ + ⟨(μ_m - μ)²⟩                                               (1)

c makes the rows that each member left out most likely, their μ_m scattering by eq. (1), too: they
are of chemical systems that it has not seen, as those are that will be asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from phojax.learn.features import Scaling, scaling
from phojax.learn.folds import grouped_folds
from phojax.learn.metrics import spread_factor
from phojax.learn.network import member_outputs, training_path
from phojax.learn.settings import LearnSettings
from phojax.learn.target import Target, negative_log_likelihood


@dataclass(frozen=True)
class Ensemble:
    """A fitted ensemble.

    Attributes:
        scaling: Of the features.
        params: Of the networks, members stacked along the first axis; float32.
        width: Of a hidden layer.
        centre: Mean of the values that were learnt from, log10 of Å²/ps.
        scale: Their standard deviation.
        spread: c of eq. (1).
        strength: α of the prior that was chosen.
        steps: Of Adam that were chosen.
    """

    scaling: Scaling
    params: Any
    width: int
    centre: float
    scale: float
    spread: float
    strength: float
    steps: int


@dataclass(frozen=True)
class Prediction:
    """log10 of D/(Å²/ps) of structures, each (row,).

    Attributes:
        mean: μ.
        deviation: s of eq. (1), of the true log D: without the error of a measurement.
        disagreement: Standard deviation of the members' means.
    """

    mean: Float[np.ndarray, "row"]
    deviation: Float[np.ndarray, "row"]
    disagreement: Float[np.ndarray, "row"]


def fitted_ensemble(
    values: Float[np.ndarray, "row column"],
    columns: Sequence[str],
    target: Target,
    systems: Sequence[str],
    settings: LearnSettings,
    rows: Bool[np.ndarray, "row"] | None = None,
) -> Ensemble:
    """Return an ensemble fitted to some rows.

    Args:
        values: Descriptors of all rows, NaN where unknown.
        columns: Their names.
        target: Of all rows.
        systems: Chemical systems.
        settings: How it is trained.
        rows: That are learnt from; all by default. Others keep shapes equal, so that all parts
            of a validation compile once.

    Raises:
        InputError: fewer than two chemical systems.
    """
    used = np.ones(len(target), bool) if rows is None else rows
    scaled = scaling(values, columns, used)
    seen = target.value[used & target.detected]
    centre = float(seen.mean())
    scale = float(max(seen.std(), 0.05))
    parts = np.full(len(target), -1)
    names = np.asarray(systems, str)
    parts[used] = grouped_folds(
        names[used].tolist(), settings.members,
        detected=target.detected[used], seed=settings.seed,
    )  # fmt: skip
    left = np.arange(settings.members) % (parts.max() + 1)
    held = parts[None, :] == left[:, None]
    learnt = used[None, :] & ~held

    strengths = np.asarray(settings.strengths, np.float32)
    copies = len(strengths)
    keys = jax.random.split(jax.random.key(settings.seed), settings.members)
    x = scaled.features(values).astype(np.float32)
    scaled_target = (
        ((target.value - centre) / scale).astype(np.float32),
        (target.error / scale).astype(np.float32),
        target.censored,
    )
    params, mean, variance = training_path(
        jax.numpy.tile(keys, copies),
        x,
        *scaled_target,
        np.tile(learnt, (copies, 1)).astype(np.float32),
        np.repeat(strengths, settings.members),
        width=settings.width,
        looks=settings.steps // settings.every + 1,
        every=settings.every,
        rate=settings.rate,
    )
    shape = (mean.shape[0], copies, settings.members, len(target))
    mean, variance = (np.asarray(a, np.float64).reshape(shape) for a in (mean, variance))
    nll = np.asarray(
        negative_log_likelihood(*map(jax.numpy.asarray, (mean, variance, *scaled_target)))
    )
    loss = np.where(held, np.where(np.isfinite(nll), nll, 1e6), 0.0).sum((2, 3))
    look, choice = (int(n) for n in np.unravel_index(np.argmin(loss), loss.shape))

    member, row = np.nonzero(held)
    spread = spread_factor(
        mean[look, choice, member, row] * scale + centre,
        np.sqrt(variance[look, choice, member, row]) * scale,
        target[row],
        mean[look, choice].std(0)[row] * scale,
    )
    chosen = slice(choice * settings.members, (choice + 1) * settings.members)
    return Ensemble(
        scaling=scaled,
        params=jax.tree.map(lambda leaf: np.asarray(leaf[look, chosen]), params),
        width=settings.width,
        centre=centre,
        scale=scale,
        spread=spread,
        strength=float(strengths[choice]),
        steps=look * settings.every,
    )


def ensemble_prediction(ensemble: Ensemble, values: Float[np.ndarray, "row column"]) -> Prediction:
    """Return eq. (1) for descriptors in the order of `ensemble.scaling.columns`."""
    x = ensemble.scaling.features(values).astype(np.float32)
    means, variances = (
        np.asarray(a, np.float64) for a in member_outputs(ensemble.params, x, width=ensemble.width)
    )
    noise = ensemble.spread**2 * variances.mean(0)
    apart = means.std(0)
    return Prediction(
        mean=means.mean(0) * ensemble.scale + ensemble.centre,
        deviation=np.sqrt(noise + apart**2) * ensemble.scale,
        disagreement=apart * ensemble.scale,
    )
