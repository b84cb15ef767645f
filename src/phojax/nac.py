"""The non-analytic term: dipole-dipole interaction of ions with Born charges in a dielectric.

    D^dd_iα,jβ(q) = (4πk/V) Σ_G' (K·Z_i)_α (K·Z_j)_β / (K·ε·K) exp(−K·ε·K/4Λ² + iG·(r_i − r_j))
                    − δ_ij Σ_k (the same at q = 0, without G = 0)                        (1)
    with K = q + G,  (K·Z_i)_α = Σ_a K_a Z_i,aα,  k = e²/4πε₀
    Φ = Φ^SR + Φ^dd,   D(q) = D^SR(q) + D^dd(q) / √(m_i m_j)                              (2)

Φ^dd, the back-transform of (1) from the q-points commensurate with the supercell, is taken out of
the force constants; the rest is short-ranged, is interpolated, and gets (1) back at every q. At
commensurate q ≠ 0 nothing changes. The Gaussian in (1) leaves out a short-ranged part of the
interaction, which stays in Φ^SR. As q -> 0 along n the term with G = 0 tends to n n/(n·ε·n): the
splitting of longitudinal and transverse modes; without a direction it is left out.
The phases are those of `dynmat`, so q + G differs from q only by phases.
Source: Gonze, Lee, Phys. Rev. B 55, 10355 (1997), eqs. 68-75. Λ as phonopy chooses it: the 300th G
is damped to 1e-10. The sum itself is carried on to 1e-15, so that it is periodic in q to rounding.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from ase.geometry import minkowski_reduce
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Int

from phojax.checks import check_finite, check_shape, fail
from phojax.force_constants.container import ForceConstants
from phojax.pytree import pytree
from phojax.structure import Structure, Supercell, commensurate_points
from phojax.symmetry import SpaceGroup
from phojax.units import COULOMB

_POINTS = 300
_DAMPED = 1e-10
_NEGLIGIBLE = 1e-15
_NEUTRAL = 0.05  # e per cell: what rounding in files leaves is smaller
_ROUNDING = 1e-6  # e per cell
_AT_GAMMA = 1e-10  # Å⁻²: below this K·ε·K is zero


@pytree(static=("method",))
class BornCharges:
    """What the non-analytic term needs.

    Attributes:
        charges: Born effective charges in units of e; first axis the field, second the atom's
            displacement, as in phonopy.
        dielectric: Electronic dielectric tensor.
        factor: e²/4πε₀ in eV Å, of the program that wrote the file.
        method: "gonze" or "wang" as the file asks for; "" where it does not say.
    """

    charges: Float[Array, "atom 3 3"]
    dielectric: Float[Array, "3 3"]
    factor: Float[Array, ""]
    method: str = ""


@pytree()
class Dipoles:
    """Born charges with the sum over G of eq. (1) laid out for one crystal.

    Attributes:
        born: Neutral charges.
        reciprocal: G in units of the reciprocal vectors.
        counted: 1 for each G, 0 for padding.
        reduction: q @ reduction is q in units of a reduced basis of the reciprocal lattice.
        damping: Λ in Å⁻¹.
    """

    born: BornCharges
    reciprocal: Int[Array, "G 3"]
    counted: Float[Array, " G"]
    reduction: Int[Array, "3 3"]
    damping: Float[Array, ""]


def born_charges(charges, dielectric, factor: float = COULOMB) -> BornCharges:
    """Return checked BornCharges.

    Args:
        charges: (atom, 3, 3) in e; first axis the field.
        dielectric: (3, 3), symmetric and positive.
        factor: e²/4πε₀ in eV Å.

    Raises:
        InputError: wrong shapes, values that are not finite, a dielectric tensor that is not
            positive.
    """
    check_shape("Born charges", charges, (None, 3, 3))
    check_shape("dielectric tensor", dielectric, (3, 3))
    check_finite("Born charges", charges)
    check_finite("dielectric tensor", dielectric)
    eps = np.asarray(dielectric, float)
    if np.linalg.eigvalsh((eps + eps.T) / 2)[0] <= 0:
        raise fail(f"a dielectric tensor {eps.tolist()}", "a positive one")
    if not 0 < factor < np.inf:
        raise fail(f"a factor {factor}", "e²/4πε₀ in eV Å, 14.4 or near it")
    Z = jnp.asarray(np.asarray(charges, float))
    return BornCharges(Z, jnp.asarray((eps + eps.T) / 2), jnp.asarray(float(factor)))


def neutral(
    born: BornCharges, group: SpaceGroup | None = None
) -> tuple[BornCharges, dict[str, float]]:
    """Return charges averaged over the space group that add up to zero, and what that took.

    Returns:
        The charges, and the largest component removed in e by name: "neutrality" (the sum over
        the cell), "symmetry" (distance from the average).

    Raises:
        InputError: charges that do not fit the group's atoms.
    """
    Z, eps = np.asarray(born.charges), np.asarray(born.dielectric)
    check_finite("Born charges", Z)
    check_finite("dielectric tensor", eps)
    given = Z
    if group is not None:
        if len(Z) != group.permutation.shape[1]:
            raise fail(
                f"Born charges of {len(Z)} atoms",
                f"{group.permutation.shape[1]}, the atoms of the primitive cell",
            )
        R = group.rotations_cartesian
        Z = np.zeros_like(Z)
        for op, turn in enumerate(R):
            Z[group.permutation[op]] += turn @ given @ turn.T / len(R)
        eps = np.mean(R @ eps @ R.transpose(0, 2, 1), axis=0)
    eps = (eps + eps.T) / 2
    removed = {
        "neutrality": float(np.abs(given.sum(axis=0)).max()),
        "symmetry": float(np.abs(Z - given).max()),
    }
    Z = Z - Z.mean(axis=0)
    return replace(born, charges=jnp.asarray(Z), dielectric=jnp.asarray(eps)), removed


def is_neutral(removed: dict[str, float]) -> bool:
    """Return whether charges added up to zero within what rounding in files leaves (0.05 e)."""
    return removed["neutrality"] <= _NEUTRAL


def check_neutral(born: BornCharges) -> None:
    """Raise InputError unless concrete charges add up to zero: else Γ has no acoustic modes."""
    if isinstance(born.charges, Tracer):
        return
    excess = float(np.abs(np.sum(born.charges, axis=0)).max())
    if excess > _ROUNDING:
        raise fail(
            f"Born charges that add up to {excess:.2g} e",
            "none left over",
            "Call nac.neutral(born, group) first",
        )


def dipoles(born: BornCharges, crystal: Structure, points: int = _POINTS) -> Dipoles:
    """Return the lattice sum for a concrete crystal; on the host.

    Args:
        born: Charges of its atoms.
        crystal: The primitive cell.
        points: Number of G up to the one that Λ damps to 1e-10.

    Raises:
        InputError: charges that do not fit the crystal.
    """
    check_shape("Born charges", born.charges, (len(crystal), 3, 3), "one tensor per atom")
    check_finite("Born charges", born.charges)
    check_finite("dielectric tensor", born.dielectric)
    cell, eps = np.asarray(crystal.cell, float), np.asarray(born.dielectric, float)
    basis = 2 * np.pi * np.linalg.inv(cell).T
    cutoff = 2 * np.pi * (3 * points / (4 * np.pi * abs(np.linalg.det(cell)))) ** (1 / 3)
    damping = cutoff * np.sqrt(-np.trace(eps) / 12 / np.log(_DAMPED))
    _, operation = minkowski_reduce(basis)
    reduction = np.rint(np.linalg.inv(operation)).astype(int)
    # All G that count at any q folded to the origin, the farthest of which is half a diagonal.
    root = np.linalg.cholesky(eps)
    corners = np.array([[a, b, c] for a in (-0.5, 0.5) for b in (-0.5, 0.5) for c in (-0.5, 0.5)])
    farthest = np.linalg.norm(corners @ operation @ basis @ root, axis=1).max()
    limit = 2 * damping * np.sqrt(-np.log(_NEGLIGIBLE)) + farthest
    reach = np.ceil(limit * np.linalg.norm(np.linalg.inv(basis @ root), axis=0)).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    G = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    G = G[np.linalg.norm(G @ basis @ root, axis=1) < limit]
    return Dipoles(
        born,
        jnp.asarray(G, jnp.int32),
        jnp.ones(len(G)),
        jnp.asarray(reduction, jnp.int32),
        jnp.asarray(damping),
    )


def padded_dipoles(charged: Dipoles, atoms: int, points: int) -> Dipoles:
    """Return the dipoles with atoms without charge and G of no weight appended, for batches."""
    born, extra = charged.born, points - len(charged.reciprocal)
    Z = np.pad(born.charges, ((0, atoms - len(born.charges)), (0, 0), (0, 0)))
    return replace(
        charged,
        born=replace(born, charges=jnp.asarray(Z)),
        reciprocal=jnp.asarray(np.pad(charged.reciprocal, ((0, extra), (0, 0)))),
        counted=jnp.asarray(np.pad(charged.counted, (0, extra))),
    )


def dipole_matrices(
    charged: Dipoles,
    crystal: Structure,
    q: Float[Array, "q 3"],
    directions: Float[Array, "q 3"] | None = None,
) -> Complex[Array, "q mode mode"]:
    """Return D^dd(q) of eq. (1) in eV/Å², not divided by masses.

    Differentiable in charges, dielectric tensor, crystal and q (away from Γ).

    Args:
        charged: From `dipoles`.
        crystal: The primitive cell.
        q: Fractional.
        directions: n for each q that is a reciprocal lattice vector, fractional; zeros, or None,
            leave the term out there.
    """
    summed = _pair_sums(charged, crystal, q, directions)
    at_zero = _pair_sums(charged, crystal, jnp.zeros((1, 3), q.dtype), None)[0].real
    n = len(crystal)
    drift = jnp.sum(at_zero, axis=1)  # i α β
    diagonal = jnp.eye(n)[:, None, :, None] * drift[:, :, None, :]
    return (summed.transpose(0, 1, 3, 2, 4) - diagonal).reshape(len(q), 3 * n, 3 * n)


def long_range_part(charged: Dipoles, cells: Supercell) -> Float[Array, "i jL 3 3"]:
    """Return Φ^dd of eq. (2) in eV/Å², in the layout of force constants on the supercell."""
    crystal, images = cells.primitive, cells.images
    q = jnp.asarray(commensurate_points(cells))
    n, copies = len(crystal), len(images)
    D = dipole_matrices(charged, crystal, q).reshape(copies, n, 3, n, 3)
    x = crystal.fractional
    apart = x[None, :] - x[:, None]  # r_j − r_i
    # exp(−iq·(r_j + L − r_i)); the values are real because −q is there with every q.
    own = jnp.exp(-2j * jnp.pi * jnp.einsum("qc,ijc->qij", q, apart))
    moved = jnp.exp(-2j * jnp.pi * q @ jnp.asarray(images.T, q.dtype))  # q L
    values = jnp.einsum("qL,qij,qiajb->ijLab", moved, own, D).real / copies
    return values.reshape(n, n * copies, 3, 3)


def _pair_sums(charged, crystal, q, directions) -> Complex[Array, "q i j 3 3"]:
    """Return the sum over G in eq. (1) for every pair."""
    born = charged.born
    basis = 2 * jnp.pi * jnp.linalg.inv(crystal.cell).T
    fold = lax.stop_gradient(jnp.rint(q @ charged.reduction))
    fold = fold @ jnp.linalg.inv(charged.reduction.astype(q.dtype))  # integers: q − fold is near Γ
    fold = jnp.rint(fold)
    G = charged.reciprocal.astype(q.dtype)
    K = ((q - fold)[:, None] + G) @ basis
    screened = jnp.einsum("qGa,ab,qGb->qG", K, born.dielectric, K)
    zero = screened < _AT_GAMMA
    weight = jnp.where(
        zero, 0.0, jnp.exp(-screened / (4 * charged.damping**2)) / jnp.where(zero, 1.0, screened)
    )
    if directions is not None:
        n = directions @ basis
        length = jnp.einsum("qa,ab,qb->q", n, born.dielectric, n)
        given = length > 0
        weight = jnp.where(
            zero, jnp.where(given, 1 / jnp.where(given, length, 1.0), 0.0)[:, None], weight
        )
        K = jnp.where(zero[:, :, None], n[:, None], K)
    products = (weight * charged.counted)[:, :, None] * jnp.stack(
        [K[..., a] * K[..., b] for a, b in _VOIGT], axis=-1
    )  # q G 6
    n = len(crystal)
    i, j = np.triu_indices(n)
    x = crystal.fractional
    phase = 2 * jnp.pi * G @ (x[i] - x[j]).T  # G pair
    rows = products.transpose(0, 2, 1).reshape(-1, len(G))
    shape = (len(q), 6, len(i))
    real = (rows @ jnp.cos(phase)).reshape(shape)
    imaginary = (rows @ jnp.sin(phase)).reshape(shape)
    # From pairs i ≤ j to all: exchange of the atoms conjugates.
    pair = np.zeros((n, n), int)
    pair[i, j] = pair[j, i] = np.arange(len(i))
    sign = np.sign(np.arange(n)[None, :] - np.arange(n)[:, None])
    full = jnp.asarray(_FROM_VOIGT)
    volume = crystal.volume
    # The gauge of the point folded away: exp(iG₀·(r_j − r_i)).
    turned = 2 * jnp.pi * jnp.einsum("qc,ijc->qij", fold, x[None, :] - x[:, None])
    c, s = jnp.cos(turned), jnp.sin(turned)
    factor = 4 * jnp.pi * born.factor / volume

    def dressed(part):  # q 6 i j -> q i j α β
        return jnp.einsum("iaA,qabij,jbB->qijAB", born.charges, part[:, full], born.charges)

    even, odd = real[:, :, pair], imaginary[:, :, pair] * sign
    return factor * lax.complex(
        dressed(even * c[:, None] - odd * s[:, None]), dressed(even * s[:, None] + odd * c[:, None])
    )


_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_FROM_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


@jax.jit
def without_dipoles(constants: ForceConstants, charged: Dipoles) -> ForceConstants:
    """Return the short-ranged force constants Φ^SR of eq. (2)."""
    return replace(
        constants, values=constants.values - long_range_part(charged, constants.supercell)
    )
