"""A command over its inputs: one record each, done before or computed, a failure one as well."""

import contextlib
import errno
import pathlib
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from phojax.checks import InputError, fail
from phojax.cli.jobs import Job
from phojax.cli.progress import Progress, seconds
from phojax.cli.table import text_of, write_csv
from phojax.compiled import let_go_of_compiled
from phojax.io.records import read_record, write_record
from phojax.screening.store import Checkpoint

_TABLES = (
    "phonons.csv", "md.csv", "diffusion.csv", "elastic.csv", "effective.csv", "evaluate.csv",
    "expand.csv", "fit.csv", "snapshots.csv",
)  # fmt: skip
"""Of commands that leave a folder with a record for each input."""

Record = dict[str, Any]
Rows = list[dict[str, Any]]


def over_inputs(
    works: Mapping[str, Callable[[Progress], Record]],
    table: pathlib.Path,
    rows: Callable[[list[Record]], Rows],
    shown: Callable[[list[Record]], str] | None = None,
    remarks: Callable[[Record], Iterable[str]] = lambda record: (),
) -> int:
    """Do all works, rewrite the table after each, print it and what is to be said.

    Args:
        works: For each name what returns its record, as `recorded` does.
        table: The CSV file, in the folder of results.
        rows: Of the table, of all records so far.
        shown: The table to be printed; that of the rows by default.
        remarks: To be printed beside the notes of a record.

    Returns:
        The exit status: 1 where a record is a failure.

    Raises:
        InputError: a folder that cannot be written to.
    """
    check_out(table.parent, table)
    records: list[Record] = []
    for number, (name, work) in enumerate(works.items()):
        records.append(work(Progress(f"[{number + 1}/{len(works)}] {name}")))
        let_go_of_compiled()
        write_csv(table, rows(records))
    print(text_of(rows(records)) if shown is None else shown(records))
    return told(records, table, remarks)


def told(
    records: list[Record],
    table: pathlib.Path,
    remarks: Callable[[Record], Iterable[str]] = lambda record: (),
) -> int:
    """Print notes and failures, and where results are; return the exit status."""
    for record in records:
        for text in (*record.get("notes", []), *remarks(record)):
            print(f"  {record['name']}: {text}")
        if "error" in record:
            print(f"  {record['name']}: FAILED: {record['error']}")
    print(f"results in {table.parent}/, table in {table}")
    return 1 if any(map(_failed, records)) else 0


def _failed(record: Record) -> bool:
    return "error" in record or "potential_failed" in record.get("flags", [])


def recorded(
    job: Job,
    key: Callable[[], str],
    computed: Callable[[Checkpoint], Record],
    progress: Progress,
    *,
    files: Sequence[str],
    whole: Callable[[], bool] = lambda: True,
) -> Record:
    """Return the record of an input, and leave it in its folder.

    Args:
        job: The input.
        key: Returns what the result depends on, as a hash.
        computed: Computes, writes all files but the record, and returns that; given a place for
            what is finished on the way, which is emptied in the end.
        progress: Where progress is told.
        files: Patterns of the files that a calculation leaves, those of an earlier one with
            another key, which are moved into the folder `previous` so that nothing stale looks new.
        whole: Whether all files of a record that is there are there as well.
    """
    target = job.folder / "record.json"
    begin = time.monotonic()
    try:
        stated = key()
        with contextlib.suppress(InputError, OSError):
            record = read_record(target)
            if record.get("key") == stated and "error" not in record and whole():
                progress.end("done before")
                return record
        _set_aside(job.folder, files)
        checkpoint = Checkpoint(job.folder / ".partial", stated)
        record = computed(checkpoint)
        (job.folder / "error.txt").unlink(missing_ok=True)  # of an earlier run
        record.update(key=stated, input=str(job.path), wall_time_s=time.monotonic() - begin)
        # Last, as the sign that all is there.
        write_record(target, record)
        checkpoint.clear()
        progress.end(f"done in {seconds(time.monotonic() - begin)}")
        return record
    except (InputError, FloatingPointError, OSError) as error:
        text = str(error) if str(job.path) in str(error) else f"{job.path}: {error}"
    except Exception as error:  # one bad input never stops a batch
        with contextlib.suppress(OSError):
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "error.txt").write_text(traceback.format_exc())
        text = f"{job.path}: unexpected {type(error).__name__}: {error}"
    progress.end(f"FAILED: {text}")
    record = {"name": job.name, "input": str(job.path), "error": text, "flags": ["failed"],
              "notes": []}  # fmt: skip
    with contextlib.suppress(OSError, InputError):
        _set_aside(job.folder, files)
        write_record(target, record)
    return record


def check_out(out: pathlib.Path, table: pathlib.Path | None = None) -> None:
    """Make the folder of results.

    Raises:
        InputError: where it or the table in it cannot be written; where the table of another
            command is there, whose records those of this one would replace.
    """
    own = None if table is None else table.name
    for other in _TABLES if own in _TABLES else ():
        if other != own and (out / other).is_file():
            raise fail(
                f"--out {out}, where results of `phojax {other.removesuffix('.csv')}` are",
                "a folder of its own for each command", "Choose another --out",
            )  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        if table is not None and table.is_dir():
            raise IsADirectoryError(errno.EISDIR, "the table cannot be written", str(table))
    except OSError as error:
        raise fail(
            f"--out {out}: {error.strerror or error} ({error.filename})",
            "a folder that can be written to",
        ) from error


def _set_aside(folder: pathlib.Path, files: Sequence[str]) -> None:
    target = folder / "record.json"
    try:
        if "error" in read_record(target):
            return
    except (InputError, OSError):
        return
    previous = folder / "previous"
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    # The record last: as long as it is there, an interrupted move is taken up again.
    for pattern in (*files, "record.json"):
        for path in folder.glob(pattern):
            path.replace(previous / path.name)
