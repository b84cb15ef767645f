"""Force constants in phonopy's files, in and out.

phonopy's own parsers read the files; this module decides which file is used, tells what it did
in `notes`, converts other programs' units to eV and Å, and maps atoms (`phonopy_map`). Nothing
is symmetrised here: sum rules are enforced, and their residuals reported, further down.
"""

import pathlib
import re
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5
from phonopy.interface.calculator import (
    get_calculator_physical_units,
    get_force_constant_conversion_factor,
)
from phonopy.interface.phonopy_yaml import PhonopyYaml

from phojax.checks import fail
from phojax.convert import phonopy_atoms
from phojax.force_constants import ForceConstants
from phojax.force_constants import force_constants as force_constants_of
from phojax.io.atomic import replacing
from phojax.io.phonopy_map import columns_in_phonopy_order, supercell_matrix
from phojax.io.phonopy_values import PathLike, born_charges, values_in_phonopy_order
from phojax.io.phonopy_yaml import phonopy_object, read_yaml
from phojax.nac import BornCharges
from phojax.pytree import pytree
from phojax.structure import Structure, Supercell, structure, supercell

_VALUES = {False: "force_constants.hdf5", True: "FORCE_CONSTANTS"}  # by whether it is text


@pytree(static=("notes", "source"))
class PhonopyInput:
    """Force constants as a phonopy calculation left them.

    Attributes:
        force_constants: Raw: sum rules and permutation symmetry are not enforced.
        born: None where no file gives Born charges.
        notes: What was chosen and rewritten on the way, a sentence each.
        source: The program that wrote the file, with its version.
    """

    force_constants: ForceConstants
    born: BornCharges | None
    notes: tuple[str, ...]
    source: str


def read_phonopy(
    path: PathLike,
    *,
    force_sets: PathLike | None = None,
    force_constants: PathLike | None = None,
    born: PathLike | None = None,
) -> PhonopyInput:
    """Return the force constants of a phonopy calculation in eV/Å², in our order of atoms.

    Taken from the first that is there: the two options; force constants, then displacements with
    forces in the file itself; force_constants.hdf5, FORCE_CONSTANTS or FORCE_SETS beside it.

    Args:
        path: phonopy_params.yaml, phonopy_disp.yaml, phonopy.yaml (or phono3py's), also
            compressed (.xz, .gz, .bz2).
        force_sets: FORCE_SETS.
        force_constants: FORCE_CONSTANTS or force_constants.hdf5, full or compact.
        born: BORN.

    Raises:
        InputError: naming the file and the remedy, where one is missing, broken, without forces
            or does not fit the others; JAX not set to float64.
    """
    path = pathlib.Path(path)
    notes: list[str] = []
    held = read_yaml(path, notes)
    data = held.data
    phonon = phonopy_object(path, held, notes)
    values = values_in_phonopy_order(path, phonon, data, force_sets, force_constants, notes)
    charges = born_charges(path, phonon, data, born, notes)

    units = get_calculator_physical_units(data.calculator)
    length = units.distance_to_A
    if data.calculator and (length != 1.0 or units.force_constants_unit != "eV/angstrom^2"):
        notes.append(f"units of {data.calculator} converted to eV and Å")
    stiffness = get_force_constant_conversion_factor(
        units.force_constants_unit or "eV/angstrom^2", None
    )
    cells = supercell(primitive_of(phonon, length), supercell_matrix(phonon))
    ours = np.empty_like(values)
    rows, columns = columns_in_phonopy_order(phonon, cells)
    ours[rows[:, None], columns] = values * stiffness
    if charges is not None:
        # The term is factor·Z Z/V in the file's unit of force constants.
        factor = charges.get("factor", units.nac_factor) * stiffness * length**3
        charges = BornCharges(
            jnp.asarray(charges["born"]),
            jnp.asarray(charges["dielectric"]),
            jnp.asarray(float(factor)),
            str(charges.get("method", "")),
        )
    # As a JAX array first: without x64 it would be float32, which is refused.
    constants = force_constants_of(jnp.asarray(ours), cells)
    return PhonopyInput(constants, charges, tuple(notes), held.source)


