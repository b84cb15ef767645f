"""What a function of phonons may depend on: `Vibrations` of a crystal on a mesh."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from phojax.descriptors.displacements import (
    displacement_tensor_from_matrices,
    eigenvalue_count_below,
    msd_total,
    species_mean,
)
from phojax.descriptors.dos import moments_from_matrices
from phojax.descriptors.groups import smooth_acoustic_top
from phojax.descriptors.neighbour_correlation import neighbour_correlation_from_matrices
from phojax.descriptors.thermodynamics import thermodynamics_from_matrices
from phojax.modes import without_translations
from phojax.pytree import pytree
from phojax.spectral import Scalar, eigenvalues
from phojax.structure import Structure

FLOOR = 1e-6
"""λ in eV Å⁻² amu⁻¹ (0.016 THz) up to which modes are left out of sums, and counted."""

_EDGE = 1e-3  # eV Å⁻² amu⁻¹: how sharply bands are told apart in smooth stand-ins
_SHARPNESS = 40.0  # 1/THz


@pytree()
class Vibrations:
    """Dynamical matrices of a crystal on a mesh, and its energy; differentiable in all of them.

    Its methods are the common descriptors, one line each; others are functions of the fields.

    Attributes:
        crystal: The primitive cell.
        matrices: D(q), eV Å⁻² amu⁻¹.
        q: Fractional, Γ among them.
        weights: Sum to one.
        energy: Of the cell at rest, eV.
        equivalent: Rows average over the atoms that symmetry makes equivalent.
    """

    crystal: Structure
    matrices: Complex[Array, "q mode mode"]
    q: Float[Array, "q 3"]
    weights: Float[Array, " q"]
    energy: Float[Array, ""]
    equivalent: Float[Array, "atom atom"]

    def displacements(self, temperature: Scalar, floor: Scalar = FLOOR) -> Float[Array, " atom"]:
        """Return ⟨u²⟩ of every atom in Å²; modes with λ ≤ floor are left out."""
        U = displacement_tensor_from_matrices(
            self.matrices, self.q, self.weights, self.crystal, temperature, floor
        )
        return self.equivalent @ msd_total(U)

    def msd(
        self, atoms: Bool[Array, " atom"], temperature: Scalar, floor: Scalar = FLOOR
    ) -> Float[Array, ""]:
        """Return the mean of ⟨u²⟩ over some atoms in Å²."""
        return species_mean(self.displacements(temperature, floor), atoms)

    def msd_max(
        self, atoms: Bool[Array, " atom"], temperature: Scalar, floor: Scalar = FLOOR
    ) -> Float[Array, ""]:
        """Return the largest ⟨u²⟩ among some atoms in Å²; it has kinks where the atom changes."""
        return jnp.max(jnp.where(atoms, self.displacements(temperature, floor), -jnp.inf))

    def pdos_centre(self, atoms: Bool[Array, " atom"], floor: Scalar = FLOOR) -> Float[Array, ""]:
        """Return the centre of the density of states of some atoms in THz."""
        return moments_from_matrices(
            self.matrices, self.q, self.weights, self.crystal, atoms[None], floor
        ).centre[0]

    def acoustic_top(self) -> Float[Array, ""]:
        """Return a smooth stand-in for the top of the three lowest bands in THz."""
        return smooth_acoustic_top(self.matrices, _EDGE, _SHARPNESS, weights=self.weights)

    def neighbour_correlation(
        self, atoms: Bool[Array, " atom"], temperature: Scalar, floor: Scalar = FLOOR
    ) -> Float[Array, ""]:
        """Return how far some atoms move together with their neighbours of other kinds, -1 to 1."""
        return neighbour_correlation_from_matrices(
            self.matrices, self.q, self.weights, self.crystal, atoms, temperature, floor
        )

    def free_energy(self, temperature: Scalar, floor: Scalar = FLOOR) -> Float[Array, ""]:
        """Return E + F_vib of the cell in eV."""
        found = thermodynamics_from_matrices(
            self.matrices, self.q, self.weights, self.crystal, temperature, floor
        )
        return self.energy + found.free_energy

    def lowest_eigenvalue(self) -> Float[Array, ""]:
        """Return the lowest λ of the mesh, translations left out; it has kinks at crossings."""
        shifted, _ = without_translations(self.matrices, self.q, self.crystal, True)
        return jnp.min(eigenvalues(shifted))

    def lowest_eigenvalue_smooth(self, sharpness: Scalar = 2e3) -> Float[Array, ""]:
        """Return a smooth lower bound of the lowest λ: -(1/β) ln Σ exp(-βλ), β in 1/λ's unit."""
        shifted, _ = without_translations(self.matrices, self.q, self.crystal, True)
        often = (self.weights / jnp.min(self.weights))[:, None]  # Γ is no one's image
        return -jax.nn.logsumexp(-sharpness * eigenvalues(shifted), b=often) / sharpness

    def count_left_out(self, floor: Scalar = FLOOR) -> Int[Array, ""]:
        """Return how many modes with λ ≤ floor there are, translations not counted."""
        return jnp.sum(eigenvalue_count_below(self.matrices, self.q, self.crystal, floor))
