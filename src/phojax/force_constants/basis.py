"""Orthonormal bases of force constants that hold permutation, translation and space group exactly.

    Φ^(k) = Σ_p x_p B_p,     Σ over primitive rows and all columns of B_p B_q = δ_pq           (1)

Of order 1 (forces of the undisplaced crystal), 2 and 3, on a supercell. B = C V: the sparse C
has permutation symmetry and the space group, V spans what the sum rules leave,

    Σ_j Φ_ij = 0,     Σ_k Φ_ijk = 0,                                                             (2)

and a pair farther apart than the cutoff of the order makes an element 0 in C, so that (2) holds
with a cutoff as it does without. C and V of orders 2 and 3 are those of symfc: Seko, Togo,
Phys. Rev. B 110, 214302 (2024). Distances are those of nearest images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from phojax.checks import fail
from phojax.force_constants.container import ForceConstants, force_constants
from phojax.force_constants.rotational import rotation_conditions
from phojax.force_constants.shells import neighbour_shells, third_order_cutoff
from phojax.force_constants.sum_rules import preserving
from phojax.force_constants.third_container import ThirdOrder, third_order
from phojax.structure import Supercell
from phojax.symmetry import SpaceGroup

_AT_CUTOFF = 1e-3  # Å; a pair that much beyond the cutoff is inside: lengths are given rounded
_KEPT = 1e-9  # singular value, in units of the largest length, below which a condition is fulfilled


@dataclass(frozen=True)
class OrderBasis:
    """Basis (1) of one order.

    Attributes:
        order: 1, 2 or 3.
        symmetric: C, sparse; rows are elements in the order of the array's axes (i, jL, a, b)
            or (i, jL, kM, a, b, c), columns orthonormal.
        combinations: V, orthonormal columns, one per unknown.
        cutoff: Å, as used; None for none.
    """

    order: int
    symmetric: sparse.csr_array
    combinations: Float[np.ndarray, "c unknown"]
    cutoff: float | None

    def __len__(self) -> int:
        return self.combinations.shape[1]

    def elements(self, x: Float[np.ndarray, " unknown"]) -> Float[np.ndarray, " element"]:
        """Return Σ_p x_p B_p, flat."""
        return self.symmetric @ (self.combinations @ x)


@dataclass(frozen=True)
class SymmetryAdaptedBasis:
    """Bases of several orders on one supercell.

    Attributes:
        supercell: Where the force constants live.
        group: The operations used: those that leave the supercell lattice whole.
        parts: A basis per order, ascending.
        rotational: Whether the conditions of `rotational` are built into order 2.
    """

    supercell: Supercell
    group: SpaceGroup
    parts: tuple[OrderBasis, ...]
    rotational: bool = False

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def orders(self) -> tuple[int, ...]:
        """The orders, ascending."""
        return tuple(part.order for part in self.parts)

    @property
    def slices(self) -> dict[int, slice]:
        """Where the unknowns of each order stand among all."""
        ends = np.cumsum([0, *(len(part) for part in self.parts)]).tolist()
        return {part.order: slice(*ends[k : k + 2]) for k, part in enumerate(self.parts)}

    def _values(self, order: int, x, per_order: int) -> np.ndarray | None:
        if order not in self.orders:
            return None
        n, copies = len(self.supercell.primitive), len(self.supercell.images)
        part = self.parts[self.orders.index(order)]
        shape = (n, *[n * copies] * (per_order - 1), *[3] * per_order)
        return part.elements(np.asarray(x)[self.slices[order]]).reshape(shape)

    def residual_forces(self, x) -> Float[np.ndarray, "i 3"] | None:
        """Return the forces of the undisplaced crystal, eV/Å; None without order 1."""
        return self._values(1, x, 1)

    def second(self, x: Float[np.ndarray, " unknown"]) -> ForceConstants | None:
        """Return Φ of the unknowns x (eV/Å²); None without order 2."""
        values = self._values(2, x, 2)
        return None if values is None else force_constants(values, self.supercell)

    def third(self, x: Float[np.ndarray, " unknown"]) -> ThirdOrder | None:
        """Return Φ³ of the unknowns x (eV/Å³), dense; None without order 3."""
        values = self._values(3, x, 3)
        if values is None:
            return None
        return third_order(values, self.supercell, self.parts[self.orders.index(3)].cutoff)

    def coefficients(
        self, second: ForceConstants | None = None, third: ThirdOrder | None = None
    ) -> Float[np.ndarray, " unknown"]:
        """Return x of the nearest force constants in the span of the basis; 0 where none given."""
        x = np.zeros(len(self))
        for order, given in ((2, second), (3, third)):
            if given is not None and order in self.orders:
                part = self.parts[self.orders.index(order)]
                flat = np.asarray(given.values).reshape(-1)
                x[self.slices[order]] = part.combinations.T @ (part.symmetric.T @ flat)
        return x


def symmetry_adapted_basis(
    supercell: Supercell,
    group: SpaceGroup,
    orders: tuple[int, ...] = (2, 3),
    cutoffs: Mapping[int, float | None] | None = None,
    rotational: bool = False,
    residual_forces: bool = False,
) -> SymmetryAdaptedBasis:
    """Return the basis (1) of every order.

    Args:
        supercell: Its primitive cell must have the group exactly (`symmetry.symmetrized`).
        group: Of the primitive cell.
        orders: (2,), (3,) or (2, 3); residual forces by their own argument.
        cutoffs: Å per order, of pairs; None for all pairs. By default none for order 2, and the
            third shell of neighbours for order 3 (`shells.third_order_cutoff`).
        rotational: Build the conditions of `rotational` into order 2.
        residual_forces: Add order 1: forces of the undisplaced crystal that symmetry allows.

    Raises:
        InputError: other orders, a cutoff that is not positive or leaves nothing, rotational
            without order 2.
    """
    orders = tuple(sorted(set(orders)))
    if orders not in ((2,), (3,), (2, 3)):
        raise fail(f"orders {orders} of force constants", "(2,), (3,) or (2, 3)")
    if rotational and 2 not in orders:
        raise fail("rotational conditions without order 2", "order 2 among the orders")
    given: dict[int, float | None] = dict(cutoffs or {})
    if 3 in orders and 3 not in given:
        given[3] = third_order_cutoff(supercell)
    # The undisplaced crystal has the whole group, whatever the supercell.
    parts = [_first_order(supercell, group)] if residual_forces else []
    group = preserving(group, supercell)
    operations = _supercell_operations(supercell, group)
    for order in orders:
        part = _of_order(order, supercell, operations, given.get(order))
        parts.append(_turned(part, supercell) if rotational and order == 2 else part)
    return SymmetryAdaptedBasis(supercell, group, tuple(parts), rotational)


def _of_order(order: int, supercell: Supercell, operations: dict, cutoff: float | None):
    from symfc.basis_sets import FCBasisSetO2, FCBasisSetO3
    from symfc.utils.utils import SymfcAtoms

    big = supercell.structure
    atoms = SymfcAtoms(
        numbers=np.asarray(big.numbers),
        scaled_positions=_fractional(supercell),
        cell=np.asarray(big.cell),
    )
    kind: Any = {2: FCBasisSetO2, 3: FCBasisSetO3}[order]
    if cutoff is not None:
        if not cutoff > 0:
            raise fail(f"a cutoff of {cutoff} Å for order {order}", "a positive length, or None")
        nearest = min(float(shells.min(initial=np.inf)) for shells in neighbour_shells(supercell))
        if cutoff < nearest - _AT_CUTOFF:
            raise fail(
                f"a cutoff of {cutoff} Å for order {order}, which reaches no neighbour",
                f"at least {nearest:.3f} Å, the shortest distance",
            )
    inside = None if cutoff is None else cutoff + _AT_CUTOFF
    made = kind(atoms, cutoff=inside, spacegroup_operations=operations)
    if not np.array_equal(made.p2s_map, np.arange(len(supercell.primitive)) * _copies(supercell)):
        raise fail("symfc's primitive atoms are not ours", "a supercell of a primitive cell")
    try:
        made = made.run()
    except AssertionError:
        # symfc expects a sum rule to leave something. In rock salt with 8 atoms, where every atom
        # is a centre of all others, it leaves no third order.
        rows = len(supercell.primitive) * len(big) ** (order - 1) * 3**order
        return OrderBasis(order, sparse.csr_array((rows, 0)), np.zeros((0, 0)), cutoff)
    # compact_compression_matrix is orthonormal over all rows of the supercell: ours over n rows.
    symmetric = sparse.csr_array(made.compact_compression_matrix) * np.sqrt(_copies(supercell))
    return OrderBasis(order, symmetric, np.array(made.basis_set), cutoff)


def _copies(supercell: Supercell) -> int:
    return len(supercell.images)


def _fractional(supercell: Supercell) -> np.ndarray:
    """Return positions in units of the supercell's vectors, exact multiples where they are."""
    P = np.asarray(supercell.matrix, float)
    f = np.asarray(supercell.primitive.fractional)
    all_of_them = f[:, None] + np.asarray(supercell.images)
    return all_of_them.reshape(-1, 3) @ np.linalg.inv(P)


