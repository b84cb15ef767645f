"""Elastic tensors against closed forms, finite strains, sound in force constants, and symmetry."""

from dataclasses import replace

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from elastic_crystals import bonded, prepared, wurtzite

from phojax.checks import InputError
from phojax.elastic.result import ions_can_answer, relaxed_ions
from phojax.elastic.strain import elastic_tensor_from_strain
from phojax.elastic.symmetric import independent_strains
from phojax.elastic.tensor import elastic_constants, elastic_tensor
from phojax.elastic.waves import christoffel, density
from phojax.force_constants.hessian import hessian
from phojax.forces import energy_forces_stress
from phojax.potentials.catalogue import potential
from phojax.potentials.pair import lennard_jones
from phojax.structure import strained, structure, supercell
from phojax.symmetry import space_group
from phojax.units import EV_PER_A3_IN_GPA
from phojax.velocities import sound_velocities

constants_of = jax.jit(elastic_constants)
DIRECTIONS = np.random.default_rng(0).normal(size=(4, 3))


def predicted(of):
    """Return the same potential as one that predicts forces and stress."""

    def predict(params, crystal, graph):
        return energy_forces_stress(replace(of, params=params), crystal, graph)

    return replace(of, predict=predict)


def test_the_lennard_jones_crystal_has_the_bulk_modulus_of_its_lattice_sums():
    sigma, epsilon = 3.4, 0.0104
    of = lennard_jones({("Ar", "Ar"): (epsilon, sigma)}, cutoff=9 * sigma, onset=9 * sigma)
    a = np.sqrt(2) * crystals.LJ_FCC_SPACING * sigma
    crystal = structure(*crystals.parts(crystals.fcc(a=a)))
    C = elastic_tensor(of, crystal, space_group(crystal)).tensor_GPa
    # K = (4/3√2) ε/σ³ ... from E = 2ε [A12 (σ/R)¹² - A6 (σ/R)⁶], V = R³/√2: K = R² E'' / 9V.
    A12, A6 = crystals.LJ_FCC_A12, crystals.LJ_FCC_A6
    x = 1 / crystals.LJ_FCC_SPACING
    second = 2 * epsilon * (156 * A12 * x**12 - 42 * A6 * x**6)
    volume = (crystals.LJ_FCC_SPACING * sigma) ** 3 / np.sqrt(2)
    expected = second / 9 / volume * EV_PER_A3_IN_GPA
    np.testing.assert_allclose((C[0, 0] + 2 * C[0, 1]) / 3, expected, rtol=2e-3)


