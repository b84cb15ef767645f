"""Models of other programs as JAX functions, by callbacks to the host, with stated derivatives.

A model that has an energy gives, on the host and in numpy,

    E(x, A),   g = ∂E/∂x at fixed A,   G = ∂E/∂A at fixed x                                (1)

(x Cartesian positions, A the cell with vectors as rows), and, where it can be differentiated
twice, the change (dg, dG) along any (dx, dA). In terms of forces and stress

    g = -F,   Aᵀ G = V σ + xᵀ F                                                            (2)

since strain moves both, r -> r (1 + ε). The JAX function is E, with dE = g·dx + G:dA as its
derivative, which transposes; the derivative of (g, G) is a second callback, which does not:
`jax.grad`, forward over reverse (Hessian-vector products, `jax.jvp` of `jax.grad`) and
`jax.jacfwd` of `jax.grad` work, `jax.hessian` among them; reverse over reverse does not.
A model that predicts its forces gives (E, F, σ) and their change along (dx, dA).

What goes wrong on the host must not end in the runtime of XLA: the values are then NaN, and
`complaint` tells why. Under `vmap` a host function is called once: with all tangents of one
crystal together, and with crystals one after the other. Nothing on the host calls JAX.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from phojax.checks import fail
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound
from phojax.pytree import pytree
from phojax.structure import Structure

Values = tuple[np.ndarray, np.ndarray, np.ndarray]


@runtime_checkable
class HostModel(Protocol):
    """A model on the host; arrays are float64, atoms in the order given, none of them padding."""

    def values(
        self,
        numbers: Int[np.ndarray, " atom"],
        cell: Float[np.ndarray, "3 3"],
        positions: Float[np.ndarray, "atom 3"],
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Return (E, g, G) of eq. (1), or (E, F, σ) where forces are predicted."""
        ...

    def changes(
        self,
        numbers: Int[np.ndarray, " atom"],
        cell: Float[np.ndarray, "3 3"],
        positions: Float[np.ndarray, "atom 3"],
        d_cell: Float[np.ndarray, "k 3 3"],
        d_positions: Float[np.ndarray, "k atom 3"],
    ) -> Values:
        """Return the changes of `values` along k tangents: (k,), (k, atom, 3), (k, 3, 3)."""
        ...


@pytree()
class NoGraph:
    """The graph of a model that makes its own."""

    overflow: Bool[jax.Array, ""]


def bridged(
    model: HostModel,
    *,
    name: str,
    elements: frozenset[int] | None,
    derivatives: int,
    predicts_forces: bool = False,
    cutoff: float = 0.0,
    provenance: str = "",
    fingerprint: str = "",
    smoothing_width: float = 0.0,
    other_gauge: Callable[[int], Potential] | None = None,
) -> Potential:
    """Return a model of the host as a potential.

    Args:
        model: On the host.
        name: As on the command line.
        elements: Atomic numbers it knows; None for all.
        derivatives: 1 for forces alone, 2 where `changes` can be asked for.
        predicts_forces: Whether `values` returns forces and stress in place of gradients.
        cutoff: Å, for the record.
        provenance: Where the parameters come from.
        fingerprint: A digest of the parameters.
        smoothing_width: See `Potential`.
        other_gauge: See `Potential`.

    Raises:
        InputError: a number of derivatives other than 1 and 2.
    """
    if derivatives not in (1, 2):
        raise fail(f"a bridge with {derivatives} derivatives", "1 or 2")
    host = _Host(model, name, derivatives, predicts_forces)
    return Potential(
        name=name,
        params={},
        energy=Bound(_energy_of, (host,)),
        graph=_no_graph,
        capacity=_no_capacity,
        elements=elements,
        cutoff=cutoff,
        provenance=provenance,
        smoothing_width=smoothing_width,
        predict=Bound(_predicted_by, (host,)) if predicts_forces else None,
        derivatives=derivatives,
        on_host=True,
        fingerprint=fingerprint,
        other_gauge=other_gauge,
        complaint=host.complaint,
    )


