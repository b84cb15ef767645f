"""Displacement sets: their number against phonopy's, their force constants against phonopy's."""

from dataclasses import replace

import numpy as np
import pytest
from phonopy import Phonopy
from test_hessian import CRYSTALS, POTENTIAL, make

from phojax.checks import InputError
from phojax.convert import phonopy_atoms
from phojax.force_constants.displacements import (
    computed_forces,
    force_constants_from_single,
    random_displacements,
    single_displacements,
    with_forces,
)
from phojax.force_constants.hessian import hessian
from phojax.force_constants.sum_rules import enforced


@pytest.mark.parametrize("number", CRYSTALS)
def test_as_many_as_phonopys(number):
    cell, group = make(number)
    ours = single_displacements(cell, group)
    peer = Phonopy(
        phonopy_atoms(cell.primitive), np.asarray(cell.matrix).T, primitive_matrix=np.eye(3)
    )
    peer.generate_displacements(distance=0.01)
    assert len(ours) <= len(peer.dataset["first_atoms"])
    moved = np.linalg.norm(ours.displacements, axis=2)
    np.testing.assert_allclose(np.sort(moved, axis=1)[:, -1], 0.01, rtol=1e-12)
    assert np.all(np.sort(moved, axis=1)[:, :-1] == 0)


@pytest.mark.parametrize("number", [225, 166, 114, 1])
def test_force_constants_tend_to_the_hessian(number):
    """The error of central differences falls as h²."""
    cell, group = make(number)
    exact = np.asarray(hessian(POTENTIAL, cell, group).force_constants.values)
    errors = []
    for h in (0.02, 0.01):
        given = computed_forces(POTENTIAL, single_displacements(cell, group, h))
        found, _ = enforced(force_constants_from_single(given, group))
        errors.append(np.abs(np.asarray(found.values) - exact).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_random_ones_have_one_length_and_every_direction():
    cell, _ = make(225)
    given = random_displacements(cell, 200, 0.03, seed=5)
    np.testing.assert_allclose(np.linalg.norm(given.displacements, axis=2), 0.03, rtol=1e-12)
    directions = given.displacements.reshape(-1, 3) / 0.03
    count = len(directions)
    # Uniform on the sphere: ⟨n⟩ = 0 and ⟨n n⟩ = 1/3, within 5 standard errors.
    assert np.abs(directions.mean(0)).max() < 5 / np.sqrt(3 * count)
    second = directions.T @ directions / count
    assert np.abs(second - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / count)
    again = random_displacements(cell, 200, 0.03, seed=5)
    assert np.array_equal(again.displacements, given.displacements)
    assert not np.array_equal(random_displacements(cell, 200).displacements, given.displacements)


def test_batches_change_nothing():
    cell, _ = make(225)
    given = random_displacements(cell, 5)
    seen = []
    one = computed_forces(POTENTIAL, given, on_part=lambda *x: seen.append(x))
    assert seen == [(k, 5) for k in range(1, 6)]
    three = computed_forces(POTENTIAL, given, batch=3)
    np.testing.assert_allclose(three.forces, one.forces, rtol=0, atol=1e-13)


def test_bad_sets_are_told():
    cell, group = make(225)
    given = single_displacements(cell, group)
    with pytest.raises(InputError, match="without forces"):
        force_constants_from_single(given, group)
    with pytest.raises(InputError, match="forces has shape"):
        with_forces(given, np.zeros((1, 2, 3)))
    with pytest.raises(InputError, match="not finite"):
        with_forces(given, np.full(given.displacements.shape, np.nan))
    several = computed_forces(POTENTIAL, random_displacements(cell, 2))
    with pytest.raises(InputError, match="Fit them"):
        force_constants_from_single(several, group)
    done = computed_forces(POTENTIAL, given)
    half = replace(done, displacements=done.displacements[:1], forces=done.forces[:1])
    with pytest.raises(InputError, match="0 independent directions"):
        force_constants_from_single(half, group)
    with pytest.raises(InputError, match="positive length"):
        single_displacements(cell, group, -0.01)
