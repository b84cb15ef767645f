"""Group velocities from the derivative of D(q), and sound velocities.

    v_qn = ∂ω_qn/∂q = ⟨e_qn| ∂D/∂q |e_qn⟩ / 2ω_qn                                        (1)

∂D/∂q is the exact derivative of `dynmat.dynamical_matrices` in Cartesian q, the dipoles included.
With q in Å⁻¹ (2π included) and ω = 2πν, v is in Å/ps = 100 m/s; phonopy's ∂ν/∂q in THz·Å, its q
without 2π, is the same number.

Degenerate blocks. Along a direction n the modes of a block have the slopes

    eigenvalues of ⟨e_a| n·∂D/∂q |e_b⟩ / 2ω,   a, b in the block                          (2)

which are well defined (`directional_velocities`). A vector for each mode is a convention: the
field's is to take the eigenvectors of (2) for one generic direction, and (1) with these for all
three components; the sum over the block does not depend on that. phonopy then averages each vector
over the rotations that keep q (`symmetrized_velocities`), which leaves vectors of single modes as
they are and takes components away from degenerate ones.

At Γ the translations have a cone instead of a slope, and below a cutoff frequency (imaginary modes
included) (1) is no velocity: there v is 0, as in phonopy, and `defined` is False. The cone's slopes
are the sound velocities along n,

    v² = eigenvalues of T†[½D'' − D' D⁺ D']T                                              (3)

with derivatives along n at Γ, T the translations (`modes`) and D⁺ the inverse outside of T. A net
force on a strained crystal, T†D'T, would add a term linear in q to λ. No potential gives one; what
a short supercell and dipoles leave of it is not in (3) and is reported.
Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), §§ 26, 27; Maradudin, Montroll,
Weiss, Ipatova, Theory of Lattice Dynamics in the Harmonic Approximation (1971), section 2.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from phojax.checks import check_shape, fail
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants.container import ForceConstants
from phojax.modes import (
    Modes,
    chunk_size,
    degenerate_blocks,
    in_chunks,
    shift_of,
    translations,
    without_translations,
)
from phojax.pytree import pytree
from phojax.spectral import dagger, eigenpairs, eigenvalues
from phojax.symmetry import SpaceGroup
from phojax.units import THZ

GENERIC = (1.0, 2.0, 3.0)
"""The direction, Cartesian, that tells the modes of a degenerate block apart; phonopy's."""

LOWEST = 1e-4
"""THz up to which a mode has no velocity; phonopy's."""

_SAME_POINT = 1e-5  # fractional; phonopy's tolerance for an operation that keeps q


@pytree()
class GroupVelocities:
    """Group velocities, and where there are any.

    Attributes:
        vectors: v in Å/ps (the same number in THz·Å), Cartesian; 0 where not defined.
        defined: False for translations at Γ and up to the cutoff frequency.
    """

    vectors: Float[Array, "q mode 3"]
    defined: Bool[Array, "q mode"]


@pytree()
class SoundVelocities:
    """Sound velocities, and what would spoil them.

    Attributes:
        values: Å/ps, ascending; NaN where v² is negative.
        linear: Largest |T†D'T|, in THz² Å: λ is linear in q below linear / v² (Å⁻¹, without 2π).
    """

    values: Float[Array, "direction 3"]
    linear: Float[Array, " direction"]


