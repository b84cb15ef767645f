"""Potentials against reference forces: forces, force constants, frequencies, displacements.

Both sides go the same way: from the forces on the same displaced supercells to Φ² (and Φ³, where
the set holds enough) by the same solver, and on to modes. What differs comes from the forces alone.
Both are taken at the geometry of the reference; a potential's own forces on the undisplaced
crystal, which it would relax away, are subtracted before the solver, not from the errors of forces.

    RMSE = √(mean over atoms and components of (found - reference)²)                   (1)

of Φ² over all elements, zeros far away included, of Φ³ over triplets that are not 0 on both
sides. Independent of how many of these there are is the relative error
‖found - reference‖ / ‖reference‖.
Source: PHYSICS F3; the paper's figures S3 to S5 and S8.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phojax.checks import InputError, fail
from phojax.force_constants import ForceConstants
from phojax.force_constants.basis import (
    SymmetryAdaptedBasis,
    symmetry_adapted_basis,
)
from phojax.force_constants.displacements import (
    DisplacementSet,
    computed_forces,
    force_constants_from_single,
)
from phojax.force_constants.fit import fitted
from phojax.force_constants.shells import THIRD_SHELL, third_order_cutoff
from phojax.force_constants.sum_rules import enforced, group_average, preserving
from phojax.force_constants.third_container import ThirdOrder
from phojax.potentials.contract import Potential
from phojax.screening.analysis import Analysis, analysed, lowest_frequency
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.symmetry import SpaceGroup

_AT_A_TIME = 8  # supercells between two checkpoints

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Lattice:
    """What the forces on displaced supercells say of a crystal.

    Attributes:
        second: Sum rules, permutation symmetry, and the space group enforced.
        third: None where the set is one of single displacements, or too small.
        analysis: Modes and descriptors.
        rest_forces: (atom, 3) of the undisplaced supercell as the fit finds them, eV/Å; None for
            single displacements.
        fit_relative: ‖F - fit‖ / ‖F‖, what neither order explains; None for single displacements.
        remarks: What is unusual about forces and fit.
    """

    second: ForceConstants
    third: ThirdOrder | None
    analysis: Analysis
    rest_forces: np.ndarray | None = None
    fit_relative: float | None = None
    remarks: tuple[str, ...] = ()


def forces_of(
    potential: Potential,
    given: DisplacementSet,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
    name: str = "forces",
) -> tuple[Float[np.ndarray, "set atom 3"], Float[np.ndarray, "atom 3"]]:
    """Return forces on the displaced and on the undisplaced supercell, eV/Å.

    Args:
        potential: Any.
        given: Its forces are not used.
        report: Called with a stage and how much of it is done.
        checkpoint: Where finished parts are kept and found again.
        name: Of the parts there.

    Raises:
        InputError: unknown elements, or forces that are not finite.
    """
    checkpoint = checkpoint or Checkpoint(None)
    moves = np.concatenate([np.zeros((1, *given.displacements.shape[1:])), given.displacements])
    found = checkpoint.load(name).get("forces", np.zeros((0, *moves.shape[1:])))
    while len(found) < len(moves):
        here = moves[len(found) : len(found) + _AT_A_TIME]
        part = replace(given, displacements=here, forces=None)
        more = computed_forces(potential, part).forces
        assert more is not None
        found = np.concatenate([found, more])
        checkpoint.save(name, forces=found)
        report(f"forces of {potential.name}", len(found), len(moves))
    return found[1:], found[0]


def lattice_solver(
    given: DisplacementSet, group: SpaceGroup, settings: PhononSettings, third: bool = True
) -> tuple[Callable[[np.ndarray], Lattice], list[str]]:
    """Return the function from forces (set, atom, 3) to the lattice, and remarks on the set.

    Args:
        given: One atom each, or all atoms displaced; its forces are not used.
        group: Of the primitive cell.
        settings: Of the analysis.
        third: Fit third order together with second, where there are enough displacements.

    Raises:
        InputError: displacements that do not determine Φ².
    """
    cells = given.supercell
    kept = preserving(group, cells)
    single = bool(np.all((np.abs(given.displacements).max(axis=2) > 1e-10).sum(axis=1) == 1))

    def analysis(second: ForceConstants) -> tuple[ForceConstants, Analysis]:
        average = jnp.asarray(group_average(second.values, cells, kept))
        symmetric = replace(second, values=average)
        second = enforced(symmetric)[0]
        return second, analysed(second, group, settings)

    if single:

        def from_single(forces: np.ndarray) -> Lattice:
            raw = force_constants_from_single(replace(given, forces=forces), group)
            second, modes = analysis(raw)
            return Lattice(second, None, modes)

        return from_single, ["single displacements: no third order"] if third else []

    notes: list[str] = []
    # The forces that symmetry leaves to the undisplaced crystal are no force constants.
    bases = [symmetry_adapted_basis(cells, group, orders=(2,), residual_forces=True)]
    if third:
        cutoff = third_order_cutoff(cells)
        both = symmetry_adapted_basis(
            cells, group, orders=(2, 3), cutoffs={3: cutoff}, residual_forces=True
        )
        if _determined(given, both):
            bases = [both]
            notes.append(f"third order up to {cutoff:.2f} Å, {THIRD_SHELL} shells of neighbours")
        else:
            notes.append(
                f"{len(given)} supercells do not determine the {len(both)} unknowns of second and "
                "third order: second order alone"
            )

    def from_fit(forces: np.ndarray) -> Lattice:
        found = fitted(replace(given, forces=forces), bases[0], folds=1)
        assert found.second is not None
        second, modes = analysis(found.second)
        rest = np.repeat(np.asarray(found.residual_forces), len(cells.images), axis=0)
        return Lattice(second, found.third, modes, rest, found.relative, found.warnings)

    return from_fit, notes


def _determined(given: DisplacementSet, basis: SymmetryAdaptedBasis) -> bool:
    """Return whether displacements determine all unknowns: forces enter the answer nowhere."""
    if given.displacements.size < len(basis):
        return False
    try:
        fitted(replace(given, forces=np.ones_like(given.displacements)), basis, folds=1)
    except InputError:
        return False
    return True


def force_errors(
    symbols: Sequence[str],
    reference: Float[np.ndarray, "set atom 3"],
    found: Float[np.ndarray, "set atom 3"],
) -> dict[str, Any]:
    """Return eq. (1) in meV/Å, over all atoms and by element, with what it is to be compared to."""
    symbols_of = np.array(symbols)
    record = _errors(reference, found, "meV_A")
    record["by_element"] = {
        symbol: _errors(reference[:, mine], found[:, mine], "meV_A")
        for symbol in sorted(set(symbols))
        for mine in [symbols_of == symbol]
    }
    return record


def lattice_errors(reference: Lattice, found: Lattice, settings: PhononSettings) -> dict[str, Any]:
    """Return errors of force constants, frequencies, displacements, and who is stable.

    Φ² in meV/Å², by pairs of elements, too; Φ³ in meV/Å³; frequencies in THz, modes of a q point
    paired in order; MSD (one axis, mean) in Å² by temperature and element.
    """
    cells = reference.second.supercell
    rows = np.array(cells.primitive.symbols)
    columns = np.repeat(rows, len(cells.images))
    ours, theirs = np.asarray(found.second.values), np.asarray(reference.second.values)
    record: dict[str, Any] = {"phi2": _errors(theirs, ours, "meV_A2")}
    record["phi2"]["by_elements"] = {
        f"{a}-{b}": _errors(theirs[pair], ours[pair], "meV_A2")
        for a in sorted(set(rows))
        for b in sorted(set(rows))
        if a <= b
        for pair in [
            ((rows[:, None] == a) & (columns == b)) | ((rows[:, None] == b) & (columns == a))
        ]
    }
    if reference.third is not None and found.third is not None:
        ours, theirs = np.asarray(found.third.values), np.asarray(reference.third.values)
        inside = kept_elements(theirs, ours)
        record["phi3"] = _errors(theirs[inside], ours[inside], "meV_A3")
    record |= _mode_errors(reference.analysis, found.analysis, settings)
    if found.fit_relative is not None:
        record["fit_relative_residual"] = found.fit_relative
        record["reference_fit_relative_residual"] = reference.fit_relative
    return record


def kept_elements(reference: np.ndarray, found: np.ndarray) -> np.ndarray | slice:
    """Return which atoms of Φ count: all pairs; of triplets those that one side has at all."""
    if reference.ndim == 4:
        return slice(None)
    return np.any((reference != 0) | (found != 0), axis=(3, 4, 5))


def _mode_errors(reference: Analysis, found: Analysis, settings: PhononSettings) -> dict[str, Any]:
    if not np.array_equal(reference.on_mesh.q, found.on_mesh.q):
        raise fail("two meshes", "force constants with the same symmetry on both sides")
    theirs, ours = reference.on_mesh.frequencies_THz, found.on_mesh.frequencies_THz
    weights = reference.on_mesh.weights / theirs.shape[1]
    apart = ours - theirs
    record: dict[str, Any] = {
        "frequency_rmse_THz": float(np.sqrt(np.sum(weights[:, None] * apart**2))),
        "frequency_bias_THz": float(np.sum(weights[:, None] * apart)),
        "frequency_max_error_THz": float(np.abs(apart).max()),
        "frequency_modes": int(reference.mesh.full_q.shape[0] * theirs.shape[1]),
    }
    for label, of in (("reference_", reference), ("", found)):
        lowest = min(lowest_frequency(t, t.translations)[0] for t in (of.on_mesh, of.on_path))
        record[f"{label}frequency_min_THz"] = lowest
        record[f"{label}stable"] = bool(lowest >= -settings.stability_THz)
    record["msd"] = {}
    for k, T in enumerate(settings.temperatures):
        record["msd"][f"{T:g}"] = {
            symbol: {"reference_A2": a, "A2": b, "relative_error": b / a - 1 if a else None}
            for symbol, atoms in zip(reference.groups[1:], reference.members[1:], strict=True)
            for a, b in [[_msd(of.tensors[k], atoms) for of in (reference, found)]]
        }
    return record


def _msd(U: np.ndarray, atoms: np.ndarray) -> float:
    return float(np.trace(U[atoms], axis1=1, axis2=2).mean() / 3)


def _errors(reference: np.ndarray, found: np.ndarray, unit: str) -> dict[str, Any]:
    """Return errors of arrays in eV, in meV."""
    apart = np.ravel(found - reference)
    size = float(np.linalg.norm(reference))
    return {
        f"rmse_{unit}": 1e3 * float(np.sqrt(np.mean(apart**2))),
        f"mae_{unit}": 1e3 * float(np.mean(np.abs(apart))),
        f"max_{unit}": 1e3 * float(np.abs(apart).max()),
        f"reference_rms_{unit}": 1e3 * size / np.sqrt(apart.size),
        "relative": float(np.linalg.norm(apart)) / size if size else None,
        "count": apart.size,
    }


def pooled(entries: Sequence[dict[str, Any]], unit: str) -> dict[str, Any]:
    """Return the errors of several structures together, every element counting alike."""
    count = sum(e["count"] for e in entries)
    if not count:
        raise InputError("no errors to pool; expected at least one structure")
    squares = sum(e["count"] * e[f"rmse_{unit}"] ** 2 for e in entries)
    reference = sum(e["count"] * e[f"reference_rms_{unit}"] ** 2 for e in entries)
    return {
        f"rmse_{unit}": float(np.sqrt(squares / count)),
        f"mae_{unit}": sum(e["count"] * e[f"mae_{unit}"] for e in entries) / count,
        f"max_{unit}": max(e[f"max_{unit}"] for e in entries),
        "relative": float(np.sqrt(squares / reference)) if reference else None,
        "count": count,
    }


__all__ = [
    "Lattice",
    "force_errors",
    "forces_of",
    "kept_elements",
    "lattice_errors",
    "lattice_solver",
    "pooled",
]
