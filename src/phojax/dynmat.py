"""Dynamical matrices from force constants.

    D_iα,jβ(q) = (m_i m_j)^(−1/2) exp(iq·(r_j − r_i)) Σ_R Φ^R_iα,jβ exp(iq·R)         (1)

Φ^R is shared among the equidistant nearest images of a pair (`ForceConstants`). The phase runs
over the full vector r_j + R − r_i, so displacements are u_jR = e_j exp(iq·(r_j + R))/√m_j, and
neither D nor its eigenvectors depend on which image of an atom the cell holds. The price is that
D(q + G) is D(q) only up to the phases exp(iG·(r_j − r_i)).
q is given in units of the reciprocal vectors: q·r = 2π q·x with x fractional.
Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), § 38.
"""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from phojax.checks import check_float64
from phojax.force_constants.container import ForceConstants
from phojax.spectral import hermitian_part


def dynamical_matrices(
    force_constants: ForceConstants, q: Float[Array, "q 3"]
) -> Complex[Array, "q mode mode"]:
    """Return D(q), eq. (1), in eV Å⁻² amu⁻¹, Hermitian to the last bit.

    Memory: 16 · (3 atoms)² bytes per q and some copies; chunk long lists of q.
    Differentiable in the force constants, the masses and q.

    Args:
        force_constants: Φ with its cells and nearest images.
        q: Fractional (units of the primitive reciprocal vectors).

    Raises:
        InputError: q in float32.
    """
    check_float64("q", q)
    primitive = force_constants.supercell.primitive
    by_vector = jnp.moveaxis(force_constants.by_lattice_vector, 3, 2)  # R iα jβ
    phases = 2 * jnp.pi * q @ force_constants.images.lattice.astype(q.dtype).T
    n = 3 * len(primitive)
    # Two real products: Φ is real, so a complex one would do half its work on zeros.
    flat = by_vector.reshape(by_vector.shape[0], n * n)
    D = (jnp.cos(phases) @ flat + 1j * (jnp.sin(phases) @ flat)).reshape(-1, n, n)
    gauge = jnp.repeat(atomic_phases(primitive.fractional, q), 3, axis=-1)
    gauge = gauge / jnp.sqrt(jnp.repeat(primitive.masses, 3))
    return hermitian_part(gauge.conj()[:, :, None] * D * gauge[:, None, :])


def atomic_phases(
    fractional: Float[Array, "*rows 3"], q: Float[Array, "q 3"]
) -> Complex[Array, "q *rows"]:
    """Return exp(iq·r) for fractional r (atoms, or bond vectors)."""
    return jnp.exp(2j * jnp.pi * jnp.tensordot(q, fractional, axes=((1,), (-1,))))
