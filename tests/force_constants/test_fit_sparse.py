"""Fits with few coefficients: optimality, scikit-learn, and what they find again."""

import numpy as np
import pytest
from test_fit import design, sparse_set

from phojax.checks import InputError
from phojax.force_constants.fit import fitted
from phojax.force_constants.sparse_fit import SparseProblems, violation


def problem(rows, unknowns, seed=0, correlated=0.0):
    """Return A and F of a random problem, columns correlated where wanted."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(rows, unknowns)) + correlated * rng.normal(size=(rows, 1))
    x = np.where(rng.uniform(size=unknowns) < 0.2, rng.normal(size=unknowns), 0.0)
    return A, A @ x + 0.1 * rng.normal(size=rows)


def unit(basis, given):
    """Return A with the columns of each order at norm 1 in the root mean square, and the norms."""
    A = design(basis, given.displacements)
    norm = np.empty(len(basis))
    for at in basis.slices.values():
        norm[at] = np.sqrt((A[:, at] ** 2).sum(0).mean())
    return A / norm, norm


@pytest.mark.parametrize(
    ("rows", "unknowns", "correlated"), [(60, 30, 0.0), (30, 60, 0.0), (50, 40, 3.0)]
)
def test_solutions_are_optimal(rows, unknowns, correlated):
    sets = [problem(rows, unknowns, seed, correlated) for seed in range(3)]
    G = np.array([A.T @ A / rows for A, _ in sets])
    b = np.array([A.T @ F / rows for A, F in sets])
    problems = SparseProblems(G, b)
    y = None
    for share in (0.5, 0.1, 1e-2, 1e-4):
        penalty = share * problems.largest_penalty
        found = problems.solutions(penalty, y, 1e-8)
        y = found.values
        assert found.violation.max() <= 1e-8
        for k, (A, F) in enumerate(sets):
            g = A.T @ (F - A @ y[k]) / rows
            on = y[k] != 0
            assert np.abs(g[on] - penalty * np.sign(y[k][on])).max(initial=0) <= 1e-7 * penalty
            assert np.abs(g[~on]).max(initial=0) <= penalty * (1 + 1e-7)
            assert violation(G[k], b[k], y[k], penalty) <= 1e-8
    nothing = problems.solutions(1.001 * problems.largest_penalty)
    assert not np.any(nothing.values)


@pytest.mark.parametrize("shape", [(60, 30), (30, 60)])
def test_the_same_as_scikit_learns_lasso(shape):
    linear_model = pytest.importorskip("sklearn.linear_model")
    A, F = problem(*shape, seed=4)
    G, b = A.T @ A / len(A), A.T @ F / len(A)
    problems = SparseProblems(G[None], b[None])
    for share in (0.3, 0.05, 0.005):
        penalty = share * problems.largest_penalty
        peer = linear_model.Lasso(penalty, fit_intercept=False, tol=1e-12, max_iter=200_000)
        ours = problems.solutions(penalty, None, 1e-9).values[0]
        np.testing.assert_allclose(ours, peer.fit(A, F).coef_, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scaling", ["order", "column"])
def test_it_is_the_minimum_of_equation_3(scaling):
    """argmin ‖x‖₁ + (μ/2)‖F - Ax‖², columns of norm 1: by its own optimality conditions."""
    basis, _, given = sparse_set(14, 6, 1e-3)
    mu = 3e3
    found = fitted(given, basis, "l1", mu=mu, scaling=scaling, tolerance=1e-9)
    assert found.penalty == pytest.approx(mu)
    assert found.violation <= 1e-9
    A, norm = unit(basis, given)
    if scaling == "column":
        each = np.linalg.norm(A, axis=0)
        A, norm = A / each, norm * each
    y = found.coefficients * norm
    g = mu * A.T @ (given.forces.ravel() - A @ y)
    on = y != 0
    assert 0 < on.sum() < len(y)
    np.testing.assert_allclose(g[on], np.sign(y[on]), atol=1e-7)
    assert np.abs(g[~on]).max() <= 1 + 1e-7
    assert found.nonzero == {k: int(on[at].sum()) for k, at in basis.slices.items()}


def test_few_coefficients_are_found_where_least_squares_has_too_few_equations():
    basis, x, given = sparse_set(14, 3, 1e-3)
    assert given.forces.size < len(basis)
    with pytest.raises(InputError, match=r"determine 135 of 191 unknowns.*at least 5 supercells"):
        fitted(given, basis)
    found = fitted(given, basis, "l1")
    assert any("determine 135 of 191" in note for note in found.warnings)
    on = x != 0
    assert np.all(found.coefficients[on] != 0)
    weak = fitted(given, basis, "ridge")
    for at in basis.slices.values():
        size = np.linalg.norm(x[at])
        assert np.linalg.norm((found.coefficients - x)[at]) < 0.1 * size
        assert np.linalg.norm((weak.coefficients - x)[at]) > 0.5 * size


def test_few_coefficients_are_found_better_than_by_least_squares_in_noise():
    basis, x, given = sparse_set(14, 30, 2e-2)
    found, plain = fitted(given, basis, "l1"), fitted(given, basis)
    assert np.all(found.coefficients[x != 0] != 0)
    second = basis.slices[2]
    assert np.linalg.norm((found.coefficients - x)[second]) < 0.5 * np.linalg.norm(
        (plain.coefficients - x)[second]
    )
    assert np.linalg.norm(found.coefficients - x) < np.linalg.norm(plain.coefficients - x)
    held = found.held_out
    assert held.mean[held.chosen] == held.mean.min() < plain.held_out.mean[0]
    # Noise of 0.02 eV/Å is what a held-out force cannot do without.
    assert held.mean.min() == pytest.approx(2e-2, rel=0.05)
    simpler = fitted(given, basis, "l1", rule="one standard error")
    assert sum(simpler.nonzero.values()) < sum(found.nonzero.values())
    assert simpler.held_out.mean[simpler.held_out.chosen] <= (
        held.mean.min() + held.error[held.chosen]
    )
    again = fitted(given, basis, "l1", rule="one standard error", refit=True)
    assert again.nonzero == simpler.nonzero
    A, _ = unit(basis, given)
    on = again.coefficients != 0
    left = given.forces.ravel() - design(basis, given.displacements) @ again.coefficients
    assert np.abs(A[:, on].T @ left).max() < 1e-9


def test_the_end_of_the_path_is_least_squares():
    """Where no coefficient is 0 the solution departs from least squares by 1/μ exactly."""
    basis, _, given = sparse_set(225, 8, 1e-3)
    plain = fitted(given, basis).coefficients
    apart = [fitted(given, basis, "l1", mu=mu).coefficients - plain for mu in (1e7, 1e8)]
    assert 1e-8 < np.abs(apart[1]).max() < 1e-2
    np.testing.assert_allclose(10 * apart[1], apart[0], rtol=0, atol=1e-3 * np.abs(apart[0]).max())


def test_what_is_not_converged_is_told(monkeypatch):
    monkeypatch.setattr("phojax.force_constants.sparse_fit._ROUNDS", 1)
    monkeypatch.setattr("phojax.force_constants.sparse_fit._STEPS", 10)
    monkeypatch.setattr("phojax.force_constants.sparse_fit._CORRECTIONS", 1)
    basis, _, given = sparse_set(14, 6, 1e-3)
    found = fitted(given, basis, "l1", mu=1e5)
    assert found.violation > 1e-6
    assert any("Not converged" in note for note in found.warnings)
