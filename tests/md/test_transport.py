"""What several temperatures say together, and what is wrong with a stated one."""

import numpy as np
import pytest
import walks
from scipy.signal import lfilter

from phojax.md.activation import activation
from phojax.md.observed import observed_of_trajectory
from phojax.md.trajectory import Trajectory
from phojax.md.transport import transport
from phojax.md.vdos import KELVIN

KB_meV = 0.08617333


def observed(ions, T):
    return transport(observed_of_trajectory(walks.trajectory(ions), 11, T))


def test_bounds_take_part_in_the_activation_energy_and_curves_that_bend_do_not():
    rng = np.random.default_rng(11)
    T = np.array([150.0, 400.0, 600.0, 800.0])
    D = np.exp(np.log(3.0) - 200 / (KB_meV * T))
    found = [
        observed(walks.hops(rng, d) + walks.vibration(rng), t) for d, t in zip(D, T, strict=True)
    ]
    assert found[0].total.below_detection
    assert not found[0].total.poor_fit
    over = activation(found)
    assert over.left_out == (False,) * 4
    assert (over.fit.detected, over.fit.censored) == (3, 1)
    low, high = over.fit.activation_interval_meV
    assert low < 200 < high
    # in a cage that forgets slowly the curve bends: its slope is no diffusion
    keep = np.exp(-walks.INTERVAL / 15.0)
    kicks = rng.normal(0, np.sqrt(1 - keep**2), (400, 200, 3))
    kicks[0] = rng.normal(0, 1, (200, 3))
    bent = observed(lfilter([1], [1, -keep], kicks, axis=0), 500.0)
    assert bent.total.subdiffusive
    assert bent.total.poor_fit
    assert bent.total.below_detection
    assert bent.total.interval[0] == 0
    over = activation([*found, bent])
    assert over.left_out == (False,) * 4 + (True,)
    assert any(note.startswith("500 K takes no part") for note in over.notes)


def test_one_temperature_is_not_asked_for_an_activation_energy():
    rng = np.random.default_rng(12)
    assert activation([observed(walks.vibration(rng), 300.0)]).notes == ()
    few = [observed(walks.vibration(rng), T) for T in (300.0, 400.0)]
    assert any("activation energy" in note for note in activation(few).notes)


@pytest.mark.parametrize("velocities", [True, False])
def test_a_wrong_interval_shows_in_the_kinetic_temperature(velocities):
    rng = np.random.default_rng(13)
    nu, dt, T, amu = 2.0, 0.02, 600.0, 22.99
    phase = rng.uniform(0, 2 * np.pi, (10, 3))
    phase = np.concatenate([phase, phase + np.pi])  # the centre of mass is at rest
    t = np.arange(400)[:, None, None] * dt
    speed = np.sqrt(2 * T / (amu * KELVIN))  # amplitude of Å/ps whose mean square is that of T
    x = 5.0 + speed / (2 * np.pi * nu) * np.sin(2 * np.pi * nu * t + phase)
    v = speed * np.cos(2 * np.pi * nu * t + phase) if velocities else None
    numbers, masses = np.full(20, 11), np.full(20, amu)

    def seen(stated, interval, v=v):
        run = Trajectory(x, 12.0 * np.eye(3), numbers, masses, interval, v)
        return transport(observed_of_trajectory(run, 11, stated))

    right = seen(T, dt)
    assert right.observed.kinetic_K == pytest.approx(T, rel=0.03)
    assert "temperature_off" not in right.flags
    assert "temperature_off" in seen(300.0, dt).flags
    if velocities:
        assert "temperature_off" in seen(1500.0, dt).flags
    else:
        wrong = seen(T, dt / 1000)
        assert "temperature_off" in wrong.flags
        assert any("time between frames" in note for note in wrong.notes)