def gradients_from_stress(
    cell: Float[np.ndarray, "3 3"],
    positions: Float[np.ndarray, "atom 3"],
    forces: Float[np.ndarray, "atom 3"],
    stress: Float[np.ndarray, "3 3"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return (g, G) of eq. (2) in eV/Å from forces (eV/Å) and stress (eV/Å³)."""
    virial = abs(np.linalg.det(cell)) * stress
    return -forces, np.linalg.solve(cell.T, virial + positions.T @ forces)


class _Host:
    """What the callbacks call: unpacks batches, leaves padding out, remembers what failed."""

    def __init__(self, model: HostModel, name, derivatives: int, predicts: bool) -> None:
        self.model, self.name = model, name
        self.derivatives, self.predicts = derivatives, predicts
        self._first, self._remark = "", ""

    def complaint(self) -> str:
        """Return why an evaluation failed, the first since this was asked for."""
        said, self._first = self._first or self._remark, ""
        return said

    def values(self, numbers, cell, positions) -> Values:
        numbers, cell, positions = map(np.asarray, (numbers, cell, positions))
        lead = np.broadcast_shapes(numbers.shape[:-1], cell.shape[:-2], positions.shape[:-2])
        n = numbers.shape[-1]
        numbers = np.broadcast_to(numbers, (*lead, n))
        cell = np.broadcast_to(cell, (*lead, 3, 3))
        positions = np.broadcast_to(positions, (*lead, n, 3))
        out = np.zeros(lead), np.zeros((*lead, n, 3)), np.zeros((*lead, 3, 3))
        for at in np.ndindex(lead):
            real = numbers[at] > 0
            count = int(real.sum())
            E, a, b = self._guarded(
                ((), (count, 3), (3, 3)), self.model.values, numbers[at][real], cell[at],
                positions[at][real],
            )  # fmt: skip
            out[0][at], out[1][(*at, real)], out[2][at] = E, a, b
            if np.isfinite(E) and np.all(np.isfinite(a)) and not np.all(np.isfinite(b)):
                self._remark = "the model gives no stress: keep the cell fixed, --fixed-cell"
        return out

    def changes(self, numbers, cell, positions, d_cell, d_positions) -> Values:
        given = tuple(map(np.asarray, (numbers, cell, positions)))
        d_cell, d_positions = np.asarray(d_cell), np.asarray(d_positions)
        crystals = np.broadcast_shapes(
            given[0].shape[:-1], given[1].shape[:-2], given[2].shape[:-2]
        )
        lead = np.broadcast_shapes(crystals, d_cell.shape[:-2], d_positions.shape[:-2])
        n = given[0].shape[-1]
        crystals = (1,) * (len(lead) - len(crystals)) + crystals
        numbers = np.broadcast_to(given[0], (*crystals, n))
        cell = np.broadcast_to(given[1], (*crystals, 3, 3))
        positions = np.broadcast_to(given[2], (*crystals, n, 3))
        d_cell = np.broadcast_to(d_cell, (*lead, 3, 3))
        d_positions = np.broadcast_to(d_positions, (*lead, n, 3))
        out = np.zeros(lead), np.zeros((*lead, n, 3)), np.zeros((*lead, 3, 3))
        for at in np.ndindex(crystals):
            # All tangents of this crystal: every place along the axes that crystals do not have.
            mine = tuple(
                slice(None) if size == 1 else k for size, k in zip(crystals, at, strict=True)
            )
            real = numbers[at] > 0
            tangents = d_positions[mine][..., real, :]
            rest = tangents.shape[:-2]
            flat = tangents.reshape(-1, int(real.sum()), 3)
            found = self._guarded(
                ((len(flat),), flat.shape, (len(flat), 3, 3)), self.model.changes,
                numbers[at][real], cell[at], positions[at][real],
                d_cell[mine].reshape(-1, 3, 3), flat,
            )  # fmt: skip
            shapes = rest, tangents.shape, (*rest, 3, 3)
            dE, da, db = (np.reshape(x, shape) for x, shape in zip(found, shapes, strict=True))
            full = np.zeros((*rest, n, 3))
            full[..., real, :] = da
            out[0][mine], out[1][mine], out[2][mine] = dE, full, db
        return out

    def _guarded(self, shapes, function, *args) -> tuple[np.ndarray, ...]:
        """Return what a function returns, in these shapes; NaN, and a complaint, where it fails."""
        try:
            found = tuple(np.asarray(x, float) for x in function(*args))
            if tuple(x.shape for x in found) != shapes:
                given = ", ".join(str(x.shape) for x in found)
                raise fail(f"results of shapes {given}", ", ".join(map(str, shapes)))
            return found
        except Exception as error:  # it would end in XLA's runtime as a wall of text
            self._first = self._first or f"{type(error).__name__}: {error}"
            return tuple(np.full(shape, np.nan) for shape in shapes)


def _no_graph(crystal: Structure, capacity) -> NoGraph:
    return NoGraph(jnp.asarray(False))


def _no_capacity(crystal: Structure) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class _Call:
    """A host function whose results have one precision; equal ones share compilations."""

    host: _Host
    method: str
    dtype: Any

    def __call__(self, *args) -> Values:
        found = getattr(self.host, self.method)(*args)
        return found[0].astype(self.dtype), found[1].astype(self.dtype), found[2].astype(self.dtype)

    def staged(self, *args):
        """Return the callback, for args that end with one array of positions."""
        types = [jax.ShapeDtypeStruct(s, self.dtype) for s in ((), args[-1].shape, (3, 3))]
        return jax.pure_callback(self, tuple(types), *args, vmap_method="expand_dims")


def _energy_of(host: _Host, params, crystal: Structure, graph: NoGraph):
    return _energy(host, *_arguments(crystal))


def _predicted_by(host: _Host, params, crystal: Structure, graph: NoGraph):
    return _values(host, *_arguments(crystal))


def _arguments(crystal: Structure):
    """Return numbers, cell, positions; the cell in the precision of the positions."""
    return crystal.numbers, crystal.cell.astype(crystal.positions.dtype), crystal.positions


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy(host: _Host, numbers, cell, positions):
    return _values(host, numbers, cell, positions)[0]


@_energy.defjvp
def _(host: _Host, given, along):
    """dE = g·dx + G:dA; g and G carry their own derivative."""
    if host.predicts:
        raise fail(
            f"the gradient of the energy of {host.name}, which predicts its forces",
            "`forces.energy_and_forces` to be asked for them",
        )
    value, g, G = _values(host, *given)
    _, d_cell, d_positions = along
    return value, jnp.sum(g * d_positions) + jnp.sum(G * d_cell)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _values(host: _Host, numbers, cell, positions):
    return _Call(host, "values", positions.dtype).staged(numbers, cell, positions)


@_values.defjvp
def _(host: _Host, given, along):
    if host.derivatives < 2:
        raise fail(
            f"second derivatives of {host.name}, which gives forces alone",
            "finite displacements",
            "Pass step= (Å) to `hessian`, or --displacement on the command line",
        )
    return _values(host, *given), _changes(host, *given, *along[1:])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _changes(host: _Host, numbers, cell, positions, d_cell, d_positions):
    call = _Call(host, "changes", positions.dtype)
    return call.staged(numbers, cell, positions, d_cell, d_positions)


@_changes.defjvp
def _(host: _Host, given, along):
    raise fail(f"third derivatives of {host.name}", "two at most through this bridge")


__all__ = ["HostModel", "NoGraph", "bridged", "gradients_from_stress"]
