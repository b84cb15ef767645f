"""`phojax md` and `phojax diffusion`: what they write, resume, refuse and survive."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from killing import killed_and_resumed

from phojax.cli import main
from phojax.io.records import write_record
from phojax.io.trajectories import read_trajectory

SHORT = (
    "--potential", "lj:Ar", "--mobile", "Ar", "--repeat", "1", "1", "2", "--timestep", "2",
    "--no-relax", "--friction", "5",  # of so few atoms vibrations would last for picoseconds
)  # fmt: skip


@pytest.fixture
def argon(tmp_path):
    path = tmp_path / "Ar.cif"
    write(path, bulk("Ar", "fcc", a=5.30, cubic=True))
    return str(path)


def test_results_and_resume(argon, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["md", argon, *SHORT, "--temperature", "30", "60", "--replicas", "2", "--steps",
               "8000", "--equilibration", "200", "--trajectory", "npz", "traj", "--out",
               str(out)]  # fmt: skip
    assert main(command) == 0
    folder = out / "Ar"
    record = json.loads((folder / "record.json").read_text())
    assert record["protocol"]["friction_per_ps"] == 5.0
    assert record["systems_side_by_side"] == 4
    assert set(record["temperatures"]) == {"30", "60"}
    hot = record["temperatures"]["60"]
    assert hot["replicas"] == 2
    assert hot["frames"] == 2000
    assert hot["temperature_by_species_K"]["Ar"] == pytest.approx(60, rel=0.25)
    # A crystal does not diffuse, whatever a line through the origin says.
    assert hot["D_censored"]
    assert hot["D_interval_A2_ps"][0] == 0
    assert hot["D_paper_A2_ps"] > 0
    assert hot["D_paper_A2_ps"] == pytest.approx(hot["D_paper_if_at_rest_A2_ps"], rel=0.3)
    assert "below_detection" in record["flags"]
    table = pd.read_csv(out / "md.csv")
    np.testing.assert_array_equal(table["temperature_K"], [30, 60])
    for name in ("transport-60K.png", "transport-60K.npz", "density-60K.vasp", "density-60K.cube",
                 "trajectory-60K-1.npz", "trajectory-30K-0.traj", "structure.extxyz"):  # fmt: skip
        assert (folder / name).exists(), name
    assert not (folder / ".partial").exists()
    shown = capsys.readouterr().out
    assert "< " in shown
    assert "holds" not in shown  # nothing is there but mobile ions

    run = read_trajectory(folder / "trajectory-60K-1.npz")
    assert run.positions.shape == (2000, 8, 3)
    assert run.interval_ps == pytest.approx(0.008)
    assert len(read(folder / "trajectory-30K-0.traj", index=":")) == 2000
    assert main(command) == 0
    assert "done before" in capsys.readouterr().err


def test_diffusion_agrees_with_what_was_summed_up(argon, tmp_path):
    """A run's own numbers, and those of its kept trajectory through the other command."""
    main(["md", argon, *SHORT, "--temperature", "60", "--steps", "6000", "--equilibration", "0",
          "--trajectory", "npz", "--no-figures", "--out", str(tmp_path / "md")])  # fmt: skip
    frames = tmp_path / "md" / "Ar" / "trajectory-60K.npz"
    assert main(["diffusion", str(frames), "--mobile", "Ar", "--no-figures", "--out",
                 str(tmp_path / "diffusion")]) == 0  # fmt: skip
    one = json.loads((tmp_path / "md" / "Ar" / "record.json").read_text())["temperatures"]["60"]
    file = tmp_path / "diffusion" / "trajectory-60K" / "record.json"
    other = json.loads(file.read_text())["temperatures"]["60"]
    for key in ("vdos_centre_THz", "temperature_by_species_K"):
        for name, value in one[key].items():
            assert other[key][name] == pytest.approx(value, rel=1e-2)
    assert one["frames"] == other["frames"]
    # Other origins at long lags, the same run.
    assert other["D_interval_A2_ps"][1] == pytest.approx(one["D_interval_A2_ps"][1], rel=0.3)
    with (
        np.load(tmp_path / "md" / "Ar" / "transport-60K.npz") as a,
        np.load(tmp_path / "diffusion" / "trajectory-60K" / "transport-60K.npz") as b,
    ):
        np.testing.assert_allclose(a["msd_Ar_A2"][:32], b["msd_Ar_A2"][:32], rtol=1e-9)


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_bit_for_bit(argon, tmp_path):
    base = ["md", argon, *SHORT, "--temperature", "60", "--steps", "60000", "--equilibration",
            "400", "--checkpoint-every", "400", "--trajectory", "npz", "--no-figures"]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    begin = time.monotonic()
    assert main([*base, "--out", str(whole)]) == 0
    took = time.monotonic() - begin
    rng = np.random.default_rng()  # any moment
    after = rng.uniform(0.3, 0.9, 3) * took
    assert killed_and_resumed([*base, "--out", str(parts)], after) == 0
    for name in ("transport-60K.npz", "trajectory-60K.npz"):
        with np.load(whole / "Ar" / name) as a, np.load(parts / "Ar" / name) as b:
            assert set(a.files) == set(b.files)
            for key in a.files:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{name} {key} {after}")
    one, other = (json.loads((d / "Ar" / "record.json").read_text()) for d in (whole, parts))
    assert one["temperatures"] == other["temperatures"]


