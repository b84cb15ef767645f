"""Frames of molecular dynamics in the files of other programs, one generator per format.

Each yields `Frame` after `Frame` without holding the file in memory, and raises `CutShort` where
the file ends inside a frame: the caller keeps what came before. ASE parses extxyz and .traj;
the other formats are parsed here because ASE forgets what is needed (image flags and time steps of
LAMMPS), or loses everything when the last frame of XDATCAR or vasprun.xml is cut short.
"""

import gzip
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO
from xml.etree import ElementTree

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers
from ase.io.extxyz import read_xyz
from ase.io.trajectory import TrajectoryReader
from jaxtyping import Float, Int

from phojax.checks import fail

Types = Mapping[int, str] | Sequence[str]


class CutShort(Exception):
    """The file ends inside a frame."""


@dataclass(frozen=True)
class Frame:
    """One frame as its file has it.

    Attributes:
        numbers: Atomic numbers.
        positions: Å.
        cell: Å, rows.
        continuous: Whether positions are known never to have been wrapped into the cell.
        masses: amu; None where the file has none.
        velocities: In the unit `velocity_unit`.
        velocity_unit: Å/ps of one unit of them; None where the format leaves it open.
        time_ps: Where file and unit give it.
        time_open: A time whose unit the file does not say.
        step: Number of the time step.
    """

    numbers: Int[np.ndarray, " atom"]
    positions: Float[np.ndarray, "atom 3"]
    cell: Float[np.ndarray, "3 3"]
    continuous: bool = False
    masses: Float[np.ndarray, " atom"] | None = None
    velocities: Float[np.ndarray, "atom 3"] | None = None
    velocity_unit: float | None = None
    time_ps: float | None = None
    time_open: float | None = None
    step: int | None = None


ASE_VELOCITY = float(1e3 * units.fs)
"""Å/ps of one Å per ASE unit of time."""


def opened(path: pathlib.Path) -> TextIO:
    """Return a text file, .gz or not, opened for reading."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt") if packed else open(path, encoding="utf-8", errors="replace")


def ase_frame(atoms: Atoms) -> Frame:
    """Return what an ASE object holds; its momenta are in ASE's units, other velocities in any."""
    velocities, unit = None, None
    if atoms.has("momenta"):
        velocities, unit = atoms.get_velocities(), ASE_VELOCITY
    for name in ("velo", "vel", "velocities"):
        if velocities is None and name in atoms.arrays:
            velocities = np.asarray(atoms.arrays[name], float)
    info = atoms.info
    time = info.get("time_ps")
    if time is None and "time_fs" in info:
        time = info["time_fs"] / 1e3
    return Frame(
        atoms.numbers.astype(int),
        np.array(atoms.positions),
        np.array(atoms.cell),
        masses=atoms.get_masses() if atoms.has("masses") else None,
        velocities=velocities,
        velocity_unit=unit,
        time_ps=None if time is None else float(time),
        time_open=_number(info.get("time", info.get("Time"))),
    )


def traj_frames(path: pathlib.Path) -> Iterator[Frame]:
    """Yield the frames of an ASE .traj file."""
    with TrajectoryReader(path) as images:
        made: Any = images.description or {}
        step = None  # ASE's dynamics describe what they wrote, times in ASE's unit
        if made.get("type") == "molecular-dynamics" and {"timestep", "interval"} <= set(made):
            step = float(made["timestep"]) * int(made["interval"]) / ASE_VELOCITY
        for n in range(len(images)):
            try:
                atoms = images[n]
            except Exception as error:  # the binary parser fails in many ways
                if _cut(images):
                    raise CutShort from error
                raise
            assert isinstance(atoms, Atoms)
            frame = ase_frame(atoms)
            if frame.time_ps is None and step:
                frame = replace(frame, time_ps=n * step)
            yield frame


def _cut(images: TrajectoryReader) -> bool:
    """Return whether the last frame is unreadable, as in a file that was cut or half copied."""
    try:
        images[len(images) - 1]
    except Exception:  # as above
        return True
    return False


def extxyz_frames(path: pathlib.Path) -> Iterator[Frame]:
    """Yield the frames of an extxyz file, each parsed by ASE."""
    with opened(path) as file:
        while (line := file.readline()).strip():
            block = [line, *(_line(file) for _ in range(int(line) + 1))]
            yield ase_frame(next(read_xyz(io.StringIO("".join(block)), 0)))


