"""Structures of other packages, in memory: ASE, pymatgen and phonopy.

Positions stay where they are (no wrapping), cells keep their orientation, and masses are kept
where the other side gives them; otherwise they come from `STANDARD_MASSES`. Magnetic moments,
charges and constraints have no place in a Structure and are not carried.
"""

from typing import Any

import numpy as np
from ase import Atoms
from phonopy.structure.atoms import PhonopyAtoms

from phojax.checks import fail
from phojax.structure import Structure, structure


def structure_from_ase(atoms: Atoms) -> Structure:
    """Return the crystal that an ASE object describes.

    Raises:
        InputError: not periodic in three directions, dummy atoms, or what `structure` refuses.
    """
    if not np.all(atoms.pbc) or atoms.cell.rank < 3:
        raise fail(
            f"periodic directions {np.asarray(atoms.pbc).tolist()}, {atoms.cell.rank} lattice "
            "vectors",
            "a crystal, periodic along three lattice vectors",
            "Give the file a cell (a molecule has no phonon bands)",
        )
    check_elements_known(atoms.numbers)
    masses = atoms.get_masses() if atoms.has("masses") else None
    return structure(np.array(atoms.cell), atoms.positions, atoms.numbers, masses)


def ase_atoms(crystal: Structure) -> Atoms:
    """Return the crystal as an ASE object, masses (amu) included.

    Raises:
        InputError: padding atoms.
    """
    check_elements_known(crystal.numbers)
    return Atoms(
        numbers=np.asarray(crystal.numbers),
        positions=np.asarray(crystal.positions, float),
        cell=np.asarray(crystal.cell, float),
        masses=np.asarray(crystal.masses, float),
        pbc=True,
    )


def structure_from_phonopy(cell: PhonopyAtoms) -> Structure:
    """Return the crystal of a phonopy cell, lengths taken as Å."""
    if cell.masses is None or np.any(cell.numbers <= 0):
        raise fail("a phonopy cell with unknown elements", "elements with atomic numbers 1 to 118")
    return structure(cell.cell, cell.positions, cell.numbers, cell.masses)


def phonopy_atoms(crystal: Structure) -> PhonopyAtoms:
    """Return the crystal as phonopy's cell, masses included.

    phonopy keeps fractional coordinates: Cartesian ones come back to about 1e-15 of the cell.
    """
    check_elements_known(crystal.numbers)
    return PhonopyAtoms(
        numbers=np.asarray(crystal.numbers, np.int64),
        positions=np.asarray(crystal.positions, float),
        cell=np.asarray(crystal.cell, float),
        masses=np.asarray(crystal.masses, float),
    )


def structure_from_pymatgen(crystal: Any) -> Structure:
    """Return an ordered `pymatgen.core.Structure`; the site property "mass" (amu) is kept.

    Raises:
        InputError: a site shared by species or partly occupied.
    """
    if not crystal.is_ordered:
        mixed = ", ".join(str(site.species) for site in crystal if not site.is_ordered)
        raise fail(
            f"sites with partial occupancy ({mixed})",
            "every site occupied by one species",
            "Build an ordered structure first (pymatgen: OrderDisorderedStructureTransformation)",
        )
    numbers = [site.specie.Z for site in crystal]
    check_elements_known(numbers)
    masses = crystal.site_properties.get("mass")
    return structure(crystal.lattice.matrix, crystal.cart_coords, numbers, masses)


def pymatgen_structure(crystal: Structure) -> Any:
    """Return the crystal as `pymatgen.core.Structure`, masses in the site property "mass".

    Raises:
        InputError: pymatgen is not installed, or padding atoms.
    """
    try:
        from pymatgen.core import Lattice
        from pymatgen.core import Structure as PymatgenStructure
    except ImportError as error:
        raise fail("pymatgen is not installed", "it here", "pip install pymatgen") from error
    check_elements_known(crystal.numbers)
    return PymatgenStructure(
        Lattice(np.asarray(crystal.cell, float)),
        crystal.symbols,
        np.asarray(crystal.positions, float),
        coords_are_cartesian=True,
        site_properties={"mass": np.asarray(crystal.masses, float).tolist()},
    )


def check_elements_known(numbers: Any) -> None:
    """Raise InputError where an atomic number is not that of an element (dummy atoms, padding)."""
    numbers = np.asarray(numbers)
    dummies = np.flatnonzero((numbers < 1) | (numbers > 118))
    if len(dummies):
        raise fail(
            f"atoms {', '.join(str(i + 1) for i in dummies[:5])} are dummies (X) or padding",
            "chemical elements",
            "Remove them or name their element",
        )
