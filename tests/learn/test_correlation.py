"""Coefficients beside scipy's, intervals by how often they hold the truth, the control of E3."""

import numpy as np
import pytest
from scipy import stats

from phojax.checks import InputError
from phojax.learn.correlation import control, pearson, spearman, surely_above

RANDOM = np.random.default_rng(3)


def test_coefficients_and_p_values_are_those_of_scipy():
    x = RANDOM.normal(size=40)
    y = x + RANDOM.normal(size=40)
    for own, other in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        found, expected = own(x, y, resamples=0), other(x, y)
        assert found.value == pytest.approx(expected.statistic, abs=1e-12)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-8)
        assert found.n == 40
        assert np.isnan(found.low)


def test_ties_are_ranked_as_in_scipy():
    x, y = RANDOM.integers(0, 6, (2, 50)).astype(float)
    assert spearman(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_interval_is_that_of_scipy():
    x = RANDOM.normal(size=60)
    y = 0.7 * x + RANDOM.normal(size=60)
    for own, other in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        found = own(x, y, resamples=4000)
        theirs = stats.bootstrap(
            (x, y), lambda a, b, f=other: f(a, b).statistic, paired=True, n_resamples=2000,
            vectorized=False, method="BCa", rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert found.low == pytest.approx(theirs.low, abs=0.03)
        assert found.high == pytest.approx(theirs.high, abs=0.03)


@pytest.mark.parametrize(("n", "least"), [(60, 0.90), (15, 0.85)])
def test_interval_holds_the_truth_about_as_often_as_it_says(n, least):
    random = np.random.default_rng(0)
    hits = 0
    for k in range(200):
        x = random.normal(size=n)
        y = 0.6 * x + 0.8 * random.normal(size=n)
        found = pearson(x, y, resamples=500, seed=k)
        hits += found.low <= 0.6 <= found.high
    assert least <= hits / 200 <= 0.99


def test_rows_of_one_system_are_no_independent_draws():
    x, y = np.repeat(RANDOM.normal(size=(2, 12)), 10, axis=1)
    x, y = x + 0.1 * RANDOM.normal(size=120), y + 0.1 * RANDOM.normal(size=120)
    systems = [f"s{n // 10}" for n in range(120)]
    alone, together = pearson(x, y), pearson(x, y, systems=systems)
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.systems == 12
    assert alone.systems == 120


def test_censored_values_tie_at_the_bottom_where_all_limits_are_below():
    x = RANDOM.normal(size=30)
    y = x + RANDOM.normal(size=30)
    edge = np.quantile(y, 0.4)
    censored = y < edge
    bound = np.where(censored, edge - RANDOM.uniform(0, 1, 30), y)
    found = spearman(x, bound, censored)
    expected = stats.spearmanr(x, np.where(censored, -9.0, y)).statistic
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.undecided == 0
    assert (found.n, found.n_censored) == (30, 12)
    left = pearson(x, bound, censored)
    assert (left.n, left.n_left_out) == (18, 12)
    assert left.value == pytest.approx(stats.pearsonr(x[~censored], y[~censored]).statistic)


def test_a_limit_above_a_value_orders_nothing():
    value, censored = np.array([1.0, 3.0, 2.0, 2.0]), np.array([False, False, True, False])
    order = surely_above(value, censored)
    np.testing.assert_array_equal(
        order, [[0, -1, 0, -1], [1, 0, 1, 1], [0, -1, 0, -1], [1, -1, 1, 0]]
    )
    found = spearman(np.arange(4.0), value, censored)
    assert found.undecided == pytest.approx(1 / 6)


def test_few_rows_and_no_variation():
    x = np.arange(7.0)
    few = pearson(x, x**2)
    assert few.value > 0.9
    assert np.isnan(few.low)
    assert np.isnan(pearson(x[:2], x[:2]).value)
    assert np.isnan(pearson(np.ones(9), np.arange(9.0)).value)
    assert np.isnan(spearman(np.arange(9.0), np.ones(9), np.ones(9, bool)).value)
    with pytest.raises(InputError, match="one for each x"):
        pearson(x, x, systems=["a", "b"])


def test_unknown_values_are_left_out_and_counted():
    x, y = RANDOM.normal(size=(2, 20))
    x[3], y[7] = np.nan, np.nan
    found = pearson(x, y)
    assert (found.n, found.n_left_out) == (18, 2)


def _runs(D, per_axis, seed):
    """Return D of lines through the origin and with intercepts, the limits of the latter."""
    random = np.random.default_rng(seed)
    t = np.arange(0.5, 40, 0.5)
    # MSD(t) = 6 u² + 6 D t, with noise that a run of this length has
    noise = random.normal(size=(len(D), len(t))) * 0.3 * per_axis[:, None]
    msd = 6 * per_axis[:, None] + 6 * D[:, None] * t + noise
    slope = np.polyfit(t, msd.T, 1)[0] / 6
    limit = 1.96 * 0.3 * per_axis / np.sqrt(len(t)) / t.std() / 6
    return (msd @ t) / (t @ t) / 6, slope, limit, t[-1]


def test_lines_through_the_origin_make_diffusion_of_vibrations():
    """Nothing diffuses; vibrations differ. E3: D through the origin ≈ 1.5 ⟨u²⟩ / t."""
    per_axis = np.random.default_rng(5).uniform(0.02, 0.3, 60)
    origin, slope, limit, t = _runs(np.zeros(60), per_axis, 6)
    np.testing.assert_allclose(origin, 1.5 * per_axis / t, rtol=0.15)
    found = control(per_axis, slope, slope < limit, limit, origin)
    assert found["pearson_paper"].value > 0.98
    assert found["spearman_paper"].low > 0.95
    assert abs(found["pearson"].value) < 0.3
    assert found["pearson"].low < 0 < found["pearson"].high
    assert found["pearson_difference"].low > 0.5
    assert np.isnan(found["pearson_difference"].p)
    # Hardly anything is detected: ranks have nothing to say, and no interval says otherwise.
    assert found["spearman"].n_censored > 55
    assert np.isnan(found["spearman_difference"].low)


def test_some_diffuse_whatever_their_vibrations():
    random = np.random.default_rng(7)
    per_axis = random.uniform(0.02, 0.3, 80)
    D = np.where(random.random(80) < 0.6, 10 ** random.uniform(-3.5, -2, 80), 0.0)
    origin, slope, limit, _ = _runs(D, per_axis, 8)
    found = control(per_axis, slope, slope < limit, limit, origin)
    for name in ("pearson", "spearman"):
        assert found[name].low < 0 < found[name].high
        assert found[f"{name}_paper"].low > 0.3
        assert found[f"{name}_difference"].low > 0.2


def test_control_finds_nothing_where_both_fits_agree():
    random = np.random.default_rng(6)
    x = random.normal(size=50)
    D = np.exp(x + random.normal(size=50))
    found = control(x, D, np.zeros(50, bool), np.full(50, np.nan), 1.1 * D)
    assert found["pearson_difference"].value == pytest.approx(0, abs=1e-12)
    assert found["spearman_difference"].value == 0
