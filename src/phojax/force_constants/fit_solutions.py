"""Solutions of the three kinds of fit from their normal equations, and their held-out errors.

With the mean equations G = AᵀA/m, b = AᵀF/m of m force components and scaled columns,

    least squares    G y = b                                                                (1)
    ridge            (G + α) y = b                                                            (2)
    l1               argmin ½ yᵀ G y - b·y + λ ‖y‖₁,     λ = 1 / (μ √m)                        (3)

so that a penalty means the same for all data and with a fold left out; α and μ are those of `fit`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import linalg

from phojax.checks import InputError, fail
from phojax.force_constants.basis import SymmetryAdaptedBasis
from phojax.force_constants.equations import Statistics
from phojax.force_constants.sparse_fit import SparseProblems

_RATIO = 10 ** (1 / 5)  # between two penalties of a grid
_ON_THE_WAY = 1e-4  # tolerance where penalties are compared; the one chosen is solved to the end
_FLOOR = 1e-10  # the smallest penalty in units of the largest


@dataclass(frozen=True)
class HeldOut:
    """What cross-validation found: errors on supercells that were left out.

    Attributes:
        penalties: μ (Å/eV) of (3) or α of (2), in the order they were tried; one NaN for (1).
        per_fold: Root mean square error, eV/Å.
        mean: Over all force components left out, eV/Å.
        error: Standard error of `mean` from the spread among folds, eV/Å.
        chosen: Which of the penalties was taken.
    """

    penalties: Float[np.ndarray, " penalty"]
    per_fold: Float[np.ndarray, "penalty fold"]
    mean: Float[np.ndarray, " penalty"]
    error: Float[np.ndarray, " penalty"]
    chosen: int


@dataclass(frozen=True)
class Scaled:
    """Mean normal equations of the training sets (one per fold) and, last, of all data.

    Attributes:
        gram: Per equation, columns scaled.
        right: Likewise.
        scale: What the columns were divided by.
        equations: Of all data.
    """

    gram: Float[np.ndarray, "set unknown unknown"]
    right: Float[np.ndarray, "set unknown"]
    scale: Float[np.ndarray, " unknown"]
    equations: int


def scaled_equations(data: Statistics, basis: SymmetryAdaptedBasis, scaling: str) -> Scaled:
    """Return the normal equations of all data, and with each fold left out, columns scaled.

    Args:
        data: Of the folds.
        basis: Of the unknowns.
        scaling: "order" for one factor per order, else one per unknown: columns of unit norm.
    """
    equations = int(data.equations.sum())
    total, right = data.gram.sum(0), data.right.sum(0)
    square = np.diagonal(total) / equations
    scale = np.sqrt(square)
    if scaling == "order":
        for at in basis.slices.values():
            scale[at] = np.sqrt(square[at].mean()) if square[at].size else 1.0
    scale = np.where(scale > 0, scale, 1.0)
    outer = scale[:, None] * scale
    sets = [*range(len(data.gram))] if len(data.gram) > 1 else []
    gram = np.empty((len(sets) + 1, *total.shape))
    rights = np.empty((len(sets) + 1, len(right)))
    for k in sets:
        rest = equations - data.equations[k]
        gram[k] = (total - data.gram[k]) / outer / rest
        rights[k] = (right - data.right[k]) / scale / rest
    gram[-1] = total / outer / equations
    rights[-1] = right / scale / equations
    return Scaled(gram, rights, scale, equations)


def rank_and_condition(gram: Float[np.ndarray, "unknown unknown"]) -> tuple[int, float]:
    """Return rank and condition number of A from AᵀA."""
    values = np.linalg.eigvalsh(gram)
    kept = values[values > len(gram) * np.finfo(float).eps * values[-1]]
    return len(kept), float(np.sqrt(kept[-1] / kept[0])) if len(kept) else np.inf


def least_squares(normal: Scaled, k: int) -> Float[np.ndarray, " unknown"] | None:
    """Return y of (1) for one training set; None where the set does not determine it."""
    norm = np.sqrt(np.maximum(np.diagonal(normal.gram[k]), np.finfo(float).tiny))
    G = normal.gram[k] / norm[:, None] / norm
    b = normal.right[k] / norm
    try:
        factor = linalg.cho_factor(G, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    (pocon,) = linalg.get_lapack_funcs(("pocon",), (G,))
    reciprocal, _ = pocon(factor[0], np.abs(G).sum(0).max(), uplo="L")
    if reciprocal < len(G) * np.finfo(float).eps:
        return None
    y = linalg.cho_solve(factor, b, check_finite=False)
    y = y + linalg.cho_solve(factor, b - G @ y, check_finite=False)  # one step of refinement
    return y / norm


def _squares(data: Statistics, x: Float[np.ndarray, "fold unknown"]) -> Float[np.ndarray, " fold"]:
    """Return ‖F_k - A_k x_k‖² of every fold k."""
    left = data.square - 2 * np.einsum("kp,kp->k", data.right, x)
    left += np.einsum("kp,kpq,kq->k", x, data.gram, x, optimize=True)
    return np.maximum(left, 0.0)


def _held_out(data: Statistics, squares: list[np.ndarray], penalties, chosen: int) -> HeldOut:
    per_fold = np.array(squares) / data.equations  # mean squares
    mean = np.sqrt(np.array(squares).sum(1) / data.equations.sum())
    spread = per_fold.std(axis=1, ddof=1) / np.sqrt(per_fold.shape[1])
    error = spread / (2 * np.maximum(mean, 1e-300))
    return HeldOut(np.asarray(penalties, float), np.sqrt(per_fold), mean, error, chosen)


def held_out_least_squares(data: Statistics, normal: Scaled, notes: list[str]) -> HeldOut | None:
    """Return the held-out error of least squares; None, and why in `notes`, where it has none."""
    y = [least_squares(normal, k) for k in range(len(data.gram))]
    if any(one is None for one in y):
        notes.append(
            "No held-out error: with a fold left out the rest does not determine the unknowns"
        )
        return None
    return _held_out(data, [_squares(data, np.array(y) / normal.scale)], [np.nan], 0)


def _chosen(means: np.ndarray, errors: np.ndarray, rule: str) -> int:
    """Return which penalty to take; they come from the strongest to the weakest."""
    best = int(np.argmin(means))
    if rule == "minimum":
        return best
    return int(np.flatnonzero(means <= means[best] + errors[best])[0])


def ridge(
    data: Statistics, normal: Scaled, alpha: float | None, rule: str, notes: list[str]
) -> tuple[float, Float[np.ndarray, " unknown"], HeldOut | None]:
    """Return α, y of (2) and the held-out errors; remarks are appended to `notes`."""
    # Columns of norm 1 have G itself as AᵀA: α stands beside it without a factor m.
    values, vectors = np.linalg.eigh(normal.gram)
    turned = np.einsum("kpq,kp->kq", vectors, normal.right)

    def solution(k, a):
        return vectors[k] @ (turned[k] / (np.maximum(values[k], 0) + a))

    held = None
    if len(normal.gram) > 1:
        grid = values[-1, -1] * np.logspace(1, -12, 66)
        if alpha is not None:
            grid = np.array([alpha])
        squares = []
        for a in grid:
            y = np.array([solution(k, a) for k in range(len(normal.gram) - 1)])
            squares.append(_squares(data, y / normal.scale))
        found = _held_out(data, squares, grid, 0)
        held = _held_out(data, squares, grid, _chosen(found.mean, found.error, rule))
        alpha = float(grid[held.chosen])
        _note_edge(held, notes)
    elif alpha is None:
        raise _one_supercell("alpha")
    return alpha, solution(-1, alpha), held


def sparse(
    data: Statistics,
    normal: Scaled,
    mu: float | None,
    rule: str,
    tolerance: float,
    notes: list[str],
) -> tuple[float, Float[np.ndarray, " unknown"], HeldOut | None, float]:
    """Return μ, y of (3), the held-out errors and the violation of the optimality conditions."""
    problems = SparseProblems(normal.gram, normal.right)
    root = np.sqrt(normal.equations)
    strongest = problems.largest_penalty
    if strongest == 0:
        raise fail("forces that no unknown has a part in", "forces of these displacements")
    if mu is None and len(normal.gram) == 1:
        raise _one_supercell("mu")
    # A given μ is approached in long steps: nothing is compared on the way.
    last, ratio = (_FLOOR * strongest, _RATIO) if mu is None else (1 / (mu * root), _RATIO**3)
    grid = np.array([last])
    if last < strongest:
        count = int(np.ceil(np.log(strongest / last) / np.log(ratio)))
        grid = np.geomspace(strongest, last, count + 1)[1:]
    found, squares, worst = [], [], []
    y = None
    for penalty in grid:
        solved = problems.solutions(float(penalty), y, max(tolerance, _ON_THE_WAY))
        y = solved.values
        found.append(y[-1])
        worst.append(solved.violation)
        if len(normal.gram) > 1:
            squares.append(_squares(data, y[:-1] / normal.scale))
            if mu is None and _past_minimum(squares):
                break
    penalties = 1 / (grid[: len(found)] * root)
    held, at = None, len(found) - 1
    if squares and mu is not None:
        held = _held_out(data, squares[-1:], penalties[-1:], 0)
    elif squares:
        held = _held_out(data, squares, penalties, at)
        at = _chosen(held.mean, held.error, rule)
        held = _held_out(data, squares, penalties, at)
        _note_edge(held, notes)
    whole = SparseProblems(normal.gram[-1:], normal.right[-1:])
    last = whole.solutions(float(grid[at]), found[at][None], tolerance)
    violation, largest = float(last.violation[0]), float(np.array(worst).max())
    if violation > tolerance:
        notes.append(
            f"Not converged: the optimality conditions are missed by {violation:.1e} of the "
            f"penalty; expected {tolerance:.0e}"
        )
    if largest > max(tolerance, _ON_THE_WAY):
        notes.append(
            "Not converged at each penalty tried in the cross-validation: the optimality "
            f"conditions are missed by up to {largest:.1e}; the one chosen by {violation:.1e}"
        )
    return float(penalties[at]), last.values[0], held, violation


def _past_minimum(squares: list[np.ndarray]) -> bool:
    """Return whether the held-out error no longer falls: weaker penalties cost most."""
    total = np.array(squares).sum(1)
    best = int(total.argmin())
    # Three penalties beyond the minimum that are worse, or five that change nothing.
    risen = len(total) - 1 - best >= 3 and np.all(total[-3:] > 1.01 * total[best])
    flat = len(total) > 8 and total[-6] - total.min() < 1e-3 * total.min()
    return bool(risen or flat or len(total) - 1 - best >= 8)


def refitted(
    normal: Scaled, y: Float[np.ndarray, " unknown"], notes: list[str]
) -> Float[np.ndarray, " unknown"]:
    """Return least squares on the coefficients of y that are not 0."""
    S = np.flatnonzero(y)
    part = Scaled(
        normal.gram[-1:, S[:, None], S], normal.right[-1:, S], normal.scale[S], normal.equations
    )
    solved = least_squares(part, 0) if len(S) else None
    if solved is None:
        notes.append("Not refitted: the data do not determine the coefficients that are not 0")
        return y
    out = np.zeros_like(y)
    out[S] = solved
    return out


def _note_edge(held: HeldOut, notes: list[str]) -> None:
    last = len(held.penalties) - 1
    # A flat end says that no penalty is needed: nothing to warn of.
    flat = held.mean[max(last - 3, 0)] < 1.01 * held.mean[last]
    if last > 0 and (held.chosen == 0 or (held.chosen == last and not flat)):
        notes.append(
            "The smallest held-out error is at the end of the grid of penalties "
            f"({held.penalties[held.chosen]:.3g})"
        )


def _one_supercell(name: str) -> InputError:
    return fail(
        f"one part of the data to choose {name} by cross-validation",
        f"at least 2 supercells and folds, or {name}",
    )
