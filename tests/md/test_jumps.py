"""Jumps between sites: walkers whose every jump is known, vibrations that are none, GEMDAT."""

import numpy as np
import pytest

from phojax.checks import InputError
from phojax.md.density import ion_density, smoothed
from phojax.md.jumps import (
    core_visits,
    correlation_factor,
    distance_histogram,
    shortest_distance,
    site_jumps,
    sites_from_density,
    sites_from_structure,
)
from phojax.md.trajectory import Trajectory
from phojax.structure import structure

STEP = np.array([[3.0, 0.2, 0.0], [-0.9, 3.1, 0.1], [0.6, -0.5, 3.3]])  # lattice of the sites
SIZE = (3, 2, 4)
CELL = STEP * np.array(SIZE)[:, None]
SITES = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1).reshape(-1, 3) @ STEP
MOVES = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])


def _run(places, noise, seed=0, drift=0.0, origin=0.3) -> Trajectory:
    """Return ions at integer places (frame, ion, 3) of the sites' lattice, among a host at rest.

    The noise (Å, standard deviation per axis) is cut at 0.9 Å, inside the cores.
    """
    rng = np.random.default_rng(seed)
    shake = rng.normal(0, noise, places.shape)
    size = np.linalg.norm(shake, axis=-1, keepdims=True)
    shake *= np.minimum(1, 0.9 / np.maximum(size, 1e-12))
    frames, ions = places.shape[:2]
    host = np.array([[1.0, 1.0, 1.0], [4.0, 3.0, 2.0]])
    positions = np.concatenate(
        [places @ STEP + shake, np.broadcast_to(host, (frames, 2, 3))], axis=1
    )
    positions = positions + origin + drift * np.arange(frames)[:, None, None]
    numbers = np.array([11] * ions + [17] * 2)
    return Trajectory(positions, CELL, numbers, np.where(numbers == 11, 22.99, 35.45), 0.02)


def _walk(frames, ions, chance, seed=0, back=None):
    """Return places of random walkers, and the moves (frame - 1, ion, 3) they made."""
    rng = np.random.default_rng(seed)
    moves = MOVES[rng.integers(0, 6, (frames - 1, ions))]
    jumps = rng.random((frames - 1, ions)) < chance
    if back is not None:  # some jumps undo the one before
        for ion in range(ions):
            before = None
            for t in np.flatnonzero(jumps[:, ion]):
                if before is not None and rng.random() < back:
                    moves[t, ion] = -before
                before = moves[t, ion]
    moves = moves * jumps[..., None]
    start = rng.integers(-5, 5, (1, ions, 3))
    return np.concatenate([start, start + np.cumsum(moves, axis=0)]), moves


def test_every_jump_of_a_walker_is_found_and_no_other():
    places, moves = _walk(4000, 10, 0.01)
    found = site_jumps(_run(places, 0.3), 11, SITES + 0.3)
    t, ion = np.nonzero(np.any(moves != 0, axis=2))
    order = np.lexsort((t, ion))
    np.testing.assert_array_equal(found.frame, t[order] + 1)
    np.testing.assert_array_equal(found.ion, ion[order])
    np.testing.assert_allclose(found.vectors, (moves[t, ion] @ STEP)[order], atol=1e-9)
    index = np.ravel_multi_index(tuple(np.moveaxis(places % SIZE, -1, 0)), SIZE)
    np.testing.assert_array_equal(found.origin, index[t, ion][order])
    np.testing.assert_array_equal(found.target, index[t + 1, ion][order])
    np.testing.assert_allclose(found.occupancy, np.bincount(index.ravel(), minlength=24) / 4000)
    assert found.observed_ps == pytest.approx(10 * 3999 * 0.02)
    assert found.core_share == 1
    assert not found.notes


def test_rates_diffusion_and_correlation_of_a_random_walk():
    frames, ions, chance = 6000, 20, 0.01
    places, moves = _walk(frames, ions, chance, seed=1)
    run = _run(places, 0.25, drift=0.01)  # the host drifts along
    found = site_jumps(run, 11, SITES + 0.3)
    rate = chance / 0.02
    assert abs(found.rate_per_ps - rate) < 5 * found.rate_error_per_ps
    assert found.mean_residence_ps == pytest.approx(1 / rate, rel=5 / np.sqrt(len(found)))
    assert found.residences_ps.mean() == pytest.approx(1 / rate, rel=0.1)
    expected = rate * np.mean(np.sum((MOVES @ STEP) ** 2, axis=1)) / 6
    assert found.jump_diffusion == pytest.approx(expected, rel=5 / np.sqrt(len(found)))
    assert abs(found.back_jump_share - 1 / 6) < 5 * np.sqrt(5 / 36 / len(found))
    # the tracer's D from all displacements over a lag much longer than a stay, overlapping
    lag = 300
    apart = (places[lag:] - places[:-lag]) @ STEP
    tracer = np.mean(np.sum(apart**2, axis=2)) / (6 * lag * 0.02)
    windows = ions * frames / lag
    assert abs(correlation_factor(found, tracer) - 1) < 5 * np.sqrt(2 / 3 / windows)
    assert abs(found.vibration_A - 0.25 * np.sqrt(3)) < 0.01
    assert np.sum(moves**2) == len(found)


