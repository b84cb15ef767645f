"""Fits of force constants: against symfc, explicit design matrices, and what is there."""

import json
import lzma

import numpy as np
import pytest
from symfc import Symfc
from symfc.utils.utils import SymfcAtoms
from test_basis import second_order_misses, third_order_misses
from test_hessian import POTENTIAL, make

from phojax.force_constants.basis import symmetry_adapted_basis
from phojax.force_constants.displacements import (
    DisplacementSet,
    computed_forces,
    random_displacements,
    with_forces,
)
from phojax.force_constants.equations import predicted_forces
from phojax.force_constants.fit import fitted
from phojax.force_constants.rotational import rotation_residuals
from phojax.force_constants.sum_rules import cell_index
from phojax.structure import structure, supercell
from phojax.symmetry import space_group


def design(basis, displacements):
    """Return A, a column at a time, by what the found force constants predict."""
    columns = np.eye(len(basis))
    return np.stack([predicted_forces(displacements, basis, x).ravel() for x in columns], axis=1)


def table(path):
    with lzma.open(path) as stream:
        return np.loadtxt(stream)


def forces_by_sums(u, second, third):
    """Return F = -Φu - ½Φ³uu by the sums as they stand, atom by atom."""
    cell = second.supercell
    n, L = len(cell.primitive), np.asarray(cell.images)
    F = np.empty_like(u)
    for copy in range(len(L)):
        to = cell_index(cell, L + L[copy])
        seen = (np.arange(n)[:, None] * len(L) + to).ravel()
        v = u[:, seen]
        own = np.arange(n) * len(L) + copy
        F[:, own] = -np.einsum("ijab,sjb->sia", second.values, v)
        F[:, own] -= np.einsum("ijkabc,sjb,skc->sia", third.values, v, v, optimize=True) / 2
    return F


@pytest.fixture(scope="module")
def morse_set():
    """Sodium sulphide of a sort, 24 atoms, hexagonal: displacements and forces of a potential."""
    cell, group = make(194)
    return group, computed_forces(POTENTIAL, random_displacements(cell, 12, 0.03, seed=3))


def sparse_set(number, count, noise, seed=0):
    """Return basis, sparse coefficients of both orders, and forces made of them with noise."""
    cell, group = make(number)
    basis = symmetry_adapted_basis(cell, group)
    rng = np.random.default_rng(seed)
    x = np.zeros(len(basis))
    for at, k, size in zip(basis.slices.values(), (6, 8), (3.0, 60.0), strict=True):
        on = rng.choice(np.arange(at.start, at.stop), k, replace=False)
        x[on] = size * rng.choice([-1, 1], k) * rng.uniform(0.5, 1.5, k)
    given = random_displacements(cell, count, 0.03, seed=seed)
    F = predicted_forces(given.displacements, basis, x)
    return basis, x, with_forces(given, F + noise * rng.normal(size=F.shape))


def by_symfc(given, orders, cutoff, seed=0):
    """Return full force constants of symfc, its atoms in an order of their own, in our order."""
    big = given.supercell.structure
    order = np.random.default_rng(seed).permutation(len(big))
    back = np.argsort(order)
    atoms = SymfcAtoms(
        numbers=np.asarray(big.numbers)[order],
        scaled_positions=np.asarray(big.fractional)[order],
        cell=np.asarray(big.cell),
    )
    peer = Symfc(atoms, cutoff=cutoff)
    peer.displacements, peer.forces = given.displacements[:, order], given.forces[:, order]
    peer.run(orders=list(orders), is_compact_fc=False)
    found = peer.force_constants
    second = found[2][np.ix_(back, back)]
    return second, found[3][np.ix_(back, back, back)] if 3 in found else None


