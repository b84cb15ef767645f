"""Thermal displacements of a harmonic crystal, in total and mode by mode.

    U_i^ab(T) = (1/m_i) Σ_qn w_q g(λ_qn, T) Re[e_qn,ia e*_qn,ib],   Σ_q w_q = 1          (1)
    g(λ, T) = ħ coth(ħω/2k_BT) / 2ω,   ω = √λ                                           (2)
    u²_qn,i(T) = g(λ_qn, T) Σ_a |e_qn,ia|² / m_i                                        (3)

U is ⟨u uᵀ⟩ of atom i, its trace the mean-square displacement (MSD), and Σ w_q u²_qn,i that trace.
What is no oscillator is left out by name: the translations at Γ, and modes with λ at or below a
floor (imaginary ones), which are counted; the mesh counts Γ all the same, so that the missing
modes leave an error of order 1/n of an n×n×n mesh.

From modes (1) is a sum, for reading. Its derivative with respect to force constants, masses or
structure needs eq. (1) as a matrix function, U = Σ_q w_q [g(D)]_ii / m_i: the same numbers, with
derivatives that hold at degenerate modes (`displacement_tensor_from_matrices`).
Source: Squires, Thermal Neutron Scattering (1978), section 3.2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from phojax.modes import (
    Modes,
    Spectrum,
    atomic_weights,
    padding_modes,
    shift_of,
    translations,
    without_translations,
)
from phojax.pytree import pytree
from phojax.spectral import Scalar, atomic_blocks, eigenvalues, matrix_function
from phojax.structure import Structure
from phojax.units import HBAR, KB, eigenvalue_from_THz


@pytree()
class Oscillators:
    """Which modes count as oscillators, and what was left out.

    Attributes:
        kept: Not a translation, and λ above the floor.
        translations: The rigid translations at Γ.
        imaginary: Other modes with λ at or below the floor.
        lost: Share of all modes that `imaginary` is, by weight; 0 for a stable crystal.
    """

    kept: Bool[Array, "q mode"]
    translations: Bool[Array, "q mode"]
    imaginary: Bool[Array, "q mode"]
    lost: Float[Array, ""]

    @property
    def count_imaginary(self) -> Int[Array, ""]:
        """Number of modes left out as imaginary, each q of the list counted once."""
        return jnp.sum(self.imaginary)


def oscillators(found: Modes, floor: Scalar) -> Oscillators:
    """Return which modes are oscillators.

    Args:
        found: Modes on a mesh.
        floor: λ in eV Å⁻² amu⁻¹ up to which a mode is left out. There is no default: whether an
            imaginary mode may be ignored is physics (`units.eigenvalue_from_THz` converts).
    """
    rigid, real = translations(found), ~padding_modes(found)
    imaginary = (found.eigenvalues <= floor) & ~rigid & real
    share = jnp.sum(imaginary, axis=1) / jnp.sum(real)
    lost = jnp.sum(found.weights * share) / jnp.sum(found.weights)
    return Oscillators(~rigid & ~imaginary & real, rigid, imaginary, lost)


def oscillator_variance(
    eigenvalue: Float[Array, "*batch"], temperature: Scalar
) -> Float[Array, "*batch"]:
    """Return g(λ, T), eq. (2), in amu Å², for λ > 0 in eV Å⁻² amu⁻¹ and T ≥ 0 in K.

    Limits: ħ/2ω at T = 0; k_BT/λ where k_BT ≫ ħω. Diverges as λ → 0⁺. NaN where T < 0.
    """
    temperature = jnp.asarray(temperature, float)
    omega = jnp.sqrt(eigenvalue)
    # Both branches of `where` are differentiated: keep T = 0 out of the first.
    warm = temperature > 0
    x = HBAR * omega / (2 * KB * jnp.where(warm, temperature, 1.0))
    spread = jnp.where(warm, 1 / jnp.tanh(x), 1.0)
    return HBAR / (2 * omega) * jnp.where(temperature >= 0, spread, jnp.nan)


def variance_above(
    eigenvalue: Float[Array, "*batch"],
    temperature: Scalar,
    floor: Scalar,
) -> Float[Array, "*batch"]:
    """Return g(λ, T) in amu Å² where λ > floor, 0 elsewhere."""
    kept = eigenvalue > floor
    g = oscillator_variance(jnp.where(kept, eigenvalue, 1.0), temperature)
    return jnp.where(kept, g, 0.0)


def displacement_tensor(
    found: Modes, temperature: Scalar, kept: Bool[Array, "q mode"]
) -> Float[Array, "atom 3 3"]:
    """Return U of eq. (1) in Å².

    On a mesh that operations of a space group reduced, this is the tensor before the average over
    the star of each q: apply `symmetry.symmetrized_tensors`. Traces of equivalent atoms' sum, and
    meshes reduced by time reversal alone, need no average.

    Args:
        found: Modes on a mesh, weights summing to one.
        temperature: T ≥ 0 in K.
        kept: `oscillators(...).kept`.
    """
    return displacement_tensors(found, jnp.asarray(temperature, float)[None], kept)[0]


def displacement_tensors(
    found: Modes, temperatures: Float[Array, " T"], kept: Bool[Array, "q mode"]
) -> Float[Array, "T atom 3 3"]:
    """Return U of eq. (1) in Å² at several temperatures; see `displacement_tensor`."""
    share = jax.vmap(lambda T: found.weights[:, None] * _variance(found, T, kept))(temperatures)
    x, y = found.eigenvectors.real, found.eigenvectors.imag
    # Six products: einsum would first copy the eigenvectors into another order.
    products = [
        (x[..., a] * x[..., b] + y[..., a] * y[..., b]).reshape(-1, x.shape[2])
        for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    ]
    share = share.reshape(share.shape[0], -1)
    xx, yy, zz, yz, xz, xy = (share @ product for product in products)
    U = jnp.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1)
    return U.reshape(*U.shape[:2], 3, 3) / found.masses[:, None, None]


def displacement_tensor_from_matrices(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    temperature: Scalar,
    floor: Scalar,
    *,
    free: bool = True,
) -> Float[Array, "atom 3 3"]:
    """Return U of eq. (1) in Å² as a matrix function of D.

    Differentiable in D, masses and temperature, at degenerate modes as well; once in D.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹.
        q: Fractional; tells Γ, where the translations are projected out.
        weights: Sum to one.
        crystal: The primitive cell.
        temperature: T ≥ 0 in K.
        floor: Modes with λ ≤ floor (eV Å⁻² amu⁻¹) are left out; `eigenvalue_count_below` tells
            how many they are.
        free: Whether the crystal may move as a whole (`ForceConstants.free`).
    """
    shifted, T = without_translations(D, q, crystal, free)
    g = atomic_blocks(matrix_function(variance_above, shifted, temperature, floor))
    T = T.reshape(T.shape[0], -1, 3, 3)
    rigid = jnp.einsum("qiac,qibc->qiab", T, T.conj()).real
    g = g - variance_above(shift_of(D), temperature, floor)[:, None, None, None] * rigid
    return jnp.einsum("q,qiab->iab", weights, g) / crystal.masses[:, None, None]


def eigenvalue_count_below(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    crystal: Structure,
    floor: Scalar,
) -> Int[Array, " q"]:
    """Return how many modes with λ ≤ floor each q has, translations at Γ not counted."""
    shifted, _ = without_translations(jax.lax.stop_gradient(D), q, crystal)
    return jnp.sum(eigenvalues(shifted) <= floor, axis=-1)


def mode_displacements(
    found: Modes,
    temperature: Scalar,
    kept: Bool[Array, "q mode"],
    blocks: Int[Array, "q mode"] | None = None,
) -> Float[Array, "q mode atom"]:
    """Return u²_qn,i of eq. (3) in Å², without the weight of q; 0 for modes not kept.

    Atomic weights are averaged over degenerate blocks (`modes.degenerate_blocks`; its defaults
    if none are given). On a mesh Σ_qn w_q u²_qn,i is the trace of U_i.
    """
    weight = atomic_weights(found, blocks)
    return _variance(found, temperature, kept)[:, :, None] * weight / found.masses


def cumulative_displacements(
    found: Spectrum,
    displacements: Float[Array, "q mode atom"],
    frequencies: Float[Array, " f"],
) -> Float[Array, "f atom"]:
    """Return the MSD in Å² that modes up to each frequency (THz, ascending) add up to.

    Args:
        found: Modes on a mesh.
        displacements: From `mode_displacements`.
        frequencies: THz, ascending.
    """
    count = frequencies.shape[0]
    at = jnp.searchsorted(eigenvalue_from_THz(frequencies), found.eigenvalues.reshape(-1))
    share = (found.weights[:, None, None] * displacements).reshape(-1, displacements.shape[-1])
    return jnp.cumsum(jax.ops.segment_sum(share, at, count + 1)[:count], axis=0)


def share_below(
    found: Spectrum, displacements: Float[Array, "q mode atom"], frequency: Scalar = 1.5
) -> Float[Array, " atom"]:
    """Return per atom the share of its MSD that modes below a frequency (THz) carry, in [0, 1]."""
    soft = found.eigenvalues < eigenvalue_from_THz(jnp.asarray(frequency, float))
    share = found.weights[:, None, None] * displacements
    return jnp.sum(share * soft[:, :, None], axis=(0, 1)) / jnp.sum(share, axis=(0, 1))


@pytree()
class AxisDisplacement:
    """U_αα of some atoms by three measures, Å²: the first two depend on the orientation of axes.

    Attributes:
        mean: Over atoms and axes.
        largest: Over atoms and Cartesian axes.
        largest_eigenvalue: Over atoms, of U_i.
    """

    mean: Float[Array, ""]
    largest: Float[Array, ""]
    largest_eigenvalue: Float[Array, ""]


@jax.jit
def msd_axis(U: Float[Array, "atom 3 3"], atoms: Bool[Array, " atom"]) -> AxisDisplacement:
    """Return the displacements along axes (Å²) of the atoms chosen, at least one."""
    along = jnp.diagonal(U, axis1=-2, axis2=-1)
    principal = eigenvalues(U)[:, -1]
    return AxisDisplacement(
        species_mean(jnp.mean(along, axis=-1), atoms),
        jnp.max(jnp.where(atoms[:, None], along, -jnp.inf)),
        jnp.max(jnp.where(atoms, principal, -jnp.inf)),
    )


def msd_total(U: Float[Array, "atom 3 3"]) -> Float[Array, " atom"]:
    """Return the mean-square displacement ⟨u²⟩ of every atom in Å², the trace of U."""
    return jnp.trace(U, axis1=-2, axis2=-1)


def species_mean(values: Float[Array, " atom"], atoms: Bool[Array, " atom"]) -> Float[Array, ""]:
    """Return the mean over the atoms chosen; NaN where none is."""
    return jnp.sum(jnp.where(atoms, values, 0)) / jnp.sum(atoms)


def _variance(found, temperature, kept):
    g = oscillator_variance(jnp.where(kept, found.eigenvalues, 1.0), temperature)
    return jnp.where(kept, g, 0.0)
