"""The graph of CHGNet: atoms, bonds, and angles.

Everything lives in the cell of one of its atoms, and is referred to from elsewhere by a row and
an image, the lattice vector of the cell in which that row is meant:

    bond    (a, b, M)  atoms a at home and b in cell M; one of the two directions of a pair
    pair    the bond in the home cell as seen from a, or the bond in cell -M as seen from b, which
            is then at home
    angle   (p, p')    ordered, p ≠ p', two near pairs of one centre, where it lives; it refers
                       to the bonds of p and p' with the images that the pairs refer with

Bonds reach to 6 Å and are in two lists: those below 3 Å, near ones, form angles, and the others
do not. What crosses 3 Å has no weight in angles, with two derivatives, so the lists do not matter.
A thing moved by a lattice vector refers to the things moved by it, which is all that a Bloch
phase needs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phojax.neighbors import (
    Links,
    Neighbors,
    PairCapacity,
    bucket,
    links,
    neighbor_counts,
    neighbor_list,
    pair_capacity,
    separation_components,
)
from phojax.pytree import pytree
from phojax.structure import Structure

CUTOFF = 6.0
"""Reach of the bonds in Å."""

NEAR = 3.0
"""Reach of the near bonds, which form angles, in Å."""


class Capacity(NamedTuple):
    """Static sizes of a graph.

    Attributes:
        pairs: Of the neighbour list.
        near: Bonds below 3 Å.
        far: The other bonds.
        angles: Ordered.
    """

    pairs: PairCapacity
    near: int
    far: int
    angles: int


@pytree()
class Graph:
    """See the module's header.

    Attributes:
        near: Near bonds: centers to a, others to b in its image.
        far: The other bonds, likewise.
        angle_centers: From each angle to its atom.
        angle_first: From each angle to the near bond that it informs.
        angle_second: From each angle to the other near bond.
        angle_sign: +1 where both bonds run from the centre or both to it, else -1.
        overflow: True where a capacity was too small: the graph is then incomplete.
    """

    near: Neighbors
    far: Neighbors
    angle_centers: Links
    angle_first: Links
    angle_second: Links
    angle_sign: Float[Array, " angle"]
    overflow: Bool[Array, ""]


def bond_graph(crystal: Structure, capacity: Capacity) -> Graph:
    """Return the graph of a structure, with fixed sizes; traceable, not differentiable."""
    crystal = jax.lax.stop_gradient(crystal)
    found = neighbor_list(crystal, CUTOFF, capacity.pairs)
    once = _one_direction(found)
    squared = sum(x**2 for x in separation_components(crystal, found))
    is_near = squared < NEAR**2
    near = _chosen(found, once & is_near, capacity.near)
    far = _chosen(found, once & ~is_near, capacity.far)
    first, second, sign, centers, count = _angles(near, len(crystal), capacity.angles)
    return Graph(
        near,
        far,
        centers,
        first,
        second,
        sign.astype(crystal.positions.dtype),
        found.overflow | near.overflow | far.overflow | (count > capacity.angles),
    )


def graph_capacity(crystal: Structure, margin: float = 1.1) -> Capacity:
    """Return sizes that hold for this concrete crystal and for slightly changed ones."""
    every, near = neighbor_counts(crystal, CUTOFF), neighbor_counts(crystal, NEAR)
    return Capacity(
        pair_capacity(crystal, CUTOFF, margin),
        bucket(near.sum() / 2 * margin),
        bucket((every - near).sum() / 2 * (1 + margin) / 2),  # so many change little
        bucket((near * (near - 1)).sum() * margin),
    )


def _one_direction(found: Neighbors) -> Bool[Array, " pair"]:
    """Return which rows have i < j, or i = j with the first component of L ≠ 0 positive."""
    i, j, L = found.centers.index, found.others.index, found.others.image
    leading = jnp.where(L[:, 0] != 0, L[:, 0], jnp.where(L[:, 1] != 0, L[:, 1], L[:, 2]))
    return found.mask & ((i < j) | ((i == j) & (leading > 0)))


def _chosen(found: Neighbors, which: Bool[Array, " pair"], size: int) -> Neighbors:
    """Return these rows of a list, in a list of this size."""
    (rows,) = jnp.nonzero(which, size=size, fill_value=-1)
    mask = rows >= 0
    i, j = found.centers.index[rows], found.others.index[rows]
    return Neighbors(
        links(i, mask),
        links(j, mask, found.others.image[rows]),
        jnp.sum(which) > size,
        found.cutoff,
    )


def _angles(near: Neighbors, atoms: int, size: int):
    """Return the links of all ordered pairs of near pairs that share their centre."""
    a, b, M = near.centers.index, near.others.index, near.others.image
    bond = links(jnp.arange(len(a), dtype=jnp.int32), near.mask)
    # First all bonds as seen from a, then all as seen from b.
    pair_bond = jax.tree.map(
        lambda forth, back: jnp.concatenate([forth, back]),
        bond,
        links(bond.index, near.mask, -M),
    )
    sign = jnp.repeat(jnp.array([1, -1]), len(a), total_repeat_length=2 * len(a))
    center = jnp.where(pair_bond.mask, jnp.concatenate([a, b]), atoms)

    # Pairs of one centre side by side; then pair p has as many angles as its centre has others.
    order = jnp.argsort(center)
    center = center[order]
    degree = jnp.zeros(atoms + 1, jnp.int32).at[center].add(1).at[atoms].set(0)
    start = jnp.cumsum(degree) - degree
    angles = jnp.maximum(degree[center] - 1, 0)
    end = jnp.cumsum(angles)
    which = jnp.arange(size, dtype=jnp.int32)
    p = jnp.minimum(jnp.searchsorted(end, which, side="right"), len(end) - 1)
    begin = start[center[p]]
    k = which - (end - angles)[p]
    partner = jnp.clip(begin + k + (k >= p - begin), 0, len(end) - 1)
    mask = which < end[-1]

    def refer(pair):
        row = order[pair]
        return links(pair_bond.index[row], mask, pair_bond.image[row]), sign[row]

    (first, s1), (second, s2) = refer(p), refer(partner)
    return first, second, jnp.where(mask, s1 * s2, 1), links(center[p], mask), end[-1]


__all__ = ["CUTOFF", "NEAR", "Capacity", "Graph", "bond_graph", "graph_capacity"]
