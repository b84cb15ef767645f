"""Nequix: the energy of a crystal from features that turn with it.

Every atom i has features x_i of degree l = 0 … 3: 2l + 1 components m, some channels u. Bonds of
length r < c and direction n have spherical harmonics Y_l(n), |Y_l|² = 2l + 1, and

    b_k(r) = (2/c) sin(kπ r/c)/r · w(r/c),    k = 1 … 8                                      (1)
    w(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2),   p = 6                  (2)

which is zero at the cutoff with two derivatives. A layer adds up what the neighbours send along
each path (l1, l2, l3) with l1 + l2 + l3 even, C being Clebsch-Gordan coefficients,

    a_i,m3,u = Σ_j R_u(r_ij) Σ_m1 T_m3,m1(n_ij) (W x_j)_m1,u                                  (3)
    T_m3,m1 = √(2 l3 + 1) Σ_m2 C_m1,m2,m3 Y_l2,m2                                             (4)

with R a perceptron without bias of b, so that it vanishes where b does; then

    x_i = gate(norm(W' a_i + W" x_i))                                                         (5)

A linear readout of the last scalars is added to the energy of the free atoms.

(3) is one matrix product per atom and path, of T over (m3; j, m1) with R W x over (j, m1; u):
nothing of the size pairs x (l1, l2, l3) x channels x components is ever made. The sum runs over
the rows of a centre at home, so a Bloch phase belongs to `gather` and `separations` alone.
Source: Koker, Kotak, Smidt, arXiv:2508.16067, after NequIP, Batzner et al., Nat. Commun. 13, 2453
(2022).
"""

import math
from dataclasses import replace
from typing import Any

import e3nn_jax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.neighbors import Links, Neighbors, gather, separations
from phojax.potentials.nequix.weights import Architecture, Path
from phojax.structure import MIXTURE, Structure

_TILE_CPU, _TILE = 224, 32768  # pairs
_EPSILON = 1e-12  # of the norms
SILU_SIZE = 0.5964586854233045
"""Root mean square of silu(z) over the 1 000 001 quantiles of a normal z that e3nn takes."""
SILU_SIZE_SINGLE = 0.59645772
"""The same as e3nn finds it in float32, 1.6e-6 less: part of the network as it was trained."""

Features = tuple[Float[Array, "atom _ _"], ...]
"""By l: (atom, component, channel)."""


def energy(
    architecture: Architecture, params: Any, crystal: Structure, graph: Neighbors
) -> Float[Array, ""]:
    """Return the energy of the cell in eV, with that of the free atoms.

    Differentiable in positions, cell and parameters; third derivatives jump where pairs reach
    the cutoff.
    """
    table = np.zeros(119, int)
    table[list(architecture.numbers)] = np.arange(len(architecture.numbers))
    species = jnp.asarray(table)[crystal.numbers]

    vectors = separations(crystal, graph)
    lengths = jnp.linalg.norm(vectors, axis=-1)
    basis = radial_basis(architecture, lengths)
    harmonics = spherical_harmonics(architecture.lmax, vectors / lengths[:, None])

    def layer(number: int, weights, sent: Features, kept: Features) -> Features:
        paths = architecture.paths(number)
        sums = _received(paths, weights["radial"], sent, harmonics, basis, graph.others)
        mixed = [a @ w for a, w in zip(sums, weights["second"], strict=True)]
        mixed[: len(kept)] = [a + x for a, x in zip(mixed, kept, strict=False)]
        return _gate(_norm(weights["norm"], mixed))

    def next_layer(number: int, weights, features: Features) -> Features:
        sent, kept = (_mixed(weights[name], features) for name in ("first", "skip"))
        return layer(number, weights, sent, kept)

    # The first features are 1 at the channel of the element and 0 elsewhere.
    weights = params["first"]
    features = layer(
        0, weights, *((weights[name][0][species][:, None],) for name in ("first", "skip"))
    )
    if params["middle"] is not None:
        features, _ = jax.lax.scan(
            lambda x, weights: (next_layer(1, weights, x), None), features, params["middle"]
        )
    features = next_layer(architecture.layers - 1, params["last"], features)
    per_atom = features[0][:, 0] @ params["readout"] + params["reference"][species]
    return jnp.sum(jnp.where(crystal.numbers > 0, per_atom, 0))


def mixed_energy(
    architecture: Architecture,
    elements: tuple[int, ...],
    params: Any,
    crystal: Structure,
    graph: Neighbors,
) -> Float[Array, ""]:
    """Return `energy` of a crystal with mixtures: rows of the first maps are mixed by their shares.

    Arguments as those of `chgnet.model.mixed_energy`.
    """
    pure, shares = params["pure"], params["shares"]
    place = [architecture.numbers.index(z) for z in elements]

    def longer(table):
        rows = shares.astype(table.dtype) @ table[np.array(place)]
        return jnp.concatenate([table, rows])

    first = dict(pure["first"])
    for name in ("first", "skip"):
        first[name] = (longer(first[name][0]), *first[name][1:])
    tables = {**pure, "first": first, "reference": longer(pure["reference"])}
    # Mixtures take the numbers of elements that nobody knows.
    free = sorted(set(range(1, 119)) - set(architecture.numbers), reverse=True)[: len(shares)]
    z = crystal.numbers
    stand_in = jnp.asarray(free)[jnp.maximum(z - MIXTURE, 0)]
    numbers = jnp.where(z >= MIXTURE, stand_in, z).astype(z.dtype)
    wider = architecture._replace(numbers=(*architecture.numbers, *free))
    return energy(wider, tables, replace(crystal, numbers=numbers), graph)


