"""Local minima of one crystal compared: rigid shifts, who sits on which site, which are the same.

A run drifts and atoms of one element change places, so minima are compared modulo

    x_i -> x_p(i) + t + L_i                                                            (1)

with a rigid translation t, lattice vectors L_i of the supercell and permutations p within
elements. t is the mean displacement of the host from the reference, over those of its atoms that
stayed near; p is the assignment of atoms to sites of least cost, with a cost that saturates: far is
far, and an atom that hopped moves none of the others.
"""

from dataclasses import dataclass

import numpy as np
from ase.geometry import find_mic
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

_NEAR = 1.0  # Å within which a host atom counts as one that stayed, for t
_TRIALS = 24  # host atoms whose displacement is tried as t
_TIES = 1e-3  # of the distance itself in the cost, where it is saturated


@dataclass(frozen=True)
class Sites:
    """Where the atoms of a minimum are, seen from a reference.

    Attributes:
        positions: Å, in the frame of the reference: rigid shift and lattice vectors taken off.
        displacements: From each atom's own place in the reference, Å, by the nearest image.
        site: Reference atom of the same element whose place each atom was assigned to.
        distances: From there, Å.
        radius: Å within which an atom is on a site.
    """

    positions: Float[np.ndarray, "atom 3"]
    displacements: Float[np.ndarray, "atom 3"]
    site: Int[np.ndarray, " atom"]
    distances: Float[np.ndarray, " atom"]
    radius: float

    @property
    def moved(self) -> Float[np.ndarray, " atom"]:
        """Distance of each atom from its own place, Å."""
        return np.linalg.norm(self.displacements, axis=1)

    @property
    def on_own(self) -> Bool[np.ndarray, " atom"]:
        """Atoms on their own site."""
        return self.moved <= self.radius

    @property
    def off_sites(self) -> Bool[np.ndarray, " atom"]:
        """Atoms on no site of the reference: where it has none, or had none to spare."""
        return ~self.on_own & (self.distances > self.radius)

    @property
    def on_others(self) -> Bool[np.ndarray, " atom"]:
        """Atoms on a site that was another's."""
        return ~self.on_own & ~self.off_sites


def sites_of(
    positions: Float[np.ndarray, "atom 3"],
    reference: Float[np.ndarray, "atom 3"],
    cell: Float[np.ndarray, "3 3"],
    numbers: Int[np.ndarray, " atom"],
    host: Bool[np.ndarray, " atom"],
    radius: float,
) -> Sites:
    """Return where atoms are, relative to those of a reference in the same order.

    Args:
        positions: Å.
        reference: Å.
        cell: Of both, Å.
        numbers: Atomic numbers.
        host: Atoms that say how far the crystal has drifted as a whole.
        radius: Å within which an atom is on a site.
    """
    away = nearest(positions - reference, cell)
    away = nearest(away - _rigid_shift(away, cell, host), cell)
    moved = np.linalg.norm(away, axis=1)
    at = reference + away
    site, distances = np.arange(len(moved)), moved.copy()
    for z in np.unique(numbers):
        mine = np.flatnonzero(numbers == z)
        if np.all(moved[mine] <= radius):
            continue
        chosen, apart = _assigned(at[mine], reference[mine], cell, radius)
        site[mine], distances[mine] = mine[chosen], apart
    return Sites(at, away, site, distances, radius)


def same_minimum(
    a: Sites,
    b: Sites,
    cell: Float[np.ndarray, "3 3"],
    numbers: Int[np.ndarray, " atom"],
    host: Bool[np.ndarray, " atom"],
    tolerance: float,
) -> Int[np.ndarray, " atom"] | None:
    """Return p of eq. (1), the atom of b in the place of each one of a; None for other minima.

    Args:
        a: A minimum.
        b: Another one, of the same reference.
        cell: Å.
        numbers: Atomic numbers.
        host: As for `sites_of`.
        tolerance: Largest distance of an atom from its partner, Å.
    """
    partner = np.arange(len(numbers))
    for z in np.unique(numbers):
        mine = np.flatnonzero(numbers == z)
        # Coarse: shifts differ a little until all partners are known.
        chosen, apart = _assigned(a.positions[mine], b.positions[mine], cell, 4 * tolerance + 0.1)
        if np.any(apart > 4 * tolerance + 0.1):
            return None
        partner[mine] = mine[chosen]
    away = nearest(a.positions - b.positions[partner], cell)
    away = away - away[host].mean(axis=0)
    return partner if np.linalg.norm(away, axis=1).max() <= tolerance else None


def nearest(
    vectors: Float[np.ndarray, "row 3"], cell: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "row 3"]:
    """Return the shortest of each vector's images."""
    return np.asarray(find_mic(np.asarray(vectors, float), np.asarray(cell, float))[0])


def _rigid_shift(
    away: Float[np.ndarray, "atom 3"], cell: np.ndarray, host: np.ndarray
) -> Float[np.ndarray, "3"]:
    """Return t of eq. (1): the trial that leaves most of the host near, refined by its mean."""
    mine = away[host]
    step = max(1, len(mine) // _TRIALS)

    def cost(trial: np.ndarray) -> float:
        return np.minimum(np.linalg.norm(nearest(mine - trial, cell), axis=1), _NEAR).sum()

    shift = min(mine[::step], key=cost)
    for _ in range(20):
        left = nearest(mine - shift, cell)
        near = np.linalg.norm(left, axis=1) < _NEAR
        if not near.any():
            break
        change = left[near].mean(axis=0)
        shift = shift + change
        if np.abs(change).max() < 1e-12:
            break
    return shift


def _assigned(
    atoms: np.ndarray, places: np.ndarray, cell: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which place each atom has, one to one, and its distance from there in Å."""
    n = len(atoms)
    pairs = nearest((atoms[:, None] - places).reshape(-1, 3), cell)
    apart = np.linalg.norm(pairs, axis=1).reshape(n, n)
    _, chosen = linear_sum_assignment(np.minimum(apart, radius) + _TIES * apart)
    return chosen, apart[np.arange(n), chosen]


__all__ = ["Sites", "nearest", "same_minimum", "sites_of"]
