"""Normal modes: eigenvalues λ = ω² and eigenvectors e of D(q), and what of them is well defined.

    D(q) e_qn = λ_qn e_qn,   Σ_iα |e_qn,iα|² = 1,   u_jR ∝ e_j exp(iq·(r_j + R))/√m_j     (1)

Degenerate blocks. Inside a block of equal λ any unitary mixture of eigenvectors is as good as
another. Eigenvalues closer than 1e-6 of the spectrum's width count as equal; sums and means over
blocks do not depend on the mixture.

Translations. At q = 0, and at every reciprocal lattice vector G, three modes move the crystal as a
whole: t_iα,β = δ_αβ √(m_i/M) exp(−iG·r_i), columns of T. They are no oscillators, and are known by
their form, never by their rank: imaginary or soft optical modes may lie below or among them and
would mix with them. So at Γ

    D' = (1 − TT†) D (1 − TT†) + s TT†                                                (2)

is diagonalised, with s above the spectrum: its eigenvectors are the three translations and the
modes orthogonal to them. The translations get λ = t†Dt back, 0 where the sum rule holds. Where it
is broken, the other modes at Γ are those of D within the complement (they differ from those of D
in second order of what is missing).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float, Int, Shaped

from phojax.checks import check_finite, check_float64, check_shape
from phojax.concrete import array_module
from phojax.dynmat import (
    Interpolation,
    atomic_phases,
    dynamical_matrices,
    interpolation,
    padding,
)
from phojax.force_constants.container import ForceConstants
from phojax.pytree import pytree
from phojax.spectral import DEGENERATE, eigenpairs
from phojax.structure import Structure
from phojax.units import frequency_THz

_AT_GAMMA = 1e-8  # fractional distance from a reciprocal lattice vector


@runtime_checkable
class Spectrum(Protocol):
    """Eigenvalues at weighted points: `Modes`, or a table that left the eigenvectors behind."""

    @property
    def weights(self) -> Any:
        """(q,) weights of the points."""
        ...

    @property
    def eigenvalues(self) -> Any:
        """(q, mode) λ = ω², signed, eV Å⁻² amu⁻¹."""
        ...


@pytree(static=("free",))
class Modes:
    """Eigenpairs on a list of q-points; λ ascending at each q.

    Attributes:
        q: Fractional (units of the primitive reciprocal vectors).
        weights: Sum to one over a mesh that counts Γ; without meaning on a path.
        eigenvalues: λ = ω², signed, eV Å⁻² amu⁻¹.
        eigenvectors: e of eq. (1), normalised.
        structure: The primitive cell.
        free: Whether there are rigid translations at Γ; not where atoms are held (static).
    """

    q: Float[Array, "q 3"]
    weights: Float[Array, " q"]
    eigenvalues: Float[Array, "q mode"]
    eigenvectors: Complex[Array, "q mode atom 3"]
    structure: Structure
    free: bool = True

    @property
    def frequencies_THz(self) -> Float[Array, "q mode"]:
        """ν in THz, negative for imaginary modes; for people and files."""
        return frequency_THz(self.eigenvalues)

    @property
    def masses(self) -> Float[Array, " atom"]:
        """Masses in amu."""
        return self.structure.masses


def modes(
    force_constants: ForceConstants | Interpolation,
    q: Float[Array, "q 3"],
    weights: Float[Array, " weight"] | None = None,
    *,
    directions: Float[Array, "q 3"] | None = None,
    chunk: int | None = None,
) -> Modes:
    """Return the modes at q; at Γ by eq. (2).

    Derivatives: as of `spectral.eigenpairs`, NaN where eigenvalues are degenerate. Differentiate
    sums over modes as matrix functions of D instead (descriptors with `_from_matrices`).

    Args:
        force_constants: Φ with its cells, or their `interpolation`, which may hold dipoles.
        q: Fractional (units of the primitive reciprocal vectors), float64.
        weights: Sum to one; equal ones by default.
        directions: With dipoles, from where Γ is approached, as for `dynamical_matrices`.
        chunk: Number of q in flight, which bounds the memory: some 100 · chunk · (3 atoms)² bytes
            on top of the result. By default such that this is about 0.4 GB, 64 at most.

    Raises:
        InputError: float32, weights that do not fit q, q that are not finite.
    """
    count = q.shape[0]
    check_float64("q", q)
    check_shape("q", q, (None, 3))
    if not isinstance(q, Tracer):
        check_finite("q", q)
    if weights is None:
        weights = jnp.full(count, 1.0 / count)
    check_shape("weights", weights, (count,), "one per q")
    held = interpolation(force_constants)
    crystal = held.crystal
    chunk = chunk_size(crystal) if chunk is None else max(1, chunk)

    def solve(points):
        q, directions = points
        return eigenpairs_at(dynamical_matrices(held, q, directions), q, crystal, held.free)

    eigenvalues, E = in_chunks(solve, (q, directions), chunk)
    vectors = E.swapaxes(-1, -2).reshape(count, -1, len(crystal), 3)
    return Modes(q, weights, eigenvalues, vectors, crystal, held.free)


def chunk_size(crystal: Structure) -> int:
    """Return how many q may be in flight at once for some 0.4 GB of memory; 1 to 64."""
    return int(np.clip(4e8 / (100 * (3 * len(crystal)) ** 2), 1, 64))


def in_chunks(f: Callable, points: Any, chunk: int) -> Any:
    """Return f(points), evaluated on `chunk` rows at a time; a pytree of arrays, rows first.

    Equal chunks and a shorter one: a map over single rows would lose the batched products.
    """
    count = jax.tree.leaves(points)[0].shape[0]
    if count <= chunk:
        return f(points)
    whole = count // chunk * chunk
    split = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), points)
    found = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), jax.lax.map(f, split))
    if whole == count:
        return found
    rest = f(jax.tree.map(lambda a: a[whole:], points))
    return jax.tree.map(lambda *pair: jnp.concatenate(pair), found, rest)


def eigenpairs_at(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    crystal: Structure,
    free: bool = True,
) -> tuple[Float[Array, "q mode"], Complex[Array, "q mode mode"]]:
    """Return λ, ascending, and e (columns) of D(q), the translations at Γ kept apart, eq. (2).

    Rows of padding come last, with λ above the spectrum.
    """
    return eigenpairs_apart(*apart_from_translations(D, q, crystal, free))


def apart_from_translations(
    D: Complex[Array, "q mode mode"], q: Float[Array, "q 3"], crystal: Structure, free: bool = True
) -> tuple[Complex[Array, "q mode mode"], Complex[Array, "q mode 3"]]:
    """Return D with its padding above the spectrum, and T, zero where there are no translations."""
    D = with_padding_above(D, crystal)
    return D, jnp.where((at_gamma(q) & free)[:, None, None], translation_vectors(q, crystal), 0)


def eigenpairs_apart(
    D: Complex[Array, "q mode mode"], T: Complex[Array, "q mode 3"]
) -> tuple[Float[Array, "q mode"], Complex[Array, "q mode mode"]]:
    """Return λ, ascending, and e (columns) of matrices from `apart_from_translations`."""

    def apart(D):
        return translations_returned(*eigenpairs(moved_up(D, T)), D, T)

    # Most chunks of a mesh do not hold Γ and are spared the extra work.
    return jax.lax.cond(jnp.any(T != 0), apart, lambda D: tuple(eigenpairs(D)), D)


def translations_returned(
    values: Float[Array, "q mode"],
    E: Complex[Array, "q mode mode"],
    D: Complex[Array, "q mode mode"],
    T: Complex[Array, "q mode 3"],
) -> tuple[Float[Array, "q mode"], Complex[Array, "q mode mode"]]:
    """Return the eigenpairs of D' (`moved_up`) with the translations at their own place."""
    xp = array_module(values, E, D, T)
    values, E, D, T = (xp.asarray(x) for x in (values, E, D, T))
    gamma = xp.any(T != 0, axis=(1, 2))
    own = xp.einsum("qai,qai->qi", T.conj(), D @ T).real
    # s lies above the spectrum, so the translations come last; back to ascending order.
    returned = xp.concatenate([values[:, :-3], own], axis=1)
    returned = xp.where(gamma[:, None], returned, values)
    E = xp.where(gamma[:, None, None], xp.concatenate([E[:, :, :-3], T], axis=2), E)
    order = xp.argsort(returned, axis=1)
    return (
        jnp.asarray(xp.take_along_axis(returned, order, axis=1)),
        jnp.asarray(xp.take_along_axis(E, order[:, None, :], axis=2)),
    )


