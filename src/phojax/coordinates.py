"""Coordinates of a crystal's positions and cell that keep a space group.

With a start of cell A₀ and positions x₀ (rows), displacements u and a symmetric strain ε,

    A = A₀ (1 + ε),   x = (x₀ + u)(1 + ε)                                        (1)

Both are expanded in an orthonormal basis of what the space group leaves invariant,

    (P u)_p(i) = 1/|G| Σ_{R|t} R u_i,   P ε = 1/|G| Σ R ε Rᵀ,                        (2)

less the rigid translations. Nothing outside the subspace can grow from rounding, so the space
group holds to the last digit, whatever the potential.
"""

from dataclasses import dataclass

import numpy as np

from phojax.checks import fail
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup, symmetrized

_STRAIN_STEP = 5.0  # Å per unit strain: how strain counts in the length of a step


@dataclass(frozen=True)
class Coordinates:
    """Eqs. (1) and (2): the start, and orthonormal bases of what may change.

    Attributes:
        start: Exactly symmetric.
        displacements: (atom·3, n), columns.
        strains: (9, m), columns; none where the cell is held.
        scale: Å: strain coordinates are ε·scale, about as stiff as displacements.
    """

    start: Structure
    displacements: np.ndarray
    strains: np.ndarray
    scale: float

    def parts(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return u (atom, 3) in Å and ε (3, 3)."""
        n = self.displacements.shape[1]
        u = self.displacements @ y[:n]
        return u.reshape(-1, 3), (self.strains @ y[n:] / self.scale).reshape(3, 3)

    def length(self, y: np.ndarray) -> float:
        """Return the largest move of an atom in Å, strains counted in."""
        u, strain = self.parts(y)
        longest = float(np.sqrt((u**2).sum(1).max(initial=0.0)))
        return max(longest, _STRAIN_STEP * float(np.abs(strain).max()))


def coordinates(structure: Structure, symmetry: SpaceGroup | None, cell: bool) -> Coordinates:
    """Return the coordinates of a relaxation, the start made exactly symmetric.

    Raises:
        InputError: a symmetry of another crystal.
    """
    n = len(structure)
    rotations, permutation = np.eye(3)[None], np.arange(n)[None]
    if symmetry is not None:
        permutation = symmetry.permutation
        if permutation.shape[1:] != (n,):
            raise fail(
                f"a symmetry of {permutation.shape[1]} atoms for a structure of {n}",
                "the space group of this structure",
            )
        moved = symmetrized(structure, symmetry)
        shift = float(np.abs(np.asarray(moved.positions - structure.positions)).max(initial=0.0))
        if shift > 0.1:
            raise fail(
                f"the symmetry moves an atom by {shift:.2f} Å",
                "the space group of this structure",
            )
        structure = moved
        A = np.asarray(structure.cell, float)
        rotations = np.einsum("ba,obc,cd->oad", A, symmetry.rotations, np.linalg.inv(A.T))

    average = np.zeros((n, 3, n, 3))
    atoms = np.arange(n)
    for R, p in zip(rotations, permutation, strict=True):
        average[p, :, atoms, :] += R / len(rotations)
    real = (np.asarray(structure.numbers) > 0).astype(float)
    rigid = np.einsum("i,j,ab->iajb", real, real, np.eye(3)) / max(real.sum(), 1)
    moves = average * real[:, None, None, None] * real[:, None]
    moves = moves.reshape(3 * n, 3 * n) @ (np.eye(3 * n) - rigid.reshape(3 * n, 3 * n))

    symmetric = np.einsum("ac,bd->abcd", np.eye(3), np.eye(3))
    symmetric = (symmetric + symmetric.transpose(1, 0, 2, 3)) / 2
    turned = np.einsum("oac,obd->abcd", rotations, rotations) / len(rotations)
    strains = np.einsum("abcd,cdef->abef", turned, symmetric).reshape(9, 9)
    return Coordinates(
        structure,
        _range(moves),
        _range(strains) if cell else np.zeros((9, 0)),
        float(np.sqrt(max(real.sum(), 1))),
    )


def _range(projector: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (columns) of what a symmetric projector keeps."""
    values, vectors = np.linalg.eigh((projector + projector.T) / 2)
    return vectors[:, values > 0.5]
