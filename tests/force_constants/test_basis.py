"""Bases of force constants: orthonormal, complete, and exact in every rule they claim."""

import jax.numpy as jnp
import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from test_hessian import CRYSTALS, POTENTIAL, make

from phojax.checks import InputError
from phojax.convert import ase_atoms
from phojax.force_constants.basis import (
    symmetry_adapted_basis,
)
from phojax.force_constants.container import force_constants
from phojax.force_constants.hessian import hessian
from phojax.force_constants.rotational import rotation_residuals
from phojax.force_constants.shells import (
    neighbour_shells,
    pair_distances,
    shell_cutoff,
    shell_distance,
)
from phojax.force_constants.sum_rules import (
    arrival_columns,
    cell_index,
    group_average,
    permuted,
)
from phojax.forces import evaluate
from phojax.structure import structure, supercell
from phojax.symmetry import space_group

SMALL = [225, 194, 166, 62, 14, 1]


def some(basis, seed=0):
    return np.random.default_rng(seed).normal(size=len(basis))


def second_order_misses(values, cell, group):
    """Return how far Φ is from permutation, sum rule and space group."""
    given = jnp.asarray(values)
    return (
        np.abs(values - np.asarray(permuted(given, cell))).max(),
        np.abs(values.sum(1)).max(),
        np.abs(values - group_average(given, cell, group)).max(),
    )


def third_order_misses(values, cell, group):
    """Return how far Φ³ is from its permutations, its sum rules and the space group."""
    n, L = len(cell.primitive), np.asarray(cell.images)
    copies = len(L)
    atoms = n * copies
    # Φ_(jL),(kM),i: with j brought home, k stands at M - L and i at -L.
    j = np.arange(atoms) // copies
    back = cell_index(cell, L[None] - L[:, None])  # (L, M) -> M - L
    column_k = (np.arange(n)[None, :, None] * copies + back[:, None]).reshape(copies, atoms)
    home = cell_index(cell, -L)
    cyclic = np.empty_like(values)
    for i in range(n):
        for b in range(atoms):
            part = values[j[b], column_k[b % copies], i * copies + home[b % copies]]
            cyclic[i, b] = np.einsum("kbca->kabc", part)
    turned = 0.0
    columns = arrival_columns(group, cell)
    for R, p, to in zip(group.rotations_cartesian, group.permutation, columns, strict=True):
        for i in range(n):
            moved = np.einsum("xa,yb,zc,jkabc->jkxyz", R, R, R, values[i], optimize=True)
            there = values[p[i]][to[i][:, None], to[i][None]]
            turned = max(turned, np.abs(there - moved).max())
    return (
        np.abs(values - np.einsum("ikjacb->ijkabc", values)).max(),
        np.abs(values - cyclic).max(),
        max(np.abs(values.sum(1)).max(), np.abs(values.sum(2)).max()),
        turned,
    )


@pytest.mark.parametrize("number", CRYSTALS)
@pytest.mark.parametrize("cutoff", [None, 4.0])
def test_second_order_obeys_every_rule(number, cutoff):
    cell, group = make(number)
    basis = symmetry_adapted_basis(cell, group, (2,), {2: cutoff})
    values = np.asarray(basis.second(some(basis)).values)
    assert max(second_order_misses(values, cell, basis.group)) < 1e-13
    if cutoff is not None:
        assert np.all(values[pair_distances(cell) > cutoff + 0.01] == 0)


@pytest.mark.parametrize("number", SMALL)
def test_third_order_obeys_every_rule_with_a_cutoff(number):
    cell, group = make(number)
    basis = symmetry_adapted_basis(cell, group, (3,), {3: 4.0})
    found = basis.third(some(basis))
    assert found.cutoff == 4.0
    values = np.asarray(found.values)
    assert max(third_order_misses(values, cell, basis.group)) < 1e-13
    far = pair_distances(cell) > 4.01
    assert np.all(values[far] == 0)
    assert np.all(np.swapaxes(values, 1, 2)[far] == 0)