def group_velocities(
    force_constants: ForceConstants | Interpolation,
    found: Modes,
    *,
    directions: Float[Array, "q 3"] | None = None,
    lifted_along: tuple[float, float, float] = GENERIC,
    lowest: float = LOWEST,
    blocks: Int[Array, "q mode"] | None = None,
    chunk: int | None = None,
) -> GroupVelocities:
    """Return v of eq. (1) in Å/ps; not averaged over operations (`symmetrized_velocities`).

    Args:
        force_constants: Those that `found` was made of.
        found: The modes.
        directions: With dipoles, from where Γ is approached, as for `modes`; across it there is
            no derivative at Γ, and the term's own is left out.
        lifted_along: Cartesian direction that tells the modes of a degenerate block apart.
        lowest: THz up to which v is 0.
        blocks: From `modes.degenerate_blocks`, with its defaults if not given.
        chunk: Number of q in flight; a quarter of that of `modes` by default.
    """
    axis = jnp.asarray(lifted_along, float)
    axis = axis / jnp.linalg.norm(axis)
    blocks = degenerate_blocks(found.eigenvalues) if blocks is None else blocks

    def at(dD, E, labels):
        generic = axis[0] * dD[0] + axis[1] * dD[1] + axis[2] * dD[2]
        _, E = lifted(E, generic, labels)
        return jnp.stack([_expectations(E, part) for part in dD], axis=-1)

    steps = _over_chunks(at, force_constants, found, jnp.eye(3), directions, blocks, chunk)
    defined = _has_velocity(found, lowest)
    return GroupVelocities(
        _from_slopes(steps, found.frequencies_THz[..., None], defined[..., None]), defined
    )


def directional_velocities(
    force_constants: ForceConstants | Interpolation,
    found: Modes,
    direction: Float[Array, "3"],
    *,
    directions: Float[Array, "q 3"] | None = None,
    lowest: float = LOWEST,
    blocks: Int[Array, "q mode"] | None = None,
    chunk: int | None = None,
) -> Float[Array, "q mode"]:
    """Return the slopes of ω along a direction in Å/ps, eq. (2), ascending in each block.

    Independent of the choice of eigenvectors. NaN where there is no slope: translations at Γ, ν up
    to `lowest`. Arguments as of `group_velocities`; `direction` is Cartesian, of any length.
    """
    n = jnp.asarray(direction, float)
    blocks = degenerate_blocks(found.eigenvalues) if blocks is None else blocks
    slopes = _over_chunks(
        lambda dD, E, labels: lifted(E, dD[0], labels)[0],
        force_constants,
        found,
        (n / jnp.linalg.norm(n))[None],
        directions,
        blocks,
        chunk,
    )
    defined = _has_velocity(found, lowest)
    return jnp.where(defined, _from_slopes(slopes, found.frequencies_THz, defined), jnp.nan)


def symmetrized_velocities(
    found: GroupVelocities, q: Float[Array, "q 3"], group: SpaceGroup
) -> GroupVelocities:
    """Return velocities averaged over the operations that keep q, up to a reciprocal vector.

    As phonopy, which at the zone boundary takes those only that need no reciprocal vector. q must
    be concrete.

    Args:
        found: From `group_velocities`.
        q: Fractional; those of the modes.
        group: Of the crystal.

    Raises:
        InputError: velocities and q of different number.
    """
    points = np.asarray(q, float)
    check_shape("q", points, (found.vectors.shape[0], 3), "those of the velocities")
    moved = np.einsum("qa,oab->oqb", points, np.linalg.inv(group.rotations)) - points
    kept = np.all(np.abs(moved - np.rint(moved)) < _SAME_POINT, axis=-1).astype(float)  # op, q
    means = np.einsum("oq,oab->qab", kept / kept.sum(axis=0), group.rotations_cartesian)
    vectors = jnp.einsum("qab,qnb->qna", jnp.asarray(means), found.vectors)
    return replace(found, vectors=vectors)


def sound_velocities(
    force_constants: ForceConstants | Interpolation, directions: Float[Array, "direction 3"]
) -> SoundVelocities:
    """Return the three sound velocities along Cartesian directions, eq. (3).

    With dipoles Γ is approached along the direction: piezoelectric stiffening is included.

    Raises:
        InputError: force constants of held atoms, which have no translations.
    """
    held = interpolation(force_constants)
    if not held.free:
        raise fail("force constants of a crystal with atoms held", "translations at Γ")
    n = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    step = n @ held.crystal.cell.T
    gamma = jnp.zeros_like(step)

    def along(q):
        return dynamical_matrices(held, q, step)

    def slope(q):
        return jax.jvp(along, (q,), (step,))

    (D, D1), (_, D2) = jax.jvp(slope, (gamma,), (step,))
    shifted, T = without_translations(D, gamma, held.crystal)
    # The inverse of D' is that of D outside of T, and 1/s inside, which is taken out.
    D1T = D1 @ T
    inverse = jnp.linalg.solve(shifted, D1T) - T @ (dagger(T) @ D1T) / shift_of(D)[:, None, None]
    squares = eigenvalues(dagger(T) @ D2 @ T / 2 - dagger(D1T) @ inverse)
    linear = jnp.max(jnp.abs(eigenvalues(dagger(T) @ D1T)), axis=-1)
    return SoundVelocities(jnp.sqrt(squares) * THZ, linear * THZ**2)


