"""Coupling of mobile ions and host: in phase, out of phase, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest

from phojax.checks import InputError
from phojax.descriptors.coupling import (
    bonds,
    coupling,
    coupling_paper,
    first_zone_shift,
    mean_coupling,
)
from phojax.modes import Modes, degenerate_blocks, translations
from phojax.structure import structure
from phojax.units import eigenvalue_from_THz

coupled = jax.jit(coupling)
coupled_paper = jax.jit(coupling_paper)


def sodium(found):
    return found.structure.numbers == 11


def brute_force(found, cutoff):
    """Return C by its definition: a loop over modes and bonds, Cartesian phases."""
    x, cell = np.asarray(found.structure.positions), np.asarray(found.structure.cell)
    Z = np.asarray(found.structure.numbers)
    q = np.asarray(found.q) @ np.linalg.inv(cell).T * 2 * np.pi
    blocks = np.asarray(degenerate_blocks(found.eigenvalues))
    parts = np.zeros((3, *found.eigenvalues.shape))
    for i in np.flatnonzero(Z == 11):
        for j in np.flatnonzero(Z != 11):
            for L in np.ndindex(7, 7, 7):
                r = x[j] + (np.asarray(L) - 3) @ cell - x[i]
                if np.linalg.norm(r) < cutoff:
                    a = np.asarray(found.eigenvectors[:, :, i])
                    b = np.asarray(found.eigenvectors[:, :, j]) * np.exp(1j * q @ r)[:, None, None]
                    parts[0] += np.sum(a.conj() * b, -1).real
                    parts[1] += np.sum(np.abs(a) ** 2, -1)
                    parts[2] += np.sum(np.abs(b) ** 2, -1)
    same = blocks[:, :, None] == blocks[:, None, :]
    top, mobile, host = np.einsum("qnm,pqm->pqn", same, parts)
    return top / np.sqrt(mobile * host)


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_definition_range_and_choice_of_eigenvectors(name):
    fc = reference.converted(getattr(reference, name)())
    found = reference.solved(fc, jnp.asarray(reference.gamma_mesh(3)))
    among = bonds(found.structure, sodium(found))
    C = coupled(found, among)
    np.testing.assert_allclose(C, brute_force(found, 3.5), atol=1e-12)
    assert np.all(np.abs(C) <= 1 + 1e-12)
    np.testing.assert_allclose(coupled(reference.rotated_in_blocks(found), among), C, atol=1e-11)


def test_rigid_translations_are_in_phase_and_optical_modes_of_NaCl_out_of_phase():
    found = reference.solved(reference.converted(reference.rocksalt()), jnp.zeros((1, 3)))
    rigid = np.asarray(translations(found))
    for C in (
        coupled(found, bonds(found.structure, sodium(found))),
        coupled_paper(found, sodium(found)).values,
    ):
        np.testing.assert_allclose(np.asarray(C)[rigid], 1.0, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(C)[~rigid], -1.0, rtol=1e-12)


def moved(found: Modes, atom, step):
    """Return the modes of the same crystal with one atom held in another cell."""
    x = np.array(found.structure.positions)
    x[atom] += np.asarray(step) @ np.asarray(found.structure.cell)
    s = found.structure
    same = structure(s.cell, x + 0.3, s.numbers, s.masses)
    return Modes(found.q, found.weights, found.eigenvalues, found.eigenvectors, same)


def test_image_and_origin_do_not_matter_but_do_in_the_paper():
    """The eigenvectors of (1) are those of either cell: D(q) does not depend on the image."""
    fc = reference.converted(reference.rocksalt())
    found = reference.solved(fc, jnp.asarray([[0.5, 0.5, 0.5], [0.3, 0.1, 0.0]]))
    other = moved(found, 1, [1, -1, 2])
    ours = [coupled(m, bonds(m.structure, sodium(m))) for m in (found, other)]
    np.testing.assert_allclose(ours[0], ours[1], atol=1e-12)
    # At L every atom has as many neighbours in phase as out of phase: no coupling by bonds.
    np.testing.assert_allclose(ours[0][0], 0, atol=1e-12)
    assert bool(coupled_paper(found, sodium(found)).on_boundary[0])


def test_paper_form_is_nan_where_undefined_and_folds_q():
    fc = reference.converted(reference.triclinic())
    q = jnp.asarray([[0.1, 0.2, -0.1], [1.1, 0.2, -1.1], [0.5, 0, 0]])
    found = reference.solved(fc, q)
    out = coupled_paper(found, sodium(found))
    np.testing.assert_allclose(out.values[0], out.values[1], atol=1e-10)
    np.testing.assert_array_equal(out.on_boundary, [False, False, True])
    rocksalt = reference.solved(
        reference.converted(reference.rocksalt()), jnp.asarray([[0.5, 0.5, 0.5]])
    )
    # At L of NaCl the sublattices move one at a time.
    assert np.isnan(coupled_paper(rocksalt, sodium(rocksalt)).values).all()


def test_folding_finds_the_nearest_reciprocal_vector():
    cell = jnp.asarray([[4.2, 0.1, 0.3], [1.9, 4.9, 0.2], [-1.7, 0.6, 5.3]])
    q = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (50, 3)))
    G, _ = first_zone_shift(q, cell)
    reciprocal = np.linalg.inv(np.asarray(cell)).T
    steps = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    shortest = np.linalg.norm((np.asarray(q)[:, None] + steps) @ reciprocal, axis=-1).min(1)
    np.testing.assert_allclose(np.linalg.norm((q + G) @ reciprocal, axis=1), shortest)


def test_mean_coupling_weighs_by_the_displacement_of_mobile_ions():
    found = reference.solved(
        reference.converted(reference.triclinic()), jnp.asarray(reference.gamma_mesh(2))
    )
    rng = np.random.default_rng(0)
    C = jnp.asarray(rng.uniform(-1, 1, found.eigenvalues.shape)).at[1, 3].set(jnp.nan)
    u = jnp.asarray(rng.uniform(size=(*found.eigenvalues.shape, 5)))
    limit = float(jnp.median(found.frequencies_THz))
    soft = (np.asarray(found.frequencies_THz) < limit) & np.isfinite(C)
    w = np.asarray(u)[..., :2].sum(-1)[soft]
    np.testing.assert_allclose(
        mean_coupling(found, C, u, sodium(found), limit),
        np.average(np.asarray(C)[soft], weights=w),
        rtol=1e-12,
    )
    assert eigenvalue_from_THz(jnp.asarray(limit)) > 0


@pytest.mark.parametrize("rounding", [-1e-9, 0, 1e-9])
def test_a_mode_at_the_limit_is_not_below_it(rounding):
    found = reference.solved(
        reference.converted(reference.triclinic()), jnp.asarray(reference.gamma_mesh(2))
    )
    nu = np.asarray(found.frequencies_THz)
    limit = nu[3, 4]
    C = jnp.where(nu < limit * (1 - 1e-6), 1.0, 5.0)
    u = jnp.ones((*nu.shape, 5))
    mean = mean_coupling(found, C, u, sodium(found), limit * (1 + rounding))
    np.testing.assert_allclose(mean, 1.0, rtol=1e-12)


def test_a_crystal_of_mobile_ions_only_is_refused():
    crystal = structure(np.eye(3) * 3, [[0, 0, 0]], [11])
    with pytest.raises(InputError, match="1 of 1 atoms are mobile"):
        bonds(crystal, jnp.asarray([True]))
