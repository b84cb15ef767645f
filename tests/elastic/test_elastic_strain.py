"""Elastic tensors by other ways: finite strains, averages, predicted stress, pressure."""

from dataclasses import replace

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from elastic_crystals import bonded, prepared, wurtzite

from phojax.elastic.strain import elastic_tensor_from_strain
from phojax.elastic.tensor import elastic_tensor
from phojax.elastic.waves import christoffel, density
from phojax.force_constants.hessian import hessian
from phojax.forces import energy, energy_forces_stress
from phojax.potentials.catalogue import potential
from phojax.structure import strained, structure, supercell
from phojax.units import EV_PER_A3_IN_GPA
from phojax.velocities import sound_velocities

DIRECTIONS = np.random.default_rng(0).normal(size=(4, 3))


def predicted(of):
    """Return the same potential as one that predicts forces and stress."""

    def predict(params, crystal, graph):
        return energy_forces_stress(replace(of, params=params), crystal, graph)

    return replace(of, predict=predict)


@pytest.mark.slow
def test_an_ionic_crystal_has_cauchy_relations_as_well():
    of = potential("ions:NaCl")
    crystal, group = prepared(crystals.salt(), of)
    found = elastic_tensor(of, crystal, group)
    C = found.tensor_GPa
    np.testing.assert_allclose(C[0, 1], C[3, 3], rtol=1e-8)
    np.testing.assert_allclose(found.internal_strain, 0, atol=1e-9)
    # Kittel's repulsion is fitted to the measured bulk modulus of 24.0 GPa (ch. 3, table 7).
    assert abs((C[0, 0] + 2 * C[0, 1]) / 3 - 24.0) < 0.5


def test_finite_strains_with_relaxed_ions_agree():
    of, crystal, group, found = wurtzite()
    first, second = (
        elastic_tensor_from_strain(of, crystal, group, step=h, force_tolerance=1e-9)
        for h in (2e-3, 1e-3)
    )
    assert not second.remarks
    scale = found.tensor_GPa.max()
    for name in ("tensor_GPa", "clamped_GPa", "internal_strain", "displacements"):
        expected, one, two = (getattr(x, name) for x in (found, first, second))
        error = np.abs(two - expected).max()
        assert error < 1e-4 * np.abs(expected).max()
        assert np.abs(one - expected).max() > 3.9 * error  # the error goes as h²
        np.testing.assert_allclose(
            (4 * two - one) / 3, expected, atol=1e-6 * np.abs(expected).max()
        )
    np.testing.assert_allclose((4 * second.tensor_GPa - first.tensor_GPa) / 3, found.tensor_GPa,
                               atol=1e-6 * scale)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stretch", [0.98, 1.02])
def test_sound_under_pressure_is_that_of_the_force_constants(stretch):
    of = potential("lj:Ar")
    crystal, group = prepared(crystals.fcc(), of)
    crystal = strained(crystal, (stretch - 1) * jnp.eye(3))
    found = elastic_tensor(of, crystal, group)
    assert not found.at_rest
    assert "not at rest" in found.remarks[0]
    constants = hessian(of, supercell(crystal, (5, 5, 5)), group).force_constants
    expected = sound_velocities(constants, jnp.asarray(DIRECTIONS)).values
    waves = christoffel(found.tensor_GPa, density(crystal), DIRECTIONS, found.stress_GPa)
    np.testing.assert_allclose(waves.velocities, expected, rtol=1e-7)
    # The slope of the pressure is that of the stress-strain coefficients.
    K = found.stress_strain_GPa[:3, :3].sum() / 9

    def pressure(factor):
        bent = strained(crystal, (factor - 1) * jnp.eye(3))
        graph = of.graph(bent, of.capacity(bent))
        return -jnp.trace(energy_forces_stress(of, bent, graph)[2]) / 3 * EV_PER_A3_IN_GPA

    slope = (pressure(1 + 1e-5) - pressure(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(-slope / 3, K, rtol=1e-6)


@pytest.mark.slow
def test_predicted_forces_and_stress_give_the_same_tensor():
    of, crystal, group, found = wurtzite()
    options = {"width": 0.05, "cells": supercell(crystal, (2, 2, 1)), "pairs": 2}
    smooth = elastic_tensor(of, crystal, group, **options)
    for mine, other in (
        (elastic_tensor(predicted(of), crystal, group), found),
        (elastic_tensor(predicted(of), crystal, group, **options), smooth),
    ):
        np.testing.assert_allclose(mine.tensor_GPa, other.tensor_GPa, atol=1e-8)
        np.testing.assert_allclose(mine.stress_GPa, other.stress_GPa, atol=1e-9)
        np.testing.assert_allclose(mine.force_max_eV_A, other.force_max_eV_A, atol=1e-9)


@pytest.mark.slow
def test_the_average_is_that_of_the_averaged_surface():
    of, crystal, group, found = wurtzite()
    options = {"width": 0.05, "cells": supercell(crystal, (2, 2, 1)), "pairs": 2}
    smooth = elastic_tensor(of, crystal, group, **options)
    assert smooth.standard_error_GPa is not None
    assert smooth.width == 0.05
    bent = elastic_tensor_from_strain(
        of, crystal, group, step=1e-3, force_tolerance=1e-7, **options
    )
    scale = np.abs(smooth.clamped_GPa).max()
    np.testing.assert_allclose(bent.clamped_GPa, smooth.clamped_GPa, atol=1e-4 * scale)
    np.testing.assert_allclose(bent.stress_GPa, smooth.stress_GPa, atol=1e-8)
    narrow = elastic_tensor(of, crystal, group, **(options | {"width": 1e-4}))
    np.testing.assert_allclose(narrow.tensor_GPa, found.tensor_GPa, atol=1e-3)


def test_a_triclinic_tensor_is_the_second_derivative_of_the_energy():
    of = bonded()
    atoms = crystals.rattled(bulk("NaCl", "wurtzite", a=4.1, c=6.7), 0.05)
    crystal = structure(*crystals.parts(atoms))
    found = elastic_tensor(of, crystal)
    graph = of.graph(crystal, of.capacity(crystal))
    # Energies along uniaxial strains, F = √(1 + 2η) in closed form.
    for k in range(3):

        def along(eta, k=k):
            diagonal = jnp.zeros(3).at[k].set(jnp.sqrt(1 + 2 * eta) - 1)
            return energy(of, strained(crystal, jnp.diag(diagonal)), graph)

        second = jax.grad(jax.grad(along))(0.0) / crystal.volume * EV_PER_A3_IN_GPA
        np.testing.assert_allclose(found.clamped_GPa[k, k], second, rtol=1e-10)
