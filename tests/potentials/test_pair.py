"""Pair potentials against lattice sums, ASE's calculators, and finite differences."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from crystals import (
    LJ_FCC_A6,
    LJ_FCC_A12,
    LJ_FCC_ENERGY,
    LJ_FCC_SPACING,
    chain,
    fcc,
    parts,
    rattled,
    salt,
)

from phojax.checks import InputError
from phojax.forces import energy, energy_forces_stress, evaluate
from phojax.neighbors import neighbor_list, pair_capacity
from phojax.potentials.pair import buckingham, lennard_jones, morse, springs, switch
from phojax.structure import padded, strained, structure, supercell

PAIRS = [("Na", "Na"), ("Cl", "Na"), ("Cl", "Cl")]


def table(*rows):
    return dict(zip(PAIRS, rows, strict=True))


POTENTIALS = {
    "lennard_jones": lennard_jones(table((0.02, 2.8), (0.1, 2.4), (0.03, 3.2)), cutoff=6.0),
    "morse": morse(table((0.1, 1.2, 3.6), (0.8, 1.5, 2.7), (0.1, 1.1, 4.0)), cutoff=6.0),
    "buckingham": buckingham(
        table((400.0, 0.3, 2.0), (1090.0, 0.32, 12.0), (900.0, 0.34, 60.0)), cutoff=6.0
    ),
    "springs": springs(table((0.5, 3.9), (2.0, 2.8), (0.3, 3.9)), cutoff=6.0),
}


@partial(jax.jit, static_argnums=1)
def every_potential(crystal, capacity):
    """Return energy, forces and stress of each in their order, compiled as one."""
    graph = neighbor_list(crystal, 6.0, capacity)
    return [energy_forces_stress(p, crystal, graph) for p in POTENTIALS.values()], graph.overflow


def on_graph(potential, crystal):
    """Return the compiled energy of positions and strain at a fixed graph."""
    graph = potential.graph(crystal, potential.capacity(crystal))
    assert not graph.overflow

    @jax.jit
    def of(x, strain):
        return energy(potential, strained(replace(crystal, positions=x), strain), graph)

    return of


def test_lennard_jones_sums_over_the_fcc_lattice():
    """Two values of σ give both sums; the part beyond the cutoff as an integral."""
    cutoff = 10.0
    crystal = structure(*parts(fcc(a=np.sqrt(2))))
    bare = lennard_jones({("Ar", "Ar"): (0.5, 1.0)}, cutoff=cutoff, onset=cutoff)
    small = replace(bare, params=bare.params | {"sigma": jnp.full((1, 1), 2 ** (-1 / 6))})
    first, second = (float(evaluate(p, crystal)[0]) for p in (bare, small))
    # E = A12 s¹² - A6 s⁶ with s = 1 and s⁶ = 1/2.
    A12, A6 = 2 * first - 4 * second, first - 4 * second
    tail = 4 * np.pi * np.sqrt(2) / (3 * cutoff**3)
    assert abs(A12 - LJ_FCC_A12) < 1e-5
    assert abs(A6 + tail - LJ_FCC_A6) < 3e-4


def test_lennard_jones_fcc_has_its_minimum_where_kittel_has_it():
    crystal = structure(*parts(fcc(a=LJ_FCC_SPACING * np.sqrt(2))))
    value, forces, stress = evaluate(
        lennard_jones({("Ar", "Ar"): (1.0, 1.0)}, cutoff=10.0, onset=10.0), crystal
    )
    assert abs(LJ_FCC_SPACING - 1.09) < 1e-3
    # The part beyond the cutoff as an integral: E = -8π n ε σ⁶ / 3 r_c³, V dE/dV = -2E.
    density = 1 / float(crystal.volume)
    tail = -8 * np.pi * density / 3 / 10.0**3
    assert float(value) + tail == pytest.approx(LJ_FCC_ENERGY, rel=1e-4)
    np.testing.assert_allclose(forces, 0, atol=1e-10)
    np.testing.assert_allclose(stress, np.eye(3) * 2 * tail * density, atol=1e-3)


@pytest.mark.parametrize("r", [3.0, 3.6, 4.5])
def test_dimers_are_those_of_ase(r):
    pair = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, r]], cell=[30, 30, 30], pbc=True)
    crystal = structure(*parts(pair))
    eps, sigma, cutoff = 0.0104, 3.4, 9.0
    shift = 4 * eps * ((sigma / cutoff) ** 12 - (sigma / cutoff) ** 6)
    pair.calc = LennardJones(epsilon=eps, sigma=sigma, rc=cutoff)
    ours = evaluate(lennard_jones({("Ar", "Ar"): (eps, sigma)}, cutoff=cutoff, onset=8.0), crystal)
    assert float(ours[0]) == pytest.approx(pair.get_potential_energy() + shift, abs=1e-12)
    np.testing.assert_allclose(ours[1], pair.get_forces(), atol=1e-12)

    pair.calc = MorsePotential(epsilon=0.3, rho0=6.0, r0=3.3)  # bare up to 1.9 r0
    ours = evaluate(morse({("Ar", "Ar"): (0.3, 6.0 / 3.3, 3.3)}, cutoff=9.0, onset=8.0), crystal)
    assert float(ours[0]) == pytest.approx(pair.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(ours[1], pair.get_forces(), atol=1e-12)


def test_the_switch_has_three_derivatives_that_vanish_at_both_ends():
    def s(r):
        return switch(r[None], 4.0, 5.0)[0]

    derivatives = [s]
    for _ in range(3):
        derivatives.append(jax.grad(derivatives[-1]))
    for edge, value in ((4.0, 1.0), (5.0, 0.0)):
        np.testing.assert_allclose(derivatives[0](edge + 0.0 * jnp.ones(())), value, atol=1e-14)
        for sign in (-1, 1):
            for d in derivatives[1:]:
                np.testing.assert_allclose(d(jnp.asarray(edge + sign * 1e-9)), 0, atol=1e-5)
    r = jnp.linspace(4, 5, 50)
    assert np.all(np.diff(switch(r, 4.0, 5.0)) <= 0)
    np.testing.assert_array_equal(switch(jnp.array([4.9, 5.0, 6.0]), 5.0, 5.0), [1, 0, 0])


def test_derivatives_are_those_of_finite_differences():
    """Of the first three orders along one direction in positions and strain."""
    crystal = structure(*parts(rattled(salt(), 0.1)))
    capacity = pair_capacity(crystal, 6.0)
    graph = neighbor_list(crystal, 6.0, capacity)
    rng = np.random.default_rng(1)
    dx = jnp.asarray(rng.normal(size=(2, 3)))
    de = jnp.asarray(0.2 * rng.normal(size=(3, 3)))
    de = de + de.T

    def along(t, crystal, graph):
        moved = strained(replace(crystal, positions=crystal.positions + t * dx), t * de)
        return jnp.stack([energy(p, moved, graph) for p in POTENTIALS.values()])

    orders = [along]
    for _ in range(3):
        orders.append(jax.jacfwd(orders[-1]))
    derivative = jax.jit(lambda *at: jnp.stack([order(*at) for order in orders]))
    h = 2e-4
    center, plus, minus = (
        np.asarray(derivative(jnp.asarray(t), crystal, graph)) for t in (0.0, h, -h)
    )
    np.testing.assert_allclose(((plus - minus) / (2 * h))[:3], center[1:], rtol=2e-5)

    results, overflow = every_potential(crystal, capacity)
    assert not overflow
    for slope, (_, forces, stress) in zip(center[1], results, strict=True):
        predicted = -jnp.sum(forces * dx) + crystal.volume * jnp.sum(stress * de)
        np.testing.assert_allclose(predicted, slope, rtol=1e-10)


def test_a_primitive_cell_and_its_supercell_agree():
    primitive = structure(*parts(rattled(salt(), 0.1, seed=4)))
    big = supercell(primitive, [[-2, 2, 2], [2, -2, 2], [2, 2, -2]]).structure
    assert len(big) == 64
    ones, overflow_one = every_potential(primitive, pair_capacity(primitive, 6.0))
    manys, overflow_many = every_potential(big, pair_capacity(big, 6.0))
    assert not overflow_one
    assert not overflow_many
    for one, many in zip(ones, manys, strict=True):
        np.testing.assert_allclose(many[0], 32 * one[0], rtol=1e-12)
        np.testing.assert_allclose(many[1], np.repeat(one[1], 32, axis=0), atol=1e-12)
        np.testing.assert_allclose(many[2], one[2], atol=1e-13)


def test_a_chain_of_springs_has_the_modes_of_a_chain():
    count, k = 8, 1.7
    potential = springs({("Ar", "Ar"): (k, 1.5)}, cutoff=2.0)
    crystal = structure(*parts(chain(count, 1.5)))
    E = on_graph(potential, crystal)
    hessian = jax.hessian(lambda x: E(x, jnp.zeros((3, 3))))(crystal.positions)
    along = np.linalg.eigvalsh(hessian[:, 0, :, 0])
    expected = 2 * k * (1 - np.cos(2 * np.pi * np.arange(count) / count))
    np.testing.assert_allclose(along, np.sort(expected), atol=1e-12)
    np.testing.assert_allclose(hessian[:, 1:], 0, atol=1e-12)


def test_an_atom_in_a_cage_of_springs_is_an_einstein_oscillator():
    """Six springs along ±x, ±y, ±z: Φ_ii = 2k, whatever the direction."""
    k, a = 1.3, 5.6
    potential = springs({("Na", "Cl"): (k, a / 2)}, cutoff=3.5)
    crystal = structure(*parts(salt(a=a)))
    E = on_graph(potential, crystal)

    def moved(u):
        return E(crystal.positions.at[0].add(u), jnp.zeros((3, 3)))

    np.testing.assert_allclose(jax.hessian(moved)(jnp.zeros(3)), 2 * k * np.eye(3), atol=1e-12)


def test_parameters_are_differentiable():
    potential = POTENTIALS["buckingham"]
    crystal = structure(*parts(salt()))
    graph = potential.graph(crystal, potential.capacity(crystal))

    @jax.jit
    def of(params):
        return energy(replace(potential, params=params), crystal, graph)

    gradient = jax.grad(of)(potential.params)
    for name, values in potential.params.items():
        h = 1e-5 * values[0, 1]
        plus, minus = (of(potential.params | {name: values.at[0, 1].add(s * h)}) for s in (1, -1))
        np.testing.assert_allclose(gradient[name][0, 1], (plus - minus) / (2 * h), rtol=1e-6)
        np.testing.assert_allclose(gradient[name], gradient[name].T, atol=1e-12)


def test_equal_potentials_share_a_compilation():
    def make():
        return lennard_jones({("Ar", "Ar"): (0.01, 3.4)}, cutoff=8.0)

    assert jax.tree.structure(make()) == jax.tree.structure(make())


def test_padding_and_silent_pairs_contribute_nothing():
    crystal = structure(*parts(rattled(salt(), 0.1)))
    potential = POTENTIALS["morse"]
    bare, filled = evaluate(potential, crystal), evaluate(potential, padded(crystal, 5))
    np.testing.assert_allclose(filled[0], bare[0], rtol=1e-14)
    np.testing.assert_allclose(filled[1][:2], bare[1], atol=1e-14)
    np.testing.assert_array_equal(filled[1][2:], 0)
    alone = springs({("Na", "Na"): (1.0, 4.0)}, cutoff=3.5, elements=("Cl",))
    assert float(evaluate(alone, crystal)[0]) == 0


def test_an_unknown_element_is_refused_outside_and_not_a_number_inside():
    crystal = structure(*parts(salt()))
    potential = springs({("Na", "Na"): (1.0, 4.0)}, cutoff=3.5)
    with pytest.raises(InputError, match="the structure holds Cl"):
        evaluate(potential, crystal)
    graph = potential.graph(crystal, potential.capacity(crystal))
    assert np.isnan(energy(potential, crystal, graph))


@pytest.mark.parametrize(
    ("pairs", "onset", "message"),
    [
        ({("Na", "Xx"): (1.0, 1.0)}, None, "element 'Xx'"),
        ({("Na", "Cl"): (1.0,)}, None, "two elements and finite"),
        ({("Na", "Cl"): (1.0, np.inf)}, None, "two elements and finite"),
        ({("Na", "Cl"): (1.0, 2.0), ("Cl", "Na"): (1.0, 2.0)}, None, "given twice"),
        ({}, None, "at least one pair"),
        ({("Na", "Cl"): (1.0, 2.0)}, 7.0, "0 < onset <= cutoff"),
    ],
)
def test_bad_parameters_are_refused(pairs, onset, message):
    with pytest.raises(InputError, match=message):
        lennard_jones(pairs, cutoff=6.0, onset=onset)
