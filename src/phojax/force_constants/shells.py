"""Distances of atoms and shells of neighbours, by nearest images in a supercell."""

import numpy as np
from jaxtyping import Float

from phojax.checks import fail
from phojax.force_constants.container import nearest_images
from phojax.structure import Supercell

THIRD_SHELL = 3
"""Shell of neighbours up to which third-order force constants are taken by default."""

_SAME_SHELL = 1e-2  # Å; distances closer together than this are one shell of neighbours


def pair_distances(supercell: Supercell) -> Float[np.ndarray, "i jL"]:
    """Return the distance from each primitive atom to the nearest image of each atom, Å."""
    images = nearest_images(supercell)
    cell = np.asarray(supercell.primitive.cell, float)
    x = np.asarray(supercell.primitive.positions, float)
    n, copies = len(x), len(supercell.images)
    row, column = np.asarray(images.row), np.asarray(images.column)
    R = np.asarray(images.lattice)[np.asarray(images.at)] @ cell
    out = np.zeros((n, n * copies))
    out[row, column] = np.linalg.norm(R + x[column // copies] - x[row], axis=1)
    return out


def neighbour_shells(supercell: Supercell) -> list[Float[np.ndarray, " shell"]]:
    """Return the distances of the shells of neighbours of every primitive atom, ascending, Å.

    Neighbours that differ by less than 0.01 Å from the one before are of one shell; images of
    the atom itself count. Only what fits the supercell (nearest images).
    """
    shells = []
    for row in pair_distances(supercell):
        found = np.sort(row[row > _SAME_SHELL])
        # Each shell is named by its farthest member, so that a cutoff there holds it whole.
        last = np.append(np.diff(found) > _SAME_SHELL, True) if len(found) else []
        shells.append(found[np.asarray(last, bool)])
    return shells


def shell_distance(supercell: Supercell, number: int) -> float:
    """Return the shortest cutoff (Å) that reaches the `number`-th shell of every atom.

    Raises:
        InputError: a supercell without so many shells.
    """
    shells = neighbour_shells(supercell)
    fewest = min(len(shell) for shell in shells)
    if not 1 <= number <= fewest:
        raise fail(
            f"shell {number} of neighbours",
            f"1 to {fewest}, as many as this supercell holds",
            "Use a larger supercell, or give the cutoff in Å",
        )
    return float(max(shell[number - 1] for shell in shells))


def shell_cutoff(supercell: Supercell, number: int) -> float:
    """Return a cutoff (Å) that keeps the `number`-th shell of every atom, away from any distance.

    In the middle between the farthest atom kept and the next distance in the crystal.

    Raises:
        InputError: a supercell without so many shells.
    """
    reach = shell_distance(supercell, number)
    distances = pair_distances(supercell)
    beyond = distances[distances > reach + _SAME_SHELL]
    return float((reach + beyond.min()) / 2) if len(beyond) else reach + 0.1


def third_order_cutoff(supercell: Supercell) -> float:
    """Return the default cutoff (Å) of third order: `THIRD_SHELL`, or all shells where fewer."""
    return shell_cutoff(supercell, min(THIRD_SHELL, *map(len, neighbour_shells(supercell))))


__all__ = [
    "THIRD_SHELL",
    "neighbour_shells",
    "pair_distances",
    "shell_cutoff",
    "shell_distance",
    "third_order_cutoff",
]
