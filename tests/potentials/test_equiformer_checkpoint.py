"""Checkpoints of EquiformerV2: what is read, and what is refused without running it."""

import hashlib
import pathlib
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fairchem")
pytest.importorskip("e3nn")
pytestmark = pytest.mark.torch

import tiny_equiformer as tiny  # noqa: E402

from phojax.checks import InputError  # noqa: E402
from phojax.potentials.equiformer.checkpoint import checkpoint  # noqa: E402
from phojax.potentials.equiformer.model import Equiformer  # noqa: E402


@pytest.fixture(scope="module")
def content():
    return tiny.content(num_layers=1)


@pytest.fixture
def saved(tmp_path):
    def save(content):
        path = tmp_path / "made.pt"
        torch.save(content, path)
        return path

    return save


class Touch:
    """Unpickled without restrictions, it writes a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["config", "state_dict", "optimizer", "extra"])
def test_code_in_a_checkpoint_does_not_run(content, saved, tmp_path, key):
    written = tmp_path / "written"
    path = saved(content | {key: Touch(written)})
    with pytest.raises(InputError, match="without running code"):
        checkpoint(path)
    assert not written.exists()
    torch.load(path, weights_only=False)
    assert written.exists()  # it would have run


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(0.25), np.int64(3), np.bool_(1)])
def test_numpy_numbers_among_the_measures_are_read(content, saved, number):
    assert checkpoint(saved(content | {"best_val_metric": number})).state


def test_numpy_objects_are_not(content, saved, tmp_path):
    written = tmp_path / "written"
    held = np.array([Touch(written), None], dtype=object)
    with pytest.raises(InputError, match="without running code"):
        checkpoint(saved(content | {"best_val_metric": held}))
    assert not written.exists()


def test_a_checkpoint_of_fairchem_2_is_recognised(monkeypatch, saved):
    class MLIPInferenceCheckpoint:
        __module__ = "fairchem.core.units.mlip_unit"
        __qualname__ = "MLIPInferenceCheckpoint"

    stand_in = types.ModuleType("fairchem.core.units.mlip_unit")
    stand_in.MLIPInferenceCheckpoint = MLIPInferenceCheckpoint
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    with pytest.raises(InputError, match="fairchem 2"):
        checkpoint(saved(MLIPInferenceCheckpoint()))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused(content, saved, share):
    path = saved(content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"made\.pt"):
        checkpoint(path)


def test_what_is_no_file_of_torch_is_refused(tmp_path):
    path = tmp_path / "notes.pt"
    with pytest.raises(InputError, match="No such file"):
        checkpoint(path)
    path.write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"notes\.pt"):
        checkpoint(path)
    with pytest.raises(InputError, match="directory"):
        checkpoint(tmp_path)


def changed(content, *names, to):
    """Return a copy in which the entry along `names` is `to`, or gone where that is None."""
    copy = dict(content)
    if len(names) > 1:
        copy[names[0]] = changed(copy[names[0]], *names[1:], to=to)
    elif to is None:
        del copy[names[0]]
    else:
        copy[names[0]] = to
    return copy


MODEL = ("config", "model")
BACKBONE = (*MODEL, "backbone")


@pytest.mark.parametrize(
    ("where", "to", "message"),
    [
        (("state_dict",), None, "state_dict and config"),
        (("config",), None, "state_dict and config"),
        (MODEL, {"name": "gemnet_oc", "num_blocks": 4}, "gemnet_oc"),
        (MODEL, "equiformer_v2", "checkpoint of 'equiformer_v2'"),
        ((*BACKBONE, "model"), "escn", "escn"),
        ((*BACKBONE, "no_such_option"), 3, "no_such_option"),
        ((*BACKBONE, "ffn_hidden_channels"), 8, "of another shape"),
        ((*BACKBONE, "num_layers"), 2, "missing"),
        ((*MODEL, "heads", "forces"), None, "0 vector heads"),
        ((*MODEL, "heads", "energy", "module"), "no_such_head", "no_such_head"),
        (("state_dict", "module.backbone.norm.affine_weight"), None, "1 weights missing"),
        (("state_dict", "module.backbone.extra"), torch.zeros(2), "1 weights unknown"),
        (("state_dict", "module.backbone.norm.affine_weight"), "text", "expected a tensor"),
        (("state_dict", "module.backbone.norm.affine_weight"), torch.full((4, 16), torch.nan),
         "NaN"),
        (("normalizers", "forces"), {"mean": torch.tensor(0.0)}, r"normalizers\.forces"),
        (("elementrefs", "energy"), {}, r"elementrefs\.energy"),
    ],
)  # fmt: skip
def test_another_content_is_refused(content, saved, where, to, message):
    with pytest.raises(InputError, match=message):
        Equiformer(checkpoint(saved(changed(content, *where, to=to))))


def predictions(path):
    model = Equiformer(checkpoint(path))
    numbers, cell = torch.tensor([11, 17]), 4.0 * torch.eye(3, dtype=torch.float64)
    positions = torch.tensor([[0.0, 0.1, 0.0], [1.9, 2.0, 2.2]], dtype=torch.float64)
    return [value.numpy() for value in model.predict(numbers, cell, positions)]


def test_older_names_mean_the_same(content, saved):
    expected = predictions(saved(content))
    state = {f"module.{name}": value for name, value in content["state_dict"].items()}
    scales = dict(content["normalizers"])
    for new, old in {"energy": "target", "forces": "grad_target"}.items():
        value = scales.pop(new)
        scales[old] = {"mean": float(value["mean"]), "std": value["rmsd"]}
    older = content | {"state_dict": state, "normalizers": scales}
    for value, same in zip(predictions(saved(older)), expected, strict=True):
        np.testing.assert_array_equal(value, same)


def test_scales_and_references_enter_as_they_should(content, saved):
    plain = predictions(saved(content | {"normalizers": {}, "elementrefs": {}}))
    scaled = predictions(saved(content))
    references = content["elementrefs"]["energy"]["element_references"].double()
    assert scaled[0] == pytest.approx(
        4.0 * plain[0] + float(torch.tensor(-0.1)) + float(references[11] + references[17]), 1e-12
    )
    np.testing.assert_allclose(scaled[1], 2.0 * plain[1], rtol=1e-12)


def test_fingerprint_is_that_of_the_file(content, saved):
    path = saved(content)
    assert checkpoint(path).fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
