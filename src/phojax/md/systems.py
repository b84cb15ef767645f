"""Crystals that move side by side: padded to one number of atoms, each with its temperature."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Array, Bool, Float, Int

from phojax.checks import fail
from phojax.md.trajectory import host_of
from phojax.pytree import pytree
from phojax.structure import Structure, padded


@pytree(static=("species_count",))
class Systems:
    """Independent copies of crystals; replicas and temperatures count as systems of their own.

    Attributes:
        crystals: Structures with a leading axis for the system, padded with atoms of number 0.
        temperatures: K.
        host_weights: Share of each atom in the centre of mass that defines the frame of reference
            (PHYSICS E2).
        species: Place of each atom's element among the distinct ones of its system, ascending;
            species_count for padding.
        mobile: Whether an atom is of the mobile element.
        keys: Of the random numbers of each system.
        species_count: Most elements in one system.
    """

    crystals: Structure
    temperatures: Float[Array, " system"]
    host_weights: Float[Array, "system atom"]
    species: Int[Array, "system atom"]
    mobile: Bool[Array, "system atom"]
    keys: jax.Array
    species_count: int

    def __len__(self) -> int:
        return self.temperatures.shape[0]

    @property
    def real(self) -> Bool[Array, "system atom"]:
        """False for padding."""
        return self.crystals.numbers > 0


def systems(
    crystals: Sequence[Structure],
    temperatures: Sequence[float],
    mobile: Sequence[str] | str,
    *,
    seed: int = 0,
    replicas: Sequence[int] | None = None,
    atoms: int | None = None,
    species_count: int | None = None,
) -> Systems:
    """Return crystals side by side.

    The random numbers of a system depend on seed, temperature and replica alone, not on what
    moves beside it.

    Args:
        crystals: Concrete, one per system, in float64.
        temperatures: K, one per system.
        mobile: Symbol of the mobile element, of all or one per system.
        seed: Of the random numbers.
        replicas: Number of each system among its replicas; 0 by default.
        atoms: Padded number of atoms; that of the largest by default.
        species_count: Padded number of elements; the largest by default.

    Raises:
        InputError: no mobile ion, temperatures that are not positive, lists of unequal length.
    """
    count = len(crystals)
    symbols = [mobile] * count if isinstance(mobile, str) else list(mobile)
    numbers = list(replicas) if replicas is not None else [0] * count
    if not count or not (len(temperatures) == len(symbols) == len(numbers) == count):
        raise fail(
            f"{count} crystals, {len(temperatures)} temperatures, {len(numbers)} replicas",
            "as many of each, at least one",
        )
    for T in temperatures:
        if not (np.isfinite(T) and T > 0):
            raise fail(f"a temperature of {T} K", "a positive one")
    size = atoms or max(len(c) for c in crystals)
    rows = []
    for crystal, symbol in zip(crystals, symbols, strict=True):
        Z = np.asarray(crystal.numbers)
        if symbol not in crystal.symbols:
            raise fail(
                f"the structure holds {', '.join(sorted(set(crystal.symbols) - {'X'}))}",
                f"the mobile element {symbol} among them",
                "Name another one with --mobile",
            )
        mobile_number = atomic_numbers[symbol]
        host = np.where(host_of(Z, mobile_number), np.asarray(crystal.masses), 0.0)
        distinct = np.unique(Z[Z > 0])
        extra = (0, size - len(crystal))
        rows.append(
            (
                padded(crystal, size),
                jnp.asarray(np.pad(host / host.sum(), extra)),
                np.pad(np.searchsorted(distinct, Z), extra, constant_values=-1),
                jnp.asarray(np.pad(mobile_number == Z, extra)),
                len(distinct),
            )
        )
    most = species_count or max(row[4] for row in rows)
    species = np.array([np.where(row[2] < 0, most, row[2]) for row in rows])
    root = jax.random.key(seed)
    keys = [
        jax.random.fold_in(jax.random.fold_in(root, round(T * 1000)), replica)
        for T, replica in zip(temperatures, numbers, strict=True)
    ]
    return Systems(
        crystals=jax.tree.map(lambda *x: jnp.stack(x), *(row[0] for row in rows)),
        temperatures=jnp.asarray(temperatures, float),
        host_weights=jnp.stack([row[1] for row in rows]),
        species=jnp.asarray(species, jnp.int32),
        mobile=jnp.stack([row[3] for row in rows]),
        keys=jnp.stack(keys),
        species_count=most,
    )
