"""Langevin and energy-conserving dynamics of several systems at once, all of it on the device.

One step of BAOAB, with P the momenta, R the positions, F = F(R), c = exp(-γ dt):

    P += F dt/2,   R += P/m dt/2,   P = c P + √(m k_BT (1 - c²)) ξ - share of ΣP,           (1)
    R += P/m dt/2,   F = F(R),   P += F dt/2

and velocity Verlet without the O step. The pieces are jax-md's; they stand here one by one because
its own steps give away neither the energy nor the overflow of the graph, and velocity Verlet casts
the time step to float32 there. The O step leaves the total momentum at zero: what is taken from
each atom is its share by mass, which is the projection that keeps the canonical distribution of
the other 3N - 3 degrees of freedom.

Positions are never wrapped, so that displacements can be read off; potentials see a copy in the
home cell, in their own precision. The graph is made anew at every step, or, with a skin, when an
atom of any system has moved by half of it.

Nothing wrong is kept in silence: a graph that overflows ends the chunk with a flag, to be done
again with more room; a system that blows up (values that are not finite, a step longer than
`LONGEST_STEP`) stays where it was last sane, with the number of that step, and the others go on.
Sources: Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013), eqs. 8, 9; Davidchack et
al., J. Chem. Phys. 142, 144114 (2015) as in jax-md.
"""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phojax.compiled import side_by_side
from phojax.forces import energy_and_forces, in_precision_of
from phojax.md.systems import Systems
from phojax.potentials.contract import Potential
from phojax.pytree import pytree
from phojax.structure import Structure
from phojax.units import KB, TIME_FS

LONGEST_STEP = 0.5
"""Å. No atom at any temperature of interest goes farther in one step that can be trusted."""


@pytree()
class Graphs:
    """Graphs that last several steps.

    Attributes:
        graphs: Of the potential, with a leading axis for the system.
        cells: Lattice vectors that bring each atom into the home cell, in units of them.
        positions: Where they were made, Å.
    """

    graphs: Any
    cells: Float[Array, "system atom 3"]
    positions: Float[Array, "system atom 3"]


@pytree()
class State:
    """Where the systems are.

    Attributes:
        positions: Å, unwrapped.
        momenta: amu Å per internal unit of time.
        forces: eV/Å at these positions.
        energies: eV, potential.
        keys: Of the random numbers, as raw data.
        alive: False once a system has blown up or was stopped.
        died_at: The step at which it was found to blow up; -1 while it lives.
        step: Steps done.
    """

    positions: Float[Array, "system atom 3"]
    momenta: Float[Array, "system atom 3"]
    forces: Float[Array, "system atom 3"]
    energies: Float[Array, " system"]
    keys: Array
    alive: Bool[Array, " system"]
    died_at: Int[Array, " system"]
    step: Int[Array, ""]


@pytree()
class Frames:
    """What a chunk of a run leaves; rows from `count` on are empty.

    Attributes:
        positions: Å, unwrapped.
        velocities: Å/ps.
        energies: eV, potential.
        kinetic: eV.
        alive: Whether the system was sane.
        count: Frames that were done.
    """

    positions: Float[Array, "frame system atom 3"]
    velocities: Float[Array, "frame system atom 3"]
    energies: Float[Array, "frame system"]
    kinetic: Float[Array, "frame system"]
    alive: Bool[Array, "frame system"]
    count: Int[Array, ""]


@partial(jax.jit, static_argnames="capacity")
def started(
    potential: Potential, systems: Systems, capacity: Hashable
) -> tuple[State, Bool[Array, " system"]]:
    """Return the systems at rest positions with momenta of their temperature, and overflows.

    Momenta are drawn from the canonical distribution without that of the centre of mass.
    """
    kT = KB * systems.temperatures

    def drawn(key, m, kT):
        key, split = jax.random.split(key)
        return key, jnp.sqrt(m * kT)[:, None] * jax.random.normal(split, (len(m), 3), m.dtype)

    keys, momenta = jax.vmap(drawn)(systems.keys, systems.crystals.masses, kT)
    momenta = _at_rest(systems, momenta)
    alive = jnp.ones(len(systems), bool)
    x = systems.crystals.positions
    energies, forces, overflow, _ = _evaluated(potential, systems, x, alive, capacity, None, 0.0)
    sane = jnp.isfinite(energies) & jnp.all(jnp.isfinite(forces), axis=(1, 2))
    state = State(
        x, momenta, forces, energies, jax.random.key_data(keys), sane | overflow,
        jnp.where(sane, -1, 0), jnp.zeros((), jnp.int32),
    )  # fmt: skip
    return state, overflow


