"""The elastic tensor of a potential by automatic differentiation.

The gradient of E(u, η) (`result`) is that of the energy, or, for predicted forces f and stress σ,

    ∂E/∂u = -f F,   ∂E/∂F = F⁻¹ (V σ + Σ_i ξ_i f_i)                                      (1)

and its derivatives along strains and displacements give eqs. (1) to (4) there. F = 1 + η - η²/2 is
as good as √(1 + 2η) up to second order. On a rough surface E is averaged over displacements ξ of
a supercell, those of `force_constants.hessian`, which stretch with nothing:

    E_σ(u, η) = ⟨E((R + u) F + ξ)⟩ / copies,   ξ ~ N(0, σ²)                              (2)

`elastic_constants` is the plain tensor as a pure function; `elastic_tensor` uses symmetry, averages
and says what there is to say.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import check_float64, fail
from phojax.elastic.notation import ROOTS, kelvin_matrix, voigt_from_kelvin
from phojax.elastic.result import (
    ElasticResult,
    in_GPa,
    ions_can_answer,
    optic_eigenvalues,
    relaxed_ions,
    remarks_on,
)
from phojax.elastic.symmetric import (
    Strains,
    from_strain_responses,
    independent_strains,
    without_symmetry,
)
from phojax.force_constants.parts import gaussian_displacements
from phojax.force_constants.reduction import (
    Displacements,
    all_displacements,
    from_responses,
    independent_displacements,
)
from phojax.force_constants.sum_rules import projected
from phojax.forces import energy, energy_forces_stress
from phojax.potentials.contract import Potential, check_elements, why
from phojax.pytree import pytree
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import SpaceGroup, near_cubic_matrix, space_group
from phojax.units import EV_PER_A3_IN_GPA

First = tuple[Float[Array, "1 i 3"], Float[Array, "1 6"]]
Second = tuple[Float[Array, "row i 3"], Float[Array, "row 6"]]


def stretch(strain: Float[Array, "6"]) -> Float[Array, "3 3"]:
    """Return F of a Lagrangian strain in Kelvin's notation, to second order."""
    eta = kelvin_matrix(strain)
    return jnp.eye(3) + eta - eta @ eta / 2


def energy_gradient(
    potential: Potential, cells: Supercell, graph: Any, shift: Float[Array, "atom 3"]
) -> Callable[[Float[Array, "i 3"], Float[Array, "6"]], tuple[Array, Array]]:
    """Return (u, η) -> gradient of eq. (2) for one ξ, per primitive cell: eV/Å and eV.

    Args:
        potential: Any.
        cells: The supercell.
        graph: Of its structure with the shift.
        shift: ξ, Å.
    """
    p, copies = cells.primitive, cells.images.shape[0]

    def moved(u, eta):
        F = stretch(eta)
        inside = replace(p, cell=p.cell @ F, positions=(p.positions + u) @ F)
        whole = replace(cells, primitive=inside).structure
        return replace(whole, positions=whole.positions + shift)

    if potential.conservative:
        return jax.grad(lambda u, eta: energy(potential, moved(u, eta), graph) / copies, (0, 1))

    def gradient(u, eta):
        crystal = moved(u, eta)
        _, f, stress = energy_forces_stress(potential, crystal, graph)
        F, back = jax.vjp(stretch, eta)
        by_F = jnp.linalg.solve(F, crystal.volume * stress + shift.T @ f)
        by_u = -(f @ F).reshape(len(p), copies, 3).sum(axis=1)
        return by_u / copies, back(by_F)[0] / copies

    return gradient


def second_derivatives(
    potential: Potential,
    cells: Supercell,
    graph: Any,
    shift: Float[Array, "atom 3"],
    moves: Float[Array, "row i 3"],
    strains: Float[Array, "row 6"],
    batch: int = 1,
) -> tuple[First, Second]:
    """Return the gradient of eq. (2), as one row, and its derivatives along the rows; traceable.

    Args:
        potential: Twice differentiable.
        cells: The supercell.
        graph: Of its structure with the shift, held fixed.
        shift: ξ, Å.
        moves: u, Å.
        strains: η, Kelvin's notation.
        batch: Rows at a time.
    """
    gradient = energy_gradient(potential, cells, graph, shift)
    here = jnp.zeros_like(cells.primitive.positions), jnp.zeros(6, shift.dtype)
    columns = jax.lax.map(
        lambda row: jax.jvp(gradient, here, row)[1], (moves, strains), batch_size=batch
    )
    first = gradient(*here)
    return (first[0][None], first[1][None]), columns


