"""Meshes against spglib's reduction and exact integration; paths against geometry."""

import numpy as np
import pytest
import spglib
from ase.build import bulk

from phojax.brillouin import band_path, gamma_mesh, mesh_divisions, q_mesh
from phojax.checks import InputError
from phojax.structure import structure
from phojax.symmetry import space_group


def crystal(name, **options):
    atoms = bulk(name, **options)
    return structure(atoms.cell[:], atoms.positions, atoms.numbers)


ROCK_SALT = crystal("NaCl", crystalstructure="rocksalt", a=5.64)
HEXAGONAL = crystal("Mg", crystalstructure="hcp", a=3.2, c=5.2)


@pytest.mark.parametrize("example", [ROCK_SALT, HEXAGONAL])
@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_reduction_as_by_spglib(example, n):
    group = space_group(example)
    mesh = gamma_mesh((n, n, n), group)
    kinds = np.unique(np.asarray(example.numbers), return_inverse=True)[1]
    cell = (np.asarray(example.cell), np.asarray(example.fractional), kinds)
    irreducible, _ = spglib.get_ir_reciprocal_mesh([n, n, n], cell, is_shift=[0, 0, 0])
    _, counts = np.unique(irreducible, return_counts=True)
    assert sorted(np.rint(mesh.weights * n**3)) == sorted(counts)
    assert np.array_equal(mesh.q[0], [0, 0, 0])


@pytest.mark.parametrize("divisions", [(4, 4, 4), (3, 4, 5)])
def test_reduced_mesh_integrates_symmetric_functions_exactly(divisions):
    group = space_group(ROCK_SALT)
    full, reduced = gamma_mesh((1, 1, 1)), gamma_mesh(divisions, group)
    assert len(full.q) == 1
    rng = np.random.default_rng(0)
    lattice = rng.integers(-3, 4, size=(5, 3))
    stars = np.concatenate([lattice @ W.T for W in group.rotations])

    def symmetric(q):
        return np.cos(2 * np.pi * q @ stars.T).sum(axis=1)

    axes = [np.arange(n) / n for n in divisions]
    everything = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    value = reduced.weights @ symmetric(reduced.q)
    assert value == pytest.approx(symmetric(everything).mean(), abs=1e-10)


def test_divisions_reach_the_spacing():
    n = mesh_divisions(ROCK_SALT, 0.15)
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(ROCK_SALT.cell)).T
    steps = np.linalg.norm(reciprocal, axis=1) / n
    assert np.all(steps <= 0.15)
    assert np.all(np.linalg.norm(reciprocal, axis=1) / (np.array(n) - 1) > 0.15)


def test_path_of_the_fcc_lattice():
    path = band_path(ROCK_SALT, 0.05)
    names = {name for pair in path.labels for name in pair}
    assert {"Γ", "X", "L", "W", "K", "U"} <= names
    reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(ROCK_SALT.cell)).T
    for segment, (start, end) in zip(path.segments, path.labels, strict=True):
        q = path.q[segment] @ reciprocal
        steps = np.linalg.norm(np.diff(q, axis=0), axis=1)
        assert np.allclose(steps, np.diff(path.distance[segment]))
        assert steps.max() <= 0.05 + 1e-12
        if start == "Γ":
            assert np.allclose(q[0], 0)
        if {start, end} == {"Γ", "X"}:
            assert np.linalg.norm(q[-1] - q[0]) == pytest.approx(2 * np.pi / 5.64)


@pytest.mark.parametrize("wrong", [(0, 4, 4), (4, 4), (4.0, 4, 4), (-2, 2, 2)])
def test_wrong_meshes_are_refused(wrong):
    with pytest.raises(InputError, match="three integers"):
        gamma_mesh(wrong)
    with pytest.raises(InputError, match="positive"):
        mesh_divisions(ROCK_SALT, 0.0)


@pytest.mark.parametrize("example", [ROCK_SALT, HEXAGONAL])
@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0, 0.5)])
def test_operations_take_irreducible_points_to_all_others(example, shift):
    group = space_group(example)
    mesh = q_mesh((4, 4, 6), group, shift)
    inverse = np.linalg.inv(group.rotations[mesh.operation])
    there = np.einsum("qa,qab->qb", mesh.q[mesh.irreducible], inverse)
    there = np.where(mesh.reversed[:, None], -there, there)
    apart = there - mesh.full_q
    assert np.abs(apart - np.rint(apart)).max() < 1e-12
    assert len(mesh.q) < len(mesh.full_q) / 2


def test_shifted_mesh_as_by_spglib():
    group = space_group(ROCK_SALT)
    kinds = np.unique(np.asarray(ROCK_SALT.numbers), return_inverse=True)[1]
    cell = (np.asarray(ROCK_SALT.cell), np.asarray(ROCK_SALT.fractional), kinds)
    irreducible, _ = spglib.get_ir_reciprocal_mesh([4, 4, 4], cell, is_shift=[1, 1, 1])
    _, counts = np.unique(irreducible, return_counts=True)
    mesh = q_mesh((4, 4, 4), group, (0.5, 0.5, 0.5))
    assert sorted(np.rint(mesh.weights * 64)) == sorted(counts)
    with pytest.raises(InputError, match="shift"):
        q_mesh((4, 4, 4), group, (0.25, 0, 0))
