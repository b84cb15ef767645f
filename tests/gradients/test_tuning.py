"""Potentials fitted to phonons: gradients against finite differences, parameters found again."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.bloch import exact_dynamical_matrices
from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.gradients.misfits import force_constant_misfit, frequency_misfit, smooth_frequency
from phojax.gradients.route import by_waves
from phojax.gradients.total import vibrations
from phojax.gradients.tuning import Target, chosen_parameters, held, misfit_and_gradient, tuned
from phojax.implicit import minimum
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.potentials.parameter_files import with_leaves
from phojax.structure import structure, supercell
from phojax.symmetry import space_group
from phojax.units import THZ, frequency_THz

TRUE = {"A": 1092.3, "rho": 0.321, "charge": 1.0}


def salt():
    repulsion = buckingham({("Na", "Cl"): (1000.0, 0.32, 0.0)}, cutoff=7.0)
    return summed(repulsion, ewald({"Na": 1.0, "Cl": -1.0}, cutoff=6.0))


def made(values):
    """Return point ions with three parameters, each in units of its true value.

    "A" is the repulsion at 2.8 Å: what it should be hardly depends on the others.
    """
    both = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    contact = jnp.exp(2.8 / TRUE["rho"] * (1 / values["rho"] - 1))
    return with_leaves(salt(), {
        "0/A": TRUE["A"] * values["A"] * contact * both,
        "0/rho": TRUE["rho"] * values["rho"] * both + jnp.eye(2),
        "1/charges": TRUE["charge"] * values["charge"] * jnp.array([1.0, -1.0]),
    })  # fmt: skip


def all_at(value):
    return {name: jnp.asarray(value) for name in TRUE}


def rock_salt(h=2.8):
    return structure([[0, h, h], [h, 0, h], [h, h, 0]], [[0, 0, 0], [h, h, h]], [11, 17])


@functools.cache
def target(kind, relaxed, half=2.8, divisions=(2, 2, 2)):
    """Return a crystal with the phonons of the true potential."""
    model, crystal = made(all_at(1.0)), rock_salt(half)
    group = space_group(crystal)
    route = by_waves(model, crystal, gamma_mesh(divisions, group), group)
    here = minimum(model, crystal, symmetry=group)[0] if relaxed else held(model, crystal)
    D = vibrations(here, route).matrices
    nu = np.asarray(frequency_THz(jnp.linalg.eigvalsh(D)))
    misfit = force_constant_misfit(D) if kind == "matrices" else frequency_misfit(nu)
    return Target(f"{kind}, relaxed: {relaxed}", crystal, route, misfit, relaxed)


@pytest.mark.parametrize("kind", ["matrices", "frequencies"])
@pytest.mark.parametrize("relaxed", [False, True])
def test_gradients_of_misfits(kind, relaxed):
    """At degenerate bands, with and without the relaxation, against central differences."""
    given = target(kind, relaxed)
    at = {"A": jnp.asarray(1.05), "rho": jnp.asarray(0.97), "charge": jnp.asarray(0.98)}
    value, slopes, converged = misfit_and_gradient(given, made, at)
    assert converged
    assert value > 1e-4
    assert slopes is not None

    def along(name, t):
        there = {**at, name: at[name] + t}
        return misfit_and_gradient(given, made, there, gradient=False)[0]

    for name in TRUE:
        h = 1e-3
        wide, close = ((along(name, s) - along(name, -s)) / (2 * s) for s in (h, h / 2))
        np.testing.assert_allclose(slopes[name], (4 * close - wide) / 3, rtol=2e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "relaxed"), [("matrices", False), ("frequencies", True)])
def test_known_parameters_are_found_again(kind, relaxed):
    """From starts that are off by up to 10 %; at another volume the fit is as good."""
    other = replace(target("matrices", False, 2.75), name="held out")
    start = {"charge": jnp.asarray(1.1), "rho": jnp.asarray(1.05)}
    # A and ρ have much the same effect: both together would need another descent than Adam's.
    found = tuned(
        lambda values: made({**values, "A": jnp.asarray(1.0)}), start,
        [target(kind, relaxed)], [other], steps=120, rate=0.02,
    )  # fmt: skip
    for name, value in found.parameters.items():
        np.testing.assert_allclose(value, 1.0, atol=1e-3, err_msg=name)
    first, best = found.trail[0], found.trail[found.best]
    assert best["loss"] < 1e-5 * first["loss"]
    assert best["held_out"]["held out"] < 1e-4 * first["held_out"]["held out"]
    assert all(step["converged"] for step in found.trail)


@pytest.mark.slow
def test_the_misfit_of_matrices_is_that_of_force_constants_of_a_supercell():
    """Parseval, with waves that fit the supercell; and that of frequencies by hand."""
    model, off = made(all_at(1.0)), made({**all_at(1.0), "rho": jnp.asarray(0.99)})
    crystal = rock_salt()
    cells = supercell(crystal, (2, 2, 2)).structure

    def hessian(model):
        graph = model.graph(cells, model.capacity(cells))
        return jax.hessian(
            lambda x: model.energy(model.params, replace(cells, positions=x), graph)
        )(cells.positions)

    wanted = jnp.sum((hessian(off) - hessian(model)) ** 2) / jnp.sum(hessian(model) ** 2)
    given = target("matrices", False)
    found = given.misfit(vibrations(held(off, crystal), given.route))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)

    given = target("frequencies", False)
    q, weights = given.route.q, given.route.weights
    λ, true_λ = (np.linalg.eigvalsh(exact_dynamical_matrices(m, crystal, q)) for m in (off, model))
    np.testing.assert_allclose(λ[0, :3], 0, atol=1e-8)
    by_hand = 0.0
    for own, true, weight in zip(λ, true_λ, weights, strict=True):
        level = THZ * np.sqrt(np.abs(true))
        for members in np.split(np.arange(6), np.flatnonzero(np.diff(level) > 0.01) + 1):
            apart = THZ * (np.sqrt(abs(own[members].mean())) - np.sqrt(abs(true[members].mean())))
            by_hand += weight * len(members) * apart**2 / 6
    found = given.misfit(vibrations(held(off, crystal), given.route))
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_frequencies_that_are_not_known_and_groups():
    crystal, model = rock_salt(), made(all_at(1.0))
    route = by_waves(model, crystal, gamma_mesh((2, 2, 2), space_group(crystal)),
                     space_group(crystal))  # fmt: skip
    found = vibrations(held(model, crystal), route)
    nu = np.asarray(frequency_THz(jnp.linalg.eigvalsh(found.matrices)))
    some = np.where(np.arange(6) < 2, nan := np.nan, nu)
    np.testing.assert_allclose(frequency_misfit(some)(found), 0, atol=1e-10)
    some[:, 5] = nu[:, 5] + 0.3
    wanted = np.sum(route.weights) * 0.3**2 / (4 * np.sum(route.weights))
    # At Γ and L the highest band moves out of its group, with which it is degenerate at Γ.
    np.testing.assert_allclose(frequency_misfit(some)(found), wanted, rtol=1e-4)
    lam = jnp.asarray([-1.0, -4e-3, 4e-3, 1.0])
    np.testing.assert_allclose(smooth_frequency(lam), frequency_THz(lam), rtol=2e-6)
    assert jax.grad(smooth_frequency)(0.0) == pytest.approx(THZ / np.sqrt(1e-5))
    with pytest.raises(InputError, match="ascend"):
        frequency_misfit(nu[:, ::-1])
    with pytest.raises(InputError, match="without frequencies"):
        frequency_misfit(np.full((1, 6), nan))
    with pytest.raises(InputError, match="one per mode"):
        frequency_misfit(nu[:1])(found)


def test_a_descent_goes_on_where_it_was(tmp_path):
    given = target("matrices", False, divisions=(1, 1, 1))
    start, told = all_at(1.05), []
    how = {"steps": 6, "rate": 0.01, "pull": 0.1}

    class Stop(Exception):
        pass

    def stop(number, step):
        told.append(number)
        if number == 3:
            raise Stop

    whole = tuned(made, start, [given], **how)
    with pytest.raises(Stop):
        tuned(made, start, [given], folder=tmp_path, on_step=stop, **how)
    rest = tuned(made, start, [given], folder=tmp_path, on_step=lambda n, _: told.append(n), **how)
    assert told == [1, 2, 3, 4, 5, 6]
    assert rest.best == whole.best
    for name in TRUE:
        np.testing.assert_array_equal(rest.parameters[name], whole.parameters[name])
    np.testing.assert_array_equal([s["loss"] for s in rest.trail], [s["loss"] for s in whole.trail])
    assert whole.trail[0]["pull"] == 0
    assert whole.trail[-1]["pull"] > 0


def test_some_leaves_alone_change():
    model = salt()
    start, place = chosen_parameters(model, lambda name: name.endswith("rho"))
    assert list(start) == ["0/rho"]
    moved = place({"0/rho": start["0/rho"] * 2})
    np.testing.assert_array_equal(moved.params[0]["rho"], 2 * model.params[0]["rho"])
    assert moved.params[0]["A"] is model.params[0]["A"]
    with pytest.raises(InputError, match="0/A"):
        chosen_parameters(model, lambda name: False)
    with pytest.raises(InputError, match="shape"):
        place({"0/rho": jnp.zeros(3)})
    given = target("matrices", False, divisions=(1, 1, 1))
    with pytest.raises(InputError, match="2 steps"):
        tuned(place, start, [given], steps=1)
    with pytest.raises(InputError, match="names of their own"):
        tuned(place, start, [given], [given], steps=2)
