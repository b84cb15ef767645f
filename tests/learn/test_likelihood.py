"""The censored likelihood and the linear Tobit model beside scipy's distributions and optimiser."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from phojax.checks import InputError
from phojax.learn.metrics import pit_bounds, pit_distribution, prediction_metrics, spread_factor
from phojax.learn.target import Target, negative_log_likelihood
from phojax.learn.tobit import tobit


def _censored_rows(n=200, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 3))
    y = x @ [1.0, -0.5, 0.0] - 2 + 0.4 * random.normal(size=n)
    error = random.uniform(0.05, 0.3, n)
    seen = y + error * random.normal(size=n)
    censored = seen < -2.3
    return x, Target(np.where(censored, -2.3, seen), np.where(censored, 0, error), censored)


def _loss(mean, s, t):
    """-log likelihood by scipy's distributions."""
    detected = ~t.censored
    total = np.hypot(s, t.error)
    return -(
        stats.norm.logpdf(t.value, mean, total)[detected].sum()
        + stats.norm.logcdf(t.value, mean, s)[~detected].sum()
    )


def test_likelihood_is_that_of_scipy():
    x, t = _censored_rows()
    mean, s = x[:, 0] - 2, np.full(len(t), 0.5)
    found = negative_log_likelihood(*map(jnp.asarray, (mean, s**2, t.value, t.error, t.censored)))
    assert float(found.sum()) == pytest.approx(_loss(mean, s, t), rel=1e-10)
    metrics = prediction_metrics(mean, s, t)
    assert metrics["nll"] == pytest.approx(_loss(mean, s, t) / len(t), rel=1e-10)


def test_tobit_is_the_maximum_that_scipy_finds():
    x, t = _censored_rows()

    def loss(p):
        return _loss(x @ p[:3] + p[3], np.exp(p[4]), t)

    best = optimize.minimize(loss, [0, 0, 0, -2, 0], method="BFGS", options={"gtol": 1e-6})
    found = tobit(x, t)
    assert found.converged
    np.testing.assert_allclose(found.slopes, best.x[:3], atol=1e-4)
    assert found.intercept == pytest.approx(best.x[3], abs=1e-4)
    assert found.deviation == pytest.approx(np.exp(best.x[4]), rel=1e-4)
    np.testing.assert_allclose(found.slopes, [1, -0.5, 0], atol=0.15)
    # Least squares of detected rows alone are too flat.
    seen = t.detected
    flat = np.linalg.lstsq(np.c_[x, np.ones(len(x))][seen], t.value[seen], rcond=None)[0]
    assert flat[0] < found.slopes[0] - 0.1


def test_prior_shrinks_and_nothing_detected_is_refused():
    x, t = _censored_rows()
    sizes = [np.linalg.norm(tobit(x, t, a).slopes) for a in (0.0, 10.0, 1e3)]
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(InputError, match="no detected value"):
        tobit(x, Target(t.value, t.error, np.ones(len(t), bool)))


def test_calibrated_predictions_are_seen_to_be_calibrated():
    random = np.random.default_rng(1)
    n = 4000
    mean, s, error = random.normal(-2, 0.5, n), random.uniform(0.2, 0.6, n), np.full(n, 0.2)
    y = mean + np.hypot(s, error) * random.normal(size=n)
    everything = Target(y, error, np.zeros(n, bool))
    metrics = prediction_metrics(mean, s, everything)
    assert metrics["coverage_68"] == pytest.approx(0.683, abs=0.04)
    assert metrics["coverage_95"] == pytest.approx(0.95, abs=0.02)
    assert spread_factor(mean, s, everything) == pytest.approx(1, rel=0.08)
    assert spread_factor(mean, s / 2, everything) == pytest.approx(2, rel=0.1)
    # Type I censoring without measurement error: the transform stays uniform.
    y = mean + s * random.normal(size=n)
    below = y < -2.2
    t = Target(np.where(below, -2.2, y), np.zeros(n), below)
    at = np.linspace(0, 1, 11)
    np.testing.assert_allclose(pit_distribution(*pit_bounds(mean, s, t), at), at, atol=0.04)
    metrics = prediction_metrics(mean, s, t)
    assert metrics["coverage_95_all"] == pytest.approx(0.95, abs=0.02)
    assert metrics["bias"] < -0.02  # of detected rows alone: what the module warns of
