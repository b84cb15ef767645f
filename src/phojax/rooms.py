"""Padded shapes that several crystals share, so that few functions are compiled for many.

A room has space for a number of atoms and for a graph. Crystals are sorted by size and cut into
runs, each with a room of its own, so that the whole work costs least:

    Σ_rooms [c + size(room) Σ_crystals in it evaluations]  ->  min                  (1)

with the size the number of all entries of the graph, which is what an evaluation costs, and c what
the compilation of a function costs in these units.
"""

from collections.abc import Hashable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phojax.capacities import largest
from phojax.compiled import side_by_side
from phojax.forces import energy_forces_stress
from phojax.potentials.contract import Potential
from phojax.structure import Structure, padded

COMPILATION = {"cpu": 5e5}
"""c of eq. (1): 5 to 15 s, beside some 20 µs per entry on a laptop."""

_ON_DEVICES = 1e8  # of c: a GPU takes as long to compile, and far less to evaluate
_TOGETHER = 400  # crystals beyond that are cut into such lots first


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


def shared_rooms(rooms: Sequence[Room], evaluations: Sequence[float] | None = None) -> list[Room]:
    """Return for each room the one that it shares with others, by eq. (1).

    Args:
        rooms: Of each crystal its own.
        evaluations: Of each, how often it will be evaluated; 30 times by default.
    """
    often = [30.0] * len(rooms) if evaluations is None else list(evaluations)
    order = sorted(range(len(rooms)), key=lambda n: (-rooms[n].size, -rooms[n].atoms, n))
    shared: dict[int, Room] = {}
    for first in range(0, len(order), _TOGETHER):
        for members in _runs(order[first : first + _TOGETHER], rooms, often):
            common = reduce(merged, (rooms[n] for n in members))
            shared |= dict.fromkeys(members, common)
    return [shared[n] for n in range(len(rooms))]


def _runs(order: list[int], rooms: Sequence[Room], often: list[float]) -> list[list[int]]:
    """Return the cheapest way to cut `order` into runs, by dynamic programming from its end."""
    constant = COMPILATION.get(jax.default_backend(), _ON_DEVICES)
    count = len(order)
    cost, stop = np.zeros(count + 1), np.full(count, count)
    for start in reversed(range(count)):
        common, work, least = rooms[order[start]], 0.0, np.inf
        for end in range(start, count):
            common = merged(common, rooms[order[end]])
            work += often[order[end]]
            found = constant + common.size * work + cost[end + 1]
            if found < least:
                least, stop[start] = found, end + 1
        cost[start] = least
    runs, start = [], 0
    while start < count:
        runs.append(order[start : stop[start]])
        start = stop[start]
    return runs


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
