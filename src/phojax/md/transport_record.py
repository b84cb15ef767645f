"""What is known of transport as a nested record: scalars, texts and lists, units in the keys."""

from typing import Any

import numpy as np
from ase.data import chemical_symbols

from phojax.md.activation import Activation
from phojax.md.channels import percolation_barriers
from phojax.md.diffusion import Diffusion
from phojax.md.transport import Transport

Record = dict[str, Any]

_VISITED = 0.999  # of the ions: channels that need more were not seen


def transport_record(found: Transport) -> Record:
    """Return the record of one temperature."""
    seen = found.observed
    stats = seen.statistics
    record: Record = {
        "temperature_K": seen.temperature_K,
        "replicas": seen.replicas,
        "frames": stats.frames,
        "simulated_ps": stats.frames * stats.interval_ps,
        "interval_ps": stats.interval_ps,
        "atoms": len(seen.numbers),
        "mobile_ions": int(np.sum(seen.numbers == seen.mobile)),
        "mobile_per_A3": seen.ions_per_A3,
    }
    if seen.vacf is not None:
        record["temperature_kinetic_K"] = seen.kinetic_K
        record["temperature_by_species_K"] = {
            chemical_symbols[z]: float(T)
            for z, T in zip(seen.vacf.species, seen.vacf.temperatures_K, strict=True)
        }
    if found.total is not None:
        record |= _diffusion(found.total)
    if found.axes is not None:
        record["D_axes_A2_ps"] = [d.D for d in found.axes]
        record["D_axes_error_A2_ps"] = [d.standard_error for d in found.axes]
        record["D_axes_censored"] = [d.below_detection for d in found.axes]
    if found.tensor is not None:
        record["D_tensor_A2_ps"] = found.tensor.tensor.tolist()
        record["D_principal_A2_ps"] = found.tensor.eigenvalues.tolist()
        record["D_principal_error_A2_ps"] = found.tensor.errors.tolist()
        record["D_principal_directions"] = found.tensor.eigenvectors.T.tolist()
        record["D_principal_censored"] = list(found.tensor.below_detection)
    if found.paper is not None:
        record["D_paper_A2_ps"] = found.paper.average
        record["D_paper_maximum_A2_ps"] = found.paper.maximum
        record["D_paper_if_at_rest_A2_ps"] = float(found.paper.at_rest.mean())
    record |= _conduction(found)
    record |= _framework(found)
    record |= _spectrum(found)
    record |= _channels(found)
    record["flags"] = list(found.flags)
    record["notes"] = list(found.notes)
    return record


def _diffusion(of: Diffusion) -> Record:
    low, high = of.interval
    return {
        "D_A2_ps": of.D,
        "D_error_A2_ps": of.standard_error,
        "D_interval_A2_ps": [_finite(low), _finite(high)],
        "D_detection_limit_A2_ps": of.detection_limit,
        "D_censored": of.below_detection,
        "D_intercept_A2": of.intercept,
        "D_fit_ps": [float(of.lags_ps[0]), float(of.lags_ps[-1])],
        "D_fit_p_value": of.p_value,
        "D_log_slope": of.log_slope,
        "D_concert": of.concert,
        "D_events": of.events,
        "D_flags": list(of.flags),
    }


def activation_record(found: Activation) -> Record | None:
    """Return the record of the fits over temperatures; None where there are none."""
    if found.fit is None and found.paper is None:
        return None
    record: Record = {"notes": list(found.notes)}
    if found.fit is not None:
        fit = found.fit
        room, (low, high) = fit.diffusion_at(300.0)
        record |= {
            "activation_energy_meV": fit.activation_meV,
            "activation_energy_error_meV": fit.activation_error_meV,
            "activation_energy_interval_meV": list(fit.activation_interval_meV),
            "prefactor_A2_ps": fit.prefactor,
            "D_300K_A2_ps": room,
            "D_300K_interval_A2_ps": [_finite(low), _finite(high)],
            "temperatures_detected": fit.detected,
            "temperatures_censored": fit.censored,
            "not_on_a_line": fit.not_on_a_line,
        }
    if found.paper is not None:
        record["activation_energy_paper_meV"] = found.paper.activation_meV
    return record


def _conduction(found: Transport) -> Record:
    record: Record = {}
    if found.collective is not None:
        low, high = found.collective.interval
        record |= {
            "D_collective_A2_ps": found.collective.D,
            "D_collective_interval_A2_ps": [_finite(low), _finite(high)],
            "D_collective_censored": found.collective.below_detection,
        }
    if found.conduction is not None:
        of = found.conduction
        record |= {
            "charge_e": of.charge,
            "conductivity_nernst_einstein_S_cm": of.tracer,
            "conductivity_nernst_einstein_interval_S_cm": [_finite(x) for x in of.tracer_interval],
            "conductivity_collective_S_cm": of.collective,
            "conductivity_collective_interval_S_cm": [_finite(x) for x in of.collective_interval],
            "haven_ratio": _finite(of.haven_ratio),
            "haven_ratio_interval": [_finite(x) for x in of.haven_interval],
        }
    return record


def _framework(found: Transport) -> Record:
    of, units = found.framework, found.observed.polyanions
    if of is None:
        return {}
    record: Record = {
        "holds": of.holds,
        "tripped": list(of.reasons),
        "msd_last_fifth_A2": dict(zip(of.names, of.last_msd.tolist(), strict=True)),
    }
    if found.framework_paper is not None:
        record["tripped_paper"] = list(found.framework_paper.reasons)
    if units is not None:
        record["polyanions_hold"] = units.holds
        record["polyanions_tripped"] = list(units.reasons)
    return {"framework": record}


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("nan")


def _spectrum(found: Transport) -> Record:
    of = found.vdos
    if of is None:
        return {}

    def by_species(values) -> Record:
        return {
            chemical_symbols[z] if z else "total": float(v)
            for z, v in zip(of.species, values, strict=True)
        }

    return {
        "vdos_centre_THz": by_species(of.centre_all_THz),
        "vdos_centre_vibrational_THz": by_species(of.centre_vibrational_THz),
        "vdos_diffusive_share": by_species(of.diffusive_share),
        "vdos_resolution_THz": of.resolution_THz,
        "vdos_notes": list(of.notes),
    }


def _channels(found: Transport) -> Record:
    of, opening = found.channels, found.opening
    if of is None or opening is None:
        return {}
    T = found.observed.temperature_K
    # Beyond what ions have visited, the smoothing decides.
    seen = opening.critical_shares <= _VISITED
    barriers: list[float | None] = [None] * 3
    if T is not None:
        values = np.where(seen, percolation_barriers(opening, T), np.nan)
        barriers = values.tolist()
    return {
        "channels": {
            "dimensionality": of.dimensionality,
            "share_of_ions": of.share,
            "threshold_per_A3": of.threshold,
            "directions": [list(v) for v in of.components[0].directions],
            "share_where_1D_2D_3D": np.where(seen, opening.critical_shares, np.nan).tolist(),
            "barrier_1D_2D_3D_eV": barriers,
        }
    }
