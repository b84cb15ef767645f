"""How well the response of a potential to one displaced atom is determined.

One row d of Φ is asked for in several ways: by automatic differentiation at the graph of the
undisplaced crystal; by central differences, the graph made anew, over several steps; with other
arbitrary choices of the model (its gauge); and at displaced positions. On a smooth surface all
agree but for the curvature of the row, which falls as h² and vanishes with the displacement.

    spread(a, b) = ‖a - b‖ / ‖b‖ over all components of the row                      (1)
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phojax.checks import fail
from phojax.force_constants.hessian import (
    displaced_responses,
    responses,
)
from phojax.force_constants.parts import gaussian_displacements
from phojax.potentials.contract import Potential, check_elements, why
from phojax.structure import Structure


@dataclass(frozen=True)
class RowNoise:
    """Relative differences (1) of one row of force constants.

    Attributes:
        differences: Step in Å -> central differences with that step against automatic
            differentiation, or against the smallest step where there is none.
        gauge: Another gauge against the first, at the smallest step or by automatic
            differentiation; None where the model makes no arbitrary choices.
        row: (atom, 3) the row itself, eV/Å².
    """

    differences: dict[float, float]
    gauge: float | None
    row: np.ndarray


def row_noise(
    potential: Potential,
    crystal: Structure,
    *,
    atom: int = 0,
    direction=(1.0, 0.0, 0.0),
    steps: tuple[float, ...] = (0.01,),
) -> RowNoise:
    """Return how far the ways to one row of force constants are apart.

    Args:
        potential: In float64, or the precision that is to be examined.
        crystal: Concrete; a supercell, or any cell.
        atom: The atom displaced.
        direction: Cartesian.
        steps: Å, of the central differences.

    Raises:
        InputError: no steps, elements the potential does not know, values that are not finite.
    """
    if not steps or not all(h > 0 for h in steps):
        raise fail(f"steps {list(steps)}", "positive lengths in Å")
    check_elements(potential, crystal)
    rows = _row(atom, direction)

    def by_differences(model: Potential, step: float) -> np.ndarray:
        return _finite(model, _differences, crystal, rows, step)

    exact = potential.derivatives != 1
    smallest = min(steps)

    def best(model: Potential) -> np.ndarray:
        return _finite(model, _derivative, crystal, rows) if exact else by_differences(
            model, smallest
        )  # fmt: skip

    row = best(potential)
    differences = {h: spread(by_differences(potential, h), row) for h in steps}
    gauge = None
    if potential.other_gauge is not None:
        gauge = spread(best(potential.other_gauge(1)), row)
    return RowNoise(differences, gauge, row)


def averaged_row(
    potential: Potential,
    crystal: Structure,
    width: float,
    pairs: int,
    key: jax.Array,
    *,
    atom: int = 0,
    direction=(1.0, 0.0, 0.0),
    step: float | None = None,
) -> np.ndarray:
    """Return one row of force constants, (atom, 3) in eV/Å², averaged over Gaussian displacements.

    Args:
        potential: Any.
        crystal: Concrete.
        width: Å.
        pairs: ± pairs of displacements, those of `hessian` with this key.
        key: Random key.
        atom: The atom displaced.
        direction: Cartesian.
        step: Of central differences, Å; None for automatic differentiation.

    Raises:
        InputError: values that are not finite.
    """
    rows = _row(atom, direction)
    total = np.zeros((len(crystal), 3))
    for pair in range(pairs):
        xi = gaussian_displacements(key, pair, len(crystal))
        for sign in (1, -1):
            moved = replace(crystal, positions=crystal.positions + sign * width * xi)
            if step is None:
                total += _finite(potential, _derivative, moved, rows)
            else:
                total += _finite(potential, _differences, moved, rows, step)
    return total / (2 * pairs)


def jacobian(
    potential: Potential, crystal: Structure, step: float | None = None
) -> Float[np.ndarray, "row column"]:
    """Return minus the Jacobian of the forces, (3 atom, 3 atom) in eV/Å²: rows are displaced.

    Args:
        potential: Any.
        crystal: Concrete, without padding.
        step: Of central differences, Å; None for automatic differentiation.

    Raises:
        InputError: values that are not finite.
    """
    n = len(crystal)
    atoms = jnp.repeat(jnp.arange(n), 3)
    rows = atoms, jnp.tile(jnp.eye(3), (n, 1))
    if step is None:
        return _finite(potential, _derivative, crystal, rows, every=True).reshape(3 * n, 3 * n)
    return _finite(potential, _differences, crystal, rows, step, every=True).reshape(3 * n, 3 * n)


def spread(a: np.ndarray, b: np.ndarray) -> float:
    """Return eq. (1)."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300))


def _row(atom: int, direction):
    d = np.asarray(direction, float)
    return jnp.asarray([atom]), jnp.asarray((d / np.linalg.norm(d))[None])


def _finite(
    model: Potential, function, crystal: Structure, rows, *more, every: bool = False
) -> np.ndarray:
    found, overflow = function(model, crystal, rows, *more, capacity=model.capacity(crystal))
    if overflow or not np.all(np.isfinite(found)):
        raise fail(f"{model.name} returned force constants that are not finite" + why(model),
                   "finite ones", "Check for overlapping atoms")  # fmt: skip
    return np.asarray(found if every else found[0])


@jax.jit(static_argnames="capacity")
def _derivative(
    model, crystal: Structure, rows: tuple[Int[Array, " row"], Float[Array, "row 3"]], *, capacity
):
    graph = model.graph(crystal, capacity)
    return responses(model, crystal, graph, *rows), graph.overflow


@jax.jit(static_argnames="capacity")
def _differences(
    model, crystal: Structure, rows: tuple[Int[Array, " row"], Float[Array, "row 3"]], step, *,
    capacity,
):  # fmt: skip
    return displaced_responses(model, crystal, capacity, *rows, step=step)


__all__ = ["RowNoise", "averaged_row", "jacobian", "row_noise", "spread"]
