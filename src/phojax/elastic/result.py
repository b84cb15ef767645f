"""What is known of a crystal's elastic response, and how it follows from second derivatives.

With E(u, η) the energy of the cell whose atoms are moved by u and then, with the cell, by the
symmetric F, FᵀF = 1 + 2η (η: Lagrangian strain),

    C⁰ = E_ηη / V                                            ions clamped             (1)
    Λ  = -E_uη                                               forces per strain         (2)
    u  = Φ⁺ Λ η,   Φ = E_uu at Γ                             what the ions answer      (3)
    C  = C⁰ - Λᵀ Φ⁺ Λ / V                                    ions relaxed              (4)

Φ⁺ inverts outside of rigid translations. In a crystal under stress C is the second derivative of
the energy with η, symmetric in all pairs of indices; `ElasticResult.stress_strain_GPa` is the slope
of the true stress, the same at zero stress. No macroscopic field is there: in polar crystals these
are the constants at zero field.
Source: Born and Huang, Dynamical Theory of Crystal Lattices (1954), §§ 11, 26; Wallace,
Thermodynamics of Crystals (1972), sections 2, 7.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.elastic.moduli import Moduli, moduli
from phojax.elastic.notation import stress_strain_coefficients, voigt_from_kelvin
from phojax.spectral import Scalar
from phojax.structure import Structure
from phojax.units import EV_PER_A3_IN_GPA

STRESS_AT_REST = 0.1  # GPa
FORCE_AT_REST = 0.01  # eV/Å
_ZERO = 1e-6  # of the largest eigenvalue of Φ: no stiffness


@dataclass(frozen=True)
class ElasticResult:
    """Elastic tensors of a crystal (Voigt's notation, xx yy zz yz xz xy) and their making.

    Attributes:
        structure: Where they were taken.
        tensor_GPa: C of eq. (4), symmetric and with the crystal's symmetry; NaN where the ions have
            no stiffness against what strain does to them.
        clamped_GPa: C⁰ of eq. (1).
        internal_strain: Λ of eq. (2), eV/Å per unit of Voigt's strain.
        displacements: u of eq. (3), Å per unit of Voigt's strain, their mean over atoms taken out.
        stress_GPa: Of the crystal as given, positive under tension; C is meant for none.
        force_max_eV_A: Largest force on an atom of the crystal as given.
        asymmetry_GPa: Largest |C - Cᵀ| before it was made symmetric.
        symmetry_residual_GPa: Largest distance of the stresses found from the tensor with the
            crystal's symmetry, per unit of Kelvin's strain.
        lowest_optic_eV_A2: Lowest eigenvalue of Φ at Γ outside of translations; None where strains
            were finite, or for one atom.
        width: σ of the average over displacements, Å; 0 for none.
        step: Finite strain; None for derivatives.
        columns: Second derivatives computed, or strained structures relaxed.
        standard_error_GPa: Of C, from the ± pairs of displacements; None without several.
        remarks: What there is to say against it.
    """

    structure: Structure
    tensor_GPa: Float[np.ndarray, "6 6"]
    clamped_GPa: Float[np.ndarray, "6 6"]
    internal_strain: Float[np.ndarray, "6 atom 3"]
    displacements: Float[np.ndarray, "6 atom 3"]
    stress_GPa: Float[np.ndarray, "3 3"]
    force_max_eV_A: float
    asymmetry_GPa: float
    symmetry_residual_GPa: float
    lowest_optic_eV_A2: float | None
    width: float
    step: float | None
    columns: int
    standard_error_GPa: Float[np.ndarray, "6 6"] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def at_rest(self) -> bool:
        """Whether forces and stress are small enough for C to be the crystal's own."""
        return bool(
            np.abs(self.stress_GPa).max() < STRESS_AT_REST and self.force_max_eV_A < FORCE_AT_REST
        )

    @property
    def stable(self) -> bool:
        """Whether no homogeneous strain, and no motion of sublattices at Γ, lowers the energy."""
        C = self.stress_strain_GPa
        if not np.all(np.isfinite(C)):
            return False
        optic = self.lowest_optic_eV_A2
        return bool(moduli(jnp.asarray(C)).stable) and (optic is None or optic > 0)

    @property
    def stress_strain_GPa(self) -> Float[np.ndarray, "6 6"]:
        """The slope of the true stress with strain, its symmetric part; C at zero stress."""
        B = stress_strain_coefficients(jnp.asarray(self.tensor_GPa), jnp.asarray(self.stress_GPa))
        return np.asarray((B + B.T) / 2)

    @property
    def moduli(self) -> Moduli:
        """Moduli of the polycrystal, from `tensor_GPa`."""
        return moduli(jnp.asarray(self.tensor_GPa))


def relaxed_ions(
    clamped: Float[Array, "6 6"],
    internal_strain: Float[Array, "atom 3 6"],
    hessian: Float[Array, "mode mode"],
    volume: Scalar,
) -> tuple[Float[Array, "6 6"], Float[Array, "atom 3 6"]]:
    """Return C of eq. (4) and u of eq. (3); differentiable. NaN or huge where Φ is singular.

    Args:
        clamped: C⁰, eV/Å³.
        internal_strain: Λ, eV/Å, the same notation.
        hessian: Φ at Γ, eV/Å², symmetric, with the sum rule.
        volume: Å³.
    """
    n = internal_strain.shape[0]
    # Of about the stiffness of the others, translations leave the inverse well-conditioned.
    rigid = jnp.tile(jnp.eye(3), (n, n)) / n
    stiffness = jnp.trace(hessian) / (3 * n) if n > 1 else 1.0
    L = internal_strain.reshape(3 * n, 6)
    L = L - rigid @ L
    u = jnp.linalg.solve(hessian + stiffness * rigid, L)
    return clamped - L.T @ u / volume, u.reshape(n, 3, 6)


def optic_eigenvalues(hessian: np.ndarray) -> np.ndarray:
    """Return the eigenvalues (eV/Å²) of Φ at Γ outside of translations, ascending."""
    n = len(hessian) // 3
    away = np.linalg.svd(np.tile(np.eye(3), (1, n)))[2][3:]
    return np.linalg.eigvalsh(away @ np.asarray(hessian) @ away.T)


def ions_can_answer(hessian: np.ndarray, internal_strain: np.ndarray) -> bool:
    """Return whether strain pushes the ions in no direction without stiffness."""
    n = len(hessian) // 3
    away = np.linalg.svd(np.tile(np.eye(3), (1, n)))[2][3:]
    values, vectors = np.linalg.eigh(away @ np.asarray(hessian) @ away.T)
    if not values.size:
        return True
    soft = np.abs(values) <= _ZERO * np.abs(values).max()
    pushed = vectors[:, soft].T @ away @ internal_strain.reshape(3 * n, 6)
    scale = np.sqrt(np.abs(values).max())
    return not np.any(np.abs(pushed) > _ZERO * max(scale, np.abs(internal_strain).max()))


def in_GPa(C) -> np.ndarray:
    """Return stiffnesses in GPa and Voigt's notation from eV/Å³ and Kelvin's."""
    return np.asarray(voigt_from_kelvin(jnp.asarray(C))) * EV_PER_A3_IN_GPA


def remarks_on(
    potential_is: str, stress_GPa, force_max: float, lowest_optic: float | None, defined: bool
) -> tuple[str, ...]:
    """Return what there is to say against an elastic tensor, in words."""
    found = []
    stress = float(np.abs(stress_GPa).max())
    if stress >= STRESS_AT_REST or force_max >= FORCE_AT_REST:
        found.append(
            f"the crystal is not at rest on {potential_is}: stress up to {stress:.2f} GPa, forces "
            f"up to {force_max:.3f} eV/Å"
        )
    if lowest_optic is not None and lowest_optic <= 0:
        found.append(f"unstable at Γ: {lowest_optic:.3g} eV/Å² is the lowest stiffness of the ions")
    if not defined:
        found.append("the ions do not resist what strain does to them: no relaxed tensor")
    return tuple(found)
