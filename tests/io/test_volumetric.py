"""CHGCAR and cube: values, units and orientation as pymatgen and ASE read them."""

import io

import numpy as np
import pytest
from ase.calculators.vasp import VaspChargeDensity
from ase.io.cube import read_cube
from pymatgen.io.common import VolumetricData
from pymatgen.io.vasp.outputs import Chgcar

from phojax.checks import InputError
from phojax.io.volumetric import write_chgcar, write_cube
from phojax.md.density import IonDensity
from phojax.structure import structure

CELL = np.array([[5.0, 0.2, 0.0], [2.4, 6.0, -0.3], [-2.0, 1.0, 7.0]])


@pytest.fixture(scope="module")
def density() -> IonDensity:
    values = np.random.default_rng(0).random((7, 8, 11))  # no two axes alike, odd remainders
    return IonDensity(values, CELL, 11, 100)


@pytest.fixture(scope="module")
def crystal():
    return structure(CELL, [[1.0, 1, 1], [2.0, 3, 4], [0.5, 0, 3]], [17, 11, 17])


def test_chgcar(density, crystal, tmp_path):
    write_chgcar(tmp_path / "CHGCAR", density, crystal)
    theirs = Chgcar.from_file(tmp_path / "CHGCAR")
    volume = abs(np.linalg.det(CELL))
    np.testing.assert_allclose(theirs.data["total"] / volume, density.values, rtol=1e-10)
    np.testing.assert_allclose(theirs.structure.lattice.matrix, CELL, atol=1e-12)
    assert [s.specie.symbol for s in theirs.structure] == ["Na", "Cl", "Cl"]
    np.testing.assert_allclose(theirs.structure.cart_coords[0], [2, 3, 4], atol=1e-12)
    ase = VaspChargeDensity(str(tmp_path / "CHGCAR"))
    np.testing.assert_allclose(ase.chg[0], density.values, rtol=1e-10)
    # the value at a place, not only at an index
    place = np.array([2, 5, 3]) / (7, 8, 11)
    assert theirs.value_at(*place) / volume == pytest.approx(density.values[2, 5, 3], rel=0.1)


def test_cube(density, crystal, tmp_path):
    write_cube(tmp_path / "a.cube", density, crystal)
    with open(tmp_path / "a.cube") as file:
        ase = read_cube(io.StringIO(file.read()))
    bohr = 0.529177210903
    np.testing.assert_allclose(ase["data"] / bohr**3, density.values, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(ase["atoms"].cell), CELL, atol=1e-6)
    np.testing.assert_allclose(ase["atoms"].positions, crystal.positions, atol=1e-6)
    np.testing.assert_array_equal(ase["atoms"].numbers, [17, 11, 17])
    np.testing.assert_allclose(ase["origin"], 0)
    theirs = VolumetricData.from_cube(str(tmp_path / "a.cube"))
    np.testing.assert_allclose(theirs.structure.lattice.matrix, CELL, atol=1e-5)
    assert theirs.data["total"].shape == density.values.shape
    np.testing.assert_allclose(theirs.data["total"] / bohr**3, density.values, rtol=1e-5)


def test_both_hold_the_same(density, crystal, tmp_path):
    write_chgcar(tmp_path / "CHGCAR", density, crystal)
    write_cube(tmp_path / "a.cube", density, crystal)
    one = Chgcar.from_file(tmp_path / "CHGCAR")
    other = VolumetricData.from_cube(str(tmp_path / "a.cube"))
    volume = abs(np.linalg.det(CELL)) / 0.529177210903**3
    np.testing.assert_allclose(one.data["total"], other.data["total"] * volume, rtol=1e-5)


def test_another_cell_is_refused(density, tmp_path):
    other = structure(CELL * 1.1, [[1.0, 1, 1]], [11])
    with pytest.raises(InputError, match="another cell"):
        write_cube(tmp_path / "a.cube", density, other)
