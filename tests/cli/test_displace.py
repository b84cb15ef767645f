"""`phojax displace` and `phojax fit` as a user of DFT runs them, with phonopy as the witness."""

import json

import numpy as np
import phonopy
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
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


@pytest.fixture(scope="module")
def displaced(tmp_path_factory):
    """A set on 64 atoms with forces that only extxyz holds."""
    folder = tmp_path_factory.mktemp("set")
    write(folder / "NaCl.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    command = ["displace", str(folder / "NaCl.cif"), *SMALL, "--random", "3", "--distance", "0.02",
               "--potential", "ions:NaCl", "--out", str(folder)]  # fmt: skip
    assert main(command) == 0
    frames = folder / "NaCl" / "displaced.extxyz"
    yaml = folder / "NaCl" / "phonopy_disp.yaml"
    return yaml, frames


def test_fit_is_symfcs_and_goes_on_to_phonons(displaced, tmp_path, capsys):
    yaml, frames = displaced
    out = tmp_path / "out"
    assert main(["fit", str(yaml), "--forces", str(frames), "--out", str(out)]) == 0
    assert "least squares" in capsys.readouterr().out
    theirs = phonopy.load(yaml, fc_calculator="symfc", is_compact_fc=False)
    folder = out / "phonopy_disp"
    ours = phonopy.load(
        folder / "phonopy.yaml", force_constants_filename=folder / "force_constants.hdf5"
    )
    q = [[0.1, 0.2, 0.3], [0.5, 0, 0.5]]
    for a in q:
        # Written forces have as many digits as phonopy gives them.
        D = [p.get_dynamical_matrix_at_q(a) for p in (ours, theirs)]
        assert np.abs(D[0] - D[1]).max() < 1e-6 * np.abs(D[1]).max()
    record = json.loads((folder / "record.json").read_text())
    assert record["unknowns"] == record["rank"]
    assert record["held_out_rmse_eV_A"] >= record["rmse_eV_A"]
    before = (folder / "record.json").stat().st_mtime_ns
    assert main(["fit", str(yaml), "--forces", str(frames), "--out", str(out)]) == 0
    assert (folder / "record.json").stat().st_mtime_ns == before
    assert main(["phonons", str(folder / "phonopy.yaml"), "--mesh", "3", "3", "3", "--no-figures",
                 "--out", str(tmp_path / "phonons")]) == 0  # fmt: skip


@pytest.mark.slow
def test_third_order_explains_what_second_leaves(displaced, tmp_path):
    yaml, _ = displaced
    both, alone = tmp_path / "both", tmp_path / "alone"
    assert main(["fit", str(yaml), "--third", "--cutoff3", "3", "--out", str(both)]) == 0
    assert main(["fit", str(yaml), "--out", str(alone)]) == 0
    names = {p.name for p in (both / "phonopy_disp").iterdir()}
    assert {"fc3.hdf5", "FORCE_CONSTANTS_3RD", "phonopy.yaml"} < names
    rmse = [json.loads((d / "phonopy_disp" / "record.json").read_text())["rmse_eV_A"]
            for d in (both, alone)]  # fmt: skip
    assert rmse[0] < 0.3 * rmse[1]


def test_fit_of_bad_input(displaced, rock_salt, tmp_path, capsys):
    yaml, frames = displaced
    out = ["--out", str(tmp_path / "out")]
    assert main(["fit", rock_salt, *out]) == 2
    assert "phojax displace" in capsys.readouterr().err
    assert main(["fit", str(yaml), "--penalty", "1", *out]) == 2
    assert main(["fit", str(yaml), "--cutoff3", "4", *out]) == 2
    # The other crystal's forces do not fit: the file is named.
    other = read(frames, index=":")
    for atoms in other:
        atoms.set_cell(atoms.cell * 1.8897, scale_atoms=True)
    write(tmp_path / "bohr.extxyz", other)
    assert main(["fit", str(yaml), "--forces", str(tmp_path / "bohr.extxyz"), *out]) == 1
    assert "matter of units" in capsys.readouterr().out
    shifted = read(frames, index=":")
    for atoms in shifted:
        atoms.positions += [0.1, 0.0, 0.05]
    write(tmp_path / "shifted.extxyz", shifted)
    assert main(["fit", str(yaml), "--forces", str(tmp_path / "shifted.extxyz"), *out]) == 1
    assert "origin shifted" in capsys.readouterr().out


def test_forces_that_do_not_belong_are_refused(displaced, tmp_path, capsys):
    yaml, frames = displaced
    wrong = read(frames, index=":")
    for atoms in wrong:
        forces = -atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
    write(tmp_path / "wrong.extxyz", wrong)
    command = ["fit", str(yaml), "--forces", str(tmp_path / "wrong.extxyz"), "--out",
               str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 1
    assert "Forces point along the displacements" in capsys.readouterr().out
    assert not (tmp_path / "out" / "phonopy_disp" / "phonopy.yaml").exists()
    assert main([*command, "--accept"]) == 0
    assert "Forces point along the displacements" in capsys.readouterr().out


def test_an_earlier_set_is_set_aside(rock_salt, tmp_path):
    out = tmp_path / "out"
    assert main(["displace", rock_salt, *SMALL, "--random", "4", "--out", str(out)]) == 0
    assert main(["displace", rock_salt, *SMALL, "--out", str(out)]) == 0
    folder = out / "NaCl"
    assert {p.name for p in folder.glob("POSCAR-*")} == {"POSCAR-001", "POSCAR-002"}
    assert len(list((folder / "previous").glob("POSCAR-*"))) == 4


def test_a_fit_whose_files_are_gone_is_made_again(displaced, tmp_path):
    yaml, _ = displaced
    command = ["fit", str(yaml), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    file = tmp_path / "out" / "phonopy_disp" / "force_constants.hdf5"
    file.unlink()
    assert main(command) == 0
    assert file.exists()
    assert main([*command, "--third", "--cutoff3", "0"]) == 1
