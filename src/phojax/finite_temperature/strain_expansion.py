"""The static energy of a crystal about some cell, and the expansion of D in strain from there.

Coordinates y = (u, s) are those of `implicit`: displacements and strains that keep the space group.
Along a straight line s = t d of strains the ions follow, with g_u = ∂E/∂u = 0,

    u(t) = t u₁ + ½ t² u₂,   K u₁ = -∂g_u/∂t,   K u₂ = -d²/dt² g_u(t u₁, t d)               (1)

(from any start, not only from s = 0)

and D(q) is differentiated twice along this path, the potential in it, either by forward mode or as
central differences of a few strained crystals,

    D' = [D(h) - D(-h)] / 2h,   D'' = [D(h) - 2 D(0) + D(-h)] / h²,   both + O(h²)           (2)

Mixed derivatives are D_ab = ½ (D''_(a+b) - D''_a - D''_b).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import fail
from phojax.finite_temperature.strained_matrices import StrainedMatrices
from phojax.forces import energy
from phojax.gradients.route import Route, evaluated, parts
from phojax.implicit import Minimum, graph_of, minimum_at, moved, slope
from phojax.potentials.contract import Potential
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup

REACH = 0.01
"""Strain up to which an expansion that was not compared with another one is meant."""

STEP = 0.001
"""Strain of central differences by default: D' is off by about 2e-4 of itself, and D'' as well."""

_STEPS = 40
_AT_REST = 1e-10  # Å: the last move of ions that count as relaxed


@runtime_checkable
class Kept(Protocol):
    """A place for named groups of arrays, such as `screening.store.Checkpoint`."""

    def save(self, name: str, **arrays: Any) -> None:
        """Keep arrays under a name."""

    def load(self, name: str) -> dict[str, np.ndarray]:
        """Return what is kept under a name; empty where nothing is."""
        ...


@dataclass(frozen=True)
class Local:
    """The static enthalpy at some coordinates.

    Attributes:
        energy: Without pV, eV.
        slope: eV/Å.
        curvature: eV/Å².
        crystal: There.
    """

    energy: float
    slope: Float[np.ndarray, " y"]
    curvature: Float[np.ndarray, "y y"]
    crystal: Structure


class StaticEnergy:
    """E(u, s) of a potential about a crystal, at rest or under an imposed strain.

    Attributes:
        here: The crystal and its coordinates.
        group: The symmetry that is kept; None for none.
        ions: Number of coordinates of ions; those of strain follow.
        strains: B_a, (e, 3, 3).
        scale: Å: y = s·scale for strains.
    """

    def __init__(
        self,
        potential: Potential,
        crystal: Structure,
        group: SpaceGroup | None = None,
        pressure: float = 0.0,
    ) -> None:
        self.here: Minimum = minimum_at(
            potential, crystal, pressure=pressure, symmetry=group, dense=False
        )
        self.group = group
        self.ions = self.here.displacements.shape[1]
        self.strains = np.asarray(self.here.strains).T.reshape(-1, 3, 3)
        self.scale = float(self.here.scale)
        self._capacity = potential.capacity(crystal)

    def __call__(self, y: np.ndarray) -> Local:
        """Return energy, slope and curvature at coordinates; InputError where not finite."""
        at = jnp.asarray(y)
        E, g, K, crystal, overflow = _local(self.here, at, self._capacity)
        if overflow:
            self._capacity = self.here.potential.capacity(crystal)
            E, g, K, crystal, overflow = _local(self.here, at, self._capacity)
        if overflow or not all(np.all(np.isfinite(x)) for x in (E, g, K)):
            raise fail(
                f"{self.here.potential.name} gave values that are not finite in a strained cell",
                "finite ones", "Take lower temperatures",
            )  # fmt: skip
        return Local(float(E), np.asarray(g), np.asarray(K), crystal)

    def at(self, y: np.ndarray) -> Minimum:
        """Return the coordinates with the neighbours of the crystal at y, for derivatives there."""
        crystal = moved(self.here, jnp.asarray(y))
        return replace(self.here, graph=graph_of(self.here.potential, crystal, self._capacity))

    def coordinates(self, s: np.ndarray) -> np.ndarray:
        """Return y of a strain with the ions where they were."""
        return np.concatenate([np.zeros(self.ions), np.asarray(s) * self.scale])

    def strain_of(self, y: np.ndarray) -> np.ndarray:
        """Return s."""
        return np.asarray(y)[self.ions :] / self.scale

    def settled(self, s: np.ndarray) -> np.ndarray:
        """Return y of a strain with the ions relaxed; InputError where they find no minimum."""
        y, n = self.coordinates(s), self.ions
        if n == 0:
            return y
        for _ in range(_STEPS):
            local = self(y)
            stiffness = local.curvature[:n, :n]
            if np.linalg.eigvalsh(stiffness)[0] <= 0:
                break
            move = -np.linalg.solve(stiffness, local.slope[:n])
            y[:n] += move * min(1.0, 0.1 / max(np.abs(move).max(), 1e-300))
            if np.abs(move).max() < _AT_REST:
                return y
        raise fail("ions that find no minimum in a strained cell", "a crystal that is stable")


