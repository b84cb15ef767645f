"""Structures to ASE, phonopy and pymatgen and back, judged by those packages."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from phonopy.structure.atoms import PhonopyAtoms

from phojax.checks import InputError
from phojax.convert import (
    ase_atoms,
    phonopy_atoms,
    pymatgen_structure,
    structure_from_ase,
    structure_from_phonopy,
    structure_from_pymatgen,
)
from phojax.structure import STANDARD_MASSES, padded, structure

RNG = np.random.default_rng(0)
CRYSTAL = structure(
    np.eye(3) * 4 + RNG.normal(size=(3, 3)) * 0.3,
    RNG.normal(size=(4, 3)) * 6,  # outside the cell, on purpose
    [11, 17, 8, 11],
    [22.0, 36.9, 16.1, 23.1],
)


def check_same(first, second, tolerance=0.0):
    for name in ("cell", "positions", "numbers", "masses"):
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=0, atol=tolerance, err_msg=name
        )


def test_ase_round_trip():
    atoms = ase_atoms(CRYSTAL)
    assert isinstance(atoms, Atoms)
    assert atoms.get_chemical_symbols() == ["Na", "Cl", "O", "Na"]
    check_same(structure_from_ase(atoms), CRYSTAL)


def test_distances_agree_with_ase():
    atoms = ase_atoms(CRYSTAL)
    assert atoms.get_volume() == pytest.approx(float(CRYSTAL.volume))
    np.testing.assert_allclose(
        atoms.get_scaled_positions(wrap=False), CRYSTAL.fractional, atol=1e-12
    )


def test_masses_default_to_the_standard_ones_and_are_kept_where_given():
    atoms = bulk("NaCl", "rocksalt", 5.64)
    np.testing.assert_array_equal(structure_from_ase(atoms).masses, STANDARD_MASSES[[11, 17]])
    atoms.set_masses([22.0, None])
    assert structure_from_ase(atoms).masses[0] == 22.0


def test_phonopy_round_trip():
    cell = phonopy_atoms(CRYSTAL)
    assert isinstance(cell, PhonopyAtoms)
    check_same(structure_from_phonopy(cell), CRYSTAL, 1e-13)


def test_molecules_slabs_and_dummies_are_refused():
    with pytest.raises(InputError, match="a crystal, periodic along three"):
        structure_from_ase(molecule("H2O"))
    slab = bulk("NaCl", "rocksalt", 5.64)
    slab.pbc = (True, True, False)
    with pytest.raises(InputError, match="periodic directions"):
        structure_from_ase(slab)
    slab.pbc = True
    slab.symbols[1] = "X"
    with pytest.raises(InputError, match="atoms 2 are dummies"):
        structure_from_ase(slab)
    for convert in (ase_atoms, phonopy_atoms):
        with pytest.raises(InputError, match="padding"):
            convert(padded(CRYSTAL, 6))


def test_pymatgen_round_trip():
    core = pytest.importorskip("pymatgen.core")
    crystal = pymatgen_structure(CRYSTAL)
    assert crystal.composition.formula == "Na2 Cl1 O1"
    check_same(structure_from_pymatgen(crystal), CRYSTAL, 1e-13)
    plain = core.Structure(core.Lattice.cubic(4), ["Na"], [[0, 0, 0]])
    np.testing.assert_array_equal(structure_from_pymatgen(plain).masses, STANDARD_MASSES[[11]])
    mixed = core.Structure(core.Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    with pytest.raises(InputError, match="partial occupancy"):
        structure_from_pymatgen(mixed)
    dummy = core.Structure(core.Lattice.cubic(4), [core.DummySpecies("X")], [[0, 0, 0]])
    with pytest.raises(InputError, match="dummies"):
        structure_from_pymatgen(dummy)


def test_pymatgen_is_optional(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymatgen.core", None)
    with pytest.raises(InputError, match="pip install pymatgen"):
        pymatgen_structure(CRYSTAL)
