"""Energy, forces and stress from the last features of EquiformerV2.

The stress is made of edges: with Y(r) the solid harmonics of an edge, in size made alike,

    e_ij = norm(Σ_s Y_s(r_ij) [x_j, x_i]_s),  u_i = mean_j e_ij,  w_i = mean_j Y_2(n_ij) e_ij  (1)

and two perceptrons of u_i and w_i whose means over the atoms are its parts of degree 0 and 2.
Harmonics are rows of the rotation into the frame: Y_lm(n) = √((2l + 1)/4π) D_0m, R n = y.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.neighbors import gather
from phojax.potentials.equiformer_v2.layers import (
    Edges,
    Features,
    attention,
    by_atoms,
    layer_norm,
    linear,
    norm,
)
from phojax.potentials.equiformer_v2.weights import Architecture
from phojax.structure import Structure


def energy_of(a: Architecture, params: Any, x: Features, crystal: Structure) -> Float[Array, ""]:
    """Return the energy of the cell in eV, with the references of its elements."""
    weights, real = params["energy"], crystal.numbers > 0
    # Of the feed-forward layer only the scalars are asked for, which do not see the grid.
    y = jax.nn.silu(linear(weights["scalar"], x[:, 0]))
    y = (y @ weights["second"]["matrix"][0] + weights["second"]["bias"])[:, 0]
    total = jnp.sum(jnp.where(real, y, 0.0)) / (jnp.sum(real) if a.mean else a.atoms)
    rmsd, mean = params["scales"]["energy"]
    numbers = jnp.clip(crystal.numbers, 0, a.elements - 1)
    return total * rmsd + mean + jnp.sum(jnp.where(real, params["references"][numbers], 0.0))


def forces_of(
    a: Architecture, params: Any, x: Features, edges: Edges, crystal: Structure
) -> Float[Array, "atom 3"]:
    """Return the forces in eV/Å; 0 for padding."""
    y = attention(a, params["forces"], params["centres"], x, edges, slice(1, 4))
    y = (y @ params["forces"]["project"]["matrix"][1])[..., 0]
    rmsd, mean = params["scales"]["forces"]
    return jnp.where((crystal.numbers > 0)[:, None], y * rmsd + mean, 0.0)


def stress_of(
    a: Architecture, params: Any, x: Features, edges: Edges, crystal: Structure
) -> Float[Array, "3 3"]:
    """Return the stress in eV/Å³, positive under tension."""
    weights = params["stress"]
    l = np.arange(a.lmax + 1)
    sizes = np.sqrt((2 * l + 1) / (4 * math.pi))

    def of_atoms(tile):
        own, edges = tile
        atoms, k = edges.mask.shape
        rows = edges.D[:, : a.lmax + 1] * jnp.asarray(sizes, x.dtype)[:, None]
        powers = jnp.stack([edges.lengths**n for n in l.tolist()], axis=-1)
        solid = norm(a, weights["harmonics"], jnp.einsum("els,el->es", rows, powers)[..., None])
        solid = solid.reshape(atoms, k, -1)
        e = jnp.einsum("isc,iks->ikc", own, solid)
        if a.pair:
            source = gather(x, edges.others).reshape(atoms, k, *x.shape[1:])
            e = jnp.concatenate([jnp.einsum("iksc,iks->ikc", source, solid), e], axis=-1)
        e = layer_norm(weights["norm"], e)
        second = rows[:, 2, 4:9].reshape(atoms, k, 5)
        parts = jnp.concatenate([jnp.ones_like(second[..., :1]), second], axis=-1)
        mask = edges.mask[..., None]
        count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
        return jnp.einsum("ikp,ikc->ipc", jnp.where(mask, parts, 0.0), e) / count

    found = by_atoms(of_atoms, (x, edges))
    real = (crystal.numbers > 0)[:, None, None]

    def part(name: str, y):
        first, second = weights[name]
        y = linear(second, jax.nn.silu(linear(first, y)))
        y = jnp.sum(jnp.where(real, y, 0.0), axis=0)[:, 0] / jnp.sum(real)
        rmsd, mean = params["scales"][name]
        return y * rmsd + mean

    parts = [part("isotropic", found[:, :1]), part("anisotropic", found[:, 1:])]
    return jnp.tensordot(jnp.concatenate(parts), jnp.asarray(_basis(), x.dtype), 1)


def _basis() -> Float[np.ndarray, "6 3 3"]:
    """Return B of the stress: the identity, then the symmetric tensors of degree 2."""
    x, y, z = np.eye(3)

    def both(a, b):
        return (np.outer(a, b) + np.outer(b, a)) / math.sqrt(2)

    second = [
        both(x, z), both(x, y), (3 * np.outer(y, y) - np.eye(3)) / math.sqrt(6), both(y, z),
        (np.outer(z, z) - np.outer(x, x)) / math.sqrt(2),
    ]  # fmt: skip
    return np.stack([np.eye(3) / math.sqrt(3), *second])


__all__ = ["energy_of", "forces_of", "stress_of"]
