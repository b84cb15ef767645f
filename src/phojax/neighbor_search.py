"""Which pairs of atoms are close: every pair looked at, or those of nearby bins.

Both searches lay out candidates in a table, one row per centre, and mark the close ones.

- By images: all atoms j, each in the images around the one nearest to i.
- By bins: the cell is cut into n_a n_b n_c bins by fractional coordinates, from an origin such
  that planes of atoms do not lie on faces. Bin b meets the bins
  b + o for offsets o = -reach … reach along each vector; b + o lies in the cell floor((b + o)/n)
  as bin (b + o) mod n. Two atoms that are d apart, in a cell whose planes are h apart, lie at
  most ceil(n d / h) bins from each other, whatever n is: one bin to a thin cell is as exact as
  many to a thick one.

The marks are packed into words of 32 bits: with w words to a row, bit b of word k is about the
candidate b w + k. Which word and which bit of it an entry of the list is about then follows from
counts of bits, at a cost that grows with the words and not the marks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

_WORD = 32  # bits
# Of a bin: what rounding may do to the place of an atom.
_SLACK = 1e-3


class Found(NamedTuple):
    """Close pairs (i, j, L), row by row, and what did not fit."""

    centers: Int[Array, " pair"]
    others: Int[Array, " pair"]
    images: Int[Array, "pair 3"]
    mask: Bool[Array, " pair"]
    overflow: Bool[Array, ""]


class Room(NamedTuple):
    """Rows for all pairs, and for those of each centre where they form a table (else 0)."""

    all: int
    each: int


def found_by_images(
    x: Float[Array, "atom 3"],
    cell: Float[Array, "3 3"],
    real: Bool[Array, " atom"],
    cutoff: float,
    images: tuple[int, int, int],
    room: Room,
) -> Found:
    """Return the pairs closer than `cutoff` (Å); O(atoms² · images)."""
    atoms, shifts = len(x), image_grid(images)
    offsets = jnp.asarray(shifts, x.dtype) @ cell
    fractional = _kept(x @ jnp.linalg.inv(cell))
    others, places = _by_bits(x.T), _by_bits(fractional.T)
    limits = _by_bits(jnp.where(real, cutoff**2, 0).astype(x.dtype))
    width = limits.shape[-1]

    def close(bit):
        # Relative to the nearest image few cells are in reach, wherever the atoms have moved to.
        nearest = [jnp.round(fractional[:, k] - places[k, bit, :, None]) for k in range(3)]
        squared = jnp.zeros((), x.dtype)
        for axis in range(3):
            moved = sum((n * cell[k, axis] for k, n in enumerate(nearest)), jnp.zeros((), x.dtype))
            apart = others[axis, bit, :, None] - x[:, axis] + moved
            squared += (apart + offsets[:, axis, None, None]) ** 2  # L k i
        return squared < limits[bit, :, None]

    i = np.arange(atoms)
    words = jnp.moveaxis(_packed(close), -1, 0)
    own = (
        jnp.zeros_like(words)
        .at[i, len(shifts) // 2, i % width]
        .set(jnp.asarray(1 << (i // width), jnp.uint32))
    )
    words = jnp.where(real[:, None, None], words & ~own, 0)
    i, word, bit, mask, many = _entries(words.reshape(atoms, -1), room)
    L, k = word // width, word % width
    j = jnp.minimum(bit * width + k, atoms - 1)
    image = jnp.asarray(shifts, jnp.int32)[L]
    image += jnp.round(fractional[i] - fractional[j]).astype(jnp.int32)
    # A cell bent so far that more images are in reach makes the list incomplete.
    beyond = jnp.any(images_in_reach(jnp, cell, cutoff) > jnp.asarray(images))
    return Found(i, j, image, mask, many | beyond)


def found_by_bins(
    x: Float[Array, "atom 3"],
    cell: Float[Array, "3 3"],
    real: Bool[Array, " atom"],
    cutoff: float,
    bins: tuple[int, int, int],
    reach: tuple[int, int, int],
    origin: tuple[float, float, float],
    per_bin: int,
    room: Room,
) -> Found:
    """Return the pairs closer than `cutoff` (Å); O(atoms) at a given density."""
    count = int(np.prod(bins))
    near, crossed = _nearby_bins(bins, reach)
    fractional = _kept(x @ jnp.linalg.inv(cell) - jnp.asarray(origin, x.dtype))
    home = jnp.floor(fractional)
    place = (jnp.asarray(bins, x.dtype) * (fractional - home)).astype(jnp.int32)
    # Rounding may put an atom on the far face of the cell.
    place = jnp.clip(place, 0, jnp.asarray(bins) - 1)
    bin_of = jnp.where(real, (place[:, 0] * bins[1] + place[:, 1]) * bins[2] + place[:, 2], count)
    member, slot, spilled = _members(bin_of, count, per_bin)

    wrapped = x - home @ cell
    inside = [wrapped[:, axis][member] for axis in range(3)]
    there = []
    for axis in range(3):
        moved = jnp.asarray(crossed, x.dtype) @ cell[:, axis]
        there.append(_by_bits((inside[axis][near] + moved[..., None]).reshape(count, -1)))
    candidates = member[near].reshape(count, -1)
    limits = _by_bits(jnp.where(candidates >= 0, cutoff**2, 0).astype(x.dtype))
    there, limits = _kept((there, limits))
    width = limits.shape[-1]

    def close(bit):
        pairs = zip(there, inside, strict=True)
        squared = [(b[:, None, bit] - a[..., None]) ** 2 for b, a in pairs]  # bin slot k
        return squared[0] + squared[1] + squared[2] < limits[:, None, bit]

    itself = (near.shape[1] // 2) * per_bin + np.arange(per_bin)
    own = np.zeros((per_bin, width), np.uint32)
    own[np.arange(per_bin), itself % width] = 1 << (itself // width)
    words = (_packed(close) & ~own).reshape(-1, width)
    row = jnp.clip(bin_of, 0, count - 1) * per_bin + jnp.minimum(slot, per_bin - 1)
    i, word, bit, mask, many = _entries(jnp.where(real[:, None], words[row], 0), room)

    column = jnp.minimum(bit * width + word, candidates.shape[1] - 1)
    at, b = column // per_bin, jnp.minimum(bin_of[i], count - 1)
    j = jnp.maximum(candidates[b, column], 0)
    whole = home.astype(jnp.int32)
    image = jnp.asarray(crossed, jnp.int32)[b, at] + whole[i] - whole[j]
    # The planes of a cell bent so far that more bins are in reach make the list incomplete.
    wide = bins_in_reach(jnp, cell, cutoff, jnp.asarray(bins))
    beyond = jnp.any(wide > jnp.asarray(reach))
    return Found(i, j, image, mask, many | spilled | beyond)


def most_in_a_bin(
    fractional: Float[np.ndarray, "atom 3"], bins: tuple[int, int, int], slack=(0.0, 0.0, 0.0)
) -> int:
    """Return the most atoms that a bin can hold when each moves by up to `slack` (fractional)."""
    corners = np.stack(np.meshgrid(*((-s, s) for s in slack)), -1).reshape(-1, 1, 3)
    places = np.floor((fractional + corners) * bins).astype(int) % np.asarray(bins)
    flat = (places[..., 0] * bins[1] + places[..., 1]) * bins[2] + places[..., 2]
    atoms = np.broadcast_to(np.arange(len(fractional)), flat.shape)
    once = np.unique(np.stack([atoms.ravel(), flat.ravel()]), axis=1)
    return int(np.bincount(once[1]).max())


def between_planes(fractional: Float[np.ndarray, "atom 3"], bins: tuple[int, int, int]):
    """Return the fractional origin of bins whose faces lie in the widest gaps between atoms."""
    origin = []
    for place, count in zip(fractional.T, bins, strict=True):
        inside = np.sort(place * count % 1)
        gaps = np.diff(inside, append=inside[0] + 1)
        widest = int(np.argmax(gaps > gaps.max() - 1e-6))
        origin.append(float((inside[widest] + gaps[widest] / 2) % 1 / count))
    return tuple(origin)


def image_grid(images: tuple[int, int, int]) -> Int[np.ndarray, "image 3"]:
    """Return all L with |L_a| <= images_a."""
    axes = [np.arange(-n, n + 1) for n in images]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def images_in_reach(xp, cell, cutoff):
    """Return how many cells from the nearest image a neighbour can be, per lattice vector."""
    return xp.floor(cutoff / planes_apart(xp, cell) + 0.5 + 1e-9)


def bins_in_reach(xp, cell, cutoff, bins):
    """Return how many bins from its own a neighbour can be, per lattice vector."""
    return xp.ceil(cutoff * bins / planes_apart(xp, cell) + _SLACK)


def planes_apart(xp, cell):
    """Return the distances in Å between opposite faces of the cell."""
    return 1 / xp.sqrt(xp.sum(xp.linalg.inv(cell) ** 2, axis=0))


@functools.lru_cache(maxsize=64)
def _nearby_bins(bins, reach) -> tuple[np.ndarray, np.ndarray]:
    """Return for each bin those it meets, and in which cell: (bin, offset), (bin, offset, 3)."""
    own = np.stack(np.meshgrid(*map(np.arange, bins), indexing="ij"), -1).reshape(-1, 1, 3)
    crossed, place = np.divmod(own + image_grid(reach), np.asarray(bins))
    a, b, c = np.moveaxis(place, -1, 0)
    return np.asarray((a * bins[1] + b) * bins[2] + c, np.int32), crossed


def _members(bin_of: Int[Array, " atom"], count: int, per_bin: int):
    """Return the atoms of each bin, -1 for none; each atom's slot; whether there were too many."""
    atom = jnp.arange(len(bin_of), dtype=jnp.int32)
    order = jnp.argsort(bin_of)
    filled = jnp.zeros(count + 1, jnp.int32).at[bin_of].add(1)
    first = jnp.cumsum(filled) - filled
    slot = jnp.zeros_like(atom).at[order].set(atom - first[bin_of[order]], unique_indices=True)
    empty = jnp.full((count, per_bin), -1, jnp.int32)
    member = empty.at[bin_of, slot].set(atom, mode="drop")
    return member, slot, jnp.any(filled[:count] > per_bin)


