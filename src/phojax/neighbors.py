"""Periodic neighbour lists with explicit images, and the one gather and one scatter.

A pair is (i, j, L) with |r_j + L A - r_i| < cutoff, each ordered pair once; an atom sees its
own images. L is stored, nothing is wrapped, so cells of any size or shape are treated alike:
a 2-atom cell has the neighbours that its supercells have.

Potentials read what belongs to a neighbour with `gather` and add up what neighbours send with
`scatter`, both along `Links`. A link names a row and the periodic image in which that row is
meant. Padding is masked here, and here alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phojax.checks import check_finite, fail
from phojax.pytree import pytree
from phojax.structure import Structure


@pytree()
class Links:
    """References to rows of an array of per-cell things (atoms, bonds), some in other cells.

    Attributes:
        index: Row in the home cell; 0 for padding.
        image: Lattice vector of the cell in which that row is meant.
        mask: False for padding.
    """

    index: Int[Array, " link"]
    image: Int[Array, "link 3"]
    mask: Bool[Array, " link"]


def links(index: Int[Array, " link"], mask: Bool[Array, " link"], image=None) -> Links:
    """Return Links with the index of padding set to 0, by default into the home cell."""
    if image is None:
        image = jnp.zeros((*index.shape, 3), jnp.int32)
    return Links(jnp.where(mask, index, 0), jnp.where(mask[..., None], image, 0), mask)


def gather(values: Float[Array, "row *rest"], at: Links) -> Float[Array, "link *rest"]:
    """Return the row each link points to; the rows of padding are arbitrary but finite."""
    return values[at.index]


def scatter(
    messages: Float[Array, "link *rest"], at: Links, size: int
) -> Float[Array, "row *rest"]:
    """Return per row the sum of the messages of the links that point to it, padding left out."""
    mask = at.mask.reshape(at.mask.shape + (1,) * (messages.ndim - 1))
    return jax.ops.segment_sum(jnp.where(mask, messages, 0), at.index, size)


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


class PairCapacity(NamedTuple):
    """Static sizes of a neighbour list.

    Attributes:
        images: Along each lattice vector L runs from -images to +images around the image of
            the other atom that is the nearest in units of the lattice vectors.
        pairs: Number of rows.
    """

    images: tuple[int, int, int]
    pairs: int


def neighbor_list(crystal: Structure, cutoff: float, capacity: PairCapacity) -> Neighbors:
    """Return all pairs closer than `cutoff` (Å); traceable, O(atoms² · images).

    Not differentiable and need not be: which pairs there are is piecewise constant. Where the
    capacity does not hold, `overflow` is set and the list must not be used.
    """
    x, cell = jax.lax.stop_gradient((crystal.positions, crystal.cell))
    shifts = jnp.asarray(_image_grid(capacity.images), jnp.int32)
    # Relative to the nearest image few cells are in reach, wherever the atoms have moved to.
    nearest = _nearest_images(jnp, x, x, jnp.linalg.inv(cell))
    apart = x - x[:, None] + nearest @ cell
    apart = apart[:, None] + (shifts.astype(x.dtype) @ cell)[:, None]  # i L j
    squared = jnp.sum(apart**2, axis=-1)
    real = crystal.numbers > 0
    self_pair = jnp.eye(len(x), dtype=bool)[:, None] & jnp.all(shifts == 0, axis=1)[:, None]
    close = (squared < cutoff**2) & real[:, None, None] & real & ~self_pair
    (flat,) = jnp.nonzero(close.reshape(-1), size=capacity.pairs, fill_value=-1)
    mask = flat >= 0
    i, L, j = jnp.unravel_index(jnp.where(mask, flat, 0), close.shape)
    # A cell bent so far that more images are in reach makes the list incomplete.
    reach = jnp.asarray(capacity.images, x.dtype) + 0.0
    wanted = _images_in_reach(jnp, cell, cutoff)
    # A position that is not a number has no pairs: its atom would vanish without a word.
    known = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(cell))
    overflow = (jnp.sum(close) > capacity.pairs) | jnp.any(wanted > reach) | ~known
    return Neighbors(
        links(i.astype(jnp.int32), mask),
        links(j.astype(jnp.int32), mask, shifts[L] + nearest[i, j].astype(jnp.int32)),
        overflow,
        cutoff,
    )


def pair_capacity(crystal: Structure, cutoff: float, margin: float = 1.1) -> PairCapacity:
    """Return sizes that hold for this concrete crystal and for slightly changed ones.

    Args:
        crystal: Concrete (not traced).
        cutoff: Å.
        margin: Factor of room on the number of pairs, which is then rounded up to few sizes so
            that few shapes are compiled.

    Raises:
        InputError: a cutoff that is not positive, positions or a cell that are not finite, or
            a cutoff that reaches over absurdly many cells.
    """
    counts = neighbor_counts(crystal, cutoff)
    # Room for a strain of some per cent before the images run out.
    reach = _images_in_reach(np, np.asarray(crystal.cell, float), cutoff * 1.05)
    images = (int(reach[0]), int(reach[1]), int(reach[2]))
    return PairCapacity(images, bucket(int(counts.sum()) * margin))


def neighbor_counts(crystal: Structure, cutoff: float) -> Int[np.ndarray, " atom"]:
    """Return how many neighbours each atom of a concrete crystal has within `cutoff` (Å).

    Raises:
        InputError: as `pair_capacity`.
    """
    if not cutoff > 0:
        raise fail(f"cutoff {cutoff} Å", "a positive length")
    check_finite("positions", crystal.positions)
    check_finite("cell", crystal.cell)
    x, cell = np.asarray(crystal.positions, float), np.asarray(crystal.cell, float)
    real = np.asarray(crystal.numbers) > 0
    reach = _images_in_reach(np, cell, cutoff * 1.05)
    if np.prod(2 * reach + 1) > 1e6:
        raise fail(
            f"a cutoff of {cutoff} Å reaches over {reach.astype(int).tolist()} cells",
            "at most about 50 along each vector",
            "Check the lattice vectors and their unit",
        )
    shifts = _image_grid(tuple(reach.astype(int).tolist())) @ cell
    counts, inverse = np.zeros(len(x), int), np.linalg.inv(cell)
    for i in np.flatnonzero(real):  # one centre at a time bounds the memory
        nearest = _nearest_images(np, x[i][None], x[real], inverse)[0]
        apart = x[real] - x[i] + nearest @ cell + shifts[:, None]
        counts[i] = np.count_nonzero(np.sum(apart**2, axis=-1) < cutoff**2) - 1
    return counts


def bucket(count: float, smallest: int = 32) -> int:
    """Return the next of the sizes 32, 40, 48, 56, 64, 80, … (four to an octave)."""
    size = smallest
    while size < count:
        step = 2 ** (int(np.log2(size)) - 2)
        size += step
    return size


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


def _image_grid(images: tuple[int, int, int]) -> np.ndarray:
    axes = [np.arange(-n, n + 1) for n in images]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _nearest_images(xp, centers, others, inverse):
    """Return (i, j, xyz) whole numbers L that bring r_j + L A within half a cell of r_i."""
    return -xp.round((others @ inverse) - (centers @ inverse)[:, None])


def _images_in_reach(xp, cell, cutoff):
    """Return how many cells from the nearest image a neighbour can be, per lattice vector."""
    planes_apart = 1 / xp.sqrt(xp.sum(xp.linalg.inv(cell) ** 2, axis=0))
    return xp.floor(cutoff / planes_apart + 0.5 + 1e-9)