def matrix_slopes(
    force_constants: ForceConstants | Interpolation,
    q: Float[Array, "q 3"],
    along: Float[Array, "direction 3"],
    directions: Float[Array, "q 3"] | None = None,
) -> Complex[Array, "direction q mode mode"]:
    """Return the derivatives of D(q) along Cartesian vectors, in eV Å⁻¹ amu⁻¹; q without 2π.

    Args:
        force_constants: Φ with its cells, or their `interpolation`.
        q: Fractional.
        along: Of length 1 for the derivative per Å⁻¹ / 2π.
        directions: As for `dynmat.dynamical_matrices`.
    """
    held = interpolation(force_constants)

    def matrices(q):
        return dynamical_matrices(held, q, directions)

    def one(step):
        return jax.jvp(matrices, (q,), (jnp.broadcast_to(step, q.shape),))[1]

    return jax.vmap(one)(along @ held.crystal.cell.T)


def lifted(
    E: Complex[Array, "q mode mode"],
    perturbation: Complex[Array, "q mode mode"],
    blocks: Int[Array, "q mode"],
) -> tuple[Float[Array, "q mode"], Complex[Array, "q mode mode"]]:
    """Return the slopes of the eigenvalues under a perturbation, and the eigenvectors for them.

    Inside a degenerate block the slopes are the eigenvalues of the block of the perturbation,
    ascending; a single mode keeps its eigenvector.

    Args:
        E: Eigenvectors as columns.
        perturbation: Hermitian.
        blocks: From `modes.degenerate_blocks`.
    """

    def mixed(E):
        P = dagger(E) @ perturbation @ E
        inside = blocks[:, :, None] == blocks[:, None, :]
        # Blocks moved apart by more than they are wide: one eigensolver for all, in order.
        size = 1 + 2 * jnp.max(jnp.sum(jnp.abs(P), axis=-1), axis=-1)
        apart = (size[:, None] * blocks)[:, :, None] * jnp.eye(P.shape[-1])
        _, U = eigenpairs(jnp.where(inside, P, 0) + apart)
        return E @ U

    # Most q of a mesh without symmetry have no degenerate modes.
    E = jax.lax.cond(jnp.any(jnp.diff(blocks, axis=-1) == 0), mixed, lambda E: E, E)
    return _expectations(E, perturbation), E


def _expectations(E, P):
    PE = P @ E
    return jnp.sum(E.real * PE.real + E.imag * PE.imag, axis=-2)


def _over_chunks(f, force_constants, found, along, directions, blocks, chunk):
    """Return f(∂D along, E, blocks) for all q, on some of them at a time."""
    held = interpolation(force_constants)
    count = found.eigenvalues.shape[1]
    check_shape("eigenvectors", found.eigenvectors, (None, count, len(held.crystal), 3))
    chunk = max(1, chunk_size(held.crystal) // 4) if chunk is None else chunk

    def solve(points):
        q, e, labels, towards = points
        E = e.reshape(*e.shape[:2], -1).swapaxes(-1, -2)
        return f(matrix_slopes(held, q, along, towards), E, labels)

    return in_chunks(solve, (found.q, found.eigenvectors, blocks, directions), chunk)


def _has_velocity(found, lowest):
    return (found.frequencies_THz > lowest) & ~translations(found)


def _from_slopes(slopes, nu, defined):
    return jnp.where(defined, THZ**2 * slopes / (2 * jnp.where(defined, nu, 1.0)), 0.0)
