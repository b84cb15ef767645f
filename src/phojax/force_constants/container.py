"""Second-order force constants of a crystal, held on a supercell.

    Φ_iα,jLβ = ∂²E / ∂u_iα ∂u_jLβ                                            (1)
    Φ^R_iα,jβ = Σ_L w_ijL(R) Φ_iα,jLβ,   Σ_R w_ijL(R) = 1                       (2)

A supercell holds the sum of Φ over all images of a pair that its translations connect. Eq. (2)
shares it equally among the nearest of them (`Images`), which makes the Fourier interpolation
real-space local and keeps the symmetry of the crystal.
Source: Parlinski, Li, Kawazoe, Phys. Rev. Lett. 78, 4063 (1997), p. 4064.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phojax.checks import check_finite, check_float64, check_shape
from phojax.concrete import is_concrete
from phojax.pytree import pytree
from phojax.structure import Supercell

_SAME_DISTANCE = 1e-4  # Å; images closer together than this share a pair equally


@pytree()
class Images:
    """The shares w of eq. (2) as a sparse list of entries.

    Attributes:
        lattice: The distinct lattice vectors R, in units of the primitive vectors.
        row: Primitive atom i of an entry.
        column: Supercell atom j·L of an entry.
        at: Index of its R in `lattice`: the copy of j in cell R is a nearest image.
        share: w = 1 / (number of equidistant nearest images).
    """

    lattice: Int[Array, "R 3"]
    row: Int[Array, " entry"]
    column: Int[Array, " entry"]
    at: Int[Array, " entry"]
    share: Float[Array, " entry"]


@pytree(static=("free",))
class ForceConstants:
    """Φ of eq. (1) with all that is needed to interpolate it.

    Attributes:
        values: eV/Å²; rows are the primitive atoms (in the supercell's home cell), columns the
            supercell's atoms in its order j·n + L.
        supercell: The supercell they were computed in.
        images: The nearest images of every pair.
        free: Whether the crystal may move as a whole; not where some atoms are held (static).
    """

    values: Float[Array, "i jL 3 3"]
    supercell: Supercell
    images: Images
    free: bool = True

    @property
    def by_lattice_vector(self) -> Float[Array, "R i j 3 3"]:
        """Φ^R of eq. (2) in eV/Å². Linear, hence differentiable, in `values`."""
        n = self.values.shape[0]
        copies = self.supercell.images.shape[0]
        at = self.images
        if is_concrete(self.values, at.share):
            # Nothing to compile: a batch of crystals has as many shapes as members.
            row, column, place = (np.asarray(x) for x in (at.row, at.column, at.at))
            out = np.zeros((at.lattice.shape[0], n, n, 3, 3))
            shared = np.asarray(at.share)[:, None, None] * np.asarray(self.values)[row, column]
            np.add.at(out, (place, row, column // copies), shared)
            return jnp.asarray(out)
        empty = jnp.zeros((at.lattice.shape[0], n, n, 3, 3), self.values.dtype)
        shared = at.share[:, None, None] * self.values[at.row, at.column]
        return empty.at[at.at, at.row, at.column // copies].add(shared)


def force_constants(values, supercell: Supercell) -> ForceConstants:
    """Return checked ForceConstants, the nearest images found on the host.

    Args:
        values: (i, j·L, 3, 3) in eV/Å², float64.
        supercell: Concrete (not traced).

    Raises:
        InputError: a shape that does not fit the cells, float32, values that are not finite.
    """
    n, copies = len(supercell.primitive), supercell.images.shape[0]
    check_shape(
        "force constants", values, (n, n * copies, 3, 3), f"{n} primitive atoms × {copies} cells"
    )
    values = jnp.asarray(values)  # which makes float32 of it where x64 is off
    check_float64("force constants", values)
    if is_concrete(values):
        check_finite("force constants", values)
    return ForceConstants(values, supercell, nearest_images(supercell))


def nearest_images(supercell: Supercell) -> Images:
    """Return the equidistant nearest images of every pair, by exhaustive search on the host."""
    cell = np.asarray(supercell.primitive.cell, float)
    x = np.asarray(supercell.primitive.positions, float)
    L = np.asarray(supercell.images)
    P = np.asarray(supercell.matrix)
    reduced, translations = _short_translations(P, cell)
    n, copies = len(x), len(L)

    rows, columns, lattice, shares = [], [], [], []
    for i in range(n):
        for j in range(n):
            # Bring each copy near the atom first: then the ±2 neighbours hold all candidates.
            vector = L @ cell + (x[j] - x[i])
            near = -np.rint(vector @ np.linalg.inv(reduced @ cell)).astype(int) @ reduced
            candidates = L[:, None] + near[:, None] + translations  # (L, t, 3)
            distance = np.linalg.norm(candidates @ cell + (x[j] - x[i]), axis=-1)
            nearest = distance <= distance.min(axis=1, keepdims=True) + _SAME_DISTANCE
            copy, t = np.nonzero(nearest)
            rows.append(np.full(len(copy), i))
            columns.append(j * copies + copy)
            lattice.append(candidates[copy, t])
            shares.append(1.0 / nearest.sum(axis=1)[copy])
    vectors, at = np.unique(np.concatenate(lattice), axis=0, return_inverse=True)
    return Images(
        jnp.asarray(vectors, jnp.int32),
        jnp.asarray(np.concatenate(rows), jnp.int32),
        jnp.asarray(np.concatenate(columns), jnp.int32),
        jnp.asarray(at.reshape(-1), jnp.int32),
        jnp.asarray(np.concatenate(shares)),
    )


def _short_translations(P: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a reduced basis of the supercell lattice (in primitive units) and its ±2 sums."""
    from ase.geometry import minkowski_reduce

    _, operation = minkowski_reduce(P @ cell)
    reduced = np.rint(operation).astype(int) @ P
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return reduced, steps @ reduced
