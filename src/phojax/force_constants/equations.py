"""The linear equations between force constants and the forces on displaced atoms.

    F_iα = F⁰_iα - Σ_jβ Φ_iα,jβ u_jβ - ½ Σ_jβ,kγ Φ_iα,jβ,kγ u_jβ u_kγ                        (1)
    F = A x                                                                                  (2)

with x the coefficients of a symmetry-adapted basis. A lattice translation takes every atom home,
so that (1) is needed for the primitive atoms alone, once per snapshot and lattice translation.
A fit needs no more of the data than, for each group k of snapshots,

    G_k = A_kᵀ A_k,     b_k = A_kᵀ F_k,     ‖F_k‖²                                            (3)

which are made in one pass, a few snapshots at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from phojax.force_constants.basis import OrderBasis, SymmetryAdaptedBasis
from phojax.force_constants.sum_rules import cell_index
from phojax.structure import Supercell

_ENTRIES = 2**24  # numbers held at a time, 128 MiB


@dataclass(frozen=True)
class Statistics:
    """What a fit needs of the data: eq. (3), for each fold.

    Attributes:
        gram: G_k.
        right: b_k.
        square: ‖F_k‖², (eV/Å)².
        equations: Force components in each fold.
        fold: In which fold each snapshot is.
    """

    gram: Float[np.ndarray, "fold unknown unknown"]
    right: Float[np.ndarray, "fold unknown"]
    square: Float[np.ndarray, " fold"]
    equations: Int[np.ndarray, " fold"]
    fold: Int[np.ndarray, " snapshot"]


def statistics(
    displacements: Float[np.ndarray, "snapshot atom 3"],
    forces: Float[np.ndarray, "snapshot atom 3"],
    basis: SymmetryAdaptedBasis,
    fold: Int[np.ndarray, " snapshot"],
) -> Statistics:
    """Return eq. (3) for each fold; displacements in Å, forces in eV/Å."""
    count, unknowns = int(fold.max()) + 1, len(basis)
    gram = np.zeros((count, unknowns, unknowns))
    right = np.zeros((count, unknowns))
    for k in range(count):
        mine = np.flatnonzero(fold == k)
        for rows, A in design_blocks(displacements[mine], basis):
            gram[k] += A.T @ A
            right[k] += A.T @ rows.of(forces[mine])
    square = np.bincount(fold, (forces**2).sum((1, 2)), minlength=count)
    equations = np.bincount(fold, minlength=count) * forces[0].size
    return Statistics(gram, right, square, equations, fold)


def predicted_forces(
    displacements: Float[np.ndarray, "snapshot atom 3"],
    basis: SymmetryAdaptedBasis,
    x: Float[np.ndarray, " unknown"],
) -> Float[np.ndarray, "snapshot atom 3"]:
    """Return A x in eV/Å, in the order of the displacements."""
    out = np.empty_like(displacements)
    for rows, A in design_blocks(displacements, basis):
        rows.put(out, A @ x)
    return out


@dataclass(frozen=True)
class _Rows:
    """Which force components a block of A stands for: snapshots, and all copies of atom i."""

    first: int
    last: int
    atoms: slice

    def of(self, forces: np.ndarray) -> np.ndarray:
        return forces[self.first : self.last, self.atoms].reshape(-1)

    def put(self, forces: np.ndarray, values: np.ndarray) -> None:
        part = forces[self.first : self.last, self.atoms]
        part[...] = values.reshape(part.shape)


def design_blocks(
    displacements: Float[np.ndarray, "snapshot atom 3"], basis: SymmetryAdaptedBasis
) -> Iterator[tuple[_Rows, Float[np.ndarray, "equation unknown"]]]:
    """Yield A in blocks of rows: all copies of one primitive atom, several snapshots at a time."""
    cells = basis.supercell
    n, copies = len(cells.primitive), len(cells.images)
    moved = _brought_home(cells)
    for i in range(n):
        makers = [_columns(part, i, n, n * copies) for part in basis.parts]
        widest = max(maker.width for maker in makers)
        size = max(1, _ENTRIES // (copies * (widest + 3 * len(basis))))
        for first in range(0, len(displacements), size):
            u = displacements[first : first + size]
            v = u[:, moved].reshape(len(u) * copies, -1)  # as seen from each copy of i
            A = np.concatenate([maker.of(v) for maker in makers], axis=1)
            yield _Rows(first, first + len(u), slice(i * copies, (i + 1) * copies)), A


@dataclass(frozen=True)
class _Columns:
    """Columns of A for atom i: products of displacements, times a sparse matrix, times V.

    Attributes:
        factors: (product, order - 1) which displacements (atom, xyz flat) make each product.
        matrix: (product, 3 · c).
        combinations: V.
    """

    factors: Int[np.ndarray, "product factor"]
    matrix: sparse.csr_array
    combinations: Float[np.ndarray, "c unknown"]

    @property
    def width(self) -> int:
        return len(self.factors) + 3 * len(self.combinations)

    def of(self, v: Float[np.ndarray, "row xyz"]) -> Float[np.ndarray, "equation unknown"]:
        products = np.ones((len(self.factors), len(v)))
        for factor in self.factors.T:
            products *= v.T[factor]
        wide = (self.matrix.T @ products).T  # (row, 3 · c)
        return np.ascontiguousarray(wide).reshape(3 * len(v), -1) @ self.combinations


def _columns(part: OrderBasis, i: int, n: int, atoms: int) -> _Columns:
    """Return the columns of one order for atom i, products that occur twice added up."""
    rows, c = part.symmetric.shape  # pyright: ignore[reportGeneralTypeIssues]
    size = rows // n
    mine = part.symmetric[i * size : (i + 1) * size].tocoo()
    row, column = mine.coords
    if part.order == 1:
        a, key, factor = row, np.zeros_like(row), 1.0
    elif part.order == 2:
        j, ab = np.divmod(row, 9)
        a, b = np.divmod(ab, 3)
        key, factor = 3 * j + b, -1.0
    else:
        jk, abc = np.divmod(row, 27)
        j, k = np.divmod(jk, atoms)
        a, bc = np.divmod(abc, 9)
        b, g = np.divmod(bc, 3)
        one, other = 3 * j + b, 3 * k + g
        key = np.minimum(one, other) * (3 * atoms) + np.maximum(one, other)
        factor = -0.5
    used, at = np.unique(key, return_inverse=True)
    matrix = sparse.csr_array(
        (factor * mine.data, (at, a * c + column)), shape=(max(len(used), 1), 3 * c)
    )
    factors = {1: used[:, None][:, :0], 2: used[:, None]}.get(part.order)
    if factors is None:
        factors = np.stack(np.divmod(used, 3 * atoms), axis=1)
    return _Columns(factors, matrix, part.combinations)


def _brought_home(cells: Supercell) -> Int[np.ndarray, "copy atom"]:
    """Return which atom stands, seen from copy L, where atom (j, M) stands seen from the origin."""
    images = np.asarray(cells.images)
    n, copies = len(cells.primitive), len(images)
    arrived = cell_index(cells, images[:, None] + images[None])  # (L, M)
    return (np.arange(n)[None, :, None] * copies + arrived[:, None]).reshape(copies, -1)
