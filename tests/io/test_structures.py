"""Structure files: read as ASE reads them, and refused by name where they cannot be trusted."""

import ase.io
import numpy as np
import pytest
import spglib
from ase.build import bulk, molecule

from phojax.checks import InputError
from phojax.convert import ase_atoms
from phojax.io.structures import read_structure, write_structure
from phojax.structure import structure

HEAD = """data_test
_cell_length_a 5.64(2)
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
FM3M = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"
P1 = "_symmetry_space_group_name_H-M 'P 1'\n"
XYZ = """loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
"""
OCCUPIED = XYZ + "_atom_site_occupancy\n"
ROCKSALT = HEAD + FM3M + XYZ + "Na1 0 0 0\nCl1 0.5 0.5 0.5\n"


def rejected(tmp_path, text, message, name="bad.cif"):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        read_structure(path)


def random_crystal():
    rng = np.random.default_rng(1)
    cell = np.eye(3) * 6 + rng.normal(size=(3, 3)) * 0.4
    x = np.array([[0.1, 0.1, 0.1], [0.6, 0.5, 0.4], [1.2, 0.7, -0.3]])
    return structure(cell, x @ cell, [11, 15, 16], [22.0, 30.97, 32.06])


def test_cif(tmp_path):
    (tmp_path / "NaCl.cif").write_text(ROCKSALT)
    crystal = read_structure(tmp_path / "NaCl.cif")
    assert sorted(crystal.symbols) == ["Cl"] * 4 + ["Na"] * 4
    cell = (np.array(crystal.cell), np.array(crystal.fractional), np.array(crystal.numbers))
    assert spglib.get_spacegroup(cell) == "Fm-3m (225)"


@pytest.mark.parametrize("name", ["POSCAR", "NaCl.vasp", "NaCl.extxyz", "NaCl.cif", "NaCl.xsf"])
def test_formats_of_ase(tmp_path, name):
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    ase.io.write(tmp_path / name, atoms)
    crystal = read_structure(str(tmp_path / name))
    assert sorted(crystal.symbols) == sorted(atoms.symbols)
    assert float(crystal.volume) == pytest.approx(atoms.get_volume())


def test_last_frame(tmp_path):
    frames = [bulk("NaCl", "rocksalt", a) for a in (5.5, 5.6, 5.7)]
    ase.io.write(tmp_path / "frames.extxyz", frames)
    volume = float(read_structure(tmp_path / "frames.extxyz").volume)
    assert volume == pytest.approx(5.7**3 / 4)


def test_extxyz_comes_back_bit_by_bit(tmp_path):
    crystal = random_crystal()
    write_structure(tmp_path / "relaxed.extxyz", crystal)
    back = read_structure(tmp_path / "relaxed.extxyz")
    for name in ("cell", "positions", "numbers", "masses"):
        np.testing.assert_array_equal(getattr(back, name), getattr(crystal, name), err_msg=name)


def test_cif_comes_back_up_to_orientation(tmp_path):
    crystal = random_crystal()
    write_structure(tmp_path / "new" / "relaxed.cif", crystal)
    back = read_structure(tmp_path / "new" / "relaxed.cif")
    wrapped = np.asarray(crystal.fractional) % 1
    np.testing.assert_allclose(np.asarray(back.fractional) % 1, wrapped, atol=1e-14)
    metric = [np.asarray(c.cell) @ np.asarray(c.cell).T for c in (back, crystal)]
    np.testing.assert_allclose(*metric, atol=1e-12)
    peer = ase.io.read(tmp_path / "new" / "relaxed.cif")
    np.testing.assert_allclose(peer.get_volume(), float(crystal.volume), rtol=1e-13)


def test_poscar_is_written_by_ase(tmp_path):
    crystal = random_crystal()
    write_structure(tmp_path / "POSCAR", crystal)
    np.testing.assert_allclose(
        ase.io.read(tmp_path / "POSCAR").positions, crystal.positions, atol=1e-9
    )


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match=r"no\.cif does not exist"):
        read_structure(tmp_path / "no.cif")
    with pytest.raises(InputError, match="is a directory"):
        read_structure(tmp_path)
    for name in ("empty.cif", "POSCAR", "empty.extxyz"):
        rejected(tmp_path, "\n \n", "is empty", name)


def test_unknown_format(tmp_path):
    rejected(tmp_path, "what is this", "expected CIF, POSCAR", "thing.foo")


@pytest.mark.parametrize("name", ["NaCl.cif", "POSCAR", "NaCl.extxyz"])
@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9])
def test_truncated(tmp_path, name, part):
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    ase.io.write(tmp_path / name, atoms)
    text = (tmp_path / name).read_text()
    rejected(tmp_path, text[: int(part * len(text))], "", name)


def test_cif_cut_between_two_rows(tmp_path):
    """Nothing in the syntax tells; the stated formula does."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    ase.io.write(tmp_path / "bad.cif", atoms)
    lines = (tmp_path / "bad.cif").read_text().rstrip().splitlines()
    rejected(tmp_path, "\n".join(lines[:-1]) + "\n", "stated formula is Na4 Cl4.*cut short")


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("Na1 0 0 0 0.5\nCl1 0.5 0.5 0.5 1\n", "Na1 0.5"),
        ("Na1 0 0 0 0.5(1)\nK1 0 0 0 0.5(1)\nCl1 0.5 0.5 0.5 1.0\n", "Na1 0.5, K1 0.5"),
        ("Na1 0 0 0 1\nCl1 0.5 0.5 0.5 0.98\n", "Cl1 0.98"),
        ("Na1 0 0 0 0\nCl1 0.5 0.5 0.5 1\n", "Na1 0"),
        ("Na1 0 0 0 1\nCl1 0.5 0.5 0.5 2\n", "Cl1 2"),
    ],
)
def test_partial_occupancy(tmp_path, rows, named):
    rejected(tmp_path, HEAD + FM3M + OCCUPIED + rows, rf"partial occupancy \({named}\).*ordered")


