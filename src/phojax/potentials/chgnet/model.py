"""CHGNet 0.3.0: the energy of a crystal from its graph.

Bases of a bond of length r, with learned frequencies w and the envelope u to the cutoff c:

    b_k(r) = u(r/c) √(2/c) sin(w_k r/c) / r,      c = 6 Å (far) and 3 Å (near)              (1)
    u(x) = 1 - 45 x⁸ + 80 x⁹ - 36 x¹⁰ for x < 1, else 0                                     (2)

and of an angle, θ = arccos((1 - 10⁻⁶) n·n'), the constant, sines and cosines of w_k θ over √π   (3)

Features of atoms v, bonds e and angles a start as linear maps of their element and bases, and
are updated in turn, G being gated layers, W and W' linear maps of the far and near basis:

    v_i  += O Σ_j  W(r_ij) G(v_i, e_ij, v_j)                                                (4)
    e_ij += O Σ_k  W'(r_ij) W'(r_ik) G'(e_ij, e_ik, a_ijk, v_i)                             (5)
    a_ijk += G"(e_ij, e_ik, a_ijk, v_i)                                                     (6)

with a last (4), a layer norm and a perceptron to an energy per atom. All pairs and angles at
their cutoff have the weight zero, with two derivatives, so padding and pairs beyond it are exact.

The first matrix of G acts on the features side by side; here its blocks act on atoms, bonds and
angles before they are gathered, which is the same sum in another order.
Source: Deng et al., Nat. Mach. Intell. 5, 1031 (2023), methods; constants of version 0.3.0.
"""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.neighbors import Links, gather, scatter, separations
from phojax.potentials.chgnet.graph import CUTOFF, NEAR, Graph
from phojax.structure import MIXTURE, Structure

WIDTH = 64
_TILE = 640  # rows: what a layer holds of them, in double precision too, stays in the cache
_EPSILON = 1e-5  # of the layer norms
# The constant of eq. (3) is 1/√2 rounded to float32, in whatever precision the network runs.
_HALF = float(np.float32(1) / np.sqrt(np.float32(2))) / math.sqrt(math.pi)


def energy(params: Any, crystal: Structure, graph: Graph) -> Float[Array, ""]:
    """Return the energy of the cell in eV, with that of the elements.

    Differentiable in positions, cell and parameters, twice and more; third derivatives jump
    where bonds reach a cutoff.
    """
    element = jnp.maximum(crystal.numbers - 1, 0)
    near, far = separations(crystal, graph.near), separations(crystal, graph.far)
    lengths = jnp.linalg.norm(near, axis=-1)
    near_basis, far_basis = (
        radial_basis(r, params["far_frequencies"], CUTOFF)
        for r in (lengths, jnp.linalg.norm(far, axis=-1))
    )
    inner = radial_basis(lengths, params["near_frequencies"], NEAR)
    bond_weight = inner @ params["near_weight"]
    weights = near_basis @ params["far_weight"], far_basis @ params["far_weight"]
    angles = _first_angles(params, near / lengths[:, None], graph)

    atoms = params["atom"][element]
    bonds = near_basis @ params["bond"]
    for step, layer in enumerate(params["atom_conv"]):
        # Bonds beyond 3 Å keep their first features, which are linear in the basis.
        features = (bonds, None), (far_basis, params["bond"])
        atoms = _updated_atoms(layer, atoms, features, weights, graph)
        if step < len(params["bond_conv"]):
            layer = params["bond_conv"][step]
            bonds = _updated_bonds(layer, atoms, bonds, angles, bond_weight, graph)
        if step < len(params["angle_update"]):
            layer = params["angle_update"][step]
            angles = _updated_angles(layer, atoms, bonds, angles, graph)

    norm = params["readout_norm"]
    x = _layer_norm(atoms, norm["scale"], norm["shift"])
    *inner, last = params["readout"]
    for layer in inner:
        x = jax.nn.silu(x @ layer["matrix"] + layer["bias"])
    per_atom = (x @ last["matrix"] + last["bias"])[:, 0] + params["reference"][element]
    return jnp.sum(jnp.where(crystal.numbers > 0, per_atom, 0))


