"""How a relaxed crystal follows what it depends on, by implicit differentiation.

A minimum of the enthalpy H = E + pV, in `coordinates` y laid about the minimum itself, is where
g(y; θ) = ∂H/∂y = 0. There

    dy*/dθ = -K⁻¹ ∂g/∂θ,   K = ∂g/∂y,                                                  (1)
    dd(y*, θ)/dθ = ∂d/∂θ - λᵀ ∂g/∂θ,   K λ = ∂d/∂y                                       (2)

for whatever θ the enthalpy depends on: parameters of the potential, pressure, an imposed strain.
A scalar takes one solve by (2), whatever the number of θ; a parameter one by (1). Translations and
rotations are no coordinates, so they need no care, and what breaks the symmetry is left out.

`relaxed` returns the step y = -K⁻¹ g(0; θ) with K held: zero to the tolerance at the θ of the
minimum, with the derivative (1) there, forward and reverse; elsewhere a first-order guess.
Source: Krantz, Parks, The Implicit Function Theorem (2002), section 3.3; Christianson, Optim.
Methods Softw. 3, 311 (1994) for (2).
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import check_float64, fail
from phojax.coordinates import coordinates
from phojax.forces import energy
from phojax.potentials.contract import Potential
from phojax.pytree import pytree
from phojax.relax import Relaxation, explained, potential_surface, relax_on, under
from phojax.spectral import Scalar
from phojax.structure import Structure, strained
from phojax.symmetry import SpaceGroup

_DENSE = 64
"""Coordinates up to which K is computed as a whole."""

_ACCURACY = 1e-10  # of a solve, relative


class Solve(NamedTuple):
    """What a solve took.

    Attributes:
        products: Of K with a vector: iterations, or the coordinates where K is held as a whole.
        residual: |K λ - b| / |b|.
        converged: Whether the residual is as small as asked for.
    """

    products: int
    residual: float
    converged: bool


@pytree()
class Minimum:
    """A relaxed crystal and what its neighbourhood is like.

    Attributes:
        potential: With which it was relaxed, in float64.
        crystal: At the minimum; zero displacement and strain are here.
        graph: Of the crystal, held fixed.
        pressure: eV/Å³.
        displacements: Orthonormal columns: displacements that keep the symmetry and the centre.
        strains: Orthonormal columns: strains that keep it; none where the cell is held.
        scale: Å: coordinates of strain are ε·scale.
        curvature: K in eV/Å², (coordinate, coordinate); None where it is applied alone.
    """

    potential: Potential
    crystal: Structure
    graph: Any
    pressure: Float[Array, ""]
    displacements: Float[Array, "xyz u"]
    strains: Float[Array, "9 e"]
    scale: Float[Array, ""]
    curvature: Float[Array, "y y"] | None = None

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return self.displacements.shape[1] + self.strains.shape[1]

    @property
    def lowest_curvature(self) -> float | None:
        """Lowest eigenvalue of K in eV/Å²: below 0 on a saddle; None where K is not held."""
        if self.curvature is None or self.dimension == 0:
            return None
        return float(np.linalg.eigvalsh(np.asarray(self.curvature))[0])


def minimum(
    potential: Potential,
    start: Structure,
    *,
    cell: bool = True,
    pressure: float = 0.0,
    symmetry: SpaceGroup | None = None,
    force_tolerance: float = 1e-9,
    stress_tolerance: float = 1e-10,
    max_steps: int = 1000,
    dense: bool | None = None,
) -> tuple[Minimum, Relaxation]:
    """Return the minimum nearest to a start, and how it was reached (host).

    Derivatives are those of a minimum: see to it that the relaxation converged, and that
    `lowest_curvature` is positive. Nothing is raised for either.

    Args:
        potential: With an energy; in float64.
        start: Concrete.
        cell: Whether the cell relaxes.
        pressure: eV/Å³; not used where the cell is held.
        symmetry: Operations to keep; None for none.
        force_tolerance: eV/Å.
        stress_tolerance: eV/Å³.
        max_steps: Evaluations at most.
        dense: Whether K is computed as a whole; by default up to 64 coordinates.

    Raises:
        InputError: float32, a potential whose forces are predicted or that gives forces alone,
            unknown elements, values that are not finite at the start.
    """
    check_float64("positions", start.positions)
    for leaf in jax.tree.leaves(potential.params):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            check_float64(f"parameters of {potential.name}", leaf)
    if not potential.conservative or potential.derivatives == 1:
        raise fail(
            f"implicit derivatives with {potential.name}, which has no energy with second "
            "derivatives", "a potential with an energy in JAX",
        )  # fmt: skip
    found = relax_on(
        under(pressure if cell else 0.0, potential_surface(potential, start)),
        start,
        cell=cell,
        force_tolerance=force_tolerance,
        stress_tolerance=stress_tolerance,
        max_steps=max_steps,
        symmetry=symmetry,
    )
    found = explained(found, potential)
    if not np.isfinite(found.energy_eV):
        raise fail(f"a relaxation with {potential.name}: {found.message}", "a finite start")
    here = minimum_at(
        potential, found.structure, cell=cell, pressure=pressure, symmetry=symmetry, dense=dense
    )
    return here, found


def minimum_at(
    potential: Potential,
    crystal: Structure,
    *,
    cell: bool = True,
    pressure: float = 0.0,
    symmetry: SpaceGroup | None = None,
    dense: bool | None = None,
) -> Minimum:
    """Return the neighbourhood of a crystal that is relaxed already; arguments as `minimum`."""
    space = coordinates(crystal, symmetry, cell)
    graph = graph_of(potential, crystal, potential.capacity(crystal))
    made = Minimum(
        potential,
        space.start,
        graph,
        jnp.asarray(pressure if cell else 0.0, float),
        jnp.asarray(space.displacements),
        jnp.asarray(space.strains),
        jnp.asarray(space.scale, float),
    )
    if made.dimension <= _DENSE if dense is None else dense:
        made = replace(made, curvature=_curvature(made))
    return made


def moved(
    here: Minimum, y: Float[Array, " y"], strain: Float[Array, "3 3"] | None = None
) -> Structure:
    """Return the crystal at coordinates y about the minimum, a strain imposed first; traceable."""
    n = here.displacements.shape[1]
    u = (here.displacements @ y[:n]).reshape(-1, 3)
    own = (here.strains @ y[n:] / here.scale).reshape(3, 3)
    crystal = replace(here.crystal, positions=here.crystal.positions + u)
    return strained(crystal if strain is None else strained(crystal, strain), own)


def enthalpy(
    here: Minimum,
    y: Float[Array, " y"],
    potential: Potential | None = None,
    pressure: Scalar | None = None,
    strain: Float[Array, "3 3"] | None = None,
) -> Float[Array, ""]:
    """Return E + pV at y in eV; traceable. What is None is that of the minimum."""
    model = here.potential if potential is None else potential
    p = here.pressure if pressure is None else pressure
    crystal = moved(here, y, strain)
    return energy(model, crystal, here.graph) + p * crystal.volume


def slope(
    here: Minimum,
    y: Float[Array, " y"],
    potential: Potential | None = None,
    pressure: Scalar | None = None,
    strain: Float[Array, "3 3"] | None = None,
) -> Float[Array, " y"]:
    """Return g(y; θ) = ∂(E + pV)/∂y in eV/Å; traceable. Arguments as those of `enthalpy`."""
    return jax.grad(enthalpy, argnums=1)(here, y, potential, pressure, strain)


def curvature_product(here: Minimum, v: Float[Array, " y"]) -> Float[Array, " y"]:
    """Return K v in eV/Å at the minimum; traceable."""
    start = jnp.zeros(here.dimension)
    return jax.jvp(partial(slope, here), (start,), (v,))[1]


def solve(here: Minimum, b: Float[Array, " y"]) -> tuple[Float[Array, " y"], Any]:
    """Return λ of K λ = b and the number of products with K; traceable, linear in b.

    Differentiable in b alone. By conjugate gradients where K is not held: they need a minimum.
    """
    held = jax.lax.stop_gradient(here)
    if here.dimension == 0:
        return b, jnp.int32(0)
    if held.curvature is not None:
        return jnp.linalg.solve(held.curvature, b), jnp.int32(here.dimension)
    operator = lineax.FunctionLinearOperator(
        partial(curvature_product, held),
        jax.ShapeDtypeStruct(b.shape, b.dtype),
        lineax.positive_semidefinite_tag,
    )
    found = lineax.linear_solve(
        operator, b, lineax.CG(rtol=_ACCURACY, atol=0.0, max_steps=10 * here.dimension),
        throw=False,
    )  # fmt: skip
    return found.value, found.stats["num_steps"]


def solved(here: Minimum, b: Float[Array, " y"]) -> tuple[Float[Array, " y"], Solve]:
    """Return λ of K λ = b, and what it took (host)."""
    found, products, off = _solved(here, b)
    residual = float(off)
    return found, Solve(int(products), residual, bool(residual < 1e3 * _ACCURACY))


def relaxed(
    here: Minimum,
    *,
    potential: Potential | None = None,
    pressure: Scalar | None = None,
    strain: Float[Array, "3 3"] | None = None,
) -> Structure:
    """Return the relaxed crystal, with its first derivatives in θ by eq. (1); traceable.

    Values are right at the θ of the minimum, and to first order near it: relax anew for others.

    Args:
        here: From `minimum`.
        potential: With parameters to differentiate in; of the same kind.
        pressure: eV/Å³, where the cell is free.
        strain: Imposed on the cell, where it is held: r → r (1 + ε), and atoms relax.

    Raises:
        InputError: a pressure on a cell that is held, a strain of one that is free.
    """
    free = here.strains.shape[1] > 0
    if pressure is not None and not free:
        raise fail("a pressure on a cell that is held", "a minimum with cell=True")
    if strain is not None and free:
        raise fail("a strain imposed on a cell that is free", "a minimum with cell=False")
    held = jax.lax.stop_gradient(here)
    g = slope(held, jnp.zeros(here.dimension), potential, pressure, strain)
    step, _ = solve(held, -g)
    return moved(held, step, strain)


@partial(jax.jit, static_argnums=2)
def graph_of(potential: Potential, crystal: Structure, capacity: Any) -> Any:
    """Return the graph of a crystal: its loops are compiled once, not at every call."""
    return potential.graph(crystal, capacity)


@jax.jit
def _curvature(here: Minimum):
    found = jax.lax.map(partial(curvature_product, here), jnp.eye(here.dimension))
    return (found + found.T) / 2


@jax.jit
def _solved(here: Minimum, b):
    found, products = solve(here, b)
    left = b if here.dimension == 0 else curvature_product(here, found)
    size = jnp.maximum(jnp.linalg.norm(b), 1e-300)
    return found, products, jnp.linalg.norm(left - b) / size


__all__ = [
    "Minimum",
    "Solve",
    "curvature_product",
    "enthalpy",
    "graph_of",
    "minimum",
    "minimum_at",
    "moved",
    "relaxed",
    "slope",
    "solve",
    "solved",
]
