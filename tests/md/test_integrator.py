"""Dynamics: jax-md's own loops, the canonical distribution, conservation, and what goes wrong."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from dynamics import ARGON, Protocol, argon, at_temperatures, moved, salt_of_springs
from jax_md import simulate

from phojax.forces import energy_and_forces
from phojax.md.integrator import advanced, started
from phojax.md.systems import systems
from phojax.structure import padded
from phojax.units import KB


def _force(potential, crystal, capacity):
    def force(x, **_):
        at = replace(crystal, positions=x)
        return energy_and_forces(potential, at, potential.graph(at, capacity))[1]

    return force


def _about_its_centre(x, masses):
    return x - (masses[:, None] * x).sum(0) / masses.sum()


def test_langevin_equals_jax_md():
    """jax-md's centre of mass moves and ours does not; all else is the same to rounding."""
    crystal = argon()
    capacity = ARGON.capacity(crystal)
    given = at_temperatures(crystal, [60.0])
    protocol = Protocol(timestep_fs=2.0, frame_every=1, friction_per_ps=5.0)
    state, _ = started(ARGON, given, capacity)
    _, frames, _ = moved(ARGON, given, protocol, 40, capacity=capacity)

    init, step = simulate.nvt_langevin(
        _force(ARGON, crystal, capacity), lambda x, dx: x + dx, protocol.timestep,
        60.0 * KB, gamma=protocol.friction,
    )  # fmt: skip
    theirs = init(
        jax.random.key(0), crystal.positions, mass=crystal.masses, momenta=state.momenta[0]
    )
    theirs = theirs.set(rng=jax.random.wrap_key_data(state.keys[0]))
    for _ in range(40):
        theirs = step(theirs)
    m = np.asarray(crystal.masses)
    ours = _about_its_centre(np.asarray(frames.positions[39, 0]), m)
    np.testing.assert_allclose(
        ours, _about_its_centre(np.asarray(theirs.position), m), rtol=0, atol=1e-10
    )
    # Not because nothing moved.
    assert np.abs(ours - _about_its_centre(np.asarray(crystal.positions), m)).max() > 0.01


def test_momentum_of_the_centre_stays_zero():
    crystal, potential = salt_of_springs((1, 1, 2))
    given = at_temperatures(crystal, [500.0], "Na")
    protocol = Protocol(frame_every=2)
    state, _, _ = moved(potential, given, protocol, 30, capacity=potential.capacity(crystal))
    assert np.abs(np.asarray(state.momenta[0]).sum(0)).max() < 1e-10


def test_energy_is_conserved():
    """Below 1e-5 eV/atom/ps at 1 fs, the switched potential being smooth."""
    crystal = argon()
    given = at_temperatures(crystal, [60.0])
    protocol = Protocol(ensemble="nve", timestep_fs=1.0, frame_every=20)
    _, frames, _ = moved(ARGON, given, protocol, 250, capacity=ARGON.capacity(crystal))
    total = np.asarray(frames.energies + frames.kinetic)[:, 0] / len(crystal)
    t = np.arange(len(total)) * protocol.interval_ps
    assert abs(np.polyfit(t, total, 1)[0]) < 1e-6
    assert np.ptp(total) < 1e-5
    assert np.ptp(np.asarray(frames.kinetic)[:, 0]) / len(crystal) > 1e-4


def test_time_runs_backwards():
    crystal = argon()
    capacity = ARGON.capacity(crystal)
    given = at_temperatures(crystal, [60.0])
    protocol = Protocol(ensemble="nve", timestep_fs=2.0, frame_every=50)
    there, _, _ = moved(ARGON, given, protocol, 2, capacity=capacity)
    turned = replace(there, momenta=-there.momenta)
    back, _, _ = moved(ARGON, given, protocol, 2, capacity=capacity, state=turned)
    assert np.abs(there.positions[0] - crystal.positions).max() > 0.05
    np.testing.assert_allclose(back.positions[0], crystal.positions, atol=1e-9)


def test_temperature_and_energy_distributions():
    """Mean and variance of both energies of 32 independent harmonic crystals, at 5 σ."""
    crystal, potential = salt_of_springs((1, 1, 1))
    capacity, T = potential.capacity(crystal), 20.0  # cold enough to be harmonic
    given = at_temperatures(crystal, [T] * 32, "Na", replicas=range(32))
    protocol = Protocol(timestep_fs=1.0, frame_every=20, friction_per_ps=10.0)
    state, _, _ = moved(potential, given, protocol, 50, capacity=capacity)
    _, frames, _ = moved(potential, given, protocol, 200, capacity=capacity, state=state)
    freedom = 3 * len(crystal) - 3
    rest = potential.energy(potential.params, crystal, potential.graph(crystal, capacity))
    for energies in (frames.kinetic, frames.energies - rest):
        e = np.asarray(energies) / (KB * T)
        # Each replica is one sample of the time average; their scatter is its error.
        for values, wanted in (
            (e.mean(0), freedom / 2),
            (((e - freedom / 2) ** 2).mean(0), freedom / 2),
        ):
            error = values.std(ddof=1) / np.sqrt(len(values))
            assert abs(values.mean() - wanted) < 5 * error
            assert error < 0.05 * wanted


