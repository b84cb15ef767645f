"""Structural descriptors: rocksalt by hand, pymatgen called directly, crystals of all kinds."""

import math

import numpy as np
import pytest
from ase.build import bulk
from crystals import fcc, parts, random_crystal, salt

from phojax.checks import InputError
from phojax.descriptors.structural import structural_descriptors, valence_electrons
from phojax.structure import structure

pytest.importorskip("pymatgen.core")

# pymatgen's own remarks are notes in the result; outside of it they are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pymatgen")

A = 5.64
SHANNON_NA, SHANNON_CL = 1.16, 1.67  # Å, sixfold (Acta Cryst. A32, 751 (1976))


@pytest.mark.parametrize("cubic", [False, True])
def test_rocksalt_by_hand(cubic):
    found = structural_descriptors(structure(*parts(salt(a=A, cubic=cubic))), "Na")
    cells = 4 if cubic else 1
    volume = A**3 / 4
    assert found.volume_A3 == pytest.approx(cells * volume)
    assert found.volume_per_atom_A3 == pytest.approx(volume / 2)
    assert found.number_density_per_A3 == pytest.approx(2 / volume)
    spheres = 4 / 3 * math.pi * (SHANNON_NA**3 + SHANNON_CL**3)
    assert found.packing_fraction == pytest.approx(spheres / volume)
    assert found.radii_kind == {"Na": "ionic", "Cl": "ionic"}
    assert found.oxidation_states == {"Na": 1, "Cl": -1}
    assert found.oxidation_states_from == "bond valence"
    assert found.neighbors_within_cutoff == 6  # a/2; the next at a/√2 = 3.99 Å
    assert found.neighbors_crystalnn == 6
    assert found.mean_bond_length_A == pytest.approx(A / 2)
    assert found.mean_electronegativity == pytest.approx((0.93 + 3.16) / 2)
    assert found.mean_atomic_number == 14
    assert found.mean_valence_electrons == 4
    assert found.mean_electrons_outside_core == 4
    assert found.notes == ()


def test_neighbours_of_one_species_and_another_cutoff():
    crystal = structure(*parts(salt(a=A)))
    every = structural_descriptors(crystal, "Na", cutoff=4.1)
    assert every.neighbors_within_cutoff == 6 + 12
    # 6 pairs at a/2 and 12 at a/√2 around each atom.
    assert every.mean_bond_length_A == pytest.approx((6 * A / 2 + 12 * A / math.sqrt(2)) / 18)
    sodium = structural_descriptors(crystal, "Na", cutoff=4.1, neighbor_species="Na")
    assert sodium.neighbors_within_cutoff == 12


def test_valence_electrons_are_group_numbers():
    from pymatgen.core import Element

    groups = {"H": 1, "Na": 1, "P": 5, "Br": 7, "Te": 6, "Tl": 3, "Ti": 4, "Zn": 12, "Hf": 4,
              "Lu": 3, "Pd": 10, "Xe": 8}  # fmt: skip
    assert {s: valence_electrons(Element(s)) for s in groups} == groups
    # As Magpie counts them (Ward et al., npj Comput. Mater. 2, 16028 (2016)).
    magpie = {"H": 1, "Na": 1, "P": 5, "Br": 17, "Te": 16, "Ti": 4, "Zn": 12, "Hf": 18, "Cs": 1,
              "Nd": 6, "Dy": 12}  # fmt: skip
    assert {s: valence_electrons(Element(s), inner_shells=True) for s in magpie} == magpie


def test_missing_data_are_notes():
    metal = structural_descriptors(structure(*parts(fcc("Cu", 3.6))), "Cu")
    assert metal.oxidation_states == {}
    assert metal.oxidation_states_from == "none"
    assert metal.radii_kind == {"Cu": "atomic"}
    # Slater's atomic radius of copper is 1.35 Å.
    assert metal.packing_fraction == pytest.approx(4 / 3 * math.pi * 1.35**3 / (3.6**3 / 4))
    assert "no oxidation states found" in metal.notes
    assert any("atomic radius used" in note for note in metal.notes)
    assert metal.neighbors_within_cutoff == 12

    gas = structural_descriptors(structure(*parts(fcc("He", 6.0))), "He")
    assert gas.mean_electronegativity is None
    assert gas.packing_fraction is None
    assert gas.mean_bond_length_A is None
    assert gas.neighbors_within_cutoff == 0
    assert gas.mean_valence_electrons == 2
    text = " ".join(gas.notes)
    for part in ("no electronegativity of He", "no packing fraction", "no two atoms within"):
        assert part in text


