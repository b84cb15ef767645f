"""Group velocities against phonopy, finite differences and crystals with known slopes."""

import json
from dataclasses import replace
from functools import partial

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy.structure.atoms import PhonopyAtoms
from test_nac import charged, held_of

from phojax.checks import InputError
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants.sum_rules import enforced
from phojax.io.phonopy_files import read_phonopy
from phojax.modes import degenerate_blocks
from phojax.nac import neutral
from phojax.structure import structure
from phojax.symmetry import space_group
from phojax.units import THZ
from phojax.velocities import (
    directional_velocities,
    group_velocities,
    matrix_slopes,
    sound_velocities,
    symmetrized_velocities,
)

velocities = jax.jit(group_velocities, static_argnames=("lifted_along", "chunk"))
slopes = jax.jit(directional_velocities)
sound = jax.jit(sound_velocities)
# On a threefold and a fourfold axis, in a mirror plane, anywhere; L and X of rocksalt.
Q = np.array(
    [[0.1, 0.1, 0.1], [0.2, 0.2, 0], [0.3, 0.3, 0.1], [0.1, -0.2, 0.35], [0.4, 0.1, 0.2],
     [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)  # fmt: skip
INSIDE = slice(0, 5)  # the zone: at its boundary phonopy takes fewer operations for averages


def symmetrized(held, found):
    return symmetrized_velocities(
        velocities(held, found), found.q, space_group(held.crystal)
    ).vectors


def phonopys(crystal, q):
    """Return phonopy's velocities in our constants."""
    crystal.run_qpoints(q, with_group_velocities=True)
    return crystal.qpoints.group_velocities / reference.constants_ratio()


@pytest.mark.parametrize("polar", [False, True], ids=["plain", "polar"])
@pytest.mark.parametrize("make", [reference.rocksalt, reference.triclinic])
def test_velocities_are_phonopys(make, polar):
    crystal = charged(make()) if polar else make()
    held = held_of(crystal) if polar else interpolation(reference.converted(crystal))
    found = reference.solved(held, jnp.asarray(Q))
    expected = phonopys(crystal, Q[INSIDE])
    np.testing.assert_allclose(
        symmetrized(held, found)[INSIDE], expected, atol=1e-7 * np.abs(expected).max()
    )


def test_velocities_at_gamma_are_phonopys():
    crystal = reference.triclinic()
    held = interpolation(reference.converted(crystal))
    found = reference.solved(held, jnp.zeros((1, 3)))
    ours, theirs = velocities(held, found), phonopys(crystal, np.zeros((1, 3)))
    np.testing.assert_array_equal(ours.defined, [[False] * 3 + [True] * 12])
    np.testing.assert_array_equal(ours.vectors[:, :3], 0)
    np.testing.assert_allclose(ours.vectors[:, 3:], theirs[:, 3:], atol=1e-8)
    assert np.all(np.isnan(slopes(held, found, jnp.asarray([1.0, 0, 0]))[:, :3]))


def frequencies(held, q):
    return np.asarray(reference.solved(held, jnp.asarray(q)).frequencies_THz)


def test_slopes_are_those_of_the_frequencies():
    """Along any direction, degenerate modes included, where they split from their point on."""
    held = held_of(charged(reference.rocksalt()))
    found = reference.solved(held, jnp.asarray(Q))
    labels = np.asarray(degenerate_blocks(found.eigenvalues))
    assert np.sum(np.diff(labels, axis=1) == 0) >= 4
    n = np.array([0.3, -1.0, 0.45])
    ours = np.asarray(slopes(held, found, jnp.asarray(n)))
    cell = np.asarray(held.crystal.cell)

    def one_sided(h):  # from the point on, in order of λ: blocks split in order of their slopes
        step = h * n / np.linalg.norm(n) @ cell.T
        nu = [frequencies(held, Q + k * step) for k in range(5)]
        return (-25 * nu[0] + 48 * nu[1] - 36 * nu[2] + 16 * nu[3] - 3 * nu[4]) / 12 / h

    np.testing.assert_allclose(ours, one_sided(2e-4), atol=2e-5 * np.abs(ours).max())


def test_what_does_not_depend_on_the_eigenvectors():
    held = interpolation(reference.converted(reference.rocksalt()))
    found = reference.solved(held, jnp.asarray(np.concatenate([Q[:6], np.zeros((1, 3))])))
    turned = reference.rotated_in_blocks(found)
    n = jnp.asarray([1.0, 0.2, 0.7])
    scale = 60 * 1e-10
    np.testing.assert_allclose(slopes(held, turned, n), slopes(held, found, n), atol=scale)
    a, b = velocities(held, turned), velocities(held, found)
    np.testing.assert_array_equal(a.defined, b.defined)
    np.testing.assert_allclose(a.vectors, b.vectors, atol=scale)
    # Across the block the vectors' sum is its trace, whatever direction lifts the degeneracy.
    other = velocities(held, found, lifted_along=(-1.0, 0.3, 0.1))
    assert np.abs(other.vectors - b.vectors).max() > 1
    labels = np.asarray(degenerate_blocks(found.eigenvalues))
    for point, label in enumerate(labels):
        for block in np.unique(label):
            one, two = (np.asarray(v)[point, label == block] for v in (other.vectors, b.vectors))
            np.testing.assert_allclose(one.sum(0), two.sum(0), atol=10 * scale)


def test_chunks_do_not_matter():
    held = interpolation(reference.converted(reference.rocksalt()))
    found = reference.solved(held, jnp.asarray(Q))
    np.testing.assert_allclose(
        velocities(held, found, chunk=3).vectors, velocities(held, found).vectors, atol=1e-11
    )


def test_averages_have_the_symmetry_of_their_point_and_keep_single_modes():
    crystal = reference.rocksalt()
    held = interpolation(reference.converted(crystal))
    found = reference.solved(held, jnp.asarray(Q))
    free, bound = velocities(held, found).vectors, symmetrized(held, found)
    # L and X are kept by inversion up to a reciprocal vector: no slope, none to be seen.
    np.testing.assert_allclose(bound[5:], 0, atol=1e-9)
    np.testing.assert_allclose(bound[2], free[2], atol=1e-9)
    group = space_group(held.crystal)
    with pytest.raises(InputError, match="q has shape"):
        symmetrized_velocities(velocities(held, found), jnp.zeros((1, 3)), group)


def simple_cubic(k=(3.0, 0.7), a=3.1, mass=24.0) -> Interpolation:
    """Return one atom with springs to its six neighbours: ω² = Σ_c 2 K_c,a (1 − cos q_c a) / m."""
    crystal = structure(a * np.eye(3), np.zeros((1, 3)), [11], [mass])
    R = np.concatenate([np.zeros((1, 3), int), np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    K = np.array([np.diag(np.where(np.arange(3) == c, k[0], k[1])) for c in range(3)])
    return Interpolation(
        crystal, jnp.asarray(R), jnp.asarray(np.concatenate([2 * K.sum(0)[None], -K, -K]))
    )


def test_velocities_of_a_cubic_lattice_of_springs():
    long, short, a, m = 3.0, 0.7, 3.1, 24.0
    held = simple_cubic((long, short), a, m)
    q = np.array([[0.11, 0.23, 0.37], [0.05, 0.4, 0.17]])
    found = reference.solved(held, jnp.asarray(q))
    v = np.asarray(velocities(held, found).vectors)
    K = np.where(np.eye(3, dtype=bool), long, short)  # polarisation, component of q
    x = 2 * np.pi * q
    omega = np.sqrt(2 / m * (1 - np.cos(x)) @ K.T)
    expected = a / m * np.sin(x)[:, None, :] * K / omega[..., None]
    order = np.argsort(omega, axis=1)
    expected = np.take_along_axis(expected, order[..., None], axis=1)
    # ω in √(eV/Å²/amu): 2π THZ per ps.
    np.testing.assert_allclose(v, 2 * np.pi * THZ * expected, atol=1e-11)


def test_sound_velocities_of_a_cubic_lattice_of_springs():
    n = np.array([[1.0, 0, 0], [0, 0, 2.5], [1, 1, 0], [1, 2, -2]])
    found = sound_velocities(simple_cubic(), jnp.asarray(n))
    K = np.where(np.eye(3, dtype=bool), 3.0, 0.7)
    unit = n / np.linalg.norm(n, axis=1, keepdims=True)
    expected = np.sort(2 * np.pi * THZ * 3.1 * np.sqrt(unit**2 @ K.T / 24.0), axis=1)
    np.testing.assert_allclose(found.values, expected, rtol=1e-13)


def zincblende():
    """Return a piezoelectric crystal of two ions per cell, with charges."""
    cell = PhonopyAtoms(
        symbols=["Na"] * 4 + ["Cl"] * 4,
        cell=np.eye(3) * 5.4,
        scaled_positions=np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]] * 2) / 4
        + np.repeat([[0.0], [0.25]], 4, axis=0),
    )
    return charged(reference.springs(cell, np.diag((2, 2, 2)), "F", cutoff=5.0))


@pytest.mark.parametrize(
    ("make", "polar"), [(reference.triclinic, False), (zincblende, True)], ids=["plain", "polar"]
)
def test_sound_velocities_are_slopes_near_gamma(make, polar):
    """With optical modes that follow the strain, and piezoelectricity."""
    crystal = make()
    plain = interpolation(reference.converted(crystal))
    held = held_of(crystal) if polar else plain
    n = np.array([[1.0, 1.0, 0], [0.3, -1.0, 0.45]])
    found = sound(held, jnp.asarray(n))
    assert np.all(found.linear < 1e-9)
    unit = n / np.linalg.norm(n, axis=1, keepdims=True)
    for h in (1e-2, 1e-3):
        nu = frequencies(held, h * unit @ np.asarray(held.crystal.cell).T)[:, :3]
        np.testing.assert_allclose(found.values, nu / h, rtol=50 * h**2)
    if polar:
        assert np.abs(found.values - sound(plain, jnp.asarray(n)).values).max() > 0.1


@pytest.mark.slow
def test_what_a_short_supercell_leaves_of_a_net_force_is_told():
    held = held_of(charged(reference.triclinic()))
    found = sound(held, jnp.asarray([[0.3, -1.0, 0.45], [1.0, 0, 0]]))
    h = 1e-6
    unit = np.array([0.3, -1.0, 0.45]) / np.linalg.norm([0.3, -1.0, 0.45])
    nu = frequencies(held, (h * unit @ np.asarray(held.crystal.cell).T)[None])[0]
    np.testing.assert_allclose(np.sqrt(found.linear[0] * h), -nu[0], rtol=1e-3)


def test_a_held_crystal_has_no_sound():
    with pytest.raises(InputError, match="held"):
        sound_velocities(replace(simple_cubic(), free=False), jnp.ones((1, 3)))


def test_derivative_of_the_matrices_is_theirs():
    held = held_of(charged(reference.triclinic()))
    q, h = jnp.asarray(Q[:2]), 1e-4
    along = np.array([[1.0, 0, 0], [0.2, -0.5, 0.9]])
    exact = jax.jit(matrix_slopes)(held, q, jnp.asarray(along))
    steps = along @ np.asarray(held.crystal.cell).T
    D = partial(jax.jit(dynamical_matrices), held)
    for part, step in zip(exact, steps, strict=True):
        a, b, c, d = (D(q + k * h * step) for k in (1, -1, 2, -2))
        np.testing.assert_allclose(part, (8 * (a - b) - c + d) / 12 / h, atol=1e-9)


def test_sodium_chloride_is_phonopys_published_one(shared):
    """Values from phonopy's own test suite, which were not computed here."""
    folder = shared / "data" / "oracles"
    read = read_phonopy(
        folder / "NaCl" / "phonopy_disp_NaCl.yaml",
        force_sets=folder / "NaCl" / "FORCE_SETS_NaCl",
        born=folder / "NaCl" / "BORN_NaCl",
    )
    crystal = read.force_constants.supercell.primitive
    held = interpolation(
        enforced(read.force_constants)[0], neutral(read.born, space_group(crystal))[0]
    )
    expected = json.loads((folder / "expected" / "NaCl_group_velocity_q0.1.json").read_text())
    listed = np.reshape(expected["values"]["test_gv_nacl"], (6, 3))
    found = reference.solved(held, jnp.full((1, 3), 0.1))
    np.testing.assert_allclose(
        symmetrized(held, found)[0] * reference.constants_ratio(), listed, atol=1e-5
    )


@pytest.mark.slow
def test_velocities_of_a_perovskite(shared):
    folder = shared / "data" / "oracles" / "NaMgF3"
    read = read_phonopy(
        folder / "phono3py_params_NaMgF3.yaml.xz", force_constants=folder / "fc2_NaMgF3.hdf5"
    )
    with h5py.File(folder / "kappa-NaMgF3-m979.hdf5") as file:
        q, expected = file["qpoint"][()], file["group_velocity"][()]
    expected = expected / reference.constants_ratio()
    crystal = read.force_constants.supercell.primitive
    held = interpolation(read.force_constants, neutral(read.born, space_group(crystal))[0])
    found = reference.solved(held, jnp.asarray(q))
    ours = np.asarray(symmetrized(held, found))
    # Degenerate to phonopy: closer than 1e-4 THz. Two pairs of modes here are so by 3 %.
    near = np.cumsum(np.diff(found.frequencies_THz, axis=1, prepend=-1) > 1e-4, axis=1) - 1
    blocks = jnp.asarray(near, jnp.int32)
    ours = velocities(held, found, blocks=blocks)
    ours = symmetrized_velocities(ours, found.q, space_group(crystal)).vectors
    # Charges and force constants of the file are symmetric to 1e-6 only.
    np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())
