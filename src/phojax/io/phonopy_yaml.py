"""phonopy's YAML files, old dialects included, and the cells in them."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from phonopy import Phonopy
from phonopy.interface.phonopy_yaml import load_phonopy_yaml, load_yaml

from phojax.checks import fail
from phojax.io.phonopy_map import same_atoms
from phojax.io.structures import check_readable


def trying(path: pathlib.Path, expected: str, read: Callable[[], Any]) -> Any:
    """Return read(), with phonopy's many kinds of exception turned into one that names the file."""
    check_readable(path)
    try:
        return read()
    except Exception as error:
        what = str(error).strip().splitlines()
        raise fail(
            f"{path}: reading it fails with {type(error).__name__}"
            + (f" ({' '.join(what[:3])})" if what else ""),
            expected,
            "It may be cut short or belong to another calculation",
        ) from error


@dataclasses.dataclass(frozen=True)
class YamlFile:
    """A parsed file: phonopy's `PhonopyYamlData`, its symmetry tolerance (Å), who wrote it."""

    data: Any
    tolerance: float
    source: str


def read_yaml(path: pathlib.Path, notes: list[str]) -> YamlFile:
    """Return what a YAML file of phonopy or phono3py holds; append to `notes` what was rewritten.

    Raises:
        InputError: not a complete file of this kind.
    """
    raw = trying(path, "a complete YAML file of phonopy", lambda: load_yaml(path))
    if not isinstance(raw, dict):
        raise fail(f"{path} is not a YAML file of phonopy", "phonopy_params.yaml or similar")
    raw = _modern(dict(raw), notes)
    header = raw.get("phonopy")
    header = header if isinstance(header, dict) else {}
    program = "phono3py" if "phono3py" in raw else "phonopy"
    data = trying(path, "phonopy's keys", lambda: load_phonopy_yaml(raw))
    if data.unitcell is None:
        raise fail(
            f"{path} holds no unit cell",
            "phonopy_params.yaml, phonopy_disp.yaml or phonopy.yaml",
            "Other YAML files of phonopy (band.yaml, mesh.yaml) have no force constants",
        )
    tolerance = float(header.get("symmetry_tolerance", 1e-5))
    return YamlFile(data, tolerance, f"{program} {header.get('version', '?')}")


def _modern(raw: dict, notes: list[str]) -> dict:
    """Return the file's tree in today's words: spelling of units, phono3py's second supercell."""
    units = raw.get("physical_unit")
    if isinstance(units, dict):
        spelled = {k: v.replace("Angstrom", "angstrom") for k, v in units.items()
                   if k != "atomic_mass" and isinstance(v, str)}  # fmt: skip
        if any(units[k] != v for k, v in spelled.items()):
            notes.append("an old spelling of the unit Å was accepted")
        raw["physical_unit"] = spelled
    for name in [k for k in raw if str(k).endswith(("unit_cell", "primitive_cell", "supercell"))]:
        cell = raw[name]
        if isinstance(cell, dict) and "points" not in cell and "atoms" in cell:
            # Before version 1.10.9.
            raw[name] = cell | {
                "points": [_renamed(point, "position", "coordinates") for point in cell["atoms"]]
            }
            notes.append(f"atoms of {name} in the words of phonopy before 1.10.9")
    if "phono3py" in raw:
        raw["phonopy"] = raw["phono3py"]
        # Its plain data sets are for third-order force constants, with two atoms displaced.
        dropped = [raw.pop(k) for k in ("displacements", "dataset") if k in raw]
        if dropped:
            notes.append("displacements for third-order force constants left out")
        for key in [k for k in raw if str(k).startswith("phonon_")]:
            raw[str(key).removeprefix("phonon_")] = raw.pop(key)
    return raw


def _renamed(point: dict, old: str, new: str) -> dict:
    return {new if k == old else k: v for k, v in point.items()}


def phonopy_object(path: pathlib.Path, held: YamlFile, notes: list[str]) -> Phonopy:
    """Return a Phonopy object whose supercell is that of the file, atom by atom."""
    data = held.data
    matrix = np.eye(3, dtype=int) if data.supercell_matrix is None else data.supercell_matrix
    primitive: Any = data.primitive_matrix
    if primitive is None:
        primitive = "auto"
        if data.primitive is not None:
            ratio = np.linalg.inv(data.unitcell.cell.T) @ data.primitive.cell.T
            atoms = len(data.primitive) / len(data.unitcell)
            if np.isclose(abs(np.linalg.det(ratio)), atoms, rtol=1e-4):
                primitive = ratio
        if isinstance(primitive, str):
            notes.append("no primitive cell in the file: found by symmetry, as phonopy does")

    def build(snf: bool) -> Phonopy:
        return Phonopy(
            data.unitcell,
            matrix,
            primitive_matrix=cast(Any, primitive),
            symprec=held.tolerance,
            use_SNF_supercell=snf,
            calculator=data.calculator,
            log_level=0,
        )

    phonon = trying(path, "cells that phonopy can build", lambda: build(False))
    if data.supercell is None or same_atoms(phonon.supercell, data.supercell):
        return phonon
    phonon = trying(path, "cells that phonopy can build", lambda: build(True))
    if same_atoms(phonon.supercell, data.supercell):
        return phonon
    raise fail(
        f"{path}: its supercell is not unit_cell × supercell_matrix in phonopy's order",
        "a file that phonopy wrote, its cells unchanged",
    )
