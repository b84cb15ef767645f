"""Records: what goes in comes out, incomplete files never appear."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.io import records
from phojax.io.atomic import replacing
from phojax.io.records import (
    SCHEMA_VERSION,
    load_records,
    read_modes,
    read_record,
    write_modes,
    write_record,
)

RECORD = {
    "frequency_min_THz": np.float64(-0.25),
    "stable": np.bool_(False),
    "atoms": np.int32(16),
    "cutoff": {"path": jnp.asarray(1.5), "mesh": float("nan")},
    "msd_axis_mean_A2": {"300K": {"Na": 0.02, "Cl": 0.01}, 800: {"Na": 0.05}},
    "q": jnp.arange(3.0),
    "matrix": np.eye(2, dtype=int),
    "flags": ("rough", "unstable: Å"),
    "none": None,
}


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "NaCl" / "record.json"
    write_record(path, RECORD)
    read = read_record(path)
    assert read == {
        "schema_version": SCHEMA_VERSION,
        "frequency_min_THz": -0.25,
        "stable": False,
        "atoms": 16,
        "cutoff": {"path": 1.5, "mesh": None},
        "msd_axis_mean_A2": {"300K": {"Na": 0.02, "Cl": 0.01}, "800": {"Na": 0.05}},
        "q": [0.0, 1.0, 2.0],
        "matrix": [[1, 0], [0, 1]],
        "flags": ["rough", "unstable: Å"],
        "none": None,
    }
    assert "NaN" not in path.read_text()
    write_record(path, read)
    assert read_record(path) == read


def test_floats_are_exact(tmp_path):
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    write_record(tmp_path / "r.json", {"x": values})
    assert read_record(tmp_path / "r.json")["x"] == values.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1.0, np.inf]}}, r"a\.b\[1\] is infinite"),
        ({"a": 1 + 2j}, "a is a complex"),
        ({"a": np.ones(2, complex)}, r"a\[0\] is a complex"),
        ({"a": object()}, "a is a object"),
        ({"schema_version": 99}, "schema_version 99"),
    ],
)
def test_what_json_cannot_hold(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        write_record(tmp_path / "record.json", value)
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_half_way():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_refused_records(tmp_path):
    path = tmp_path / "record.json"
    with pytest.raises(InputError, match=r"record\.json does not exist"):
        read_record(path)
    path.write_text('{"schema_version": 1, "a"')
    with pytest.raises(InputError, match=r"record\.json is not JSON"):
        read_record(path)
    for text in ('{"schema_version": 0}', '{"a": 1}', "[1]"):
        path.write_text(text)
        with pytest.raises(InputError, match="schema version"):
            read_record(path)


def test_table(tmp_path):
    for name in ("NaCl", "NaBr"):
        write_record(tmp_path / name / "record.json", {**RECORD, "formula": name})
    (tmp_path / "unfinished").mkdir()
    table = load_records(tmp_path)
    assert table.index.tolist() == ["NaBr", "NaCl"]
    assert table.loc["NaCl", "formula"] == "NaCl"
    assert table.loc["NaCl", "msd_axis_mean_A2.300K.Na"] == 0.02
    assert np.isnan(float(table["cutoff.mesh"].astype(float).iloc[0]))
    assert table.loc["NaBr", "q"] == [0.0, 1.0, 2.0]


def test_table_without_records(tmp_path):
    with pytest.raises(InputError, match="phojax phonons"):
        load_records(tmp_path)
    with pytest.raises(InputError, match="phojax phonons"):
        load_records(tmp_path / "nowhere")


def test_modes(tmp_path):
    path = tmp_path / "new" / "modes.npz"
    arrays = {"q": np.random.default_rng(0).normal(size=(4, 3)), "weights": jnp.ones(4) / 4,
              "species": np.array(["Na", "Cl"])}  # fmt: skip
    write_modes(path, arrays)
    read = read_modes(path)
    assert set(read) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)
    with pytest.raises(InputError, match="bad is an array of Python objects"):
        write_modes(path, {"bad": np.array([None])})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"modes\.npz cannot be read"):
        read_modes(path)
    with pytest.raises(InputError, match="does not exist"):
        read_modes(tmp_path / "no.npz")


def test_json_is_readable_by_anyone(tmp_path):
    write_record(tmp_path / records.RECORD_NAME, RECORD)
    assert json.loads((tmp_path / records.RECORD_NAME).read_text())["flags"][1] == "unstable: Å"
