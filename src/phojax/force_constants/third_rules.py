"""What exact third-order force constants satisfy, and the nearest that do.

    permutation     Φ_iα,jLβ,kMγ = Φ_iα,kMγ,jLβ = Φ_jβ,i(-L)α,k(M-L)γ            (1)
    translation     Σ_kM Φ_iα,jLβ,kMγ = 0                                           (2)
    space group     Φ_gi,gj,gk = R R R Φ_ijk                                        (3)
    cutoff          Φ_ijk = 0 where two of the atoms are farther apart than it      (4)

(1), (3) and (4) are orthogonal projections that commute; their product is S. Cutting (4) breaks
(2): what the triplets left out held is missing from the sums. The nearest Φ that obeys all four
is a least-squares problem with the multipliers λ_iα,jLβ,γ, one for each sum A Φ of (2),

    Φ' = S Φ - S Aᵀ λ,    (A S Aᵀ) λ = A S Φ                                        (5)

solved by conjugate gradients. Without a cutoff they end after three steps, since A S Aᵀ then has
three eigenvalues. With one, the missing sums are spread over the triplets that are kept, the more
of them the less each changes; nothing brings back what the far ones held.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, Int

from phojax.force_constants.shells import pair_distances
from phojax.force_constants.sum_rules import arrival_columns, cell_index, transposed_columns
from phojax.force_constants.third_container import ThirdOrder
from phojax.structure import Supercell
from phojax.symmetry import SpaceGroup


@dataclass(frozen=True)
class ThirdResiduals:
    """How far third-order force constants were from the rules, eV/Å³ (largest component).

    Attributes:
        permutation: Of eq. (1), distance from the mean of what was given.
        translation: Of eq. (2), the sum itself, before a cutoff was made.
        truncation: Of eq. (2), the sum itself, after the cutoff; what eq. (5) restored.
        restored: The largest change that eq. (5) made to a component.
        left_out: The largest component known that the cutoff made 0.
        space_group: Of eq. (3); None where no group was given.
    """

    permutation: float
    translation: float
    truncation: float
    restored: float
    left_out: float
    space_group: float | None = None


def other_columns(supercell: Supercell) -> Int[np.ndarray, "jL kM"]:
    """Return k·(M-L): the column of atom k·M seen from atom j·L, brought home."""
    n, images = len(supercell.primitive), np.asarray(supercell.images)
    apart = cell_index(supercell, images[None] - images[:, None])  # (L, M)
    copies = len(images)
    columns = np.arange(n)[None, :, None] * copies + apart[:, None]  # (L, k, M)
    return np.tile(columns.reshape(copies, n * copies), (n, 1))


def kept_triplets(supercell: Supercell, cutoff: float | None) -> Bool[np.ndarray, "i jL kM"]:
    """Return which triplets have all three pairs within the cutoff (Å); all without one."""
    n, copies = len(supercell.primitive), len(supercell.images)
    if cutoff is None:
        return np.ones((n, n * copies, n * copies), bool)
    near = pair_distances(supercell) <= cutoff
    j = np.repeat(np.arange(n), copies)
    between = near[j[:, None], other_columns(supercell)]
    return near[:, :, None] & near[:, None, :] & between


def permutation_mean(
    values: Float[Array, "i jL kM *axes"], supercell: Supercell
) -> Float[Array, "i jL kM *axes"]:
    """Return Φ, or numbers without the axes, averaged over the six orders of eq. (1); traceable."""
    half = (values + _last_swapped(values)) / 2
    other = _first_swapped(half, supercell)
    return (half + other + _last_swapped(other)) / 3


def _last_swapped(values):
    turned = jnp.swapaxes(values, 1, 2)
    return turned if values.ndim == 3 else jnp.swapaxes(turned, -1, -2)


def _first_swapped(values, supercell: Supercell):
    n, copies = len(supercell.primitive), len(supercell.images)
    j = np.repeat(np.arange(n), copies)
    home = transposed_columns(supercell).reshape(n, -1)
    turned = values[j[None, :, None], home[:, :, None], other_columns(supercell)[None]]
    return turned if values.ndim == 3 else jnp.swapaxes(turned, 3, 4)


def projected(
    values: Float[Array, "i jL kM 3 3 3"],
    supercell: Supercell,
    kept: Bool[Array, "i jL kM"] | Bool[np.ndarray, "i jL kM"] | None = None,
) -> Float[Array, "i jL kM 3 3 3"]:
    """Return the orthogonal projection of Φ (eV/Å³) onto eqs. (1), (2), (4); traceable.

    Linear, hence differentiable, in the values. It keeps eq. (3) where that holds.

    Args:
        values: eV/Å³.
        supercell: Concrete but for its cell and positions.
        kept: From `kept_triplets`; all by default.
    """

    def rules(v):
        v = permutation_mean(v, supercell)
        return v if kept is None else jnp.where(kept[..., None, None, None], v, 0.0)

    def spread(multipliers):
        return rules(jnp.broadcast_to(multipliers[:, :, None], values.shape))

    allowed = rules(values)
    # In units of Φ: sums that are rounding already are left alone.
    size = jax.lax.stop_gradient(jnp.maximum(jnp.linalg.norm(allowed), 1e-300))
    sums = allowed.sum(axis=2) / size
    found, _ = cg(lambda m: spread(m).sum(axis=2), sums, tol=0.0, atol=1e-14, maxiter=500)
    return allowed - size * spread(found)


def group_average(
    values: Float[Array, "i jL kM 3 3 3"], supercell: Supercell, group: SpaceGroup
) -> Float[np.ndarray, "i jL kM 3 3 3"]:
    """Return Φ averaged over eq. (3), on the host; `group` must be that of `preserving`."""
    given = np.asarray(values)
    total = np.zeros_like(given)
    columns = arrival_columns(group, supercell)
    for R, p, to in zip(group.rotations_cartesian, group.permutation, columns, strict=True):
        turned = rotated(given, R)
        total[p[:, None, None], to[:, :, None], to[:, None, :]] += turned
    return total / len(group)


def rotated(values: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Return third-rank tensors (…, 3, 3, 3) with all three axes turned by R."""
    return (np.kron(R, np.kron(R, R)) @ values.reshape(-1, 27, 1)).reshape(
        values.shape
    )  # one product of matrices is faster than an einsum of four


