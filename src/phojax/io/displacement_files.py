"""Displaced supercells to files for other programs, and the forces that they find.

Everything is written in phonopy's order of atoms, so that its files and its command line fit:

    phonopy_disp.yaml        the cells and the displacements
    POSCAR, POSCAR-001, …    the undisplaced supercell, and the displaced ones
    displaced.extxyz         all of them

Forces are read from vasprun.xml, OUTCAR, extxyz (anything that ASE reads forces from) and
FORCE_SETS. Atoms are recognised by where they are, in any order; a calculation is recognised by its
displacements, in any order as well. What does not fit is told, not guessed.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from phonopy.file_IO import parse_FORCE_SETS
from phonopy.interface.calculator import get_calculator_physical_units
from phonopy.structure.dataset import forces_in_dataset, get_displacements_and_forces

from phojax.checks import check_shape, fail
from phojax.convert import ase_atoms
from phojax.force_constants.displacements import DisplacementSet, with_forces
from phojax.io.atomic import replacing
from phojax.io.frames import frame_forces
from phojax.io.phonopy_files import phonopy_of, primitive_of
from phojax.io.phonopy_map import atoms_in_phonopy_order, supercell_matrix
from phojax.io.phonopy_yaml import phonopy_object, read_yaml, trying
from phojax.structure import supercell

PathLike = str | os.PathLike

_FAR = 0.5  # Å; no atom of a displaced supercell is as far from its site
_CLOSE = 1e-3  # Å; displacements that agree within it are the same


def write_displacements(directory: PathLike, given: DisplacementSet) -> list[pathlib.Path]:
    """Write a set in the formats of this module's header; return the paths.

    Args:
        directory: Made where it is missing.
        given: Forces, where there are any, are written into phonopy_disp.yaml and extxyz.

    Raises:
        InputError: phonopy finds a smaller primitive cell in atoms that are all the same.
    """
    directory = pathlib.Path(directory)
    phonon = phonopy_of(given.supercell)
    order = atoms_in_phonopy_order(phonon, given.supercell)
    dataset: Any = {"displacements": given.displacements[:, order]}
    if given.forces is not None:
        dataset["forces"] = given.forces[:, order]
    moved = np.abs(given.displacements).max(axis=2) > 0
    if np.all(moved.sum(axis=1) == 1):
        dataset = _of_first_atoms(dataset, len(order))
    phonon.dataset = dataset

    paths = [directory / "phonopy_disp.yaml"]
    with replacing(paths[0]) as temporary:
        phonon.save(
            temporary,
            settings={"force_sets": given.forces is not None, "displacements": True},
        )
    rest: Any = ase_atoms(given.supercell.structure)[order]
    displaced = []
    for number, moves in enumerate(given.displacements):
        atoms = rest.copy()
        atoms.positions += moves[order]
        displaced.append(atoms)
        paths.append(directory / f"POSCAR-{number + 1:03d}")
        _write_poscar(paths[-1], atoms)
    paths.append(directory / "POSCAR")
    _write_poscar(paths[-1], rest)
    paths.append(directory / "displaced.extxyz")
    for number, atoms in enumerate(displaced):
        if given.forces is not None:
            atoms.arrays["forces"] = given.forces[number][order]
    with replacing(paths[-1]) as temporary:
        write(temporary, displaced, format="extxyz")
    return paths


def read_forces(paths: Sequence[PathLike] | PathLike, given: DisplacementSet) -> DisplacementSet:
    """Return the set with the forces (eV/Å) found in files.

    Args:
        paths: FORCE_SETS, or files that ASE reads forces from (vasprun.xml, OUTCAR, extxyz with
            one or many frames), together holding each displaced supercell.
        given: The set that they were computed for.

    Raises:
        InputError: a file that cannot be read or holds no forces; another cell (say, in another
            unit), other atoms; displacements that are not of the set, as after a relaxation or
            a shift of the origin; supercells without forces, or with two different ones.
    """
    files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    forces = np.full(given.displacements.shape, np.nan)
    source: dict[int, str] = {}
    for path in map(pathlib.Path, files):
        frames = _frames(path, given)
        if not frames:
            raise fail(
                f"{path} holds no finished calculation", "forces", "Finish it, or name another file"
            )
        for number, (moves, found) in enumerate(frames):
            label = f"{path}, frame {number + 1}" if len(frames) > 1 else str(path)
            k = _recognised(moves, given, label)
            if k in source and np.abs(forces[k] - found).max() > 1e-6:
                raise fail(
                    f"{label} and {source[k]} hold different forces for displacement {k + 1}",
                    "one calculation of each",
                )
            forces[k], source[k] = found, label
    missing = [k + 1 for k in range(len(given)) if k not in source]
    if missing:
        raise fail(
            f"no forces for {len(missing)} of {len(given)} displacements, number "
            f"{', '.join(map(str, missing[:5]))}{' …' if len(missing) > 5 else ''}",
            "forces for each",
            "Finish those calculations, or take a set without them",
        )
    return with_forces(given, forces)


def read_displacement_set(
    path: PathLike, forces: Sequence[PathLike] | PathLike | None = None
) -> tuple[DisplacementSet, tuple[str, ...]]:
    """Return the displacements of a phonopy file with their forces, and remarks on the reading.

    Args:
        path: phonopy_disp.yaml, phonopy_params.yaml or phonopy.yaml.
        forces: FORCE_SETS, or outputs as in `read_forces`; None for the forces in the YAML file or
            in FORCE_SETS beside it. The set has none where there are neither.

    Raises:
        InputError: a file that cannot be read, without displacements, or that does not fit.
    """
    path = pathlib.Path(path)
    notes: list[str] = []
    held = read_yaml(path, notes)
    data = held.data
    phonon = phonopy_object(path, held, notes)
    units = get_calculator_physical_units(data.calculator)
    cells = supercell(primitive_of(phonon, units.distance_to_A), supercell_matrix(phonon))
    order = atoms_in_phonopy_order(phonon, cells)
    files = [forces] if isinstance(forces, str | os.PathLike) else list(forces or ())
    dataset, source = data.dataset, path
    inside = dataset is not None and forces_in_dataset(dataset)
    beside = path.with_name("FORCE_SETS")
    if not files and not inside and beside.exists():
        files = [beside]
    if len(files) == 1 and pathlib.Path(files[0]).name.startswith("FORCE_SETS"):
        source = pathlib.Path(files.pop())
        dataset = _force_sets(source, len(order))
    if dataset is None:
        raise fail(
            f"{path} holds no displacements",
            "a displacement dataset",
            "Give phonopy_disp.yaml, or FORCE_SETS with it",
        )
    if source != path:
        notes.append(f"displacements and forces from {source}")
    moves, found = get_displacements_and_forces(dataset)
    back = np.argsort(order)
    moves = np.asarray(moves, float)[:, back] * units.distance_to_A
    distance = float(np.median(np.linalg.norm(moves, axis=2).max(axis=1)))
    given = DisplacementSet(cells, moves, None, distance)
    if files:
        return read_forces(files, given), tuple(notes)
    if found is not None:
        if data.calculator and units.force_to_eVperA != 1.0:
            notes.append(f"units of {data.calculator} converted to eV and Å")
        found = np.asarray(found, float)
        check_shape(f"{source}: forces", found, moves.shape, "one per displaced atom")
        given = with_forces(given, found[:, back] * units.force_to_eVperA)
    return given, tuple(notes)


def _force_sets(path: pathlib.Path, atoms: int) -> Any:
    return trying(
        path,
        f"FORCE_SETS with forces on {atoms} atoms",
        lambda: parse_FORCE_SETS(natom=atoms, filename=path),
    )


def _frames(path: pathlib.Path, given: DisplacementSet) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (displacements, forces) of every supercell of a file, in our order of atoms."""
    if path.name.startswith("FORCE_SETS"):
        phonon = phonopy_of(given.supercell)
        order = atoms_in_phonopy_order(phonon, given.supercell)
        dataset = _force_sets(path, len(order))
        moves, forces = map(np.asarray, get_displacements_and_forces(dataset))
        back = np.argsort(order)
        return [(u[back], f[back]) for u, f in
                zip(moves, forces, strict=True)]  # fmt: skip
    found: list[Atoms] = trying(
        path, "a file with forces that ASE can read", lambda: read(path, index=":")
    )
    return [_placed(atoms, given, path) for atoms in found]


