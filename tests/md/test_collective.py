"""Collective diffusion and conductivity of walks whose Haven ratio is known."""

import numpy as np
import pytest
import walks
from scipy import constants

from phojax.checks import InputError
from phojax.md.collective import (
    NERNST_EINSTEIN,
    collective_diffusion,
    conductivity,
    haven_ratio,
    nernst_einstein,
)
from phojax.md.diffusion import diffusion
from phojax.md.displacements import displacement_statistics
from phojax.md.trajectory import Trajectory

VOLUME = float(np.linalg.det(walks.CELL))


def test_constant_from_codata():
    """PHYSICS E6, and the same from an ion that carries its charge through a cubic metre."""
    assert pytest.approx(1.8592e5, rel=1e-4) == NERNST_EINSTEIN
    n, D = 0.02, 0.1
    si = n * 1e30 * (2 * constants.e) ** 2 * D * 1e-8 / (constants.k * 800)  # S/m
    assert nernst_einstein(D, n, 800, 2.0) == pytest.approx(si / 100, rel=1e-12)


@pytest.mark.parametrize(("size", "wanted"), [(1, 1.0), (3, 1 / 3)])
def test_haven_ratio(size, wanted):
    rng = np.random.default_rng(40 + size)
    held, D_held, ratios = [], [], []
    for _ in range(80):
        stats = walks.statistics(walks.groups(rng, 0.1, size) + walks.vibration(rng))
        together = collective_diffusion(stats)
        D_held.append(together.interval[0] <= 0.1 * size <= together.interval[1])
        H, (low, high) = haven_ratio(diffusion(stats), together)
        held.append(low <= wanted <= high)
        ratios.append(H)
    assert 0.88 <= np.mean(D_held) <= 0.995
    assert np.mean(held) >= 0.88
    assert np.median(ratios) == pytest.approx(wanted, rel=0.12)


def test_conductivity_with_and_without_the_haven_ratio():
    rng = np.random.default_rng(45)
    stats = walks.statistics(walks.brownian(rng, 0.1))
    found = conductivity(stats, VOLUME, 800.0, charge=2.0)
    n = walks.IONS / VOLUME
    assert found.number_density == pytest.approx(n)
    assert found.tracer == pytest.approx(1.8592e5 * n * 4 * diffusion(stats).D / 800, rel=1e-4)
    assert found.collective == pytest.approx(found.tracer / found.haven_ratio)
    assert found.tracer_interval[0] < found.tracer < found.tracer_interval[1]
    wide = np.subtract(*found.collective_interval) / np.subtract(*found.tracer_interval)
    assert wide > 2  # one sum against 18 ions
    with pytest.raises(InputError, match="positive volume"):
        conductivity(stats, VOLUME, 0.0)


def test_at_rest_bounds_are_given():
    rng = np.random.default_rng(46)
    found = conductivity(walks.statistics(walks.vibration(rng)), VOLUME, 300.0)
    assert found.below_detection
    assert found.tracer_interval[0] == 0 < found.tracer_interval[1]
    assert found.haven_interval[0] == 0


def test_without_a_host_there_is_no_current():
    x = walks.brownian(np.random.default_rng(47), 0.1, ions=3)
    alone = Trajectory(x, walks.CELL, np.full(3, 11), np.ones(3), walks.INTERVAL)
    with pytest.raises(InputError, match="a host"):
        collective_diffusion(displacement_statistics(alone, 11, lags=walks.LAGS))
