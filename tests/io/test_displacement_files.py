"""Displacements written for other programs, forces read back: phonopy and ASE are the readers."""

from dataclasses import replace

import numpy as np
import phonopy
import pytest
from ase.io import read, write
from phonopy.interface.vasp import Vasprun
from vasp_files import outcar, vasprun

from phojax.checks import InputError
from phojax.convert import structure_from_ase
from phojax.force_constants.displacements import (
    computed_forces,
    force_constants_from_single,
    random_displacements,
    single_displacements,
)
from phojax.force_constants.sum_rules import enforced
from phojax.io.displacement_files import read_forces, write_displacements
from phojax.io.phonopy_files import read_phonopy
from phojax.potentials.pair import morse
from phojax.structure import structure, supercell
from phojax.symmetry import space_group

POTENTIAL = morse(
    {
        ("Na", "Na"): (0.05, 1.1, 3.4),
        ("Na", "Cl"): (0.5, 1.2, 2.7),
        ("Cl", "Cl"): (0.1, 1.0, 3.9),
    },
    cutoff=5.0,
)


@pytest.fixture(scope="module")
def cells():
    """Atoms of one element apart from each other, and a supercell that is not diagonal."""
    lattice = np.array([[4.0, 0, 0], [0.3, 4.4, 0], [0.2, -0.4, 5.0]])
    x = np.array([[0.1, 0.1, 0.1], [0.6, 0.5, 0.35], [0.15, 0.6, 0.75]])
    crystal = structure(lattice, x @ lattice, [11, 17, 11])
    return supercell(crystal, [[2, 0, 0], [0, 2, 1], [0, 0, 1]])


@pytest.fixture(scope="module")
def single(cells):
    group = space_group(cells.primitive)
    return computed_forces(POTENTIAL, single_displacements(cells, group, 0.01))


@pytest.fixture(scope="module")
def random(cells):
    return computed_forces(POTENTIAL, random_displacements(cells, 4))


@pytest.mark.parametrize("kind", ["single", "random"])
def test_extxyz_and_poscars_come_back(kind, request, tmp_path):
    given = request.getfixturevalue(kind)
    write_displacements(tmp_path, given)
    blank = replace(given, forces=None)
    found = read_forces(tmp_path / "displaced.extxyz", blank)
    np.testing.assert_allclose(found.forces, given.forces, rtol=0, atol=1e-7)
    many = read(tmp_path / "displaced.extxyz", ":")
    for number, atoms in enumerate(many):
        poscar = read(tmp_path / f"POSCAR-{number + 1:03d}", format="vasp")
        assert np.abs(poscar.positions - atoms.positions).max() < 1e-6
        assert poscar.get_chemical_symbols() == atoms.get_chemical_symbols()
    # In another order of calculations and of atoms, moved by lattice vectors.
    rng = np.random.default_rng(0)
    shuffled = []
    for atoms in many[::-1]:
        order = rng.permutation(len(atoms))
        moved = atoms[order]
        moved.positions += rng.integers(-1, 2, (len(atoms), 3)) @ atoms.cell[:]
        moved.arrays["forces"] = atoms.arrays.get("forces", atoms.get_forces())[order]
        moved.calc = None
        shuffled.append(moved)
    write(tmp_path / "shuffled.extxyz", shuffled)
    found = read_forces(tmp_path / "shuffled.extxyz", blank)
    np.testing.assert_allclose(found.forces, given.forces, rtol=0, atol=1e-7)


def test_phonopy_makes_the_same_force_constants(single, tmp_path):
    write_displacements(tmp_path, single)
    group = space_group(single.supercell.primitive)
    ours, _ = enforced(force_constants_from_single(single, group))
    theirs = read_phonopy(tmp_path / "phonopy_disp.yaml").force_constants
    symmetric, _ = enforced(theirs)
    np.testing.assert_allclose(symmetric.values, ours.values, rtol=0, atol=1e-6)


def test_force_sets_of_phonopy(random, tmp_path):
    write_displacements(tmp_path, random)
    held = phonopy.load(tmp_path / "phonopy_disp.yaml", produce_fc=False, log_level=0)
    phonopy.file_IO.write_FORCE_SETS(held.dataset, filename=tmp_path / "FORCE_SETS")
    found = read_forces(tmp_path / "FORCE_SETS", replace(random, forces=None))
    np.testing.assert_allclose(found.forces, random.forces, rtol=0, atol=1e-7)


