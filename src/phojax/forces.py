"""Forces and stress of a potential, and its evaluation on concrete structures.

    F_i = -∂E/∂r_i,    σ_ab = (1/V) ∂E/∂ε_ab  at r -> r (1 + ε), ε symmetric

A potential computes in the precision of its parameters: positions and cell are cast on the way
in, results come back in the structure's own precision. A model that predicts forces and stress
gives those, whatever the gradient of its energy may be.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import InputError, fail
from phojax.potentials.contract import Potential, check_elements, why
from phojax.structure import Structure, strained


def energy(potential: Potential, crystal: Structure, graph: Any) -> Float[Array, ""]:
    """Return the energy of the cell in eV. Differentiable in structure and parameters."""
    found = potential.energy(potential.params, in_precision_of(potential, crystal), graph)
    return found.astype(crystal.positions.dtype)


def in_precision_of(potential: Potential, crystal: Structure) -> Structure:
    """Return the structure with positions and cell in the precision of the parameters."""
    real = [
        x.dtype for x in jax.tree.leaves(potential.params) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    inside = jnp.result_type(*real) if real else crystal.positions.dtype
    return replace(
        crystal, cell=crystal.cell.astype(inside), positions=crystal.positions.astype(inside)
    )


def _predicted(potential: Potential, crystal: Structure, graph: Any):
    assert potential.predict is not None
    found = potential.predict(potential.params, in_precision_of(potential, crystal), graph)
    return tuple(x.astype(crystal.positions.dtype) for x in found)


def energy_and_forces(
    potential: Potential, crystal: Structure, graph: Any
) -> tuple[Float[Array, ""], Float[Array, "atom 3"]]:
    """Return the energy in eV and the forces in eV/Å."""
    if potential.predict is not None:
        return _predicted(potential, crystal, graph)[:2]

    def of_positions(x):
        return energy(potential, replace(crystal, positions=x), graph)

    value, gradient = jax.value_and_grad(of_positions)(crystal.positions)
    return value, -gradient


def energy_forces_stress(
    potential: Potential, crystal: Structure, graph: Any
) -> tuple[Float[Array, ""], Float[Array, "atom 3"], Float[Array, "3 3"]]:
    """Return energy (eV), forces (eV/Å) and stress (eV/Å³, positive under tension)."""
    if potential.predict is not None:
        return _predicted(potential, crystal, graph)

    def of_both(x, strain):
        return energy(potential, strained(replace(crystal, positions=x), strain), graph)

    zero = jnp.zeros((3, 3), crystal.cell.dtype)
    value, (dx, de) = jax.value_and_grad(of_both, argnums=(0, 1))(crystal.positions, zero)
    return value, -dx, (de + de.T) / 2 / crystal.volume


@partial(jax.jit, static_argnames="capacity")
def _evaluate(potential: Potential, crystal: Structure, capacity):
    graph = potential.graph(crystal, capacity)
    return energy_forces_stress(potential, crystal, graph), graph.overflow


def evaluate(
    potential: Potential, crystal: Structure, capacity=None, *, stress: bool = True
) -> tuple[Float[Array, ""], Float[Array, "atom 3"], Float[Array, "3 3"]]:
    """Return energy, forces and stress of a concrete structure, its graph made here.

    Args:
        potential: Any.
        crystal: Concrete; not to be called under jit.
        capacity: Sizes of the graph, to share a compilation; enlarged where they do not hold.
        stress: Whether the stress must be finite; a model without one gives NaN.

    Raises:
        InputError: unknown elements, or a result that is not finite.
    """
    check_elements(potential, crystal)
    if capacity is None:
        capacity = potential.capacity(crystal)
    result, overflow = _evaluate(potential, crystal, capacity)
    if overflow:
        result, overflow = _evaluate(potential, crystal, potential.capacity(crystal))
    if overflow:
        raise InputError(
            f"the neighbours of {potential.name} do not fit into the capacity it gave itself; "
            "expected finite positions and cell"
        )
    if not all(bool(np.all(np.isfinite(x))) for x in (result if stress else result[:2])):
        said = why(potential)
        raise fail(
            f"{potential.name} returned values that are not finite{said}",
            "finite energy, forces and stress",
            "" if said else "Check for atoms that are too close, or choose another potential",
        )
    return result
