"""Sublattices: springs with known answers, and limits of masses in phonopy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from phonopy_reference import (
    constants_ratio,
    converted,
    gamma_mesh,
    rocksalt,
    shared_crystal,
    springs,
    triclinic,
)

import phojax.modes
from phojax import dynmat
from phojax.checks import InputError
from phojax.dynmat import interpolation
from phojax.force_constants import force_constants
from phojax.force_constants.container import nearest_images
from phojax.force_constants.sublattice import (
    frozen,
    frozen_matrices,
    others,
    relaxed,
    relaxed_matrices,
    removed,
)
from phojax.force_constants.sum_rules import permuted
from phojax.nac import born_charges
from phojax.screening.row import row_from_force_constants
from phojax.screening.settings import PhononSettings
from phojax.structure import structure, supercell
from phojax.units import THZ

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")

# Compiled: operation by operation each test would compile dozens of small programs.
dynamical_matrices = jax.jit(dynmat.dynamical_matrices)
modes = jax.jit(phojax.modes.modes)

QS = jnp.asarray(np.random.default_rng(4).uniform(-0.5, 0.5, (6, 3)))
A, NA, CL = 5.6, 22.99, 35.45


def salt(along, across, second=0.0):
    """Rocksalt with springs to nearest neighbours, and central ones between like atoms.

    Per pair: `along` the bond and `across` it to the six neighbours at a/2, `second` along the
    bond to the twelve at a/√2. All in eV/Å².
    """
    cell = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * A / 2
    primitive = structure(cell, [[0, 0, 0], [A / 2, 0, 0]], [11, 17], [NA, CL])
    cells = supercell(primitive, [4, 4, 4])
    big = cells.structure
    values = np.zeros((2, len(big), 3, 3))
    for i in range(2):
        apart = np.asarray(big.positions - primitive.positions[i]) @ np.linalg.inv(big.cell)
        apart = apart - np.rint(apart)
        vectors = apart @ np.asarray(big.cell)
        # The nearest image, where rounding in a skewed cell does not find it.
        steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
        images = vectors[:, None] + steps @ np.asarray(big.cell)
        vectors = images[np.arange(len(big)), np.linalg.norm(images, axis=-1).argmin(1)]
        length = np.linalg.norm(vectors, axis=1)
        for j in np.flatnonzero((length > 0.1) & (length < 0.75 * A)):
            n = np.outer(vectors[j], vectors[j]) / length[j] ** 2
            near = length[j] < 0.6 * A
            k = along * n + across * (np.eye(3) - n) if near else second * n
            values[i, j] -= k
            values[i, i * len(cells.images)] += k
    return force_constants(jnp.asarray(values), cells)


def eigenvalues(constants, q=QS):
    return np.linalg.eigvalsh(dynamical_matrices(constants, q))


def test_atom_in_a_fixed_cage_is_an_einstein_oscillator():
    """λ = (2 k∥ + 4 k⊥)/m at every q, Γ included, without translations."""
    held = frozen(salt(2.0, 0.3), "Cl")
    assert not held.free
    assert held.supercell.primitive.symbols == ["Na"]
    expected = (2 * 2.0 + 4 * 0.3) / NA
    np.testing.assert_allclose(eigenvalues(held), expected, rtol=1e-12)
    found = modes(held, jnp.asarray(gamma_mesh(2)))
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-12)
    np.testing.assert_allclose(found.frequencies_THz, THZ * np.sqrt(expected), rtol=1e-12)


def test_record_of_held_atoms():
    """The screen keeps what holds them: sum rules of a free crystal would pull them to zero."""
    record = row_from_force_constants(
        "held", frozen(salt(2.0, 0.3), "Cl"), PhononSettings(mesh=(2, 2, 2))
    ).record
    expected = THZ * np.sqrt((2 * 2.0 + 4 * 0.3) / NA)
    assert record["frequency_min_THz"] == pytest.approx(expected, rel=1e-10)
    assert record["frequency_max_THz"] == pytest.approx(expected, rel=1e-10)
    assert np.isnan(record["acoustic_cutoff_mesh_THz"])
    assert np.isnan(record["acoustic_cutoff_connected_THz"])


def test_sublattice_alone_is_the_fcc_crystal():
    """At X = (0, 1/2, 1/2) of central springs to 12 neighbours: λ_L = 8k/m, λ_T = 4k/m."""
    k = 0.7
    alone = removed(salt(2.0, 0.3, second=k), "Cl")
    assert alone.free
    X = jnp.array([[0, 0.5, 0.5]])
    np.testing.assert_allclose(eigenvalues(alone, X)[0], np.array([4, 4, 8]) * k / NA, rtol=1e-12)
    np.testing.assert_allclose(eigenvalues(alone, jnp.zeros((1, 3))), 0, atol=1e-14)
    bare = removed(salt(2.0, 0.3), "Cl")
    np.testing.assert_allclose(eigenvalues(bare), 0, atol=1e-14)


def test_followers_at_rest_join_two_springs_in_series():
    """λ_α = (K − f_α²/K)/m, K = 2k∥ + 4k⊥, f_α = 2 Σ_β k_αβ cos(q_β a/2): bonds by way of Cl."""
    along, across = 2.0, 0.3
    whole = salt(along, across)
    K = 2 * along + 4 * across
    cell = np.asarray(whole.supercell.primitive.cell)

    def expected(q):
        c = np.cos(2 * np.pi * np.asarray(q) @ np.linalg.inv(cell).T * A / 2)
        f = 2 * c @ (across + (along - across) * np.eye(3))
        return np.sort((K - f**2 / K) / NA, axis=1)

    D = relaxed_matrices(dynamical_matrices(whole, QS), whole.supercell.primitive, "Cl")
    np.testing.assert_allclose(np.linalg.eigvalsh(D), expected(QS), rtol=1e-11)
    soft = relaxed(whole, "Cl")
    q = jnp.asarray(gamma_mesh(4))
    np.testing.assert_allclose(eigenvalues(soft, q), expected(q), atol=1e-13)
    # The twelve second and six fourth neighbours are all there is: the supercell holds them.
    np.testing.assert_allclose(eigenvalues(soft), expected(QS), rtol=1e-11)


@pytest.fixture(scope="module", params=["triclinic", "skewed rocksalt"])
def crystal(request):
    """A phonopy object, what to choose of it, and the numbers of the atoms chosen."""
    if request.param == "triclinic":
        return triclinic(), [0, 1], np.array([0, 1])
    made = rocksalt()
    P = np.array([[1, 1, 0], [-1, 2, 0], [1, 0, 2]])
    return springs(made.unitcell, P, "F", cutoff=4.2), "Cl", np.array([1])


def with_masses(phonon, atoms, mass):
    """phonopy's eigenvalues (ours in units) at QS with the mass of some atoms changed."""
    masses = np.array(phonon.primitive.masses)
    kept = masses.copy()
    masses[atoms] = mass
    phonon.masses = masses
    phonon.run_qpoints(np.asarray(QS))
    nu = np.asarray(phonon.qpoints.frequencies) / constants_ratio() / THZ
    phonon.masses = kept
    return np.sign(nu) * nu**2


