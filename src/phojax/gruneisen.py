"""Mode Grüneisen parameters: how frequencies follow the volume.

    γ_qn = −∂ln ω_qn/∂ln V = −(V/2λ_qn) ⟨e_qn| ∂D/∂V |e_qn⟩                               (1)

at fixed fractional q. ∂D/∂V is the difference of D at a larger and a smaller volume over the
difference of volumes, which is exact up to the square of the step (`gruneisen_parameters`), or a
derivative of force constants that are known as a function of the volume
(`gruneisen_parameters_of_family`). Each volume has its own force constants, cell, positions and
Born charges. In degenerate blocks ∂D/∂V is diagonalised, so γ are those of the modes that the block
splits into.

    γ(T) = Σ_qn w_q C_qn γ_qn / Σ_qn w_q C_qn,   C = k_B (x/sinh x)²,  x = ħω/2k_BT         (2)

is the mean that thermal expansion α_V = γ C_V / B V asks for; without a temperature all modes count
the same, as where k_BT ≫ ħω.
γ is NaN where (1) divides by nothing: translations at Γ and |ν| up to a named frequency.
Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), § 4; Barron, Collins, White, Adv.
Phys. 29, 609 (1980), section 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Int

from phojax.checks import check_shape, fail
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants.container import ForceConstants
from phojax.modes import Modes, chunk_size, degenerate_blocks, in_chunks, translations
from phojax.spectral import Scalar
from phojax.units import HBAR, KB
from phojax.velocities import LOWEST, lifted


def gruneisen_parameters(
    found: Modes,
    smaller: ForceConstants | Interpolation,
    larger: ForceConstants | Interpolation,
    *,
    directions: Float[Array, "q 3"] | None = None,
    lowest: float = LOWEST,
    blocks: Int[Array, "q mode"] | None = None,
    chunk: int | None = None,
) -> Float[Array, "q mode"]:
    """Return γ of eq. (1) from three volumes; NaN for translations and |ν| up to `lowest`.

    Args:
        found: Modes at the middle volume.
        smaller: Force constants at a smaller volume; with dipoles where `found` has them.
        larger: The same at a larger volume. The atoms in the order of `found`.
        directions: With dipoles, from where Γ is approached, as for `modes`, fractional.
        lowest: THz.
        blocks: From `modes.degenerate_blocks`, with its defaults if not given.
        chunk: Number of q in flight; half of that of `modes` by default.

    Raises:
        InputError: other atoms, dipoles at one volume only, volumes that are the same.
    """
    less, more = interpolation(smaller), interpolation(larger)
    for held in (less, more):
        check_shape("positions", held.crystal.positions, (len(found.structure), 3))
    if (less.dipoles is None) != (more.dipoles is None):
        raise fail("dipoles at one of two volumes", "Born charges at both, or at none")
    change = more.crystal.volume - less.crystal.volume
    if not isinstance(change, Tracer) and float(change) <= 0:
        raise fail(
            f"volumes {float(less.crystal.volume)} and {float(more.crystal.volume)} Å³",
            "the smaller first",
        )
    relative = change / found.structure.volume

    def slope(q, directions):
        rise = dynamical_matrices(more, q, directions) - dynamical_matrices(less, q, directions)
        return rise / relative

    return _from_slopes(slope, found, directions, lowest, blocks, chunk)


def gruneisen_parameters_of_family(
    found: Modes,
    family: Callable[[Float[Array, ""]], ForceConstants | Interpolation],
    *,
    directions: Float[Array, "q 3"] | None = None,
    lowest: float = LOWEST,
    blocks: Int[Array, "q mode"] | None = None,
    chunk: int | None = None,
) -> Float[Array, "q mode"]:
    """Return γ of eq. (1) from force constants that are a differentiable function of strain.

    Args:
        found: Modes at no strain.
        family: Takes ε, from which the volume is V(1 + ε)³ to first order, and returns the force
            constants with their crystal, whose volume is checked. With dipoles let it make an
            `interpolation` with `Dipoles` of the unstrained crystal.
        directions: As the other arguments, those of `gruneisen_parameters`.

    Raises:
        InputError: a family whose volume does not change as 3ε.
    """
    zero = jnp.zeros(())

    def volume(strain):
        return interpolation(family(strain)).crystal.volume

    V, dV = jax.jvp(volume, (zero,), (jnp.ones(()),))
    if not isinstance(dV, Tracer) and abs(float(dV / V) - 3) > 1e-6:
        raise fail(f"a volume that changes by {float(dV / V):g} times the strain", "3 times")

    def slope(q, directions):
        def matrices(strain):
            return dynamical_matrices(interpolation(family(strain)), q, directions)

        return jax.jvp(matrices, (zero,), (jnp.ones(()),))[1] / 3

    return _from_slopes(slope, found, directions, lowest, blocks, chunk)


def gruneisen_of_slopes(
    found: Modes,
    slopes: Complex[Array, "q mode mode"],
    *,
    lowest: float = LOWEST,
    blocks: Int[Array, "q mode"] | None = None,
) -> Float[Array, "q mode"]:
    """Return -∂ln ω/∂x of modes from ∂D/∂x, for x of any kind: with x = ln V these are γ of (1).

    Args:
        found: Modes.
        slopes: ∂D/∂x at their q, fixed in units of the reciprocal lattice.
        lowest: As the other argument, those of `gruneisen_parameters`.
    """
    blocks = degenerate_blocks(found.eigenvalues) if blocks is None else blocks
    e = found.eigenvectors
    E = e.reshape(*e.shape[:2], -1).swapaxes(-1, -2)
    return _of_modes(found, lifted(E, slopes, blocks)[0], lowest)


def mean_gruneisen(
    found: Modes, parameters: Float[Array, "q mode"], temperature: Scalar | None = None
) -> Float[Array, ""]:
    """Return the mean γ of eq. (2); modes whose γ is NaN, and imaginary ones, are left out.

    Args:
        found: Modes on a mesh; on one that a space group reduced, of its full symmetry.
        parameters: γ of its modes.
        temperature: T > 0 in K; without it all modes weigh the same. NaN for others.
    """
    kept = jnp.isfinite(parameters) & (found.eigenvalues > 0)
    share = jnp.where(kept, found.weights[:, None], 0.0)
    if temperature is not None:
        share = share * jnp.where(kept, _heat_capacity(found.eigenvalues, kept, temperature), 0.0)
    return jnp.sum(share * jnp.where(kept, parameters, 0.0)) / jnp.sum(share)


def _heat_capacity(eigenvalue, kept, temperature):
    """Return C/k_B of eq. (2)."""
    x = HBAR * jnp.sqrt(jnp.where(kept, eigenvalue, 1.0)) / (2 * KB * temperature)
    x = jnp.where(jnp.asarray(temperature) > 0, x, jnp.nan)
    # x/sinh x without overflow.
    return (2 * x * jnp.exp(-x) / -jnp.expm1(-2 * x)) ** 2


def _from_slopes(slope, found, directions, lowest, blocks, chunk):
    blocks = degenerate_blocks(found.eigenvalues) if blocks is None else blocks
    chunk = max(1, chunk_size(found.structure) // 2) if chunk is None else chunk

    def solve(points):
        q, e, labels, towards = points
        E = e.reshape(*e.shape[:2], -1).swapaxes(-1, -2)
        return lifted(E, slope(q, towards), labels)[0]

    slopes = in_chunks(solve, (found.q, found.eigenvectors, blocks, directions), chunk)
    return _of_modes(found, slopes, lowest)


def _of_modes(found, slopes, lowest):
    defined = (jnp.abs(found.frequencies_THz) > lowest) & ~translations(found)
    return jnp.where(defined, -slopes / (2 * jnp.where(defined, found.eigenvalues, 1.0)), np.nan)