@partial(jax.jit, static_argnames=("capacity", "longest", "every", "thermostat", "skin"))
def advanced(
    potential: Potential,
    systems: Systems,
    state: State,
    frames: Int[Array, ""],
    timestep: Float[Array, ""],
    friction: Float[Array, ""],
    *,
    capacity: Hashable,
    longest: int,
    every: int,
    thermostat: bool,
    skin: float = 0.0,
) -> tuple[State, Frames, Bool[Array, " system"]]:
    """Return the state some frames later, the frames, and which systems' graphs overflowed.

    Where one overflowed the rest is of no use: call again with the same state and more room.

    Args:
        potential: Any; with a skin, one whose graph reaches that much farther.
        systems: What moves.
        state: Where it is.
        frames: How many, at most `longest`.
        timestep: Internal units.
        friction: γ, internal units.
        capacity: Of the graphs.
        longest: Room for frames.
        every: Steps between frames.
        thermostat: Langevin where True, else velocity Verlet.
        skin: Å; 0 for a graph at every step.
    """
    simulate = _jax_md()
    kT = KB * systems.temperatures
    mass = systems.crystals.masses[..., None]
    real = systems.real[..., None]
    per_ps = 1e3 / TIME_FS

    def shift(x, dx):
        return x + jnp.where(real, dx, 0)

    def drifted(s, fraction):
        return simulate.position_step(s, shift, fraction * timestep)

    def kicked(s):
        return simulate.momentum_step(s, timestep / 2)

    def stirred(s):
        def one(x, p, f, m, key, kT):
            s = simulate.NVTLangevinState(x, p, f, m, key)
            s = simulate.stochastic_step(s, timestep, kT, friction)
            return s.momentum, s.rng

        p, keys = jax.vmap(one)(s.position, s.momentum, s.force, s.mass, s.rng, kT)
        return s.set(momentum=_at_rest(systems, p), rng=keys)

    def one_step(carry, _):
        state, graphs, overflow = carry
        keys = jax.random.wrap_key_data(state.keys)
        s = simulate.NVTLangevinState(state.positions, state.momenta, state.forces, mass, keys)
        s = drifted(kicked(s), 0.5)
        s = drifted(stirred(s) if thermostat else s, 0.5)
        far = jnp.max(jnp.abs(s.position - state.positions), axis=(1, 2)) > LONGEST_STEP
        lost = far | ~jnp.all(jnp.isfinite(s.position), axis=(1, 2))
        going = state.alive & ~lost
        x = jnp.where(going[:, None, None], s.position, state.positions)
        E, F, full, graphs = _evaluated(potential, systems, x, going, capacity, graphs, skin)
        sane = jnp.isfinite(E) & jnp.all(jnp.isfinite(F), axis=(1, 2))
        going &= sane | full
        s = kicked(s.set(force=F))
        kept = going[:, None, None]
        found = State(
            jnp.where(kept, s.position, state.positions),
            jnp.where(kept, jnp.where(real, s.momentum, 0), state.momenta),
            jnp.where(kept, F, state.forces),
            jnp.where(going, E, state.energies),
            jax.random.key_data(s.rng),
            going,
            jnp.where(state.alive & ~going, state.step + 1, state.died_at),
            state.step + 1,
        )
        return (found, graphs, overflow | full), None

    def one_frame(carry):
        index, moving, kept = carry
        moving, _ = jax.lax.scan(one_step, moving, None, length=every)
        state = moving[0]
        velocities = jnp.where(real, state.momenta / mass, 0) * per_ps
        kinetic = jnp.sum(jnp.where(real, state.momenta**2 / mass, 0), axis=(1, 2)) / 2
        row = (state.positions, velocities, state.energies, kinetic, state.alive)
        kept = jax.tree.map(lambda all, x: all.at[index].set(x), kept, row)
        return index + 1, moving, kept

    def unfinished(carry):
        index, (_, _, overflow), _ = carry
        return (index < frames) & ~jnp.any(overflow)

    shape = (longest, *state.positions.shape)
    kept = (
        jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape[:2]), jnp.zeros(shape[:2]),
        jnp.zeros(shape[:2], bool),
    )  # fmt: skip
    overflow = jnp.zeros(len(systems), bool)
    graphs = None
    if skin > 0:
        graphs, overflow = _made(potential, systems, state.positions, state.alive, capacity)
    begin = (jnp.zeros((), jnp.int32), (state, graphs, overflow), kept)
    count, (state, _, overflow), kept = jax.lax.while_loop(unfinished, one_frame, begin)
    return state, Frames(*kept, count), overflow


