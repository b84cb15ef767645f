"""Displacements about minima of snapshots: against the primitive cell, ASE, and known minima."""

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.morse import MorsePotential
from ase.vibrations import Vibrations
from morse_crystal import CUTOFF, DEPTH, LENGTH, ONSET, WIDTH, model, unit, wrapped

from phojax.checks import InputError
from phojax.convert import ase_atoms, structure_from_ase
from phojax.descriptors.displacements import displacement_tensors, oscillators
from phojax.finite_temperature.minima import nearest, same_minimum, sites_of
from phojax.finite_temperature.reference import fitted_reference
from phojax.finite_temperature.snapshots import Snapshots, chosen_frames, usable_group
from phojax.force_constants.hessian import hessian
from phojax.md.trajectory import Trajectory
from phojax.modes import modes
from phojax.rooms import room_of
from phojax.screening.settings import PhononSettings
from phojax.screening.snapshot_record import snapshot_record, snapshot_table
from phojax.screening.snapshots import snapshot_row
from phojax.screening.store import Checkpoint
from phojax.structure import commensurate_points, structure, supercell
from phojax.symmetry import space_group
from phojax.units import HBAR, KB, eigenvalue_from_THz

SETTINGS = PhononSettings(force_tolerance=1e-8, temperatures=(100.0, 800.0))
# The same shape for all: one function is compiled for every test here.
ROOM = replace(model(), capacity=lambda crystal: model().capacity(_dense()))


def _dense():
    """A crystal with more pairs than any below, for one capacity."""
    atoms = unit(3.75) * (2, 2, 2)
    return structure_from_ase(atoms)


def trajectory(crystal, frames):
    return Trajectory(
        np.array(frames), np.asarray(crystal.cell), np.asarray(crystal.numbers),
        np.asarray(crystal.masses), 0.01,
    )  # fmt: skip


def without(crystal, atom):
    keep = np.arange(len(crystal)) != atom
    return structure(
        crystal.cell, crystal.positions[keep], crystal.numbers[keep], crystal.masses[keep]
    )


def first_settings(**changed):
    return replace(SETTINGS, **changed)


