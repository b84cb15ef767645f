"""Mixtures: pure compounds at the vertices, derivatives in between."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.bloch import exact_dynamical_matrices
from phojax.checks import InputError
from phojax.forces import energy, evaluate
from phojax.potentials.alchemy import mixed_crystal, with_mixtures
from phojax.potentials.catalogue import potential
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.structure import structure

HALIDES = ("Cl", "Br", "I")
RADII = {"Cl": 0.321, "Br": 0.335, "I": 0.350}


def ions():
    repulsion = buckingham({("Na", x): (1092.3, rho, 0.0) for x, rho in RADII.items()}, cutoff=7.0)
    return summed(repulsion, ewald({"Na": 1.0, **dict.fromkeys(HALIDES, -1.0)}, cutoff=6.0))


def salt(halide="Cl"):
    h, z = 2.9, {"Cl": 17, "Br": 35, "I": 53}[halide]
    cell = [[0, h, h], [h, 0, h], [h, h, 0]]
    return structure(cell, [[0, 0, 0], [h + 0.1, h, h - 0.05]], [11, z])


def model(name):
    if name == "ions":
        return ions()
    if name == "chgnet":
        pytest.importorskip("chgnet", reason="weights of CHGNet: pip install --no-deps chgnet")
        return potential("chgnet").astype(jnp.float64)
    import pathlib

    file = pathlib.Path(__file__).parents[2].parent / "shared/models/nequix-mp-1-pft.nqx"
    if not file.exists():
        pytest.skip("no ../shared/models/nequix-mp-1-pft.nqx")
    return potential(f"nequix:{file}").astype(jnp.float64)


@pytest.mark.parametrize("name", ["ions", "chgnet", "nequix"])
def test_vertices_are_pure_compounds(name):
    pure = model(name)
    for number, halide in enumerate(HALIDES):
        shares = jnp.eye(3)[number][None]
        crystal = mixed_crystal(salt(), [-1, 0], HALIDES, shares)
        np.testing.assert_allclose(crystal.masses, salt(halide).masses, rtol=1e-14)
        assert crystal.symbols == ["Na", "X1"]
        mixed = with_mixtures(pure, HALIDES, shares)
        for a, b in zip(evaluate(mixed, crystal), evaluate(pure, salt(halide)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    q = np.array([[0.1, 0.2, 0.3]])
    np.testing.assert_allclose(
        exact_dynamical_matrices(mixed, crystal, q),
        exact_dynamical_matrices(pure, salt("I"), q), atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["ions", "chgnet", "nequix"])
def test_energy_and_forces_have_derivatives_in_the_shares(name):
    pure = model(name)
    shares = jnp.asarray([[0.5, 0.3, 0.2]])
    crystal = mixed_crystal(salt(), [-1, 0], HALIDES, shares)
    mixed = with_mixtures(pure, HALIDES, shares)
    graph = mixed.graph(crystal, mixed.capacity(crystal))

    @jax.jit
    def of(shares):
        there = replace(mixed, params={**mixed.params, "shares": shares})

        def at(x):
            return energy(there, replace(crystal, positions=x), graph)

        value, slope = jax.value_and_grad(at)(crystal.positions)
        return value + jnp.sum(slope[0] * jnp.asarray([1.0, 2.0, 3.0]))

    direction = jnp.asarray([[1.0, -0.4, -0.6]])
    found = jax.grad(of)(shares)

    def central(h):
        return (of(shares + h * direction) - of(shares - h * direction)) / (2 * h)

    wanted = (4 * central(1e-5) - central(2e-5)) / 3
    np.testing.assert_allclose(jnp.sum(found * direction), wanted, rtol=1e-6)


def test_a_mixture_of_pairs_is_the_mean_over_both_ends():
    """Two atoms that are each half Cl, half Br: a quarter of each pure pair."""
    pairs = {("Cl", "Cl"): (1000.0, 0.3, 0.0), ("Br", "Br"): (900.0, 0.35, 0.0),
             ("Br", "Cl"): (950.0, 0.32, 0.0)}  # fmt: skip
    pure = buckingham(pairs, cutoff=5.0)

    def dimer(a, b):
        return structure(20 * np.eye(3), [[0, 0, 0], [0, 0, 3.0]], [a, b])

    shares = jnp.asarray([[0.5, 0.5]])
    mixed = with_mixtures(pure, ("Cl", "Br"), shares)
    found = evaluate(mixed, mixed_crystal(dimer(17, 17), [0, 0], ("Cl", "Br"), shares))[0]
    wanted = np.mean([evaluate(pure, dimer(a, b))[0] for a in (17, 35) for b in (17, 35)])
    np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_bad_input():
    with pytest.raises(InputError, match="what could be mixed"):
        with_mixtures(replace(ions(), mixed=None), HALIDES, jnp.eye(3))
    with pytest.raises(InputError, match="knows"):
        with_mixtures(ions(), ("Cl", "F"), jnp.eye(2))
    with pytest.raises(InputError, match="shares"):
        with_mixtures(ions(), HALIDES, jnp.eye(2))
    with pytest.raises(InputError, match="sites"):
        mixed_crystal(salt(), [-1, 1], HALIDES, jnp.ones((1, 3)) / 3)
