"""Self-consistent force constants against crystals that are solved exactly, and limits."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quartic import (
    bonds_of,
    exact_lattice,
    harmonic,
    pair_of_atoms,
    quartic,
    simple_cubic,
    skew_pair,
)
from scipy.optimize import brentq, fsolve

from phojax.checks import InputError
from phojax.descriptors.displacements import oscillator_variance
from phojax.finite_temperature.effective import Sampling, self_consistent
from phojax.finite_temperature.gaussian import gaussian
from phojax.units import KB

KEY = jax.random.key(3)


def variance(k, mass, T, statistics):
    """⟨x²⟩ of one oscillator."""
    if statistics == "classical":
        return KB * T / k
    return float(oscillator_variance(jnp.asarray(k / mass), T)) / mass


def solved(cells, group, model, T, how, extra=1.0):
    start = harmonic(cells, model, group, extra)
    return self_consistent(model, start, group, T, KEY, how, batch=64)


def tolerant(statistics="quantum", **how):
    return Sampling(
        statistics, pairs=64, tolerance_THz=0.15, tolerance_msd=0.05, samples=8000, **how
    )


@pytest.mark.parametrize(
    ("statistics", "k", "T", "kind"),
    [("quantum", 2.0, 300.0, "random"), ("classical", 2.0, 300.0, "sobol"),
     ("quantum", -0.2, 900.0, "sobol"), ("classical", -0.2, 900.0, "random"),
     ("quantum", -0.05, 0.0, "random")],
)  # fmt: skip
def test_quartic_oscillator(statistics, k, T, kind):
    """K = n (k + 12 b ⟨x²⟩) for three relative coordinates of n bonds, double wells included."""
    cells, group = pair_of_atoms()
    b, bonds = 2.0, 8
    model = quartic(cells, 3.2, k, b)
    m = np.asarray(cells.primitive.masses)
    mu = m[0] * m[1] / m.sum()
    exact: Any = brentq(
        lambda K: K - bonds * (k + 12 * b * variance(K, mu, T, statistics)), 1e-3, 1e3, xtol=1e-12
    )
    found = solved(cells, group, model, T, tolerant(statistics, kind=kind))
    assert found.converged, found.message
    assert found.stable
    ours = found.ensemble.eigenvalues.mean() * mu
    error = float(found.error_of(lambda c: np.asarray(c.values)[0, 0, 0, 0]))
    assert 0 < error < 0.08 * exact
    assert abs(ours - exact) < 5 * error


def test_centroids_of_asymmetric_oscillators():
    """Where symmetry allows it, mean forces vanish: two equations for centroid and spring."""
    cells, group = skew_pair()
    k, b, c, T = 3.0, 2.0, -2.5, 900.0
    model = quartic(cells, 3.0, k, b, c)
    bonds = len(bonds_of(model)[0])
    m = np.asarray(cells.primitive.masses)
    mu = m[0] * m[1] / m.sum()

    def rest(unknown):
        d, K = unknown
        s = variance(K, mu, T, "quantum")
        return (
            k * d + 3 * c * (d**2 + s) + 4 * b * (d**3 + 3 * d * s),
            K - bonds * (k + 6 * c * d + 12 * b * (d**2 + s)),
        )

    root: Any = fsolve(rest, (0.0, bonds * k))
    d, K = root
    found = solved(cells, group, model, T, tolerant(), extra=0.0)
    assert found.converged, found.message
    before, after = cells.structure.positions, found.force_constants.supercell.structure.positions
    moved = np.asarray(after - before)
    error = found.error_of(lambda c: c.supercell.primitive.positions)
    np.testing.assert_allclose(moved[1] - moved[0], d, atol=10 * error.max())
    assert abs(d) > 0.02
    assert error.max() < 0.1 * abs(d)
    spread = found.error_of(lambda c: np.asarray(c.values)[0, 0]).max()
    np.testing.assert_allclose(found.ensemble.eigenvalues * mu, K, atol=5 * spread)
    held = solved(cells, group, model, T, tolerant(relax_centroids=False), extra=0.0)
    np.testing.assert_array_equal(held.force_constants.supercell.structure.positions, before)


def test_quartic_lattice():
    """27 atoms: every force constant and the displacements, within the errors told."""
    cells, group = simple_cubic()
    model = quartic(cells, 3.2, 0.4, 0.8)
    T = 600.0
    exact, g = exact_lattice(cells, model, group, T)
    how = Sampling(pairs=16, tolerance_THz=0.02, tolerance_msd=0.01)
    found = solved(cells, group, model, T, how)
    assert found.converged, found.message
    assert found.determined == found.unknowns
    error = found.error_of(lambda c: np.asarray(c.values))
    off = np.abs(np.asarray(found.force_constants.values) - np.asarray(exact.values))
    assert np.all(off < 5 * error.max())
    msd = np.trace(g.displacements, axis1=1, axis2=2).mean()
    ours = np.trace(found.ensemble.displacements, axis1=1, axis2=2).mean()
    bare = np.trace(
        gaussian(harmonic(cells, model, group, 0.0), T).displacements, axis1=1, axis2=2
    ).mean()
    assert abs(ours / msd - 1) < 5 * found.error_msd < 0.05
    assert bare > 1.5 * msd


def test_harmonic_surface_needs_no_average():
    """The fit has no statistical error where nothing is anharmonic: one population is enough."""
    cells, group = simple_cubic(2)
    model = quartic(cells, 3.2, 2.0, 0.0)
    start = harmonic(cells, model, group, 1.0)
    found = self_consistent(model, start, group, 500.0, KEY, Sampling(pairs=8), batch=16)
    assert found.converged
    expected = harmonic(cells, model, group, 0.0)
    np.testing.assert_allclose(found.force_constants.values, expected.values, atol=1e-3)
    assert found.error_THz < 1e-3


def test_what_makes_no_sense_is_refused():
    cells, group = simple_cubic(2)
    model = quartic(cells, 3.2, 2.0, 0.5)
    start = harmonic(cells, model, group, 0.0)
    with pytest.raises(InputError, match="classical widths at 0 K"):
        self_consistent(model, start, group, 0.0, KEY, Sampling("classical"))
    with pytest.raises(InputError, match="statistics 'bose'"):
        Sampling("bose")
    with pytest.raises(InputError, match="a temperature of -1"):
        self_consistent(model, start, group, -1.0, KEY)
    with pytest.raises(InputError, match="at least one pair"):
        Sampling(pairs=0)


def test_an_iteration_that_runs_away_says_so():
    """Springs that soften without end: V = k d²/2 - b d⁴ has no ensemble that is hot enough."""
    cells, group = simple_cubic(2)
    model = quartic(cells, 3.2, 1.0, -2.0)
    start = harmonic(cells, model, group, 0.0)
    how = Sampling(pairs=8, populations=6)
    found = self_consistent(model, start, group, 3000.0, KEY, how, batch=16)
    assert not found.converged
    assert {"diverged", "imaginary", "not_converged"} & set(found.flags)
    assert not found.stable or "diverged" in found.flags


def test_samples_are_taken_up_again():
    """With the samples of an earlier run no force is computed, and the result is the same."""
    cells, group = simple_cubic(2)
    model = quartic(cells, 3.2, 0.4, 0.8)
    start = harmonic(cells, model, group, 1.0)
    how = Sampling(pairs=8, tolerance_THz=0.1)
    done: dict[str, np.ndarray] = {}
    first = self_consistent(model, start, group, 600.0, KEY, how, done=done, batch=16)
    broken = replace(model, params=jax.tree.map(lambda x: x * jnp.nan, model.params))
    again = self_consistent(broken, start, group, 600.0, KEY, how, done=dict(done), batch=16)
    np.testing.assert_array_equal(again.force_constants.values, first.force_constants.values)
    with pytest.raises(InputError, match="not finite"):
        self_consistent(broken, start, group, 600.0, KEY, how, batch=16)
