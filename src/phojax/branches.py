"""Branches: bands followed by their eigenvectors, through crossings and degenerate points.

Each branch carries a vector. From one q to the next the branches are distributed over the
degenerate blocks so that the sum of |overlap|² of vector and block is largest (an assignment
problem). Inside a block the vectors become their own projections, made orthonormal: a branch that
enters a crossing as "longitudinal" leaves it as such, although the eigenvectors at the crossing
point are arbitrary. q-points must be close enough that eigenvectors turn little from one to the
next; `Branches.overlap` tells the worst step.

A line may begin at a degenerate point, where no eigenvectors have come from anywhere. There the
vectors are those of the next point, projected back. Where a path turns a corner, its branches go on
into the next segment: at the corner each is matched, within its block, with the vector that it
resembles most of those that the new direction asks for. After a jump the count starts anew.
All on the host; q in the order of the path, eigenvectors in the gauge of `modes`, which is
continuous in q.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from phojax.checks import check_shape, fail
from phojax.modes import Modes, degenerate_blocks

_SAME_POINT = 1e-9  # fractional


@dataclass(frozen=True)
class Branches:
    """Bands along a line, connected by eigenvectors; on the host.

    Attributes:
        mode: (q, branch) index of the mode that each branch is at each q.
        overlap: (q,) the smallest squared overlap of a branch with the block it was put into, on
            the step to this q; values far below 1 mean too few q-points.
    """

    mode: np.ndarray
    overlap: np.ndarray

    @property
    def branch(self) -> np.ndarray:
        """(q, mode) index of the branch that each mode belongs to."""
        return np.argsort(self.mode, axis=1)

    def ordered(self, values: Any) -> np.ndarray:
        """Return values (q, mode, …) of the same q with branches in place of modes.

        Raises:
            InputError: values of another number of q or modes.
        """
        values = np.asarray(values)
        check_shape("values", values[(..., *[0] * (values.ndim - 2))], self.mode.shape)
        order = self.mode.reshape(self.mode.shape + (1,) * (values.ndim - 2))
        return np.take_along_axis(values, order, axis=1)


def connected_branches(
    path: Modes,
    rows: Sequence[int] | np.ndarray,
    *,
    width: float | None = None,
    blocks: np.ndarray | None = None,
) -> Branches:
    """Return the branches along rows of the path, numbered as the modes of the first.

    Args:
        path: Concrete modes.
        rows: Neighbouring q-points in order, along one straight line.
        width: Of the spectrum in the unit of λ, for the degenerate blocks; that of `path` by
            default.
        blocks: (q, mode) those of the rows, if known.

    Raises:
        InputError: no rows.
    """
    rows = np.asarray(rows)
    e, blocks = _vectors(path, rows), _blocks(path, rows, width, blocks)
    return _followed(e, blocks, _start(e, blocks), np.arange(e.shape[-1]))[0]


def connected_path(
    path: Modes, segments: Sequence[slice | tuple[int, int]], *, width: float | None = None
) -> list[Branches]:
    """Return the branches of every segment of a band path.

    A segment that begins where the one before it ended has the same branches; after a jump they
    are numbered as the modes of the new start.

    Args:
        path: Concrete modes.
        segments: Of `brillouin.BandPath`, or (start, stop) of each, in rows of `path.q`.
        width: As for `connected_branches`.

    Raises:
        InputError: an empty segment.
    """
    found: list[Branches] = []
    points, end, last = np.asarray(path.q), None, None
    for segment in segments:
        if isinstance(segment, slice):
            rows = np.arange(len(points))[segment]
        else:
            rows = np.arange(*segment)
        e, blocks = _vectors(path, rows), _blocks(path, rows, width)
        start, joint = _start(e, blocks), 1.0
        number = np.arange(e.shape[-1])
        if end is not None and np.abs(points[rows[0]] - points[last]).max() < _SAME_POINT:
            number, _ = _assigned(np.abs(start.conj().T @ end) ** 2)
            between = np.abs(e[0].conj().T @ end) ** 2
            joint = _per_block(between, blocks[0])[number, np.arange(len(number))].min()
        branches, end = _followed(e, blocks, start[:, number], number)
        branches.overlap[0] = joint
        found.append(branches)
        last = rows[-1]
    return found


def _vectors(path: Modes, rows: np.ndarray) -> np.ndarray:
    """Return the eigenvectors of the rows as columns."""
    if len(rows) == 0:
        raise fail("an empty segment", "at least one q-point")
    e = np.asarray(path.eigenvectors)[rows]
    return e.reshape(*e.shape[:2], -1).swapaxes(-1, -2)


def _blocks(path, rows, width, blocks=None) -> np.ndarray:
    if blocks is not None:
        return np.asarray(blocks)
    values = np.asarray(path.eigenvalues)
    width = float(np.ptp(values)) if width is None else width
    return np.asarray(degenerate_blocks(jnp.asarray(values[rows]), width=jnp.asarray(width)))


def _start(e: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return eigenvectors of the first point, in blocks those that go on smoothly."""
    if len(e) == 1:
        return e[0]
    mode, _, carried = _step(e[0], blocks[0], e[1])
    start = np.empty_like(carried)
    start[:, mode] = carried
    return start


def _followed(e, blocks, carried, first) -> tuple[Branches, np.ndarray]:
    """Return the branches that start as modes `first` with vectors `carried`, and their last."""
    mode = np.empty(e.shape[:2], int)
    overlap = np.ones(len(e))
    mode[0] = first
    for k in range(1, len(e)):
        mode[k], overlap[k], carried = _step(e[k], blocks[k], carried)
    return Branches(mode, overlap), carried


def _step(e, blocks, carried) -> tuple[np.ndarray, float, np.ndarray]:
    """Return the mode of each branch at a new q, the smallest overlap, and the vectors there."""
    between = e.conj().T @ carried  # mode, branch
    mode, least = _assigned(_per_block(np.abs(between) ** 2, blocks))
    moved = np.empty_like(e)
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        branches = np.flatnonzero(np.isin(mode, inside))
        # The nearest orthonormal vectors to the projections on the block.
        u, _, vh = np.linalg.svd(between[np.ix_(inside, branches)])
        moved[:, branches] = e[:, inside] @ (u @ vh)
    return mode, least, moved


def _per_block(overlaps: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return (mode, branch): a mode offers what its block does."""
    labels, own = np.unique(blocks, return_inverse=True)
    member = labels[:, None] == blocks  # block, mode
    return (member.astype(float) @ overlaps)[own]


def _assigned(gain: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mode of each branch for the largest sum of gains, and the smallest gain."""
    modes, branches = linear_sum_assignment(gain, maximize=True)
    mode = np.empty(len(modes), int)
    mode[branches] = modes
    return mode, float(gain[modes, branches].min())
