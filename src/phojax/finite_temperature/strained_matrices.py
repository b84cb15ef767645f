"""Dynamical matrices as a quadratic function of strain, and what vibrations do to the cell.

    D(s) = D₀ + Σ_a s_a D_a + ½ Σ_ab s_a s_b D_ab,   A = A₀ (1 + Σ_a s_a B_a)               (1)

with B_a an orthonormal basis of the symmetric strains that keep the space group, q fixed in units
of the reciprocal lattice, and ions where the static energy of the strained cell is least. From it
come the vibrational free energy at any strain and temperature, and

    γ_qn,a = -∂ln ω_qn/∂s_a,   ∂S/∂s_a = Σ_qn w_q C_qn γ_qn,a = -∂²F/∂s_a ∂T              (2)

the Grüneisen tensor γ = Σ_a γ_a B_a of a mode, whose trace is three times the parameter of the
volume under an isotropic strain.
Source: Barron, Collins, White, Adv. Phys. 29, 609 (1980), section 2.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from phojax.checks import fail
from phojax.descriptors.displacements import eigenvalue_count_below
from phojax.descriptors.thermodynamics import Thermodynamics, thermodynamics_from_matrices
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants.container import ForceConstants
from phojax.gradients.vibrations import FLOOR
from phojax.gruneisen import gruneisen_of_slopes
from phojax.modes import Modes, eigenpairs_at
from phojax.pytree import pytree
from phojax.spectral import Scalar
from phojax.structure import Structure


@pytree()
class StrainedMatrices:
    """Eq. (1) on a mesh.

    Attributes:
        crystal: At no strain.
        q: Fractional, Γ among them.
        weights: Sum to one.
        strains: B_a.
        value: D₀, eV Å⁻² amu⁻¹.
        first: D_a, per unit strain.
        second: D_ab, symmetric in the first two axes.
        reach: |s| up to which the expansion is meant; what lies beyond is an extrapolation.
    """

    crystal: Structure
    q: Float[Array, "q 3"]
    weights: Float[Array, " q"]
    strains: Float[Array, "e 3 3"]
    value: Complex[Array, "q mode mode"]
    first: Complex[Array, "e q mode mode"]
    second: Complex[Array, "e e q mode mode"]
    reach: Float[Array, ""]

    def at(self, s: Float[Array, " e"]) -> Complex[Array, "q mode mode"]:
        """Return D(s)."""
        linear = jnp.einsum("a,aqij->qij", s, self.first)
        return self.value + linear + jnp.einsum("a,b,abqij->qij", s, s, self.second) / 2

    def strain(self, s: Float[Array, " e"]) -> Float[Array, "3 3"]:
        """Return Σ_a s_a B_a."""
        return jnp.einsum("a,aij->ij", s, self.strains)

    def thermodynamics(
        self, s: Float[Array, " e"], temperature: Scalar, floor: Scalar = FLOOR
    ) -> Thermodynamics:
        """Return F, S and C of the vibrations in a strained cell; modes with λ ≤ floor left out.

        Differentiable twice in s.
        """
        return thermodynamics_from_matrices(
            self.at(s), self.q, self.weights, self.crystal, temperature, floor
        )

    def count_left_out(self, s: Float[Array, " e"], floor: Scalar = FLOOR) -> Int[Array, ""]:
        """Return how many modes have λ ≤ floor, translations not counted."""
        return jnp.sum(eigenvalue_count_below(self.at(s), self.q, self.crystal, floor))


@pytree()
class VibrationalPart:
    """F of the vibrations and its derivatives in strain, at one strain and temperature.

    Attributes:
        free_energy: eV per cell.
        entropy: eV/K per cell.
        heat_capacity: eV/K per cell, at constant strain.
        by_strain: ∂F/∂s, eV.
        by_strain_twice: ∂²F/∂s², eV.
        entropy_by_strain: ∂S/∂s, eV/K.
        left_out: Modes that are not in it.
    """

    free_energy: Float[Array, ""]
    entropy: Float[Array, ""]
    heat_capacity: Float[Array, ""]
    by_strain: Float[Array, " e"]
    by_strain_twice: Float[Array, "e e"]
    entropy_by_strain: Float[Array, " e"]
    left_out: Int[Array, ""]


@jax.jit
def vibrational_part(
    matrices: StrainedMatrices, s: Float[Array, " e"], temperature: Scalar
) -> VibrationalPart:
    """Return what the vibrations add to the free energy of a strained cell."""

    def free_energy(s):
        return matrices.thermodynamics(s, temperature).free_energy

    def entropy(s):
        found = matrices.thermodynamics(s, temperature)
        return found.entropy, found

    by_strain, found = jax.grad(entropy, has_aux=True)(s)
    return VibrationalPart(
        found.free_energy, found.entropy, found.heat_capacity, jax.grad(free_energy)(s),
        jax.jacfwd(jax.grad(free_energy))(s), by_strain, matrices.count_left_out(s),
    )  # fmt: skip


def gruneisen_tensors(matrices: StrainedMatrices) -> tuple[Modes, Float[Array, "q mode 3 3"]]:
    """Return the modes at no strain and γ of eq. (2); NaN for translations and soft modes.

    In degenerate blocks each component is diagonalised by itself, so that of a block only sums
    belong together.
    """
    found = modes_at_rest(matrices)
    each = jnp.stack([gruneisen_of_slopes(found, D) for D in matrices.first], axis=-1)
    return found, jnp.einsum("qna,aij->qnij", each, matrices.strains)


def gruneisen_of_volume(matrices: StrainedMatrices) -> tuple[Modes, Float[Array, "q mode"]]:
    """Return the modes at no strain and -∂ln ω/∂ln V, the cell strained isotropically."""
    found = modes_at_rest(matrices)
    traces = jnp.trace(matrices.strains, axis1=1, axis2=2)
    slopes = jnp.einsum("a,aqij->qij", traces, matrices.first) / 3
    return found, gruneisen_of_slopes(found, slopes)


@jax.jit
def modes_at_rest(matrices: StrainedMatrices) -> Modes:
    """Return the modes at no strain."""
    eigenvalues, E = eigenpairs_at(matrices.value, matrices.q, matrices.crystal)
    n = len(matrices.crystal)
    vectors = E.swapaxes(1, 2).reshape(E.shape[0], E.shape[2], n, 3)
    return Modes(matrices.q, matrices.weights, eigenvalues, vectors, matrices.crystal)


def through_volumes(
    smaller: ForceConstants | Interpolation,
    middle: ForceConstants | Interpolation,
    larger: ForceConstants | Interpolation,
    q: Float[np.ndarray, "q 3"],
    weights: Float[np.ndarray, " q"],
) -> StrainedMatrices:
    """Return the parabola of D(q) through three volumes of a crystal, in its edge length (host).

    Its one strain is the isotropic one, B = 1/√3; the parabola reaches from the smaller volume to
    the larger one.

    Args:
        smaller: Force constants at a smaller volume; with dipoles, or none, at all three.
        middle: Those that the strain counts from.
        larger: At a larger volume. Cells of one shape.
        q: Fractional.
        weights: Sum to one.

    Raises:
        InputError: volumes that do not ascend, cells of other shapes, dipoles at some volumes.
    """
    all_three = [interpolation(held) for held in (smaller, middle, larger)]
    if len({held.dipoles is None for held in all_three}) > 1:
        raise fail("dipoles at some of three volumes", "Born charges at all, or at none")
    reference = np.asarray(all_three[1].crystal.cell)
    at = []
    for held in all_three:
        ratio = np.linalg.inv(reference) @ np.asarray(held.crystal.cell)
        length = np.trace(ratio) / 3
        if np.abs(ratio - length * np.eye(3)).max() > 1e-6:
            raise fail("cells of different shapes or orientations", "one cell in three sizes")
        at.append(np.sqrt(3) * (length - 1))
    if not at[0] < at[1] < at[2]:
        raise fail("volumes that do not ascend", "the smaller, the middle and the larger one")
    low, _, high = at
    points, shares = jnp.asarray(q, float), jnp.asarray(weights, float)
    less, held, more = (
        jax.jit(partial(dynamical_matrices, held))(points, None) for held in all_three
    )
    down, up = (less - held) / low, (more - held) / high
    second = 2 * (up - down) / (high - low)
    first = (up * -low + down * high) / (high - low)
    return StrainedMatrices(
        all_three[1].crystal, points, shares, jnp.eye(3)[None] / np.sqrt(3),
        held, first[None], second[None, None], jnp.asarray(max(-low, high)),
    )  # fmt: skip


__all__ = [
    "StrainedMatrices",
    "VibrationalPart",
    "gruneisen_of_volume",
    "gruneisen_tensors",
    "modes_at_rest",
    "through_volumes",
    "vibrational_part",
]