def test_third_order_without_a_cutoff():
    cell, group = make(14)
    basis = symmetry_adapted_basis(cell, group, (3,), {3: None})
    values = np.asarray(basis.third(some(basis)).values)
    assert max(third_order_misses(values, cell, basis.group)) < 1e-13


@pytest.mark.parametrize("number", SMALL)
def test_orthonormal_over_primitive_rows(number):
    cell, group = make(number)
    basis = symmetry_adapted_basis(cell, group, residual_forces=True)
    for part in basis.parts:
        B = part.symmetric @ part.combinations
        if not len(part):
            continue
        assert np.abs(B.T @ B - np.eye(len(part))).max() < 1e-13
    x = some(basis)
    back = basis.coefficients(basis.second(x), basis.third(x))
    held = basis.slices[2].start
    np.testing.assert_allclose(back[held:], x[held:], atol=1e-13)


@pytest.mark.parametrize("number", [194])
def test_complete(number):
    """The exact force constants of a potential lie in the span."""
    cell, group = make(number)
    basis = symmetry_adapted_basis(cell, group, (2,))
    exact = hessian(POTENTIAL, cell, group).force_constants
    again = basis.second(basis.coefficients(exact))
    np.testing.assert_allclose(again.values, exact.values, rtol=0, atol=1e-11)


@pytest.mark.parametrize("number", [225, 194, 62, 1])
def test_forces_at_rest_that_symmetry_allows(number):
    """Against the forces of a potential, and the number of free positions of the crystal."""
    cell, group = make(number)
    basis = symmetry_adapted_basis(cell, group, (2,), residual_forces=True)
    free = {225: 0, 194: 1, 62: 4, 1: 3}[number]
    assert len(basis.parts[0]) == free
    forces = np.asarray(evaluate(POTENTIAL, cell.primitive)[1])
    V = basis.parts[0].combinations
    np.testing.assert_allclose(V @ (V.T @ forces.ravel()), forces.ravel(), atol=1e-12)


def test_shells_are_those_of_the_crystal():
    cell = supercell(_rocksalt(), [[-3, 3, 3], [3, -3, 3], [3, 3, -3]])
    found = neighbour_shells(cell)
    d = 5.64 / 2
    for row in found:
        np.testing.assert_allclose(row[:5], d * np.sqrt([1, 2, 3, 4, 5]), atol=1e-9)
    assert shell_distance(cell, 3) == pytest.approx(d * np.sqrt(3))
    i, far = neighbor_list("id", ase_atoms(make(62)[0].structure), 2.9)
    assert np.isclose(neighbour_shells(make(62)[0])[0][0], far[i == 0].min())
    with pytest.raises(InputError, match="shell 99"):
        shell_distance(cell, 99)


def test_a_cutoff_at_a_shell_holds_the_shell():
    """Written with four digits it may lie a rounding below: still inside."""
    cell, group = make(225)
    third = round(shell_distance(cell, 3) - 5e-5, 4)
    sizes = [
        len(symmetry_adapted_basis(cell, group, (2,), {2: c}))
        for c in (third, third + 0.1, third - 0.1)
    ]
    assert sizes[0] == sizes[1] > sizes[2]
    by_default = symmetry_adapted_basis(cell, group)
    assert by_default.parts[1].cutoff == pytest.approx(shell_cutoff(cell, 3))


def test_rotations_leave_what_obeys_them():
    """Springs at their own length, ending within the supercell: exactly rotation invariant."""
    cell, group, exact = _tetragonal_springs(1.0)
    assert max(rotation_residuals(exact)) < 1e-11
    free = symmetry_adapted_basis(cell, group, (2,))
    bound = symmetry_adapted_basis(cell, group, (2,), rotational=True)
    assert len(bound) < len(free)
    again = bound.second(bound.coefficients(exact))
    np.testing.assert_allclose(again.values, exact.values, rtol=0, atol=1e-12)