def radial_basis(architecture: Architecture, r: Float[Array, " pair"]) -> Float[Array, "pair k"]:
    """Return eqs. (1, 2) for lengths in Å; zero from the cutoff on."""
    c, p = architecture.cutoff, architecture.power
    # Both branches of `where` are differentiated; inside they are finite anyway.
    x = jnp.minimum(r / c, 1.0)
    inner = 1 + x**p * (-(p + 1) * (p + 2) / 2 + x * (p * (p + 2) - x * (p * (p + 1) / 2)))
    envelope = jnp.where(r < c, inner, 0.0)
    waves = jnp.sin(
        jnp.arange(1, architecture.basis + 1, dtype=r.dtype) * (math.pi * r / c)[:, None]
    )
    return (envelope * (2 / c) / r)[:, None] * waves


def spherical_harmonics(
    lmax: int, directions: Float[Array, "pair 3"]
) -> tuple[Float[Array, "pair _"], ...]:
    """Return Y_0 … Y_lmax of unit vectors, |Y_l|² = 2l + 1, in e3nn's order of components."""
    degrees = [jnp.ones_like(directions[:, :1]), math.sqrt(3) * directions]
    for l in range(2, lmax + 1):
        # The part of degree l of n Y_(l-1) has the length √(l/(2l+1)).
        product = directions[:, :, None] * degrees[-1][:, None, :]
        C = e3nn_jax.clebsch_gordan(1, l - 1, l).reshape(-1, 2 * l + 1) * (2 * l + 1) / math.sqrt(l)
        degrees.append(product.reshape(len(product), -1) @ jnp.asarray(C, product.dtype))
    return tuple(degrees[: lmax + 1])


def _received(
    paths: list[Path], radial, sent: Features, harmonics, basis, others: Links
) -> list[Float[Array, "atom _ _"]]:
    """Return the sums of eq. (3) by l3, the paths side by side."""
    atoms = len(sent[0])
    rows = len(basis) // atoms
    columns = np.cumsum([sent[path.l1].shape[-1] for path in paths])[:-1].tolist()

    def of_atoms(pairs):
        at, harmonics, basis = pairs
        # Not slices: in the reverse pass each would be padded to the width of all.
        R = jnp.split(_perceptron(radial, basis), columns, axis=1)
        x = [gather(f, at) for f in sent]
        sums: dict[int, list[jax.Array]] = {}
        for path, weights in zip(paths, R, strict=True):
            width = sent[path.l1].shape[-1]
            T = _turned(path, harmonics[path.l2]).reshape(
                -1, rows, 2 * path.l3 + 1, 2 * path.l1 + 1
            )
            Z = (weights[:, None] * x[path.l1]).reshape(len(T), rows, -1, width)
            found = jnp.einsum("ijab,ijbu->iau", T, Z)
            sums.setdefault(path.l3, []).append(found)
        return [jnp.concatenate(sums[l], axis=-1) for l in sorted(sums)]

    return _by_atoms(of_atoms, (others, harmonics, basis), atoms, rows)


def _turned(path: Path, harmonics: Float[Array, "pair m2"]) -> Float[Array, "pair m3m1"]:
    """Return T of eq. (4), its axes m3 and m1 in one."""
    l1, l2, l3 = path
    C = e3nn_jax.clebsch_gordan(l1, l2, l3) * math.sqrt(2 * l3 + 1)
    C = C.transpose(1, 2, 0).reshape(2 * l2 + 1, -1)
    return harmonics @ jnp.asarray(C, harmonics.dtype)


def _by_atoms(f, pairs, atoms: int, rows: int):
    """Return f(pairs), whose results belong to atoms with `rows` pairs each.

    What a layer holds per pair is computed again in the reverse pass, some atoms at a time in
    the same memory. It would be hundreds of MB, and on a CPU to fetch those from the system at
    every call costs more than to compute twice what stays in the cache.
    """
    longest = _TILE_CPU if jax.default_backend() == "cpu" else _TILE
    tiles = -(-atoms * rows // longest)
    if tiles <= 1:
        return f(pairs)
    size = -(-atoms // tiles)
    tiles = -(-atoms // size)

    def tiled(x):
        # What is appended has no neighbours: b is zero there.
        x = jnp.pad(x, ((0, tiles * size * rows - len(x)), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(tiles, size * rows, *x.shape[1:])

    inputs = jax.tree.map(tiled, pairs)
    _, out = jax.lax.scan(lambda _, tile: (None, jax.checkpoint(f)(tile)), None, inputs)
    return [x.reshape(-1, *x.shape[2:])[:atoms] for x in out]


def _perceptron(matrices, x):
    *inner, last = matrices
    for matrix in inner:
        x = jax.nn.silu(x @ matrix)
    return x @ last


def _mixed(matrices, features: Features) -> Features:
    """Return a linear map of the channels; degrees without a matrix are left out."""
    return tuple(x @ w for x, w in zip(features, matrices, strict=False))


def _norm(scales, features) -> Features:
    """Return the features over their joint size, times a factor per channel."""
    size = sum(jnp.sum(x**2, axis=(1, 2)) / x.shape[1] ** 2 for x in features) / len(features)
    inverse = jax.lax.rsqrt(size + _EPSILON)[:, None, None]
    return tuple(x * inverse * scale for x, scale in zip(features, scales, strict=True))


def _gate(features: Features) -> Features:
    """Return silu of the scalars; the last of them multiply what has a direction."""
    scalars, *others = features
    counts = [x.shape[-1] for x in others]
    size = SILU_SIZE if scalars.dtype == jnp.float64 else SILU_SIZE_SINGLE
    scalars = jax.nn.silu(scalars) / size
    kept = scalars.shape[-1] - sum(counts)
    out, column = [scalars[..., :kept]], kept
    for x, count in zip(others, counts, strict=True):
        out.append(x * scalars[..., column : column + count])
        column += count
    return tuple(out)
