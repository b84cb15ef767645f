"""The folder of a screen: one record per structure, written whole or not at all.

    screen.json                    what was asked for, and what became of the candidates
    table.parquet                  one row per candidate
    structures/ID/input.json       the structure as it was read, and what its source says
    structures/ID/record.json      what is known of it; the key of every finished stage
    structures/ID/stages/          arrays of stages that later ones build on, each with its key

A stage is done where the record holds its key. A failure is a result with a key as well, unless
it came from the machine (memory, disk): that is tried again.
"""

import contextlib
import pathlib
from typing import Any

import numpy as np

from phojax.checks import InputError, fail
from phojax.io.records import read_record, write_record
from phojax.relax_together import out_of_memory
from phojax.screening.candidates import Candidate
from phojax.screening.store import Checkpoint
from phojax.structure import structure

FORMAT = 1
"""Version of the folder's layout."""

Record = dict[str, Any]

_LATER = ("moduli", "effective", "transport")  # stages whose results are kept by their name


class Store:
    """A screen's folder.

    Args:
        folder: Made where it is not there.

    Raises:
        InputError: a folder of another version, or one that cannot be written to.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        try:
            (folder / "structures").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise fail(f"{folder}: {error.strerror or error}", "a folder to write to") from error
        about = folder / "screen.json"
        if about.exists():
            found = read_record(about).get("format")
            if found != FORMAT:
                raise fail(
                    f"{folder} is a screen of format {found}",
                    f"format {FORMAT}, which this version of phojax writes",
                    "Choose another --out, or use the version that wrote it",
                )

    def about(self) -> Record:
        """Return what is known of the screen as a whole; empty where nothing is."""
        path = self.folder / "screen.json"
        return read_record(path) if path.exists() else {}

    def tell(self, about: Record) -> None:
        """Write what is known of the screen as a whole."""
        write_record(self.folder / "screen.json", {"format": FORMAT, **about})

    def place(self, name: str) -> pathlib.Path:
        """Return the folder of a structure."""
        return self.folder / "structures" / name

    def checkpoint(self, name: str, key: str) -> Checkpoint:
        """Return where arrays of a stage are kept."""
        return Checkpoint(self.place(name) / "stages", key)

    def give(self, candidate: Candidate) -> None:
        """Keep a candidate's structure and metadata, for whoever computes it."""
        crystal = candidate.structure
        assert crystal is not None
        self.place(candidate.id).mkdir(parents=True, exist_ok=True)
        write_record(
            self.place(candidate.id) / "input.json",
            {
                "name": candidate.id,
                "cell_A": np.asarray(crystal.cell),
                "positions_A": np.asarray(crystal.positions),
                "numbers": np.asarray(crystal.numbers),
                "masses_amu": np.asarray(crystal.masses),
                "metadata": candidate.metadata,
                "remarks": list(candidate.remarks),
            },
        )

    def given(self, name: str) -> Candidate:
        """Return a candidate that is kept; InputError where it is not, or broken."""
        of = read_record(self.place(name) / "input.json")
        crystal = structure(of["cell_A"], of["positions_A"], of["numbers"], of["masses_amu"])
        return Candidate(name, crystal, of["metadata"], "", tuple(of["remarks"]))

    def record(self, name: str) -> Record:
        """Return the record of a structure; empty where there is none that can be read."""
        try:
            return read_record(self.place(name) / "record.json")
        except InputError:
            return {}

    def is_done(self, name: str, stage: str, key: str) -> bool:
        """Return whether a stage has come to an end, good or bad, with this key."""
        return self.record(name).get("keys", {}).get(stage) == key

    def done(self, name: str, stage: str, key: str, found: Record) -> None:
        """Put the result of a stage into the record: phonons at its top, others by their name."""
        old = self.record(name)
        keys, failures = old.get("keys", {}), old.get("failures", {})
        failures.pop(stage, None)
        kept = {k: old[k] for k in _LATER if k in old and k != stage}
        new = {**found, **kept} if stage == "phonons" else {**old, stage: found}
        self._write(name, {**new, "keys": {**keys, stage: key}, "failures": failures})

    def failed(self, name: str, stage: str, key: str, error: BaseException) -> None:
        """Put the reason into the record why a stage has no result."""
        old = self.record(name)
        text = str(error) if isinstance(error, InputError | OSError) else (
            f"unexpected {type(error).__name__}: {error}"
        )  # fmt: skip
        keys = {k: v for k, v in old.get("keys", {}).items() if k != stage}
        if not (isinstance(error, OSError | MemoryError) or out_of_memory(error)):
            keys[stage] = key
        if stage == "phonons":
            old = {k: v for k, v in old.items() if k in (*_LATER, "failures")}
        else:
            old.pop(stage, None)
        failures = {**old.get("failures", {}), stage: text}
        with contextlib.suppress(OSError):  # a disk that is full: it is computed again
            self._write(name, {"name": name, **old, "keys": keys, "failures": failures})

    def forget_failures(self) -> int:
        """Let what failed be computed again; return how many structures that are."""
        count = 0
        for place in sorted((self.folder / "structures").glob("*/")):
            record = self.record(place.name)
            if failures := record.get("failures"):
                keys = {k: v for k, v in record.get("keys", {}).items() if k not in failures}
                self._write(place.name, {**record, "keys": keys, "failures": {}})
                count += 1
        return count

    def _write(self, name: str, record: Record) -> None:
        self.place(name).mkdir(parents=True, exist_ok=True)
        write_record(self.place(name) / "record.json", record)
