"""Point charges in a periodic crystal by Ewald's summation, and sums of potentials.

With k_e = e²/4πε₀, charges q in e, G = 2π h A⁻ᵀ for integer h, S(G) = Σ_j q_j exp(iG·r_j):

    E = E_real + E_reciprocal + E_self + E_background                                  (1)
    E_real       = ½ k_e Σ_(i,j,L) q_i q_j erfc(η r)/r,   r < cutoff                  (2)
    E_reciprocal = (2π k_e / V) Σ_(G≠0) exp(-G²/4η²)/G² |S(G)|²,   |G| < G_max        (3)
    E_self       = -k_e η/√π Σ_i q_i²                                                  (4)
    E_background = -π k_e (Σ_i q_i)² / (2 V η²)                                        (5)

η = s/cutoff and G_max = 2ηs with exp(-s²) = accuracy: the same for all cells, so cells of
different size agree to rounding and the energy is smooth under strain. The vectors h are listed
with the neighbours: at a fixed graph E is an analytic function of positions and cell. Boundary
conditions are those of a conductor at infinity (no dipole term).
Cells that are not neutral are refused; eq. (5) is kept so that derivatives with respect to one
charge do not depend on η.
Source: de Leeuw, Perram, Smith, Proc. R. Soc. Lond. A 373, 27 (1980), eqs. 1.4-1.6.

The sum (3) is not made of neighbours. For displacements u_j exp(2πi q·L) in cell L, K = G + q,

    Φ(q) u of (3) = (4π k_e / V) q_i { Σ_K f(K) K exp(iK·r_i) Σ_j q_j K·u_j exp(-iK·r_j)
                    - Σ_(G≠0) f(G) G (G·u_i) Re[exp(iG·r_i) S(-G)] },  f(K) = exp(-K²/4η²)/K²   (6)

with K = 0 left out at Γ, or taken as its limit from one side: the non-analytic term.
"""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phojax.bloch_waves import AXIS, OF_ENERGY, Order, other_part
from phojax.checks import fail
from phojax.neighbors import (
    Neighbors,
    PairCapacity,
    bucket,
    carrying,
    neighbor_list,
    pair_capacity,
)
from phojax.potentials.contract import Potential
from phojax.potentials.pair import (
    Bound,
    element_index,
    element_shares,
    half_sum,
    symbol_number,
)
from phojax.pytree import pytree
from phojax.structure import Structure
from phojax.units import COULOMB


class EwaldCapacity(NamedTuple):
    """Static sizes: of the neighbour list, of the box that h is searched in, of the list of h."""

    pairs: PairCapacity
    box: tuple[int, int, int]
    vectors: int

    def grown(self, factor: float) -> "EwaldCapacity":
        """Return sizes with more room for pairs: at one cell the vectors stay the same."""
        return self._replace(pairs=self.pairs.grown(factor))


@pytree()
class EwaldGraph:
    """Neighbours for eq. (2) and vectors h for eq. (3), one of each ±h, zeros for padding.

    `wave` is q and the side that Γ is approached from, where tangents are Bloch waves.
    """

    neighbors: Neighbors
    vectors: Int[Array, "G 3"]
    overflow: Bool[Array, ""]
    wave: tuple[Float[Array, "3"], Float[Array, "3"]] | None = None

    def carrying(
        self, q: Float[Array, "3"], toward: Float[Array, "3"], order: Order = OF_ENERGY
    ) -> "EwaldGraph":
        """Return the graph whose tangents are Bloch waves of q (fractional)."""
        return replace(self, neighbors=carrying(self.neighbors, q, toward, order), wave=(q, toward))


@pytree()
class SummedGraph:
    """The graphs of the parts of a sum."""

    parts: tuple
    overflow: Bool[Array, ""]


