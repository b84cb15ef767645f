"""Responses of a supercell in parts: over an ensemble of displacements, in threads, to be taken up.

    shift = ± σ ξ,   ξ ~ N(0, 1) for every coordinate                                      (1)

A part is one sign of one pair ±ξ, or some rows of it. Finished parts are kept by name, so that
whoever calls can store them and go on later.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import fail
from phojax.potentials.contract import Potential

_IN_TILES = {1: 1.0, 2: 1.5, 4: 2.4}
"""Cost of so many rows side by side: they share what does not depend on the direction."""


@dataclass(frozen=True)
class Ensemble:
    """Displacements of eq. (1) in pairs; none where the width is 0.

    Attributes:
        width: σ, Å.
        pairs: How many ±ξ.
        key: Random key of ξ; needed where the width is not 0.

    Raises:
        InputError: a negative width, or one above 0 without pairs or key.
    """

    width: float
    pairs: int
    key: jax.Array | None

    def __post_init__(self) -> None:
        if self.width < 0 or (self.width > 0 and (self.pairs < 1 or self.key is None)):
            raise fail(
                f"width {self.width} Å with {self.pairs} pairs and "
                f"{'a' if self.key is not None else 'no'} key",
                "a width of at least 0 and, above 0, at least one pair and a random key",
            )

    @property
    def count(self) -> int:
        """Number of estimates: pairs, or one without an ensemble."""
        return self.pairs if self.width > 0 else 1

    @property
    def signs(self) -> tuple[int, ...]:
        """Of the displacements of a pair."""
        return (1, -1) if self.width > 0 else (0,)

    def shift(self, pair: int, sign: int, atoms: int) -> Float[Array, "atom 3"]:
        """Return eq. (1)."""
        if self.key is None or self.width == 0:
            return jnp.zeros((atoms, 3))
        return sign * self.width * gaussian_displacements(self.key, pair, atoms)


def gaussian_displacements(key: jax.Array, pair: int, atoms: int) -> Float[Array, "atom 3"]:
    """Return ξ of eq. (1) for one pair: standard normal, the same for every width."""
    return jax.random.normal(jax.random.fold_in(key, pair), (atoms, 3), float)


def at_a_time(
    potential: Potential, batch: int | None, workers: int | None, rows: Sequence[int] = (1,)
) -> tuple[int, int]:
    """Return rows and parts at a time; the defaults are what suits the device.

    On a CPU networks of this size leave most of it idle: a thread per core.

    Args:
        potential: That is evaluated.
        batch: Rows at a time, if asked for.
        workers: Parts at a time, if asked for.
        rows: How many have a graph in common, of every crystal that shares the compiled function.
    """
    in_cpu = jax.default_backend() == "cpu" and not potential.on_host
    if potential.on_host:
        workers = 1
    elif workers is None:
        workers = (os.cpu_count() or 1) if in_cpu else 1
    if batch is None and in_cpu:
        costs = _IN_TILES if potential.in_tiles else {1: 1.0}
        batch = min(costs, key=lambda b: costs[b] * sum(-(-n // b) for n in rows))
    return batch or 16, workers


def responses_in_parts(
    evaluate: Callable[[Float[Array, "atom 3"], int, int], np.ndarray],
    ensemble: Ensemble,
    atoms: int,
    rows: int,
    size: int,
    *,
    workers: int,
    on_part: Callable[[int, int], None] | None = None,
    done: dict[str, np.ndarray] | None = None,
) -> Float[np.ndarray, "estimate row atom 3"]:
    """Return the responses of every estimate, the mean over both signs of its pair.

    Args:
        evaluate: (shift in Å, first row, rows at most) -> responses of these rows.
        ensemble: What is averaged over.
        atoms: Of the supercell.
        rows: In all.
        size: Rows of a part.
        workers: Parts at a time.
        on_part: Called with (parts finished, parts in all) before the first and after each one.
        done: Responses of parts computed before, by name; finished ones are added to it, and those
            of another size are dropped.
    """
    parts = {
        f"{pair}:{sign}:{start}": (pair, sign, start)
        for pair in range(ensemble.count)
        for sign in ensemble.signs
        for start in range(0, rows, size)
    }
    done = {} if done is None else done
    for name, (_, _, start) in parts.items():  # parts of another machine may hold other rows
        if name in done and len(done[name]) != min(size, rows - start):
            del done[name]

    def part(pair: int, sign: int, start: int) -> np.ndarray:
        return evaluate(ensemble.shift(pair, sign, atoms), start, size)

    with ThreadPoolExecutor(workers) as pool:
        waiting = {name: pool.submit(part, *parts[name]) for name in parts if name not in done}
        try:
            finished = len(parts) - len(waiting)
            if on_part is not None:
                on_part(finished, len(parts))
            for name, future in waiting.items():
                done[name] = future.result()
                finished += 1
                if on_part is not None:
                    on_part(finished, len(parts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    found = np.concatenate([done[name] for name in parts])
    return found.reshape(ensemble.count, len(ensemble.signs), rows, atoms, 3).mean(axis=1)


__all__ = ["Ensemble", "at_a_time", "gaussian_displacements", "responses_in_parts"]
