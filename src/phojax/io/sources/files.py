"""Structure files: one, several structures in one, or a folder of them."""

import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ase.io
from ase import Atoms

from phojax.checks import InputError, fail, said_by
from phojax.io.cif import atoms_of_block, cif_blocks
from phojax.io.sources.entries import FRAME, entry
from phojax.io.sources.metadata import identifier, scalars
from phojax.io.structures import check_readable, checked_structure, read_structure
from phojax.screening.candidates import SOURCE, Candidate
from phojax.structure import Structure

_SUFFIXES = {
    ".cif", ".vasp", ".poscar", ".contcar", ".extxyz", ".xyz", ".xsf", ".res", ".gen", ".cell",
}  # fmt: skip
_NAMES = re.compile(r"(POSCAR|CONTCAR)([._-].*)?|geometry\.in", re.IGNORECASE)
_PACKED = {".gz", ".bz2", ".xz", ".zip"}
WHAT_FOLDERS_HOLD = "CIF, POSCAR, CONTCAR, .vasp, .extxyz, .xyz, .xsf, .res, .gen, .cell"


def is_structure_file(path: pathlib.Path) -> bool:
    """Return whether a file's name says that it holds structures."""
    return path.suffix.lower() in _SUFFIXES or bool(_NAMES.fullmatch(path.name))


def folder_entries(folder: pathlib.Path) -> tuple[list[Candidate], int]:
    """Return the structures below a folder, sorted by path, and how many files are none.

    Files and folders whose name begins with a dot or two underscores are passed over.

    Raises:
        InputError: no structure file.
    """
    found, ignored = [], 0
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        inside = path.relative_to(folder)
        if not path.is_file():
            continue
        if any(part.startswith((".", "__")) for part in inside.parts):
            ignored += 1
        elif is_structure_file(path):
            found += file_entries(path, inside)
        elif path.suffix.lower() in _PACKED and is_structure_file(path.with_suffix("")):
            found.append(_failed(inside, "it is compressed; expected a plain file. Unpack it"))
        else:
            ignored += 1
    if not found:
        raise fail(
            f"{folder} holds no structures ({ignored} other files)",
            f"files such as {WHAT_FOLDERS_HOLD}, at any depth",
            "Databases (.json, .db) in it are read when they are named themselves",
        )
    return found, ignored


def file_entries(path: pathlib.Path, shown: pathlib.Path | None = None) -> list[Candidate]:
    """Return the structures of one file, at least one candidate.

    Args:
        path: Of a format that ASE reads; CIF and (ext)xyz with all that they hold.
        shown: What the path is called in names and metadata; its last part by default.
    """
    shown = pathlib.Path(path.name) if shown is None else shown
    stem = _stem(shown)
    where = {"file": shown.as_posix(), SOURCE: shown.as_posix()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_readable(path)
            if path.suffix.lower() == ".cif":
                found = _cif_entries(path, stem, where)
            elif path.suffix.lower() in (".xyz", ".extxyz"):
                found = _frames(path, stem, where)
            else:
                found = [entry(stem, _reader(path), where)]
        except InputError as error:
            return [Candidate(stem, None, where, _without(path, str(error)))]
    said = {_without(path, str(w.message)) for w in caught if _worth_saying(w)}
    if not said:
        return found
    return [
        Candidate(c.id, c.structure, c.metadata, _without(path, c.error),
                  (*c.remarks, *sorted(said)))
        for c in found
    ]  # fmt: skip


def ase_entry(
    name: str, atoms: Atoms, metadata: dict[str, Any], remarks: tuple[str, ...] = ()
) -> Candidate:
    """Return the candidate of an ASE object; its energy goes into the metadata."""
    if atoms.calc is not None:
        energy = getattr(atoms.calc, "results", {}).get("energy")
        metadata = {**scalars({"energy": energy}), **metadata}
    return entry(name, lambda: checked_structure(atoms), metadata, remarks)


def _cif_entries(path: pathlib.Path, stem: str, where: dict[str, Any]) -> list[Candidate]:
    try:
        blocks = cif_blocks(path)
    except InputError:
        raise
    except Exception as error:  # ASE's parser fails in many ways
        raise fail(f"reading it fails with {said_by(error)}", "a complete CIF") from error

    def builder(block) -> Callable[[], Structure]:
        return lambda: checked_structure(atoms_of_block(block))

    if len(blocks) == 1:
        return [entry(stem, builder(blocks[0]), where)]
    return [entry(f"{stem}-{b.name}", builder(b), {**where, "block": str(b.name)}) for b in blocks]


def _frames(path: pathlib.Path, stem: str, where: dict[str, Any]) -> list[Candidate]:
    """Return the frames of a file; a frame that cannot be read ends them with an error."""
    frames: list[Candidate] = []
    reading: Iterator[Any] = ase.io.iread(path, ":")
    while True:
        number = len(frames) + 1
        try:
            atoms = next(reading)
        except StopIteration:
            break
        except Exception as error:
            message = (
                f"frame {number} cannot be read ({type(error).__name__}: {error}); it and those "
                "after it are missing"
            )
            frames.append(Candidate(f"{stem}-unreadable", None, where, message))
            break
        said = scalars(atoms.info)
        name = identifier(said)
        frames.append(ase_entry(name, atoms, {**said, **where, FRAME: number}))
    if not frames:
        raise fail("it holds no atoms", "a crystal structure", "Write or download it again")
    if len(frames) > 1:
        return frames
    (only,) = frames
    metadata = {k: v for k, v in only.metadata.items() if k != FRAME}
    return [Candidate(stem, only.structure, metadata, only.error, only.remarks)]


def _reader(path: pathlib.Path) -> Callable[[], Structure]:
    def build() -> Structure:
        try:
            return read_structure(path)
        except InputError as error:
            raise InputError(_without(path, str(error))) from error

    return build


def _failed(shown: pathlib.Path, error: str) -> Candidate:
    where = {"file": shown.as_posix(), SOURCE: shown.as_posix()}
    return Candidate(_stem(shown), None, where, error)


def _stem(shown: pathlib.Path) -> str:
    """Return the folders and the name; POSCAR.NaCl and POSCAR stay whole."""
    last = shown.name if _NAMES.fullmatch(shown.name) else shown.stem
    return "_".join([*shown.parts[:-1], last])


def _without(path: pathlib.Path, text: str) -> str:
    return text.removeprefix(f"{path}: ")


def _worth_saying(warning: warnings.WarningMessage) -> bool:
    return not issubclass(warning.category, (DeprecationWarning, FutureWarning))
