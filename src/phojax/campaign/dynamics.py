"""Molecular dynamics of the crystals of a screen that were chosen for it."""

import pathlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ase.data import atomic_numbers

from phojax.campaign.md_runs import Moved, Prepared, in_precision, moved, observed_of, stopped
from phojax.campaign.phonons import relaxed_member
from phojax.campaign.settings import KeyMaker, ScreenSettings
from phojax.campaign.stages import Tell
from phojax.campaign.store import Record, Store
from phojax.campaign.transport_files import write_transport
from phojax.checks import InputError
from phojax.compiled import let_go_of_compiled
from phojax.potentials.contract import Potential
from phojax.relax_together import out_of_memory
from phojax.screening.prepare import supercell_of
from phojax.screening.row import versions
from phojax.screening.store import key_of

_CHECKPOINT_EVERY = 1000


def chosen_for_dynamics(
    rows: Sequence[dict[str, Any]], settings: ScreenSettings
) -> tuple[list[str], list[str]]:
    """Return the names of the crystals that move, and remarks on the choice.

    Unstable crystals do not, unless they are named: their relaxed structure is no minimum, and
    they are not ranked.

    Args:
        rows: Of the table.
        settings: Of the screen.

    Raises:
        InputError: a descriptor that no row has, a name that is no row's.
    """
    asked = settings.dynamics
    if asked.names:
        status = {row["id"]: row["status"] for row in rows}
        if unknown := [name for name in asked.names if name not in status]:
            raise InputError(
                f"no structure is called {', '.join(unknown)}; expected names such as "
                f"{', '.join(list(status)[:3])}"
            )
        return (
            [name for name in asked.names if status[name] == "done"],
            [f"{name} was to move, and has no phonons" for name in asked.names
             if status[name] != "done"],
        )  # fmt: skip
    stable = [row for row in rows if row["status"] == "done" and row.get("stable")]
    if asked.crystals == 0:
        return [], []
    if asked.crystals is None:
        return [row["id"] for row in stable], []
    known = [row for row in stable if row.get(asked.descriptor) is not None]
    if stable and not known:
        raise InputError(
            f"no structure has the descriptor {asked.descriptor!r}; expected a column of the "
            f"table, such as {', '.join(k for k in stable[0] if k.startswith('msd_total_mean'))}"
        )
    known.sort(key=lambda row: (-row[asked.descriptor], row["id"]))
    remarks = []
    if len(known) < asked.crystals:
        remarks.append(f"{asked.crystals} crystals were to move, {len(known)} are stable")
    return [row["id"] for row in known[: asked.crystals]], remarks


def compute_dynamics(
    store: Store,
    names: Sequence[str],
    settings: ScreenSettings,
    model: Potential,
    tell: Tell = lambda what, done, of: None,
) -> int:
    """Bring crystals of a store to the end of their dynamics; what fails is in its record.

    Returns how many were not done before.

    Args:
        store: Where their phonons are recorded.
        names: Of the crystals; they move side by side, fewer at a time where memory is short.
        settings: Of the screen.
        model: In float64.
        tell: Where progress is told.
    """
    maker = KeyMaker(model, settings)
    mover, precision = in_precision(model, settings.dynamics.precision)
    members = []
    for name in names:
        candidate = store.given(name)
        assert candidate.structure is not None
        key = maker.keys(candidate.structure).dynamics
        if store.is_done(name, "transport", key):
            continue
        try:
            members.append(_Member(name, key, _prepared(store, name, settings, model, maker)))
        except Exception as error:  # one bad crystal never stops the others
            store.failed(name, "transport", key, error)
    groups, computed = [members] if members else [], len(members)
    while groups:
        group = groups.pop(0)
        try:
            runs = _moved(store, group, settings, mover, tell)
        except Exception as error:  # one bad crystal never stops the others
            if len(group) > 1:
                half = len(group) // 2
                # What is no lack of memory is the fault of one of them: each goes alone.
                parts = [group[:half], group[half:]] if out_of_memory(error) else [
                    [member] for member in group
                ]  # fmt: skip
                groups = parts + groups
            else:
                store.failed(group[0].name, "transport", group[0].key, error)
            continue
        for member, done in zip(group, runs, strict=True):
            try:
                found = _written(store, member, done, settings, model, precision)
                store.done(member.name, "transport", member.key, found)
            except Exception as error:  # as above
                store.failed(member.name, "transport", member.key, error)
        shutil.rmtree(_partial(store, group), ignore_errors=True)
        let_go_of_compiled()
    return computed


@dataclass(frozen=True)
class _Member:
    name: str
    key: str
    prepared: Prepared


def _prepared(store: Store, name: str, settings: ScreenSettings, model, maker) -> Prepared:
    """Return the supercell of a crystal whose phonons are done."""
    asked = settings.dynamics
    plan, relaxation, _ = relaxed_member(store, name, settings, model, maker)
    primitive = plan.primitive if relaxation is None else relaxation.structure
    most = max(settings.phonons.supercell_atoms_max, asked.atoms)
    wanted = replace(settings.phonons, supercell_atoms=asked.atoms, supercell_atoms_max=most)
    cell = replace(supercell_of(plan.primitive, wanted)[0], primitive=primitive)
    return Prepared(cell.structure, cell.matrix, plan.group.symbol, relaxation, [])


def _partial(store: Store, group: Sequence[_Member]) -> pathlib.Path:
    """Return where a group keeps what it has on its way."""
    return store.place(group[0].name) / "dynamics" / ".partial"


def _moved(
    store: Store, group: Sequence[_Member], settings: ScreenSettings, mover: Potential, tell: Tell
) -> list[Moved]:
    asked = settings.dynamics
    names = group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else "")
    return moved(
        [member.prepared for member in group],
        mover,
        settings.phonons.mobile,
        asked.temperatures,
        asked.replicas,
        asked.protocol,
        _partial(store, group),
        key_of(members=[member.key for member in group]),
        checkpoint_every=_CHECKPOINT_EVERY,
        report=lambda stage, step, of, remark: tell(
            f"{names}: {stage}" + (f" ({remark})" if remark else ""), step, of
        ),
        keep_frames=False,
    )


def _written(
    store: Store, member: _Member, done: Moved, settings: ScreenSettings, model: Potential,
    precision: str,
) -> Record:  # fmt: skip
    asked, mobile = settings.dynamics, settings.phonons.mobile
    name, cell = member.name, member.prepared
    why = stopped(done)
    observed = observed_of(done, atomic_numbers[mobile])
    if not observed:
        raise InputError("no system lasted: " + ("; ".join(why) or "no two frames of it"))
    phonons, place = store.record(name), store.place(name)
    record: Record = {
        "name": name,
        "formula": phonons.get("formula", name),
        "atoms": len(cell.crystal),
        "supercell": [list(row) for row in cell.matrix],
        "potential": model.name,
        "precision": precision,
        "source": model.name,
        "mobile": mobile,
        "protocol": asked.protocol.as_dict(),
        "steps_per_second": done.run.steps_per_second,
        "systems_side_by_side": len(done.run.systems),
        "flags": ["stopped_early"] if why else [],
        "notes": [*why, *done.run.remarks],
        "versions": versions(),
    }
    known = isinstance(phonons.get("acoustic_cutoff_THz"), float)
    return write_transport(
        place / "dynamics", observed, cell.crystal, record, begin_ps=asked.begin_ps,
        charge=asked.charge, figures=True, phonons=place / "record.json" if known else None,
    )  # fmt: skip