def write_phonopy(
    directory: PathLike,
    constants: ForceConstants,
    *,
    born: BornCharges | None = None,
    layout: str = "compact",
    text: bool = False,
) -> list[pathlib.Path]:
    """Write phonopy.yaml with force_constants.hdf5 or FORCE_CONSTANTS; return their paths.

    `phonopy.load("DIR/phonopy.yaml", force_constants_filename="DIR/force_constants.hdf5")` gives
    the same D(q); `read_phonopy("DIR/phonopy.yaml")` the same values, from hdf5 bit by bit, from
    text to 1e-15 eV/Å².

    Args:
        directory: Made where it is missing.
        constants: In eV/Å².
        born: Written into phonopy.yaml.
        layout: "compact", a row per primitive atom, or "full", one per supercell atom.
        text: FORCE_CONSTANTS instead of force_constants.hdf5.

    Raises:
        InputError: phonopy finds a smaller primitive cell in atoms that are all the same; another
            layout; FORCE_CONSTANTS beside an older force_constants.hdf5, which would be read.
    """
    if layout not in ("compact", "full"):
        raise fail(f"layout {layout!r}", '"compact" or "full"')
    directory = pathlib.Path(directory)
    cells = constants.supercell
    phonon = phonopy_of(cells)
    rows, columns = columns_in_phonopy_order(phonon, cells, layout)
    values = np.asarray(constants.values)[rows[:, None], columns]
    p2s = np.asarray(phonon.primitive.p2s_map)
    paths = [directory / "phonopy.yaml", directory / _VALUES[text]]
    if text and (directory / _VALUES[False]).exists():
        raise fail(
            f"{directory} holds {_VALUES[False]}, which is read before {_VALUES[True]}",
            "a folder without it",
            "Remove it or write elsewhere",
        )
    with replacing(paths[1]) as temporary:
        if text:
            write_FORCE_CONSTANTS(values, temporary, p2s_map=p2s)
        else:
            write_force_constants_to_hdf5(
                values,
                str(temporary),
                p2s_map=p2s,
                physical_unit="eV/angstrom^2",
                compression="gzip",
            )
    with replacing(paths[0]) as temporary:
        temporary.write_text(_yaml_text(phonon, born))
    return paths


def phonopy_of(cells: Supercell) -> Phonopy:
    """Return a Phonopy object of our supercell; its order of atoms is its own.

    Raises:
        InputError: phonopy finds a smaller primitive cell in atoms that are all the same.
    """
    P = np.asarray(cells.matrix)
    with warnings.catch_warnings():
        # A supercell of lower symmetry is our choice, and only written here.
        warnings.filterwarnings("ignore", ".*Point group symmetries", UserWarning)
        phonon = Phonopy(
            phonopy_atoms(cells.primitive),
            # phonopy keeps the handedness of the cell; -P spans the same lattice.
            (P * round(np.sign(np.linalg.det(P)))).T,
            primitive_matrix=np.eye(3),
            log_level=0,
        )
    if len(phonon.primitive) != len(cells.primitive):
        raise fail(
            f"phonopy makes {len(phonon.primitive)} atoms of the primitive cell",
            str(len(cells.primitive)),
        )
    return phonon


def primitive_of(phonon: Phonopy, length: float) -> Structure:
    """Return phonopy's primitive cell, atoms where the unit cell has them if that is the same."""
    cell, given = phonon.primitive, phonon.unitcell
    x = cell.scaled_positions
    if len(given) == len(cell) and np.array_equal(given.numbers, cell.numbers):
        shift = given.scaled_positions - x
        if np.allclose(given.cell, cell.cell) and np.allclose(shift, np.rint(shift), atol=1e-8):
            x = given.scaled_positions
    lattice = np.asarray(cell.cell) * length
    return structure(lattice, x @ lattice, cell.numbers, cell.masses)


def _yaml_text(phonon: Phonopy, born: BornCharges | None) -> str:
    file = PhonopyYaml(physical_units=get_calculator_physical_units(None))
    file.unitcell, file.primitive, file.supercell = (
        phonon.unitcell,
        phonon.primitive,
        phonon.supercell,
    )
    file.supercell_matrix = phonon.supercell_matrix
    file.primitive_matrix = phonon.primitive_matrix
    file.symmetry = phonon.symmetry
    if born is not None:
        # Not through the Phonopy object, which would symmetrise them.
        nac: Any = {
            "born": np.asarray(born.charges),
            "dielectric": np.asarray(born.dielectric),
            "factor": float(born.factor),
            "method": born.method or "gonze",
        }
        file.nac_params = nac
    text = str(file) + "\n"
    # phonopy names this unit only where its object holds force constants; Euphonic asks for it.
    text = re.sub(r"(?m)^(  length: .*)$", r'\1\n  force_constants: "eV/angstrom^2"', text, count=1)
    # phonopy writes masses with six decimals: 1e-8 of a mass, and of every λ.
    for mass in set(phonon.unitcell.masses.tolist()):
        text = text.replace(f"mass: {mass:f}\n", f"mass: {mass!r}\n")
    return text
