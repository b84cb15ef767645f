"""Compositions: nearest allowed shares, nearest real ones, and constraints that contradict."""

import itertools

import numpy as np
import pytest

from phojax.checks import InputError
from phojax.design.composition import Composition


def test_projection_onto_the_simplex_alone():
    given = Composition(("Cl", "Br", "I"), (2, 1))
    found = given.projected(np.array([[0.9, 0.9, -2.0], [0.2, 0.3, 0.5]]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], atol=1e-12)


def test_projection_keeps_the_charge_and_is_the_nearest():
    given = Composition(("Cl", "S"), (4, 2), {"Cl": -1, "S": -2}, -8.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        wanted = rng.normal(0.5, 0.5, (2, 2))
        found = given.projected(wanted)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
        np.testing.assert_allclose(np.array([4, 2]) @ found @ [-1, -2], -8, atol=1e-8)
        assert found.min() >= 0
        # Two unknowns and one constraint leave a line: 4 s + 2 t = 2 for the shares of S.
        s = np.linspace(0, 0.5, 20001)
        t = 1 - 2 * s
        best = np.min(
            (s - wanted[0, 1]) ** 2 + (1 - s - wanted[0, 0]) ** 2
            + (t - wanted[1, 1]) ** 2 + (1 - t - wanted[1, 0]) ** 2
        )  # fmt: skip
        assert np.sum((found - wanted) ** 2) <= best + 1e-7


def test_fractions_bound_the_shares():
    given = Composition(("Cl", "I"), (2, 2), fractions={"I": (0.25, 0.5)})
    found = given.projected(np.array([[0.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(found, 0.5, atol=1e-9)
    np.testing.assert_allclose(
        given.projected(np.array([[1.0, 0.0], [1.0, 0.0]])).sum(axis=0) / 2, [0.75, 0.25], atol=1e-9
    )


@pytest.mark.parametrize("seed", range(5))
def test_whole_numbers_against_all_there_are(seed):
    charges = {"Cl": -1.0, "S": -2.0, "P": -3.0}
    given = Composition(("Cl", "S", "P"), (3, 2), charges, -9.0, {"Cl": (0.2, 1.0)})
    p = np.random.default_rng(seed).dirichlet(np.ones(3), 2)
    splits = {m: [n for n in itertools.product(range(m + 1), repeat=3) if sum(n) == m]
              for m in (2, 3)}  # fmt: skip
    allowed = [
        np.array(both) for both in itertools.product(splits[3], splits[2])
        if np.sum(np.array(both) @ list(charges.values())) == -9
        and np.array(both)[:, 0].sum() >= 1
    ]  # fmt: skip
    distance = [np.abs(n - np.array([[3], [2]]) * p).sum() for n in allowed]
    found = given.nearest_whole(p)
    assert found is not None
    assert any(np.array_equal(found, n) for n in allowed)
    np.testing.assert_allclose(np.abs(found - np.array([[3], [2]]) * p).sum(), min(distance))


def test_what_cannot_be():
    with pytest.raises(InputError, match="contradict"):
        Composition(("Cl", "S"), (4,), {"Cl": -1, "S": -2}, -9.0)
    with pytest.raises(InputError, match="contradict"):
        Composition(("Cl", "I"), (4,), fractions={"Cl": (0.6, 1), "I": (0.6, 1)})
    with pytest.raises(InputError, match="lower end first"):
        Composition(("Cl", "I"), (4,), fractions={"Cl": (0.6, 0.2)})
    with pytest.raises(InputError, match="charges of"):
        Composition(("Cl", "I"), (4,), {"Cl": -1})
    # A charge that shares can make but whole atoms cannot.
    assert Composition(("Cl", "S"), (1,), {"Cl": -1, "S": -2}, -1.5).nearest_whole(
        np.array([[0.5, 0.5]])
    ) is None  # fmt: skip
