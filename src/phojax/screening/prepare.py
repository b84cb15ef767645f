"""From a structure and a potential to force constants: cell, relaxation, supercell, Hessian."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from phojax.bloch import check_carries_waves, check_hermitian
from phojax.bloch_supercell import hessian_by_waves, independent_columns
from phojax.checks import fail
from phojax.force_constants.hessian import HessianResult, averaged_surface, hessian
from phojax.force_constants.noise import RowNoise, row_noise
from phojax.force_constants.reduction import independent_displacements
from phojax.potentials.contract import Potential, check_elements
from phojax.relax import (
    Descent,
    Relaxation,
    driven,
    explained,
    potential_surface,
    relaxing,
)
from phojax.rooms import Room
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import SpaceGroup, near_cubic_matrix, primitive_cell, space_group, symmetrized

DISPLACEMENT = 0.01
"""Å; of potentials that give forces alone."""

_SECONDS_BETWEEN = 10.0  # of a relaxation that are lost at most, but for one slow step

Report = Callable[[str, int, int], None]
"""(stage, done, of) -> None: how progress is told."""


@dataclass(frozen=True)
class Plan:
    """What will be computed for a structure, known before anything is.

    Attributes:
        primitive: Standardised and symmetrised.
        group: Its space group.
        cell: The supercell.
        width: σ of the averaged Hessian, Å.
        columns: Hessian-vector products, or differences of forces; those at width 0 included.
        step: Displacement in Å for differences of forces; None for automatic differentiation.
        by_waves: Whether force constants at width 0 are from the primitive cell (`bloch`).
        routes: Columns of the supercell's route and of that by waves, each with its work in
            products of one atom's row; None where there is one route alone.
    """

    primitive: Structure
    group: SpaceGroup
    cell: Supercell
    width: float
    columns: int
    step: float | None = None
    by_waves: bool = False
    routes: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True)
class Prepared:
    """Force constants of a potential and the way to them.

    Attributes:
        group: Space group of the primitive cell.
        relaxation: None where none was asked for.
        main: Force constants at the width in use.
        plain: Force constants at width 0; the same object where that is the width in use.
        noise: How well one row of them is determined; None for a potential with an energy.
    """

    group: SpaceGroup
    relaxation: Relaxation | None
    main: HessianResult
    plain: HessianResult
    noise: RowNoise | None = None


def check_mobile(crystal: Structure, mobile: str) -> None:
    """Raise InputError unless the crystal holds the mobile element."""
    if mobile not in crystal.symbols:
        raise fail(
            f"the structure holds {', '.join(sorted(set(crystal.symbols)))}",
            f"the mobile element {mobile} among them",
            "Name another one with --mobile",
        )


def planned(crystal: Structure, potential: Potential, settings: PhononSettings) -> Plan:
    """Return what `prepared` will do.

    Raises:
        InputError: no mobile ion, or elements that the potential does not know.
    """
    check_mobile(crystal, settings.mobile)
    check_elements(potential, crystal)
    cell, group = supercell_of(crystal, settings)
    primitive = cell.primitive
    width = potential.smoothing_width if settings.width is None else settings.width
    rows = len(independent_displacements(cell, group))
    step = settings.displacement
    if step is None and potential.derivatives == 1:
        step = DISPLACEMENT
    columns = rows * (1 + 2 * settings.pairs * (width > 0))
    wanted = settings.force_constants_from
    if settings.exact or wanted == "primitive":
        if width > 0:
            raise fail(
                f"{potential.name} without supercells, its force constants averaged over "
                f"{width:g} Å", "width 0 (--width 0), or supercells",
            )  # fmt: skip
        check_carries_waves(potential, primitive)  # before anything is computed
        check_hermitian(potential, predicted=not settings.exact)
    plan = Plan(primitive, group, cell, width, columns, step)
    if wanted == "supercell" or step is not None or width > 0:
        return plan
    if wanted == "auto" and not potential.carries_waves:
        return plan
    waves = independent_columns(cell, group)
    by_waves = replace(plan, columns=len(waves), by_waves=True)
    if wanted == "primitive":
        return by_waves
    routes = ((rows, rows * len(cell.structure)), (len(waves), waves.work))
    return replace(by_waves if waves.work < routes[0][1] else plan, routes=routes)


def by_route(plan: Plan, by_waves: bool) -> Plan:
    """Return a plan whose route is another one; as it is where it has no choice."""
    if plan.routes is None:
        return plan
    return replace(plan, by_waves=by_waves, columns=plan.routes[by_waves][0])


def supercell_of(crystal: Structure, settings: PhononSettings) -> tuple[Supercell, SpaceGroup]:
    """Return the near-cubic supercell of the symmetrised primitive cell, and its space group."""
    tolerance = settings.symmetry_tolerance
    primitive = primitive_cell(crystal, tolerance)
    group = space_group(primitive, tolerance)
    primitive = symmetrized(primitive, group)
    matrix = near_cubic_matrix(
        primitive, group, settings.supercell_atoms, settings.supercell_atoms_max
    )
    return supercell(primitive, matrix), group


def prepared(
    crystal: Structure,
    potential: Potential,
    settings: PhononSettings,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
    workers: int | None = None,
) -> Prepared:
    """Return force constants of the relaxed crystal at the width in use and at width 0.

    Args:
        crystal: As read, any cell.
        potential: In float64.
        settings: Of the calculation.
        report: Called with the stage and how much of it is done.
        checkpoint: Where finished parts are kept and found again.
        workers: Evaluations at a time (see `hessian`).

    Raises:
        InputError: from bad input, and where the potential returns what is not finite.
    """
    checkpoint = checkpoint or Checkpoint(None)
    plan = planned(crystal, potential, settings)
    relaxation = None
    if settings.relax:
        relaxation = relaxed(plan, potential, settings, report, checkpoint)
    return with_force_constants(
        plan, relaxation, potential, settings, report, checkpoint, workers=workers
    )


def with_force_constants(
    plan: Plan,
    relaxation: Relaxation | None,
    potential: Potential,
    settings: PhononSettings,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
    *,
    workers: int | None = None,
    room: Room | None = None,
    batch: int | None = None,
) -> Prepared:
    """Return what `prepared` returns, of a plan whose relaxation is known.

    Args:
        plan: As `planned` returns it.
        relaxation: None for the structure of the plan as it is.
        potential: In float64.
        settings: Of the calculation.
        report: Called with the stage and how much of it is done.
        checkpoint: Where finished parts are kept and found again.
        workers: Evaluations at a time (see `hessian`).
        room: Shape that the supercell, or the primitive cell where the plan is by waves, shares
            with others (see `hessian`).
        batch: Rows at a time in a supercell, likewise.

    Raises:
        InputError: where the potential returns what is not finite.
    """
    checkpoint = checkpoint or Checkpoint(None)
    primitive = plan.primitive if relaxation is None else relaxation.structure
    # The operations found before stay valid: relaxation keeps them. spglib's own tolerance
    # might find more in the relaxed crystal, never fewer.
    cell = supercell(primitive, plan.cell.matrix)
    key = jax.random.key(settings.seed)

    def constants(width: float) -> HessianResult:
        by_waves = plan.by_waves and width == 0
        name = "columns" if by_waves else f"responses-{width:g}"
        done = checkpoint.load(name)
        kept: int | None = None
        stage = "force constants" if width else "force constants at width 0"

        def on_part(part: int, of: int) -> None:
            nonlocal kept
            if kept is not None and len(done) > kept:
                checkpoint.save(name, **done)
            kept = len(done)
            report(stage, part, of)

        if by_waves:
            return hessian_by_waves(
                potential, cell, plan.group, workers=workers, room=room, done=done, on_part=on_part
            )
        return hessian(
            potential,
            cell,
            plan.group,
            width=width,
            pairs=settings.pairs,
            key=key,
            workers=workers,
            step=plan.step,
            room=room,
            batch=batch,
            done=done,
            on_part=on_part,
        )

    plain = constants(0.0)
    main = constants(plan.width) if plan.width > 0 else plain
    noise = None
    if not potential.conservative:
        report("noise of force constants", 0, 0)
        rows = independent_displacements(cell, plan.group)
        copies = len(cell.images)
        noise = row_noise(
            potential, cell.structure, atom=int(rows.atoms[0]) * copies,
            direction=rows.directions[0], steps=(DISPLACEMENT,),
        )  # fmt: skip
    return Prepared(plan.group, relaxation, main, plain, noise)


def relaxed(
    plan: Plan,
    potential: Potential,
    settings: PhononSettings,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
) -> Relaxation:
    """Return the relaxation of a plan's primitive cell; arguments as those of `prepared`."""
    descent = relaxing_plan(plan, potential, settings, report, checkpoint)
    surface = potential_surface(potential, plan.primitive)
    if settings.relax_on_average and plan.width > 0:
        surface = averaged_surface(
            potential, plan.cell, plan.width, settings.pairs, jax.random.key(settings.seed)
        )
    return driven(descent, surface)


