"""Thermal expansion of a nearest-neighbour crystal, against sums written out by hand and phonopy.

In fcc with pairs φ(r) of nearest neighbours alone, per atom,

    E = 6 φ(r),   D(q) = Σ_n (1 - cos q·R_n) [(φ'' - φ'/r) n n + φ'/r] / m

so that the free energy at any r is a few lines of numpy, minimised here over r itself.
"""

from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from phonopy import PhonopyQHA
from scipy.optimize import brentq

from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.finite_temperature.quasiharmonic import (
    BEYOND,
    CROSSING,
    NO_MINIMUM,
    UNSTABLE,
    first_order,
    states,
)
from phojax.finite_temperature.strain_expansion import StaticEnergy, expanded
from phojax.finite_temperature.strained_matrices import (
    gruneisen_of_volume,
    gruneisen_tensors,
    vibrational_part,
)
from phojax.finite_temperature.thermal_expansion import thermal_expansion
from phojax.gradients.route import by_waves
from phojax.gruneisen import mean_gruneisen
from phojax.potentials.pair import morse
from phojax.structure import structure
from phojax.symmetry import space_group
from phojax.units import EV_PER_A3_IN_GPA, HBAR, KB

DEPTH, WIDTH, LENGTH = 0.343, 1.36, 2.87  # eV, 1/Å, Å: about copper
MESH = 4
TEMPERATURES = [0.0, 10.0, 100.0, 300.0, 600.0, 900.0]


def bonds():
    """Return the potential: nothing but nearest neighbours, the switch beyond them."""
    return morse(
        {("Cu", "Cu"): (DEPTH, WIDTH, LENGTH)}, onset=1.25 * LENGTH, cutoff=1.38 * LENGTH
    )  # fmt: skip


def crystal():
    half = LENGTH / np.sqrt(2)
    return structure(half * (1 - np.eye(3)), np.zeros((1, 3)), [29])


# --- by hand -----------------------------------------------------------------------------------


def derivatives(r):
    """Return φ, φ' and φ''."""
    x = np.exp(-WIDTH * (r - LENGTH))
    return (
        DEPTH * ((1 - x) ** 2 - 1), 2 * DEPTH * WIDTH * (x - x**2),
        2 * DEPTH * WIDTH**2 * (2 * x**2 - x),
    )  # fmt: skip


@cache
def points():
    """Return fractional q of the whole mesh without Γ, and the twelve neighbours over r."""
    q = np.stack(np.meshgrid(*[np.arange(MESH) / MESH] * 3, indexing="ij"), -1).reshape(-1, 3)[1:]
    rows = (1 - np.eye(3)) / np.sqrt(2)
    images = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)])
    images = images[np.isclose(np.linalg.norm(images @ rows, axis=1), 1)]
    assert len(images) == 12
    return 1 - np.cos(2 * np.pi * q @ images.T), images @ rows


def frequencies(r):
    """Return ħω in eV, (q, 3)."""
    waves, n = points()
    _, slope, bend = derivatives(r)
    along = np.einsum("ni,nj->nij", n, n)
    each = (bend - slope / r) * along + slope / r * np.eye(3)
    D = np.einsum("qn,nij->qij", waves, each) / float(crystal().masses[0])
    return HBAR * np.sqrt(np.linalg.eigvalsh(D))


def free_energy(r, T):
    """Return E + F in eV per atom."""
    e = frequencies(r)
    thermal = 0.0 if T == 0 else KB * T * np.log1p(-np.exp(-e / (KB * T))).sum()
    return 6 * derivatives(r)[0] + (e.sum() / 2 + thermal) / MESH**3


def slope_of(f, x, h):
    return (8 * (f(x + h) - f(x - h)) - f(x + 2 * h) + f(x - 2 * h)) / (12 * h)


def length_at(T):
    def pull(r):
        return slope_of(lambda x: free_energy(x, T), r, 1e-3)

    return brentq(pull, LENGTH, 1.06 * LENGTH, xtol=1e-12)


def volume_of(r):
    return r**3 / np.sqrt(2)


# --- tests -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copper():
    group = space_group(crystal())
    mesh = gamma_mesh((MESH,) * 3, group)
    return thermal_expansion(bonds(), crystal(), mesh, group, TEMPERATURES)


@pytest.fixture(scope="module")
def static(copper):
    return StaticEnergy(bonds(), copper.at_rest, space_group(crystal()))


