"""Force constants from displacements and forces, by three kinds of fit.

    least squares    argmin ‖F - A x‖²                                                      (1)
    ridge            argmin ‖F - A x‖² + α ‖x‖²                                               (2)
    l1               argmin ‖x‖₁ + (μ/2) ‖F - A x‖²                                            (3)

A of `equations`, x the coefficients of a symmetry-adapted basis: whatever is found obeys
permutation, sum rules and space group exactly. Orders differ by powers of the displacement, so
for (2) and (3) the columns of each order are divided by one number that makes their norm 1 in the
root mean square (or each by its own norm). α has no unit then; μ is in Å/eV. Both are chosen by
cross-validation with whole supercells left out: components of one supercell are no independent
test. (3): Zhou, Nielson, Xia, Ozoliņš, Phys. Rev. Lett. 113, 185501 (2014).
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float
from scipy import linalg

from phojax.checks import check_finite, check_shape, fail
from phojax.force_constants.basis import SymmetryAdaptedBasis
from phojax.force_constants.container import ForceConstants
from phojax.force_constants.displacements import DisplacementSet
from phojax.force_constants.equations import Statistics, predicted_forces, statistics
from phojax.force_constants.fit_remarks import remarks
from phojax.force_constants.sparse_fit import SparseProblems
from phojax.force_constants.third_container import ThirdOrder

METHODS = ("least squares", "ridge", "l1")
_MOST_UNKNOWNS = 12000  # a Gram matrix of 1.1 GiB
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
class Fit:
    """Force constants fitted to forces, and how well they hold.

    Attributes:
        second: Φ, eV/Å²; None where the basis has no order 2.
        third: Φ³, eV/Å³; None where the basis has no order 3.
        residual_forces: (primitive atom, 3) of the undisplaced crystal, eV/Å; None where the basis
            has none.
        coefficients: x, in the order of the basis.
        basis: The basis.
        method: One of `METHODS`.
        penalty: μ (Å/eV) of (3) or α of (2); None for (1).
        rmse: Root mean square of F - A x, eV/Å.
        relative: ‖F - A x‖ / ‖F‖.
        explained: 1 - ‖F - A x‖² / ‖F‖².
        held_out: By cross-validation; None where there is a single supercell or it was not wanted.
        nonzero: Coefficients that are not 0, per order.
        unknowns: In all.
        equations: Force components.
        rank: Of A.
        condition: Of A with the columns of each order scaled: largest over smallest singular value
            that is not 0.
        violation: Departure from the optimality conditions of (3), in units of the penalty
            (`sparse_fit`); 0 for the other methods.
        warnings: What a person should look at.
    """

    second: ForceConstants | None
    third: ThirdOrder | None
    residual_forces: Float[np.ndarray, "i 3"] | None
    coefficients: Float[np.ndarray, " unknown"]
    basis: SymmetryAdaptedBasis
    method: str
    penalty: float | None
    rmse: float
    relative: float
    explained: float
    held_out: HeldOut | None
    nonzero: dict[int, int]
    unknowns: int
    equations: int
    rank: int
    condition: float
    violation: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Scaled:
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


def fitted(
    given: DisplacementSet,
    basis: SymmetryAdaptedBasis,
    method: str = "least squares",
    *,
    mu: float | None = None,
    alpha: float | None = None,
    folds: int = 5,
    seed: int = 0,
    rule: str = "minimum",
    scaling: str = "order",
    refit: bool = False,
    tolerance: float = 1e-6,
) -> Fit:
    """Return the force constants (eV/Å², eV/Å³) that fit a set of displacements and forces.

    Args:
        given: With forces; on the supercell of the basis.
        basis: `basis.symmetry_adapted_basis`.
        method: "least squares", "ridge" or "l1": (1), (2) or (3).
        mu: μ of (3), Å/eV; by cross-validation where it is not given.
        alpha: α of (2); by cross-validation where it is not given.
        folds: Parts the supercells are split into; fewer where there are fewer supercells, and no
            cross-validation below 2.
        seed: Of the split.
        rule: "minimum" of the held-out error, or "one standard error": the strongest penalty
            whose held-out error is within the standard error of the minimum.
        scaling: "order" divides the columns of each order by one number, "column" each by its norm.
        refit: For (3), solve (1) on the coefficients that are not 0.
        tolerance: Of the optimality conditions of (3), in units of the penalty.

    Raises:
        InputError: no forces, another supercell, unknown names, displacements that are all 0,
            too many unknowns; for (1) too few supercells to determine the unknowns; penalties to
            be chosen with a single supercell; float32 for (3).
    """
    _check(given, basis, method, mu, alpha, folds, rule, scaling)
    u, F = given.displacements, np.asarray(given.forces)
    rng = np.random.default_rng(seed)
    count = min(folds, len(u))
    fold = rng.permutation(np.arange(len(u)) % count)
    data = statistics(u, F, basis, fold)
    normal = _scaled(data, basis, scaling)
    rank, condition = _rank(normal.gram[-1])
    notes: list[str] = []
    violation = 0.0
    if method == "least squares":
        penalty, y = None, _solved(normal, -1) if rank == len(basis) else None
        if y is None:
            raise _undetermined(given, basis, rank)
        held = _held_out_plain(data, normal, notes) if count > 1 else None
    elif method == "ridge":
        penalty, y, held = _ridge(data, normal, alpha, rule, notes)
    else:
        penalty, y, held, violation = _sparse(data, normal, mu, rule, tolerance, notes)
        if refit:
            y = _refitted(normal, y, notes)
    x = y / normal.scale
    if rank < len(basis):
        notes.append(
            f"The data determine {rank} of {len(basis)} unknowns; the penalty decides the rest"
        )
    left = F - predicted_forces(u, basis, x)
    square, total = float((left**2).sum()), float((F**2).sum())
    explained = 1 - square / total
    return Fit(
        basis.second(x),
        basis.third(x),
        basis.residual_forces(x),
        x,
        basis,
        method,
        penalty,
        float(np.sqrt(square / F.size)),
        float(np.sqrt(square / total)),
        explained,
        held,
        {order: int(np.count_nonzero(x[at])) for order, at in basis.slices.items()},
        len(basis),
        F.size,
        rank,
        condition,
        violation,
        (*notes, *remarks(given, left, basis, basis.second(x))),
    )


def _scaled(data: Statistics, basis: SymmetryAdaptedBasis, scaling: str) -> _Scaled:
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
    return _Scaled(gram, rights, scale, equations)


def _rank(gram: Float[np.ndarray, "unknown unknown"]) -> tuple[int, float]:
    """Return rank and condition number of A from AᵀA."""
    values = np.linalg.eigvalsh(gram)
    kept = values[values > len(gram) * np.finfo(float).eps * values[-1]]
    return len(kept), float(np.sqrt(kept[-1] / kept[0])) if len(kept) else np.inf


def _solved(normal: _Scaled, k: int) -> Float[np.ndarray, " unknown"] | None:
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


def _held_out_plain(data: Statistics, normal: _Scaled, notes: list[str]) -> HeldOut | None:
    y = [_solved(normal, k) for k in range(len(data.gram))]
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


def _ridge(data, normal: _Scaled, alpha, rule: str, notes: list[str]):
    # ‖F - A x‖² / m + (α/m)‖x‖² with unit columns is the same as mean equations with α added to
    # the diagonal: A = √m A_mean.
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


def _sparse(data, normal: _Scaled, mu, rule: str, tolerance: float, notes: list[str]):
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
    if violation > tolerance or largest > max(tolerance, _ON_THE_WAY):
        notes.append(
            f"Not converged: the optimality conditions are missed by {violation:.1e} of the "
            f"penalty, and by up to {largest:.1e} in the cross-validation; expected {tolerance:.0e}"
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


def _refitted(normal: _Scaled, y, notes: list[str]) -> Float[np.ndarray, " unknown"]:
    S = np.flatnonzero(y)
    part = _Scaled(
        normal.gram[-1:, S[:, None], S], normal.right[-1:, S], normal.scale[S], normal.equations
    )
    solved = _solved(part, 0) if len(S) else None
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


def _check(given, basis, method, mu, alpha, folds, rule, scaling) -> None:
    if given.forces is None:
        raise fail("displacements without forces", "forces, by `with_forces` or `computed_forces`")
    check_shape("forces", given.forces, given.displacements.shape, "one per displaced atom")
    check_finite("displacements", given.displacements)
    check_finite("forces", given.forces, "Repeat the calculations that they come from")
    mine, other = given.supercell, basis.supercell
    same = mine.matrix == other.matrix and len(mine.primitive) == len(other.primitive)
    if not same or not all(
        np.allclose(a, b, atol=1e-5)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True)
    ):
        raise fail("a basis of another supercell", "the supercell of the displacements")
    for name, value, known in (
        ("method", method, METHODS),
        ("rule", rule, ("minimum", "one standard error")),
        ("scaling", scaling, ("order", "column")),
    ):
        if value not in known:
            raise fail(f"{name} {value!r}", " or ".join(repr(k) for k in known))
    for name, value, of in (("mu", mu, "l1"), ("alpha", alpha, "ridge")):
        if value is not None and not value > 0:
            raise fail(f"{name} = {value}", "a positive number, or None for cross-validation")
        if value is not None and method != of:
            raise fail(f"{name} for method {method!r}", f"it for {of!r} only")
    if folds < 1:
        raise fail(f"{folds} folds", "at least 1")
    if not np.any(given.displacements):
        raise fail("displacements that are all 0", "moved atoms")
    if not np.any(given.forces):
        raise fail("forces that are all 0", "the forces on displaced atoms, eV/Å")
    if not len(basis):
        raise fail("a basis without unknowns", "some", "Use a larger cutoff")
    if len(basis) > _MOST_UNKNOWNS:
        raise fail(f"{len(basis)} unknowns", f"at most {_MOST_UNKNOWNS}", "Use shorter cutoffs")


def _undetermined(given: DisplacementSet, basis: SymmetryAdaptedBasis, rank: int):
    have = len(given)
    need = max(have + 1, -(-len(basis) * have // max(rank, 1)))
    return fail(
        f"{have} displaced supercells that determine {rank} of {len(basis)} unknowns",
        f"as many independent equations as unknowns: at least {need} supercells like these",
        'Add supercells with random displacements, use shorter cutoffs, or method "l1" or "ridge"',
    )


def _one_supercell(name: str):
    return fail(
        f"one part of the data to choose {name} by cross-validation",
        f"at least 2 supercells and folds, or {name}",
    )


__all__ = ["METHODS", "Fit", "HeldOut", "fitted"]
