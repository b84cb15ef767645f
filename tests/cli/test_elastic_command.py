"""`phojax elastic` on argon, whose forces are central: C12 = C44 without stress (Cauchy)."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write

from phojax.cli import main


@pytest.fixture(scope="module")
def argon(tmp_path_factory):
    path = tmp_path_factory.mktemp("argon") / "Ar.cif"
    write(path, bulk("Ar", "fcc", a=5.3, cubic=True))
    return path


@pytest.fixture(scope="module")
def by_derivatives(argon, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert main(["elastic", str(argon), "--potential", "lj:Ar", "--out", str(out)]) == 0
    return out


def record_of(out):
    return json.loads((out / "Ar" / "record.json").read_text())


def test_cauchy_and_the_moduli_of_a_cubic_crystal(by_derivatives):
    record = record_of(by_derivatives)
    C = np.array(record["tensor_GPa"])
    c11, c12, c44 = C[0, 0], C[0, 1], C[3, 3]
    assert c12 == pytest.approx(c44, rel=1e-3)
    assert record["bulk_GPa"] == pytest.approx((c11 + 2 * c12) / 3, rel=1e-9)
    assert record["shear_voigt_GPa"] == pytest.approx((c11 - c12 + 3 * c44) / 5, rel=1e-9)
    reuss = 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
    assert record["shear_reuss_GPa"] == pytest.approx(reuss, rel=1e-9)
    K, G = record["bulk_GPa"], record["shear_GPa"]
    assert record["hardness_GPa"] == pytest.approx(0.92 * (G / K) ** 1.137 * G**0.708)
    assert record["stable"]
    assert record["flags"] == []
    # Tabulated for solid argon near 0 K: about 2.7 GPa, Debye temperature about 92 K.
    assert 1.5 < K < 4
    assert 70 < record["debye_temperature_K"] < 110


def test_finite_strains_agree_and_options_recompute(argon, by_derivatives, tmp_path, capsys):
    command = ["elastic", str(argon), "--potential", "lj:Ar", "--out", str(tmp_path)]
    assert main([*command, "--strain", "0.001"]) == 0
    a, b = (np.array(record_of(out)["tensor_GPa"]) for out in (by_derivatives, tmp_path))
    assert np.abs(a - b).max() < 2e-4 * np.abs(a).max()
    capsys.readouterr()
    assert main([*command, "--strain", "0.001"]) == 0
    assert "done before" in capsys.readouterr().err
    assert record_of(tmp_path)["method"] == "finite strain"
    table = pd.read_csv(tmp_path / "elastic.csv")
    assert table["bulk_GPa"][0] == pytest.approx(record_of(tmp_path)["bulk_GPa"])


def test_a_folder_of_another_command_is_refused(argon, tmp_path, capsys):
    """Its records would be replaced."""
    (tmp_path / "phonons.csv").write_text("name\nAr\n")
    command = ["elastic", str(argon), "--potential", "lj:Ar", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "results of `phojax phonons`" in capsys.readouterr().err
    assert not (tmp_path / "Ar").exists()


def test_what_is_wrong_is_told(argon, tmp_path, capsys):
    write(tmp_path / "stretched.cif", bulk("Ar", "fcc", a=6.6, cubic=True))
    write(tmp_path / "NaCl.cif", bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    inputs = [str(tmp_path / "stretched.cif"), str(tmp_path / "NaCl.cif")]
    out = tmp_path / "out"
    assert main(["elastic", *inputs, "--potential", "lj:Ar", "--no-relax", "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "FAILED" in text  # NaCl
    record = json.loads((out / "stretched" / "record.json").read_text())
    assert "not_at_rest" in record["flags"]
    assert "elastically_unstable" in record["flags"]
    assert "(" in text  # moduli of an unstable crystal stand in brackets
    assert main(["elastic", str(argon), "--potential", "lj:Ar", "--strain", "2", "--out", "x"]) == 2


def test_third_order_beside_phonons(argon, tmp_path):
    command = ["phonons", str(argon), "--potential", "lj:Ar", "--mobile", "Ar", "--mesh", "3", "3",
               "3", "--supercell-atoms", "32", "--no-figures", "--out", str(tmp_path)]  # fmt: skip
    assert main([*command, "--third-order"]) == 0
    folder = tmp_path / "Ar"
    record = json.loads((folder / "record.json").read_text())
    assert record["third_order"]["method"] == "autodiff"
    lines = (folder / "FORCE_CONSTANTS_3RD").read_text().split("\n")
    blocks = int(lines[0])
    assert blocks > 0
    assert sum(len(line.split()) == 4 for line in lines) == 27 * blocks
    with h5py.File(folder / "fc3.hdf5") as file:
        fc3 = file["fc3"][:]
    assert fc3.shape[0] == 1
    assert np.abs(fc3.sum(axis=2)).max() < 1e-9 * np.abs(fc3).max()
    assert main([*command, "--third-cutoff", "4"]) == 2