def test_displacements_of_a_harmonic_crystal():
    """⟨u²⟩ by dynamics is the classical one from the Hessian, per element at 5 σ."""
    crystal, potential = salt_of_springs((1, 1, 1))
    capacity, T = potential.capacity(crystal), 20.0
    graph = potential.graph(crystal, capacity)

    def energy(x):
        at = replace(crystal, positions=x.reshape(-1, 3))
        return potential.energy(potential.params, at, graph)

    hessian = np.asarray(jax.hessian(energy)(crystal.positions.ravel()))
    root = np.repeat(np.sqrt(np.asarray(crystal.masses)), 3)
    values, vectors = np.linalg.eigh(hessian / np.outer(root, root))
    moving = values > 1e-6
    assert moving.sum() == 3 * len(crystal) - 3
    classical = ((vectors[:, moving] / root[:, None]) ** 2 * KB * T / values[moving]).sum(1)
    given = at_temperatures(crystal, [T] * 32, "Na", replicas=range(32))
    protocol = Protocol(timestep_fs=1.5, frame_every=20, friction_per_ps=3.0)
    state, _, _ = moved(potential, given, protocol, 100, capacity=capacity)
    _, frames, _ = moved(potential, given, protocol, 200, capacity=capacity, state=state)
    u = np.asarray(frames.positions) - np.asarray(crystal.positions)
    for number in (11, 17):
        of = np.asarray(crystal.numbers) == number
        found = (u[:, :, of] ** 2).sum(-1).mean(axis=(0, 2))  # per replica
        wanted = classical.reshape(-1, 3).sum(1)[of].mean()
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - wanted) < 5 * error
        assert error < 0.05 * wanted


def test_a_system_does_not_feel_what_is_beside_it():
    """Padding, other systems and the order do not change a trajectory."""
    crystal, large = argon((1, 1, 2)), argon((1, 2, 2))
    capacity = ARGON.capacity(large)
    protocol = Protocol(timestep_fs=2.0, frame_every=5)
    alone = at_temperatures(crystal, [30.0], seed=3)
    _, one, _ = moved(ARGON, alone, protocol, 4, capacity=ARGON.capacity(crystal))
    beside = systems([large, crystal, crystal], [30.0, 30.0, 90.0], "Ar", seed=3)
    _, many, _ = moved(ARGON, beside, protocol, 4, capacity=capacity)
    n = len(crystal)
    np.testing.assert_allclose(many.positions[:, 1, :n], one.positions[:, 0], rtol=0, atol=1e-11)
    np.testing.assert_allclose(many.energies[:, 1], one.energies[:, 0], rtol=0, atol=1e-11)
    assert np.all(np.asarray(many.positions[:, 1, n:]) == 0)
    assert np.abs(many.positions[:, 2, :n] - one.positions[:, 0]).max() > 1e-3


def test_one_that_blows_up_does_not_stop_the_others():
    crystal = argon((1, 1, 2))
    squeezed = replace(crystal, positions=crystal.positions.at[1].set(crystal.positions[0] + 0.3))
    capacity = ARGON.capacity(crystal)
    protocol = Protocol(timestep_fs=2.0, frame_every=5)
    pair = systems([squeezed, crystal], [30.0, 30.0], "Ar")
    state, frames, _ = moved(ARGON, pair, protocol, 4, capacity=capacity)
    alone = systems([crystal], [30.0], "Ar")
    _, one, _ = moved(ARGON, alone, protocol, 4, capacity=capacity)
    np.testing.assert_array_equal(state.alive, [False, True])
    assert int(state.died_at[0]) == 1
    assert not np.any(frames.alive[:, 0])
    assert np.all(np.isfinite(frames.positions))
    np.testing.assert_allclose(frames.positions[:, 1], one.positions[:, 0], rtol=0, atol=1e-12)


def test_overflow_is_told():
    crystal = argon()
    capacity = ARGON.capacity(crystal)
    given = at_temperatures(crystal, [60.0])
    state, full = started(ARGON, given, capacity)
    assert not full[0]
    less = capacity._replace(pairs=int(ARGON.graph(crystal, capacity).mask.sum()) + 2)
    protocol = Protocol(timestep_fs=4.0, frame_every=10)
    _, frames, overflow = moved(ARGON, given, protocol, 60, capacity=less, state=state)
    assert overflow[0]
    assert frames.count < 60  # the rest is not computed for nothing


def test_networks_see_their_own_precision():
    crystal = argon((1, 1, 2))
    capacity = ARGON.capacity(crystal)
    given = at_temperatures(crystal, [60.0])
    protocol = Protocol(timestep_fs=2.0, frame_every=5)
    _, double, _ = moved(ARGON, given, protocol, 4, capacity=capacity)
    _, single, _ = moved(ARGON.astype(jnp.float32), given, protocol, 4, capacity=capacity)
    assert single.positions.dtype == jnp.float64
    apart = np.abs(single.positions - double.positions).max()
    assert 0 < apart < 1e-5


def test_padding_does_not_move_whatever_its_place():
    crystal = argon((1, 1, 1))
    given = systems([padded(crystal, 6)], [50.0], "Ar", atoms=8)
    protocol = Protocol(frame_every=2)
    state, _, _ = moved(ARGON, given, protocol, 3, capacity=ARGON.capacity(crystal))
    assert np.all(np.asarray(state.positions[0, 4:]) == 0)
    assert np.all(np.asarray(state.momenta[0, 4:]) == 0)


def test_chunks_of_any_length_are_the_same_run():
    crystal = argon((1, 1, 2))
    capacity = ARGON.capacity(crystal)
    given = at_temperatures(crystal, [60.0])
    state, _ = started(ARGON, given, capacity)
    more = {"capacity": capacity, "longest": 6, "every": 2, "thermostat": True}
    p = Protocol()

    def after(counts):
        now = state
        for count in counts:
            now, _, _ = advanced(
                ARGON, given, now, jnp.int32(count), p.timestep, p.friction, **more
            )
        return now

    whole, parts = after([6]), after([1, 3, 2])
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(a, b)