def elastic_constants(
    potential: Potential, crystal: Structure, graph: Any, *, relaxed: bool = True
) -> Float[Array, "6 6"]:
    """Return the elastic tensor in GPa (Voigt's notation), of relaxed ions or of clamped ones.

    Pure: differentiable in the structure and in the parameters, wherever the potential is. Nothing
    is averaged or checked; meant for a relaxed crystal that is stable at Γ.

    Args:
        potential: Twice differentiable, once more for its gradient.
        crystal: Primitive for speed; any cell will do.
        graph: Of the crystal.
        relaxed: Whether the ions answer the strain.
    """
    n = len(crystal)
    moves = jnp.concatenate([jnp.eye(3 * n), jnp.zeros((6, 3 * n))]).reshape(-1, n, 3)
    strains = jnp.concatenate([jnp.zeros((3 * n, 6)), jnp.eye(6)])
    shift = jnp.zeros_like(crystal.positions)
    one = supercell(crystal, (1, 1, 1))
    _, (by_u, by_eta) = second_derivatives(potential, one, graph, shift, moves, strains)
    C = by_eta[3 * n :] / crystal.volume
    if relaxed:
        hessian = by_u[: 3 * n].reshape(3 * n, 3 * n)
        internal = -jnp.moveaxis(by_u[3 * n :], 0, -1)
        C, _ = relaxed_ions(C, internal, (hessian + hessian.T) / 2, crystal.volume)
    return voigt_from_kelvin((C + C.T) / 2) * EV_PER_A3_IN_GPA


@partial(jax.jit, static_argnames=("capacity", "batch"))
def _second_derivatives(potential, cells, shift, moves, strains, capacity, batch):
    crystal = cells.structure
    graph = potential.graph(replace(crystal, positions=crystal.positions + shift), capacity)
    found = second_derivatives(potential, cells, graph, shift, moves, strains, batch)
    return found, graph.overflow