@pytest.mark.parametrize(
    ("orders", "cutoffs"), [((2,), {2: None}), ((2,), {2: 5.0}), ((2, 3), {2: None, 3: 4.2})]
)
def test_least_squares_is_symfcs(morse_set, orders, cutoffs):
    group, given = morse_set
    basis = symmetry_adapted_basis(given.supercell, group, orders, cutoffs)
    found = fitted(given, basis)
    second, third = by_symfc(given, orders, cutoffs)
    home = np.arange(len(given.supercell.primitive)) * len(given.supercell.images)
    np.testing.assert_allclose(found.second.values, second[home], rtol=0, atol=1e-8)
    if third is not None:
        np.testing.assert_allclose(found.third.values, third[home], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "displaced", "primitive"),
    [
        ("NaCl_222", "dfset_NaCl_222_rd.xz", (np.ones((3, 3)) - np.eye(3)) / 4),
        ("SiO2_221", "dfset_SiO2_221_rd.xz", np.diag([0.5, 0.5, 1.0])),
    ],
)
def test_symfcs_published_sets(shared, name, displaced, primitive):
    folder = shared / "data" / "oracles" / "symfc"
    entry = json.loads((folder / "supercells.json").read_text())[name]
    cell, numbers = np.array(entry["cell"]), np.array(entry["numbers"])
    positions = np.array(entry["scaled_positions"]) @ cell
    home = entry["p2s_map"]
    crystal = structure(primitive @ cell, positions[home], numbers[home])
    cells = supercell(crystal, np.rint(np.linalg.inv(primitive)).astype(int))
    apart = np.asarray(cells.structure.positions)[:, None] - positions
    apart = apart @ np.linalg.inv(cell)
    order = np.linalg.norm((apart - np.rint(apart)) @ cell, axis=-1).argmin(axis=1)
    assert len(set(order)) == len(order)
    rows = table(folder / displaced).reshape(-1, len(numbers), 6)[:, order]
    given = DisplacementSet(cells, rows[..., :3], rows[..., 3:], 0.03)

    # The file gives the cell to eight digits: the group is taken as it is, not made exact.
    basis = symmetry_adapted_basis(cells, space_group(crystal, 1e-4), (2,))
    found = np.asarray(fitted(given, basis).second.values)
    kinds = [("compact", np.arange(len(home)))]
    if name == "NaCl_222":
        kinds.append(("full", np.array(home)))
    for kind, at in kinds:
        theirs = table(folder / f"{kind}_fc_{name}.xz")
        theirs = theirs.reshape(-1, len(numbers), 3, 3)[at][:, order]
        np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["least squares", "ridge", "l1"])
def test_what_is_found_obeys_every_rule(morse_set, method):
    group, given = morse_set
    basis = symmetry_adapted_basis(given.supercell, group, residual_forces=True)
    found = fitted(given, basis, method)
    second, third = np.asarray(found.second.values), np.asarray(found.third.values)
    scale = np.abs(third).max()
    assert max(second_order_misses(second, given.supercell, basis.group)) < 1e-13 * scale
    assert max(third_order_misses(third, given.supercell, basis.group)) < 1e-13 * scale
    assert not found.warnings
    assert found.explained > 0.999
    # What is reported is what the force constants give.
    left = given.forces - forces_by_sums(given.displacements, found.second, found.third)
    left -= np.repeat(found.residual_forces, len(given.supercell.images), axis=0)
    assert found.rmse == pytest.approx(np.sqrt((left**2).mean()), rel=1e-9)
    assert found.relative == pytest.approx(np.linalg.norm(left) / np.linalg.norm(given.forces))


def test_third_order_takes_most_of_what_the_second_leaves(morse_set):
    group, given = morse_set
    found = [
        fitted(given, symmetry_adapted_basis(given.supercell, group, k, residual_forces=True))
        for k in ((2,), (2, 3))
    ]
    assert found[1].rmse < found[0].rmse / 3
    assert found[1].held_out.mean[0] < found[0].held_out.mean[0] / 3


