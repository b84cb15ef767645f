"""EquiformerV2: energy, forces and stress of a crystal, each from an output of its own.

    x = embedding[Z] + edge degree,   blocks,   norm                                         (1)
    E = rmsd Σ_i y_i / N + mean + Σ_i reference[Z_i],   F = rmsd f + mean                     (2)
    σ = B (s₀, 0, s₂)                                                                        (3)

where y_i is the scalar of a feed-forward layer, f_i what a layer of attention sends of degree 1, N
the mean number of atoms in training, and s₀, s₂ the scaled parts of the stress of degree 0 and 2
(see `outputs`). Forces are no gradient of the energy.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phojax.potentials.equiformer_v2.graph import Graph
from phojax.potentials.equiformer_v2.layers import (
    Edges,
    Features,
    attention,
    by_degrees,
    edge_degree,
    feed_forward,
    norm,
)
from phojax.potentials.equiformer_v2.outputs import energy_of, forces_of, stress_of
from phojax.potentials.equiformer_v2.rotations import rotation
from phojax.potentials.equiformer_v2.weights import Architecture
from phojax.structure import Structure


def predict(
    architecture: Architecture, params: Any, crystal: Structure, graph: Graph
) -> tuple[Float[Array, ""], Float[Array, "atom 3"], Float[Array, "3 3"]]:
    """Return energy (eV), forces (eV/Å) and stress (eV/Å³, positive under tension; NaN without a
    stress head). Differentiable to any order at the graph, which is held."""
    a = architecture
    x, edges = features(a, params, crystal, graph)
    found = jnp.full((3, 3), jnp.nan, x.dtype)
    if a.stress:
        found = stress_of(a, params, x, edges, crystal)
    return energy_of(a, params, x, crystal), forces_of(a, params, x, edges, crystal), found


def energy(
    architecture: Architecture, params: Any, crystal: Structure, graph: Graph
) -> Float[Array, ""]:
    """Return the energy in eV alone; its gradient are not the forces of the model."""
    x, _ = features(architecture, params, crystal, graph)
    return energy_of(architecture, params, x, crystal)


def features(
    a: Architecture, params: Any, crystal: Structure, graph: Graph
) -> tuple[Features, Edges]:
    """Return the last features, and the edges."""
    lengths, n, frames = graph.edges(crystal)
    numbers = jnp.clip(crystal.numbers, 0, a.elements - 1)
    others = graph.neighbors.others
    D = rotation(n, frames, a.lmax, a.mmax)
    edges = Edges(others, lengths, numbers[others.index], numbers, D)
    centres = params["centres"]

    def block(x, weights):
        y = norm(a, weights["norm_1"], x)
        y = attention(a, weights["attention"], centres, y, edges)
        x = x + by_degrees(weights["attention"]["project"], y)
        return x + feed_forward(a, weights["feed_forward"], norm(a, weights["norm_2"], x)), None

    x = edge_degree(a, params["degree"], centres, edges)
    x = x.at[:, 0].add(params["embedding"][numbers])
    x, _ = jax.lax.scan(jax.checkpoint(block), x, params["blocks"])
    return norm(a, params["norm"], x), edges


__all__ = ["energy", "features", "predict"]
