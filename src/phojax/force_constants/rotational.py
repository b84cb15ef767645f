"""What a rotation of the whole crystal asks of second-order force constants.

With r_ij the vector from i to the nearest image of j, and ⟨ ⟩ the mean over equidistant images
(`container.Images`), for a crystal without forces at rest

    Born-Huang    Σ_j [Φ_iα,jβ ⟨r_γ⟩ - Φ_iα,jγ ⟨r_β⟩] = 0                                     (1)
    Huang         Σ_ij [Φ_iα,jβ ⟨r_γ r_δ⟩ - Φ_iγ,jδ ⟨r_α r_β⟩] = 0                            (2)

(1) says that a rigid rotation makes no force, (2) that the elastic constants of the lattice have
the symmetry of a crystal without stress. Source: Born, Huang, Dynamical Theory of Crystal
Lattices (1954), eqs. 27.6, 27.21.

In a supercell Φ between two atoms is the sum over all images of the pair. (1) and (2) are about
single images; with the mean, a pair at the edge of the supercell counts as if it were shared
equally among its nearest images. What lies farther out is not seen, so that force constants which
obey the conditions in the infinite crystal obey (1) and (2) up to what does not fit the supercell:
exactly where Φ ends before its edge.
"""

import numpy as np
from jaxtyping import Float
from scipy import sparse

from phojax.force_constants.container import ForceConstants, nearest_images
from phojax.structure import Supercell

_PAIRS = ((0, 1), (1, 2), (2, 0))


def rotation_conditions(supercell: Supercell) -> sparse.csr_array:
    """Return M (condition, element) in Å and Å²: M Φ = 0 is (1) and (2), Φ flat (i, jL, a, b).

    Rows of (1) come first, 9 for each primitive atom; then the 15 of (2).
    """
    first, second = _moments(supercell)
    n, atoms = first.shape[:2]
    element = np.arange(n * atoms * 9).reshape(n, atoms, 3, 3)
    rows, columns, values = [], [], []

    def add(row, at, value):
        rows.append(np.full(at.size, row))
        columns.append(at.ravel())
        values.append(np.broadcast_to(value, at.shape).ravel())

    count = 0
    for i in range(n):
        for a in range(3):
            for b, c in _PAIRS:
                add(count, element[i, :, a, b], first[i, :, c])
                add(count, element[i, :, a, c], -first[i, :, b])
                count += 1
    indices = [(a, b) for a in range(3) for b in range(a, 3)]
    for k, (a, b) in enumerate(indices):
        for c, d in indices[k + 1 :]:
            add(count, element[:, :, a, b], second[:, :, c, d])
            add(count, element[:, :, c, d], -second[:, :, a, b])
            count += 1
    return sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(count, element.size),
    )


def rotation_residuals(constants: ForceConstants) -> tuple[float, float]:
    """Return the largest left-hand sides of (1) in eV/Å and of (2) in eV."""
    conditions = rotation_conditions(constants.supercell)
    left = np.abs(conditions @ np.asarray(constants.values).reshape(-1))
    rows = 9 * len(constants.supercell.primitive)
    return float(left[:rows].max()), float(left[rows:].max())


def _moments(
    supercell: Supercell,
) -> tuple[Float[np.ndarray, "i jL 3"], Float[np.ndarray, "i jL 3 3"]]:
    """Return ⟨r⟩ and ⟨r r⟩ over the equidistant nearest images of every pair."""
    images = nearest_images(supercell)
    cell = np.asarray(supercell.primitive.cell, float)
    x = np.asarray(supercell.primitive.positions, float)
    n, copies = len(x), len(supercell.images)
    row, column = np.asarray(images.row), np.asarray(images.column)
    share = np.asarray(images.share)
    r = np.asarray(images.lattice)[np.asarray(images.at)] @ cell + x[column // copies] - x[row]
    first = np.zeros((n, n * copies, 3))
    second = np.zeros((n, n * copies, 3, 3))
    np.add.at(first, (row, column), share[:, None] * r)
    np.add.at(second, (row, column), share[:, None, None] * r[:, :, None] * r[:, None, :])
    return first, second
