"""Forces and stress: against finite differences of evaluated energies, and the errors."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from crystals import parts, rattled, salt

from phojax.checks import InputError
from phojax.forces import energy_and_forces, evaluate
from phojax.potentials.pair import buckingham, lennard_jones
from phojax.structure import strained, structure

POTENTIAL = buckingham(
    {("Na", "Cl"): (1092.3, 0.321, 0.0), ("Cl", "Cl"): (900.0, 0.34, 60.0)}, cutoff=6.0
)
CRYSTAL = structure(*parts(rattled(salt(), 0.15)))
CAPACITY = POTENTIAL.capacity(CRYSTAL)


def energy_at(crystal):
    return float(evaluate(POTENTIAL, crystal, CAPACITY)[0])


def test_forces_are_minus_the_slope_of_the_energy():
    _, forces, _ = evaluate(POTENTIAL, CRYSTAL, CAPACITY)
    h = 1e-4
    for i in range(2):
        for axis in range(3):
            plus, minus = (
                energy_at(replace(CRYSTAL, positions=CRYSTAL.positions.at[i, axis].add(s * h)))
                for s in (1, -1)
            )
            assert float(forces[i, axis]) == pytest.approx(-(plus - minus) / (2 * h), abs=1e-7)
    np.testing.assert_allclose(jnp.sum(forces, axis=0), 0, atol=1e-12)


def test_stress_is_the_slope_of_the_energy_in_strain_and_positive_under_tension():
    _, _, stress = evaluate(POTENTIAL, CRYSTAL, CAPACITY)
    h = 1e-4
    for a in range(3):
        for b in range(3):
            strain = jnp.zeros((3, 3)).at[a, b].add(h / 2).at[b, a].add(h / 2)
            plus, minus = (energy_at(strained(CRYSTAL, s * strain)) for s in (1, -1))
            slope = (plus - minus) / (2 * h)
            assert float(stress[a, b]) == pytest.approx(slope / float(CRYSTAL.volume), abs=1e-7)
    # Repulsion alone: compressed, hence negative.
    assert float(jnp.trace(stress)) < 0


def test_energy_and_forces_are_those_of_the_evaluation():
    value, forces, _ = evaluate(POTENTIAL, CRYSTAL, CAPACITY)
    graph = POTENTIAL.graph(CRYSTAL, CAPACITY)
    again = energy_and_forces(POTENTIAL, CRYSTAL, graph)
    np.testing.assert_allclose(again[0], value, rtol=1e-14)
    np.testing.assert_allclose(again[1], forces, atol=1e-13)


def test_a_capacity_that_is_too_small_is_enlarged():
    small = CAPACITY._replace(pairs=32)
    assert POTENTIAL.graph(CRYSTAL, small).overflow
    for one, other in zip(
        evaluate(POTENTIAL, CRYSTAL, small), evaluate(POTENTIAL, CRYSTAL), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_potential_computes_in_the_precision_of_its_parameters():
    exact = evaluate(POTENTIAL, CRYSTAL, CAPACITY)
    single = evaluate(POTENTIAL.astype(jnp.float32), CRYSTAL, CAPACITY)
    assert all(x.dtype == jnp.float64 for x in single)
    error = abs(float(single[0] - exact[0]))
    assert 0 < error < 1e-5
    np.testing.assert_allclose(single[1], exact[1], atol=1e-4)


def test_results_that_are_not_finite_are_errors():
    touching = replace(CRYSTAL, positions=jnp.zeros((2, 3)))
    potential = lennard_jones({("Na", "Cl"): (1.0, 1.0)}, cutoff=6.0)
    with pytest.raises(InputError, match="Check for atoms that are too close"):
        evaluate(potential, touching)


def test_positions_that_are_not_finite_are_errors():
    lost = replace(CRYSTAL, positions=CRYSTAL.positions.at[0, 0].set(jnp.nan))
    with pytest.raises(InputError, match="positions holds 1 values that are not finite"):
        evaluate(POTENTIAL, lost, CAPACITY)
