"""The nearest third-order force constants that obey the rules, against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_hessian import make
from test_third_order import broken

from phojax.checks import InputError
from phojax.force_constants.shells import pair_distances, shell_cutoff
from phojax.force_constants.sum_rules import preserving
from phojax.force_constants.third_container import third_order
from phojax.force_constants.third_rules import (
    enforced,
    kept_triplets,
    permutation_mean,
    projected,
)


def noise(cell, seed=0):
    n, N = len(cell.primitive), len(cell.structure)
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, N, N, 3, 3, 3)))


@pytest.mark.parametrize("cutoff", [None, 4.6])
def test_projection_is_the_nearest(cutoff):
    """Against the null space of all rules, written as one matrix."""
    cell, _ = make(1)
    values, kept = noise(cell), kept_triplets(cell, cutoff)
    if cutoff is not None:
        assert 0 < (~kept).sum() < kept.size
    # Axes 3 × 3 × 3 do not mix but by permutation: one block of 27 for every triplet.
    size = values.size

    def rules(flat):
        v = flat.reshape(values.shape)
        return jnp.concatenate(
            [
                (permutation_mean(v, cell) - v).reshape(-1),
                v.sum(axis=2).reshape(-1),
                jnp.where(kept[..., None, None, None], 0, v).reshape(-1),
            ]
        )

    matrix = np.asarray(jax.jit(jax.vmap(rules, out_axes=1))(jnp.eye(size)))
    left, s, right = np.linalg.svd(matrix.T @ matrix)
    del left
    space = right[s < 1e-9 * s[0]]
    wanted = space.T @ (space @ np.asarray(values).reshape(-1))
    found = projected(values, cell, kept)
    assert len(space) > 5
    assert np.abs(np.asarray(found).reshape(-1) - wanted).max() < 1e-11


@pytest.mark.parametrize("cutoff", [None, 3.6])
def test_all_rules_at_once(cutoff):
    cell, group = make(62)
    given = third_order(noise(cell), cell, cutoff)
    kept_group = preserving(group, cell)
    found, removed = enforced(given, kept_group)
    assert max(broken(found.values, cell, group)) < 1e-12
    assert np.all(np.asarray(found.values)[~kept_triplets(cell, cutoff)] == 0)
    assert removed.permutation > 0.1
    assert removed.translation > 0.1
    assert removed.space_group > 0.1
    assert (removed.left_out > 0.1) == (cutoff is not None)
    again, nothing = enforced(found, kept_group)
    assert jnp.abs(again.values - found.values).max() < 1e-12
    assert max(nothing.permutation, nothing.restored, nothing.space_group) < 1e-12


def test_without_a_cutoff_it_is_the_product_of_means():
    """Φ -> C C C Φ with C = 1 - 1/N on each of the three atoms of the whole supercell."""
    cell, _ = make(1)
    n, N = len(cell.primitive), len(cell.structure)
    copies = N // n
    symmetric = np.asarray(permutation_mean(noise(cell), cell))
    # All rows of the whole supercell from those of its primitive cell, by translation.
    whole = np.zeros((N, N, N, 3, 3, 3))
    for i, L in np.ndindex(n, copies):
        turn = np.concatenate([j * copies + (np.arange(copies) + L) % copies for j in range(n)])
        whole[i * copies + L][np.ix_(turn, turn)] = symmetric[i]
    centre = np.eye(N) - 1 / N
    for axis in range(3):
        whole = np.moveaxis(np.tensordot(centre, whole, (1, axis)), 0, axis)
    found = projected(jnp.asarray(symmetric), cell)
    assert np.abs(np.asarray(found) - whole[::copies]).max() < 1e-12


def test_projection_is_linear_and_differentiable():
    cell, _ = make(1)
    values, other = noise(cell), noise(cell, 1)
    kept = kept_triplets(cell, 4.6)
    project = jax.jit(lambda v: projected(v, cell, kept))
    slope = jax.jvp(project, (values,), (other,))[1]
    assert jnp.abs(slope - project(other)).max() < 1e-11
    back = jax.vjp(project, values)[1](other)[0]  # it is symmetric
    assert jnp.abs(back - project(other)).max() < 1e-11


def test_distances_and_shells():
    cell, _ = make(225)  # a = 5.4 Å, 2 × 2 × 2 primitive cells
    distances = pair_distances(cell)
    wanted = 5.4 * np.sqrt([0, 1 / 4, 1 / 2, 3 / 4, 1])
    assert np.unique(distances.round(6)) == pytest.approx(wanted, abs=1e-5)
    assert shell_cutoff(cell, 1) == pytest.approx((wanted[1] + wanted[2]) / 2)
    assert shell_cutoff(cell, 2) == pytest.approx((wanted[2] + wanted[3]) / 2)
    with pytest.raises(InputError, match="shell 0 of neighbours"):
        shell_cutoff(cell, 0)
