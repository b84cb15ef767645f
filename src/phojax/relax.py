"""Relaxation of positions and cell on the host, the symmetry kept.

E is minimised over the `coordinates` of a space group, y, with

    ∂E/∂u = -F (1 + ε),   ∂E/∂ε = V sym[(1 + ε)⁻¹ σ].                              (1)

Steps are those of the inverse BFGS formula with a bound on the step. A step is
judged by the energy where its change stands out, and else by ½ (g + g')·s, which has no
cancellation: this is how forces of 1e-9 eV/Å are reached.
Source: Nocedal and Wright, Numerical Optimization (2006), eqs. 6.17 and 6.20; Hager and Zhang,
SIAM J. Optim. 16, 170 (2005), section 2 (judging by gradients).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from phojax.checks import InputError, fail
from phojax.coordinates import Coordinates, coordinates
from phojax.forces import _evaluate
from phojax.potentials.contract import Potential, check_elements, why
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup

Values = tuple[Any, Any, Any]
"""Energy (eV), forces (eV/Å), stress (eV/Å³, positive under tension)."""

Surface = Callable[[Structure], Values]
"""structure -> its values."""

Descent = Generator[Structure, Values, "Relaxation"]
"""A relaxation that asks for the values of one structure after the other, and returns its end."""

_STIFFNESS = 10.0  # eV/Å², a bond's; sets the first step only
_LARGEST_STEP = 0.3  # Å
_SMALLEST_STEP = 1e-10  # Å; below it the surface is rougher than the tolerance
_ENERGY_NOISE = 1e-7  # relative; smaller changes of energy are judged by gradients


@dataclass(frozen=True)
class Relaxation:
    """The end of a relaxation; where it did not converge, the best point it saw.

    Attributes:
        structure: Symmetric to rounding where a symmetry was given.
        converged: Whether forces, and stress where the cell was free, are within tolerance.
        steps: Evaluations of the surface.
        energy_eV: Energy of the cell.
        force_max_eV_A: Length of the largest force on an atom, of the part of the forces that
            keeps the symmetry and the centre.
        stress_max_eV_A3: Largest component of the stress, of the part that keeps the symmetry
            where the cell was free, of all of it where it was held.
        message: Why it stopped, and what was left out.
    """

    structure: Structure
    converged: bool
    steps: int
    energy_eV: float
    force_max_eV_A: float
    stress_max_eV_A3: float
    message: str


@dataclass(frozen=True)
class _Point:
    y: np.ndarray
    crystal: Structure
    energy: float
    gradient: np.ndarray
    force_max: float
    stress_max: float
    left_out: float  # eV/Å, the largest force that breaks the symmetry

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.energy) and np.all(np.isfinite(self.gradient)))


def relax(
    potential: Potential,
    structure: Structure,
    *,
    cell: bool = True,
    force_tolerance: float = 1e-3,
    stress_tolerance: float = 1e-4,
    max_steps: int = 300,
    symmetry: SpaceGroup | None = None,
    on_step: Callable[[int, float, float, float], None] | None = None,
) -> Relaxation:
    """Return the structure at the nearest minimum of a potential's energy; see `relax_on`.

    Raises:
        InputError: elements or a composition the potential does not know.
    """
    found = relax_on(
        potential_surface(potential, structure),
        structure,
        cell=cell,
        force_tolerance=force_tolerance,
        stress_tolerance=stress_tolerance,
        max_steps=max_steps,
        symmetry=symmetry,
        conservative=potential.conservative,
        on_step=on_step,
    )
    return explained(found, potential)


def explained(found: Relaxation, potential: Potential) -> Relaxation:
    """Return the relaxation with what the potential says of values that are not finite."""
    if "not finite" not in found.message:
        return found
    return replace(found, message=found.message + why(potential))


def relax_on(
    surface: Surface,
    structure: Structure,
    *,
    cell: bool = True,
    force_tolerance: float = 1e-3,
    stress_tolerance: float = 1e-4,
    max_steps: int = 300,
    symmetry: SpaceGroup | None = None,
    conservative: bool = True,
    on_step: Callable[[int, float, float, float], None] | None = None,
) -> Relaxation:
    """Return the structure at the nearest minimum of an energy surface, at zero pressure.

    Args:
        surface: structure -> energy, forces, stress; values that are not finite shorten the step.
        structure: Concrete start.
        cell: As that of `relaxing`, and so are the others.
        force_tolerance: eV/Å.
        stress_tolerance: eV/Å³.
        max_steps: Evaluations of the surface at most.
        symmetry: Operations to keep; None for none.
        conservative: Whether the energy belongs to the forces.
        on_step: Called with (step, energy in eV, largest force, largest stress) after each one.

    Raises:
        InputError: tolerances that are not positive, a symmetry of another crystal.
    """
    return driven(
        relaxing(
            structure,
            cell=cell,
            force_tolerance=force_tolerance,
            stress_tolerance=stress_tolerance,
            max_steps=max_steps,
            symmetry=symmetry,
            conservative=conservative,
            on_step=on_step,
        ),
        surface,
    )


def driven(descent: Descent, surface: Surface) -> Relaxation:
    """Return the end of a descent, its values those of a surface."""
    values: Any = None
    while True:
        try:
            wanted = descent.send(values)
        except StopIteration as end:
            return end.value
        values = surface(wanted)


def relaxing(
    structure: Structure,
    *,
    cell: bool = True,
    force_tolerance: float = 1e-3,
    stress_tolerance: float = 1e-4,
    max_steps: int = 300,
    symmetry: SpaceGroup | None = None,
    conservative: bool = True,
    on_step: Callable[[int, float, float, float], None] | None = None,
) -> Descent:
    """Return the descent to the nearest minimum at zero pressure; whoever drives it evaluates.

    A stationary point is all that is promised: a symmetry that is kept may hold the crystal on
    a saddle, which its phonons show. It never raises for want of convergence.

    Args:
        structure: Concrete start; made exactly symmetric first.
        cell: Whether the cell may change.
        force_tolerance: eV/Å, on the length of the largest force.
        stress_tolerance: eV/Å³, on the largest component; not asked for where `cell` is False.
        max_steps: Evaluations of the surface at most.
        symmetry: Operations to keep; None for none.
        conservative: Whether the energy belongs to the forces; where it does not, steps are
            judged by forces alone.
        on_step: Called with (step, energy in eV, largest force, largest stress) after each one.

    Raises:
        InputError: tolerances that are not positive, a symmetry of another crystal.
    """
    if not (force_tolerance > 0 and stress_tolerance > 0 and max_steps > 0):
        raise fail(
            f"tolerances {force_tolerance} eV/Å, {stress_tolerance} eV/Å³, {max_steps} steps",
            "positive numbers",
        )
    return _relaxing(
        coordinates(structure, symmetry, cell), cell, force_tolerance, stress_tolerance, max_steps,
        conservative, on_step,
    )  # fmt: skip


def _relaxing(
    space: Coordinates, cell, force_tolerance, stress_tolerance, max_steps, conservative, on_step
) -> Descent:
    def merit(p: _Point) -> float:
        if not p.finite:
            return np.inf
        asked = p.stress_max / stress_tolerance if cell else 0.0
        return max(p.force_max / force_tolerance, asked)

    best, steps, message = yield from _minimum(space, merit, max_steps, conservative, on_step)
    if best.left_out > max(force_tolerance, best.force_max):
        message += f"; forces of {best.left_out:.1e} eV/Å that break the symmetry were left out"
    return Relaxation(
        best.crystal,
        bool(merit(best) <= 1),
        steps,
        best.energy,
        best.force_max,
        best.stress_max,
        message,
    )


def under(pressure: float, surface: Surface) -> Surface:
    """Return the enthalpy surface of a pressure in eV/Å³: E + pV, forces, and σ + p."""
    if pressure == 0:
        return surface

    def pressed(crystal: Structure) -> Values:
        E, forces, stress = surface(crystal)
        return E + pressure * float(crystal.volume), forces, stress + pressure * np.eye(3)

    return pressed


def potential_surface(potential: Potential, structure: Structure) -> Surface:
    """Return the surface of a potential: compiled, its graph rebuilt at every call.

    Sizes are taken from `structure` and enlarged when they overflow. Where no size will do the
    surface returns NaN.

    Raises:
        InputError: elements or a composition the potential does not know.
    """
    check_elements(potential, structure)
    capacity = potential.capacity(structure)

    def surface(crystal: Structure):
        nonlocal capacity
        result, overflow = _evaluate(potential, crystal, capacity)
        if overflow:
            try:
                capacity = potential.capacity(crystal)
            except InputError:
                return np.nan, np.full((len(crystal), 3), np.nan), np.full((3, 3), np.nan)
            result, overflow = _evaluate(potential, crystal, capacity)
        return (np.nan, *result[1:]) if overflow else result

    return surface


def _minimum(
    space: Coordinates, merit, max_steps, conservative: bool, on_step
) -> Generator[Structure, Values, tuple[_Point, int, str]]:
    """Return the best point, the number of evaluations and why they ended."""
    here = best = yield from _point(space, np.zeros(_dimension(space)))
    if on_step is not None:
        on_step(1, here.energy, here.force_max, here.stress_max)
    inverse, fresh, radius = np.eye(here.y.size) / _STIFFNESS, True, _LARGEST_STEP / 3
    volume, energy = float(here.crystal.volume), here.energy
    steps = 1
    if not here.finite:
        return best, steps, "the surface is not finite at the start"
    while merit(best) > 1:
        if steps >= max_steps:
            return best, steps, f"not converged in {max_steps} steps"
        if here.y.size == 0:
            return best, steps, "symmetry leaves nothing to relax"
        if radius < _SMALLEST_STEP:
            if fresh:
                return best, steps, "no descent: the surface is rougher than the tolerances"
            inverse, fresh, radius = np.eye(here.y.size) / _STIFFNESS, True, 1e-2
        s = -inverse @ here.gradient
        s *= min(1.0, radius / max(space.length(s), 1e-300))
        trial = yield from _point(space, here.y + s)
        steps += 1
        if on_step is not None:
            on_step(steps, trial.energy, trial.force_max, trial.stress_max)
        if not trial.finite:
            radius = space.length(s) / 4
            if radius < _SMALLEST_STEP:
                return best, steps, "stopped: the surface is not finite"
            continue
        if not 1 / 3 < float(trial.crystal.volume) / volume < 3 or (
            trial.energy < energy - 100 * len(trial.crystal)
        ):
            return best, steps, "stopped: the structure runs away from its start"
        inverse, fresh = _updated(inverse, fresh, s, trial.gradient - here.gradient)
        change = trial.energy - here.energy
        slope = here.gradient @ s
        if not conservative or abs(change) < _ENERGY_NOISE * max(1.0, abs(here.energy)):
            change = (slope + trial.gradient @ s) / 2
        if change > 0:
            radius = space.length(s) / 3
            continue
        if change < 0.3 * slope:  # half of it is what a parabola gives
            radius = min(_LARGEST_STEP, max(radius, 2 * space.length(s)))
        here = trial
        best = min(best, here, key=merit)
    return best, steps, "converged"


def _updated(inverse, fresh, s, y) -> tuple[np.ndarray, bool]:
    """Return the inverse Hessian after a step s that changed the gradient by y (BFGS)."""
    curvature = s @ y
    if curvature <= 1e-10 * np.linalg.norm(s) * np.linalg.norm(y):
        return inverse, fresh  # the surface bends down here: nothing to learn for a minimum
    if fresh:
        inverse = np.eye(len(s)) * (curvature / (y @ y))
    Hy = inverse @ y
    mixed = np.outer(s, Hy) / curvature
    inverse = inverse - mixed - mixed.T + np.outer(s, s) * (1 + y @ Hy / curvature) / curvature
    return inverse, False


def _dimension(space: Coordinates) -> int:
    return space.displacements.shape[1] + space.strains.shape[1]


def _point(space: Coordinates, y: np.ndarray) -> Generator[Structure, Values, _Point]:
    u, strain = space.parts(y)
    start, stretch = space.start, np.eye(3) + strain
    crystal = replace(
        start,
        cell=jnp.asarray(np.asarray(start.cell) @ stretch),
        positions=jnp.asarray((np.asarray(start.positions) + u) @ stretch),
    )
    energy, forces, stress = (np.asarray(x, float) for x in (yield crystal))
    du = space.displacements.T @ (-forces @ stretch).reshape(-1)
    symmetric = np.linalg.inv(stretch) @ stress
    symmetric = (symmetric + symmetric.T) / 2
    volume = abs(float(np.linalg.det(np.asarray(crystal.cell))))
    de = space.strains.T @ symmetric.reshape(-1) * volume / space.scale
    # The subspace is that before the strain: bring its part of the forces back.
    kept = -(space.displacements @ du).reshape(-1, 3) @ np.linalg.inv(stretch)
    kept_stress = stress
    if space.strains.shape[1]:  # the group of the strained crystal has the same invariants
        kept_stress = (space.strains @ (space.strains.T @ stress.reshape(-1))).reshape(3, 3)
    length = np.sqrt((kept**2).sum(1).max(initial=0.0))
    left_out = np.sqrt(((forces - forces.mean(0) - kept) ** 2).sum(1).max(initial=0.0))
    return _Point(
        y,
        crystal,
        float(energy),
        np.concatenate([du, de]),
        float(length),
        float(np.abs(kept_stress).max()),
        float(left_out),
    )