def test_cells_are_those_of_the_free_energy_written_out(copper):
    assert copper.relaxation.converged
    for state in copper.states:
        T = state.temperature
        r = length_at(T)
        assert state.flags == ()
        grown = r / LENGTH - 1
        assert (state.volume / volume_of(LENGTH)) ** (1 / 3) - 1 == pytest.approx(grown, rel=1e-5)
        assert state.free_energy == pytest.approx(free_energy(r, T), abs=2e-8)
        if T < 50:
            continue
        alpha = 3 * slope_of(length_at, T, 2.0) / r
        # Between the two expansions; the hottest cell is 1 % of its strain beyond the second one.
        close = 3e-5 if T < 900 else 5e-4
        assert state.volume_expansion == pytest.approx(alpha, rel=close)
        np.testing.assert_allclose(state.expansion, np.eye(3) * alpha / 3, rtol=close, atol=1e-12)

        def pressure(x, T=T):
            return -slope_of(lambda x: free_energy(x, T), x, 1e-3) / (3 * x**2 / np.sqrt(2))

        bulk = -r / 3 * slope_of(pressure, r, 2e-3) * EV_PER_A3_IN_GPA
        assert state.bulk_modulus_GPa == pytest.approx(bulk, rel=5e-4)
        # C_p = -T d²G/dT² with G the free energy at its minimum.
        h = 0.02 * T
        G = [free_energy(length_at(t), t) for t in (T - h, T, T + h)]
        assert state.heat_capacity_pressure == pytest.approx(
            -T * (G[0] - 2 * G[1] + G[2]) / h**2, rel=1e-3
        )
        both = T * state.volume * state.volume_expansion**2 * state.bulk_modulus_GPa
        apart = state.heat_capacity_pressure - state.heat_capacity_volume
        assert apart == pytest.approx(both / EV_PER_A3_IN_GPA, rel=1e-9)
        # In a cubic crystal, nothing but the volume changes.
        assert state.heat_capacity_volume == pytest.approx(state.heat_capacity_strain, rel=1e-9)
    # What two polynomials in strain differ by stays small as well.
    doubt = copper.difference[2:] / [state.volume_expansion for state in copper.states[2:]]
    assert np.all(doubt < 2e-3)


def test_the_expansion_ends_with_the_temperature(copper):
    """α → 0 as T → 0 (third law); the zero-point energy expands the crystal."""
    cold, cool = copper.states[:2]
    assert cold.volume_expansion == 0
    assert abs(cool.volume_expansion) < 1e-3 * copper.states[3].volume_expansion
    assert cold.volume > float(copper.at_rest.volume)
    assert copper.first_order[0].volume_expansion == 0


def test_first_order_is_grueneisens_law(copper):
    """α_V = γ C / (B V), each of its factors by other means."""
    bulk = LENGTH**2 / (9 * volume_of(LENGTH)) * 6 * derivatives(LENGTH)[2]
    modes, gamma = gruneisen_of_volume(copper.matrices)
    _, tensors = gruneisen_tensors(copper.matrices)
    h = 1e-3 * LENGTH
    low, middle, high = (np.log(frequencies(r)) for r in (LENGTH - h, LENGTH, LENGTH + h))
    by_hand = -(high - low) / (2 * 3 * 1e-3)
    weights = np.exp(middle) / KB
    for first in copper.first_order[2:]:
        T, V = first.temperature, float(copper.at_rest.volume)
        x = weights / T
        C = x**2 * np.exp(x) / np.expm1(x) ** 2
        mean = np.sum(C * by_hand) / np.sum(C)
        assert mean_gruneisen(modes, gamma, T) == pytest.approx(mean, rel=5e-5)
        np.testing.assert_allclose(first.gruneisen, mean * np.eye(3), rtol=5e-5, atol=1e-9)
        expected = mean * KB * C.sum() / MESH**3 / (bulk * V)
        assert first.volume_expansion == pytest.approx(expected, rel=1e-4)
    # An isotropic strain changes a mode by the mean of its tensor, block by block.
    trace = jnp.trace(tensors, axis1=-2, axis2=-1) / 3
    np.testing.assert_allclose(
        jnp.nansum(trace, axis=1), jnp.nansum(gamma, axis=1), rtol=1e-6, atol=1e-6
    )