def with_padding_above(
    D: Complex[Array, "q mode mode"], crystal: Structure
) -> Complex[Array, "q mode mode"]:
    """Return D with the rows of padding atoms, zero as they come, moved above the spectrum."""
    above = jnp.where(padding(crystal), shift_of(D)[:, None], 0.0)
    return D + above[:, :, None] * jnp.eye(D.shape[-1])


def without_translations(
    D: Complex[Array, "q mode mode"],
    q: Float[Array, "q 3"],
    crystal: Structure,
    free: bool = True,
) -> tuple[Complex[Array, "q mode mode"], Complex[Array, "q mode 3"]]:
    """Return D' of eq. (2) at Γ, D elsewhere, and the translations T (0 away from Γ).

    D' has the translations as exact eigenvectors with an eigenvalue above all others, so that
    f(D') − f(s) TT† (`shift_of` gives s) is f(D) without them. Differentiable in D and masses.
    Without translations at all (not `free`) D' is D.
    """
    s = shift_of(D)
    D, T = apart_from_translations(D, q, crystal, free)
    return moved_up(D, T, s), T


def moved_up(
    D: Complex[Array, "q mode mode"],
    T: Complex[Array, "q mode 3"],
    s: Float[Array, " q"] | None = None,
) -> Complex[Array, "q mode mode"]:
    """Return D' = D − DTT† − T(DT)† + T (T†DT + s) T† of eq. (2), one thin product.

    By default s lies above the spectrum of D, its padding included.
    """
    s = shift_of(D) if s is None else s
    xp = array_module(D, T, s)
    D, T, above = xp.asarray(D), xp.asarray(T), xp.asarray(s)
    DT, Th = D @ T, T.conj().swapaxes(1, 2)
    inner = Th @ DT + above[:, None, None] * np.eye(3)
    return jnp.asarray(D + (T @ inner - DT) @ Th - T @ DT.conj().swapaxes(1, 2))