def xdatcar_frames(path: pathlib.Path) -> Iterator[Frame]:
    """Yield the frames of an XDATCAR of VASP 5 or later (the elements are named in it)."""
    with opened(path) as file:
        line = file.readline()
        cell, numbers = np.eye(3), np.zeros(0, int)
        while line:
            if "onfiguration" not in line:  # the header, repeated where the cell changes
                scale = float(_line(file))
                cell = _table([_line(file) for _ in range(3)], (0, 1, 2))
                cell *= scale if scale > 0 else (-scale / abs(np.linalg.det(cell))) ** (1 / 3)
                symbols, counts = _line(file).split(), _line(file).split()
                numbers = np.repeat(_numbers(symbols), [int(c) for c in counts])
                line = _line(file)
                continue
            if not line.lstrip().startswith(("D", "d")):
                raise fail(f"the coordinates are {line.strip()!r}", "Direct configuration")
            block = [_line(file) for _ in numbers]
            yield Frame(numbers, _table(block, (0, 1, 2)) @ cell, cell)
            line = file.readline()
            while line and not line.strip():
                line = file.readline()


def vasprun_frames(path: pathlib.Path) -> Iterator[Frame]:
    """Yield the frames of vasprun.xml, one per ionic step; POTIM gives the time of dynamics."""
    numbers, masses = np.zeros(0, int), None
    settings: dict[str, str] = {}
    done = 0
    with opened(path) as file:
        events = ElementTree.iterparse(file, ("end",))
        try:
            for _, element in events:
                if element.tag == "incar" or element.tag == "parameters":
                    found = {i.get("name", ""): (i.text or "") for i in element.iter("i")}
                    settings = {**found, **settings}
                elif element.tag == "atominfo":
                    numbers, masses = _vasprun_atoms(element)
                elif element.tag == "calculation":
                    yield _vasprun_frame(element, numbers, masses, settings, done)
                    done += 1
                    element.clear()
        except ElementTree.ParseError as error:
            raise CutShort from error


def _vasprun_atoms(element: ElementTree.Element) -> tuple[np.ndarray, np.ndarray | None]:
    atoms = [
        row.findtext("c", "").strip() for row in element.iterfind("array[@name='atoms']/set/rc")
    ]
    masses = {}
    for row in element.iterfind("array[@name='atomtypes']/set/rc"):
        cells = [c.text or "" for c in row.iter("c")]
        masses[cells[1].strip()] = float(cells[2])
    symbols = [a.split("_")[0] for a in atoms]
    known = all(a in masses for a in atoms)
    return _numbers(symbols), np.array([masses[a] for a in atoms]) if known else None


def _vasprun_frame(
    element: ElementTree.Element,
    numbers: np.ndarray,
    masses: np.ndarray | None,
    settings: Mapping[str, str],
    done: int,
) -> Frame:
    def rows(name: str) -> np.ndarray:
        lines = element.iterfind(f"structure//varray[@name='{name}']/v")
        return np.array([(v.text or "").split() for v in lines], float)

    cell = rows("basis")
    dynamics = settings.get("IBRION", "").strip() == "0"
    step = float(settings.get("POTIM", "nan")) / 1e3
    time = done * step if dynamics and step > 0 else None
    return Frame(numbers, rows("positions") @ cell, cell, masses=masses, time_ps=time)


_PS = {"metal": 1.0, "real": 1e-3}


def lammps_frames(path: pathlib.Path, types: Types | None) -> Iterator[Frame]:
    """Yield the frames of a LAMMPS text dump, lengths in Å, the atoms ordered by id.

    Times are read where `dump_modify time yes units yes` has written them.

    Args:
        path: The file.
        types: Element of every type: a mapping from 1, 2, … or a sequence in that order. Needed
            where the dump has no column `element`.
    """
    time, style, step, count = None, None, None, 0
    origin, cell = np.zeros(3), np.zeros((3, 3))
    with opened(path) as file:
        while line := file.readline():
            if not line.startswith("ITEM:"):
                if line.strip():
                    raise fail(f"the line {line.strip()!r}", "an ITEM of a LAMMPS dump")
            elif line.startswith("ITEM: UNITS"):
                style = _line(file).strip()
                if style not in _PS:
                    raise fail(f"units {style}", "metal or real", "Convert the dump")
            elif line.startswith("ITEM: TIMESTEP"):
                step = int(_line(file))
            elif line.startswith("ITEM: TIME"):
                time = float(_line(file))
            elif line.startswith("ITEM: NUMBER"):
                count = int(_line(file))
            elif line.startswith("ITEM: BOX"):
                rows = [_line(file).split() for _ in range(3)]
                origin, cell = _lammps_box(line, np.array(rows, float))
            elif line.startswith("ITEM: ATOMS"):
                names = line.split()[2:]
                block = [_line(file).split() for _ in range(count)]
                if any(len(row) != len(names) for row in block):
                    raise fail("rows of atoms of other length than their header", "one per column")
                columns = dict(zip(names, np.array(block, str).T, strict=True))
                ps = None if time is None or style is None else time * _PS[style]
                speed = None if style is None else 1 / _PS[style]
                yield _lammps_frame(columns, cell, origin, types, (step, ps, time, speed))


