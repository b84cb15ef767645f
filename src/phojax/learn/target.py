"""log10 of D/(Å²/ps), with the error of its measurement, censored below the detection limit.

A measured y = log₁₀ D scatters by σ around what a model predicts with the variance s², and a D
below its limit L says no more than that:

    -log p = ½ (y - μ)² / (s² + σ²) + ½ log 2π(s² + σ²)          detected        (1)
    -log p = -log Φ((log₁₀ L - μ) / s)                            censored        (2)

(Tobin, Econometrica 26, 24 (1958)). σ is the 95 % interval of log D over 2 · 1.96.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Bool, Float

from phojax.learn.table import LearningTable

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Attributes:
        value: log10 D of detected rows, log10 of the limit of censored ones.
        error: Standard error of the value; 0 for censored ones.
        censored: Whether all that is known is that log10 D is below the value.
        without_error: Detected rows without an interval: they take the median error of others.
    """

    value: Float[np.ndarray, "row"]
    error: Float[np.ndarray, "row"]
    censored: Bool[np.ndarray, "row"]
    without_error: int = 0

    def __len__(self) -> int:
        return len(self.value)

    @property
    def detected(self) -> Bool[np.ndarray, "row"]:
        """Rows with a value."""
        return ~self.censored

    def __getitem__(self, rows) -> "Target":
        return Target(self.value[rows], self.error[rows], self.censored[rows])


def log_target(table: LearningTable) -> Target:
    """Return log10 D of a table with its errors.

    An interval that reaches to zero, or has no upper end, has half its width on the other side.
    """
    c = table.censored
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log10(np.where(c, table.limit, table.diffusion))
        sides = np.stack([value - np.log10(table.low), np.log10(table.high) - value])
    sides = np.where(np.isfinite(sides) & (sides >= 0), sides, np.nan)
    counted = np.isfinite(sides).sum(0)
    error = np.where(counted > 0, np.nansum(sides, 0) / np.maximum(counted, 1) / Z95, np.nan)
    known = ~c & np.isfinite(error)
    usual = float(np.median(error[known])) if known.any() else 0.0
    error = np.where(c, 0.0, np.where(known, error, usual))
    return Target(value, error, c.copy(), int(np.sum(~c & ~known)))


def negative_log_likelihood(
    mean: Float[Array, "*row"],
    variance: Float[Array, "*row"],
    value: Float[Array, "*#row"],
    error: Float[Array, "*#row"],
    censored: Bool[Array, "*#row"],
) -> Float[Array, "*row"]:
    """Return eqs. (1) and (2) of each row, natural log, per unit of the value.

    Args:
        mean: μ.
        variance: s² > 0.
        value: y, or the limit.
        error: σ.
        censored: Which rows eq. (2) is for.
    """
    total = variance + jnp.where(censored, 0.0, error) ** 2
    z = (value - mean) / jnp.sqrt(total)
    seen = 0.5 * z**2 + 0.5 * jnp.log(2 * jnp.pi * total)
    # Both branches are differentiated: far above its limit, log Φ of a detected row is no number.
    return jnp.where(censored, -log_ndtr(jnp.where(censored, z, 0.0)), seen)