def test_frozen_is_the_limit_of_infinite_masses(crystal):
    phonon, chosen, atoms = crystal
    constants = converted(phonon)
    part = frozen(constants, chosen)
    heavy = with_masses(phonon, atoms, 1e12)[:, 3 * len(atoms) :]
    np.testing.assert_allclose(eigenvalues(part), heavy, rtol=1e-9)
    whole = constants.supercell.primitive
    D = frozen_matrices(dynamical_matrices(constants, QS), whole, chosen)
    np.testing.assert_allclose(dynamical_matrices(part, QS), D, atol=1e-14)


def test_relaxed_is_the_limit_of_vanishing_masses(crystal):
    phonon, chosen, atoms = crystal
    constants = converted(phonon)
    # Extrapolated from two masses: with lighter ones the rounding of D grows as 1/m.
    light, twice = (with_masses(phonon, atoms, m)[:, : -3 * len(atoms)] for m in (1e-4, 2e-4))
    light = 2 * light - twice
    whole = constants.supercell.primitive
    D = relaxed_matrices(dynamical_matrices(constants, QS), whole, chosen)
    np.testing.assert_allclose(np.linalg.eigvalsh(D), light, rtol=1e-8, atol=1e-10)


def test_relaxed_in_real_space_is_exact_where_the_supercell_is(crystal):
    phonon, chosen, _ = crystal
    constants = converted(phonon)
    P = np.asarray(constants.supercell.matrix)
    q = jnp.asarray(np.random.default_rng(1).integers(-3, 4, (7, 3)) @ np.linalg.inv(P).T)
    whole = constants.supercell.primitive
    exact = relaxed_matrices(dynamical_matrices(constants, q), whole, chosen)
    part = relaxed(constants, chosen)
    assert part.free
    np.testing.assert_allclose(dynamical_matrices(part, q), exact, atol=1e-13)
    np.testing.assert_allclose(part.values.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(part.values, permuted(part.values, part.supercell), atol=1e-13)


@pytest.mark.slow
def test_dipoles_of_the_atoms_that_move():
    """With the charges of the kept atoms alone, D(q) is the block of the whole, dipoles and all."""
    constants = converted(triclinic())
    rng = np.random.default_rng(5)
    charges = rng.normal(size=(5, 3, 3))
    skew = 0.1 * rng.normal(size=(3, 3))
    born = born_charges(charges - charges.mean(0), 3 * np.eye(3) + skew + skew.T)
    whole = constants.supercell.primitive
    D = dynamical_matrices(interpolation(constants, born), QS)
    kept = others(whole, "Na")
    some = replace(born, charges=born.charges[kept])
    part = dynamical_matrices(interpolation(frozen(constants, "Na"), some), QS)
    np.testing.assert_allclose(part, frozen_matrices(D, whole, "Na"), atol=1e-13)
    # And the charges matter.
    assert np.abs(part - dynamical_matrices(frozen(constants, "Na"), QS)).max() > 1e-4


def test_removed_obeys_the_rules(crystal):
    phonon, chosen, _ = crystal
    constants = converted(phonon)
    part = removed(constants, chosen)
    np.testing.assert_allclose(part.values.sum(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose(part.values, permuted(part.values, part.supercell), atol=1e-14)
    zeros = np.sort(np.abs(eigenvalues(part, jnp.zeros((1, 3)))))[0, :3]
    np.testing.assert_allclose(zeros, 0, atol=1e-13)
    # These springs are sums over pairs: bonds within the part are those of the whole.
    kept = frozen(constants, chosen)
    n, copies = len(part.supercell.primitive), len(part.supercell.images)
    own = np.zeros((n, n * copies), bool)
    own[np.arange(n), np.arange(n) * copies] = True
    np.testing.assert_allclose(part.values[~own], kept.values[~own], atol=1e-13)


def test_bodies_that_are_no_pairs_keep_the_sum_rule():
    """Force constants of no springs at all: what remains of the sums is spread."""
    constants = converted(triclinic())
    noise = jnp.asarray(np.random.default_rng(0).normal(size=constants.values.shape))
    part = removed(force_constants(constants.values + noise, constants.supercell), "Cl")
    np.testing.assert_allclose(part.values.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(part.values, permuted(part.values, part.supercell), atol=1e-13)


@pytest.mark.parametrize("limit", [frozen, removed, relaxed])
def test_differentiable_in_the_values(limit):
    constants = converted(triclinic())
    cells = constants.supercell

    @jax.jit
    def trace(values, masses):
        crystal = replace(cells.primitive, masses=masses)
        given = replace(constants, values=values, supercell=replace(cells, primitive=crystal))
        return jnp.sum(jnp.abs(dynamical_matrices(limit(given, "Na"), QS)) ** 2)

    rng = np.random.default_rng(2)
    at = constants.values, cells.primitive.masses
    step = [jnp.asarray(rng.normal(size=x.shape)) for x in at]
    slopes = jax.jit(jax.grad(trace, argnums=(0, 1)))(*at)
    slope = sum(jnp.sum(a * b) for a, b in zip(slopes, step, strict=True))
    h = 1e-5
    up, down = (trace(*(a + s * h * b for a, b in zip(at, step, strict=True))) for s in (1, -1))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-7)


def test_images_are_those_of_the_smaller_crystal(crystal):
    phonon, chosen, _ = crystal
    part = frozen(converted(phonon), chosen)
    # Found anew: the same entries.
    anew = nearest_images(part.supercell)

    def entries(images):
        R = np.asarray(images.lattice)[np.asarray(images.at)]
        rows = np.column_stack([images.row, images.column, R, images.share])
        return rows[np.lexsort(rows.T)]

    np.testing.assert_allclose(entries(part.images), entries(anew), atol=1e-15)


def test_bad_selections():
    constants = converted(triclinic())
    for given, message in [
        ("Br", "sublattice Br; expected one of Cl, Na, S"),
        ([5], "numbers of atoms from 0 to 4"),
        ([], "numbers of atoms"),
        ([-1], "numbers of atoms"),
        (range(5), "all atoms"),
    ]:
        with pytest.raises(InputError, match=message):
            frozen(constants, given)


def test_NaMgF3_host_and_sodium(shared):
    """The host with Na fixed and Na in the fixed host, against phonopy with masses of 1e12."""
    phonon = shared_crystal(shared, "NaMgF3")
    constants = converted(phonon)
    symbols = np.array(phonon.primitive.symbols)
    sodium = np.flatnonzero(symbols == "Na")
    host = np.flatnonzero(symbols != "Na")
    for atoms, chosen in ((sodium, "Na"), (host, host.tolist())):
        heavy = with_masses(phonon, atoms, 1e12)[:, 3 * len(atoms) :]
        np.testing.assert_allclose(eigenvalues(frozen(constants, chosen)), heavy, atol=1e-9)
