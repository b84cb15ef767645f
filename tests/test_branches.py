"""Branches against bands known in closed form, and against phonopy's connection."""

import itertools

import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.branches import connected_branches, connected_path
from phojax.checks import InputError
from phojax.descriptors.acoustic import connected_branches_top
from phojax.dynmat import Interpolation
from phojax.structure import structure
from phojax.units import THZ


def chain(atoms: int = 1) -> tuple[Interpolation, np.ndarray]:
    """Return chains of identical atoms along x whose three polarisations are independent.

    Springs K1 to the nearest and K2 to the second neighbours; the polarisations, columns of the
    matrix returned, point anywhere. With `atoms` per cell the bands are folded.
    """
    K1, K2 = np.array([3.0, 1.0, 1.7]), np.array([0.0, 1.0, 0.05])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    a = 2.6
    crystal = structure(
        np.diag([atoms * a, 5.0, 6.0]), a * np.arange(atoms)[:, None] * [1.0, 0, 0], [11] * atoms
    )
    R = np.arange(-2, 3)
    values = np.zeros((5, atoms, 3, atoms, 3))
    for i in range(atoms):
        values[2, i, :, i] += turn @ np.diag(2 * (K1 + K2)) @ turn.T
        for step, K in ((1, K1), (-1, K1), (2, K2), (-2, K2)):
            cell, j = divmod(i + step, atoms)
            values[2 + cell, i, :, j] -= turn @ np.diag(K) @ turn.T
    lattice = jnp.asarray(R[:, None] * [1, 0, 0])
    n = 3 * atoms
    return Interpolation(crystal, lattice, jnp.asarray(values.reshape(5, n, n))), turn


def closed_form(q):
    """Return λ of the three polarisations at q in units of 2π over the atoms' distance."""
    K1, K2 = np.array([3.0, 1.0, 1.7]), np.array([0.0, 1.0, 0.05])
    c = np.cos(2 * np.pi * np.asarray(q))[:, None]
    mass = float(chain()[0].crystal.masses[0])
    return (2 * K1 * (1 - c) + 4 * K2 * (1 - c**2)) / mass


def solved_along(held, x, seed=0):
    found = reference.solved(held, jnp.asarray(np.asarray(x)[:, None] * [1.0, 0, 0]))
    return reference.rotated_in_blocks(found, seed)


def as_rows(values):
    """Return the branches in an order of their own, to be compared as a set."""
    return values[:, np.lexsort(np.round(values, 9)[::-1])]


