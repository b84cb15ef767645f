"""Crystal structures and supercells as frozen pytrees.

A supercell with basis P (integer rows) of a primitive cell A (rows, Å) has the cell P A and
n = |det P| copies of every primitive atom j, at r_j + L A for the n lattice vectors L inside
it. Its atoms are ordered by j first and L second, so column j·n + L of Φ and position
[j, L] of a reshaped array are the same atom.
"""

import functools
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from ase.data import atomic_masses_iupac2016, chemical_symbols
from jaxtyping import Array, Float, Int

from phojax.checks import check_finite, check_shape, fail
from phojax.concrete import array_module
from phojax.pytree import pytree

STANDARD_MASSES = np.asarray(atomic_masses_iupac2016)
"""Standard atomic weights by atomic number, in amu: IUPAC 2016 as tabulated by ASE."""


MIXTURE = 200
"""Atoms with this number and above are mixtures of elements (`potentials.alchemy`)."""


@pytree()
class Structure:
    """A periodic crystal. Atoms with number 0 are padding: no energy, no neighbours.

    Attributes:
        cell: Lattice vectors as rows, Å.
        positions: Cartesian positions, Å; not wrapped into the cell.
        numbers: Atomic numbers.
        masses: amu.
    """

    cell: Float[Array, "3 3"]
    positions: Float[Array, "atom 3"]
    numbers: Int[Array, " atom"]
    masses: Float[Array, " atom"]

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols, in the order of the atoms (concrete structures only).

        Mixtures are X1, X2, …
        """
        return [
            f"X{z - MIXTURE + 1}" if z >= MIXTURE else chemical_symbols[z]
            for z in np.asarray(self.numbers).tolist()
        ]

    @property
    def fractional(self) -> Float[Array, "atom 3"]:
        """Positions in units of the lattice vectors."""
        xp = array_module(self.positions, self.cell)
        return jnp.asarray(xp.asarray(self.positions) @ xp.linalg.inv(self.cell))

    @property
    def volume(self) -> Float[Array, ""]:
        """Volume of the cell in Å³."""
        xp = array_module(self.cell)
        return jnp.asarray(xp.abs(xp.linalg.det(self.cell)))

    def __len__(self) -> int:
        return self.numbers.shape[-1]


def structure(cell, positions, numbers, masses=None) -> Structure:
    """Return a checked Structure in the widest float that JAX is set to.

    Args:
        cell: (3, 3) lattice vectors as rows, Å.
        positions: (atom, 3) Cartesian, Å.
        numbers: (atom,) atomic numbers.
        masses: (atom,) amu; standard atomic weights by default.

    Raises:
        InputError: wrong shapes, values that are not finite, a cell without volume.
    """
    count = np.shape(numbers)[0] if np.ndim(numbers) else 0
    check_shape("cell", cell, (3, 3))
    check_shape("positions", positions, (count, 3), "one row per atomic number")
    masses = STANDARD_MASSES[np.asarray(numbers)] if masses is None else masses
    check_shape("masses", masses, (count,), "one per position")
    check_finite("cell", cell)
    check_finite("positions", positions)
    check_finite("masses", masses)
    if abs(np.linalg.det(np.asarray(cell, float))) < 1e-3:
        raise fail("the cell has no volume", "three independent lattice vectors")
    real = jnp.result_type(float)
    return Structure(
        jnp.asarray(cell, real),
        jnp.asarray(positions, real),
        jnp.asarray(numbers, jnp.int32),
        jnp.asarray(masses, real),
    )


def strained(crystal: Structure, strain: Float[Array, "3 3"]) -> Structure:
    """Return the crystal with r -> r (1 + ε) for cell and positions, ε dimensionless."""
    stretch = jnp.eye(3, dtype=crystal.cell.dtype) + strain
    return replace(crystal, cell=crystal.cell @ stretch, positions=crystal.positions @ stretch)


def padded(crystal: Structure, size: int) -> Structure:
    """Return the concrete crystal with atoms of number 0 and mass 1 appended up to `size` atoms.

    On the host: nothing is compiled for the shape that is left behind.
    """
    extra = size - len(crystal)
    if extra < 0:
        raise fail(f"{len(crystal)} atoms to be padded to {size}", "a size no smaller than that")

    def longer(values, fill: float):
        rows = np.asarray(values)
        return jnp.asarray(
            np.concatenate([rows, np.full((extra, *rows.shape[1:]), fill, rows.dtype)])
        )

    return replace(
        crystal,
        positions=longer(crystal.positions, 0.0),
        numbers=longer(crystal.numbers, 0),
        masses=longer(crystal.masses, 1.0),
    )


@pytree(static=("matrix",))
class Supercell:
    """A supercell and its map onto the primitive cell (order: see the module's header).

    Attributes:
        primitive: The primitive cell.
        matrix: P, rows are the supercell's vectors in units of the primitive ones (static).
    """

    primitive: Structure
    matrix: tuple[tuple[int, int, int], ...]

    @property
    def images(self) -> Int[np.ndarray, "cell 3"]:
        """Lattice vectors L of the copies, in units of the primitive vectors; 0 first."""
        return _points_inside(self.matrix)

    @property
    def structure(self) -> Structure:
        """The supercell as a Structure; differentiable in the primitive cell."""
        p, n, xp = self.primitive, len(self.images), array_module(self.primitive)
        shifts = xp.asarray(self.images, p.cell.dtype) @ xp.asarray(p.cell)
        return Structure(
            jnp.asarray(xp.asarray(self.matrix, p.cell.dtype) @ xp.asarray(p.cell)),
            jnp.asarray((xp.asarray(p.positions)[:, None] + shifts).reshape(-1, 3)),
            jnp.asarray(xp.repeat(p.numbers, n)),
            jnp.asarray(xp.repeat(p.masses, n)),
        )


def supercell(primitive: Structure, matrix) -> Supercell:
    """Return the supercell with basis `matrix` (3, 3), or (3,) for a diagonal one.

    Raises:
        InputError: a matrix that is not of integers or is singular.
    """
    P = np.diag(matrix) if np.ndim(matrix) == 1 else np.asarray(matrix)
    check_shape("supercell matrix", P, (3, 3))
    if not np.array_equal(P, np.rint(P)) or round(np.linalg.det(P)) == 0:
        raise fail(f"supercell matrix {P.tolist()}", "integers with a determinant other than 0")
    return Supercell(primitive, tuple(map(tuple, np.rint(P).astype(int).tolist())))


def commensurate_points(cells: Supercell) -> Float[np.ndarray, "q 3"]:
    """Return the q-points, fractional, whose waves fit the supercell; one per copy of the cell."""
    P = np.asarray(cells.matrix)
    # P q is integer for q = P⁻¹ m, m one of each class modulo the columns of P.
    q = _points_inside(tuple(map(tuple, P.T.tolist()))) @ np.linalg.inv(P).T
    return q - np.rint(q)


@functools.lru_cache(maxsize=256)
def _points_inside(matrix: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Return the integer points L with 0 <= L P⁻¹ < 1, origin first."""
    P = np.array(matrix)
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) @ P
    axes = [np.arange(lo, hi + 1) for lo, hi in zip(corners.min(0), corners.max(0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    # In exact integers: L P⁻¹ = L adj(P) / det(P).
    determinant = round(np.linalg.det(P))
    scaled = points @ np.rint(np.linalg.inv(P) * determinant).astype(int) * np.sign(determinant)
    inside = np.all((scaled >= 0) & (scaled < abs(determinant)), axis=1)
    points = points[inside]
    points = points[np.lexsort((*points.T[::-1], np.any(points != 0, axis=1)))]
    points.flags.writeable = False
    return points
