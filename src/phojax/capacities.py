"""Static sizes of graphs: for a concrete crystal, with more room, and for several crystals at once.

Compiled code has arrays of fixed sizes. A capacity holds those of a graph, is hashable, and is
chosen on the host; a graph that does not fit says so (`overflow`), and is made again with a
capacity that has `grown`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from phojax.checks import check_finite, fail
from phojax.neighbor_search import (
    between_planes,
    bins_in_reach,
    image_grid,
    images_in_reach,
    most_in_a_bin,
    planes_apart,
)
from phojax.structure import Structure

# Rows of a table for one of a list, at about the same cost.
_LONGEST_TABLE = 1.5
# Pairs of atoms looked at below which bins do not pay.
_WORTH_BINS = 2**18
# Bins times offsets: their table is compiled in.
_MOST_MEETINGS = 2**20
# Å by which atoms move about, and by which they surely do.
_MOVED, _SHAKEN = 0.3, 0.1


class PairCapacity(NamedTuple):
    """Static sizes of a neighbour list.

    Attributes:
        images: Along each lattice vector L runs from -images to +images around the image of
            the other atom that is the nearest in units of the lattice vectors.
        pairs: Number of rows of a list.
        each: Rows of every centre, for a table; 0 for a list.
        bins: Into how many bins the cell is cut along each lattice vector; 0 for a search
            through all atoms and images.
        reach: How many bins away neighbours are looked for.
        origin: Where the first bin begins, fractional.
        per_bin: Atoms to a bin.
    """

    images: tuple[int, int, int]
    pairs: int
    each: int = 0
    bins: tuple[int, int, int] = (0, 0, 0)
    reach: tuple[int, int, int] = (0, 0, 0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    per_bin: int = 0

    def grown(self, factor: float) -> "PairCapacity":
        """Return sizes with room for `factor` times as many pairs in the same cell."""
        return self._replace(
            pairs=bucket(max(self.pairs * factor, self.pairs + 1)),
            each=_whole_steps(self.each * factor, self.each),
            per_bin=_whole_steps(self.per_bin * factor, self.per_bin, step=1),
        )

    def merged(self, other: "PairCapacity") -> "PairCapacity":
        """Return sizes that hold wherever one of both does."""
        # How far one's bins reach in the other's cell, and how much they hold, is unknown.
        cut = (self.bins, self.origin) == (other.bins, other.origin)
        a, b = (self, other) if cut else (self._replace(**_NO_BINS), other._replace(**_NO_BINS))
        most = PairCapacity(*(largest(pair) for pair in zip(a, b, strict=True)))
        return most if self.each and other.each else most._replace(each=0)


_NO_BINS: dict[str, Any] = {
    "bins": (0, 0, 0), "reach": (0, 0, 0), "origin": (0.0, 0.0, 0.0), "per_bin": 0,
}  # fmt: skip


def pair_capacity(
    crystal: Structure, cutoff: float, margin: float = 1.1, *, table: bool = False
) -> PairCapacity:
    """Return sizes that hold for this concrete crystal and for slightly changed ones.

    Args:
        crystal: Concrete (not traced).
        cutoff: Å.
        margin: Factor of room on the number of pairs, which is then rounded up to few sizes so
            that few shapes are compiled.
        table: Whether to lay out a table where that is not much longer than the list.

    Raises:
        InputError: a cutoff that is not positive, positions or a cell that are not finite, or
            a cutoff that reaches over absurdly many cells.
    """
    counts = neighbor_counts(crystal, cutoff)
    cell = np.asarray(crystal.cell, float)
    # Room for a strain of some per cent before the images or bins run out.
    farther = 1.05 * cutoff
    images = _triple(images_in_reach(np, cell, farther))
    pairs = bucket(int(counts.sum()) * margin)
    each = _whole_steps(int(counts.max(initial=0)) * margin, 1)
    each = each if table and each * len(counts) <= _LONGEST_TABLE * pairs else 0
    every = PairCapacity(images, pairs, each)
    searched = len(counts) ** 2 * int(np.prod(2 * np.array(images) + 1))
    if searched < _WORTH_BINS:
        return every
    cost, cut = _best_bins(crystal, farther)
    return every if 1.3 * cost > searched else every._replace(**cut)


def grown(capacity: Any, factor: float = 1.3) -> Any:
    """Return sizes of a graph with room for `factor` times as much in the same cell.

    Sizes that know how they grow have a method `grown(factor)`; numbers grow at least by one,
    and tuples do in all of their parts.
    """
    if hasattr(capacity, "grown"):
        return capacity.grown(factor)
    if isinstance(capacity, tuple):
        return _like(capacity, (grown(part, factor) for part in capacity))
    return bucket(max(capacity * factor, capacity + 1)) if isinstance(capacity, int) else capacity


def largest(capacities: Sequence[Any]) -> Any:
    """Return sizes that hold for every structure that one of `capacities` holds for.

    Raises:
        InputError: capacities of different potentials.
    """
    first, *rest = capacities
    if any(type(other) is not type(first) for other in rest):
        raise fail(f"capacities {first} and {rest}", "those of one potential")
    if hasattr(first, "merged"):
        for other in rest:
            first = first.merged(other)
        return first
    if isinstance(first, tuple):
        return _like(first, (largest(parts) for parts in zip(*capacities, strict=True)))
    if isinstance(first, int):
        return max(capacities)
    if any(other != first for other in rest):
        raise fail(f"capacities {first} and {rest}", "those of one potential")
    return first


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
    reach = images_in_reach(np, cell, cutoff * 1.05)
    if np.prod(2 * reach + 1) > 1e6:
        raise fail(
            f"a cutoff of {cutoff} Å reaches over {reach.astype(int).tolist()} cells",
            "at most about 50 along each vector",
            "Check the lattice vectors and their unit",
        )
    shifts = image_grid(tuple(reach.astype(int).tolist())) @ cell
    counts, inverse = np.zeros(len(x), int), np.linalg.inv(cell)
    for i in np.flatnonzero(real):  # one centre at a time bounds the memory
        nearest = _nearest_images(np, x[i][None], x[real], inverse)[0]
        apart = x[real] - x[i] + nearest @ cell + shifts[:, None]
        counts[i] = np.count_nonzero(np.sum(apart**2, axis=-1) < cutoff**2) - 1
    return counts


def bucket(count: float, smallest: int = 32) -> int:
    """Return the next of the sizes 32, 36, 40, … 64, 72, 80, … (eight to an octave)."""
    size = smallest
    while size < count:
        size += 2 ** (int(np.log2(size)) - 3)
    return size


def _nearest_images(xp, centers, others, inverse):
    """Return (i, j, xyz) whole numbers L that bring r_j + L A within half a cell of r_i."""
    return -xp.round((others @ inverse) - (centers @ inverse)[:, None])


def _best_bins(crystal: Structure, cutoff: float) -> tuple[float, dict[str, Any]]:
    """Return the cheapest of some ways to bin this crystal: its cost, and fields of a capacity."""
    cell, real = np.asarray(crystal.cell, float), np.asarray(crystal.numbers) > 0
    x, planes = np.asarray(crystal.positions, float)[real], planes_apart(np, cell)
    # What a bin can hold after any small moves, and what it usually does after larger ones.
    start, slack = x @ np.linalg.inv(cell), _SHAKEN / planes
    moves = np.random.default_rng(0).normal(scale=_MOVED, size=(4, *x.shape)) @ np.linalg.inv(cell)
    # Slightly wider than cutoff/m, as the reach is rounded up.
    axes = [sorted({max(1, int(0.99 * m * h / cutoff)) for m in (1, 2, 3)}) for h in planes]
    best, cut = math.inf, {}
    for bins in map(_triple, itertools.product(*axes)):
        reach = _triple(bins_in_reach(np, cell, cutoff, np.array(bins)))
        offsets = int(np.prod(2 * np.array(reach) + 1))
        if math.prod(bins) * offsets > _MOST_MEETINGS:
            continue
        origin = between_planes(start, bins)
        places = start - np.array(origin)
        later = max(most_in_a_bin(places + moved, bins) for moved in moves)
        per_bin = max(int(1.1 * later) + 1, most_in_a_bin(places, bins, slack))
        cost = math.prod(bins) * per_bin**2 * offsets
        if cost < best:
            best = cost
            cut = {"bins": bins, "reach": reach, "origin": origin, "per_bin": per_bin}
    return best, cut


def _whole_steps(count: float, smallest: int, step: int = 4) -> int:
    """Return `count` rounded up to whole steps, more than `smallest` unless both are 0."""
    return 0 if not smallest else step * (max(math.ceil(count), smallest + 1) + step - 1) // step


def _triple(values) -> tuple[int, int, int]:
    a, b, c = (int(v) for v in values)
    return a, b, c


def _like(given: tuple, parts) -> tuple:
    return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
