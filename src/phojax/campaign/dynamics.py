"""Molecular dynamics of the crystals of a screen that were chosen for it."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ase.data import atomic_numbers

from phojax.campaign.md_runs import Prepared, in_precision, moved, observed_of, stopped
from phojax.campaign.phonons import relaxed_member
from phojax.campaign.settings import KeyMaker, ScreenSettings
from phojax.campaign.store import Record, Store
from phojax.campaign.transport_files import write_transport
from phojax.checks import InputError
from phojax.compiled import let_go_of_compiled
from phojax.potentials.contract import Potential
from phojax.screening.prepare import supercell_of
from phojax.screening.row import versions

Tell = Callable[[str, int, int], None]
"""(what, steps done, of) -> None."""

_CHECKPOINT_EVERY = 1000


def chosen_for_dynamics(
    rows: Sequence[dict[str, Any]], settings: ScreenSettings
) -> tuple[list[str], list[str]]:
    """Return the names of the crystals that move, and remarks on the choice.

    Unstable crystals do not: their relaxed structure is no minimum, and they are not ranked.

    Args:
        rows: Of the table.
        settings: Of the screen.

    Raises:
        InputError: a descriptor that no row has.
    """
    asked = settings.dynamics
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
) -> None:
    """Bring crystals of a store to the end of their dynamics; what fails is in its record.

    Args:
        store: Where their phonons are recorded.
        names: Of the crystals.
        settings: Of the screen.
        model: In float64.
        tell: Where progress is told.
    """
    maker = KeyMaker(model, settings)
    mover, precision = in_precision(model, settings.dynamics.precision)
    for name in names:
        candidate = store.given(name)
        assert candidate.structure is not None
        key = maker.keys(candidate.structure).dynamics
        if store.is_done(name, "transport", key):
            continue
        try:
            found = _moved(store, name, settings, model, mover, precision, maker, tell)
            store.done(name, "transport", key, found)
        except Exception as error:  # one bad crystal never stops the others
            store.failed(name, "transport", key, error)
        let_go_of_compiled()


def _moved(
    store: Store, name: str, settings: ScreenSettings, model, mover, precision: str, maker, tell
) -> Record:
    asked, mobile = settings.dynamics, settings.phonons.mobile
    plan, relaxation, keys = relaxed_member(store, name, settings, model, maker)
    primitive = plan.primitive if relaxation is None else relaxation.structure
    most = max(settings.phonons.supercell_atoms_max, asked.atoms)
    wanted = replace(settings.phonons, supercell_atoms=asked.atoms, supercell_atoms_max=most)
    cell = replace(supercell_of(plan.primitive, wanted)[0], primitive=primitive)
    place = store.place(name)
    target, partial = place / "dynamics", place / "dynamics" / ".partial"
    [done] = moved(
        [Prepared(cell.structure, cell.matrix, plan.group.symbol, relaxation, [])],
        mover,
        mobile,
        asked.temperatures,
        asked.replicas,
        asked.protocol,
        partial,
        keys.dynamics,
        checkpoint_every=_CHECKPOINT_EVERY,
        report=lambda stage, step, of, remark: tell(
            f"{name}: {stage}" + (f" ({remark})" if remark else ""), step, of
        ),
        keep_frames=False,
    )
    why = stopped(done)
    observed = observed_of(done, atomic_numbers[mobile])
    if not observed:
        raise InputError("no system lasted: " + "; ".join(why))
    phonons = store.record(name)
    record: Record = {
        "name": name,
        "formula": phonons.get("formula", name),
        "atoms": len(cell.structure),
        "supercell": [list(row) for row in cell.matrix],
        "potential": model.name,
        "precision": precision,
        "source": model.name,
        "mobile": mobile,
        "protocol": asked.protocol.as_dict(),
        "steps_per_second": done.run.steps_per_second,
        "flags": ["stopped_early"] if why else [],
        "notes": [*why, *done.run.remarks],
        "versions": versions(),
    }
    known = isinstance(phonons.get("acoustic_cutoff_THz"), float)
    found = write_transport(
        target, observed, cell.structure, record, begin_ps=asked.begin_ps, charge=asked.charge,
        figures=True, phonons=place / "record.json" if known else None,
    )  # fmt: skip
    shutil.rmtree(partial, ignore_errors=True)
    return found
