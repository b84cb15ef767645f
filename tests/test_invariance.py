"""What modes are described by must not depend on how the crystal was written down.

Crystals of 18 space groups, triclinic to cubic, with springs between all atoms, described again
with other eigenvectors inside degenerate blocks, from another origin, in another primitive cell.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from ase.neighborlist import primitive_neighbor_list
from ase.spacegroup import crystal as spacegroup_crystal
from threadpoolctl import threadpool_limits

from phojax.descriptors.acoustic import acoustic_cutoffs
from phojax.descriptors.coupling import bonds, coupling, coupling_paper, padded_bonds
from phojax.descriptors.displacements import (
    cumulative_displacements,
    displacement_tensor,
    mode_displacements,
    oscillators,
    share_below,
)
from phojax.descriptors.participation import (
    participation_ratio,
    participation_ratio_mass_weighted,
)
from phojax.dynmat import Interpolation
from phojax.modes import atomic_weights, degenerate_blocks
from phojax.structure import Structure, structure
from phojax.symmetry import space_group

ATOMS = 8  # of every primitive cell, so that one compilation serves all
THIRD = 1 / 3

CRYSTALS = {
    # number: setting, cell, sites
    1: (1, (5.1, 5.4, 5.9, 81, 97, 103), [
        ("Na", 0.02, 0.03, 0.05), ("Na", 0.51, 0.07, 0.11), ("Na", 0.12, 0.55, 0.08),
        ("S", 0.09, 0.04, 0.52), ("Cl", 0.56, 0.53, 0.04), ("Cl", 0.55, 0.02, 0.61),
        ("Cl", 0.03, 0.49, 0.57), ("Na", 0.58, 0.61, 0.52),
    ]),
    2: (1, (5.2, 5.5, 5.8, 84, 98, 101), [
        ("Na", 0.12, 0.17, 0.22), ("Na", 0.62, 0.19, 0.28), ("S", 0.17, 0.71, 0.21),
        ("Cl", 0.67, 0.66, 0.13),
    ]),
    12: (1, (9.3, 5.2, 6.9, 90, 103, 90), [
        ("Na", 0.13, 0, 0.21), ("Na", 0.38, 0, 0.77), ("S", 0.67, 0, 0.31), ("Cl", 0.11, 0, 0.63),
    ]),
    14: (1, (5.1, 5.9, 6.1, 90, 104, 90), [
        ("Na", 0.27, 0.33, 0.19), ("S", 0, 0, 0), ("Cl", 0.5, 0, 0.5),
    ]),
    26: (1, (5.1, 5.6, 5.9, 90, 90, 90), [
        ("Na", 0, 0.13, 0.02), ("S", 0, 0.62, 0.17), ("Cl", 0.5, 0.21, 0.29),
        ("Na", 0.5, 0.69, 0.41),
    ]),
    59: (1, (5.2, 5.7, 5.4, 90, 90, 90), [
        ("Na", 0, 0, 0.12), ("S", 0, 0, 0.64), ("Cl", 0, 0.5, 0.21), ("Na", 0, 0.5, 0.71),
    ]),
    63: (1, (5.3, 9.2, 6.6, 90, 90, 90), [
        ("Na", 0, 0.13, 0.25), ("S", 0, 0.41, 0.25), ("Cl", 0, 0.71, 0.25), ("Na", 0, 0, 0),
    ]),
    129: (2, (5.3, 5.3, 5.8, 90, 90, 90), [
        ("Na", 0.25, 0.25, 0.16), ("S", 0.25, 0.25, 0.67), ("Cl", 0.75, 0.25, 0),
        ("Na", 0.75, 0.25, 0.5),
    ]),
    136: (1, (6.3, 6.3, 4.2, 90, 90, 90), [
        ("Cl", 0, 0, 0), ("S", 0, 0, 0.5), ("Na", 0.31, 0.31, 0),
    ]),
    139: (1, (5.0, 5.0, 12.7, 90, 90, 90), [
        ("Na", 0, 0, 0.21), ("S", 0, 0, 0.38), ("Cl", 0, 0.5, 0.25), ("O", 0, 0, 0),
        ("Na", 0, 0, 0.5),
    ]),
    164: (1, (4.7, 4.7, 8.6, 90, 90, 120), [
        ("Na", 0, 0, 0), ("Cl", 0, 0, 0.5), ("S", 0, 0, 0.23), ("Na", THIRD, 2 * THIRD, 0.37),
        ("Cl", THIRD, 2 * THIRD, 0.86),
    ]),
    166: (1, (5.4, 5.4, 18.9, 90, 90, 120), [
        ("Na", 0, 0, 0), ("S", 0, 0, 0.17), ("Cl", 0, 0, 0.39), ("Na", 0.5, 0, 0.5),
    ]),
    186: (1, (4.6, 4.6, 9.1, 90, 90, 120), [
        ("Na", 0, 0, 0.02), ("S", 0, 0, 0.29), ("Cl", THIRD, 2 * THIRD, 0.16),
        ("Na", THIRD, 2 * THIRD, 0.43),
    ]),
    194: (1, (4.6, 4.6, 9.2, 90, 90, 120), [
        ("Na", 0, 0, 0), ("S", THIRD, 2 * THIRD, 0.25), ("Cl", THIRD, 2 * THIRD, 0.58),
    ]),
    216: (1, (8.6, 8.6, 8.6, 90, 90, 90), [
        ("Na", 0, 0, 0), ("S", 0.5, 0.5, 0.5), ("Cl", 0.62, 0.62, 0.62), ("O", 0.25, 0.25, 0.25),
        ("Na", 0.75, 0.75, 0.75),
    ]),
    217: (1, (7.03, 7.03, 7.03, 90, 90, 90), [
        ("P", 0, 0, 0), ("Na", 0, 0.5, 0.5), ("S", 0.17, 0.17, 0.17),
    ]),
    221: (1, (5.4, 5.4, 5.4, 90, 90, 90), [
        ("S", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5), ("Na", 0, 0.5, 0.5), ("O", 0.5, 0, 0),
    ]),
    225: (1, (8.7, 8.7, 8.7, 90, 90, 90), [
        ("Na", 0, 0, 0), ("S", 0.5, 0.5, 0.5), ("Cl", 0.23, 0, 0),
    ]),
}  # fmt: skip

Q = np.array([
    [0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0.2, 0, 0],
    [THIRD, THIRD, 0], [0.13, -0.27, 0.41], [0.06, 0.02, 0.03], [0.1, 0.1, 0.1], [0.3, 0.3, 0.1],
])  # fmt: skip
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(len(Q)))
LINE = np.linspace(0, 1, 11)[:, None]
PATH = np.concatenate([LINE * [0.5, 0, 0], LINE * [0.31, 0.17, -0.23]])
SEGMENTS = [(0, 11), (11, 22)]
GRID = jnp.linspace(0.05, 12.0, 60)
OTHER_CELL = np.array([[1, 1, 0], [0, 1, 0], [1, -1, 1]])


def written(number: int) -> Structure:
    """Return the primitive cell of a crystal of the list."""
    setting, cell, sites = CRYSTALS[number]
    atoms = spacegroup_crystal(
        [site[0] for site in sites],
        [site[1:] for site in sites],
        spacegroup=number,
        setting=setting,
        cellpar=cell,
        primitive_cell=True,
    )
    return structure(np.asarray(atoms.cell), atoms.positions, atoms.numbers)


def springs(crystal: Structure) -> Interpolation:
    """Return springs between all atoms up to 4.5 Å apart, smooth functions of the distance."""
    cell, x = np.asarray(crystal.cell), np.asarray(crystal.positions)
    i, j, d, D, S = primitive_neighbor_list("ijdDS", (True,) * 3, cell, x, 4.5)
    Z = np.asarray(crystal.numbers)
    pair = Z[i] * Z[j] * (Z[i] + Z[j]) % 7  # a number for each pair of species
    k = (1 + pair / 5) * 3.0 * np.exp(-d / 1.1) * (1.2 + np.cos(5 * d + pair))
    n = D / d[:, None]
    K = k[:, None, None] * (0.15 * np.eye(3) + n[:, :, None] * n[:, None, :])
    R, at = np.unique(np.concatenate([np.zeros((1, 3), int), S]), axis=0, return_inverse=True)
    at = at.reshape(-1)
    room = 256
    assert len(R) <= room
    values = np.zeros((room, ATOMS, 3, ATOMS, 3))
    # Indices apart: the bond comes first, as in K.
    np.add.at(values, (at[1:], i, slice(None), j), -K)
    np.add.at(values, (np.full(len(i), at[0]), i, slice(None), i), K)
    lattice = np.concatenate([R, np.zeros((room - len(R), 3), int)])
    return Interpolation(
        crystal, jnp.asarray(lattice), jnp.asarray(values.reshape(room, 3 * ATOMS, 3 * ATOMS))
    )


@jax.jit
def described(found, among, mobile):
    """Return everything that modes on a mesh are described by."""
    blocks = degenerate_blocks(found.eigenvalues)
    weights = atomic_weights(found, blocks)
    kept = oscillators(found, 1e-6)
    msd = mode_displacements(found, 300.0, kept.kept, blocks)
    return {
        "eigenvalues": found.eigenvalues,
        "atomic participation": weights,
        "participation ratio": participation_ratio(weights),
        "participation ratio, mass-weighted": participation_ratio_mass_weighted(
            weights, found.masses
        ),
        "coupling": coupling(found, among, blocks),
        "coupling, paper": coupling_paper(found, mobile, blocks),
        "mode displacements": msd,
        "cumulative displacements": cumulative_displacements(found, msd, GRID),
        "displacement tensors": displacement_tensor(found, 300.0, kept.kept),
        "share below 1.5 THz": share_below(found, msd),
        "left out": (kept.count_imaginary, jnp.sum(kept.translations)),
    }


def solved(crystal: Structure, change=None):
    """Return modes on the list of q and on the path, q for the cell changed as told."""
    change = np.eye(3) if change is None else change
    q = np.concatenate([Q, PATH]) @ change.T
    found = reference.solved(springs(crystal), jnp.asarray(q))
    mesh, path = (
        replace(found, q=found.q[rows], weights=weights, eigenvalues=found.eigenvalues[rows],
                eigenvectors=found.eigenvectors[rows])
        for rows, weights in (
            (slice(len(Q)), jnp.asarray(WEIGHTS)), (slice(len(Q), None), jnp.ones(len(PATH)))
        )
    )  # fmt: skip
    return mesh, path


def every(mesh, path):
    crystal = mesh.structure
    mobile = crystal.numbers == 11
    found = described(mesh, padded_bonds(bonds(crystal, mobile, 3.5), 256, ATOMS), mobile)
    return found | {"acoustic cutoffs": acoustic_cutoffs(path, SEGMENTS, mesh)}


def compare(first, second, *, but=()):
    """Assert that everything is the same, NaN included."""
    for name, values in first.items():
        if name in but:
            continue
        for a, b in zip(jax.tree.leaves(values), jax.tree.leaves(second[name]), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-8, rtol=1e-8, err_msg=name)


def compare_paper(first, second):
    """Assert what the paper's coupling promises: the same values inside of the zone."""
    np.testing.assert_array_equal(first.on_boundary, second.on_boundary)
    inside = ~np.asarray(first.on_boundary)
    np.testing.assert_allclose(
        np.asarray(second.values)[inside], np.asarray(first.values)[inside], atol=1e-7
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For eigenproblems this small threads only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module", params=CRYSTALS, ids=lambda number: f"group {number}")
def case(request):
    crystal = written(request.param)
    mesh, path = solved(crystal)
    return request.param, mesh, path, every(mesh, path)


def test_the_crystal_is_what_the_list_says(case):
    number, mesh, _, found = case
    crystal = mesh.structure
    assert len(crystal) == ATOMS
    assert space_group(crystal).number == number
    assert len(set(crystal.symbols)) >= 3
    assert "Na" in crystal.symbols
    assert np.min(np.asarray(found["eigenvalues"])[1:]) > 1e-4
    # More than the translations at Γ is degenerate in all but the lowest groups.
    labels = np.asarray(degenerate_blocks(mesh.eigenvalues))
    assert (np.sum(np.diff(labels, axis=1) == 0) > 2) == (number >= 14)
    # No coupling is undefined; the paper's is where a sublattice stands still.
    assert np.all(np.isfinite(found["coupling"]))


def test_eigenvectors_inside_blocks(case):
    _, mesh, path, found = case
    turned = [reference.rotated_in_blocks(modes, seed=1) for modes in (mesh, path)]
    compare(found, every(*turned))


def test_origin(case):
    _, mesh, _, found = case
    s = mesh.structure
    moved = structure(s.cell, s.positions + np.array([0.37, -1.91, 0.83]), s.numbers, s.masses)
    compare(found, every(*solved(moved)))


def test_primitive_cell(case):
    number, mesh, _, found = case
    s = mesh.structure
    cell = OTHER_CELL @ np.asarray(s.cell)
    same_images = structure(cell, s.positions, s.numbers, s.masses)
    one = every(*solved(same_images, OTHER_CELL))
    compare(found, one, but=("coupling, paper",))
    compare_paper(found["coupling, paper"], one["coupling, paper"])
    steps = np.random.default_rng(number).integers(-1, 2, (ATOMS, 3))
    moved = structure(cell, s.positions + steps @ np.asarray(s.cell), s.numbers, s.masses)
    # The paper's coupling depends on the images.
    compare(found, every(*solved(moved, OTHER_CELL)), but=("coupling, paper",))