def test_displaced_structures_of_phonopy_are_ours(single, tmp_path):
    write_displacements(tmp_path, replace(single, forces=None))
    held = phonopy.load(tmp_path / "phonopy_disp.yaml", produce_fc=False, log_level=0)
    assert len(held.supercells_with_displacements) == len(single)
    for number, theirs in enumerate(held.supercells_with_displacements):
        poscar = read(tmp_path / f"POSCAR-{number + 1:03d}", format="vasp")
        apart = poscar.get_scaled_positions() - theirs.scaled_positions
        assert np.abs(apart - np.rint(apart)).max() < 1e-6
        assert np.array_equal(poscar.numbers, theirs.numbers)


@pytest.mark.parametrize("kind", ["vasprun-{:03d}.xml", "{:03d}/vasprun.xml", "OUTCAR-{:03d}"])
def test_vasp(kind, random, tmp_path):
    """One file per calculation, atoms sorted by element and wrapped into the cell."""
    write_displacements(tmp_path, random)
    frames = read(tmp_path / "displaced.extxyz", index=":")
    paths = []
    for number, atoms in enumerate(frames):
        forces = atoms.get_forces()
        order = np.argsort(atoms.numbers, kind="stable")
        atoms.wrap()
        paths.append(tmp_path / kind.format(number + 1))
        paths[-1].parent.mkdir(exist_ok=True)
        text = (outcar if "OUTCAR" in kind else vasprun)(atoms[order], forces[order])
        paths[-1].write_text(text)
    if "xml" in kind:  # phonopy reads it alike
        with open(paths[0], "rb") as file:
            theirs = Vasprun(file, use_expat=True).read_forces()
        assert np.abs(theirs - read(paths[0]).get_forces()).max() < 1e-9
    found = read_forces(paths[::-1], replace(random, forces=None))
    assert np.abs(found.forces - random.forces).max() < 1e-7


def test_what_does_not_fit_is_told(random, tmp_path):
    blank = replace(random, forces=None)
    write_displacements(tmp_path, random)
    many = read(tmp_path / "displaced.extxyz", ":")

    def told(change, match, frames=slice(None)):
        changed = [change(atoms.copy(), atoms.get_forces()) for atoms in many][frames]
        write(tmp_path / "x.extxyz", changed)
        with pytest.raises(InputError, match=match):
            read_forces(tmp_path / "x.extxyz", blank)

    def kept(atoms, forces):
        atoms.arrays["forces"] = forces
        return atoms

    def shifted(atoms, forces):
        atoms.positions += (0.05, 0, 0.02)
        return kept(atoms, forces)

    def in_bohr(atoms, forces):
        atoms.set_cell(atoms.cell[:] / 0.529177, scale_atoms=True)
        return kept(atoms, forces)

    def relaxed(atoms, forces):
        atoms.positions += np.random.default_rng(0).normal(size=(len(atoms), 3)) * 0.02
        return kept(atoms, forces)

    def shorter(atoms, forces):
        del atoms[0]
        return kept(atoms, forces[1:])

    told(shifted, "origin shifted")
    told(in_bohr, r"1\.89 times as long")
    told(relaxed, "differ from all of the set")
    told(shorter, "holds 11 atoms")
    told(lambda atoms, forces: atoms, "holds no forces")
    told(kept, "no forces for 2 of 4", slice(2))
    with pytest.raises(InputError, match=r"nothing\.xml"):
        read_forces(tmp_path / "nothing.xml", blank)
    twice = [kept(many[0].copy(), many[0].get_forces()) for _ in range(2)]
    twice[1].arrays["forces"] = twice[1].arrays["forces"] + 1.0
    write(tmp_path / "twice.extxyz", twice)
    with pytest.raises(InputError, match="different forces"):
        read_forces(tmp_path / "twice.extxyz", blank)


def test_structures_are_those_written(single, tmp_path):
    write_displacements(tmp_path, single)
    atoms = read(tmp_path / "POSCAR", format="vasp")
    volume = float(single.supercell.structure.volume)
    assert float(structure_from_ase(atoms).volume) == pytest.approx(volume, rel=1e-9)
