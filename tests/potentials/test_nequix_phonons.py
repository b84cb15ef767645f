"""Phonons of Nequix-OAM-PFT: the numbers others found with phonopy, and a smooth surface."""

import jax.numpy as jnp
import numpy as np
import pytest

from phojax.brillouin import gamma_mesh
from phojax.descriptors.displacements import displacement_tensor, oscillators
from phojax.force_constants.hessian import hessian
from phojax.modes import modes
from phojax.potentials.nequix import nequix
from phojax.relax import relax
from phojax.structure import structure, supercell
from phojax.symmetry import space_group, symmetrized_tensors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def salt(shared):
    """The potential, relaxed rock salt and its space group."""
    potential = nequix(shared / "models" / "nequix-oam-1-pft.nqx")
    half = 5.69 / 2
    primitive = structure(half * (1 - np.eye(3)), [[0, 0, 0], [half, half, half]], [11, 17])
    group = space_group(primitive)
    found = relax(potential, primitive, symmetry=group, stress_tolerance=1e-6)
    assert found.converged
    return potential, found.structure, group


def test_sodium_chloride(salt):
    """Lattice constant, displacements and smoothness, measured with the package and phonopy."""
    potential, primitive, group = salt
    # Where the stress of the package in float64 vanishes.
    assert float(4 * primitive.volume) ** (1 / 3) == pytest.approx(5.70018, abs=2e-5)
    cells = supercell(primitive, [[-2, 2, 2], [2, -2, 2], [2, 2, -2]])  # 64 atoms
    made = {h: hessian(potential, cells, group, step=h) for h in (None, 0.01, 0.03)}
    values = {h: np.asarray(one.force_constants.values) for h, one in made.items()}
    largest = np.abs(values[None]).max()
    # Differences of forces have an error of h²; neither is far from the derivative.
    errors = {h: np.abs(values[h] - values[None]).max() / largest for h in (0.01, 0.03)}
    assert errors[0.01] < 2e-3
    assert errors[0.03] < 2e-2
    mesh = gamma_mesh((8, 8, 8), group)
    for h, one in made.items():
        found = modes(one.force_constants, jnp.asarray(mesh.q), jnp.asarray(mesh.weights))
        kept = oscillators(found, 1e-6).kept
        U = displacement_tensor(found, 300.0, kept)
        U = symmetrized_tensors(np.asarray(U), group)
        assert np.trace(U[0]) / 3 == pytest.approx(0.0224, abs=2e-4), h
