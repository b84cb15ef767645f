"""Correlation of every descriptor with every form of D, one row for each coefficient.

Targets: "D" and "log10 D" are of the fit with an intercept, "D_paper" and "D_paper_maximum" of the
line through the origin. The control of PHYSICS E3 stands in rows whose statistic ends in
"control": both fits on the same rows, and what the line through the origin adds.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from phojax.learn.correlation import LEAST, RESAMPLES, Coefficient, control, pearson, spearman
from phojax.learn.table import LearningTable

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Row:
    descriptor: str
    kind: str
    target: str
    statistic: str
    found: Coefficient


def correlations(
    table: LearningTable,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Step | None = None,
) -> pd.DataFrame:
    """Return correlation coefficients with 95 % intervals.

    Columns: descriptor, kind, target, statistic, value, low, high, p, q, n, n_censored,
    n_left_out, systems, undecided, remark. q is p corrected for the number of descriptors
    (Benjamini and Hochberg, J. R. Stat. Soc. B 57, 289 (1995)), for each target and statistic.

    Args:
        table: What can be learnt from.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        progress: Told of each descriptor.
    """
    rows: list[_Row] = []
    bound = np.where(table.censored, table.limit, table.diffusion)
    detected = np.where(table.censored, np.nan, table.diffusion)
    how = {"systems": table.systems, "resamples": resamples, "seed": seed}
    for n, name in enumerate(table.columns):
        if progress is not None:
            progress("correlation", n, len(table.columns))
        x = table.descriptors[:, n]
        kind = "needs_md" if table.needs_md[n] else "static"

        def add(target: str, statistic: str, found: Coefficient, name=name, kind=kind) -> None:
            rows.append(_Row(name, kind, target, statistic, found))

        add("D", "pearson", pearson(x, bound, table.censored, **how))
        add("log10 D", "pearson", pearson(x, np.log10(detected), table.censored, **how))
        add("D", "spearman", spearman(x, bound, table.censored, **how))
        if not np.isfinite(table.paper).any():
            continue
        for target, values in (("D_paper", table.paper), ("D_paper_maximum", table.paper_maximum)):
            add(target, "pearson", pearson(x, values, **how))
            add(target, "spearman", spearman(x, values, **how))
        beside = control(
            x, table.diffusion, table.censored, table.limit, table.paper, **how
        )  # fmt: skip
        for key, found in beside.items():
            statistic, _, suffix = key.partition("_")
            target = {"": "D", "paper": "D_paper", "difference": "D_paper minus D"}[suffix]
            add(target, f"{statistic}, control", found)
    return _frame(rows)


def _frame(rows: list[_Row]) -> pd.DataFrame:
    frame = pd.DataFrame(
        [
            {"descriptor": r.descriptor, "kind": r.kind, "target": r.target,
             "statistic": r.statistic, **asdict(r.found), "remark": _remark(r.found)}
            for r in rows
        ]
    )  # fmt: skip
    frame.insert(frame.columns.get_loc("p") + 1, "q", np.nan)  # type: ignore[operator]
    for _, part in frame.groupby(["target", "statistic"]):
        p = part["p"].dropna()
        if len(p):
            frame.loc[p.index, "q"] = stats.false_discovery_control(p.to_numpy(float))
    return frame


def _remark(found: Coefficient) -> str:
    if found.n < 3:
        return f"{found.n} rows: undefined"
    if not np.isfinite(found.value):
        return "no variation"
    if found.systems < LEAST:
        return f"{found.systems} chemical systems: no interval"
    if not np.isfinite(found.low):
        return "undefined in many resamples: no interval"
    if found.undecided > 0.1:
        return f"{found.undecided:.0%} of pairs undecided: limits above detected values"
    return ""
