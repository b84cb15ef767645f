"""What may change in a design, and the gradient of a goal with respect to it.

Variables x are the shares of elements on mixed sites and the strain imposed on the relaxed cell,

    A = A*(shares)(1 + ε(x)),   r relaxed in A,                                            (1)

with A* the cell at rest of that composition and ε within what the space group leaves. The chain has
two minima, that of the free crystal and that of the atoms in the strained cell, and a solve each:

    dd/dp = ∂d/∂p|_A + (∂d/∂A) ∂A/∂A* (dA*/dp)                                             (2)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phojax.brillouin import Mesh
from phojax.checks import fail
from phojax.compiled import let_go_of_compiled
from phojax.coordinates import coordinates
from phojax.design.composition import Composition
from phojax.gradients.route import Route, floating
from phojax.gradients.supercells import route_for
from phojax.gradients.total import Gradient, Objective, value_and_gradient, vibrations
from phojax.gradients.vibrations import Vibrations
from phojax.implicit import Minimum, Solve, minimum, slope, solved
from phojax.potentials.alchemy import mixed_crystal, mixed_masses, with_mixtures
from phojax.potentials.contract import Potential
from phojax.structure import Structure, strained
from phojax.symmetry import SpaceGroup

Variables = dict[str, np.ndarray]
""""shares" (mixture, element) and "strain" (coordinate,), those that vary."""

FORCE, STRESS = 1e-6, 1e-7
"""eV/Å and eV/Å³ to which crystals are relaxed on the way."""


@dataclass(frozen=True)
class Point:
    """A crystal on the way, and the goal's gradient there.

    Attributes:
        variables: As they were asked for.
        crystal: Relaxed.
        loss: The goal.
        slopes: Of the goal, as the variables.
        vibrations: Of the crystal.
        solves: What the solves took: of the atoms in the strained cell, of the free crystal.
        converged: Whether relaxations and solves did.
        steps: Evaluations of the relaxations.
        saddle: Whether the crystal is no minimum, even among those of its symmetry.
    """

    variables: Variables
    crystal: Structure
    loss: float
    slopes: Variables
    vibrations: Vibrations
    solves: list[Solve]
    converged: bool
    steps: int
    saddle: bool = False


@dataclass
class Problem:
    """A crystal, its potential, and what may change.

    Attributes:
        potential: Of pure compounds, in float64.
        start: Exactly symmetric.
        group: Of the start.
        mesh: Reduced by the group.
        elements: Symbols that may share the mixed sites; none where composition is held.
        sites: For each atom its mixture, -1 for none.
        composition: Which shares are allowed.
        references: eV per atom of each element: goals see the energy of the cell above these.
        vary_strain: Whether a strain is imposed.
        largest_strain: On each of its coordinates.
    """

    potential: Potential
    start: Structure
    group: SpaceGroup
    mesh: Mesh
    elements: tuple[str, ...] = ()
    sites: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    composition: Composition | None = None
    references: Mapping[str, float] = field(default_factory=dict)
    vary_strain: bool = False
    largest_strain: float = 0.05
    _route: Route | None = None
    _last: Structure | None = None

    @property
    def strains(self) -> np.ndarray:
        """Orthonormal basis (9, coordinate) of the strains that keep the group."""
        return coordinates(self.start, self.group, True).strains

    def first(self) -> Variables:
        """Return the variables of the start: its own elements, no strain."""
        out = {}
        if self.elements:
            assert self.composition is not None
            numbers = [self.start.symbols[int(np.flatnonzero(self.sites == k)[0])]
                       for k in range(len(self.composition.counts))]  # fmt: skip
            out["shares"] = np.array([[float(e == own) for e in self.elements] for own in numbers])
        if self.vary_strain:
            out["strain"] = np.zeros(self.strains.shape[1])
        return out

    def projected(self, x: Variables) -> Variables:
        """Return the nearest variables that are allowed: by `Composition`, strains bounded."""
        out = {}
        if "shares" in x:
            assert self.composition is not None
            out["shares"] = self.composition.projected(x["shares"])
        if "strain" in x:
            out["strain"] = np.clip(x["strain"], -self.largest_strain, self.largest_strain)
        return out

    def strain(self, x: Variables) -> np.ndarray:
        """Return ε, (3, 3)."""
        if "strain" not in x:
            return np.zeros((3, 3))
        return (self.strains @ x["strain"]).reshape(3, 3)

    def zero(self, x: Variables) -> float:
        """Return the energy of the cell's atoms at the references, in eV."""
        mixed = self.sites >= 0
        out = sum(self.references.get(symbol, 0.0)
                  for symbol, is_mixed in zip(self.start.symbols, mixed, strict=True)
                  if not is_mixed)  # fmt: skip
        if self.elements:
            out += float(np.sum(x["shares"] * self._references_of_shares()))
        return float(out)

    def _references_of_shares(self) -> np.ndarray:
        """Return ∂zero/∂shares (mixture, element) in eV."""
        assert self.composition is not None
        each = [self.references.get(symbol, 0.0) for symbol in self.elements]
        return np.outer(self.composition.counts, each)

    def composed(self, x: Variables, crystal: Structure) -> tuple[Potential, Structure]:
        """Return the potential and a crystal with the shares of x on the mixed sites."""
        if "shares" not in x:
            return self.potential, crystal
        shares = jnp.asarray(x["shares"])
        return (
            with_mixtures(self.potential, self.elements, shares),
            mixed_crystal(replace(crystal, masses=self.start.masses), self.sites, self.elements,
                          shares),
        )  # fmt: skip


