"""Differences, cutoffs, widths, and bad input of third-order force constants."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_hessian import POTENTIAL, make
from test_third_order import broken

from phojax.checks import InputError
from phojax.force_constants.third_order import third_order_by_autodiff, third_responses
from phojax.force_constants.third_rules import kept_triplets

FORCES_ALONE = replace(POTENTIAL, derivatives=1)
TWICE = replace(POTENTIAL, derivatives=2)


@pytest.mark.parametrize("potential", [FORCES_ALONE, TWICE], ids=["forces", "products"])
def test_differences_of_forces_and_of_products(potential):
    """Their errors fall as h²; the Richardson limit is the derivative."""
    cell, group = make(225)
    exact = third_order_by_autodiff(POTENTIAL, cell, group).third_order.values
    steps = (0.02, 0.01, 0.005)
    runs = [third_order_by_autodiff(potential, cell, group, step=h) for h in steps]
    found = [run.third_order.values for run in runs]
    errors = [float(jnp.abs(f - exact).max()) for f in found]
    assert errors[0] < 0.3
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)
    first = [(4 * b - a) / 3 for a, b in itertools.pairwise(found)]
    assert jnp.abs((16 * first[1] - first[0]) / 15 - exact).max() < 3e-5
    assert runs[0].step == 0.02


def test_a_cutoff_keeps_all_rules():
    cell, group = make(62)
    whole = third_order_by_autodiff(POTENTIAL, cell, group)
    found = third_order_by_autodiff(POTENTIAL, cell, group, cutoff=3.6)
    values = found.third_order.values
    assert found.columns < whole.columns
    assert max(broken(values, cell, group)) < 1e-12
    kept = kept_triplets(cell, 3.6)
    assert np.all(np.asarray(values)[~kept] == 0)
    assert 0 < found.residuals.restored <= found.residuals.truncation
    # What is kept is the derivative but for what the sum rule moved.
    change = np.abs(np.asarray(values - whole.third_order.values))[kept].max()
    assert change == pytest.approx(found.residuals.restored, rel=1e-6)
    assert found.residuals.left_out == pytest.approx(
        np.abs(np.asarray(whole.third_order.values))[~kept].max(), rel=1e-6
    )


def test_a_width_averages_over_pairs_of_displacements():
    cell, group = make(225)
    key = jax.random.key(0)

    def run(width, **more):
        return third_order_by_autodiff(
            POTENTIAL, cell, group, width=width, pairs=2, key=key, **more
        )

    plain = third_order_by_autodiff(POTENTIAL, cell, group).third_order.values
    found = {w: run(w) for w in (0.02, 0.01)}
    change = [jnp.abs(f.third_order.values - plain).max() for f in found.values()]
    assert np.log2(change[0] / change[1]) == pytest.approx(2, abs=0.1)  # even in σ
    assert max(broken(found[0.02].third_order.values, cell, group)) < 1e-12
    assert found[0.02].standard_error > found[0.01].standard_error > 0
    assert found[0.02].columns == 4 * third_order_by_autodiff(POTENTIAL, cell, group).columns
    # Parts that are there already are not computed again.
    done: dict = {}
    whole = run(0.02, done=done)
    seen = []
    kept = dict(list(done.items())[1:])
    again = run(0.02, done=kept, on_part=lambda k, n: seen.append((k, n)))
    count = len(done)
    assert seen == [(count - 1, count), (count, count)]
    assert jnp.array_equal(again.third_order.values, whole.third_order.values)


def test_rows_are_differentiable_in_parameters():
    cell, _ = make(225)
    crystal = cell.structure
    graph = POTENTIAL.graph(crystal, POTENTIAL.capacity(crystal))
    row = jnp.array([0]), jnp.array([8]), jnp.eye(3)[None, :2]

    @jax.jit
    def total(scale):
        bent = replace(POTENTIAL, params=jax.tree.map(lambda p: p * scale, POTENTIAL.params))
        return jnp.sum(third_responses(bent, crystal, graph, *row) ** 2)

    step = 1e-5
    numeric = (total(1 + step) - total(1 - step)) / (2 * step)
    # Forward mode: compiled twice as fast as a fifth derivative in reverse.
    assert jax.jacfwd(total)(1.0) == pytest.approx(float(numeric), rel=1e-6)


def test_bad_input():
    cell, group = make(225)
    run = partial(third_order_by_autodiff, POTENTIAL, cell, group)
    with pytest.raises(InputError, match=r"width -0\.1"):
        run(width=-0.1)
    with pytest.raises(InputError, match="no key"):
        run(width=0.1)
    with pytest.raises(InputError, match="several of cutoff"):
        run(cutoff=3.0, shell=1)
    with pytest.raises(InputError, match=r"cutoff of 0\.0"):
        run(cutoff=0.0)
    with pytest.raises(InputError, match="shell 9"):
        run(shell=9)
    with pytest.raises(InputError, match="displacement of 0"):
        run(step=0)
    for potential in (FORCES_ALONE, TWICE):
        with pytest.raises(InputError, match="step="):
            third_order_by_autodiff(potential, cell, group)
    short = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, cell)
    with pytest.raises(InputError, match="float32"):
        third_order_by_autodiff(POTENTIAL, short, group)
