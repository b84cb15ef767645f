"""`phojax design`: a small design from the command line, and what it refuses."""

import json

import numpy as np
import pytest
from ase.io import read, write
from mixtures import mixable_pairs

from phojax.cli.main import main
from phojax.convert import ase_atoms

MODEL = """
from mixtures import mixable_pairs

made, _ = mixable_pairs()
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    write(tmp_path / "NaCl.cif", ase_atoms(mixable_pairs()[1]))

    def run(*more, out="out"):
        return main(
            ["design", str(tmp_path / "NaCl.cif"), "--potential",
             f"python:{tmp_path / 'model.py'}:made", "--mesh", "2", "2", "2",
             "--out", str(tmp_path / out), *more]
        )  # fmt: skip

    return run


def test_bromide_is_softer_and_the_gain_is_computed_again(command, tmp_path, capsys):
    asked = ("--vary", "composition", "--elements", "Cl,Br", "--rate", "6", "--steps", "3")
    assert command(*asked) == 0
    found = json.loads((tmp_path / "out" / "design.json").read_text())
    assert (found["before"]["formula"], found["after"]["formula"]) == ("NaCl", "NaBr")
    assert found["after"]["value"] > found["before"]["value"]
    assert found["gain"] == pytest.approx(found["after"]["value"] - found["before"]["value"])
    assert len(found["trail"]) == 3
    shares = np.array([step["shares"][0] for step in found["trail"]])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert found["versions"]["phojax"]
    assert set(read(tmp_path / "out" / "after.extxyz").symbols) == {"Na", "Br"}
    said = capsys.readouterr().out
    assert "gain predicted" in said
    # More steps go on from where it ended.
    assert command(*asked[:-1], "4") == 0
    again = json.loads((tmp_path / "out" / "design.json").read_text())
    assert again["trail"][:3] == found["trail"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--vary", "colour"), "strain, composition or both"),
        (("--vary", "composition"), "--elements"),
        (("--elements", "Cl,Br"), "--elements"),
        (("--vary", "composition", "--elements", "Cl,S"), "different valence"),
        (("--vary", "composition", "--elements", "Cl,S", "--charges", "Cl"), "name and a value"),
        (("--vary", "composition", "--elements", "Cl,I"), "knows"),
        (("--vary", "composition", "--elements", "Br,I"), "to mix of which"),
        (("--mobile", "Li"), "no Li"),
        (("--limit", "volume=60:40"), "lower one first"),
        (("--limit", "colour=60:"), "limit to 'colour'"),
        (("--limit", "volume=big:"), "a number"),
        (("--max-strain", "2"), "largest strain"),
        (("--steps", "1"), "2 or more"),
    ],
)
def test_what_it_refuses(command, capsys, more, said):
    assert command(*more) == 2
    assert said in capsys.readouterr().err


def test_fractions_that_contradict(command, capsys):
    asked = ("--vary", "composition", "--elements", "Cl,Br", "--fraction", "Cl=0.7:", "Br=0.7:")
    assert command(*asked) == 2
    assert "contradict" in capsys.readouterr().err
