"""The acoustic cutoff by three definitions, and the connection of bands through crossings.

- path: the highest frequency of the three lowest bands on a band path (the paper's);
- mesh: the same on a mesh;
- connected: the highest frequency of the branches that grow out of the three translations at Γ,
  followed by their eigenvectors along the segments of the path that touch Γ.

Connection. Each branch carries a vector. From one q to the next the branches are distributed over
the degenerate blocks so that the sum of |overlap|² of vector and block is largest (an assignment
problem). Inside a block the vectors become their own projections, made orthonormal: a branch that
enters a crossing as "longitudinal" leaves it as such, although the eigenvectors at the crossing
point are arbitrary. q-points must be close enough that eigenvectors turn little from one to the
next; `Branches.overlap` tells the worst step.
The first is that of Aghoghovbia, Rurali, Al-Fahdi, Ojih, Jiang, Hu (see `dos`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment

from phojax.checks import fail
from phojax.modes import Modes, at_gamma, degenerate_blocks, translations
from phojax.pytree import pytree

_ACOUSTIC = 3


class Branches(NamedTuple):
    """Bands along a line, connected by eigenvectors; on the host.

    Attributes:
        mode: (q, branch) index of the mode that each branch is at each q.
        overlap: The smallest squared overlap of a branch with the block it was put into, per step;
            values far below 1 mean too few q-points.
    """

    mode: np.ndarray
    overlap: np.ndarray


@pytree()
class AcousticCutoffs:
    """The acoustic cutoff in THz by three definitions (see the module's header).

    Attributes:
        path: Three lowest bands on the path.
        connected: Branches connected from Γ; NaN where no segment touches Γ.
        mesh: Three lowest bands on the mesh.
    """

    path: Float[Array, ""]
    connected: Float[Array, ""]
    mesh: Float[Array, ""]


def acoustic_cutoffs(
    path: Modes, segments: Sequence[tuple[int, int]], mesh: Modes
) -> AcousticCutoffs:
    """Return the cutoffs in THz by all three definitions.

    Args:
        path: Concrete modes along the path.
        segments: (start, stop) of each straight piece of the path, in rows of `path.q`.
        mesh: Modes on a mesh.
    """
    return AcousticCutoffs(
        lowest_bands_top(path), connected_branches_top(path, segments), lowest_bands_top(mesh)
    )


@jax.jit
def lowest_bands_top(found: Modes) -> Float[Array, ""]:
    """Return the highest frequency of the three lowest bands in THz; λ sorted at each q.

    Differentiable in λ (with a kink where the highest point moves from one q to another).
    """
    return jnp.max(found.frequencies_THz[:, :_ACOUSTIC])


def connected_branches_top(path: Modes, segments: Sequence[tuple[int, int]]) -> Float[Array, ""]:
    """Return the highest frequency in THz of the branches that start as translations at Γ.

    Args:
        path: Concrete modes along the path.
        segments: (start, stop) rows; those without Γ at an end are not followed.

    Returns:
        The frequency; NaN where no segment touches Γ.
    """
    gamma, rigid, blocks, nu = (np.asarray(x) for x in _known_of(path))
    tops = []
    for start, stop in segments:
        for rows in (np.arange(start, stop), np.arange(start, stop)[::-1]):
            if not gamma[rows[0]]:
                continue
            found = _connected(path, rows, blocks[rows])
            acoustic = rigid[rows[0]][found.mode[0]]
            tops.append(nu[rows[:, None], found.mode[:, acoustic]].max())
    return jnp.asarray(max(tops) if tops else jnp.nan)


@jax.jit
def _known_of(path: Modes):
    """Return, compiled once for a path, what its segments need."""
    blocks = degenerate_blocks(path.eigenvalues)
    return at_gamma(path.q), translations(path), blocks, path.frequencies_THz


def connected_branches(
    path: Modes, rows: Sequence[int] | np.ndarray, *, width: float | None = None
) -> Branches:
    """Return the branches along rows of the path; on the host, one assignment per q-point.

    Args:
        path: Concrete modes.
        rows: Neighbouring q-points in order, along one straight line.
        width: Of the spectrum, for the degenerate blocks; that of `path` by default.

    Raises:
        InputError: no rows.
    """
    rows = np.asarray(rows)
    if len(rows) == 0:
        raise fail("an empty segment", "at least one q-point")
    values = np.asarray(path.eigenvalues)
    width = float(np.ptp(values)) if width is None else width
    blocks = degenerate_blocks(jnp.asarray(values[rows]), width=jnp.asarray(width))
    return _connected(path, rows, np.asarray(blocks))


def _connected(path: Modes, rows: np.ndarray, blocks: np.ndarray) -> Branches:
    e = np.asarray(path.eigenvectors)[rows]
    e = e.reshape(*e.shape[:2], -1).swapaxes(-1, -2)  # columns
    count = e.shape[-1]
    mode = np.empty((len(rows), count), int)
    overlap = np.ones(len(rows))
    mode[0], carried = np.arange(count), e[0]
    for k in range(1, len(rows)):
        member = blocks[k][:, None] == np.arange(count)  # mode, block
        between = e[k].conj().T @ carried  # mode, branch
        per_block = member.T.astype(float) @ np.abs(between) ** 2  # block, branch
        gain = per_block[blocks[k]]  # a mode offers what its block does
        chosen, branch = linear_sum_assignment(gain, maximize=True)
        mode[k, branch] = chosen
        overlap[k] = gain[chosen, branch].min()
        carried = _carried_into(e[k], between, blocks[k], mode[k])
    return Branches(mode, overlap)


def _carried_into(e, between, blocks, mode):
    """Return each branch's vector at the new q: its projection on its block, orthonormalised."""
    carried = np.empty_like(e)
    for block in range(blocks[-1] + 1):
        inside = np.flatnonzero(blocks == block)
        branches = np.flatnonzero(np.isin(mode, inside))
        u, _, vh = np.linalg.svd(between[np.ix_(inside, branches)])
        carried[:, branches] = e[:, inside] @ (u @ vh)
    return carried
