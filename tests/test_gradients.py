"""Gradients of spectral sums against central differences, where modes are degenerate and nearly so.

Each test pushes one random direction through (forward mode), pulls all sums back (reverse mode),
and compares both with differences of fourth order, extrapolated once.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy.structure.atoms import PhonopyAtoms

from phojax.descriptors.displacements import displacement_tensor_from_matrices
from phojax.descriptors.dos import moments_from_matrices
from phojax.descriptors.groups import smooth_dos_from_matrices
from phojax.descriptors.thermodynamics import thermodynamics_from_matrices
from phojax.dynmat import dynamical_matrices, interpolation
from phojax.force_constants.container import force_constants
from phojax.force_constants.hessian import responses
from phojax.modes import degenerate_blocks
from phojax.nac import born_charges, dipoles
from phojax.potentials.pair import morse
from phojax.spectral import eigenvalues, matrix_function, trace_function
from phojax.structure import strained, structure, supercell
from phojax.units import KB

FLOOR = 1e-5
Q = jnp.asarray(reference.gamma_mesh(2))
W = jnp.full(len(Q), 1 / len(Q))


def sums(D, crystal, temperature):
    """Return U, F, S, C, moments and smooth densities of states, scaled to be of order one."""
    n = len(crystal)
    groups = jnp.stack([jnp.ones(n, bool), jnp.arange(n) == 0])
    U = displacement_tensor_from_matrices(D, Q, W, crystal, temperature, FLOOR)
    heat = thermodynamics_from_matrices(D, Q, W, crystal, temperature, FLOOR)
    found = moments_from_matrices(D, Q, W, crystal, groups, FLOOR)
    dos = smooth_dos_from_matrices(D, Q, W, crystal, jnp.asarray([2.0, 4.1]), 0.7)
    return {
        "U": 100 * U[0],
        "MSD": 100 * jnp.trace(U, axis1=1, axis2=2),
        "free energy": 10 * heat.free_energy,
        "entropy": heat.entropy / KB,
        "heat capacity": heat.heat_capacity / KB,
        "centre": found.centre,
        "deviation": found.deviation,
        "skewness": found.skewness,
        "kurtosis": found.kurtosis,
        "smooth DOS": dos[0],
    }


def differences(f, at, along, step):
    """Return the derivative of f(*at) along `along` by central differences, to sixth order."""

    def central(h):
        points = [
            f(*jax.tree.map(lambda a, d: a + s * h * d, at, along))  # noqa: B023
            for s in (-2, -1, 1, 2)
        ]
        return jax.tree.map(lambda a, b, c, d: (a - 8 * b + 8 * c - d) / (12 * h), *points)

    return jax.tree.map(lambda a, b: (16 * b - a) / 15, central(step), central(step / 2))


def compare(f, at, along, step, rtol=1e-6):
    """Compare derivatives of f(*at) along `along`, one argument after the other."""
    f = jax.jit(f)
    push = jax.jit(lambda at, along: jax.jvp(lambda a: f(*a), (at,), (along,))[1])
    scale = jax.tree.map(lambda v: jnp.maximum(1.0, jnp.abs(v)), f(*at))
    weights = jax.tree.map(lambda v: jnp.cos(jnp.arange(1.0, v.size + 1).reshape(v.shape)), scale)

    def total(at):
        return sum(jax.tree.leaves(jax.tree.map(lambda w, v: jnp.sum(w * v), weights, f(*at))))

    pulled = jax.jit(jax.grad(total))(at)
    for k, direction in enumerate(along):
        only = tuple(
            direction if n == k else jax.tree.map(jnp.zeros_like, a) for n, a in enumerate(at)
        )
        wanted = differences(f, at, only, step)
        found = push(at, only)
        for name in found:
            size = float(jnp.max(jnp.abs(wanted[name])))
            np.testing.assert_allclose(
                found[name], wanted[name], rtol=rtol, atol=rtol * size + 1e-10,
                err_msg=f"{name}, argument {k}",
            )  # fmt: skip
        forward = sum(jax.tree.leaves(jax.tree.map(lambda w, v: jnp.sum(w * v), weights, found)))
        pairs = jax.tree.map(lambda g, d: jnp.sum(g * d), pulled[k], direction)
        reverse = sum(jax.tree.leaves(pairs))
        np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-10)


def of_constants(crystal):
    """Return the sums as a function of Φ, masses and T, with arguments and directions."""
    fc = reference.converted(crystal)
    primitive = fc.supercell.primitive
    rng = np.random.default_rng(0)

    def f(values, masses, T):
        bent = replace(primitive, masses=masses)
        changed = replace(fc, values=values, supercell=replace(fc.supercell, primitive=bent))
        return sums(dynamical_matrices(changed, Q), bent, T)

    D = dynamical_matrices(fc, Q)
    blocks = np.asarray(degenerate_blocks(eigenvalues(D)))
    assert np.any(np.diff(blocks, axis=1) == 0), "a test of degenerate modes needs some"
    at = (fc.values, primitive.masses, jnp.asarray(300.0))
    along = (
        jnp.asarray(rng.normal(size=fc.values.shape)) * 1e-2,
        jnp.asarray(rng.normal(size=len(primitive))),
        jnp.asarray(30.0),
    )
    return f, at, along


def bcc(cell, scaled, symbols):
    atoms = PhonopyAtoms(symbols=symbols, cell=cell, scaled_positions=scaled)
    return reference.springs(atoms, np.diag((1, 1, 1)), "I", cutoff=4.6, seed=2)


def thiophosphate():
    """Return a crystal like cubic Na3PS4 (I-43m, 8 atoms), with springs to 4.6 Å."""
    u = 0.165
    first = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5],
             [u, u, u], [-u, -u, u], [-u, u, -u], [u, -u, -u]]  # fmt: skip
    scaled = np.concatenate([first, np.asarray(first) + 0.5])
    return bcc(np.eye(3) * 7.03, scaled, (["P"] + ["Na"] * 3 + ["S"] * 4) * 2)


def test_constants_masses_and_temperature_on_rock_salt():
    compare(*of_constants(reference.rocksalt()), step=1e-2)


@pytest.mark.slow
def test_constants_masses_and_temperature_on_a_cubic_thiophosphate():
    compare(*of_constants(thiophosphate()), step=1e-2)


@pytest.mark.slow
def test_constants_masses_and_temperature_on_the_nacl_of_phonopy(shared):
    crystal = reference.shared_crystal(shared, "NaCl")
    crystal.symmetrize_force_constants()
    compare(*of_constants(crystal), step=1e-2)


@pytest.mark.slow
def test_constants_masses_and_temperature_on_the_cell_of_na3ps4(shared):
    from ase.io import read

    atoms = read(shared / "data" / "structures" / "Na3PS4_cubic.cif")
    assert len(atoms) == 16
    compare(
        *of_constants(
            bcc(np.asarray(atoms.cell), atoms.get_scaled_positions(), atoms.get_chemical_symbols())
        ),
        step=1e-2,
    )


@pytest.mark.parametrize("stable", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_positions_strain_and_parameters_through_the_hessian(stable):
    """Energy -> Φ -> D -> sums, at the symmetric crystal: positions move along a random line.

    With bonds that pull there are imaginary modes, which the sums leave out: a step of f between
    eigenvalues.
    """
    near, far = (2.80, 4.0) if stable else (2.75, 3.9)
    a = 5.64
    crystal = structure(
        [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]],
        [[0, 0, 0], [a / 2, a / 2, a / 2]],
        [11, 17],
    )
    cells = supercell(crystal, (2, 2, 2))
    potential = morse(
        {
            ("Na", "Cl"): (0.5, 1.5, near),
            ("Cl", "Cl"): (0.2, 1.2, far),
            ("Na", "Na"): (0.1, 1.2, far),
        },
        cutoff=4.7 if stable else 5.2, onset=4.2,
    )  # fmt: skip
    big = cells.structure
    graph = jax.jit(potential.graph, static_argnums=1)(big, potential.capacity(big))
    copies, n = len(cells.images), len(crystal)
    atoms = jnp.repeat(jnp.arange(n) * copies, 3)
    directions = jnp.tile(jnp.eye(3), (n, 1))
    layout = force_constants(jnp.zeros((n, n * copies, 3, 3)), cells)

    def chain(moved, strain, params):
        bent = strained(replace(crystal, positions=crystal.positions + moved), strain)
        sc = replace(cells, primitive=bent)
        rows = responses(replace(potential, params=params), sc.structure, graph, atoms, directions)
        values = rows.reshape(n, 3, n * copies, 3).transpose(0, 2, 1, 3)
        D = dynamical_matrices(replace(layout, values=values, supercell=sc), Q)
        return D, bent

    def f(moved, strain, params):
        return sums(*chain(moved, strain, params), 300.0)

    D = jax.jit(lambda: chain(jnp.zeros((n, 3)), jnp.zeros((3, 3)), potential.params)[0])()
    assert (float(jnp.min(eigenvalues(D))) > -1e-8) == stable
    rng = np.random.default_rng(1)
    at = (jnp.zeros((n, 3)), jnp.zeros((3, 3)), potential.params)
    strain = rng.normal(size=(3, 3))
    along = (
        jnp.asarray(rng.normal(size=(n, 3))),
        jnp.asarray(strain + strain.T) / 4,
        jax.tree.map(lambda p: 0.3 * p, potential.params),
    )
    compare(f, at, along, step=4e-3)


@pytest.mark.slow
def test_charges_and_dielectric_tensor():
    fc = reference.converted(reference.rocksalt())
    crystal = fc.supercell.primitive
    born = born_charges(np.stack([1.1 * np.eye(3), -1.1 * np.eye(3)]), 2.4 * np.eye(3))
    charged = dipoles(born, crystal, points=60)
    # D(q) off Γ, where no direction is needed, and at the zone's corners, where modes coincide.

    def f(charges, dielectric):
        changed = replace(charged, born=replace(born, charges=charges, dielectric=dielectric))
        D = dynamical_matrices(interpolation(fc, changed), Q)
        return sums(D, crystal, 300.0)

    rng = np.random.default_rng(2)
    dZ, de = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    along = (jnp.asarray(np.stack([dZ, -dZ])) / 5, jnp.asarray(de + de.T) / 10)
    compare(f, (born.charges, born.dielectric), along, step=1e-2)


def g_exact(x):
    return mpmath.coth(mpmath.sqrt(x) / 2) / (2 * mpmath.sqrt(x))


def g(x):
    return 1 / (2 * jnp.sqrt(x) * jnp.tanh(jnp.sqrt(x) / 2))


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4])
def test_nearly_degenerate_modes_have_the_exact_derivative(gap):
    """f(D) for D = R diag(λ) R† with known R: its derivative by eq. (2) of `spectral` in 50 digits.

    Gaps are shares of the spectrum's width (4). A turn inside the nearly degenerate block couples
    exactly what the quotient of differences loses.
    """
    values = [1.0, 1.0 + 4 * gap, 1.0 + 8 * gap, 2.5, 5.0, 5.0 - 4 * gap]
    rng = np.random.default_rng(3)
    E, _ = np.linalg.qr(rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6)))
    turn = rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
    turn = (turn + turn.conj().T) / 2
    D, dD = jnp.asarray((E * values) @ E.conj().T), jnp.asarray(E @ turn @ E.conj().T)
    with mpmath.workdps(50):
        x = [mpmath.mpf(v) for v in values]
        y = [g_exact(v) for v in x]
        quotient = np.array(
            [
                [
                    float(mpmath.diff(g_exact, a) if a == b else (fa - fb) / (a - b))
                    for b, fb in zip(x, y, strict=True)
                ]
                for a, fa in zip(x, y, strict=True)
            ]
        )
    wanted = E @ (quotient * turn) @ E.conj().T
    _, found = jax.jvp(lambda D: matrix_function(g, D), (D,), (dD,))
    np.testing.assert_allclose(found, wanted, atol=1e-11 * np.abs(wanted).max(), rtol=0)
    _, slope = jax.jvp(lambda D: trace_function(g, D), (D,), (dD,))
    np.testing.assert_allclose(slope, np.trace(wanted).real, rtol=1e-11)
    # Reverse, of an entry that mixes the block.
    pulled = jax.grad(lambda D: matrix_function(g, D)[0, 1].real)(D)
    np.testing.assert_allclose(
        jnp.sum(pulled * dD).real, wanted[0, 1].real, atol=1e-11 * np.abs(wanted).max()
    )
