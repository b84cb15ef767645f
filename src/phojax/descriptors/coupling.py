"""Whether mobile ions move with or against their host in a mode.

    C = Σ_b Re[e_i*·e_j exp(iq·(r_jL − r_i))] / √(Σ_b |e_i|² Σ_b |e_j|²)                  (1)

over the bonds b = (i mobile, j host, lattice vector L) shorter than a cutoff. C lies in [−1, 1], is
+1 where the ions move in phase with their neighbours, and depends on nothing but the crystal:
neither on the origin nor on the image of an atom that the cell holds. Numerator and both norms are
summed over degenerate blocks.

    C_paper = Re(E_mobile*·E_host) / |E_mobile||E_host|,   E_S = Σ_{j∈S} e_j             (2)

with q folded into the first zone is what eq. 9 of the paper amounts to. Its phases make it
undefined where a sum vanishes and ambiguous on the zone's boundary; both are reported.
"""

import jax.numpy as jnp
import numpy as np
from ase.neighborlist import primitive_neighbor_list
from jaxtyping import Array, Bool, Float, Int

from phojax.checks import fail
from phojax.modes import Modes, Spectrum, block_mean, block_sum, degenerate_blocks
from phojax.pytree import pytree
from phojax.spectral import Scalar
from phojax.structure import Structure
from phojax.units import eigenvalue_from_THz

_UNDEFINED = 1e-6  # |E_S| below which eq. (2) is undefined
_ON_BOUNDARY = 1e-6  # relative difference of |q + G| below which two G are equally near
_AT_LIMIT = 1e-6  # relative difference of λ from a limit at which a mode is not below it


@pytree()
class Bonds:
    """Bonds from mobile ions to host atoms.

    Attributes:
        mobile: Index of i.
        host: Index of j.
        image: L, the cell in which j is meant.
        counted: 1, or 0 for padding.
        ions: The mobile ions, each once, in rising order; repeated ones at the end are padding.
    """

    mobile: Int[Array, " bond"]
    host: Int[Array, " bond"]
    image: Int[Array, "bond 3"]
    counted: Float[Array, " bond"]
    ions: Int[Array, " ion"]


def bonds(crystal: Structure, mobile: Bool[Array, " atom"], cutoff: float = 3.5) -> Bonds:
    """Return the bonds shorter than `cutoff` (Å) from mobile to other atoms; on the host.

    Args:
        crystal: Concrete (not traced).
        mobile: True for mobile ions.
        cutoff: Å.

    Raises:
        InputError: no atom is mobile, or none is not.
    """
    moves = np.asarray(mobile)
    if moves.all() or not moves.any():
        raise fail(
            f"{moves.sum()} of {len(moves)} atoms are mobile",
            "mobile ions and a host",
            "Coupling is between the two",
        )
    i, j, image = primitive_neighbor_list(
        "ijS", (True, True, True), np.asarray(crystal.cell), np.asarray(crystal.positions), cutoff
    )
    kept = moves[i] & ~moves[j]
    i, j, image = i[kept], j[kept], image[kept]
    return Bonds(
        jnp.asarray(i, jnp.int32),
        jnp.asarray(j, jnp.int32),
        jnp.asarray(image, jnp.int32),
        jnp.ones(len(image)),
        jnp.asarray(np.unique(i), jnp.int32),
    )


def padded_bonds(among: Bonds, size: int, ions: int) -> Bonds:
    """Return the bonds with some of weight zero appended, for batches of crystals."""
    extra = size - len(among.mobile)
    last = np.asarray(among.ions)[-1:] if len(among.ions) else np.zeros(1, int)
    every = np.concatenate([among.ions, np.repeat(last, ions - len(among.ions))])
    return Bonds(
        jnp.asarray(np.pad(among.mobile, (0, extra))),
        jnp.asarray(np.pad(among.host, (0, extra))),
        jnp.asarray(np.pad(among.image, ((0, extra), (0, 0)))),
        jnp.asarray(np.pad(among.counted, (0, extra))),
        jnp.asarray(every, jnp.int32),
    )


def coupling(
    found: Modes, among: Bonds, blocks: Int[Array, "q mode"] | None = None
) -> Float[Array, "q mode"]:
    """Return C of eq. (1); NaN where no bonded ion or no bonded host atom moves.

    Args:
        found: The modes.
        among: From `bonds`.
        blocks: From `modes.degenerate_blocks`, with its defaults if not given.
    """
    if blocks is None:
        blocks = degenerate_blocks(found.eigenvalues)
    count = found.eigenvectors.shape[2]
    x = found.structure.fractional
    vectors = x[among.host] + among.image.astype(x.dtype) - x[among.mobile]
    angle = 2 * jnp.pi * found.q @ vectors.T
    # Bonds of one pair of atoms share e_i and e_j: add up their phases first. In real arithmetic,
    # and for the rows of bonded ions alone.
    row = jnp.searchsorted(among.ions, among.mobile)
    empty = jnp.zeros((found.q.shape[0], among.ions.shape[0], count))
    c, s = (empty.at[:, row, among.host].add(f(angle) * among.counted) for f in (jnp.cos, jnp.sin))
    e = found.eigenvectors
    real, imaginary = e.real, e.imag
    # One product per q: both parts of e in one, the phases as the blocks c, −s; s, c.
    both = jnp.concatenate([real, imaginary], axis=2)
    turn = jnp.concatenate(
        [jnp.concatenate([c, -s], axis=2), jnp.concatenate([s, c], axis=2)], axis=1
    )
    own = jnp.concatenate([real[:, :, among.ions], imaginary[:, :, among.ions]], axis=2)
    together = jnp.sum(own * jnp.einsum("qij,qnja->qnia", turn, both), axis=(2, 3))
    size = jnp.sum(real**2 + imaginary**2, axis=-1)
    number = jnp.zeros(count)
    mobile_norm = size @ number.at[among.mobile].add(among.counted)
    host_norm = size @ number.at[among.host].add(among.counted)
    sums = block_sum(jnp.stack([together, mobile_norm, host_norm], axis=-1), blocks)
    norm = sums[..., 1] * sums[..., 2]
    return jnp.where(norm > 0, sums[..., 0] / jnp.sqrt(jnp.where(norm > 0, norm, 1.0)), jnp.nan)


