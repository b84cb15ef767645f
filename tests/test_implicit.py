"""Derivatives of relaxed crystals, against crystals that are relaxed again."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.forces import energy
from phojax.implicit import minimum, minimum_at, relaxed, solved
from phojax.potentials.catalogue import potential
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham, lennard_jones
from phojax.structure import Structure, strained, structure
from phojax.symmetry import space_group, symmetrized

STEP = 2e-5


def rock_salt(a=5.6) -> Structure:
    h = a / 2
    return structure([[0, h, h], [h, 0, h], [h, h, 0]], [[0, 0, 0], [h, h, h]], [11, 17])


def ions(A=1092.3, rho=0.321):
    repulsion = buckingham(
        {("Na", "Cl"): (A, rho, 0.0), ("Cl", "Cl"): (1500.0, 0.33, 20.0)}, cutoff=7.0
    )
    return summed(repulsion, ewald({"Na": 1.0, "Cl": -1.0}, cutoff=6.0))


def three_pairs() -> Structure:
    """Return rock salt tripled along one axis, sheared, its atoms moved, one pair swapped."""
    a = 5.55
    h = a / 2
    cell = np.array([[0, h, h], [h, 0, h], [3 * h, 3 * h, 0]])
    x = [[0, 0, 0], [h, h, 0], [2 * h, 2 * h, 0], [h, h, h], [2 * h, 2 * h, h], [0, 0, h]]
    strain = [[0.01, 0.02, 0], [0.02, -0.01, 0.015], [0, 0.015, 0.005]]
    moved = np.array(x) + 0.05 * np.random.default_rng(1).normal(size=(6, 3))
    crystal = structure(cell, moved, [11, 11, 11, 17, 17, 17])
    return strained(crystal, jnp.asarray(strain))


def central(f, step=STEP):
    return (f(step) - f(-step)) / (2 * step)


def test_lattice_constant_under_pressure_and_with_parameters():
    model, group = ions(), space_group(rock_salt())
    here, how = minimum(model, rock_salt(), symmetry=group, pressure=0.01)
    assert how.converged
    assert here.dimension == 1
    assert here.lowest_curvature > 0

    def length(crystal):
        return jnp.linalg.norm(crystal.cell[0])

    def again(model, pressure=0.01):
        return length(minimum(model, rock_salt(), symmetry=group, pressure=pressure)[0].crystal)

    by_pressure = jax.grad(lambda p: length(relaxed(here, pressure=p)))(0.01)
    np.testing.assert_allclose(by_pressure, central(lambda d: again(model, 0.01 + d)), rtol=1e-6)
    # forward and reverse are the same
    forward = jax.jacfwd(lambda p: length(relaxed(here, pressure=p)))(0.01)
    np.testing.assert_allclose(by_pressure, forward, rtol=1e-12)

    by_params = jax.grad(lambda m: length(relaxed(here, potential=m)), allow_int=True)(model).params
    found = by_params[0]["rho"][0, 1] + by_params[0]["rho"][1, 0]
    np.testing.assert_allclose(found, central(lambda d: again(ions(rho=0.321 + d))), rtol=1e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_atoms_follow_an_imposed_strain(dense):
    model = ions()
    free, how = minimum(model, three_pairs(), force_tolerance=1e-6, stress_tolerance=1e-7)
    assert how.converged
    start = strained(free.crystal, jnp.asarray(np.diag([0.01, -0.005, 0.0])))
    here, how = minimum(model, start, cell=False, dense=dense)
    assert how.converged
    assert here.dimension == 3 * 6 - 3
    direction = np.array([[0.3, 0.2, 0.1], [0.2, -0.4, 0.0], [0.1, 0.0, 0.5]])

    def positions(t, crystal=here.crystal):
        again, how = minimum(model, strained(crystal, jnp.asarray(t * direction)), cell=False)
        assert how.converged
        x = np.asarray(again.crystal.positions)
        return x - x.mean(axis=0)

    def implicit(t):
        return relaxed(here, strain=t * jnp.asarray(direction)).positions

    found = jax.jacfwd(implicit)(0.0)
    wanted = central(positions)
    np.testing.assert_allclose(found - found.mean(axis=0), wanted, atol=1e-6 * abs(wanted).max())
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    by_reverse = jax.grad(lambda t: jnp.sum(weights * implicit(t)))(0.0)
    np.testing.assert_allclose(by_reverse, jnp.sum(weights * found), rtol=1e-8)
    b = jnp.asarray(np.random.default_rng(2).normal(size=here.dimension))
    _, took = solved(here, b)
    assert took.converged
    assert took.residual < 1e-8
    assert took.products == here.dimension if dense else took.products > 3


def test_the_slope_of_a_relaxed_energy_is_that_at_rest():
    """Along a path of minima dE/dp = -p dV/dp, and dE/dθ = ∂E/∂θ at p = 0 (Hellmann-Feynman)."""
    model = ions()
    here, _ = minimum(model, three_pairs(), pressure=0.02)

    def volume(p):
        return relaxed(here, pressure=p).volume

    def energy_at(p):
        return energy(model, relaxed(here, pressure=p), here.graph)

    np.testing.assert_allclose(
        jax.grad(energy_at)(0.02), -0.02 * jax.grad(volume)(0.02), rtol=1e-6
    )  # fmt: skip
    assert jax.grad(volume)(0.02) < 0
    unpressed, _ = minimum(model, three_pairs())

    def of_potential(model, crystal):
        return energy(model, crystal, unpressed.graph)

    total = jax.grad(lambda m: of_potential(m, relaxed(unpressed, potential=m)), allow_int=True)
    at_rest = jax.grad(lambda m: of_potential(m, unpressed.crystal), allow_int=True)
    for a, b in zip(jax.tree.leaves(total(model).params), jax.tree.leaves(at_rest(model).params),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_symmetry_is_kept():
    crystal = symmetrized(rock_salt(), space_group(rock_salt()))
    here = minimum_at(ions(), crystal, symmetry=space_group(crystal))
    assert here.displacements.shape == (6, 0)
    assert here.strains.shape == (9, 1)


def test_a_saddle_is_told():
    """An fcc crystal stretched to a body-centred one along Bain's path is no minimum."""
    a = 4.2
    bcc = structure(a / 2 * (np.ones((3, 3)) - 2 * np.eye(3)), [[0, 0, 0]], [18])
    model = lennard_jones({("Ar", "Ar"): (0.0104, 3.4)}, cutoff=8.5)
    kept, how = minimum(model, bcc, symmetry=space_group(bcc))
    assert how.converged
    here = minimum_at(model, kept.crystal)
    assert here.lowest_curvature < 0


def test_bad_input():
    here, _ = minimum(ions(), rock_salt(), cell=False)
    with pytest.raises(InputError, match="pressure on a cell"):
        relaxed(here, pressure=0.1)
    here, _ = minimum(ions(), rock_salt())
    with pytest.raises(InputError, match="strain imposed"):
        relaxed(here, strain=jnp.zeros((3, 3)))
    with pytest.raises(InputError, match="float64"):
        minimum(ions().astype(jnp.float32), rock_salt())
    forces = replace(potential("ions:NaCl"), predict=lambda *_: None)
    with pytest.raises(InputError, match="no energy"):
        minimum(forces, rock_salt())
