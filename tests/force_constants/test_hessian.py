"""Autodiff force constants against brute force, phonopy's finite differences, and their laws."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.spacegroup import crystal as ase_crystal
from phonopy import Phonopy

from phojax.checks import InputError
from phojax.convert import phonopy_atoms
from phojax.force_constants.hessian import hessian, responses
from phojax.force_constants.reduction import all_displacements, independent_displacements
from phojax.force_constants.sum_rules import group_average, preserving
from phojax.forces import energy, evaluate
from phojax.potentials.pair import morse
from phojax.structure import Structure, structure, supercell
from phojax.symmetry import primitive_cell, space_group, symmetrized

# Smooth, anharmonic, with three derivatives everywhere; depths and lengths are arbitrary.
POTENTIAL = morse(
    {
        ("Na", "Na"): (0.05, 1.1, 3.4),
        ("Na", "Cl"): (0.5, 1.2, 2.7),
        ("Cl", "Cl"): (0.1, 1.0, 3.9),
        ("Na", "S"): (0.4, 1.3, 2.8),
        ("S", "S"): (0.1, 1.0, 3.6),
        ("P", "S"): (1.5, 1.6, 2.05),
        ("Na", "P"): (0.1, 1.0, 3.4),
        ("P", "P"): (0.05, 1.0, 5.0),
    },
    cutoff=5.5,
)

# number: (symbols, positions, cell parameters, supercell). From cubic to triclinic.
CRYSTALS = {
    225: (["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], [5.4] * 3 + [90] * 3, [2, 2, 2]),
    217: (["Na", "P", "S"], [(0.5, 0, 0), (0, 0, 0), (0.17, 0.17, 0.17)],
          [7.0] * 3 + [90] * 3, [[0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    194: (["Na", "S"], [(1 / 3, 2 / 3, 0.58), (1 / 3, 2 / 3, 0.25)],
          [4.6, 4.6, 8.8, 90, 90, 120], [2, 2, 1]),
    166: (["Na", "Cl"], [(0, 0, 0.24), (0, 0, 0)], [4, 4, 15, 90, 90, 120], [2, 2, 2]),
    114: (["Na", "Na", "P", "S"], [(0, 0, 0), (0, 0.5, 0.09), (0, 0, 0.5), (0.31, 0.35, 0.16)],
          [6.95, 6.95, 7.08, 90, 90, 90], [1, 1, 2]),
    62: (["Na", "S"], [(0.1, 0.25, 0.3), (0.35, 0.25, 0.6)], [6, 4.5, 8, 90, 90, 90], [1, 2, 1]),
    14: (["Na", "Cl"], [(0.1, 0.2, 0.3), (0.4, 0.1, 0.7)], [5, 6, 7, 90, 101, 90], [2, 1, 1]),
    1: (["Na", "Cl"], [(0.1, 0.2, 0.3), (0.4, 0.1, 0.7)], [5, 6, 7, 81, 101, 95], [2, 1, 1]),
}  # fmt: skip


def make(number):
    symbols, basis, cellpar, matrix = CRYSTALS[number]
    atoms = ase_crystal(symbols, basis, spacegroup=number, cellpar=cellpar)
    crystal = primitive_cell(structure(atoms.cell[:], atoms.positions, atoms.numbers))
    group = space_group(crystal, 1e-3)
    return supercell(symmetrized(crystal, group), matrix), group


def brute_force(cell):
    """jax.hessian over all supercell atoms, none of our symmetry: (i, j·L, 3, 3)."""
    crystal = cell.structure
    graph = POTENTIAL.graph(crystal, POTENTIAL.capacity(crystal))
    full = jax.jit(jax.hessian(lambda x: energy(POTENTIAL, replace(crystal, positions=x), graph)))(
        crystal.positions
    )
    return full[:: cell.images.shape[0]].transpose(0, 2, 1, 3)


@pytest.mark.parametrize("number", CRYSTALS)
def test_symmetry_reduced_equals_brute_force(number):
    cell, group = make(number)
    found = hessian(POTENTIAL, cell, group)
    wanted = brute_force(cell)
    assert jnp.abs(found.force_constants.values - wanted).max() < 1e-8
    assert jnp.abs(wanted).max() > 0.1
    assert found.residuals.permutation < 1e-10
    assert found.residuals.translation < 1e-10
    assert found.standard_error is None


def test_symmetry_saves_columns():
    cell, group = make(225)
    assert len(independent_displacements(cell, group)) == 2
    assert len(all_displacements(cell, group)) == 6
    cell, group = make(1)
    assert len(independent_displacements(cell, group)) == 6


def phonopy_force_constants(cell, distance):
    """phonopy's symmetry-reduced finite differences with the same potential, in our order."""
    phonon = Phonopy(phonopy_atoms(cell.primitive), np.asarray(cell.matrix).T, primitive_matrix="P")
    phonon.generate_displacements(distance=distance, is_plusminus=True)
    forces = []
    for moved in phonon.supercells_with_displacements:
        crystal = structure(moved.cell, moved.positions, moved.numbers, moved.masses)
        forces.append(np.asarray(evaluate(POTENTIAL, crystal)[1]))
    phonon.forces = forces
    phonon.produce_force_constants(calculate_full_force_constants=False)
    theirs = phonon.supercell.positions
    ours = np.asarray(cell.structure.positions)
    lattice = np.asarray(cell.structure.cell)
    apart = (ours[:, None] - theirs) @ np.linalg.inv(lattice)
    order = np.linalg.norm((apart - np.rint(apart)) @ lattice, axis=-1).argmin(axis=1)
    return phonon.force_constants[:, order]


