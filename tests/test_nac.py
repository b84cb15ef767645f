"""The non-analytic term against phonopy's, on polar crystals of every kind."""

import dataclasses

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy import Phonopy

from phojax.checks import InputError
from phojax.convert import structure_from_phonopy
from phojax.dynmat import dynamical_matrices, interpolation
from phojax.force_constants.sum_rules import enforced
from phojax.io.phonopy_files import read_phonopy
from phojax.modes import modes
from phojax.nac import born_charges, dipoles, is_neutral, neutral
from phojax.symmetry import space_group

Q = np.array([[0.1, 0.2, -0.3], [0.5, 0.5, 0.5], [0.013, 0, 0], [0.7, -0.4, 1.2], [0.25, 0, 0.5]])


def charged(crystal: Phonopy, seed=0) -> Phonopy:
    """Return the crystal with made-up charges that have its symmetry and add up to zero."""
    rng = np.random.default_rng(seed)
    count = len(crystal.primitive)
    sign = np.where(np.asarray(crystal.primitive.numbers) == 11, 1.0, -1.0)
    Z = 0.4 * rng.normal(size=(count, 3, 3)) + 1.5 * np.eye(3) * sign[:, None, None]
    ours = structure_from_phonopy(crystal.primitive)
    eps = np.array([[3.1, 0.2, -0.1], [0.2, 2.2, 0.3], [-0.1, 0.3, 4.0]])
    born, _ = neutral(born_charges(Z, eps), space_group(ours))
    damping = float(dipoles(born, ours).damping) / 2 / np.pi
    crystal.nac_params = {
        "born": np.asarray(born.charges),
        "dielectric": np.asarray(born.dielectric),
        "factor": float(born.factor),
        "method": "gonze",
        # phonopy's own sum over G ends at 1e-10 and is off by 1e-7 at the zone boundary.
        "Lambda": damping,
        "G_cutoff": 13 * damping / np.sqrt(np.linalg.eigvalsh(eps)[0]) + 0.3,
    }
    return crystal


def held_of(crystal: Phonopy):
    """Return our interpolation of a charged phonopy object."""
    p = crystal.nac_params
    born = born_charges(p["born"], p["dielectric"], p["factor"])
    return interpolation(reference.converted(crystal), neutral(born)[0])


matrices = jax.jit(dynamical_matrices)


@pytest.mark.parametrize("make", [reference.rocksalt, reference.triclinic])
def test_matrices_as_phonopys(make):
    crystal = charged(make())
    ours = matrices(held_of(crystal), jnp.asarray(Q))
    crystal.run_qpoints(Q, with_dynamical_matrices=True)
    D = crystal.qpoints.dynamical_matrices
    assert np.abs(np.asarray(ours) - D).max() < 1e-11 * np.abs(D).max()
    crystal.nac_params = None
    crystal.run_qpoints(Q, with_dynamical_matrices=True)
    assert np.abs(crystal.qpoints.dynamical_matrices - D).max() > 0.01 * np.abs(D).max()


def test_direction_at_gamma_as_phonopys():
    crystal = charged(reference.triclinic())
    direction = np.array([1.0, -0.4, 0.7])
    crystal.run_qpoints([[0, 0, 0]], nac_q_direction=direction)
    expected = np.sort(crystal.qpoints.frequencies[0]) / reference.constants_ratio()
    found = modes(held_of(crystal), jnp.zeros((1, 3)), directions=jnp.asarray(direction[None]))
    assert np.abs(np.asarray(found.frequencies_THz)[0, 3:] - expected[3:]).max() < 1e-6
    close = modes(held_of(crystal), jnp.asarray(1e-4 * direction[None]))
    assert np.abs(close.frequencies_THz - found.frequencies_THz)[0, 3:].max() < 1e-3


def test_matrices_at_equivalent_points_differ_by_phases_only():
    held = held_of(charged(reference.triclinic()))
    shift = np.array([3.0, -2.0, 1.0])
    near, far = (np.asarray(matrices(held, jnp.asarray(q))) for q in (Q, Q + shift))
    x = np.repeat(np.asarray(held.crystal.fractional), 3, axis=0) @ shift
    phase = np.exp(2j * np.pi * (x[None, :] - x[:, None]))
    assert np.abs(near * phase - far).max() < 1e-12 * np.abs(near).max()


def test_commensurate_points_keep_their_matrices():
    crystal = charged(reference.triclinic())
    constants = reference.converted(crystal)
    q = jnp.asarray([[0.5, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]])
    plain, polar = matrices(constants, q), matrices(held_of(crystal), q)
    assert np.abs(plain - polar).max() < 1e-9 * np.abs(plain).max()


