"""Which displacements of which atoms determine all force constants, by symmetry.

The row Φ(a, ·) of an atom a is known once v_d(c) = dᵀ Φ(a, c) is known for directions d whose
images R d under the site group of a span space: an operation g of that group gives

    (R d)ᵀ Φ(a, g c) = v_d(c) Rᵀ                                              (1)

All such equations are solved together by least squares, which averages over the site group.
Rows of equivalent atoms follow from Φ(g a, g c) = R Φ(a, c) Rᵀ.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.force_constants.sum_rules import arrival_columns, preserving
from phojax.structure import Supercell
from phojax.symmetry import SpaceGroup

Values = Array | np.ndarray


@dataclass(frozen=True)
class Displacements:
    """Independent displacements of a crystal and the map from their responses to Φ.

    Attributes:
        atoms: (row,) primitive atom displaced.
        directions: (row, 3) Cartesian unit vectors.
        group: The operations used: those that leave the supercell lattice whole.
        supercell: Where Φ lives.
    """

    atoms: np.ndarray
    directions: np.ndarray
    group: SpaceGroup
    supercell: Supercell

    def __len__(self) -> int:
        return len(self.atoms)


def independent_displacements(supercell: Supercell, group: SpaceGroup) -> Displacements:
    """Return the fewest displacements (by greedy choice) that determine Φ on this supercell.

    Args:
        supercell: Its primitive cell must have the group exactly (`symmetry.symmetrized`).
        group: Of the primitive cell.
    """
    group = preserving(group, supercell)
    atoms, directions = [], []
    for a in np.unique(group.orbits):
        chosen = spanning_directions(group.rotations_cartesian[group.permutation[:, a] == a])
        atoms += [a] * len(chosen)
        directions += chosen
    return Displacements(np.array(atoms), np.array(directions), group, supercell)


def all_displacements(supercell: Supercell, group: SpaceGroup) -> Displacements:
    """Return the three Cartesian displacements of every primitive atom: no use of symmetry."""
    n = len(supercell.primitive)
    identity = np.array(
        [np.array_equal(W, np.eye(3)) and np.array_equal(p, np.arange(n))
         for W, p in zip(group.rotations, group.permutation, strict=True)]
    )  # fmt: skip
    return Displacements(
        np.repeat(np.arange(n), 3), np.tile(np.eye(3), (n, 1)), group.subset(identity), supercell
    )


def from_responses(
    displacements: Displacements, responses: Float[Values, "row jL 3"]
) -> Float[Values, "i jL 3 3"]:
    """Return Φ (eV/Å²) from dᵀ Φ(a, ·) of every displacement; linear, hence differentiable.

    Arrays of numpy stay such: nothing is compiled for a shape that occurs once.
    """
    xp: Any = np if isinstance(responses, np.ndarray) else jnp
    group = displacements.group
    n, atoms = len(displacements.supercell.primitive), responses.shape[1]
    columns = arrival_columns(group, displacements.supercell)
    values = xp.zeros((n, atoms, 3, 3), responses.dtype)
    for a in np.unique(displacements.atoms):
        mine = np.flatnonzero(displacements.atoms == a)
        d = displacements.directions[mine]
        site = np.flatnonzero(group.permutation[:, a] == a)
        R = group.rotations_cartesian[site]
        turned = np.einsum("gab,db->gda", R, d).reshape(-1, 3)
        solve = np.linalg.pinv(turned).reshape(3, len(site), len(mine))
        moved = xp.einsum("agd,dcb,geb->gcae", solve, responses[mine], R, optimize=True)
        row = _added(xp.zeros((atoms, 3, 3), responses.dtype), columns[site, a], moved)
        # One operation that takes a to each equivalent atom b.
        reached, first = np.unique(group.permutation[:, a], return_index=True)
        R = group.rotations_cartesian[first]
        copied = xp.einsum("gab,cbd,ged->gcae", R, row, R, optimize=True)
        values = _set(values, (reached[:, None], columns[first, a]), copied)
    return values


def _added(values, index, new):
    if isinstance(values, np.ndarray):
        np.add.at(values, index, new)
        return values
    return values.at[index].add(new)


def _set(values, index, new):
    if isinstance(values, np.ndarray):
        values[index] = new
        return values
    return values.at[index].set(new)


CANDIDATES = [
    np.array(d) / np.linalg.norm(d)
    for d in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 0),
              (1, 0, -1), (0, 1, -1), (1, 1, 1), (1, 2, 3), (3, 1, -2), (2, -3, 1)]
]  # fmt: skip
"""Directions that displacements are chosen from, Cartesian unit vectors."""


def _singular_values(site: np.ndarray, chosen: list[np.ndarray]) -> np.ndarray:
    if not chosen:
        return np.zeros(3)
    turned = np.concatenate([np.array(chosen) @ R.T for R in site])
    return np.linalg.svd(turned / np.sqrt(len(turned)), compute_uv=False)[:3]


def spanning_directions(site: np.ndarray) -> list[np.ndarray]:
    """Return few directions that span space with their images under a site group (op, 3, 3)."""
    chosen: list[np.ndarray] = []
    while smallest_span(site, chosen) < 1e-2:
        chosen.append(max(CANDIDATES, key=lambda d: _span_score(site, [*chosen, d])))
    return chosen


def smallest_span(site: np.ndarray, chosen: list[np.ndarray]) -> float:
    """Return how well directions and their images under a site group (op, 3, 3) span space.

    The smallest singular value of all of them: 0 where they do not.
    """
    values = _singular_values(site, chosen)
    return float(values[2]) if len(values) == 3 else 0.0


def _span_score(site: np.ndarray, chosen: list[np.ndarray]) -> tuple[int, float]:
    """Score a choice: rank first, then conditioning (rounded, so that simple directions win)."""
    values = _singular_values(site, chosen)
    rank = int(np.sum(values > 1e-2))
    return rank, round(float(values[rank - 1]) if rank else 0.0, 2)
