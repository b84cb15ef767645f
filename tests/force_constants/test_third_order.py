"""Third-order force constants against closed forms, brute force, differences of forces, a fit."""

import itertools
from dataclasses import replace
from functools import partial

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import symfc
from test_hessian import POTENTIAL, make

from phojax.convert import phonopy_atoms
from phojax.force_constants.shells import shell_cutoff
from phojax.force_constants.sum_rules import preserving
from phojax.force_constants.third_order import third_order_by_autodiff
from phojax.force_constants.third_reduction import all_pairs, independent_pairs
from phojax.force_constants.third_rules import (
    group_average,
    kept_triplets,
    permutation_mean,
)
from phojax.forces import energy, energy_and_forces
from phojax.potentials.pair import lennard_jones, springs
from phojax.structure import structure, supercell
from phojax.symmetry import space_group

SLOW = [pytest.param(number, marks=pytest.mark.slow) for number in (166, 62, 1)]


@partial(jax.jit, static_argnames="n")
def rows_of_third(crystal, graph, displaced, n):
    """All third derivatives that involve the displaced atoms, by nested forward mode."""
    gradient = jax.grad(lambda x: energy(POTENTIAL, replace(crystal, positions=x), graph))

    def row(v):
        return jax.jvp(jax.jacfwd(gradient), (crystal.positions,), (v,))[1]

    return jax.lax.map(row, displaced)


def brute_force(cell):
    """(i, jL, kM, 3, 3, 3) with none of our symmetry."""
    crystal, n, N = cell.structure, len(cell.primitive), len(cell.structure)
    graph = POTENTIAL.graph(crystal, POTENTIAL.capacity(crystal))
    displaced = np.zeros((n, 3, N, 3))
    for i, a in itertools.product(range(n), range(3)):
        displaced[i, a, i * len(cell.images), a] = 1
    found = rows_of_third(crystal, graph, jnp.asarray(displaced.reshape(-1, N, 3)), n)
    return np.asarray(found).reshape(n, 3, N, 3, N, 3).transpose(0, 2, 4, 1, 3, 5)


def broken(values, cell, group):
    """How far Φ is from permutation symmetry, the sum rule, the space group."""
    return [
        float(np.abs(np.asarray(x)).max())
        for x in (
            permutation_mean(values, cell) - values,
            values.sum(axis=2),
            group_average(values, cell, preserving(group, cell)) - values,
        )
    ]


@pytest.mark.parametrize("number", [225, 217, *SLOW])
def test_symmetry_reduced_equals_brute_force(number):
    cell, group = make(number)
    found = third_order_by_autodiff(POTENTIAL, cell, group)
    values, wanted = found.third_order.values, brute_force(cell)
    assert jnp.abs(values - wanted).max() < 1e-11
    assert np.abs(wanted).max() > 0.1
    left = found.residuals
    assert max(left.permutation, left.translation, left.space_group, left.restored) < 1e-11
    assert max(broken(values, cell, group)) < 1e-11
    assert left.left_out == 0
    assert found.standard_error is None


def test_symmetry_saves_columns():
    cell, group = make(225)
    assert len(independent_pairs(cell, group)) <= 10
    assert len(all_pairs(cell, group)) == 2 * 16 * 9
    near = independent_pairs(cell, group, cutoff=3.0)
    assert len(near) < len(independent_pairs(cell, group))
    cell, group = make(1)
    assert len(independent_pairs(cell, group)) <= len(all_pairs(cell, group)) / 2


def test_without_symmetry_the_same_is_found():
    cell, group = make(225)
    plain = third_order_by_autodiff(POTENTIAL, cell, group, displacements=all_pairs(cell, group))
    reduced = third_order_by_autodiff(POTENTIAL, cell, group)
    assert jnp.abs(plain.third_order.values - reduced.third_order.values).max() < 1e-12
    assert plain.residuals.permutation < 1e-12
    assert plain.columns > 20 * reduced.columns


def pair_tensor(vector, slopes):
    """∂³φ(|r|)/∂r∂r∂r from φ', φ'', φ''' at |r|."""
    r = np.linalg.norm(vector)
    n, one = vector / r, np.eye(3)
    first, second, third = slopes
    mixed = second / r - first / r**2
    along = third - 3 * mixed
    nnn = np.einsum("a,b,c->abc", n, n, n)
    dn = np.einsum("ab,c->abc", one, n)
    return along * nnn + mixed * (dn + dn.transpose(0, 2, 1) + dn.transpose(2, 1, 0))


def pair_third_order(cell, cutoff, slopes):
    """Φ of a crystal of one kind of atoms: E = ½ Σ φ(r), every pair and image by itself."""
    crystal = cell.structure
    x, N, lattice = np.asarray(crystal.positions), len(crystal), np.asarray(crystal.cell)
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    values = np.zeros((N, N, 3, 3, 3))
    for j in range(N):
        for R in x[j] - x[0] + steps @ lattice:
            r = np.linalg.norm(R)
            if 1e-6 < r < cutoff:
                T = pair_tensor(R, slopes(r))
                # E depends on r_j - r_0: a minus sign for every derivative by r_0.
                values[0, 0] -= T
                values[0, j] += T
                values[j, 0] += T
                values[j, j] -= T
    return values


