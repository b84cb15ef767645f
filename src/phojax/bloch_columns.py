"""Columns of Φ(q) from a potential and a primitive cell.

    Φ_iα,jβ(q) = Σ_L ∂²E/∂r_i0α ∂r_jLβ exp(iq·(r_j + L - r_i))                              (1)

A column of (1) is the derivative of the gradient along a displacement that is a Bloch wave: reads
and sums across cells carry its phase (`bloch_waves`), and everything else happens in one cell. It
is exact at any q, whatever the potential reaches: a message-passing potential sees through all its
layers, farther than a supercell of a practical size.

Predicted forces have Φ = -∂F_i/∂r_j in place of (1), which takes one derivative less and is not
Hermitian.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from phojax.bloch_waves import AXIS, BETWEEN_WAVES, OF_ENERGY, OF_FORCES, Order
from phojax.forces import energy, energy_and_forces
from phojax.neighbors import carrying
from phojax.potentials.contract import Potential
from phojax.structure import Structure


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
    waves = carrying(graph, q, towards, order_of(potential))
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


def order_of(potential: Potential) -> Order:
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


__all__ = ["bloch_column", "bloch_columns", "bloch_contraction", "bloch_hessians", "order_of"]
