"""Gradients of functions of phonons, against phonons of crystals that are relaxed again."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from mixtures import mixable_pairs

from phojax.bloch import exact
from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.descriptors.displacements import displacement_tensor, oscillators
from phojax.descriptors.thermodynamics import thermodynamics_from_matrices
from phojax.gradients.route import by_waves
from phojax.gradients.total import value_and_gradient, vibrations
from phojax.gradients.vibrations import FLOOR
from phojax.implicit import minimum
from phojax.modes import modes
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.structure import strained, structure
from phojax.symmetry import space_group

T = 300.0


def ions(A=1092.3, rho=0.321):
    repulsion = buckingham(
        {("Na", "Cl"): (A, rho, 0.0), ("Cl", "Cl"): (1500.0, 0.33, 20.0)}, cutoff=7.0
    )
    return summed(repulsion, ewald({"Na": 1.0, "Cl": -1.0}, cutoff=6.0))


def rock_salt():
    h = 2.8
    return structure([[0, h, h], [h, 0, h], [h, h, 0]], [[0, 0, 0], [h, h, h]], [11, 17])


def wurtzite():
    """Return Na and Cl in P6₃mc: two lengths of the cell and one of the atoms are free."""
    a, c, u = 4.4, 6.6, 0.385
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    x = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, u], [2 / 3, 1 / 3, 0.5 + u]]
    return structure(cell, np.array(x) @ cell, [11, 11, 17, 17])


def sodium(found):
    return found.crystal.numbers == 11


def msd(found):
    return found.msd(sodium(found), T)


def msd_max(found):
    return found.msd_max(sodium(found), T)


def centre(found):
    return found.pdos_centre(sodium(found))


def top(found):
    return found.acoustic_top()


def free_energy(found):
    return found.free_energy(T)


def heat_capacity(found):
    return thermodynamics_from_matrices(
        found.matrices, found.q, found.weights, found.crystal, T, FLOOR
    ).heat_capacity


def softest(found):
    return found.lowest_eigenvalue_smooth()


OBJECTIVES = (msd, msd_max, centre, top, free_energy, heat_capacity, softest)


def values(here, route):
    found = vibrations(here, route)
    return np.array([float(f(found)) for f in OBJECTIVES])


def test_values_are_those_of_modes():
    model, crystal = mixable_pairs()
    group = space_group(crystal)
    here, _ = minimum(model, crystal, symmetry=group)
    reduced, full = gamma_mesh((4, 4, 4), group), gamma_mesh((4, 4, 4))
    found = values(here, by_waves(model, here.crystal, reduced, group))
    np.testing.assert_allclose(found, values(here, by_waves(model, here.crystal, full)), rtol=1e-8)
    all_modes = modes(
        exact(model, here.crystal), jnp.asarray(full.q), jnp.asarray(full.weights)
    )  # fmt: skip
    U = displacement_tensor(all_modes, T, oscillators(all_modes, FLOOR).kept)
    np.testing.assert_allclose(found[0], np.trace(U[0]), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("start", [rock_salt, wurtzite])
def test_gradients_of_relaxed_descriptors(start):
    """In pressure and in a parameter of the potential, the crystal following."""
    crystal = start()
    group = space_group(crystal)
    mesh = gamma_mesh((3, 3, 2), group)
    route = None

    def at(pressure=0.005, rho=0.321):
        model = ions(rho=rho)
        here, how = minimum(model, crystal, symmetry=group, pressure=pressure)
        assert how.converged
        return here

    here = at()
    route = by_waves(here.potential, here.crystal, mesh, group)
    assert vibrations(here, route).count_left_out() == 0
    h = 1e-4
    wanted = (values(at(pressure=0.005 + h), route) - values(at(pressure=0.005 - h), route)) / 2 / h
    half = h / 2
    closer = (
        values(at(pressure=0.005 + half), route) - values(at(pressure=0.005 - half), route)
    ) / h
    by_pressure = (4 * closer - wanted) / 3
    h = 2e-4
    by_rho = [
        (values(at(rho=0.321 + d), route) - values(at(rho=0.321 - d), route)) / (2 * d)
        for d in (h, h / 2)
    ]
    by_rho = (4 * by_rho[1] - by_rho[0]) / 3
    for number, objective in enumerate(OBJECTIVES):
        found = value_and_gradient(objective, here, route)
        rho = found.by_parameters[0]["rho"]
        assert found.solve.converged
        assert found.by_pressure is not None
        np.testing.assert_allclose(
            found.by_pressure, by_pressure[number], rtol=1e-5, err_msg=objective.__name__
        )
        np.testing.assert_allclose(
            rho[0, 1] + rho[1, 0], by_rho[number], rtol=1e-5, err_msg=objective.__name__
        )


@pytest.mark.slow
def test_gradients_at_rest_and_under_an_imposed_strain():
    """With no symmetry: every position and strain, and strain with the atoms following."""
    model = ions()
    crystal = strained(wurtzite(), jnp.asarray(np.diag([0.01, -0.01, 0.005])))
    direction = np.array([[0.3, 0.2, 0.1], [0.2, -0.4, 0.0], [0.1, 0.0, 0.5]])
    mesh = gamma_mesh((2, 1, 1))
    here, how = minimum(model, crystal, cell=False)
    assert how.converged
    route = by_waves(model, here.crystal, mesh)
    found = value_and_gradient(msd, here, route)

    def relaxed_again(t):
        again, how = minimum(model, strained(here.crystal, t * jnp.asarray(direction)), cell=False)
        assert how.converged
        return values(again, route)[0]

    def central(f, h):
        return (4 * (f(h / 2) - f(-h / 2)) / h - (f(h) - f(-h)) / (2 * h)) / 3

    wanted = central(relaxed_again, 2e-4)
    np.testing.assert_allclose(np.sum(found.by_strain * direction), wanted, rtol=1e-5)

    def at_rest(crystal):
        return values(replace(here, crystal=crystal), route)[0]

    wanted = central(lambda t: at_rest(strained(here.crystal, t * jnp.asarray(direction))), 2e-4)
    np.testing.assert_allclose(np.sum(found.at_rest_by_strain * direction), wanted, rtol=1e-5)
    moves = np.random.default_rng(0).normal(size=(4, 3))
    wanted = central(
        lambda t: at_rest(replace(here.crystal, positions=here.crystal.positions + t * moves)), 2e-3
    )
    np.testing.assert_allclose(np.sum(found.at_rest_by_positions * moves), wanted, rtol=1e-5)

    def heavier(t):
        masses = here.crystal.masses + t * jnp.asarray([1.0, 0.5, -1.0, 0.3])
        return values(replace(here, crystal=replace(here.crystal, masses=masses)), route)[0]

    wanted = central(heavier, 1e-2)
    np.testing.assert_allclose(found.by_masses @ [1.0, 0.5, -1.0, 0.3], wanted, rtol=1e-6)

    def on_matrices(t):
        turned = np.random.default_rng(1).normal(size=(2, *found.by_matrices.shape))
        change = turned[0] + 1j * turned[1]
        change = change + change.conj().swapaxes(1, 2)
        D = found.vibrations.matrices + 1e-3 * t * change
        return float(msd(replace(found.vibrations, matrices=D))), change * 1e-3

    change = on_matrices(0.0)[1]
    wanted = central(lambda t: on_matrices(t)[0], 1e-3)
    np.testing.assert_allclose(
        np.sum((found.by_matrices.conj() * change).real), wanted, rtol=1e-5
    )  # fmt: skip


def test_bad_input():
    model, crystal = mixable_pairs()
    group = space_group(crystal)
    here, _ = minimum(model, crystal, symmetry=group)
    with pytest.raises(InputError, match="reduced by symmetry"):
        by_waves(model, here.crystal, gamma_mesh((2, 2, 2), group))
    route = by_waves(model, here.crystal, gamma_mesh((2, 2, 2), group), group)
    with pytest.raises(InputError, match="a scalar"):
        value_and_gradient(lambda found: found.displacements(T), here, route)

    def of_one_eigenvector(found):
        from phojax.spectral import eigenpairs

        return jnp.sum(jnp.abs(eigenpairs(found.matrices)[1][..., 0, 0]) ** 2)

    with pytest.raises(InputError, match="not finite"):
        value_and_gradient(of_one_eigenvector, here, route)
