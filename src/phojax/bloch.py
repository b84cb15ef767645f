"""Dynamical matrices from a potential and a primitive cell, with no supercell.

    Φ_iα,jβ(q) = Σ_L ∂²E/∂r_i0α ∂r_jLβ exp(iq·(r_j + L - r_i)),   D = Φ / √(m_i m_j)        (1)

A column of (1) is the derivative of the gradient along a displacement that is a Bloch wave: reads
and sums across cells carry its phase (`bloch_waves`), and everything else happens in one cell. It
is exact at any q, whatever the potential reaches: a message-passing potential sees through all its
layers, farther than a supercell of a practical size.

Predicted forces have Φ = -∂F_i/∂r_j in place of (1), which takes one derivative less and is not
Hermitian. Force constants of a supercell are made of it (`bloch_supercell`), where it can be
symmetrised together with the sum rule; D(q) at any q takes the Hermitian part alone.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from phojax.bloch_waves import AXIS, BETWEEN_WAVES, OF_ENERGY, OF_FORCES, Order, operations_in
from phojax.checks import check_float64, check_shape, fail
from phojax.dynmat import Interpolation
from phojax.forces import energy, energy_and_forces
from phojax.neighbors import carrying
from phojax.potentials.contract import Potential, check_elements
from phojax.pytree import pytree
from phojax.structure import Structure, supercell

_HERMITIAN = 1e-8  # of the largest entry: beyond this something was read without its phase
_LAYERS = 5


def bloch_columns(
    potential: Potential,
    crystal: Structure,
    graph: Any,
    q: Float[Array, "row 3"],
    directions: Float[Array, "row 3"],
    moved: Float[Array, "row atom 3"],
    *,
    at_a_time: int = 1,
    real: bool = False,
) -> Complex[Array, "row atom 3"]:
    """Return Σ_j Φ_ij(q) u_j in eV/Å² for displacements u exp(iq·r) of the crystal; traceable.

    Args:
        potential: As for `bloch_hessians`.
        crystal: Any cell.
        graph: Of the crystal, held fixed.
        q: Fractional, one per displacement.
        directions: For point charges, from where Γ is approached, fractional; zeros for nowhere.
        moved: u of one atom each, Cartesian, real.
        at_a_time: Rows computed side by side; best a divisor of their number.
        real: Whether 2q is a reciprocal vector in all rows, which takes half the work.
    """

    def column(row):
        at, towards, u = row
        return bloch_column(potential, crystal, graph, at, towards, u, real)

    return jax.lax.map(column, (q, directions, moved), batch_size=at_a_time)


def bloch_column(
    potential: Potential,
    crystal: Structure,
    graph: Any,
    q: Float[Array, "3"],
    towards: Float[Array, "3"],
    u: Float[Array, "atom 3"],
    real: bool = False,
) -> Complex[Array, "atom 3"]:
    """Return one row of `bloch_columns`; traceable."""
    waves = carrying(graph, q, towards, _order(potential))
    return _from_home(crystal, q, u) * _column(potential, crystal, waves, u, real)


def bloch_contraction(
    potential: Potential,
    crystal: Structure,
    graph: Any,
    q: Float[Array, "3"],
    towards: Float[Array, "3"],
    u: Float[Array, "atom 3"],
    cotangent: Complex[Array, "atom 3"],
    real: bool = False,
) -> Float[Array, ""]:
    """Return Re Σ_i c_i · (Φ(q) u)_i for a cotangent c; traceable, for derivatives of it.

    As the second derivative of the energy between two waves it takes a third one well: in reverse
    that goes through two derivatives forward, in place of one forward of one in reverse.
    """
    if not potential.conservative:
        column = bloch_column(potential, crystal, graph, q, towards, u, real)
        return jnp.sum((cotangent * column).real)
    waves = carrying(graph, q, towards, BETWEEN_WAVES)
    # Summed over both parts, products of parts are Re[v* h] of eq. (2) there.
    v = (cotangent * _from_home(crystal, q, u)).conj()
    parts = v.real[None] if real else jnp.stack([v.real, v.imag])
    moved, phases = _moving(potential, crystal, waves)

    def along(f, t):
        still = [jnp.zeros_like(phase) for phase in phases]
        return lambda x, phases: jax.jvp(f, (x, phases), (t, still))[1]

    def part(u, v):
        both = along(along(lambda *at: energy(*moved(*at)), u), v)
        return both(crystal.positions, phases)

    return jnp.sum(jax.vmap(part, axis_name=AXIS)(_parts(u, real), parts))


def _from_home(
    crystal: Structure, q: Float[Array, "3"], u: Float[Array, "atom 3"]
) -> Complex[Array, "atom 1"]:
    """Return the phases of eq. (1) for what is at home, where the wave of u is that of its atom."""
    angle = 2 * jnp.pi * crystal.fractional @ q
    phase = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
    own = jnp.sum(jnp.where(jnp.any(u != 0, axis=1), phase, 0))
    return (phase.conj() * own)[:, None]


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

    Differentiable in q, positions, cell and parameters; Hermitian to rounding unless forces are
    predicted.

    Args:
        potential: All of whose reads and sums across cells go through `neighbors.gather` and
            `neighbors.scatter`.
        crystal: Any cell.
        graph: Of the crystal, held fixed.
        q: Fractional.
        directions: For point charges, from where Γ is approached, fractional; zeros for nowhere.
        columns: Computed at a time, of one matrix or of several; by default those of one. Memory
            grows with it.
    """
    n, count = 3 * len(crystal), len(q)
    units = jnp.eye(n, dtype=crystal.positions.dtype).reshape(n, -1, 3)
    towards = jnp.zeros_like(q) if directions is None else directions
    found = bloch_columns(
        potential, crystal, graph, jnp.repeat(q, n, axis=0), jnp.repeat(towards, n, axis=0),
        jnp.tile(units, (count, 1, 1)), at_a_time=min(columns or n, n * count),
    )  # fmt: skip
    return found.reshape(count, n, n).swapaxes(1, 2)


