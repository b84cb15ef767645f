"""The way from a crystal to D(q) in rows, so that a gradient needs the memory of a few of them.

D(q) is linear in rows, each of which is a product of a Hessian with a displacement:

    row_k = r(crystal, parameters; k),   D = L(rows)                                       (1)
    ∂f/∂θ = Σ_k (∂f/∂row_k) · ∂row_k/∂θ                                                   (2)

The cotangents ∂f/∂row_k are those of f(L(rows)), which knows nothing of the potential. Each term of
(2) is a reverse derivative of the second derivative of the energy between two displacements, that
of the row and the cotangent, some at a time. Symmetry leaves few rows; what (2) then gives is right
for changes that keep the symmetry.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from phojax.bloch import check_offers_exact
from phojax.bloch_columns import bloch_column, bloch_contraction
from phojax.bloch_symmetry import IndependentColumns
from phojax.brillouin import Mesh
from phojax.checks import fail
from phojax.descriptors.tetrahedra import orbit_means
from phojax.gradients.vibrations import Vibrations
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup

_BUSY, _BUSY_CPU = 4096, 32  # atoms of the rows that go through side by side


@dataclass(frozen=True, eq=False)
class Route:
    """How D(q) comes of a crystal, and of others with its symmetry that are not far from it.

    Attributes:
        graphs: (potential, crystal) -> what rows share; traceable, hashable.
        row: (potential, crystal, graphs, what is asked) -> array; traceable, hashable.
        contraction: (potential, crystal, graphs, what is asked, cotangent) -> real part of the sum
            of cotangent times row, in the way whose derivatives cost least; traceable, hashable.
        asked: Pytree of arrays, one entry per row.
        assembled: (rows, crystal) -> D(q); traceable.
        q: Fractional.
        weights: Sum to one.
        equivalent: As that of `Vibrations`.
        group: Symmetry that changes must keep; None where any is allowed.
        side_by_side: Rows at a time.
        work: Products of Hessians with displacements, times the atoms of each.
    """

    graphs: Callable
    row: Callable
    contraction: Callable
    asked: Any
    assembled: Callable[[Any, Structure], Complex[Array, "q mode mode"]]
    q: np.ndarray
    weights: np.ndarray
    equivalent: np.ndarray
    group: SpaceGroup | None
    side_by_side: int
    work: int

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.asked)[0])

    def fits(self, potential: Potential, crystal: Structure) -> bool:
        """Return whether the crystal's neighbours are within the route's capacity (host)."""
        return not bool(_overflow(self.graphs, potential, crystal))

    def with_room_for(self, potential: Potential, crystal: Structure) -> "Route":
        """Return the route, with more capacity where the crystal's neighbours ask for it (host)."""
        if self.fits(potential, crystal):
            return self
        return _roomier(self, potential.capacity(crystal))

    def vibrations(self, matrices: Any, crystal: Structure, energy: Any) -> Vibrations:
        """Return what D(q) belongs to; traceable."""
        return Vibrations(
            crystal, matrices, jnp.asarray(self.q), jnp.asarray(self.weights), energy,
            jnp.asarray(self.equivalent),
        )  # fmt: skip


@lru_cache(maxsize=16)
def _roomier(route: Route, capacity: Hashable) -> Route:
    """Return one and the same route for one capacity: what is compiled belongs to it."""
    return replace(route, graphs=Bound(held_graph, (capacity,)))


def held_graph(capacity, potential: Potential, crystal: Structure) -> Any:
    """Return the graph that rows share; with settings filled in, the `graphs` of a route."""
    return potential.graph(jax.lax.stop_gradient(crystal), capacity)


def _wave_row(real: bool, potential: Potential, crystal: Structure, graph, asked):
    q, u = asked
    return bloch_column(potential, crystal, graph, q, jnp.zeros(3), u, real)


def _wave_contraction(
    real: bool, potential: Potential, crystal: Structure, graph, asked, cotangent
):
    q, u = asked
    return bloch_contraction(potential, crystal, graph, q, jnp.zeros(3), u, cotangent, real)


