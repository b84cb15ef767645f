"""Polyanions: host atoms that are bonded to each other and to nothing else of the host.

Two host atoms are bonded in the first frame if they are closer than the sum of their covalent radii
(those of ASE), stretched. A component of bonded atoms that closes in itself is a unit; one that
reaches its own image (a chain, a layer, a network) is not, and its atoms stand alone.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from jaxtyping import Float, Int

from phojax.checks import fail


@dataclass(frozen=True)
class Polyanion:
    """A unit of bonded host atoms.

    Attributes:
        formula: Hill's order.
        atoms: Which.
        images: Lattice vectors that bring each atom next to the others.
    """

    formula: str
    atoms: Int[np.ndarray, " member"]
    images: Int[np.ndarray, "member 3"]


def polyanions(
    positions: Float[np.ndarray, "atom 3"],
    cell: Float[np.ndarray, "3 3"],
    numbers: Int[np.ndarray, " atom"],
    mobile: int,
    *,
    stretch: float = 1.1,
) -> list[Polyanion]:
    """Return the units of two or more atoms, by their first atom.

    Args:
        positions: Å, of one frame.
        cell: Lattice vectors as rows, Å.
        numbers: Atomic numbers.
        mobile: Atomic number of the ion that may move.
        stretch: Bonds are up to so many times the sum of covalent radii.

    Raises:
        InputError: a stretch that is not positive.
    """
    if not stretch > 0:
        raise fail(f"stretch {stretch}", "a positive number, about 1")
    host = np.flatnonzero((numbers > 0) & (numbers != mobile))
    if not len(host):
        return []
    atoms = Atoms(numbers[host], positions[host], cell=cell, pbc=True)
    i, j, S = neighbor_list("ijS", atoms, list(stretch * covalent_radii[numbers[host]]))
    units = []
    seen = np.zeros(len(host), bool)
    bonds: list[list[int]] = [[] for _ in host]
    for bond, one in enumerate(i):
        bonds[one].append(bond)
    for start in range(len(host)):
        if seen[start]:
            continue
        images = {start: np.zeros(3, int)}
        waiting, closed = [start], True
        while waiting:
            here = waiting.pop()
            seen[here] = True
            for bond in bonds[here]:
                there, image = int(j[bond]), images[here] + S[bond]
                if there not in images:
                    images[there] = image
                    waiting.append(there)
                elif np.any(images[there] != image):
                    closed = False
        if closed and len(images) > 1:
            members = np.array(sorted(images))
            formula = Formula.from_list([str(s) for s in atoms.symbols[members]])
            units.append(
                Polyanion(
                    f"{formula.convert('hill')}",
                    host[members],
                    np.array([images[int(m)] for m in members]),
                )
            )
    return units


def unwrapped_centres(
    positions: Float[np.ndarray, "frame atom 3"],
    cell: Float[np.ndarray, "3 3"],
    masses: Float[np.ndarray, " atom"],
    units: list[Polyanion],
) -> list[Float[np.ndarray, "frame 3"]]:
    """Return the centre of mass of every unit, Å, for positions that are continuous in time."""
    centres = []
    for unit in units:
        share = masses[unit.atoms] / masses[unit.atoms].sum()
        whole = positions[:, unit.atoms] + unit.images @ cell
        centres.append(np.einsum("i,tia->ta", share, whole))
    return centres