def relaxing_plan(
    plan: Plan,
    potential: Potential,
    settings: PhononSettings,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
) -> Descent:
    """Return the descent of a plan's primitive cell, for who evaluates; as `relaxed`.

    What a checkpoint knows of it is not asked for again.

    Raises:
        InputError: from its end, where the surface is not finite at the start.
    """
    checkpoint = checkpoint or Checkpoint(None)
    kept = kept_relaxation(plan.primitive, checkpoint)
    if kept is not None:
        return kept
    descent = relaxing(
        plan.primitive,
        cell=settings.relax_cell,
        force_tolerance=settings.force_tolerance,
        stress_tolerance=settings.stress_tolerance,
        max_steps=settings.relax_steps,
        symmetry=plan.group,
        conservative=potential.conservative,
        on_step=lambda step, *_: report("relaxation", step, 0),
    )
    found = explained((yield from remembered(descent, plan.primitive, checkpoint)), potential)
    if "not finite at the start" in found.message:
        raise fail(f"relaxation with {potential.name}: {found.message}", "finite forces and stress")
    if "not finite" not in found.message:
        keep_relaxation(found, checkpoint)
    return found


def kept_relaxation(crystal: Structure, checkpoint: Checkpoint) -> Relaxation | None:
    """Return the end of a relaxation that `keep_relaxation` stored; None where there is none.

    Args:
        crystal: That was relaxed.
        checkpoint: Where it is kept.
    """
    kept = checkpoint.load("relaxed")
    if not kept:
        return None
    same = replace(
        crystal, cell=jnp.asarray(kept["cell"]), positions=jnp.asarray(kept["positions"])
    )
    return Relaxation(structure=same, **json.loads(str(kept["facts"])))


