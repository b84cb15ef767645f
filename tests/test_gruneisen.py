"""Grüneisen parameters against phonopy, and crystals whose force constants follow a power."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy import Phonopy, PhonopyGruneisen
from phonopy.structure.atoms import PhonopyAtoms
from test_nac import charged, held_of

from phojax.brillouin import q_mesh
from phojax.checks import InputError
from phojax.dynmat import interpolation
from phojax.force_constants.sum_rules import enforced
from phojax.gruneisen import (
    gruneisen_parameters,
    gruneisen_parameters_of_family,
    mean_gruneisen,
)
from phojax.io.phonopy_files import read_phonopy
from phojax.modes import degenerate_blocks
from phojax.nac import neutral
from phojax.structure import strained
from phojax.symmetry import space_group
from phojax.units import HBAR, KB

parameters = jax.jit(gruneisen_parameters)
STEP = 0.003


def scaled(crystal: Phonopy, length: float, powers=(6.0, 9.0)) -> Phonopy:
    """Return the crystal with another cell, and force constants that fall as powers of it.

    The powers of pairs of equal and of different atoms differ; the diagonal keeps the sum rule.
    """
    cell = crystal.unitcell
    out = Phonopy(
        PhonopyAtoms(
            numbers=cell.numbers, cell=cell.cell * length, scaled_positions=cell.scaled_positions
        ),
        supercell_matrix=crystal.supercell_matrix,
        primitive_matrix=crystal.primitive_matrix,
        log_level=0,
    )
    Z = np.asarray(out.supercell.numbers)
    fc = np.array(crystal.force_constants)
    fc *= np.where(Z[:, None] == Z, *(length**-p for p in powers))[:, :, None, None]
    i = np.arange(len(Z))
    fc[i, i] = 0
    fc[i, i] = -fc.sum(axis=1)
    out.force_constants = fc
    return out


def volumes(make, polar):
    """Return three phonopy objects, and our interpolations of them."""
    crystals = [scaled(make(), length) for length in (1 - STEP, 1.0, 1 + STEP)]
    if polar:
        crystals = [charged(crystal, seed=k // 3) for k, crystal in enumerate(crystals)]
        return crystals, [held_of(crystal) for crystal in crystals]
    return crystals, [interpolation(reference.converted(c)) for c in crystals]


@pytest.mark.parametrize("polar", [False, True], ids=["plain", "polar"])
@pytest.mark.parametrize("make", [reference.rocksalt, reference.triclinic])
def test_parameters_are_phonopys(make, polar):
    (low, middle, high), (less, held, more) = volumes(make, polar)
    peer = PhonopyGruneisen(middle, high, low)
    peer.set_mesh([4, 4, 4], is_gamma_center=False, is_mesh_symmetry=False)
    q, weights, nu, _, expected = peer.get_mesh()
    found = reference.solved(held, jnp.asarray(q))
    np.testing.assert_allclose(found.frequencies_THz, nu / reference.constants_ratio(), atol=1e-8)
    ours = np.asarray(parameters(found, less, more))
    # In blocks ours are in order of the slopes, as phonopy's.
    np.testing.assert_allclose(ours, expected, atol=1e-7)
    weighed = replace(found, weights=jnp.asarray(weights / weights.sum()))
    np.testing.assert_allclose(
        mean_gruneisen(weighed, jnp.asarray(ours)),
        np.average(expected.mean(axis=1), weights=weights),
        rtol=1e-8,
    )
    assert mean_gruneisen(weighed, jnp.asarray(ours), 1e4) == pytest.approx(
        float(mean_gruneisen(weighed, jnp.asarray(ours))), rel=1e-4
    )


def family_of(crystal):
    """Return force constants and charges as a function of strain, as `scaled` makes them."""
    held = held_of(crystal) if crystal.nac_params else None
    constants = reference.converted(crystal)
    cells = constants.supercell
    Z = np.asarray(cells.primitive.numbers)
    columns = np.asarray(cells.structure.numbers)
    power = jnp.asarray(np.where(Z[:, None] == columns, 6.0, 9.0)[:, :, None, None])
    own = np.arange(len(Z)), np.arange(len(Z)) * len(cells.images)

    def family(strain):
        values = (constants.values * (1 + strain) ** -power).at[own].set(0.0)
        values = values.at[own].set(-values.sum(axis=1))
        moved = strained(cells.primitive, strain * jnp.eye(3))
        moved = replace(constants, values=values, supercell=replace(cells, primitive=moved))
        return interpolation(moved, None if held is None else held.dipoles)

    return family


Q = np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0], [0.1, -0.2, 0.35], [0, 0, 0]])


@pytest.mark.parametrize("polar", [False, True], ids=["plain", "polar"])
def test_parameters_of_a_family_are_slopes_of_the_logarithms(polar):
    crystal = reference.rocksalt()
    family = family_of(charged(crystal) if polar else crystal)
    at = jax.jit(lambda strain: reference.solved(family(strain), jnp.asarray(Q)).eigenvalues)
    found = reference.solved(family(jnp.zeros(())), jnp.asarray(Q))
    ours = np.asarray(jax.jit(partial(gruneisen_parameters_of_family, family=family))(found))
    assert np.all(np.isnan(ours[-1, :3]))
    assert np.all(np.isfinite(ours[:-1]))
    h = 1e-4
    a, b, c, d = (np.log(np.asarray(at(k * h))[:-1]) for k in (1.0, -1.0, 2.0, -2.0))
    slopes = -(8 * (a - b) - c + d) / 12 / h / 6
    # Blocks here stay degenerate under a strain that keeps the symmetry.
    assert np.any(np.diff(degenerate_blocks(found.eigenvalues)[:-1]) == 0)
    np.testing.assert_allclose(ours[:-1], slopes, atol=1e-8)
    low, high = family(jnp.asarray(-1e-4)), family(jnp.asarray(1e-4))
    np.testing.assert_allclose(parameters(found, low, high), ours, atol=1e-5)


def test_one_power_gives_one_parameter():
    """λ ∝ V^(−2γ) for all modes, whatever the degeneracy or the eigenvectors."""
    constants = reference.converted(reference.rocksalt())

    def family(strain):
        cells = constants.supercell
        moved = replace(cells, primitive=strained(cells.primitive, strain * jnp.eye(3)))
        return replace(constants, values=constants.values * (1 + strain) ** -9, supercell=moved)

    found = reference.rotated_in_blocks(reference.solved(constants, jnp.asarray(Q)))
    ours = np.asarray(gruneisen_parameters_of_family(found, family))
    np.testing.assert_allclose(ours[np.isfinite(ours)], 1.5, atol=1e-12)
    with pytest.raises(InputError, match="3 times"):
        gruneisen_parameters_of_family(found, lambda strain: family(2 * strain))


def test_mean_is_weighted_by_heat_capacities():
    found = reference.solved(reference.converted(reference.rocksalt()), jnp.asarray(Q))
    gamma = jnp.asarray(np.random.default_rng(0).normal(size=found.eigenvalues.shape))
    gamma = gamma.at[-1, :3].set(jnp.nan)
    for T in (2.0, 300.0):
        with np.errstate(over="ignore"):
            omega = np.sqrt(np.abs(np.asarray(found.eigenvalues))) * HBAR / KB / T
            C = omega**2 * np.exp(omega) / np.expm1(omega) ** 2
        C[-1, :3] = 0
        expected = np.sum(C * np.nan_to_num(gamma)) / C.sum()
        np.testing.assert_allclose(mean_gruneisen(found, gamma, T), expected, rtol=1e-9)


def test_volumes_that_do_not_fit_are_refused():
    _, (less, held, more) = volumes(reference.rocksalt, False)
    found = reference.solved(held, jnp.asarray(Q))
    with pytest.raises(InputError, match="smaller first"):
        gruneisen_parameters(found, more, less)
    polar = held_of(charged(reference.rocksalt()))
    with pytest.raises(InputError, match="one of two"):
        gruneisen_parameters(found, less, polar)
    other = interpolation(reference.converted(reference.triclinic()))
    with pytest.raises(InputError, match="positions has shape"):
        gruneisen_parameters(found, less, other)


def test_sodium_chloride_is_phonopys_published_one(shared):
    """Values from phonopy's own test suite, which were not computed here."""
    folder = shared / "data" / "oracles"
    held = []
    for name in ("0.995", "1.00", "1.005"):
        read = read_phonopy(folder / "NaCl" / f"phonopy_params_NaCl-{name}.yaml.xz")
        group = space_group(read.force_constants.supercell.primitive)
        held.append(interpolation(enforced(read.force_constants)[0], neutral(read.born, group)[0]))
    listed = json.loads((folder / "expected" / "NaCl_gruneisen.json").read_text())["values"]
    table = np.asarray(listed["g_mesh"])
    found = reference.solved(held[1], jnp.asarray(table[:, :3]))
    ours = parameters(found, held[0], held[2])
    np.testing.assert_allclose(found.frequencies_THz, table[:, 3:9], atol=2e-5)
    np.testing.assert_allclose(ours, table[:, 9:], atol=2e-5)
    # The mesh the file names is ours, up to q = −q and reciprocal vectors.
    mesh = q_mesh((4, 4, 4), None, (0.5,) * 3)
    apart = table[:, None, None, :3] - np.array([1, -1])[:, None] * mesh.q[:, None]
    close = np.abs(apart - np.rint(apart)).max(axis=-1).min(axis=-1) < 1e-6
    assert np.all(close.sum(axis=0) == 1)
    assert np.all(close.sum(axis=1) == 1)
    q = np.asarray(listed["band_qpoints"])
    found = reference.solved(held[1], jnp.asarray(q))
    ours = np.asarray(parameters(found, held[0], held[2]))
    order = np.argsort(listed["band_freqs"], axis=1, kind="stable")
    bands = np.take_along_axis(np.asarray(listed["band_gammas"]), order, axis=1)
    np.testing.assert_allclose(ours, bands, atol=2e-5)
