"""What exact force constants satisfy, how far given ones are from it, and the nearest that do.

    permutation     Φ_iα,jLβ = Φ_jβ,i(-L)α                                       (1)
    translation     Σ_jL Φ_iα,jLβ = 0                                              (2)
    space group     Φ_gi,gj = R Φ_ij Rᵀ                                            (3)

On a supercell with N atoms, (1) and (2) are orthogonal projections that commute: averaging with
the transpose, and Φ -> C Φ C with C = 1 - 1/N for each Cartesian pair of indices. Their product
is the projection onto both, the smallest change that enforces them.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.concrete import array_module, is_concrete
from phojax.force_constants.container import ForceConstants
from phojax.structure import Supercell
from phojax.symmetry import SpaceGroup


@dataclass(frozen=True)
class Residuals:
    """How far force constants were from the rules, eV/Å² (largest component).

    Attributes:
        permutation: Of eq. (1), half the difference.
        translation: Of eq. (2), the sum itself.
        space_group: Of eq. (3), distance from the average; None where no group was given.
    """

    permutation: float
    translation: float
    space_group: float | None = None


def transposed_columns(supercell: Supercell) -> np.ndarray:
    """Return (i, j·L) the column of Φ_j that holds i(-L), the partner in eq. (1)."""
    n, L = len(supercell.primitive), np.asarray(supercell.images)
    back = cell_index(supercell, -L)
    return np.arange(n)[:, None, None] * len(L) + np.broadcast_to(back, (1, n, len(L)))


def cell_index(supercell: Supercell, lattice: np.ndarray) -> np.ndarray:
    """Return the index in `supercell.images` of lattice vectors (…, 3), modulo the supercell."""
    P = np.asarray(supercell.matrix)
    determinant = round(np.linalg.det(P))
    adjugate = np.rint(np.linalg.inv(P) * determinant).astype(int)

    def key(points):
        residue = np.mod(points @ adjugate, abs(determinant))
        return residue @ (abs(determinant) ** np.arange(3))

    keys = key(np.asarray(supercell.images))
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], key(lattice))]


def permuted(
    values: Float[Array, "i jL 3 3"] | Float[np.ndarray, "i jL 3 3"], supercell: Supercell
) -> Float[Array, "i jL 3 3"] | Float[np.ndarray, "i jL 3 3"]:
    """Return Φ with (i, j·L) and its transpose exchanged: the right-hand side of eq. (1)."""
    n, copies = len(supercell.primitive), supercell.images.shape[0]
    j = np.repeat(np.arange(n), copies)
    return values[j[None], transposed_columns(supercell).reshape(n, -1)].swapaxes(-1, -2)


def antisymmetric_ratio(constants: ForceConstants) -> float:
    """Return ‖Φ - Φᵀ‖ / ‖Φ + Φᵀ‖, the transpose in the sense of eq. (1); for concrete values."""
    values = np.asarray(constants.values)
    turned = permuted(values, constants.supercell)
    return float(np.linalg.norm(values - turned) / np.linalg.norm(values + turned))


def enforced(constants: ForceConstants) -> tuple[ForceConstants, Residuals]:
    """Return the nearest force constants that obey eqs. (1) and (2), and what was removed.

    Those of a crystal that is held obey (1) alone: eq. (2) is about moving it as a whole.

    The values are differentiable in the given ones; the residuals are plain numbers, so not
    for use under jit (there, use `projected`).
    """
    split = _projected_with_residuals if is_concrete(constants) else _projected_when_traced
    values, permutation, translation = split(constants)
    found = Residuals(float(permutation), float(translation) if constants.free else 0.0)
    return replace(constants, values=values), found


def _projected_with_residuals(constants: ForceConstants):
    xp, cell = array_module(constants.values), constants.supercell
    values = xp.asarray(constants.values)
    turned = permuted(values, cell)
    return (
        jnp.asarray(projected(values, cell) if constants.free else (values + turned) / 2),
        xp.abs(values - turned).max() / 2,
        xp.abs(values.sum(axis=1)).max(),
    )


_projected_when_traced = jax.jit(_projected_with_residuals)


def projected(
    values: Float[Array, "i jL 3 3"] | Float[np.ndarray, "i jL 3 3"], supercell: Supercell
) -> Float[Array, "i jL 3 3"]:
    """Return the orthogonal projection of Φ (eV/Å²) onto eqs. (1) and (2); traceable."""
    copies, atoms, xp = supercell.images.shape[0], values.shape[1], array_module(values)
    symmetric = (values + permuted(values, supercell)) / 2
    rows = symmetric.sum(axis=1)  # (i, 3, 3)
    total = copies * rows.sum(axis=0)
    columns = xp.repeat(rows.swapaxes(-1, -2), copies, axis=0)
    return jnp.asarray(symmetric - (rows[:, None] + columns) / atoms + total / atoms**2)


def preserving(group: SpaceGroup, supercell: Supercell) -> SpaceGroup:
    """Return those operations of the primitive cell's group that keep the supercell lattice."""
    P = np.asarray(supercell.matrix, float)
    turned = P @ np.swapaxes(group.rotations, 1, 2) @ np.linalg.inv(P)
    return group.subset(np.all(np.abs(turned - np.rint(turned)) < 1e-6, axis=(1, 2)))


def arrival_columns(group: SpaceGroup, supercell: Supercell) -> np.ndarray:
    """Return (op, i, j·L): with i brought home, the column in which atom j·L arrives."""
    n, L = len(supercell.primitive), np.asarray(supercell.images)
    columns = np.empty((len(group), n, n * len(L)), int)
    for op in range(len(group)):
        moved = L @ group.rotations[op].T  # (L, 3)
        s = group.shifts[op]
        to = moved[None, None] + (s[None, :] - s[:, None])[:, :, None]  # i j L 3
        columns[op] = (
            group.permutation[op][None, :, None] * len(L) + cell_index(supercell, to)
        ).reshape(n, -1)
    return columns


def group_average(
    values: Float[Array, "i jL 3 3"], supercell: Supercell, group: SpaceGroup
) -> Float[np.ndarray, "i jL 3 3"]:
    """Return Φ averaged over eq. (3), on the host; `group` must be that of `preserving`."""
    given = np.asarray(values)
    total = np.zeros_like(given)
    columns = arrival_columns(group, supercell)
    for R, p, to in zip(group.rotations_cartesian, group.permutation, columns, strict=True):
        total[p[:, None], to] += R @ given @ R.T
    return total / len(group)