def ewald(
    charges: Mapping[str, float], *, cutoff: float = 8.0, accuracy: float = 1e-14
) -> Potential:
    """Return the Coulomb energy of point charges, eq. (1).

    Args:
        charges: Symbol -> charge in units of e.
        cutoff: Å, of eq. (2). A longer one makes eq. (3) shorter.
        accuracy: Relative size of the largest terms left out of eqs. (2) and (3).

    Raises:
        InputError: unknown symbols, a cutoff or accuracy out of range; by `capacity` (hence by
            `forces.evaluate`) for a cell that is not neutral with these charges.
    """
    if not (cutoff > 0 and 0 < accuracy < 1e-2):
        raise fail(f"cutoff {cutoff} Å and accuracy {accuracy}", "cutoff > 0, 0 < accuracy < 0.01")
    if not charges or not all(np.isfinite(q) for q in charges.values()):
        raise fail(f"charges {dict(charges)}", "a finite charge in e for each element")
    by_number = {symbol_number(s): float(q) for s, q in charges.items()}
    elements = tuple(sorted(by_number))
    values = tuple(by_number[z] for z in elements)
    s = float(np.sqrt(-np.log(accuracy)))
    eta, cutoff = s / cutoff, float(cutoff)
    reach = 2 * eta * s
    return Potential(
        name="ewald",
        carries_waves=True,
        params={"charges": jnp.asarray(values)},
        energy=Bound(_energy, (elements, eta, cutoff)),
        graph=Bound(_graph, (cutoff, reach)),
        capacity=Bound(_capacity, (elements, values, cutoff, reach, 0.0)),
        elements=frozenset(elements),
        cutoff=cutoff,
        reaching=Bound(_reaching, (elements, values, cutoff, reach)),
        mixed=Bound(_mixed, (elements, eta, cutoff, reach)),
    )


def _mixed(elements, eta, cutoff, reach, mixed: tuple[int, ...]):
    # Whether a mixture is neutral depends on its shares: see `alchemy`.
    return (
        Bound(_mixed_energy, (elements, eta, cutoff, mixed)),
        Bound(_sizes, (cutoff, reach, 0.0)),
    )


def _mixed_energy(elements, eta, cutoff, mixed, params, crystal, graph):
    """Return eq. (1) with the mean charge of mixtures."""
    shares = element_shares(elements, mixed, params["shares"], crystal.numbers)
    q = shares @ params["pure"]["charges"]
    return _energy_of_charges(q.astype(crystal.positions.dtype), eta, cutoff, crystal, graph)


def summed(*potentials: Potential, name: str = "", provenance: str = "") -> Potential:
    """Return the sum of potentials, its parameters the tuple of theirs.

    Raises:
        InputError: no potentials, or potentials without a common element.
    """
    if not potentials:
        raise fail("a sum of no potentials", "at least one")
    known = [p.elements for p in potentials if p.elements is not None]
    elements = frozenset.intersection(*known) if known else None
    if elements is not None and not elements:
        raise fail(f"the sum of {', '.join(p.name for p in potentials)}",
                   "potentials with a common element")  # fmt: skip
    return Potential(
        name=name or " + ".join(p.name for p in potentials),
        carries_waves=all(p.carries_waves for p in potentials),
        params=tuple(p.params for p in potentials),
        energy=Bound(_summed_energy, (tuple(p.energy for p in potentials),)),
        graph=Bound(_summed_graph, (tuple(p.graph for p in potentials),)),
        capacity=Bound(_summed_capacity, (tuple(p.capacity for p in potentials),)),
        elements=elements,
        cutoff=max(p.cutoff for p in potentials),
        reaching=_summed_reaching([p.reaching for p in potentials]),
        mixed=_summed_mixing([p.mixed for p in potentials]),
        provenance=provenance or "; ".join(p.provenance for p in potentials if p.provenance),
    )


def _energy(elements, eta, cutoff, params, crystal, graph):
    """Return eq. (1) in eV; atoms of number 0 carry no charge."""
    kind = element_index(elements, crystal.numbers)
    q = params["charges"].at[kind].get(mode="fill", fill_value=jnp.nan)
    q = jnp.where(crystal.numbers > 0, q, 0).astype(crystal.positions.dtype)
    return _energy_of_charges(q, eta, cutoff, crystal, graph)


def _energy_of_charges(q, eta, cutoff, crystal, graph):
    total = jnp.sum(q)
    constant = -eta / np.sqrt(np.pi) * jnp.sum(q**2)
    background = -np.pi * total**2 / (2 * crystal.volume * eta**2)
    real = _real_space(q, eta, cutoff, crystal, graph.neighbors)
    reciprocal: Any
    if graph.wave is None:
        reciprocal = _reciprocal(q, eta, crystal, graph.vectors)
    else:
        given = (q, crystal.cell, graph.vectors.astype(crystal.cell.dtype), *graph.wave)
        reciprocal = _reciprocal_wave(eta, crystal.positions, *given)
    return COULOMB * (real + reciprocal + constant + background)


def _real_space(q, eta, cutoff, crystal, neighbors) -> Float[Array, ""]:
    # A charge is a property of a site, not of its displacement: read without `gather`.
    charge = q[neighbors.centers.index] * q[neighbors.others.index]
    return half_sum(Bound(_screened, (eta, cutoff)), {"charge": charge}, crystal, neighbors)


