"""Densities of states from velocities: sums over origins, known lines, a chain, Brownian motion."""

import numpy as np
import pytest
from scipy import constants

from phojax.checks import InputError
from phojax.md.trajectory import Trajectory
from phojax.md.vdos import (
    KELVIN,
    VibrationalDos,
    vdos,
    vdos_from_vacf,
    velocity_autocorrelation,
)

CELL = np.eye(3) * 20.0


def _trajectory(positions, velocities, numbers, masses, interval) -> Trajectory:
    return Trajectory(positions, CELL, np.array(numbers), np.array(masses), interval, velocities)


def _moved(run: Trajectory) -> Trajectory:
    """Return the run without its velocities."""
    return Trajectory(run.positions, run.cell, run.numbers, run.masses, run.interval_ps)


def _oscillators(lines, frames=6000, interval=0.01) -> Trajectory:
    """Return pairs of atoms that circle each other, one frequency (THz) per pair.

    On a circle v(t)·v(t + τ) does not depend on t: no time average is needed.
    """
    t = np.arange(frames) * interval
    r, v, z, m = [], [], [], []
    for number, (nu, mass) in enumerate(lines):
        omega = 2 * np.pi * nu
        around = np.stack([np.cos(omega * t), np.sin(omega * t), 0 * t], axis=1)
        along = np.stack([-np.sin(omega * t), np.cos(omega * t), 0 * t], axis=1)
        r += [s * around / omega / np.sqrt(mass) for s in (1, -1)]
        v += [s * along / np.sqrt(mass) for s in (1, -1)]
        z += [number + 3] * 2
        m += [mass] * 2
    return _trajectory(np.stack(r, 1), np.stack(v, 1), z, m, interval)


def test_all_origins_against_sums_one_by_one():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(50, 20, 3)) + np.arange(50)[:, None, None] * 0.1
    masses, numbers = rng.uniform(1, 30, 20), rng.integers(3, 6, 20)
    found = velocity_autocorrelation(_trajectory(v, v, numbers, masses, 0.1), longest_ps=2.0)
    u = v - np.einsum("i,tia->ta", masses / masses.sum(), v)[:, None]
    for lag in (0, 1, 7, 20):
        products = np.einsum("tia,tia->ti", u[: 50 - lag], u[lag:]).mean(axis=0) * masses
        expected = [products[numbers == z].sum() for z in (3, 4, 5)]
        np.testing.assert_allclose(found.values[lag], expected, rtol=1e-10)
    assert len(found.values) == 21
    assert found.species == (3, 4, 5)
    assert sum(found.atoms) == 20


def test_one_line_is_where_it_belongs_and_as_wide_as_the_window_says():
    found = vdos(_oscillators([(5.0, 10.0)]), window_ps=10.0)
    nu, g = found.frequencies_THz, found.density[:, 0]
    assert nu[np.argmax(g)] == pytest.approx(5.0, abs=nu[1])
    above = nu[g > g.max() / 2]
    assert above[-1] - above[0] == pytest.approx(found.resolution_THz, abs=2 * nu[1])
    assert np.trapezoid(g, nu) == pytest.approx(1, abs=1e-9)
    assert found.centre_all_THz[0] == pytest.approx(5.0, abs=2e-3)
    assert found.centre_vibrational_THz[0] == pytest.approx(5.0, abs=2e-3)
    assert g.min() > -0.03 * g.max()


def test_lines_of_several_species_and_their_total():
    lines = [(2.0, 7.0), (6.0, 20.0), (11.0, 40.0)]
    found = vdos(_oscillators(lines))
    assert found.species == (3, 4, 5, 0)
    np.testing.assert_allclose(found.centre_all_THz, [2, 6, 11, 19 / 3], rtol=2e-3)
    # each pair has the same kinetic energy: the total is the plain mean
    np.testing.assert_allclose(found.density[:, 3], found.density[:, :3].mean(axis=1), atol=2e-3)


def test_differences_of_positions_are_corrected():
    run = _oscillators([(2.0, 7.0), (6.0, 20.0), (11.0, 40.0)], frames=3000, interval=0.02)
    exact, differenced = vdos(run), vdos(_moved(run))
    assert differenced.differenced
    assert not exact.differenced
    assert "sin x" in differenced.notes[0]
    raw = velocity_autocorrelation(_moved(run))
    seen = np.sinc(2 * np.array([2.0, 6.0, 11.0]) * 0.02) ** 2  # 0.98, 0.83, 0.51
    np.testing.assert_allclose(raw.values[0], 2 * seen, rtol=1e-6)
    nu = differenced.frequencies_THz
    assert nu[-1] == pytest.approx(0.75 * 25, abs=0.1)
    np.testing.assert_allclose(differenced.centre_all_THz, exact.centre_all_THz, rtol=5e-3)
    np.testing.assert_allclose(
        differenced.density[:, :3], exact.density[: len(nu), :3], atol=0.03 * exact.density.max()
    )


