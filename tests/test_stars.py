"""Modes made from the irreducible points against modes solved for at every point."""

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.brillouin import gamma_mesh, q_mesh
from phojax.checks import InputError
from phojax.descriptors.displacements import mode_displacements, oscillators
from phojax.dynmat import dynamical_matrices
from phojax.modes import atomic_weights, degenerate_blocks
from phojax.stars import unfolded, unfolded_by_atom, unfolded_modes
from phojax.symmetry import space_group

matrices = jax.jit(dynamical_matrices)


@pytest.mark.parametrize(
    ("make", "symmetry", "shift"),
    [
        (reference.rocksalt, True, (0, 0, 0)),
        (reference.rocksalt, True, (0.5, 0.5, 0.5)),
        (reference.rutile, True, (0, 0, 0)),
        (reference.triclinic, False, (0, 0, 0)),
    ],
)
def test_unfolded_modes_solve_their_own_equations(make, symmetry, shift):
    constants = reference.converted(make())
    crystal = constants.supercell.primitive
    group = space_group(crystal) if symmetry else None
    mesh = q_mesh((4, 4, 3), group, shift)
    found = reference.solved(constants, jnp.asarray(mesh.q))
    full = unfolded_modes(found, mesh, group)
    D = np.asarray(matrices(constants, jnp.asarray(mesh.full_q)))
    E = np.asarray(full.eigenvectors).reshape(len(D), -1, D.shape[-1])
    residual = np.einsum("qab,qnb->qna", D, E) - full.eigenvalues[:, :, None] * E
    assert np.abs(residual).max() < 1e-12 * np.abs(D).max()
    overlap = np.einsum("qna,qma->qnm", E.conj(), E)
    assert np.abs(overlap - np.eye(D.shape[-1])).max() < 1e-12
    if symmetry:
        assert len(mesh.q) < len(mesh.full_q) / 2


def test_what_belongs_to_atoms_goes_with_them():
    constants = reference.converted(reference.rutile())
    group = space_group(constants.supercell.primitive)
    mesh = gamma_mesh((4, 4, 4), group)
    found = reference.solved(constants, jnp.asarray(mesh.q))
    full = reference.solved(constants, jnp.asarray(mesh.full_q))
    width = jnp.max(full.eigenvalues) - jnp.min(full.eigenvalues)

    def of(modes_):
        blocks = degenerate_blocks(modes_.eigenvalues, width=width)
        kept = oscillators(modes_, 1e-9).kept
        return atomic_weights(modes_, blocks), mode_displacements(modes_, 300.0, kept, blocks)

    for few, all_ in zip(of(found), of(full), strict=True):
        assert np.abs(unfolded_by_atom(few, mesh, group) - all_).max() < 1e-10
    assert np.abs(unfolded(found.eigenvalues, mesh) - full.eigenvalues).max() < 1e-12


def test_modes_of_another_mesh_are_refused():
    constants = reference.converted(reference.rocksalt())
    mesh, other = gamma_mesh((2, 2, 2)), gamma_mesh((3, 3, 3))
    found = reference.solved(constants, jnp.asarray(other.q))
    with pytest.raises(InputError, match="those of the mesh"):
        unfolded_modes(found, mesh, None)


def test_a_mesh_needs_the_group_that_reduced_it():
    constants = reference.converted(reference.rocksalt())
    mesh = gamma_mesh((2, 2, 2), space_group(constants.supercell.primitive))
    found = reference.solved(constants, jnp.asarray(mesh.q))
    with pytest.raises(InputError, match="without the group"):
        unfolded_modes(found, mesh, None)
    with pytest.raises(InputError, match="one per irreducible point"):
        unfolded(jnp.ones((8, 6)), mesh)
