"""Dynamical matrices from a potential and a primitive cell, with no supercell.

    Φ_iα,jβ(q) = Σ_L ∂²E/∂r_i0α ∂r_jLβ exp(iq·(r_j + L - r_i)),   D = Φ / √(m_i m_j)        (1)

Columns of Φ(q) are those of `bloch_columns`. That of predicted forces is not Hermitian: force
constants of a supercell are made of it (`bloch_supercell`), where it can be symmetrised together
with the sum rule; D(q) at any q takes the Hermitian part alone.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from phojax.bloch_columns import bloch_hessians, order_of
from phojax.bloch_waves import operations_in
from phojax.checks import check_float64, check_shape, fail
from phojax.dynmat import Interpolation
from phojax.forces import energy, energy_and_forces
from phojax.neighbors import carrying
from phojax.potentials.contract import Potential, check_elements
from phojax.pytree import pytree
from phojax.structure import Structure, supercell

_HERMITIAN = 1e-8  # of the largest entry: beyond this something was read without its phase
_LAYERS = 5


@partial(jax.jit, static_argnames=("capacity", "columns"))
def _hessians(potential, crystal, q, directions, capacity, columns):
    graph = potential.graph(crystal, capacity)
    found = bloch_hessians(potential, crystal, graph, q, directions, columns=columns)
    return found, graph.overflow


def exact_dynamical_matrices(
    potential: Potential,
    crystal: Structure,
    q: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    columns: int | None = None,
) -> Complex[Array, "q mode mode"]:
    """Return D(q), eq. (1), in eV Å⁻² amu⁻¹ in the convention of `dynmat`, Hermitian (host).

    Args:
        potential: As for `bloch_hessians`.
        crystal: Concrete, relaxed; any cell, best the primitive one.
        q: (q, 3), fractional, of that cell.
        directions: As for `bloch_hessians`.
        columns: Likewise.

    Raises:
        InputError: float32, unknown elements, a potential that offers supercells only, values that
            are not finite, a matrix that is not Hermitian.
    """
    hermitian = exact_hessians(potential, crystal, q, directions, columns=columns)
    root = 1 / np.sqrt(np.repeat(np.asarray(crystal.masses), 3))
    return jnp.asarray(hermitian * (root[:, None] * root))


def exact_hessians(
    potential: Potential,
    crystal: Structure,
    q: ArrayLike,
    directions: ArrayLike | None = None,
    *,
    columns: int | None = None,
) -> Complex[np.ndarray, "q mode mode"]:
    """Return Φ(q), eq. (1), in eV/Å², Hermitian; arguments and errors as above (host).

    Where forces are predicted it is the Hermitian part.
    """
    q = jnp.asarray(q, crystal.positions.dtype)
    check_shape("q", q, (None, 3), "fractional, one row per point")
    towards = jnp.zeros_like(q) if directions is None else jnp.asarray(directions, q.dtype)
    check_shape("directions", towards, q.shape, "one per point")
    _check_exact(potential, crystal)
    capacity = potential.capacity(crystal)
    found, overflow = _hessians(potential, crystal, q, towards, capacity, columns)
    return hermitian_matrices(potential, finite_matrices(potential, np.asarray(found), overflow))


def _check_exact(potential: Potential, crystal: Structure) -> None:
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    check_carries_waves(potential, crystal)


def check_offers_exact(
    potential: Potential, crystal: Structure, *, predicted: bool = False
) -> None:
    """Raise InputError for a potential whose exact D(q) is not to be had or not to be trusted.

    Potentials of which nobody has said that they carry waves are looked at closely:
    `check_beside_doubled_cell`. `predicted` says whether predicted forces will do.
    """
    _check_exact(potential, crystal)
    check_hermitian(potential, predicted)
    if not potential.carries_waves:
        check_beside_doubled_cell(potential, crystal)


def finite_matrices(potential: Potential, found: np.ndarray, overflow: Any) -> np.ndarray:
    """Return second derivatives as they are; raise InputError unless all are finite."""
    if overflow or not np.all(np.isfinite(found)):
        raise fail(
            f"{potential.name} returned second derivatives that are not finite", "finite ones",
            "Check for overlapping atoms",
        )  # fmt: skip
    return found


def hermitian_matrices(
    potential: Potential, found: Complex[np.ndarray, "q mode mode"]
) -> Complex[np.ndarray, "q mode mode"]:
    """Return the Hermitian part of matrices; raise InputError where another part is there.

    Of predicted forces another part may be there.
    """
    adjoint = found.conj().swapaxes(1, 2)
    size = np.abs(found).max(initial=1e-300)
    if potential.conservative and np.abs(found - adjoint).max(initial=0.0) > _HERMITIAN * size:
        raise fail(
            f"matrices of {potential.name} that are not Hermitian, by "
            f"{np.abs(found - adjoint).max() / size:.1g} of the largest entry",
            "a potential whose reads and sums across cells all go through neighbors.gather and "
            "neighbors.scatter",
            "Use a supercell",
        )
    return (found + adjoint) / 2


@pytree(static=("columns",))
class Exact:
    """A potential as a part of `dynmat.Interpolation`.

    Attributes:
        potential: As for `bloch_hessians`.
        graph: Of the crystal, held fixed.
        columns: Of a matrix computed at a time (static).
    """

    potential: Potential
    graph: Any
    columns: int | None = None

    @property
    def reach(self) -> float:
        """A length in Å beyond which little is felt: some layers of messages."""
        return _LAYERS * self.potential.cutoff

    def hessians(
        self,
        crystal: Structure,
        q: Float[Array, "q 3"],
        directions: Float[Array, "q 3"] | None,
    ) -> Complex[Array, "q mode mode"]:
        """Return Φ(q) of the crystal, eq. (1), in eV/Å²."""
        return bloch_hessians(
            self.potential, crystal, self.graph, q, directions, columns=self.columns
        )


def exact(potential: Potential, crystal: Structure, *, columns: int | None = None) -> Interpolation:
    """Return what gives D(q) of a potential, for all that takes force constants at any q (host).

    Modes, bands, velocities and descriptors on meshes then interpolate nothing.
    Derivatives with respect to q, positions, cell (`crystal` of the result), masses and
    parameters go through.

    Args:
        potential: As for `bloch_hessians`; looked at by `check_beside_doubled_cell` first, unless
            it `carries_waves`.
        crystal: Concrete, relaxed; best the primitive cell.
        columns: Of a matrix computed at a time; all by default.

    Raises:
        InputError: as `exact_hessians`.
    """
    check_offers_exact(potential, crystal)
    n = 3 * len(crystal)
    graph = potential.graph(crystal, potential.capacity(crystal))
    part = Exact(potential, graph, columns)
    return Interpolation(crystal, jnp.zeros((0, 3), jnp.int32), jnp.zeros((0, n, n)), exact=part)


def check_carries_waves(potential: Potential, crystal: Structure) -> None:
    """Raise InputError for a potential that offers supercells only."""
    remedy = "Use force constants of a supercell"
    if potential.on_host or potential.derivatives is not None:
        raise fail(
            f"D(q) without a supercell of {potential.name}, which runs in another program",
            "a potential written in JAX with neighbors.gather and neighbors.scatter", remedy,
        )  # fmt: skip
    if potential.carries_waves:
        return
    capacity = potential.capacity(crystal)

    def carried(crystal: Structure):
        graph = potential.graph(crystal, capacity)
        graph = carrying(graph, jnp.zeros(3), jnp.zeros(3), order_of(potential))
        return energy_and_forces(potential, crystal, graph)

    if not operations_in(carried, crystal) and _has_images(potential.graph(crystal, capacity)):
        raise fail(
            f"{potential.name}, which reads its neighbours by other means than neighbors.gather",
            "a potential that reads and sums through neighbors.gather and neighbors.scatter",
            remedy,
        )


def check_hermitian(potential: Potential, predicted: bool = False) -> None:
    """Raise InputError for predicted forces where they will not do."""
    if not (potential.conservative or predicted):
        raise fail(
            f"D(q) without a supercell of {potential.name}, whose forces are predicted",
            "a potential with an energy: the sum rule of a Jacobian that is not symmetric is "
            "restored together with its symmetry, in the force constants of a supercell",
            'Take those; `force_constants_from = "primitive"` makes them of the primitive cell',
        )


def check_beside_doubled_cell(potential: Potential, crystal: Structure) -> None:
    """Raise InputError unless Φ(½ 0 0) is that of a cell twice as long (host).

    One derivative in the doubled cell, for a potential of one's own: where reads and sums bypass
    `gather` and `scatter`, Φ(q) is wrong and looks like any other.
    """
    q = np.array([[0.5, 0.0, 0.0]])
    [found] = exact_hessians(potential, crystal, q)
    own = np.exp(2j * np.pi * np.repeat(np.asarray(crystal.fractional) @ q[0], 3))
    at_home = own[:, None] * found * own.conj()
    cells = supercell(crystal, (2, 1, 1))
    whole = cells.structure
    t = np.random.default_rng(0).normal(size=(len(crystal), 3))
    moved = jnp.asarray(np.stack([t, -t], axis=1).reshape(-1, 3))  # atoms in the order j·L
    graph = potential.graph(whole, potential.capacity(whole))

    @jax.jit
    def changed(x, moved):
        slope = jax.grad(lambda x: energy(potential, replace(whole, positions=x), graph))
        return jax.jvp(slope, (x,), (moved,))[1]

    wanted = np.asarray(changed(whole.positions, moved)).reshape(len(crystal), 2, 3)[:, 0].ravel()
    off = np.abs(at_home @ t.ravel() - wanted).max() / np.abs(wanted).max(initial=1e-300)
    if off > _HERMITIAN:
        raise fail(
            f"D(q) of {potential.name} without a supercell, which is off by {off:.1g} at (½ 0 0)",
            "a potential whose reads and sums across cells all go through neighbors.gather and "
            "neighbors.scatter",
            "Use force constants of a supercell",
        )


def _has_images(graph: Any) -> bool:
    """Return whether a graph has neighbours at all."""
    return any(np.asarray(leaf).any() for leaf in jax.tree.leaves(graph)
               if np.asarray(leaf).dtype == bool and np.ndim(leaf))  # fmt: skip


__all__ = [
    "Exact",
    "check_beside_doubled_cell",
    "check_carries_waves",
    "check_hermitian",
    "check_offers_exact",
    "exact",
    "exact_dynamical_matrices",
    "exact_hessians",
    "finite_matrices",
    "hermitian_matrices",
]