def problem(
    potential: Potential,
    start: Structure,
    group: SpaceGroup,
    mesh: Mesh,
    *,
    elements: Sequence[str] = (),
    strain: bool = False,
    largest_strain: float = 0.05,
    charges: Mapping[str, float] | None = None,
    fractions: Mapping[str, tuple[float, float]] | None = None,
    references: Mapping[str, float] | None = None,
) -> Problem:
    """Return a problem in which atoms of `elements` may become others of them, orbit by orbit.

    Args:
        potential: Of pure compounds.
        start: Exactly symmetric.
        group: Its space group.
        mesh: Reduced by it.
        elements: Symbols; the start must hold one of them. None for a composition that is held.
        strain: Whether to impose a strain.
        largest_strain: On each of its coordinates.
        charges: Of `elements`, e: mixed sites keep their charge. None for elements that may take
            each other's place freely.
        fractions: (low, high) of some of `elements` among all mixed sites.
        references: eV per atom of some elements, for goals that look at the energy.

    Raises:
        InputError: nothing that varies; constraints that contradict each other; elements of which
            the start holds none, or that the potential does not know or cannot mix.
    """
    sites = np.full(len(start), -1)
    allowed = None
    if elements:
        if len(elements) < 2:
            raise fail(f"elements {', '.join(elements)} to mix", "two or more")
        replaced = np.array([symbol in elements for symbol in start.symbols])
        if not replaced.any():
            raise fail(
                f"no {' or '.join(elements)} in {', '.join(sorted(set(start.symbols)))}",
                "elements to mix of which the structure holds one",
            )
        orbits = np.unique(group.orbits[replaced])
        for k, orbit in enumerate(orbits):
            sites[(group.orbits == orbit) & replaced] = k
        with_mixtures(potential, elements, np.eye(len(elements))[[0] * len(orbits)])
        held = sum((charges or {}).get(start.symbols[i], 0.0) for i in np.flatnonzero(replaced))
        counts = tuple(int(np.sum(sites == k)) for k in range(len(orbits)))
        allowed = Composition(tuple(elements), counts, charges or {}, held, fractions or {})
    elif not strain:
        raise fail("a design in which nothing varies", "strain, composition, or both")
    if not 0 < largest_strain < 0.5:
        raise fail(f"a largest strain of {largest_strain}", "a number between 0 and 0.5")
    return Problem(
        potential, start, group, mesh, tuple(elements), sites, allowed, references or {}, strain,
        largest_strain,
    )  # fmt: skip


