"""Relaxation: analytic minima, ASE's optimiser, symmetry, and how it fails."""

from dataclasses import replace

import numpy as np
import pytest
import spglib
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from crystals import LJ_FCC_SPACING, fcc, layered_salt, parts, rattled, salt

from phojax.checks import InputError
from phojax.potentials.catalogue import potential
from phojax.potentials.pair import lennard_jones, springs
from phojax.relax import potential_surface, relax, relax_on
from phojax.structure import structure
from phojax.symmetry import space_group

TIGHT = {"force_tolerance": 1e-9, "stress_tolerance": 1e-11}


def symbol(crystal, tolerance):
    cell = (np.asarray(crystal.cell), np.asarray(crystal.fractional), np.asarray(crystal.numbers))
    return spglib.get_spacegroup(cell, symprec=tolerance)


@pytest.fixture(scope="module")
def ions():
    """Born-Mayer NaCl with a surface that is compiled once for 8 atoms."""
    made = potential("ions:NaCl")
    return potential_surface(made, structure(*parts(layered_salt())))


def test_lennard_jones_fcc_takes_its_lattice_constant():
    """1.0902 σ for the infinite sum; a switch beyond 4 σ leaves 1 part in 1000."""
    made = lennard_jones({("Ar", "Ar"): (0.0104, 3.4)}, cutoff=17.0, onset=15.0)
    result = relax(made, structure(*parts(fcc(a=5.0))), **TIGHT)
    assert result.converged
    assert result.message == "converged"
    assert result.steps < 30
    spacing = (float(result.structure.volume) * np.sqrt(2)) ** (1 / 3) / 3.4
    assert spacing == pytest.approx(LJ_FCC_SPACING, rel=1e-3)
    assert result.stress_max_eV_A3 <= 1e-11


def test_sodium_chloride_returns_from_a_random_distortion(ions):
    """All 8 atoms and the cell moved at random: back to Fm-3m, at Kittel's 5.64 Å."""
    start = structure(*parts(rattled(salt(a=5.5, cubic=True), 0.15, 0.02)))
    seen = []
    result = relax_on(ions, start, **TIGHT, on_step=lambda *at: seen.append(at))
    assert result.converged
    assert result.force_max_eV_A <= 1e-9
    assert symbol(result.structure, 1e-6).startswith("Fm-3m")
    assert float(result.structure.volume) ** (1 / 3) == pytest.approx(5.64, rel=3e-3)
    assert [at[0] for at in seen] == list(range(1, result.steps + 1))
    assert seen[-1][1] == pytest.approx(result.energy_eV)
    assert seen[-1][1] < seen[0][1]


def test_symmetry_is_kept_to_the_last_digit(ions):
    start = structure(*parts(layered_salt()))
    group = space_group(start)
    assert group.symbol == "P4mm"
    seen = []

    def surface(crystal):
        seen.append(symbol(crystal, 1e-9))
        return ions(crystal)

    result = relax_on(surface, start, **TIGHT, symmetry=group)
    assert result.converged
    # From P4mm upwards, never below it; the end is a minimum of higher symmetry.
    assert set(seen[:-8]) == {"P4mm (99)"}
    assert symbol(result.structure, 1e-5).startswith("Fm-3m")
    free = relax_on(ions, start, **TIGHT)
    assert result.steps <= free.steps
    assert result.energy_eV == pytest.approx(free.energy_eV, abs=1e-11)
    assert result.structure.volume == pytest.approx(float(free.structure.volume), abs=1e-5)


def test_a_symmetry_found_loosely_is_made_exact(ions):
    atoms = layered_salt()
    atoms.positions += 2e-5 * np.random.default_rng(0).normal(size=(8, 3))
    start = structure(*parts(atoms))
    assert symbol(start, 1e-9) == "P1 (1)"
    result = relax_on(ions, start, symmetry=space_group(start, 1e-3), max_steps=1)
    assert symbol(result.structure, 1e-9) == "P4mm (99)"


def test_a_cell_that_is_held_stays(ions):
    start = structure(*parts(layered_salt()))
    result = relax_on(ions, start, cell=False, force_tolerance=1e-8)
    assert result.converged
    np.testing.assert_array_equal(result.structure.cell, start.cell)
    assert result.stress_max_eV_A3 > 1e-3
    np.testing.assert_allclose(
        result.structure.positions.mean(0), start.positions.mean(0), atol=1e-9
    )


