"""Workers of Parsl: the same table as one process, though one of them dies."""

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from test_screen import OPTIONS, table

from phojax.cli import main

pytest.importorskip("parsl", reason="Parsl is not installed (extra parsl)")

MORTAL = """
import os, pathlib, signal
from phojax.potentials.catalogue import potential

MARK = pathlib.Path(__file__).with_name("died")

def made():
    # Parsl names the workers it starts; the first one of them dies here.
    if "PARSL_WORKER_RANK" in os.environ and not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return potential("lj:Ar")
"""


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number, a in enumerate((5.2, 5.3)):
        write(source / f"fcc{number}.cif", bulk("Ar", "fcc", a=a, cubic=True))
    code = tmp_path / "mortal.py"
    code.write_text(MORTAL)
    options = ["--potential", f"python:{code}:made", *OPTIONS[2:], "--keep-duplicates",
               "--batch", "1"]  # fmt: skip

    def run(out: str, *more: str) -> pd.DataFrame:
        assert main(["screen", str(source), "--out", str(tmp_path / out), *options, *more]) == 0
        return table(tmp_path / out)

    alone = run("alone")
    together = run("together", "--engine", "parsl", "--workers", "1")
    assert (tmp_path / "died").exists()
    pd.testing.assert_frame_equal(together, alone, check_exact=True)


def test_configurations_that_make_no_sense(tmp_path, capsys):
    source = tmp_path / "Ar.cif"
    write(source, bulk("Ar", "fcc", a=5.3, cubic=True))
    wrong = tmp_path / "wrong.py"
    wrong.write_text("config = 3\n")
    command = ["screen", str(source), "--out", str(tmp_path / "out"), *OPTIONS]
    assert main([*command, "--engine", "parsl", "--config", str(wrong)]) == 2
    assert "config = parsl.Config" in capsys.readouterr().err
    assert main([*command, "--config", str(wrong)]) == 2
    assert "--engine parsl" in capsys.readouterr().err
