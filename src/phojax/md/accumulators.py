"""What is learnt from frames as they come, so that no trajectory has to be kept.

Displacements, velocity correlations, the density of the mobile ions, and the displacements from the
first frame are summed up on the device, frame by frame, in memory that does not grow with the
length of the run but for its logarithm.

Level l of the displacements holds the last 32 of the frames whose number is a multiple of 2^l.
A frame that comes to a level is paired with all of them, so that lags k·2^l with k = 1 … 32 at
level 0 and k = 17 … 32 above are averaged over origins 2^l frames apart, at most 1/17 of the lag.
Source: the order-n scheme of Frenkel and Smit, Understanding Molecular Simulation, 2nd ed. (2002),
section 4.4.2, without its averaging over blocks.

Velocity correlations up to W - 1 frames are those of a new chunk with itself and the W - 1
frames before, all origins, as one product of matrices per element.
"""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.integrator import Frames
from phojax.md.protocol import Protocol
from phojax.md.systems import Systems
from phojax.pytree import pytree

KEPT = 32
"""Frames that a level of the displacements holds."""

_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # components of a symmetric tensor
_FULL = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # place of each element among them


@pytree(static=("frames", "cells"))
class Accumulators:
    """Running sums of all systems; see the module's header.

    Attributes:
        first: Positions in the first frame, Å.
        ring: The frames that each level holds, Å.
        atoms: Sums over origins of Δr Δr, Å².
        collective: Likewise of the sum over the atoms of an element.
        sections: Likewise of the mean over the atoms of an element, by section of the run.
        origins: How many, by section.
        velocities: The last W - 1 frames, Å/ps.
        vacf: Sums over origins and the atoms of an element of m v·v, amu Å²/ps².
        vacf_origins: How many.
        density: Counts of mobile ions nearest to each point of the grid, in one row.
        grid: Points along each lattice vector.
        seen: Frames so far.
        counted: Frames in which the system was sane.
        frames: Length of the run (static).
        cells: Room for points of the grid (static).
    """

    first: Float[Array, "system atom 3"]
    ring: Float[Array, "system level kept atom 3"]
    atoms: Float[Array, "system level kept atom 6"]
    collective: Float[Array, "system level kept species 6"]
    sections: Float[Array, "system section level kept species 6"]
    origins: Int[Array, "system section level kept"]
    velocities: Float[Array, "system before atom 3"]
    vacf: Float[Array, "system lag species"]
    vacf_origins: Int[Array, "system lag"]
    density: Int[Array, "system cells"]
    grid: Int[Array, "system 3"]
    seen: Int[Array, ""]
    counted: Int[Array, " system"]
    frames: int
    cells: int


@pytree()
class Series:
    """Numbers per frame; rows from the count of the frames on are empty.

    Attributes:
        first_msd: Mean over the atoms of an element of their squared displacement from the first
            frame, per axis, Å².
    """

    first_msd: Float[Array, "frame system species 3"]


def accumulators(
    systems: Systems, protocol: Protocol, grids: Int[np.ndarray, "system 3"]
) -> Accumulators:
    """Return empty sums for a run.

    Args:
        systems: What moves, where it is in the first frame.
        protocol: Of the run.
        grids: Points of the density along each lattice vector.
    """
    count, atoms = systems.crystals.numbers.shape
    levels = max(1, math.ceil(math.log2(max(2, protocol.frames) / KEPT)) + 1)
    species, before = systems.species_count, protocol.vacf_frames - 1
    cells = int(np.prod(grids, axis=1).max())
    return Accumulators(
        first=jnp.array(systems.crystals.positions),  # a copy: the sums are donated
        ring=jnp.zeros((count, levels, KEPT, atoms, 3)),
        atoms=jnp.zeros((count, levels, KEPT, atoms, 6)),
        collective=jnp.zeros((count, levels, KEPT, species, 6)),
        sections=jnp.zeros((count, protocol.sections, levels, KEPT, species, 6)),
        origins=jnp.zeros((count, protocol.sections, levels, KEPT), jnp.int32),
        velocities=jnp.zeros((count, before, atoms, 3)),
        vacf=jnp.zeros((count, before + 1, species)),
        vacf_origins=jnp.zeros((count, before + 1), jnp.int32),
        density=jnp.zeros((count, cells), jnp.int32),
        grid=jnp.asarray(grids, jnp.int32),
        seen=jnp.zeros((), jnp.int32),
        counted=jnp.zeros(count, jnp.int32),
        frames=protocol.frames,
        cells=cells,
    )


