"""`phojax displace` and `phojax fit` as a user of DFT runs them, with phonopy as the witness."""

import numpy as np
import phonopy
import pytest
from ase.build import bulk
from ase.io import read, write

from phojax.cli import main
from phojax.io.displacement_files import read_displacement_set

SMALL = ["--supercell-atoms", "16"]


@pytest.fixture
def rock_salt(tmp_path):
    write(tmp_path / "NaCl.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    return str(tmp_path / "NaCl.cif")


def test_sets_are_those_of_phonopy(rock_salt, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["displace", rock_salt, *SMALL, "--out", str(out)]) == 0
    assert "2 supercells of 64 atoms" in capsys.readouterr().err
    folder = out / "NaCl"
    assert {p.name for p in folder.iterdir()} == {
        "phonopy_disp.yaml", "POSCAR", "POSCAR-001", "POSCAR-002", "displaced.extxyz"
    }  # fmt: skip
    phonon = phonopy.load(folder / "phonopy_disp.yaml", produce_fc=False)
    for atoms, name in zip(phonon.supercells_with_displacements, ("001", "002"), strict=True):
        ours = read(folder / f"POSCAR-{name}")
        apart = ours.get_scaled_positions() - atoms.scaled_positions
        assert np.abs(apart - np.rint(apart)).max() < 1e-9
    phonon.generate_displacements(is_plusminus="auto")
    assert len(phonon.dataset["first_atoms"]) == 2


def test_random_sets_with_forces(rock_salt, tmp_path):
    out = tmp_path / "out"
    command = ["displace", rock_salt, *SMALL, "--random", "3", "--distance", "0.05", "--seed", "7",
               "--potential", "ions:NaCl", "--out", str(out)]  # fmt: skip
    assert main(command) == 0
    found, _ = read_displacement_set(out / "NaCl" / "phonopy_disp.yaml")
    assert len(found) == 3
    assert np.allclose(np.linalg.norm(found.displacements, axis=2), 0.05)
    assert np.abs(found.forces.sum(axis=1)).max() < 1e-8
    frames = read(out / "NaCl" / "displaced.extxyz", index=":")
    assert len(frames) == 3
    # Frames are in phonopy's order of atoms, whose own reader finds the same forces.
    phonon = phonopy.load(out / "NaCl" / "phonopy_disp.yaml", produce_fc=False)
    assert np.abs(frames[0].get_forces() - phonon.dataset["forces"][0]).max() < 1e-6


def test_bad_structures_do_not_stop_the_others(rock_salt, tmp_path, capsys):
    (tmp_path / "bad.cif").write_text("nothing")
    out = tmp_path / "out"
    assert main(["displace", str(tmp_path / "bad.cif"), rock_salt, *SMALL, "--out", str(out)]) == 1
    assert "bad.cif" in capsys.readouterr().err
    assert (out / "NaCl" / "POSCAR").exists()
    assert main(["displace", rock_salt, "--distance", "-1", "--out", str(out)]) == 1
