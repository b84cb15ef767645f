"""What a potential is: parameters, a graph of neighbours, and an energy.

    E = energy(params, structure, graph)        eV, a scalar, any dtype JAX computes in
    graph = graph(structure, capacity)          traceable, fixed sizes, with `overflow`
    capacity = capacity(structure)              on the host: static, hashable, few sizes

`energy` is a plain function of plain pytrees, so jit, vmap and grad compose over all of its
arguments. A graph is a frozen pytree with a field `overflow`: it is valid for the structure it
was made from, and its energy is exact as long as no pair outside it comes within the cutoff.

A model that predicts forces which are not the gradient of its energy has a fourth function,

    E, F, σ = predict(params, structure, graph)     eV, eV/Å, eV/Å³

and everything that asks for forces gets those. A model of another program runs on the host,
behind callbacks (see `bridge`), and can be differentiated as often as it says.
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
        "predict",
        "derivatives",
        "on_host",
        "fingerprint",
        "other_gauge",
        "complaint",
        "reaching",
        "carries_waves",
        "mixed",
        "in_tiles",
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
        predict: (params, structure, graph) -> eV, eV/Å, eV/Å³, where a model predicts forces;
            None where forces are minus the gradient of `energy`.
        derivatives: How often energy can be differentiated: 1 for forces alone, 2 for force
            constants as well (a predicted force counts as the first); None for any number.
        on_host: Whether it runs on the host, in another program.
        fingerprint: What tells parameters apart that are not in `params`.
        other_gauge: (seed) -> the same model with other arbitrary choices, where it makes such
            (frames on edges that should not matter, and do by rounding or by design).
        complaint: () -> why the last evaluation on the host failed, or nothing.
        reaching: (skin in Å) -> `graph` and `capacity` of graphs that reach that much farther and
            have the same energies; None where that makes no sense.
        carries_waves: Whether all its reads and sums across cells are known to go through
            `neighbors.gather` and `neighbors.scatter`, so that `bloch` may take it without a look.
        mixed: (atomic numbers) -> `energy` and `capacity` for crystals with mixtures of those
            elements (`alchemy`), parameters {"pure": params, "shares": (mixture, element)}; None
            where that makes no sense.
        in_tiles: Whether on a CPU it goes through its graph in tiles that stay in the cache, so
            that rows of force constants cost less side by side.
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
    predict: Callable[[Any, Structure, Any], tuple[Any, Any, Any]] | None = None
    derivatives: int | None = None
    on_host: bool = False
    fingerprint: str = ""
    other_gauge: Callable[[int], "Potential"] | None = None
    complaint: Callable[[], str] | None = None
    reaching: Callable[[float], tuple[Callable, Callable]] | None = None
    carries_waves: bool = False
    mixed: Callable[[tuple[int, ...]], tuple[Callable, Callable]] | None = None
    in_tiles: bool = False

    @property
    def with_skin(self) -> "Callable[[float], Potential] | None":
        """(skin in Å) -> the potential with graphs that last until an atom moves by half of it."""
        reaching = self.reaching
        if reaching is None:
            return None

        def with_skin(skin: float) -> "Potential":
            graph, capacity = reaching(skin)
            farther = self.cutoff + skin
            return replace(self, graph=graph, capacity=capacity, cutoff=farther, reaching=None)

        return with_skin

    @property
    def conservative(self) -> bool:
        """Whether forces are minus the gradient of the energy."""
        return self.predict is None

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


def why(potential: Potential) -> str:
    """Return what the other program said when it failed last, as the end of a message."""
    said = potential.complaint() if potential.complaint is not None else ""
    return f" ({said})" if said else ""


__all__ = ["InputError", "Potential", "check_elements", "why"]
