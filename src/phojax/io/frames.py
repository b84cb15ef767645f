"""Structures with forces in files that ASE reads, in whatever cells: for comparing forces alone."""

import os
import pathlib

import numpy as np
from ase import Atoms
from ase.io import read

from phojax.checks import check_finite, fail
from phojax.convert import structure_from_ase
from phojax.force_constants.displacements import DisplacementSet
from phojax.io.phonopy_yaml import trying
from phojax.structure import supercell


def read_frames(path: str | os.PathLike) -> list[DisplacementSet]:
    """Return all frames of a file with their forces (eV/Å), those of one cell in one set.

    The first frame of a set counts as the undisplaced one.

    Args:
        path: extxyz, vasprun.xml, OUTCAR, .traj, … with forces in every frame.

    Raises:
        InputError: a file that cannot be read, a frame without forces or with others than finite.
    """
    path = pathlib.Path(path)
    frames: list[Atoms] = trying(
        path, "a file with forces that ASE can read", lambda: read(path, index=":")
    )
    if not frames:
        raise fail(f"{path} holds no finished calculation", "structures with forces")
    sets: dict[tuple, list[tuple[Atoms, np.ndarray]]] = {}
    for number, atoms in enumerate(frames):
        label = f"{path}, frame {number + 1}"
        forces = frame_forces(atoms)
        if forces is None:
            raise fail(
                f"{label}: no forces",
                "forces on every atom, in eV/Å",
                "Name the output of a calculation; or name a --reference potential to compare with",
            )
        check_finite(f"{label}: forces", forces)
        same = (atoms.numbers.tobytes(), np.round(np.array(atoms.cell), 9).tobytes())
        sets.setdefault(same, []).append((atoms, np.asarray(forces, float)))
    found = []
    for members in sets.values():
        crystal = structure_from_ase(members[0][0])
        rest = np.asarray(crystal.positions)
        moves = np.array([atoms.positions - rest for atoms, _ in members])
        largest = float(np.linalg.norm(moves, axis=2).max())
        cells = supercell(crystal, np.eye(3, dtype=int))
        found.append(DisplacementSet(cells, moves, np.array([f for _, f in members]), largest))
    return found


def frame_forces(atoms: Atoms) -> np.ndarray | None:
    """Return the forces stored with atoms, eV/Å; None where there are none."""
    forces = atoms.arrays.get("forces")
    if forces is None and atoms.calc is not None:
        forces = atoms.calc.results.get("forces")
    return forces
