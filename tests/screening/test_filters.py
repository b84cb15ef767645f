"""What a screening computes and what it leaves out, with the reason."""

import numpy as np
import pytest
from ase.build import bulk

from phojax.checks import InputError
from phojax.convert import structure_from_ase
from phojax.screening.candidates import Candidate
from phojax.screening.filters import Filters, rejection, unknown

SALT = structure_from_ase(bulk("NaCl", "rocksalt", 5.64, cubic=True))


def candidate(crystal=SALT, gap=5.0, energy=-2.0, **more):
    metadata = {"band_gap_eV": gap, "formation_energy_eV_atom": energy}
    return Candidate("x", crystal, {k: v for k, v in metadata.items() if v is not None}, **more)


def test_a_salt_is_kept():
    assert rejection(candidate(), Filters()) == ""
    assert unknown(candidate(), Filters()) == ()


@pytest.mark.parametrize(
    ("changed", "filters", "reason"),
    [
        ({"gap": 0.0}, {}, "band gap 0 eV"),
        ({"gap": 0}, {}, "band gap 0 eV"),
        ({"gap": 1.0}, {"band_gap_above": 1.0}, "band gap 1 eV"),
        ({"gap": 1.01}, {"band_gap_above": 1.0}, ""),
        ({"gap": 0.0}, {"band_gap_above": None}, ""),
        ({"energy": 0.0}, {}, "formation energy 0 eV/atom"),
        ({"energy": 0.1}, {}, "formation energy 0.1 eV/atom"),
        ({"energy": 0.1}, {"formation_energy_below": None}, ""),
        ({"energy": -0.4}, {"formation_energy_below": -0.5}, "formation energy -0.4 eV/atom"),
        ({}, {"mobile": "Li"}, "no Li"),
        ({}, {"excluded": ("U", "Cl")}, "holds Cl"),
        ({}, {"atoms_max": 1}, "2 atoms in the primitive cell"),
        ({}, {"atoms_max": 2}, ""),
    ],
)
def test_limits(changed, filters, reason):
    assert rejection(candidate(**changed), Filters(**filters)) == reason


@pytest.mark.parametrize("value", [None, np.nan, "5", True])
def test_what_is_not_known_is_kept_and_named(value):
    some = candidate(gap=value)
    assert rejection(some, Filters()) == ""
    assert unknown(some, Filters()) == ("band_gap_eV",)
    assert rejection(some, Filters(require_metadata=True)) == "not known: band_gap_eV"
    assert unknown(some, Filters(band_gap_above=None, require_metadata=True)) == ()
    assert rejection(some, Filters(band_gap_above=None, require_metadata=True)) == ""


def test_numbers_of_numpy_are_numbers():
    assert rejection(candidate(gap=np.float32(0.0)), Filters()) == "band gap 0 eV"


def test_unreadable():
    broken = candidate(None, error="partial occupancy")
    assert rejection(broken, Filters()) == "not usable: partial occupancy"


@pytest.mark.parametrize(
    "wrong",
    [
        {"mobile": "Qq"},
        {"mobile": "X"},
        {"excluded": ("na",)},
        {"excluded": ("Na",)},
        {"band_gap_above": -1.0},
        {"band_gap_above": np.nan},
        {"formation_energy_below": np.nan},
        {"atoms_max": 0},
        {"symmetry_tolerance": 0.0},
    ],
)
def test_limits_that_mean_nothing(wrong):
    with pytest.raises(InputError):
        Filters(**wrong)


def test_formation_energies_of_wbm(shared):
    from phojax.io.sources import read_candidates

    found = read_candidates(str(shared / "data" / "structures")).candidates
    filters = Filters(atoms_max=10)
    said = {c.id: (rejection(c, filters), unknown(c, filters)) for c in found}
    assert said["Cs2NaHfCl6_wbm-2-30436"] == ("", ("band_gap_eV",))
    assert said["NaO3_mp-22464"][1] == ("band_gap_eV", "formation_energy_eV_atom")
    # The cell in the CIF has 16 atoms, in a body-centred lattice: 8 are primitive.
    assert said["Na3PS4_cubic"][0] == ""
    assert said["NaTe_mp-28353"][0] == "48 atoms in the primitive cell"
