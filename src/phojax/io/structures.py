"""Crystal structures in files: whatever ASE reads, checked before anyone computes with it.

Readers of structure files forgive much: a CIF with half-occupied sites, a loop cut short or two
atoms on one site comes back as some crystal. Phonons of it would be those of something else, so
such files are refused here, by name, with what to do about it. CIF has its own checks in
`phojax.io.cif`.
"""

import os
import pathlib
import warnings

import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype
from ase.neighborlist import neighbor_list

from phojax.checks import InputError, fail, said_by
from phojax.convert import ase_atoms, structure_from_ase
from phojax.io.atomic import replacing
from phojax.io.cif import cif_text, read_cif
from phojax.structure import Structure

_TOO_CLOSE = 0.5  # Å; the shortest bond there is, H-H, has 0.74 Å


def read_structure(path: str | os.PathLike) -> Structure:
    """Return the crystal in a file; the last one where it holds several.

    Args:
        path: CIF, POSCAR, extxyz or another format that ASE recognises by name or content.

    Raises:
        InputError: naming the file and the remedy: it is missing, empty, cut short or of unknown
            format; partial occupancy; atoms closer than 0.5 Å (images included); no periodic
            cell; positions that are not finite; dummy or unknown elements.
    """
    path = pathlib.Path(path)
    check_readable(path)
    try:
        return checked_structure(_read_atoms(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def checked_structure(atoms: Atoms) -> Structure:
    """Return the crystal of an ASE object that was read from somewhere; raises InputError where
    positions are not finite, atoms are closer than 0.5 Å, or it is no crystal of elements.
    """
    _check_positions(atoms)
    crystal = structure_from_ase(atoms)
    check_distances(atoms)
    return crystal


def write_structure(path: str | os.PathLike, crystal: Structure) -> None:
    """Write the crystal, in full precision for .cif and .xyz/.extxyz, else as ASE does.

    CIF (space group P1) holds the cell as lengths and angles, so the orientation is lost;
    extxyz holds cell, positions and masses such that they read back bit by bit.
    """
    path = pathlib.Path(path)
    atoms = ase_atoms(crystal)
    with replacing(path) as temporary:
        if path.suffix == ".cif":
            temporary.write_text(cif_text(atoms, path.stem))
        elif path.suffix in (".xyz", ".extxyz"):
            temporary.write_text(_extxyz_text(atoms))
        else:
            ase.io.write(temporary, atoms, format=filetype(path, read=False))


def check_readable(path: pathlib.Path) -> None:
    """Raise InputError unless `path` is a file that holds something."""
    if path.is_dir():
        raise fail(f"{path} is a directory", "a file")
    if not path.exists():
        raise fail(f"{path} does not exist", "a file", "Check the path")
    if path.stat().st_size < 1000 and not path.read_bytes().strip():
        raise fail(f"{path} is empty", "data", "Write or download it again")


def check_distances(atoms: Atoms) -> None:
    """Raise InputError where two atoms, or an atom and its image, are closer than 0.5 Å."""
    i, j, distance = neighbor_list("ijd", atoms, _TOO_CLOSE, self_interaction=False)
    if not len(i):
        return
    at = int(np.argmin(distance))
    first, second = (f"{atoms.symbols[k]} (atom {k + 1})" for k in (i[at], j[at]))
    raise fail(
        f"{first} and {second} are {distance[at]:.3f} Å apart",
        f"at least {_TOO_CLOSE} Å, periodic images included",
        "Remove the duplicate, or check the units of cell and positions",
    )


def _check_positions(atoms: Atoms) -> None:
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad) or not np.isfinite(np.asarray(atoms.cell)).all():
        raise fail(
            f"the position of atom {bad[0] + 1} is not finite" if len(bad) else "NaN in the cell",
            "finite numbers",
            "Correct the file",
        )


def _read_atoms(path: pathlib.Path) -> Atoms:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            kind = filetype(str(path))
            atoms = read_cif(path) if kind == "cif" else ase.io.read(path, index=-1, format=kind)
        except InputError:
            raise
        except UnknownFileTypeError as error:
            raise fail(
                "the format is not known",
                "CIF, POSCAR, extxyz or another format of ASE",
                "Name the file by its format (.cif, .vasp, .extxyz)",
            ) from error
        except Exception as error:  # each of ASE's parsers fails in its own way
            raise fail(
                f"reading it fails with {said_by(error)}",
                "a complete file with known elements",
                "It may be cut short or of another format than its name says",
            ) from error
    for warning in caught:
        if not issubclass(warning.category, (DeprecationWarning, FutureWarning)):
            warnings.warn(f"{path}: {warning.message}", UserWarning, stacklevel=3)
    if isinstance(atoms, list) or len(atoms) == 0:
        raise fail("it holds no atoms", "a crystal structure", "Write or download it again")
    return atoms


def _extxyz_text(atoms: Atoms) -> str:
    lattice = " ".join(repr(float(x)) for x in np.asarray(atoms.cell).ravel())
    head = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:masses:R:1 pbc="T T T"'
    rows = zip(atoms.symbols, atoms.positions, atoms.get_masses(), strict=True)
    body = [" ".join([s, *(repr(float(x)) for x in (*r, m))]) for s, r, m in rows]
    return "\n".join([str(len(atoms)), head, *body, ""])
