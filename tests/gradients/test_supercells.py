"""Gradients through the averaged force constants of a supercell."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.average import averaged
from phojax.force_constants.hessian import averaged_surface, hessian
from phojax.gradients.route import by_waves
from phojax.gradients.supercells import by_supercell, route_for
from phojax.gradients.total import value_and_gradient, vibrations
from phojax.implicit import minimum, minimum_at
from phojax.potentials.alchemy import mixed_crystal, with_mixtures
from phojax.potentials.pair import buckingham
from phojax.relax import potential_surface
from phojax.structure import structure, supercell
from phojax.symmetry import space_group

KEY = jax.random.key(3)
PAIRS = {("Na", "Cl"): (1200.0, 0.3, 90.0), ("Na", "Br"): (1100.0, 0.32, 90.0),
         ("Cl", "Cl"): (800.0, 0.3, 10.0)}  # fmt: skip


def atoms():
    return buckingham(PAIRS, cutoff=5.5)


def cesium_chloride():
    return structure(3.0 * np.eye(3), [[0, 0, 0], [1.5, 1.5, 1.5]], [11, 17])


def soft(width, pairs, model=None):
    crystal = cesium_chloride()
    given = averaged(model or atoms(), supercell(crystal, (2, 2, 2)), width, pairs, KEY)
    return given, crystal, space_group(crystal)


def msd(found):
    return found.msd(found.crystal.numbers == 11, 300.0)


def differences(f, h):
    """Return f'(0) from central differences, to the fourth order."""
    wide, close = ((f(s) - f(-s)) / (2 * s) for s in (h, h / 2))
    return (4 * close - wide) / 3


@pytest.mark.parametrize(("width", "pairs"), [(0.0, 1), (0.05, 2)])
def test_energy_and_force_constants_are_those_of_the_averaged_hessian(width, pairs):
    given, crystal, group = soft(width, pairs)
    cells = supercell(crystal, (2, 2, 2))
    moved = replace(crystal, positions=crystal.positions + jnp.array([[0.02, 0, 0.01], [0, 0, 0]]))
    if width:
        of_average = averaged_surface(atoms(), cells, width, pairs, KEY)(moved)
        for found, expected in zip(potential_surface(given, moved)(moved), of_average, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-12)
    mesh = gamma_mesh((3, 3, 3), group)
    found = vibrations(minimum_at(given, crystal, symmetry=group),
                       by_supercell(given, crystal, mesh, group))  # fmt: skip
    by_hessian = hessian(atoms(), cells, group, width=width, pairs=pairs, key=KEY)
    D = dynamical_matrices(by_hessian.force_constants, jnp.asarray(mesh.q))
    np.testing.assert_allclose(found.matrices, D, atol=1e-12)


@pytest.mark.slow
def test_the_gradient_of_an_average_against_crystals_relaxed_again():
    given, start, group = soft(0.05, 1)
    mesh = gamma_mesh((3, 3, 3), group)

    def relaxed(model, pressure=0.0):
        here, how = minimum(model, start, symmetry=group, pressure=pressure,
                            stress_tolerance=1e-12)  # fmt: skip
        assert how.converged
        return here

    def after(model, pressure=0.0):
        here = relaxed(model, pressure)
        return float(msd(vibrations(here, route_for(model, here.crystal, mesh, group))))

    here = relaxed(given)
    found = value_and_gradient(msd, here, by_supercell(given, here.crystal, mesh, group))
    assert found.by_pressure is not None
    expected = differences(partial(after, given), 1e-4)
    np.testing.assert_allclose(found.by_pressure, expected, rtol=1e-5)
    leaves, form = jax.tree.flatten(given.params)
    slopes = jax.tree.leaves(found.by_parameters)

    def scaled(t):
        moved = [leaf * (1 + t * (k + 1)) for k, leaf in enumerate(leaves)]
        return replace(given, params=jax.tree.unflatten(form, moved))

    expected = differences(lambda t: after(scaled(t)), 1e-5)
    along = sum(float(np.sum(np.asarray(s) * np.asarray(leaf) * (k + 1)))
                for k, (s, leaf) in enumerate(zip(slopes, leaves, strict=True)))  # fmt: skip
    np.testing.assert_allclose(along, expected, rtol=1e-5)


def test_mixtures_of_an_average():
    """At a vertex the average of a mixture is that of the pure compound."""
    given, crystal, _ = soft(0.05, 1)
    mixed = with_mixtures(given, ("Cl", "Br"), np.array([[0.0, 1.0]]))
    sites = np.array([-1, 0])
    blend = mixed_crystal(crystal, sites, ("Cl", "Br"), jnp.array([[0.0, 1.0]]))
    pure = replace(crystal, numbers=jnp.array([11, 35]))
    (a, *_), (b, *_) = (
        potential_surface(model, at)(at) for model, at in ((mixed, blend), (given, pure))
    )
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_way_that_suits_the_potential():
    given, crystal, group = soft(0.0, 1)
    mesh = gamma_mesh((2, 2, 2), group)
    assert route_for(given, crystal, mesh, group).work == by_supercell(
        given, crystal, mesh, group
    ).work  # fmt: skip
    plain = route_for(atoms(), crystal, mesh, group)
    assert plain.work == by_waves(atoms(), crystal, mesh, group).work
    with pytest.raises(InputError, match="averaged"):
        by_supercell(atoms(), crystal, mesh, group)
    lopsided = averaged(atoms(), supercell(crystal, (2, 1, 1)), 0.0, 1, None)
    with pytest.raises(InputError, match="breaks the symmetry"):
        by_supercell(lopsided, crystal, mesh, group)
    with pytest.raises(InputError, match="key"):
        averaged(atoms(), supercell(crystal, (2, 1, 1)), 0.1, 1, None)
