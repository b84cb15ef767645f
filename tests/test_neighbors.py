"""Neighbour lists against ASE's, on cells of every kind."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from crystals import chain, fcc, parts, random_crystal, salt

from phojax.checks import InputError
from phojax.neighbors import (
    PairCapacity,
    bucket,
    gather,
    links,
    neighbor_list,
    pair_capacity,
    scatter,
    separation_components,
    separations,
)
from phojax.structure import padded, strained, structure

CUTOFF = 5.0
CRYSTALS = {
    "primitive": salt(),
    "one atom": fcc(),
    "thin": Atoms("NaCl", positions=[[0, 0, 0], [0.9, 7, 1]], cell=[1.8, 14, 2.5], pbc=True),
    "chain": chain(5),
    "long": random_crystal(6, 13.0, 1),
    **{f"triclinic {seed}": random_crystal(4, 3.5, seed) for seed in range(4)},
}


# One compilation for all crystals of one padded size.
ROOM = PairCapacity((6, 6, 6), 1024)
listed = jax.jit(neighbor_list, static_argnums=(1, 2))
apart_in = jax.jit(separations)


def found(crystal, neighbors):
    """Return the pairs as sorted rows (i, j, Lx, Ly, Lz) and their separations."""
    keep = np.asarray(neighbors.mask)
    i = np.asarray(neighbors.centers.index)[keep]
    j = np.asarray(neighbors.others.index)[keep]
    rows = np.column_stack([i, j, np.asarray(neighbors.others.image)[keep]])
    order = np.lexsort(rows.T[::-1])
    return rows[order], np.asarray(apart_in(crystal, neighbors))[keep][order]


@pytest.mark.parametrize("name", CRYSTALS)
def test_pairs_are_those_of_ase(name):
    atoms = CRYSTALS[name]
    crystal = padded(structure(*parts(atoms)), 6)
    neighbors = listed(crystal, CUTOFF, ROOM)
    i, j, shift, apart = primitive_neighbor_list(
        "ijSD", [True] * 3, atoms.cell, atoms.positions, CUTOFF, self_interaction=False
    )
    expected = np.column_stack([i, j, shift])
    order = np.lexsort(expected.T[::-1])
    pairs, vectors = found(crystal, neighbors)
    assert not neighbors.overflow
    np.testing.assert_array_equal(pairs, expected[order])
    np.testing.assert_allclose(vectors, apart[order], atol=1e-12)
    assert pair_capacity(crystal, CUTOFF).pairs >= len(i)
    assert np.all(pair_capacity(crystal, CUTOFF).images <= np.array(ROOM.images))


def test_atoms_that_have_moved_through_many_cells_keep_their_neighbours():
    crystal = structure(*parts(random_crystal(4, 3.5, 3)))
    cells = jnp.asarray(np.random.default_rng(1).integers(-40, 40, (4, 3)))
    far = replace(crystal, positions=crystal.positions + cells @ crystal.cell)
    capacity = pair_capacity(crystal, CUTOFF)
    assert pair_capacity(far, CUTOFF) == capacity
    neighbors = listed(far, CUTOFF, capacity)
    pairs, vectors = found(far, neighbors)
    near, expected = found(crystal, listed(crystal, CUTOFF, capacity))
    i, j = near[:, 0], near[:, 1]
    near[:, 2:] += np.asarray(cells)[i] - np.asarray(cells)[j]
    order = np.lexsort(near.T[::-1])
    assert not neighbors.overflow
    np.testing.assert_array_equal(pairs, near[order])
    np.testing.assert_allclose(vectors, expected[order], atol=1e-11)


def test_pairs_of_a_center_stand_together():
    crystal = padded(structure(*parts(random_crystal(5, 4.0, 7))), 6)
    neighbors = listed(crystal, CUTOFF, ROOM)
    centers = np.asarray(neighbors.centers.index)[np.asarray(neighbors.mask)]
    assert np.all(np.diff(centers) >= 0)


def test_padding_atoms_have_no_neighbours():
    crystal = structure(*parts(random_crystal(4, 4.0, 2)))
    capacity = pair_capacity(crystal, CUTOFF)
    bare = found(crystal, listed(crystal, CUTOFF, ROOM))
    more = padded(crystal, 6)
    assert pair_capacity(more, CUTOFF) == capacity
    filled = found(more, listed(more, CUTOFF, ROOM))
    np.testing.assert_array_equal(bare[0], filled[0])


def test_too_few_rows_overflow():
    crystal = structure(*parts(fcc()))
    capacity = pair_capacity(crystal, CUTOFF)
    held = int(listed(crystal, CUTOFF, capacity).mask.sum())
    assert not listed(crystal, CUTOFF, capacity._replace(pairs=held)).overflow
    assert listed(crystal, CUTOFF, capacity._replace(pairs=held - 1)).overflow


def test_shear_that_brings_more_images_into_reach_overflows():
    crystal = structure(*parts(salt()))
    capacity = pair_capacity(crystal, CUTOFF)
    sheared = strained(crystal, jnp.zeros((3, 3)).at[0, 1].set(1.5))
    roomy = capacity._replace(pairs=4096)
    assert not listed(crystal, CUTOFF, roomy).overflow
    assert listed(sheared, CUTOFF, roomy).overflow
    assert not listed(sheared, CUTOFF, pair_capacity(sheared, CUTOFF)).overflow


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_is_lost_without_overflow(seed):
    """Strained at fixed capacity: either the flag is up or the list is complete."""
    rng = np.random.default_rng(seed)
    crystal = structure(*parts(random_crystal(3, 4.0, 11)))
    images = pair_capacity(crystal, CUTOFF).images
    for _ in range(5):
        bent = strained(crystal, jnp.asarray(0.3 * rng.normal(size=(3, 3))))
        neighbors = listed(bent, CUTOFF, PairCapacity(images, 4096))
        i, *_ = primitive_neighbor_list(
            "ij", [True] * 3, np.asarray(bent.cell), np.asarray(bent.positions), CUTOFF
        )
        assert neighbors.overflow or int(neighbors.mask.sum()) == len(i)


def test_positions_that_are_not_finite_overflow():
    crystal = structure(*parts(salt()))
    capacity = pair_capacity(crystal, CUTOFF)
    lost = replace(crystal, positions=crystal.positions.at[1, 0].set(jnp.nan))
    assert listed(lost, CUTOFF, capacity).overflow
    with pytest.raises(InputError, match="positions holds 1 values"):
        pair_capacity(lost, CUTOFF)


def test_lists_batch():
    crystals = [padded(structure(*parts(random_crystal(4, 4.0, seed))), 6) for seed in (3, 4)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *crystals)
    together = jax.vmap(lambda c: neighbor_list(c, CUTOFF, ROOM))(batch)
    alone = [listed(crystal, CUTOFF, ROOM) for crystal in crystals]
    assert not any(one.overflow for one in alone)
    jax.tree.map(lambda t, *a: np.testing.assert_array_equal(t, a), together, *alone)


def test_gather_and_scatter_are_transposes_and_leave_padding_out():
    rng = np.random.default_rng(0)
    mask = jnp.asarray(rng.random(20) < 0.7)
    at = links(jnp.asarray(rng.integers(0, 5, 20)), mask)
    rows, messages = jnp.asarray(rng.normal(size=(5, 2))), jnp.asarray(rng.normal(size=(20, 2)))
    assert np.all(np.asarray(at.index)[~np.asarray(mask)] == 0)
    left = jnp.sum(scatter(messages, at, 5) * rows)
    right = jnp.sum(jnp.where(mask[:, None], gather(rows, at) * messages, 0))
    np.testing.assert_allclose(left, right, rtol=1e-13)
    poisoned = jnp.where(mask[:, None], messages, jnp.nan)
    np.testing.assert_array_equal(scatter(poisoned, at, 5), scatter(messages, at, 5))


def test_separations_of_padding_lie_beyond_the_cutoff():
    crystal = structure(*parts(fcc()))
    neighbors = listed(crystal, CUTOFF, PairCapacity((2, 2, 2), 64))
    apart = np.asarray(apart_in(crystal, neighbors))[~np.asarray(neighbors.mask)]
    np.testing.assert_array_equal(apart, np.tile([2 * CUTOFF, 0, 0], (len(apart), 1)))


def test_components_are_those_of_the_separations():
    crystal = padded(structure(*parts(CRYSTALS["triclinic 1"])), 6)
    neighbors = listed(crystal, CUTOFF, ROOM)
    np.testing.assert_allclose(
        jnp.stack(separation_components(crystal, neighbors), 1),
        apart_in(crystal, neighbors), atol=1e-14,
    )  # fmt: skip


def test_buckets_are_few_and_hold():
    counts = [float(n) for n in range(1, 5000, 7)]
    assert all(bucket(n) >= n for n in counts)
    assert len({bucket(n) for n in counts}) < 64


def test_errors_say_what_to_do():
    crystal = structure(*parts(salt()))
    with pytest.raises(InputError, match="a positive length"):
        pair_capacity(crystal, 0.0)
    with pytest.raises(InputError, match="Check the lattice vectors"):
        pair_capacity(crystal, 400.0)
