"""Sum rules, images and the container, on random force constants and plain geometry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.force_constants import force_constants
from phojax.force_constants.container import nearest_images
from phojax.force_constants.sum_rules import cell_index, enforced, permuted, projected
from phojax.structure import structure, supercell

CRYSTAL = structure(
    [[4.0, 0.2, 0.0], [0.0, 5.0, 0.3], [0.4, 0.0, 4.5]],
    [[0.1, 0.2, 0.3], [2.0, 2.4, 2.1], [1.0, 4.0, 0.5]],
    [11, 17, 8],
)
CELL = supercell(CRYSTAL, [[2, 0, 0], [0, 1, 1], [0, -1, 1]])


def random_values():
    shape = (3, 3 * CELL.images.shape[0], 3, 3)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def full_matrix(values):
    """The (atom, atom, 3, 3) matrix of the whole supercell, by translation."""
    n, L = len(CRYSTAL), np.asarray(CELL.images)
    full = np.zeros((n * len(L), n * len(L), 3, 3))
    for a, La in enumerate(L):
        to = cell_index(CELL, L + La)
        for i in range(n):
            for j in range(n):
                full[i * len(L) + a, j * len(L) + to] = values[i, j * len(L) : (j + 1) * len(L)]
    return full


def test_projection_is_the_nearest_that_obeys_both_rules():
    values = random_values()
    nearest = projected(values, CELL)
    full = full_matrix(nearest)
    assert np.abs(full - full.transpose(1, 0, 3, 2)).max() < 1e-12
    assert np.abs(full.sum(axis=1)).max() < 1e-12
    assert jnp.abs(projected(nearest, CELL) - nearest).max() < 1e-12
    # Orthogonal: what was removed has no component along anything allowed.
    other = projected(jnp.asarray(np.random.default_rng(1).normal(size=values.shape)), CELL)
    assert abs(float(jnp.sum((values - nearest) * other))) < 1e-10


def test_removed_parts_are_reported():
    found, removed = enforced(force_constants(random_values(), CELL))
    assert removed.permutation > 0.1
    assert removed.translation > 0.1
    again = enforced(found)[1]
    assert again.permutation < 1e-12
    assert again.translation < 1e-12


def test_exchange_is_an_involution():
    values = random_values()
    assert jnp.array_equal(permuted(permuted(values, CELL), CELL), values)


def test_images_are_the_nearest_by_brute_force():
    found = nearest_images(CELL)
    n, copies = len(CRYSTAL), CELL.images.shape[0]
    x, cell = np.asarray(CRYSTAL.positions), np.asarray(CRYSTAL.cell)
    steps = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sums = np.zeros((n, n * copies))
    np.add.at(sums, (found.row, found.column), found.share)
    assert np.allclose(sums, 1)
    for i, column, at, share in zip(found.row, found.column, found.at, found.share, strict=True):
        j, copy = divmod(int(column), copies)
        candidates = np.asarray(CELL.images)[copy] + steps @ np.asarray(CELL.matrix)
        distance = np.linalg.norm(candidates @ cell + x[j] - x[int(i)], axis=1)
        R = np.asarray(found.lattice)[int(at)]
        assert np.linalg.norm(R @ cell + x[j] - x[int(i)]) == pytest.approx(distance.min())
        assert share == pytest.approx(1 / np.sum(distance < distance.min() + 1e-4))


def test_container_refuses_what_does_not_fit():
    values = random_values()
    with pytest.raises(InputError, match=r"expected \(3, 12, 3, 3\)"):
        force_constants(values[:, :5], CELL)
    with pytest.raises(InputError, match="float64"):
        force_constants(values.astype(jnp.float32), CELL)
    with pytest.raises(InputError, match="not finite"):
        force_constants(values.at[0].set(jnp.nan), CELL)


def test_sharing_is_linear_and_differentiable():
    constants = force_constants(random_values(), CELL)
    total = constants.by_lattice_vector.sum(axis=0)
    copies = CELL.images.shape[0]
    assert jnp.allclose(total, constants.values.reshape(3, 3, copies, 3, 3).sum(axis=2))
    gradient = jax.grad(lambda v: jnp.sum(force_constants(v, CELL).by_lattice_vector ** 2))(
        random_values()
    )
    assert jnp.all(jnp.isfinite(gradient))