def test_jumps_back_lower_the_correlation():
    places, _ = _walk(8000, 20, 0.01, seed=2, back=0.5)
    found = site_jumps(_run(places, 0.25), 11, SITES + 0.3)
    share = 0.5 + 0.5 / 6
    assert abs(found.back_jump_share - share) < 5 * np.sqrt(share * (1 - share) / len(found))
    lag = 400
    apart = (places[lag:] - places[:-lag]) @ STEP
    tracer = np.mean(np.sum(apart**2, axis=2)) / (6 * lag * 0.02)
    # ⟨cos⟩ between successive jumps is c = -1/2: f = (1 + c) / (1 - c), more where a lag holds few
    # jumps: - 2c (1 - ⟨c^n⟩) / (1 - c)² ⟨n⟩
    expected = 1 / 3 + (1 - (1 - 0.015) ** lag) / 2.25 / (0.01 * lag)
    windows = 20 * 8000 / lag
    tolerance = 5 * expected * np.sqrt(2 / 3 / windows)
    assert abs(correlation_factor(found, tracer) - expected) < tolerance < 0.1


def test_vibrations_are_no_jumps():
    places, _ = _walk(5000, 12, 0.0)
    rng = np.random.default_rng(3)
    run = _run(places, 0.0)
    wide = run.positions.copy()
    # far beyond the cores and half way to the next sites, but never in their cores
    wide[:, :12] += np.clip(rng.normal(0, 0.6, (5000, 12, 3)), -1.0, 1.0)
    shaken = Trajectory(wide, CELL, run.numbers, run.masses, 0.02)
    found = site_jumps(shaken, 11, SITES + 0.3, core_radius=0.9)
    assert len(found) == 0
    assert 0.3 < found.core_share < 0.7
    assert found.jump_diffusion == 0
    assert found.mean_residence_ps == np.inf
    assert np.isnan(found.back_jump_share)
    assert np.isnan(correlation_factor(found, 1.0))
    assert distance_histogram(found)[1].sum() == 0


def test_a_flight_counts_once_on_arrival_and_not_if_it_returns():
    line = np.concatenate([[0] * 5, np.linspace(0, 0.6, 6), np.linspace(0.6, 0, 6), [0] * 5])
    there = np.concatenate([[0] * 5, np.linspace(0, 1, 11), [1] * 5])
    for way, count in ((line, 0), (there, 1)):
        positions = np.zeros((len(way), 2, 3))
        positions[:, 0] = way[:, None] * STEP[0]
        run = Trajectory(positions, CELL, np.array([3, 8]), np.array([7.0, 16.0]), 0.1)
        found = site_jumps(run, 3, SITES)
        assert len(found) == count
    radius = 0.35 * shortest_distance(SITES, CELL)
    arrival = 5 + np.flatnonzero(np.linspace(0, 1, 11) > 1 - radius / np.linalg.norm(STEP[0]))[0]
    assert found.frame[0] == arrival
    assert found.distances[0] == pytest.approx(np.linalg.norm(STEP[0]))


def test_jumps_to_the_image_of_the_same_site():
    """One site per cell: every jump is to an image of the site that was left."""
    places, moves = _walk(3000, 4, 0.01, seed=4)
    run = _run(places, 0.2)
    small = Trajectory(run.positions, STEP, run.numbers, run.masses, run.interval_ps)
    found = site_jumps(small, 11, np.full((1, 3), 0.3))
    assert len(found) == np.sum(moves**2)
    assert found.jump_diffusion == pytest.approx(
        np.sum((moves @ STEP) ** 2) / (6 * found.observed_ps)
    )


def test_cores_across_the_faces_of_a_skewed_cell_against_brute_force():
    rng = np.random.default_rng(5)
    cell = np.array([[4.0, 0, 0], [3.5, 3.0, 0], [-2.0, 1.5, 3.5]])
    sites = np.array([[0.01, 0.98, 0.5], [0.6, 0.5, 0.02]]) @ cell
    r = rng.normal(0, 8, (200, 3, 3))
    site, image = core_visits(r, sites, cell, 1.1)
    n = np.arange(-14, 15)
    images = np.stack(np.meshgrid(n, n, n), -1).reshape(-1, 3)
    for k in range(0, 200, 4):
        for i in range(3):
            inside = [
                (s, tuple(image_))
                for s in (0, 1)
                for image_ in images[
                    np.linalg.norm(sites[s] + images @ cell - r[k, i], axis=1) < 1.1
                ]
            ]
            if inside:
                distances = [np.linalg.norm(sites[s] + np.array(L) @ cell - r[k, i])
                             for s, L in inside]  # fmt: skip
                assert (site[k, i], tuple(image[k, i])) == inside[int(np.argmin(distances))]
            else:
                assert site[k, i] == -1


