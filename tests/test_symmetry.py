"""Space groups, symmetrisation and supercells against spglib and geometry."""

import jax.numpy as jnp
import numpy as np
import pytest
from ase.spacegroup import crystal as ase_crystal

from phojax.checks import InputError
from phojax.structure import structure, supercell
from phojax.symmetry import (
    near_cubic_matrix,
    primitive_cell,
    space_group,
    symmetrized,
    symmetrized_tensors,
)

# One crystal per lattice system, by space group number: the number of its operations is the
# order of its point group (International Tables A) where the cell is primitive.
CRYSTALS = {
    225: (["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], [5.64] * 3 + [90] * 3, 48),
    217: (["Na", "P", "S"], [(0.5, 0, 0), (0, 0, 0), (0.17, 0.17, 0.17)], [7.0] * 3 + [90] * 3, 24),
    194: (["Na", "P"], [(1 / 3, 2 / 3, 0.58), (1 / 3, 2 / 3, 0.25)], [5, 5, 8.8, 90, 90, 120], 24),
    166: (["Na", "Cl"], [(0, 0, 0.24), (0, 0, 0)], [4, 4, 15, 90, 90, 120], 12),
    114: (["Na", "Na", "P", "S"], [(0, 0, 0), (0, 0.5, 0.09), (0, 0, 0.5), (0.31, 0.35, 0.16)],
          [6.95, 6.95, 7.08, 90, 90, 90], 8),
    62: (["Na", "S"], [(0.1, 0.25, 0.3), (0.35, 0.25, 0.6)], [6, 4.5, 8, 90, 90, 90], 8),
    14: (["Na", "O"], [(0.1, 0.2, 0.3), (0.4, 0.1, 0.7)], [5, 6, 7, 90, 101, 90], 4),
    1: (["Na", "O"], [(0.1, 0.2, 0.3), (0.4, 0.1, 0.7)], [5, 6, 7, 81, 101, 95], 1),
}  # fmt: skip


def make(number):
    symbols, basis, cellpar, _ = CRYSTALS[number]
    atoms = ase_crystal(symbols, basis, spacegroup=number, cellpar=cellpar)
    return structure(atoms.cell[:], atoms.positions, atoms.numbers)


@pytest.mark.parametrize("number", CRYSTALS)
def test_group_of_the_primitive_cell(number):
    primitive = primitive_cell(make(number))
    group = space_group(primitive)
    assert group.number == number
    assert len(group) == CRYSTALS[number][3]
    # Every operation takes every atom onto the one it names, in the cell it names.
    x, cell = np.asarray(primitive.positions), np.asarray(primitive.cell)
    for op in range(len(group)):
        moved = x @ group.rotations_cartesian[op].T + group.translations[op] @ cell
        arrived = x[group.permutation[op]] + group.shifts[op] @ cell
        assert np.abs(moved - arrived).max() < 1e-8


@pytest.mark.parametrize("number", [225, 194, 114, 14])
def test_a_rattled_crystal_is_made_exact_again(number):
    perfect = primitive_cell(make(number))
    rng = np.random.default_rng(0)
    bent = structure(
        np.asarray(perfect.cell) @ (np.eye(3) + rng.normal(size=(3, 3)) * 1e-4),
        np.asarray(perfect.positions) + rng.normal(size=perfect.positions.shape) * 1e-4,
        perfect.numbers,
    )
    group = space_group(bent, 1e-2)
    assert group.number == number
    exact = symmetrized(bent, group)
    assert space_group(exact, 1e-7).number == number
    # The cell is stretched, not turned: the strain that takes one to the other is symmetric.
    stretch = np.linalg.solve(np.asarray(bent.cell), np.asarray(exact.cell))
    assert np.abs(stretch - stretch.T).max() < 1e-12
    assert np.abs(stretch - np.eye(3)).max() < 1e-3
    again = symmetrized(exact, group)
    assert jnp.abs(again.positions - exact.positions).max() < 1e-12


def test_masses_distinguish_atoms():
    rock_salt = primitive_cell(make(225))
    same = structure(rock_salt.cell, rock_salt.positions, [11, 11])
    labelled = structure(rock_salt.cell, rock_salt.positions, [11, 11], [22.0, 23.0])
    assert len(space_group(same)) == 96  # a simple cubic lattice in a doubled cell
    assert len(space_group(labelled)) == 48


def test_tensor_average_is_invariant_and_idempotent():
    primitive = primitive_cell(make(114))
    group = space_group(primitive)
    tensors = np.random.default_rng(1).normal(size=(len(primitive), 3, 3))
    mean = symmetrized_tensors(tensors, group)
    assert np.abs(symmetrized_tensors(mean, group) - mean).max() < 1e-12
    R, p = group.rotations_cartesian[-1], group.permutation[-1]
    assert np.abs(mean[p] - R @ mean @ R.T).max() < 1e-12


@pytest.mark.parametrize(
    ("number", "atoms", "edges"),
    [(225, 216, [16.92] * 3), (217, 128, [14.0] * 3), (114, 128, [13.9, 13.9, 14.16])],
)
def test_supercells_are_near_cubes(number, atoms, edges):
    primitive = primitive_cell(make(number))
    matrix = near_cubic_matrix(primitive, space_group(primitive))
    cell = supercell(primitive, matrix).structure
    assert len(cell) == atoms
    assert np.allclose(np.linalg.norm(cell.cell, axis=1), edges, atol=1e-2)
    corner = np.asarray(cell.cell) @ np.asarray(cell.cell).T
    assert np.abs(corner - np.diag(np.diag(corner))).max() < 1e-6


def test_a_large_primitive_cell_is_its_own_supercell():
    primitive = primitive_cell(make(114))
    assert np.array_equal(near_cubic_matrix(primitive, space_group(primitive), 10, 12), np.eye(3))
    with pytest.raises(InputError, match="at least 0 atoms"):
        near_cubic_matrix(primitive, space_group(primitive), 0)
