"""Effective phonons of one crystal at some temperatures: rows like those of harmonic ones."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phojax.finite_temperature.effective import (
    Effective,
    Sampling,
    effective_basis,
    jackknife_error,
    self_consistent,
)
from phojax.force_constants import ForceConstants
from phojax.potentials.contract import Potential
from phojax.screening.analysis import tensors_on
from phojax.screening.prepare import Prepared, Report
from phojax.screening.row import PhononRow, row_from_force_constants
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.units import EV_PER_A3_IN_GPA, frequency_THz

NETWORK = 10_000
"""Parameters from which on forces of samples are computed in single precision by default."""


_SCALARS = ("frequency_min_THz", "frequency_max_THz", "acoustic_cutoff_THz")
_AT_TEMPERATURE = ("msd_total_mean_A2", "msd_axis_mean_A2", "msd_axis_max_A2")


@dataclass(frozen=True)
class EffectiveRow:
    """Effective phonons at one temperature.

    Attributes:
        temperature: K.
        row: As of harmonic force constants, at this temperature alone; its record has a section
            "effective".
        found: The solution behind it.
    """

    temperature: float
    row: PhononRow
    found: Effective


def sampling_potential(model: Potential, precision: str | None = None) -> tuple[Potential, str]:
    """Return the potential in the precision that samples are evaluated in, and its name.

    Args:
        model: In float64.
        precision: "single", "double", or None for single where it is a network: statistical errors
            are far larger than those of rounding.
    """
    size = sum(np.size(x) for x in jax.tree.leaves(model.params))
    name = precision or ("single" if size > NETWORK else "double")
    return (model.astype(jnp.float32) if name == "single" else model), name


def effective_rows(
    name: str,
    made: Prepared,
    potential: Potential,
    settings: PhononSettings,
    how: Sampling,
    temperatures: Sequence[float],
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
) -> list[EffectiveRow]:
    """Return the rows of a crystal at some temperatures, in their order.

    The highest is solved first; each solution is where the next one starts.

    Args:
        name: Of the crystal.
        made: Harmonic force constants, imaginary modes and all.
        potential: Of the forces, in the precision wanted.
        settings: Of the harmonic calculation.
        how: Of the sampling.
        temperatures: K.
        report: Called with the stage and how much of it is done.
        checkpoint: Where samples are kept and found again.

    Raises:
        InputError: as `self_consistent`.
    """
    checkpoint = checkpoint or Checkpoint(None)
    start: ForceConstants = made.main.force_constants
    basis = effective_basis(start, made.group, how)
    rows: dict[float, EffectiveRow] = {}
    for T in sorted(temperatures, reverse=True):
        samples = f"samples-{T:g}"
        done = checkpoint.load(samples)
        begin = time.monotonic()
        found = self_consistent(
            potential, start, made.group, T, jax.random.key(settings.seed), how, basis=basis,
            on_part=lambda stage, k, of, T=T: report(f"{T:g} K: {stage}", k, of), done=done,
            on_population=lambda file=samples, kept=done: checkpoint.save(file, **kept),
        )  # fmt: skip
        report(f"{T:g} K: modes and descriptors", 0, 0)
        rows[T] = _row(name, made, potential, settings, how, found)
        rows[T].row.record["effective"]["wall_time_s"] = time.monotonic() - begin
        if found.stable:
            # At rest: the next one has centroids of its own.
            start = replace(found.force_constants, supercell=start.supercell)
    return [rows[T] for T in temperatures]


def _row(name, made: Prepared, potential, settings, how: Sampling, found: Effective):
    T = found.temperature
    here = replace(settings, temperatures=(T,))
    origin = f"{potential.name}, effective at {T:g} K ({how.statistics})"
    row = row_from_force_constants(name, found.force_constants, here, origin)
    row.record["effective"] = effective_record(found, how) | {
        "potential": potential.name,
        "msd_total_mean_error_A2": _msd_error(found, row, here),
    }
    for flag in found.flags:
        row.record["flags"].append(f"effective_{flag}")
    if found.flags:
        row.record["notes"].append(f"effective force constants at {T:g} K: {found.message}")
    return EffectiveRow(T, row, found)


def _msd_error(found: Effective, row: PhononRow, settings: PhononSettings) -> float | None:
    """Return the standard error of the mobile ions' MSD on the mesh; None where none is known."""
    if not found.left_out:
        return None
    group = row.group if row.analysis.reduced_by_symmetry else None
    each = tensors_on(found.left_out, row.analysis.mesh, settings, group)
    mobile = row.analysis.mobile
    total = [np.trace(U[0][mobile], axis1=1, axis2=2).mean() for U, _ in each]
    return float(jackknife_error(total))


def effective_summary(one: EffectiveRow) -> dict[str, Any]:
    """Return what a table says of the effective phonons at a temperature."""
    own, T = one.row.record, f"{one.temperature:g}"
    return {
        "stable_on_mesh": own["stable"],
        **{name: own[name] for name in _SCALARS},
        **{name: own[name][T] for name in _AT_TEMPERATURE},
        "pdos_center_THz": own["pdos_center_THz"],
        "flags": own["flags"],
        **own["effective"],
    }


def effective_record(found: Effective, how: Sampling) -> dict[str, Any]:
    """Return what there is to know of the solution beside its phonons."""
    nu = np.asarray(frequency_THz(jnp.asarray(found.ensemble.eigenvalues)))
    spread = np.sqrt(np.trace(found.ensemble.displacements, axis1=1, axis2=2))
    centroids = found.force_constants.supercell.primitive.positions
    return {
        "temperature_K": found.temperature,
        "statistics": how.statistics,
        "converged": found.converged,
        "stable": found.stable,
        "supercell_frequency_min_THz": float(nu[0]),
        "frequency_error_THz": _known(found.error_THz),
        "msd_relative_error": _known(found.error_msd),
        "displacement_rms_max_A": float(spread.max()),
        "mean_force_eV_A": found.mean_force,
        "centroids_A": np.asarray(centroids).tolist(),
        "free_energy_eV_per_cell": _known(found.free_energy),
        "correction_eV_per_cell": _known(found.correction),
        "correction_error_eV_per_cell": _known(found.correction_error),
        "stress_GPa": (EV_PER_A3_IN_GPA * found.stress).tolist(),
        "stress_error_GPa": _known(EV_PER_A3_IN_GPA * found.stress_error),
        "force_calls": found.force_calls,
        "effective_samples": found.samples,
        "populations": len(found.history),
        "unknowns": found.unknowns,
        "determined": found.determined,
        "message": found.message,
        "history": list(found.history),
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


__all__ = [
    "EffectiveRow",
    "effective_record",
    "effective_rows",
    "effective_summary",
    "sampling_potential",
]
