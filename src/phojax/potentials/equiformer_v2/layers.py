"""Layers of EquiformerV2 (numbers of sections are those of the paper).

Features x_i of an atom are coefficients (see `orders`) times channels. A block is

    x <- x + attention(norm(x)),   x <- x + feed_forward(norm(x))                             (1)

Attention (3.1, 4.1, 4.2; figure 1 b): the features of both ends of an edge side by side are turned
into its frame and go through two convolutions that commute with rotations about the edge, with a
non-linearity on a grid between them. The first is weighted by a function of the distance and the
elements, its additional scalars give the attention a_ij, and

    x_i <- W Σ_j a_ij Dᵀ_ij v_ij,    a_ij = softmax_j(a · leaky(norm(f_ij)))                   (2)

In the frame of the edge a convolution mixes degrees and channels of each order m by itself,

    y_m = W_r x_m - W_i x_-m,   y_-m = W_i x_m + W_r x_-m                                     (3)

(3.2; eSCN). Non-linearities act on values on a grid of directions (4.3); the scalars go by another
way and replace those that come back from the grid.

Edges are taken some atoms at a time, and what is held per edge is computed again in reverse
passes: a block needs little memory whatever the size of the crystal.
Source: Liao, Wood, Das, Smidt, ICLR 2024 (arXiv:2306.12059).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phojax.neighbors import Links, gather
from phojax.potentials.equiformer_v2.orders import by_degree, degrees, gains, grid
from phojax.potentials.equiformer_v2.weights import Architecture
from phojax.pytree import pytree

Features = Float[Array, "atom coefficient channel"]

_EPSILON = 1e-5  # of the norms
_SLOPE = 0.2  # of the leaky unit
_TILE = 128  # edges


@pytree()
class Edges:
    """What the layers know of edges, a table of k rows to an atom.

    Attributes:
        others: Links to the atoms j.
        lengths: Å.
        elements: Of j.
        own: Atomic numbers of the atoms i themselves.
        D: Rotations into the frames, rows in the order of `orders.kept`.
    """

    others: Links
    lengths: Float[Array, " edge"]
    elements: Int[Array, " edge"]
    own: Int[Array, " atom"]
    D: Float[Array, "edge kept coefficient"]

    @property
    def mask(self) -> Bool[Array, "atom k"]:
        """False for padding."""
        return self.others.mask.reshape(len(self.own), -1)


# ------------------------------------------------------------------------ parts


def linear(weights: Any, x: Array) -> Array:
    """Return x W + b."""
    y = x @ weights["matrix"]
    return y + weights["bias"] if "bias" in weights else y


def layer_norm(weights: Any, x: Array) -> Array:
    """Return x with mean 0 and variance 1 along the last axis, scaled and shifted."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    size = jnp.mean(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(size + _EPSILON) * weights["scale"] + weights["shift"]


def norm(a: Architecture, weights: Any, x: Features) -> Features:
    """Return features over their size, each degree and channel scaled (4.4).

    "layer_norm_sh": scalars by themselves, all others together, each degree with the same share;
    "rms_norm_sh": all together; "layer_norm": every degree by itself.
    """
    l = degrees(a.lmax)
    if a.norm == "layer_norm_sh":
        share = jnp.asarray(1 / (2 * l[1:] + 1) / a.lmax, x.dtype)
        size = jnp.mean(jnp.einsum("nsc,s->nc", x[:, 1:] ** 2, share), axis=1)[:, None, None]
        others = x[:, 1:] * jax.lax.rsqrt(size + _EPSILON) * weights["degrees"][l[1:] - 1]
        return jnp.concatenate([layer_norm(weights, x[:, :1]), others], axis=1)
    x = x.at[:, 0].add(-jnp.mean(x[:, 0], axis=-1, keepdims=True))
    if a.norm == "rms_norm_sh":
        share = jnp.asarray(1 / (2 * l + 1) / (a.lmax + 1), x.dtype)
        size = jnp.mean(jnp.einsum("nsc,s->nc", x**2, share), axis=1)[:, None, None]
    else:
        same = jnp.asarray((l[:, None] == l) / (2 * l + 1), x.dtype)
        size = (same @ jnp.mean(x**2, axis=2)[..., None]).reshape(*x.shape[:2], 1)
    x = x * jax.lax.rsqrt(size + _EPSILON) * weights["degrees"][l]
    return x.at[:, 0].add(weights["shift"])


