"""Designs: gradients against crystals relaxed again, descents that resume, honest outcomes."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from mixtures import mixable_pairs

from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.design import problem as module
from phojax.design.goals import DESCRIPTORS, Limit, goal
from phojax.design.loop import Descent, descended
from phojax.design.outcome import outcome, with_references
from phojax.design.problem import evaluated, problem
from phojax.design.rounding import rounded
from phojax.gradients.vibrations import Vibrations
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.structure import structure
from phojax.symmetry import space_group, symmetrized

HALIDES = ("Cl", "Br", "I")


def ions():
    pairs = {("Na", "Cl"): 0.321, ("Na", "Br"): 0.335, ("Na", "I"): 0.350}
    repulsion = buckingham({k: (1092.3, rho, 0.0) for k, rho in pairs.items()}, cutoff=7.0)
    return summed(repulsion, ewald({"Na": 1.0, **dict.fromkeys(HALIDES, -1.0)}, cutoff=6.0))


def wurtzite():
    a, c, u = 4.72, 5.58, 0.5
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    x = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, u], [2 / 3, 1 / 3, 0.5 + u]]
    return structure(cell, (np.array(x) + np.array([0, 0, 0.01])) @ cell, [11, 11, 17, 17])


def close_packed(**how):
    """Return a problem of short-ranged pairs, cheap to compile and stable at all shares."""
    model, crystal = mixable_pairs()
    group = space_group(crystal)
    return problem(model, crystal, group, gamma_mesh((2, 2, 2), group), **how)


def given(**how):
    crystal = wurtzite()
    group = space_group(crystal)
    return problem(ions(), symmetrized(crystal, group), group, gamma_mesh((2, 1, 1), group), **how)


@pytest.mark.slow
def test_gradient_through_both_minima(monkeypatch):
    """Strain imposed on the relaxed cell of a mixture: two solves, against relaxing again."""
    monkeypatch.setattr(module, "FORCE", 1e-9)
    monkeypatch.setattr(module, "STRESS", 1e-10)
    it, aim = given(elements=HALIDES, strain=True), goal("msd", 11, 300.0, margin=None)
    strains = it.strains.shape[1]
    x = {"shares": np.array([[0.6, 0.3, 0.1]]), "strain": np.linspace(0.004, -0.003, strains)}
    here = evaluated(it, x, aim)
    assert here.converged
    assert len(here.solves) == 2
    along = {"shares": np.array([[1.0, -0.4, -0.6]]), "strain": np.linspace(0.3, 0.5, strains)}

    def loss(name, t):
        return evaluated(it, {**x, name: x[name] + t * along[name]}, aim, gradient=False).loss

    for name, direction in along.items():
        wide, close = ((loss(name, h) - loss(name, -h)) / (2 * h) for h in (1e-3, 5e-4))
        found = np.sum(here.slopes[name] * direction)
        np.testing.assert_allclose(found, (4 * close - wide) / 3, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_descent_resumes_and_its_gain_is_computed_again(tmp_path):
    aim = goal("msd", 11, 300.0)
    it = close_packed(elements=("Cl", "Br"))
    first = descended(it, aim, 2, tmp_path / "steps")
    again = descended(it, aim, 3, tmp_path / "steps")
    assert again.trail[:2] == first.trail
    assert again.best is not None
    assert again.trail[2]["loss"] < again.trail[0]["loss"]
    end = np.array(again.trail[2]["shares"])
    np.testing.assert_allclose(end.sum(axis=1), 1)
    # Where the largest share is still that of the start, nothing is gained, and that is said.
    found = outcome(it, aim, again)
    assert found["after"]["value"] == pytest.approx(found["before"]["value"], rel=1e-6)
    assert found["predicted_gain"] > 0
    assert any("gain" in note for note in found["notes"])
    nothing = outcome(it, aim, Descent(again.trail, None))
    assert "no step was stable, converged and within the limits" in nothing["notes"]


@pytest.mark.parametrize(
    ("share", "symbols"), [(0.9, ["I", "I"]), (0.55, ["Cl", "I"]), (0.2, ["Cl", "Cl"])]
)
def test_rounded_to_the_nearest_atoms(share, symbols):
    found = rounded(given(elements=("Cl", "I")), {"shares": np.array([[1 - share, share]])})
    assert found is not None
    crystal, facts = found
    assert sorted(crystal.symbols[2:]) == symbols
    masses = {"Cl": 35.453, "I": 126.90447}
    np.testing.assert_allclose(
        crystal.masses[2:], [masses[s] for s in crystal.symbols[2:]], rtol=1e-4
    )
    assert facts["orders"] == facts["tried"] == 1  # both sites are alike


def test_energies_above_the_ends_vanish_there():
    it, ends = with_references(close_packed(elements=("Cl", "Br")))
    aim = goal("formation-energy", 11, 300.0, margin=None)
    for place, symbol in enumerate(("Cl", "Br")):
        shares = np.eye(2)[[place]]
        assert it.zero({"shares": shares}) == pytest.approx(ends[symbol], abs=1e-9)
        assert evaluated(it, {"shares": shares}, aim, gradient=False).loss == pytest.approx(
            0, abs=1e-8
        )


def test_a_softer_crystal_pays():
    """The penalty is 0 above the margin and grows below it; goals that grow have a minus sign."""
    crystal = structure(3 * np.eye(3), [[0, 0, 0], [1.5, 1.5, 1.5]], [11, 17])

    def found(lowest):
        D = jnp.diag(jnp.asarray([lowest, 0.1, 0.2, 0.3, 0.4, 0.5])).astype(complex)[None]
        q = jnp.asarray([[0.5, 0.5, 0.5]])
        return Vibrations(crystal, D, q, jnp.ones(1), jnp.asarray(0.0), jnp.eye(2))

    aim = goal("msd", 11, 300.0, margin=0.5)
    stiff, soft = found(0.05), found(1e-4)
    assert aim(stiff) == -aim.value(stiff)
    assert aim(soft) > -aim.value(soft)
    free = replace(aim, margin=None)
    assert free(soft) == -aim.value(soft)
    assert goal("msd", 11, 300.0, opposite=True, margin=None)(stiff) == aim.value(stiff)
    for name in DESCRIPTORS:
        assert np.isfinite(goal(name, 11, 300.0)(stiff)), name
    most = float(free.value(stiff))
    wide, tight = (goal("msd", 11, 300.0, margin=None, limits=[Limit("msd", None, high)])
                   for high in (2 * most, most / 2))  # fmt: skip
    assert wide(stiff) == -most
    assert wide.beyond(stiff) == {}
    assert tight(stiff) > -most
    assert tight.beyond(stiff) == {"msd": pytest.approx(most)}


def test_bad_input():
    with pytest.raises(InputError, match="nothing varies"):
        given()
    with pytest.raises(InputError, match="to mix of which"):
        given(elements=("Br", "I"))
    with pytest.raises(InputError, match="two or more"):
        given(elements=("Cl",))
    with pytest.raises(InputError, match="knows"):
        given(elements=("Cl", "F"))
    with pytest.raises(InputError, match="largest strain"):
        given(strain=True, largest_strain=0.9)
    with pytest.raises(InputError, match="objective"):
        goal("speed", 11, 300.0)
    with pytest.raises(InputError, match="nothing between"):
        goal("msd", 11, 300.0, limits=[Limit("volume", 50.0), Limit("volume", None, 40.0)])
    with pytest.raises(InputError, match="lower one first"):
        Limit("volume", 50.0, 40.0)
    with pytest.raises(InputError, match="contradict"):
        given(elements=("Cl", "Br"), fractions={"Cl": (0.7, 1), "Br": (0.7, 1)})
    with pytest.raises(InputError, match="2 or more"):
        descended(given(strain=True), goal("msd", 11, 300.0), 1)
