"""From a source of candidates to the table: what is dropped and why, the stages, the outcome."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phojax.campaign.dynamics import chosen_for_dynamics
from phojax.campaign.settings import ScreenSettings
from phojax.campaign.store import Store
from phojax.campaign.table import row_of, table_of, write_table
from phojax.io.sources import Source
from phojax.potentials.contract import Potential
from phojax.screening.candidates import Candidate
from phojax.screening.duplicates import duplicate_of
from phojax.screening.filters import rejection, unknown
from phojax.screening.row import versions

Row = dict[str, Any]

Engine = Callable[[str, list[list[str]]], dict[str, Any]]
"""(kind of work, as of `engine.Work`, pieces of names) -> what it cost."""


@dataclass(frozen=True)
class Sorted:
    """Candidates by what becomes of them.

    Attributes:
        kept: To be computed, in the order of their ids.
        dropped: Rows of the others, with status and reason.
        remarks: What a reader should know.
    """

    kept: list[Candidate]
    dropped: list[Row]
    remarks: list[str]


def sorted_out(
    source: Source, settings: ScreenSettings, tell: Callable[[str, int, int], None]
) -> Sorted:
    """Return which candidates are computed, and why the others are not."""
    kept: list[Candidate] = []
    dropped: list[Row] = []
    remarks = list(source.remarks)
    for number, candidate in enumerate(sorted(source.candidates, key=lambda c: c.id)):
        tell("filters", number, len(source.candidates))
        why = rejection(candidate, settings.filters)
        if candidate.structure is None:
            dropped.append(_dropped(candidate, "unreadable", candidate.error))
        elif why:
            dropped.append(_dropped(candidate, "rejected", why))
        else:
            missing = unknown(candidate, settings.filters)
            notes = [f"not known, so not filtered by: {name}" for name in missing]
            kept.append(replace(candidate, remarks=(*candidate.remarks, *notes)))
    if settings.duplicates:
        tell("duplicates", 0, len(kept))
        crystals = [c.structure for c in kept if c.structure is not None]
        twins = duplicate_of(crystals, remark=remarks.append)
        first = list(kept)
        kept = []
        for candidate, twin in zip(first, twins, strict=True):
            if twin is None:
                kept.append(candidate)
            else:
                why = f"the same as {first[twin].id}"
                dropped.append(_dropped(candidate, "duplicate", why))
    return Sorted(kept, dropped, remarks)


def _dropped(candidate: Candidate, status: str, reason: str) -> Row:
    row: Row = {"id": candidate.id, "status": status, "reason": reason, "flags": ""}
    if candidate.structure is not None:
        symbols = candidate.structure.symbols
        row["chemical_system"] = "-".join(sorted(set(symbols)))
    return row


def pieces(names: Sequence[str], size: int) -> list[list[str]]:
    """Return names in pieces of at most `size`: what one worker does at a time."""
    return [list(names[n : n + size]) for n in range(0, len(names), size)]


def screen(
    store: Store,
    source: Source,
    settings: ScreenSettings,
    model: Potential,
    engine: Engine,
    *,
    about: dict[str, Any],
    piece: int,
    moving_together: int = 1,
    tell: Callable[[str, int, int], None] = lambda stage, done, of: None,
) -> list[Row]:
    """Bring a source to its table; return the rows.

    Args:
        store: The folder.
        source: The candidates.
        settings: Of the screen.
        model: The potential, for what is recorded of it.
        engine: Does the work.
        about: What is told of the screen besides.
        piece: Structures that one worker takes at a time.
        moving_together: Those whose dynamics run side by side.
        tell: Where progress is told.
    """
    begin = time.monotonic()
    chosen = sorted_out(source, settings, tell)
    for candidate in chosen.kept:
        store.give(candidate)
    names = [c.id for c in chosen.kept]
    mobile = settings.phonons.mobile
    cost: dict[str, Any] = dict(engine("phonons", pieces(names, piece)))

    def rows() -> list[Row]:
        return [row_of({"name": n, **store.record(n)}, mobile) for n in names] + chosen.dropped

    def write(finished: bool) -> list[Row]:
        found = rows()
        write_table(store.folder / "table.parquet", table_of(found))
        cost["wall_time_s"] = time.monotonic() - begin
        store.tell(
            {
                **about,
                "potential": model.name,
                "potential_provenance": model.provenance,
                "mobile": mobile,
                "temperatures_K": list(settings.phonons.temperatures),
                "settings": settings.as_dict(),
                "versions": versions(),
                "remarks": remarks,
                "funnel": funnel(found),
                "dropped": reasons(found),
                "cost": cost,
                "finished": finished,
            }
        )
        return found

    remarks = [*chosen.remarks]
    some_move = bool(settings.dynamics.names) or settings.dynamics.crystals != 0
    found = write(not (some_move or settings.moduli or settings.effective))
    done = [row["id"] for row in found if row["status"] == "done"]
    stable = [row["id"] for row in found if row["status"] == "done" and row.get("stable")]
    if settings.moduli and stable:
        cost = summed([cost, engine("moduli", pieces(stable, piece))])
        found = write(not (some_move or settings.effective))
    if settings.effective and done:
        cost = summed([cost, engine("effective", pieces(done, piece))])
        found = write(not some_move)
    moving, said = chosen_for_dynamics(found, settings)
    remarks += said
    if moving:
        cost = summed([cost, engine("dynamics", pieces(moving, moving_together))])
    return write(True)


def summed(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what pieces of work cost together; padding and memory as that of the worst."""
    out: dict[str, Any] = {}
    for cost in costs:
        for name, value in cost.items():
            if name == "lost":
                out.setdefault("lost", []).extend([value] if isinstance(value, str) else value)
            elif name.startswith(("padding", "memory")):
                out[name] = max(out.get(name, 0.0), value)
            else:
                out[name] = out.get(name, 0) + value
    return out


def funnel(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how many candidates reached each stage."""
    done = [row for row in rows if row["status"] == "done"]
    stable = [row for row in done if row.get("stable")]
    moved = [row for row in stable if row.get("D_A2_ps") is not None]
    readable = [row for row in rows if row["status"] != "unreadable"]
    passed = [row for row in readable if row["status"] != "rejected"]
    stages = (
        ("read", rows),
        ("readable and ordered", readable),
        ("passed the filters", passed),
        ("no duplicates", [row for row in passed if row["status"] != "duplicate"]),
        ("phonons computed", done),
        ("dynamically stable", stable),
        ("diffusion computed", moved),
        ("framework holds", [row for row in moved if row.get("framework_holds")]),
    )
    return [{"stage": name, "count": len(members)} for name, members in stages]


def reasons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return why candidates were dropped or failed, how often, and which they are."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] in ("rejected", "unreadable", "failed", "pending"):
            groups.setdefault(row["reason"], []).append(row["id"])
        elif row["status"] == "duplicate":
            groups.setdefault("a duplicate", []).append(row["id"])
        elif row["status"] == "done" and not row.get("stable"):
            groups.setdefault("dynamically unstable", []).append(row["id"])
        elif row["reason"]:  # a later stage of it
            groups.setdefault(row["reason"], []).append(row["id"])
    counted = Counter({why: len(names) for why, names in groups.items()})
    return [
        {"reason": why, "count": count, "names": groups[why]}
        for why, count in counted.most_common()
    ]
