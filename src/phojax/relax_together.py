"""Many relaxations at once: in every round all of them are evaluated side by side.

Crystals that share a room (see `rooms`) take turns in a number of slots; a descent that ends makes
place for the next, so that the device stays full whatever each of them takes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from phojax.potentials.contract import Potential
from phojax.relax import Descent, Relaxation, Values, potential_surface
from phojax.rooms import Room, evaluated_together, in_room
from phojax.structure import Structure

OnEnd = Callable[[int, "Relaxation | Exception"], None]
"""(number of a descent, its end) -> None."""


@dataclass
class _Turn:
    number: int
    descent: Descent
    wanted: Structure


def driven_together(
    descents: Sequence[Descent],
    rooms: Sequence[Room],
    potential: Potential,
    *,
    slots: int = 1,
    on_end: OnEnd = lambda number, end: None,
) -> list[Relaxation | Exception]:
    """Return the end of every descent, or why it has none, in their order.

    Args:
        descents: As `relax.relaxing` returns them.
        rooms: For each one the room it shares; left where a crystal outgrows it.
        potential: What evaluates.
        slots: Crystals evaluated side by side; halved where the device has no memory for them.
        on_end: Called as soon as one ends.
    """
    ends: dict[int, Relaxation | Exception] = {}

    def ended(number: int, end: Relaxation | Exception) -> None:
        ends[number] = end
        on_end(number, end)

    for room in dict.fromkeys(rooms):
        waiting = deque(n for n, own in enumerate(rooms) if own == room)
        turns: list[_Turn] = []
        while waiting or turns:
            while waiting and len(turns) < slots:
                number = waiting.popleft()
                _advance(turns, number, descents[number], None, ended)
            if not turns:
                continue
            now, turns = turns, []
            try:
                found, slots = _within_memory(potential, [t.wanted for t in now], room, slots)
            except jax.errors.JaxRuntimeError as error:  # not even one of them
                for turn in now:
                    ended(turn.number, error)
                continue
            for turn, values in zip(now, found, strict=True):
                _advance(turns, turn.number, turn.descent, values, ended)
    return [ends[n] for n in range(len(descents))]


def out_of_memory(error: BaseException) -> bool:
    """Return whether the device says that it has no memory for this."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


def _advance(turns: list[_Turn], number: int, descent: Descent, values, ended: OnEnd) -> None:
    """Send values to a descent: it takes another turn, or it ends."""
    try:
        turns.append(_Turn(number, descent, descent.send(values)))
    except StopIteration as end:
        ended(number, end.value)
    except Exception as error:  # one bad crystal never stops the others
        ended(number, error)


def _within_memory(
    potential: Potential, crystals: list[Structure], room: Room, slots: int
) -> tuple[list[Values], int]:
    """Return the values of all, and how many slots the device had memory for."""
    while True:
        try:
            parts = [crystals[n : n + slots] for n in range(0, len(crystals), slots)]
            return [v for part in parts for v in _values(potential, part, room, slots)], slots
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error) or slots == 1:
                raise
            slots //= 2


def _values(
    potential: Potential, crystals: list[Structure], room: Room, slots: int
) -> list[Values]:
    # Filled up with copies: one shape whether all slots are taken or not.
    filled = crystals + crystals[-1:] * (slots - len(crystals))
    found, overflow = evaluated_together(potential, in_room(filled, room.atoms), room.capacity)
    energies, forces, stresses = (np.asarray(x) for x in found)
    out: list[Values] = []
    for n, crystal in enumerate(crystals):
        if overflow[n]:
            out.append(potential_surface(potential, crystal)(crystal))
        else:
            out.append((energies[n], forces[n, : len(crystal)], stresses[n]))
    return out
