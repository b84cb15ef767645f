"""Force constants of a supercell that is never built, from D(q) of the primitive cell.

    Φ_iα,jLβ = 1/N Σ_q Φ_iα,jβ(q) exp(-iq·(r_j + L - r_i))                                 (1)

over the N points q whose waves fit the supercell, with Φ(q) of `bloch`, is what a calculation in
that supercell would give. Symmetry leaves few of its columns to compute (`bloch_symmetry`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from phojax.bloch import check_offers_exact, finite_matrices, hermitian_matrices
from phojax.bloch_columns import bloch_column
from phojax.bloch_symmetry import IndependentColumns
from phojax.force_constants.container import ForceConstants
from phojax.force_constants.hessian import HessianResult, hessian_result
from phojax.force_constants.parts import Ensemble, responses_in_parts
from phojax.force_constants.parts import at_a_time as parts_at_a_time
from phojax.potentials.contract import Potential
from phojax.rooms import Room, in_room, room_of
from phojax.structure import Supercell, commensurate_points
from phojax.symmetry import SpaceGroup

_PART, _PART_CPU = 1024, 16  # columns that are lost at most where a calculation is interrupted
_BUSY, _BUSY_CPU = 4096, 16  # atoms of all columns that go through side by side


def exact_force_constants(
    potential: Potential, cells: Supercell, group: SpaceGroup | None = None, **how: Any
) -> ForceConstants:
    """Return the force constants of a supercell that is never built, eq. (1) (host).

    Arguments and errors are those of `hessian_by_waves`; sum rules are enforced.
    """
    return hessian_by_waves(potential, cells, group, **how).force_constants


def hessian_by_waves(
    potential: Potential,
    cells: Supercell,
    group: SpaceGroup | None = None,
    *,
    at_a_time: int | None = None,
    workers: int | None = None,
    room: Room | None = None,
    on_part: Callable[[int, int], None] | None = None,
    done: dict[str, np.ndarray] | None = None,
) -> HessianResult:
    """Return what `hessian` returns at width 0, from the primitive cell by eq. (1) (host).

    Args:
        potential: As for `bloch_hessians`; looked at by `check_beside_doubled_cell` first, unless
            it `carries_waves`.
        cells: The supercell; only its primitive cell is evaluated.
        group: Of the primitive cell, which must have it exactly; None to use time reversal alone.
        at_a_time: Columns that go through side by side; by default what suits the device.
        workers: Parts at a time, each in a thread of its own; likewise.
        room: Shape that the primitive cell shares with others; its own by default.
        on_part: Called with (parts finished, parts in all) before the first and after each one.
        done: Columns of parts computed before, by name; finished ones are added to it.

    Raises:
        InputError: as `exact_hessians`, and a potential that bypasses gather and scatter.
    """
    crystal = cells.primitive
    check_offers_exact(potential, crystal, predicted=True)
    n = len(crystal)
    points = commensurate_points(cells)
    asked = independent_columns(cells, group)
    _, workers = parts_at_a_time(potential, None, workers)
    room = room or room_of(potential, crystal)
    inside = jax.tree.map(lambda x: x[0], in_room([crystal], room.atoms))
    in_cpu = jax.default_backend() == "cpu"
    busy, part = (_BUSY_CPU, _PART_CPU) if in_cpu else (_BUSY, _PART)
    at_a_time = min(part, at_a_time or max(1, busy // room.atoms))
    whole = -(-part // at_a_time) * at_a_time  # parts have one shape, whatever is in them
    moved = np.zeros((len(asked), room.atoms, 3))
    moved[np.arange(len(asked)), asked.atoms] = asked.directions

    def evaluate(shift, start: int, size: int) -> np.ndarray:
        count = min(size, len(asked) - start)
        rows = np.minimum(np.arange(start, start + whole), start + count - 1)
        found, overflow = _some_columns(
            potential, inside, jnp.asarray(asked.q[rows]), jnp.asarray(moved[rows]),
            jnp.int32(count), room.capacity, at_a_time, asked.real,
        )  # fmt: skip
        mine = finite_matrices(potential, np.asarray(found), overflow)[:count, :n]
        return np.concatenate([np.real(mine), np.imag(mine)], axis=1)

    # A part holds real parts, then imaginary ones: twice the atoms.
    [parts] = responses_in_parts(
        evaluate, Ensemble(0.0, 1, None), 2 * n, len(asked), part, workers=workers,
        on_part=on_part, done=done,
    )  # fmt: skip
    found = asked.matrices(parts[:, :n] + 1j * parts[:, n:])
    if potential.conservative:  # or what is not Hermitian is told by the result
        found = hermitian_matrices(potential, found)
    values = in_supercell(found, points, cells)
    return replace(hessian_result(values[None], cells, 0.0, len(asked)), points=asked.points)


def independent_columns(cells: Supercell, group: SpaceGroup | None) -> IndependentColumns:
    """Return the columns at the points of a supercell that determine its force constants."""
    return IndependentColumns(
        commensurate_points(cells), np.asarray(cells.primitive.fractional), group
    )


def in_supercell(
    matrices: Complex[np.ndarray, "q mode mode"], points: Float[np.ndarray, "q 3"], cells: Supercell
) -> Float[np.ndarray, "i jL 3 3"]:
    """Return eq. (1) in the unit of the matrices.

    Args:
        matrices: At the points, in the convention of `bloch`.
        points: Of `commensurate_points`, all of them.
        cells: The supercell.
    """
    n = len(cells.primitive)
    own = np.exp(2j * np.pi * points @ np.asarray(cells.primitive.fractional).T)  # (q, atom)
    at_home = (
        own[:, :, None, None, None]
        * matrices.reshape(-1, n, 3, n, 3)
        * (own.conj()[:, None, None, :, None])
    )
    waves = np.exp(-2j * np.pi * points @ np.asarray(cells.images).T)  # (q, L)
    values = np.einsum("qL,qiajb->ijLab", waves, at_home, optimize=True).real / len(points)
    return values.reshape(n, -1, 3, 3)


@partial(jax.jit, static_argnames=("capacity", "at_a_time", "real"))
def _some_columns(potential, crystal, q, moved, count, capacity, at_a_time, real):
    """Return the columns of the first `count` rows, and whether the graph overflowed."""
    graph = potential.graph(crystal, capacity)

    def of_one(q, u):
        return bloch_column(potential, crystal, graph, q, jnp.zeros(3), u, real)

    def some(k, out):
        mine = (jax.lax.dynamic_slice_in_dim(x, k * at_a_time, at_a_time) for x in (q, moved))
        new = jax.vmap(of_one)(*mine)
        return jax.lax.dynamic_update_slice_in_dim(out, new, k * at_a_time, 0)

    start = jnp.zeros(moved.shape, complex)
    # As many as there are, not as many as there is room for.
    return jax.lax.fori_loop(0, -(-count // at_a_time), some, start), graph.overflow


__all__ = [
    "exact_force_constants",
    "hessian_by_waves",
    "in_supercell",
    "independent_columns",
]
