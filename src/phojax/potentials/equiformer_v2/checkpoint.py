"""What a fairchem checkpoint of EquiformerV2 holds, read as data and checked.

    state_dict    weights; names begin with "module." once for every wrapper of the training run
    config        model: {backbone: {model, lmax_list, …}, heads: {name: {module, …}}}
    normalizers   target -> {mean, rmsd}: prediction = output·rmsd + mean
                  (older files: {mean, std}, and "target", "grad_target" for energy and forces)
    elementrefs   energy -> {element_references}: eV for each atomic number, added to the energy

Training leaves much more in a file than the network needs (optimiser, averaged weights); of that
nothing is read. Neither torch nor fairchem is needed.
"""

import hashlib
import math
import os
import pathlib
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from phojax.checks import InputError, fail
from phojax.potentials import torch_files

BACKBONE = "equiformer_v2_backbone"
SCALAR, VECTOR, TENSOR = "scalar", "vector", "tensor"
_KINDS = {
    "equiformer_v2_energy_head": SCALAR,
    "equiformerV2_scalar_head": SCALAR,
    "equiformer_v2_force_head": VECTOR,
    "equiformerV2_vector_head": VECTOR,
    "rank2_symmetric_head": TENSOR,
}
_OLD_TARGETS = {"target": "energy", "grad_target": "forces"}
_USE = "Give a checkpoint such as eqV2_31M_omat_mp_salex.pt"
_WANTED = ("state_dict", "config", "normalizers", "elementrefs")


@dataclass(frozen=True)
class Head:
    """One output of the network: its kind (SCALAR, VECTOR, TENSOR) and its own options."""

    name: str
    kind: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of EquiformerV2, nothing yet built from it.

    Attributes:
        backbone: Options of the backbone.
        heads: The outputs.
        state: Weights and buffers by name, without "module.", as they are stored.
        scales: Target -> (mean, rmsd), prediction = output·rmsd + mean.
        references: eV per atomic number, to add to the energy; None where there are none.
        fingerprint: SHA-256 of the file, hexadecimal.
    """

    backbone: dict[str, Any]
    heads: tuple[Head, ...]
    state: dict[str, np.ndarray]
    scales: dict[str, tuple[np.ndarray, np.ndarray]]
    references: np.ndarray | None
    fingerprint: str


def checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Return the content of a fairchem checkpoint, checked; runs nothing from the file.

    Raises:
        InputError: no such file, not a checkpoint, truncated, with anything but data in it, of
            another model or of another layout.
    """
    file = pathlib.Path(path)
    content = _loaded(file)
    backbone, heads = _architecture(file, content["config"])
    references = _mapping(file, "elementrefs", content.get("elementrefs")).get("energy")
    if references is not None:
        table = _mapping(file, "elementrefs", references)
        references = _tensor(file, "elementrefs.energy", table.get("element_references"))
    return Checkpoint(
        backbone=backbone,
        heads=heads,
        state=_state(file, content["state_dict"]),
        scales=_scales(file, content.get("normalizers")),
        references=references,
        fingerprint=fingerprint(file),
    )


