"""Periodic neighbour lists with explicit images, and the one gather and one scatter.

A pair is (i, j, L) with |r_j + L A - r_i| < cutoff, each ordered pair once; an atom sees its
own images. L is stored, nothing is wrapped, so cells of any size or shape are treated alike:
a 2-atom cell has the neighbours that its supercells have.

Potentials read what belongs to a neighbour with `gather` and add up what neighbours send with
`scatter`, both along `Links`. A link names a row and the periodic image in which that row is
meant. Padding is masked here, and here alone.

A list has its pairs one after the other, or as a table: as many rows for every centre, padding
among them. In a table what belongs to a centre is repeated and added up without indices, which
is several times as fast where most atoms have about as many neighbours.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phojax.bloch_waves import OF_ENERGY, Order, gathered_wave, scattered_wave
from phojax.capacities import (
    PairCapacity,
    bucket,
    grown,
    largest,
    neighbor_counts,
    pair_capacity,
)
from phojax.neighbor_search import Room, found_by_bins, found_by_images
from phojax.pytree import pytree
from phojax.structure import Structure


@pytree(static=("each", "order"))
class Links:
    """References to rows of an array of per-cell things (atoms, bonds), some in other cells.

    Attributes:
        index: Row in the home cell; 0 for padding.
        image: Lattice vector of the cell in which that row is meant.
        mask: False for padding.
        each: Where not 0: there are this many links to row 0, then as many to row 1, and so on
            to the last row (static).
        phase: 2π q·image where tangents are Bloch waves (see `bloch`); None elsewhere.
        order: Which derivatives of what is made with them are waves (see `bloch_waves`; static).
    """

    index: Int[Array, " link"]
    image: Int[Array, "link 3"]
    mask: Bool[Array, " link"]
    each: int = 0
    phase: Float[Array, " link"] | None = None
    order: Order = OF_ENERGY

    def carrying(
        self, q: Float[Array, "3"], toward: Float[Array, "3"], order: Order = OF_ENERGY
    ) -> "Links":
        """Return the links along which tangents are Bloch waves of q (fractional)."""
        phase = 2 * jnp.pi * (self.image.astype(q.dtype) @ q)
        return Links(self.index, self.image, self.mask, self.each, phase, order)


def links(index: Int[Array, " link"], mask: Bool[Array, " link"], image=None) -> Links:
    """Return Links with the index of padding set to 0, by default into the home cell."""
    if image is None:
        image = jnp.zeros((*index.shape, 3), jnp.int32)
    return Links(jnp.where(mask, index, 0), jnp.where(mask[..., None], image, 0), mask)


def carrying(
    graph: Any, q: Float[Array, "3"], toward: Float[Array, "3"], order: Order = OF_ENERGY
) -> Any:
    """Return a graph whose second derivatives are those of Bloch waves (see `bloch_waves`).

    Args:
        graph: Of a potential: any pytree. Parts of it that have a method `carrying` are asked.
        q: Fractional.
        toward: At q = 0, from where Γ is approached, fractional; zeros for nowhere.
        order: Which derivatives are the waves: the second ones, of an energy, the first ones, of
            predicted forces, or both.
    """

    def asked(part):
        return hasattr(part, "carrying")

    return jax.tree.map(
        lambda part: part.carrying(q, toward, order) if asked(part) else part, graph, is_leaf=asked
    )


def gather(values: Float[Array, "row *rest"], at: Links) -> Float[Array, "link *rest"]:
    """Return the row each link points to; the rows of padding are arbitrary but finite."""
    if at.each:
        repeated = jnp.broadcast_to(values[:, None], (len(values), at.each, *values.shape[1:]))
        return repeated.reshape(-1, *values.shape[1:])
    if at.phase is not None:
        return gathered_wave(values, at.index, at.phase, at.order)
    return values[at.index]


def scatter(
    messages: Float[Array, "link *rest"], at: Links, size: int
) -> Float[Array, "row *rest"]:
    """Return per row the sum of the messages of the links that point to it, padding left out."""
    mask = at.mask.reshape(at.mask.shape + (1,) * (messages.ndim - 1))
    kept = jnp.where(mask, messages, 0)
    if at.each:
        return jnp.sum(kept.reshape(size, at.each, *kept.shape[1:]), axis=1)
    if at.phase is not None:
        return scattered_wave(kept, at.index, at.phase, size, at.order)
    return jax.ops.segment_sum(kept, at.index, size)


@pytree(static=("cutoff",))
class Neighbors:
    """Ordered pairs (i, j, L), those of one centre i standing together.

    Attributes:
        centers: Links to i, in the home cell.
        others: Links to j, in the image L.
        overflow: True where the capacity or the images were too few, or a position is not finite:
            the list is then incomplete.
        cutoff: Å (static).
    """

    centers: Links
    others: Links
    overflow: Bool[Array, ""]
    cutoff: float

    @property
    def mask(self) -> Bool[Array, " pair"]:
        """False for padding."""
        return self.others.mask


@functools.partial(jax.jit, static_argnames=("cutoff", "capacity"))
def neighbor_list(crystal: Structure, cutoff: float, capacity: PairCapacity) -> Neighbors:
    """Return all pairs closer than `cutoff` (Å); traceable, O(atoms) where there are bins.

    Not differentiable and need not be: which pairs there are is piecewise constant. Where the
    capacity does not hold, `overflow` is set and the list must not be used.
    """
    x, cell = jax.lax.stop_gradient((crystal.positions, crystal.cell))
    real = crystal.numbers > 0
    room = Room(capacity.pairs, capacity.each)
    if any(capacity.bins):
        bins, reach, origin = capacity.bins, capacity.reach, capacity.origin
        found = found_by_bins(x, cell, real, cutoff, bins, reach, origin, capacity.per_bin, room)
    else:
        found = found_by_images(x, cell, real, cutoff, capacity.images, room)
    # A position that is not a number has no pairs: its atom would vanish without a word.
    known = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(cell))
    home, others = links(found.centers, found.mask), links(found.others, found.mask, found.images)
    if capacity.each:
        # Rows of padding keep their centre: the table stays regular.
        home = Links(found.centers, home.image, found.mask, capacity.each)
    return Neighbors(home, others, found.overflow | ~known, cutoff)


def separations(crystal: Structure, neighbors: Neighbors) -> Float[Array, "pair 3"]:
    """Return r_j + L A - r_i in Å; (2 cutoff, 0, 0) for padding.

    Differentiable in positions and cell.
    """
    images = neighbors.others.image.astype(crystal.cell.dtype)
    apart = (
        gather(crystal.positions, neighbors.others)
        - gather(crystal.positions, neighbors.centers)
        + images @ crystal.cell
    )
    far = jnp.zeros(3, apart.dtype).at[0].set(2 * neighbors.cutoff)
    return jnp.where(neighbors.mask[:, None], apart, far)


def separation_components(crystal: Structure, neighbors: Neighbors) -> list[Float[Array, " pair"]]:
    """Return x, y and z of `separations`: three arrays side by side are the fastest to work on."""
    images = neighbors.others.image.astype(crystal.cell.dtype)
    apart = []
    for axis, x in enumerate(crystal.positions.T):
        moved = sum(images[:, k] * crystal.cell[k, axis] for k in range(3))
        both = gather(x, neighbors.others) - gather(x, neighbors.centers) + moved
        apart.append(jnp.where(neighbors.mask, both, 0 if axis else 2 * neighbors.cutoff))
    return apart


__all__ = [
    "Links",
    "Neighbors",
    "PairCapacity",
    "bucket",
    "carrying",
    "gather",
    "grown",
    "largest",
    "links",
    "neighbor_counts",
    "neighbor_list",
    "pair_capacity",
    "scatter",
    "separation_components",
    "separations",
]
