"""`phojax expand` on argon: files, flags, and a record that is not computed twice."""

import json

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import read, write

from phojax.cli import main


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("argon")
    write(folder / "Ar.cif", bulk("Ar", "fcc", a=5.3, cubic=True))
    command = [
        "expand", str(folder / "Ar.cif"), "--potential", "lj:Ar", "--mesh", "2", "2", "2",
        "--temperature", "0", "20", "200", "--out", str(folder / "out"),
    ]  # fmt: skip
    assert main(command) == 0
    return command, folder / "out"


@pytest.mark.slow
def test_argon_expands_until_it_is_none(done, capsys):
    command, out = done
    record = json.loads((out / "Ar" / "record.json").read_text())
    cold, cool, hot = (record["temperatures"][T] for T in ("0", "20", "200"))
    assert cold["volume_expansion_per_K"] == 0
    assert cold["gruneisen"] is None
    assert cold["flags"] == []
    # The zero-point energy of argon expands it by some per cent.
    assert 1.01 < cold["volume_over_static"] < 1.1
    # A rare-gas solid: soft, with a Grüneisen parameter of about 3.
    assert 2e-4 < cool["volume_expansion_per_K"] < 1.5e-3
    assert 2 < cool["gruneisen"] < 4
    assert cool["heat_capacity_pressure_J_K_mol"] > cool["heat_capacity_volume_J_K_mol"]
    tensor = np.array(cool["expansion_per_K"])
    np.testing.assert_allclose(tensor, np.eye(3) * tensor[0, 0], atol=1e-9 * tensor[0, 0])
    # It melts at 84 K; as a solid it would fall apart well below 200 K.
    assert hot["flags"] == ["no_minimum"]
    assert hot["volume_A3"] is None
    assert "no_minimum" in record["flags"]
    assert any("no minimum" in note for note in record["notes"])
    assert read(out / "Ar" / "T20K.extxyz").get_volume() == pytest.approx(cool["volume_A3"])
    assert not (out / "Ar" / "T200K.extxyz").exists()
    assert (out / "Ar" / "expansion.png").stat().st_size > 1e4
    curve = pd.read_csv(out / "Ar" / "expansion.csv")
    assert list(curve["temperature_K"]) == sorted(curve["temperature_K"])
    modes = np.load(out / "Ar" / "gruneisen.npz")
    assert modes["gruneisen_tensors"].shape == (*modes["frequencies_THz"].shape, 3, 3)
    table = pd.read_csv(out / "expand.csv")
    assert len(table) == 3
    capsys.readouterr()
    assert main(command) == 0
    assert "done before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--temperature", "-5", "none below 0"),
        ("--strain", "0.5", "up to 0.02"),
        ("--pressure", "nan", "a number in GPa"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, option, value, said):
    write(tmp_path / "Ar.cif", bulk("Ar", "fcc", a=5.3))
    command = ["expand", str(tmp_path / "Ar.cif"), "--potential", "lj:Ar", "--out", str(tmp_path)]
    assert main([*command, f"{option}={value}"]) == 2
    assert said in capsys.readouterr().err