def mixed_energy(
    elements: tuple[int, ...], params: Any, crystal: Structure, graph: Graph
) -> Float[Array, ""]:
    """Return `energy` of a crystal with mixtures: rows of the tables are mixed by their shares.

    Args:
        elements: Atomic numbers that shares are of.
        params: {"pure": parameters, "shares": (mixture, element)}.
        crystal: Atoms of number MIXTURE + k are mixture k.
        graph: Of the crystal.
    """
    pure, shares, rows = params["pure"], params["shares"], np.array(elements) - 1
    tables = {
        name: jnp.concatenate([pure[name], shares.astype(pure[name].dtype) @ pure[name][rows]])
        for name in ("atom", "reference")
    }
    first = len(pure["atom"]) + 1
    z = crystal.numbers
    numbers = jnp.where(z >= MIXTURE, z - MIXTURE + first, z)
    return energy({**pure, **tables}, replace(crystal, numbers=numbers), graph)


def radial_basis(
    r: Float[Array, " bond"], frequencies: Float[Array, " k"], cutoff: float
) -> Float[Array, "bond k"]:
    """Return eqs. (1, 2) in Å^(-3/2) for lengths in Å, zero from the cutoff on."""
    # Both branches of `where` are differentiated; inside they are finite anyway.
    x = jnp.minimum(r / cutoff, 1.0)
    envelope = jnp.where(r < cutoff, 1 + x**8 * (-45 + x * (80 - 36 * x)), 0.0)
    waves = jnp.sin(frequencies * (r / cutoff)[:, None])
    return (envelope * math.sqrt(2 / cutoff) / r)[:, None] * waves


def angular_basis(
    directions: Float[Array, "near 3"],
    frequencies: Float[Array, " k"],
    first: Links,
    second: Links,
    sign: Float[Array, " angle"],
) -> Float[Array, "angle basis"]:
    """Return eq. (3) for the unit vectors of the near bonds."""
    n1, n2 = gather(directions, first), gather(directions, second)
    cosine = jnp.sum(n1 * n2, axis=-1) * sign.astype(n1.dtype)
    # The factor is part of the model: it keeps the derivatives finite for bonds in line.
    waves = jnp.arccos(cosine * (1 - 1e-6))[:, None] * frequencies
    constant = jnp.full((len(cosine), 1), _HALF, n1.dtype)
    scale = 1 / math.sqrt(math.pi)
    return jnp.concatenate([constant, jnp.sin(waves) * scale, jnp.cos(waves) * scale], axis=1)


def _first_angles(params, directions, graph: Graph):
    def rows(at):
        return angular_basis(directions, params["angle_frequencies"], *at) @ params["angle"]

    return _by_rows(rows, (graph.angle_first, graph.angle_second, graph.angle_sign))


def _updated_atoms(layer, atoms, features, weights, graph: Graph):
    """Return eq. (4). `features` are those of the near bonds and of the far ones: rows, map."""
    gated = layer["gated"]
    of_center, of_bond, of_other = _blocks(gated["inner"], 3)
    at_center, at_other = atoms @ of_center + gated["inner_bias"], atoms @ of_other
    received = 0
    for bonds, (rows, first), weight in zip(
        (graph.near, graph.far), features, weights, strict=True
    ):
        matrix = of_bond if first is None else first @ of_bond

        def both(tile, matrix=matrix):
            """Return what the two ends of each bond receive."""
            a, b, rows, weight = tile
            bond = rows @ matrix
            at_a = gather(at_center, a) + gather(at_other, b) + bond
            at_b = gather(at_center, b) + gather(at_other, a) + bond
            to_a, to_b = jnp.split(_gated(gated, jnp.concatenate([at_a, at_b])), 2)
            return scatter(to_a * weight, a, len(atoms)) + scatter(to_b * weight, b, len(atoms))

        received += _sum_by_rows(both, (bonds.centers, bonds.others, rows, weight))
    return atoms + received @ layer["out"]


