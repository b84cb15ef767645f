"""`phojax snapshots`: what it writes, resumes, refuses and survives."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.io import read, write
from killing import killed_and_resumed

from phojax.cli import main

PAIRS = [["Na", "Na"], ["Na", "Cl"], ["Cl", "Cl"]]
CALM = ("--temperature", "300", "--no-figures", "--count", "1")


def crystal(repeat=(2, 2, 2)) -> Atoms:
    """An ordered close-packed crystal, Na Cl3."""
    at = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return Atoms("NaCl3", scaled_positions=at, cell=np.eye(3) * 3.925, pbc=True) * repeat


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trajectory without times, wrapped and adrift, its crystal beside it, and a potential."""
    place = tmp_path_factory.mktemp("snapshots")
    given = {"cutoff": 4.6, "onset": 4.15, "pairs": [
        {"form": "morse", "elements": pair, "depth": 0.35, "width": 1.4, "length": 2.85}
        for pair in PAIRS
    ]}  # fmt: skip
    (place / "morse.json").write_text(json.dumps(given))
    rng = np.random.default_rng(3)
    frames = []
    for n in range(6):
        at = crystal()
        at.positions += rng.normal(scale=0.06, size=at.positions.shape) + 0.4 * n
        at.wrap()
        frames.append(at)
    write(place / "run.extxyz", frames)
    write(place / "structure.extxyz", crystal())
    write(place / "unit.cif", crystal((1, 1, 1)))
    return place


def command(folder, name, out, *options):
    model = f"file:{folder / 'morse.json'}"
    return ["snapshots", str(folder / name), "--potential", model, "--out", str(out), *options]


