"""Bad input of lattice dynamics: refused with a word on what to do, or flagged in the record."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

import phojax
from phojax.checks import InputError
from phojax.descriptors.displacements import oscillators
from phojax.force_constants import force_constants
from phojax.force_constants.sum_rules import enforced
from phojax.modes import modes

CONSTANTS = enforced(reference.converted(reference.rocksalt()))[0]
CELLS = CONSTANTS.supercell
LARGEST = float(np.abs(CONSTANTS.values).max())
SETTINGS = phojax.PhononSettings(mesh=(2, 2, 2), temperatures=(300.0,), mobile="Na")
WRONG = {
    "force_constants_asymmetric", "force_constants_break_sum_rule", "born_charges_not_neutral",
}  # fmt: skip
E3 = np.eye(3)


def with_one(value) -> np.ndarray:
    """Return force constants with one component replaced."""
    out = np.array(CONSTANTS.values)
    out[1, 5, 0, 2] = value
    return out


def record(values, born=None) -> dict:
    """Return the record of rock salt with other force constants."""
    constants = replace(CONSTANTS, values=jnp.asarray(values))
    return phojax.row_from_force_constants("x", constants, SETTINGS, born=born).record


def wrongs(found: dict) -> set[str]:
    return WRONG & set(found["flags"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 63, 3, 3)), r"shape \(2, 63, 3, 3\).*\(2, 64, 3, 3\)"),
        (np.zeros((64, 64, 3, 3)), "2 primitive atoms × 32 cells"),
        (np.zeros((2, 64, 9)), "shape"),
        (np.zeros((2, 64, 3, 3), np.float32), "float32.*float64.*jax_enable_x64"),
        (np.zeros((2, 64, 3, 3), int), "int64.*float64"),
        (with_one(np.nan), "1 values that are not finite"),
        (with_one(-np.inf), "1 values that are not finite"),
    ],
)
def test_force_constants_that_cannot_be_used(values, message):
    with pytest.raises(InputError, match=message):
        force_constants(values, CELLS)


@pytest.mark.parametrize("mesh", [(0, 2, 2), (2.5, 2, 2), (2.0, 2, 2), (-1, 2, 2), (2, 2)])
def test_meshes_that_are_none(mesh):
    with pytest.raises(InputError, match="three integers of at least 1"):
        phojax.q_mesh(mesh)
    with pytest.raises(InputError, match="three integers of at least 1"):
        phojax.gamma_mesh(mesh)


@pytest.mark.parametrize("mesh", [(0, 2, 2), (2, 2, -1)])
def test_settings_refuse_meshes_that_are_none(mesh):
    with pytest.raises(InputError, match="three integers of at least 1"):
        phojax.PhononSettings(mesh=mesh)


@pytest.mark.parametrize("spacing", [0.0, -0.1, np.nan])
def test_mesh_spacings_that_are_none(spacing):
    with pytest.raises(InputError, match="positive"):
        phojax.mesh_divisions(CELLS.primitive, spacing)
    with pytest.raises(InputError, match="mesh_spacing is"):
        phojax.PhononSettings(mesh_spacing=spacing)


def test_mesh_shifts_that_break_the_mesh():
    with pytest.raises(InputError, match=r"0 or 0\.5"):
        phojax.q_mesh((2, 2, 2), shift=(0.3, 0, 0))


@pytest.mark.parametrize(
    ("q", "message"),
    [
        ([[0, np.nan, 0]], "q holds 1 values that are not finite"),
        ([[0, np.inf, -np.inf]], "q holds 2 values that are not finite"),
    ],
)
def test_wave_vectors_that_are_none(q, message):
    with pytest.raises(InputError, match=message):
        modes(CONSTANTS, jnp.asarray(q))


def test_wave_vectors_of_low_precision():
    for solve in (modes, phojax.dynamical_matrices):
        with pytest.raises(InputError, match="q is float32"):
            solve(CONSTANTS, jnp.zeros((1, 3), jnp.float32))


@pytest.mark.parametrize("temperature", [-1.0, np.nan, np.inf])
def test_settings_refuse_temperatures_that_are_none(temperature):
    with pytest.raises(InputError, match="0 or more"):
        phojax.PhononSettings(temperatures=(300.0, temperature))


@pytest.mark.parametrize("quantity", ["displacements", "free energy", "missing cell"])
def test_temperatures_below_zero_have_no_answer(quantity):
    """An error, or under jit NaN."""
    found = reference.solved(CONSTANTS, jnp.asarray([[0.1, 0.2, 0.3]]))
    kept = oscillators(found, 1e-6).kept
    try:
        if quantity == "displacements":
            answer = phojax.displacement_tensor(found, -300.0, kept)
        elif quantity == "free energy":
            answer = phojax.thermodynamics(found, -300.0, kept).free_energy
        else:
            answer = phojax.gamma_cell_correction(phojax.acoustics(CONSTANTS), (2, 2, 2), -300.0)
    except InputError:
        return
    assert np.all(np.isnan(answer))


@pytest.mark.parametrize(
    ("charges", "dielectric", "message"),
    [
        (np.zeros((2, 3)), E3, "Born charges has shape"),
        (np.full((2, 3, 3), np.nan), E3, "Born charges holds 18"),
        (np.zeros((2, 3, 3)), 2.5, "dielectric tensor has shape"),
        (np.zeros((2, 3, 3)), np.full((3, 3), np.inf), "dielectric tensor holds"),
        (np.zeros((2, 3, 3)), np.diag([2.5, 2.5, -0.1]), "expected a positive one"),
        (np.zeros((2, 3, 3)), np.diag([2.5, 2.5, 0.0]), "expected a positive one"),
    ],
)
def test_charges_that_cannot_be_used(charges, dielectric, message):
    with pytest.raises(InputError, match=message):
        phojax.born_charges(charges, dielectric)


def test_charges_of_other_atoms():
    born = phojax.born_charges(np.zeros((3, 3, 3)), 2.5 * E3)
    with pytest.raises(InputError, match="one tensor per atom"):
        phojax.interpolation(CONSTANTS, born)
    with pytest.raises(InputError, match="charges of 3 atoms; expected 2"):
        record(CONSTANTS.values, born)


@pytest.mark.slow
def test_charges_that_do_not_add_up_are_flagged():
    for excess, flags in ((0.02, set()), (0.2, {"born_charges_not_neutral"})):
        charges = np.stack([(1.1 + excess) * E3, -1.1 * E3])
        found = record(CONSTANTS.values, phojax.born_charges(charges, 2.5 * E3))
        assert wrongs(found) == flags
        assert found["nac"]["neutrality_removed_e"] == pytest.approx(excess)
        assert found["nac_applied"]
        assert any("add up to 0.2 e" in note for note in found["notes"]) == bool(flags)


def test_sound_force_constants_have_no_flags():
    found = record(CONSTANTS.values)
    assert found["flags"] == []
    assert found["force_constants"]["residual_permutation_eV_A2"] < 1e-12
    assert found["force_constants"]["residual_translation_eV_A2"] < 1e-12


@pytest.mark.parametrize(("share", "flagged"), [(0.005, False), (0.02, True)])
def test_asymmetric_force_constants_are_flagged(share, flagged):
    """A row that still adds up to zero, but whose transpose is another one."""
    off = 2 * share * LARGEST
    values = np.array(CONSTANTS.values)
    values[0, 40, 0, 1] += off
    values[0, 50, 0, 1] -= off
    found = record(values)
    assert wrongs(found) == ({"force_constants_asymmetric"} if flagged else set())
    told = found["force_constants"]
    assert told["residual_permutation_eV_A2"] == pytest.approx(share * LARGEST)
    assert told["residual_translation_eV_A2"] < 1e-12
    assert any("under exchange" in note for note in found["notes"]) == flagged


@pytest.mark.parametrize(("share", "flagged"), [(0.005, False), (0.02, True)])
def test_force_constants_that_break_the_sum_rule_are_flagged(share, flagged):
    """Every atom is tied to its site, alike along all axes: no asymmetry."""
    values = np.array(CONSTANTS.values)
    values[0, 0] += share * LARGEST * E3
    values[1, 32] += share * LARGEST * E3
    found = record(values)
    assert wrongs(found) == ({"force_constants_break_sum_rule"} if flagged else set())
    told = found["force_constants"]
    assert told["residual_translation_eV_A2"] == pytest.approx(share * LARGEST)
    assert told["residual_permutation_eV_A2"] < 1e-12
    assert any("break the sum rule" in note for note in found["notes"]) == flagged
    # What was removed does not tie the atoms any more.
    assert found["frequency_min_mesh_THz"] == pytest.approx(
        record(CONSTANTS.values)["frequency_min_mesh_THz"], rel=0.02
    )


def test_a_mobile_ion_that_is_not_there():
    settings = replace(SETTINGS, mobile="Li")
    with pytest.raises(InputError, match="mobile element Li"):
        phojax.row_from_force_constants("x", CONSTANTS, settings)
