"""Rotation of features into the frames of edges, with derivatives to any order.

A feature of degree l is rotated into the frame of an edge with direction n (a unit vector) by
D(R), R n = y. Any R with that property will do: the choice of the angle about n is a gauge, on
which the network depends weakly (its non-linearity acts on a grid of points). Here

    R(n₀) = R_y(θ) R_x(-β) R_y(-α),   n₀ = R_y(α) R_x(β) y                                   (1)

with θ = 0 or a function of n₀ (`frames`). It is made for the directions n₀ of a graph. When an
edge turns to n, its frame is carried along by the smallest rotation that does it,

    R(n) = R(n₀) Qᵀ,   Q = 1 + [v]× + [v]×² / (1 + c),   v = n₀ × n,   c = n₀·n              (2)

which for a small turn, with ω = n × dn, gives

    dD = -D Σ_a ω_a G_a,        G_a = d/dω_a D(exp [ω]×) at ω = 0                            (3)

with the generators G_a of the rotation group (a = x, y, z), constant matrices. Derivatives are
taken by (3): it needs neither angles nor their singular directions (edges along ±y), and since D
is its own output there, all higher derivatives follow. (3) acts from the right, so rows of D that
are not needed (orders above mmax) can be left out.

With the rotation by π about x + y, J, which exchanges these axes, D(R_x(β)) = J D(R_y(β)) J; D of
a rotation about y is cos and sin of mβ. Basis: e3nn's (see `orders`).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.potentials.equiformer_v2.orders import kept


@functools.cache
def generators(l: int) -> Float[np.ndarray, "3 m m"]:
    """Return G_x, G_y, G_z of degree l: -i times the angular momentum, in the real basis."""
    m = np.arange(-l, l + 1)
    raising = np.diag(np.sqrt(l * (l + 1) - m[:-1] * (m[:-1] + 1.0)), -1)
    L = ((raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m).astype(complex))
    # Rows: cos(mφ) and sin(|m|φ) in terms of exp(imφ), without the sign (-1)^m of those.
    U = np.zeros((2 * l + 1, 2 * l + 1), complex)
    U[l, l] = 1
    for k in range(1, l + 1):
        sign = (-1) ** k
        U[l + k, [l - k, l + k]] = np.array([1, sign]) / math.sqrt(2)
        U[l - k, [l - k, l + k]] = np.array([1j, -1j * sign]) / math.sqrt(2)
    X, Y, Z = (np.real(-1j * (U.conj() @ part @ U.T)) for part in L)
    # The polar axis is y here: (x, y, z) are their (Y, Z, X).
    return np.stack([Y, Z, X])


@functools.cache
def exchange(l: int) -> Float[np.ndarray, "m m"]:
    """Return D of the rotation by π about (1, 1, 0)."""
    G = generators(l)
    values, vectors = np.linalg.eigh(1j * (G[0] + G[1]) / math.sqrt(2))
    turned = vectors * np.exp(-1j * math.pi * np.round(values))
    J = np.real(turned @ vectors.conj().T)
    return np.where(np.abs(J) < 1e-14, 0.0, J)


def frames(n: Float[Array, "edge 3"], gauge: int = 0) -> Float[Array, "edge 3 3"]:
    """Return R of eq. (1) for unit vectors n; finite, also along ±y.

    Args:
        n: Directions.
        gauge: 0 for θ = 0; other numbers turn each edge by an angle that depends on its direction.
    """
    x, y, z = n[:, 0], n[:, 1], n[:, 2]
    s = jnp.hypot(x, z)
    pole = s < jnp.finfo(n.dtype).tiny ** 0.5
    sa = jnp.where(pole, 0.0, x / jnp.where(pole, 1.0, s))
    ca = jnp.where(pole, 1.0, z / jnp.where(pole, 1.0, s))
    o = jnp.zeros_like(x)
    # R_x(-β) R_y(-α) with sin β = s and cos β = y.
    rows = ([ca, o, -sa], [x, y, z], [y * sa, -s, y * ca])
    R = jnp.stack([jnp.stack(row, -1) for row in rows], axis=1)
    theta = gauge * (2.4 + n @ jnp.array([1.7, 2.3, 0.9], n.dtype))
    return _about_y(theta) @ R


def _about_y(angle: Float[Array, " edge"]) -> Float[Array, "edge 3 3"]:
    c, s = jnp.cos(angle), jnp.sin(angle)
    o, i = jnp.zeros_like(c), jnp.ones_like(c)
    rows = [jnp.stack(row, -1) for row in ([c, o, s], [o, i, o], [-s, o, c])]
    return jnp.stack(rows, axis=1)


def carried_frames(
    R: Float[Array, "edge 3 3"], start: Float[Array, "edge 3"], end: Float[Array, "edge 3"]
) -> Float[Array, "edge 3 3"]:
    """Return the frames of directions `start` carried to directions `end`, eq. (2)."""
    v = jnp.cross(start, end)
    c = jnp.sum(start * end, -1)[:, None, None]
    o = jnp.zeros_like(v[:, 0])
    rows = ([o, -v[:, 2], v[:, 1]], [v[:, 2], o, -v[:, 0]], [-v[:, 1], v[:, 0], o])
    cross = jnp.stack([jnp.stack(row, -1) for row in rows], axis=1)
    Q = jnp.eye(3, dtype=v.dtype) + cross + cross @ cross / (1 + c)
    return R @ Q.swapaxes(1, 2)


def rotation(
    n: Float[Array, "edge 3"], R: Float[Array, "edge 3 3"], lmax: int, mmax: int
) -> Float[Array, "edge kept coefficient"]:
    """Return the rows of D(R) that are kept, ordered as `orders.kept`, for R n = y.

    Differentiable in n by eq. (3), to any order; R is held.
    """
    blocks = tuple(_rows(jax.lax.stop_gradient(R), l, min(l, mmax)) for l in range(lmax + 1))
    blocks = _turned(n, blocks)
    rows = []
    for l, m in kept(lmax, mmax):
        row = blocks[l][:, m + min(l, mmax)]
        rows.append(jnp.pad(row, ((0, 0), (l**2, (lmax + 1) ** 2 - (l + 1) ** 2))))
    return jnp.stack(rows, axis=1)


@jax.custom_jvp
def _turned(n, blocks):
    """Return D as it is, as a function of n."""
    return blocks


@_turned.defjvp
def _turned_jvp(primals, tangents):
    n, _ = primals
    blocks = _turned(*primals)
    omega = jnp.cross(n, tangents[0])

    def slope(l, D):
        G = jnp.asarray(generators(l), D.dtype)
        return -D @ jnp.einsum("ea,aij->eij", omega, G)

    return blocks, tuple(slope(l, D) for l, D in enumerate(blocks))


def _rows(R: Float[Array, "edge 3 3"], l: int, most: int) -> Float[Array, "edge row m"]:
    """Return the rows |m| <= most of D_l(R), R = R_y(α) R_x(β) R_y(γ), by its angles."""
    # R y = (sin β sin α, cos β, sin β cos α).
    sine = jnp.hypot(R[:, 0, 1], R[:, 2, 1])
    beta = jnp.arctan2(sine, R[:, 1, 1])
    alpha = jnp.arctan2(R[:, 0, 1], R[:, 2, 1])
    # R_x(-β) R_y(-α) R = R_y(γ); its first row is that of R_y(-α) R.
    first = jnp.cos(alpha)[:, None] * R[:, 0] - jnp.sin(alpha)[:, None] * R[:, 2]
    gamma = jnp.arctan2(first[:, 2], first[:, 0])

    J = jnp.asarray(exchange(l), R.dtype)
    m = jnp.arange(-l, l + 1, dtype=R.dtype)

    # D of R_y(a) has cos(ma) on the diagonal and -sin(ma) on the other one.
    def times_turn(D, angle):
        angle = (angle[:, None] * m)[:, None]
        return D * jnp.cos(angle) + D[..., ::-1] * jnp.sin(angle)

    D = jnp.broadcast_to(J[l - most : l + most + 1], (len(R), 2 * most + 1, 2 * l + 1))
    D = times_turn(times_turn(D, beta) @ J, gamma)
    angle = (alpha[:, None] * m[l - most : l + most + 1])[..., None]
    return D * jnp.cos(angle) - D[:, ::-1] * jnp.sin(angle)


__all__ = ["carried_frames", "exchange", "frames", "generators", "rotation"]