def test_stress_is_what_huang_feels():
    """The same springs, bent: no force on any atom, but a stress along one axis."""
    _, _, stressed = _tetragonal_springs(0.9)
    rotation, huang = rotation_residuals(stressed)
    assert rotation < 1e-11
    assert huang > 0.1


@pytest.mark.parametrize("number", [166, 62, 1])
def test_rotations_hold_after(number):
    cell, group = make(number)
    free = symmetry_adapted_basis(cell, group, (2,))
    x = some(free)
    assert max(rotation_residuals(free.second(x))) > 0.1
    bound = symmetry_adapted_basis(cell, group, (2,), rotational=True)
    found = bound.second(some(bound))
    assert max(rotation_residuals(found)) < 1e-10
    assert max(second_order_misses(np.asarray(found.values), cell, bound.group)) < 1e-12


def test_a_cubic_crystal_with_inversion_obeys_rotations_by_symmetry():
    cell, group = make(225)
    free = symmetry_adapted_basis(cell, group, (2,))
    bound = symmetry_adapted_basis(cell, group, (2,), rotational=True)
    assert len(bound) == len(free)
    assert max(rotation_residuals(free.second(some(free)))) < 1e-12


def test_bad_requests_are_told():
    cell, group = make(225)
    with pytest.raises(InputError, match="orders"):
        symmetry_adapted_basis(cell, group, (4,))
    with pytest.raises(InputError, match="rotational conditions without order 2"):
        symmetry_adapted_basis(cell, group, (3,), rotational=True)
    with pytest.raises(InputError, match="reaches no neighbour"):
        symmetry_adapted_basis(cell, group, (2,), {2: 1.0})
    with pytest.raises(InputError, match="a positive length"):
        symmetry_adapted_basis(cell, group, (2,), {2: -1.0})


def _rocksalt():
    a = 5.64
    return structure(a / 2 * (1 - np.eye(3)), np.array([[0, 0, 0], [a / 2] * 3]), [11, 17])


def _tetragonal_springs(stretch):
    """Return cell, group and Φ of two kinds of bonds, their lengths times `stretch`."""
    a, c = 4.0, 3.6
    middle = np.array([a, a, c]) / 2
    crystal = structure(np.diag([a, a, c]), np.array([np.zeros(3), middle]), [11, 17])
    cell, copies = supercell(crystal, [3, 3, 3]), 27
    at, to, bond, r = neighbor_list("ijDd", ase_atoms(cell.structure), 3.8)
    number = np.asarray(cell.structure.numbers)
    values = np.zeros((len(number), len(number), 3, 3))
    for i, j, d, length in zip(at, to, bond, r, strict=True):
        if number[i] == number[j] == 17:
            continue
        k = 2.0 if number[i] != number[j] else 0.6
        along = np.outer(d, d) / length**2
        # k (r - r0)²/2 with r0 = stretch · r: tension k (1 - stretch) across the bond.
        pair = k * along + k * (1 - stretch) * (np.eye(3) - along)
        values[i, j] -= pair
        values[i, i] += pair
    return cell, space_group(crystal), force_constants(values[::copies], cell)


def test_a_cell_without_third_order():
    """Rock salt with 8 atoms: inversion about every atom maps the supercell onto itself."""
    cell = supercell(make(225)[0].primitive, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    found = symmetry_adapted_basis(cell, space_group(cell.primitive))
    assert len(found.parts[1]) == 0
    x = np.ones(len(found))
    assert np.all(np.asarray(found.third(x).values) == 0)
    assert np.any(np.asarray(found.second(x).values) != 0)


def test_residual_forces_know_the_whole_group():
    """A supercell that breaks the axis of hcp allows no force that the crystal forbids."""
    x = np.array([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    a, c = 3.7, 6.0
    lattice = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    crystal = structure(lattice, x @ lattice, [18, 18])
    cell = supercell(crystal, [[2, 1, 0], [-1, 1, 0], [0, 0, 2]])
    found = symmetry_adapted_basis(cell, space_group(crystal), (2,), residual_forces=True)
    assert len(found.parts[0]) == 0
