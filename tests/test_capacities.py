"""Sizes of graphs: how they grow, and one for several crystals."""

from dataclasses import replace
from functools import partial

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crystals import parts

from phojax.checks import InputError
from phojax.neighbors import PairCapacity, grown, largest
from phojax.potentials.chgnet.graph import bond_graph, graph_capacity
from phojax.potentials.contract import Potential
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.nequix.graph import neighbor_table, table_capacity
from phojax.potentials.pair import buckingham, lennard_jones, springs
from phojax.structure import padded, structure

IONS = ewald({"Na": 1.0, "Cl": -1.0}, cutoff=5.0, accuracy=1e-6)
REPULSION = buckingham({("Na", "Cl"): (1090.0, 0.32, 12.0)}, cutoff=5.0)
LJ = lennard_jones({("Na", "Cl"): (0.1, 2.4)}, cutoff=4.5, onset=4.5)
SMALL = structure(*parts(crystals.rattled(crystals.salt(), 0.1)))
LARGE = structure(*parts(crystals.rattled(crystals.salt(a=5.3) * (2, 1, 1), 0.1)))


SUM = summed(IONS, REPULSION)
GRAPHS = {
    "chgnet": (bond_graph, graph_capacity),
    "nequix": (partial(neighbor_table, 5.0), partial(table_capacity, 5.0)),
    "pair": (LJ.graph, LJ.capacity),
    "sum": (SUM.graph, SUM.capacity),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_sizes_of_every_potential_grow_and_merge(name):
    """The merged ones hold for both crystals."""
    graph, capacity = GRAPHS[name]
    sizes = capacity(SMALL)
    more = grown(sizes)
    hash(more)
    before, after = (np.array(jax.tree.leaves(c)) for c in (sizes, more))
    assert jax.tree.structure(sizes) == jax.tree.structure(more)
    assert np.all(after >= before)
    assert np.any(after > before)
    both = largest([sizes, capacity(LARGE)])
    assert both == largest([capacity(LARGE), sizes])
    made = jax.jit(graph, static_argnums=1)
    for crystal in (padded(SMALL, 4), LARGE):
        assert not made(crystal, both).overflow
    if name == "nequix":
        assert more.rows % 4 == 0


def test_an_overflow_ends_when_sizes_grow():
    made = jax.jit(LJ.graph, static_argnums=1)
    capacity = LJ.capacity(SMALL)._replace(pairs=32, each=4)
    growths = 0
    while made(SMALL, capacity).overflow:
        capacity, growths = grown(capacity), growths + 1
    assert 0 < growths < 8


@pytest.mark.parametrize("name", ["lennard_jones", "switched", "springs", "sum"])
def test_a_skin_changes_nothing(name):
    """The graph was made before the atoms moved; energies are those of a new one without skin."""
    potential: Potential = {
        "lennard_jones": LJ,
        "switched": REPULSION,
        "springs": springs({("Na", "Cl"): (2.0, 2.8)}, cutoff=3.3),
        "sum": SUM,
    }[name]
    assert potential.with_skin is not None
    farther = potential.with_skin(0.8)
    assert farther.with_skin is None
    assert farther.cutoff == pytest.approx(potential.cutoff + 0.8)
    before = structure(*parts(crystals.salt()))
    rng = np.random.default_rng(0)
    moves = 0.4 * rng.normal(size=(2, 3)) / 3
    assert np.all(np.linalg.norm(moves, axis=1) < 0.4)
    after = structure(before.cell, np.asarray(before.positions) + moves, before.numbers)

    def of(potential, graph):
        def energy(x):
            return potential.energy(potential.params, replace(after, positions=x), graph)

        return jax.value_and_grad(energy)(after.positions)

    @jax.jit
    def both(before, after):
        last = farther.graph(before, farther.capacity(SMALL))
        new = potential.graph(after, potential.capacity(SMALL))
        values = [of(farther, last), of(potential, new)]
        return values, last.overflow | new.overflow

    (with_skin, without), overflow = both(before, after)
    assert not overflow
    np.testing.assert_allclose(with_skin[0], without[0], rtol=1e-13)
    np.testing.assert_allclose(with_skin[1], without[1], atol=1e-12)
    # In another precision it is still the same potential.
    single = potential.astype(jnp.float32).with_skin
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(single(0.8).params))


def test_sizes_grow_and_merge():
    one = PairCapacity((1, 2, 0), 64, 12, (2, 2, 2), (1, 1, 1), per_bin=9)
    two = PairCapacity((0, 3, 0), 80, 16, (2, 2, 3), (1, 1, 2), per_bin=5)
    more = grown(one)
    assert np.all(np.array([more.pairs, more.each, more.per_bin]) >= 1.3 * np.array([64, 12, 9]))
    assert (more.images, more.bins, more.reach) == (one.images, one.bins, one.reach)
    # A list stays a list, and a search through all atoms stays one.
    assert grown(PairCapacity((1, 1, 1), 32))[2:] == PairCapacity((1, 1, 1), 32)[2:]
    merged = PairCapacity((1, 3, 0), 80, 16)
    assert largest([one, two]) == largest([two, one]) == merged
    same = two._replace(bins=one.bins)
    assert largest([one, same]) == PairCapacity((1, 3, 0), 80, 16, (2, 2, 2), (1, 1, 2), per_bin=9)
    assert largest([one, two._replace(each=0)]).each == 0
    assert largest([one]) == one
    assert grown((one, 40)) == (more, 52)
    assert largest([(one, 40), (two, 8)]) == (merged, 40)
    assert grown(None) is None
    assert largest([None, None]) is None
    assert all(isinstance(n, int | float) for n in jax.tree.leaves((more, merged)))
    with pytest.raises(InputError, match="those of one potential"):
        largest([one, (one, 3)])