def _screened(eta, cutoff, r, p):
    return jnp.where(r < cutoff, p["charge"] * jax.scipy.special.erfc(eta * r) / r, 0)


def _reciprocal(q, eta, crystal, vectors) -> Float[Array, ""]:
    return _reciprocal_sum(
        eta, crystal.positions, q, crystal.cell, vectors.astype(crystal.cell.dtype)
    )


def _reciprocal_sum(eta, x, q, cell, h) -> Float[Array, ""]:
    G, weight = _weighted(eta, cell, h)
    phase = x @ G.T
    power = (q @ jnp.cos(phase)) ** 2 + (q @ jnp.sin(phase)) ** 2
    return 2 * jnp.sum(weight * power)  # twice: G and -G


def _weighted(eta, cell, h, q=0.0) -> tuple[Float[Array, "G 3"], Float[Array, " G"]]:
    """Return K = G + q and its weight 2π f(K)/V in eq. (3); 0 for K = 0."""
    K = 2 * np.pi * (h + q) @ jnp.linalg.inv(cell).T
    used = jnp.any(h + q != 0, axis=1)
    # Both branches of `where` are differentiated: keep padding away from 1/0.
    squared = jnp.where(used, jnp.sum(K**2, axis=1), 1.0)
    weight = jnp.where(used, jnp.exp(-squared / (4 * eta**2)) / squared, 0)
    return K, 2 * np.pi / jnp.abs(jnp.linalg.det(cell)) * weight


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _reciprocal_wave(eta, x, q, cell, h, wave, toward) -> Any:
    """Return eq. (3) with eq. (6) as its second derivative, the first one along a wave or not."""
    return _reciprocal_sum(eta, x, q, cell, h)


