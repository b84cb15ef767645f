"""Descriptors as features: medians for what is missing, zero mean and unit variance.

A feature that varies over many orders of magnitude (MSD) is not transformed: which scale a
descriptor has is decided where it is defined. Where a value was missing is a feature itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from phojax.checks import fail


@dataclass(frozen=True)
class Scaling:
    """What turns descriptors into features.

    Attributes:
        columns: Names of the descriptors, in order.
        indicators: Columns whose absence is a feature, appended in this order.
        median: (column,) of the rows that were learnt from.
        mean: (column,) after medians were filled in.
        deviation: (column,) standard deviation; 0 where nothing varied: the feature is then 0.
        lowest: (column,) least known value.
        highest: (column,) greatest known value.
        missing: (column,) share of rows without a value.
    """

    columns: tuple[str, ...]
    indicators: tuple[int, ...]
    median: Float[np.ndarray, "column"]
    mean: Float[np.ndarray, "column"]
    deviation: Float[np.ndarray, "column"]
    lowest: Float[np.ndarray, "column"]
    highest: Float[np.ndarray, "column"]
    missing: Float[np.ndarray, "column"]

    def standardised(
        self, values: Float[np.ndarray, "row column"]
    ) -> Float[np.ndarray, "row column"]:
        """Return scaled descriptors, missing ones at the median; at most 8 from the mean."""
        filled = np.where(np.isfinite(values), values, self.median)
        fine = self.deviation > 0
        z = np.where(fine, (filled - self.mean) / np.where(fine, self.deviation, 1.0), 0.0)
        return np.clip(z, -8.0, 8.0)

    def features(self, values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row feature"]:
        """Return scaled descriptors and, after them, whether some were missing (0 or 1)."""
        absent = ~np.isfinite(values[:, list(self.indicators)])
        return np.concatenate([self.standardised(values), absent.astype(float)], axis=1)


def scaling(
    values: Float[np.ndarray, "row column"],
    columns: Sequence[str],
    rows: Bool[np.ndarray, "row"] | None = None,
) -> Scaling:
    """Return the scaling of descriptors.

    Args:
        values: NaN where unknown.
        columns: Their names.
        rows: Those that are learnt from; the others only say which features there are, so that
            parts of one validation have features of one shape.

    Raises:
        InputError: no rows, or names that do not fit.
    """
    if values.shape[1] != len(columns):
        raise fail(f"{len(columns)} names of {values.shape[1]} columns", "one for each")
    chosen = values if rows is None else values[rows]
    if not len(chosen):
        raise fail("no rows to learn from", "at least one")
    known = np.isfinite(chosen)
    some = known.any(0)
    safe = np.where(some, np.where(known, chosen, np.nan), 0.0)
    median = np.nanmedian(safe, axis=0)
    filled = np.where(known, chosen, median)
    mean, deviation = filled.mean(0), filled.std(0)
    # Rounding of a constant is no variation.
    deviation = np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1e-300), deviation, 0.0)
    absent = ~np.isfinite(values)
    return Scaling(
        columns=tuple(columns),
        indicators=tuple(int(n) for n in np.flatnonzero(absent.any(0))),
        median=median,
        mean=mean,
        deviation=deviation,
        lowest=np.nanmin(safe, axis=0),
        highest=np.nanmax(safe, axis=0),
        missing=1.0 - known.mean(0),
    )
