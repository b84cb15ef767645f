"""`phojax sensitivity`: the record adds up, and says what scaling laws say."""

import json
import pathlib

import pytest

from phojax.cli import main

SALT = pathlib.Path(__file__).parents[2] / "examples" / "structures" / "NaCl.cif"


@pytest.mark.slow
def test_displacements_of_rock_salt(tmp_path, capsys):
    """When it is hot d goes as 1/Φ whatever the masses; parts add up to the whole."""
    out = tmp_path / "out"
    command = ["sensitivity", str(SALT), "--potential", "ions:NaCl", "--temperature", "1e5",
               "--mesh", "2", "2", "2", "--out", str(out)]  # fmt: skip
    assert main(command) == 0
    record = json.loads((out / "sensitivity.json").read_text())
    value, total = record["value"], record["per_ln_force_constants"]
    assert total == pytest.approx(-value, rel=1e-6)
    for parts in (record["atoms"], record["shells"]):
        assert sum(p["per_ln_force_constants"] for p in parts) == pytest.approx(total, rel=1e-9)
    assert sum(map(sum, record["modes"]["per_ln_eigenvalue"])) == pytest.approx(total, rel=1e-9)
    assert sum(a["per_ln_mass"] for a in record["atoms"]) == pytest.approx(0, abs=1e-6 * value)
    assert {s["pair"] for s in record["shells"]} == {"Cl-Na", "Cl-Cl", "Na-Na"}
    assert (out / "sensitivity.png").stat().st_size > 10_000
    assert "Fm-3m" in capsys.readouterr().out


def test_what_it_refuses(tmp_path, capsys):
    assert main(["sensitivity", str(SALT), "--mobile", "K", "--potential", "ions:NaCl",
                 "--out", str(tmp_path)]) == 2  # fmt: skip
    assert "--mobile" in capsys.readouterr().err
