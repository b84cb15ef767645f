"""How far mobile ions move together with their neighbours: a smooth stand-in for `coupling`.

    c(T) = Σ_b w_b ⟨u_i·u_j⟩ / √(Σ_b w_b ⟨u_i²⟩ Σ_b w_b ⟨u_j²⟩)                             (1)
    ⟨u_i·u_jL⟩ = Σ_q w_q Re Σ_a g(D)_ja,ia exp(iq·(r_jL - r_i)) / √(m_i m_j)               (2)
    w(r) = 1 / (1 + exp((r - r_c) / s))                                                   (3)

over pairs b = (i mobile, j host, lattice vector L), g the thermal variance of `displacements`. c
lies in [-1, 1] and is +1 where ions move with their neighbours as one body. Being made of matrix
functions and of a smooth cutoff, it has a derivative everywhere: `coupling` of single modes has
none where modes are degenerate or bonds come and go.
Source: Jeong, Heffner, Graf, Billinge, Phys. Rev. B 67, 104301 (2003): correlated motion of pairs.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from phojax.descriptors.displacements import variance_above
from phojax.modes import shift_of, without_translations
from phojax.spectral import Scalar, matrix_function
from phojax.structure import Structure

CUTOFF, SOFTNESS = 3.5, 0.1  # Å

_IMAGES = np.array(list(itertools.product(range(-2, 3), repeat=3)))


def neighbour_correlation_from_matrices(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    mobile: Bool[Array, " atom"],
    temperature: Scalar,
    floor: Scalar,
    *,
    cutoff: float = CUTOFF,
    softness: float = SOFTNESS,
    free: bool = True,
) -> Float[Array, ""]:
    """Return c of eq. (1); NaN where all atoms are mobile or none is.

    Pairs are found among two cells to every side: the cutoff should be below three halves of the
    distance between the planes of the cell. Differentiable in D (once), positions, cell, masses and
    temperature.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹.
        q: Fractional; tells Γ, where the translations are projected out.
        weights: Sum to one; points that symmetry reduced count for their stars.
        crystal: The primitive cell.
        mobile: True for mobile ions.
        temperature: T ≥ 0 in K.
        floor: Modes with λ ≤ floor (eV Å⁻² amu⁻¹) are left out.
        cutoff: r_c, Å.
        softness: s, Å.
        free: Whether the crystal may move as a whole.
    """
    n = len(crystal)
    shifted, T = without_translations(D, q, crystal, free)
    G = matrix_function(variance_above, shifted, temperature, floor)
    G = G - variance_above(shift_of(D), temperature, floor)[:, None, None] * (
        T @ T.conj().swapaxes(1, 2)
    )
    root = 1 / jnp.sqrt(crystal.masses)
    blocks = jnp.einsum("qjaia->qij", G.reshape(-1, n, 3, n, 3)) * root[:, None] * root
    own = jnp.einsum("q,qii->i", weights, blocks).real

    x = crystal.fractional
    apart = x[None, :] - x[:, None]
    apart = apart - jax.lax.stop_gradient(jnp.rint(apart))  # the choice of image is no function
    between = jnp.outer(mobile, ~mobile)

    def at(image):
        vector = apart + image
        r2 = jnp.sum((vector @ crystal.cell) ** 2, axis=-1)
        r = jnp.sqrt(jnp.where(between, r2, 1.0))
        w = jnp.where(between, jax.nn.sigmoid((cutoff - r) / softness), 0.0)
        phase = jnp.exp(2j * jnp.pi * jnp.einsum("qa,ija->qij", q, vector))
        return w, jnp.sum(w * jnp.einsum("q,qij->ij", weights, (blocks * phase)).real)

    w, joint = jax.lax.map(at, jnp.asarray(_IMAGES, x.dtype))
    pairs = w.sum(axis=0)
    return jnp.sum(joint) / jnp.sqrt((pairs.sum(axis=1) @ own) * (pairs.sum(axis=0) @ own))


__all__ = ["CUTOFF", "SOFTNESS", "neighbour_correlation_from_matrices"]