@pytest.fixture(scope="module")
def perfect():
    """The crystal, at rest by symmetry, its supercell, and MSDs of the primitive cell."""
    crystal = structure_from_ase(unit())
    cells = supercell(crystal, (2, 2, 2))
    room = room_of(ROOM, cells.structure)
    constants = hessian(ROOM, cells, space_group(crystal), room=room).force_constants
    found = modes(constants, jnp.asarray(commensurate_points(cells)))
    kept = oscillators(found, eigenvalue_from_THz(jnp.asarray(1e-3))).kept
    U = displacement_tensors(found, jnp.asarray(SETTINGS.temperatures), kept)
    msd = np.trace(np.asarray(U), axis1=-2, axis2=-1)
    return SimpleNamespace(
        cells=cells, big=cells.structure, msd=np.repeat(msd, 8, axis=1),
        mobile=np.asarray(cells.structure.numbers) == 11,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run_of_five(perfect):
    """Frames: perfect; warm; warm, adrift and wrapped; two Na exchanged; Na and Cl exchanged."""
    rng = np.random.default_rng(5)
    x = np.asarray(perfect.big.positions)
    sodium, chlorine = np.flatnonzero(perfect.mobile), np.flatnonzero(~perfect.mobile)

    def warm():
        return rng.normal(scale=0.08, size=x.shape)

    exchanged, mixed = x.copy(), x.copy()
    exchanged[sodium[:2]] = x[sodium[1::-1]]
    near = chlorine[np.argmin(np.linalg.norm(x[chlorine] - x[sodium[0]], axis=1))]
    mixed[[sodium[0], near]] = x[[near, sodium[0]]]
    cell = np.asarray(perfect.big.cell)
    frames = [
        x,
        x + warm(),
        wrapped(x + warm() + [3.1, -2.2, 9.0], cell),
        exchanged + warm(),
        mixed,
    ]
    return trajectory(perfect.big, frames)


@pytest.fixture(scope="module")
def five(perfect, run_of_five):
    how = Snapshots(count=5)
    return snapshot_row(run_of_five, perfect.big, ROOM, SETTINGS, how)


def test_a_perfect_supercell_is_the_primitive_cell_on_the_commensurate_mesh(perfect, five):
    for seen in (five.ideal, five.minima[0]):
        assert seen.clean
        np.testing.assert_allclose(seen.displacements.msd, perfect.msd, rtol=1e-8)
    # With all symmetry, translations of the supercell included, and with none.
    assert five.ideal.columns < 8
    assert five.minima[0].columns == 96


def test_the_error_of_an_average_is_the_spread_of_equal_atoms(perfect):
    """Atoms are equal by symmetry, the random displacements about the minimum are not."""
    run = trajectory(perfect.big, [perfect.big.positions])
    settings = first_settings(width=0.06, pairs=8)
    row = snapshot_row(run, perfect.big, ROOM, settings, Snapshots(count=1))
    found = row.minima[0].displacements
    assert row.minima[0].columns == 96 * 2 * 8
    for kind in (perfect.mobile, ~perfect.mobile):
        spread = found.msd[:, kind].std(axis=1, ddof=1)
        told = np.sqrt(np.mean(found.errors[:, kind] ** 2, axis=1))
        np.testing.assert_array_less(spread / told, 2.5)
        np.testing.assert_array_less(0.4, spread / told)
    table = snapshot_table(row, settings)
    assert all(np.isfinite(one["msd_total_error_100K_A2"]) for one in table)


def test_on_a_mesh_of_the_supercell_too(perfect):
    """2 × 1 × 1 of the supercell is 4 × 2 × 2 of the primitive cell, force constants held."""
    settings = first_settings(mesh=(2, 1, 1))
    run = trajectory(perfect.big, [perfect.big.positions])
    found = snapshot_row(run, perfect.big, ROOM, settings, Snapshots(count=1))
    np.testing.assert_allclose(
        found.minima[0].displacements.msd, found.ideal.displacements.msd, rtol=1e-8
    )
    # The soft waves near Γ that Γ alone leaves out.
    assert np.all(found.ideal.displacements.msd > 1.05 * perfect.msd)


def test_warm_snapshots_fall_back(perfect, five):
    for n in (1, 2):
        minimum = five.minima[n]
        assert minimum.relaxation.converged
        assert minimum.sites.on_own.all()
        assert minimum.sites.moved.max() < 1e-6
        assert minimum.flags == ("duplicate",)
        assert minimum.duplicate_of == 0
        np.testing.assert_allclose(minimum.displacements.msd, perfect.msd, rtol=1e-6)


def test_computed_by_itself_it_is_the_same(perfect, run_of_five):
    """The second frame alone: no earlier snapshot to take displacements from."""
    one = replace(run_of_five, positions=run_of_five.positions[1:2])
    found = snapshot_row(one, perfect.big, ROOM, SETTINGS, Snapshots(count=1)).minima[0]
    assert found.columns == 96
    np.testing.assert_allclose(found.displacements.msd, perfect.msd, rtol=1e-6)


def test_exchanged_ions_are_on_other_sites_of_the_same_minimum(perfect, five):
    minimum = five.minima[3]
    sodium = np.flatnonzero(perfect.mobile)
    np.testing.assert_array_equal(np.flatnonzero(minimum.sites.on_others), sodium[:2])
    np.testing.assert_array_equal(minimum.sites.site[sodium[:2]], sodium[1::-1])
    assert "other_structure" not in minimum.flags
    assert minimum.duplicate_of == 0
    assert minimum.clean


def test_another_structure_is_flagged_and_does_not_count(perfect, five):
    minimum = five.minima[4]
    assert "other_structure" in minimum.flags
    assert not minimum.clean
    assert minimum.displacements is not None
    assert minimum.sites.off_sites[~perfect.mobile].sum() == 1
    record = snapshot_record("five", five, ROOM, SETTINGS, Snapshots(count=5))
    own = record["temperatures"]["800"]
    assert own["snapshots"] == 4
    assert own["different_minima"] == 1
    assert own["clean"]
    assert own["msd_total_over_ideal"] == pytest.approx(1, rel=1e-6)
    assert {"other_structure", "duplicate"} <= set(record["flags"])
    assert record["snapshots"][3]["mobile_on_other_sites"] == 2
    assert len(record["snapshots"][4]["framework_moved"]) == 1
    table = snapshot_table(five, SETTINGS)
    assert len(table) == 5 * 8
    assert {row["site"] for row in table if row["snapshot"] == 3} == {"own", "other"}


@pytest.fixture(scope="module")
def hop(perfect):
    """A crystal with a vacancy of Na, and a frame in which a Na has hopped there."""
    sodium = np.flatnonzero(perfect.mobile)
    x = np.asarray(perfect.big.positions)
    gone = sodium[0]
    away = np.linalg.norm(nearest(x[sodium[1:]] - x[gone], np.asarray(perfect.big.cell)), axis=1)
    hopper = sodium[1:][np.argmin(away)]
    holed = without(perfect.big, gone)
    after = x.copy()
    after[hopper] = x[gone]
    rng = np.random.default_rng(2)
    frames = [np.delete(at, gone, axis=0) for at in (x, after)]
    frames[1] = frames[1] + rng.normal(scale=0.05, size=frames[1].shape)
    run = trajectory(holed, frames)
    found = snapshot_row(run, holed, ROOM, SETTINGS, Snapshots(count=2))
    return SimpleNamespace(found=found, hopper=hopper - 1, holed=holed)


def test_a_hop_into_a_vacancy_is_another_site(perfect, hop):
    before, after = hop.found.minima
    assert before.sites.on_own.all()
    np.testing.assert_array_equal(np.flatnonzero(after.sites.off_sites), [hop.hopper])
    assert after.clean
    assert after.duplicate_of is None
    # A lattice vector of the crystal apart: all else is the same.
    assert after.relaxation.energy_eV == pytest.approx(before.relaxation.energy_eV, abs=1e-9)
    both = [np.sort(m.displacements.msd, axis=1) for m in (before, after)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-6)
    record = snapshot_record("hop", hop.found, ROOM, SETTINGS, Snapshots(count=2))
    assert record["snapshots"][1]["mobile_off_sites"] == 1
    assert record["snapshots"][1]["mobile_moved"] == [hop.hopper]


def test_displacements_are_those_of_ase(hop, tmp_path):
    """ASE's Morse potential, its finite differences, and ⟨u²⟩ summed by hand."""
    minimum = hop.found.minima[1]
    crystal = minimum.relaxation.structure
    atoms = ase_atoms(crystal)
    atoms.calc = MorsePotential(
        epsilon=DEPTH, r0=LENGTH, rho0=WIDTH * LENGTH, rcut1=ONSET / LENGTH, rcut2=CUTOFF / LENGTH
    )
    assert atoms.get_potential_energy() == pytest.approx(minimum.relaxation.energy_eV, abs=1e-9)
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.001)
    vibrations.run()
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    values, E = np.linalg.eigh(vibrations.get_vibrations().get_hessian_2d() / np.outer(root, root))
    values, E = values[3:], E[:, 3:]
    omega = np.sqrt(values)
    for k, T in enumerate(SETTINGS.temperatures):
        g = HBAR / (2 * omega) / np.tanh(HBAR * omega / (2 * KB * T))
        msd = ((E**2 @ g) / root**2).reshape(-1, 3).sum(axis=1)
        np.testing.assert_allclose(minimum.displacements.msd[k], msd, rtol=1e-5)


