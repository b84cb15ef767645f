"""Moduli of a polycrystal and what they are used for.

With C the stiffnesses in Voigt's notation and S = C⁻¹,

    K_V = (C11 + C22 + C33 + 2 (C12 + C23 + C31)) / 9                                  (1)
    G_V = (C11 + C22 + C33 - C12 - C23 - C31 + 3 (C44 + C55 + C66)) / 15                (2)
    1/K_R = S11 + S22 + S33 + 2 (S12 + S23 + S31)                                       (3)
    15/G_R = 4 (S11 + S22 + S33 - S12 - S23 - S31) + 3 (S44 + S55 + S66)                (4)
    K = (K_V + K_R) / 2,  G = (G_V + G_R) / 2                                           (5)
    E = 9KG / (3K + G),  ν = (3K - 2G) / (2 (3K + G))                                   (6)
    H = 0.92 (G/K)^1.137 G^0.708, all in GPa                                            (7)
    A = 5 G_V/G_R + K_V/K_R - 6                                                         (8)

A crystal is stable under homogeneous strain where all eigenvalues of C are positive; in Kelvin's
notation they do not depend on the axes.
Source: Hill, Proc. Phys. Soc. A 65, 349 (1952) (1-5); Tian, Xu and Zhao, Int. J. Refract. Met. Hard
Mater. 33, 93 (2012) (7); Ranganathan and Ostoja-Starzewski, Phys. Rev. Lett. 101, 055504 (2008)
(8); Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014) (stability).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phojax.elastic.notation import Tensor, kelvin_from_voigt
from phojax.pytree import pytree
from phojax.spectral import Scalar


@pytree()
class Moduli:
    """Moduli of an aggregate of crystals, in the unit of the stiffnesses (GPa).

    Attributes:
        bulk_voigt: K_V, eq. (1): of uniform strain, an upper bound.
        bulk_reuss: K_R, eq. (3): of uniform stress, a lower bound.
        bulk: K, eq. (5).
        shear_voigt: G_V, eq. (2).
        shear_reuss: G_R, eq. (4).
        shear: G, eq. (5).
        young: E, eq. (6).
        poisson: ν, eq. (6).
        hardness: H in GPa, eq. (7), for moduli in GPa; NaN where K or G is negative.
        pugh: K/G; above about 1.75 a material tends to be ductile.
        anisotropy: A, eq. (8); 0 for an isotropic crystal.
        eigenvalues: Of C in Kelvin's notation, ascending.
    """

    bulk_voigt: Float[Array, ""]
    bulk_reuss: Float[Array, ""]
    bulk: Float[Array, ""]
    shear_voigt: Float[Array, ""]
    shear_reuss: Float[Array, ""]
    shear: Float[Array, ""]
    young: Float[Array, ""]
    poisson: Float[Array, ""]
    hardness: Float[Array, ""]
    pugh: Float[Array, ""]
    anisotropy: Float[Array, ""]
    eigenvalues: Float[Array, "6"]

    @property
    def stable(self) -> Bool[Array, ""]:
        """Whether all eigenvalues are positive; the averages mean nothing where they are not."""
        return jnp.all(self.eigenvalues > 0)


def moduli(C: Float[Tensor, "6 6"]) -> Moduli:
    """Return the moduli of a crystal's stiffnesses in GPa (Voigt's notation); differentiable.

    The eigenvalues alone have kinks where two of them meet.
    """
    C = jnp.asarray((C + C.T) / 2, float)
    S = jnp.linalg.inv(C)
    K_V = jnp.sum(C[:3, :3]) / 9
    K_R = 1 / jnp.sum(S[:3, :3])
    G_V = (3 * jnp.trace(C[:3, :3]) - jnp.sum(C[:3, :3])) / 30 + jnp.trace(C[3:, 3:]) / 5
    normal = (3 * jnp.trace(S[:3, :3]) - jnp.sum(S[:3, :3])) / 2
    G_R = 15 / (4 * normal + 3 * jnp.trace(S[3:, 3:]))
    K, G = (K_V + K_R) / 2, (G_V + G_R) / 2
    return Moduli(
        K_V, K_R, K, G_V, G_R, G,
        young_modulus(K, G),
        poisson_ratio(K, G),
        hardness(K, G),
        K / G,
        5 * G_V / G_R + K_V / K_R - 6,
        jnp.linalg.eigvalsh(kelvin_from_voigt(C)),
    )  # fmt: skip


def young_modulus(bulk: Scalar, shear: Scalar) -> Float[Array, ""]:
    """Return E of eq. (6), in the unit of the moduli."""
    bulk, shear = jnp.asarray(bulk, float), jnp.asarray(shear, float)
    return 9 * bulk * shear / (3 * bulk + shear)


def poisson_ratio(bulk: Scalar, shear: Scalar) -> Float[Array, ""]:
    """Return ν of eq. (6)."""
    bulk, shear = jnp.asarray(bulk, float), jnp.asarray(shear, float)
    return (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear))


def hardness(bulk: Scalar, shear: Scalar) -> Float[Array, ""]:
    """Return the estimated Vickers hardness in GPa of moduli in GPa, eq. (7)."""
    bulk, shear = jnp.asarray(bulk, float), jnp.asarray(shear, float)
    sound = (bulk > 0) & (shear > 0)
    # Both branches of `where` are differentiated: keep negative numbers out of the powers.
    K, G = jnp.where(sound, bulk, 1.0), jnp.where(sound, shear, 1.0)
    return jnp.where(sound, 0.92 * (G / K) ** 1.137 * G**0.708, jnp.nan)
