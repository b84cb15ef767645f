"""The surrogate: from descriptors to log10 D with an uncertainty, and where it does not hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from phojax.checks import fail
from phojax.learn.domain import Domain, domain_of, outside
from phojax.learn.ensemble import Ensemble, ensemble_prediction, fitted_ensemble
from phojax.learn.settings import MIN_DETECTED, MIN_SYSTEMS, LearnSettings
from phojax.learn.table import LearningTable, check_columns, numbers, texts
from phojax.learn.target import Z95, Target

LEAST_KNOWN = 0.5
"""Share of descriptors that must be known for a prediction."""


@dataclass(frozen=True)
class Surrogate:
    """What predicts.

    Attributes:
        ensemble: Of networks.
        domain: What it was trained on.
    """

    ensemble: Ensemble
    domain: Domain

    @property
    def columns(self) -> tuple[str, ...]:
        """Descriptors, in order."""
        return self.ensemble.scaling.columns


def surrogate_columns(table: LearningTable, with_md: bool = False) -> Bool[np.ndarray, "column"]:
    """Return which descriptors are learnt from.

    Those that need dynamics are left out by default: where they are known, so is D. So are those
    that are known in less than half of the rows.
    """
    known = np.isfinite(table.descriptors).mean(0) >= LEAST_KNOWN
    return known & (with_md | ~table.needs_md)


def why_untrained(target: Target, systems: Sequence[str]) -> str:
    """Return why no surrogate is trained on these rows, in words; empty if one is."""
    n = int(target.detected.sum())
    if n < MIN_DETECTED:
        return (
            f"{n} detected D (and {len(target) - n} below their detection limit), "
            f"{MIN_DETECTED} are needed"
        )
    count = len(set(np.asarray(systems, str)[target.detected]))
    if count < MIN_SYSTEMS:
        return (
            f"the {n} detected D are of {count} chemical systems, "
            f"{MIN_SYSTEMS} are needed to validate by systems"
        )
    return ""


def trained(
    values: Float[np.ndarray, "row column"],
    columns: Sequence[str],
    target: Target,
    systems: Sequence[str],
    settings: LearnSettings | None = None,
) -> Surrogate:
    """Return a surrogate trained on all rows.

    Args:
        values: Descriptors, NaN where unknown.
        columns: Their names.
        target: log10 D.
        systems: Chemical systems.
        settings: How it is trained.

    Raises:
        InputError: too few detected D, too few chemical systems.
    """
    why = why_untrained(target, systems)
    if why:
        raise fail(why, "more rows", "Correlations can be had from fewer")
    settings = LearnSettings() if settings is None else settings
    ensemble = fitted_ensemble(values, columns, target, systems, settings)
    return Surrogate(ensemble, domain_of(ensemble.scaling, values, systems))


def predicted(surrogate: Surrogate, frame: pd.DataFrame) -> pd.DataFrame:
    """Return predictions for the rows of a table.

    Columns: id, formula, chemical_system (as given); log10_D, log10_D_sd (of the true log10 D),
    log10_D_sd_members (the part that the networks disagree by), D_A2_ps, D_low_A2_ps,
    D_high_A2_ps (95 %), outside (bool), outside_why, distance_percentile, filled_in (descriptors
    that the training median stands for). A row with less than half of the descriptors gets none.

    Args:
        surrogate: Trained.
        frame: With the descriptors and chemical_system, or formula.

    Raises:
        InputError: a descriptor has no column.
    """
    columns = surrogate.columns
    check_columns(frame, columns)
    name = "chemical_system" if "chemical_system" in frame else "formula"
    check_columns(frame, [name])
    values = np.stack([numbers(frame, c) for c in columns], axis=1)
    values = np.where(np.isfinite(values), values, np.nan)
    systems = texts(frame, name)
    found = ensemble_prediction(surrogate.ensemble, values)
    where = outside(surrogate.domain, surrogate.ensemble.scaling, values, systems)
    absent = ~np.isfinite(values)
    enough = absent.mean(1) <= 1 - LEAST_KNOWN
    mean = np.where(enough, found.mean, np.nan)
    deviation = np.where(enough, found.deviation, np.nan)
    reasons = [*where.reasons]
    if "stable" in frame:
        said = frame["stable"].astype(str).str.lower()
        for n in np.flatnonzero(said.isin(["false", "0", "0.0"]).to_numpy()):
            reasons[n] = "; ".join(filter(None, ["dynamically unstable", reasons[n]]))
    given = {c: frame[c].to_numpy() for c in ("id", "formula", "chemical_system") if c in frame}
    return pd.DataFrame({
        **given,
        "log10_D": mean,
        "log10_D_sd": deviation,
        "log10_D_sd_members": np.where(enough, found.disagreement, np.nan),
        "D_A2_ps": 10**mean,
        "D_low_A2_ps": 10 ** (mean - Z95 * deviation),
        "D_high_A2_ps": 10 ** (mean + Z95 * deviation),
        "outside": [bool(reason) for reason in reasons],
        "outside_why": reasons,
        "distance_percentile": where.percentile,
        "filled_in": [" ".join(np.asarray(columns)[row]) for row in absent],
    })  # fmt: skip
