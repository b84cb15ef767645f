"""Free energy, entropy and heat capacity of a harmonic crystal, per primitive cell.

    F = Σ_qn w_q [ħω/2 + k_BT ln(1 − e^(−x))],   x = ħω/k_BT,   ω = √λ_qn                 (1)
    S = −dF/dT = k_B Σ_qn w_q [x/(e^x − 1) − ln(1 − e^(−x))]                            (2)
    C = T dS/dT = k_B Σ_qn w_q x² e^x/(e^x − 1)²                                        (3)

The mesh counts Γ (Σ_q w_q = 1); its translations, and modes with λ at or below a floor, are left
out as in `displacements`, whose `oscillators` and `eigenvalue_count_below` count them. In the limit
of an infinite mesh the translations do not matter. C is that at constant volume: the derivative at
fixed force constants. All three are sums over modes of functions of λ alone, so derivatives through
matrices (`thermodynamics_from_matrices`) hold at degenerate modes.
Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), § 4.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float
from scipy import constants as _si

from phojax.dynmat import padding
from phojax.modes import Spectrum, at_gamma, shift_of, without_translations
from phojax.pytree import pytree
from phojax.spectral import Scalar, trace_function
from phojax.structure import Structure
from phojax.units import HBAR, KB

_COLD = 500.0  # x beyond which a mode is in its ground state: e^(−x) < 1e-217
_ZERO = 1e-100  # K; its reciprocal has derivatives without overflow


@pytree()
class Thermodynamics:
    """Sums (1) to (3).

    Attributes:
        temperature: K.
        free_energy: F, the zero-point energy included, eV per cell.
        entropy: S, eV/K per cell.
        heat_capacity: C, eV/K per cell.
    """

    temperature: Float[Array, ""]
    free_energy: Float[Array, ""]
    entropy: Float[Array, ""]
    heat_capacity: Float[Array, ""]

    @property
    def energy(self) -> Float[Array, ""]:
        """F + TS, the vibrational energy in eV per cell."""
        return self.free_energy + self.temperature * self.entropy


def oscillator_free_energy(
    eigenvalue: Float[Array, "*batch"], temperature: Scalar
) -> Float[Array, "*batch"]:
    """Return the summand of (1) in eV for λ > 0 in eV Å⁻² amu⁻¹ and T ≥ 0 in K.

    Limits: ħω/2 at T = 0; k_BT ln(ħω/k_BT) where k_BT ≫ ħω.
    """
    omega, x, warm, T = _reduced(eigenvalue, temperature)
    return HBAR * omega / 2 + jnp.where(warm, KB * T * jnp.log(-jnp.expm1(-x)), 0.0)


def oscillator_entropy(
    eigenvalue: Float[Array, "*batch"], temperature: Scalar
) -> Float[Array, "*batch"]:
    """Return the summand of (2) in eV/K; 0 at T = 0."""
    _, x, warm, _ = _reduced(eigenvalue, temperature)
    lost = -jnp.expm1(-x)
    return jnp.where(warm, KB * (x * jnp.exp(-x) / lost - jnp.log(lost)), 0.0)


def oscillator_heat_capacity(
    eigenvalue: Float[Array, "*batch"], temperature: Scalar
) -> Float[Array, "*batch"]:
    """Return the summand of (3) in eV/K; 0 at T = 0, k_B where k_BT ≫ ħω."""
    _, x, warm, _ = _reduced(eigenvalue, temperature)
    return jnp.where(warm, KB * jnp.exp(-x) * (x / jnp.expm1(-x)) ** 2, 0.0)


def thermodynamics(
    found: Spectrum, temperature: Scalar, kept: Bool[Array, "q mode"]
) -> Thermodynamics:
    """Return F, S and C from modes; vmap over temperatures.

    Derivatives by temperature are right to any order; by force constants or masses take
    `thermodynamics_from_matrices`.

    Args:
        found: Modes on a mesh, weights summing to one.
        temperature: T ≥ 0 in K.
        kept: `displacements.oscillators(...).kept`.
    """
    safe = jnp.where(kept, found.eigenvalues, 1.0)

    def summed(f):
        return jnp.sum(found.weights[:, None] * jnp.where(kept, f(safe, temperature), 0.0))

    return _collected(temperature, summed)


def thermodynamics_from_matrices(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    weights: Float[Array, " q"],
    crystal: Structure,
    temperature: Scalar,
    floor: Scalar,
    free: bool = True,
) -> Thermodynamics:
    """Return F, S and C as traces of matrix functions of D.

    Differentiable in D, masses and temperature, at degenerate modes as well; twice in D. The same
    numbers as `thermodynamics` of the oscillators above the same floor.

    Args:
        D: Dynamical matrices at q, eV Å⁻² amu⁻¹.
        q: Fractional; tells Γ, where the translations are left out.
        weights: Sum to one.
        crystal: The primitive cell.
        temperature: T ≥ 0 in K.
        floor: Modes with λ ≤ floor (eV Å⁻² amu⁻¹) are left out.
        free: Whether there are translations at Γ; not where atoms are held (static).
    """
    shifted, _ = without_translations(D, q, crystal, free)
    # At s lie the translations, and the modes of padding atoms.
    s = shift_of(D)
    extra = jnp.where(at_gamma(q) & free, 3, 0) + jnp.sum(padding(crystal))

    def summed(f):
        def above(eigenvalue, temperature, floor):
            kept = eigenvalue > floor
            return jnp.where(kept, f(jnp.where(kept, eigenvalue, 1.0), temperature), 0.0)

        trace = trace_function(above, shifted, temperature, floor)
        return weights @ (trace - extra * above(s, temperature, floor))

    return _collected(temperature, summed)


def kJ_per_mol(energy: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return eV per cell in kJ per mole of cells."""
    return energy * (_si.e * _si.N_A / 1e3)


def J_per_K_mol(entropy: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return eV/K per cell in J/K per mole of cells; for entropies and heat capacities."""
    return entropy * (_si.e * _si.N_A)


def _collected(temperature, summed):
    return Thermodynamics(
        jnp.asarray(temperature, float),
        summed(oscillator_free_energy),
        summed(oscillator_entropy),
        summed(oscillator_heat_capacity),
    )


def _reduced(eigenvalue, temperature):
    """Return ω, x, whether T > 0, and T with 0 kept out of quotients."""
    temperature = jnp.asarray(temperature, float)
    warm = temperature > _ZERO
    T = jnp.where(warm, temperature, 1.0)
    omega = jnp.sqrt(eigenvalue)
    omega = jnp.where(temperature >= 0, omega, jnp.nan)  # no such temperature, no answer
    return omega, jnp.minimum(HBAR * omega / (KB * T), _COLD), warm, T