def _kept(values):
    """Return the values, computed once and not again within every loop that reads them.

    What is rounded to whole numbers must be the same number everywhere, to the last bit.
    """
    return jax.lax.optimization_barrier(values)


def _by_bits(values: Float[Array, "*rest column"]) -> Float[Array, "*rest bit word"]:
    """Return the columns in the order of the marks, filled up with zeros."""
    columns = values.shape[-1]
    filled = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -columns % _WORD)])
    return filled.reshape(*values.shape[:-1], _WORD, -1)


def _packed(close: Callable[[Any], Bool[Array, "*rest word"]]) -> UInt32[Array, "*rest word"]:
    """Return words whose bit b is close(b)."""

    def with_byte(number, words):
        bits = [number * 8 + k for k in range(8)]
        marks = [close(bit).astype(jnp.uint32) << jnp.uint32(bit) for bit in bits]
        return functools.reduce(jnp.bitwise_or, marks, words)

    # A loop has its result written down. The compiler would else find out what is close again
    # for everything that reads the words.
    shape = jax.eval_shape(close, 0).shape
    return jax.lax.fori_loop(0, _WORD // 8, with_byte, jnp.zeros(shape, jnp.uint32))


def _entries(words: UInt32[Array, "row word"], room: Room):
    """Return row, word, bit and mask of the marks row by row, and whether they were too many."""
    rows, width = words.shape
    held = jax.lax.population_count(words).astype(jnp.int32)
    end = jnp.cumsum(held.reshape(-1))
    start = end - held.reshape(-1)
    # The word of an entry is the last one that starts at or before it: empty ones share the
    # start of the next.
    starts = jnp.zeros(room.all, jnp.int32).at[start].add(1, mode="drop")
    at = jnp.cumsum(starts) - 1
    entry = jnp.arange(room.all, dtype=jnp.int32)
    bit = _place_of_bit(words.reshape(-1)[at], entry - start[at])
    many = end[-1] > room.all
    if not room.each:
        mask, row = entry < end[-1], at // width
    else:
        last = end.reshape(rows, width)[:, -1:]
        first = jnp.concatenate([jnp.zeros((1, 1), last.dtype), last[:-1]])
        entry = first + jnp.arange(room.each, dtype=jnp.int32)
        mask, entry = (entry < last).reshape(-1), jnp.minimum(entry, room.all - 1).reshape(-1)
        at, bit = at[entry], bit[entry]
        row = jnp.asarray(np.repeat(np.arange(rows, dtype=np.int32), room.each))
        many |= jnp.any(last - first > room.each)
    return row, jnp.where(mask, at % width, 0), jnp.where(mask, bit, 0), mask, many


def _place_of_bit(word: UInt32[Array, "*shape"], rank: Int[Array, "*shape"]):
    """Return which bit is the set one with `rank` set ones below it, halving the word."""
    place = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        low = jax.lax.population_count(word & ((1 << half) - 1)).astype(jnp.int32)
        above = rank >= low
        rank = jnp.where(above, rank - low, rank)
        word = jnp.where(above, word >> half, word)
        place = jnp.where(above, place + half, place)
    return place