def by_degrees(
    weights: Any, x: Float[Array, "atom coefficient in"]
) -> Float[Array, "atom coefficient out"]:
    """Return x_l W_l for each degree l, and the bias for the scalars."""
    parts, at = [], 0
    for l, W in enumerate(weights["matrix"]):
        parts.append(x[:, at : at + 2 * l + 1] @ W)
        at += 2 * l + 1
    parts[0] = parts[0] + weights["bias"]
    return jnp.concatenate(parts, axis=1)


def radial(weights: Any, centres, width: float, edges: Edges) -> Float[Array, "edge out"]:
    """Return a perceptron of Gaussians of the distance and of the elements at both ends."""
    x = jnp.exp(width * (edges.lengths[:, None] - centres) ** 2)
    x = linear(weights["distance"], x)
    if "ends" in weights:
        source, target = weights["ends"]
        rows = len(edges.lengths) // len(edges.own)
        x = x + source[edges.elements] + jnp.repeat(target[edges.own], rows, axis=0)
    x = jax.nn.silu(layer_norm(weights["norms"][0], x))
    x = jax.nn.silu(layer_norm(weights["norms"][1], linear(weights["middle"], x)))
    return linear(weights["last"], x)


def convolution(
    a: Architecture, weights: Any, x: Float[Array, "edge kept in"], extra: int = 0, scale=None
) -> tuple[Float[Array, "edge kept out"], Float[Array, "edge extra"]]:
    """Return eq. (3) for all orders, and `extra` scalars.

    Args:
        a: The architecture.
        weights: By m.
        x: In the frames of the edges.
        extra: How many of the scalars that come first are returned apart.
        scale: Factors of (m, l, channel), those of m and -m being the same.
    """
    edges, _, channels = x.shape
    widths = [(a.lmax - m + 1) * channels for m in range(a.mmax + 1)]
    factors: list[Any] = [1] * len(widths)
    if scale is not None:
        parts = jnp.split(scale, np.cumsum(widths[:-1]), axis=1)
        factors = [parts[0], *(part[:, None] for part in parts[1:])]
    at = a.lmax + 1
    scalars = x[:, :at].reshape(edges, -1)
    scalars = linear(weights[0], scalars * factors[0])
    scalars, zero = scalars[:, :extra], scalars[:, extra:]
    parts = [zero.reshape(edges, at, -1)]
    for m in range(1, a.mmax + 1):
        n = a.lmax - m + 1
        x_m = x[:, at : at + 2 * n].reshape(edges, 2, n * channels)
        at += 2 * n
        y = linear(weights[m], x_m * factors[m])
        real, imaginary = jnp.split(y, 2, axis=-1)
        plus, minus = real[:, 0] - imaginary[:, 1], real[:, 1] + imaginary[:, 0]
        parts += [plus.reshape(edges, n, -1), minus.reshape(edges, n, -1)]
    return jnp.concatenate(parts, axis=1), scalars


def on_grid(matrices, x: Float[Array, "row k channel"], f) -> Float[Array, "row k channel"]:
    """Return the coefficients of f of the values (point, row, channel) that x has on a grid.

    Coefficients and points stand first: both ways are one product of matrices, twice as fast on a
    CPU as with the rows first.
    """
    to, back = (jnp.asarray(matrix, x.dtype) for matrix in matrices)
    rows, k, channels = x.shape
    values = f((to @ x.swapaxes(0, 1).reshape(k, -1)).reshape(-1, rows, channels))
    found = back @ values.reshape(len(values), -1)
    return found.reshape(k, rows, channels).swapaxes(0, 1)


# ----------------------------------------------------------------------- layers


def attention(
    a: Architecture, weights: Any, centres, x: Features, edges: Edges, columns: slice = slice(None)
) -> Float[Array, "atom column value"]:
    """Return the sum of eq. (2) without W, for some of the coefficients."""
    scale = a.heads * a.alpha
    kept = grid(a.lmax, a.mmax, a.resolution)
    back = jnp.asarray(gains(a.lmax, a.mmax), x.dtype)[:, None]

    def of_atoms(tile):
        own, edges = tile
        atoms, k = edges.mask.shape
        D = edges.D.reshape(atoms, k, *edges.D.shape[1:])
        target = jnp.einsum("ikrs,isc->ikrc", D, own).reshape(atoms * k, len(back), -1)
        source = edges.D @ gather(x, edges.others)
        message = jnp.concatenate([source, target], axis=-1)
        factors = radial(weights["radial"], centres, a.width, edges)
        message, scalars = convolution(a, weights["first"], message, scale + a.hidden, factors)
        message = on_grid(kept, message, jax.nn.silu)
        message = message.at[:, 0].set(jax.nn.silu(scalars[:, scale:]))
        message, _ = convolution(a, weights["second"], message)

        features = layer_norm(
            weights["alpha_norm"], scalars[:, :scale].reshape(atoms, k, a.heads, a.alpha)
        )
        leaky = (1 + _SLOPE) / 2 + (1 - _SLOPE) / 2 * (2 * jax.nn.sigmoid(features) - 1)
        logits = jnp.sum(features * leaky * weights["alpha_dot"], axis=-1)
        share = softmax(logits, edges.mask)
        message = message.reshape(atoms, k, len(back), a.heads, a.value)
        message = message * share[:, :, None, :, None] * back[:, None]
        message = message.reshape(atoms, k, len(back), -1)
        return jnp.einsum("ikrs,ikrv->isv", D[..., columns], message)

    return by_atoms(of_atoms, (x, edges))


