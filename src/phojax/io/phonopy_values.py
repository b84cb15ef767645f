"""Where the force constants and Born charges of a phonopy calculation are, and reading them.

All in the units and the order of atoms of the files.
"""

import os
import pathlib
import warnings
from typing import Any

import h5py
import numpy as np
from phonopy import Phonopy
from phonopy.file_IO import (
    parse_BORN,
    parse_FORCE_CONSTANTS,
    parse_FORCE_SETS,
    read_force_constants_hdf5,
)
from phonopy.interface.calculator import get_force_constant_conversion_factor
from phonopy.structure.dataset import forces_in_dataset, get_displacements_and_forces

from phojax.checks import check_shape, fail
from phojax.io.phonopy_yaml import trying

PathLike = str | os.PathLike


def values_in_phonopy_order(
    path: pathlib.Path,
    phonon: Phonopy,
    data: Any,
    force_sets: PathLike | None,
    constants: PathLike | None,
    notes: list[str],
) -> np.ndarray:
    """Return compact force constants in the file's units and phonopy's order."""
    embedded = data.force_constants
    inside = forces_in_dataset(data.dataset)
    if constants is None and force_sets is None and embedded is None and not inside:
        # The files phonopy itself would look for.
        for name in ("force_constants.hdf5", "FORCE_CONSTANTS", "FORCE_SETS"):
            if (path.parent / name).exists():
                beside = path.parent / name
                constants = beside if name != "FORCE_SETS" else None
                force_sets = beside if name == "FORCE_SETS" else None
                break
    if constants is not None:
        constants = pathlib.Path(constants)
        values = _force_constants_file(phonon, constants, data.calculator)
        notes.append(f"force constants from {constants}")
        return _compact(phonon, values, str(constants))
    if force_sets is None and embedded is not None:
        notes.append(f"force constants from {path}")
        return _compact(phonon, embedded, str(path))
    if force_sets is not None:
        where = pathlib.Path(force_sets)
        dataset = trying(
            where,
            f"FORCE_SETS with forces on {len(phonon.supercell)} atoms",
            lambda: parse_FORCE_SETS(natom=len(phonon.supercell), filename=where),
        )
        _compare_displacements(dataset, data.dataset, where, notes)
    elif inside:
        where, dataset = path, data.dataset
    else:
        raise fail(
            f"{path} holds neither force constants nor forces",
            "forces for its displacements",
            "Give --force-sets FORCE_SETS or --force-constants force_constants.hdf5 "
            "(or FORCE_CONSTANTS), or a phonopy_params.yaml with forces",
        )
    return _solved(phonon, dataset, where, notes)


def _force_constants_file(
    phonon: Phonopy, path: pathlib.Path, calculator: str | None
) -> np.ndarray:
    p2s = np.asarray(phonon.primitive.p2s_map)
    expected = f"force constants of {len(phonon.supercell)} supercell atoms"

    def read() -> np.ndarray:
        if not h5py.is_hdf5(path):
            return parse_FORCE_CONSTANTS(path, p2s_map=p2s)
        values, unit = read_force_constants_hdf5(path, p2s_map=p2s, return_physical_unit=True)
        factor = 1.0 if unit is None else get_force_constant_conversion_factor(unit, calculator)
        return np.asarray(values) * factor

    return trying(path, expected, read)


def _compact(phonon: Phonopy, values: np.ndarray, name: str) -> np.ndarray:
    rows, columns = len(phonon.primitive), len(phonon.supercell)
    values = np.asarray(values, float)
    if values.shape == (columns, columns, 3, 3):
        return values[np.asarray(phonon.primitive.p2s_map)]
    if values.shape != (rows, columns, 3, 3):
        raise fail(
            f"force constants in {name} have shape {values.shape}",
            f"({rows}, {columns}, 3, 3) or ({columns}, {columns}, 3, 3), the file's cells",
            "They belong to another primitive cell or supercell",
        )
    return values


def _solved(phonon: Phonopy, dataset: Any, where: pathlib.Path, notes: list[str]) -> np.ndarray:
    """Return force constants from displacements and forces by phonopy's solver."""
    _check_forces(dataset, len(phonon.supercell), where)
    random = "displacements" in dataset
    if random:
        try:
            import symfc  # noqa: F401
        except ImportError as error:
            raise fail(
                f"{where} holds random displacements, which symfc fits",
                "symfc installed",
                "pip install symfc",
            ) from error
    phonon.dataset = dataset

    def solve() -> np.ndarray:
        phonon.produce_force_constants(
            calculate_full_force_constants=False,
            fc_calculator="symfc" if random else "traditional",
            show_drift=False,
        )
        return np.asarray(phonon.force_constants)

    values = trying(where, "displacements that determine the force constants", solve)
    notes.append(
        f"force constants from the forces in {where}, by "
        + ("symfc (symmetrised there)" if random else "phonopy's solver, not symmetrised")
    )
    return _compact(phonon, values, str(where))


def _check_forces(dataset: Any, atoms: int, where: pathlib.Path) -> None:
    if "first_atoms" in dataset:
        bare = [n + 1 for n, d in enumerate(dataset["first_atoms"]) if "forces" not in d]
        if bare:
            raise fail(
                f"{where}: displacement {bare[0]} has no forces",
                "forces for every displacement",
                "Finish the calculation, or give --force-sets FORCE_SETS",
            )
        sets = [d["forces"] for d in dataset["first_atoms"]]
    else:
        sets = list(dataset["forces"])
    for n, forces in enumerate(sets):
        check_shape(f"{where}: forces {n + 1}", forces, (atoms, 3), "one per supercell atom")
        if not np.isfinite(np.asarray(forces, float)).all():
            raise fail(f"{where}: forces {n + 1} hold NaN", "finite numbers", "Repeat that run")


def _compare_displacements(dataset: Any, other: Any, where: pathlib.Path, notes: list[str]) -> None:
    if other is None:
        return
    used, stated = (np.asarray(get_displacements_and_forces(d)[0]) for d in (dataset, other))
    count = len(used)
    if count > len(stated) or not np.allclose(used, stated[:count], atol=1e-5):
        message = (
            f"displacements in {where} differ from those of the YAML file; the former are used"
        )
        notes.append(message)
        warnings.warn(message, UserWarning, stacklevel=4)


def born_charges(
    path: pathlib.Path, phonon: Phonopy, data: Any, born: PathLike | None, notes: list[str]
) -> dict | None:
    """Return charges, dielectric tensor and factor as phonopy holds them; None where none is."""
    if born is not None:
        where = pathlib.Path(born)
        charges = trying(
            where,
            "BORN: a line of factors, 9 of ε, 9 per symmetry-independent atom",
            lambda: parse_BORN(phonon.primitive, filename=where),
        )
        notes.append(f"Born charges from {where}")
    elif data.nac_params is not None:
        where, charges = path, data.nac_params
        notes.append(f"Born charges from {path}")
    else:
        if (path.parent / "BORN").exists():
            notes.append(f"{path.parent / 'BORN'} is there but was not asked for: not read")
        return None
    expected = (len(phonon.primitive), 3, 3)
    if np.shape(charges["born"]) != expected or np.shape(charges["dielectric"]) != (3, 3):
        raise fail(
            f"{where}: Born charges have shape {np.shape(charges['born'])}",
            f"{expected}, one per atom of the primitive cell",
        )
    return dict(charges)
