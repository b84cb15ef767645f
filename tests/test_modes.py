"""Modes against phonopy; degenerate blocks and translations by construction and by law."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.checks import InputError
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.container import force_constants
from phojax.modes import (
    Modes,
    atomic_weights,
    block_mean,
    block_sum,
    degenerate_blocks,
    modes,
    translation_overlap,
    translations,
)
from phojax.structure import structure, supercell
from phojax.units import THZ


def compare_with_phonopy(crystal, mesh, tolerance):
    q = reference.gamma_mesh(mesh)
    crystal.run_qpoints(q)
    # phonopy's THz per √(eV/Å²/amu) is 15.633302, ours 15.633304: taken out by the ratio.
    nu = crystal.qpoints.frequencies / reference.constants_ratio() / THZ
    expected = np.sign(nu) * nu**2
    found = reference.solved(reference.converted(crystal), jnp.asarray(q), chunk=10)
    np.testing.assert_allclose(
        found.eigenvalues, expected, atol=tolerance * np.ptp(expected), rtol=0
    )
    return found


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_eigenvalues_are_phonopys(name):
    found = compare_with_phonopy(getattr(reference, name)(), 3, 1e-13)
    assert int(translations(found).sum()) == 3


@pytest.mark.parametrize("name", ["NaCl", "SnO2", "NaMgF3"])
def test_eigenvalues_are_phonopys_on_real_crystals(shared, name):
    crystal = reference.shared_crystal(shared, name)
    crystal.symmetrize_force_constants()
    # phonopy does not project the translations out: its Γ keeps what is left of the sum rule.
    found = compare_with_phonopy(crystal, 3, 1e-10)
    assert int(translations(found).sum()) == 3
    np.testing.assert_allclose(found.frequencies_THz[0, :3], 0, atol=1e-5)


def test_frequencies_of_NaCl_are_the_published_ones(shared):
    """The values phonopy's own test suite holds, which were not computed here."""
    file = shared / "data" / "oracles" / "expected" / "NaCl_mesh_333.json"
    expected = json.loads(file.read_text())
    crystal = reference.shared_crystal(shared, "NaCl")
    crystal.symmetrize_force_constants()
    q = jnp.asarray(expected["meta"]["qpoints"])
    found = reference.solved(reference.converted(crystal), q)
    listed = np.reshape(expected["values"]["freqs_nonac_ref"], (4, 6))
    np.testing.assert_allclose(found.frequencies_THz, listed, atol=expected["meta"]["atol"])


def test_chunks_do_not_matter_and_eigenvectors_solve_the_problem():
    fc = reference.converted(reference.triclinic())
    q = jnp.asarray(reference.gamma_mesh(3))
    at_once, in_parts = reference.solved(fc, q, chunk=100), reference.solved(fc, q, chunk=4)
    np.testing.assert_allclose(at_once.eigenvalues, in_parts.eigenvalues, atol=1e-15)
    e = np.asarray(in_parts.eigenvectors).reshape(27, 15, 15)
    De = np.einsum("qab,qnb->qna", np.asarray(dynamical_matrices(fc, q)), e)
    np.testing.assert_allclose(De, np.asarray(in_parts.eigenvalues)[..., None] * e, atol=1e-14)
    np.testing.assert_allclose(
        np.einsum("qna,qma->qnm", e.conj(), e),
        np.broadcast_to(np.eye(15), (27, 15, 15)),
        atol=1e-13,
    )
    np.testing.assert_allclose(in_parts.weights.sum(), 1)


def einstein_on_frame(optical):
    """Return two atoms per cell, bound to each other by the 3×3 matrix `optical`, and nothing else.

    Every D(q) has the eigenvalues of optical/μ, and three zeros: translations at every q.
    """
    crystal = structure(np.diag([3.0, 3.1, 3.2]), [[0.1, 0.2, 0.3], [1.5, 1.6, 1.7]], [11, 53])
    values = np.zeros((2, 16, 3, 3))
    values[0, 0] = values[1, 8] = optical
    values[0, 8] = values[1, 0] = -optical
    return force_constants(jnp.asarray(values), supercell(crystal, (2, 2, 2)))