def _lammps_box(line: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return origin and cell: orthogonal, restricted triclinic (bounds xy xz yz) or general."""
    if "abc" in line:
        return rows[:, 3], rows[:, :3]
    low, high = rows[:, 0].copy(), rows[:, 1].copy()
    xy, xz, yz = rows[:, 2] if rows.shape[1] == 3 else (0.0, 0.0, 0.0)
    low -= [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high -= [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    length = high - low
    return low, np.array([[length[0], 0, 0], [xy, length[1], 0], [xz, yz, length[2]]])


def _lammps_frame(
    columns: dict[str, np.ndarray],
    cell: np.ndarray,
    origin: np.ndarray,
    types: Types | None,
    when: tuple[int | None, float | None, float | None, float | None],
) -> Frame:
    if "id" in columns:
        order = np.argsort(columns["id"].astype(int))
        columns = {name: values[order] for name, values in columns.items()}

    def triple(*names: str) -> np.ndarray | None:
        found = all(name in columns for name in names)
        return np.stack([columns[n].astype(float) for n in names], axis=1) if found else None

    continuous = True
    positions = triple("xu", "yu", "zu")
    if positions is None and (scaled := triple("xsu", "ysu", "zsu")) is not None:
        positions = scaled @ cell + origin
    if positions is None:
        positions = triple("x", "y", "z")
        if positions is None and (scaled := triple("xs", "ys", "zs")) is not None:
            positions = scaled @ cell + origin
        if positions is None:
            raise fail(f"columns {' '.join(columns)}", "x y z, xs ys zs, xu yu zu or xsu ysu zsu")
        flags = triple("ix", "iy", "iz")
        continuous = flags is not None
        positions = positions if flags is None else positions + flags @ cell
    step, ps, time, speed = when
    return Frame(
        _lammps_numbers(columns, types),
        positions,
        cell,
        continuous=continuous,
        masses=columns["mass"].astype(float) if "mass" in columns else None,
        velocities=triple("vx", "vy", "vz"),
        velocity_unit=speed,
        time_ps=ps,
        time_open=time,
        step=step,
    )


def _lammps_numbers(columns: dict[str, np.ndarray], types: Types | None) -> np.ndarray:
    if "element" in columns:
        return _numbers(columns["element"].tolist())
    if types is None or "type" not in columns:
        raise fail(
            f"columns {' '.join(columns)}, which name no element",
            "a column `element`, or the element of every type",
            "Give the elements in the order of the types: --types Na Cl (types=…)",
        )
    known = types if isinstance(types, Mapping) else dict(enumerate(types, 1))
    found = columns["type"].astype(int)
    missing = sorted(set(found.tolist()) - set(known))
    if missing:
        raise fail(f"no element for types {missing}", f"one for each, given {dict(known)}")
    return _numbers([known[t] for t in found.tolist()])


def _numbers(symbols: Sequence[str]) -> np.ndarray:
    # POTCARs are named Na_pv, and newer XDATCARs add a hash: Na/1a2b
    plain = [s.split("/")[0].split("_")[0] for s in symbols]
    unknown = sorted({s for s in plain if atomic_numbers.get(s, 0) == 0})
    if unknown:
        raise fail(f"{', '.join(map(repr, unknown))} among the elements", "chemical symbols")
    return np.array([atomic_numbers[s] for s in plain], int)


def _table(lines: list[str], columns: tuple[int, ...]) -> np.ndarray:
    return np.loadtxt(lines, usecols=columns, ndmin=2)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float, np.number)) else None


def _line(file: TextIO) -> str:
    line = file.readline()
    if not line.endswith("\n"):  # a number may be cut: the rest of the line is not to be trusted
        raise CutShort
    return line
