"""The graph of CHGNet: atoms, bonds, the two directions of each bond, and angles.

Everything lives in the cell of one of its atoms, and is referred to from elsewhere by a row and
an image, the lattice vector of the cell in which that row is meant:

    bond    (a, b, M)  atoms a at home and b in cell M; one of the two directions of a pair
    pair    (i, j, L)  lives with its centre i. It is the bond in the home cell if it runs from
                       a to b, and the bond in cell L = -M if it runs from b (at home) to a
    angle   (p, p')    ordered, p ≠ p', two near pairs of one centre, where it lives; it refers
                       to the bonds of p and p' with the images that the pairs refer with

Bonds reach to 6 Å, near bonds to 3 Å; angles join near bonds only. A thing moved by a lattice
vector refers to the things moved by it, which is all that a Bloch phase needs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phojax.neighbors import (
    Links,
    Neighbors,
    PairCapacity,
    bucket,
    links,
    neighbor_list,
    pair_capacity,
    separations,
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
        bonds: Undirected bonds.
        near: Those of them below 3 Å.
        angles: Ordered.
    """

    pairs: PairCapacity
    bonds: int
    near: int
    angles: int


@pytree()
class Graph:
    """See the module's header.

    Attributes:
        bonds: Each pair of neighbours once: centers to a, others to b in its image.
        centers: From each pair to its centre; first all bonds forth, then all bonds back.
        others: From each pair to its other atom.
        pair_bonds: From each pair to its bond.
        near: From each near bond to the bond that it is.
        angle_centers: From each angle to its atom.
        angle_first: From each angle to the near bond that it informs.
        angle_second: From each angle to the other near bond.
        angle_sign: +1 where both bonds run from the centre or both to it, else -1.
        overflow: True where a capacity was too small: the graph is then incomplete.
    """

    bonds: Neighbors
    centers: Links
    others: Links
    pair_bonds: Links
    near: Links
    angle_centers: Links
    angle_first: Links
    angle_second: Links
    angle_sign: Float[Array, " angle"]
    overflow: Bool[Array, ""]


def bond_graph(crystal: Structure, capacity: Capacity) -> Graph:
    """Return the graph of a structure, with fixed sizes; traceable, not differentiable."""
    crystal = jax.lax.stop_gradient(crystal)
    found = neighbor_list(crystal, CUTOFF, capacity.pairs)
    bonds, many_bonds = _one_direction(found, capacity.bonds)
    home = links(jnp.arange(capacity.bonds, dtype=jnp.int32), bonds.mask)
    vectors = separations(crystal, bonds)
    is_near = bonds.mask & (jnp.sum(vectors**2, axis=-1) < NEAR**2)
    (rows,) = jnp.nonzero(is_near, size=capacity.near, fill_value=-1)
    near = links(rows.astype(jnp.int32), rows >= 0)
    back = -bonds.others.image
    first, second, sign, centers, count = _angles(bonds, near, len(crystal), capacity.angles)
    return Graph(
        bonds,
        _both(bonds.centers, links(bonds.others.index, bonds.mask)),
        _both(bonds.others, links(bonds.centers.index, bonds.mask, back)),
        _both(home, links(home.index, bonds.mask, back)),
        near,
        centers,
        first,
        second,
        sign.astype(crystal.positions.dtype),
        found.overflow
        | many_bonds
        | (jnp.sum(is_near) > capacity.near)
        | (count > capacity.angles),
    )


def graph_capacity(crystal: Structure, margin: float = 1.1) -> Capacity:
    """Return sizes that hold for this concrete crystal and for slightly changed ones."""
    pairs = pair_capacity(crystal, CUTOFF, margin)
    listed = jax.jit(neighbor_list, static_argnums=(1, 2))
    near = listed(crystal, NEAR, pair_capacity(crystal, NEAR * 1.05))
    per_atom = np.bincount(
        np.asarray(near.centers.index)[np.asarray(near.mask)], minlength=len(crystal)
    )
    return Capacity(
        pairs,
        bucket(pairs.pairs / 2),
        bucket(per_atom.sum() / 2 * margin),
        bucket((per_atom * (per_atom - 1)).sum() * margin**2),
    )


def _one_direction(found: Neighbors, size: int) -> tuple[Neighbors, Bool[Array, ""]]:
    """Return each pair once: i < j, or i = j with the first component of L ≠ 0 positive."""
    i, j, L = found.centers.index, found.others.index, found.others.image
    leading = jnp.where(L[:, 0] != 0, L[:, 0], jnp.where(L[:, 1] != 0, L[:, 1], L[:, 2]))
    kept = found.mask & ((i < j) | ((i == j) & (leading > 0)))
    (rows,) = jnp.nonzero(kept, size=size, fill_value=-1)
    mask = rows >= 0
    overflow = jnp.sum(kept) > size
    once = Neighbors(links(i[rows], mask), links(j[rows], mask, L[rows]), overflow, found.cutoff)
    return once, overflow


def _angles(bonds: Neighbors, near: Links, atoms: int, size: int):
    """Return the links of all ordered pairs of near pairs that share their centre."""
    a, b, M = bonds.centers.index[near.index], bonds.others.index, bonds.others.image
    bond = links(jnp.arange(len(near.index), dtype=jnp.int32), near.mask)
    pair_bond = _both(bond, links(bond.index, near.mask, -M[near.index]))
    sign = jnp.repeat(jnp.array([1, -1]), len(near.index), total_repeat_length=2 * len(a))
    center = jnp.where(pair_bond.mask, jnp.concatenate([a, b[near.index]]), atoms)

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


def _both(forth: Links, back: Links) -> Links:
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), forth, back)


__all__ = ["CUTOFF", "NEAR", "Capacity", "Graph", "bond_graph", "graph_capacity"]
