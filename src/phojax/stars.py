"""From the irreducible points of a mesh to all of them, by symmetry. On the host.

An operation {W|w} with Cartesian rotation R that takes atom i to p(i) takes the mode e(q) to

    e_p(i)(qW⁻¹) = R e_i(q)   (up to a phase of the whole mode),   e(−q) = e(q)*           (1)
    e_j(q − G) = e_j(q) exp(iG·r_j)                                                        (2)

in the convention of `dynmat`. Frequencies, participation and coupling of a mode are the same at all
points of a star; what belongs to an atom goes with the atom.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Shaped

from phojax.brillouin import Mesh
from phojax.checks import check_shape, fail
from phojax.modes import Modes
from phojax.symmetry import SpaceGroup


def unfolded(values: Shaped[Array, "q *rest"], mesh: Mesh) -> Shaped[np.ndarray, "full *rest"]:
    """Return on the full mesh what is the same at all points of a star: per q, or per mode.

    Raises:
        InputError: another number of points than the mesh has irreducible ones.
    """
    given = np.asarray(values)
    check_shape("values", given, (len(mesh.q), *given.shape[1:]), "one per irreducible point")
    return given[mesh.irreducible]


def unfolded_by_atom(
    values: Shaped[Array, "q mode atom"], mesh: Mesh, group: SpaceGroup
) -> Shaped[np.ndarray, "full mode atom"]:
    """Return on the full mesh what belongs to an atom, such as its part in the MSD of a mode.

    Args:
        values: On the irreducible points, invariant inside degenerate blocks.
        mesh: Reduced by the group.
        group: The space group.
    """
    given = np.asarray(values)
    origin = np.argsort(group.permutation, axis=1)  # (op, atom): where atom p(i) comes from
    out = np.empty((len(mesh.irreducible), *given.shape[1:]), given.dtype)
    for op in np.unique(mesh.operation):
        rows = mesh.operation == op
        out[rows] = given[mesh.irreducible[rows]][:, :, origin[op]]
    return out


def unfolded_modes(found: Modes, mesh: Mesh, group: SpaceGroup | None) -> Modes:
    """Return the modes on the full mesh, eqs. (1) and (2).

    Inside a degenerate block the eigenvectors are as good a choice as those that a
    diagonalisation at that point would find.

    Args:
        found: Modes on the irreducible points.
        mesh: Reduced by the group, or by time reversal alone.
        group: None in the latter case.

    Raises:
        InputError: modes of other points than those of the mesh; no group where one reduced it.
    """
    if found.q.shape != mesh.q.shape or not np.allclose(found.q, mesh.q):
        raise fail("modes of other q-points", "those of the mesh", "Give modes(held, mesh.q)")
    if group is None and np.any(mesh.operation):
        raise fail(
            "a mesh reduced by a space group, without the group", "the group that reduced it"
        )
    crystal = found.structure
    x = np.asarray(crystal.fractional)
    E = np.asarray(found.eigenvectors)
    q_full, count = mesh.full_q, len(mesh.irreducible)
    out = np.empty((count, *E.shape[1:]), E.dtype)

    def fill(operation: tuple[int, bool]) -> None:
        op, back = operation
        rows = np.flatnonzero((mesh.operation == op) & (mesh.reversed == back))
        source = mesh.irreducible[rows]
        q = mesh.q[source]
        if group is None:
            turn, origin = np.eye(3), np.arange(len(x))
        else:
            q = q @ np.linalg.inv(group.rotations[op])
            turn = group.rotations_cartesian[op]
            origin = np.argsort(group.permutation[op])
        shift = np.rint((-q if back else q) - q_full[rows])
        e = _turned(E, source, origin, turn, back)
        if shift.any():
            away = np.flatnonzero(shift.any(axis=1))
            e[away] *= np.exp(2j * np.pi * shift[away] @ x.T)[:, None, :, None]
        out[rows] = e

    operations = {*zip(mesh.operation.tolist(), mesh.reversed.tolist(), strict=True)}
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # numpy copies without the GIL
        list(threads.map(fill, operations))
    return Modes(
        jnp.asarray(q_full),
        jnp.full(count, 1 / count),
        jnp.asarray(np.asarray(found.eigenvalues)[mesh.irreducible]),
        jnp.asarray(out),
        crystal,
        found.free,
    )


def _turned(E, source, origin, turn, back) -> Complex[np.ndarray, "q mode atom 3"]:
    """Return R e_i at p(i), conjugated under time reversal, as a product of real matrices."""
    e = E[source][:, :, origin] if np.any(origin != np.arange(len(origin))) else E[source]
    pairs = e.view(float).reshape(-1, 6)  # x, y, z, each with its imaginary part
    sign = np.array([1.0, -1.0 if back else 1.0])
    return (pairs @ np.kron(turn.T, np.diag(sign))).view(complex).reshape(e.shape)