def by_waves(
    potential: Potential, crystal: Structure, mesh: Mesh, group: SpaceGroup | None = None
) -> Route:
    """Return the route of `bloch`: columns of D(q) from the primitive cell, nothing interpolated.

    Args:
        potential: That carries waves.
        crystal: Concrete, relaxed; with the group exactly.
        mesh: Reduced by the group, or by time reversal alone where there is none.
        group: Whose symmetry all changes keep; None for changes of any kind.

    Raises:
        InputError: a potential that offers supercells only; a mesh reduced by another group.
    """
    check_offers_exact(potential, crystal)
    if group is None and np.any(np.asarray(mesh.operation) != 0):
        raise fail("a mesh reduced by symmetry", "the group, or a mesh without one")
    columns = IndependentColumns(np.asarray(mesh.q), np.asarray(crystal.fractional), group)
    # In the order of the mesh, whatever stars the points of the list have in common.
    moved = np.zeros((len(columns), len(crystal), 3))
    moved[np.arange(len(columns)), columns.atoms] = columns.directions
    graphs = Bound(held_graph, (potential.capacity(crystal),))
    row, contraction = (Bound(f, (columns.real,)) for f in (_wave_row, _wave_contraction))
    busy = _BUSY_CPU if jax.default_backend() == "cpu" else _BUSY

    def assembled(rows, crystal: Structure):
        found = columns.chosen_matrices(rows, crystal.fractional)
        found = (found + found.conj().swapaxes(1, 2)) / 2
        root = 1 / jnp.sqrt(jnp.repeat(crystal.masses, 3))
        return found * (root[:, None] * root)

    return Route(
        graphs, row, contraction, (jnp.asarray(columns.q), jnp.asarray(moved)), assembled,
        columns.chosen_q, _weights(mesh, columns), _equivalent(crystal, group), group,
        max(1, busy // len(crystal)), columns.work,
    )  # fmt: skip


def _weights(mesh: Mesh, columns: IndependentColumns) -> np.ndarray:
    """Return the weights of the chosen points: those of all that follow from each."""
    found = np.zeros(columns.points)
    np.add.at(found, columns.chosen_from, np.asarray(mesh.weights))
    return found


def _equivalent(crystal: Structure, group: SpaceGroup | None) -> np.ndarray:
    return np.eye(len(crystal)) if group is None else np.asarray(orbit_means(group))


def parts(route: Route) -> list[np.ndarray]:
    """Return the rows of each part, all of one length, the last ones repeated to fill it."""
    size = min(route.side_by_side, len(route))
    starts = range(0, len(route), size)
    return [np.minimum(np.arange(s, s + size), len(route) - 1) for s in starts]


def evaluated(
    route: Route,
    potential: Potential,
    crystal: Structure,
    on_part: Callable[[int, int], None] | None = None,
) -> Any:
    """Return all rows (host loop over parts).

    Raises:
        InputError: values that are not finite.
    """
    found = []
    chunks = parts(route)
    for number, rows in enumerate(chunks):
        if on_part is not None:
            on_part(number, len(chunks))
        asked = jax.tree.map(lambda x, rows=rows: x[rows], route.asked)
        new, overflow = _rows(route.graphs, route.row, potential, crystal, asked)
        if overflow:
            raise fail(
                "a crystal whose neighbours exceed the capacity of its route",
                "a route of a crystal like it", "Make the route anew",
            )  # fmt: skip
        found.append(np.asarray(new))
    whole = np.concatenate(found)[: len(route)]
    if not np.all(np.isfinite(whole)):
        raise fail(
            f"{potential.name} returned second derivatives that are not finite", "finite ones",
            "Check for overlapping atoms",
        )  # fmt: skip
    return jnp.asarray(whole)


def pulled(
    route: Route,
    potential: Potential,
    crystal: Structure,
    cotangents: Any,
    on_part: Callable[[int, int], None] | None = None,
) -> tuple[Any, Any, Any]:
    """Return eq. (2) for floating parameters, positions and cell (host loop over parts)."""
    total = None
    chunks = parts(route)
    seen = 0
    for number, rows in enumerate(chunks):
        if on_part is not None:
            on_part(number, len(chunks))
        asked = jax.tree.map(lambda x, rows=rows: x[rows], route.asked)
        # Rows that fill up the last part have no share.
        fresh = np.arange(seen, seen + len(rows)) < len(route)
        seen += len(rows)
        mine = cotangents[rows] * fresh.reshape(-1, *(1,) * (cotangents.ndim - 1))
        found = _pulled(route.graphs, route.contraction, potential, crystal, asked, mine)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    assert total is not None
    return total


@partial(jax.jit, static_argnums=0)
def _overflow(graphs, potential, crystal):
    return graphs(potential, crystal).overflow


@partial(jax.jit, static_argnums=(0, 1))
def _rows(graphs, row, potential, crystal, asked):
    shared = graphs(potential, crystal)
    return jax.vmap(lambda one: row(potential, crystal, shared, one))(asked), shared.overflow


@partial(jax.jit, static_argnums=(0, 1))
def _pulled(graphs, contraction, potential, crystal, asked, cotangents):
    shared = graphs(potential, crystal)
    leaves, rebuilt = floating(potential.params)

    def total(leaves, x, cell):
        model = replace(potential, params=rebuilt(leaves))
        there = replace(crystal, positions=x, cell=cell)
        each = jax.vmap(lambda *row: contraction(model, there, shared, *row))(asked, cotangents)
        return jnp.sum(each)

    return jax.grad(total, argnums=(0, 1, 2))(leaves, crystal.positions, crystal.cell)


def floating(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """Return the floating-point leaves of a pytree, and what puts others in their place."""
    leaves, form = jax.tree.flatten(tree)
    real = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]

    def rebuilt(given: list) -> Any:
        left = iter(given)
        return jax.tree.unflatten(
            form, [next(left) if is_real else leaf
                   for leaf, is_real in zip(leaves, real, strict=True)]
        )  # fmt: skip

    return [leaf for leaf, is_real in zip(leaves, real, strict=True) if is_real], rebuilt