def test_full_and_unstated_occupancies(tmp_path):
    path = tmp_path / "good.cif"
    path.write_text(HEAD + FM3M + OCCUPIED + "Na1 0 0 0 1.000(3)\nCl1 0.5 0.5 0.5 ?\n")
    assert len(read_structure(path)) == 8


@pytest.mark.parametrize(
    ("symmetry", "rows", "named"),
    [
        (P1, "Na1 0 0 0\nCl1 0.5 0.5 0.5\nCl2 0.5 0.5 0.5\n", "Cl1 and Cl2"),
        (P1, "Na1 0 0 0\nCl1 1.0 0 0\n", "Na1 and Cl1"),
        (FM3M, "Na1 0 0 0\nCl1 0 0.5 0.5\n", "Cl1 coincides"),
        (P1, "Na1 0 0 0\nCl1 0.98 0 0\n", r"Na \(atom 1\) and Cl \(atom 2\) are 0.11"),
        (P1, "Na1 0 0 0\nCl1 0.07 0 0\n", r"Na \(atom 1\) and Cl \(atom 2\) are 0.39"),
    ],
)
def test_two_atoms_at_one_place(tmp_path, symmetry, rows, named):
    rejected(tmp_path, HEAD + symmetry + XYZ + rows, named)


def test_cell_thinner_than_an_atom(tmp_path):
    text = ROCKSALT.replace("length_c 5.64", "length_c 0.3").replace(FM3M, P1)
    rejected(tmp_path, text, "0.3.. Å apart.*units")


def test_equivalent_sites_listed_by_hand_are_one(tmp_path):
    path = tmp_path / "listed.cif"
    path.write_text(HEAD + FM3M + XYZ + "Na1 0 0 0\nNa2 0 0.5 0.5\nCl1 0.5 0.5 0.5\n")
    with pytest.warns(UserWarning, match=r"listed\.cif.*equivalent"):
        assert len(read_structure(path)) == 8


def test_symmetry_that_would_be_ignored(tmp_path):
    text = HEAD + "_space_group_name_Hall '-F 4 2 3'\n" + XYZ + "Na1 0 0 0\nCl1 0.5 0.5 0.5\n"
    rejected(tmp_path, text, "_space_group_name_hall.*symop")


def test_rows_that_would_be_skipped(tmp_path):
    rejected(tmp_path, ROCKSALT.replace("Cl1 0.5 0.5 0.5", "Cl1 0.5 0.5 0.5 1"), "Wrong number")


def test_setting_that_ase_does_not_interpret_is_told(tmp_path):
    path = tmp_path / "setting.cif"
    path.write_text(ROCKSALT + "_symmetry_cell_setting cubic\n")
    with pytest.warns(UserWarning, match=r"setting\.cif.*crystal system"):
        read_structure(path)


def test_not_a_crystal(tmp_path):
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    with pytest.raises(InputError, match=r"water\.xyz.*periodic.*Give the file a cell"):
        read_structure(tmp_path / "water.xyz")
    rejected(tmp_path, "\n".join(ROCKSALT.splitlines()[7:]).join(["data_x\n", "\n"]), "lengths")
    flat = ROCKSALT.replace("gamma 90", "gamma 0").replace(FM3M, P1)
    rejected(tmp_path, flat, "")


def test_not_finite(tmp_path):
    text = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nNa nan 0 0\n'
    rejected(tmp_path, text, "position of atom 1 is not finite", "bad.extxyz")
    rejected(tmp_path, text.replace("4 0 0 0 4", "nan 0 0 0 4"), "finite", "bad.extxyz")
    for unknown in ("?", "nan", "."):
        rejected(tmp_path, ROCKSALT.replace("Cl1 0.5", f"Cl1 {unknown}"), "")


@pytest.mark.parametrize("symbol", ["X", "Xx", "Q"])
def test_not_an_element(tmp_path, symbol):
    rejected(tmp_path, ROCKSALT.replace("Na1", f"{symbol}1"), "elements")
    text = f'1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\n{symbol} 0 0 0\n'
    rejected(tmp_path, text, "elements", "bad.extxyz")


def test_deuterium_keeps_its_mass(tmp_path):
    path = tmp_path / "NaD.cif"
    path.write_text(ROCKSALT.replace("Cl1", "D1") + "_chemical_formula_sum 'Na D'\n")
    masses = read_structure(path).masses
    assert np.asarray(masses).min() == pytest.approx(2.014, abs=1e-3)


def test_every_structure_of_the_collection(shared, tmp_path):
    paths = sorted((shared / "data/structures").glob("*.cif"))
    assert len(paths) >= 40
    for path in paths:
        crystal, peer = read_structure(path), ase.io.read(path)
        np.testing.assert_allclose(ase_atoms(crystal).positions, peer.positions, atol=1e-12)
