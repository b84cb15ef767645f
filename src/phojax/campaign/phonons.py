"""Relaxation, force constants and descriptors of many crystals, each stage over all of them.

Crystals share padded shapes (`rooms`), so that thousands need few compiled functions. Which
shapes these are depends on all crystals of the work, on those done before as well: an interrupted
screen that goes on computes what it would have computed.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax

from phojax.campaign.row_files import write_row_files
from phojax.campaign.settings import KeyMaker, Keys, ScreenSettings
from phojax.campaign.stages import Tell
from phojax.campaign.store import Store
from phojax.compiled import let_go_of_compiled
from phojax.force_constants.parts import at_a_time
from phojax.potentials.contract import Potential
from phojax.relax import Relaxation
from phojax.relax_together import driven_together
from phojax.rooms import Room, room_of, shared_rooms
from phojax.screening.analysis import analysed_together, planned_points
from phojax.screening.batch import CrystalInput, analysed_batch
from phojax.screening.prepare import (
    Plan,
    Prepared,
    by_route,
    planned,
    relaxed,
    relaxing_plan,
    with_force_constants,
)
from phojax.screening.row import row_of_prepared
from phojax.screening.subjects import rounded, shape_of
from phojax.threads import in_threads

_COMPILATION = 2e4  # of a Hessian, in products of one atom's row
_TOGETHER = 32  # crystals whose force constants are in memory at once
_SIDE_BY_SIDE = 4  # crystals in threads of their own on a CPU


@dataclass(frozen=True)
class Shared:
    """How the work was laid out.

    Attributes:
        relaxation_shapes: Padded shapes of primitive cells.
        force_constant_shapes: Of the cells that give force constants.
        padding: Share of the work on them that is padding.
        computed: Crystals that were not done before.
        seconds: Per stage.
    """

    relaxation_shapes: int
    force_constant_shapes: int
    padding: float
    computed: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Member:
    name: str
    keys: Keys
    plan: Plan
    metadata: dict
    remarks: tuple[str, ...]


def compute_phonons(
    store: Store,
    names: Sequence[str],
    settings: ScreenSettings,
    model: Potential,
    tell: Tell = lambda stage, done, of: None,
    *,
    slots: int = 1,
) -> Shared:
    """Bring crystals of a store to the end of their phonons; what fails is in its record.

    Args:
        store: Where they are given and recorded.
        names: Of the crystals; all of a piece of work, whatever of it is done.
        settings: Of the screen.
        model: In float64.
        tell: Where progress is told.
        slots: Crystals relaxed side by side.
    """
    maker = KeyMaker(model, settings)
    clock, seconds = time.monotonic(), {}

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.monotonic()
        seconds[stage] = now - clock
        clock = now

    members = []
    for name in names:
        candidate = store.given(name)
        assert candidate.structure is not None
        keys = maker.keys(candidate.structure)
        try:
            plan = planned(candidate.structure, model, settings.phonons)
        except Exception as error:  # one bad crystal never stops the others
            if not store.is_done(name, "phonons", keys.phonons):
                store.failed(name, "phonons", keys.phonons, error)
            continue
        members.append(_Member(name, keys, plan, candidate.metadata, candidate.remarks))
    if all(store.is_done(m.name, "phonons", m.keys.phonons) for m in members):
        return Shared(0, 0, 0.0, 0, seconds)
    members = _on_few_routes(members)
    lap("planning")
    relaxations, first = _relaxations(store, members, settings, model, tell, slots)
    lap("relaxation")
    members = [m for m in members if m.name in relaxations]
    rooms = {}
    own = {m.name: _room(model, m, relaxations[m.name]) for m in members}
    for by_waves in (False, True):
        alike = [m for m in members if m.plan.by_waves == by_waves]
        shared = shared_rooms([own[m.name] for m in alike], [m.plan.columns for m in alike])
        rooms |= {m.name: room for m, room in zip(alike, shared, strict=True)}
    batches = {room: _rows_at_a_time(model, members, rooms, room) for room in rooms.values()}
    filled = sum(own[m.name].size * m.plan.columns for m in members)
    padding = 1 - filled / max(1, sum(rooms[m.name].size * m.plan.columns for m in members))
    # Those of one room after each other, the largest first: the end of the work is predictable.
    members.sort(key=lambda m: (-rooms[m.name].size, m.name))
    todo = [m for m in members if not store.is_done(m.name, "phonons", m.keys.phonons)]
    threads = _threads(model, len(todo))

    def made_or_failed(m: _Member) -> Prepared | None:
        try:
            return with_force_constants(
                m.plan, relaxations[m.name], model, settings.phonons,
                checkpoint=store.checkpoint(m.name, m.keys.force_constants),
                room=None if model.on_host else rooms[m.name], batch=batches[rooms[m.name]],
                workers=(os.cpu_count() or 1) // threads if threads > 1 else None,
            )  # fmt: skip
        except Exception as error:  # one bad crystal never stops the others
            store.failed(m.name, "phonons", m.keys.phonons, error)
            return None

    def analyse_those(group: Sequence[_Member]) -> int:
        made = [(m, made_or_failed(m)) for m in group]
        _analyse(store, [(m, found) for m, found in made if found], settings, model)
        let_go_of_compiled()
        return len(group)

    size = 1 if jax.default_backend() == "cpu" else _TOGETHER
    groups = [todo[start : start + size] for start in range(0, len(todo), size)]
    done = len(members) - len(todo)
    tell("force constants", done, len(members))
    for count in in_threads(analyse_those, groups, threads):
        done += count
        tell("force constants", done, len(members))
    lap("force constants and descriptors")
    shapes = {(rooms[m.name], m.plan.by_waves) for m in members}
    return Shared(len(set(first)), len(shapes), padding, len(todo), seconds)


def _on_few_routes(members: list[_Member]) -> list[_Member]:
    """Return the members, force constants of all by one route unless two are worth it.

    Each route has functions of its own to be compiled.
    """
    works = [[work for _, work in m.plan.routes] for m in members if m.plan.routes]
    supercells, waves = (sum(work[n] for work in works) for n in (0, 1))
    both = sum(map(min, works)) + _COMPILATION
    if both < min(supercells, waves):
        return members
    return [replace(m, plan=by_route(m.plan, waves < supercells)) for m in members]


def _relaxations(
    store: Store, members: list[_Member], settings: ScreenSettings, model: Potential, tell: Tell,
    slots: int,
) -> tuple[dict[str, Relaxation | None], list[Room]]:  # fmt: skip
    """Return the relaxations by name, without those that failed, and the rooms they shared."""
    asked = settings.phonons
    if not asked.relax:
        return {m.name: None for m in members}, []
    found: dict[str, Relaxation | None] = {}

    def ended(number: int, end: Relaxation | Exception) -> None:
        m = members[number]
        if isinstance(end, Exception):
            if not store.is_done(m.name, "phonons", m.keys.phonons):
                store.failed(m.name, "phonons", m.keys.phonons, end)
        else:
            found[m.name] = end

    keep = [store.checkpoint(m.name, m.keys.relaxation) for m in members]
    if model.on_host or asked.relax_on_average:
        for n, m in enumerate(members):
            try:
                end: Relaxation | Exception = relaxed(m.plan, model, asked, checkpoint=keep[n])
            except Exception as error:  # one bad crystal never stops the others
                end = error
            ended(n, end)
            tell("relaxation", n + 1, len(members))
        return found, []
    own = [room_of(model, m.plan.primitive) for m in members]
    rooms = shared_rooms(own)
    descents = [
        relaxing_plan(m.plan, model, asked, checkpoint=k)
        for m, k in zip(members, keep, strict=True)
    ]
    counted = 0

    def counting(number: int, end: Relaxation | Exception) -> None:
        nonlocal counted
        ended(number, end)
        counted += 1
        tell("relaxation", counted, len(members))

    driven_together(descents, rooms, model, slots=slots, on_end=counting)
    return found, rooms


def _room(model: Potential, m: _Member, relaxation: Relaxation | None) -> Room:
    primitive = m.plan.primitive if relaxation is None else relaxation.structure
    if m.plan.by_waves:
        return room_of(model, primitive)
    return room_of(model, replace(m.plan.cell, primitive=primitive).structure)


def _threads(model: Potential, crystals: int) -> int:
    """Return how many crystals go side by side: XLA keeps hardly more than one core busy."""
    in_cpu = jax.default_backend() == "cpu" and not model.on_host
    return max(1, min(os.cpu_count() or 1, _SIDE_BY_SIDE, crystals)) if in_cpu else 1


def _rows_at_a_time(
    model: Potential, members: list[_Member], rooms: dict[str, Room], room: Room
) -> int | None:
    """Return how many rows of force constants go together in a room; None for the default."""
    inside = [m.plan for m in members if rooms[m.name] == room and not m.plan.by_waves]
    if not inside or inside[0].step is not None:
        return None
    return at_a_time(model, None, None, [plan.columns for plan in inside])[0]


def _analyse(
    store: Store, waiting: list[tuple[_Member, Prepared]], settings: ScreenSettings, model
) -> None:
    """Make the records of crystals whose force constants are there."""
    if not waiting:
        return
    if len(waiting) == 1:
        found = [None]
    else:
        given = [CrystalInput(made.main.force_constants, made.group) for _, made in waiting]
        found = analysed_batch(given, settings.phonons)[0]
    for (m, made), analysis in zip(waiting, found, strict=True):
        try:
            if isinstance(analysis, Exception):
                raise analysis
            if analysis is None:
                plan = planned_points(made.main.force_constants, made.group, settings.phonons)
                shape = rounded(shape_of([plan.subject]), alone=True)
                analysis = analysed_together([plan], settings.phonons, shape)[0]
            row = row_of_prepared(m.name, made, model, settings.phonons, analysis)
            write_row_files(store.place(m.name), row)
            row.record["metadata"] = m.metadata
            row.record["notes"] += m.remarks
            store.done(m.name, "phonons", m.keys.phonons, row.record)
        except Exception as error:  # one bad crystal never stops the others
            store.failed(m.name, "phonons", m.keys.phonons, error)


def relaxed_member(
    store: Store, name: str, settings: ScreenSettings, model: Potential, maker: KeyMaker
) -> tuple[Plan, Relaxation | None, Keys]:
    """Return plan and relaxation of a crystal whose phonons are done."""
    candidate = store.given(name)
    assert candidate.structure is not None
    keys = maker.keys(candidate.structure)
    plan = planned(candidate.structure, model, settings.phonons)
    if not settings.phonons.relax:
        return plan, None, keys
    keep = store.checkpoint(name, keys.relaxation)
    return plan, relaxed(plan, model, settings.phonons, checkpoint=keep), keys