def _updated_bonds(layer, atoms, bonds, angles, weight, graph: Graph):
    """Return eq. (5)."""
    gated = layer["gated"]
    around = _around(gated, atoms, bonds)

    def received(rows):
        _, first, second, _ = rows
        sent = _gated(gated, around(rows)) * gather(weight, first) * gather(weight, second)
        return scatter(sent, first, len(bonds))

    rows = (graph.angle_centers, graph.angle_first, graph.angle_second, angles)
    return bonds + _sum_by_rows(received, rows) @ layer["out"]


def _updated_angles(gated, atoms, bonds, angles, graph: Graph):
    """Return eq. (6)."""
    around = _around(gated, atoms, bonds)
    rows = (graph.angle_centers, graph.angle_first, graph.angle_second, angles)
    return _by_rows(lambda rows: rows[3] + _gated(gated, around(rows)), rows)


def _around(gated, atoms, bonds):
    """Return the first linear map of G' and G" as a function of angles."""
    of_first, of_second, of_angle, of_center = _blocks(gated["inner"], 4)
    at_first, at_second = bonds @ of_first, bonds @ of_second
    at_center = atoms @ of_center + gated["inner_bias"]

    def summed(rows):
        center, first, second, angles = rows
        x = gather(at_center, center) + gather(at_first, first) + gather(at_second, second)
        return x + angles @ of_angle

    return summed


def _by_rows(f, rows):
    """Return f(rows), whose rows depend on one row each."""
    tiles = _tiles(rows)
    if tiles is None:
        return f(rows)
    _, out = jax.lax.scan(
        lambda _, tile: (None, jax.checkpoint(f, prevent_cse=False)(tile)), None, tiles
    )
    return out.reshape(-1, out.shape[-1])


def _sum_by_rows(f, rows):
    """Return f(rows), which sums over rows."""
    tiles = _tiles(rows)
    if tiles is None:
        return f(rows)
    result = jax.eval_shape(f, jax.tree.map(lambda x: x[0], tiles))
    zero = jnp.zeros(result.shape, result.dtype)
    return jax.lax.scan(
        lambda sum, tile: (sum + jax.checkpoint(f, prevent_cse=False)(tile), None), zero, tiles
    )[0]


def _tiles(rows):
    """Return the rows as (tile, row of it), or None where one tile holds them all.

    What a layer holds per pair and angle is computed again in the reverse pass, tile by tile in
    the same memory. It would be hundreds of MB, and on a CPU to fetch those from the system at
    every call costs more than to compute twice what stays in the cache.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    longest = _TILE if jax.default_backend() == "cpu" else 128 * _TILE
    tiles = 1
    while count > longest * tiles and count % (2 * tiles) == 0:
        tiles *= 2
    if tiles == 1:
        return None
    return jax.tree.map(lambda x: x.reshape(tiles, count // tiles, *x.shape[1:]), rows)


def _gated(gated, x: Float[Array, "row both"]) -> Float[Array, "row width"]:
    """Return core · gate from the sums of the first matrix, core and gate side by side."""
    halves = []
    layers = list(zip(gated["outer"], gated["outer_bias"], strict=True))
    for half, activation in enumerate((jax.nn.silu, jax.nn.sigmoid)):
        y = x[:, half * WIDTH : (half + 1) * WIDTH]
        for place, (matrix, bias) in enumerate(layers):
            W, c = matrix[half], bias[half]
            if place == len(layers) - 1:  # the layer norm's mean, of few rows and not of all
                W, c = _centered(W), _centered(c)
            y = jax.nn.silu(y) @ W + c
        y = y if layers else _centered(y)
        halves.append(activation(_scaled(y, gated["scale"][half], gated["shift"][half])))
    return halves[0] * halves[1]


def _layer_norm(x, scale, shift):
    return _scaled(_centered(x), scale, shift)


def _centered(x):
    return x - jnp.mean(x, axis=-1, keepdims=True)


def _scaled(x, scale, shift):
    """Return the layer norm of rows without a mean."""
    mean = jnp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)  # a product is faster than a sum
    return x * jax.lax.rsqrt((x * x) @ mean + _EPSILON) * scale + shift


def _blocks(matrix, count: int):
    return [matrix[k * WIDTH : (k + 1) * WIDTH] for k in range(count)]