def test_results_and_resume(folder, tmp_path, capsys):
    out = tmp_path / "out"
    given = command(folder, "run.extxyz", out, "--count", "2", "--temperature", "300", "800")
    assert main(given) == 0
    record = json.loads((out / "run" / "record.json").read_text())
    assert record["frames"] == 6
    assert record["interval_ps"] is None  # the file has no times, and none are needed
    assert [s["frame"] for s in record["snapshots"]] == [2, 5]
    assert record["snapshots"][1]["duplicate_of"] == 0
    assert record["snapshots"][0]["mobile_on_own_sites"] == 8
    hot, cold = record["temperatures"]["800"], record["temperatures"]["300"]
    assert hot["msd_total_over_ideal"] == pytest.approx(1, rel=1e-3)
    assert hot["msd_total_mean_A2"] > 2 * cold["msd_total_mean_A2"]
    assert hot["stand_out"] == []
    table = pd.read_csv(out / "run" / "snapshots.csv")
    assert len(table) == 2 * 8
    ions = table[table["snapshot"] == 0]
    np.testing.assert_allclose(
        ions["msd_total_800K_A2"].mean(), record["snapshots"][0]["msd_total_mean_A2"]["800"]
    )
    np.testing.assert_allclose(
        ions[["msd_x_800K_A2", "msd_y_800K_A2", "msd_z_800K_A2"]].sum(axis=1),
        ions["msd_total_800K_A2"],
    )
    for name in ("snapshots-300K.png", "snapshots-800K.pdf", "ideal.extxyz"):
        assert (out / "run" / name).is_file(), name
    lowest = read(out / "run" / "minima" / "snapshot-001.extxyz")
    assert isinstance(lowest, Atoms)
    # In the frame of the reference, whatever the drift was.
    np.testing.assert_allclose(lowest.positions, crystal().positions, atol=1e-2)
    assert not (out / "run" / ".partial").exists()
    assert len(pd.read_csv(out / "snapshots.csv")) == 2
    capsys.readouterr()
    assert main(given) == 0
    assert "done before" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_it_goes_on(folder, tmp_path, capsys, monkeypatch):
    """As by Ctrl-C in the middle; the dynamics of a structure are not run again either."""
    from phojax.cli import snapshots
    from phojax.cli.progress import Progress

    out = tmp_path / "out"
    given = command(
        folder, "unit.cif", out, *CALM, "--steps", "40", "--equilibration", "40", "--repeat",
        "2", "2", "2", "--fixed-cell",
    )  # fmt: skip
    call = Progress.__call__

    def stopping(self, stage, done, of):
        call(self, stage, done, of)
        if stage.startswith("modes of snapshot 0"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "__call__", stopping)
        assert main(given) == 130
    assert (out / "unit" / ".partial").is_dir()

    def refused(*arguments, **how):
        raise AssertionError("dynamics ran again")

    monkeypatch.setattr(snapshots, "moved", refused)
    assert main(given) == 0
    record = json.loads((out / "unit" / "record.json").read_text())
    assert record["molecular_dynamics"]["temperature_K"] == 300
    assert record["frames"] == 10
    assert record["snapshots"][0]["time_ps"] == pytest.approx(9 * 4 * 1.5e-3)
    assert record["snapshots"][0]["mobile_on_own_sites"] == 8
    assert record["reference"]["given"]
    assert record["temperatures"]["300"]["msd_total_over_ideal"] == pytest.approx(1, rel=1e-3)
    assert (out / "unit" / "trajectory.npz").is_file()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(folder, tmp_path):
    """Relaxations and averaged Hessians in parts: what is there is taken, the rest is the same."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    base = [*CALM[:-2], "--count", "2", "--width", "0.05", "--pairs", "2"]
    begin = time.monotonic()
    assert main(command(folder, "run.extxyz", whole, *base)) == 0
    took = time.monotonic() - begin
    rng = np.random.default_rng()  # any moment
    after = rng.uniform(0.3, 1.0, 4) * took
    assert killed_and_resumed(command(folder, "run.extxyz", parts, *base), after) == 0
    one, other = (pd.read_csv(out / "run" / "snapshots.csv") for out in (whole, parts))
    pd.testing.assert_frame_equal(other, one, check_exact=True, obj=f"after {after} s")
    assert np.isfinite(one["msd_total_error_300K_A2"]).all()


def test_one_bad_input_does_not_stop_the_others(folder, tmp_path, capsys):
    out = tmp_path / "out"
    given = command(folder, "run.extxyz", out, *CALM)
    given.insert(1, str(folder / "missing.extxyz"))
    assert main(given) == 1
    told = capsys.readouterr()
    assert "does not exist" in told.out + told.err
    assert json.loads((out / "run" / "record.json").read_text())["flags"] == []


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--mobile", "Li"), 1, "mobile element Li"),
        (("--potential", "lj:Ar"), 1, "elements that"),
        (("--count", "7"), 1, "at most 6"),
        (("--count", "0"), 2, "at least 1"),
        (("--together", "0"), 2, "at least 1"),
        (("--temperature", "0"), 2, "above 0"),
        (("--temperature", "-3"), 2, "numbers in K"),
        (("--site-radius", "-1"), 2, "positive"),
        (("--reference", "nowhere.cif"), 1, "does not exist"),
        (("--types", "Na"), 1, "no LAMMPS dump"),
    ],
)
def test_bad_options(folder, tmp_path, capsys, options, status, message):
    assert main(command(folder, "run.extxyz", tmp_path / "out", *CALM, *options)) == status
    told = capsys.readouterr()
    assert message in told.out + told.err


def test_bad_trajectories(tmp_path, folder, capsys):
    frames = [crystal() for _ in range(3)]
    frames[1].set_cell(frames[1].cell * 1.01, scale_atoms=True)
    write(tmp_path / "cell.extxyz", frames)
    other = [crystal(), crystal()[:-1]]
    write(tmp_path / "atoms.extxyz", other)
    for name, message in (("cell", "a constant cell"), ("atoms", "32 as in the first")):
        given = command(folder, str(tmp_path / f"{name}.extxyz"), tmp_path / "out", *CALM)
        assert main(given) == 1
        told = capsys.readouterr()
        assert message in told.out + told.err


def test_one_frame_as_it_is(folder, tmp_path):
    """Without an ideal crystal the minimum is its own reference, and that is said."""
    write(tmp_path / "one.extxyz", read(folder / "run.extxyz", index=0))
    out = tmp_path / "out"
    assert main(command(folder, str(tmp_path / "one.extxyz"), out, *CALM, "--as-they-are")) == 0
    record = json.loads((out / "one" / "record.json").read_text())
    assert record["flags"] == ["no_reference"]
    assert record["molecular_dynamics"] is None
    assert record["snapshots"][0]["mobile_distance_max_A"] == 0