def _order(potential: Potential) -> Order:
    """Return which derivatives of what the potential gives are waves."""
    return OF_ENERGY if potential.conservative else OF_FORCES


def _parts(u: Float[Array, "atom 3"], real: bool) -> Float[Array, "part atom 3"]:
    return u[None] if real else jnp.stack([u, jnp.zeros_like(u)])


def _moving(potential: Potential, crystal: Structure, waves: Any) -> tuple[Callable, list]:
    """Return (x, phases) -> arguments of `energy`, and the phases of the graph.

    Phases are variables of all derivatives, so that whatever is read or summed takes part in each,
    what does not depend on the positions as well.
    """
    leaves, tree = jax.tree.flatten(waves)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]

    def moved(x, phases):
        left = iter(phases)
        both = zip(leaves, floating, strict=True)
        graph = jax.tree.unflatten(
            tree, [next(left) if is_phase else leaf for leaf, is_phase in both]
        )
        return potential, replace(crystal, positions=x), graph

    return moved, [leaf for leaf, is_phase in zip(leaves, floating, strict=True) if is_phase]


def _column(
    potential: Potential, crystal: Structure, waves: Any, unit: Float[Array, "atom 3"], real: bool
) -> Complex[Array, "atom 3"]:
    """Return the change of the gradient at home where `unit` moves there, its images as waves."""
    moved, phases = _moving(potential, crystal, waves)

    def gradient(x, phases):
        if not potential.conservative:
            return -energy_and_forces(*moved(x, phases))[1]
        return jax.grad(lambda *at: energy(*moved(*at)), argnums=(0, 1))(x, phases)[0]

    def part(t):
        still = [jnp.zeros_like(phase) for phase in phases]
        return jax.jvp(gradient, (crystal.positions, phases), (t, still))[1]

    found = jax.vmap(part, axis_name=AXIS)(_parts(unit, real))
    return jax.lax.complex(found[0], jnp.zeros_like(found[0]) if real else found[1])


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
    """Return Φ(q), eq. (1), in eV/Å², Hermitian; arguments and errors as above (host).

    Where forces are predicted it is the Hermitian part.
    """
    q = jnp.asarray(q, crystal.positions.dtype)
    check_shape("q", q, (None, 3), "fractional, one row per point")
    towards = jnp.zeros_like(q) if directions is None else jnp.asarray(directions, q.dtype)
    check_shape("directions", towards, q.shape, "one per point")
    _check_exact(potential, crystal)
    capacity = potential.capacity(crystal)
    found, overflow = _hessians(potential, crystal, q, towards, capacity, columns)
    return hermitian_matrices(potential, finite_matrices(potential, np.asarray(found), overflow))