def test_phonopys_fit_through_many_volumes_finds_the_same(copper):
    """An equation of state fitted to eleven volumes: another method, another program."""
    lengths = LENGTH * np.linspace(0.995, 1.025, 11)
    T = np.arange(0, 930, 10.0)
    kJ = 96.48533212
    e = np.stack([frequencies(r) for r in lengths])

    def thermal(f):
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            values = [np.nan_to_num(f(e / max(KB * t, 1e-9))).sum(axis=(1, 2)) for t in T]
        return np.stack(values) / MESH**3

    F = e.sum(axis=(1, 2)) / 2 / MESH**3 + KB * T[:, None] * thermal(
        lambda x: np.log1p(-np.exp(-x))
    )
    S = KB * thermal(lambda x: x / np.expm1(x) - np.log1p(-np.exp(-x)))
    C = KB * thermal(lambda x: x**2 * np.exp(-x) / np.expm1(-x) ** 2)
    found = PhonopyQHA(
        volumes=volume_of(lengths), electronic_energies=6 * derivatives(lengths)[0],
        temperatures=T, free_energy=kJ * F, cv=1e3 * kJ * C, entropy=1e3 * kJ * S,
        eos="vinet", t_max=900, verbose=False,
    )  # fmt: skip
    for state in copper.states[3:5]:
        at = int(state.temperature / 10)
        assert found.volume_temperature[at] == pytest.approx(state.volume, rel=2e-4)
        assert found.thermal_expansion[at] == pytest.approx(state.volume_expansion, rel=0.01)
        assert found.bulk_modulus_temperature[at] == pytest.approx(state.bulk_modulus_GPa, rel=0.02)


@pytest.mark.slow
def test_forward_mode_is_what_differences_tend_to(copper, static):
    group = space_group(crystal())
    route = by_waves(bonds(), copper.at_rest, gamma_mesh((MESH,) * 3, group), group)
    exact = expanded(static, route, step=None)
    errors = []
    for step in (0.002, 0.001):
        found = expanded(static, route, step=step)
        np.testing.assert_allclose(found.value, exact.value, atol=1e-12)
        errors.append([
            float(jnp.abs(a - b).max() / jnp.abs(a).max())
            for a, b in ((exact.first, found.first), (exact.second, found.second))
        ])  # fmt: skip
    assert np.all(np.array(errors[1]) < 3e-4)
    np.testing.assert_allclose(np.divide(*errors), 4, rtol=0.02)  # as the square of the step


def test_what_speaks_against_a_cell_is_flagged(copper, static):
    found = states(static, copper.matrices, [6000.0, 300.0, 8000.0])
    assert [NO_MINIMUM in state.flags for state in found] == [True, False, True]
    assert np.isnan(found[0].volume)
    assert np.all(np.isnan(found[2].expansion))
    near = replace(copper.matrices, reach=jnp.asarray(1e-4))
    assert states(static, near, [300.0])[0].flags == (BEYOND,)
    # The softest mode by hand: λ falls so fast with strain that it is gone at 900 K.
    soft = replace(copper.matrices, first=40 * copper.matrices.first)
    s = jnp.asarray([0.05])
    assert soft.count_left_out(s) > soft.count_left_out(0 * s) == 0
    pushed = replace(copper.matrices, value=copper.matrices.value - 0.05 * jnp.eye(3))
    [state] = states(static, pushed, [100.0])
    assert UNSTABLE in state.flags
    assert state.left_out == int(pushed.count_left_out(jnp.zeros(1))) > 0
    assert CROSSING not in found[1].flags


def test_derivatives_of_the_free_energy(copper):
    """In strain, against differences; of S against that of F in temperature."""
    s, h = jnp.asarray([0.01]), 1e-4

    def F(s, T=300.0):
        return float(copper.matrices.thermodynamics(s, T).free_energy)

    part = vibrational_part(copper.matrices, s, 300.0)
    assert float(part.by_strain[0]) == pytest.approx((F(s + h) - F(s - h)) / (2 * h), rel=1e-5)
    assert float(part.by_strain_twice[0, 0]) == pytest.approx(
        (F(s + h) - 2 * F(s) + F(s - h)) / h**2, rel=1e-3
    )
    warm, cool = (vibrational_part(copper.matrices, s, 300 + d).by_strain[0] for d in (0.1, -0.1))
    assert float(part.entropy_by_strain[0]) == pytest.approx(float(cool - warm) / 0.2, rel=1e-5)


def test_bad_input(static, copper):
    with pytest.raises(InputError, match="temperatures"):
        states(static, copper.matrices, [-1.0])
    with pytest.raises(InputError, match="temperatures"):
        first_order(static, copper.matrices, [])
    group = space_group(crystal())
    route = by_waves(bonds(), copper.at_rest, gamma_mesh((MESH,) * 3, group), group)
    with pytest.raises(InputError, match="strains of"):
        expanded(static, route, step=0.5)
