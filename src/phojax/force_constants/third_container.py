"""Third-order force constants of a crystal, held on a supercell.

    Φ_iα,jLβ,kMγ = ∂³E / ∂u_iα ∂u_jLβ ∂u_kMγ                                       (1)

A supercell holds the sum of Φ over all images of a triplet that its translations connect; what a
finite cutoff leaves out is 0.
"""

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from phojax.checks import check_finite, check_float64, check_shape
from phojax.pytree import pytree
from phojax.structure import Supercell


@pytree(static=("cutoff",))
class ThirdOrder:
    """Φ of eq. (1).

    Attributes:
        values: eV/Å³; the first atom is a primitive atom (in the supercell's home cell), the others
            run over the supercell's atoms in its order j·n + L.
        supercell: The supercell they were computed in.
        cutoff: Å; triplets with a pair farther apart were left out and are 0; None where there is
            no cutoff (static).
    """

    values: Float[Array, "i jL kM 3 3 3"]
    supercell: Supercell
    cutoff: float | None = None


def third_order(values, supercell: Supercell, cutoff: float | None = None) -> ThirdOrder:
    """Return checked ThirdOrder.

    Args:
        values: (i, j·L, k·M, 3, 3, 3) in eV/Å³, float64.
        supercell: Where they live.
        cutoff: Å, of pairs; None for none.

    Raises:
        InputError: a shape that does not fit the cells, float32, values that are not finite.
    """
    n, copies = len(supercell.primitive), supercell.images.shape[0]
    shape = (n, n * copies, n * copies, 3, 3, 3)
    check_shape(
        "third-order force constants", values, shape, f"{n} primitive atoms × {copies} cells"
    )
    values = jnp.asarray(values)
    check_float64("third-order force constants", values)
    if not isinstance(values, Tracer):
        check_finite("third-order force constants", values)
    return ThirdOrder(values, supercell, cutoff)