def elastic_tensor(
    potential: Potential,
    crystal: Structure,
    group: SpaceGroup | None = None,
    *,
    width: float | None = None,
    cells: Supercell | None = None,
    pairs: int = 6,
    key: jax.Array | None = None,
    batch: int | None = None,
    workers: int | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> ElasticResult:
    """Return the elastic tensor with relaxed ions by automatic differentiation (host loop).

    Args:
        potential: In float64, twice differentiable.
        crystal: The relaxed primitive cell, exactly symmetric where a group is given.
        group: Its space group: fewer derivatives, and the tensor has its symmetry exactly; None
            for no use of symmetry.
        width: σ of eq. (2), Å; by default what the potential recommends, 0 for none.
        cells: Supercell of the average; by default the near-cubic one of at least 80 atoms.
        pairs: ± pairs of displacements in the average.
        key: Random key of the average, of seed 0 by default.
        batch: Rows at a time; by default 1 on a CPU, else 16.
        workers: Samples at a time; by default one per core on a CPU.
        on_part: Called with (parts finished, parts in all).

    Raises:
        InputError: float32, unknown elements, a potential that gives forces alone, a negative
            width, values that are not finite.
    """
    check_float64("positions", crystal.positions)
    check_elements(potential, crystal)
    width = potential.smoothing_width if width is None else width
    if width < 0 or (width > 0 and pairs < 1):
        raise fail(f"width {width} Å with {pairs} pairs", "at least 0, and above it one pair")
    if potential.derivatives is not None and potential.derivatives < 2:
        raise fail(
            f"second derivatives of {potential.name}, which gives forces alone",
            "a potential that can be differentiated twice",
            "Use elastic_tensor_from_strain",
        )
    found_group = space_group(crystal) if group is None else group
    one = supercell(crystal, (1, 1, 1))
    if group is None:
        rows = all_displacements(one, found_group)
    else:
        rows = independent_displacements(one, found_group)
    strains = independent_strains(without_symmetry(found_group) if group is None else found_group)
    if width > 0 and cells is None:
        cells = supercell(crystal, near_cubic_matrix(crystal, found_group))
    cells = replace(cells, primitive=crystal) if width > 0 and cells is not None else one
    in_cpu = jax.default_backend() == "cpu" and not potential.on_host
    batch = batch or (1 if in_cpu else 16)
    workers = 1 if potential.on_host else workers or ((os.cpu_count() or 1) if in_cpu else 1)
    evaluate = _Evaluation(potential, cells, rows, strains, batch)

    shifts = [jnp.zeros_like(cells.structure.positions)]
    if width > 0:
        key = jax.random.key(0) if key is None else key
        each = [gaussian_displacements(key, pair, len(cells.structure)) for pair in range(pairs)]
        shifts = [sign * width * xi for xi in each for sign in (1, -1)]
    samples = []
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(evaluate, shift) for shift in shifts]
        try:
            for future in waiting:
                if on_part is not None:
                    on_part(len(samples), len(waiting))
                samples.append(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if on_part is not None:
        on_part(len(samples), len(samples))
    by_u, by_eta, *slopes = (jnp.stack(part) for part in zip(*samples, strict=True))
    assembled = jax.jit(partial(_assembled, crystal, rows, strains))
    mean = assembled(tuple(part.mean(axis=0) for part in slopes))
    found = _described(potential, crystal, (by_u.mean(axis=0), by_eta.mean(axis=0)), mean)
    error = None
    if width > 0 and pairs > 1:
        error = _jackknife(
            [part.reshape(pairs, 2, *part.shape[1:]).mean(axis=1) for part in slopes],
            lambda parts: in_GPa(assembled(tuple(parts)).relaxed),
        )
    columns = (len(rows) + len(strains)) * len(shifts)
    return replace(found, width=width, columns=columns, standard_error_GPa=error)


@pytree()
class _Parts:
    """Tensors of a crystal in Kelvin's notation, eV and Å (`result`); raw: not yet symmetric."""

    raw: Float[Array, "6 6"]
    residual: Float[Array, "strain 6"]
    clamped: Float[Array, "6 6"]
    relaxed: Float[Array, "6 6"]
    internal: Float[Array, "atom 3 6"]
    displacements: Float[Array, "atom 3 6"]
    hessian: Float[Array, "mode mode"]


def _assembled(crystal: Structure, rows: Displacements, strains: Strains, slopes: Second) -> _Parts:
    """Return the tensors of mean second derivatives, displacements before strains; traceable."""
    by_u, by_eta = slopes
    volume, n, count = crystal.volume, len(crystal), len(rows)
    raw, internal, residual = from_strain_responses(strains, by_eta[count:] / volume, -by_u[count:])
    constants = projected(jnp.asarray(from_responses(rows, by_u[:count])), rows.supercell)
    hessian = jnp.swapaxes(constants, 1, 2).reshape(3 * n, 3 * n)
    clamped = (raw + raw.T) / 2
    relaxed, u = relaxed_ions(clamped, internal, hessian, volume)
    return _Parts(raw, residual, clamped, relaxed, internal, u, hessian)


def _described(potential: Potential, crystal: Structure, first: First, parts: _Parts):
    """Return the result of tensors, and of the gradient `first` of the crystal as given."""
    hessian, internal = np.asarray(parts.hessian), np.asarray(parts.internal)
    optic = optic_eigenvalues(hessian)
    lowest = float(optic[0]) if optic.size else None
    defined = ions_can_answer(hessian, internal)
    stress = np.asarray(kelvin_matrix(first[1][0])) / float(crystal.volume) * EV_PER_A3_IN_GPA
    force = float(np.sqrt((np.asarray(first[0][0]) ** 2).sum(axis=1).max()))
    return ElasticResult(
        structure=crystal,
        tensor_GPa=in_GPa(parts.relaxed) if defined else np.full((6, 6), np.nan),
        clamped_GPa=in_GPa(parts.clamped),
        internal_strain=np.moveaxis(internal, -1, 0) / ROOTS[:, None, None],
        displacements=np.moveaxis(np.asarray(parts.displacements), -1, 0) / ROOTS[:, None, None],
        stress_GPa=stress,
        force_max_eV_A=force,
        asymmetry_GPa=float(np.abs(in_GPa(parts.raw - parts.raw.T)).max()),
        symmetry_residual_GPa=float(jnp.abs(parts.residual).max()) * EV_PER_A3_IN_GPA,
        lowest_optic_eV_A2=lowest,
        width=0.0,
        step=None,
        columns=0,
        remarks=remarks_on(potential.name, stress, force, lowest, defined),
    )


def _jackknife(parts: list[Array], estimate: Callable) -> np.ndarray:
    """Return the standard error of an estimate from means of parts (sample, …)."""
    count = len(parts[0])
    left_out = np.stack(
        [estimate([(p.sum(axis=0) - p[k]) / (count - 1) for p in parts]) for k in range(count)]
    )
    return np.sqrt((count - 1) * left_out.var(axis=0))


class _Evaluation:
    """Gradient and second derivatives at shifted positions, in enlarged graphs where needed."""

    def __init__(
        self, potential, cells: Supercell, rows: Displacements, strains: Strains, batch: int
    ) -> None:
        n, count = len(cells.primitive), len(rows)
        self._potential, self._cells, self._batch = potential, cells, batch
        moves = np.zeros((count + len(strains), n, 3))
        moves[np.arange(count), rows.atoms] = rows.directions
        along = np.zeros((count + len(strains), 6))
        along[count + np.arange(len(strains)), list(strains.components)] = 1.0
        self._rows = jnp.asarray(moves), jnp.asarray(along)
        self._capacity = potential.capacity(cells.structure)

    def __call__(self, shift) -> tuple[np.ndarray, ...]:
        common = self._potential, self._cells, shift, *self._rows
        found, overflow = _second_derivatives(*common, self._capacity, self._batch)
        if overflow:
            whole = self._cells.structure
            moved = replace(whole, positions=whole.positions + shift)
            self._capacity = self._potential.capacity(moved)
            found, overflow = _second_derivatives(*common, self._capacity, self._batch)
        flat = tuple(np.asarray(x) for pair in found for x in pair)
        if overflow or not all(np.all(np.isfinite(x)) for x in flat):
            said = why(self._potential)
            raise fail(
                f"{self._potential.name} returned second derivatives that are not finite{said}",
                "finite ones",
                "" if said else "Check for overlapping atoms, or use another potential",
            )
        return flat
