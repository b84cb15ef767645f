"""phojax: differentiable lattice dynamics of ionic conductors in JAX.

Force constants and all that follows need float64: call
`jax.config.update("jax_enable_x64", True)` first. Functions that bear the name of their module
(`modes.modes`, `structure.structure`, `relax.relax`) are reached through it.
"""

from phojax.brillouin import band_path, gamma_mesh, mesh_divisions
from phojax.descriptors.coupling import bonds, coupling
from phojax.descriptors.displacements import (
    displacement_tensor,
    displacement_tensor_from_matrices,
    mode_displacements,
    oscillators,
)
from phojax.descriptors.dos import gaussian_dos, moments
from phojax.descriptors.participation import (
    participation_ratio,
    participation_ratio_mass_weighted,
)
from phojax.dynmat import dynamical_matrices
from phojax.force_constants import ForceConstants
from phojax.force_constants.hessian import hessian
from phojax.forces import energy_and_forces, energy_forces_stress, evaluate
from phojax.io.phonopy_files import read_phonopy, write_phonopy
from phojax.io.records import load_records
from phojax.io.structures import read_structure, write_structure
from phojax.modes import Modes
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.row import row_from_force_constants, row_from_potential
from phojax.screening.settings import PhononSettings
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import (
    near_cubic_matrix,
    primitive_cell,
    space_group,
    symmetrized,
    symmetrized_tensors,
)

__all__ = [
    "ForceConstants",
    "Modes",
    "PhononSettings",
    "Potential",
    "Structure",
    "Supercell",
    "band_path",
    "bonds",
    "coupling",
    "displacement_tensor",
    "displacement_tensor_from_matrices",
    "dynamical_matrices",
    "energy_and_forces",
    "energy_forces_stress",
    "evaluate",
    "gamma_mesh",
    "gaussian_dos",
    "hessian",
    "load_records",
    "mesh_divisions",
    "mode_displacements",
    "moments",
    "near_cubic_matrix",
    "oscillators",
    "participation_ratio",
    "participation_ratio_mass_weighted",
    "potential",
    "primitive_cell",
    "read_phonopy",
    "read_structure",
    "row_from_force_constants",
    "row_from_potential",
    "space_group",
    "supercell",
    "symmetrized",
    "symmetrized_tensors",
    "write_phonopy",
    "write_structure",
]