@pytree()
class PaperCoupling:
    """Eq. (2) with its warnings.

    Attributes:
        values: C_paper; NaN where undefined.
        on_boundary: q on the boundary of the first zone, where the value depends on the choice
            among equally near G.
    """

    values: Float[Array, "q mode"]
    on_boundary: Bool[Array, " q"]


def coupling_paper(
    found: Modes, mobile: Bool[Array, " atom"], blocks: Int[Array, "q mode"] | None = None
) -> PaperCoupling:
    """Return C_paper of eq. (2); depends on which images of the atoms the cell holds.

    Args:
        found: The modes.
        mobile: True for mobile ions; the others are the host.
        blocks: From `modes.degenerate_blocks`, with its defaults if not given.
    """
    if blocks is None:
        blocks = degenerate_blocks(found.eigenvalues)
    G, on_boundary = first_zone_shift(found.q, found.structure.cell)
    # e(q + G)_j = e(q)_j exp(−iG·r_j), summed over the mobile ions, over the others
    angle = 2 * jnp.pi * G @ found.structure.fractional.T
    member = jnp.stack([mobile, ~mobile & (found.structure.numbers > 0)]).astype(angle.dtype)
    c, s = jnp.cos(angle)[:, None] * member, -jnp.sin(angle)[:, None] * member  # q side i
    e = found.eigenvectors
    both = jnp.concatenate([e.real, e.imag], axis=2)
    turn = jnp.concatenate(
        [jnp.concatenate([c, -s], axis=2), jnp.concatenate([s, c], axis=2)], axis=1
    )
    sums = jnp.einsum("qij,qnja->iqna", turn, both)  # real parts of both sides, imaginary parts
    real, imaginary = sums[:2], sums[2:]

    def inner(a, b):
        return jnp.sum(real[a] * real[b] + imaginary[a] * imaginary[b], axis=-1)

    means = block_mean(jnp.stack([inner(0, 1), inner(0, 0), inner(1, 1)], axis=-1), blocks)
    defined = jnp.all(means[..., 1:] >= _UNDEFINED**2, axis=-1)
    norm = jnp.where(defined, means[..., 1] * means[..., 2], 1.0)
    values = jnp.where(defined, means[..., 0] / jnp.sqrt(norm), jnp.nan)
    return PaperCoupling(values, on_boundary)


def first_zone_shift(
    q: Float[Array, "q 3"], cell: Float[Array, "3 3"]
) -> tuple[Float[Array, "q 3"], Bool[Array, " q"]]:
    """Return G (fractional) that brings q into the first zone, and whether q + G is on its rim.

    Searches G within ±3 of the rounded q, enough for any cell that is not extremely skewed.
    """
    axis = np.arange(-3, 4)
    steps = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    # Shortest steps first: among equals the same G is taken everywhere.
    steps = jnp.asarray(steps[np.argsort(np.abs(steps).sum(1), kind="stable")], q.dtype)
    base = q - jnp.rint(q)
    length = jnp.linalg.norm((base[:, None] + steps) @ jnp.linalg.inv(cell).T, axis=-1)
    shortest = jnp.min(length, axis=-1, keepdims=True)
    equal = length <= shortest * (1 + _ON_BOUNDARY) + 1e-12
    return steps[jnp.argmax(equal, axis=-1)] - jnp.rint(q), jnp.sum(equal, axis=-1) > 1


def mean_coupling(
    found: Spectrum,
    couplings: Float[Array, "q mode"],
    displacements: Float[Array, "q mode atom"],
    mobile: Bool[Array, " atom"],
    below: Scalar = 1.5,
) -> Float[Array, ""]:
    """Return the mean coupling of modes below a frequency, weighted by the MSD of mobile ions.

    Args:
        found: Modes on a mesh.
        couplings: From `coupling`, or `coupling_paper(...).values`; NaN ones are left out.
        displacements: From `displacements.mode_displacements`; 0 for modes left out.
        mobile: True for mobile ions.
        below: THz; modes at it do not count, equal within 1e-6 of λ: an acoustic cutoff is the
            frequency of a mode, and which side rounding puts that on is chance.

    Returns:
        The mean, NaN where no mode is below.
    """
    limit = eigenvalue_from_THz(jnp.asarray(below, float))
    soft = found.eigenvalues < limit - _AT_LIMIT * jnp.abs(limit)
    soft &= jnp.isfinite(couplings)
    share = found.weights[:, None] * jnp.sum(displacements * mobile, axis=-1) * soft
    return jnp.sum(share * jnp.where(soft, couplings, 0.0)) / jnp.sum(share)