def _supercell_operations(supercell: Supercell, group: SpaceGroup) -> dict:
    """Return the operations in units of the supercell's vectors, the identity first."""
    P = np.asarray(supercell.matrix, float)
    back = np.linalg.inv(P)
    identity = np.all(group.rotations == np.eye(3), axis=(1, 2))
    first = np.lexsort((np.abs(group.translations).sum(1), ~identity))
    W = np.rint(np.swapaxes(P @ np.swapaxes(group.rotations[first], 1, 2) @ back, 1, 2))
    w = group.translations[first][:, None] + np.asarray(supercell.images)
    rotations = np.repeat(W.astype(int), _copies(supercell), axis=0)
    return {"rotations": rotations, "translations": (w @ back).reshape(-1, 3)}


def _first_order(supercell: Supercell, group: SpaceGroup) -> OrderBasis:
    """Return the forces that the group allows, less the net force; perhaps none."""
    n = len(supercell.primitive)
    average = np.zeros((n, 3, n, 3))
    for R, p in zip(group.rotations_cartesian, group.permutation, strict=True):
        average[p, :, np.arange(n), :] += R / len(group)
    net = np.tile(np.eye(3) / np.sqrt(n), (n, 1))
    projector = average.reshape(3 * n, 3 * n) @ (np.eye(3 * n) - net @ net.T)
    values, vectors = np.linalg.eigh((projector + projector.T) / 2)
    kept = vectors[:, values > 1 - 1e-6]
    return OrderBasis(1, sparse.csr_array(np.eye(3 * n)), kept, None)


def _turned(part: OrderBasis, supercell: Supercell) -> OrderBasis:
    """Return the basis of order 2 with the conditions on rotations built in."""
    conditions = rotation_conditions(supercell)
    matrix = np.asarray((conditions @ part.symmetric) @ part.combinations)
    _, values, vectors = np.linalg.svd(matrix, full_matrices=True)
    # Measured by lengths of the crystal: where symmetry alone fulfils them, all values are noise.
    kept = vectors[np.count_nonzero(values > _KEPT * np.abs(conditions.data).max()) :].T
    if not kept.shape[1]:
        raise fail(
            "no force constants within the cutoff are left by the conditions on rotations",
            "a larger cutoff for order 2",
        )
    return replace(part, combinations=part.combinations @ kept)


__all__ = [
    "OrderBasis",
    "SymmetryAdaptedBasis",
    "symmetry_adapted_basis",
]
