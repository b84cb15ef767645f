"""Ewald sums against Madelung constants, sum rules and finite differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crystals import MADELUNG, NEAREST, parts, rattled, salt

from phojax.checks import InputError
from phojax.forces import energy, evaluate
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.structure import padded, strained, structure, supercell
from phojax.units import COULOMB

CHARGES = {"Na": 1.0, "Cl": -1.0}
POINTS = ewald(CHARGES, cutoff=6.0)
IONS = summed(buckingham({("Na", "Cl"): (1092.3, 0.321, 5.0)}, cutoff=6.0), POINTS)


@pytest.mark.parametrize("kind", MADELUNG)
def test_madelung_constants(kind):
    a = 5.64
    value, forces, stress = evaluate(POINTS, structure(*parts(salt(kind, a))))
    madelung = -float(value) * a * NEAREST[kind] / COULOMB
    assert abs(madelung - MADELUNG[kind]) < 1e-11
    np.testing.assert_allclose(forces, 0, atol=1e-12)
    # Coulomb's law scales: 3 p V = E for pressure p, hence tr σ V = -E.
    volume = structure(*parts(salt(kind, a))).volume
    np.testing.assert_allclose(jnp.trace(stress) * volume, -value, rtol=1e-11)


def test_the_split_does_not_matter():
    crystal = structure(*parts(rattled(salt(), 0.1)))
    longer = ewald(CHARGES, cutoff=9.0)
    for one, other in zip(evaluate(POINTS, crystal), evaluate(longer, crystal), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    rough = ewald(CHARGES, cutoff=6.0, accuracy=1e-6)
    error = abs(float(evaluate(rough, crystal)[0] - evaluate(POINTS, crystal)[0]))
    assert 0 < error < 1e-4


def test_a_primitive_cell_and_its_supercell_agree():
    primitive = structure(*parts(rattled(salt(), 0.1, seed=4)))
    big = supercell(primitive, [[-2, 2, 2], [2, -2, 2], [2, 2, -2]]).structure
    assert len(big) == 64
    one, many = evaluate(IONS, primitive), evaluate(IONS, big)
    np.testing.assert_allclose(many[0], 32 * one[0], rtol=1e-12)
    np.testing.assert_allclose(many[1], np.repeat(one[1], 32, axis=0), atol=1e-11)
    np.testing.assert_allclose(many[2], one[2], atol=1e-12)


def test_derivatives_are_those_of_finite_differences():
    crystal = structure(*parts(rattled(salt(), 0.1)))
    graph = IONS.graph(crystal, IONS.capacity(crystal))
    assert not graph.overflow
    rng = np.random.default_rng(1)
    dx = jnp.asarray(rng.normal(size=(2, 3)))
    de = jnp.asarray(0.3 * rng.normal(size=(3, 3)))
    de = (de + de.T) / 2

    def along(t, crystal, graph):
        moved = replace(crystal, positions=crystal.positions + t * dx)
        return energy(IONS, strained(moved, t * de), graph)

    orders = [along]
    for _ in range(2):
        orders.append(jax.jacfwd(orders[-1]))
    derivative = jax.jit(lambda *at: jnp.stack([order(*at) for order in orders]))
    h = 2e-4
    center, plus, minus = (
        np.asarray(derivative(jnp.asarray(t), crystal, graph)) for t in (0.0, h, -h)
    )
    np.testing.assert_allclose(((plus - minus) / (2 * h))[:2], center[1:], rtol=2e-5)
    _, forces, stress = evaluate(IONS, crystal)
    slope = -jnp.sum(forces * dx) + crystal.volume * jnp.sum(stress * de)
    np.testing.assert_allclose(slope, center[1], rtol=1e-9)


def test_the_trace_of_the_force_constants_is_the_charge_density_of_the_others():
    """Poisson: moving one sublattice, tr Φ = q q' 4π k_e / V, whatever the structure."""
    crystal = structure(*parts(rattled(salt(), 0.2, seed=2)))
    graph = POINTS.graph(crystal, POINTS.capacity(crystal))

    def moved(u):
        shifted = replace(crystal, positions=crystal.positions.at[0].add(u))
        return energy(POINTS, shifted, graph)

    hessian = jax.jit(jax.hessian(moved))(jnp.zeros(3))
    expected = -4 * np.pi * COULOMB / float(crystal.volume)
    np.testing.assert_allclose(jnp.trace(hessian), expected, rtol=1e-10)


