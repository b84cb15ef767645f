"""Channels: in how many dimensions the region where ions are found goes through the crystal.

Grid points above a density ρ_c that share a face form components, periodic boundaries included. A
closed path inside a component ends where it began or in another cell, a lattice vector away; those
vectors form a lattice, whose rank is the dimensionality of the component: 0 for a cage, 1 for a
tunnel, 2 for a layer, 3 for a network. A spanning tree gives every part its cell; every further
contact gives one vector, and these generate all. Ranks are computed in integers.

ρ_c is named by the share of the ions that are found above it (PHYSICS E7). A larger share can only
join components, so that the dimensionality rises with it and the share where it does is found by
bisection over the densities that occur.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from phojax.checks import fail
from phojax.md.density import IonDensity, check_density
from phojax.units import KB

Vector = tuple[int, int, int]


@dataclass(frozen=True)
class Component:
    """A connected region.

    Attributes:
        dimensionality: 0 to 3.
        directions: Basis of the lattice vectors that it connects, in units of the cell's.
        share: Of the ions, that are found in it.
        volume: Of the cell, that it fills.
    """

    dimensionality: int
    directions: tuple[Vector, ...]
    share: float
    volume: float


@dataclass(frozen=True)
class Channels:
    """The components above a density, the largest share of the ions first.

    Attributes:
        dimensionality: The largest of a component.
        threshold: ρ_c in 1/Å³.
        share: Of the ions, that are found above it.
        components: All of them.
    """

    dimensionality: int
    threshold: float
    share: float
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Percolation:
    """How channels open as the threshold falls.

    Attributes:
        shares: Of the ions above the threshold.
        dimensionality: At those shares.
        critical_shares: The smallest share at which it is at least 1, 2, 3; NaN where it never is.
        critical_densities: ρ_c there, 1/Å³; NaN likewise.
        largest_density: 1/Å³.
    """

    shares: Float[np.ndarray, " s"]
    dimensionality: Int[np.ndarray, " s"]
    critical_shares: Float[np.ndarray, "3"]
    critical_densities: Float[np.ndarray, "3"]
    largest_density: float


def channels(density: IonDensity, share: float = 0.9) -> Channels:
    """Return the channels that hold a share of the ions, or just more.

    Counts of a short run are full of holes: smooth them first (0.3 Å), or channels fall apart.

    Raises:
        InputError: a share outside (0, 1], a density that is negative or zero everywhere.
    """
    check_density(density)
    return channels_above(density, _threshold(density, share))


def channels_above(density: IonDensity, threshold: float) -> Channels:
    """Return the channels where the density is at least `threshold` (1/Å³, above 0).

    Raises:
        InputError: a threshold that is not positive or that nothing reaches.
    """
    check_density(density)
    above = density.values >= threshold
    if not threshold > 0 or not above.any():
        raise fail(
            f"a threshold of {threshold:.4g} 1/Å³", f"above 0, at most {density.values.max():.4g}"
        )
    labels, lattices = connected(above)
    whole = density.values.sum()
    count = len(lattices)
    ions = np.bincount(labels.ravel(), density.values.ravel(), count + 1)[1:] / whole
    points = np.bincount(labels.ravel(), minlength=count + 1)[1:] / labels.size
    parts = [
        Component(len(vectors), vectors, float(ions[n]), float(points[n]))
        for n, vectors in enumerate(lattices)
    ]
    parts.sort(key=lambda part: -part.share)
    largest = max(part.dimensionality for part in parts)
    return Channels(largest, float(threshold), float(ions.sum()), tuple(parts))


def percolation(density: IonDensity, shares: Float[np.ndarray, " s"] | None = None) -> Percolation:
    """Return the dimensionality against the share of the ions, and where it rises.

    Args:
        density: On a grid; smooth it where single counts would decide.
        shares: Where the curve is wanted; by default 0.5 to 0.995.
    """
    check_density(density)
    if shares is None:
        shares = np.concatenate([np.arange(0.5, 0.9, 0.05), np.arange(0.9, 0.9951, 0.005)])
    levels = np.unique(density.values[density.values > 0])[::-1]
    known: dict[int, int] = {}

    def dimension(level: int) -> int:
        if level not in known:
            _, lattices = connected(density.values >= levels[level])
            known[level] = max(len(vectors) for vectors in lattices)
        return known[level]

    critical = np.full(3, np.nan)
    ions = np.full(3, np.nan)
    total = density.values.sum()
    for rank in (1, 2, 3):
        if dimension(len(levels) - 1) < rank:
            break
        low, high = -1, len(levels) - 1  # not yet; surely
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if dimension(middle) >= rank else (middle, high)
        critical[rank - 1] = levels[high]
        ions[rank - 1] = density.values[density.values >= levels[high]].sum() / total
    reached = np.array([_threshold(density, float(s)) for s in shares])
    curve = np.sum(reached[:, None] <= critical, axis=1)  # NaN compares as False
    return Percolation(
        np.asarray(shares, float), curve, ions, critical, float(density.values.max())
    )


def percolation_barriers(found: Percolation, temperature: float) -> Float[np.ndarray, "3"]:
    """Return -k_BT ln(ρ_c / ρ_max) in eV for 1, 2 and 3 dimensions; NaN where there is no path.

    The free energy of the ion's density along the easiest path, from the deepest point of the
    density to its highest pass; it falls as the grid or the smoothing becomes coarser, and the pass
    needs to have been visited often for it to mean anything.

    Args:
        found: Critical densities.
        temperature: Of the run, K.
    """
    return -KB * temperature * np.log(found.critical_densities / found.largest_density)


def _threshold(density: IonDensity, share: float) -> float:
    """Return the largest density that so large a share of the ions lies at or above."""
    if not 0 < share <= 1:
        raise fail(f"a share of {share}", "more than 0, at most 1")
    ordered = np.sort(density.values, axis=None)[::-1]
    within = np.cumsum(ordered)
    at = int(np.searchsorted(within, share * within[-1] * (1 - 1e-12)))
    # rounding of the sum must not let in points without density
    return float(ordered[min(at, int(np.count_nonzero(ordered)) - 1)])


def connected(
    above: Bool[np.ndarray, "x y z"],
) -> tuple[Int[np.ndarray, "x y z"], list[tuple[Vector, ...]]]:
    """Return the component of every point, from 1 (0 outside), and the lattice of each component.

    A lattice is given by the rows of its Hermite normal form: as many as its rank.
    """
    labels, count = cast(tuple[np.ndarray, int], ndimage.label(above))
    contacts: list[tuple[int, int, Vector]] = []
    for axis in range(3):
        last, first = np.take(labels, -1, axis), np.take(labels, 0, axis)
        both = (last > 0) & (first > 0)
        pairs = np.unique(np.stack([last[both], first[both]], axis=1), axis=0)
        step = [0, 0, 0]
        step[axis] = 1  # from the last layer one goes on to the first of the next cell
        contacts += [(int(a), int(b), (step[0], step[1], step[2])) for a, b in pairs]
    neighbours: list[list[tuple[int, Vector]]] = [[] for _ in range(count + 1)]
    for a, b, step in contacts:
        neighbours[a].append((b, step))
        neighbours[b].append((a, (-step[0], -step[1], -step[2])))
    place: dict[int, Vector] = {}
    merged = np.zeros(count + 1, int)
    lattices: list[tuple[Vector, ...]] = []
    for root in range(1, count + 1):
        if root in place:
            continue
        place[root] = (0, 0, 0)
        basis: tuple[Vector, ...] = ()
        stack = [root]
        while stack:
            here = stack.pop()
            merged[here] = len(lattices) + 1
            for other, step in neighbours[here]:
                there = _sum(place[here], step, 1)
                if other not in place:
                    place[other] = there
                    stack.append(other)
                else:
                    basis = extended(basis, _sum(there, place[other], -1))
        lattices.append(basis)
    return merged[labels], lattices


def extended(basis: tuple[Vector, ...], vector: Vector) -> tuple[Vector, ...]:
    """Return the Hermite normal form of the lattice of `basis`, itself in that form, and `vector`.

    Rows with their first entries positive and further right from row to row, what stands above a
    first entry reduced modulo it; exact, in integers.
    """
    rows = {_pivot(row): row for row in basis}
    while any(vector):
        at = _pivot(vector)
        if at not in rows:
            rows[at] = vector if vector[at] > 0 else _sum((0, 0, 0), vector, -1)
            break
        row = rows[at]
        if abs(vector[at]) < row[at]:  # Euclid's algorithm on the first entries
            rows[at] = vector if vector[at] > 0 else _sum((0, 0, 0), vector, -1)
            vector = row
        vector = _sum(vector, rows[at], -(vector[at] // rows[at][at]))
    for at in sorted(rows):
        for above in rows:
            if above < at:
                factor = rows[above][at] // rows[at][at]
                rows[above] = _sum(rows[above], rows[at], -factor)
    return tuple(rows[at] for at in sorted(rows))


def _pivot(vector: Vector) -> int:
    return next(n for n, x in enumerate(vector) if x)


def _sum(a: Vector, b: Vector, factor: int) -> Vector:
    return a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2]