def test_what_blows_up_is_told(argon, tmp_path, capsys):
    out = tmp_path / "out"
    status = main(["md", argon, *SHORT[:-5], "--timestep", "500", "--no-relax", "--temperature",
                   "60", "--steps", "400", "--equilibration", "40", "--out", str(out)])  # fmt: skip
    assert status == 1
    text = capsys.readouterr().out
    assert "no system lasted" in text
    assert "shorter time step" in text


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--temperature", "-5"), 2, "positive"),
        (("--steps", "0"), 2, "at least 1"),
        (("--steps", "3", "--frame-every", "4"), 2, "at least two frames"),
        (("--temperature", "nan"), 2, "positive"),
        (("--ballistic", "-1"), 2, "--ballistic"),
        (("--timestep", "0"), 2, "positive"),
        (("--friction", "0"), 2, "nve"),
        (("--replicas", "0"), 2, "at least 1"),
        (("--mobile", "Na"), 1, "mobile element Na"),
        (("--potential", "lj:Ne"), 1, "elements that"),
    ],
)
def test_bad_options(argon, tmp_path, capsys, options, status, message):
    out = str(tmp_path / "out")
    assert main(["md", argon, *SHORT, "--steps", "40", "--out", out, *options]) == status
    told = capsys.readouterr()
    assert message in told.out + told.err


def walk(path, D=0.5, frames=2000, ions=20, interval_ps=0.05, host=True, seed=0):
    """Write ions that walk through a host that stays, with time in the file."""
    rng = np.random.default_rng(seed)
    cell = np.diag([12.0, 13.0, 14.0])
    start = rng.uniform(0, 12, (ions, 3))
    steps = rng.normal(0, np.sqrt(2 * D * interval_ps), (frames, ions, 3))
    steps[0] = 0
    x = start + np.cumsum(steps, axis=0)
    still = rng.uniform(0, 12, (10, 3))
    images = []
    for n in range(frames):
        at = Atoms(f"Na{ions}" + ("Cl10" if host else ""), cell=cell, pbc=True,
                   positions=np.concatenate([x[n], still] if host else [x[n]]))  # fmt: skip
        at.info["time_ps"] = n * interval_ps
        at.wrap()
        images.append(at)
    write(path, images)


def test_diffusion_of_a_walk(tmp_path, capsys):
    for T, D in ((600, 0.25), (800, 0.6)):
        walk(tmp_path / f"run-{T}K.extxyz", D, seed=T)
    files = [str(tmp_path / f"run-{T}K.extxyz") for T in (600, 800)]
    out = tmp_path / "out"
    more = ["--together", "--out", str(out), "--phonons", str(tmp_path / "phonons")]
    assert main(["diffusion", *files, *more]) == 1
    assert "phonons" in capsys.readouterr().out
    (tmp_path / "phonons").mkdir()
    write_record(tmp_path / "phonons" / "record.json", {"acoustic_cutoff_THz": 1.5})
    assert main(["diffusion", *files, *more]) == 0
    record = json.loads((out / "run-600K" / "record.json").read_text())
    assert record["acoustic_cutoff_THz"] == 1.5
    for T, D in ((600, 0.25), (800, 0.6)):
        found = record["temperatures"][str(T)]
        assert abs(found["D_A2_ps"] - D) < 5 * found["D_error_A2_ps"]
        assert found["D_error_A2_ps"] < 0.1 * D
        assert found["framework"]["holds"]
    wanted = np.log(0.6 / 0.25) * 8.617333e-5 / (1 / 600 - 1 / 800) * 1e3
    error = record["arrhenius"]["activation_energy_error_meV"]
    assert abs(record["arrhenius"]["activation_energy_meV"] - wanted) < 5 * error
    assert error < 20
    assert (out / "run-600K" / "arrhenius.png").exists()
    assert "Ea/meV" in capsys.readouterr().out


def test_bad_trajectories(tmp_path, capsys):
    def failed(*arguments):
        assert main(["diffusion", *arguments, "--out", str(tmp_path / "out")]) == 1
        return capsys.readouterr().out

    short = tmp_path / "short.extxyz"
    walk(short, frames=12)
    main(["diffusion", str(short), "--out", str(tmp_path / "out")])
    assert "no diffusion coefficient" in capsys.readouterr().out
    mixed = [Atoms("Na2", [[0, 0, 0], [2, 0, 0]], cell=[9, 9, 9], pbc=True)] * 3
    mixed.append(Atoms("Na", cell=[9, 9, 9], pbc=True))
    write(tmp_path / "mixed.extxyz", mixed)
    assert "frame 4" in failed(str(tmp_path / "mixed.extxyz"), "--interval", "0.1")
    write(tmp_path / "timeless.extxyz", mixed[:3])
    assert "--interval" in failed(str(tmp_path / "timeless.extxyz"))
    assert "mobile element Li" in failed(str(short), "--mobile", "Li")
    assert "--start" in failed(str(short), "--start", "100")
    assert main(["diffusion", str(short), "--temperature", "1", "2", "--out", "x"]) == 2
    assert main(["diffusion", str(short), "--ballistic", "-1", "--out", "x"]) == 2


def test_two_trajectories_of_one_name_and_two_suffixes(tmp_path):
    walk(tmp_path / "run.extxyz", frames=300)
    walk(tmp_path / "run.traj", frames=300)
    files = [str(tmp_path / name) for name in ("run.extxyz", "run.traj")]
    out = tmp_path / "out"
    assert main(["diffusion", *files, "--interval", "0.05", "--no-figures", "--out", str(out)]) == 0
    assert {p.parent.name for p in out.glob("*/record.json")} == {"run-extxyz", "run-traj"}