def softmax(logits: Float[Array, "atom k head"], mask: Bool[Array, "atom k"]):
    """Return the softmax over the edges of each atom; 0 for padding."""
    mask = mask[..., None]
    highest = jnp.max(jnp.where(mask, logits, -jnp.inf), axis=1, keepdims=True)
    highest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0.0))
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, logits - highest, 0.0)), 0.0)
    return weights / (jnp.sum(weights, axis=1, keepdims=True) + 1e-16)


def edge_degree(a: Architecture, weights: Any, centres, edges: Edges) -> Features:
    """Return the first features beside the elements: a sum over edges of functions of their
    lengths, turned out of their frames (m = 0), over the mean number of edges."""
    back = jnp.asarray(gains(a.lmax, a.mmax)[: a.lmax + 1] / a.degree)

    def of_atoms(tile):
        _, edges = tile
        atoms, k = edges.mask.shape
        x = radial(weights, centres, a.width, edges).reshape(atoms, k, a.lmax + 1, -1)
        x = jnp.where(edges.mask[..., None, None], x * back.astype(x.dtype)[:, None], 0.0)
        D = edges.D[:, : a.lmax + 1].reshape(atoms, k, a.lmax + 1, -1)
        return jnp.einsum("ikls,iklc->isc", D, x)

    return by_atoms(of_atoms, (edges.own, edges))


def feed_forward(a: Architecture, weights: Any, x: Features) -> Features:
    """Return the perceptron on a grid, between maps of channels (figure 1 d)."""
    to, back = grid(a.lmax, a.lmax, a.resolution)
    order = by_degree(a.lmax)

    def perceptron(values):
        first, second, last = weights["grid"]
        return jax.nn.silu(jax.nn.silu(values @ first) @ second) @ last

    def of_atoms(x):
        scalars = jax.nn.silu(linear(weights["scalar"], x[:, 0]))
        y = on_grid((to[:, order], back[order]), by_degrees(weights["first"], x), perceptron)
        return by_degrees(weights["second"], y.at[:, 0].set(scalars))

    return by_atoms(of_atoms, x, rows=4)


def by_atoms(f, inputs: Any, rows: int | None = None):
    """Return f(inputs), whose results belong to atoms, computed some atoms at a time.

    Args:
        f: Of a part of the inputs.
        inputs: Arrays whose first axes are those of the atoms, or of their edges, as many to each.
        rows: What an atom counts for; by default its edges.
    """
    leaves = jax.tree.leaves(inputs)
    atoms = min(len(leaf) for leaf in leaves)
    rows = rows or max(len(leaf) for leaf in leaves) // atoms
    longest = _TILE if jax.default_backend() == "cpu" else 256 * _TILE
    tiles = -(-atoms * rows // longest)
    if tiles <= 1:
        return f(inputs)
    size = -(-atoms // tiles)
    tiles = -(-atoms // size)

    def tiled(x):
        # What is appended is padding: links without a mask, of length 0.
        each = len(x) // atoms
        x = jnp.pad(x, ((0, (tiles * size - atoms) * each), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(tiles, size * each, *x.shape[1:])

    parts = jax.tree.map(tiled, inputs)
    out = jax.lax.scan(lambda _, part: (None, jax.checkpoint(f)(part)), None, parts)[1]
    return out.reshape(-1, *out.shape[2:])[:atoms]


__all__ = [
    "Edges",
    "attention",
    "by_atoms",
    "by_degrees",
    "edge_degree",
    "feed_forward",
    "layer_norm",
    "linear",
    "norm",
    "radial",
]