@partial(jax.jit, donate_argnums=1)
def accumulated(
    systems: Systems, sums: Accumulators, frames: Frames
) -> tuple[Accumulators, Series]:
    """Return the sums with a chunk of frames added, and its numbers per frame."""
    x = _without_drift(systems, sums.first, frames.positions)
    v = frames.velocities - _drift(_shares(systems), frames.velocities)[:, :, None]
    rows = jnp.arange(len(x))
    alive = frames.alive & (rows < frames.count)[:, None]
    sums = _velocities_added(systems, sums, v, alive, frames.count)

    def one(index, sums):
        return _frame_added(systems, sums, x[index], alive[index])

    sums = jax.lax.fori_loop(0, frames.count, one, sums)
    squared = (x - sums.first) ** 2
    msd = jnp.einsum("sik,tsia->tska", _membership(systems), squared)
    return sums, Series(msd)


def statistics(
    sums: Accumulators, systems: Systems, number: int, mobile: int, interval_ps: float
) -> DisplacementStatistics:
    """Return the displacement statistics of one system.

    Args:
        sums: After the run, or in its course.
        systems: What moved.
        number: Which system.
        mobile: Atomic number of the mobile element.
        interval_ps: Time between frames.
    """
    real = np.asarray(systems.real[number])
    numbers = np.asarray(systems.crystals.numbers[number])[real]
    species = tuple(int(z) for z in np.unique(numbers))
    levels = sums.ring.shape[1]
    ages = np.arange(1, KEPT + 1)
    lags = ages * 2 ** np.arange(levels)[:, None]
    used = (np.arange(levels) == 0)[:, None] | (ages > KEPT // 2)
    section_origins = np.asarray(sums.origins[number])
    counts = section_origins.sum(axis=0)
    used &= counts > 0
    spacing = np.broadcast_to(2 ** np.arange(levels)[:, None], lags.shape)

    def tensors(array):
        return np.asarray(array)[..., _FULL]

    n = counts[used]
    return DisplacementStatistics(
        lags=lags[used],
        origins=n,
        spacing=spacing[used],
        frames=int(sums.counted[number]),
        interval_ps=interval_ps,
        atoms=tensors(sums.atoms[number])[used][:, real] / n[:, None, None, None],
        collective=tensors(sums.collective[number])[used][:, : len(species)]
        / n[:, None, None, None],
        section_sums=tensors(sums.sections[number])[:, used][:, :, : len(species)],
        section_origins=section_origins[:, used],
        numbers=numbers,
        species=species,
        mobile=mobile,
    )


def _membership(systems: Systems) -> Float[Array, "system atom species"]:
    """Return what turns a sum over atoms into the mean over those of an element."""
    of = systems.species[..., None] == jnp.arange(systems.species_count)
    return of / jnp.maximum(1, jnp.sum(of, axis=1, keepdims=True))


def _shares(systems: Systems) -> Float[Array, "system atom"]:
    """Return the share of each atom in the centre of mass of all."""
    masses = jnp.where(systems.real, systems.crystals.masses, 0)
    return masses / jnp.sum(masses, axis=1, keepdims=True)


def _drift(weights, values):
    return jnp.einsum("si,tsia->tsa", weights, values)


def _without_drift(systems: Systems, first, positions):
    moved = _drift(systems.host_weights, positions - first)
    return positions - moved[:, :, None]


def _outer(x):
    return jnp.stack([x[..., a] * x[..., b] for a, b in _PAIRS], axis=-1)


def _frame_added(systems: Systems, sums: Accumulators, x, alive) -> Accumulators:
    frame = sums.seen
    of = (systems.species[..., None] == jnp.arange(systems.species_count)).astype(x.dtype)
    mean = _membership(systems)
    ages = jnp.arange(1, KEPT + 1)
    section_count = sums.origins.shape[1]

    def level_added(level, sums):
        stride = 2**level
        place = frame // stride
        known = (ages <= place) & ((level == 0) | (ages > KEPT // 2))
        kept = sums.ring[:, level][:, (place - ages) % KEPT]
        weight = (known & alive[:, None])[..., None, None]
        apart = jnp.where(weight, x[:, None] - kept, 0)  # system age atom xyz
        outer = _outer(apart)
        total = jnp.einsum("sik,stia->stka", of, apart)
        origin = jnp.maximum(0, (place - ages) * stride)
        section = origin * section_count // sums.frames
        by_species = jnp.einsum("sik,stic->stkc", mean, outer)
        one = (known & alive[:, None]).astype(jnp.int32)
        which = jnp.arange(KEPT)
        return replace(
            sums,
            atoms=sums.atoms.at[:, level].add(outer),
            collective=sums.collective.at[:, level].add(_outer(total)),
            sections=sums.sections.at[:, section, level, which].add(by_species),
            origins=sums.origins.at[:, section, level, which].add(one),
            ring=sums.ring.at[:, level, place % KEPT].set(x),
        )

    levels = sums.ring.shape[1]
    due = jnp.sum(jnp.cumprod(frame % 2 ** jnp.arange(levels) == 0))
    sums = jax.lax.fori_loop(0, due, level_added, sums)
    cell = jnp.linalg.inv(systems.crystals.cell)
    fraction = jnp.einsum("sia,sab->sib", x, cell)
    grid = sums.grid[:, None]
    at = jnp.round(fraction * grid).astype(jnp.int32) % grid
    flat = (at[..., 0] * grid[..., 1] + at[..., 1]) * grid[..., 2] + at[..., 2]
    one = (systems.mobile & alive[:, None]).astype(jnp.int32)
    system = jnp.arange(len(systems))[:, None]
    return replace(
        sums,
        density=sums.density.at[system, flat].add(one),
        seen=frame + 1,
        counted=sums.counted + alive,
    )


def _velocities_added(systems: Systems, sums: Accumulators, v, alive, count) -> Accumulators:
    before = sums.velocities.shape[1]
    new = len(v)
    v = jnp.where(alive[..., None, None], v, 0).swapaxes(0, 1)  # system frame atom xyz
    all_ = jnp.concatenate([sums.velocities, v], axis=1)
    # A row of `new` is paired with the rows of `all_` that are 0 … before frames older.
    lag = before + jnp.arange(new)[:, None] - jnp.arange(before + new)
    number = sums.seen - before + jnp.arange(before + new)
    usable = (lag >= 0) & (lag <= before) & (number >= 0) & (jnp.arange(new) < count)[:, None]
    slot = jnp.where(usable, lag, before + 1)
    masses = systems.crystals.masses
    sums_of = []
    for k in range(systems.species_count):
        weight = jnp.where(systems.species == k, masses, 0)
        products = jnp.einsum("stia,si,suia->stu", v, weight, all_)
        sums_of.append(
            jax.vmap(lambda p: jax.ops.segment_sum(p.ravel(), slot.ravel(), before + 2))(products)
        )
    # Once a system is not sane, none of its later frames is.
    sane = jnp.swapaxes(alive, 0, 1)
    pairs_of = jax.vmap(
        lambda s: jax.ops.segment_sum(
            jnp.repeat(s.astype(jnp.int32), before + new, total_repeat_length=slot.size),
            slot.ravel(),
            before + 2,
        )
    )(sane)
    kept = jax.lax.dynamic_slice_in_dim(all_, count, before, axis=1)
    return replace(
        sums,
        vacf=sums.vacf + jnp.stack(sums_of, axis=-1)[:, :-1],
        vacf_origins=sums.vacf_origins + pairs_of[:, :-1],
        velocities=kept,
    )
