"""Densities of states by linear interpolation inside tetrahedra: no smearing.

    g_S(ν) = Σ_qn w_q W_S,qn g_qn(ν),   W_S,qn = Σ_{i∈S,α} |e_qn,iα|²                     (1)
    g_qn(ν) = (1/24) Σ_t M(ν | a_t, b_t, c_t, ν_qn, ν_qn)                               (2)

Every small parallelepiped of the mesh is cut along its shortest main diagonal into six tetrahedra;
24 of them meet at a point. Where a frequency is linear inside a tetrahedron its values there have
the density of a B-spline whose knots are the frequencies at the corners. Weighing the points by
the barycentric coordinate of one corner, which spreads a property of that corner linearly, doubles
the knot of that corner: M in (2) is the cubic B-spline of five knots with integral 1, the doubled
one being that of the point itself, a, b, c those of the other corners. By the recursion

    M(x | t_0 … t_k) = k [(x − t_0) M(x | t_0 … t_k−1) + (t_k − x) M(x | t_1 … t_k)]
                       / (k − 1) (t_k − t_0)
    M(x | t_0, t_1) = 1/(t_1 − t_0) for t_0 ≤ x < t_1, else 0                            (3)

it is a sum of positive terms, stable for knots as close as they come. Knots closer than 1e-10 THz
count as equal, and terms between equal knots are 0. So a tetrahedron that is flat altogether, a
delta function, adds nothing to a curve; `flat_share` tells how much that is. Bands are counted by
rank, as in phonopy, and the translations at Γ are corners like any others.

Points equivalent by symmetry stand for each other in (1), as centres and as corners. Where the
crystal has operations that do not keep the tetrahedra, the curve of a reduced mesh and that of the
full one differ by as much as the method errs.
Source: Curry, Schoenberg, J. Anal. Math. 17, 71 (1966); de Boor, A Practical Guide to Splines
(1978), chapter X; Blöchl, Jepsen, Andersen, Phys. Rev. B 49, 16223 (1994), section II.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from phojax.brillouin import Mesh
from phojax.modes import Modes, block_mean, degenerate_blocks, translations
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup
from phojax.units import frequency_THz

_EQUAL = 1e-10  # THz; knots closer together count as one
_ROWS = 512  # modes in flight
_WINDOWS = (4, 16, 64)  # points of a curve that a mode is evaluated at


def tetrahedron_neighbours(mesh: Mesh, crystal: Structure) -> Int[Array, "q 24 4"]:
    """Return the corners of the 24 tetrahedra at each irreducible point, as rows of `mesh.q`.

    The point itself comes first. Made on the host.

    Args:
        mesh: Any regular mesh, reduced or not.
        crystal: Whose reciprocal vectors decide on the diagonal.
    """
    n = np.asarray(mesh.divisions)
    steps = np.linalg.inv(np.asarray(crystal.cell, float)).T / n[:, None]
    # Diagonals a + b + c, −a + b + c, a − b + c, a + b − c; the first of equally short ones.
    signs = np.ones((4, 3), int) - 2 * np.eye(4, 3, -1, dtype=int)
    lengths = np.sum((signs @ steps) ** 2, axis=1)
    sign = signs[np.argmax(lengths <= lengths.min() * (1 + 1e-9))]
    # A tetrahedron walks along the three edges in some order, from one end of the diagonal.
    walks = [
        np.cumsum([[0, 0, 0], *np.eye(3, dtype=int)[list(order)]], axis=0)
        for order in itertools.permutations(range(3))
    ]
    around = np.stack(
        [np.roll(walk, -corner, axis=0) - walk[corner] for walk in walks for corner in range(4)]
    )
    _, first = np.unique(mesh.irreducible, return_index=True)
    centre = np.stack(np.unravel_index(first, tuple(n)), axis=-1)
    corners = np.mod(centre[:, None, None] + sign * around, n)
    number = np.ravel_multi_index(tuple(np.moveaxis(corners, -1, 0)), tuple(n))
    return jnp.asarray(mesh.irreducible[number], jnp.int32)


def tetrahedron_weights(
    values: Float[Array, "q mode"],
    neighbours: Int[Array, "q 24 4"],
    grid: Float[Array, " f"],
) -> Float[Array, "q mode f"]:
    """Return g_qn of eq. (2) at every point of the grid, per THz; integrates to 1.

    Memory: the result, and 24 times that of one q. Differentiable in `values`.

    Args:
        values: Frequencies in THz, or whatever else varies over the mesh, in its unit.
        neighbours: From `tetrahedron_neighbours`.
        grid: In the unit of `values`.
    """

    def at_point(corners):
        t = _knots(values[corners].transpose(1, 2, 0))  # (mode, 24) each
        return jnp.mean(_spline(grid[:, None, None], t), axis=-1).T

    return jax.lax.map(jax.checkpoint(at_point), neighbours)


def tetrahedron_dos(
    found: Modes,
    neighbours: Int[Array, "q 24 4"],
    frequencies: Float[Array, " f"],
    groups: Shaped[Array, "group atom"] | Shaped[Array, "group atom 3"],
) -> Float[Array, "group f"]:
    """Return g_S of eq. (1), in modes per THz and cell, one row per group.

    |e|² is averaged over degenerate blocks, so the choice of eigenvectors does not matter. On a
    mesh reduced by a space group the groups must not tell equivalent atoms apart: use
    `dos.species_groups`, or `orbit_means` for curves of single atoms. Curves per direction
    (groups with an axis xyz) need a mesh reduced by time reversal alone.

    Differentiable in eigenvalues and |e|², except where modes are degenerate and in the
    translations at Γ, whose frequencies are taken as constant.

    Args:
        found: Modes at the points of a mesh, with its weights.
        neighbours: From `tetrahedron_neighbours`.
        frequencies: Ascending grid in THz.
        groups: What each atom, or each of its directions, counts in each curve.
    """
    share = _shares(found, groups) * found.weights[:, None, None]
    return tetrahedron_curves(_frequencies(found), share, neighbours, frequencies)


def tetrahedron_curves(
    nu: Float[Array, "q mode"],
    share: Float[Array, "q mode group"],
    neighbours: Int[Array, "q 24 4"],
    frequencies: Float[Array, " f"],
) -> Float[Array, "group f"]:
    """Return g_S of eq. (1) for frequencies in THz and shares w W given per mode."""
    q, mode = nu.shape
    corners = neighbours[:, None] * mode + jnp.arange(mode, dtype=jnp.int32)[:, None, None]
    corners = corners.reshape(q * mode, 24, 4)
    return _curves(nu.reshape(-1), corners, share.reshape(q * mode, -1), frequencies)


def flat_share(
    values: Float[Array, "q mode"],
    neighbours: Int[Array, "q 24 4"],
    weights: Float[Array, " q"],
) -> Float[Array, ""]:
    """Return the share of all states that lies in flat tetrahedra and is missing from curves."""

    def at_point(corners):
        v = values[corners]  # (24, 4, mode)
        return jnp.mean(jnp.max(v, axis=1) - jnp.min(v, axis=1) <= _EQUAL)

    return jnp.sum(weights * jax.lax.map(at_point, neighbours)) / jnp.sum(weights)


def orbit_means(group: SpaceGroup) -> Float[Array, "atom atom"]:
    """Return groups for `tetrahedron_dos`: each atom's row averages over those equivalent to it."""
    same = group.orbits[:, None] == group.orbits
    return jnp.asarray(same / same.sum(axis=1, keepdims=True))