@pytest.mark.parametrize("number", [225, 62])
def test_against_finite_differences_of_phonopy(number):
    """The error of central differences falls as h²; its Richardson limit is our result."""
    cell, group = make(number)
    exact = np.asarray(hessian(POTENTIAL, cell, group).force_constants.values)
    steps = np.array([0.02, 0.01, 0.005])
    found = [phonopy_force_constants(cell, h) for h in steps]
    errors = [np.abs(f - exact).max() for f in found]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2, abs=0.2)
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(found)]
    limit = (16 * first[1] - first[0]) / 15
    assert np.abs(limit - exact).max() < 1e-6


def smoothed_pair_constants(cell, width, nodes=12):
    """-⟨∇∇φ⟩ of every pair by Gauss-Hermite quadrature: the pair vector has variance 2σ²."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(points, points, points, indexing="ij"), -1).reshape(-1, 3)
    share = np.einsum("a,b,c->abc", *[weights / weights.sum()] * 3).reshape(-1)
    depths = {22: (0.05, 1.1, 3.4), 28: (0.5, 1.2, 2.7), 34: (0.1, 1.0, 3.9)}  # by Z + Z'

    def pair(vector, kind):
        D, a, r0 = depths[kind]
        r = jnp.linalg.norm(vector)
        t = jnp.clip((r - 4.4) / 1.1, 0, 1)
        switch = 1 - t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
        return switch * D * ((1 - jnp.exp(-a * (r - r0))) ** 2 - 1)

    curvature = jax.jit(jax.vmap(jax.hessian(pair), (0, None)), static_argnums=1)
    crystal = cell.structure
    x, lattice = np.asarray(crystal.positions), np.asarray(crystal.cell)
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    values = np.zeros((len(x), 3, 3))
    for j in range(1, len(x)):
        for R in x[j] - x[0] + steps @ lattice:
            if np.linalg.norm(R) < 5.5 + 6 * width:
                kind = int(crystal.numbers[0] + crystal.numbers[j])
                each = np.asarray(curvature(R + np.sqrt(2) * width * grid, kind))
                values[j] -= np.einsum("k,kab->ab", share, each)
    values[0] = -values.sum(axis=0)
    return values


def test_a_width_averages_over_the_gaussian_ensemble():
    cell, group = make(225)
    width = 0.1
    wanted = smoothed_pair_constants(cell, width)
    found = hessian(POTENTIAL, cell, group, width=width, pairs=24, key=jax.random.key(0))
    off = np.asarray(found.force_constants.values[0]) - wanted
    each = np.asarray(found.pairs[:, 0])
    error = np.sqrt(each.var(axis=0, ddof=1) / len(each))
    # Elements forbidden by symmetry have no error; the others follow their own.
    free = error > 1e-6
    assert np.abs(off[~free]).max() < 1e-6
    assert np.abs(off[free] / error[free]).max() < 5
    plain = np.asarray(hessian(POTENTIAL, cell, group).force_constants.values[0])
    narrow = smoothed_pair_constants(cell, 0.0, nodes=1)
    assert np.abs(plain - narrow).max() < 1e-8
    assert np.abs((plain - wanted)[free] / error[free]).max() > 10  # the width is visible at all


def test_the_ensemble_depends_on_the_seed_and_scales_with_the_width():
    cell, group = make(225)

    def run(width, seed):
        found = hessian(POTENTIAL, cell, group, width=width, pairs=2, key=jax.random.key(seed))
        return found.force_constants.values

    assert jnp.array_equal(run(0.05, 0), run(0.05, 0))
    assert not jnp.array_equal(run(0.05, 0), run(0.05, 1))
    plain = hessian(POTENTIAL, cell, group).force_constants.values
    change = [float(jnp.abs(run(w, 0) - plain).max()) for w in (0.02, 0.01)]
    assert np.log2(change[0] / change[1]) == pytest.approx(2, abs=0.1)  # ± pairs: even in σ


def test_the_average_has_the_symmetry_of_the_crystal():
    cell, group = make(217)
    found = hessian(POTENTIAL, cell, group, width=0.05, pairs=2, key=jax.random.key(0))
    values = found.force_constants.values
    assert jnp.abs(group_average(values, cell, preserving(group, cell)) - values).max() < 1e-10
    assert jnp.abs(values.sum(axis=1)).max() < 1e-10
    assert found.standard_error > 0


def test_resumed_parts_are_not_computed_again():
    cell, group = make(225)
    options = {"width": 0.05, "pairs": 3, "key": jax.random.key(0)}
    done: dict = {}
    whole = hessian(POTENTIAL, cell, group, **options, done=done)
    assert len(done) == 6
    seen = []
    kept = dict(list(done.items())[1:4])
    again = hessian(
        POTENTIAL, cell, group, **options, done=kept, on_part=lambda k, n: seen.append((k, n))
    )
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert jnp.array_equal(again.force_constants.values, whole.force_constants.values)


def test_parts_of_another_size_are_computed_anew():
    """As where a machine of one core began and one of two goes on."""
    cell, group = make(225)
    done: dict = {}
    whole = hessian(POTENTIAL, cell, group, workers=1, done=done)
    assert list(done) == ["0:0:0"]
    again = hessian(POTENTIAL, cell, group, workers=2, done=done)
    assert list(done) == ["0:0:0", "0:0:1"]
    np.testing.assert_allclose(
        again.force_constants.values, whole.force_constants.values, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_rows_side_by_side_are_those_one_by_one(batch):
    potential, (cell, group) = replace(POTENTIAL, in_tiles=True), make(217)
    alone = hessian(POTENTIAL, cell, group, workers=1)
    for way in ({"batch": batch}, {}):  # asked for, and by default
        together = hessian(potential, cell, group, workers=2, **way)
        np.testing.assert_allclose(
            together.force_constants.values, alone.force_constants.values, rtol=0, atol=1e-12
        )


def test_rows_are_differentiable_in_strain_free_parameters():
    """dΦ/d(parameter) against central differences."""
    cell, _ = make(225)
    crystal: Structure = cell.structure
    graph = POTENTIAL.graph(crystal, POTENTIAL.capacity(crystal))

    def total(scale):
        bent = replace(POTENTIAL, params=jax.tree.map(lambda p: p * scale, POTENTIAL.params))
        rows = responses(bent, crystal, graph, jnp.array([0]), jnp.eye(3)[:1])
        return jnp.sum(rows**2)

    step = 1e-5
    numeric = (total(1 + step) - total(1 - step)) / (2 * step)
    assert jax.grad(total)(1.0) == pytest.approx(float(numeric), rel=1e-6)


def test_bad_input():
    cell, group = make(225)
    with pytest.raises(InputError, match=r"width -0\.1"):
        hessian(POTENTIAL, cell, group, width=-0.1)
    with pytest.raises(InputError, match="no key"):
        hessian(POTENTIAL, cell, group, width=0.1)
    short = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, cell)
    with pytest.raises(InputError, match="float32"):
        hessian(POTENTIAL, short, group)