def shift_of(D: Complex[Array, "q mode mode"]) -> Float[Array, " q"]:
    """Return s of eq. (2): above the spectrum of D (Gershgorin), constant to derivatives."""
    xp = array_module(D)
    D = jax.lax.stop_gradient(D) if xp is jnp else xp.asarray(D)
    return jnp.asarray(1 + 2 * xp.abs(D).sum(axis=-1).max(axis=-1))


def translation_vectors(q: Float[Array, "q 3"], crystal: Structure) -> Complex[Array, "q mode 3"]:
    """Return T of the module's header for q at reciprocal lattice vectors."""
    T = rigid_amplitudes(q, crystal)[:, :, None, None] * jnp.eye(3)
    return T.reshape(q.shape[0], -1, 3)


def rigid_amplitudes(q: Float[Array, "q 3"], crystal: Structure) -> Complex[Array, "q atom"]:
    """Return √(m_i/M) exp(−iq·r_i), the amplitudes of a rigid translation at Γ."""
    masses = jnp.where(crystal.numbers > 0, crystal.masses, 0.0)
    share = jnp.sqrt(masses / jnp.sum(masses))
    return share * atomic_phases(crystal.fractional, q).conj()


def at_gamma(q: Float[Array, "q 3"]) -> Bool[Array, " q"]:
    """Return where q is a reciprocal lattice vector."""
    return jnp.all(jnp.abs(q - jnp.rint(q)) < _AT_GAMMA, axis=-1)


def translation_overlap(found: Modes) -> Float[Array, "q mode"]:
    """Return the squared overlap of each mode with the rigid translations at Γ, 0 elsewhere."""
    T = rigid_amplitudes(found.q, found.structure)
    # In real arithmetic, which is ten times faster here than XLA's complex products.
    x, y = found.eigenvectors.real, found.eigenvectors.imag
    a, b = T.real[:, None, :, None], T.imag[:, None, :, None]
    real, imaginary = jnp.sum(x * a + y * b, axis=2), jnp.sum(x * b - y * a, axis=2)
    overlap = jnp.sum(real**2 + imaginary**2, axis=-1)
    return jnp.where(at_gamma(found.q)[:, None], overlap, 0.0)