@partial(jax.jit, static_argnums=2)
def _local(here: Minimum, y, capacity):
    crystal = moved(here, y)
    graph = here.potential.graph(jax.lax.stop_gradient(crystal), capacity)
    there = replace(here, graph=graph)
    g = slope(there, y)
    columns = jax.lax.map(
        lambda v: jax.jvp(partial(slope, there), (y,), (v,))[1], jnp.eye(here.dimension)
    )
    E = energy(here.potential, crystal, graph)
    return E, g, (columns + columns.T) / 2, crystal, graph.overflow


def expanded(
    static: StaticEnergy,
    route: Route,
    *,
    about: Float[np.ndarray, " e"] | None = None,
    step: float | None = STEP,
    on_part: Callable[[int, int], None] | None = None,
    kept: Kept | None = None,
    name: str = "strains",
) -> StrainedMatrices:
    """Return the expansion of D(q) in strain about the crystal of a static energy (host).

    Args:
        static: With its ions at rest.
        route: From the same crystal, or from the strained one.
        about: s to expand about; none by default.
        step: h of eq. (2); None for forward mode, which is exact but takes long to compile.
        on_part: Called with (parts done, parts in all).
        kept: Where what is found along each direction is kept, and found again.
        name: Of the expansion, there.

    Raises:
        InputError: ions that are no minimum, values that are not finite, a step that is not
            positive.
    """
    if step is not None and not 0 < step <= 0.02:
        raise fail(f"strains of ±{step}", "one above 0 and up to 0.02, such as 0.002")
    count = len(static.strains)
    if count == 0:
        raise fail("a cell whose strains are all held", "one that may expand")
    pairs = [(a, b) for a in range(count) for b in range(a, count)]
    told = _Counted(on_part, len(pairs))
    start = np.zeros(count) if about is None else np.asarray(about, float)
    how = _by_forward_mode if step is None else _by_differences
    along = partial(how, static, route, step, start)
    value, first = None, {}
    bent: dict[tuple[int, int], Any] = {}
    for a, b in pairs:
        d = np.eye(count)[a] + (np.eye(count)[b] if a != b else 0.0)
        file = f"{name}-{a}-{b}"
        done = {} if kept is None else kept.load(file)
        D = [done[k] for k in ("value", "first", "second")] if done else along(d, told)
        if kept is not None and not done:
            kept.save(file, **dict(zip(("value", "first", "second"), D, strict=True)))
        value, slope_of, bent[a, b] = D
        if a == b:
            first[a] = slope_of
        told.next()
    assert value is not None
    n = value.shape
    second = np.zeros((count, count, *n), complex)
    for a, b in pairs:
        mixed = bent[a, b] if a == b else (bent[a, b] - bent[a, a] - bent[b, b]) / 2
        second[a, b] = second[b, a] = mixed
    first = np.stack([first[a] for a in range(count)])
    return StrainedMatrices(
        static.here.crystal, jnp.asarray(route.q), jnp.asarray(route.weights),
        jnp.asarray(static.strains), jnp.asarray(value), jnp.asarray(first), jnp.asarray(second),
        jnp.asarray(REACH), jnp.asarray(start),
    )  # fmt: skip