def test_the_shortest_distance_in_a_very_skewed_cell():
    cell = np.array([[4.0, 0, 0], [9.0, 3.0, 0], [-7.0, 10.0, 3.5]])
    images = np.stack(np.meshgrid(*[np.arange(-15, 16)] * 3), -1).reshape(-1, 3)
    sites = np.array([[0.1, 0.2, 0.3], [0.6, 0.9, 0.5]]) @ cell
    apart = np.linalg.norm((sites[:, None, None] - sites[:, None] + images @ cell), axis=-1)
    assert shortest_distance(sites, cell) == pytest.approx(apart[apart > 1e-9].min())
    own = np.linalg.norm(images @ cell, axis=-1)
    assert shortest_distance(sites[:1], cell) == pytest.approx(own[own > 0].min())


def test_sites_from_the_density_are_the_sites():
    places, _ = _walk(4000, 16, 0.05, seed=6)
    run = _run(places, 0.3)
    density = smoothed(ion_density(run, 11, spacing=0.25), 0.3)
    found = sites_from_density(density)
    assert len(found) == len(SITES)
    apart = (found[:, None] - SITES - 0.3) @ np.linalg.inv(CELL)
    distance = np.linalg.norm((apart - np.rint(apart)) @ CELL, axis=2)
    assert distance.min(axis=1).max() < 0.1
    assert len(set(distance.argmin(axis=1))) == len(SITES)
    assert len(site_jumps(run, 11, found)) == len(site_jumps(run, 11, SITES + 0.3))


def test_sites_of_a_structure_follow_the_host():
    places, _ = _walk(500, 4, 0.02)
    run = _run(places, 0.2, origin=np.array([2.3, -7.1, 5.0]), drift=0.002)
    host = np.array([[1.0, 1.0, 1.0], [4.0, 3.0, 2.0]]) + CELL[1] - 2 * CELL[2]
    numbers = [11] * len(SITES) + [17] * 2  # more sites than ions
    crystal = structure(CELL, np.concatenate([SITES, host]), numbers)
    sites = sites_from_structure(run, crystal, 11)
    apart = (sites - SITES - [2.3, -7.1, 5.0]) @ np.linalg.inv(CELL)
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-9)
    expected = site_jumps(run, 11, SITES + np.array([2.3, -7.1, 5.0]))
    assert len(site_jumps(run, 11, sites)) == len(expected)
    with pytest.raises(InputError, match="host"):
        sites_from_structure(run, structure(CELL, host, [17, 16]), 11)
    with pytest.raises(InputError, match="another cell"):
        sites_from_structure(run, structure(2 * CELL, host, [17, 17]), 11)


def test_bad_input_is_refused():
    places, _ = _walk(50, 4, 0.02)
    run = _run(places, 0.2)
    with pytest.raises(InputError, match="do not touch"):
        site_jumps(run, 11, SITES, core_radius=1.6)
    with pytest.raises(InputError, match="do not touch"):
        site_jumps(run, 11, np.concatenate([SITES, SITES[:1]]))
    with pytest.raises(InputError, match="element 3"):
        site_jumps(run, 3, SITES)
    with pytest.raises(InputError, match="no ion within"):
        site_jumps(run, 11, SITES[:1] + 1.7, core_radius=0.1)


def test_jumps_as_gemdat_counts_them():
    gemdat = pytest.importorskip("gemdat")
    from pymatgen.core import Element, Lattice, Structure

    places, _ = _walk(3000, 6, 0.01, seed=7)
    run = _run(places, 0.25, origin=0.0)
    cell = np.diag([9.0, 12.0, 15.0])
    sites = np.stack(np.meshgrid(*map(np.arange, (3, 4, 5)), indexing="ij"), -1).reshape(-1, 3) * 3
    shake = run.positions[:, :6] - places @ STEP
    positions = np.concatenate([places * 3.0 + shake, run.positions[:, 6:]], axis=1)
    run = Trajectory(positions, cell, run.numbers, run.masses, 0.02)
    theirs = gemdat.Trajectory(
        species=[Element("Na")] * 6 + [Element("Cl")] * 2,
        coords=run.positions @ np.linalg.inv(cell) % 1,
        lattice=cell,
        time_step=0.02e-12,
        metadata={"temperature": 300},
    )
    transitions = theirs.transitions_between_sites(
        sites=Structure(Lattice(cell), ["Na"] * 60, sites / np.diag(cell)),
        floating_specie="Na",
        site_radius=1.05,
    )
    jumps = transitions.jumps()
    ours = site_jumps(run, 11, sites.astype(float), core_radius=1.05)
    assert jumps.n_jumps == len(ours)
    # Å²/ps from m²/s; it divides by the time of all frames, we by that of the intervals
    assert float(jumps.jump_diffusivity(3)) * 1e8 == pytest.approx(
        ours.jump_diffusion * 2999 / 3000, rel=1e-6
    )
    occupancy = [s.species.num_atoms for s in transitions.occupancy()]
    np.testing.assert_allclose(occupancy, ours.occupancy, atol=1e-9)
