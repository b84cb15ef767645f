"""Trajectories: what comes back from every format, followed across the cell's faces, or refused."""

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from pymatgen.core.trajectory import Trajectory as PymatgenTrajectory
from pymatgen.io.vasp.outputs import Xdatcar

from phojax.checks import InputError
from phojax.io.trajectories import holds_frames, read_trajectory
from phojax.io.trajectory_writers import (
    trim_extxyz,
    write_ase_traj,
    write_extxyz,
    write_trajectory_npz,
)
from phojax.md.trajectory import Trajectory

CELL = np.array([[6.0, 0.3, -0.2], [2.7, 6.5, 0.1], [-2.4, 1.9, 7.0]])
SYMBOLS = ["Na"] * 3 + ["P"] + ["S"] * 4
DT = 0.002


def _run(frames=60, seed=0, cell=CELL) -> Trajectory:
    """Return atoms that cross the cell several times, smoothly, with their exact velocities."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None] * DT
    drift = rng.normal(0, 120.0, (8, 3))
    a, w, p = (rng.normal(0, s, (8, 3)) for s in (0.3, 40.0, 3.0))
    start = rng.random((8, 3)) @ cell
    atoms = Atoms(SYMBOLS)
    return Trajectory(
        start + drift * t + a * np.sin(w * t + p),
        cell,
        atoms.numbers.astype(int),
        atoms.get_masses(),
        DT,
        drift + a * w * np.cos(w * t + p),
    )


@pytest.fixture(scope="module")
def run() -> Trajectory:
    return _run()


def _images(run: Trajectory, wrap=True) -> list[Atoms]:
    images = []
    for r, v in zip(run.positions, run.velocities, strict=True):
        atoms = Atoms(SYMBOLS, positions=r, cell=run.cell, pbc=True)
        atoms.set_velocities(v * 1e-3 / units.fs)  # Å/ps in Å per ASE's unit of time
        if wrap:
            atoms.wrap()
        images.append(atoms)
    return images


def _moves(run) -> np.ndarray:
    """Return displacements from the first frame: wrapping the first one loses its cell."""
    return run.positions - run.positions[0]


def _lammps(images, names, steps=None, extra=lambda n: "", element=True) -> str:
    text = ""
    for n, atoms in enumerate(images):
        h = np.asarray(atoms.cell).tolist()
        xy, xz, yz = h[1][0], h[2][0], h[2][1]
        low = [min(0, xy, xz, xy + xz), min(0, yz), 0]
        high = [h[0][0] + max(0, xy, xz, xy + xz), h[1][1] + max(0, yz), h[2][2]]
        tilt = [xy, xz, yz]
        text += extra(n) + f"ITEM: TIMESTEP\n{(steps or range(10**6))[n]}\n"
        text += f"ITEM: NUMBER OF ATOMS\n{len(atoms)}\n"
        text += "ITEM: BOX BOUNDS xy xz yz pp pp pp\n"
        text += "".join(f"{a!r} {b!r} {c!r}\n" for a, b, c in zip(low, high, tilt, strict=True))
        columns = " ".join(n.replace("x", axis) for n in names.split() for axis in "xyz")
        text += f"ITEM: ATOMS id {'element' if element else 'type'} {columns}\n"
        inside = atoms.copy()
        inside.wrap()
        flags = np.rint((atoms.positions - inside.positions) @ np.linalg.inv(h)).astype(int)
        speed = atoms.get_velocities() * units.fs * 1e3
        values = {"xu": atoms.positions, "x": inside.positions, "ix": flags, "vx": speed}
        values["xs"] = inside.get_scaled_positions(wrap=False)
        for i in np.random.default_rng(n).permutation(len(atoms)):
            symbol = atoms.symbols[i]
            kind = symbol if element else {"Na": 1, "P": 2, "S": 3}[symbol]
            row = [i + 1, kind]
            for name in names.split():
                row += [repr(x) for x in values[name][i].tolist()]
            text += " ".join(map(str, row)) + "\n"
    return text


def _vasprun(images, potim) -> str:
    """Return as much of a vasprun.xml as describes molecular dynamics."""
    rc = "".join(f"<rc><c>{s} </c><c> 1</c></rc>" for s in images[0].symbols)
    kinds = "".join(
        f"<rc><c> 1</c><c>{s} </c><c>{m}</c><c>1.0</c><c> PAW </c></rc>"
        for s, m in (("Na", 22.99), ("P", 30.97), ("S", 32.06))
    )
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<incar>\n'
        f'<i type="int" name="IBRION"> 0</i>\n<i name="POTIM"> {potim}</i>\n</incar>\n'
        f'<atominfo><array name="atoms"><set>{rc}</set></array>\n'
        f'<array name="atomtypes"><set>{kinds}</set></array></atominfo>\n'
    )
    for atoms in images:
        rows = [
            "".join(f"<v> {a!r} {b!r} {c!r} </v>\n" for a, b, c in x.tolist())
            for x in (np.asarray(atoms.cell), atoms.get_scaled_positions(wrap=False))
        ]
        text += (
            f'<calculation><structure><crystal><varray name="basis">{rows[0]}</varray></crystal>'
            f'<varray name="positions">{rows[1]}</varray></structure></calculation>\n'
        )
    return text + "</modeling>\n"


def test_own_formats_return_everything(run, tmp_path):
    write_trajectory_npz(tmp_path / "a.npz", run)
    write_trajectory_npz(tmp_path / "b.npz", run, single=True)
    write_extxyz(tmp_path / "a.extxyz", run)
    write_ase_traj(tmp_path / "a.traj", run, start_ps=3.0)
    for name, tolerance in (("a.npz", 0), ("b.npz", 2e-6), ("a.extxyz", 1e-9), ("a.traj", 0)):
        found = read_trajectory(tmp_path / name)
        np.testing.assert_allclose(found.positions, run.positions, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.velocities, run.velocities, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.masses, run.masses, rtol=1e-12)
        np.testing.assert_array_equal(found.numbers, run.numbers)
        np.testing.assert_allclose(found.cell, run.cell, rtol=1e-14)
        assert found.interval_ps == pytest.approx(DT, rel=1e-9)
        assert found.notes == ()


def test_ase_reads_what_is_written(run, tmp_path):
    write_extxyz(tmp_path / "a.extxyz", run)
    images = ase.io.read(tmp_path / "a.extxyz", ":")
    np.testing.assert_allclose(images[7].positions, run.positions[7], atol=1e-9)
    np.testing.assert_allclose(
        images[7].get_velocities() * units.fs * 1e3, run.velocities[7], atol=1e-5
    )
    assert images[7].get_kinetic_energy() == pytest.approx(
        0.5 * np.sum(run.masses[:, None] * (run.velocities[7] * 1e-3 / units.fs) ** 2), rel=1e-6
    )
    assert images[7].pbc.all()


@pytest.mark.parametrize("suffix", ["traj", "extxyz", "XDATCAR", "xml", "x", "x ix", "xs", "xu"])
def test_wrapped_paths_are_followed(run, tmp_path, suffix):
    # restricted triclinic, as LAMMPS wants it
    cell = np.array([[6.2, 0, 0], [2.7, 6.5, 0], [-2.4, 1.9, 7.0]])
    run = _run(cell=cell)
    images = _images(run)
    path = tmp_path / f"run.{suffix.split()[0]}"
    exact = 1e-10
    if suffix == "XDATCAR":
        ase.io.write(path, images, format="vasp-xdatcar")
        exact = 5e-7  # eight digits
    elif suffix == "xml":
        path.write_text(_vasprun(images, 1e3 * DT))
    elif suffix in ("traj", "extxyz"):
        ase.io.write(path, images)
        exact = 1e-7 if suffix == "extxyz" else exact  # eight digits
    else:
        path.write_text(_lammps(_images(run, wrap=False), suffix))
    found = read_trajectory(path, interval_ps=DT)
    np.testing.assert_allclose(_moves(found), _moves(run), rtol=0, atol=exact)
    assert found.interval_ps == pytest.approx(DT)
    assert not found.notes
    assert np.abs(_moves(run) @ np.linalg.inv(cell)).max() > 2  # they did cross the cell
    if suffix in ("traj", "extxyz"):
        np.testing.assert_allclose(found.velocities, run.velocities, atol=1e-4)
    thinned = read_trajectory(path, interval_ps=DT, every=7, start=4)
    assert thinned.interval_ps == pytest.approx(7 * DT)
    np.testing.assert_allclose(
        thinned.positions - thinned.positions[0],
        (run.positions - run.positions[4])[4::7],
        rtol=0,
        atol=exact,
    )


def test_xdatcar_as_pymatgen_has_it(run, tmp_path):
    ase.io.write(tmp_path / "XDATCAR", _images(run), format="vasp-xdatcar")
    theirs = Xdatcar(tmp_path / "XDATCAR").structures
    ours = read_trajectory(tmp_path / "XDATCAR", interval_ps=DT)
    assert len(ours) == len(theirs)
    unwrapped = PymatgenTrajectory.from_structures(theirs)
    unwrapped.to_displacements()
    moved = np.cumsum(unwrapped.coords, axis=0) @ CELL
    np.testing.assert_allclose(_moves(ours), moved - moved[0], atol=1e-6)


def test_continuous_positions_come_back_bit_by_bit(run, tmp_path):
    ase.io.write(tmp_path / "a.traj", _images(run, wrap=False))
    found = read_trajectory(tmp_path / "a.traj", interval_ps=DT)
    np.testing.assert_array_equal(found.positions, run.positions)


def test_flags_are_believed_where_the_nearest_image_is_wrong(tmp_path):
    cell = np.diag([6.0, 7.0, 8.0])
    run = _run(cell=cell)
    sparse = _images(run, wrap=False)[::20]
    (tmp_path / "a.dump").write_text(_lammps(sparse, "x ix"))
    found = read_trajectory(tmp_path / "a.dump", interval_ps=20 * DT)
    np.testing.assert_allclose(found.positions, run.positions[::20], atol=1e-10)
    (tmp_path / "b.dump").write_text(_lammps(sparse, "x"))
    found = read_trajectory(tmp_path / "b.dump", interval_ps=20 * DT)
    assert "path is lost" in found.notes[0]


def test_lammps_times_types_and_units(run, tmp_path):
    images = _images(_run(cell=np.diag([6.0, 7.0, 8.0])), wrap=False)
    steps = [10 * n for n in range(len(images))]

    def head(n):
        return ("ITEM: UNITS\nreal\n" if n == 0 else "") + f"ITEM: TIME\n{2.0 * n}\n"

    path = tmp_path / "a.lammpstrj"
    path.write_text(_lammps(images, "xu vx", steps, head, element=False))
    found = read_trajectory(path, types=["Na", "P", "S"])
    assert found.interval_ps == pytest.approx(2e-3)
    assert Atoms(found.numbers).symbols.get_chemical_formula() == "Na3PS4"
    with pytest.raises(InputError, match="element"):
        read_trajectory(path)
    with pytest.raises(InputError, match=r"types \[2, 3\]"):
        read_trajectory(path, types={1: "Na"})
    path.write_text(_lammps(images, "xu", [*steps[:30], *(s + 10 for s in steps[30:])]))
    with pytest.raises(InputError, match="between frames 30 and 31"):
        read_trajectory(path, interval_ps=DT)
    path.write_text(_lammps([*images[:30], *images[29:]], "xu", [*steps[:30], *steps[29:]]))
    found = read_trajectory(path, interval_ps=DT)
    assert len(found) == len(images)
    assert "repeat" in found.notes[0]


@pytest.mark.parametrize("names", ["x", "xs", "xu"])
def test_lammps_frames_as_ase_has_them(tmp_path, names):
    cell = np.array([[6.2, 0, 0], [2.7, 6.5, 0], [-2.4, 1.9, 7.0]])
    run = _run(frames=3, cell=cell)
    path = tmp_path / "a.dump"
    path.write_text(_lammps(_images(run, wrap=False), names))
    theirs = ase.io.read(path, ":", format="lammps-dump-text")
    ours = read_trajectory(path, interval_ps=DT)
    np.testing.assert_allclose(ours.cell, theirs[0].cell, atol=1e-10)
    np.testing.assert_array_equal(ours.numbers, theirs[0].numbers)
    for n, atoms in enumerate(theirs):
        apart = (ours.positions[n] - atoms.positions) @ np.linalg.inv(cell)
        np.testing.assert_allclose(apart, np.rint(apart), atol=1e-10)
    np.testing.assert_allclose(ours.positions[0], theirs[0].positions, atol=1e-10)


@pytest.mark.parametrize(("unit", "name"), [(1.0, "Å/ps"), (1e-3, "Å/fs")])
def test_the_unit_of_velocities_is_recognised(run, tmp_path, unit, name):
    images = _images(run)
    for atoms, v in zip(images, run.velocities, strict=True):
        del atoms.arrays["momenta"]
        atoms.set_array("vel", v * unit)
    ase.io.write(tmp_path / "a.extxyz", images)
    found = read_trajectory(tmp_path / "a.extxyz", interval_ps=DT)
    np.testing.assert_allclose(found.velocities, run.velocities, atol=1e-4)
    assert name in found.notes[0]
    for atoms in images:
        atoms.arrays["vel"] = np.random.default_rng(5).normal(size=(8, 3))
    ase.io.write(tmp_path / "a.extxyz", images)
    found = read_trajectory(tmp_path / "a.extxyz", interval_ps=DT)
    assert found.velocities is None
    assert "left out" in found.notes[0]


def test_dynamics_of_ase_say_their_time(tmp_path):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1, (8, 3)))
    path = str(tmp_path / "a.traj")
    with VelocityVerlet(atoms, 2 * units.fs, trajectory=path, loginterval=5) as dynamics:
        dynamics.run(60)
    found = read_trajectory(path)
    assert found.interval_ps == pytest.approx(0.01, rel=1e-9)
    assert len(found) == 13
    # 10 fs apart: what they move in between is the mean of their velocities, nearly
    moved = np.diff(found.positions, axis=0) / 0.01
    mean = (found.velocities[1:] + found.velocities[:-1]) / 2
    assert np.abs(moved - mean).max() < 0.03 * np.abs(mean).max()


def test_appending_and_cutting_back(run, tmp_path):
    path = tmp_path / "a.extxyz"
    for n in range(0, 60, 20):
        part = Trajectory(
            run.positions[n : n + 20], run.cell, run.numbers, run.masses, DT,
            run.velocities[n : n + 20],
        )  # fmt: skip
        write_extxyz(path, part, append=True, start_ps=n * DT)
    whole = read_trajectory(path)
    np.testing.assert_allclose(whole.positions, run.positions, atol=1e-9)
    text = path.read_text()
    path.write_text(text[:-30])
    assert len(read_trajectory(path)) == 59
    assert "frame 60" in read_trajectory(path).notes[0]
    trim_extxyz(path, 40)
    assert len(read_trajectory(path)) == 40
    with pytest.raises(InputError, match="has 40 complete"):
        trim_extxyz(path, 41)


@pytest.mark.parametrize("kind", ["traj", "extxyz", "XDATCAR", "xml", "dump"])
def test_a_last_frame_cut_short_is_left_out(run, tmp_path, kind):
    images = _images(run)
    path = tmp_path / f"run.{kind}"
    if kind == "xml":
        path.write_text(_vasprun(images, 2.0))
    elif kind == "dump":
        path.write_text(_lammps(images, "x"))
    else:
        ase.io.write(path, images, format={"XDATCAR": "vasp-xdatcar"}.get(kind))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    found = read_trajectory(path, interval_ps=DT)
    assert len(found) == 59
    assert "frame 60" in found.notes[0]
    path.write_bytes(whole[: int(0.71 * len(whole))])
    found = read_trajectory(path, interval_ps=DT)
    assert 35 < len(found) < 50
    assert f"frame {len(found) + 1}," in found.notes[0]
    path.write_bytes(whole[:700])
    with pytest.raises(InputError, match=path.name):
        read_trajectory(path, interval_ps=DT)


def test_bad_input_is_refused_by_name(run, tmp_path):
    images = _images(run)
    path = tmp_path / "a.extxyz"

    def refused(frames, match, **options):
        ase.io.write(path, frames, format="extxyz")
        with pytest.raises(InputError, match=match) as raised:
            read_trajectory(path, **{"interval_ps": DT, **options})
        assert "every" in options or "a.extxyz" in str(raised.value)

    refused([*images[:5], images[5][:-1]], "frame 6 has 7 atoms")
    refused([*images[:5], images[5][::-1]], "frame 6 has element 16 as atom 1")
    refused(images[:1], "1 frames")
    refused(images, "at least 2", start=59)
    refused(images, "--interval", interval_ps=None)
    refused(images, "every 0", every=0)
    refused(images, "positive time", interval_ps=-1.0)
    grown = [atoms.copy() for atoms in images]
    for n, atoms in enumerate(grown):
        atoms.set_cell(CELL * (1 + 1e-4 * n))
    refused(grown, "cell of frame 1[0-9] differs.*NVT")
    broken = [atoms.copy() for atoms in images]
    broken[3].positions[2, 1] = np.nan
    refused(broken, "frame 4 has no finite position of atom 3;")
    refused(images, "no LAMMPS dump", types=["Na", "Cl"])
    for n, atoms in enumerate(images):
        atoms.info["time"] = 2.0 * n
    refused(images, "not their unit", interval_ps=None)
    for n, atoms in enumerate(images):
        atoms.info["time_fs"] = 2.0 * n
    ase.io.write(path, images)
    assert read_trajectory(path).interval_ps == pytest.approx(DT)
    assert "were given" in read_trajectory(path, interval_ps=1.0).notes[-1]
    lines = path.read_text().split("\n")
    lines[25] = "nonsense"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="frame 3 cannot be read"):
        read_trajectory(path)
    for name, text in (("b.extxyz", ""), ("c.dump", "ITEM: TIMESTEP\n0\n"), ("d.foo", "what\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            read_trajectory(tmp_path / name)
    with pytest.raises(InputError, match="no format that is known"):
        read_trajectory(tmp_path / "d.foo")
    with pytest.raises(InputError, match="does not exist"):
        read_trajectory(tmp_path / "no.traj")
    np.savez(tmp_path / "e.npz", positions=np.zeros(3))
    with pytest.raises(InputError, match="no array"):
        read_trajectory(tmp_path / "e.npz")


def test_a_cell_that_breathes_a_little_is_averaged(run, tmp_path):
    images = _images(run, wrap=False)
    for n, atoms in enumerate(images):
        atoms.set_cell(CELL * (1 + 5e-4 * (n % 2)), scale_atoms=True)
    ase.io.write(tmp_path / "a.traj", images)
    found = read_trajectory(tmp_path / "a.traj", interval_ps=DT)
    np.testing.assert_allclose(found.cell, CELL * 1.00025, rtol=1e-12)
    np.testing.assert_allclose(found.positions, run.positions * 1.00025, rtol=1e-10)
    assert "its mean" in found.notes[0]


def test_frames_without_times(run, tmp_path):
    """Where times do not matter: none in the file, uneven ones, or one frame alone."""
    images = _images(run, wrap=True)
    ase.io.write(tmp_path / "a.extxyz", images)
    found = read_trajectory(tmp_path / "a.extxyz", timed=False)
    assert np.isinf(found.interval_ps)
    moved = run.positions - run.positions[0]
    np.testing.assert_allclose(found.positions - found.positions[0], moved, atol=1e-7)
    for n, atoms in enumerate(images):
        atoms.info["time_ps"] = float(n**2)
    ase.io.write(tmp_path / "b.extxyz", images)
    assert np.isinf(read_trajectory(tmp_path / "b.extxyz", timed=False).interval_ps)
    ase.io.write(tmp_path / "c.extxyz", images[0])
    assert len(read_trajectory(tmp_path / "c.extxyz", timed=False)) == 1
    ase.io.write(tmp_path / "d.vasp", images[0])
    ase.io.write(tmp_path / "e.cif", images[:2])
    assert holds_frames(tmp_path / "a.extxyz")
    for name in ("c.extxyz", "d.vasp", "e.cif"):
        assert not holds_frames(tmp_path / name)
    assert not holds_frames(tmp_path / "nowhere.traj")
