"""Second moments of displacements against lag: what diffusion is computed from.

    M_i^ab(τ) = ⟨ Δr_i^a Δr_i^b ⟩,   Δr_i = r_i(t₀ + τ) - r_i(t₀)                          (1)
    C_s^ab(τ) = ⟨ Δ R_s^a Δ R_s^b ⟩,   R_s = Σ_(i in s) r_i                                 (2)

averaged over time origins t₀, the motion of the host's centre of mass subtracted (PHYSICS E2). The
trace of (1), averaged over the atoms of a species, is its mean squared displacement; (2) is of
collective diffusion. The moments are kept for sections of the run as well, by the section that
t₀ lies in, so that the scatter between sections is known.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class DisplacementStatistics:
    """See the module's header. Symmetric tensors are stored in full.

    Attributes:
        lags: τ in frames, ascending, all at least 1.
        origins: How many origins each lag was averaged over; those of a long lag may be spaced
            by several frames, at most by lag / 8.
        spacing: Frames between the origins of each lag.
        frames: Length of the run in frames.
        interval_ps: Time between frames.
        atoms: Eq. (1) in Å².
        collective: Eq. (2) in Å², by species in the order of `species`.
        section_sums: Per section of origins and species, the sum over origins of the mean over the
            atoms of eq. (1), Å².
        section_origins: How many origins of each section.
        numbers: Atomic number of every atom.
        species: The distinct atomic numbers, ascending.
        mobile: Atomic number of the mobile ion: the host is the rest.
    """

    lags: Int[np.ndarray, " lag"]
    origins: Int[np.ndarray, " lag"]
    spacing: Int[np.ndarray, " lag"]
    frames: int
    interval_ps: float
    atoms: Float[np.ndarray, "lag atom 3 3"]
    collective: Float[np.ndarray, "lag species 3 3"]
    section_sums: Float[np.ndarray, "section lag species 3 3"]
    section_origins: Int[np.ndarray, "section lag"]
    numbers: Int[np.ndarray, " atom"]
    species: tuple[int, ...]
    mobile: int

    @property
    def lags_ps(self) -> Float[np.ndarray, " lag"]:
        """The lags in ps."""
        return self.lags * self.interval_ps

    def moments(self, number: int) -> Float[np.ndarray, "lag 3 3"]:
        """Return eq. (1) averaged over the atoms of an element, Å²."""
        return self.atoms[:, self.numbers == number].mean(axis=1)

    def msd(self, number: int) -> Float[np.ndarray, " lag"]:
        """Return the mean squared displacement of an element in Å²."""
        return np.trace(self.moments(number), axis1=1, axis2=2)
