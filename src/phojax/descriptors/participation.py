"""How many atoms take part in a mode: two measures with two names.

    P   = 1 / [N Σ_i w_i²]                      of eigenvectors (the paper's eq. 8)       (1)
    P_m = (Σ_i w_i/m_i)² / [N Σ_i (w_i/m_i)²]   of displacements, |u_i|² ∝ w_i/m_i        (2)

with w_i = Σ_α |e_iα|², Σ_i w_i = 1, averaged over degenerate blocks. Both lie in [1/N, 1]: 1/N for
a mode on one atom; (1) is 1 where all atoms carry equal energy, (2) for a rigid translation.
Source: Bell, Dean, Hibbins-Butler, J. Phys. C 3, 2111 (1970).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def participation_ratio(
    weights: Float[Array, "*modes atom"], count: Int[Array, ""] | int | None = None
) -> Float[Array, "*modes"]:
    """Return P of eq. (1), the number of atoms in the mode over the number of atoms.

    Args:
        weights: From `modes.atomic_weights`.
        count: N, where some of the atoms are padding.
    """
    count = weights.shape[-1] if count is None else count
    return jnp.sum(weights, axis=-1) ** 2 / (count * jnp.sum(weights**2, axis=-1))


def participation_ratio_mass_weighted(
    weights: Float[Array, "*modes atom"],
    masses: Float[Array, " atom"],
    count: Int[Array, ""] | int | None = None,
) -> Float[Array, "*modes"]:
    """Return P_m of eq. (2).

    Args:
        weights: From `modes.atomic_weights`.
        masses: amu; only their ratios matter.
        count: N, where some of the atoms are padding.
    """
    return participation_ratio(weights / masses, count)
