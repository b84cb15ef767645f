"""Acoustic cutoffs, and bands followed through crossings that symmetry makes exact."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.checks import InputError
from phojax.descriptors.acoustic import (
    acoustic_cutoffs,
    connected_branches,
    connected_branches_top,
    lowest_bands_top,
)
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.container import force_constants
from phojax.structure import structure, supercell
from phojax.units import THZ


def simple_chain_crystal():
    """Return a crystal whose longitudinal acoustic band crosses transverse optical ones along x.

    Two atoms in a tetragonal cell, springs along x and a weak shear: D(q_x) splits by symmetry
    into longitudinal (xx) and transverse (yy, zz) blocks of 2 × 2, known in closed form.
    """
    crystal = structure(np.diag([4.0, 5.0, 5.0]), [[0, 0, 0], [2.0, 0, 0]], [11, 17], [23.0, 35.0])
    cells = 4
    sc = supercell(crystal, (cells, 1, 1))
    at = {tuple(L): n for n, L in enumerate(np.asarray(sc.images))}
    K = np.diag([4.0, 0.5, 0.8])
    values = np.zeros((2, 2 * cells, 3, 3))
    left, right = cells + at[(cells - 1, 0, 0)], at[(1, 0, 0)]
    here = at[(0, 0, 0)]
    values[0, here] = values[1, cells + here] = 2 * K
    values[0, cells + here] = values[0, left] = values[1, here] = values[1, right] = -K
    return force_constants(jnp.asarray(values), sc)


def blocks_in_closed_form(fc, q):
    """Return the 3 acoustic and 3 optical λ at each q, (q, 3) each, from the 2 × 2 blocks."""
    D = np.asarray(dynamical_matrices(fc, q))
    pairs = [np.linalg.eigvalsh(D[:, a::3, a::3]) for a in range(3)]
    return np.stack([p[:, 0] for p in pairs], -1), np.stack([p[:, 1] for p in pairs], -1)


@pytest.mark.parametrize("points", [14, 41])
def test_branches_follow_their_symmetry_through_crossings(points):
    fc = simple_chain_crystal()
    # 14 points: no crossing on a point; the mesh of 41 holds the zone boundary, too.
    q = jnp.asarray(np.linspace(0, 0.5, points)[:, None] * [1.0, 0, 0])
    found = reference.solved(fc, q)
    acoustic, optical = blocks_in_closed_form(fc, q)
    assert acoustic[-1, 0] > optical[-1, 1]  # the bands cross
    branches = connected_branches(found, range(points))
    values = np.take_along_axis(np.asarray(found.eigenvalues), branches.mode, axis=1)
    # Bands by symmetry, in the order of the branches at Γ.
    np.testing.assert_allclose(np.sort(values[:, :3]), np.sort(acoustic), atol=1e-13)
    np.testing.assert_allclose(np.sort(values[:, 3:]), np.sort(optical), atol=1e-13)
    assert branches.overlap.min() > 0.9


def test_a_branch_keeps_its_name_where_the_crossing_is_on_a_point():
    fc = simple_chain_crystal()

    def gap(x):
        acoustic, optical = blocks_in_closed_form(fc, jnp.asarray([[x, 0.0, 0.0]]))
        return acoustic[0, 0] - optical[0, 1]

    low, high = 0.01, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if gap(middle) > 0 else (middle, high)
    x = np.sort(np.append(np.linspace(0.02, 0.5, 20), low))
    q = jnp.asarray(np.append([0], x)[:, None] * [1.0, 0, 0])
    found = reference.rotated_in_blocks(reference.solved(fc, q))
    values = np.take_along_axis(
        np.asarray(found.eigenvalues), connected_branches(found, range(len(q))).mode, axis=1
    )
    acoustic, _ = blocks_in_closed_form(fc, q)
    np.testing.assert_allclose(np.sort(values[:, :3]), np.sort(acoustic), atol=1e-12)


def test_cutoffs_by_three_definitions():
    fc = simple_chain_crystal()
    line = np.linspace(0, 0.5, 41)[:, None]
    # Γ-X, then X-Γ backwards, then a piece that does not touch Γ.
    q = np.concatenate([line * [1, 0, 0], line[::-1] * [1, 0, 0], line * [0, 1, 0] + [0.5, 0, 0]])
    path = reference.solved(fc, jnp.asarray(q))
    mesh = reference.solved(fc, jnp.asarray(reference.gamma_mesh((4, 1, 1))))
    cutoffs = acoustic_cutoffs(path, [(0, 41), (41, 82), (82, 123)], mesh)
    acoustic, optical = blocks_in_closed_form(fc, jnp.asarray(q[:41]))
    highest = THZ * np.sqrt(acoustic.max())
    np.testing.assert_allclose(cutoffs.connected, highest, rtol=1e-12)
    lowest_three = np.sort(np.concatenate([acoustic, optical], -1))[:, :3]
    np.testing.assert_allclose(cutoffs.path, THZ * np.sqrt(lowest_three.max()), rtol=1e-12)
    assert cutoffs.path < 0.9 * cutoffs.connected
    np.testing.assert_allclose(cutoffs.mesh, lowest_bands_top(mesh))
    assert cutoffs.mesh <= cutoffs.path + 1e-12
    assert np.isnan(connected_branches_top(path, [(82, 123)]))
    for only in ([(0, 41)], [(41, 82)]):
        np.testing.assert_allclose(connected_branches_top(path, only), highest, rtol=1e-12)


def test_degenerate_branches_of_a_cubic_crystal_do_not_depend_on_eigenvectors():
    fc = reference.converted(reference.rocksalt())
    q = jnp.asarray(np.linspace(0, 0.5, 21)[:, None] * [1.0, 1.0, 0])  # Γ-X, primitive basis
    found = reference.solved(fc, q)
    turned = reference.rotated_in_blocks(found, seed=3)
    a, b = (
        np.take_along_axis(
            np.asarray(m.eigenvalues), connected_branches(m, range(21)).mode[:, :3], axis=1
        )
        for m in (found, turned)
    )
    np.testing.assert_allclose(np.sort(a), np.sort(b), atol=1e-12)


def test_the_cutoff_of_sorted_bands_has_a_derivative():
    fc = simple_chain_crystal()
    found = reference.solved(fc, jnp.asarray([[0.11, 0, 0], [0.23, 0, 0]]))

    def cutoff(scale):
        return lowest_bands_top(replace(found, eigenvalues=scale * found.eigenvalues))

    # ν scales as √λ.
    np.testing.assert_allclose(jax.grad(cutoff)(1.0), cutoff(1.0) / 2, rtol=1e-12)


def test_an_empty_segment_is_refused():
    found = reference.solved(simple_chain_crystal(), jnp.zeros((1, 3)))
    with pytest.raises(InputError, match="empty segment"):
        connected_branches(found, [])
