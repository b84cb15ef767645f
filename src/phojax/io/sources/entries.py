"""Entries of a source made into candidates: checked, named, never fatal."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phojax.checks import InputError, said_by
from phojax.convert import ase_atoms
from phojax.io.sources.metadata import standard
from phojax.io.structures import check_distances
from phojax.screening.candidates import Candidate
from phojax.structure import Structure

FRAME = "frame"
"""Metadata: where in its file an entry without a name stands, from 1."""

_LONGEST = 100  # characters of an id; file systems allow 255 bytes, results add suffixes


@dataclass(frozen=True)
class Source:
    """What was found.

    Attributes:
        candidates: Readable or not, in the order of the source (files sorted by path).
        remarks: What concerns no single candidate, or several.
        ignored: Files of a folder that are no structures and were not read.
    """

    candidates: tuple[Candidate, ...]
    remarks: tuple[str, ...] = ()
    ignored: int = 0


def entry(
    name: str,
    build: Callable[[], Structure],
    metadata: dict[str, Any],
    remarks: tuple[str, ...] = (),
) -> Candidate:
    """Return a candidate with a provisional id; what `build` raises becomes its error.

    Args:
        name: What the source calls it; "" for a name made of formula and content.
        build: Makes the structure.
        metadata: Scalars under the source's own names.
        remarks: On this entry.
    """
    known, more = standard(metadata)
    try:
        crystal = build()
        check_distances(ase_atoms(crystal))
    except InputError as error:
        return Candidate(name, None, known, str(error), (*remarks, *more))
    except Exception as error:  # parsers and other packages' constructors fail in their own ways
        message = f"reading it fails with {said_by(error)}"
        return Candidate(name, None, known, message, (*remarks, *more))
    return Candidate(name, crystal, known, "", (*remarks, *more))


def named(candidates: list[Candidate]) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Return the candidates with final ids, and remarks where ids had to be told apart.

    What a name needs to be unique is taken from the content, never from its place among the
    others, so that the results of a screening find their structure again in another order.
    Names that differ in case alone collide, too: some file systems take them for one.
    """
    safe = [_safe(c.id) or _formula(c) for c in candidates]
    groups: dict[str, list[int]] = defaultdict(list)
    for k, name in enumerate(safe):
        groups[name.casefold()].append(k)
    remarks = []
    for members in groups.values():
        if len(members) == 1 and _safe(candidates[members[0]].id):
            continue
        if len(members) > 1 and any(_safe(candidates[k].id) for k in members):
            remarks.append(f"{len(members)} entries are called {safe[members[0]]}: ids extended")
        copies: Counter[str] = Counter()
        for k in members:
            safe[k] = f"{safe[k]}-{_digest(candidates[k])}"
            copies[safe[k].casefold()] += 1
            if copies[safe[k].casefold()] > 1:  # the same in every respect
                safe[k] += f"-{copies[safe[k].casefold()]}"
    # An extended id may be what another entry is called from the start.
    taken: set[str] = set()
    for k, name in enumerate(safe):
        while safe[k].casefold() in taken:
            safe[k] += "x"
            remarks.append(f"{name} is the id of two entries: one is now {safe[k]}")
        taken.add(safe[k].casefold())
    final = tuple(_renamed(c, name) for c, name in zip(candidates, safe, strict=True))
    return final, tuple(remarks)


def _renamed(candidate: Candidate, name: str) -> Candidate:
    original = candidate.id
    if not original or original == name:
        return replace(candidate, id=name)
    metadata = {**candidate.metadata, "source_id": original}
    return replace(candidate, id=name, metadata=metadata)


def _safe(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._-")
    if len(plain) > _LONGEST:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        plain = f"{plain[: _LONGEST - 9]}-{digest}"
    return plain


def _formula(candidate: Candidate) -> str:
    if candidate.structure is None:
        return "unreadable"
    return ase_atoms(candidate.structure).get_chemical_formula(empirical=True)


def _digest(candidate: Candidate) -> str:
    """Return eight digits of what the entry holds, lengths to 1e-6 Å."""
    said = {k: v for k, v in candidate.metadata.items() if k != FRAME}
    parts = [candidate.error, json.dumps(said, sort_keys=True, default=str)]
    crystal = candidate.structure
    if crystal is not None:
        lengths = np.concatenate([np.asarray(crystal.cell), np.asarray(crystal.positions)])
        rounded = np.round(lengths.astype(float), 6) + 0.0  # no negative zeros
        parts += [str(np.asarray(crystal.numbers).tolist()), str(rounded.tolist())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
