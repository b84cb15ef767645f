"""Which pairs of displacements determine all third-order force constants, by symmetry.

Φ(a, b, ·) of a pair of atoms is known once v_de(c) = Σ_αβ d_α e_β Φ(aα, bβ, c) is known for
directions (d, e) whose images under the stabiliser of the pair span the nine-dimensional space of
d ⊗ e. An operation g that keeps the pair gives (1), one that exchanges its atoms (2):

    (Rd ⊗ Re) · Φ(a, b, g c) = R v_de(c)                                           (1)
    (Re ⊗ Rd) · Φ(a, b, g c) = R v_de(c)                                           (2)

All such equations are solved together by least squares, which averages over the stabiliser.
Equivalent pairs follow from Φ(ga, gb, gc) = R R R Φ(a, b, c). A pair may be left out where each of
its triplets has another pair that is computed: the third atom of that one takes its place.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from phojax.force_constants.reduction import CANDIDATES
from phojax.force_constants.shells import pair_distances
from phojax.force_constants.sum_rules import arrival_columns, preserving, transposed_columns
from phojax.force_constants.third_rules import (
    kept_triplets,
    other_columns,
    rotated,
)
from phojax.structure import Supercell
from phojax.symmetry import SpaceGroup

_SPANS = 1e-4  # smallest eigenvalue of a Gram matrix, the square of a singular value


@dataclass(frozen=True)
class DisplacementPairs:
    """Independent pairs of displacements of a crystal and what their responses determine.

    Attributes:
        first: (row,) primitive atom displaced along the first direction.
        second: (row,) supercell atom displaced along the second one.
        directions: (row, 2, 3) Cartesian unit vectors.
        known: (i, j·L) the pairs whose Φ with every third atom they determine.
        group: The operations used: those that leave the supercell lattice whole.
        supercell: Where Φ lives.
        cutoff: Å, of the pairs; None for none.
        exchange: Whether eq. (2) is used.
    """

    first: Int[np.ndarray, " row"]
    second: Int[np.ndarray, " row"]
    directions: Float[np.ndarray, "row 2 3"]
    known: Bool[np.ndarray, "i jL"]
    group: SpaceGroup
    supercell: Supercell
    cutoff: float | None
    exchange: bool = True

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class _Relations:
    """Where operations, with and without an exchange, take a pair and a third atom."""

    rotations: np.ndarray
    permutation: np.ndarray
    columns: np.ndarray
    transposed: np.ndarray
    others: np.ndarray
    copies: int
    exchange: bool

    def targets(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair on which (a, b) falls, for every operation, then with the exchange."""
        i, j = self.permutation[:, a], self.columns[:, a, b]
        if not self.exchange:
            return i, j
        return (
            np.concatenate([i, j // self.copies]),
            np.concatenate([j, self.transposed[i, j]]),
        )

    def arrival(self, a: int, b: int, element: int) -> tuple[np.ndarray, bool, np.ndarray]:
        """Return R, whether the pair is exchanged, and the column where each atom arrives."""
        op, count = element % len(self.rotations), len(self.rotations)
        to = self.columns[op, a]
        if element >= count:
            to = self.others[to[b], to]
        return self.rotations[op], element >= count, to


def _relations(group: SpaceGroup, supercell: Supercell, exchange: bool) -> _Relations:
    n = len(supercell.primitive)
    return _Relations(
        group.rotations_cartesian,
        group.permutation,
        arrival_columns(group, supercell),
        transposed_columns(supercell).reshape(n, -1),
        other_columns(supercell),
        len(supercell.images),
        exchange,
    )


def independent_pairs(
    supercell: Supercell, group: SpaceGroup, cutoff: float | None = None
) -> DisplacementPairs:
    """Return few pairs of displacements (by greedy choice) that determine Φ within a cutoff.

    Args:
        supercell: Its primitive cell must have the group exactly (`symmetry.symmetrized`).
        group: Of the primitive cell.
        cutoff: Å, of the pairs of a triplet; None for none.
    """
    group = preserving(group, supercell)
    relations = _relations(group, supercell, exchange=True)
    distances = pair_distances(supercell)
    orbit = np.full(distances.shape, -1)
    rows: list[tuple[int, int, list[np.ndarray]]] = []
    for a, b in np.argwhere(distances <= (np.inf if cutoff is None else cutoff)).tolist():
        if orbit[a, b] < 0:
            orbit[relations.targets(a, b)] = len(rows)
            rows.append((a, b, _directions(relations, a, b)))
    needed = _needed(orbit, rows, distances, supercell, cutoff)
    chosen = [(a, b, d) for (a, b, found), use in zip(rows, needed, strict=True) if use
              for d in found]  # fmt: skip
    first, second, directions = zip(*chosen, strict=True)
    known = (orbit >= 0) & needed[orbit]
    return DisplacementPairs(
        np.array(first), np.array(second), np.array(directions), known, group, supercell, cutoff
    )


def all_pairs(
    supercell: Supercell, group: SpaceGroup, cutoff: float | None = None
) -> DisplacementPairs:
    """Return all nine pairs of Cartesian displacements of every pair: no use of symmetry."""
    n = len(supercell.primitive)
    identity = np.array(
        [np.array_equal(W, np.eye(3)) and np.array_equal(p, np.arange(n))
         for W, p in zip(group.rotations, group.permutation, strict=True)]
    )  # fmt: skip
    known = pair_distances(supercell) <= (np.inf if cutoff is None else cutoff)
    first, second = np.repeat(np.argwhere(known), 9, axis=0).T
    axes = np.array([(d, e) for d in np.eye(3) for e in np.eye(3)])
    directions = np.tile(axes, (int(known.sum()), 1, 1))
    only = group.subset(identity)
    return DisplacementPairs(first, second, directions, known, only, supercell, cutoff, False)


def from_pair_responses(
    pairs: DisplacementPairs, responses: Float[np.ndarray, "row kM 3"]
) -> tuple[Float[np.ndarray, "i jL kM 3 3 3"], float]:
    """Return Φ (eV/Å³) at the known pairs, 0 elsewhere, and the misfit of eqs. (1) and (2).

    The misfit is the largest difference of a response from what Φ makes of it: 0 to rounding
    for forces that have the symmetry of the crystal.

    Args:
        pairs: The displacements.
        responses: v_de(c) of every pair of displacements, eV/Å³.
    """
    relations = _relations(pairs.group, pairs.supercell, pairs.exchange)
    n, atoms = len(pairs.supercell.primitive), responses.shape[1]
    values = np.zeros((n, atoms, atoms, 3, 3, 3))
    misfit = 0.0
    for a, b in np.unique(np.stack([pairs.first, pairs.second], 1), axis=0).tolist():
        mine = np.flatnonzero((pairs.first == a) & (pairs.second == b))
        i, j = relations.targets(a, b)
        stabiliser = np.flatnonzero((i == a) & (j == b))
        elements = [relations.arrival(a, b, s) for s in stabiliser.tolist()]
        turned = np.array(
            [_product(R @ (e if swap else d), R @ (d if swap else e))
             for R, swap, _ in elements for d, e in pairs.directions[mine]]
        )  # fmt: skip
        solve = np.linalg.pinv(turned).reshape(9, len(elements), len(mine))
        block = np.zeros((9, atoms, 3))
        for g, (R, _, to) in enumerate(elements):
            block[:, to] += np.einsum("pr,rcx,yx->pcy", solve[:, g], responses[mine], R)
        given = np.array([_product(d, e) for d, e in pairs.directions[mine]])
        off = np.einsum("rp,pcx->rcx", given, block) - responses[mine]
        misfit = max(misfit, float(np.abs(off).max()))
        block = block.reshape(3, 3, atoms, 3).transpose(2, 0, 1, 3)
        _, once = np.unique(i * atoms + j, return_index=True)
        for element in once.tolist():
            R, swap, to = relations.arrival(a, b, element)
            moved = rotated(block, R)
            values[i[element], j[element], to] = moved.swapaxes(1, 2) if swap else moved
    return values, misfit


def _product(d: np.ndarray, e: np.ndarray) -> np.ndarray:
    return np.outer(d, e).reshape(9)


def _directions(relations: _Relations, a: int, b: int) -> list[np.ndarray]:
    """Return the fewest (by greedy choice) pairs of directions (2, 3) that determine Φ(a, b, ·)."""
    i, j = relations.targets(a, b)
    elements = [relations.arrival(a, b, s) for s in np.flatnonzero((i == a) & (j == b)).tolist()]
    simple = np.array(CANDIDATES)
    d, e = (x.reshape(-1, 3) for x in np.broadcast_arrays(simple[:, None], simple[None]))
    gram = np.zeros((len(d), 9, 9))
    for R, swap, _ in elements:
        left, right = (e, d) if swap else (d, e)
        images = np.einsum("pa,pb->pab", left @ R.T, right @ R.T).reshape(-1, 9)
        gram += images[:, :, None] * images[:, None, :]
    gram /= len(elements)
    total, chosen = np.zeros((9, 9)), []
    while not chosen or np.linalg.eigvalsh(total / len(chosen))[0] < _SPANS:
        values = np.linalg.eigvalsh((total + gram) / (len(chosen) + 1))
        rank = (values > _SPANS).sum(axis=1)
        smallest = values[np.arange(len(values)), 9 - rank]
        # Rank first, then conditioning (rounded, so that simple directions win).
        best = int(np.lexsort((-np.round(smallest, 3), -rank))[0])
        chosen.append(best)
        total = total + gram[best]
    return [np.array([d[c], e[c]]) for c in chosen]


def _needed(orbit, rows, distances, supercell, cutoff) -> Bool[np.ndarray, " orbit"]:
    """Return the classes of pairs that remain when those are left out that others replace."""
    copies = len(supercell.images)
    i, j, k = np.nonzero(kept_triplets(supercell, cutoff))
    last = orbit[j // copies, other_columns(supercell)[j, k]]
    classes = np.unique(np.sort(np.stack([orbit[i, j], orbit[i, k], last], 1), axis=1), axis=0)
    needed = np.ones(len(rows), bool)
    cost = [(len(found), distances[a, b]) for a, b, found in rows]
    for o in sorted(range(len(rows)), key=lambda o: cost[o], reverse=True):
        of_it = classes[(classes == o).any(axis=1)]
        if np.all(((of_it != o) & needed[of_it]).any(axis=1)):
            needed[o] = False
    return needed