def test_charges_are_differentiable():
    """E is quadratic in the charges: Σ q ∂E/∂q = 2E, and both are independent of the split."""
    crystal = structure(*parts(rattled(salt(), 0.1)))
    gradients = []
    for potential in (POINTS, ewald(CHARGES, cutoff=8.0)):
        graph = potential.graph(crystal, potential.capacity(crystal))

        @jax.jit
        def of(params, potential=potential, graph=graph):
            return energy(replace(potential, params=params), crystal, graph)

        value, gradient = jax.value_and_grad(of)(potential.params)
        np.testing.assert_allclose(gradient["charges"] @ jnp.array([1.0, -1.0]), 2 * value)
        gradients.append(gradient["charges"])
    np.testing.assert_allclose(*gradients, atol=1e-9)


def test_padding_carries_no_charge():
    crystal = structure(*parts(rattled(salt(), 0.1)))
    bare, filled = evaluate(IONS, crystal), evaluate(IONS, padded(crystal, 5))
    np.testing.assert_allclose(filled[0], bare[0], rtol=1e-14)
    np.testing.assert_allclose(filled[1][:2], bare[1], atol=1e-13)
    np.testing.assert_array_equal(filled[1][2:], 0)


def test_strain_beyond_the_listed_vectors_overflows():
    crystal = structure(*parts(salt()))
    capacity = POINTS.capacity(crystal)
    graph = jax.jit(POINTS.graph, static_argnums=1)
    roomy = capacity._replace(pairs=capacity.pairs._replace(pairs=1024))
    assert not graph(strained(crystal, 0.02 * jnp.eye(3)), roomy).overflow
    assert graph(strained(crystal, 0.4 * jnp.eye(3)), roomy).overflow
    assert graph(crystal, roomy._replace(vectors=64)).overflow


def test_a_charged_cell_is_refused():
    with pytest.raises(InputError, match=r"a charge of -1 e .*expected a neutral cell"):
        evaluate(ewald({"Na": 1.0, "Cl": -2.0}), structure(*parts(salt())))


@pytest.mark.parametrize(
    ("charges", "options", "message"),
    [
        ({"Xx": 1.0}, {}, "element 'Xx'"),
        ({}, {}, "a finite charge"),
        ({"Na": np.nan}, {}, "a finite charge"),
        (CHARGES, {"cutoff": -1.0}, "cutoff > 0"),
        (CHARGES, {"accuracy": 1.0}, "accuracy"),
    ],
)
def test_bad_charges_are_refused(charges, options, message):
    with pytest.raises(InputError, match=message):
        ewald(charges, **options)


def test_a_sum_is_the_sum_of_its_parts():
    crystal = structure(*parts(rattled(salt(), 0.1)))
    short = buckingham({("Na", "Cl"): (1092.3, 0.321, 5.0)}, cutoff=6.0)
    whole = evaluate(summed(short, POINTS), crystal)
    for total, one, other in zip(
        whole, evaluate(short, crystal), evaluate(POINTS, crystal), strict=True
    ):
        np.testing.assert_allclose(total, one + other, atol=1e-12)


def test_sums_without_meaning_are_refused():
    with pytest.raises(InputError, match="at least one"):
        summed()
    with pytest.raises(InputError, match="a common element"):
        summed(POINTS, buckingham({("Mg", "O"): (1.0, 1.0, 0.0)}, cutoff=5.0))
