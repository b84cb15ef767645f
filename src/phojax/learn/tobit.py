"""Linear regression of a censored quantity (Tobit), with a Gaussian prior on its slopes.

Minimises Σ -log p (target.py, one s for all rows) + ½ α |w|² / s² over w, b and log s, by its
analytic gradient; scaled by 1/s², the prior does not depend on the unit of the quantity.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize
from scipy.special import log_ndtr

from phojax.checks import fail
from phojax.learn.target import Target


@dataclass(frozen=True)
class Tobit:
    """A fit.

    Attributes:
        slopes: w, per unit of a feature.
        intercept: b.
        deviation: s.
        converged: Whether the minimum was reached.
    """

    slopes: Float[np.ndarray, "feature"]
    intercept: float
    deviation: float
    converged: bool

    def mean(self, features: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "row"]:
        """Return w·x + b."""
        return features @ self.slopes + self.intercept


def tobit(
    features: Float[np.ndarray, "row feature"], target: Target, strength: float = 0.0
) -> Tobit:
    """Return the most likely linear model.

    Args:
        features: Scaled to unit variance if there is a prior.
        target: Values and limits.
        strength: α ≥ 0.

    Raises:
        InputError: no detected value.
    """
    seen = target.detected
    if not seen.any():
        raise fail("no detected value among those to fit", "at least one")
    n = features.shape[1]
    start = np.zeros(n + 2)
    start[n] = target.value[seen].mean()
    start[n + 1] = np.log(max(target.value[seen].std(), 1e-3))

    def loss(p):
        s2 = np.exp(2 * p[n + 1])
        r = target.value - features @ p[:n] - p[n]
        v = s2 + target.error**2
        z = r / np.sqrt(s2)
        lower = log_ndtr(z)
        # φ/Φ by logarithms: both underflow far below the limit.
        mills = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - lower)
        pull = np.where(seen, -r / v, mills / np.sqrt(s2))  # by the mean
        wide = np.where(seen, (1 - r**2 / v) * s2 / v, mills * z)  # by log s
        prior = 0.5 * strength * p[:n] @ p[:n] / s2
        value = np.where(seen, 0.5 * r**2 / v + 0.5 * np.log(2 * np.pi * v), -lower).sum() + prior
        slope = np.concatenate([
            features.T @ pull + strength * p[:n] / s2, [pull.sum(), wide.sum() - 2 * prior]
        ])  # fmt: skip
        return value, slope

    bounds = [(None, None)] * (n + 1) + [(np.log(1e-4), np.log(1e3))]
    best = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-7},
    )  # fmt: skip
    return Tobit(best.x[:n], float(best.x[n]), float(np.exp(best.x[n + 1])), bool(best.success))