def _placed(
    atoms: Atoms, given: DisplacementSet, path: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return displacements and forces of read atoms in our order, recognised by their places."""
    rest = given.supercell.structure
    cell = np.asarray(rest.cell)
    forces = frame_forces(atoms)
    if forces is None:
        raise fail(f"{path} holds no forces", "forces in eV/Å", "Name the output, not the input")
    if len(atoms) != len(rest):
        raise fail(f"{path} holds {len(atoms)} atoms", f"the supercell's {len(rest)}")
    if np.abs(np.array(atoms.cell) - cell).max() > 1e-3:
        ratio = (atoms.get_volume() / float(rest.volume)) ** (1 / 3)
        raise fail(
            f"{path}: the cell is another one, {ratio:.4g} times as long on average",
            "that of the undisplaced supercell in Å, in the same orientation",
            "A ratio of 0.529 or 1.89 is a matter of units; others one of another structure",
        )
    inverse = np.linalg.inv(cell)
    apart = atoms.positions[:, None] - np.asarray(rest.positions)
    apart -= np.rint(apart @ inverse) @ cell
    apart[atoms.numbers[:, None] != np.asarray(rest.numbers)] = np.inf
    distance = np.linalg.norm(apart, axis=2)
    site = distance.argmin(axis=1)
    mine = np.arange(len(atoms))
    if len(set(site)) < len(site) or distance[mine, site].max() > _FAR:
        raise fail(
            f"{path}: atoms are not at the sites of the supercell, the farthest "
            f"{distance[mine, site].max():.2g} Å away",
            f"the same crystal, displaced by less than {_FAR} Å",
            "Has the origin been shifted, or the structure been relaxed or run on?",
        )
    moves, ordered = np.empty((len(atoms), 3)), np.empty((len(atoms), 3))
    moves[site], ordered[site] = apart[mine, site], np.asarray(forces, float)
    return moves, ordered


def _recognised(moves: np.ndarray, given: DisplacementSet, label: str) -> int:
    """Return the number of the displacement that a calculation belongs to."""
    off = np.abs(given.displacements - moves).max(axis=(1, 2))
    k = int(off.argmin())
    if off[k] <= _CLOSE:
        return k
    shift = (moves - given.displacements).mean(axis=1)
    rest = np.abs(moves - given.displacements - shift[:, None]).max(axis=(1, 2))
    if rest.min() <= _CLOSE:
        raise fail(
            f"{label}: displacement {int(rest.argmin()) + 1} with the origin shifted by "
            f"{np.round(shift[rest.argmin()], 4).tolist()} Å",
            "the origin of the undisplaced supercell",
            "Keep the positions as written, without centring",
        )
    raise fail(
        f"{label}: displacements differ from all of the set, the nearest by {off[k]:.2g} Å",
        f"one of the set, to {_CLOSE} Å",
        "Another set, or atoms that were moved (ionic steps, a relaxation)?",
    )


def _of_first_atoms(dataset: dict, atoms: int) -> dict:
    """Return phonopy's form of a set of single displacements."""
    out = []
    for k, moves in enumerate(dataset["displacements"]):
        number = int(np.abs(moves).max(axis=1).argmax())
        one = {"number": number, "displacement": moves[number]}
        if "forces" in dataset:
            one["forces"] = dataset["forces"][k]
        out.append(one)
    return {"natom": atoms, "first_atoms": out}


def _write_poscar(path: pathlib.Path, atoms: Atoms) -> None:
    with replacing(path) as temporary:
        write(temporary, atoms, format="vasp", direct=True)


__all__ = ["read_displacement_set", "read_forces", "write_displacements"]
