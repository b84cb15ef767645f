"""`phojax potentials`: the list, and examinations that tell good from bad surfaces."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from phojax.cli import main
from phojax.examination import examined
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound, morse

_PAIRS = {
    ("Na", "Cl"): (0.5, 1.2, 2.7),
    ("Na", "Na"): (0.05, 1.1, 3.4),
    ("Cl", "Cl"): (0.1, 1, 3.9),
}
_MORSE = morse(_PAIRS, cutoff=5.5)


def test_list(capsys):
    assert main(["potentials"]) == 0
    out = capsys.readouterr().out
    for name in ("nequix", "chgnet", "equiformer:FILE.pt", "fairchem:FILE.pt", "ase:MODULE:NAME"):
        assert name in out
    assert main(["potentials", "--json", "x.json"]) == 2


def test_check_writes_and_goes_on_after_a_bad_name(capsys, tmp_path):
    file = tmp_path / "measures.json"
    assert main(["potentials", "--check", "lj:Ar", "lj:Nothing", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "smooth" in out
    assert "lj:Nothing" in err
    assert json.loads(file.read_text())["lj:Ar"]["antisymmetric"] < 1e-12


def test_laws_hold_for_an_exact_potential():
    found = examined(_MORSE)
    assert found.rotation_energy_eV_atom < 1e-13
    assert found.images_energy_eV_atom < 1e-13
    for law in (found.rotation_forces, found.images_forces, found.net_force, found.antisymmetric):
        assert law < 1e-12
    assert found.force_against_energy < 1e-8
    assert found.stress_against_energy < 1e-7
    assert not found.rough
    # Differences of step h are off by order h².
    steps = np.array(sorted(found.by_step))
    errors = np.array([found.by_step[h] for h in steps])
    np.testing.assert_allclose(np.diff(np.log(errors)) / np.diff(np.log(steps)), 2, atol=0.05)


def _wavy(amplitude, inner, params, crystal, graph):
    """Ripples of 0.02 Å on the energy, in a direction of space: rough, and not isotropic."""
    ripple = jnp.sum(jnp.where(crystal.numbers == 11, jnp.cos(crystal.positions[:, 0] * 314), 0))
    return inner(params, crystal, graph) + amplitude * ripple


def _ripple(amplitude) -> Potential:
    return Potential(
        name="ripples",
        params=_MORSE.params,
        energy=Bound(_wavy, (amplitude, _MORSE.energy)),
        graph=_MORSE.graph,
        capacity=_MORSE.capacity,
        elements=_MORSE.elements,
        cutoff=_MORSE.cutoff,
    )


def test_a_bad_surface_is_found_out():
    found = examined(_ripple(1e-5))
    assert found.rough
    assert found.rotation_energy_eV_atom > 1e-7
    assert found.rotation_forces > 1e-3
    assert found.net_force > 1e-3
    assert found.antisymmetric < 1e-10  # it has an energy, after all
    assert found.force_against_energy < 1e-3


def test_a_calculator_is_examined_by_displacements():
    from ase.build import bulk

    from phojax.convert import structure_from_ase

    found = examined(
        potential("ase:ase.calculators.emt:EMT"), structure_from_ase(bulk("Cu", a=3.6))
    )
    assert found.derivatives == 1
    assert found.by_step[0.001] == 0
    assert found.antisymmetric < 1e-4
    assert found.rotation_forces < 1e-10


@pytest.mark.slow
def test_chgnet_is_rough_at_width_zero():
    pytest.importorskip("chgnet", exc_type=ImportError)
    found = examined(potential("chgnet"))
    assert found.rough
    assert found.by_step[0.01] > 0.1
    assert found.antisymmetric < 1e-9
