"""What a fairchem checkpoint of EquiformerV2 holds, read as data and checked.

A torch checkpoint is a pickle, and a pickle is a program. It is read with torch's restricted
unpickler (weights_only), which knows tensors and plain containers and refuses all else, so that
nothing from the file is run. Training leaves much more in it than the network needs (optimiser,
averaged weights); the file is mapped, not read, where that is possible.

    state_dict    weights; names begin with "module." once for every wrapper of the training run
    config        model: {backbone: {model, lmax_list, …}, heads: {name: {module, …}}}
    normalizers   target -> {mean, rmsd}: prediction = output·rmsd + mean
                  (older files: {mean, std}, and "target", "grad_target" for energy and forces)
    elementrefs   energy -> {element_references}: eV for each atomic number, added to the energy
"""

import _codecs
import hashlib
import math
import os
import pathlib
import pickle
import textwrap
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from phojax.checks import InputError, fail
from phojax.potentials.equiformer.official import official

try:
    import torch
except ImportError:  # told with the line that installs it
    official()
    raise

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
        state: Weights and buffers by name, without "module.".
        scales: Target -> (mean, rmsd), prediction = output·rmsd + mean.
        references: eV per atomic number, to add to the energy; None where there are none.
        fingerprint: SHA-256 of the file, hexadecimal.
    """

    backbone: dict[str, Any]
    heads: tuple[Head, ...]
    state: dict[str, torch.Tensor]
    scales: dict[str, tuple[torch.Tensor, torch.Tensor]]
    references: torch.Tensor | None
    fingerprint: str


def checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Return the content of a fairchem checkpoint, checked; runs nothing from the file.

    Raises:
        InputError: no such file, not a checkpoint, truncated, with anything but data in it, of
            another model or of another layout.
    """
    file = pathlib.Path(path)
    content = _loaded(file)
    if not isinstance(content, dict) or not {"state_dict", "config"} <= set(content):
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise fail(f"{file} holds {held}", "a checkpoint with state_dict and config", _USE)
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


def _loaded(file: pathlib.Path) -> Any:
    try:
        mapped = zipfile.is_zipfile(file)
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise fail(f"checkpoint {file}: {error.strerror}", "a file that can be read") from error
    except pickle.UnpicklingError as error:
        text = str(error)
        reason = " ".join(text.rpartition("WeightsUnpickler error: ")[2].split())
        if "fairchem" in text:
            raise fail(
                f"{file} holds objects of fairchem itself, as checkpoints of fairchem 2 do",
                "a checkpoint of EquiformerV2, written by fairchem-core 1",
                _USE,
            ) from None
        raise fail(
            f"{file} holds more than tensors and plain containers, or is damaged "
            f"({textwrap.shorten(reason, 160)})",
            "a checkpoint that can be read without running code from it",
            "If you trust where it comes from, load it elsewhere with weights_only=False and save "
            "state_dict, config, normalizers and elementrefs again",
        ) from None
    # A damaged file can raise nearly anything; none of it is an error of this program.
    except Exception as error:
        raise fail(
            f"{file} cannot be read as a checkpoint ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0][:200]})",
            "a whole file written by torch.save",
            "Compare its size and SHA-256 with those where it was published",
        ) from None


def _numpy_numbers() -> list[Any]:
    """Return what a NumPy number is pickled with, by its names in NumPy 1 and 2.

    Measures of the validation may be such numbers; all of them only hold data.
    """
    scalar = np.float64(0).__reduce__()[0]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.bool_)]
    return [*named, np.dtype, *types, _codecs.encode]


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


def _state(file: pathlib.Path, given: Any) -> dict[str, torch.Tensor]:
    named = _mapping(file, "state_dict", given)
    state = {}
    for name, value in named.items():
        stripped = str(name)
        while stripped.startswith("module."):
            stripped = stripped.removeprefix("module.")
        state[stripped] = _tensor(file, stripped, value)
    return state


def _scales(file: pathlib.Path, given: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    scales = {}
    for name, value in _mapping(file, "normalizers", given).items():
        table = _mapping(file, f"normalizers.{name}", value)
        pair = (table.get("mean"), table.get("rmsd", table.get("std")))
        mean, rmsd = (_tensor(file, f"normalizers.{name}", part) for part in pair)
        if mean.numel() != 1 or rmsd.numel() != 1:
            raise fail(f"{file}: normalizers.{name} is not one mean, one rmsd", "two numbers")
        scales[_OLD_TARGETS.get(name, name)] = (mean.reshape(()), rmsd.reshape(()))
    return scales


def _mapping(file: pathlib.Path, name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fail(f"{file}: {name} is a {type(value).__name__}", "a dictionary", _USE)
    return value


def _tensor(file: pathlib.Path, name: str, value: Any) -> torch.Tensor:
    if isinstance(value, int | float) and math.isfinite(value):
        return torch.tensor(float(value))
    if not isinstance(value, torch.Tensor):
        raise fail(f"{file}: {name} is {type(value).__name__}", "a tensor", _USE)
    if torch.is_floating_point(value) and not bool(torch.isfinite(value).all()):
        raise fail(f"{file}: {name} holds NaN or infinity", "finite numbers", _USE)
    return value


__all__ = ["SCALAR", "TENSOR", "VECTOR", "Checkpoint", "Head", "InputError", "checkpoint"]