def test_held_out_errors_are_those_of_fits_without_the_fold(morse_set):
    group, given = morse_set
    basis = symmetry_adapted_basis(given.supercell, group, (2,))
    found = fitted(given, basis, folds=4, seed=7)
    assert found.held_out.per_fold.shape == (1, 4)
    A = design(basis, given.displacements).reshape(len(given), -1, len(basis))
    F = given.forces.reshape(len(given), -1)
    fold = np.random.default_rng(7).permutation(np.arange(len(given)) % 4)
    squares = []
    for k in range(4):
        kept = fold != k
        x = np.linalg.lstsq(A[kept].reshape(-1, len(basis)), F[kept].ravel())[0]
        squares.append(((F[~kept] - A[~kept] @ x) ** 2).mean())
    np.testing.assert_allclose(found.held_out.per_fold[0], np.sqrt(squares), rtol=1e-8)
    assert found.held_out.mean[0] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-8)
    assert found.held_out.mean[0] > found.rmse


def test_rank_and_condition_are_those_of_the_matrix(morse_set):
    group, given = morse_set
    basis = symmetry_adapted_basis(given.supercell, group)
    found = fitted(given, basis)
    A = design(basis, given.displacements)
    for at in basis.slices.values():
        A[:, at] /= np.sqrt((A[:, at] ** 2).sum(0).mean())
    assert found.rank == np.linalg.matrix_rank(A) == found.unknowns == len(basis)
    assert found.condition == pytest.approx(np.linalg.cond(A), rel=1e-6)
    assert found.equations == given.forces.size


def test_ridge_is_that_of_the_stacked_equations():
    basis, _, given = sparse_set(14, 6, 1e-3)
    alpha = 0.05
    found = fitted(given, basis, "ridge", alpha=alpha)
    A = design(basis, given.displacements)
    norm = np.empty(len(basis))
    for at in basis.slices.values():
        norm[at] = np.sqrt((A[:, at] ** 2).sum(0).mean())
    stacked = np.concatenate([A / norm, np.sqrt(alpha) * np.eye(len(basis))])
    right = np.concatenate([given.forces.ravel(), np.zeros(len(basis))])
    x = np.linalg.lstsq(stacked, right)[0] / norm
    np.testing.assert_allclose(found.coefficients, x, rtol=0, atol=1e-8 * np.abs(x).max())


def test_ridge_by_cross_validation_beats_its_neighbours():
    basis, x, given = sparse_set(14, 8, 2e-2)
    chosen = fitted(given, basis, "ridge")
    held = chosen.held_out
    assert 0 < held.chosen < len(held.mean) - 1
    assert held.mean[held.chosen] == held.mean.min()
    plain = fitted(given, basis)
    assert held.mean.min() < plain.held_out.mean[0]
    assert np.linalg.norm(chosen.coefficients - x) < np.linalg.norm(plain.coefficients - x)


def test_forces_at_rest_are_found():
    """The hexagonal crystal is not at rest along its axis: first order is told from the others."""
    cell, group = make(194)
    basis = symmetry_adapted_basis(cell, group, residual_forces=True)
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=len(part)) for part in basis.parts])
    given = random_displacements(cell, 12, 0.03)
    F = predicted_forces(given.displacements, basis, x)
    found = fitted(with_forces(given, F), basis)
    np.testing.assert_allclose(found.coefficients, x, atol=1e-8)
    rest = predicted_forces(np.zeros_like(given.displacements), basis, x)[0]
    home = np.arange(len(cell.primitive)) * len(cell.images)
    np.testing.assert_allclose(found.residual_forces, rest[home], atol=1e-10)
    without = fitted(with_forces(given, F), symmetry_adapted_basis(cell, group, (2,)))
    assert without.residual_forces is None
    assert any("undisplaced crystal has forces" in note for note in without.warnings)


def test_rotations_hold_in_a_fit(morse_set):
    group, given = morse_set
    free = fitted(given, symmetry_adapted_basis(given.supercell, group, (2,)))
    assert max(rotation_residuals(free.second)) > 1e-2
    bound = symmetry_adapted_basis(given.supercell, group, (2,), rotational=True)
    assert max(rotation_residuals(fitted(given, bound).second)) < 1e-10
