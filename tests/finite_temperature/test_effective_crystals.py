"""Effective force constants of crystals: the harmonic limit, and molecular dynamics."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from quartic import harmonic, quartic, simple_cubic

from phojax.convert import structure_from_ase
from phojax.finite_temperature.effective import Sampling, self_consistent
from phojax.finite_temperature.gaussian import gaussian, supercell_modes
from phojax.finite_temperature.samples import Surface
from phojax.force_constants.hessian import hessian
from phojax.md.protocol import Protocol
from phojax.md.run import run
from phojax.md.systems import systems
from phojax.potentials.catalogue import potential
from phojax.relax import relax
from phojax.structure import supercell
from phojax.symmetry import space_group
from phojax.units import frequency_THz

KEY = jax.random.key(1)


def mean_msd(tensors):
    return float(np.trace(tensors, axis1=1, axis2=2).mean())


@pytest.fixture(scope="module")
def salt():
    """Rock salt of point ions with repulsion, relaxed: smooth and stiff."""
    model = potential("ions:NaCl")
    crystal = structure_from_ase(bulk("NaCl", "rocksalt", a=5.64))
    group = space_group(crystal)
    crystal = relax(model, crystal, symmetry=group, force_tolerance=1e-6).structure
    cells = supercell(crystal, (2, 2, 2))
    return model, cells, group, hessian(model, cells, group).force_constants


@pytest.mark.parametrize("statistics", ["classical", "quantum"])
def test_cold_crystal_is_harmonic(salt, statistics):
    """Classical widths go to 0 with T. Quantum ones keep the zero point: near, but not the same."""
    model, cells, group, still = salt
    how = Sampling(statistics, pairs=4, tolerance_THz=0.05)

    def shift(T, heavier=1.0):
        """Return the mean change of frequencies in units of the highest one."""
        masses = cells.primitive.masses * heavier
        heavy = replace(cells, primitive=replace(cells.primitive, masses=masses))
        start = replace(still, supercell=heavy)
        found = self_consistent(model, start, group, T, KEY, how)
        assert found.converged, found.message
        before, after = (
            np.asarray(frequency_THz(jnp.asarray(values)))
            for values in (supercell_modes(start)[0], found.ensemble.eigenvalues)
        )
        return np.abs(after - before).mean() / before.max()

    # Changes are quadratic in displacements: linear in T, and at T = 0 in 1/√m.
    if statistics == "classical":
        cold, warm = shift(1.0), shift(2.0)
    else:
        cold, warm = shift(0.01, heavier=64.0), shift(0.01, heavier=16.0)
    assert cold < (0.0005 if statistics == "classical" else 0.002)
    np.testing.assert_allclose(warm, 2 * cold, rtol=0.2)


def test_stress_is_that_of_the_free_energy(salt):
    """d(F Gibbs-Bogoliubov)/d(strain), Φ and samples held, is what the samples' stresses add up to.

    F_Φ - ⟨V_Φ⟩ does not change then, and ⟨V⟩ moves with the centroids alone.
    """
    model, cells, group, still = salt
    how = Sampling("classical", pairs=4)
    done: dict[str, np.ndarray] = {}
    found = self_consistent(model, still, group, 300.0, KEY, how, done=done)
    u = done["0-displacements"]
    h, volume = 1e-4, float(cells.structure.volume)

    def mean_energy(strain):
        stretch = 1 + strain
        p = cells.primitive
        big = replace(
            cells, primitive=replace(p, cell=p.cell * stretch, positions=p.positions * stretch)
        )
        return Surface(model, big)(u).energies.mean()

    slope = (mean_energy(h) - mean_energy(-h)) / 2 / h / volume
    S = Surface(model, cells)(u).centred_stresses(np.zeros_like(u[0]), volume).mean(0)
    np.testing.assert_allclose(np.trace(S), slope, rtol=1e-5)
    # A warm crystal held in its cold cell pushes.
    assert np.all(np.diag(found.stress) < -3 * found.stress_error)


@pytest.mark.slow
def test_displacements_are_those_of_molecular_dynamics():
    """A quartic lattice at 300 K: within both statistical errors, where bare ones are not."""
    cells, group = simple_cubic()
    model, T = quartic(cells, 3.2, 1.0, 1.0), 300.0
    frames: list[np.ndarray] = []
    protocol = Protocol(
        timestep_fs=4.0, equilibration_steps=2000, steps=40_000, frame_every=20,
        friction_per_ps=2.0, stop_melted=False,
    )  # fmt: skip
    given = systems([cells.structure] * 2, [T] * 2, "Na", replicas=[0, 1])

    def keep(first, chunk):
        frames.append(np.asarray(chunk.positions)[: int(chunk.count)])

    run(model, given, protocol, on_frames=keep)
    u = np.concatenate(frames) - np.asarray(cells.structure.positions)  # (frame, system, atom, 3)
    assert len(u) == protocol.frames
    squares = ((u - u.mean(axis=2, keepdims=True)) ** 2).sum(-1)
    blocks = np.array([part.mean(axis=(0, 2)) for part in np.array_split(squares, 10)]).ravel()
    moved, error = blocks.mean(), blocks.std(ddof=1) / np.sqrt(len(blocks))
    how = Sampling("classical", pairs=32, tolerance_THz=0.05, tolerance_msd=0.005)
    bare = harmonic(cells, model, group, 0.0)
    found = self_consistent(model, bare, group, T, KEY, how, batch=16)
    assert found.converged, found.message
    ours = mean_msd(found.ensemble.displacements)
    both = np.hypot(error, found.error_msd * ours)
    assert both < 0.015 * moved
    assert abs(ours - moved) < 3 * both
    assert mean_msd(gaussian(bare, T, "classical").displacements) - moved > 5 * both
