"""The search by bins against ASE's neighbour lists and against the search through all atoms."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import primitive_neighbor_list
from crystals import parts, salt
from test_neighbors import CRYSTALS, CUTOFF, found, listed

from phojax.neighbor_search import bins_in_reach, most_in_a_bin
from phojax.neighbors import PairCapacity, gather, pair_capacity, scatter
from phojax.structure import padded, strained, structure


def binned(crystal, bins, **sizes):
    """Return room for a search by these bins, of all atoms in one bin if need be."""
    reach = bins_in_reach(np, np.asarray(crystal.cell), CUTOFF, np.array(bins))
    reach = tuple(int(n) for n in reach)
    room = PairCapacity((0, 0, 0), 1024, bins=bins, reach=reach, per_bin=len(crystal))
    return room._replace(**sizes)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize(
    ("name", "bins"),
    [("thin", (1, 4, 2)), ("triclinic 2", (2, 3, 1))],
)
def test_bins_of_any_number_find_the_pairs_of_ase(name, bins, dtype):
    """Padded, and with atoms far outside of the cell."""
    atoms = CRYSTALS[name].copy()
    # Whole cells in both precisions: positions that round differently are other crystals.
    cells = np.random.default_rng(2).integers(-5, 6, (len(atoms), 3))
    atoms.positions += cells @ atoms.cell[:]
    crystal = padded(structure(*parts(atoms)), 8)
    real = replace(
        crystal, positions=crystal.positions.astype(dtype), cell=crystal.cell.astype(dtype)
    )
    neighbors = listed(real, CUTOFF, binned(crystal, bins))
    i, j, shift = primitive_neighbor_list(
        "ijS", [True] * 3, atoms.cell, atoms.positions, CUTOFF, self_interaction=False
    )
    expected = np.column_stack([i, j, shift])
    assert not neighbors.overflow
    np.testing.assert_array_equal(
        found(crystal, neighbors)[0], expected[np.lexsort(expected.T[::-1])]
    )
    centers = np.asarray(neighbors.centers.index)[np.asarray(neighbors.mask)]
    assert np.all(np.diff(centers) >= 0)


def test_full_bins_and_short_reach_overflow():
    crystal = structure(*parts(CRYSTALS["long"]))
    bins = (2, 1, 1)
    inside = np.asarray(crystal.fractional) % 1
    most = int(np.bincount((inside[:, 0] * 2).astype(int)).max())
    room = binned(crystal, bins, per_bin=most)
    assert not listed(crystal, CUTOFF, room).overflow
    assert listed(crystal, CUTOFF, room._replace(per_bin=most - 1)).overflow
    assert listed(crystal, CUTOFF, room._replace(reach=(0, 1, 1))).overflow
    flat = strained(crystal, jnp.zeros((3, 3)).at[0, 0].set(-0.7))
    assert listed(flat, CUTOFF, room).overflow
    lost = replace(crystal, positions=crystal.positions.at[1, 0].set(jnp.nan))
    assert listed(lost, CUTOFF, room).overflow


def test_large_crystals_are_binned_and_small_ones_not():
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (7, 7, 7)
    atoms.rattle(0.1, seed=1)
    crystal = structure(*parts(atoms))
    capacity = pair_capacity(crystal, 4.5)
    assert any(capacity.bins)
    assert not any(pair_capacity(structure(*parts(salt())), 4.5).bins)
    searched, every = (
        listed(crystal, 4.5, c) for c in (capacity, capacity._replace(bins=(0, 0, 0), each=24))
    )
    assert not searched.overflow | every.overflow
    np.testing.assert_array_equal(found(crystal, searched)[0], found(crystal, every)[0])


def test_tables_hold_what_lists_hold():
    crystal = padded(structure(*parts(CRYSTALS["triclinic 2"])), 8)
    plain = binned(crystal, (2, 3, 1))
    most = int(np.bincount(found(crystal, listed(crystal, CUTOFF, plain))[0][:, 0]).max())
    table = listed(crystal, CUTOFF, plain._replace(each=most))
    np.testing.assert_array_equal(
        found(crystal, table)[0], found(crystal, listed(crystal, CUTOFF, plain))[0]
    )
    assert table.centers.each == most
    assert not table.overflow
    assert listed(crystal, CUTOFF, plain._replace(each=most - 1)).overflow
    # What is read and added up without indices is what indices say.
    rng = np.random.default_rng(0)
    rows, messages = jnp.asarray(rng.normal(size=(8, 2))), rng.normal(size=(len(table.mask), 2))
    by_index = replace(table.centers, each=0)
    np.testing.assert_array_equal(gather(rows, table.centers), gather(rows, by_index))
    np.testing.assert_allclose(
        scatter(jnp.asarray(messages), table.centers, 8),
        scatter(jnp.asarray(messages), by_index, 8), atol=1e-14,
    )  # fmt: skip


@pytest.mark.parametrize("width", [0.0, 0.003, 0.03, 0.06])
def test_bins_hold_what_small_moves_bring_into_them(width):
    """Of a crystal whose planes of atoms would lie on the faces of bins."""
    crystal = structure(*parts(bulk("Ar", a=5.26, cubic=True).repeat(3)))
    rng = np.random.default_rng(0)
    for _ in range(10):
        moves = rng.normal(scale=width, size=crystal.positions.shape)
        room = pair_capacity(replace(crystal, positions=crystal.positions + moves), 8.5)
        assert any(room.bins) or width
        if not any(room.bins):
            continue
        for shaken in np.concatenate([[0 * moves], rng.uniform(-0.05, 0.05, (5, *moves.shape))]):
            places = np.asarray(crystal.positions + moves + shaken) @ np.linalg.inv(crystal.cell)
            assert most_in_a_bin(places - np.array(room.origin), room.bins) <= room.per_bin