@pytest.mark.parametrize(
    "constants",
    [
        [-0.5, -0.2, 1.0],  # imaginary modes below the translations
        [0.0, 0.0, 0.0],  # all six are zero: any mixture is an eigenvector
        [1e-17, -1e-17, 1e-14],  # the same to rounding
        [-1e-9, 1e-9, 2.0],
    ],
)
def test_translations_at_gamma_are_known_by_their_form(constants):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    fc = einstein_on_frame(turn * np.asarray(constants) @ turn.T)
    found = reference.solved(fc, jnp.asarray([[0.0, 0, 0], [0, 0, 1.0], [0.1, 0, 0]]))
    rigid, overlap = np.asarray(translations(found)), np.asarray(translation_overlap(found))
    np.testing.assert_array_equal(rigid.sum(axis=1), [3, 3, 0])
    np.testing.assert_allclose(overlap[rigid], 1, atol=1e-12)
    np.testing.assert_allclose(overlap[:2][~rigid[:2]], 0, atol=1e-12)
    np.testing.assert_allclose(np.asarray(found.eigenvalues)[rigid], 0, atol=1e-15)
    m1, m2 = np.asarray(found.masses)
    optical = np.sort(np.asarray(constants)) * (1 / m1 + 1 / m2)
    np.testing.assert_allclose(
        np.asarray(found.eigenvalues)[:2][~rigid[:2]].reshape(2, 3), [optical, optical], atol=1e-15
    )
    assert np.all(np.diff(found.eigenvalues, axis=1) >= 0)


def test_translations_of_other_origin_and_at_other_reciprocal_vectors():
    found = reference.solved(
        reference.converted(reference.triclinic()),
        jnp.asarray([[0.0, 0, 0], [1.0, 0, -1.0], [0.5, 0, 0], [1e-3, 0, 0]]),
    )
    np.testing.assert_array_equal(translations(found).sum(axis=1), [3, 3, 0, 0])
    np.testing.assert_array_equal(translations(found)[0, :3], True)


def test_blocks():
    values = jnp.asarray([[0.0, 1e-7, 0.5, 1.0], [0.2, 0.2, 0.2, 0.9]])
    blocks = degenerate_blocks(values)
    np.testing.assert_array_equal(blocks, [[0, 0, 1, 2], [0, 0, 0, 1]])
    np.testing.assert_array_equal(degenerate_blocks(values, tolerance=1e-8)[0], [0, 1, 2, 3])
    per_mode = jnp.arange(8.0).reshape(2, 4)
    np.testing.assert_allclose(block_sum(per_mode, blocks), [[1, 1, 2, 3], [15, 15, 15, 7]])
    np.testing.assert_allclose(block_mean(per_mode, blocks), [[0.5, 0.5, 2, 3], [5, 5, 5, 7]])
    both = jnp.stack([per_mode, -per_mode], -1)
    np.testing.assert_allclose(
        jax.jit(block_sum)(both, blocks)[..., 1], -block_sum(per_mode, blocks)
    )
    many = jax.vmap(block_sum)(jnp.stack([per_mode, 2 * per_mode]), jnp.stack([blocks, blocks]))
    np.testing.assert_allclose(many[1], 2 * many[0])


def test_atomic_weights_do_not_depend_on_the_eigenvectors_chosen():
    found = reference.solved(
        reference.converted(reference.rocksalt()), jnp.asarray(reference.gamma_mesh(4))
    )
    turned = reference.rotated_in_blocks(found)
    assert np.abs(np.asarray(turned.eigenvectors - found.eigenvectors)).max() > 0.1
    np.testing.assert_allclose(atomic_weights(turned), atomic_weights(found), atol=1e-12)
    np.testing.assert_allclose(atomic_weights(found).sum(-1), 1, atol=1e-13)


def test_vmap_over_structures_and_gradient_of_eigenvalues():
    fc = reference.converted(reference.triclinic())
    q = jnp.asarray([[0.0, 0, 0], [0.3, 0.1, -0.2]])
    scales = jnp.asarray([1.0, 1.1])

    def scaled(s) -> Modes:
        return modes(replace(fc, values=s * fc.values), q)

    both = jax.vmap(scaled)(scales)
    np.testing.assert_allclose(both.eigenvalues[1], 1.1 * both.eigenvalues[0], atol=1e-14)
    slope = jax.grad(lambda s: scaled(s).eigenvalues[1, 4])(1.0)
    np.testing.assert_allclose(slope, both.eigenvalues[0, 1, 4], rtol=1e-12)


def test_what_does_not_fit_is_refused():
    fc = reference.converted(reference.rocksalt())
    with pytest.raises(InputError, match="weights has shape"):
        modes(fc, jnp.zeros((2, 3)), jnp.ones(3))
    with pytest.raises(InputError, match="float32"):
        modes(fc, jnp.zeros((2, 3), jnp.float32))
