"""A run as a whole: graphs that overflow, interruptions, systems that are stopped."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from dynamics import ARGON, Protocol, argon, at_temperatures

from phojax.checks import InputError
from phojax.md.checkpoint import RunCheckpoints
from phojax.md.run import CHUNK, run, single, species_of
from phojax.md.systems import systems
from phojax.potentials.catalogue import potential

SHORT = Protocol(
    equilibration_steps=40, steps=1000, frame_every=2, timestep_fs=2.0, vacf_window_ps=0.2
)


class Interrupted(Exception):
    """Stands for a kill."""


def _after(calls):
    def report(*_):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Interrupted

    return report


def _same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_resumed_equals_uninterrupted(tmp_path):
    given = at_temperatures(argon((1, 1, 2)), [30.0, 60.0])
    whole = run(ARGON, given, SHORT, checkpoint_every=200)
    calls = 0
    for calls in (1, 4, 0, 3):  # in the equilibration, later, before anything new, and later
        with pytest.raises(Interrupted):
            run(ARGON, given, SHORT, checkpoints=RunCheckpoints(tmp_path / "c", "key"),
                checkpoint_every=200, report=_after(calls))  # fmt: skip
    seen = []
    last = run(
        ARGON, given, SHORT, checkpoints=RunCheckpoints(tmp_path / "c", "key"),
        checkpoint_every=200, report=lambda stage, done, of, remark: seen.append(done),
    )  # fmt: skip
    assert seen[0] > 400  # it did go on
    assert int(last.state.step) == 1040
    _same((whole.state, whole.sums, vars(whole.series)), (last.state, last.sums, vars(last.series)))
    assert np.all(np.isfinite(whole.series.energies))


def test_another_key_begins_anew(tmp_path):
    given = at_temperatures(argon((1, 1, 1)), [30.0])
    with pytest.raises(Interrupted):
        run(ARGON, given, SHORT, checkpoints=RunCheckpoints(tmp_path / "c", "one"),
            checkpoint_every=100, report=_after(4))  # fmt: skip
    seen = []
    run(ARGON, given, SHORT, checkpoints=RunCheckpoints(tmp_path / "c", "two"),
        checkpoint_every=100, report=lambda stage, done, *_: seen.append(done))  # fmt: skip
    assert seen[0] <= CHUNK * 2


@pytest.mark.parametrize("share", [1.0, 0.04])
def test_a_graph_that_overflows_is_made_larger(share):
    """By a little, or from next to nothing, as for neighbours that a crystal at rest has not."""
    crystal = argon((1, 1, 2))
    given = at_temperatures(crystal, [60.0])
    enough = ARGON.capacity(crystal)
    real = int(ARGON.graph(crystal, enough).mask.sum())

    def scant(crystal):
        each = max(1, int(share * enough.each)) if enough.each else 0
        return enough._replace(pairs=int(share * real) + 2, each=each)

    small = run(replace(ARGON, capacity=scant), given, SHORT)
    large = run(ARGON, given, SHORT)
    if share == 1:  # what is too small from the start is made larger before
        assert any("more room" in remark for remark in small.remarks)
    assert not large.remarks
    # Other paddings, other orders of summation: the same up to what chaos makes of rounding.
    np.testing.assert_allclose(small.state.positions, large.state.positions, atol=1e-8)
    assert np.all(np.asarray(small.sums.counted) == SHORT.frames)


def test_temperatures_and_facts():
    given = systems([argon((1, 1, 2)), argon((1, 2, 2))], [20.0, 40.0], "Ar")
    found = run(ARGON, given, replace(SHORT, steps=4000, friction_per_ps=20.0))
    T = found.temperatures()
    assert T.shape == (2000, 2)
    np.testing.assert_allclose(T.mean(0), [20, 40], rtol=0.15)
    assert species_of(given, 0) == ["Ar"]
    assert len(single(given, 0)) == 8
    assert found.steps_per_second > 0


def test_one_that_blows_up_is_told_and_one_that_melts_is_stopped():
    crystal = argon((1, 1, 2))
    bad = replace(crystal, positions=crystal.positions.at[1].set(crystal.positions[0] + 0.3))
    given = systems([bad, crystal, crystal], [30.0, 30.0, 60.0], "Ar")
    asked = []

    def watch(number, msd, first, last):
        assert first.shape == last.shape
        asked.append((number, len(msd)))
        return "Ar moved along x" if number == 1 else ""

    found = run(ARGON, given, SHORT, watch=watch)
    assert asked == [(1, SHORT.frames // 10), (2, SHORT.frames // 10)]
    assert "blew up at step 1" in found.reasons[0]
    assert found.reasons[1] == "stopped at a tenth of the run: Ar moved along x"
    assert found.reasons[2] == ""
    np.testing.assert_array_equal(found.sums.counted, [0, 50, 500])
    np.testing.assert_array_equal(found.series.alive.sum(0), [0, 50, 500])
    alone = run(ARGON, systems([crystal], [60.0], "Ar"), SHORT)
    np.testing.assert_allclose(
        found.series.energies[:, 2], alone.series.energies[:, 0], rtol=0, atol=1e-9
    )


def test_skins_change_nothing():
    given = at_temperatures(argon(), [60.0])
    protocol = replace(SHORT, steps=200)
    plain = run(ARGON, given, protocol)
    skinned = run(ARGON, given, replace(protocol, skin=0.6))
    np.testing.assert_allclose(skinned.state.positions, plain.state.positions, atol=1e-8)


def test_bad_input():
    crystal = argon((1, 1, 1))
    with pytest.raises(InputError, match="positive"):
        at_temperatures(crystal, [0.0])
    with pytest.raises(InputError, match="mobile element Na"):
        at_temperatures(crystal, [100.0], "Na")
    with pytest.raises(InputError, match="elements that"):
        run(potential("lj:Ne"), at_temperatures(crystal, [30.0]), SHORT)
    bare = replace(ARGON, reaching=None)
    with pytest.raises(InputError, match="skin"):
        run(bare, at_temperatures(crystal, [30.0]), replace(SHORT, skin=1.0))
    one = jax.tree.map(lambda x: x, crystal)
    one = replace(one, positions=one.positions[:1], numbers=one.numbers[:1], masses=one.masses[:1])
    with pytest.raises(InputError, match="at least two"):
        run(ARGON, at_temperatures(one, [30.0]), SHORT)
    together = replace(crystal, positions=crystal.positions * 0)
    with pytest.raises(InputError, match="too close"):
        run(ARGON, at_temperatures(together, [30.0]), SHORT)
    for wrong in (
        {"timestep_fs": 0.0}, {"friction_per_ps": 0.0}, {"steps": 0}, {"ensemble": "npt"},
        {"skin": -1.0}, {"seed": -1}, {"timestep_fs": float("nan")},
    ):  # fmt: skip
        with pytest.raises(InputError):
            Protocol(**wrong)
