"""Dynamical matrices from a potential and a primitive cell, with no supercell.

    Φ_iα,jβ(q) = Σ_L ∂²E/∂r_i0α ∂r_jLβ exp(iq·(r_j + L - r_i)),   D = Φ / √(m_i m_j)        (1)
    Φ_iα,jLβ   = 1/N Σ_q Φ_iα,jβ(q) exp(-iq·(r_j + L - r_i))                               (2)

A column of (1) is the derivative of the gradient along a displacement that is a Bloch wave: reads
and sums across cells carry its phase (`bloch_waves`), and everything else happens in one cell. It
is exact at any q, whatever the potential reaches: a message-passing potential sees through all its
layers, farther than a supercell of a practical size.

Eq. (2), over the N points whose waves fit a supercell, is what a calculation in that supercell
would give. Symmetry leaves few of them to compute: an operation {W|w} with the Cartesian rotation R
takes atom i to p(i) and Φ(q) to

    Φ_p(i)p(j)(qW⁻¹) = R Φ_ij(q) Rᵀ,   Φ(-q) = Φ(q)*,
    Φ_ij(q - G) = exp(iG·r_i) Φ_ij(q) exp(-iG·r_j).                                        (3)
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from phojax.bloch_waves import AXIS, operations_in
from phojax.checks import check_float64, check_shape, fail
from phojax.dynmat import Interpolation
from phojax.force_constants.container import ForceConstants, force_constants
from phojax.forces import energy
from phojax.neighbors import carrying
from phojax.potentials.contract import Potential, check_elements
from phojax.pytree import pytree
from phojax.structure import Structure, Supercell, commensurate_points, supercell
from phojax.symmetry import SpaceGroup

_HERMITIAN = 1e-8  # of the largest entry: beyond this something was read without its phase
_SAME_POINT = 1e-6


def bloch_hessians(
    potential: Potential,
    crystal: Structure,
    graph: Any,
    q: Float[Array, "q 3"],
    directions: Float[Array, "q 3"] | None = None,
    *,
    columns: int | None = None,
) -> Complex[Array, "q mode mode"]:
    """Return Φ(q) of eq. (1) in eV/Å², as it comes out; traceable.

    Differentiable in q, positions, cell and parameters; Hermitian to rounding.

    Args:
        potential: With an energy, all of whose reads and sums across cells go through
            `neighbors.gather` and `neighbors.scatter`.
        crystal: Any cell.
        graph: Of the crystal, held fixed.
        q: Fractional.
        directions: For point charges, from where Γ is approached, fractional; zeros for nowhere.
        columns: Of the matrix computed at a time; all by default. Memory grows with it.
    """
    n = 3 * len(crystal)
    units = jnp.eye(n, dtype=crystal.positions.dtype).reshape(n, -1, 3)
    towards = jnp.zeros_like(q) if directions is None else directions

    def at(given):
        waves = carrying(graph, *given)
        found = jax.lax.map(
            partial(_column, potential, crystal, waves), units, batch_size=min(columns or n, n)
        )
        angle = jnp.repeat(2 * jnp.pi * crystal.fractional @ given[0], 3)
        phase = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
        return phase.conj()[:, None] * found.T * phase

    return jax.lax.map(at, (q, towards))


def _column(potential: Potential, crystal: Structure, waves: Any, unit) -> Complex[Array, " mode"]:
    """Return the change of the gradient at home where `unit` moves there, its images as waves."""
    leaves, tree = jax.tree.flatten(waves)
    real = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
    phases = [leaf for leaf, is_real in zip(leaves, real, strict=True) if is_real]

    def of(x, phases):
        left = iter(phases)
        both = zip(leaves, real, strict=True)
        graph = jax.tree.unflatten(tree, [next(left) if r else leaf for leaf, r in both])
        return energy(potential, replace(crystal, positions=x), graph)

    # Phases are variables of both derivatives, so that whatever is read or summed takes part in
    # both, what does not depend on the positions as well.
    def gradient(x, phases):
        return jax.grad(of, argnums=(0, 1))(x, phases)[0]

    def part(t):
        still = [jnp.zeros_like(phase) for phase in phases]
        return jax.jvp(gradient, (crystal.positions, phases), (t, still))[1]

    found = jax.vmap(part, axis_name=AXIS)(jnp.stack([unit, jnp.zeros_like(unit)]))
    return jax.lax.complex(found[0].reshape(-1), found[1].reshape(-1))


@partial(jax.jit, static_argnames=("capacity", "columns"))
def _hessians(potential, crystal, q, directions, capacity, columns):
    graph = potential.graph(crystal, capacity)
    found = bloch_hessians(potential, crystal, graph, q, directions, columns=columns)
    return found, graph.overflow


def exact_dynamical_matrices(
    potential: Potential,
    crystal: Structure,
    q: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    columns: int | None = None,
) -> Complex[Array, "q mode mode"]:
    """Return D(q), eq. (1), in eV Å⁻² amu⁻¹ in the convention of `dynmat`, Hermitian (host).

    Args:
        potential: As for `bloch_hessians`.
        crystal: Concrete, relaxed; any cell, best the primitive one.
        q: (q, 3), fractional, of that cell.
        directions: As for `bloch_hessians`.
        columns: Likewise.

    Raises:
        InputError: float32, unknown elements, a potential that offers supercells only, values that
            are not finite, a matrix that is not Hermitian.
    """
    hermitian = exact_hessians(potential, crystal, q, directions, columns=columns)
    root = 1 / np.sqrt(np.repeat(np.asarray(crystal.masses), 3))
    return jnp.asarray(hermitian * (root[:, None] * root))


def exact_hessians(
    potential: Potential,
    crystal: Structure,
    q: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    columns: int | None = None,
) -> Complex[np.ndarray, "q mode mode"]:
    """Return Φ(q), eq. (1), in eV/Å², Hermitian; arguments and errors as above (host)."""
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    q = jnp.asarray(q, crystal.positions.dtype)
    check_shape("q", q, (None, 3), "fractional, one row per point")
    towards = jnp.zeros_like(q) if directions is None else jnp.asarray(directions, q.dtype)
    check_shape("directions", towards, q.shape, "one per point")
    check_carries_waves(potential, crystal)
    return _hermitian(potential, crystal, q, towards, columns)


def _hermitian(potential: Potential, crystal: Structure, q, towards, columns) -> np.ndarray:
    capacity = potential.capacity(crystal)
    found, overflow = _hessians(potential, crystal, q, towards, capacity, columns)
    found = np.asarray(found)
    if overflow or not np.all(np.isfinite(found)):
        raise fail(
            f"{potential.name} returned second derivatives that are not finite", "finite ones",
            "Check for overlapping atoms",
        )  # fmt: skip
    adjoint = found.conj().swapaxes(1, 2)
    size = np.abs(found).max(initial=1e-300)
    if np.abs(found - adjoint).max(initial=0.0) > _HERMITIAN * size:
        raise fail(
            f"matrices of {potential.name} that are not Hermitian, by "
            f"{np.abs(found - adjoint).max() / size:.1g} of the largest entry",
            "a potential whose reads and sums across cells all go through neighbors.gather and "
            "neighbors.scatter",
            "Use a supercell",
        )
    return (found + adjoint) / 2


@pytree(static=("columns",))
class Exact:
    """A potential as a part of `dynmat.Interpolation`.

    Attributes:
        potential: As for `bloch_hessians`.
        graph: Of the crystal, held fixed.
        columns: Of a matrix computed at a time (static).
    """

    potential: Potential
    graph: Any
    columns: int | None = None

    def hessians(
        self,
        crystal: Structure,
        q: Float[Array, "q 3"],
        directions: Float[Array, "q 3"] | None,
    ) -> Complex[Array, "q mode mode"]:
        """Return Φ(q) of the crystal, eq. (1), in eV/Å²."""
        return bloch_hessians(
            self.potential, crystal, self.graph, q, directions, columns=self.columns
        )


def exact(potential: Potential, crystal: Structure, *, columns: int | None = None) -> Interpolation:
    """Return what gives D(q) of a potential, for all that takes force constants at any q (host).

    Modes, bands, velocities and descriptors on meshes then interpolate nothing.
    Derivatives with respect to q, positions, cell (`crystal` of the result), masses and
    parameters go through.

    Args:
        potential: As for `bloch_hessians`.
        crystal: Concrete, relaxed; best the primitive cell.
        columns: Of a matrix computed at a time; all by default.

    Raises:
        InputError: as `exact_hessians`.
    """
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    check_carries_waves(potential, crystal)
    n = 3 * len(crystal)
    graph = potential.graph(crystal, potential.capacity(crystal))
    part = Exact(potential, graph, columns)
    return Interpolation(crystal, jnp.zeros((0, 3), jnp.int32), jnp.zeros((0, n, n)), exact=part)


def check_carries_waves(potential: Potential, crystal: Structure) -> None:
    """Raise InputError for a potential that offers supercells only."""
    remedy = "Use force constants of a supercell"
    if potential.on_host or potential.derivatives is not None:
        raise fail(
            f"D(q) without a supercell of {potential.name}, which runs in another program",
            "a potential written in JAX with neighbors.gather and neighbors.scatter", remedy,
        )  # fmt: skip
    if not potential.conservative:
        raise fail(
            f"D(q) without a supercell of {potential.name}, whose forces are predicted",
            "a potential with an energy", remedy,
        )  # fmt: skip
    graph = potential.graph(crystal, potential.capacity(crystal))
    waves = carrying(graph, jnp.zeros(3), jnp.zeros(3))
    counted = operations_in(lambda x: energy(potential, replace(crystal, positions=x), waves),
                            crystal.positions)  # fmt: skip
    if counted == 0 and _has_images(graph):
        raise fail(
            f"{potential.name}, which reads its neighbours by other means than neighbors.gather",
            "a potential that reads and sums through neighbors.gather and neighbors.scatter",
            remedy,
        )


def check_beside_doubled_cell(potential: Potential, crystal: Structure) -> None:
    """Raise InputError unless Φ(½ 0 0) is that of a cell twice as long (host).

    One derivative in the doubled cell, for a potential of one's own: where reads and sums bypass
    `gather` and `scatter`, Φ(q) is wrong and looks like any other.
    """
    q = np.array([[0.5, 0.0, 0.0]])
    [found] = exact_hessians(potential, crystal, q)
    own = np.exp(2j * np.pi * np.repeat(np.asarray(crystal.fractional) @ q[0], 3))
    at_home = own[:, None] * found * own.conj()
    cells = supercell(crystal, (2, 1, 1))
    whole = cells.structure
    t = np.random.default_rng(0).normal(size=(len(crystal), 3))
    moved = jnp.asarray(np.stack([t, -t], axis=1).reshape(-1, 3))  # atoms in the order j·L
    graph = potential.graph(whole, potential.capacity(whole))

    @jax.jit
    def changed(x, moved):
        slope = jax.grad(lambda x: energy(potential, replace(whole, positions=x), graph))
        return jax.jvp(slope, (x,), (moved,))[1]

    wanted = np.asarray(changed(whole.positions, moved)).reshape(len(crystal), 2, 3)[:, 0].ravel()
    off = np.abs(at_home @ t.ravel() - wanted).max() / np.abs(wanted).max(initial=1e-300)
    if off > _HERMITIAN:
        raise fail(
            f"D(q) of {potential.name} without a supercell, which is off by {off:.1g} at (½ 0 0)",
            "a potential whose reads and sums across cells all go through neighbors.gather and "
            "neighbors.scatter",
            "Use force constants of a supercell",
        )


def _has_images(graph: Any) -> bool:
    """Return whether a graph has neighbours at all."""
    return any(np.asarray(leaf).any() for leaf in jax.tree.leaves(graph)
               if np.asarray(leaf).dtype == bool and np.ndim(leaf))  # fmt: skip


def exact_force_constants(
    potential: Potential,
    cells: Supercell,
    group: SpaceGroup | None = None,
    *,
    columns: int | None = None,
    at_a_time: int = 8,
    on_part=lambda done, of: None,
) -> ForceConstants:
    """Return the force constants of a supercell that is never built, eq. (2) (host).

    Args:
        potential: As for `bloch_hessians`.
        cells: The supercell; only its primitive cell is evaluated.
        group: Of the primitive cell, which must have it exactly; None to compute all points.
        columns: Of the matrix at one q computed at a time.
        at_a_time: Points that one call on the device computes; one function is compiled for all.
        on_part: Called with (points done, of).

    Raises:
        InputError: as `exact_hessians`.
    """
    check_float64("positions", cells.primitive.positions)
    check_elements(potential, cells.primitive)
    check_carries_waves(potential, cells.primitive)
    points = commensurate_points(cells)
    star = _Star(points, group)
    q = points[star.representatives]
    filled = np.concatenate([q, np.repeat(q[-1:], -len(q) % at_a_time, axis=0)])
    found = []
    for first in range(0, len(filled), at_a_time):
        on_part(first, len(q))
        part = jnp.asarray(filled[first : first + at_a_time])
        found.append(_hermitian(potential, cells.primitive, part, jnp.zeros_like(part), columns))
    on_part(len(q), len(q))
    n = len(cells.primitive)
    whole = star.unfolded(np.concatenate(found)[: len(q)], np.asarray(cells.primitive.fractional))
    x = np.asarray(cells.primitive.fractional)
    own = np.exp(2j * np.pi * points @ x.T)  # (q, atom)
    at_home = (
        own[:, :, None, None, None]
        * whole.reshape(-1, n, 3, n, 3)
        * (own.conj()[:, None, None, :, None])
    )
    waves = np.exp(-2j * np.pi * points @ np.asarray(cells.images).T)  # (q, L)
    values = np.einsum("qL,qiajb->ijLab", waves, at_home, optimize=True).real / len(points)
    return force_constants(values.reshape(n, -1, 3, 3), cells)


class _Star:
    """Points of a mesh by the few that symmetry leaves.

    Attributes:
        representatives: Numbers of the points to compute.
    """

    def __init__(self, points: Float[np.ndarray, "q 3"], group: SpaceGroup | None) -> None:
        self._points, self._group = points, group
        count = len(points)
        self._from = np.full(count, -1)
        self._by = np.zeros((count, 2), int)  # operation, and whether time is reversed
        representatives = []
        inverse = None if group is None else np.linalg.inv(group.rotations)
        for number in range(count):
            if self._from[number] >= 0:
                continue
            place = len(representatives)
            representatives.append(number)
            turned = points[number][None] if inverse is None else points[number] @ inverse
            for back in (0, 1):
                for op, target in enumerate(-turned if back else turned):
                    at = self._number_of(target)
                    if at is not None and self._from[at] < 0:
                        self._from[at], self._by[at] = place, (op, back)
            self._from[number], self._by[number] = place, (self._identity(), 0)
        self.representatives = np.array(representatives)

    def _identity(self) -> int:
        if self._group is None:
            return 0
        same = np.all(self._group.rotations == np.eye(3, dtype=int), axis=(1, 2))
        return int(np.flatnonzero(same)[0])

    def _number_of(self, q: Float[np.ndarray, "3"]) -> int | None:
        apart = self._points - q
        hit = np.flatnonzero(np.abs(apart - np.rint(apart)).max(axis=1) < _SAME_POINT)
        return int(hit[0]) if len(hit) else None

    def unfolded(
        self, matrices: Complex[np.ndarray, "rep mode mode"], x: Float[np.ndarray, "atom 3"]
    ) -> Complex[np.ndarray, "q mode mode"]:
        """Return the matrices of all points from those of the representatives, by eqs. (3)."""
        n = len(x)
        out = np.empty((len(self._points), n, 3, n, 3), complex)
        for number, (place, (op, back)) in enumerate(zip(self._from, self._by, strict=True)):
            given = matrices[place].reshape(n, 3, n, 3)
            arrived = self._points[self.representatives[place]]
            if self._group is not None:
                R = self._group.rotations_cartesian[op]
                origin = np.argsort(self._group.permutation[op])
                given = np.einsum("ab,ibjc,dc->iajd", R, given[origin][:, :, origin], R)
                arrived = arrived @ np.linalg.inv(self._group.rotations[op])
            if back:
                given, arrived = given.conj(), -arrived
            G = np.rint(arrived - self._points[number])
            phase = np.exp(2j * np.pi * x @ G)
            out[number] = phase[:, None, None, None] * given * phase.conj()[:, None]
        return out.reshape(len(out), 3 * n, 3 * n)


__all__ = [
    "Exact",
    "bloch_hessians",
    "check_beside_doubled_cell",
    "check_carries_waves",
    "exact",
    "exact_dynamical_matrices",
    "exact_force_constants",
    "exact_hessians",
]
