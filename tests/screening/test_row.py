"""A row's record: against full meshes, other programs' numbers, and crystals made to go wrong."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from phonopy_reference import converted, rocksalt, shared_crystal, triclinic

from phojax.checks import InputError
from phojax.force_constants.hessian import averaged_surface
from phojax.neighbors import separations
from phojax.potentials.pair import morse
from phojax.screening.analysis import analysed
from phojax.screening.row import row_from_force_constants, row_from_potential
from phojax.screening.settings import PhononSettings
from phojax.structure import structure
from phojax.symmetry import space_group

FAST = PhononSettings(mesh=(4, 4, 4), temperatures=(300.0,), mobile="Na")


def test_reduced_mesh_equals_the_full_one():
    constants = converted(rocksalt())
    group = space_group(constants.supercell.primitive)
    identity = np.array([np.array_equal(W, np.eye(3)) for W in group.rotations])
    settings = replace(FAST, mesh=(6, 6, 6))
    reduced = analysed(constants, group, settings)
    full = analysed(constants, group.subset(identity), settings)
    assert reduced.reduced_by_symmetry
    assert len(reduced.mesh.q) < len(full.mesh.q) / 5
    assert np.abs(reduced.tensors - full.tensors).max() < 1e-12
    for name in ("centre", "deviation", "skewness", "kurtosis"):
        ours, theirs = (getattr(x.sums.moments, name) for x in (reduced, full))
        assert ours == pytest.approx(np.asarray(theirs), rel=1e-9)
    assert reduced.sums.dos == pytest.approx(full.sums.dos, abs=1e-9)
    assert reduced.sums.coupling_acoustic == pytest.approx(full.sums.coupling_acoustic, abs=1e-9)
    assert float(reduced.cutoffs.mesh) == pytest.approx(float(full.cutoffs.mesh), rel=1e-9)


def test_force_constants_without_the_symmetry_are_not_reduced():
    """A group that the force constants do not have must not be used."""
    constants = converted(rocksalt())
    group = space_group(constants.supercell.primitive)
    noise = 1e-3 * np.random.default_rng(0).normal(size=constants.values.shape)
    bent = replace(constants, values=constants.values + jnp.asarray(noise))
    assert not analysed(bent, group, FAST).reduced_by_symmetry


def test_an_unstable_crystal_is_flagged():
    constants = converted(rocksalt())
    soft = replace(constants, values=-0.2 * constants.values)
    record = row_from_force_constants("soft", soft, FAST).record
    assert record["stable"] is False
    assert "imaginary_modes" in record["flags"]
    assert record["frequency_min_THz"] < -0.1
    assert record["excluded"]["imaginary_modes"] > 0
    assert record["excluded"]["imaginary_weight"] == pytest.approx(1, abs=0.02)
    assert any("must not be ranked" in note for note in record["notes"])
    fine = row_from_force_constants("fine", constants, FAST).record
    assert fine["stable"] is True
    assert fine["flags"] == []
    assert fine["excluded"] == {
        "translations_at_gamma": 3, "imaginary_modes": 0, "imaginary_weight": 0.0
    }  # fmt: skip


def test_modes_that_are_zero_but_for_rounding_are_left_out():
    """A layer free to slide: its modes must not give displacements of millions of Å²."""
    constants = converted(rocksalt())
    free = replace(constants, values=1e-16 * constants.values)
    record = row_from_force_constants("free", free, FAST).record
    assert "small_imaginary_modes" in record["flags"]
    assert record["excluded"]["imaginary_weight"] == pytest.approx(1, abs=0.02)
    assert record["msd_total_mean_A2"]["300"]["Na"] == 0


def test_second_mesh_removes_the_error_of_the_first():
    """The extrapolated MSD of coarse meshes beside that of a fine one."""
    constants = converted(rocksalt())

    def msd(n):
        settings = replace(FAST, mesh=(n, n, n))
        record = row_from_force_constants("x", constants, settings).record
        keys = ("msd_total_mean_A2", "msd_total_mean_extrapolated_A2")
        return [record[key]["300"]["Na"] for key in keys]

    plain, limit = zip(*(msd(n) for n in (8, 24)), strict=True)
    assert limit[0] == pytest.approx(limit[1], rel=5e-3)
    assert abs(plain[0] / limit[1] - 1) > 0.03


def test_record_of_a_triclinic_crystal():
    constants = converted(triclinic())
    symbols = constants.supercell.primitive.symbols
    record = row_from_force_constants("x", constants, replace(FAST, mobile=symbols[0])).record
    assert record["space_group_number"] in (1, 2)
    assert set(record["pdos_center_THz"]) == {"total", *symbols}


@pytest.mark.parametrize("name", ["NaCl", "NaMgF3", "SnO2"])
def test_thermal_displacements_of_shared_crystals(shared, name):
    """U of phonopy on the same force constants and Γ-centred mesh, without NAC."""
    phonon = shared_crystal(shared, name)
    constants = converted(phonon)
    symbol = constants.supercell.primitive.symbols[0]
    settings = replace(FAST, mobile=symbol, mesh=(5, 5, 5))
    record = row_from_force_constants(name, constants, settings).record
    phonon.run_mesh([5, 5, 5], is_gamma_center=True, with_eigenvectors=True, is_mesh_symmetry=False)
    phonon.run_thermal_displacements(temperatures=[300], freq_min=0.01)
    theirs = phonon.thermal_displacements.thermal_displacements[0].reshape(-1, 3)
    for element in set(constants.supercell.primitive.symbols):
        mine = np.array([s == element for s in constants.supercell.primitive.symbols])
        ours = record["msd_axis_mean_A2"]["300"][element]
        assert ours == pytest.approx(theirs[mine].mean(), rel=1e-6)
        assert record["msd_axis_max_A2"]["300"][element] == pytest.approx(
            theirs[mine].max(), rel=1e-6
        )


SMOOTH = morse(
    {("Na", "Na"): (0.05, 1.1, 3.4), ("Na", "Cl"): (0.5, 1.2, 2.7), ("Cl", "Cl"): (0.1, 1.0, 3.9)},
    cutoff=5.5,
)


def rippled(amplitude, wavelength):
    """The smooth potential with a ripple along every short bond: rough on a small scale."""

    def with_ripple(params, crystal, graph):
        r = jnp.linalg.norm(separations(crystal, graph), axis=-1)
        window = jnp.where(r < 4.0, (1 - (r / 4.0) ** 2) ** 4, 0.0)
        ripple = amplitude * window * jnp.cos(2 * jnp.pi * r / wavelength)
        return SMOOTH.energy(params, crystal, graph) + 0.5 * jnp.sum(
            jnp.where(graph.mask, ripple, 0.0)
        )

    return replace(SMOOTH, energy=with_ripple, name="rippled")


ROCK_SALT = structure(
    np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 5.3,
    [[0, 0, 0], [2.65, 2.65, 2.65]],
    [11, 17],
)


def test_a_rough_potential_is_flagged_and_averaged():
    settings = replace(FAST, supercell_atoms=16, relax=False, width=0.06, pairs=8)
    rough = row_from_potential("rough", ROCK_SALT, rippled(5e-4, 0.05), settings).record
    smooth = row_from_potential("smooth", ROCK_SALT, SMOOTH, settings).record
    assert rough["rough"]
    assert "rough_potential" in rough["flags"]
    assert not smooth["rough"]

    def msd(record, which):
        return record["width_sensitivity"][which]["msd_total_mean_A2"]["300"]

    error = rough["width_sensitivity"]["used"]["msd_total_mean_error_A2"]["300"]
    assert abs(msd(rough, "used") - msd(smooth, "used")) < 5 * error
    assert abs(msd(rough, "plain") / msd(smooth, "plain") - 1) > 0.1


def test_not_relaxed_and_not_converged_are_flagged():
    settings = replace(FAST, supercell_atoms=16, width=0.0)
    held = row_from_potential("x", ROCK_SALT, SMOOTH, replace(settings, relax=False)).record
    assert "not_relaxed" in held["flags"]
    assert held["relaxation"] is None
    short = row_from_potential("x", ROCK_SALT, SMOOTH, replace(settings, relax_steps=1)).record
    assert "relaxation_not_converged" in short["flags"]
    assert short["relaxation"]["converged"] is False


def test_a_potential_that_returns_nan_is_an_error():
    broken = replace(
        SMOOTH,
        name="broken",
        energy=lambda *a: SMOOTH.energy(*a) + jnp.sum(a[1].positions ** 2) * jnp.nan,
    )
    for relax in (True, False):
        settings = replace(FAST, supercell_atoms=16, width=0.0, relax=relax)
        with pytest.raises(InputError, match="broken"):
            row_from_potential("x", ROCK_SALT, broken, settings)


def test_relaxation_on_the_average_finds_its_minimum():
    """The averaged stress vanishes there: against central differences of the averaged energy."""
    settings = replace(
        FAST, supercell_atoms=16, width=0.15, pairs=3, relax_on_average=True, stress_tolerance=1e-6
    )
    plain = row_from_potential("x", ROCK_SALT, SMOOTH, replace(settings, relax_on_average=False))
    found = row_from_potential("x", ROCK_SALT, SMOOTH, settings)
    assert found.record["relaxation"]["converged"]
    assert found.record["volume_A3"] > 1.005 * plain.record["volume_A3"]

    surface = averaged_surface(
        SMOOTH, found.force_constants.supercell, 0.15, 3, jax.random.key(settings.seed)
    )

    def averaged(scale):
        crystal = found.structure
        return surface(
            replace(crystal, cell=crystal.cell * scale, positions=crystal.positions * scale)
        )[0]

    slope = (averaged(1 + 1e-4) - averaged(1 - 1e-4)) / 2e-4
    assert abs(slope) < 3 * 1e-6 * found.record["volume_A3"] + 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperatures": ()},
        {"temperatures": (300.0, 300.0)},
        {"mesh": (0, 4, 4)},
        {"width": 2.0},
        {"pairs": 0},
        {"mobile": "X"},
        {"supercell_atoms": 500},
        {"smearing_THz": 0.0},
    ],
)
def test_settings_that_mean_nothing(wrong):
    with pytest.raises(InputError, match="expected"):
        PhononSettings(**wrong)