def evaluated(
    given: Problem,
    x: Variables,
    goal: Objective,
    *,
    gradient: bool = True,
    on_part: Callable[[str, int, int], None] | None = None,
) -> Point:
    """Return the crystal of some variables, relaxed, and the goal's gradient there (host).

    Raises:
        InputError: values that are not finite.
    """
    let_go_of_compiled()
    start = given.start if given._last is None else given._last
    model, crystal = given.composed(x, start)
    free, how = _at_rest(model, crystal, given.group)
    reached, here, steps = how.converged, free, how.steps
    ε = given.strain(x)
    if given.vary_strain:
        here, again = minimum(
            model, strained(free.crystal, jnp.asarray(ε)), cell=False, symmetry=given.group,
            force_tolerance=FORCE, stress_tolerance=STRESS,
        )  # fmt: skip
        reached, steps = reached and again.converged, steps + again.steps
    given._last = replace(free.crystal, numbers=given.start.numbers, masses=given.start.masses)
    route = _route(given, model, here.crystal)
    if not gradient:
        found = vibrations(here, route, zero=given.zero(x))
        return Point(x, here.crystal, float(goal(found)), {}, found, [], reached, steps, False)
    found = value_and_gradient(goal, here, route, zero=given.zero(x), on_part=on_part)
    solves, slopes = [found.solve], {}
    by_parameters = found.by_parameters
    if given.vary_strain:
        assert found.by_strain is not None
        slopes["strain"] = _on_strain(given, found.by_strain, ε)
        if given.elements:
            more, solve = _through_free_cell(free, found.by_strain, ε)
            solves.append(solve)
            by_parameters = jax.tree.map(jnp.add, by_parameters, more)
    if given.elements:
        _, of_masses = jax.vjp(
            lambda shares: mixed_masses(given.start, given.sites, given.elements, shares),
            jnp.asarray(x["shares"]),
        )
        slopes["shares"] = np.asarray(
            by_parameters["shares"] + of_masses(jnp.asarray(found.by_masses))[0]
        )
        slopes["shares"] = slopes["shares"] - found.by_energy * given._references_of_shares()
    fine = reached and all(solve.converged for solve in solves)
    lowest = [at.lowest_curvature for at in (free, here)]
    saddle = any(c is not None and c < 0 for c in lowest)
    return Point(
        x, here.crystal, found.value, slopes, found.vibrations, solves, fine, steps, saddle
    )


def _at_rest(model: Potential, crystal: Structure, group: SpaceGroup):
    return minimum(model, crystal, symmetry=group, force_tolerance=FORCE, stress_tolerance=STRESS)


def _route(given: Problem, model: Potential, crystal: Structure) -> Route:
    """Return the problem's one route, with room for the crystal."""
    known = given._route
    if known is None:
        known = route_for(model, crystal, given.mesh, given.group)
    given._route = known.with_room_for(model, crystal)
    return given._route


def _on_strain(given: Problem, by_strain: np.ndarray, ε: np.ndarray) -> np.ndarray:
    """Return derivatives in the strain's coordinates from those in a further strain η.

    1 + ε + δε = (1 + ε)(1 + η): δε = (1 + ε) η.
    """
    whole = np.linalg.solve((np.eye(3) + ε).T, by_strain)
    return given.strains.T @ ((whole + whole.T) / 2).reshape(-1)


def _through_free_cell(free: Minimum, by_strain: np.ndarray, ε: np.ndarray) -> tuple[Any, Solve]:
    """Return derivatives in parameters that go through the cell at rest, A* of eq. (1)."""
    stretch = np.eye(3) + ε
    # A strain e of A* is a further strain (1 + ε)⁻¹ e (1 + ε) of A.
    on_e = np.linalg.solve(stretch.T, by_strain @ stretch.T)
    on_e = (on_e + on_e.T) / 2
    n = free.displacements.shape[1]
    by_y = jnp.concatenate(
        [jnp.zeros(n), free.strains.T @ jnp.asarray(on_e.reshape(-1)) / free.scale]
    )
    lam, took = solved(free, by_y)
    return _slope_in_parameters(free, -lam), took


@jax.jit
def _slope_in_parameters(free: Minimum, cotangent):
    leaves, rebuilt = floating(free.potential.params)

    def of(leaves):
        model = replace(free.potential, params=rebuilt(leaves))
        return slope(free, jnp.zeros(free.dimension), model)

    (found,) = jax.vjp(of, leaves)[1](cotangent)
    return floating(jax.tree.map(jnp.zeros_like, free.potential.params))[1](found)


__all__ = ["Gradient", "Point", "Problem", "Variables", "evaluated", "problem"]
