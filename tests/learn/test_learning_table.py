"""Which rows and columns of a screen's table are learnt from."""

import io

import numpy as np
import pandas as pd
import pytest

from phojax.checks import InputError
from phojax.learn.correlation_table import correlations
from phojax.learn.table import descriptor_columns, learning_table
from phojax.learn.target import log_target


def _frame(n=12):
    random = np.random.default_rng(0)
    D = np.exp(random.normal(-5, 1, n))
    return pd.DataFrame({
        "id": [f"s{k}" for k in range(n)], "formula": "NaCl",
        "chemical_system": [f"Cl-Na-{k}" for k in range(n)], "status": "done", "stable": True,
        "flags": "", "atoms": 8, "wall_time_s": 1.0,
        "msd_axis_mean_800K_A2": random.uniform(0, 1, n), "vdos_center_mobile_THz": 3.0,
        "packing_fraction": random.uniform(0, 1, n), "empty": np.nan,
        "D_A2_ps": D, "D_low_A2_ps": D / 10**0.2, "D_high_A2_ps": D * 10**0.2,
        "D_censored": False, "D_detection_limit_A2_ps": 1e-4, "D_paper_A2_ps": 2 * D,
    })  # fmt: skip


def test_columns():
    assert descriptor_columns(_frame()) == {
        "msd_axis_mean_800K_A2": "static", "vdos_center_mobile_THz": "needs_md",
        "packing_fraction": "static", "empty": "static",
    }  # fmt: skip
    table = learning_table(_frame())
    assert table.columns == ("msd_axis_mean_800K_A2", "vdos_center_mobile_THz", "packing_fraction")
    np.testing.assert_array_equal(table.needs_md, [False, True, False])


def test_rows_left_out_are_counted():
    frame = _frame()
    frame.loc[0, "status"] = "failed"
    frame.loc[1, "stable"] = False
    frame.loc[2, "flags"] = "rough_potential framework_moves"
    frame.loc[3, "D_A2_ps"] = np.nan
    frame.loc[4, "D_censored"] = True
    frame.loc[5, ["D_censored", "D_detection_limit_A2_ps", "D_high_A2_ps"]] = [True, np.nan, np.nan]
    frame.loc[6, "chemical_system"] = None
    table = learning_table(frame)
    assert table.left_out == {
        "not done": 1, "not stable": 1, "flag framework_moves": 1, "no D": 1,
        "no limit of a censored D": 1, "no chemical system": 1,
    }  # fmt: skip
    assert table.ids == ("s4", "s7", "s8", "s9", "s10", "s11")
    assert table.censored.sum() == 1
    assert len(learning_table(frame, spoiling=())) == 7


def test_a_csv_file_gives_the_same():
    frame = _frame()
    frame["stable"] = frame["stable"].astype(object)
    frame.loc[1, "stable"] = None  # unknown is not unstable
    frame.loc[4, "D_censored"] = True
    again = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    a, b = learning_table(frame), learning_table(again)
    assert a.ids == b.ids
    assert a.columns == b.columns
    np.testing.assert_allclose(a.descriptors, b.descriptors)
    np.testing.assert_array_equal(a.censored, b.censored)


def test_a_table_without_use_is_refused():
    with pytest.raises(InputError, match="no column D_A2_ps"):
        learning_table(_frame().drop(columns="D_A2_ps"))
    with pytest.raises(InputError, match="not done: 12"):
        learning_table(_frame().assign(status="phonons"))
    with pytest.raises(InputError, match="no column nothing"):
        learning_table(_frame(), columns=["nothing"])


def test_errors_of_log_D():
    frame = _frame()
    frame.loc[0, "D_low_A2_ps"] = 0.0  # the other side speaks for both
    frame.loc[1, ["D_low_A2_ps", "D_high_A2_ps"]] = np.nan
    frame.loc[2, ["D_censored", "D_high_A2_ps"]] = [True, np.nan]  # an older table
    frame.loc[3, ["D_censored", "D_high_A2_ps"]] = [True, 1e-3]  # the end of the interval
    target = log_target(learning_table(frame))
    np.testing.assert_allclose(np.delete(target.error, [2, 3]), 0.2 / 1.959964, rtol=1e-6)
    assert list(target.error[2:4]) == [0, 0]
    np.testing.assert_allclose(target.value[2:4], [-4, -3])
    assert target.without_error == 1


def test_the_table_of_coefficients():
    frame = _frame(30)
    frame.loc[:4, "D_censored"] = True
    found = correlations(learning_table(frame), resamples=200)
    assert set(found["target"]) == {
        "D", "log10 D", "D_paper", "D_paper_maximum", "D_paper minus D"
    }  # fmt: skip
    constant = found[found["descriptor"] == "vdos_center_mobile_THz"]
    assert constant["value"].isna().all()
    assert set(constant["kind"]) == {"needs_md"}
    p = found[(found["target"] == "D") & (found["statistic"] == "spearman")].dropna(subset="p")
    # Benjamini and Hochberg of two: the larger p stays, the smaller doubles at most.
    assert p["q"].max() == pytest.approx(p["p"].max())
    assert p["q"].min() == pytest.approx(min(2 * p["p"].min(), p["p"].max()))
    left = found[(found["target"] == "log10 D") & (found["statistic"] == "pearson")]
    assert set(left["n_left_out"]) == {5}
