"""Sound waves of an elastic medium, their mean velocity and the Debye temperature.

    ρ v² e_i = Σ (C_ijkl + σ_jl δ_ik) n_j n_l e_k                                       (1)
    3/v_D³ = ⟨1/v_1³ + 1/v_2³ + 1/v_3³⟩ over all directions n                           (2)
    θ_D = (ħ/k_B) (6π² N/V)^⅓ v_D                                                       (3)

C is the second derivative of the energy with the Lagrangian strain, σ the stress in the crystal.
These are the slopes of the acoustic branches at Γ (`velocities.sound_velocities`) where no
macroscopic field accompanies a wave: in a polar crystal that is piezoelectric the field stiffens
some waves, which (1) leaves out. Velocities are in Å/ps = 100 m/s.
Source: Wallace, Thermodynamics of Crystals (1972), section 3; Anderson, J. Phys. Chem.
Solids 24, 909 (1963) (2, 3).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.elastic.notation import Tensor, four_indices
from phojax.pytree import pytree
from phojax.spectral import Scalar, eigenvalues, trace_function
from phojax.structure import Structure
from phojax.units import EV_PER_A3_IN_GPA, HBAR, KB, TIME_FS

_A_PER_PS = 1e3 / TIME_FS  # of the internal unit of velocity


@pytree()
class SoundWaves:
    """Plane waves along some directions.

    Attributes:
        velocities: Å/ps, ascending; NaN where v² is negative.
        polarizations: Unit vectors; arbitrary within waves of one velocity.
    """

    velocities: Float[Array, "direction 3"]
    polarizations: Float[Array, "direction wave 3"]

    @property
    def km_s(self) -> Float[Array, "direction 3"]:
        """The velocities in km/s."""
        return self.velocities / 10


def density(crystal: Structure) -> Float[Array, ""]:
    """Return the mass density in amu/Å³ (1 amu/Å³ = 1.66054 g/cm³)."""
    return jnp.sum(jnp.where(crystal.numbers > 0, crystal.masses, 0.0)) / crystal.volume


def christoffel(
    C: Float[Tensor, "6 6"],
    density: Scalar,
    directions: Float[Tensor, "direction 3"],
    stress: Float[Tensor, "3 3"] | None = None,
) -> SoundWaves:
    """Return the three sound waves along Cartesian directions, eq. (1).

    The velocities are differentiable, the polarizations where no two velocities are equal.

    Args:
        C: GPa, Voigt.
        density: amu/Å³.
        directions: Of any length but 0.
        stress: GPa, positive under tension; none by default.
    """
    matrices = _matrices(C, density, directions, stress)
    _, e = jnp.linalg.eigh(matrices)
    velocities = jnp.sqrt(eigenvalues(matrices)) * _A_PER_PS
    return SoundWaves(velocities, jnp.swapaxes(e, -1, -2))


def mean_velocity(
    C: Float[Tensor, "6 6"],
    density: Scalar,
    stress: Float[Tensor, "3 3"] | None = None,
    order: int = 32,
) -> Float[Array, ""]:
    """Return the Debye velocity of eq. (2) in Å/ps; NaN where a wave is unstable.

    Differentiable: the sum over waves has no kink where two of them cross.

    Args:
        C: GPa, Voigt.
        density: amu/Å³.
        stress: GPa.
        order: Polar angles on half the sphere; twice as many azimuths on half a turn.
    """
    n, weights = _hemisphere(order)
    # A trace, not a sum over waves: degenerate ones have a derivative as well.
    traces = trace_function(lambda x: x**-1.5, _matrices(C, density, jnp.asarray(n), stress))
    return (3 / jnp.sum(jnp.asarray(weights) * traces)) ** (1 / 3) * _A_PER_PS


def mean_velocity_of_moduli(bulk: Scalar, shear: Scalar, density: Scalar) -> Float[Array, ""]:
    """Return eq. (2) in Å/ps for an isotropic medium of moduli in GPa; density in amu/Å³."""
    bulk, shear, density = (jnp.asarray(x, float) for x in (bulk, shear, density))
    along = jnp.sqrt((bulk + 4 * shear / 3) / EV_PER_A3_IN_GPA / density)
    across = jnp.sqrt(shear / EV_PER_A3_IN_GPA / density)
    return (3 / (1 / along**3 + 2 / across**3)) ** (1 / 3) * _A_PER_PS


def elastic_debye_temperature(velocity: Scalar, crystal: Structure) -> Float[Array, ""]:
    """Return θ_D in K of eq. (3), for a mean velocity in Å/ps and all atoms of the crystal."""
    atoms = jnp.sum(crystal.numbers > 0)
    wave_number = (6 * jnp.pi**2 * atoms / crystal.volume) ** (1 / 3)
    return HBAR / KB * wave_number * jnp.asarray(velocity) / _A_PER_PS


def _matrices(C, density, directions, stress) -> Float[Array, "direction 3 3"]:
    """Return the matrices whose eigenvalues are v² of eq. (1), in internal units."""
    n = jnp.asarray(directions, float)
    n = n / jnp.linalg.norm(n, axis=-1, keepdims=True)
    matrices = jnp.einsum("ijkl,dj,dl->dik", four_indices(C), n, n)
    if stress is not None:
        matrices += jnp.einsum("jl,dj,dl->d", stress, n, n)[:, None, None] * jnp.eye(3)
    return matrices / EV_PER_A3_IN_GPA / density


def _hemisphere(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return directions and weights (sum 1): Gauss in the cosine, equal steps in the azimuth."""
    cosines, weights = np.polynomial.legendre.leggauss(2 * order)
    up = cosines > 0  # opposite directions have the same waves
    cosines, weights = cosines[up], weights[up]
    azimuths = (np.arange(4 * order) + 0.5) * (np.pi / (2 * order))
    sines = np.sqrt(1 - cosines**2)
    n = np.stack(
        [
            np.outer(sines, np.cos(azimuths)),
            np.outer(sines, np.sin(azimuths)),
            np.outer(cosines, np.ones_like(azimuths)),
        ],
        axis=-1,
    )
    shares = np.outer(weights, np.full(len(azimuths), 1 / len(azimuths)))
    return n.reshape(-1, 3), (shares / shares.sum()).reshape(-1)