def test_side_by_side_is_one_at_a_time(perfect, run_of_five, five):
    how = Snapshots(count=5)
    together = snapshot_row(run_of_five, perfect.big, ROOM, SETTINGS, how, slots=3)
    for one, other in zip(five.minima, together.minima, strict=True):
        np.testing.assert_allclose(one.sites.positions, other.sites.positions, atol=1e-9)
        np.testing.assert_allclose(one.displacements.msd, other.displacements.msd, rtol=1e-8)
        assert (one.flags, one.duplicate_of) == (other.flags, other.duplicate_of)


class Stopped(BaseException):
    """As an interrupt from the keyboard."""


@pytest.mark.parametrize(
    "at", ["relaxation, 2 of", "force constants of snapshot 0", "modes of snapshot 4"]
)
def test_interrupted_it_goes_on(perfect, run_of_five, five, tmp_path, at):
    seen: list[str] = []

    def stopping(stage, done, of):
        if stage.startswith(at) and (done > 0 or "modes" in at):
            raise Stopped

    def counting(stage, done, of):
        seen.append(stage)

    how = Snapshots(count=5)
    given = (run_of_five, perfect.big, ROOM, SETTINGS, how)
    with pytest.raises(Stopped):
        snapshot_row(*given, report=stopping, checkpoint=Checkpoint(tmp_path, "k"))
    found = snapshot_row(*given, report=counting, checkpoint=Checkpoint(tmp_path, "k"))
    for one, other in zip(five.minima, found.minima, strict=True):
        np.testing.assert_array_equal(one.sites.positions, other.sites.positions)
        np.testing.assert_array_equal(one.displacements.tensors, other.displacements.tensors)
    # What was finished is not done again.
    assert "force constants of ideal crystal" not in seen
    assert ("force constants of snapshot 0" in seen) == ("modes" not in at)


