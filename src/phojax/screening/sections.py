"""The sections of a record: what an analysis says, as plain numbers with their units."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from phojax.checks import InputError
from phojax.descriptors.debye import (
    acoustics,
    debye_frequency,
    debye_temperature,
    gamma_cell_correction,
)
from phojax.descriptors.displacements import msd_axis
from phojax.screening.analysis import Analysis, ModeTable, lowest_frequency
from phojax.screening.settings import PhononSettings


def spectrum_record(found: Analysis, settings, flags: list[str], notes: list[str]) -> dict:
    """Return extreme frequencies and cutoffs (THz), stability, and what was excluded."""
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


def displacement_record(found: Analysis, settings: PhononSettings) -> dict:
    """Return the MSD of every element in Å², by temperature in K, and its limit for fine meshes."""
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


def thermal_record(found: Analysis, settings: PhononSettings) -> dict:
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


def acoustic_record(
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


def dos_record(found: Analysis) -> dict:
    """Return moments and widths (THz) of the densities of states, and their overlap."""
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


def coupling_record(found: Analysis, settings: PhononSettings) -> dict:
    """Return mean couplings by temperature in K, and how many are undefined."""
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


def mode_arrays(found: Analysis, settings: PhononSettings) -> dict[str, np.ndarray]:
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
        "msd_mobile_cumulative_A2": np.asarray(found.sums.cumulative),
        **of(found.on_path, "path_"),
        "path_distance_per_A": found.path.distance,
        "path_segments": np.array([[s.start, s.stop] for s in found.path.segments]),
        "path_labels": np.array(found.path.labels),
        "dos_frequency_THz": found.grid_THz,
        "dos_groups": np.array(found.groups),
        "dos_per_THz": np.asarray(found.sums.dos),
        "dos_tetrahedron_per_THz": np.asarray(found.sums.dos_tetrahedron),
    }