def enforced(
    constants: ThirdOrder, group: SpaceGroup | None = None
) -> tuple[ThirdOrder, ThirdResiduals]:
    """Return the nearest third-order force constants that obey the rules, and what was removed.

    Triplets beyond the cutoff of `constants` are set to 0.

    Args:
        constants: eV/Å³.
        group: From `sum_rules.preserving`, for eq. (3) as well.
    """
    values, cells = constants.values, constants.supercell
    apart = None
    if group is not None:
        mean = jnp.asarray(group_average(values, cells, group))
        apart, values = float(jnp.abs(mean - values).max()), mean
    known = np.ones(values.shape[:2], bool)
    found, residuals = settled(values, known, cells, constants.cutoff)
    return replace(constants, values=found), replace(residuals, space_group=apart)


def settled(
    values: Float[Array, "i jL kM 3 3 3"],
    known: Bool[np.ndarray, "i jL"],
    supercell: Supercell,
    cutoff: float | None,
) -> tuple[Float[Array, "i jL kM 3 3 3"], ThirdResiduals]:
    """Return Φ of which some pairs are known, completed by eq. (1), with eqs. (2) and (4).

    Args:
        values: eV/Å³; what stands at pairs that are not known has no influence.
        known: The pairs (i, j·L) for which Φ with every third atom is given; together they hold
            every triplet in one of its orders.
        supercell: Where they live.
        cutoff: Å; None for none.
    """
    kept = kept_triplets(supercell, cutoff)
    out, numbers = _settled(jnp.asarray(values), jnp.asarray(known), kept, supercell)
    permutation, translation, truncation, restored, left_out = (float(x) for x in numbers)
    return out, ThirdResiduals(permutation, translation, truncation, restored, left_out)


@jax.jit
def _settled(values, known, kept, supercell):
    def where(mask, values):
        return jnp.where(mask[..., None, None, None], values, 0.0)

    given = jnp.broadcast_to(known[:, :, None], values.shape[:3])
    values = where(given, values)
    weight = permutation_mean(given.astype(values.dtype), supercell)
    mean = permutation_mean(values, supercell) / jnp.maximum(weight, 1e-6)[..., None, None, None]
    inside = where(kept, mean)
    out = projected(inside, supercell, kept)
    differences = (
        where(given, values - mean),
        values.sum(axis=2),
        inside.sum(axis=2),
        out - inside,
        where(~kept, values),
    )
    return out, tuple(jnp.abs(x).max() for x in differences)
