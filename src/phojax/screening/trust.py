"""How far force constants of a potential can be trusted, in the record and in words."""

from typing import Any

import numpy as np

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.force_constants.hessian import HessianResult
from phojax.potentials.contract import Potential
from phojax.relax import Relaxation
from phojax.screening.analysis import Analysis, lowest_frequency, tensors_on
from phojax.screening.mode_table import ModeTable
from phojax.screening.prepare import Prepared
from phojax.screening.settings import PhononSettings

_ROUGH_MSD = 0.1  # relative change of the MSD between width 0 and the width in use
_ROUGH_THZ = 0.1  # change of the lowest frequency, likewise
_NOISY = 0.05  # relative statistical error of the MSD
_UNSYMMETRIC = 0.01  # antisymmetric part of the force constants of an energy, relative
_UNDETERMINED = 0.05  # relative difference between two ways to one row of force constants


def width_sensitivity(
    made: Prepared,
    found: Analysis,
    settings: PhononSettings,
    flags: list[str],
    notes: list[str],
) -> dict:
    """Return U and the lowest frequency at width 0 and at the width in use, with errors.

    Args:
        made: Force constants at both.
        found: The analysis of those in use.
        settings: Of the calculation.
        flags: Added to.
        notes: Likewise.
    """
    crystal = made.main.force_constants.supercell.primitive
    mobile = np.array([s == settings.mobile for s in crystal.symbols])
    mesh = gamma_mesh(settings.mesh or mesh_divisions(crystal, settings.mesh_spacing), made.group)
    labels = [f"{T:g}" for T in settings.temperatures]

    def numbers(U: np.ndarray, modes: ModeTable) -> np.ndarray:
        """The lowest frequency, then the MSD of the mobile ions at every temperature."""
        total = np.trace(U, axis1=-2, axis2=-1)[:, mobile].mean(axis=1)
        return np.array([lowest_frequency(modes, modes.translations)[0], *total])

    def entry(result: HessianResult) -> dict:
        each = result.leave_one_out()
        known = result is made.main
        if not known:
            each = [result.force_constants, *each]
        solved = tensors_on(each, mesh, settings, made.group) if each else []
        if known:
            solved = [(found.tensors, found.on_mesh), *solved]
        values, *rest = [numbers(U, modes) for U, modes in solved]
        parts, count = np.array(rest), len(rest)
        errors = np.sqrt((count - 1) * parts.var(axis=0)) if count else np.full(len(values), np.nan)
        return {
            "width_A": result.width,
            "frequency_min_mesh_THz": float(values[0]),
            "frequency_min_mesh_error_THz": float(errors[0]),
            "msd_total_mean_A2": dict(zip(labels, values[1:].tolist(), strict=True)),
            "msd_total_mean_error_A2": dict(zip(labels, errors[1:].tolist(), strict=True)),
        }

    plain = entry(made.plain)
    main = entry(made.main) if made.main.width else plain
    T, symbol = labels[0], settings.mobile
    # Without a single stable mode there is no displacement to compare.
    before, after = plain["msd_total_mean_A2"][T], main["msd_total_mean_A2"][T]
    changed = after / before - 1 if before else (np.inf if after else 0.0)
    shifted = main["frequency_min_mesh_THz"] - plain["frequency_min_mesh_THz"]
    rough = abs(changed) > _ROUGH_MSD or abs(shifted) > _ROUGH_THZ
    if rough:
        flags.append("rough_potential")
        notes.append(
            f"rough potential: from width 0 to {made.main.width:g} Å the MSD of {symbol} at {T} K "
            f"changes by {100 * changed:+.0f} %, the lowest frequency by {shifted:+.2f} THz"
        )
    if made.main.width and len(made.main.pairs) < 2:
        flags.append("no_statistical_error")
        notes.append("one pair of displacements gives no statistical error: raise --pairs")
    error = main["msd_total_mean_error_A2"][T] / after if after else 0.0
    if error > _NOISY:
        flags.append("noisy_average")
        notes.append(f"the MSD has a statistical error of {100 * error:.0f} %: raise --pairs")
    return {"width_sensitivity": {"plain": plain, "used": main}, "rough": bool(rough)}


def relaxation_flags(relaxation: Relaxation | None, settings) -> tuple[list[str], list[str]]:
    """Return flags and notes on a relaxation; None stands for none asked for."""
    if relaxation is None:
        return ["not_relaxed"], ["the structure was not relaxed: forces and stress may remain"]
    if not relaxation.converged:
        return ["relaxation_not_converged"], [f"relaxation: {relaxation.message}"]
    if not settings.relax_cell:
        left = relaxation.stress_max_eV_A3
        size = f"of {left:.2g} eV/Å³" if np.isfinite(left) else "of unknown size"
        return ["cell_not_relaxed"], [f"the cell was held: a stress {size} remains"]
    return [], []


def relaxation_record(relaxation: Relaxation | None) -> dict | None:
    """Return the end of a relaxation: energy, residual forces and stress, and why it stopped."""
    if relaxation is None:
        return None
    return {
        "converged": relaxation.converged,
        "steps": relaxation.steps,
        "energy_eV_atom": relaxation.energy_eV / len(relaxation.structure),
        "force_max_eV_A": relaxation.force_max_eV_A,
        "stress_max_eV_A3": relaxation.stress_max_eV_A3,
        "message": relaxation.message,
    }


def derivative_record(
    made: Prepared, potential: Potential, flags: list[str], notes: list[str]
) -> dict[str, Any]:
    """Return how force constants were made, and what shows that forces are no gradient."""
    result = made.main
    record: dict[str, Any] = {
        "method": "autodiff" if result.step is None else "displacements",
        "displacement_A": result.step,
        "width_A": result.width,
        "pairs": int(result.pairs.shape[0]) if result.width else 0,
        "hessian_vector_products": result.columns,
        "from": "primitive cell" if result.points else "supercell",
        "standard_error_eV_A2": result.standard_error,
        "antisymmetric_over_symmetric": result.antisymmetric,
        "conservative": potential.conservative,
    }
    if result.step is not None:
        notes.append(
            f"force constants by central differences of {result.step:g} Å"
            + ("" if potential.derivatives == 1 else ", the graph made anew at each displacement")
        )
    # Of the plain Hessian: an average over few displacements is symmetric up to its noise only.
    apart = made.plain.antisymmetric
    if potential.conservative and apart > _UNSYMMETRIC:
        flags.append("force_constants_asymmetric")
        notes.append(
            f"force constants of an energy are symmetric; these are not, by "
            f"{100 * apart:.2g} %: the forces are no gradient, the energy is not "
            "periodic, or differences are too coarse"
        )
    if made.noise is None:
        return record
    graph, gauge = max(made.noise.differences.values()), made.noise.gauge
    record["row_noise_graph"], record["row_noise_gauge"] = graph, gauge
    flags.append("not_conservative")
    notes.append(
        f"{potential.name} predicts its forces; they are no gradient of an energy. Force "
        f"constants are their symmetrised Jacobian, at a graph that "
        f"{'is made anew' if result.step else 'is held'}: an antisymmetric part of "
        f"{100 * result.antisymmetric:.2g} % was removed together with what breaks the sum rule. "
        f"One row changes by {100 * graph:.2g} % between the held and the renewed graph"
        + ("" if gauge is None else f", by {100 * gauge:.2g} % with other frames on the edges")
    )
    if max(graph, gauge or 0.0) > _UNDETERMINED:
        flags.append("force_constants_undetermined")
    return record
