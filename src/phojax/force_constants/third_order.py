"""Third-order force constants from a potential, plain or averaged over Gaussian displacements.

    v_de(c) = Σ_αβ d_α e_β Φ(aα, bβ, c)                                            (1)
            = -∂²/∂s∂t F_c(x + s d_a + t e_b) at s = t = 0
            = [Φ(x + h d_a) e_b - Φ(x - h d_a) e_b] / 2h                            (1')
            = -[F_++ - F_+- - F_-+ + F_--] / 4h²,  F_±± = F_c(x ± h d_a ± h e_b)   (1'')
    Φ_σ = ⟨∇∇∇E(x + σξ)⟩,  ξ ~ N(0, 1) for every coordinate of the supercell       (2)

d_a displaces atom a along d. (1) is a derivative of the forces along two displacements, by
automatic differentiation at the graph of x. (1') asks for Hessian-vector products and (1'') for
forces alone; their graphs are made anew at every displacement, and their error is of order h².
The pairs of displacements are those of `third_reduction`; what the rules of `third_rules` then
change is reported.

(2) is the third derivative of the potential smoothed with the width σ (Å), over pairs ±ξ as in
`hessian`; it also equals the effective third-order force constants of that Gaussian ensemble.
Third derivatives of a network amplify its short waves by one more power of a wave number than
second ones, and CHGNet's angles bend within milliångströms of a straight line: in rock salt its
largest component is 50 eV/Å³ at the point and 4 over differences of 0.01 Å. Look at (1') at several
steps and at (2) at several widths before believing (1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phojax.checks import check_float64, fail
from phojax.force_constants.parts import Ensemble, at_a_time, responses_in_parts
from phojax.force_constants.shells import shell_cutoff
from phojax.force_constants.third_container import ThirdOrder, third_order
from phojax.force_constants.third_reduction import (
    DisplacementPairs,
    from_pair_responses,
    independent_pairs,
)
from phojax.force_constants.third_rules import ThirdResiduals, settled
from phojax.forces import energy_and_forces
from phojax.potentials.contract import Potential, check_elements, why
from phojax.structure import Structure, Supercell
from phojax.symmetry import SpaceGroup

_ROWS, _HOST_ROWS = 8, 4  # of a part: what is lost where it is interrupted


@dataclass(frozen=True)
class ThirdOrderResult:
    """Third-order force constants of a potential and what there is to know about their making.

    Attributes:
        third_order: With permutation symmetry, the sum rule, the space group, the cutoff.
        residuals: What was removed and restored by that. `space_group` is the misfit of the
            responses; with a width it holds the noise of the sample.
        columns: Derivatives computed: vectors v of eq. (1), over all displaced crystals.
        width: σ, Å.
        step: h of eqs. (1') and (1'') in Å; None for eq. (1).
        standard_error: Root mean square statistical error of Φ in eV/Å³, before the sum rule;
            None without at least two ± pairs.
    """

    third_order: ThirdOrder
    residuals: ThirdResiduals
    columns: int
    width: float = 0.0
    step: float | None = None
    standard_error: float | None = None


def third_responses(
    potential: Potential,
    crystal: Structure,
    graph: Any,
    first: Int[Array, " row"],
    second: Int[Array, " row"],
    directions: Float[Array, "row 2 3"],
    batch: int = 1,
) -> Float[Array, "row atom 3"]:
    """Return v of eq. (1) in eV/Å³ for every row; traceable, differentiable.

    Args:
        potential: Three times differentiable.
        crystal: The supercell.
        graph: Its graph, held fixed.
        first: Indices of the atoms displaced along the first direction.
        second: Those displaced along the second one.
        directions: Cartesian unit vectors.
        batch: Rows computed at a time. Memory grows with it; speed does on a GPU only.
    """

    def response(row):
        a, b, (d, e) = row
        along = _displacement(crystal, a, d)
        return jax.jvp(
            lambda x: _product(potential, crystal, x, graph, b, e), (crystal.positions,), (along,)
        )[1]

    return jax.lax.map(response, (first, second, directions), batch_size=batch)


def differenced_responses(
    potential: Potential,
    crystal: Structure,
    capacity: Any,
    first: Int[Array, " row"],
    second: Int[Array, " row"],
    directions: Float[Array, "row 2 3"],
    step: float | Float[Array, ""],
    forces_alone: bool = False,
    batch: int = 1,
) -> tuple[Float[Array, "row atom 3"], Bool[Array, ""]]:
    """Return v of eq. (1'), or (1''), in eV/Å³ and whether a graph overflowed; traceable.

    Args:
        potential: Any for eq. (1''), twice differentiable for (1').
        crystal: The supercell.
        capacity: Sizes of its graph.
        first: As the next two, those of `third_responses`.
        second: Atoms.
        directions: Cartesian unit vectors.
        step: h, Å.
        forces_alone: Whether to take eq. (1'').
        batch: Rows computed at a time.
    """

    def slope(x, b, e):
        """Return Φ e_b at x, and the overflow."""
        if forces_alone:
            moves = _displacement(crystal, b, e) * step
            (forth, first_), (back, second_) = (forces(x + s * moves) for s in (1, -1))
            return (back - forth) / (2 * step), first_ | second_
        graph = potential.graph(replace(crystal, positions=x), capacity)
        return _product(potential, crystal, x, graph, b, e), graph.overflow

    def forces(x):
        moved = replace(crystal, positions=x)
        graph = potential.graph(moved, capacity)
        return energy_and_forces(potential, moved, graph)[1], graph.overflow

    def response(row):
        a, b, (d, e) = row
        moves = _displacement(crystal, a, d) * step
        (forth, one), (back, other) = (slope(crystal.positions + s * moves, b, e) for s in (1, -1))
        return (forth - back) / (2 * step), one | other

    found, overflow = jax.lax.map(response, (first, second, directions), batch_size=batch)
    return found, jnp.any(overflow)


def _displacement(crystal: Structure, atom, direction):
    return jnp.zeros_like(crystal.positions).at[atom].set(direction)


def _product(potential, crystal, x, graph, atom, direction):
    """Return Φ(x) times the displacement of an atom: minus the derivative of the forces."""

    def gradient(x):
        return -energy_and_forces(potential, replace(crystal, positions=x), graph)[1]

    return jax.jvp(gradient, (x,), (_displacement(crystal, atom, direction),))[1]


@partial(jax.jit, static_argnames=("capacity", "batch", "forces_alone"))
def _responses(potential, crystal, shift, rows, capacity, batch, step, forces_alone):
    moved = replace(crystal, positions=crystal.positions + shift)
    first, second, directions = rows
    if step is not None:
        more = step, forces_alone, batch
        return differenced_responses(potential, moved, capacity, first, second, directions, *more)
    graph = potential.graph(moved, capacity)
    found = third_responses(potential, moved, graph, first, second, directions, batch)
    return found, graph.overflow


def third_order_by_autodiff(
    potential: Potential,
    supercell: Supercell,
    group: SpaceGroup,
    *,
    cutoff: float | None = None,
    shell: int | None = None,
    width: float = 0.0,
    pairs: int = 6,
    key: jax.Array | None = None,
    displacements: DisplacementPairs | None = None,
    batch: int | None = None,
    workers: int | None = None,
    step: float | None = None,
    on_part: Callable[[int, int], None] | None = None,
    done: dict[str, np.ndarray] | None = None,
) -> ThirdOrderResult:
    """Return third-order force constants of the supercell (host loop).

    A cutoff saves columns, and leaves Φ 0 where two atoms of a triplet are farther apart. What
    the triplets left out held is then spread over the others, so that the sum rule holds:
    `residuals` tells how much it was, and its `left_out` the largest component seen beyond it.

    Memory: about ten arrays of n N² 27 doubles for n primitive and N supercell atoms.

    Args:
        potential: In float64; three times differentiable, or with a `step`.
        supercell: Of an exactly symmetric primitive cell.
        group: Space group of the primitive cell.
        cutoff: Å, of every pair of a triplet, at the nearest images; None for none.
        shell: The same as a number of shells of neighbours (`shells.shell_cutoff`).
        width: σ in Å; 0 for the plain derivatives.
        pairs: Number of ± pairs where the width is not 0.
        key: Random key for ξ; needed where the width is not 0.
        displacements: Pairs of displacements; by default the independent ones. They bring
            their own cutoff.
        batch: Rows at a time; by default 1 for a potential that runs on a CPU in JAX, else 16.
        workers: Evaluations at a time, each in a thread of its own; by default one per core on a
            CPU, 1 elsewhere and on the host.
        step: h in Å; None for automatic differentiation. Differences of Hessian-vector
            products, eq. (1'), or of forces, eq. (1''), where the potential gives those alone.
        on_part: Called with (parts finished, parts in all) before the first and after each one.
        done: Responses of parts computed before, by name; finished ones are added to it, so
            that the caller can store them and resume.

    Raises:
        InputError: float32, a cutoff given twice, a negative width, a step that is not positive,
            none for a potential without third derivatives, unknown elements, a result that is
            not finite.
    """
    crystal = supercell.structure
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    ensemble = Ensemble(width, pairs, key)
    _check(potential, step, (cutoff, shell, displacements))
    if shell is not None:
        cutoff = shell_cutoff(supercell, shell)
    batch, workers = at_a_time(potential, batch, workers)
    rows = displacements or independent_pairs(supercell, group, cutoff)
    evaluate = _Evaluation(potential, supercell, rows, batch, step)
    size = min(len(rows), _HOST_ROWS if potential.on_host else max(_ROWS, 4 * batch))
    found = responses_in_parts(
        evaluate, ensemble, len(crystal), len(rows), size, workers=workers, on_part=on_part,
        done=done,
    )  # fmt: skip
    count = ensemble.count
    raw, misfit = from_pair_responses(rows, found.mean(axis=0))
    values, residuals = settled(jnp.asarray(raw), rows.known, supercell, rows.cutoff)
    error = None
    if count > 1:
        squares = np.zeros_like(raw)
        for one in found:
            squares += np.square(from_pair_responses(rows, one)[0] - raw)
        error = float(np.sqrt(np.mean(squares[rows.known]) / (count - 1) / count))
    return ThirdOrderResult(
        third_order(values, supercell, rows.cutoff),
        replace(residuals, space_group=misfit),
        len(rows) * len(ensemble.signs) * count,
        width,
        step,
        error,
    )


def _check(potential: Potential, step, cutoffs) -> None:
    if sum(x is not None for x in cutoffs) > 1:
        raise fail("several of cutoff, shell and displacements", "one of them, or none")
    if cutoffs[0] is not None and not cutoffs[0] > 0:
        raise fail(f"a cutoff of {cutoffs[0]} Å", "a positive length, or None for none")
    if step is not None and not step > 0:
        raise fail(f"a displacement of {step} Å", "a positive length such as 0.01")
    if step is None and potential.derivatives is not None and potential.derivatives < 3:
        raise fail(
            f"third derivatives of {potential.name}, which gives {potential.derivatives}",
            "step=, the displacement in Å for differences",
        )


class _Evaluation:
    """The responses of a supercell at shifted positions, in enlarged graphs where they need it."""

    def __init__(
        self, potential, supercell: Supercell, rows: DisplacementPairs, batch: int, step
    ) -> None:
        self._potential, self._crystal = potential, supercell.structure
        self._batch, self._step = batch, step
        self._forces_alone = step is not None and potential.derivatives == 1
        first = rows.first * len(supercell.images)
        self._rows = tuple(jnp.asarray(x) for x in (first, rows.second, rows.directions))
        self._capacity = potential.capacity(self._crystal)

    def __call__(self, shift, start: int, size: int) -> np.ndarray:
        """Return the responses of `size` rows from `start` on, or of as many as there are."""
        count = len(self._rows[0])
        # All parts have one shape: the last one is filled up with its last row.
        mine = np.minimum(np.arange(start, start + size), count - 1)
        common = self._potential, self._crystal, shift, tuple(x[mine] for x in self._rows)
        how = self._batch, self._step, self._forces_alone
        found, overflow = _responses(*common, self._capacity, *how)
        if overflow:
            moved = replace(self._crystal, positions=self._crystal.positions + shift)
            self._capacity = self._potential.capacity(moved)
            found, overflow = _responses(*common, self._capacity, *how)
        if overflow or not np.all(np.isfinite(found)):
            said = why(self._potential)
            raise fail(
                f"{self._potential.name} returned derivatives that are not finite{said}",
                "finite ones",
                ""
                if said
                else "Check for overlapping atoms, lower the width or step, or use another"
                " potential",
            )
        return np.asarray(found)[: count - start]