def _check_exact(potential: Potential, crystal: Structure) -> None:
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    check_carries_waves(potential, crystal)


def check_offers_exact(
    potential: Potential, crystal: Structure, *, predicted: bool = False
) -> None:
    """Raise InputError for a potential whose exact D(q) is not to be had or not to be trusted.

    Potentials of which nobody has said that they carry waves are looked at closely:
    `check_beside_doubled_cell`. `predicted` says whether predicted forces will do.
    """
    _check_exact(potential, crystal)
    check_hermitian(potential, predicted)
    if not potential.carries_waves:
        check_beside_doubled_cell(potential, crystal)


def finite_matrices(potential: Potential, found: np.ndarray, overflow: Any) -> np.ndarray:
    """Return second derivatives as they are; raise InputError unless all are finite."""
    if overflow or not np.all(np.isfinite(found)):
        raise fail(
            f"{potential.name} returned second derivatives that are not finite", "finite ones",
            "Check for overlapping atoms",
        )  # fmt: skip
    return found


def hermitian_matrices(
    potential: Potential, found: Complex[np.ndarray, "q mode mode"]
) -> Complex[np.ndarray, "q mode mode"]:
    """Return the Hermitian part of matrices; raise InputError where another part is there.

    Of predicted forces another part may be there.
    """
    adjoint = found.conj().swapaxes(1, 2)
    size = np.abs(found).max(initial=1e-300)
    if potential.conservative and np.abs(found - adjoint).max(initial=0.0) > _HERMITIAN * size:
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

    @property
    def reach(self) -> float:
        """A length in Å beyond which little is felt: some layers of messages."""
        return _LAYERS * self.potential.cutoff

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
        potential: As for `bloch_hessians`; looked at by `check_beside_doubled_cell` first, unless
            it `carries_waves`.
        crystal: Concrete, relaxed; best the primitive cell.
        columns: Of a matrix computed at a time; all by default.

    Raises:
        InputError: as `exact_hessians`.
    """
    check_offers_exact(potential, crystal)
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
    if potential.carries_waves:
        return
    capacity = potential.capacity(crystal)

    def carried(crystal: Structure):
        graph = potential.graph(crystal, capacity)
        graph = carrying(graph, jnp.zeros(3), jnp.zeros(3), _order(potential))
        return energy_and_forces(potential, crystal, graph)

    if not operations_in(carried, crystal) and _has_images(potential.graph(crystal, capacity)):
        raise fail(
            f"{potential.name}, which reads its neighbours by other means than neighbors.gather",
            "a potential that reads and sums through neighbors.gather and neighbors.scatter",
            remedy,
        )


def check_hermitian(potential: Potential, predicted: bool = False) -> None:
    """Raise InputError for predicted forces where they will not do."""
    if not (potential.conservative or predicted):
        raise fail(
            f"D(q) without a supercell of {potential.name}, whose forces are predicted",
            "a potential with an energy: the sum rule of a Jacobian that is not symmetric is "
            "restored together with its symmetry, in the force constants of a supercell",
            'Take those; `force_constants_from = "primitive"` makes them of the primitive cell',
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


__all__ = [
    "Exact",
    "bloch_column",
    "bloch_columns",
    "bloch_contraction",
    "bloch_hessians",
    "check_beside_doubled_cell",
    "check_carries_waves",
    "check_hermitian",
    "check_offers_exact",
    "exact",
    "exact_dynamical_matrices",
    "exact_hessians",
    "finite_matrices",
    "hermitian_matrices",
]
