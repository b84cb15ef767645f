"""One crystal to its record: every scalar with its unit in the key, and what there is to doubt."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.formula import Formula

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.checks import InputError
from phojax.descriptors.debye import (
    acoustics,
    debye_frequency,
    debye_temperature,
    gamma_cell_correction,
)
from phojax.descriptors.displacements import cumulative_displacements, msd_axis
from phojax.descriptors.structural import structural_descriptors
from phojax.force_constants import ForceConstants
from phojax.force_constants.hessian import HessianResult
from phojax.force_constants.sum_rules import Residuals, enforced
from phojax.nac import BornCharges, is_neutral, neutral
from phojax.potentials.contract import Potential
from phojax.relax import Relaxation
from phojax.screening.analysis import Analysis, ModeTable, analysed, lowest_frequency, tensors_on
from phojax.screening.prepare import Prepared, Report, check_mobile, prepared
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.screening.user import user_descriptors
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup, space_group

_ROUGH_MSD = 0.1  # relative change of the MSD between width 0 and the width in use
_ROUGH_THZ = 0.1  # change of the lowest frequency, likewise
_WRONG = 0.01  # residual of given force constants, relative to the largest
_NOISY = 0.05  # relative statistical error of the MSD


@dataclass(frozen=True)
class PhononRow:
    """The result for one crystal.

    Attributes:
        record: Scalars, settings, flags; plain Python, ready for JSON.
        arrays: For modes.npz.
        analysis: Everything behind the record.
        force_constants: As used.
        structure: The primitive cell they belong to (relaxed where that was asked for).
        group: Its space group.
    """

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    analysis: Analysis
    force_constants: ForceConstants
    structure: Structure
    group: SpaceGroup


def row_from_potential(
    name: str,
    crystal: Structure,
    potential: Potential,
    settings: PhononSettings,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
    workers: int | None = None,
) -> PhononRow:
    """Return the row of a structure with a potential.

    Args:
        name: Of the crystal.
        crystal: As read, any cell.
        potential: In float64.
        settings: Of the calculation.
        report: Called with the stage and how much of it is done.
        checkpoint: Where finished parts are kept and found again.
        workers: Evaluations at a time (see `hessian`).

    Raises:
        InputError: bad input (elements, mobile ion), or a potential that returns NaN.
    """
    made = prepared(crystal, potential, settings, report, checkpoint, workers)
    report("modes and descriptors", 0, 0)
    origin = {
        "source": "potential",
        "potential": potential.name,
        "potential_provenance": potential.provenance,
    }
    flags, notes = _relaxation_flags(made.relaxation, settings)
    sensitivity = _width_sensitivity(made, settings, flags, notes)
    row = _row(
        name, made.main.force_constants, made.group, settings, origin,
        made.main.residuals, flags, notes,
    )  # fmt: skip
    row.record["relaxation"] = _relaxation_record(made.relaxation)
    row.record["force_constants"] |= {
        "width_A": made.main.width,
        "pairs": int(made.main.pairs.shape[0]) if made.main.width else 0,
        "hessian_vector_products": made.main.columns,
        "standard_error_eV_A2": made.main.standard_error,
    }
    row.record.update(sensitivity)
    notes.append(f"{potential.name} gives no Born charges: no non-analytic term (LO-TO splitting)")
    return row


def row_from_force_constants(
    name: str,
    constants: ForceConstants,
    settings: PhononSettings,
    source: str = "",
    born: BornCharges | None = None,
    notes: tuple[str, ...] = (),
) -> PhononRow:
    """Return the row of a crystal whose force constants are given (from phonopy's files, say).

    Args:
        name: Of the crystal.
        constants: Raw or symmetrised.
        settings: Of the calculation; what concerns potentials is not used.
        source: What made them.
        born: Born charges, for the non-analytic term; as read.
        notes: Remarks of the reader, passed on.

    Raises:
        InputError: no mobile ion.
    """
    crystal = constants.supercell.primitive
    check_mobile(crystal, settings.mobile)
    group = space_group(crystal, settings.symmetry_tolerance)
    symmetric, residuals = enforced(constants)
    flags: list[str] = []
    remarks = list(notes)
    largest = float(np.abs(np.asarray(constants.values)).max())
    for flag, what, residual in (
        ("force_constants_asymmetric", "are not symmetric under exchange", residuals.permutation),
        ("force_constants_break_sum_rule", "break the sum rule", residuals.translation),
    ):
        if residual > _WRONG * largest:
            flags.append(flag)
            remarks.append(
                f"the force constants {what} by {residual:.2g} eV/Å² (largest {largest:.2g}): "
                "check the forces they come from"
            )
    charges, nac = _charges(born, group, settings, flags, remarks)
    origin = {"source": "force constants", "program": source}
    used = symmetric if settings.sum_rules else constants
    row = _row(name, used, group, settings, origin, residuals, flags, remarks, charges)
    row.record["nac"] = nac
    row.record["force_constants"]["sum_rules_enforced"] = settings.sum_rules
    return row


def _charges(
    born: BornCharges | None,
    group: SpaceGroup,
    settings: PhononSettings,
    flags: list[str],
    notes: list[str],
) -> tuple[BornCharges | None, dict[str, Any] | None]:
    """Return the charges to use, made neutral and symmetric, and what that took."""
    if born is None:
        notes.append("no Born charges: no non-analytic term (LO-TO splitting)")
        return None, None
    if not settings.nac:
        flags.append("nac_not_applied")
        notes.append(
            "Born charges are given, but the non-analytic term was not asked for: "
            "longitudinal optic modes near Γ are too low"
        )
        return None, None
    charges, removed = neutral(born, group)
    if not is_neutral(removed):
        flags.append("born_charges_not_neutral")
        notes.append(
            f"Born charges add up to {removed['neutrality']:.2g} e; the excess was taken from "
            "all atoms alike"
        )
    if born.method == "wang":
        notes.append("the file asks for Wang's interpolation of dipoles; Gonze and Lee's was used")
    removed_e = {f"{name}_removed_e": value for name, value in removed.items()}
    return charges, {"method": "Gonze-Lee", **removed_e}


def _row(
    name, constants, group: SpaceGroup, settings, origin, residuals: Residuals, flags, notes,
    born: BornCharges | None = None,
):  # fmt: skip
    found = analysed(constants, group, settings, born)
    crystal = constants.supercell.primitive
    record: dict[str, Any] = {
        "name": name,
        "formula": _formula(crystal),
        **origin,
        "mobile": settings.mobile,
        "atoms": len(crystal),
        "space_group": group.symbol,
        "space_group_number": group.number,
        "volume_A3": float(crystal.volume),
        "cell_A": np.asarray(crystal.cell).tolist(),
        "force_constants": {
            "supercell": [list(row) for row in constants.supercell.matrix],
            "supercell_atoms": len(crystal) * constants.supercell.images.shape[0],
            "residual_permutation_eV_A2": residuals.permutation,
            "residual_translation_eV_A2": residuals.translation,
        },
        "nac_applied": born is not None,
    }
    record |= _spectrum_record(found, settings, flags, notes)
    record |= _displacement_record(found, settings)
    record |= _dos_record(found)
    record |= _coupling_record(found, settings)
    record |= _thermal_record(found, settings)
    record |= _acoustic_record(found, settings, record["stable"], notes)
    structural = asdict(structural_descriptors(crystal, settings.mobile))
    record["structural"] = structural
    record["descriptors"] = user_descriptors(settings.descriptors, found, settings, flags, notes)
    record |= {
        "settings": settings.as_dict(),
        "seed": settings.seed,
        "versions": versions(),
        "flags": flags,
        "notes": notes,
    }
    return PhononRow(record, _arrays(found, settings), found, constants, crystal, group)


def _spectrum_record(found: Analysis, settings, flags: list[str], notes: list[str]) -> dict:
    which = found.on_mesh
    on_mesh, q_mesh = lowest_frequency(which, which.translations)
    on_path, q_path = lowest_frequency(found.on_path, found.on_path.translations)
    lowest, q = min((on_mesh, q_mesh), (on_path, q_path), key=lambda pair: pair[0])
    stable = lowest >= -settings.stability_THz
    count = int(np.sum(which.imaginary))
    if not stable:
        flags.append("imaginary_modes")
        notes.append(
            f"unstable: lowest frequency {lowest:.3f} THz at q = "
            f"({', '.join(f'{x:.4g}' for x in q)}); imaginary modes are left out of the "
            "displacements, which must not be ranked with those of stable crystals"
        )
    elif count:
        flags.append("small_imaginary_modes")
        notes.append(
            f"{count} modes between -{settings.stability_THz} and {settings.smallest_THz} THz "
            "are left out of the displacements"
        )
    return {
        "mesh": list(found.mesh.divisions),
        "mesh_irreducible_q": len(found.mesh.q),
        "mesh_reduced_by_symmetry": found.reduced_by_symmetry,
        "frequency_min_THz": lowest,
        "frequency_min_q": [float(x) for x in q],
        "frequency_min_mesh_THz": on_mesh,
        "frequency_min_path_THz": on_path,
        "frequency_max_THz": max(
            float(table.frequencies_THz.max()) for table in (found.on_mesh, found.on_path)
        ),
        "stable": bool(stable),
        "excluded": {
            "translations_at_gamma": int(np.sum(which.translations)),
            "imaginary_modes": count,
            "imaginary_weight": float(which.weights @ which.imaginary.mean(axis=1)),
        },
        "acoustic_cutoff_THz": float(found.cutoffs.path),
        "acoustic_cutoff_connected_THz": float(found.cutoffs.connected),
        "acoustic_cutoff_mesh_THz": float(found.cutoffs.mesh),
    }


def _elements(found: Analysis):
    """Yield (symbol, atoms) of every element."""
    yield from zip(found.groups[1:], found.members[1:], strict=True)


def _displacement_record(found: Analysis, settings: PhononSettings) -> dict:
    names = (
        "msd_axis_mean_A2", "msd_axis_max_A2", "msd_axis_max_eigenvalue_A2", "msd_total_mean_A2",
        "msd_total_mean_extrapolated_A2", "msd_share_below_low_frequency",
    )  # fmt: skip
    record: dict[str, dict] = {name: {} for name in names}
    fine, rough = (np.prod(m.divisions) ** (1 / 3) for m in (found.mesh, found.coarse))
    for k, T in enumerate(settings.temperatures):
        for row in record.values():
            row[f"{T:g}"] = {}
        for symbol, atoms in _elements(found):
            axis = msd_axis(jnp.asarray(found.tensors[k]), jnp.asarray(atoms))
            total = float(np.trace(found.tensors[k][atoms], axis1=1, axis2=2).mean())
            # The missing cell at Γ makes an error of order 1/n: two meshes give the limit.
            other = float(np.trace(found.tensors_coarse[k][atoms], axis1=1, axis2=2).mean())
            limit = (fine * total - rough * other) / (fine - rough) if fine > rough else None
            values = (
                float(axis.mean), float(axis.largest), float(axis.largest_eigenvalue), total,
                limit, float(found.sums.share_below[k][atoms].mean()),
            )  # fmt: skip
            for name, value in zip(names, values, strict=True):
                record[name][f"{T:g}"][symbol] = value
    return record


def _thermal_record(found: Analysis, settings: PhononSettings) -> dict:
    """Return what the oscillators of one cell hold, by temperature in K."""
    of = found.sums.thermodynamics
    return {
        name: {f"{T:g}": float(x) for T, x in zip(settings.temperatures, values, strict=True)}
        for name, values in (
            ("free_energy_eV_per_cell", of.free_energy),
            ("entropy_eV_K_per_cell", of.entropy),
            ("heat_capacity_eV_K_per_cell", of.heat_capacity),
        )
    }


def _acoustic_record(
    found: Analysis, settings: PhononSettings, stable: bool, notes: list[str]
) -> dict:
    """Return the Debye frequency, and the displacement that the mesh misses around Γ."""
    missed: dict[str, float | None] = dict.fromkeys(f"{T:g}" for T in settings.temperatures)
    record: dict[str, Any] = {
        "debye_frequency_THz": None,
        "debye_temperature_K": None,
        "msd_total_missed_by_mesh_A2": missed,
    }
    try:
        limit = acoustics(found.held)
    except InputError as error:
        notes.append(f"no long-wave limit: {error}")
        return record
    if not limit.stable:
        notes.append("sound is unstable in some direction: no Debye frequency")
        return record
    record["debye_frequency_THz"] = debye_frequency(limit)
    record["debye_temperature_K"] = debye_temperature(record["debye_frequency_THz"])
    if stable:
        for T in settings.temperatures:
            correction = gamma_cell_correction(limit, found.mesh.divisions, T)
            missed[f"{T:g}"] = float(np.trace(correction))
    return record


def _dos_record(found: Analysis) -> dict:
    sums = found.sums
    by_group = {
        "pdos_center_THz": sums.moments.centre,
        "pdos_deviation_THz": sums.moments.deviation,
        "pdos_skewness": sums.moments.skewness,
        "pdos_kurtosis": sums.moments.kurtosis,
        "pdos_width_THz": sums.widths,
        "pdos_width_tetrahedron_THz": sums.widths_tetrahedron,
        "pdos_center_to_acoustic_cutoff": sums.moments.centre / float(found.cutoffs.path),
    }
    record: dict[str, Any] = {
        key: {name: float(x) for name, x in zip(found.groups, values, strict=True)}
        for key, values in by_group.items()
    }
    record["pdos_overlap"] = float(sums.overlap)
    record["pdos_overlap_below_3THz"] = float(sums.overlap_below)
    return record


def _coupling_record(found: Analysis, settings: PhononSettings) -> dict:
    sums = found.sums
    by_temperature = {
        "coupling_mean_below_low_frequency": sums.coupling_soft,
        "coupling_mean_below_acoustic_cutoff": sums.coupling_acoustic,
        "coupling_paper_mean_below_low_frequency": sums.coupling_paper_soft,
        "coupling_paper_mean_below_acoustic_cutoff": sums.coupling_paper_acoustic,
    }
    record: dict[str, Any] = {
        key: {f"{T:g}": float(x) for T, x in zip(settings.temperatures, values, strict=True)}
        for key, values in by_temperature.items()
    }
    paper = found.on_mesh.coupling_paper
    record["coupling_paper_undefined_modes"] = int(np.isnan(paper).sum())
    record["coupling_paper_q_on_zone_boundary"] = int(np.sum(found.on_mesh.on_boundary))
    return record


def _arrays(found: Analysis, settings: PhononSettings) -> dict[str, np.ndarray]:
    """Return the contents of modes.npz."""

    def of(table: ModeTable, prefix: str) -> dict[str, np.ndarray]:
        mobile = table.displacements[..., found.mobile].mean(axis=-1)
        return {
            f"{prefix}q": np.asarray(table.q),
            f"{prefix}frequencies_THz": table.frequencies_THz,
            f"{prefix}msd_mobile_A2": mobile,
            f"{prefix}participation_ratio": table.participation,
            f"{prefix}participation_ratio_mass_weighted": table.participation_mass_weighted,
            f"{prefix}coupling": table.coupling,
            f"{prefix}coupling_paper": table.coupling_paper,
        }

    return {
        **of(found.on_mesh, ""),
        "weights": found.mesh.weights,
        "counted_as_oscillator": found.on_mesh.kept,
        "temperatures_K": np.asarray(settings.temperatures, float),
        "displacement_tensors_A2": found.tensors,
        "msd_mobile_cumulative_A2": np.stack(
            [_cumulative(found, u) for u in found.on_mesh.displacements]
        ),
        **of(found.on_path, "path_"),
        "path_distance_per_A": found.path.distance,
        "path_segments": np.array([[s.start, s.stop] for s in found.path.segments]),
        "path_labels": np.array(found.path.labels),
        "dos_frequency_THz": found.grid_THz,
        "dos_groups": np.array(found.groups),
        "dos_per_THz": np.asarray(found.sums.dos),
        "dos_tetrahedron_per_THz": np.asarray(found.sums.dos_tetrahedron),
    }


def _cumulative(found: Analysis, displacements: np.ndarray) -> np.ndarray:
    """Return the MSD (Å²) of a mobile ion that modes up to each frequency of the grid add up to."""
    curve = cumulative_displacements(
        found.on_mesh, jnp.asarray(displacements[..., found.mobile]), jnp.asarray(found.grid_THz)
    )
    return np.asarray(curve).mean(axis=1)


def _width_sensitivity(
    made: Prepared, settings: PhononSettings, flags: list[str], notes: list[str]
) -> dict:
    """Return U and the lowest frequency at width 0 and at the width in use, with errors."""
    crystal = made.main.force_constants.supercell.primitive
    mobile = np.array([s == settings.mobile for s in crystal.symbols])
    mesh = gamma_mesh(settings.mesh or mesh_divisions(crystal, settings.mesh_spacing), made.group)
    labels = [f"{T:g}" for T in settings.temperatures]

    def numbers(constants: ForceConstants) -> np.ndarray:
        """The lowest frequency, then the MSD of the mobile ions at every temperature."""
        U, found = tensors_on(constants, mesh, settings, made.group)
        total = np.trace(U, axis1=-2, axis2=-1)[:, mobile].mean(axis=1)
        return np.array([lowest_frequency(found, found.translations)[0], *total])

    def entry(result: HessianResult) -> dict:
        values = numbers(result.force_constants)
        parts = np.array([numbers(c) for c in result.leave_one_out()])
        count = len(parts)
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
    changed = main["msd_total_mean_A2"][T] / plain["msd_total_mean_A2"][T] - 1
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
    error = main["msd_total_mean_error_A2"][T] / main["msd_total_mean_A2"][T]
    if error > _NOISY:
        flags.append("noisy_average")
        notes.append(f"the MSD has a statistical error of {100 * error:.0f} %: raise --pairs")
    return {"width_sensitivity": {"plain": plain, "used": main}, "rough": bool(rough)}


def _relaxation_flags(relaxation: Relaxation | None, settings) -> tuple[list[str], list[str]]:
    if relaxation is None:
        return ["not_relaxed"], ["the structure was not relaxed: forces and stress may remain"]
    if not relaxation.converged:
        return ["relaxation_not_converged"], [f"relaxation: {relaxation.message}"]
    return [], []


def _relaxation_record(relaxation: Relaxation | None) -> dict | None:
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


def _formula(crystal: Structure) -> str:
    return Formula.from_list(crystal.symbols).reduce()[0].format("metal")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version(), "device": jax.devices()[0].device_kind}
    for package in ("phojax", "jax", "jaxlib", "numpy", "phonopy", "spglib", "seekpath", "chgnet"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
