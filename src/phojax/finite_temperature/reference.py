"""The ideal crystal that snapshots of a supercell are compared with, in their cell and order."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from phojax.checks import fail
from phojax.finite_temperature.minima import nearest, sites_of
from phojax.md.trajectory import host_of
from phojax.structure import Structure, structure, supercell
from phojax.symmetry import primitive_cell

_STRAIN = 0.03  # of a cell: thermal expansion, or that of another functional
_HELD = 0.5  # share of host atoms near their place, if the order of atoms is the same
_FAR = 1.5  # Å, where the cost of a place saturates


def fitted_reference(
    given: Structure, frame: Structure, mobile: int, tolerance: float = 1e-3
) -> Structure:
    """Return the crystal in the cell of a frame, atoms in the frame's order.

    Args:
        given: The ideal crystal: the supercell itself, or a cell that it is made of, oriented as
            the frame is, or as spglib standardises it.
        frame: Of a run.
        mobile: Atomic number of the mobile element.
        tolerance: Å, of symmetry.

    Raises:
        InputError: a crystal that does not fit.
    """
    wanted = np.asarray(frame.cell, float)
    cells = [given, primitive_cell(given, tolerance)]
    for unit in cells:
        h = np.asarray(unit.cell, float)
        P = np.rint(wanted @ np.linalg.inv(h)).astype(int)
        copies = abs(round(np.linalg.det(P)))
        off = np.abs(P @ h - wanted).max() / np.linalg.norm(wanted, axis=1).max()
        if copies and off <= _STRAIN and copies * len(unit) == len(frame):
            break
    else:
        raise fail(
            f"a reference of {len(given)} atoms that does not tile the cell of the trajectory "
            f"({len(frame)} atoms) to {100 * _STRAIN:g} %",
            "the ideal crystal in the orientation of the trajectory",
            "Give the supercell itself (structure.extxyz of phojax md, say)",
        )
    big = supercell(unit, P).structure
    if sorted(np.asarray(big.numbers)) != sorted(np.asarray(frame.numbers)):
        raise fail(
            "a reference of another composition than the trajectory",
            "the same atoms",
            "For a crystal with vacancies or substitutions give that very supercell",
        )
    x = np.asarray(big.fractional) @ wanted
    order = _order(x, np.asarray(big.numbers), frame, wanted, mobile)
    return structure(wanted, x[order], frame.numbers, frame.masses)


def _order(
    x: Float[np.ndarray, "atom 3"], numbers: np.ndarray, frame: Structure, cell, mobile: int
) -> np.ndarray:
    """Return which atom of the reference stands for each one of the frame."""
    at, z = np.asarray(frame.positions, float), np.asarray(frame.numbers)
    host = host_of(z, mobile)
    if np.array_equal(numbers, z):
        found = sites_of(at, x, cell, z, host, 1.0)
        if found.on_own[host].mean() >= _HELD:
            return np.arange(len(z))

    def apart(shift: np.ndarray, element: int) -> np.ndarray:
        pairs = at[z == element][:, None] - shift - x[numbers == element]
        shape = pairs.shape[:2]
        return np.linalg.norm(nearest(pairs.reshape(-1, 3), cell), axis=1).reshape(shape)

    of_host = [int(e) for e in np.unique(z[host])]

    def cost(shift: np.ndarray) -> float:
        return sum(np.minimum(apart(shift, e).min(axis=1), _FAR).sum() for e in of_host)

    rarest = min(of_host, key=lambda e: np.sum(z == e))
    first = at[z == rarest][0]
    shift = min((first - place for place in x[numbers == rarest]), key=cost)
    order = np.empty(len(z), int)
    for e in np.unique(z):
        distance = apart(shift, int(e))
        _, places = linear_sum_assignment(np.minimum(distance, _FAR) + 1e-3 * distance)
        order[z == e] = np.flatnonzero(numbers == e)[places]
    return order


__all__ = ["fitted_reference"]
