"""The inputs of a command: what each is, where its results go, and what it holds."""

import argparse
import pathlib
import re
import threading
import warnings
from dataclasses import dataclass
from typing import Any

from phojax.checks import fail
from phojax.io.phonopy_files import PhonopyInput, read_phonopy
from phojax.io.structures import read_structure
from phojax.structure import Structure

_PHONOPY_NAME = re.compile(r"phono(3)?py.*\.ya?ml(\.(xz|gz|bz2))?$", re.IGNORECASE)
ONE_AT_A_TIME = threading.Lock()
"""Held by what is not made for threads: warnings, matplotlib, the table."""


@dataclass(frozen=True)
class Job:
    """One input and where its results go."""

    path: pathlib.Path
    name: str
    folder: pathlib.Path
    is_phonopy: bool


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Return one job per input of `phojax phonons`.

    Raises:
        InputError: names that collide, options that fit no input.
    """
    jobs = named_jobs(options.inputs, options.out)
    extra = [o for o in ("force_sets", "force_constants", "born") if getattr(options, o)]
    if extra and not (len(jobs) == 1 and jobs[0].is_phonopy):
        raise fail(
            f"--{extra[0].replace('_', '-')} with {', '.join(str(j.path) for j in jobs)}",
            "one phonopy input (phonopy_disp.yaml, say) that the option belongs to",
        )
    return jobs


def named_jobs(inputs: list[pathlib.Path], out: pathlib.Path) -> list[Job]:
    """Return one job per input, its folder in `out`; InputError where names collide."""
    stems = [_stem(path) for path in inputs]
    files = [path.name.replace(".", "-") for path in inputs]
    jobs, taken = [], set()
    for path, stem, file in zip(inputs, stems, files, strict=True):
        name = stem
        if stems.count(stem) > 1:  # the same name in two folders, or with two suffixes
            name = file if files.count(file) == 1 else f"{path.resolve().parent.name}-{stem}"
        if name in taken:
            raise fail(f"two inputs that would be called {name}", "different names",
                       "Rename one of the files, or run them apart")  # fmt: skip
        taken.add(name)
        jobs.append(Job(path, name, out / name, bool(_PHONOPY_NAME.search(path.name))))
    return jobs


def _stem(path: pathlib.Path) -> str:
    name = path.name
    for suffix in (".xz", ".gz", ".bz2"):
        name = name.removesuffix(suffix)
    # POSCAR and CONTCAR have no suffix, POSCAR.NaCl has its name there.
    return pathlib.Path(name).stem if "." in name and not name.startswith("POSCAR") else name


def phonopy_input(job: Job, options: argparse.Namespace) -> tuple[PhonopyInput, list[str]]:
    """Return the force constants of a phonopy input, and what its readers warned of."""
    return _read(
        lambda: read_phonopy(
            job.path,
            force_sets=options.force_sets,
            force_constants=options.force_constants,
            born=options.born,
        )
    )


def structure_input(job: Job) -> tuple[Structure, list[str]]:
    """Return the structure of an input, and what its reader warned of."""
    return _read(lambda: read_structure(job.path))


def _read(reader) -> tuple[Any, list[str]]:
    """Return what a reader returns, and what it warned of."""
    with ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:  # warnings are global
        warnings.simplefilter("always")
        found = reader()
    others = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    return found, sorted({str(w.message) for w in caught if not issubclass(w.category, others)})
