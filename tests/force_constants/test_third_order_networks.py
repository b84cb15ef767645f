"""Third-order force constants of networks against four-point differences of their forces."""

import sys
from dataclasses import replace
from functools import partial

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.force_constants.third_order import third_order_by_autodiff, third_responses
from phojax.forces import energy_and_forces
from phojax.potentials.chgnet import chgnet, weights
from phojax.potentials.nequix import nequix
from phojax.structure import structure, supercell
from phojax.symmetry import space_group

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/potentials")
import nequix_files

pytestmark = pytest.mark.slow  # most of it is compilation

# No symmetry left. CHGNet varies within milliångströms where three atoms are nearly in line.
CRYSTAL = structure(*crystals.parts(crystals.rattled(crystals.salt(a=5.69) * (2, 1, 1))))


@pytest.fixture(scope="module", params=["chgnet", "nequix"])
def potential(request, tmp_path_factory):
    if request.param == "chgnet":
        if not any((weights.pathlib.Path(p) / "chgnet" / "pretrained").is_dir() for p in sys.path):
            pytest.skip(f"no weights: {weights.INSTALL}")
        return chgnet().astype(float)
    file = tmp_path_factory.mktemp("nequix") / "random.nqx"
    file.write_bytes(nequix_files.content())
    return nequix(file).astype(float)


@partial(jax.jit, static_argnames="capacity")
def forces_at(potential, moves, capacity):
    def one(u):
        moved = replace(CRYSTAL, positions=CRYSTAL.positions + u)
        graph = potential.graph(moved, capacity)
        return energy_and_forces(potential, moved, graph)[1], graph.overflow

    return jax.lax.map(one, moves)


@partial(jax.jit, static_argnames="capacity")
def derivatives(potential, first, second, directions, capacity):
    graph = potential.graph(CRYSTAL, capacity)
    return third_responses(potential, CRYSTAL, graph, first, second, directions), graph.overflow


def test_columns_against_four_points(potential):
    rows = [(0, 0), (0, 3), (1, 2)]
    directions = np.random.default_rng(0).normal(size=(len(rows), 2, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    capacity = potential.capacity(CRYSTAL)
    first, second = jnp.asarray(rows).T
    exact, over = derivatives(potential, first, second, jnp.asarray(directions), capacity)
    assert not over

    signs = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
    unit = np.zeros((len(rows), 2, len(CRYSTAL), 3))
    for r, pair in enumerate(rows):
        unit[r, [0, 1], list(pair)] = directions[r]
    found = {}
    for h in (2e-4, 1e-4):
        moves = h * np.einsum("ps,rsiv->rpiv", signs, unit).reshape(-1, len(CRYSTAL), 3)
        forces, over = forces_at(potential, jnp.asarray(moves), capacity)
        assert not jnp.any(over)
        forces = np.asarray(forces).reshape(len(rows), 4, len(CRYSTAL), 3)
        found[h] = -np.einsum("p,rpiv->riv", signs.prod(axis=1), forces) / (4 * h**2)
    limit = (4 * found[1e-4] - found[2e-4]) / 3
    largest = np.abs(exact).max()
    assert largest > 0.1
    assert np.abs(found[1e-4] - exact).max() < 2e-2 * largest
    assert np.abs(limit - exact).max() < 2e-3 * largest


def test_all_columns_of_rock_salt(potential):
    """Forces have the symmetry of the crystal and of a Hessian: nothing is removed."""
    half = 5.69 / 2
    primitive = structure(half * (1 - np.eye(3)), [[0, 0, 0], [half] * 3], [11, 17])
    cell, group = supercell(primitive, [1, 1, 2]), space_group(primitive)
    found = third_order_by_autodiff(potential, cell, group)
    values, left = found.third_order.values, found.residuals
    largest = float(jnp.abs(values).max())
    assert largest > 0.1
    assert max(left.permutation, left.translation, left.space_group) < 1e-9 * largest
    assert jnp.abs(values.sum(axis=2)).max() < 1e-11 * largest