# Two polarisations cross at x = 1/4 exactly: on the point, beside it, at Γ and at the boundary.
LINES = {
    "beside": np.linspace(0.05, 0.47, 24),
    "on the crossing": np.linspace(0.05, 0.45, 25),
    "from Γ": np.linspace(0, 0.5, 31),
    "through Γ": np.linspace(-0.4, 0.4, 33),
    "through the boundary": np.linspace(0.2, 0.8, 31),
    "backwards": np.linspace(0.5, -0.3, 33),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_crossing_polarisations(line):
    held, turn = chain()
    found = solved_along(held, line)
    branches = connected_branches(found, range(len(line)))
    ours = branches.ordered(found.eigenvalues)
    np.testing.assert_allclose(as_rows(ours), as_rows(closed_form(line)), atol=1e-12)
    assert branches.overlap.min() > 1 - 1e-9
    # Each branch has its polarisation, and each mode its branch.
    e = branches.ordered(found.eigenvectors)[:, :, 0]
    alone = np.abs(np.diff(np.sort(np.asarray(found.eigenvalues)), axis=1)).min(axis=1) > 1e-6
    overlaps = np.abs(e[alone] @ turn) ** 2
    assert np.all(overlaps.max(axis=2) > 1 - 1e-9)
    assert np.all(overlaps.argmax(axis=2) == overlaps.argmax(axis=2)[0])
    back = np.take_along_axis(branches.mode, branches.branch, axis=1)
    np.testing.assert_array_equal(back, np.broadcast_to(np.arange(3), back.shape))


@pytest.mark.parametrize("points", [40, 41])
def test_folded_bands_go_straight_on_at_the_zone_boundary(points):
    """Two identical atoms per cell: acoustic and optical bands meet at q = 1/2 without a gap."""
    line = np.linspace(0.1, 0.9, points)
    found = solved_along(chain(2)[0], line)
    ours = connected_branches(found, range(points)).ordered(found.eigenvalues)
    expected = np.concatenate([closed_form(line / 2), closed_form(line / 2 + 0.5)], axis=1)
    np.testing.assert_allclose(as_rows(ours), as_rows(expected), atol=1e-12)


def test_branches_go_on_from_segment_to_segment():
    held, _ = chain()
    line = np.concatenate([np.linspace(-0.4, 0, 17), np.linspace(0, 0.25, 11)])
    line = np.concatenate([line, np.linspace(0.25, 0.5, 11), np.linspace(0.1, 0.2, 5)])
    found = solved_along(held, line)
    stops = [0, 17, 28, 39, 44]
    segments = [slice(a, b) for a, b in itertools.pairwise(stops)]
    parts = connected_path(found, segments)
    whole = np.concatenate(
        [part.ordered(found.eigenvalues[s]) for part, s in zip(parts, segments, strict=True)]
    )
    np.testing.assert_allclose(as_rows(whole[:39]), as_rows(closed_form(line[:39])), atol=1e-12)
    # After the jump the count starts anew.
    np.testing.assert_array_equal(parts[-1].mode[0], np.arange(3))
    pairs = connected_path(found, list(itertools.pairwise(stops)))
    for a, b in zip(parts, pairs, strict=True):
        np.testing.assert_array_equal(a.mode, b.mode)


def test_branches_of_a_cubic_crystal_through_gamma_are_even():
    """Along a line without symmetry, out of the threefold points at Γ."""
    fc = reference.converted(reference.rocksalt())
    t = np.linspace(-1, 1, 61)
    q = t[:, None] * [0.31, 0.12, 0.05]
    found = reference.rotated_in_blocks(reference.solved(fc, jnp.asarray(q)))
    branches = connected_branches(found, range(61))
    ours = branches.ordered(found.eigenvalues)
    np.testing.assert_allclose(ours, ours[::-1], atol=1e-12)
    assert branches.overlap.min() > 0.9


LINES_OF_PHONOPY = {
    # Σ: four representations of one dimension, whose bands cross. None is degenerate.
    "rocksalt": (np.array([0.05, 0.05, 0.1]), np.array([0.37, 0.37, 0.74])),
    "triclinic": (np.array([0.05, 0.1, 0.15]), np.array([0.45, 0.3, -0.2])),
}


@pytest.mark.parametrize("name", LINES_OF_PHONOPY)
def test_branches_are_phonopys(name):
    """Where no mode is degenerate, and steps are short, its rule and ours decide alike."""
    crystal = getattr(reference, name)()
    start, end = LINES_OF_PHONOPY[name]
    q = start + np.linspace(0, 1, 121)[:, None] * (end - start)
    crystal.run_band_structure([q], is_band_connection=True)
    expected = crystal.band_structure.frequencies[0] / reference.constants_ratio()
    found = reference.solved(reference.converted(crystal), jnp.asarray(q))
    branches = connected_branches(found, range(len(q)))
    assert branches.overlap.min() > 0.8
    np.testing.assert_allclose(branches.ordered(found.frequencies_THz), expected, atol=1e-8)
    crossed = np.any(branches.mode != branches.mode[0])
    assert crossed == (name == "rocksalt")


def test_acoustic_branches_are_known_by_their_form_where_optical_ones_start_at_zero():
    """Two chains in one cell, not bound to each other: six modes are zero at Γ."""
    held, _ = chain()
    crystal = structure(held.crystal.cell, [[0, 0, 0], [1.3, 2.5, 3.0]], [11, 11], [20.0, 20.0])
    one = np.asarray(held.values).reshape(5, 1, 3, 1, 3)
    values = np.zeros((5, 2, 3, 2, 3))
    values[:, :1, :, :1], values[:, 1:, :, 1:] = one, one
    bond = np.array([[1.0, -1], [-1, 1]])[:, None, :, None] * np.eye(3)[None, :, None]
    # Softer against each other along the way, by 1 − cos q: nothing at Γ.
    values -= 0.2 * bond * np.array([0, -1, 2, -1, 0])[:, None, None, None, None]
    both = Interpolation(crystal, held.lattice, jnp.asarray(values.reshape(5, 6, 6)))
    line = np.linspace(0, 0.5, 21)
    path = reference.solved(both, jnp.asarray(line[:, None] * [1.0, 0, 0]))
    np.testing.assert_allclose(path.eigenvalues[0], 0, atol=1e-14)
    mass = float(held.crystal.masses[0])
    expected = THZ * np.sqrt(closed_form(line).max() * mass / 20.0)
    top = connected_branches_top(path, [(0, 21)])
    np.testing.assert_allclose(top, expected, rtol=1e-9)
    # The optical branches are the lower ones.
    assert np.max(path.frequencies_THz[:, :3]) < 0.95 * top


def test_what_does_not_fit_is_refused():
    found = solved_along(chain()[0], [0.0, 0.1])
    with pytest.raises(InputError, match="empty segment"):
        connected_path(found, [slice(1, 1)])
    with pytest.raises(InputError, match="values has shape"):
        connected_branches(found, [0, 1]).ordered(np.zeros((3, 3)))
    single = connected_branches(found, [1])
    np.testing.assert_array_equal(single.mode, [[0, 1, 2]])
