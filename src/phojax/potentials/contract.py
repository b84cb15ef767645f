"""What a potential is: parameters, a graph of neighbours, and an energy.

    E = energy(params, structure, graph)        eV, a scalar, any dtype JAX computes in
    graph = graph(structure, capacity)          traceable, fixed sizes, with `overflow`
    capacity = capacity(structure)              on the host: static, hashable, few sizes

`energy` is a plain function of plain pytrees, so jit, vmap and grad compose over all of its
arguments. A graph is a frozen pytree with a field `overflow`: it is valid for the structure it
was made from, and its energy is exact as long as no pair outside it comes within the cutoff.
"""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phojax.checks import InputError, fail
from phojax.pytree import pytree
from phojax.structure import Structure


@pytree(
    static=(
        "name",
        "energy",
        "graph",
        "capacity",
        "elements",
        "cutoff",
        "provenance",
        "smoothing_width",
    )
)
class Potential:
    """A potential energy surface (see the module's header for the three functions).

    Attributes:
        name: As on the command line.
        params: Any pytree; differentiable.
        energy: (params, structure, graph) -> eV.
        graph: (structure, capacity) -> graph.
        capacity: (structure) -> capacity.
        elements: Atomic numbers it knows; None for all.
        cutoff: Longest range of its real-space graph, Å.
        provenance: Where the parameters come from, for the record.
        smoothing_width: Width in Å over which its Hessian is best averaged for force constants;
            0 for a smooth surface.
    """

    name: str
    params: Any
    energy: Callable[[Any, Structure, Any], jax.Array]
    graph: Callable[[Structure, Any], Any]
    capacity: Callable[[Structure], Hashable]
    elements: frozenset[int] | None
    cutoff: float
    provenance: str = ""
    smoothing_width: float = 0.0

    def astype(self, dtype) -> "Potential":
        """Return the potential with its floating-point parameters cast to `dtype`."""

        def cast(leaf):
            leaf = jnp.asarray(leaf)
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return replace(self, params=jax.tree.map(cast, self.params))


def check_elements(potential: Potential, crystal: Structure) -> None:
    """Raise InputError for elements the potential was not made for."""
    if potential.elements is None:
        return
    unknown = {s for s, z in zip(crystal.symbols, np.asarray(crystal.numbers), strict=True)
               if z > 0 and int(z) not in potential.elements}  # fmt: skip
    if unknown:
        raise fail(
            f"the structure holds {', '.join(sorted(unknown))}",
            f"elements that {potential.name} knows",
            "Choose another potential",
        )


__all__ = ["InputError", "Potential", "check_elements"]
