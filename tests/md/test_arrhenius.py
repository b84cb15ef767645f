"""Activation energies beside scipy, and intervals that hold the truth, censored points included."""

import numpy as np
import pytest
import walks
from scipy import constants, optimize, stats

from phojax.checks import InputError
from phojax.md.arrhenius import arrhenius, arrhenius_fit
from phojax.md.diffusion import diffusion

T = np.array([300.0, 400, 500, 600, 700, 800])
EA, LOG_D0 = 250.0, np.log(5.0)
KB_meV = constants.k / constants.e * 1e3
TRUE = np.exp(LOG_D0 - EA / (KB_meV * T))


def test_beside_scipy_with_and_without_errors():
    rng = np.random.default_rng(1)
    sigma = np.array([0.5, 0.3, 0.2, 0.1, 0.1, 0.05])
    D = TRUE * np.exp(rng.normal(0, sigma))

    def line(t, a, b):
        return a - b / (KB_meV * t)

    best, covariance = optimize.curve_fit(line, T, np.log(D), sigma=sigma, absolute_sigma=True)
    found = arrhenius_fit(T, D, sigma)
    assert not found.not_on_a_line
    assert found.activation_meV == pytest.approx(best[1], rel=1e-6)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-5)
    plain = arrhenius_fit(T, D)
    reference = stats.linregress(-1 / (KB_meV * T), np.log(D))
    assert plain.activation_meV == pytest.approx(reference.slope, rel=1e-9)
    assert plain.activation_error_meV == pytest.approx(reference.stderr, rel=1e-9)
    assert np.log(plain.prefactor) == pytest.approx(reference.intercept)


def test_intervals_hold_the_truth():
    rng = np.random.default_rng(2)
    sigma = np.array([0.5, 0.3, 0.2, 0.1, 0.1, 0.05])
    runs = [arrhenius_fit(T, TRUE * np.exp(rng.normal(0, sigma)), sigma) for _ in range(300)]
    held = [r.activation_interval_meV[0] <= EA <= r.activation_interval_meV[1] for r in runs]
    assert 0.92 <= np.mean(held) <= 0.98
    room = [r.diffusion_at(300.0)[1] for r in runs]
    assert 0.92 <= np.mean([low <= TRUE[0] <= high for low, high in room]) <= 0.98


def test_censored_points_reduce_the_bias_of_leaving_them_out():
    rng = np.random.default_rng(3)
    limits = np.full(6, TRUE[2])  # half of the estimates at 500 K are below detection
    with_, without, held = [], [], []
    for _ in range(300):
        D = TRUE + limits / 1.96 * rng.normal(size=6)
        hidden = limits > D
        sigma = np.where(hidden, 1.0, limits / 1.96 / np.maximum(D, 1e-9))
        one = arrhenius_fit(T, D, sigma, censored=hidden, limits=limits)
        with_.append(one.activation_meV)
        low, high = one.activation_interval_meV
        held.append(low <= EA <= high)
        without.append(arrhenius_fit(T[~hidden], D[~hidden], sigma[~hidden]).activation_meV)
    assert abs(np.mean(with_) - EA) < 0.65 * abs(np.mean(without) - EA)
    assert np.mean(held) >= 0.9


def test_a_line_that_is_none_is_told():
    D = TRUE.copy()
    D[3] *= 3
    found = arrhenius_fit(T, D, np.full(6, 0.1))
    assert found.not_on_a_line
    on_a_line = arrhenius_fit(T, TRUE, np.full(6, 0.1))
    assert found.activation_error_meV > 3 * on_a_line.activation_error_meV


def test_two_temperatures_need_errors_for_an_error():
    assert np.isnan(arrhenius_fit(T[-2:], TRUE[-2:]).activation_error_meV)
    two = arrhenius_fit(T[-2:], TRUE[-2:], np.array([0.1, 0.1]))
    wanted = np.hypot(0.1, 0.1) * KB_meV / (1 / T[-2] - 1 / T[-1])
    assert two.activation_error_meV == pytest.approx(wanted)


def test_too_little_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        arrhenius_fit(T[:1], TRUE[:1])
    with pytest.raises(InputError, match="at least 2"):
        arrhenius_fit(
            T, TRUE, np.ones(6), censored=np.array([True] * 5 + [False]), limits=np.ones(6)
        )
    with pytest.raises(InputError, match="not positive"):
        arrhenius_fit(T, -TRUE)


def test_from_walks():
    rng = np.random.default_rng(5)
    hot = np.array([400.0, 500, 600, 700, 800])
    D = np.exp(np.log(3.0) - 200 / (KB_meV * hot))
    found = [diffusion(walks.statistics(walks.hops(rng, d) + walks.vibration(rng))) for d in D]
    found.append(diffusion(walks.statistics(walks.vibration(rng))))
    at = np.append(hot, 150.0)
    fit = arrhenius(at, found)
    assert (fit.detected, fit.censored) == (5, 1)
    low, high = fit.activation_interval_meV
    assert low < 200 < high
    assert high - low < 150
    assert arrhenius(at, found, use_censored=False).censored == 0
