"""One self-consistent solution: the fixed point of `effective` for given samples.

An iteration weighs the samples by the Gaussian it has reached, fits Φ and mean forces to them and
moves the centroids by a Newton step; steps are damped where they grow. It ends where nothing moves
any more, or where too few samples are left that count.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from phojax.checks import fail
from phojax.coordinates import coordinates
from phojax.finite_temperature.gaussian import (
    Gaussian,
    check_statistics,
    effective_count,
    gaussian,
    weights,
)
from phojax.finite_temperature.samples import Equations, Evaluated
from phojax.force_constants.basis import SymmetryAdaptedBasis, symmetry_adapted_basis
from phojax.force_constants.container import ForceConstants
from phojax.symmetry import SpaceGroup
from phojax.units import frequency_THz

_STEP = 0.2  # Å, of centroids at a time
_SOFTEST = 0.05  # eV/Å² that a step of centroids reckons with at least
_AT_REST = 1e-4  # Å: centroids that move less are found
_ITERATIONS = 100  # with one set of samples
_STILL = 0.1  # of the tolerance: what an iteration may still change


@dataclass(frozen=True)
class Sampling:
    """How (2) is solved.

    Attributes:
        statistics: "quantum" or "classical" widths.
        pairs: ± pairs of the first population.
        populations: At most.
        samples: In all, from which on no new population is drawn.
        tolerance_THz: Root mean square over the supercell's modes of the error of a frequency.
        tolerance_msd: Relative error of the mean squared displacement of all atoms.
        effective_share: Of the last population, below which new samples are drawn.
        floor_THz: Softer and imaginary modes are sampled with the width of |λ|, this at least.
        kind: "random" or "sobol" displacements.
        cutoff: Å, of Φ; None for none.
        relax_centroids: Whether (2) holds for the centroids as well.
        blocks: Of the jackknife.
    """

    statistics: str = "quantum"
    pairs: int = 8
    populations: int = 12
    samples: int = 1000
    tolerance_THz: float = 0.05
    tolerance_msd: float = 0.05
    effective_share: float = 0.5
    floor_THz: float = 0.3
    kind: str = "random"
    cutoff: float | None = None
    relax_centroids: bool = True
    blocks: int = 8

    def __post_init__(self) -> None:
        """Raise InputError for values that mean nothing."""
        check_statistics(self.statistics, 1.0)
        for name in ("tolerance_THz", "tolerance_msd", "floor_THz"):
            if not getattr(self, name) > 0:
                raise fail(f"{name} is {getattr(self, name)}", "a positive number")
        if not 0 < self.effective_share < 1:
            raise fail(f"effective_share is {self.effective_share}", "a number between 0 and 1")
        if min(self.pairs, self.populations, self.samples) < 1 or self.blocks < 2:
            raise fail(
                f"{self.pairs} pairs, {self.populations} populations, {self.blocks} blocks",
                "at least one pair, one population and two blocks",
            )


@dataclass(frozen=True)
class State:
    """Where the iteration is: coefficients of F⁰ and Φ, and of the centroids."""

    x: np.ndarray
    c: np.ndarray


class Problem:
    """(2) for one crystal and temperature."""

    def __init__(
        self, start: ForceConstants, group: SpaceGroup, temperature: float, how: Sampling,
        basis: SymmetryAdaptedBasis | None,
    ) -> None:  # fmt: skip
        self.cells, self.how, self.temperature = start.supercell, how, temperature
        if basis is None:
            basis = effective_basis(start, group, how)
        self.basis = basis
        n = len(self.cells.primitive)
        self.rotations = group.rotations_cartesian
        self.moves = coordinates(self.cells.primitive, group, False).displacements
        if not how.relax_centroids:
            self.moves = np.zeros((3 * n, 0))
        self.rest = np.asarray(self.cells.structure.positions)
        self.start = State(self.basis.coefficients(start), np.zeros(self.moves.shape[1]))

    def constants(self, state: State) -> ForceConstants:
        found = self.basis.second(state.x)
        assert found is not None
        return found

    def primitive_shift(self, state: State) -> np.ndarray:
        return (self.moves @ state.c).reshape(-1, 3)

    def shift(self, state: State) -> np.ndarray:
        return np.repeat(self.primitive_shift(state), len(self.cells.images), axis=0)

    def ensemble(self, state: State) -> Gaussian:
        return gaussian(
            self.constants(state), self.temperature, self.how.statistics,
            centroids=self.rest + self.shift(state), floor_THz=self.how.floor_THz,
        )  # fmt: skip

    def pull(self, state: State) -> np.ndarray:
        """Return the mean forces along the moves of the centroids, eV/Å."""
        forces = self.basis.residual_forces(state.x)
        assert forces is not None
        return self.moves.T @ forces.reshape(-1)

    def settled(self, state: State) -> np.ndarray:
        """Return c after a Newton step."""
        if not len(state.c):
            return state.c
        n = len(self.cells.primitive)
        values = np.asarray(self.constants(state).values)
        gamma = values.reshape(n, n, -1, 3, 3).sum(2).transpose(0, 2, 1, 3).reshape(3 * n, -1)
        k, E = np.linalg.eigh(self.moves.T @ gamma @ self.moves)
        step = E @ ((E.T @ self.pull(state)) / np.maximum(np.abs(k), _SOFTEST))
        longest = np.abs(self.moves @ step).max()
        return state.c + step * min(1.0, _STEP / max(longest, 1e-300))


@dataclass(frozen=True)
class Populations:
    """All samples, and what each population was drawn from."""

    samples: Evaluated
    drawn: tuple[tuple[Gaussian, int], ...]
    block: np.ndarray

    def weights(self, wanted: Gaussian, rest: np.ndarray, without: int | None = None) -> np.ndarray:
        w = weights(rest + self.samples.displacements, wanted, self.drawn)
        if without is not None:
            w = np.where(self.block == without, 0.0, w)
        return w / w.sum()


@dataclass(frozen=True)
class Found:
    """The end of an iteration with one set of samples."""

    state: State
    solved: bool
    effective: float
    change_THz: float
    determined: int


def effective_basis(
    start: ForceConstants, group: SpaceGroup, how: Sampling
) -> SymmetryAdaptedBasis:
    """Return the basis that Φ and mean forces are expanded in; one serves all temperatures."""
    return symmetry_adapted_basis(
        start.supercell, group, (2,), {2: how.cutoff}, residual_forces=True
    )


def solved(
    problem: Problem, equations: Equations, given: Populations, state: State,
    without: int | None = None,
) -> Found:  # fmt: skip
    """Return the fixed point of (2) for given samples, or where they no longer serve."""
    how = problem.how
    enough = how.effective_share * given.drawn[-1][1]
    mixing, before, change = 0.7, np.inf, np.inf
    ensemble = problem.ensemble(state)
    effective, determined = 0.0, 0
    for _ in range(_ITERATIONS):
        w = given.weights(ensemble, problem.rest, without)
        effective = effective_count(w)
        if without is None and effective < enough:
            return Found(state, False, effective, change, determined)
        x, determined = equations.solved(w, problem.shift(state), state.x)
        fitted = State(x, state.c)
        step = problem.settled(fitted) - state.c
        mixed = State(state.x + mixing * (x - state.x), state.c + mixing * step)
        # F⁰ is a result, nothing that is iterated.
        constant = problem.basis.slices.get(1, slice(0, 0))
        mixed.x[constant] = x[constant]
        now = problem.ensemble(mixed)
        change = apart(now, ensemble) / mixing
        moved = np.abs(problem.moves @ step).max(initial=0.0)
        state, ensemble = mixed, now
        if change < _STILL * how.tolerance_THz and moved < _AT_REST:
            return Found(State(x, problem.settled(fitted)), True, effective, change, determined)
        if change > before:
            mixing = max(mixing / 2, 0.05)
        before = change
    return Found(state, False, effective, change, determined)


def apart(a: Gaussian, b: Gaussian) -> float:
    """Return the root mean square difference of frequencies, THz, signed roots of λ."""
    return float(np.sqrt(np.mean((frequencies(a.eigenvalues) - frequencies(b.eigenvalues)) ** 2)))


def frequencies(values: np.ndarray) -> np.ndarray:
    """Return signed frequencies in THz of λ in eV Å⁻² amu⁻¹."""
    return np.asarray(frequency_THz(jnp.asarray(values)))


def mean_displacement(ensemble: Gaussian) -> float:
    """Return the mean over atoms of their mean squared displacement, Å²."""
    return float(np.trace(ensemble.displacements, axis1=1, axis2=2).mean())


__all__ = [
    "Found",
    "Populations",
    "Problem",
    "Sampling",
    "State",
    "effective_basis",
    "frequencies",
    "mean_displacement",
    "solved",
]
