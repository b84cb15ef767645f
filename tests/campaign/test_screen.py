"""`phojax screen`: a source to its table, alone, shared, interrupted, and with bad input."""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import write

from phojax.campaign import dynamics, store
from phojax.campaign.dynamics import chosen_for_dynamics
from phojax.campaign.settings import DynamicsSettings, ScreenSettings
from phojax.campaign.store import Store
from phojax.checks import InputError
from phojax.cli import main
from phojax.elastic import elastic_tensor
from phojax.io.structures import read_structure
from phojax.potentials.catalogue import potential
from phojax.screening.row import row_from_potential
from phojax.screening.settings import PhononSettings
from phojax.symmetry import space_group

OPTIONS = (
    "--potential", "lj:Ar", "--mobile", "Ar", "--temperature", "20", "--supercell-atoms", "30",
    "--mesh", "4", "4", "4", "--force-tolerance", "1e-6", "--stress-tolerance", "1e-8",
)  # fmt: skip


def argon(kind: str) -> Atoms:
    if kind == "hcp":
        atoms = bulk("Ar", "hcp", a=3.75, c=6.12)
    else:
        atoms = bulk("Ar", "fcc", a=5.30, cubic=True)
    return atoms


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Two good crystals, a duplicate, one that fails, one without argon, one that is no CIF."""
    source = tmp_path / "source"
    source.mkdir()
    write(source / "fcc.cif", argon("fcc"))
    write(source / "hcp.cif", argon("hcp"))
    write(source / "twin.cif", argon("fcc").repeat((2, 1, 1)))
    mixed = argon("fcc")
    mixed.symbols[0] = "Kr"
    write(source / "mixed.cif", mixed)
    write(source / "neon.cif", bulk("Ne", "fcc", a=4.4))
    (source / "broken.cif").write_text("data_nothing\n_cell_length_a 3\n")
    return source


def table(out: pathlib.Path) -> pd.DataFrame:
    return pq.read_table(out / "table.parquet").to_pandas().set_index("id")


def test_a_folder_to_its_table(folder, tmp_path, capsys):
    out = tmp_path / "out"
    exports = [str(tmp_path / f"table.{kind}") for kind in ("csv", "json", "db")]
    command = ["screen", str(folder), "--out", str(out), *OPTIONS]
    assert main([*command, "--export", *exports]) == 1  # one of them failed
    found = table(out)
    assert found["status"].to_dict() == {
        "fcc": "done", "hcp": "done", "twin": "duplicate", "mixed": "failed", "neon": "rejected",
        "broken": "unreadable",
    }  # fmt: skip
    assert "Kr" in found.loc["mixed", "reason"]
    assert found.loc["twin", "reason"] == "the same as fcc"
    settings = PhononSettings(
        mobile="Ar", temperatures=(20.0,), supercell_atoms=30, mesh=(4, 4, 4),
        force_tolerance=1e-6, stress_tolerance=1e-8,
    )  # fmt: skip
    for name in ("fcc", "hcp"):
        alone = row_from_potential(
            name, read_structure(folder / f"{name}.cif"), potential("lj:Ar"), settings
        ).record
        row = found.loc[name]
        for column, wanted in (
            ("frequency_max_THz", alone["frequency_max_THz"]),
            ("msd_total_mean_20K_A2", alone["msd_total_mean_A2"]["20"]["Ar"]),
            ("pdos_center_mobile_THz", alone["pdos_center_THz"]["Ar"]),
            ("energy_eV_atom", alone["relaxation"]["energy_eV_atom"]),
        ):
            np.testing.assert_allclose(row[column], wanted, rtol=1e-8)
    units = {f.name: (f.metadata or {}).get(b"unit") for f in pq.read_schema(out / "table.parquet")}
    assert units["msd_total_mean_20K_A2"].decode() == "Å²"
    assert units["heat_capacity_20K_eV_K_per_cell"].decode() == "eV/K per cell"
    about = json.loads((out / "screen.json").read_text())
    steps = {step["stage"]: step["count"] for step in about["funnel"]}
    assert steps["read"] == 6
    assert steps["no duplicates"] == 3
    assert steps["phonons computed"] == 2
    assert (
        len(pd.read_csv(exports[0])) == len(json.loads(pathlib.Path(exports[1]).read_text())) == 6
    )
    with connect(exports[2]) as database:
        stored = {row.name: row for row in database.select()}
    assert stored["hcp"].frequency_max_THz == pytest.approx(found.loc["hcp", "frequency_max_THz"])
    printed = capsys.readouterr().out
    assert "the same as fcc" not in printed
    assert "1 × a duplicate: twin" in printed

    # Again: nothing is computed, nothing changes.
    before = stamps(out)
    assert main(command) == 1
    assert stamps(out) == before
    pd.testing.assert_frame_equal(table(out), found)

    # Another mesh: relaxation and force constants stay.
    other = [*command]
    other[other.index("--mesh") + 1] = "3"
    kept = {p: p.stat().st_mtime_ns for p in out.glob("structures/*/stages/*.npz")}
    assert kept
    assert main(other) == 1
    assert {p: p.stat().st_mtime_ns for p in out.glob("structures/*/stages/*.npz")} == kept
    assert table(out).loc["hcp", "msd_total_mean_20K_A2"] != pytest.approx(
        found.loc["hcp", "msd_total_mean_20K_A2"], rel=1e-6
    )


def test_moduli_on_request(folder, tmp_path):
    out = tmp_path / "out"
    command = ["screen", str(folder), "--out", str(out), *OPTIONS]
    main(command)
    assert "bulk_GPa" not in table(out)
    main([*command, "--moduli"])
    found = table(out)
    assert np.isnan(found.loc["mixed", "bulk_GPa"])
    crystal = read_structure(out / "structures" / "fcc" / "structure.extxyz")
    bulk_modulus = elastic_tensor(
        potential("lj:Ar"), crystal, space_group(crystal, 1e-3)
    ).moduli.bulk
    assert found.loc["fcc", "bulk_GPa"] == pytest.approx(float(bulk_modulus), rel=1e-5)
    assert found["elastically_stable"][["fcc", "hcp"]].all()
    before = stamps(out)
    main([*command, "--moduli"])
    assert stamps(out) == before
    main(command)  # kept, and not computed again
    assert stamps(out) == before


@pytest.mark.slow
def test_effective_phonons_on_request(folder, tmp_path):
    """Those of `phojax effective`, beside the harmonic ones; not computed twice."""
    for name in ("twin", "mixed", "neon", "broken", "hcp"):
        (folder / f"{name}.cif").unlink()
    out = tmp_path / "out"
    command = ["screen", str(folder), "--out", str(out), *OPTIONS]
    assert main([*command, "--phonons", "effective"]) == 0
    row = table(out).loc["fcc"]
    assert main(["effective", str(folder / "fcc.cif"), "--out", str(tmp_path / "alone"), *OPTIONS,
                 "--no-figures"]) == 0  # fmt: skip
    alone = json.loads((tmp_path / "alone" / "fcc" / "record.json").read_text())["effective"]["20"]
    for column, wanted in (
        ("effective_msd_total_mean_20K_A2", alone["msd_total_mean_A2"]["Ar"]),
        ("effective_msd_total_mean_error_20K_A2", alone["msd_total_mean_error_A2"]),
        ("effective_frequency_error_20K_THz", alone["frequency_error_THz"]),
    ):
        np.testing.assert_allclose(row[column], wanted, rtol=1e-6)
    assert row["effective_stable_20K"]
    assert row["effective_msd_total_mean_20K_A2"] != row["msd_total_mean_20K_A2"]
    assert (out / "structures" / "fcc" / "effective-20K" / "phonopy.yaml").is_file()
    before = stamps(out)
    main([*command, "--phonons", "effective"])
    assert stamps(out) == before
    main(command)  # kept, and not computed again
    assert "effective_msd_total_mean_20K_A2" in table(out)


def stamps(out: pathlib.Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("structures/*/record.json")}


def test_dynamics_of_those_chosen(folder, tmp_path):
    out = tmp_path / "out"
    command = [
        "screen", str(folder), "--out", str(out), *OPTIONS, "--md", "1", "--md-temperature", "30",
        "--md-steps", "4000", "--md-equilibration", "200", "--md-timestep", "2", "--md-atoms", "30",
    ]  # fmt: skip
    assert main(command) == 1
    found = table(out)
    loosest = found["msd_total_mean_20K_A2"].idxmax()
    moved = found[found["D_A2_ps"].notna()]
    assert list(moved.index) == [loosest]
    assert bool(moved["D_censored"].iloc[0])  # a crystal at 30 K
    assert moved["md_temperature_K"].iloc[0] == 30
    record = json.loads((out / "structures" / loosest / "record.json").read_text())
    assert record["transport"]["protocol"]["timestep_fs"] == 2
    assert (out / "structures" / loosest / "dynamics" / "transport-30K.png").exists()
    before = stamps(out)
    assert main([*command[:-1], "30"]) == 1
    assert stamps(out) == before
    # named ones instead of the first
    with pytest.raises(InputError, match="no structure is called nobody"):
        chosen_for_dynamics(
            [{"id": "one", "status": "done"}],
            ScreenSettings(dynamics=DynamicsSettings(names=("nobody",))),
        )
    rows = [{"id": "one", "status": "done", "stable": False}, {"id": "two", "status": "failed"}]
    names, remarks = chosen_for_dynamics(
        rows, ScreenSettings(dynamics=DynamicsSettings(names=("two", "one")))
    )
    assert names == ["one"]
    assert "two" in remarks[0]
    # and what failed can be tried again, it alone
    store = Store(out)
    assert store.forget_failures() == 1
    assert store.forget_failures() == 0
    assert main([*command, "--retry-failed"]) == 1
    assert stamps(out).keys() == before.keys()
    assert Store(out).forget_failures() == 1


@pytest.mark.slow
def test_dynamics_side_by_side_and_where_memory_is_short(folder, tmp_path, monkeypatch):
    command = [
        "screen", str(folder), *OPTIONS, "--md", "all", "--md-batch", "2", "--md-temperature", "30",
        "--md-steps", "400", "--md-equilibration", "100", "--md-atoms", "30",
    ]  # fmt: skip
    main([*command, "--out", str(tmp_path / "together")])
    real, sizes = dynamics.moved, []

    def little(given, *rest, **how):
        sizes.append(len(given))
        if len(given) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(given, *rest, **how)

    monkeypatch.setattr(dynamics, "moved", little)
    main([*command, "--out", str(tmp_path / "alone")])
    assert sizes == [2, 1, 1]
    kept = []
    for name in ("together", "alone"):
        found = table(tmp_path / name)
        assert found["simulated_ps"].notna().sum() == 2
        kept.append(found.loc[["fcc", "hcp"], ["D_paper_A2_ps", "vdos_center_mobile_THz"]])
    np.testing.assert_allclose(kept[0], kept[1], rtol=1e-6)


def test_a_disk_that_is_full(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ["screen", str(folder), "--out", str(out), *OPTIONS]
    real = store.write_record

    def full(path, record):
        if path.parent.name == "hcp" and path.name == "record.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, record)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_record", full)
        assert main(command) == 1
    found = table(out)
    assert found.loc["hcp", "status"] == "pending"
    assert found.loc["fcc", "status"] == "done"
    before = stamps(out)
    assert main(command) == 1
    assert table(out).loc["hcp", "status"] == "done"
    assert before.items() <= stamps(out).items()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number, a in enumerate((5.2, 5.25, 5.3)):
        write(source / f"fcc{number}.cif", bulk("Ar", "fcc", a=a, cubic=True))

    def command(out: str) -> list[str]:
        return [sys.executable, "-m", "phojax", "screen", str(source), "--out",
                str(tmp_path / out), *OPTIONS, "--keep-duplicates"]  # fmt: skip

    # What the first run compiles is kept, all of it, so that the twenty do not take as long.
    kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
    env = {**os.environ, **kept}
    subprocess.run(command("first"), check=True, capture_output=True, env=env)
    begin = time.monotonic()
    subprocess.run(command("whole"), check=True, capture_output=True, env=env)
    took = time.monotonic() - begin
    moments, kills = random.Random(5), 0
    done: dict[str, int] = {}
    while kills < 20:
        process = subprocess.Popen(
            command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
        )
        time.sleep(moments.uniform(0.2, 1.0) * took)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        now = stamps(tmp_path / "killed")
        assert done.items() <= now.items()  # nothing lost, nothing done twice
        done = now
        if len(done) == 3 and kills < 20:  # all over: from the beginning
            shutil.rmtree(tmp_path / "killed")
            done = {}
    subprocess.run(command("killed"), check=True, capture_output=True, env=env)
    assert done.items() <= stamps(tmp_path / "killed").items()
    pd.testing.assert_frame_equal(
        table(tmp_path / "killed"), table(tmp_path / "whole"), check_exact=True
    )


def test_bad_input(folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, more, said in (
        (empty, [], "empty"),
        (tmp_path / "missing", [], "does not exist"),
        (folder, ["--md", "some"], "all, none, or a number"),
        (folder, ["--export", "table.xlsx"], ".csv, .json or .db"),
        (folder, ["--batch", "0"], "at least 1"),
        (folder, ["--md-temperature", "-3"], "positive"),
    ):
        assert main(["screen", str(source), "--out", out, *OPTIONS, *more]) == 2
        assert said in capsys.readouterr().err
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "screen.json").write_text('{"schema_version": 1, "format": 99}')
    assert main(["screen", str(folder), "--out", str(foreign), *OPTIONS]) == 2
    assert "format 99" in capsys.readouterr().err
    shutil.rmtree(foreign)
