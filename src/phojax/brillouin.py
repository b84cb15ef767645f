"""Γ-centred q meshes with weights, and band paths. Host side; q in reciprocal lattice vectors.

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
    """Points of a Γ-centred mesh, Γ first.

    Attributes:
        q: (q, 3).
        weights: (q,) summing to one.
        divisions: Points along each reciprocal vector; their product is N_q of the full mesh.
    """

    q: np.ndarray
    weights: np.ndarray
    divisions: tuple[int, int, int]


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


def mesh_divisions(crystal: Structure, spacing: float = DEFAULT_SPACING) -> tuple[int, int, int]:
    """Return the divisions that make neighbouring points at most `spacing` Å⁻¹ apart."""
    if not spacing > 0:
        raise fail(f"mesh spacing {spacing} Å⁻¹", "a positive number")
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(crystal.cell, float)).T
    n = np.ceil(np.linalg.norm(reciprocal, axis=1) / spacing - 1e-9).astype(int)
    a, b, c = (int(x) for x in np.maximum(n, 1))
    return a, b, c


def gamma_mesh(divisions: Sequence[int], group: SpaceGroup | None = None) -> Mesh:
    """Return the mesh, reduced by time reversal and by the group where one is given.

    Raises:
        InputError: divisions that are not three positive integers.
    """
    n = np.asarray(divisions)
    if n.shape != (3,) or n.dtype.kind != "i" or np.any(n < 1):
        raise fail(f"mesh {list(divisions)}", "three integers of at least 1")
    m = np.stack(np.meshgrid(*[np.arange(k) for k in n], indexing="ij"), -1).reshape(-1, 3)
    number = np.arange(len(m))
    smallest = np.minimum(number, _number_of(-m, n))
    if group is not None:
        for W in {r.tobytes(): r for r in group.rotations}.values():
            inverse = np.rint(np.linalg.inv(W)).astype(int)
            onto = inverse * n / n[:, None]  # m -> m' with m'/n = (m/n) W⁻¹
            if np.array_equal(onto, np.rint(onto)):
                image = _number_of(m @ np.rint(onto).astype(int), n)
                smallest = np.minimum(smallest, np.minimum(image, _number_of(-m[image], n)))
    kept, counts = np.unique(smallest, return_counts=True)
    q = m[kept] / n
    a, b, c = (int(k) for k in n)
    return Mesh(q - np.rint(q), counts / len(m), (a, b, c))


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


def _number_of(m: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.asarray(np.ravel_multi_index(np.mod(m, n).T, tuple(n)))


def _pretty(name: str) -> str:
    return {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}.get(name, name)