def test_derivatives_in_charges_and_in_q():
    crystal = charged(reference.triclinic())
    constants, p = reference.converted(crystal), crystal.nac_params
    born = born_charges(p["born"], p["dielectric"], p["factor"])
    charged_crystal = dipoles(born, constants.supercell.primitive)
    q, rng = jnp.asarray(Q[:2]), np.random.default_rng(1)
    dZ, dq = (jnp.asarray(rng.normal(size=s)) for s in (born.charges.shape, q.shape))
    weight = jnp.asarray(rng.normal(size=(2, 15, 15)))

    @jax.jit
    def number(t, s):
        moved = dataclasses.replace(born, charges=born.charges + t * dZ)
        held = interpolation(constants, dataclasses.replace(charged_crystal, born=moved))
        D = dynamical_matrices(held, q + s * dq)
        return jnp.sum(weight * D.real) + jnp.sum(weight * D.imag)

    h = 1e-4
    for k, by in enumerate(map(float, jax.grad(number, argnums=(0, 1))(0.0, 0.0))):
        step = np.eye(2)[k] * h
        a, b, c, d = (float(number(*(times * step))) for times in (1, -1, 2, -2))
        assert by == pytest.approx((8 * (a - b) - c + d) / 12 / h, rel=1e-7)


def test_charges_that_do_not_add_up_are_told():
    crystal = structure_from_phonopy(reference.rocksalt().primitive)
    eps = 2.5 * np.eye(3)
    good, removed = neutral(born_charges([1.1 * np.eye(3), -1.08 * np.eye(3)], eps))
    assert is_neutral(removed)
    assert removed["neutrality"] == pytest.approx(0.02)
    assert np.abs(np.sum(good.charges, axis=0)).max() < 1e-15
    _, removed = neutral(born_charges([1.1 * np.eye(3), 1.1 * np.eye(3)], eps))
    assert not is_neutral(removed)
    with pytest.raises(InputError, match="positive"):
        born_charges(np.zeros((2, 3, 3)), -eps)
    with pytest.raises(InputError, match="one tensor per atom"):
        dipoles(born_charges(np.zeros((3, 3, 3)), eps), crystal)


def test_charges_left_over_are_refused():
    crystal = reference.rocksalt()
    constants = reference.converted(crystal)
    born = born_charges([1.1 * np.eye(3), -1.08 * np.eye(3)], 2.5 * np.eye(3))
    with pytest.raises(InputError, match=r"add up to 0\.02 e"):
        interpolation(constants, born)
    interpolation(constants, neutral(born)[0])


def test_charges_come_before_the_layout():
    crystal = charged(reference.rocksalt())
    p = crystal.nac_params
    born = born_charges(p["born"], p["dielectric"], p["factor"])
    with pytest.raises(InputError, match="laid out already"):
        interpolation(interpolation(reference.converted(crystal)), born)


def test_sodium_chloride_splits_as_by_phonopy(shared):
    folder = shared / "data" / "oracles" / "NaCl"
    read = read_phonopy(
        folder / "phonopy_disp_NaCl.yaml",
        force_sets=folder / "FORCE_SETS_NaCl",
        born=folder / "BORN_NaCl",
    )
    constants, crystal = read.force_constants, read.force_constants.supercell.primitive
    held = interpolation(enforced(constants)[0], neutral(read.born, space_group(crystal))[0])
    at = jnp.zeros((2, 3))
    found = modes(held, at, directions=jnp.asarray([[0.0, 0, 0], [1, 0, 0]])).frequencies_THz
    expected = [[0, 0, 0, *[4.61643516] * 3], [0, 0, 0, 4.61643516, 4.61643516, 7.39632718]]
    assert np.abs(np.asarray(found) - expected).max() < 1e-5


def test_frequencies_of_a_perovskite(shared):
    folder = shared / "data" / "oracles" / "NaMgF3"
    read = read_phonopy(
        folder / "phono3py_params_NaMgF3.yaml.xz", force_constants=folder / "fc2_NaMgF3.hdf5"
    )
    with h5py.File(folder / "kappa-NaMgF3-m979.hdf5") as file:
        q, expected = file["qpoint"][()], file["frequency"][()]
    crystal = read.force_constants.supercell.primitive
    held = interpolation(read.force_constants, neutral(read.born, space_group(crystal))[0])
    found = np.asarray(modes(held, jnp.asarray(q)).frequencies_THz)
    away = np.abs(q).max(axis=1) > 0
    assert len(q) - away.sum() == 1
    apart = np.abs(found - expected / reference.constants_ratio())
    assert apart[away].max() < 1e-6
    plain = np.asarray(modes(read.force_constants, jnp.asarray(q)).frequencies_THz)
    assert np.abs(plain - expected)[away].max() > 2