def fingerprint(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _loaded(file: pathlib.Path) -> dict[str, Any]:
    about = (
        "a whole file written by torch.save",
        "Compare its size and SHA-256 with those where it was published",
    )
    if file.is_file() and not zipfile.is_zipfile(file):
        raise fail(
            f"{file} is no zip archive (damaged, or written by torch before 1.6)",
            about[0],
            f"{about[1]}, or save it again with a newer torch",
        )

    def refused(word: str) -> InputError:
        if word.startswith("fairchem"):
            return fail(
                f"{file} holds {word}, an object of fairchem itself, as files of fairchem 2 do",
                "a checkpoint of EquiformerV2, written by fairchem-core 1",
                _USE,
            )
        return fail(
            f"{file} holds more than tensors and plain containers ({word} was refused)",
            "a checkpoint that can be read without running code from it",
            "If you trust where it comes from, load it elsewhere with weights_only=False and save "
            "state_dict, config, normalizers and elementrefs again",
        )

    content = torch_files.content(file, *about, refused, training=True)
    if not isinstance(content, dict) or not {"state_dict", "config"} <= set(content):
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise fail(f"{file} holds {held}", "a checkpoint with state_dict and config", _USE)
    wanted = {name: content[name] for name in _WANTED if name in content}
    return torch_files.arrays(file, wanted, *about)


def _architecture(file: pathlib.Path, config: Any) -> tuple[dict[str, Any], tuple[Head, ...]]:
    model = config.get("model") if isinstance(config, dict) else None
    if isinstance(model, str):
        raise fail(f"{file} is a checkpoint of {model!r}", f"a model with a {BACKBONE}", _USE)
    if not isinstance(model, dict):
        raise fail(f"{file} has no config.model", f"a model with a {BACKBONE}", _USE)
    backbone = model.get("backbone")
    name = backbone.get("model") if isinstance(backbone, dict) else model.get("name")
    if not isinstance(backbone, dict) or name != BACKBONE:
        raise fail(f"{file} is a checkpoint of {name!r}", f"a model with a {BACKBONE}", _USE)
    if not backbone.get("use_pbc", True):
        raise fail(f"{file} was made with use_pbc false", "a model of periodic crystals", _USE)
    heads = []
    for label, options in _mapping(file, "config.model.heads", model.get("heads")).items():
        given = dict(_mapping(file, f"head {label}", options))
        kind = _KINDS.get(given.pop("module", None))
        if kind is None:
            raise fail(f"{file}: head {label!r} is {options}", f"one of {sorted(_KINDS)}", _USE)
        heads.append(Head(str(label), kind, given))
    for kind in (SCALAR, VECTOR):
        count = sum(head.kind == kind for head in heads)
        if count != 1:
            raise fail(f"{file} has {count} {kind} heads", "one for energy, one for forces", _USE)
    options = {key: value for key, value in backbone.items() if key != "model"}
    return options, tuple(heads)


def _state(file: pathlib.Path, given: Any) -> dict[str, np.ndarray]:
    named = _mapping(file, "state_dict", given)
    state = {}
    for name, value in named.items():
        stripped = str(name)
        while stripped.startswith("module."):
            stripped = stripped.removeprefix("module.")
        state[stripped] = _tensor(file, stripped, value)
    return state


def _scales(file: pathlib.Path, given: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    scales = {}
    for name, value in _mapping(file, "normalizers", given).items():
        table = _mapping(file, f"normalizers.{name}", value)
        pair = (table.get("mean"), table.get("rmsd", table.get("std")))
        mean, rmsd = (_tensor(file, f"normalizers.{name}", part) for part in pair)
        if mean.size != 1 or rmsd.size != 1:
            raise fail(f"{file}: normalizers.{name} is not one mean, one rmsd", "two numbers")
        scales[_OLD_TARGETS.get(name, name)] = (mean.reshape(()), rmsd.reshape(()))
    return scales


def _mapping(file: pathlib.Path, name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fail(f"{file}: {name} is a {type(value).__name__}", "a dictionary", _USE)
    return value


def _tensor(file: pathlib.Path, name: str, value: Any) -> np.ndarray:
    if isinstance(value, int | float | np.number) and math.isfinite(value):
        return np.array(value, np.float32)
    if not isinstance(value, np.ndarray):
        raise fail(f"{file}: {name} is {type(value).__name__}", "a tensor", _USE)
    if value.dtype.kind in "iub":
        return value
    if not np.all(np.isfinite(value.astype(np.float64))):
        raise fail(f"{file}: {name} holds NaN or infinity", "finite numbers", _USE)
    # Weights stored in half precision are used in single.
    return value if value.dtype == np.float64 else value.astype(np.float32)


__all__ = ["SCALAR", "TENSOR", "VECTOR", "Checkpoint", "Head", "InputError", "checkpoint"]