def test_cauchy_relations_and_the_cubic_form():
    of = potential("lj:Ar")
    crystal, group = prepared(crystals.fcc(), of)
    found = elastic_tensor(of, crystal, group)
    C = found.tensor_GPa
    np.testing.assert_allclose(C[0, 1], C[3, 3], rtol=1e-9)
    np.testing.assert_allclose(C[:3, :3], C[0, 1] + (C[0, 0] - C[0, 1]) * np.eye(3), rtol=1e-9)
    np.testing.assert_allclose(C[3:, 3:], C[3, 3] * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(C[:3, 3:], 0, atol=1e-12)
    np.testing.assert_allclose(found.clamped_GPa, C, rtol=1e-12, atol=1e-12)
    assert found.at_rest
    assert found.stable
    assert found.asymmetry_GPa < 1e-10
    assert found.symmetry_residual_GPa < 1e-10
    assert found.lowest_optic_eV_A2 is None


def test_symmetry_changes_nothing_but_the_work():
    of, crystal, group, found = wurtzite()
    assert group.symbol == "P6_3mc"
    every = elastic_tensor(of, crystal)
    assert len(independent_strains(group)) < 6
    assert found.columns < every.columns == 18
    np.testing.assert_allclose(every.tensor_GPa, found.tensor_GPa, atol=1e-10)
    np.testing.assert_allclose(every.clamped_GPa, found.clamped_GPa, atol=1e-10)
    np.testing.assert_allclose(every.internal_strain, found.internal_strain, atol=1e-10)
    np.testing.assert_allclose(every.displacements, found.displacements, atol=1e-10)
    C = found.tensor_GPa
    np.testing.assert_allclose(C[5, 5], (C[0, 0] - C[0, 1]) / 2)  # hexagonal
    assert np.abs(found.clamped_GPa - C).max() > 1


@pytest.mark.slow
def test_any_cell_has_the_same_tensor():
    of, crystal, _, found = wurtzite()
    graph = of.graph(crystal, of.capacity(crystal))
    np.testing.assert_allclose(constants_of(of, crystal, graph), found.tensor_GPa, atol=1e-9)
    double = supercell(crystal, (2, 1, 1)).structure
    graph = of.graph(double, of.capacity(double))
    np.testing.assert_allclose(constants_of(of, double, graph), found.tensor_GPa, atol=1e-9)


def test_sound_is_that_of_the_force_constants():
    of, crystal, group, found = wurtzite()
    constants = hessian(of, supercell(crystal, (4, 4, 3)), group).force_constants
    expected = sound_velocities(constants, jnp.asarray(DIRECTIONS)).values
    waves = christoffel(found.tensor_GPa, density(crystal), DIRECTIONS)
    np.testing.assert_allclose(waves.velocities, expected, rtol=1e-7)


@pytest.mark.slow
def test_a_crystal_that_is_unstable_at_gamma_says_so():
    of = bonded()
    crystal, group = prepared(bulk("NaCl", "rocksalt", a=5.0), of)
    crystal = strained(crystal, 0.3 * jnp.eye(3))  # bonds beyond their inflection
    found = elastic_tensor(of, crystal, group)
    assert found.lowest_optic_eV_A2 < 0
    assert not found.stable
    assert any("unstable at Γ" in remark for remark in found.remarks)


def test_ions_without_stiffness_leave_the_tensor_undefined():
    n, rng = 2, np.random.default_rng(0)
    push = rng.normal(size=(n, 3, 6))
    push -= push.mean(axis=0)
    direction = np.array([[1.0, 0, 0], [-1.0, 0, 0]]).reshape(-1)
    others = np.kron([[1.0, -1], [-1, 1]], np.diag([0.0, 1, 1]))
    assert not ions_can_answer(others, push)
    assert ions_can_answer(others, push - push * np.array([1, 0, 0])[:, None])
    assert ions_can_answer(others + np.outer(direction, direction), push)
    C, u = relaxed_ions(
        jnp.eye(6), jnp.asarray(push), jnp.asarray(others + np.outer(direction, direction)), 2.0
    )
    inverse = np.linalg.pinv(others + np.outer(direction, direction))
    expected = np.eye(6) - push.reshape(6, 6).T @ inverse @ push.reshape(6, 6) / 2
    np.testing.assert_allclose(C, expected, atol=1e-12)
    np.testing.assert_allclose(u.reshape(6, 6), inverse @ push.reshape(6, 6), atol=1e-12)


@pytest.mark.slow
def test_the_tensor_is_differentiable():
    of, crystal, _, _ = wurtzite()
    graph = of.graph(crystal, of.capacity(crystal))
    rng = np.random.default_rng(0)
    move, bend = (0.1 * rng.normal(size=s) for s in ((4, 3), (3, 3)))

    @jax.jit
    def of_scale(scale):
        moved = strained(replace(crystal, positions=crystal.positions + scale * move), scale * bend)
        params = jax.tree.map(lambda x: x * (1 + 0.1 * scale), of.params)
        return elastic_constants(replace(of, params=params), moved, graph)

    _, slope = jax.jit(lambda x: jax.jvp(of_scale, (x,), (1.0,)))(0.0)
    expected = (of_scale(1e-5) - of_scale(-1e-5)) / 2e-5
    np.testing.assert_allclose(slope, expected, atol=1e-6 * np.abs(expected).max())


def test_errors_say_what_to_do():
    of, crystal, group, _ = wurtzite()
    with pytest.raises(InputError, match="elastic_tensor_from_strain"):
        elastic_tensor(replace(of, derivatives=1), crystal, group)
    with pytest.raises(InputError, match="a strain of 0"):
        elastic_tensor_from_strain(of, crystal, group, step=0.0)
    with pytest.raises(InputError, match="width -1"):
        elastic_tensor(of, crystal, group, width=-1.0)
    with pytest.raises(InputError, match="elements"):
        elastic_tensor(potential("lj:Ar"), crystal, group)
    no_stress = replace(
        predicted(of),
        predict=lambda p, c, g: (0.0 * c.volume, 0.0 * c.positions, jnp.full((3, 3), jnp.nan)),
    )
    with pytest.raises(InputError, match="stress"):
        elastic_tensor_from_strain(no_stress, crystal, group)
