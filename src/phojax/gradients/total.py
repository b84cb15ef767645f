"""The gradient of a function of phonons, all the way down and back: `value_and_gradient`.

For d(D, E, r, A, m), with D and E those of a potential with parameters p at the relaxed crystal,

    dd/dp = ∂d/∂D · ∂D/∂p + ∂d/∂E · ∂E/∂p - λᵀ ∂g/∂p,   K λ = ∂d/∂y                         (1)

with ∂d/∂y in full (what d depends on at rest, and through D and E), and g, K and y of `implicit`:
reverse mode throughout, one solve.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from phojax.checks import fail
from phojax.coordinates import coordinates
from phojax.forces import energy
from phojax.gradients.route import Route, evaluated, floating, pulled
from phojax.gradients.vibrations import Vibrations
from phojax.implicit import Minimum, Solve, enthalpy, moved, slope, solved
from phojax.structure import Structure, strained

Objective = Callable[[Vibrations], Float[Array, ""]]
"""A function of phonons: a scalar, differentiable in JAX."""


@dataclass(frozen=True)
class Gradient:
    """The value of a function of phonons and what it depends on.

    Derivatives "at rest" hold the relaxed crystal; others follow it. Where rows were reduced by a
    symmetry, all are those of changes that keep it.

    Attributes:
        value: In the function's own unit, as others are per theirs.
        vibrations: That it is of.
        by_parameters: Pytree as the potential's parameters; 0 for those that are no floats.
        by_pressure: Per eV/Å³; None where the cell is held.
        by_strain: Per unit strain imposed, atoms following; None where the cell is free.
        by_masses: Per amu.
        at_rest_by_positions: Per Å.
        at_rest_by_strain: Per unit strain, r → r (1 + ε), symmetric part.
        by_matrices: ∂d/∂Re D + i ∂d/∂Im D, per eV Å⁻² amu⁻¹.
        by_energy: Per eV of the cell at rest, all else held.
        force: Largest slope of the enthalpy left in a free coordinate, eV/Å: derivatives are those
            of a minimum only where it is about 0.
        solve: What the solve took.
        rows: Rows evaluated, and pulled back once each.
    """

    value: float
    vibrations: Vibrations
    by_parameters: Any
    by_pressure: float | None
    by_strain: Float[np.ndarray, "3 3"] | None
    by_masses: Float[np.ndarray, " atom"]
    at_rest_by_positions: Float[np.ndarray, "atom 3"]
    at_rest_by_strain: Float[np.ndarray, "3 3"]
    by_matrices: Complex[np.ndarray, "q mode mode"]
    by_energy: float
    force: float
    solve: Solve
    rows: int


def vibrations(
    here: Minimum,
    route: Route,
    on_part: Callable[[int, int], None] | None = None,
    *,
    zero: float = 0.0,
) -> Vibrations:
    """Return the vibrations of a relaxed crystal, its energy above `zero` in eV (host).

    Raises:
        InputError: values that are not finite.
    """
    rows = evaluated(route, here.potential, here.crystal, on_part)
    E = _energy(here) - zero
    return route.vibrations(_assembled(route, rows, here.crystal), here.crystal, E)


def value_and_gradient(
    objective: Objective,
    here: Minimum,
    route: Route,
    *,
    zero: float = 0.0,
    on_part: Callable[[str, int, int], None] | None = None,
) -> Gradient:
    """Return a function of phonons and its gradient (host loop over rows, each pulled back once).

    Args:
        objective: Plain function of JAX; called under a trace.
        here: The minimum; with the symmetry of the route.
        route: From the same crystal.
        zero: eV: the objective sees the energy of the cell above it.
        on_part: Called with ("rows" or "gradient", parts done, parts in all).

    Raises:
        InputError: values or a gradient that are not finite, an objective that is no scalar.
    """

    def told(stage):
        return None if on_part is None else partial(on_part, stage)

    model, crystal = here.potential, here.crystal
    rows = evaluated(route, model, crystal, told("rows"))
    E = _energy(here) - zero

    value, found, by_D, (by_rows, by_x, by_cell, by_masses, by_E) = _of_rows(
        objective, route, rows, crystal, E
    )
    if not np.isfinite(value):
        raise fail(f"an objective of {float(value)}", "a finite value")
    from_rows = pulled(route, model, crystal, by_rows, told("gradient"))
    from_energy = _energy_pulled(here, by_E)
    leaves, x_bar, cell_bar = jax.tree.map(jnp.add, from_rows, from_energy)
    x_bar, cell_bar = x_bar + by_x, cell_bar + by_cell

    by_y, direct_strain = _on_coordinates(here, x_bar, cell_bar)
    lam, took = solved(here, by_y)
    own, by_pressure, by_strain = _slope_pulled(here, -lam)
    total = [a + b for a, b in zip(leaves, own, strict=True)]
    _, rebuilt = floating(jax.tree.map(jnp.zeros_like, model.params))
    free = here.strains.shape[1] > 0
    at_rest_x, at_rest_strain = _symmetric(route, crystal, x_bar, cell_bar)
    result = Gradient(
        float(value), found, rebuilt(total),
        float(by_pressure) if free else None,
        None if free else np.asarray(by_strain + direct_strain),
        np.asarray(route.equivalent @ by_masses),
        at_rest_x, at_rest_strain,
        np.conj(np.asarray(by_D)), float(by_E), _largest_slope(here), took, len(route),
    )  # fmt: skip
    if not all(np.all(np.isfinite(leaf)) for leaf in (*total, x_bar, cell_bar, lam)):
        raise fail(
            "a gradient that is not finite", "an objective that is smooth here",
            "Eigenvectors of degenerate modes have no derivative: use sums over modes",
        )  # fmt: skip
    return result


def _largest_slope(here: Minimum) -> float:
    return float(jnp.max(jnp.abs(_slope(here)), initial=0.0))


@jax.jit
def _slope(here: Minimum):
    return slope(here, jnp.zeros(here.dimension))


@jax.jit
def _energy(here: Minimum):
    return energy(here.potential, here.crystal, here.graph)


@partial(jax.jit, static_argnums=0)
def _assembled(route: Route, rows, crystal: Structure):
    return route.assembled(rows, crystal)


@partial(jax.jit, static_argnums=(0, 1))
def _of_rows(objective: Objective, route: Route, rows, crystal: Structure, E):
    """Return the objective, what it is of, and its derivatives in D and in what D is made of."""

    def matrices(rows, x, cell, masses):
        there = replace(crystal, positions=x, cell=cell, masses=masses)
        return route.assembled(rows, there)

    def of(D, x, cell, masses, E):
        there = replace(crystal, positions=x, cell=cell, masses=masses)
        found = route.vibrations(D, there, E)
        value = jnp.asarray(objective(found))
        if value.shape != ():
            raise fail(f"an objective of shape {value.shape}", "a scalar")
        return value, found

    at = crystal.positions, crystal.cell, crystal.masses
    D, through = jax.vjp(matrices, rows, *at)
    value, back, found = jax.vjp(of, D, *at, E, has_aux=True)
    by_D, *direct, by_E = back(jnp.ones_like(value))
    by_rows, *indirect = through(by_D)
    both = [a + b for a, b in zip(direct, indirect, strict=True)]
    return value, found, by_D, (by_rows, *both, by_E)


def _symmetric(route: Route, crystal: Structure, x_bar, cell_bar):
    """Return derivatives in positions and strain: their part that keeps the route's symmetry.

    Of a function with a symmetry the gradient has it; rows reduced by it leave only that part.
    """
    space = coordinates(crystal, route.group, True)
    x = np.asarray(x_bar).reshape(-1)

    def places(strain):
        there = strained(crystal, strain)
        return there.positions, there.cell

    (strain,) = jax.vjp(places, jnp.zeros((3, 3)))[1]((x_bar, cell_bar))
    e = np.asarray(strain + strain.T).reshape(-1) / 2
    return (
        (space.displacements @ (space.displacements.T @ x)).reshape(-1, 3),
        (space.strains @ (space.strains.T @ e)).reshape(3, 3),
    )


@jax.jit
def _on_coordinates(here: Minimum, x_bar, cell_bar):
    """Return what a crystal's cotangents are for y, and for a strain imposed."""

    def places(y, strain):
        crystal = moved(here, y, strain)
        return crystal.positions, crystal.cell

    _, back = jax.vjp(places, jnp.zeros(here.dimension), jnp.zeros((3, 3)))
    return back((x_bar, cell_bar))


@jax.jit
def _energy_pulled(here: Minimum, by_E):
    leaves, rebuilt = floating(here.potential.params)

    def of(leaves, x, cell):
        model = replace(here.potential, params=rebuilt(leaves))
        return energy(model, replace(here.crystal, positions=x, cell=cell), here.graph)

    _, back = jax.vjp(of, leaves, here.crystal.positions, here.crystal.cell)
    return back(by_E)


@jax.jit
def _slope_pulled(here: Minimum, cotangent):
    """Return cᵀ ∂g/∂θ for parameters, pressure and strain, of the enthalpy's derivative along c."""
    leaves, rebuilt = floating(here.potential.params)

    def along(leaves, pressure, strain):
        model = replace(here.potential, params=rebuilt(leaves))

        def of(y):
            return enthalpy(here, y, model, pressure, strain)

        return jax.jvp(of, (jnp.zeros(here.dimension),), (cotangent,))[1]

    return jax.grad(along, argnums=(0, 1, 2))(leaves, here.pressure, jnp.zeros((3, 3)))


__all__ = ["Gradient", "Objective", "value_and_gradient", "vibrations"]
