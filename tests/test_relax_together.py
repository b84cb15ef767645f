"""Relaxations side by side end where each of them ends alone, whatever becomes of the others."""

import itertools

import jax
import numpy as np
import pytest
from ase.build import bulk

from phojax import relax_together as together
from phojax.checks import InputError
from phojax.convert import structure_from_ase
from phojax.potentials.catalogue import potential
from phojax.relax import relax, relaxing
from phojax.rooms import COMPILATION, Room, room_of, shared_rooms
from phojax.structure import padded

ARGON = potential("lj:Ar")
TIGHT = {"force_tolerance": 1e-9, "stress_tolerance": 1e-11}


def crystals():
    rng = np.random.default_rng(4)
    out = [
        bulk("Ar", "fcc", a=5.1, cubic=True), bulk("Ar", "hcp", a=3.9, c=6.0),
        bulk("Ar", "fcc", a=5.6).repeat((2, 1, 1)), bulk("Ar", "fcc", a=5.3),
    ]  # fmt: skip
    for atoms in out:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return [structure_from_ase(atoms) for atoms in out]


@pytest.fixture(scope="module")
def alone():
    return [relax(ARGON, crystal, **TIGHT) for crystal in crystals()]


def driven(slots: int, **how):
    given = crystals()
    rooms = shared_rooms([room_of(ARGON, crystal) for crystal in given])
    descents = [relaxing(crystal, **TIGHT) for crystal in given]
    return together.driven_together(descents, rooms, ARGON, slots=slots, **how)


@pytest.mark.parametrize("slots", [1, 3])
def test_each_ends_where_it_ends_alone(slots, alone):
    seen = []
    found = driven(slots, on_end=lambda number, end: seen.append(number))
    assert sorted(seen) == [0, 1, 2, 3]
    for one, other in zip(found, alone, strict=True):
        assert one.converged
        np.testing.assert_allclose(one.energy_eV, other.energy_eV, rtol=1e-12)
        np.testing.assert_allclose(one.structure.volume, other.structure.volume, rtol=1e-7)


def test_less_memory_than_slots(monkeypatch, alone):
    real, sizes = together.evaluated_together, []

    def little(potential, given, capacity):
        sizes.append(given.cell.shape[0])
        if sizes[-1] > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(potential, given, capacity)

    monkeypatch.setattr(together, "evaluated_together", little)
    found = driven(4)
    assert sizes[0] == 4
    assert set(sizes) == {4, 2, 1}
    assert [end.converged for end in found] == [True] * 4


def test_one_that_fails_stops_no_other():
    given = crystals()

    def failing():
        yield given[0]
        raise InputError("enough")

    rooms = [room_of(ARGON, crystal) for crystal in given[:2]]
    found = together.driven_together([failing(), relaxing(given[1], **TIGHT)], rooms, ARGON)
    assert isinstance(found[0], InputError)
    assert found[1].converged


def test_rooms_hold_what_they_are_shared_by():
    rooms = [room_of(ARGON, crystal) for crystal in crystals()]
    shared = shared_rooms(rooms)
    assert len(set(shared)) < len(rooms)
    for crystal, own, common in zip(crystals(), rooms, shared, strict=True):
        assert common.atoms >= own.atoms
        graph = ARGON.graph(padded(crystal, common.atoms), common.capacity)
        assert not graph.overflow


def test_rooms_are_shared_as_it_costs_least(monkeypatch):
    """By eq. (1) over all ways to cut seven crystals, sorted by size, into runs."""
    sizes = [900, 850, 500, 480, 100, 90, 10]
    often = [1.0, 3, 20, 5, 40, 2, 500]
    alone = [Room(size, ()) for size in sizes]
    for constant in (1.0, 3e3, 1e4, 1e5, 1e7):
        monkeypatch.setitem(COMPILATION, "cpu", constant)
        least = np.inf
        for cuts in itertools.product((False, True), repeat=6):
            edges = [0, *(n + 1 for n, cut in enumerate(cuts) if cut), 7]
            runs = [range(a, b) for a, b in itertools.pairwise(edges)]
            least = min(least, sum(constant + sizes[r[0]] * sum(often[n] for n in r) for r in runs))
        shared = shared_rooms(alone, often)
        found = constant * len(set(shared)) + sum(
            room.size * n for room, n in zip(shared, often, strict=True)
        )
        assert found == least
    assert len(set(shared)) == 1
