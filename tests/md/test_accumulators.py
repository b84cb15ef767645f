"""What is summed up on the way equals what a kept trajectory gives, computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.md.accumulators import accumulated, accumulators, statistics
from phojax.md.density import counts_on_grid
from phojax.md.integrator import Frames
from phojax.md.protocol import Protocol
from phojax.md.systems import systems
from phojax.structure import structure

FRAMES = 150
CELL = np.array([[6.0, 0, 0], [1.5, 5.0, 0], [-1.0, 0.7, 7.0]])
PROTOCOL = Protocol(
    steps=FRAMES * 4, frame_every=4, timestep_fs=2.0, vacf_window_ps=0.2, sections=3
)
GRID = (4, 5, 3)


@pytest.fixture(scope="module")
def walk():
    """Return a walk of 3 Na, 2 Cl and 1 O beside one of 4 atoms that ends early, and its sums."""
    rng = np.random.default_rng(1)
    first = structure(CELL, rng.uniform(0, 6, (6, 3)), [11, 17, 11, 8, 17, 11])
    second = structure(CELL * 1.1, rng.uniform(0, 6, (4, 3)), [11, 11, 17, 11])
    given = systems([first, second], [300.0, 300.0], "Na")
    x = np.zeros((FRAMES, 2, 6, 3))
    start = np.asarray(given.crystals.positions)
    x[:] = start + np.cumsum(rng.normal(0, 0.3, x.shape), axis=0)
    x[:, 1, 4:] = 0
    v = rng.normal(0, 1, x.shape)
    v[:, 1, 4:] = 0
    alive = np.ones((FRAMES, 2), bool)
    alive[60:, 1] = False
    sums = accumulators(given, PROTOCOL, np.array([GRID, (3, 3, 3)]))
    msd = []
    for begin in range(0, FRAMES, 40):  # chunks that do not fill their room
        count = min(40, FRAMES - begin)

        def room(values, begin=begin, count=count):
            out = np.full((50, *values.shape[1:]), np.array(7, values.dtype))
            out[:count] = values[begin : begin + count]
            return jnp.asarray(out)

        chunk = Frames(
            room(x), room(v), room(alive * 1.0), room(alive * 1.0), room(alive), jnp.int32(count)
        )
        sums, series = accumulated(given, sums, chunk)
        msd.append(np.asarray(series.first_msd)[:count])
    return given, x, v, sums, np.concatenate(msd)


def _relative(given, x, system):
    """Return positions about the centre of mass of what is not Na."""
    w = np.asarray(given.host_weights[system])
    centre = np.einsum("i,tia->ta", w, x[:, system])
    rest = w @ np.asarray(given.crystals.positions[system])
    return x[:, system] - (centre - rest)[:, None]


@pytest.mark.parametrize(("system", "length", "atoms"), [(0, 150, 6), (1, 60, 4)])
def test_displacements(walk, system, length, atoms):
    given, x, _, sums, _ = walk
    r = _relative(given, x, system)[:length, :atoms]
    found = statistics(sums, given, system, 11, PROTOCOL.interval_ps)
    assert found.frames == length
    # Level l goes on where level l - 1 ends.
    wanted = [*range(1, 33), *range(34, 65, 2), *range(68, 129, 4), *range(136, 257, 8)]
    assert list(found.lags) == [k for k in wanted if k < length]
    spaced = [1 if k <= 32 else 2 if k <= 64 else 4 if k <= 128 else 8 for k in found.lags]
    np.testing.assert_array_equal(found.spacing, spaced)
    sections = np.zeros_like(found.section_sums)
    for n, (lag, step) in enumerate(zip(found.lags, found.spacing, strict=True)):
        origins = np.arange(0, length - lag, step)
        d = r[origins + lag] - r[origins]
        assert found.origins[n] == len(origins)
        moments = np.einsum("tia,tib->iab", d, d) / len(origins)
        np.testing.assert_allclose(found.atoms[n], moments, rtol=1e-12, atol=1e-12)
        for k, z in enumerate(found.species):
            of = found.numbers == z
            total = d[:, of].sum(1)
            np.testing.assert_allclose(
                found.collective[n, k], total.T @ total / len(origins), rtol=1e-11, atol=1e-12
            )
            outer = np.einsum("tia,tib->tab", d[:, of], d[:, of]) / of.sum()
            np.add.at(sections[:, n, k], origins * 3 // FRAMES, outer)
    np.testing.assert_allclose(found.section_sums, sections, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(found.section_origins.sum(0), found.origins)


def test_the_host_does_not_move_on_the_whole(walk):
    given, _, _, sums, _ = walk
    found = statistics(sums, given, 1, 11, 1.0)  # one Cl: it is the frame of reference
    assert np.abs(found.moments(17)).max() < 1e-20
    assert found.msd(11)[0] > 0.1


def test_velocity_correlation(walk):
    given, _, v, sums, _ = walk
    masses = np.asarray(given.crystals.masses[0])
    u = v[:, 0] - np.average(v[:, 0], axis=1, weights=masses)[:, None]
    lags = PROTOCOL.vacf_frames
    assert lags == 26
    for k, z in enumerate((8, 11, 17)):
        of = np.asarray(given.crystals.numbers[0]) == z
        for lag in range(lags):
            one = masses[of][:, None] * u[: FRAMES - lag, of] * u[lag:, of]
            np.testing.assert_allclose(sums.vacf[0, lag, k], one.sum(), rtol=1e-10, atol=1e-9)
            assert sums.vacf_origins[0, lag] == FRAMES - lag
    assert int(sums.vacf_origins[1, 5]) == 55


def test_density(walk):
    given, x, _, sums, _ = walk
    r = _relative(given, x, 0)[:, [0, 2, 5]].reshape(-1, 3)
    wanted = counts_on_grid(r, CELL, GRID)  # tested beside pymatgen-analysis-diffusion
    np.testing.assert_array_equal(np.asarray(sums.density[0]).reshape(GRID), wanted)
    assert int(sums.density[1].sum()) == 60 * 3


def test_displacements_from_the_first_frame(walk):
    given, x, _, _, msd = walk
    r = _relative(given, x, 0)
    start = np.asarray(given.crystals.positions[0])
    for k, z in enumerate((8, 11, 17)):
        of = np.asarray(given.crystals.numbers[0]) == z
        wanted = ((r - start)[:, of] ** 2).mean(1)
        np.testing.assert_allclose(msd[:, 0, k], wanted, rtol=1e-11, atol=1e-13)


def test_memory_grows_with_the_logarithm_of_the_length():
    crystal = structure(CELL, np.eye(3), [11, 17, 11])
    given = systems([crystal], [300.0], "Na")

    def size(steps):
        sums = accumulators(given, Protocol(steps=steps), np.array([GRID]))
        return sum(x.size for x in jax.tree.leaves((sums.ring, sums.atoms)))

    assert size(400_000) < 2 * size(40_000)
