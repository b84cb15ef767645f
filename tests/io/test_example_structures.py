"""The examples: space group by spglib, density and bond lengths as measured."""

import pathlib

import numpy as np
import pytest
import spglib
from ase.neighborlist import neighbor_list

from phojax.convert import ase_atoms
from phojax.io.structures import read_structure

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "examples/structures"
# Space group, density in g/cm³, a pair and its bond length in Å. Densities: CRC Handbook (NaCl,
# Na2S); the others from the cells' own volume, as a check of the composition.
KNOWN = {
    "NaCl": ("Fm-3m", 2.165, ("Na", "Cl"), 2.82),
    "Na2S": ("Fm-3m", 1.856, ("Na", "S"), 2.83),
    "Na3N": ("Pm-3m", 1.300, ("Na", "N"), 2.37),
    "Na3PS4": ("P-42_1c", 2.210, ("P", "S"), 2.05),
}


def test_all_are_listed():
    assert sorted(p.stem for p in FOLDER.glob("*.cif")) == sorted(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_example(name):
    group, density, pair, length = KNOWN[name]
    crystal = read_structure(FOLDER / f"{name}.cif")
    cell = (np.array(crystal.cell), np.array(crystal.fractional), np.array(crystal.numbers))
    assert spglib.get_symmetry_dataset(cell, 1e-5).international == group
    grams = float(np.sum(crystal.masses) / crystal.volume) * 1.66054
    assert grams == pytest.approx(density, rel=0.01)
    i, j, d = neighbor_list("ijd", ase_atoms(crystal), 3.4)
    symbols = np.array(crystal.symbols)
    assert d[(symbols[i] == pair[0]) & (symbols[j] == pair[1])].min() == pytest.approx(
        length, abs=0.02
    )
