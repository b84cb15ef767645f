"""From shares of elements to a real crystal: whole atoms, and the order of lowest energy."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from phojax.design.problem import Problem, Variables
from phojax.forces import energy
from phojax.potentials.contract import Potential
from phojax.potentials.pair import symbol_number
from phojax.structure import STANDARD_MASSES, Structure, structure

TRIED = 64
"""Orders of the atoms at most of which the energy is looked at."""

_LISTED = 20000


def rounded(given: Problem, x: Variables) -> tuple[Structure, dict[str, Any]] | None:
    """Return a real crystal nearest to shares in the cell of the start, and how it was found.

    Of all orders of the atoms that symmetry does not make equal, that of the lowest energy before
    relaxation. None where no whole numbers of atoms obey the constraints in this cell.

    Facts: "amounts" (mixture, element), "orders" there are, and "tried" of them.
    """
    if "shares" not in x:
        return given.start, {"amounts": [], "orders": 1, "tried": 1}
    assert given.composition is not None
    amounts = given.composition.nearest_whole(x["shares"])
    if amounts is None:
        return None
    orders, complete = _orders(given, amounts)
    tried = orders[:TRIED]
    best = tried[0]
    if len(tried) > 1:
        best = min(tried, key=lambda numbers: _energy(given, numbers))
    facts = {
        "amounts": amounts.tolist(), "orders": len(orders) if complete else None,
        "tried": len(tried),
    }  # fmt: skip
    return _crystal(given, best), facts


def _crystal(given: Problem, numbers: np.ndarray) -> Structure:
    """Return the last crystal of the descent, or the start, with other elements on its sites."""
    at = given.start if given._last is None else given._last
    masses = np.where(given.sites >= 0, STANDARD_MASSES[numbers], given.start.masses)
    return structure(at.cell, at.positions, numbers, masses)


def _energy(given: Problem, numbers: np.ndarray) -> float:
    crystal, model = _crystal(given, numbers), given.potential
    return float(_energy_of(model, crystal, model.capacity(crystal)))


@partial(jax.jit, static_argnames="capacity")
def _energy_of(model: Potential, crystal: Structure, capacity):
    return energy(model, crystal, model.graph(crystal, capacity))


def _orders(given: Problem, amounts: np.ndarray) -> tuple[list[np.ndarray], bool]:
    """Return atomic numbers of orders that no operation of the group relates; whether of all."""
    numbers = np.array([symbol_number(symbol) for symbol in given.elements])
    seen: set[bytes] = set()
    found = []
    each = [_words(np.flatnonzero(given.sites == k), row) for k, row in enumerate(amounts)]
    looked = 0
    for words in itertools.product(*each):
        looked += 1
        if looked > _LISTED:
            return found, False
        labels = np.array(given.start.numbers)
        for where, word in words:
            labels[where] = numbers[list(word)]
        if labels.tobytes() in seen:
            continue
        found.append(labels)
        for permutation in given.group.permutation:
            moved = np.empty_like(labels)
            moved[permutation] = labels
            seen.add(moved.tobytes())
    return found, True


def _words(where: np.ndarray, amounts: np.ndarray) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """Return all ways to put so many of each element on some sites, up to a number."""
    found = itertools.islice(_arrangements(tuple(int(n) for n in amounts)), _LISTED)
    return [(where, word) for word in found]


def _arrangements(amounts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if sum(amounts) == 0:
        yield ()
        return
    for place, count in enumerate(amounts):
        if count:
            rest = tuple(n - (k == place) for k, n in enumerate(amounts))
            for word in _arrangements(rest):
                yield (place, *word)


__all__ = ["TRIED", "rounded"]
