"""`phojax learn` and `phojax predict`: what they write, take up again and refuse."""

import json

import numpy as np
import pandas as pd
import pytest

from phojax.cli import main

ELEMENTS = ["Cl", "Br", "I", "S", "Se", "O", "P", "Y", "Zr"]


def _screen(n, seed=0):
    """Return a table in which log D follows the MSD, and vibrations add to D_paper."""
    random = np.random.default_rng(seed)
    system = ["-".join(sorted(["Na", *random.choice(ELEMENTS, 2, replace=False)]))
              for _ in range(n)]  # fmt: skip
    msd = np.exp(random.normal(-2, 0.6, n))
    log_D = -2.3 + 1.5 * np.log10(msd / 0.135) + 0.2 * random.normal(size=n)
    D = 10**log_D
    error = 0.1 * D + 2e-4
    seen = D + error * random.normal(size=n)
    limit = np.full(n, 5e-4)
    packing = np.where(random.random(n) < 0.1, np.nan, random.uniform(0.4, 0.7, n))
    return pd.DataFrame({
        "id": [f"s{k}" for k in range(n)], "formula": [s.replace("-", "") for s in system],
        "chemical_system": system, "status": "done", "stable": True, "flags": "",
        "msd_axis_mean_800K_A2": msd, "packing_fraction": packing,
        "vdos_center_mobile_THz": 3 - np.log10(msd), "D_A2_ps": seen,
        "D_low_A2_ps": np.maximum(seen - 2 * error, 0), "D_high_A2_ps": seen + 2 * error,
        "D_censored": seen < limit, "D_detection_limit_A2_ps": limit,
        "D_paper_A2_ps": seen + 0.02 * msd, "D_paper_maximum_A2_ps": 1.2 * seen + 0.02 * msd,
    })  # fmt: skip


QUICK = ("--members", "2", "--folds", "3", "--resamples", "200")


def test_learn_and_predict(tmp_path, capsys):
    out, table = tmp_path / "out", tmp_path / "screen.parquet"
    _screen(70).to_parquet(table)
    command = ["learn", str(table), "--out", str(out), *QUICK]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "70 structures" in text
    assert "extra trees" in text
    for name in ("correlation", "correlation-pearson", "parity", "calibration"):
        for suffix in (".png", ".pdf"):
            assert (out / (name + suffix)).stat().st_size > 5000
    found = pd.read_csv(out / "correlation.csv")
    assert {"pearson", "spearman", "pearson, control"} <= set(found["statistic"])
    record = json.loads((out / "learn.json").read_text())
    assert record["surrogate"]
    assert record["surrogate_descriptors"] == ["msd_axis_mean_800K_A2", "packing_fraction"]
    assert record["descriptors_needing_md"] == ["vdos_center_mobile_THz"]
    assert 0 < record["imputed"]["packing_fraction"]["share_missing"] < 0.3
    metrics = record["cross_validation"]
    assert metrics["surrogate"]["rmse"] < metrics["mean"]["rmse"]
    assert len(pd.read_csv(out / "cross_validation.csv")) == 70
    assert not (out / ".partial").exists()

    assert main(command) == 0
    assert "done before" in capsys.readouterr().err

    new = _screen(6, seed=1).drop(columns=[c for c in _screen(1) if c.startswith("D_")])
    new.loc[0, "chemical_system"] = "Na-U"
    new.to_csv(tmp_path / "new.csv", index=False)
    target = tmp_path / "predictions.parquet"
    asked = ["predict", str(out), str(tmp_path / "new.csv"), "--out", str(target)]
    assert main(asked) == 0
    assert "element never seen: U" in capsys.readouterr().out
    predictions = pd.read_parquet(target)
    assert list(predictions["id"]) == list(new["id"])
    assert predictions["outside"][0]
    assert np.isfinite(predictions["log10_D"]).all()
    assert main(["predict", str(out / "model"), str(tmp_path / "new.csv")]) == 0


def test_too_few_detected_give_correlations_alone(tmp_path, capsys):
    out, table = tmp_path / "out", tmp_path / "screen.csv"
    _screen(20).to_csv(table, index=False)
    assert main(["learn", str(table), "--out", str(out), *QUICK]) == 0
    text = capsys.readouterr().out
    assert "NO surrogate is trained" in text
    assert "30 are needed" in text
    assert (out / "correlation.csv").exists()
    assert (out / "correlation.png").exists()
    assert not (out / "parity.png").exists()
    assert not json.loads((out / "learn.json").read_text())["surrogate"]
    assert main(["predict", str(out), str(table)]) == 2
    assert "holds no trained surrogate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["learn", "nothing.csv", "--out", "x"], "is no file"),
        (["predict", "nothing", "nothing.csv"], "is no folder"),
        (["learn", "nothing.csv", "--out", "x", "--folds", "1"], "at least 2"),
        (["predict", "x", "y", "--out", "z.xlsx"], "ends in .csv or .parquet"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
