"""What is wrong with a set is told: errors where nothing can be fitted, remarks where it can."""

from dataclasses import replace

import numpy as np
import pytest
from test_fit import sparse_set
from test_hessian import POTENTIAL, make

from phojax.checks import InputError
from phojax.force_constants.basis import symmetry_adapted_basis
from phojax.force_constants.displacements import computed_forces, random_displacements
from phojax.force_constants.fit import fitted


@pytest.fixture(scope="module")
def good():
    cell, group = make(225)
    given = computed_forces(POTENTIAL, random_displacements(cell, 10, 0.03))
    return given, symmetry_adapted_basis(cell, group)


def notes(given, basis, **options):
    return " ".join(fitted(given, basis, **options).warnings)


def test_a_good_set_has_no_remarks(good):
    assert fitted(*good).warnings == ()


def test_bad_input_is_told(good):
    given, basis = good
    with pytest.raises(InputError, match="without forces"):
        fitted(replace(given, forces=None), basis)
    bad = given.forces.copy()
    bad[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fitted(replace(given, forces=bad), basis)
    with pytest.raises(InputError, match="displacements that are all 0"):
        fitted(replace(given, displacements=0 * given.displacements), basis)
    with pytest.raises(InputError, match="forces that are all 0"):
        fitted(replace(given, forces=0 * given.forces), basis)
    other, group = make(194)
    with pytest.raises(InputError, match="another supercell"):
        fitted(given, symmetry_adapted_basis(other, group, (2,)))
    for name, value in (("method", "lasso"), ("rule", "best"), ("scaling", "row")):
        with pytest.raises(InputError, match=f"{name} '{value}'"):
            fitted(given, basis, **{name: value})
    with pytest.raises(InputError, match="mu for method 'ridge'"):
        fitted(given, basis, "ridge", mu=1.0)
    with pytest.raises(InputError, match="mu = -1"):
        fitted(given, basis, "l1", mu=-1.0)
    with pytest.raises(InputError, match="0 folds"):
        fitted(given, basis, folds=0)


def test_too_few_supercells_are_told_with_how_many_it_takes():
    basis, _, given = sparse_set(14, 1, 1e-3)
    with pytest.raises(InputError, match=r"1 displaced supercells that determine \d+ of 191.*l1"):
        fitted(given, basis)
    for method, name in (("l1", "mu"), ("ridge", "alpha")):
        with pytest.raises(InputError, match=f"to choose {name} by cross-validation"):
            fitted(given, basis, method)
        assert fitted(given, basis, method, **{name: 100.0}).held_out is None
    # Symmetry makes equations of several supercells dependent: what it says is a lower bound.
    need = 2
    for _ in range(4):
        try:
            assert fitted(sparse_set(14, need, 1e-3)[2], basis).rank == len(basis)
            break
        except InputError as told:
            need = int(str(told).split("at least ")[1].split()[0])
    assert need == 6


def test_forces_of_other_displacements_are_told(good):
    given, basis = good
    mixed = replace(given, forces=given.forces[::-1])
    found = fitted(mixed, basis)
    assert found.explained < 0.5
    assert "may not belong together" in " ".join(found.warnings)
    assert "correlation" in notes(replace(given, forces=-given.forces), basis)
    order = np.random.default_rng(0).permutation(given.forces.shape[1])
    assert "order of atoms" in notes(replace(given, forces=given.forces[:, order]), basis)


@pytest.mark.parametrize(
    ("unit", "name"), [(25.711, "Ry/bohr"), (51.422, "hartree/bohr"), (1 / 25.711, "Ry/bohr")]
)
def test_snapshots_in_other_units_are_named(good, unit, name):
    given, basis = good
    F = given.forces.copy()
    F[[2, 7]] *= unit
    told = notes(replace(given, forces=F), basis)
    assert "2 of 10 snapshots (3, 8)" in told  # counted from 1
    assert name in told


def test_frequencies_that_no_crystal_has_are_told(good):
    given, basis = good
    assert "THz at most" in notes(replace(given, forces=5000 * given.forces), basis)
    assert "THz at most" in notes(replace(given, forces=given.forces / 5000), basis)


def test_net_forces_and_shifts_are_told(good):
    given, basis = good
    assert "do not add up to 0" in notes(replace(given, forces=given.forces + 0.05), basis)
    shifted = replace(given, displacements=given.displacements + 0.3 * np.eye(3)[0])
    found = fitted(shifted, basis)
    assert "shifted as a whole" in " ".join(found.warnings)
    np.testing.assert_allclose(
        found.second.values, fitted(given, basis).second.values, rtol=0, atol=1e-9
    )