def test_a_classical_chain_has_the_mean_frequency_of_its_modes():
    """Two species on a chain of springs in three independent directions, modes drawn at k_B T."""
    cells, T = 8, 300.0
    masses = np.tile([23.0, 35.5], cells)
    n = len(masses)
    k = 1.5e4  # amu / ps²
    laplace = 2 * np.eye(n) - np.roll(np.eye(n), 1, 1) - np.roll(np.eye(n), -1, 1)
    omega2, e = np.linalg.eigh(k * laplace / np.sqrt(np.outer(masses, masses)))
    omega, e = np.sqrt(omega2[1:]), e[:, 1:]  # without the translation
    nu = omega / (2 * np.pi)
    interval, frames = 0.02, 12000
    t = np.arange(frames) * interval
    rng = np.random.default_rng(3)
    # energy k_B T in every mode and direction: a run of this length does not mix them anyway
    size = np.sqrt(2 * T / KELVIN) / omega
    phase = rng.uniform(0, 2 * np.pi, (3, n - 1))
    angle = omega[:, None] * t + phase[..., None]  # axis, mode, time
    shape = e / np.sqrt(masses)[:, None]
    r = np.einsum("in,n,ant->tia", shape, size, np.sin(angle))
    v = np.einsum("in,n,ant->tia", shape, size * omega, np.cos(angle))
    run = _trajectory(r, v, np.tile([11, 17], cells), masses, interval)
    correlation = velocity_autocorrelation(run, longest_ps=20.0)
    found = vdos(run, window_ps=20.0)
    weights = np.stack([np.sum(e[i::2] ** 2, axis=0) for i in (0, 1)] + [np.ones(n - 1)])
    expected = weights @ nu / weights.sum(axis=1)
    assert abs(expected[0] - expected[1]) > 0.2  # the species differ
    np.testing.assert_allclose(found.centre_all_THz, expected, rtol=4e-3)
    np.testing.assert_allclose(
        correlation.temperatures_K, T * weights[:2].sum(axis=1) / cells, rtol=0.01
    )
    np.testing.assert_allclose(
        vdos(_moved(run), window_ps=20.0).centre_all_THz, expected, rtol=6e-3
    )


def test_brownian_motion_gives_its_diffusion_coefficient():
    """C = 3kT exp(-γτ): g(0) = 4/γ within the window, D = kT/mγ, and a share below 0.1 THz."""
    gamma, interval = 2.0, 0.02
    tau = np.arange(1001) * interval
    found = vdos_from_vacf(3 * np.exp(-gamma * tau)[:, None], interval, (3,))
    nu = found.frequencies_THz
    inside = nu < 5
    lorentz = 4 * gamma / (gamma**2 + (2 * np.pi * nu) ** 2)
    np.testing.assert_allclose(found.density[inside, 0], lorentz[inside], atol=0.01 * lorentz[0])
    expected = 2 / np.pi * np.arctan(2 * np.pi * 0.1 / gamma)
    assert found.diffusive_share[0] == pytest.approx(expected, rel=0.01)
    assert found.centre_vibrational_THz[0] > found.centre_all_THz[0]


def test_the_tail_that_friction_gives_is_cut_off():
    """A damped oscillator at 5 THz: its centre grows with the grid unless the integral ends."""
    gamma, nu = 2.0, 5.0
    omega = np.sqrt((2 * np.pi * nu) ** 2 - gamma**2 / 4)
    centres, tails = [], []
    for interval in (0.01, 0.0025):
        t = np.arange(round(12 / interval)) * interval
        swing = np.cos(omega * t) - gamma / (2 * omega) * np.sin(omega * t)
        vacf = (np.exp(-gamma * t / 2) * swing)[:, None]
        found = vdos_from_vacf(vacf, interval, (3,), window_ps=10.0)
        ended = vdos_from_vacf(vacf, interval, (3,), window_ps=10.0, highest_THz=20.0)
        centres.append(found.centre_all_THz[0])
        tails.append(ended.centre_all_THz[0])
        assert "above 20 THz" in ended.notes[-1]
    # from 50 to 200 THz; on the coarser grid what lies beyond 50 THz is folded back
    assert 0.5 < (centres[1] - centres[0]) / (gamma / np.pi**2 * np.log(4)) < 1.2
    assert abs(tails[1] - tails[0]) < 0.02
    assert tails[1] < centres[1] - 0.4


def test_both_centres_where_part_diffuses():
    tau = np.arange(2001) * 0.01
    both = 1 + np.cos(2 * np.pi * 4 * tau)
    found = vdos_from_vacf(both[:, None], 0.01, (11,), window_ps=20.0)
    assert found.centre_all_THz[0] == pytest.approx(2.0, rel=0.01)
    assert found.centre_vibrational_THz[0] == pytest.approx(4.0, rel=0.01)
    assert found.diffusive_share[0] == pytest.approx(0.5, abs=0.02)


def test_units_of_temperature():
    assert pytest.approx(constants.atomic_mass * 1e4 / constants.k) == KELVIN


def test_what_cannot_be_resolved_is_said_and_bad_input_refused():
    run = _oscillators([(5.0, 10.0)], frames=400)
    found = vdos(run)
    assert isinstance(found, VibrationalDos)
    assert "allows a window of 2 ps" in found.notes[0]
    assert "not resolved" in found.notes[1]
    with pytest.raises(InputError, match="at least 8"):
        vdos(_oscillators([(5.0, 10.0)], frames=7))
    with pytest.raises(InputError, match="atoms that move"):
        vdos_from_vacf(np.zeros((9, 1)), 0.1, (3,))
    with pytest.raises(InputError, match="one column per species"):
        vdos_from_vacf(np.ones((9, 2)), 0.1, (3,))
    with pytest.raises(InputError, match="window"):
        vdos_from_vacf(np.ones((9, 1)), 0.1, (3,), window_ps=0.2)
