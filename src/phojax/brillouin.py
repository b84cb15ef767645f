"""Regular q meshes with weights, and band paths. Host side; q in reciprocal lattice vectors.

An operation {W|w} takes q to q W⁻¹, time reversal takes it to -q. A mesh is reduced only by
those operations that map it onto itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import seekpath

from phojax.checks import fail
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup

DEFAULT_SPACING = 0.15
"""Distance of neighbouring mesh points in Å⁻¹, 2π included."""


@dataclass(frozen=True)
class Mesh:
    """The irreducible points of a regular mesh, and how they make the full one.

    Point number (m_a n_b + m_b) n_c + m_c of the full mesh is (m + shift)/n, up to lattice
    vectors; `gamma_mesh` has Γ first in both lists.

    Attributes:
        q: (q, 3).
        weights: (q,) summing to one.
        divisions: Points along each reciprocal vector; their product is N_q of the full mesh.
        shift: 0 or 1/2 of a step along each reciprocal vector.
        irreducible: (full,) for each point of the full mesh the row of `q` it is equivalent to.
        operation: (full,) the number in the space group of the operation that takes it there; 0
            where none is needed.
        reversed: (full,) whether time reversal does so, too.
    """

    q: np.ndarray
    weights: np.ndarray
    divisions: tuple[int, int, int]
    shift: tuple[float, float, float]
    irreducible: np.ndarray
    operation: np.ndarray
    reversed: np.ndarray

    @property
    def full_q(self) -> np.ndarray:
        """(full, 3) all points, within half a reciprocal lattice vector of Γ."""
        n = np.asarray(self.divisions)
        q = (_addresses(n) + np.asarray(self.shift)) / n
        return q - np.rint(q)


@dataclass(frozen=True)
class BandPath:
    """A path through the zone. Segments are straight; their end points occur in both of two.

    Attributes:
        q: (point, 3).
        distance: (point,) Å⁻¹, 2π included; does not grow across a jump.
        segments: For each segment the slice of its points.
        labels: For each segment the names of its two ends.
    """

    q: np.ndarray
    distance: np.ndarray
    segments: tuple[slice, ...]
    labels: tuple[tuple[str, str], ...]

    @property
    def directions(self) -> np.ndarray:
        """(point, 3) the direction of the segment that each point is on, fractional."""
        along = np.zeros(self.q.shape)
        for part in self.segments:
            along[part] = self.q[part][-1] - self.q[part][0]
        return along


def mesh_divisions(crystal: Structure, spacing: float = DEFAULT_SPACING) -> tuple[int, int, int]:
    """Return the divisions that make neighbouring points at most `spacing` Å⁻¹ apart."""
    if not spacing > 0:
        raise fail(f"mesh spacing {spacing} Å⁻¹", "a positive number")
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(crystal.cell, float)).T
    n = np.ceil(np.linalg.norm(reciprocal, axis=1) / spacing - 1e-9).astype(int)
    a, b, c = (int(x) for x in np.maximum(n, 1))
    return a, b, c


def gamma_mesh(divisions: Sequence[float], group: SpaceGroup | None = None) -> Mesh:
    """Return the mesh through Γ, reduced by time reversal and by the group where one is given.

    Raises:
        InputError: divisions that are not three positive integers.
    """
    return q_mesh(divisions, group)


def q_mesh(
    divisions: Sequence[float],
    group: SpaceGroup | None = None,
    shift: Sequence[float] = (0.0, 0.0, 0.0),
) -> Mesh:
    """Return a mesh, reduced by time reversal and by the group where one is given.

    Args:
        divisions: Points along each reciprocal vector.
        group: The symmetry of what is to be summed over the mesh.
        shift: Of all points, in steps of the mesh along each reciprocal vector: 0 or 1/2.

    Raises:
        InputError: divisions that are not three positive integers; another shift.
    """
    n = np.asarray(divisions)
    if n.shape != (3,) or n.dtype.kind != "i" or np.any(n < 1):
        raise fail(f"mesh {list(divisions)}", "three integers of at least 1")
    half = np.rint(2 * np.asarray(shift, float)).astype(int)
    if half.shape != (3,) or not np.array_equal(half / 2, shift) or not set(half) <= {0, 1}:
        raise fail(f"mesh shift {list(shift)}", "three numbers, each 0 or 0.5")
    twice = 2 * _addresses(n) + half
    number = np.arange(len(twice))

    # (image of each point, operation, time reversed); the identity first.
    images = [(number, 0, False), (_number_of(-twice, n, half), 0, True)]
    if group is not None:
        found, first = np.unique(group.rotations, axis=0, return_index=True)
        for W, operation in zip(found, first, strict=True):
            inverse = np.rint(np.linalg.inv(W)).astype(int)
            onto = inverse * n / n[:, None]  # m -> m' with m'/n = (m/n) W⁻¹
            if not np.array_equal(onto, np.rint(onto)):
                continue
            arrived = twice @ np.rint(onto).astype(int)
            if np.all((arrived - half) % 2 == 0):
                images.append((_number_of(arrived, n, half), int(operation), False))
                images.append((_number_of(-arrived, n, half), int(operation), True))
    smallest = np.min([image for image, _, _ in images], axis=0)
    kept, irreducible, counts = np.unique(smallest, return_inverse=True, return_counts=True)
    operation = np.full(len(number), -1)
    reverse = np.zeros(len(number), bool)
    for image, op, back in images:
        new = image[kept][operation[image[kept]] < 0]
        operation[new], reverse[new] = op, back
    q = twice[kept] / (2 * n)
    a, b, c = (int(k) for k in n)
    x, y, z = (float(k) / 2 for k in half)
    return Mesh(
        q - np.rint(q), counts / len(twice), (a, b, c), (x, y, z),
        irreducible.reshape(-1), operation, reverse,
    )  # fmt: skip


def band_path(crystal: Structure, spacing: float = 0.025) -> BandPath:
    """Return seekpath's path (Hinuma et al. 2017) for this very cell, points `spacing` Å⁻¹ apart.

    Every segment has at least two points.
    """
    cell = (
        np.asarray(crystal.cell, float),
        np.asarray(crystal.fractional, float),
        np.asarray(crystal.numbers),
    )
    found = seekpath.get_path_orig_cell(cell)
    reciprocal = 2 * np.pi * np.linalg.inv(cell[0]).T
    q, distance, segments, labels = [], [], [], []
    travelled, count = 0.0, 0
    for start, end in found["path"]:
        a, b = (np.asarray(found["point_coords"][name]) for name in (start, end))
        length = float(np.linalg.norm((b - a) @ reciprocal))
        points = max(2, int(np.ceil(length / spacing)) + 1)
        t = np.linspace(0, 1, points)
        q.append(a + t[:, None] * (b - a))
        distance.append(travelled + t * length)
        segments.append(slice(count, count + points))
        labels.append((_pretty(start), _pretty(end)))
        travelled, count = travelled + length, count + points
    return BandPath(np.concatenate(q), np.concatenate(distance), tuple(segments), tuple(labels))


def _addresses(n: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(k) for k in n], indexing="ij"), -1).reshape(-1, 3)


def _number_of(twice: np.ndarray, n: np.ndarray, half: np.ndarray) -> np.ndarray:
    m = np.mod((twice - half) // 2, n)
    return np.asarray(np.ravel_multi_index(m.T, tuple(n)))


def _pretty(name: str) -> str:
    return {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}.get(name, name)