def translations(found: Modes) -> Bool[Array, "q mode"]:
    """Return which modes are rigid translations: at Γ the three of largest overlap.

    In Modes from `modes` these overlaps are 1 and all others 0. In Modes made otherwise, with
    translations mixed into soft modes, `translation_overlap` tells how clean they are.
    """
    overlap = translation_overlap(found)
    chosen = jnp.zeros(overlap.shape, bool)
    if not found.free:
        return chosen
    for _ in range(3):
        best = jnp.argmax(jnp.where(chosen, -1.0, overlap), axis=-1)
        chosen |= best[:, None] == jnp.arange(overlap.shape[1])
    return chosen & at_gamma(found.q)[:, None]


def padding_modes(found: Modes) -> Bool[Array, " mode"]:
    """Return which modes belong to padding atoms: the last ones."""
    return jnp.arange(found.eigenvalues.shape[1]) >= 3 * jnp.sum(found.structure.numbers > 0)


def degenerate_blocks(
    eigenvalues: Float[Array, "q mode"],
    *,
    tolerance: float = DEGENERATE,
    width: Float[Array, ""] | None = None,
) -> Int[Array, "q mode"]:
    """Return labels 0, 1, … of the degenerate blocks at each q; λ ascending.

    Neighbours in λ closer than `tolerance` times `width` belong together.

    Args:
        eigenvalues: λ, ascending along modes.
        tolerance: Dimensionless.
        width: Of the spectrum, in the unit of λ; by default that of the eigenvalues given.
    """
    xp = array_module(eigenvalues, width)
    eigenvalues = xp.asarray(eigenvalues)
    if width is None:
        width = xp.max(eigenvalues) - xp.min(eigenvalues)
    steps = xp.diff(eigenvalues, axis=-1) > tolerance * xp.asarray(width)
    first = xp.zeros((eigenvalues.shape[0], 1), xp.int32)
    labels = xp.concatenate([first, xp.cumsum(steps, axis=-1, dtype=xp.int32)], axis=-1)
    return jnp.asarray(labels)


def block_sum(
    values: Shaped[Array, "q mode *rest"], blocks: Int[Array, "q mode"]
) -> Shaped[Array, "q mode *rest"]:
    """Return for each mode the sum over its block."""
    points, count = blocks.shape
    label = (blocks + count * jnp.arange(points, dtype=blocks.dtype)[:, None]).reshape(-1)
    flat = values.reshape(points * count, *values.shape[2:])
    sums = jax.ops.segment_sum(flat, label, points * count, indices_are_sorted=True)
    return sums[label].reshape(values.shape)


def block_mean(
    values: Shaped[Array, "q mode *rest"], blocks: Int[Array, "q mode"]
) -> Shaped[Array, "q mode *rest"]:
    """Return for each mode the mean over its block; sums over blocks are kept."""
    size = block_sum(jnp.ones(blocks.shape), blocks)
    return block_sum(values, blocks) / size.reshape(size.shape + (1,) * (values.ndim - 2))


def atomic_weights(
    found: Modes, blocks: Int[Array, "q mode"] | None = None
) -> Float[Array, "q mode atom"]:
    """Return Σ_α |e_iα|², averaged over degenerate blocks; sums to one over atoms.

    Args:
        found: The modes.
        blocks: From `degenerate_blocks`, with its defaults if not given.
    """
    if blocks is None:
        blocks = degenerate_blocks(found.eigenvalues)
    e = found.eigenvectors
    return block_mean(jnp.sum(e.real**2 + e.imag**2, axis=-1), blocks)


def with_eigenvectors(found: Modes, eigenvectors: Complex[Array, "q mode atom 3"]) -> Modes:
    """Return the modes with other eigenvectors, for instance rotated inside blocks."""
    return replace(found, eigenvectors=eigenvectors)
