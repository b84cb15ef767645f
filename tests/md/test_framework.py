"""Hosts that stay, melt, or rotate."""

import numpy as np
import pytest
import walks
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from phojax.campaign.md_runs import framework_watch
from phojax.checks import InputError
from phojax.md.displacements import single_origin_msd
from phojax.md.framework import framework_check, polyanion_check, polyanions_after
from phojax.md.polyanions import polyanions
from phojax.md.systems import systems
from phojax.md.trajectory import Trajectory
from phojax.structure import structure

SPECIES = (11, 15, 16)
DT = walks.INTERVAL


def _msd(frames: int, **rates) -> np.ndarray:
    """Return 2 D t per axis and element, D given by symbol."""
    t = np.arange(frames) * DT
    D = np.zeros((3, 3))
    for k, name in enumerate(("Na", "P", "S")):
        D[k] = rates.get(name, 0.0)
    return 2 * t[:, None, None] * D


def test_a_mobile_ion_does_not_trip():
    assert framework_check(_msd(800, Na=1.0), SPECIES, 11, DT).holds


def test_slow_diffusion_on_three_axes_trips_and_on_two_does_not():
    found = framework_check(_msd(300, S=np.full(3, 0.011)), SPECIES, 11, DT)
    assert len(found.reasons) == 1
    assert "S diffuses" in found.reasons[0]
    np.testing.assert_allclose(found.D[found.names.index("S")], 0.011)
    two = _msd(300, S=np.array([0.011, 0.011, 0.009]))
    assert framework_check(two, SPECIES, 11, DT).holds


def test_a_large_displacement_names_element_and_axis():
    msd = _msd(800)
    msd[-160:, 1, 2] = 1.01
    found = framework_check(msd, SPECIES, 11, DT)
    assert found.reasons == ("P moves along z: MSD 1.01 Å² at the end",)
    msd[-160:, 1, 2] = 0.99
    assert framework_check(msd, SPECIES, 11, DT).holds


@pytest.mark.parametrize("seed", range(5))
def test_a_tenth_of_a_run_is_enough_for_a_melt_and_does_not_trip_a_vibration(seed):
    rng = np.random.default_rng(seed)
    hot = walks.vibration(rng, 0.3, ions=8, frames=75)
    quiet = np.repeat(((hot - hot[0]) ** 2).mean(axis=1)[:, None], 3, axis=1)
    assert not framework_check(quiet, SPECIES, 11, DT).holds  # the artefact of E3
    assert framework_check(quiet, SPECIES, 11, DT, early=True).holds
    melt = hot + walks.brownian(rng, 0.15, ions=8, frames=75)
    moved = np.repeat(((melt - melt[0]) ** 2).mean(axis=1)[:, None], 3, axis=1)
    assert not framework_check(moved, SPECIES, 11, DT, early=True).holds


def _rotating(turning: bool, flowing: bool = False) -> Trajectory:
    """Return Na and two PS4 tetrahedra, one across the cell's faces."""
    bond = 2.05 / np.sqrt(3)
    corners = bond * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    centres = np.array([[0.2, 0.1, 0.3], [5.0, 5.0, 5.0]])
    rng = np.random.default_rng(8)
    frames = np.zeros((400, 11, 3))
    turn = [Rotation.identity(), Rotation.identity()]
    for t in range(400):
        for k, centre in enumerate(centres):
            if turning:
                turn[k] = Rotation.from_rotvec(rng.normal(0, 0.15, 3)) * turn[k]
            frames[t, 5 * k] = centre
            frames[t, 5 * k + 1 : 5 * k + 5] = centre + turn[k].apply(corners)
        if flowing:
            centres = centres + rng.normal(0, 0.1, (2, 3))
    frames += walks.vibration(rng, 0.08, ions=11, frames=400)
    frames[:, 10] = 2.5 + walks.brownian(rng, 0.3, ions=1, frames=400)[:, 0]
    numbers = np.array([15, 16, 16, 16, 16] * 2 + [11])
    masses = np.where(numbers == 15, 30.97, np.where(numbers == 16, 32.06, 22.99))
    cell = np.diag([10.0, 10.0, 10.0])
    # written as continuous paths that begin inside the cell
    frames -= np.floor(frames[0] / 10) * 10
    return Trajectory(frames, cell, numbers, masses, DT)


def test_rotating_polyanions_stay_by_their_centres():
    run = _rotating(turning=True)
    elements = framework_check(single_origin_msd(run, 11), SPECIES, 11, DT)
    assert any(r.startswith("S ") for r in elements.reasons)
    found = polyanion_check(run, 11)
    assert found.names == ("PS4",)
    assert found.holds
    assert found.last_msd.max() < 0.1


def test_polyanions_that_wander_trip():
    found = polyanion_check(_rotating(turning=True, flowing=True), 11)
    assert not found.holds
    assert found.reasons[0].startswith("PS4")


@pytest.mark.parametrize("flowing", [False, True])
def test_first_and_last_frame_say_the_same(flowing):
    run = _rotating(turning=True, flowing=flowing)
    ends = run.positions[0], run.positions[-1], run.cell, run.numbers, run.masses, 11
    elapsed = DT * (len(run) - 1)
    for found in (polyanions_after(*ends, elapsed), polyanions_after(*ends, None)):
        assert found.names == ("PS4",)
        assert found.holds is not flowing


@pytest.mark.parametrize("flowing", [False, True])
def test_a_run_in_which_polyanions_rotate_is_not_stopped(flowing):
    run = _rotating(turning=True, flowing=flowing)
    crystal = structure(run.cell, run.positions[0], run.numbers, masses=run.masses)
    watch = framework_watch(systems([crystal], [800.0], "Na"), 11, DT)
    told = watch(0, single_origin_msd(run, 11)[1:], run.positions[0], run.positions[-1])
    assert bool(told) is flowing


def test_networks_are_no_polyanions():
    silicon = bulk("Si", cubic=True)
    assert polyanions(silicon.positions, np.array(silicon.cell), silicon.numbers, 11) == []
    salt = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    assert polyanions(salt.positions, np.array(salt.cell), salt.numbers, 11) == []


def test_a_molecule_anywhere_in_a_skewed_cell_is_one():
    methane = molecule("CH4")
    for shift in np.random.default_rng(3).uniform(0, 12, (5, 3)):
        atoms = Atoms(methane.numbers, methane.positions + shift, cell=walks.CELL, pbc=True)
        atoms.wrap()
        (unit,) = polyanions(atoms.positions, np.array(atoms.cell), atoms.numbers, 11)
        assert unit.formula == "CH4"
        whole = atoms.positions[unit.atoms] + unit.images @ walks.CELL
        apart = np.linalg.norm(whole - whole[unit.atoms == 0], axis=1)
        assert apart.max() == pytest.approx(methane.get_distance(0, 1), abs=1e-6)


def test_bad_input():
    with pytest.raises(InputError, match="5"):
        framework_check(_msd(4), SPECIES, 11, DT)
    with pytest.raises(InputError, match="shape"):
        framework_check(_msd(50), (11, 17), 11, DT)
