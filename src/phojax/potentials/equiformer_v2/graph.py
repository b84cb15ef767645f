"""The edges of EquiformerV2: the nearest neighbours of each atom, and the frames of edges.

Of the atoms within the radius, an atom i has edges from those with

    d² <= d²_(K+1) + 0.01 Å²                                                                 (1)

where d_(K+1) is the distance of its (K+1)-th neighbour, K = max_neighbors; from all where there
are K or fewer; from the K nearest alone where that is enforced strictly (which of equally distant
ones is then arbitrary, here and in the official code). There is no envelope: as atoms move,
edges come and go with a jump. A derivative is one at a given graph, which is held; a difference
with graphs made anew is another number.

Edges are a table, as many rows for every atom, the nearest first.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phojax.neighbors import (
    Links,
    Neighbors,
    PairCapacity,
    links,
    neighbor_list,
    pair_capacity,
    separations,
)
from phojax.potentials.equiformer_v2.rotations import carried_frames, frames
from phojax.potentials.equiformer_v2.weights import Architecture
from phojax.pytree import pytree
from phojax.structure import Structure

_EQUAL = 0.01  # Å²


class Capacity(NamedTuple):
    """Static sizes: of the list of pairs within the radius, and the rows of an atom."""

    pairs: PairCapacity
    rows: int

    def grown(self, factor: float) -> "Capacity":
        """Return sizes with room for `factor` times as many neighbours."""
        return Capacity(self.pairs.grown(factor), _even(max(self.rows * factor, self.rows + 1)))


@pytree()
class Graph:
    """Edges and their frames: what is held in a derivative.

    Attributes:
        neighbors: The edges, a table.
        directions: Unit vectors from i to j at which the frames were made.
        frames: Rotations R into the frame of the edge at those directions, R n = y.
    """

    neighbors: Neighbors
    directions: Float[Array, "edge 3"]
    frames: Float[Array, "edge 3 3"]

    @property
    def overflow(self) -> Bool[Array, ""]:
        """True where the capacity did not hold: edges are then missing."""
        return self.neighbors.overflow

    @property
    def rows(self) -> int:
        """Rows of an atom."""
        return self.neighbors.centers.each

    def edges(self, crystal: Structure) -> tuple[Any, Any, Any]:
        """Return lengths (Å), directions and frames of the edges of a crystal near by.

        Lengths and directions are differentiable; frames are carried along, and held.
        """
        vectors = separations(crystal, self.neighbors)
        lengths = jnp.linalg.norm(vectors, axis=-1)
        n = vectors / lengths[:, None]
        frames, start = self.frames.astype(n.dtype), self.directions.astype(n.dtype)
        return lengths, n, carried_frames(frames, start, n)


def edge_table(
    architecture: Architecture, gauge: int, crystal: Structure, capacity: Capacity
) -> Graph:
    """Return the edges of a crystal by the rule (1); traceable.

    `overflow` is set where the list or the rows of an atom do not hold.
    """
    crystal = jax.lax.stop_gradient(crystal)
    most, rows, atoms = architecture.neighbors, capacity.rows, len(crystal)
    pairs = neighbor_list(crystal, architecture.radius, capacity.pairs)
    squares = jnp.sum(separations(crystal, pairs) ** 2, axis=-1)
    squares = jnp.where(pairs.mask, squares, jnp.inf)
    # Padding belongs to atom number `atoms`, behind all others.
    centers = jnp.where(pairs.mask, pairs.centers.index, atoms)
    order = jnp.lexsort((squares, centers))
    squares, centers = squares[order], centers[order]
    first = jnp.searchsorted(centers, jnp.arange(atoms + 1, dtype=centers.dtype))
    first, count = first[:-1], jnp.diff(first)

    def of_rank(rank):
        at = jnp.minimum(first + rank, len(squares) - 1)
        return jnp.where(rank < count, squares[at], jnp.inf)

    limit = of_rank(most) + _EQUAL
    rank = jnp.arange(rows)
    at = jnp.minimum(first[:, None] + rank, len(squares) - 1)
    mask = (rank < count[:, None]) & (squares[at] <= limit[:, None])
    if architecture.strict:
        mask &= rank < most
        more = jnp.minimum(count, most) > rows
    else:
        more = (rows < count) & (of_rank(rows) <= limit)
    mask, at = mask.reshape(-1), order[at.reshape(-1)]
    index = jnp.repeat(jnp.arange(atoms, dtype=jnp.int32), rows)
    # Rows of padding keep their centre: the table stays regular.
    home = Links(index, jnp.zeros((len(index), 3), jnp.int32), jnp.ones_like(mask), rows)
    others = links(pairs.others.index[at], mask, pairs.others.image[at])
    overflow = pairs.overflow | jnp.any(more)
    neighbors = Neighbors(home, others, overflow, architecture.radius)
    vectors = separations(crystal, neighbors)
    n = vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return Graph(neighbors, n, frames(n, gauge))


def table_capacity(architecture: Architecture, crystal: Structure, margin: float = 1.1) -> Capacity:
    """Return sizes that hold for this concrete crystal and for slightly changed ones.

    Raises:
        InputError: as `neighbors.pair_capacity`.
    """
    pairs = pair_capacity(crystal, architecture.radius, margin)
    return Capacity(pairs, _even(_most_rows(architecture, crystal) + 1))


def _most_rows(architecture: Architecture, crystal: Structure) -> int:
    """Return how many edges an atom of a concrete crystal has at most."""
    most = architecture.neighbors
    x, cell = np.asarray(crystal.positions, float), np.asarray(crystal.cell, float)
    real = x[np.asarray(crystal.numbers) > 0]
    planes = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil(architecture.radius / planes + 1).astype(int)
    axes = [np.arange(-r, r + 1) for r in reach]
    shifts = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) @ cell
    inverse, counts = np.linalg.inv(cell), [0]
    for center in real:
        apart = real - center
        apart -= np.round(apart @ inverse) @ cell
        squares = np.sum((apart[:, None] + shifts) ** 2, axis=-1).ravel()
        squares = np.sort(squares[(squares > 1e-4) & (squares < architecture.radius**2)])
        if len(squares) <= most:
            counts.append(len(squares))
        else:
            within = int(np.count_nonzero(squares <= squares[most] + _EQUAL))
            counts.append(most if architecture.strict else within)
    return max(counts)


def _even(count: float) -> int:
    return max(4, 2 * math.ceil(count / 2))


__all__ = ["Capacity", "Graph", "edge_table", "table_capacity"]