def test_ases_optimiser_ends_at_the_same_minimum():
    """Four argon atoms, strained and displaced; a bare cutoff between two shells in both."""
    atoms, cutoff = rattled(fcc(a=5.3, cubic=True), 0.05, 0.004), 8.7
    made = lennard_jones({("Ar", "Ar"): (0.0104, 3.4)}, cutoff=cutoff, onset=cutoff)
    ours = relax(made, structure(*parts(atoms)), force_tolerance=1e-5, stress_tolerance=1e-7)
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=cutoff)
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=200)
    # ASE shifts the energy of each of the 4 · 78 / 2 pairs to zero at the cutoff.
    shift = 4 * 0.0104 * ((3.4 / cutoff) ** 12 - (3.4 / cutoff) ** 6) * 4 * 78 / 2
    assert ours.converged
    assert float(ours.structure.volume) == pytest.approx(atoms.get_volume(), rel=2e-5)
    assert ours.energy_eV == pytest.approx(atoms.get_potential_energy() + shift, rel=1e-9)


def test_want_of_convergence_is_reported_with_the_best_point(ions):
    start = structure(*parts(layered_salt()))
    result = relax_on(ions, start, **TIGHT, max_steps=4)
    assert not result.converged
    assert result.steps == 4
    assert "not converged in 4 steps" in result.message
    assert result.energy_eV < float(ions(start)[0])
    again = ions(result.structure)
    assert float(again[0]) == pytest.approx(result.energy_eV)


def test_a_surface_that_turns_into_nan_stops_at_the_last_finite_structure():
    start = structure(*parts(fcc(a=5.0)))
    potential = springs({("Ar", "Ar"): (1.0, 4.0)}, cutoff=4.4)
    surface = potential_surface(potential, start)
    edge = float(start.volume) * 1.05

    def broken(crystal):
        energy, forces, stress = surface(crystal)
        return (np.nan if float(crystal.volume) > edge else energy), forces, stress

    result = relax_on(broken, start, **TIGHT)
    assert not result.converged
    assert "not finite" in result.message
    assert float(result.structure.volume) <= edge
    assert np.isfinite(result.energy_eV)

    result = relax_on(lambda crystal: (np.nan, *surface(crystal)[1:]), start)
    assert not result.converged
    assert result.steps == 1
    assert result.message == "the surface is not finite at the start"


@pytest.mark.parametrize("pressure", [0.5, -0.5])
def test_a_crystal_that_collapses_or_bursts_is_stopped(pressure):
    """E = pV has no minimum."""
    start = structure(*parts(salt()))

    def surface(crystal):
        return pressure * float(crystal.volume), np.zeros((2, 3)), pressure * np.eye(3)

    result = relax_on(surface, start)
    assert not result.converged
    assert "runs away" in result.message
    assert 1 / 3 < float(result.structure.volume / start.volume) < 3


def test_forces_that_break_the_symmetry_are_named():
    """A surface that does not have the symmetry it is asked to keep."""
    start = structure(*parts(salt(a=5.5)))
    surface = potential_surface(springs({("Na", "Cl"): (1.0, 2.8)}, cutoff=3.5), start)
    push = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])

    def tilted(crystal):
        energy, forces, stress = surface(crystal)
        return energy, forces + push, stress

    result = relax_on(tilted, start, symmetry=space_group(start))
    assert result.converged
    assert "forces of 5.0e-01 eV/Å that break the symmetry were left out" in result.message
    assert float(result.structure.cell[0, 1]) == pytest.approx(2.8, abs=1e-3)

    held = relax_on(surface, start, cell=False, symmetry=space_group(start))
    assert held.converged
    assert held.steps == 1


def test_bad_input_is_refused():
    crystal = structure(*parts(salt()))
    ions = potential("ions:NaCl")
    with pytest.raises(InputError, match="positive numbers"):
        relax(ions, crystal, force_tolerance=0.0)
    with pytest.raises(InputError, match="a symmetry of 8 atoms for a structure of 2"):
        relax(ions, crystal, symmetry=space_group(structure(*parts(layered_salt()))))
    with pytest.raises(InputError, match="the structure holds Ar"):
        relax(ions, structure(*parts(fcc())))
    moved = replace(crystal, positions=crystal.positions.at[1, 0].add(0.9))
    with pytest.raises(InputError, match="the symmetry moves an atom"):
        relax(ions, moved, symmetry=space_group(crystal))
