"""Force constants from a potential, plain or averaged over Gaussian displacements.

    Φ d = -∂/∂s F(x + s d) at s = 0                                            (1)
    Φ d = -[F(x + h d) - F(x - h d)] / 2h                                       (1')
    Φ_σ = ⟨∇∇E(x + σξ)⟩,  ξ ~ N(0, 1) for every coordinate of the supercell      (2)

(1) is the derivative of the forces along d, by automatic differentiation at the graph of x: exact,
at the cost of a few force calls. (1') asks for forces alone, and its graph is made anew at every
displacement. For forces that are predicted, not derived from an energy, Φ is the Jacobian; its
antisymmetric part is removed and told.

(2) is the Hessian of the potential smoothed with the width σ (Å); by parts it also equals the
effective harmonic force constants of that Gaussian ensemble. It is taken over pairs ±ξ, so that
odd anharmonicity cancels, and the ξ depend on the seed alone, not on σ.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phojax.checks import check_float64, fail
from phojax.force_constants.container import ForceConstants, force_constants
from phojax.force_constants.parts import (
    Ensemble,
    at_a_time,
    gaussian_displacements,
    responses_in_parts,
)
from phojax.force_constants.reduction import (
    Displacements,
    from_responses,
    independent_displacements,
)
from phojax.force_constants.sum_rules import Residuals, antisymmetric_ratio, enforced, projected
from phojax.forces import energy_and_forces, energy_forces_stress
from phojax.potentials.contract import Potential, check_elements, why
from phojax.rooms import Room, in_room, merged, room_of
from phojax.structure import Structure, Supercell
from phojax.symmetry import SpaceGroup

_HOST_ROWS = 4  # of a part: what is lost where a slow model is interrupted
_SHARED_ROWS = 64  # of a part that shares its shape with those of other crystals


@dataclass(frozen=True)
class HessianResult:
    """Force constants of a potential and what there is to know about their making.

    Attributes:
        force_constants: Sum rules and permutation symmetry enforced.
        residuals: What was removed by that.
        width: σ, Å.
        pairs: (pair, i, j·L, 3, 3) the estimate of every ± pair, sum rules enforced; one
            estimate where the width is 0.
        columns: Hessian-vector products computed, or differences of forces.
        step: h of eq. (1') in Å; None for eq. (1).
        antisymmetric: ‖Φ - Φᵀ‖ / ‖Φ + Φᵀ‖ as computed: 0 to rounding for an energy.
        points: Of the Brillouin zone, where they are from the primitive cell (`bloch`); else 0.
    """

    force_constants: ForceConstants
    residuals: Residuals
    width: float
    pairs: Float[Array, "pair i jL 3 3"]
    columns: int
    step: float | None = None
    antisymmetric: float = 0.0
    points: int = 0

    @property
    def standard_error(self) -> float | None:
        """Root mean square statistical error of Φ in eV/Å²; None without an ensemble."""
        count = self.pairs.shape[0]
        if count < 2:
            return None
        return float(jnp.sqrt(jnp.mean(jnp.var(self.pairs, axis=0, ddof=1)) / count))

    def leave_one_out(self) -> list[ForceConstants]:
        """Return the force constants with each pair left out in turn (jackknife)."""
        count = self.pairs.shape[0]
        total = self.pairs.sum(axis=0)
        return [
            replace(self.force_constants, values=(total - pair) / (count - 1))
            for pair in (self.pairs if count > 1 else ())
        ]


def responses(
    potential: Potential,
    crystal: Structure,
    graph,
    atoms: Int[Array, " row"],
    directions: Float[Array, "row 3"],
    batch: int = 1,
) -> Float[Array, "row atom 3"]:
    """Return dᵀ Φ(a, ·) of eq. (1) in eV/Å² for every row (a, d); traceable, differentiable.

    Args:
        potential: Twice differentiable.
        crystal: The supercell.
        graph: Its graph, held fixed.
        atoms: Indices of the displaced atoms in `crystal`.
        directions: Cartesian unit vectors.
        batch: Rows computed at a time. Memory grows with it.
    """

    def gradient(x):
        return -energy_and_forces(potential, replace(crystal, positions=x), graph)[1]

    def response(row):
        a, d = row
        along = jnp.zeros_like(crystal.positions).at[a].set(d)
        return jax.jvp(gradient, (crystal.positions,), (along,))[1]

    # Not `jax.linearize`: as fast for the few rows there are, but twice as long to compile.
    return jax.lax.map(response, (atoms, directions), batch_size=batch)


def displaced_responses(
    potential: Potential,
    crystal: Structure,
    capacity,
    atoms: Int[Array, " row"],
    directions: Float[Array, "row 3"],
    step: float | Float[Array, ""],
    batch: int = 1,
) -> tuple[Float[Array, "row atom 3"], Bool[Array, ""]]:
    """Return eq. (1') in eV/Å² for every row, and whether a graph overflowed; traceable.

    Args:
        potential: Any.
        crystal: The supercell.
        capacity: Sizes of its graph, which is made anew for every displacement.
        atoms: Indices of the displaced atoms in `crystal`.
        directions: Cartesian unit vectors.
        step: h, Å.
        batch: Rows computed at a time.
    """

    def forces(x):
        moved = replace(crystal, positions=x)
        graph = potential.graph(moved, capacity)
        return energy_and_forces(potential, moved, graph)[1], graph.overflow

    def response(row):
        a, d = row
        along = jnp.zeros_like(crystal.positions).at[a].set(d) * step
        (forth, first), (back, second) = (forces(crystal.positions + s * along) for s in (1, -1))
        return (back - forth) / (2 * step), first | second

    found, overflow = jax.lax.map(response, (atoms, directions), batch_size=batch)
    return found, jnp.any(overflow)


@partial(jax.jit, static_argnames=("capacity", "batch", "step"))
def _responses(potential, moved, rows, count, capacity, batch, step):
    """Return the responses of the first `count` rows and whether a graph overflowed."""
    graph = None if step is not None else potential.graph(moved, capacity)

    def some(k, found):
        out, overflow = found
        mine = tuple(jax.lax.dynamic_slice_in_dim(x, k * batch, batch) for x in rows)
        if graph is None:
            assert step is not None
            new, full = displaced_responses(
                potential, moved, capacity, *mine, step=step, batch=batch
            )
            overflow = overflow | full
        else:
            new = responses(potential, moved, graph, *mine, batch=batch)
        return jax.lax.dynamic_update_slice_in_dim(out, new, k * batch, 0), overflow

    start = jnp.zeros((len(rows[0]), *moved.positions.shape), moved.positions.dtype)
    full = jnp.zeros((), bool) if graph is None else graph.overflow
    # As many as there are, not as many as there is room for.
    return jax.lax.fori_loop(0, (count + batch - 1) // batch, some, (start, full))


def hessian(
    potential: Potential,
    supercell: Supercell,
    group: SpaceGroup,
    *,
    width: float = 0.0,
    pairs: int = 6,
    key: jax.Array | None = None,
    displacements: Displacements | None = None,
    batch: int | None = None,
    workers: int | None = None,
    step: float | None = None,
    room: Room | None = None,
    on_part: Callable[[int, int], None] | None = None,
    done: dict[str, np.ndarray] | None = None,
) -> HessianResult:
    """Return force constants of the supercell (host loop).

    Args:
        potential: In float64; twice differentiable, or with a `step`.
        supercell: Of an exactly symmetric primitive cell.
        group: Space group of the primitive cell.
        width: σ in Å; 0 for the plain Hessian.
        pairs: Number of ± pairs where the width is not 0.
        key: Random key for ξ; needed where the width is not 0.
        displacements: Rows to compute; by default the independent ones.
        batch: Rows at a time; by default what suits potential, device and their number.
        workers: Evaluations at a time, each in a thread of its own; by default one per core on a
            CPU (networks of this size leave most of it idle), 1 elsewhere and on the host.
        step: h of eq. (1') in Å; None for automatic differentiation.
        room: Shape that the supercell shares with others, so that one function is compiled for
            all of them; its own by default.
        on_part: Called with (parts finished, parts in all) before the first and after each one.
            A part is some rows of one sign of one pair.
        done: Responses of parts computed before, by name; finished ones are added to it, so
            that the caller can store them and resume.

    Raises:
        InputError: float32, a negative width, a step that is not positive, none for a potential
            that gives forces alone, unknown elements, a result that is not finite.
    """
    crystal = supercell.structure
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    ensemble = Ensemble(width, pairs, key)
    if step is not None and not step > 0:
        raise fail(f"a displacement of {step} Å", "a positive length such as 0.01")
    if step is None and potential.derivatives == 1:
        raise fail(f"second derivatives of {potential.name}, which gives forces alone",
                   "step=, the displacement in Å for differences of forces")  # fmt: skip
    rows = displacements or independent_displacements(supercell, group)
    batch, workers = at_a_time(potential, batch, workers, [1 if step else len(rows)])
    size = _HOST_ROWS if potential.on_host else len(rows) if room is None else _SHARED_ROWS
    evaluate = _Evaluation(potential, supercell, rows, batch, size, step, room)
    if not potential.on_host and ensemble.count * len(ensemble.signs) < workers:
        size = min(size, batch * -(-len(rows) // (batch * workers)))  # work for every thread
    found = responses_in_parts(
        evaluate, ensemble, len(crystal), len(rows), size, workers=workers, on_part=on_part,
        done=done,
    )  # fmt: skip
    values = np.stack([from_responses(rows, one) for one in found])
    columns = len(rows) * len(ensemble.signs) * ensemble.count
    return hessian_result(values, supercell, width, columns, step)


def hessian_result(
    estimates: Float[np.ndarray, "estimate i jL 3 3"],
    supercell: Supercell,
    width: float,
    columns: int,
    step: float | None = None,
) -> HessianResult:
    """Return the result of estimates of Φ as they were computed: see `HessianResult`."""
    values = jnp.asarray(estimates)
    raw = force_constants(values.mean(axis=0), supercell)
    mean, removed = enforced(raw)
    several = len(values) > 1
    each = jax.jit(jax.vmap(lambda v: projected(v, supercell)))(values) if several else values
    return HessianResult(mean, removed, width, each, columns, step, antisymmetric_ratio(raw))


class _Evaluation:
    """The responses of a supercell at shifted positions, in enlarged graphs where they need it."""

    def __init__(
        self, potential, supercell: Supercell, rows: Displacements, batch: int, most: int,
        step: float | None, room: Room | None,
    ) -> None:  # fmt: skip
        self._potential, self._crystal = potential, supercell.structure
        self._batch, self._step = batch, step
        self._length = -(-most // batch) * batch  # one shape, whatever is in it
        copies = len(supercell.images)
        self._rows = rows.atoms * copies, rows.directions
        self._room = room or room_of(potential, self._crystal)

    def __call__(self, shift, start: int, size: int) -> np.ndarray:
        """Return the responses of `size` rows from `start` on, or of as many as there are."""
        count = min(size, len(self._rows[0]) - start)
        mine = np.minimum(np.arange(start, start + self._length), start + count - 1)
        rows = tuple(jnp.asarray(x[mine]) for x in self._rows)
        x = np.asarray(self._crystal.positions) + np.asarray(shift)
        moved = replace(self._crystal, positions=jnp.asarray(x))

        def found_in(room: Room):
            inside = jax.tree.map(lambda x: x[0], in_room([moved], room.atoms))
            return _responses(
                self._potential, inside, rows, jnp.int32(count), room.capacity, self._batch,
                self._step,
            )  # fmt: skip

        found, overflow = found_in(self._room)
        if overflow:
            self._room = merged(self._room, room_of(self._potential, moved))
            found, overflow = found_in(self._room)
        if overflow or not np.all(np.isfinite(found)):
            said = why(self._potential)
            raise fail(
                f"{self._potential.name} returned force constants that are not finite{said}",
                "finite ones",
                ""
                if said
                else "Check for overlapping atoms, lower the width, or use another potential",
            )
        return np.asarray(found)[:count, : len(self._crystal)]


@partial(jax.jit, static_argnames="capacity")
def _shifted_evaluation(potential, crystal, shift, capacity):
    """Return energy, forces and stress at x + shift, and the overflow of its graph.

    The shift does not stretch with the cell, or the stress would not be the derivative of the
    averaged energy.
    """
    moved = replace(crystal, positions=crystal.positions + shift)
    graph = potential.graph(moved, capacity)
    value, forces, stress = energy_forces_stress(potential, moved, graph)
    # The stress of the moved crystal stretches the shifts, too: take that part of it away.
    stretched = -shift.T @ forces
    stress = stress - (stretched + stretched.T) / 2 / crystal.volume
    return (value, forces, stress), graph.overflow


def averaged_surface(
    potential: Potential, supercell: Supercell, width: float, pairs: int, key: jax.Array
) -> Callable[[Structure], tuple[float, np.ndarray, np.ndarray]]:
    """Return the surface whose Hessian eq. (2) is, per primitive cell, for `relax.relax_on`.

    Energy (eV), forces (eV/Å) and stress (eV/Å³) of a primitive cell are averaged over the same
    ± pairs of displacements of its supercell that `hessian` takes with this key, and over the
    copies of every atom. The displacements are lengths: they do not stretch with the cell.

    Args:
        potential: Any.
        supercell: Which copies there are; its primitive cell is replaced at every call.
        width: σ, Å.
        pairs: Number of ± pairs.
        key: Random key.
    """
    copies, n = supercell.images.shape[0], len(supercell.primitive)
    held = {"capacity": potential.capacity(supercell.structure)}

    def surface(primitive: Structure) -> tuple[float, np.ndarray, np.ndarray]:
        crystal = replace(supercell, primitive=primitive).structure
        total, forces, stress = 0.0, np.zeros((n, 3)), np.zeros((3, 3))
        for pair in range(pairs):
            xi = gaussian_displacements(key, pair, len(crystal))
            for sign in (1, -1):
                shift = sign * width * xi
                found, overflow = _shifted_evaluation(potential, crystal, shift, held["capacity"])
                if overflow:
                    moved = replace(crystal, positions=crystal.positions + shift)
                    held["capacity"] = potential.capacity(moved)
                    found, overflow = _shifted_evaluation(
                        potential, crystal, shift, held["capacity"]
                    )
                if overflow:  # as `relax.potential_surface` says it
                    return np.nan, np.full((n, 3), np.nan), np.full((3, 3), np.nan)
                share = 1 / (2 * pairs)
                total += float(found[0]) / copies * share
                forces += np.asarray(found[1]).reshape(n, copies, 3).mean(axis=1) * share
                stress += np.asarray(found[2]) * share
        return total, forces, stress

    return surface
