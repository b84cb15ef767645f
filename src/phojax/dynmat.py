"""Dynamical matrices from force constants.

    D_iα,jβ(q) = (m_i m_j)^(−1/2) exp(iq·(r_j − r_i)) Σ_R Φ^R_iα,jβ exp(iq·R)         (1)

Φ^R is shared among the equidistant nearest images of a pair (`ForceConstants`). The phase runs
over the full vector r_j + R − r_i, so displacements are u_jR = e_j exp(iq·(r_j + R))/√m_j, and
neither D nor its eigenvectors depend on which image of an atom the cell holds. The price is that
D(q + G) is D(q) only up to the phases exp(iG·(r_j − r_i)).
Where Born charges are given, (1) takes the short-ranged part of Φ, and the dipoles of `nac` are
added.
q is given in units of the reciprocal vectors: q·r = 2π q·x with x fractional.
Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), § 38.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float, Int

from phojax.checks import check_finite, check_float64, fail
from phojax.force_constants.container import ForceConstants
from phojax.nac import (
    BornCharges,
    Dipoles,
    check_neutral,
    dipole_matrices,
    dipoles,
    without_dipoles,
)
from phojax.pytree import pytree
from phojax.structure import Structure


@pytree(static=("free",))
class Interpolation:
    """What gives D at any q: force constants laid out for eq. (1), or a potential (`bloch`).

    Attributes:
        crystal: The primitive cell; atoms with number 0 are padding.
        lattice: R, in units of the primitive vectors.
        values: Φ^R_iα,jβ, eV/Å²; of the short-ranged part where there are dipoles.
        dipoles: None without the non-analytic term.
        free: Whether the crystal may move as a whole (static).
        exact: What is not interpolated: has a method `hessians` as `bloch.Exact`.
    """

    crystal: Structure
    lattice: Int[Array, "R 3"]
    values: Float[Array, "R mode mode"]
    dipoles: Dipoles | None = None
    free: bool = True
    exact: Any = None


def interpolation(
    force_constants: ForceConstants | Interpolation, born: BornCharges | Dipoles | None = None
) -> Interpolation:
    """Return the force constants laid out for interpolation, once for many q.

    Differentiable in force constants, charges and crystal; with a traced crystal give `Dipoles`,
    made of a concrete one.

    Args:
        force_constants: Φ with its cells; an Interpolation is returned as it is.
        born: Neutral Born charges (`nac.neutral`) for the non-analytic term.

    Raises:
        InputError: values that are not finite; charges for what is laid out already, or that do
            not add up to zero.
    """
    if not isinstance(force_constants, ForceConstants):
        if born is not None:
            raise fail(
                "Born charges for force constants that are laid out already",
                "the force constants themselves",
                "Call interpolation(force_constants, born) once",
            )
        return force_constants
    for name, value in (
        ("force constants", force_constants.values),
        ("Born charges", born.charges if isinstance(born, BornCharges) else 0.0),
    ):
        if not isinstance(value, Tracer):
            check_finite(name, value)
    if isinstance(born, BornCharges) and force_constants.free:
        check_neutral(born)
    crystal = force_constants.supercell.primitive
    charged = dipoles(born, crystal) if isinstance(born, BornCharges) else born
    short: ForceConstants = force_constants
    if charged is not None:
        short = without_dipoles(force_constants, charged)
    by_vector = jnp.moveaxis(short.by_lattice_vector, 3, 2)  # R iα jβ
    n = 3 * len(crystal)
    return Interpolation(
        crystal,
        short.images.lattice,
        by_vector.reshape(-1, n, n),
        charged,
        force_constants.free,
    )


def dynamical_matrices(
    force_constants: ForceConstants | Interpolation,
    q: Float[Array, "q 3"],
    directions: Float[Array, "q 3"] | None = None,
) -> Complex[Array, "q mode mode"]:
    """Return D(q), eq. (1), in eV Å⁻² amu⁻¹, Hermitian to the last bit.

    Memory: 16 · (3 atoms)² bytes per q and some copies; chunk long lists of q.
    Differentiable in the force constants, the masses and q.

    Args:
        force_constants: Φ with its cells; or an `interpolation`, which spares the layout at every
            call and may hold dipoles.
        q: Fractional (units of the primitive reciprocal vectors).
        directions: With dipoles, from where Γ is approached, fractional, zeros for nowhere.

    Raises:
        InputError: q in float32.
    """
    check_float64("q", q)
    held = interpolation(force_constants)
    crystal = held.crystal
    n = 3 * len(crystal)
    phases = 2 * jnp.pi * q @ held.lattice.astype(q.dtype).T
    # Two real products: Φ is real, so a complex one would do half its work on zeros.
    flat = held.values.reshape(-1, n * n)
    A = (jnp.cos(phases) @ flat).reshape(-1, n, n)
    B = (jnp.sin(phases) @ flat).reshape(-1, n, n)
    # exp(iq·(r_j − r_i)), in real arithmetic, which XLA does several times faster on CPUs.
    angle = jnp.repeat(2 * jnp.pi * q @ crystal.fractional.T, 3, axis=-1)
    c, s = jnp.cos(angle), jnp.sin(angle)
    gauge_c = c[:, :, None] * c[:, None, :] + s[:, :, None] * s[:, None, :]
    gauge_s = c[:, :, None] * s[:, None, :] - s[:, :, None] * c[:, None, :]
    real, imaginary = A * gauge_c - B * gauge_s, A * gauge_s + B * gauge_c
    if held.dipoles is not None:
        extra = dipole_matrices(held.dipoles, crystal, q, directions)
        real, imaginary = real + extra.real, imaginary + extra.imag
    if held.exact is not None:
        more = held.exact.hessians(crystal, q, directions)
        real, imaginary = real + more.real, imaginary + more.imag
    root = 1 / jnp.sqrt(jnp.repeat(crystal.masses, 3))
    real, imaginary = (part * (root[:, None] * root / 2) for part in (real, imaginary))
    return lax.complex(real + real.swapaxes(1, 2), imaginary - imaginary.swapaxes(1, 2))


def padding(crystal: Structure) -> Bool[Array, " mode"]:
    """Return which rows of D belong to padding (atomic number 0)."""
    return jnp.repeat(crystal.numbers == 0, 3)


def atomic_phases(
    fractional: Float[Array, "*rows 3"], q: Float[Array, "q 3"]
) -> Complex[Array, "q *rows"]:
    """Return exp(iq·r) for fractional r (atoms, or bond vectors)."""
    return jnp.exp(2j * jnp.pi * jnp.tensordot(q, fractional, axes=((1,), (-1,))))