def test_states_that_no_chemist_would_write_are_not_taken():
    """Na2Cl balances as Na⁻ and Cl²⁺ only."""
    cell = np.eye(3) * 4.2
    odd = structure(cell, [[0, 0, 0], [0, 2.1, 2.1], [2.1, 2.1, 0]], [11, 11, 17])
    assert structural_descriptors(odd, "Na").oxidation_states_from == "none"


@pytest.mark.parametrize("seed", range(3))
def test_bad_crystals_do_not_raise(seed):
    """Atoms anywhere: bond valences and Voronoi cells may fail, the record must not."""
    found = structural_descriptors(structure(*parts(random_crystal(7, 5.0, seed))), "Na")
    assert found.volume_A3 > 0


def test_crystalnn_that_fails_is_a_note(monkeypatch):
    from pymatgen.analysis.local_env import CrystalNN

    def broken(*_):
        raise RuntimeError("this structure is pathological")

    monkeypatch.setattr(CrystalNN, "get_cn", broken)
    found = structural_descriptors(structure(*parts(salt())), "Na")
    assert found.neighbors_crystalnn is None
    assert any("CrystalNN fails with RuntimeError" in note for note in found.notes)


def test_bad_arguments():
    crystal = structure(*parts(salt()))
    with pytest.raises(InputError, match="mobile ion Li; expected one of Cl, Na"):
        structural_descriptors(crystal, "Li")
    with pytest.raises(InputError, match="neighbour species Br"):
        structural_descriptors(crystal, "Na", neighbor_species="Br")
    with pytest.raises(InputError, match="cutoff -1"):
        structural_descriptors(crystal, "Na", cutoff=-1)


def check_against_pymatgen(peer, found, mobile):
    """Compare with pymatgen's own neighbours and elements (a crystal without warnings)."""
    i, _, _, d = peer.get_neighbor_list(3.5)
    assert len(peer) / peer.volume == pytest.approx(found.number_density_per_A3)
    assert d.mean() == pytest.approx(found.mean_bond_length_A)
    ions = [n for n, site in enumerate(peer) if site.specie.symbol == mobile]
    assert np.isin(i, ions).sum() / len(ions) == pytest.approx(found.neighbors_within_cutoff)
    X = np.mean([site.specie.X for site in peer])
    assert pytest.approx(found.mean_electronegativity) == X
    assert pytest.approx(peer.composition.average_electroneg) == X
    assert np.mean([site.specie.Z for site in peer]) == pytest.approx(found.mean_atomic_number)
    assert peer.composition.total_electrons / len(peer) == pytest.approx(found.mean_atomic_number)


def test_against_pymatgen():
    from phojax.convert import pymatgen_structure

    for atoms in (salt("zincblende"), bulk("CaF2", "fluorite", a=5.46)):
        crystal = structure(*parts(atoms))
        mobile = crystal.symbols[0]
        found = structural_descriptors(crystal, mobile)
        check_against_pymatgen(pymatgen_structure(crystal), found, mobile)


def test_all_crystals_of_the_shared_data(shared):
    from pymatgen.analysis.local_env import CrystalNN

    from phojax.convert import pymatgen_structure
    from phojax.io.structures import read_structure

    files = sorted((shared / "data/structures").glob("*.cif"))
    sources = set()
    for path in files:
        crystal = read_structure(path)
        found = structural_descriptors(crystal, "Na")
        peer = pymatgen_structure(crystal)
        check_against_pymatgen(peer, found, "Na")
        sources.add(found.oxidation_states_from)
        assert 0 < found.packing_fraction < 1.5, path.name
        if len(crystal) > 16:
            continue
        if found.oxidation_states_from == "bond valence":
            peer.add_oxidation_state_by_element(found.oxidation_states)
        ions = [n for n, s in enumerate(crystal.symbols) if s == "Na"]
        assert found.neighbors_crystalnn == pytest.approx(
            np.mean([CrystalNN().get_cn(peer, n) for n in ions])
        )
    assert len(files) >= 40
    assert "bond valence" in sources
