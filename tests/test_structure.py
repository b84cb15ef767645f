"""Structures and supercells against ASE's, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import make_supercell
from ase.data import atomic_masses
from crystals import parts, random_crystal, salt

from phojax.checks import InputError
from phojax.structure import padded, strained, structure, supercell

MATRICES = {
    "diagonal": np.diag([2, 1, 3]),
    "cubic": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    "skewed": np.array([[2, 1, 0], [0, 2, -1], [1, 0, 3]]),
    "left-handed": np.array([[0, 2, 0], [2, 0, 0], [0, 0, 1]]),
}


def test_masses_and_symbols_are_those_of_ase():
    crystal = structure(*parts(salt()))
    np.testing.assert_array_equal(crystal.masses, atomic_masses[[11, 17]])
    assert crystal.symbols == ["Na", "Cl"]
    assert len(crystal) == 2


def test_fractional_coordinates_and_volume():
    atoms = random_crystal(5, 4.0, 0)
    crystal = structure(*parts(atoms))
    expected = atoms.get_scaled_positions(wrap=False)
    np.testing.assert_allclose(crystal.fractional, expected, atol=1e-12)
    np.testing.assert_allclose(crystal.volume, atoms.get_volume(), rtol=1e-13)


@pytest.mark.parametrize("name", MATRICES)
def test_supercell_holds_the_atoms_of_ase(name):
    P, atoms = MATRICES[name], random_crystal(3, 4.0, 5)
    made = supercell(structure(*parts(atoms)), P)
    big, copies = made.structure, round(abs(np.linalg.det(P)))
    expected = make_supercell(atoms, P, wrap=False)
    np.testing.assert_allclose(big.cell, expected.cell, atol=1e-12)
    assert len(big) == copies * 3 == len(expected)
    # Each atom of one lies on exactly one atom of the other, of the same element.
    apart = (np.asarray(big.positions)[:, None] - expected.positions) @ np.linalg.inv(big.cell)
    same = np.abs(apart - np.rint(apart)).max(-1) < 1e-9
    np.testing.assert_array_equal(same.sum(0), 1)
    np.testing.assert_array_equal(same.sum(1), 1)
    np.testing.assert_array_equal(expected.numbers[same.argmax(1)], big.numbers)


@pytest.mark.parametrize("name", MATRICES)
def test_supercell_atoms_stand_by_atom_then_cell(name):
    primitive = structure(*parts(random_crystal(3, 4.0, 5)))
    made = supercell(primitive, MATRICES[name])
    L = np.asarray(made.images)
    assert np.all(L[0] == 0)
    positions = np.asarray(made.structure.positions).reshape(3, len(L), 3)
    for j in range(3):
        expected = np.asarray(primitive.positions)[j] + L @ np.asarray(primitive.cell)
        np.testing.assert_allclose(positions[j], expected, atol=1e-12)
    inside = L @ np.linalg.inv(MATRICES[name])
    assert np.all((inside > -1e-12) & (inside < 1 - 1e-12))


def test_a_supercell_of_three_numbers_is_diagonal():
    primitive = structure(*parts(salt()))
    assert supercell(primitive, (2, 1, 3)).matrix == ((2, 0, 0), (0, 1, 0), (0, 0, 3))


def test_supercell_follows_its_primitive_cell():
    """Strain of the primitive cell, then supercell, is supercell, then strain."""
    strain = jnp.asarray(0.01 * np.random.default_rng(0).normal(size=(3, 3)))
    made = supercell(structure(*parts(salt())), MATRICES["cubic"])
    before = strained(made.structure, strain)
    after = supercell(strained(made.primitive, strain), MATRICES["cubic"]).structure
    np.testing.assert_allclose(before.positions, after.positions, atol=1e-12)
    np.testing.assert_allclose(before.cell, after.cell, atol=1e-12)


def test_padding_appends_atoms_of_number_zero():
    crystal = padded(structure(*parts(salt())), 5)
    np.testing.assert_array_equal(crystal.numbers, [11, 17, 0, 0, 0])
    np.testing.assert_array_equal(crystal.masses[2:], 1)
    np.testing.assert_array_equal(crystal.positions[2:], 0)
    with pytest.raises(InputError, match="2 atoms to be padded to 1"):
        padded(structure(*parts(salt())), 1)


def test_structures_are_pytrees_that_batch():
    crystal = structure(*parts(salt()))
    pair = jax.tree.map(lambda x: jnp.stack([x, x]), crystal)
    np.testing.assert_allclose(jax.vmap(lambda c: c.volume)(pair), [crystal.volume] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((3, 3))}, r"positions has shape \(3, 3\); expected \(2, 3\)"),
        ({"masses": np.ones(3)}, r"masses has shape \(3,\); expected \(2,\), one per position"),
        ({"cell": np.eye(2)}, r"cell has shape \(2, 2\)"),
        ({"cell": np.ones((3, 3))}, "no volume"),
        ({"positions": np.full((2, 3), np.nan)}, "6 values that are not finite"),
        ({"masses": [np.inf, 1.0]}, "masses holds 1 values that are not finite"),
    ],
)
def test_bad_structures_are_refused(change, message):
    given = {"cell": np.eye(3) * 4, "positions": np.zeros((2, 3)), "numbers": [11, 17]} | change
    with pytest.raises(InputError, match=message):
        structure(**given)


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.diag([1.5, 1, 1]), np.eye(2)])
def test_bad_supercells_are_refused(matrix):
    with pytest.raises(InputError, match="supercell matrix"):
        supercell(structure(*parts(salt())), matrix)