def keep_relaxation(found: Relaxation, checkpoint: Checkpoint) -> None:
    """Store the end of a relaxation."""
    facts = {k: v for k, v in vars(found).items() if k != "structure"}
    checkpoint.save(
        "relaxed",
        cell=np.asarray(found.structure.cell),
        positions=np.asarray(found.structure.positions),
        facts=np.array(json.dumps(facts)),
    )


def remembered(descent: Descent, crystal: Structure, checkpoint: Checkpoint) -> Descent:
    """Return the descent, its values stored: one that is taken up goes the same way.

    Args:
        descent: From its start.
        crystal: That start.
        checkpoint: Where the values are kept and found again.
    """
    kept = checkpoint.load("relaxation-steps")
    n = len(crystal)
    where = list(kept.get("where", np.zeros((0, n + 3, 3))))
    values = list(kept.get("values", np.zeros((0, n + 4, 3))))
    calls, saved = 0, time.monotonic()
    at = next(descent)
    while True:
        here = np.concatenate([np.asarray(at.cell), np.asarray(at.positions)])
        if calls < len(where) and np.abs(where[calls] - here).max() > 1e-9:
            del where[calls:], values[calls:]
        if calls == len(where):
            energy, forces, stress = (np.asarray(x) for x in (yield at))
            where.append(here)
            values.append(np.concatenate([np.full((1, 3), energy), forces, stress]))
            # What failed may succeed when it is tried again: it is not kept.
            whole = all(np.all(np.isfinite(x)) for x in values)
            if whole and time.monotonic() - saved > _SECONDS_BETWEEN:
                checkpoint.save("relaxation-steps", where=np.stack(where), values=np.stack(values))
                saved = time.monotonic()
        found = values[calls]
        calls += 1
        try:
            at = descent.send((found[0, 0], found[1 : n + 1], found[n + 1 :]))
        except StopIteration as end:
            return end.value