def test_one_bad_snapshot_does_not_stop_the_others(perfect):
    x = np.asarray(perfect.big.positions)
    collapsed = x.copy()
    collapsed[3] = collapsed[2]
    run = trajectory(perfect.big, [collapsed, x])
    found = snapshot_row(run, perfect.big, ROOM, SETTINGS, Snapshots(count=2))
    assert found.minima[0].flags == ("failed",)
    assert "not finite" in found.minima[0].error
    assert found.minima[1].clean
    record = snapshot_record("two", found, ROOM, SETTINGS, Snapshots(count=2))
    assert record["temperatures"]["800"]["snapshots"] == 1
    assert "failed" in record["flags"]


def test_what_is_stopped_early_or_unstable_is_flagged(perfect):
    """Two steps of relaxation are too few; a dilated crystal has imaginary modes."""
    rng = np.random.default_rng(0)
    x = np.asarray(perfect.big.positions)
    warm = trajectory(perfect.big, [x + rng.normal(scale=0.1, size=x.shape)])
    found = snapshot_row(warm, None, ROOM, first_settings(relax_steps=2), Snapshots(count=1))
    assert "not_converged" in found.minima[0].flags
    assert found.ideal is None
    record = snapshot_record("early", found, ROOM, SETTINGS, Snapshots(count=1))
    assert {"not_converged", "no_reference", "no_clean_snapshot"} <= set(record["flags"])
    wide = structure_from_ase(unit(4.85) * (2, 2, 2))
    run = trajectory(wide, [wide.positions])
    found = snapshot_row(run, None, ROOM, SETTINGS, Snapshots(count=1))
    assert "imaginary_modes" in found.minima[0].flags
    assert found.minima[0].displacements.imaginary > 0
    assert found.minima[0].displacements.lost > 0


def test_ions_that_stand_out_are_named(perfect):
    """A light isotope of Na moves more at low temperature, by quantum statistics alone."""
    masses = np.asarray(perfect.big.masses).copy()
    ion = int(np.flatnonzero(perfect.mobile)[2])
    masses[ion] = 1.0
    run = replace(trajectory(perfect.big, [perfect.big.positions]), masses=masses)
    settings = first_settings(temperatures=(0.0, 1.0))
    found = snapshot_row(run, None, ROOM, settings, Snapshots(count=1))
    record = snapshot_record("light", found, ROOM, settings, Snapshots(count=1))
    (named,) = record["temperatures"]["0"]["stand_out"]
    assert (named["snapshot"], named["atom"]) == (0, ion)
    assert named["over_median"] > 2
    assert record["temperatures"]["0"]["stand_out_share"] == pytest.approx(1 / 8)


