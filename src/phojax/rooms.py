"""Padded shapes that several crystals share, so that few functions are compiled for many.

A room has space for a number of atoms and for a graph. Crystals are sorted by size, and the next
smaller one goes into the room of the last as long as the room is not much too large for it:

    size(room shared) <= 1.5 size(its own)                                          (1)

with the size the number of all entries of the graph, which is what its evaluation costs.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phojax.capacities import largest
from phojax.compiled import side_by_side
from phojax.forces import energy_forces_stress
from phojax.potentials.contract import Potential
from phojax.structure import Structure, padded

_WASTE = 1.5


class Room(NamedTuple):
    """Space for a crystal.

    Attributes:
        atoms: That it holds at most.
        capacity: Sizes of its graph.
    """

    atoms: int
    capacity: Hashable

    @property
    def size(self) -> int:
        """Entries of the graph and atoms: what an evaluation costs, in units of its own."""
        return self.atoms + int(sum(jax.tree.leaves(self.capacity)))


def room_of(potential: Potential, crystal: Structure) -> Room:
    """Return the room that a concrete crystal needs; InputError as those of its capacity."""
    return Room(len(crystal), potential.capacity(crystal))


def shared_rooms(rooms: Sequence[Room]) -> list[Room]:
    """Return for each room the one that it shares with others, by eq. (1)."""
    order = sorted(range(len(rooms)), key=lambda n: (-rooms[n].size, -rooms[n].atoms, n))
    shared: dict[int, Room] = {}
    members: list[int] = []
    common: Room | None = None

    def close() -> None:
        for n in members:
            assert common is not None
            shared[n] = common

    for n in order:
        wider = rooms[n] if common is None else merged(common, rooms[n])
        if common is not None and wider.size > _WASTE * rooms[n].size:
            close()
            members, wider = [], rooms[n]
        members.append(n)
        common = wider
    close()
    return [shared[n] for n in range(len(rooms))]


def merged(a: Room, b: Room) -> Room:
    """Return the room that holds whatever one of both does."""
    return Room(max(a.atoms, b.atoms), largest([a.capacity, b.capacity]))


def in_room(crystals: Sequence[Structure], atoms: int) -> Structure:
    """Return concrete crystals padded to `atoms` with atoms of number 0, stacked."""
    inside = [padded(c, atoms) for c in crystals]
    return jax.tree.map(lambda *x: jnp.asarray(np.stack([np.asarray(y) for y in x])), *inside)


@partial(jax.jit, static_argnames="capacity")
def evaluated_together(potential: Potential, crystals: Structure, capacity):
    """Return energies (eV), forces (eV/Å), stresses (eV/Å³) and overflows of stacked crystals."""

    def one(crystal: Structure):
        graph = potential.graph(crystal, capacity)
        return energy_forces_stress(potential, crystal, graph), graph.overflow

    return side_by_side(one, crystals)