def _frequencies(found):
    """Return ν; √λ has no derivative at the λ = 0 of a translation."""
    rigid = translations(found)
    nu = frequency_THz(jnp.where(rigid, 1.0, found.eigenvalues))
    return jnp.where(rigid, jax.lax.stop_gradient(found.frequencies_THz), nu)


def _shares(found, groups):
    e = found.eigenvectors
    each = e.real**2 + e.imag**2
    if groups.ndim == 2:
        each = jnp.sum(each, axis=-1)
    count = np.prod(groups.shape[1:])
    each = each.reshape(*found.eigenvalues.shape, count)
    return block_mean(
        each @ groups.reshape(-1, count).T.astype(each.dtype), degenerate_blocks(found.eigenvalues)
    )


def _curves(nu, corners, share, grid):
    """Return Σ_r share_r g_r on the grid.

    Most modes spread over few points of the grid. Rows are sorted by that number, and every chunk
    of them is evaluated on the smallest window that holds its widest.
    """
    points = len(grid)
    around = nu[corners]
    first = jnp.searchsorted(grid, jnp.min(around, axis=(1, 2)))
    count = jnp.searchsorted(grid, jnp.max(around, axis=(1, 2)), side="right") - first
    rows = min(_ROWS, len(count))
    order = jnp.argsort(count)
    spare = -len(order) % rows
    share = jnp.pad(share[order], ((0, spare), (0, 0))).reshape(-1, rows, share.shape[1])
    order = jnp.pad(order, (0, spare)).reshape(-1, rows)
    sizes = [size for size in _WINDOWS if size < points // 2] + [points]
    empty = jnp.zeros((points, share.shape[-1]), nu.dtype)

    def window(size, around, first, share):
        first = jnp.zeros_like(first) if size == points else first
        at = first + jnp.arange(size)[:, None]  # (k, row)
        x = grid[jnp.minimum(at, points - 1)]
        t = _knots(around.T)  # (24, row) each
        each = jnp.mean(_spline(x[:, None], t), axis=1)  # (k, row)
        if size == points:
            return each @ share
        return empty.at[at].add(each[:, :, None] * share, mode="drop")

    @jax.checkpoint
    def add(curve, chunk):
        row, share = chunk
        size = jnp.searchsorted(jnp.asarray(sizes), jnp.max(count[row]))
        branches = [partial(window, size) for size in sizes]
        return curve + jax.lax.switch(size, branches, nu[corners[row]], first[row], share), None

    curve, _ = jax.lax.scan(add, empty, (order, share))
    return curve.T


def _knots(corners):
    """Return t_0 ≤ … ≤ t_4: the values at four corners, the first of them twice."""
    z, a, b, c = corners
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    b, c = jnp.minimum(b, c), jnp.maximum(b, c)
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    return (
        jnp.minimum(a, z),
        jnp.minimum(b, z),
        jnp.clip(z, a, c),
        jnp.maximum(b, z),
        jnp.maximum(c, z),
    )


def _spline(x, t):
    """Return M(x | t_0 … t_4) by eq. (3)."""

    def inverse(i, j):
        width = t[j] - t[i]
        apart = width > _EQUAL
        return jnp.where(apart, 1 / jnp.where(apart, width, 1.0), 0.0)

    above = [x >= knot for knot in t]
    M = [jnp.where(above[i] & ~above[i + 1], inverse(i, i + 1), 0.0) for i in range(4)]
    right = [x - knot for knot in t[:3]]
    left = [knot - x for knot in t]
    for k in (2, 3, 4):
        M = [
            (right[i] * M[i] + left[i + k] * M[i + 1]) * (inverse(i, i + k) * (k / (k - 1)))
            for i in range(5 - k)
        ]
    return M[0]
