"""Interrupted work of slow models is taken up where it was, and goes the same way."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from phojax.checks import InputError
from phojax.convert import structure_from_ase
from phojax.potentials.ase_calculator import ase_calculator
from phojax.screening.prepare import prepared
from phojax.screening.row import row_from_potential
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint


class Counting(Calculator):
    """Counts evaluations, and fails for good after some of them.

    The effective medium theory, made anew each time: ASE's remembers its neighbours.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, limit=10**9):
        super().__init__()
        self.calls, self.limit = 0, limit

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.calls += 1
        if self.calls > self.limit:
            raise RuntimeError("switched off")
        super().calculate(atoms, properties, system_changes)
        fresh = self.atoms.copy()
        fresh.calc = EMT()
        self.results = {
            "energy": fresh.get_potential_energy(),
            "forces": fresh.get_forces(),
            "stress": fresh.get_stress(),
        }


SETTINGS = PhononSettings(mobile="Cu", supercell_atoms=8, mesh=(2, 2, 2), displacement=0.01)


def crystal():
    atoms = bulk("CuAu", "rocksalt", a=5.0)
    atoms.set_cell(np.diag([1.0, 1.02, 0.97]) @ atoms.cell, scale_atoms=True)
    return structure_from_ase(atoms)


@pytest.mark.parametrize("limit", [4, 18])
def test_taken_up_after_a_stop(tmp_path, monkeypatch, limit):
    """Stopped in the relaxation, or among the displacements: no evaluation is made twice."""
    monkeypatch.setattr("phojax.screening.prepare._SECONDS_BETWEEN", 0.0)
    whole = Counting()
    straight = prepared(crystal(), ase_calculator(whole), SETTINGS)
    assert straight.relaxation.steps + 2 * straight.plain.columns == whole.calls
    assert whole.calls > limit
    first, second = Counting(limit), Counting()
    checkpoint = Checkpoint(tmp_path, "key")
    with pytest.raises(InputError, match="switched off"):
        prepared(crystal(), ase_calculator(first), SETTINGS, checkpoint=checkpoint)
    again = prepared(crystal(), ase_calculator(second), SETTINGS, checkpoint=checkpoint)
    np.testing.assert_array_equal(
        again.main.force_constants.values, straight.main.force_constants.values
    )
    lost = 2 * 4 if limit > straight.relaxation.steps else 0  # a part
    assert second.calls <= whole.calls - limit + lost


def test_record_says_how_and_the_cell_can_be_held():
    settings = PhononSettings(
        mobile="Cu", supercell_atoms=8, mesh=(2, 2, 2), relax_cell=False, temperatures=(300.0,)
    )
    record = row_from_potential("CuAu", crystal(), ase_calculator(EMT()), settings).record
    assert record["force_constants"]["method"] == "displacements"
    assert record["force_constants"]["displacement_A"] == 0.01
    assert "cell_not_relaxed" in record["flags"]
    assert any("central differences of 0.01 Å" in note for note in record["notes"])


def test_a_relaxation_that_cannot_be_evaluated_is_an_error():
    class WithoutStress(Counting):
        implemented_properties = ("energy", "forces")

    with pytest.raises(InputError, match="gives no stress: keep the cell fixed"):
        prepared(crystal(), ase_calculator(WithoutStress()), SETTINGS)
