"""Effective harmonic force constants at a temperature: self-consistent Gaussian averages.

The Gaussian ensemble ρ of force constants Φ and centroids r (`gaussian`) that comes nearest to the
crystal at T, in the sense of the least Gibbs-Bogoliubov free energy

    F[Φ, r] = F_Φ + ⟨V - V_Φ⟩_ρ,   V_Φ = ½ (R - r)ᵀ Φ (R - r)                              (1)

is where its own averages return Φ, and no mean force is left on the centroids:

    Φ = ⟨∇∇V⟩_ρ,   ⟨f⟩_ρ = 0                                                            (2)

`self_consistent` solves (2) with samples: Φ is fitted to their forces in the basis of the space
group (`samples`), centroids follow by Newton steps along the displacements that the space group
allows, and samples are weighed anew at each step (`gaussian.weights`), all populations together.
Where fewer samples are left effective than a share of the last population, a new one is drawn from
the Gaussian reached; where (2) holds and the error is too large, one of twice the size.

Errors are those of the solution of (2) itself: it is solved again with each block of samples left
out (jackknife). The statistical error shrinks with the number of samples; that of the Gaussian form
does not: Φ is exact to first order in the anharmonicity, and its frequencies are those of (1), not
of the response: an instability of the free energy needs ⟨∇∇∇V⟩ as well, and is not looked for.
Where the solution has λ <= 0 there is no such Gaussian, and that is told.
Source: Hooton, Phil. Mag. 46, 422 (1955); Errea, Calandra, Mauri, Phys. Rev. B 89, 064302 (2014),
sections II and III; Monacelli et al., J. Phys.: Condens. Matter 33, 363001 (2021), section 2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phojax.checks import fail
from phojax.descriptors.thermodynamics import oscillator_free_energy
from phojax.finite_temperature.fixed_point import (
    Populations,
    Problem,
    Sampling,
    State,
    effective_basis,
    frequencies,
    mean_displacement,
    solved,
)
from phojax.finite_temperature.gaussian import Gaussian, check_statistics, normals
from phojax.finite_temperature.samples import Equations, Evaluated, Surface, joined
from phojax.force_constants.basis import SymmetryAdaptedBasis
from phojax.force_constants.container import ForceConstants
from phojax.potentials.contract import Potential
from phojax.symmetry import SpaceGroup
from phojax.units import HBAR, KB

_FARTHEST = 1.5  # Å: beyond it centroids or root-mean-square displacements have run away


@dataclass(frozen=True)
class Effective:
    """The solution of (2), or how far it came.

    Attributes:
        temperature: K.
        force_constants: Φ, of the crystal at its centroids.
        ensemble: ρ.
        left_out: Φ with each block of samples left out; the spread gives the error of anything.
        error_THz: Root mean square over modes of the standard error of a frequency.
        error_msd: Relative standard error of the mean squared displacement of all atoms.
        mean_force: Largest that is left on a centroid along what symmetry allows, eV/Å.
        correction: ⟨V - V_Φ⟩ of (1), the energy at rest included, eV per primitive cell.
        correction_error: Its standard error.
        free_energy: (1) over the modes of the supercell but the translations, eV per primitive
            cell; NaN where a mode is no oscillator.
        stress: ⟨∂V/∂ε⟩/V, eV/Å³: -(thermal pressure and all); NaN from a potential without.
        stress_error: Largest standard error of its components.
        force_calls: Evaluations of the supercell.
        samples: That are effective.
        unknowns: Of Φ and the mean forces.
        determined: How many of them the samples determine.
        stable: Whether all λ of the supercell's modes lie above the floor of the sampling.
        converged: Whether (2) holds within the error, and that is within the tolerances.
        history: A record per population.
        flags: What to doubt.
        message: In words.
    """

    temperature: float
    force_constants: ForceConstants
    ensemble: Gaussian
    left_out: tuple[ForceConstants, ...]
    error_THz: float
    error_msd: float
    mean_force: float
    correction: float
    correction_error: float
    free_energy: float
    stress: Float[np.ndarray, "3 3"]
    stress_error: float
    force_calls: int
    samples: float
    unknowns: int
    determined: int
    stable: bool
    converged: bool
    history: tuple[dict[str, Any], ...]
    flags: tuple[str, ...]
    message: str

    def error_of(self, function: Callable[[ForceConstants], Any]) -> Float[np.ndarray, "*shape"]:
        """Return the jackknife standard error of any function of the force constants."""
        return jackknife_error([function(one) for one in self.left_out])


def jackknife_error(values: list[Any]) -> Float[np.ndarray, "*shape"]:
    """Return the standard error from values with one block left out each."""
    each = np.stack([np.asarray(v, float) for v in values])
    k = len(each)
    return np.asarray(np.sqrt((k - 1) / k * ((each - each.mean(0)) ** 2).sum(0)))


def self_consistent(
    potential: Potential,
    start: ForceConstants,
    group: SpaceGroup,
    temperature: float,
    key: jax.Array,
    how: Sampling | None = None,
    *,
    basis: SymmetryAdaptedBasis | None = None,
    batch: int | None = None,
    on_part: Callable[[str, int, int], None] = lambda stage, done, of: None,
    done: dict[str, np.ndarray] | None = None,
    on_population: Callable[[], None] = lambda: None,
) -> Effective:
    """Return effective harmonic force constants at a temperature (host loop).

    The cell is held; the lowest frequencies of the start may be imaginary.

    Args:
        potential: Of forces; the precision of its parameters is theirs.
        start: Force constants to start from, of the crystal at rest: harmonic ones, or those of
            another temperature.
        group: Space group of the primitive cell.
        temperature: K.
        key: Random key.
        how: Settings.
        basis: From `effective_basis`, to be shared among temperatures.
        batch: Supercells at a time.
        on_part: Called with (stage, samples done, in all).
        done: Samples computed before, by name; new ones are added, so that the caller can store
            them and go on later.
        on_population: Called after each population.

    Raises:
        InputError: temperatures or settings without meaning, unknown elements, forces that are not
            finite.
    """
    how = how or Sampling()
    check_statistics(how.statistics, temperature)
    problem = Problem(start, group, temperature, how, basis)
    if not len(problem.basis):
        raise fail("a basis without unknowns", "some", "Take a larger cutoff or supercell")
    surface = Surface(potential, problem.cells, batch)
    done = {} if done is None else done
    state, size = problem.start, how.pairs
    parts: list[Evaluated] = []
    drawn: list[tuple[Gaussian, int]] = []
    history: list[dict[str, Any]] = []
    flags: list[str] = []
    found = given = None
    errors: tuple[float, float] = (np.inf, np.inf)
    left_out: list[State] = []
    message = ""
    while True:
        number = len(parts)
        ensemble = problem.ensemble(state)
        widest = np.sqrt(np.trace(ensemble.displacements, axis1=1, axis2=2).max())
        if max(widest, np.abs(problem.shift(state)).max()) > _FARTHEST or not np.isfinite(widest):
            flags.append("diverged")
            message = f"atoms move by {widest:.2f} Å in the root mean square: it diverges"
            break
        new = _drawn(problem, surface, ensemble, key, number, size, done, on_part)
        on_population()
        parts.append(new)
        drawn.append((ensemble, len(new)))
        blocks = [np.arange(len(part)) // 2 % how.blocks for part in parts]
        given = Populations(joined(parts), tuple(drawn), np.concatenate(blocks))
        equations = Equations(given.samples, problem.basis)
        on_part("self-consistency", 0, 0)
        found = solved(problem, equations, given, state)
        state = found.state
        record: dict[str, Any] = {
            "samples": len(given.samples), "effective": found.effective,
            "change_THz": found.change_THz, "self_consistent": found.solved,
            "lowest_THz": float(frequencies(problem.ensemble(state).eigenvalues)[0]),
        }  # fmt: skip
        if found.solved and len(np.unique(given.block)) > 1:
            left_out = [
                solved(problem, equations, given, state, without=k).state
                for k in np.unique(given.block).tolist()
            ]
            errors = _errors(problem, left_out, state)
            record |= {"error_THz": errors[0], "error_msd": errors[1]}
        history.append(record)
        if found.solved and errors[0] <= how.tolerance_THz and errors[1] <= how.tolerance_msd:
            message = "converged"
            break
        if len(parts) == how.populations or len(given.samples) >= how.samples:
            message = f"not converged with {len(given.samples)} samples in {len(parts)} populations"
            flags.append("not_converged")
            break
        if found.solved:
            size *= 2
    return _result(problem, state, found, given, left_out, errors, history, flags, message)


def _drawn(
    problem: Problem, surface: Surface, ensemble: Gaussian, key, number: int, size: int,
    done: dict[str, np.ndarray], on_part,
) -> Evaluated:  # fmt: skip
    """Return a population: evaluated here, or taken from what was done before."""
    names = ("displacements", "energies", "forces", "stresses")
    xi = normals(jax.random.fold_in(key, number), size, len(ensemble.variances), problem.how.kind)
    u = ensemble.of_normals(xi) + ensemble.centroids - problem.rest
    kept = done.get(f"{number}-displacements")
    if kept is not None and kept.shape == u.shape and np.abs(kept - u).max() < 1e-6:
        return Evaluated(*(done[f"{number}-{name}"] for name in names))
    stage = f"samples of population {number + 1}"
    new = surface(u, lambda k, of: on_part(stage, k, of))
    done |= {f"{number}-{name}": getattr(new, name) for name in names}
    return new


def _errors(problem: Problem, left_out: list[State], state: State) -> tuple[float, float]:
    ensembles = [problem.ensemble(one) for one in left_out]
    nu = jackknife_error([frequencies(one.eigenvalues) for one in ensembles])
    msd = jackknife_error([mean_displacement(one) for one in ensembles])
    return float(np.sqrt(np.mean(nu**2))), float(msd / mean_displacement(problem.ensemble(state)))


def _result(problem, state, found, given, left_out, errors, history, flags, message) -> Effective:
    how, cells = problem.how, problem.cells
    copies = len(cells.images)
    ensemble = problem.ensemble(state)

    def at_centroids(one: State) -> ForceConstants:
        x = cells.primitive.positions + jnp.asarray(problem.primitive_shift(one))
        moved = replace(cells, primitive=replace(cells.primitive, positions=x))
        return replace(problem.constants(one), supercell=moved)

    correction = correction_error = stress_error = np.nan
    stress = np.full((3, 3), np.nan)
    calls = effective = determined = 0
    if found is not None:
        determined, effective, calls = found.determined, found.effective, len(given.samples)
        volume = float(cells.structure.volume)
        S = given.samples.centred_stresses(problem.shift(state), volume)
        R = problem.rotations
        S = np.einsum("oab,sbc,odc->sad", R, S, R, optimize=True) / len(R)
        E = given.samples.energies - ensemble.harmonic_energy(
            problem.rest + given.samples.displacements
        )

        def means(without=None):
            w = given.weights(ensemble, problem.rest, without)
            return w @ E / copies, np.einsum("s,sab->ab", w, S)

        correction, stress = means()
        each = [means(k) for k in np.unique(given.block).tolist()]
        if len(each) > 1:
            correction_error = float(jackknife_error([e for e, _ in each]))
            stress_error = float(jackknife_error([s for _, s in each]).max())
    softest = float(ensemble.eigenvalues[0])
    stable = ensemble.floored == 0
    if not stable:
        flags.append("imaginary" if softest <= 0 else "softer_than_floor")
        lowest = float(frequencies(ensemble.eigenvalues)[0])
        message += (
            f"; {ensemble.floored} modes of the supercell are below {how.floor_THz:g} THz (lowest "
            f"{lowest:.2f} THz), sampled with a width that is not their own"
        )
    if determined < len(problem.basis):
        flags.append("undetermined")
        message += f"; the samples determine {determined} of {len(problem.basis)} unknowns"
    pull = problem.pull(state) if len(state.c) else np.zeros(0)
    return Effective(
        temperature=problem.temperature,
        force_constants=at_centroids(state),
        ensemble=ensemble,
        left_out=tuple(at_centroids(one) for one in left_out),
        error_THz=errors[0],
        error_msd=errors[1],
        mean_force=float(np.abs(problem.moves @ pull).max(initial=0.0)),
        correction=float(correction),
        correction_error=correction_error,
        free_energy=float(correction) + _harmonic(ensemble, problem) / copies,
        stress=stress,
        stress_error=stress_error,
        force_calls=calls,
        samples=effective,
        unknowns=len(problem.basis),
        determined=determined,
        stable=stable,
        converged=message.startswith("converged"),
        history=tuple(history),
        flags=tuple(flags),
        message=message,
    )


def _harmonic(ensemble: Gaussian, problem: Problem) -> float:
    """Return F_Φ of the supercell in eV; NaN where a mode is no oscillator."""
    values, T = ensemble.eigenvalues, problem.temperature
    if values[0] <= 0:
        return np.nan
    if problem.how.statistics == "classical":
        return float(KB * T * np.log(HBAR * np.sqrt(values) / (KB * T)).sum())
    return float(np.sum(oscillator_free_energy(jnp.asarray(values), T)))


__all__ = [
    "Effective",
    "Sampling",
    "effective_basis",
    "jackknife_error",
    "self_consistent",
]
