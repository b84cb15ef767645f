"""Neighbours in a table: as many rows for every atom, padding among them.

The pairs of atom i are the rows i·k … i·k + k - 1 for a fixed k. What the neighbours of an atom
send can then be multiplied and added up by one matrix product per atom.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from phojax.neighbors import (
    Neighbors,
    PairCapacity,
    links,
    neighbor_counts,
    neighbor_list,
    pair_capacity,
)
from phojax.structure import Structure


class Capacity(NamedTuple):
    """Static sizes: of the list of pairs, and k, the rows of an atom."""

    pairs: PairCapacity
    rows: int

    def grown(self, factor: float) -> "Capacity":
        """Return sizes with room for `factor` times as many neighbours."""
        return Capacity(
            self.pairs.grown(factor), _whole_fours(max(self.rows * factor, self.rows + 1))
        )


def neighbor_table(cutoff: float, crystal: Structure, capacity: Capacity) -> Neighbors:
    """Return all pairs closer than `cutoff` (Å), k rows to an atom; traceable.

    `overflow` is set where the list or the rows of an atom do not hold.
    """
    pairs = neighbor_list(crystal, cutoff, capacity.pairs)
    atoms, rows = len(crystal), capacity.rows
    # Padding stands last in the list; as atom number `atoms` it keeps the list sorted.
    centers = jnp.where(pairs.mask, pairs.centers.index, atoms)
    first = jnp.searchsorted(centers, jnp.arange(atoms + 1, dtype=centers.dtype))
    at = (first[:-1, None] + jnp.arange(rows)).reshape(-1)
    mask = at < jnp.repeat(first[1:], rows)
    at = jnp.where(mask, at, 0)
    others = links(pairs.others.index[at], mask, pairs.others.image[at])
    overflow = pairs.overflow | jnp.any(jnp.diff(first) > rows)
    index = jnp.repeat(jnp.arange(atoms, dtype=jnp.int32), rows)
    # Rows of padding keep their centre: the table stays regular.
    return Neighbors(links(index, jnp.ones_like(mask)), others, overflow, cutoff)


def table_capacity(cutoff: float, crystal: Structure, margin: float = 1.1) -> Capacity:
    """Return sizes that hold for this concrete crystal and for slightly changed ones.

    Raises:
        InputError: as `neighbors.pair_capacity`.
    """
    pairs = pair_capacity(crystal, cutoff, margin)
    most = int(np.max(neighbor_counts(crystal, cutoff), initial=0))
    return Capacity(pairs, max(4, _whole_fours(int(most * margin))))


def _whole_fours(count: float) -> int:
    return 4 * math.ceil(count / 4)
