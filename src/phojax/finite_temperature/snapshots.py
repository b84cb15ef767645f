"""Snapshots of a run and the harmonic displacements about the local minima below them (D9).

At a minimum of a supercell of N atoms, with its force constants Φ, the displacements are those of
descriptors.displacements, eq. (1), for the supercell as the cell: at its Γ point

    U_i(T) = (1/m_i) Σ_n g(λ_n, T) Re e_n,i e_n,i†,   n = 1 … 3N less three translations   (1)

or on a mesh of the supercell. Of a perfect crystal this is the sum over those q of the primitive
cell whose waves fit the supercell.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from phojax.brillouin import gamma_mesh
from phojax.checks import fail
from phojax.descriptors.displacements import displacement_tensors, oscillators
from phojax.dynmat import Interpolation, interpolation
from phojax.force_constants.container import ForceConstants
from phojax.md.trajectory import Trajectory
from phojax.modes import modes
from phojax.structure import Structure, structure
from phojax.symmetry import SpaceGroup, space_group
from phojax.units import eigenvalue_from_THz, frequency_THz

_MOST_WORK = 3e7  # operations times pairs of atoms, up to which all of a group is used


@dataclass(frozen=True)
class Snapshots:
    """What is asked for; stored with the result.

    Attributes:
        count: Snapshots, at equal distances.
        start: Frames left out at the beginning.
        site_radius: Å within which an atom is on a site of the reference.
        energy_window: eV per atom from the reference beyond which a minimum is of another
            structure.
        same_distance: Å up to which atoms of the same minimum may differ.
        same_energy: eV per atom, likewise.
        stands_out: An ion stands out with an MSD beyond this many medians.

    Raises:
        InputError: values without meaning.
    """

    count: int = 8
    start: int = 0
    site_radius: float = 1.0
    energy_window: float = 0.05
    same_distance: float = 0.02
    same_energy: float = 1e-4
    stands_out: float = 2.0

    def __post_init__(self) -> None:
        if self.count < 1 or self.start < 0:
            raise fail(f"{self.count} snapshots from frame {self.start} on",
                       "at least 1, from 0 or later on")  # fmt: skip
        for name in (
            "site_radius", "energy_window", "same_distance", "same_energy", "stands_out",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise fail(f"{name} is {value}", "a positive number")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as they are stored in records."""
        return asdict(self)


@dataclass(frozen=True)
class HarmonicDisplacements:
    """Displacements of every atom about a minimum.

    Attributes:
        tensors: U of eq. (1), Å².
        imaginary: Modes left out because λ is not positive, each q of the mesh counted once.
        lost: Share of all modes that they are, by weight.
        frequency_min_THz: Lowest one, translations left out.
        errors: Standard error of the trace of each U by the jackknife over ± pairs of displacements
            of an averaged Hessian, Å²; NaN without.
    """

    tensors: Float[np.ndarray, "T atom 3 3"]
    imaginary: int
    lost: float
    frequency_min_THz: float
    errors: Float[np.ndarray, "T atom"]

    @property
    def msd(self) -> Float[np.ndarray, "T atom"]:
        """Mean-square displacement ⟨u²⟩ of every atom, Å²."""
        return np.trace(self.tensors, axis1=-2, axis2=-1)

    def of_atoms(self, chosen: Int[np.ndarray, " atom"]) -> "HarmonicDisplacements":
        """Return those of some atoms, in another order."""
        return replace(self, tensors=self.tensors[:, chosen], errors=self.errors[:, chosen])


def chosen_frames(frames: int, how: Snapshots) -> Int[np.ndarray, " snapshot"]:
    """Return the frames to take, at equal distances up to the last one.

    Raises:
        InputError: more snapshots than frames.
    """
    left = frames - how.start
    if left < how.count:
        raise fail(
            f"{how.count} snapshots of {frames} frames from frame {how.start} on",
            f"at most {max(left, 0)}",
            "Lower --count or --start, or make a longer run",
        )
    steps = (np.arange(how.count) + 1) / how.count * left
    return how.start + np.rint(steps).astype(int) - 1


def frame_structure(run: Trajectory, frame: int) -> Structure:
    """Return one frame of a trajectory as a crystal."""
    return structure(run.cell, run.positions[frame], run.numbers, run.masses)


def usable_group(crystal: Structure, tolerance: float) -> SpaceGroup:
    """Return operations of a supercell, its pure translations among them.

    All of its group, or the translations alone where that is too large to be worth it.
    """
    group = space_group(crystal, tolerance)
    if len(group) * len(crystal) ** 2 <= _MOST_WORK:
        return group
    return group.subset(np.all(group.rotations == np.eye(3, dtype=int), axis=(1, 2)))


def harmonic_displacements(
    constants: ForceConstants,
    temperatures: Sequence[float],
    smallest_THz: float,
    mesh: tuple[int, int, int] | None = None,
    left_out: Sequence[ForceConstants] = (),
) -> HarmonicDisplacements:
    """Return the displacements of a crystal, taken as it is for the cell.

    Args:
        constants: On the crystal as its own supercell.
        temperatures: K.
        smallest_THz: Modes up to this are no oscillators: they are left out and counted.
        mesh: Divisions of a Γ-centred mesh; Γ alone by default.
        left_out: Force constants with one estimate left out in turn, for errors.
    """
    T = jnp.asarray(tuple(temperatures), float)
    floor = eigenvalue_from_THz(jnp.asarray(smallest_THz, float))

    def solved(given: ForceConstants):
        held = _at_gamma(given) if mesh is None else interpolation(given)
        grid = gamma_mesh(mesh or (1, 1, 1))
        total, lost, imaginary, lowest = 0.0, 0.0, 0, np.inf
        for q, weight in zip(grid.q, grid.weights, strict=True):  # one at a time: bounded memory
            U, count, share, least = _at(held, jnp.asarray(q)[None], T, floor)
            total = total + weight * np.asarray(U)
            lost, imaginary = lost + weight * float(share), imaginary + int(count)
            lowest = min(lowest, float(least))
        return np.asarray(total), imaginary, lost, float(frequency_THz(jnp.asarray(lowest)))

    tensors, imaginary, lost, lowest = solved(constants)
    errors = np.full(tensors.shape[:2], np.nan)
    if left_out:
        each = np.stack([np.trace(solved(c)[0], axis1=-2, axis2=-1) for c in left_out])
        errors = np.sqrt((len(each) - 1) * each.var(axis=0))
    return HarmonicDisplacements(tensors, imaginary, lost, lowest, errors)


def _at_gamma(constants: ForceConstants) -> Interpolation:
    """Return what gives D at Γ alone: one shape, whatever images of pairs are the nearest."""
    crystal = constants.supercell.primitive
    n = 3 * len(crystal)
    values = jnp.swapaxes(constants.values, 1, 2).reshape(1, n, n)
    return Interpolation(crystal, jnp.zeros((1, 3), jnp.int32), values)


@jax.jit
def _at(held: Interpolation, q, T, floor):
    """Return U, imaginary modes, their share and the lowest λ at one q."""
    found = modes(held, q)
    which = oscillators(found, floor)
    lowest = jnp.min(jnp.where(which.translations, jnp.inf, found.eigenvalues))
    U = displacement_tensors(found, T, which.kept)
    return U, which.count_imaginary, which.lost, lowest


__all__ = [
    "HarmonicDisplacements",
    "Snapshots",
    "chosen_frames",
    "frame_structure",
    "harmonic_displacements",
    "usable_group",
]
