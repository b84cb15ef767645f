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
    model, _, group, still = salt
    how = Sampling(statistics, pairs=4, tolerance_THz=0.05)
    found = self_consistent(model, still, group, 1.0, KEY, how)
    assert found.converged, found.message
    nu = np.asarray(frequency_THz(jnp.asarray(supercell_modes(still)[0])))
    off = np.abs(np.asarray(frequency_THz(jnp.asarray(found.ensemble.eigenvalues))) - nu)
    assert off.max() < (0.01 if statistics == "classical" else 0.15)
    if statistics == "classical":
        # Quadratic in displacements, hence linear in T.
        warm = self_consistent(model, still, group, 2.0, KEY, how)
        twice = np.abs(np.asarray(frequency_THz(jnp.asarray(warm.ensemble.eigenvalues))) - nu)
        np.testing.assert_allclose(twice.max(), 2 * off.max(), rtol=0.2)


def test_stress_is_that_of_the_free_energy(salt):
    """d(F Gibbs-Bogoliubov)/d(strain), Φ and samples held, is what the samples' stresses add up to.

    F_Φ - ⟨V_Φ⟩ does not change then, and ⟨V⟩ moves with the centroids alone.
    """
    model, _, group, still = salt
    how = Sampling("classical", pairs=4)
    done: dict[str, np.ndarray] = {}
    found = self_consistent(model, still, group, 300.0, KEY, how, done=done)
    ensemble = gaussian(still, 300.0, "classical")
    u = done["0-displacements"] - (ensemble.centroids - np.asarray(cells.structure.positions))
    h = 1e-4

    def mean_energy(strain):
        from phojax.finite_temperature.samples import Surface

        stretch = 1 + strain
        p = cells.primitive
        big = replace(
            cells, primitive=replace(p, cell=p.cell * stretch, positions=p.positions * stretch)
        )
        return Surface(model, big)(u).energies.mean()

    slope = (mean_energy(h) - mean_energy(-h)) / 2 / h / float(cells.structure.volume)
    from phojax.finite_temperature.samples import Surface

    values = Surface(model, cells)(u)
    S = values.centred_stresses(np.zeros_like(u[0]), float(cells.structure.volume)).mean(0)
    np.testing.assert_allclose(np.trace(S), slope, rtol=1e-5)
    assert np.isfinite(found.stress).all()
    # A warm crystal held in its cold cell pushes.
    assert np.all(np.diag(found.stress) < -3 * found.stress_error)


@pytest.mark.slow
def test_displacements_are_those_of_molecular_dynamics():
    """A quartic lattice at 300 K: within both statistical errors, where bare ones are not."""
    cells, group = simple_cubic()
    model = quartic(cells, 3.2, 0.15, 0.5)
    T = 300.0
    frames: list[np.ndarray] = []

    def keep(first, chunk):
        frames.append(np.asarray(chunk.positions))

    protocol = Protocol(
        timestep_fs=4.0, equilibration_steps=2000, steps=60_000, frame_every=20,
        friction_per_ps=2.0, stop_melted=False,
    )  # fmt: skip
    given = systems([cells.structure] * 2, [T] * 2, "Na", replicas=[0, 1])
    run(model, given, protocol, on_frames=keep)
    x = np.concatenate(frames)
    print(x.shape)
    how = Sampling("classical", pairs=32, tolerance_THz=0.05, tolerance_msd=0.01)
    found = self_consistent(model, harmonic(cells, model, group, 0.5), group, T, KEY, how, batch=16)
    print(mean_msd(found.ensemble.displacements), found.error_msd)
