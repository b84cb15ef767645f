"""D(q) against phonopy, and the laws it obeys."""

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
from phojax.structure import structure, supercell

Q = jnp.asarray([[0, 0, 0], [0.5, 0, 0], [0.13, -0.41, 0.77], [0.5, 0.5, 0.5], [1.2, 0.3, -0.9]])


def phonopys(crystal, q):
    crystal.run_qpoints(np.asarray(q), with_dynamical_matrices=True)
    return crystal.qpoints.dynamical_matrices


@pytest.mark.parametrize("name", ["rocksalt", "triclinic"])
def test_dynamical_matrices_are_phonopys(name):
    crystal = getattr(reference, name)()
    D = dynamical_matrices(reference.converted(crystal), Q)
    np.testing.assert_allclose(D, phonopys(crystal, Q), atol=1e-14)


@pytest.mark.parametrize("name", ["NaCl", "SnO2", "NaMgF3"])
def test_dynamical_matrices_are_phonopys_on_real_crystals(shared, name):
    crystal = reference.shared_crystal(shared, name)
    D = dynamical_matrices(reference.converted(crystal), Q)
    np.testing.assert_allclose(D, phonopys(crystal, Q), atol=1e-13)


def test_dynamical_matrices_of_NaCl_are_the_published_ones(shared):
    """The values phonopy's own test suite holds, which were not computed here."""
    file = shared / "data" / "oracles" / "expected" / "NaCl_dynmat.json"
    listed = json.loads(file.read_text())["values"]
    crystal = reference.shared_crystal(shared, "NaCl")
    q = {"000": [0.0, 0, 0], "252525": [0.25] * 3, "555": [0.5] * 3}
    D = dynamical_matrices(reference.converted(crystal), jnp.asarray(list(q.values())))
    for found, name in zip(D, q, strict=True):
        pairs = np.reshape(listed[f"dynmat_ref_{name}"], (6, 6, 2))
        np.testing.assert_allclose(found, pairs @ [1, 1j], atol=1e-5)


def test_diatomic_chain_of_springs():
    """λ = K/μ ± K √(1/μ² − 4 sin²(qa/2)/m₁m₂), the textbook result."""
    K, m1, m2, cells = 1.7, 23.0, 35.5, 4
    chain = structure(np.diag([4.0, 9.0, 9.0]), [[0, 0, 0], [2.0, 0, 0]], [11, 17], [m1, m2])
    sc = supercell(chain, (cells, 1, 1))
    values = np.zeros((2, 2 * cells, 3, 3))
    at = {tuple(L): n for n, L in enumerate(np.asarray(sc.images))}
    left, right = cells + at[(cells - 1, 0, 0)], at[(1, 0, 0)]
    values[0, at[(0, 0, 0)], 0, 0] = values[1, cells + at[(0, 0, 0)], 0, 0] = 2 * K
    values[0, cells + at[(0, 0, 0)], 0, 0] = values[0, left, 0, 0] = -K
    values[1, at[(0, 0, 0)], 0, 0] = values[1, right, 0, 0] = -K
    q = np.linspace(0, 0.5, 7)
    D = dynamical_matrices(
        force_constants(jnp.asarray(values), sc), jnp.asarray(np.pad(q[:, None], ((0, 0), (0, 2))))
    )
    found = np.linalg.eigvalsh(np.asarray(D)[:, ::3, ::3])
    mu = m1 * m2 / (m1 + m2)
    root = K * np.sqrt(1 / mu**2 - 4 * np.sin(np.pi * q) ** 2 / (m1 * m2))
    np.testing.assert_allclose(found, np.stack([K / mu - root, K / mu + root], -1), atol=1e-15)


def test_hermitian_time_reversal_and_periodicity():
    fc = reference.converted(reference.triclinic())
    D = dynamical_matrices(fc, Q)
    np.testing.assert_array_equal(D, D.conj().swapaxes(1, 2))
    np.testing.assert_allclose(dynamical_matrices(fc, -Q), D.conj(), atol=1e-15)
    G = jnp.asarray([1.0, -2.0, 3.0])
    x = np.repeat(fc.supercell.primitive.fractional, 3, axis=0)
    turn = np.exp(2j * np.pi * (x @ np.asarray(G)))
    np.testing.assert_allclose(
        dynamical_matrices(fc, Q + G), turn.conj()[:, None] * D * turn, atol=1e-14
    )


def other_image_and_origin(fc):
    """Return the same crystal, its second atom in another cell and the origin elsewhere."""
    sc = fc.supercell
    p, n = sc.primitive, sc.images.shape[0]
    step = np.array([1, -1, 2])
    moved = np.asarray(p.positions) + 0.37
    moved[1] += step @ np.asarray(p.cell)
    new = supercell(replace(p, positions=jnp.asarray(moved)), sc.matrix)
    x_old = np.asarray(sc.structure.positions) + 0.37
    x_new = np.asarray(new.structure.positions)
    box = np.asarray(sc.structure.cell)
    values = np.empty(fc.values.shape)
    start_old, start_new = np.asarray(p.positions) + 0.37, moved
    for i in range(len(p)):
        a, b = x_new - start_new[i], x_old - start_old[i]
        apart = (a[:, None] - b[None]) @ np.linalg.inv(box)
        match = np.argmin(np.linalg.norm((apart - np.rint(apart)) @ box, axis=-1), axis=1)
        assert sorted(match) == list(range(len(p) * n))
        values[i] = np.asarray(fc.values)[i, match]
    return force_constants(jnp.asarray(values), new)


def test_image_of_an_atom_and_origin_do_not_matter():
    fc = reference.converted(reference.triclinic())
    np.testing.assert_allclose(
        dynamical_matrices(other_image_and_origin(fc), Q), dynamical_matrices(fc, Q), atol=1e-14
    )


def test_derivatives_by_force_constants_masses_and_q():
    fc = reference.converted(reference.triclinic())
    rng = np.random.default_rng(0)
    A = jnp.asarray(rng.normal(size=(5, 15, 15)) + 1j * rng.normal(size=(5, 15, 15)))

    def value(values, masses, q):
        primitive = replace(fc.supercell.primitive, masses=masses)
        changed = replace(fc, values=values, supercell=replace(fc.supercell, primitive=primitive))
        return jnp.sum((A * dynamical_matrices(changed, q)).real)

    at = (fc.values, fc.supercell.primitive.masses, Q)
    along = tuple(jnp.asarray(rng.normal(size=a.shape)) for a in at)
    gradients = jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*at)
    h = 1e-5
    for k, (g, d) in enumerate(zip(gradients, along, strict=True)):
        up, down = ([a + s * h * d if n == k else a for n, a in enumerate(at)] for s in (1, -1))
        expected = (value(*up) - value(*down)) / (2 * h)
        np.testing.assert_allclose(jnp.sum(g * d), expected, rtol=1e-7)


def test_float32_q_is_refused():
    fc = reference.converted(reference.rocksalt())
    with pytest.raises(InputError, match="q is float32"):
        dynamical_matrices(fc, Q.astype(jnp.float32))
