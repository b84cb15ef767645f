"""Crystals that are written in different ways, and crystals that only look alike."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal as spacegroup_crystal
from pymatgen.analysis.structure_matcher import StructureMatcher

from phojax.checks import InputError
from phojax.convert import ase_atoms, pymatgen_structure, structure_from_ase
from phojax.io.structures import read_structure
from phojax.screening.duplicates import duplicate_of
from phojax.structure import strained

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "structures"


def written_otherwise(atoms: Atoms, seed: int, noise: float = 0.0) -> Atoms:
    """The same crystal: another basis, turned, shifted, atoms in another order, repeated."""
    rng = np.random.default_rng(seed)
    other = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    turn = scipy.spatial.transform.Rotation.random(random_state=seed).as_matrix()
    other.set_cell(other.cell @ turn.T, scale_atoms=True)
    other.positions += rng.normal(size=3) + noise * rng.normal(size=other.positions.shape)
    other = other[rng.permutation(len(other))]
    other.wrap()
    return other


@pytest.mark.parametrize("name", ["Na3PS4", "Na3N", "Na2S", "NaCl"])
def test_the_same_crystal_written_otherwise(name):
    first = read_structure(f"{EXAMPLES}/{name}.cif")
    copies = [structure_from_ase(written_otherwise(ase_atoms(first), k)) for k in range(3)]
    assert duplicate_of([first, *copies]) == [None, 0, 0, 0]
    noisy = structure_from_ase(written_otherwise(ase_atoms(first), 7, 1e-3))
    assert duplicate_of([noisy, first]) == [None, 0]
    assert duplicate_of([first, strained(first, 0.01 * jnp.eye(3))]) == [None, 0]


def perovskite(*shifts: float, a: float = 4.0, c: float = 4.0) -> Atoms:
    """BaTiO3; shifts of Ti, apical O and equatorial O along z."""
    ti, apical, side = (*shifts, 0, 0, 0)[:3]
    x = [[0, 0, 0], [0.5, 0.5, 0.5 + ti], [0.5, 0.5, apical], [0.5, 0, 0.5 + side],
         [0, 0.5, 0.5 + side]]  # fmt: skip
    return Atoms("BaTiO3", scaled_positions=x, cell=[a, a, c], pbc=True)


def test_phases_that_differ_by_a_soft_mode_are_two():
    """Tetragonal BaTiO3 as measured: Harada, Pedersen, Barnea, Acta Cryst. A 26, 336 (1970)."""
    cubic = structure_from_ase(perovskite())
    tetragonal = structure_from_ase(perovskite(0.0135, -0.0250, -0.0150, a=3.994, c=4.034))
    assert duplicate_of([cubic, tetragonal]) == [None, None]
    matcher = StructureMatcher()
    assert matcher.fit(pymatgen_structure(cubic), pymatgen_structure(tetragonal))


def test_a_distorted_superstructure_and_its_parent_are_two():
    """Zone-boundary shifts of 0.1 Å, within what pymatgen takes for a translation."""
    parent = perovskite()
    double = parent.repeat((1, 1, 2))
    ti = [k for k, s in enumerate(double.symbols) if s == "Ti"]
    double.positions[ti[0], 2] += 0.1
    double.positions[ti[1], 2] -= 0.1
    both = [structure_from_ase(parent), structure_from_ase(double)]
    assert duplicate_of(both) == [None, None]
    assert StructureMatcher().fit(*(pymatgen_structure(s) for s in both))


def test_volumes_and_prototypes():
    salt = bulk("NaCl", "rocksalt", 5.64)
    dense = bulk("NaCl", "rocksalt", 5.2)
    cesium = bulk("NaCl", "cesiumchloride", 3.4)
    other = bulk("NaBr", "rocksalt", 5.64)
    exchanged = spacegroup_crystal(
        ["Cl", "Na"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3
    )
    given = [structure_from_ase(a) for a in (salt, other, dense, cesium, exchanged, other)]
    assert duplicate_of(given) == [None, None, None, None, 0, 1]
    assert duplicate_of(given, length=0.1) == [None, None, 0, None, 0, 1]


def test_mirror_images_are_one():
    quartz = spacegroup_crystal(
        ["Si", "O"], [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)], spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )  # fmt: skip
    mirror = quartz.copy()
    mirror.set_cell(mirror.cell @ np.diag([1, 1, -1]), scale_atoms=True)
    assert duplicate_of([structure_from_ase(quartz), structure_from_ase(mirror)]) == [None, 0]


def test_isotopes_are_crystals_of_their_own():
    light, heavy = bulk("NaH", "rocksalt", 4.9), bulk("NaH", "rocksalt", 4.9)
    heavy.set_masses([None, 2.014])
    table = bulk("NaH", "rocksalt", 4.9)
    table.set_masses([22.9898, 1.00784])
    given = [structure_from_ase(atoms) for atoms in (light, heavy, table, heavy)]
    assert duplicate_of(given) == [None, None, 0, 1]


def test_none_and_one():
    assert duplicate_of([]) == []
    one = structure_from_ase(bulk("Na", "bcc", 4.2))
    assert duplicate_of([one]) == [None]


def test_a_comparison_that_fails_is_told(monkeypatch):
    def fit(*_, **__):
        raise ValueError("no lattice")

    monkeypatch.setattr(StructureMatcher, "fit", fit)
    salt = structure_from_ase(bulk("NaCl", "rocksalt", 5.64))
    said = []
    assert duplicate_of([salt, salt], remark=said.append) == [None, None]
    assert said == ["structures 0 and 1 could not be compared (ValueError: no lattice)"]


@pytest.mark.parametrize("wrong", [{"length": 0}, {"site": -1}, {"angle": 90}])
def test_tolerances_that_mean_nothing(wrong):
    with pytest.raises(InputError, match="tolerance"):
        duplicate_of([], **wrong)


def test_reference_structures_are_all_different(shared):
    """Forty entries of databases and a model: none twice, but the examples' are among them."""
    files = sorted((shared / "data" / "structures").glob("*.cif"))
    given = [read_structure(f) for f in files]
    assert duplicate_of(given) == [None] * len(given)
    names = [f.name for f in files]
    own = [read_structure(f"{EXAMPLES}/{name}.cif") for name in ("NaCl", "Na2S", "Na3N", "Na3PS4")]
    found = duplicate_of([*given, *own])[len(given) :]
    assert [None if k is None else names[k] for k in found] == [
        "NaCl_mp-22862.cif", "Na2S_mp-648.cif", "Na3N_mp-2639.cif", None,
    ]  # fmt: skip
