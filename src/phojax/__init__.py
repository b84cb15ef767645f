"""phojax: differentiable lattice dynamics of ionic conductors in JAX.

Force constants and all that follows need float64: call
`jax.config.update("jax_enable_x64", True)` first. Functions that bear the name of their module
(`modes.modes`, `structure.structure`, `relax.relax`) are reached through it.
"""

# isort: off
from phojax import quiet as _quiet  # noqa: F401  before JAX
# isort: on

from phojax.branches import connected_branches, connected_path
from phojax.brillouin import band_path, gamma_mesh, mesh_divisions, q_mesh
from phojax.descriptors.coupling import bonds, coupling
from phojax.descriptors.debye import (
    acoustics,
    debye_frequency,
    debye_temperature,
    fitted_debye_frequency,
    gamma_cell_correction,
)
from phojax.descriptors.displacements import (
    cumulative_displacements,
    displacement_tensor,
    displacement_tensor_from_matrices,
    displacement_tensors,
    mode_displacements,
    oscillators,
    share_below,
)
from phojax.descriptors.dos import gaussian_dos, moments, moments_from_matrices, species_groups
from phojax.descriptors.participation import participation_ratio, participation_ratio_mass_weighted
from phojax.descriptors.structural import structural_descriptors
from phojax.descriptors.tetrahedra import tetrahedron_dos, tetrahedron_neighbours
from phojax.descriptors.thermodynamics import thermodynamics, thermodynamics_from_matrices
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants import ForceConstants
from phojax.force_constants.hessian import hessian
from phojax.force_constants.sublattice import frozen, relaxed, removed
from phojax.force_constants.sum_rules import enforced
from phojax.forces import energy_and_forces, energy_forces_stress, evaluate
from phojax.gruneisen import gruneisen_parameters, mean_gruneisen
from phojax.io.bands import write_band_yaml
from phojax.io.meshes import write_mesh_hdf5
from phojax.io.phonopy_files import read_phonopy, write_phonopy
from phojax.io.records import load_records
from phojax.io.structures import read_structure, write_structure
from phojax.io.website import write_website_json
from phojax.modes import Modes
from phojax.nac import BornCharges, born_charges, neutral
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.batch import CrystalInput, analysed_batch
from phojax.screening.row import row_from_force_constants, row_from_potential
from phojax.screening.settings import PhononSettings
from phojax.stars import unfolded, unfolded_by_atom, unfolded_modes
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import (
    near_cubic_matrix,
    primitive_cell,
    space_group,
    symmetrized,
    symmetrized_tensors,
)
from phojax.velocities import (
    directional_velocities,
    group_velocities,
    sound_velocities,
    symmetrized_velocities,
)

__all__ = [
    "BornCharges",
    "CrystalInput",
    "ForceConstants",
    "Interpolation",
    "Modes",
    "PhononSettings",
    "Potential",
    "Structure",
    "Supercell",
    "acoustics",
    "analysed_batch",
    "band_path",
    "bonds",
    "born_charges",
    "connected_branches",
    "connected_path",
    "coupling",
    "cumulative_displacements",
    "debye_frequency",
    "debye_temperature",
    "directional_velocities",
    "displacement_tensor",
    "displacement_tensor_from_matrices",
    "displacement_tensors",
    "dynamical_matrices",
    "energy_and_forces",
    "energy_forces_stress",
    "enforced",
    "evaluate",
    "fitted_debye_frequency",
    "frozen",
    "gamma_cell_correction",
    "gamma_mesh",
    "gaussian_dos",
    "group_velocities",
    "gruneisen_parameters",
    "hessian",
    "interpolation",
    "load_records",
    "mean_gruneisen",
    "mesh_divisions",
    "mode_displacements",
    "moments",
    "moments_from_matrices",
    "near_cubic_matrix",
    "neutral",
    "oscillators",
    "participation_ratio",
    "participation_ratio_mass_weighted",
    "potential",
    "primitive_cell",
    "q_mesh",
    "read_phonopy",
    "read_structure",
    "relaxed",
    "removed",
    "row_from_force_constants",
    "row_from_potential",
    "share_below",
    "sound_velocities",
    "space_group",
    "species_groups",
    "structural_descriptors",
    "supercell",
    "symmetrized",
    "symmetrized_tensors",
    "symmetrized_velocities",
    "tetrahedron_dos",
    "tetrahedron_neighbours",
    "thermodynamics",
    "thermodynamics_from_matrices",
    "unfolded",
    "unfolded_by_atom",
    "unfolded_modes",
    "write_band_yaml",
    "write_mesh_hdf5",
    "write_phonopy",
    "write_structure",
    "write_website_json",
]
