"""Strains, stresses and elastic tensors as vectors and matrices of six.

    Voigt    xx yy zz yz xz xy; a strain has e_yz = 2ε_yz, a stress σ_yz                  (1)
    Kelvin   the same order, √2 ε_yz and √2 σ_yz: components along the orthonormal
             symmetric matrices B_k, so that a rotation turns both by one orthogonal Q     (2)

C_Kelvin = D C_Voigt D with D = diag(1, 1, 1, √2, √2, √2). Results are in Voigt's notation; symmetry
and eigenvalues are taken in Kelvin's, where they do not depend on the axes.
Source: Nye, Physical Properties of Crystals (1985), ch. VIII; Mehrabadi and Cowin, Q. J. Mech.
Appl. Math. 43, 15 (1990) (Kelvin's notation).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Tensor = Array | np.ndarray
"""What is given as a tensor."""

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""The Cartesian pairs of indices in Voigt's order."""

NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")
"""The components by name."""

ROOTS = np.sqrt(np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]))
"""D of the header."""


def _basis() -> np.ndarray:
    basis = np.zeros((6, 3, 3))
    for k, (a, b) in enumerate(PAIRS):
        basis[k, a, b] = basis[k, b, a] = 1 / ROOTS[k]
    return basis


BASIS = _basis()
"""(6, 3, 3) the matrices B_k of eq. (2)."""


def kelvin_vector(symmetric: Float[Tensor, "*batch 3 3"]) -> Float[Array, "*batch 6"]:
    """Return the Kelvin components of symmetric matrices (of any, of their symmetric part)."""
    return jnp.einsum("kab,...ab->...k", BASIS, symmetric)


def kelvin_matrix(vector: Float[Tensor, "*batch 6"]) -> Float[Array, "*batch 3 3"]:
    """Return the symmetric matrices of Kelvin components."""
    return jnp.einsum("kab,...k->...ab", BASIS, vector)


def kelvin_from_voigt(C: Float[Tensor, "*batch 6 6"]) -> Float[Array, "*batch 6 6"]:
    """Return stiffnesses in Kelvin's notation (compliances go the other way)."""
    return jnp.asarray(C) * (ROOTS[:, None] * ROOTS)


def voigt_from_kelvin(C: Float[Tensor, "*batch 6 6"]) -> Float[Array, "*batch 6 6"]:
    """Return stiffnesses in Voigt's notation."""
    return jnp.asarray(C) / (ROOTS[:, None] * ROOTS)


def four_indices(C: Float[Tensor, "*batch 6 6"]) -> Float[Array, "*batch 3 3 3 3"]:
    """Return C_ijkl of stiffnesses in Voigt's notation."""
    return jnp.einsum("mab,...mn,ncd->...abcd", BASIS, kelvin_from_voigt(C), BASIS)


def two_indices(C: Float[Tensor, "*batch 3 3 3 3"]) -> Float[Array, "*batch 6 6"]:
    """Return stiffnesses in Voigt's notation of C_ijkl, its symmetric part in ij and in kl."""
    return voigt_from_kelvin(jnp.einsum("mab,...abcd,ncd->...mn", BASIS, C, BASIS))


def kelvin_rotation(rotation: np.ndarray) -> np.ndarray:
    """Return the orthogonal (…, 6, 6) Q of Cartesian rotations R (…, 3, 3): ε -> R ε Rᵀ."""
    return np.einsum("mab,...ac,...bd,ncd->...mn", BASIS, rotation, rotation, BASIS)


def stress_strain_coefficients(
    C: Float[Tensor, "6 6"], stress: Float[Tensor, "3 3"]
) -> Float[Array, "6 6"]:
    """Return the slope of the true stress with symmetric strain in a crystal under stress.

    B_ijkl = C_ijkl + ½ (σ_ik δ_jl + σ_jk δ_il + σ_il δ_jk + σ_jl δ_ik) - σ_ij δ_kl, C the second
    derivative of the energy with the Lagrangian strain per volume; B = C at zero stress. What a
    crystal under stress withstands is judged by the symmetric part of B.

    Args:
        C: Voigt; any unit.
        stress: Positive under tension, same unit.

    Source: Barron and Klein, Proc. Phys. Soc. 85, 523 (1965), eq. 2.24, for any stress.
    """
    d = jnp.eye(3)
    bent = (
        jnp.einsum("ik,jl->ijkl", stress, d)
        + jnp.einsum("jk,il->ijkl", stress, d)
        + jnp.einsum("il,jk->ijkl", stress, d)
        + jnp.einsum("jl,ik->ijkl", stress, d)
    )
    return two_indices(four_indices(C) + bent / 2 - jnp.einsum("ij,kl->ijkl", stress, d))
