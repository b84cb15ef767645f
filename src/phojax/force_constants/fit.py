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

from phojax.checks import check_finite, check_shape, fail
from phojax.force_constants.basis import SymmetryAdaptedBasis
from phojax.force_constants.container import ForceConstants
from phojax.force_constants.displacements import DisplacementSet
from phojax.force_constants.equations import predicted_forces, statistics
from phojax.force_constants.fit_remarks import remarks
from phojax.force_constants.fit_solutions import (
    HeldOut,
    held_out_least_squares,
    least_squares,
    rank_and_condition,
    refitted,
    ridge,
    scaled_equations,
    sparse,
)
from phojax.force_constants.third_container import ThirdOrder

METHODS = ("least squares", "ridge", "l1")
_MOST_UNKNOWNS = 12000  # a Gram matrix of 1.1 GiB


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
        doubts: Those of them that speak against the data: forces that do not belong to the
            displacements, or not in eV/Å.
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
    doubts: tuple[str, ...] = ()


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
    normal = scaled_equations(data, basis, scaling)
    rank, condition = rank_and_condition(normal.gram[-1])
    notes: list[str] = []
    violation = 0.0
    if method == "least squares":
        penalty, y = None, least_squares(normal, -1) if rank == len(basis) else None
        if y is None:
            raise _undetermined(given, basis, rank)
        held = held_out_least_squares(data, normal, notes) if count > 1 else None
    elif method == "ridge":
        penalty, y, held = ridge(data, normal, alpha, rule, notes)
    else:
        penalty, y, held, violation = sparse(data, normal, mu, rule, tolerance, notes)
        if refit:
            y = refitted(normal, y, notes)
    x = y / normal.scale
    if rank < len(basis):
        notes.append(
            f"The data determine {rank} of {len(basis)} unknowns; the penalty decides the rest"
        )
    left = F - predicted_forces(u, basis, x)
    doubts, others = remarks(given, left, basis, basis.second(x))
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
        (*notes, *doubts, *others),
        doubts,
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


__all__ = ["METHODS", "Fit", "HeldOut", "fitted"]