def _jax_md() -> Any:
    from jax_md import simulate  # takes seconds

    return simulate


def _at_rest(systems: Systems, momenta):
    """Return momenta without that of the centre of mass; those of padding are 0."""
    masses = jnp.where(systems.real, systems.crystals.masses, 0)
    momenta = jnp.where(systems.real[..., None], momenta, 0)
    share = masses / jnp.sum(masses, axis=1, keepdims=True)
    return momenta - share[..., None] * jnp.sum(momenta, axis=1, keepdims=True)


def _evaluated(potential, systems: Systems, x, alive, capacity, graphs: Graphs | None, skin):
    """Return energies, forces, overflows, and graphs where they last."""
    if graphs is None:

        def one(crystal, x, alive):
            inside = _at_home(potential, replace(crystal, positions=x), None)

            def found():
                graph = potential.graph(inside, capacity)
                return *energy_and_forces(potential, inside, graph), graph.overflow

            return _widened(_where_alive(alive, found, inside), x.dtype)

        return *side_by_side(one, systems.crystals, x, alive), None

    last = graphs
    moved = jnp.sum((x - last.positions) ** 2, axis=-1)
    stale = jnp.any(4 * jnp.max(moved, axis=1) > skin**2)

    def anew():
        return _made(potential, systems, x, alive, capacity)

    now, full = jax.lax.cond(stale, anew, lambda: (last, jnp.zeros(len(x), bool)))

    def one_of(crystal, x, alive, graph, cells):
        inside = _at_home(potential, replace(crystal, positions=x), cells)

        def found():
            return *energy_and_forces(potential, inside, graph), jnp.zeros((), bool)

        return _widened(_where_alive(alive, found, inside), x.dtype)

    E, F, _ = side_by_side(one_of, systems.crystals, x, alive, now.graphs, now.cells)
    return E, F, full, now


def _made(potential, systems: Systems, x, alive, capacity):
    """Return graphs that last, and their overflows."""

    def one(crystal, x, alive):
        crystal = replace(crystal, positions=x)
        cells = _home_cells(crystal)
        graph = potential.graph(_at_home(potential, crystal, cells), capacity)
        return graph, cells, graph.overflow & alive

    graphs, cells, full = side_by_side(one, systems.crystals, x, alive)
    return Graphs(graphs, cells, x), full


def _home_cells(crystal: Structure):
    return jnp.floor(crystal.fractional)


def _at_home(potential: Potential, crystal: Structure, cells) -> Structure:
    """Return the crystal moved into the home cell, in the potential's precision."""
    cells = _home_cells(crystal) if cells is None else cells
    moved = replace(crystal, positions=crystal.positions - cells @ crystal.cell)
    return in_precision_of(potential, moved)


def _where_alive(alive, found, inside: Structure):
    """Return what `found` does, where it is worth it: under vmap both branches are computed."""
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(found))
    return jax.lax.cond(alive, found, lambda: nothing)


def _widened(found, dtype):
    energy, forces, overflow = found
    return energy.astype(dtype), forces.astype(dtype), overflow
