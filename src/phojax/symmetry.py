"""Space groups: operations, primitive cells, and what they make of positions and tensors.

An operation {W|w} takes fractional coordinates (rows f) to f Wᵀ + w. In Cartesian coordinates
its rotation is R = Aᵀ W A⁻ᵀ for lattice vectors as rows of A. Atom i goes to atom p(i) in the
cell s(i). Operations are found by spglib; everything here runs on the host.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import spglib

from phojax.checks import fail
from phojax.structure import Structure, structure


@dataclass(frozen=True)
class SpaceGroup:
    """Operations of a crystal on its own atoms (numpy arrays; header: conventions).

    Attributes:
        rotations: (op, 3, 3) W, integers.
        translations: (op, 3) w, fractional.
        rotations_cartesian: (op, 3, 3) R.
        permutation: (op, atom) p: where each atom goes.
        shifts: (op, atom, 3) s: in which cell it arrives.
        symbol: International symbol, e.g. "Fm-3m".
        number: International number.
    """

    rotations: np.ndarray
    translations: np.ndarray
    rotations_cartesian: np.ndarray
    permutation: np.ndarray
    shifts: np.ndarray
    symbol: str
    number: int

    def __len__(self) -> int:
        return len(self.rotations)

    def subset(self, keep: np.ndarray) -> "SpaceGroup":
        """Return the operations marked in the (op,) boolean mask; symbol and number stay."""
        return replace(
            self,
            rotations=self.rotations[keep],
            translations=self.translations[keep],
            rotations_cartesian=self.rotations_cartesian[keep],
            permutation=self.permutation[keep],
            shifts=self.shifts[keep],
        )

    @functools.cached_property
    def orbits(self) -> np.ndarray:
        """(atom,) the first atom that each atom is equivalent to."""
        return self.permutation.min(axis=0)


def space_group(crystal: Structure, tolerance: float = 1e-4) -> SpaceGroup:
    """Return the operations of a concrete crystal, equal masses required of equivalent atoms.

    Args:
        crystal: Any cell; pure translations of a non-primitive one are operations, too.
        tolerance: Å within which an atom must arrive on another.

    Raises:
        InputError: where spglib finds no symmetry at all (two atoms at one place, say).
    """
    cell, fractional, kinds = _spglib_cell(crystal)
    dataset = spglib.get_symmetry_dataset((cell, fractional, kinds), symprec=tolerance)
    if dataset is None:
        raise fail(
            "spglib found no space group",
            "a crystal without overlapping atoms",
            "Check the positions, or pass another symmetry tolerance",
        )
    W, w = np.asarray(dataset.rotations), np.asarray(dataset.translations)
    R = np.einsum("ba,obc,cd->oad", cell, W, np.linalg.inv(cell.T))
    arrived = np.einsum("oab,ib->oia", W, fractional) + w[:, None]
    permutation, shifts = _match(arrived, fractional, kinds, cell)
    return SpaceGroup(W, w, R, permutation, shifts, dataset.international, int(dataset.number))


def no_symmetry(atoms: int) -> SpaceGroup:
    """Return the identity alone, for some number of atoms."""
    one = np.eye(3)[None]
    return SpaceGroup(
        one.astype(int), np.zeros((1, 3)), one, np.arange(atoms)[None],
        np.zeros((1, atoms, 3), int), "P1", 1,
    )  # fmt: skip


def symmetrized(crystal: Structure, group: SpaceGroup) -> Structure:
    """Return the crystal with cell and positions averaged over the group, made exact.

    The lattice keeps its orientation as nearly as a metric allows (no rotation added).
    """
    cell = np.asarray(crystal.cell, float)
    metric = np.mean([W.T @ cell @ cell.T @ W for W in group.rotations], axis=0)
    # cell·F with symmetric F so that the new cell has the averaged metric: no rotation.
    inverse = np.linalg.inv(cell)
    values, vectors = np.linalg.eigh(inverse @ metric @ inverse.T)
    cell = cell @ (vectors * np.sqrt(values)) @ vectors.T
    fractional = np.asarray(crystal.fractional, float)
    arrived = np.einsum("oab,ib->oia", group.rotations, fractional) + group.translations[:, None]
    back = np.zeros_like(fractional)
    for op in range(len(group)):
        back[group.permutation[op]] += arrived[op] - group.shifts[op]
    fractional = back / len(group)
    return replace(crystal, cell=jnp.asarray(cell), positions=jnp.asarray(fractional @ cell))


def primitive_cell(crystal: Structure, tolerance: float = 1e-3) -> Structure:
    """Return the standardised primitive cell (spglib's setting), masses carried over.

    Raises:
        InputError: where spglib finds no symmetry at all.
    """
    cell, fractional, kinds = _spglib_cell(crystal)
    found = spglib.standardize_cell(
        (cell, fractional, kinds), to_primitive=True, no_idealize=False, symprec=tolerance
    )
    if found is None:
        raise fail("spglib found no primitive cell", "a crystal without overlapping atoms")
    new_cell, new_fractional, new_kinds = (np.asarray(part) for part in found)
    first = np.array([np.flatnonzero(kinds == kind)[0] for kind in new_kinds])
    return structure(
        new_cell,
        new_fractional @ new_cell,
        np.asarray(crystal.numbers)[first],
        np.asarray(crystal.masses)[first],
    )


def near_cubic_matrix(
    primitive: Structure, group: SpaceGroup, smallest: int = 80, largest: int = 300
) -> np.ndarray:
    """Return the supercell matrix (3, 3) whose cell is nearest to a cube.

    Candidates are multiples of the conventional cell and the cubes rounded to the lattice. The
    distance from a cube is that of the metric, ‖M/V^⅔ - 1‖, to which 0.5 is added where the cell
    breaks the symmetry of the crystal; within 0.2 of the best, the fewest atoms win.

    Args:
        primitive: The primitive cell.
        group: Its space group.
        smallest: Number of atoms at least.
        largest: Number of atoms at most, where `smallest` and the primitive cell allow it.

    Raises:
        InputError: sizes that are not positive.
    """
    if smallest < 1:
        raise fail(f"a supercell of at least {smallest} atoms", "a positive number")
    cell, n = np.asarray(primitive.cell, float), len(primitive)
    largest = max(largest, smallest, n)
    most = largest // n
    candidates = {}
    for P in _supercell_candidates(primitive, most):
        copies = round(np.linalg.det(P))
        if copies * n >= smallest and copies <= most:
            candidates[P.tobytes()] = P
    if not candidates:  # a primitive cell of between largest/2 and `smallest` atoms
        copies = -(-smallest // n)
        return np.diag([1, 1, copies]) if copies > 1 else np.eye(3, dtype=int)

    tried = np.array(list(candidates.values()))
    copies = np.rint(np.linalg.det(tried)).astype(int)
    edges = tried @ cell
    metric = edges @ np.swapaxes(edges, 1, 2)
    size = np.linalg.det(metric)[:, None, None] ** (1 / 3)
    uneven = np.linalg.norm(metric / size - np.eye(3), axis=(1, 2))
    turned = tried[:, None] @ np.swapaxes(group.rotations, 1, 2) @ np.linalg.inv(tried)[:, None]
    broken = np.abs(turned - np.rint(turned)).max(axis=(1, 2, 3)) > 1e-6
    scores = uneven + 0.5 * broken
    good = np.flatnonzero(scores <= scores.min() + 0.2)
    return tried[min(good, key=lambda k: (copies[k], scores[k].round(9), tried[k].tolist()))]


def _supercell_candidates(primitive: Structure, most: int):
    """Yield integer matrices of determinant 1 … most."""
    cell = np.asarray(primitive.cell, float)
    dataset = spglib.get_symmetry_dataset(_spglib_cell(primitive), symprec=1e-4)
    bases = [np.eye(3, dtype=int)]
    if dataset is not None:
        bases.append(np.rint(np.linalg.inv(dataset.transformation_matrix).T).astype(int))
    for basis in bases:
        size = abs(round(np.linalg.det(basis)))
        basis = basis * int(np.sign(round(np.linalg.det(basis))))
        top = most // max(size, 1)
        for a in range(1, top + 1):
            for b in range(1, top // a + 1):
                for c in range(1, top // (a * b) + 1):
                    yield np.diag([a, b, c]) @ basis
    edge = abs(np.linalg.det(cell)) ** (1 / 3)
    for length in np.linspace(edge, edge * most ** (1 / 3) * 1.05, 200):
        P = np.rint(length * np.linalg.inv(cell)).astype(int)
        if 1 <= round(np.linalg.det(P)) <= most:
            yield P


def symmetrized_tensors(tensors: np.ndarray, group: SpaceGroup) -> np.ndarray:
    """Return (atom, 3, 3) tensors averaged over the group: the star average of a reduced mesh."""
    total = np.zeros_like(tensors)
    for R, p in zip(group.rotations_cartesian, group.permutation, strict=True):
        total[p] += R @ tensors @ R.T
    return total / len(group)


def _spglib_cell(crystal: Structure) -> Any:
    """Return cell, fractional positions and kinds: one kind per (number, mass)."""
    pairs = np.stack([np.asarray(crystal.numbers, float), np.asarray(crystal.masses, float)], 1)
    _, kinds = np.unique(pairs, axis=0, return_inverse=True)
    return (
        np.asarray(crystal.cell, float),
        np.asarray(crystal.fractional, float),
        kinds.reshape(-1) + 1,
    )


def _match(arrived, fractional, kinds, cell) -> tuple[np.ndarray, np.ndarray]:
    """Return for each (op, atom) the atom it fell on and the cell of that atom."""
    permutation = np.empty(arrived.shape[:2], int)
    shifts = np.empty(arrived.shape, int)
    other_kind = np.where(kinds[:, None] == kinds, 0.0, np.inf)
    for op, f in enumerate(arrived):
        apart = f[:, None] - fractional  # (atom, candidate, 3)
        distance = np.linalg.norm((apart - np.rint(apart)) @ cell, axis=-1) + other_kind
        permutation[op] = distance.argmin(axis=1)
        shifts[op] = np.rint(f - fractional[permutation[op]])
    return permutation, shifts