@_reciprocal_wave.defjvp
def _reciprocal_wave_jvp(eta, primals, tangents):
    return _reciprocal_sum(eta, *primals[:4]), jnp.sum(_slope(eta, *primals) * tangents[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _slope(eta, x, q, cell, h, wave, toward) -> Float[Array, "atom 3"]:
    return _slope_at_rest(eta, x, q, cell, h)


def _slope_at_rest(eta, x, q, cell, h):
    return jax.grad(_reciprocal_sum, argnums=1)(eta, x, q, cell, h)


@_slope.defjvp
def _slope_jvp(eta, primals, tangents):
    x, q, cell, h, wave, toward = primals
    mine = tangents[0]
    other = other_part(mine)
    if other is None:
        other = jnp.zeros_like(mine)
    first = jax.lax.axis_index(AXIS) == 0
    u = jax.lax.complex(jnp.where(first, mine, other), jnp.where(first, other, mine))
    used = jnp.any(h != 0, axis=1)
    # All of ±h; padding is a vector h = 0 as well, and 0 itself is counted once.
    K, weight = _weighted(eta, cell, jnp.concatenate([h, -h]), wave)
    weight = weight * jnp.concatenate([used, used])
    zero, at_zero = _weighted(eta, cell, jnp.zeros((1, 3), h.dtype), wave)
    n, _ = _weighted(eta, cell, jnp.zeros((1, 3), h.dtype), toward)
    size = jnp.sum(n**2)
    limit = 2 * np.pi / jnp.abs(jnp.linalg.det(cell)) / jnp.where(size > 0, size, 1.0)
    at_gamma = jnp.all(wave == 0)
    K = jnp.concatenate([K, jnp.where(at_gamma, n, zero)])
    weight = jnp.concatenate([weight, jnp.where(at_gamma, limit * (size > 0), at_zero)])
    # From one side of Γ the phases of K = 0 are those of Γ itself.
    phase = x @ jnp.where((jnp.arange(len(K)) == len(K) - 1)[:, None] & at_gamma, 0.0, K).T
    forth = jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
    amplitudes = jnp.sum(q[:, None] * (u @ K.T) * forth.conj(), axis=0)
    moved = (forth * (weight * amplitudes)) @ K
    G, weight = _weighted(eta, cell, h)
    phase = x @ G.T
    c, s = jnp.cos(phase), jnp.sin(phase)
    inside = c * (q @ c) + s * (q @ s)  # Re exp(iG·r_i) S(-G)
    own = 2 * ((u @ G.T) * (weight * inside)) @ G
    found = 2 * q[:, None] * (moved - own)
    return _slope_at_rest(eta, x, q, cell, h), jnp.where(first, found.real, found.imag)


def _graph(cutoff: float, reach: float, crystal: Structure, capacity: EwaldCapacity) -> EwaldGraph:
    neighbors = neighbor_list(crystal, cutoff, capacity.pairs)
    cell = jax.lax.stop_gradient(crystal.cell)
    candidates = jnp.asarray(_half_box(capacity.box), jnp.int32)
    G = 2 * np.pi * candidates.astype(cell.dtype) @ jnp.linalg.inv(cell).T
    inside = jnp.sum(G**2, axis=1) < reach**2
    (chosen,) = jnp.nonzero(inside, size=capacity.vectors, fill_value=-1)
    vectors = jnp.where((chosen >= 0)[:, None], candidates[chosen], 0)
    outside = _box(jnp, cell, reach) > jnp.asarray(capacity.box)
    overflow = neighbors.overflow | jnp.any(outside) | (jnp.sum(inside) > capacity.vectors)
    return EwaldGraph(neighbors, vectors, overflow)


def _capacity(
    elements, values, cutoff: float, reach: float, skin: float, crystal: Structure
) -> EwaldCapacity:
    charge = dict(zip(elements, values, strict=True))
    total = sum(charge.get(int(z), 0.0) for z in np.asarray(crystal.numbers))
    if abs(total) > 1e-6:
        raise fail(
            f"the cell has a charge of {total:g} e with charges {charge} by atomic number",
            "a neutral cell",
            "Change the composition or the charges",
        )
    return _sizes(cutoff, reach, skin, crystal)


def _sizes(cutoff: float, reach: float, skin: float, crystal: Structure) -> EwaldCapacity:
    cell = np.asarray(crystal.cell, float)
    # Room for a strain of some per cent.
    n = _box(np, cell, 1.05 * reach)
    box = (int(n[0]), int(n[1]), int(n[2]))
    G = 2 * np.pi * _half_box(box) @ np.linalg.inv(cell).T
    inside = int(np.count_nonzero(np.sum(G**2, axis=1) < (1.05 * reach) ** 2))
    pairs = pair_capacity(crystal, cutoff + skin, table=True)
    return EwaldCapacity(pairs, box, bucket(float(inside)))


def _reaching(elements, values, cutoff: float, reach: float, skin: float):
    graph = Bound(_graph, (cutoff + skin, reach))
    return graph, Bound(_capacity, (elements, values, cutoff, reach, skin))


def _box(xp, cell, reach):
    """Return the largest |h_a| with |G| < reach: G·a_a = 2π h_a bounds it by |a_a|."""
    return xp.floor(reach * xp.sqrt(xp.sum(cell**2, axis=1)) / (2 * np.pi))


def _half_box(box: tuple[int, int, int]) -> np.ndarray:
    """Return one of each pair ±h of the integer vectors within the box, without 0."""
    axes = [np.arange(-n, n + 1) for n in box]
    h = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return h[len(h) // 2 + 1 :]


def _summed_energy(energies, params, crystal, graph):
    parts = zip(energies, params, graph.parts, strict=True)
    return sum(energy(p, crystal, g) for energy, p, g in parts)


def _summed_graph(graphs, crystal, capacity) -> SummedGraph:
    parts = tuple(graph(crystal, c) for graph, c in zip(graphs, capacity, strict=True))
    return SummedGraph(parts, jnp.any(jnp.stack([part.overflow for part in parts])))


def _summed_capacity(capacities, crystal: Structure) -> tuple[Hashable, ...]:
    return tuple(capacity(crystal) for capacity in capacities)


def _summed_reaching(parts):
    return None if None in parts else Bound(_farther_parts, (tuple(parts),))


def _farther_parts(parts, skin: float):
    graphs, capacities = zip(*(part(skin) for part in parts), strict=True)
    return Bound(_summed_graph, (graphs,)), Bound(_summed_capacity, (capacities,))


def _summed_mixing(parts):
    return None if None in parts else Bound(_mixed_parts, (tuple(parts),))


def _mixed_parts(parts, mixed: tuple[int, ...]):
    energies, capacities = zip(*(part(mixed) for part in parts), strict=True)
    return Bound(_summed_mixed_energy, (energies,)), Bound(_summed_capacity, (capacities,))


def _summed_mixed_energy(energies, params, crystal, graph):
    parts = [{"pure": pure, "shares": params["shares"]} for pure in params["pure"]]
    return _summed_energy(energies, parts, crystal, graph)