def test_reference_from_its_cell_in_another_order(perfect):
    """From the primitive cell as read from a file, frames adrift, atoms in another order."""
    rng = np.random.default_rng(1)
    order = rng.permutation(32)
    big = perfect.big
    x = np.asarray(big.positions)[order] + [0.7, -1.9, 4.4] + rng.normal(scale=0.05, size=(32, 3))
    frame = structure(big.cell, wrapped(x, np.asarray(big.cell)), big.numbers[order])
    given = structure_from_ase(unit(4.03))  # of another potential, say
    fitted = fitted_reference(given, frame, 11)
    np.testing.assert_array_equal(fitted.numbers, frame.numbers)
    host = np.asarray(frame.numbers) == 17
    at = sites_of(np.asarray(frame.positions), np.asarray(fitted.positions),
                  np.asarray(big.cell), np.asarray(frame.numbers), host, 0.5)  # fmt: skip
    assert at.on_own.all()
    assert at.moved.max() < 0.3
    assert len(usable_group(fitted, 1e-3)) == 48 * 8


def test_sites_do_not_depend_on_drift_or_images():
    rng = np.random.default_rng(4)
    cell = np.array([[7.0, 0.3, 0], [1.0, 8.0, 0], [0.4, 2.0, 9.0]])
    reference = rng.uniform(size=(12, 3)) @ cell
    numbers = np.repeat([11, 17], 6)
    moved = reference + rng.normal(scale=0.02, size=(12, 3))
    shifted = moved + [5.0, -3.0, 1.0] + rng.integers(-2, 3, (12, 3)) @ cell
    one, other = (
        sites_of(x, reference, cell, numbers, numbers == 17, 0.5) for x in (moved, shifted)
    )
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-12)
    partner = same_minimum(one, other, cell, numbers, numbers == 17, 1e-6)
    np.testing.assert_array_equal(partner, np.arange(12))
    far = replace(one, positions=one.positions + 0.1 * rng.normal(size=(12, 3)))
    assert same_minimum(one, far, cell, numbers, numbers == 17, 0.02) is None


def test_frames_at_equal_distances():
    np.testing.assert_array_equal(chosen_frames(100, Snapshots(4)), [24, 49, 74, 99])
    np.testing.assert_array_equal(chosen_frames(10, Snapshots(2, start=4)), [6, 9])
    np.testing.assert_array_equal(chosen_frames(3, Snapshots(3)), [0, 1, 2])
    with pytest.raises(InputError, match="at most 2"):
        chosen_frames(10, Snapshots(3, start=8))


def test_bad_input(perfect):
    run = trajectory(perfect.big, [perfect.big.positions])
    with pytest.raises(InputError, match="mobile element Li"):
        snapshot_row(run, None, ROOM, first_settings(mobile="Li"), Snapshots(count=1))
    other = replace(run, numbers=np.where(run.numbers == 17, 35, run.numbers))
    with pytest.raises(InputError, match="elements that"):
        snapshot_row(other, None, ROOM, SETTINGS, Snapshots(count=1))
    odd = structure_from_ase(unit(4.6))
    with pytest.raises(InputError, match="does not tile"):
        snapshot_row(run, odd, ROOM, SETTINGS, Snapshots(count=1))
    swapped = structure(perfect.big.cell, perfect.big.positions, 28 - perfect.big.numbers)
    with pytest.raises(InputError, match="composition"):
        snapshot_row(run, swapped, ROOM, SETTINGS, Snapshots(count=1))
    with pytest.raises(InputError, match="positive"):
        Snapshots(site_radius=0.0)
