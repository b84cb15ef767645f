"""Pair potentials: Lennard-Jones, Morse, Buckingham, and harmonic springs.

    E = ½ Σ_(i,j,L) s(r) φ(r; p_ij),   r = |r_j + L A - r_i| < cutoff               (1)
    s(r) = 1 - t⁴ (35 - 84 t + 70 t² - 20 t³),   t = (r - onset) / (cutoff - onset)   (2)

The switch s is 1 below `onset` and 0 at `cutoff`; it is the polynomial of lowest degree whose
first three derivatives vanish at both ends, so energy, forces, force constants and third-order
force constants are continuous. With onset = cutoff there is no switch: eq. (1) is then the bare
lattice sum up to the cutoff, which jumps when a pair crosses it.

Parameters are (element, element) tables, symmetric, over the sorted elements of the potential.

Every pair is in a list twice, as (i, j, L) and (j, i, -L), with opposite r = r_j + L A - r_i. What
j contributes to the change of one is what i contributes to that of the other, so

    dE = ½ Σ_(i,j,L) (sφ)'(r) r/r · (L dA - 2 dr_i)                                  (3)

needs the sum over the neighbours of each atom alone, and nothing is sent to j.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Array, Float, Int

from phojax.checks import fail
from phojax.neighbors import (
    Neighbors,
    PairCapacity,
    gather,
    neighbor_list,
    pair_capacity,
    separation_components,
)
from phojax.potentials.contract import Potential
from phojax.structure import MIXTURE, Structure

PairTable = Mapping[tuple[str, str], tuple[float, ...]]


@dataclass(frozen=True)
class Bound:
    """A function with its first arguments filled in.

    Unlike `functools.partial` it compares by value, so potentials that are made alike share
    their compilations.
    """

    function: Callable
    settings: tuple

    def __call__(self, *args: Any) -> Any:
        return self.function(*self.settings, *args)


def lennard_jones(
    pairs: PairTable,
    *,
    cutoff: float,
    onset: float | None = None,
    elements: Iterable[str] = (),
) -> Potential:
    """Return φ = 4ε [(σ/r)¹² - (σ/r)⁶].

    Args:
        pairs: (symbol, symbol) -> (ε in eV, σ in Å). Pairs that are not named do not interact.
        cutoff: Å.
        onset: Where the switch (2) begins, Å; 0.8 cutoff by default, cutoff for no switch.
        elements: Further symbols that may be present and do not interact.

    Raises:
        InputError: unknown symbols, a pair named twice, a wrong number of parameters, an onset
            outside (0, cutoff].
    """
    idle = {"epsilon": 0.0, "sigma": 1.0}
    return _pair_potential("lennard_jones", _lennard_jones, idle, pairs, cutoff, onset, elements)


def morse(
    pairs: PairTable,
    *,
    cutoff: float,
    onset: float | None = None,
    elements: Iterable[str] = (),
) -> Potential:
    """Return φ = D [(1 - exp(-a (r - r₀)))² - 1], pairs -> (D in eV, a in 1/Å, r₀ in Å).

    The other arguments and the errors are those of `lennard_jones`.
    """
    idle = {"depth": 0.0, "width": 1.0, "length": 1.0}
    return _pair_potential("morse", _morse, idle, pairs, cutoff, onset, elements)


def buckingham(
    pairs: PairTable,
    *,
    cutoff: float,
    onset: float | None = None,
    elements: Iterable[str] = (),
) -> Potential:
    """Return φ = A exp(-r/ρ) - C/r⁶, pairs -> (A in eV, ρ in Å, C in eV Å⁶).

    It falls to minus infinity as r -> 0 where C > 0. The other arguments and the errors are
    those of `lennard_jones`.
    """
    idle = {"A": 0.0, "rho": 1.0, "C": 0.0}
    return _pair_potential("buckingham", _buckingham, idle, pairs, cutoff, onset, elements)


def springs(
    pairs: PairTable,
    *,
    cutoff: float,
    onset: float | None = None,
    elements: Iterable[str] = (),
) -> Potential:
    """Return φ = ½ k (r - r₀)², pairs -> (k in eV/Å², r₀ in Å).

    Every pair within the cutoff is joined, so it belongs between two shells of neighbours;
    there is no switch by default. The other arguments and the errors are those of
    `lennard_jones`.
    """
    idle = {"k": 0.0, "length": 1.0}
    onset = cutoff if onset is None else onset
    return _pair_potential("springs", _spring, idle, pairs, cutoff, onset, elements)


def element_index(elements: tuple[int, ...], numbers: Int[Array, " atom"]) -> Int[Array, " atom"]:
    """Return the place of each atom in the sorted `elements`; 0 for padding.

    An element that is not among them gets len(elements): read tables with mode "fill".
    """
    table = jnp.asarray(elements, jnp.int32)
    place = jnp.searchsorted(table, numbers)
    known = table[jnp.minimum(place, len(elements) - 1)] == numbers
    return jnp.where(numbers == 0, 0, jnp.where(known, place, len(elements)))


def switch(r: Float[Array, " pair"], onset: float, cutoff: float) -> Float[Array, " pair"]:
    """Return s(r) of eq. (2), dimensionless; a step at `cutoff` where onset = cutoff."""
    if onset == cutoff:
        return jnp.where(r < cutoff, 1.0, 0.0).astype(r.dtype)
    t = jnp.clip((r - onset) / (cutoff - onset), 0, 1)
    return 1 - t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)


def symbol_number(symbol: str) -> int:
    """Return the atomic number of a chemical symbol; raise InputError if there is none."""
    number = atomic_numbers.get(symbol, 0)
    if number == 0:
        raise fail(f"element {symbol!r}", "a chemical symbol such as 'Na'")
    return number


def pair_graph(cutoff: float, crystal: Structure, capacity: PairCapacity) -> Neighbors:
    """Return the neighbour list, in the order of arguments that `Bound` needs."""
    return neighbor_list(crystal, cutoff, capacity)


def pair_room(cutoff: float, crystal: Structure) -> PairCapacity:
    """Return the capacity of `pair_graph` for a concrete crystal."""
    return pair_capacity(crystal, cutoff, table=True)


def pair_reach(cutoff: float, skin: float) -> tuple[Callable, Callable]:
    """Return `pair_graph` and `pair_room` of a cutoff that is longer by the skin (Å)."""
    return Bound(pair_graph, (cutoff + skin,)), Bound(pair_room, (cutoff + skin,))


def half_sum(form: Callable, p: Any, crystal: Structure, neighbors: Neighbors) -> Float[Array, ""]:
    """Return ½ Σ form(r, p) over all pairs of a neighbour list, eq. (3) its derivative.

    Args:
        form: (r in Å, p) -> its value, pair by pair; 0 for padding.
        p: Arrays by name, one value for all pairs or one per pair; the same for (i, j, L) and
            (j, i, -L).
        crystal: Differentiable in positions and cell, as often as `form` is.
        neighbors: Of the crystal, complete within the reach of `form`.
    """
    if neighbors.others.phase is not None:  # (3) is for displacements that repeat with the cell
        return _half_sum(form, p, crystal, neighbors)
    return _half_sum_at_once(form, p, crystal, neighbors)


def _half_sum(form, p, crystal: Structure, neighbors: Neighbors) -> Float[Array, ""]:
    return jnp.sum(form(_lengths(separation_components(crystal, neighbors)), p)) / 2


_half_sum_at_once = partial(jax.custom_jvp, nondiff_argnums=(0,))(_half_sum)


@_half_sum_at_once.defjvp
def _half_sum_jvp(form, primals, tangents):
    (p, crystal, neighbors), (dp, moved, _) = primals, tangents
    apart = separation_components(crystal, neighbors)
    r = _lengths(apart)
    value, slope = jax.value_and_grad(lambda r: jnp.sum(form(r, p)))(r)
    _, changed = jax.jvp(lambda p: jnp.sum(form(r, p)), (p,), (dp,))
    images = neighbors.others.image.astype(r.dtype)
    for axis, x in enumerate(apart):
        stretch = sum(images[:, k] * moved.cell[k, axis] for k in range(3))
        centers = gather(moved.positions[:, axis], neighbors.centers)
        # The rows of padding that `gather` reads are arbitrary; their slope is 0.
        changed += jnp.sum(slope / r * x * (stretch - 2 * centers))
    return value / 2, changed / 2


def _lengths(apart) -> Float[Array, " pair"]:
    x, y, z = apart
    return jnp.sqrt(x**2 + y**2 + z**2)


def _pair_potential(name, form, idle, pairs, cutoff, onset, others) -> Potential:
    onset = 0.8 * cutoff if onset is None else onset
    if not 0 < onset <= cutoff:
        raise fail(f"onset {onset} Å with a cutoff of {cutoff} Å", "0 < onset <= cutoff")
    if not pairs:
        raise fail(f"{name} without pairs", "at least one pair of elements with its parameters")
    elements = tuple(sorted({symbol_number(s) for pair in (*pairs, others) for s in pair}))
    tables = {key: np.full((len(elements),) * 2, value) for key, value in idle.items()}
    named = set()
    for pair, values in pairs.items():
        if len(pair) != 2 or len(values) != len(idle) or not np.all(np.isfinite(values)):
            raise fail(f"{name} parameters {pair}: {values}",
                       f"two elements and finite ({', '.join(idle)})")  # fmt: skip
        a, b = sorted(elements.index(symbol_number(s)) for s in pair)
        if (a, b) in named:
            raise fail(f"{name} parameters for {pair} given twice", "each pair once")
        named.add((a, b))
        for table, value in zip(tables.values(), values, strict=True):
            table[a, b] = table[b, a] = value
    return Potential(
        name=name,
        carries_waves=True,
        params={key: jnp.asarray(table) for key, table in tables.items()},
        energy=Bound(_energy, (form, elements, float(onset), float(cutoff))),
        graph=Bound(pair_graph, (float(cutoff),)),
        capacity=Bound(pair_room, (float(cutoff),)),
        elements=frozenset(elements),
        cutoff=float(cutoff),
        reaching=Bound(pair_reach, (float(cutoff),)),
        mixed=Bound(_mixed, (form, elements, float(onset), float(cutoff))),
    )


def _energy(form, elements, onset, cutoff, params, crystal, neighbors):
    """Return eq. (1) in eV."""
    # Integers carry no tangents: they are read without `gather`.
    kind = element_index(elements, crystal.numbers)
    a, b = kind[neighbors.centers.index], kind[neighbors.others.index]
    p = {k: table.at[a, b].get(mode="fill", fill_value=jnp.nan) for k, table in params.items()}
    return half_sum(Bound(_switched, (form, onset, cutoff)), p, crystal, neighbors)


def _mixed(form, elements, onset, cutoff, mixed: tuple[int, ...]):
    settings = form, elements, onset, cutoff, mixed
    return Bound(_mixed_energy, settings), Bound(pair_room, (cutoff,))


def _mixed_energy(form, elements, onset, cutoff, mixed, params, crystal, neighbors):
    """Return eq. (1) with φ_ij = Σ_st p_is p_jt φ_st for atoms that are mixtures."""
    shares = element_shares(elements, mixed, params["shares"], crystal.numbers)
    tables = params["pure"]
    p = {"first": shares[neighbors.centers.index], "second": shares[neighbors.others.index]}
    count = len(elements)
    p |= {
        f"{key}-{a}-{b}": table[a, b]
        for key, table in tables.items() for a in range(count) for b in range(count)
    }  # fmt: skip
    how = Bound(_switched_mixed, (form, onset, cutoff, count, tuple(tables)))
    return half_sum(how, p, crystal, neighbors)


def _switched_mixed(form, onset, cutoff, count, keys, r, p):
    total = jnp.zeros_like(r)
    for a in range(count):
        for b in range(count):
            pure = form(r, **{key: p[f"{key}-{a}-{b}"] for key in keys})
            total += p["first"][:, a] * p["second"][:, b] * pure
    return total * switch(r, onset, cutoff)


def element_shares(
    elements: tuple[int, ...], mixed: tuple[int, ...], shares, numbers: Int[Array, " atom"]
) -> Float[Array, "atom element"]:
    """Return the share of each of `elements` in each atom: 1 for pure ones, mixtures as given.

    Args:
        elements: Sorted, of a potential.
        mixed: Those that the columns of `shares` are of, among them.
        shares: (mixture, element) of mixtures.
        numbers: Of the atoms; NaN for elements that are not known, 0 for padding.
    """
    place = np.array([elements.index(z) for z in mixed])
    whole = jnp.zeros((len(shares), len(elements)), shares.dtype).at[:, place].set(shares)
    kind = element_index(elements, numbers)
    pure = jnp.eye(len(elements)).at[kind].get(mode="fill", fill_value=jnp.nan)
    mixtures = whole[jnp.clip(numbers - MIXTURE, 0, len(shares) - 1)]
    found = jnp.where((numbers >= MIXTURE)[:, None], mixtures, pure)
    return jnp.where((numbers > 0)[:, None], found, 0.0)


def _switched(form, onset, cutoff, r, p):
    return form(r, **p) * switch(r, onset, cutoff)


def _lennard_jones(r, epsilon, sigma):
    sixth = (sigma / r) ** 6
    return 4 * epsilon * (sixth**2 - sixth)


def _morse(r, depth, width, length):
    return depth * ((1 - jnp.exp(-width * (r - length))) ** 2 - 1)


def _buckingham(r, A, rho, C):
    return A * jnp.exp(-r / rho) - C / r**6


def _spring(r, k, length):
    return k * (r - length) ** 2 / 2