class _Counted:
    """Progress over directions, each with parts of its own."""

    def __init__(self, on_part, directions: int) -> None:
        self._on_part, self._directions, self._done = on_part, directions, 0

    def next(self) -> None:
        self._done += 1

    def __call__(self, part: int, of: int) -> None:
        if self._on_part is not None:
            self._on_part(self._done * of + part, self._directions * of)


def _by_forward_mode(static: StaticEnergy, route: Route, step: None, start, d, told):
    """Return D, D' and D'' along d from a start."""
    n, y0 = static.ions, static.settled(start)
    here = static.at(y0)
    y1 = static.coordinates(d)
    y2 = np.zeros_like(y1)
    if n:
        K = static(y0).curvature
        if np.linalg.eigvalsh(K[:n, :n])[0] <= 0:
            raise fail("ions that are at no minimum", "a crystal that is stable")
        y1[:n] = -np.linalg.solve(K[:n, :n], K[:n, n:] @ y1[n:])
        bent = np.asarray(_bent_slope(here, (jnp.asarray(y0), jnp.asarray(y1))))
        y2[:n] = -np.linalg.solve(K[:n, :n], bent[:n])
    path = jnp.asarray(y0), jnp.asarray(y1), jnp.asarray(y2)
    found = []
    chunks = parts(route)
    for number, rows in enumerate(chunks):
        told(number, len(chunks))
        asked = jax.tree.map(lambda x, rows=rows: x[rows], route.asked)
        new = _rows_along(route.graphs, route.row, here, asked, path)
        found.append([np.asarray(x) for x in new])
    rows = [jnp.asarray(np.concatenate(x)[: len(route)]) for x in zip(*found, strict=True)]
    D = [np.asarray(x) for x in _assembled_along(route, rows, here, path)]
    if not all(np.all(np.isfinite(x)) for x in D):
        raise fail("derivatives of D(q) in strain that are not finite", "a smooth potential")
    return D


def _on_path(path, t):
    y0, y1, y2 = path
    return y0 + t * y1 + t**2 / 2 * y2


def _twice(f: Callable, t=0.0):
    """Return f, f' and f'' of a function of one number."""
    t, one = jnp.asarray(t, float), jnp.ones(())
    (value, first), (_, second) = jax.jvp(lambda t: jax.jvp(f, (t,), (one,)), (t,), (one,))
    return value, first, second


@jax.jit
def _bent_slope(here: Minimum, line):
    y0, y1 = line
    return _twice(lambda t: slope(here, y0 + t * y1))[2]


@partial(jax.jit, static_argnums=(0, 1))
def _rows_along(graphs, row, here: Minimum, asked, path):
    shared = graphs(here.potential, moved(here, path[0]))

    def rows(t):
        crystal = moved(here, _on_path(path, t))
        return jax.vmap(lambda one: row(here.potential, crystal, shared, one))(asked)

    return _twice(rows)


@partial(jax.jit, static_argnums=0)
def _assembled_along(route: Route, rows, here: Minimum, path):
    value, first, second = rows

    def matrices(t):
        now = value + t * first + t**2 / 2 * second
        return route.assembled(now, moved(here, _on_path(path, t)))

    return _twice(matrices)


def _by_differences(static: StaticEnergy, route: Route, step: float, start, d, told):
    model = static.here.potential

    def at(t: float, number: int):
        crystal = moved(static.here, jnp.asarray(static.settled(start + t * d)))
        rows = evaluated(
            route, model, crystal, lambda part, of: told(number * of + part, 3 * of)
        )  # fmt: skip
        return np.asarray(_assembled(route, rows, crystal))

    middle, more, less = at(0.0, 0), at(step, 1), at(-step, 2)
    return middle, (more - less) / (2 * step), (more - 2 * middle + less) / step**2


@partial(jax.jit, static_argnums=0)
def _assembled(route: Route, rows, crystal: Structure) -> Array:
    return route.assembled(rows, crystal)


__all__ = ["REACH", "STEP", "Kept", "Local", "StaticEnergy", "expanded"]