def test_lennard_jones_in_closed_form():
    """Up to the third shell, no switch; Φ is a sum over pairs."""
    R, epsilon, sigma = 3.82, 0.0104, 3.4
    cutoff = 1.85 * R
    atoms = crystals.fcc(a=R * np.sqrt(2))
    primitive = structure(*crystals.parts(atoms))
    cell, group = supercell(primitive, [4, 4, 4]), space_group(primitive)
    potential = lennard_jones({("Ar", "Ar"): (epsilon, sigma)}, cutoff=cutoff, onset=cutoff)
    found = third_order_by_autodiff(potential, cell, group)

    def slopes(r):
        twelve, six = (sigma / r) ** 12, (sigma / r) ** 6
        return tuple(
            4 * epsilon * sign * (a * twelve - b * six) / r**k
            for k, sign, a, b in ((1, -1, 12, 6), (2, 1, 156, 42), (3, -1, 2184, 336))
        )

    wanted = pair_third_order(cell, cutoff, slopes)
    assert np.abs(wanted).max() > 0.1
    assert np.abs(found.third_order.values[0] - wanted).max() < 1e-13
    # All three shells, two-body: a cutoff beyond them takes nothing away.
    near = third_order_by_autodiff(potential, cell, group, shell=3)
    assert near.columns < found.columns
    assert near.third_order.cutoff == pytest.approx((np.sqrt(3) + 2) / 2 * R, abs=1e-6)
    assert jnp.abs(near.third_order.values - found.third_order.values).max() < 1e-13
    assert max(near.residuals.left_out, near.residuals.restored) < 1e-13
    # One that cuts through them does; but for two bodies at centres of inversion no sum changes.
    short = third_order_by_autodiff(potential, cell, group, shell=1)
    assert short.residuals.left_out == pytest.approx(
        np.abs(pair_tensor([np.sqrt(2) * R, 0, 0], slopes(np.sqrt(2) * R))).max(), rel=1e-6
    )
    assert max(short.residuals.truncation, short.residuals.restored) < 1e-14
    outside = ~kept_triplets(cell, shell_cutoff(cell, 1))
    assert np.all(np.asarray(short.third_order.values)[outside] == 0)


def test_springs_at_their_length():
    """φ' = φ''' = 0: third order comes from the turning of bonds alone."""
    k, a = 1.7, 3.0
    primitive = structure(a * np.eye(3), [[0, 0, 0]], [18])
    cell, group = supercell(primitive, [3, 3, 3]), space_group(primitive)
    potential = springs({("Ar", "Ar"): (k, a)}, cutoff=1.2 * a)
    found = np.asarray(third_order_by_autodiff(potential, cell, group).third_order.values[0])
    images = cell.images.tolist()
    x, y = images.index([1, 0, 0]), images.index([0, 1, 0])
    # Only one of the three axes along the bond: k/a; along it thrice: 0.
    one = np.zeros((3, 3, 3))
    for b in (1, 2):
        one[0, b, b] = one[b, 0, b] = one[b, b, 0] = k / a
    np.testing.assert_allclose(found[0, x], one, atol=1e-13)
    np.testing.assert_allclose(found[x, x], -one, atol=1e-13)
    assert np.abs(found[0, 0]).max() < 1e-13  # inversion
    assert np.abs(found[x, y]).max() < 1e-13  # two bodies only


def fitted(cell, size, seed=0):
    """symfc's fit of second and third order to forces at random displacements: (i, jL, kM, …)."""
    crystal = cell.structure
    count = 120
    moves = size * np.random.default_rng(seed).normal(size=(count, len(crystal), 3))
    capacity = POTENTIAL.capacity(crystal)

    @jax.jit
    def forces(u):
        moved = replace(crystal, positions=crystal.positions + u)
        return energy_and_forces(POTENTIAL, moved, POTENTIAL.graph(moved, capacity))[1]

    solver = symfc.Symfc(phonopy_atoms(crystal))
    solver.displacements = moves
    solver.forces = np.array([forces(u) for u in jnp.asarray(moves)])
    solver.run(max_order=3, is_compact_fc=False)
    return solver.force_constants[3][:: len(cell.images)]


def test_the_limit_of_a_fit():
    """A fit to forces holds all higher orders as well; they vanish with the displacements."""
    cell, group = make(225)
    exact = np.asarray(third_order_by_autodiff(POTENTIAL, cell, group).third_order.values)
    errors = [np.abs(fitted(cell, size) - exact).max() for size in (0.01, 0.001)]
    assert errors[1] < 2e-3 * np.abs(exact).max()
    assert errors[1] < errors[0] / 10
