"""What an elastic tensor says as a nested record: plain numbers, units in the keys."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from phojax.elastic.result import ElasticResult
from phojax.elastic.waves import density, elastic_debye_temperature, mean_velocity

_ASYMMETRIC = 0.05
_MODULI = (
    "bulk", "bulk_voigt", "bulk_reuss", "shear", "shear_voigt", "shear_reuss", "young", "hardness",
)  # fmt: skip


def elastic_record(found: ElasticResult, flags: list[str], notes: list[str]) -> dict[str, Any]:
    """Return tensor, moduli, stability and sound velocities, units in the keys."""
    notes += found.remarks
    if not found.at_rest:
        flags.append("not_at_rest")
    if not found.stable:
        flags.append("elastically_unstable")
    size = float(np.nanmax(np.abs(found.tensor_GPa), initial=0.0))
    if found.asymmetry_GPa > _ASYMMETRIC * size:
        flags.append("elastic_tensor_asymmetric")
        notes.append(
            f"the tensor was not symmetric by itself, by {found.asymmetry_GPa:.2g} GPa: strains "
            "end in different minima of a rough surface, or the crystal is not at rest"
        )
    of = found.moduli
    C = jnp.asarray(found.stress_strain_GPa)
    rho = density(found.structure)
    sound = mean_velocity(C, rho)
    error = found.standard_error_GPa
    return {
        "tensor_GPa": found.tensor_GPa.tolist(),
        "tensor_clamped_ions_GPa": found.clamped_GPa.tolist(),
        "tensor_standard_error_GPa": None if error is None else error.tolist(),
        **{f"{name}_GPa": float(getattr(of, name)) for name in _MODULI},
        "poisson": float(of.poisson),
        "pugh_ratio": float(of.pugh),
        "anisotropy_universal": float(of.anisotropy),
        "lowest_eigenvalue_GPa": float(of.eigenvalues[0]),
        "lowest_optic_stiffness_eV_A2": found.lowest_optic_eV_A2,
        "stable": found.stable,
        "density_g_cm3": float(rho) * 1.66053906892,
        "sound_velocity_mean_km_s": float(sound) / 10,
        "debye_temperature_K": float(elastic_debye_temperature(sound, found.structure)),
        "method": "autodiff" if found.step is None else "finite strain",
        "strain": found.step,
        "width_A": found.width,
        "stress_GPa": np.asarray(found.stress_GPa).tolist(),
        "force_max_eV_A": found.force_max_eV_A,
        "asymmetry_GPa": found.asymmetry_GPa,
        "symmetry_residual_GPa": found.symmetry_residual_GPa,
    }
