"""The table of a screen as arrays: which rows are learnt from, and which columns describe them.

A row is used if it is done, dynamically stable, carries no flag that makes its diffusion or its
displacements mean something else, and has either a detected D or a limit that D is below. What
is left out is counted by reason.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from phojax.checks import fail

SPOILING_FLAGS = ("framework_moves", "imaginary_modes", "subdiffusive", "too_short")
"""Rows with one of these are not learnt from: their D or their displacements are something else."""

OF_DIFFUSION = ("subdiffusive", "too_short")
"""Those of them that say nothing against a D that is censored."""

_TRANSPORT = re.compile(
    r"D_|conductivity|sigma_|haven|activation_energ|prefactor|jump|correlation_factor|channel"
    r"|framework_|md_|arrhenius"
)
_METADATA = re.compile(
    r"(wall_)?time_|temperature_|seed|atoms$|supercell|schema|mesh|rms_"
    r"|.*(_error|_residual|_p_value|_force_calls)_?"
)
_NEEDS_MD = re.compile(r"vdos|.*_vdos")


@dataclass(frozen=True)
class LearningTable:
    """Rows that can be learnt from. Arrays are (row,) unless said otherwise.

    Attributes:
        ids: Names of structures.
        formulas: Empty where the table has none.
        systems: Chemical systems like "Cl-Na-Y", what cross-validation holds together.
        columns: Names of the descriptors.
        needs_md: (column,) whether a descriptor comes from the same dynamics as D.
        descriptors: (row, column), NaN where unknown.
        diffusion: Estimate of D with an intercept, Å²/ps; for censored rows too, where given.
        low: Lower end of its 95 % interval, NaN where unknown.
        high: Upper end.
        censored: Whether D is below the detection limit.
        limit: Detection limit, Å²/ps; NaN where unknown.
        paper: D of a line through the origin, Å²/ps; NaN where unknown.
        paper_maximum: The largest axis of it.
        left_out: Number of rows left out, by reason.
    """

    ids: tuple[str, ...]
    formulas: tuple[str, ...]
    systems: tuple[str, ...]
    columns: tuple[str, ...]
    needs_md: Bool[np.ndarray, "column"]
    descriptors: Float[np.ndarray, "row column"]
    diffusion: Float[np.ndarray, "row"]
    low: Float[np.ndarray, "row"]
    high: Float[np.ndarray, "row"]
    censored: Bool[np.ndarray, "row"]
    limit: Float[np.ndarray, "row"]
    paper: Float[np.ndarray, "row"]
    paper_maximum: Float[np.ndarray, "row"]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.ids)


def descriptor_columns(frame: pd.DataFrame) -> dict[str, str]:
    """Return the descriptors of a table, "static" or "needs_md" by name.

    Every column of floats that is no result of transport and no metadata is one. Those of the
    velocity autocorrelation (vdos_*) come from the dynamics that D comes from: of their own kind.
    """
    found = {}
    for name in map(str, frame.columns):
        if not pd.api.types.is_float_dtype(frame[name].dtype):
            continue
        if _TRANSPORT.match(name) or _METADATA.match(name):
            continue
        found[name] = "needs_md" if _NEEDS_MD.match(name) else "static"
    return found


def learning_table(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    spoiling: Sequence[str] = SPOILING_FLAGS,
) -> LearningTable:
    """Return the rows of a screen's table that can be learnt from.

    Args:
        frame: With "id", "chemical_system", "D_A2_ps", "D_censored", "D_detection_limit_A2_ps";
            "status", "stable", "flags", "formula", intervals and fits through the origin where
            there are any.
        columns: Descriptors to take instead of all.
        spoiling: Flags that make a row useless.

    Raises:
        InputError: a column is missing, or no row is left.
    """
    needed = ("id", "chemical_system", "D_A2_ps", "D_censored", "D_detection_limit_A2_ps")
    check_columns(frame, needed)
    kinds = descriptor_columns(frame)
    if columns is not None:
        check_columns(frame, columns)
        kinds = {name: kinds.get(name, "static") for name in columns}
    censored = truths(frame, "D_censored")
    D, limit = numbers(frame, "D_A2_ps"), numbers(frame, "D_detection_limit_A2_ps")
    bound = numbers(frame, "D_high_A2_ps")  # what is known of a censored D, where it was recorded
    limit = np.where(bound > 0, bound, limit)
    reasons = _reasons(frame, spoiling)
    for n in range(len(frame)):
        known = limit[n] > 0 if censored[n] else D[n] > 0
        if not reasons[n] and not known:
            reasons[n] = "no limit of a censored D" if censored[n] else "no D"
    kept = np.array([not reason for reason in reasons], bool)
    left_out = {r: reasons.count(r) for r in sorted(set(reasons) - {""})}
    if not kept.any():
        why = ", ".join(f"{r}: {n}" for r, n in left_out.items()) or "it is empty"
        raise fail(f"no row of the table can be learnt from ({why})", "rows that are done")
    values = np.stack([numbers(frame, name)[kept] for name in kinds], 1) if kinds else None
    if values is None:
        raise fail("the table has no descriptors", "columns of floats beside those of D")
    values = np.where(np.isfinite(values), values, np.nan)
    whole = np.atleast_1d(np.isfinite(values).any(axis=0))

    def kept_texts(name: str) -> tuple[str, ...]:
        return tuple(np.asarray(texts(frame, name), object)[kept])

    return LearningTable(
        ids=kept_texts("id"),
        formulas=kept_texts("formula"),
        systems=kept_texts("chemical_system"),
        columns=tuple(name for name, some in zip(kinds, whole, strict=True) if some),
        needs_md=np.array([kind == "needs_md" for kind in kinds.values()], bool)[whole],
        descriptors=values[:, whole],
        diffusion=D[kept],
        low=numbers(frame, "D_low_A2_ps")[kept],
        high=numbers(frame, "D_high_A2_ps")[kept],
        censored=censored[kept],
        limit=limit[kept],
        paper=numbers(frame, "D_paper_A2_ps")[kept],
        paper_maximum=numbers(frame, "D_paper_maximum_A2_ps")[kept],
        left_out=left_out,
    )


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise InputError unless the table has these columns."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise fail(
            f"the table has no column {', '.join(missing)}",
            "the table of a screen",
            f"It has {', '.join(map(str, list(frame.columns)[:12]))}, …",
        )


def truths(frame: pd.DataFrame, name: str) -> Bool[np.ndarray, "row"]:
    """Return truth values of a column that a CSV file may have made texts; False where empty."""
    return np.array([str(v).strip().lower() in ("true", "1", "1.0") for v in frame[name]], bool)


def texts(frame: pd.DataFrame, name: str) -> list[str]:
    """Return a column as texts; empty where there is none."""
    if name not in frame:
        return [""] * len(frame)
    return ["" if v is None or v is pd.NA or v != v else str(v) for v in frame[name]]


def numbers(frame: pd.DataFrame, name: str) -> Float[np.ndarray, "row"]:
    """Return a column as numbers; NaN where there is none."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    return np.asarray(pd.to_numeric(np.asarray(frame[name], object), errors="coerce"), float)


def _reasons(frame: pd.DataFrame, spoiling: Sequence[str]) -> list[str]:
    """Return why each row is left out for what the screen says of it; empty where it is not."""
    reasons = [""] * len(frame)
    if "status" in frame:
        done = frame["status"].astype(str) == "done"
        reasons = ["" if d else "not done" for d in done]
    if "stable" in frame:
        known = np.array(pd.notna(frame["stable"]), bool)
        unstable = known & ~truths(frame, "stable")
        reasons = [r or ("not stable" if u else "") for r, u in zip(reasons, unstable, strict=True)]
    if "flags" in frame:
        censored = truths(frame, "D_censored")
        for n, text in enumerate(texts(frame, "flags")):
            hit = [flag for flag in spoiling if flag in re.findall(r"\w+", text)]
            if censored[n]:  # flat because nothing diffuses: a bound is a bound
                hit = [flag for flag in hit if flag not in OF_DIFFUSION]
            if hit and not reasons[n]:
                reasons[n] = f"flag {hit[0]}"
    systems = texts(frame, "chemical_system")
    return [r or ("" if s else "no chemical system") for r, s in zip(reasons, systems, strict=True)]
