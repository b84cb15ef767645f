"""Checkpoints of fairchem-core 2, read as data.

Such a file holds the weights, the configuration of the network, and the tasks with their scales.
It is a pickle, which is a program, and the configuration names classes to be made, which is
another; fairchem runs both. Here the pickle is read by torch's restricted unpickler with the few
classes added that these files hold, all of them containers, and every class that the
configuration names must be one of those below.
"""

import importlib.metadata
import pathlib
import zipfile
from typing import Any

from phojax.checks import fail
from phojax.potentials.torch_bridge import imported_torch

INSTALL = 'pip install "fairchem-core>=2.24,<3"'

_UMA = "fairchem.core.models.uma"
_NETWORKS = {
    "escnmd_backbone",
    "escnmd_moe_backbone",
    f"{_UMA}.escn_md.eSCNMDBackbone",
    f"{_UMA}.escn_moe.eSCNMDMoeBackbone",
}
_HEADS = {
    f"{_UMA}.escn_md.{name}"
    for name in (
        "MLP_EFS_Head",
        "MLP_Energy_Head",
        "MLP_Stress_Head",
        "Linear_Energy_Head",
        "Linear_Force_Head",
    )
} | {
    f"{_UMA}.escn_moe.{name}"
    for name in ("DatasetSpecificMoEWrapper", "DatasetSpecificSingleHeadWrapper")
}
_TASK = "fairchem.core.units.mlip_unit.mlip_unit"
_SCALES = "fairchem.core.modules.normalization"
# What a configuration may ask to be made. Each of these only holds what it is given.
_TARGETS = {
    "fairchem.core.models.base.HydraModel",
    f"{_TASK}.Task",
    f"{_TASK}.OutputSpec",
    f"{_SCALES}.normalizer.Normalizer",
    f"{_SCALES}.element_references.ElementReferences",
    "torch.DoubleTensor",
    "torch.FloatTensor",
    "torch.tensor",
}
# Keys whose values fairchem imports as classes, and what they may name.
_NAMED = {"_target_": _TARGETS, "model": _NETWORKS, "module": _HEADS, "head_cls": _HEADS}


def read_checkpoint(path: pathlib.Path) -> Any:
    """Return the checkpoint, its configuration as plain data that was checked; runs nothing.

    Raises:
        InputError: fairchem-core 2 not installed; a file that cannot be read, that holds
            anything but data, or another network.
    """
    torch = imported_torch()
    kind = _checkpoint_class()
    if not path.is_file():
        raise fail(f"{path} does not exist", "a checkpoint of fairchem-core 2 (.pt)")
    if not zipfile.is_zipfile(path):
        raise fail(
            f"{path} is no zip file, or a truncated one",
            "an undamaged checkpoint of fairchem-core 2",
            "Download it again",
        )
    try:
        with torch.serialization.safe_globals([kind, *_containers()]):
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            content: Any = None
            if not refused:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # a damaged file can fail anywhere in zipfile or pickle
        said = str(problem).strip().split("\n")[0][:300]
        raise fail(
            f"{path} cannot be read ({type(problem).__name__}: {said})",
            "an undamaged checkpoint of fairchem-core 2",
            "Download it again",
        ) from problem
    if refused:
        raise fail(
            f"{path} asks for {', '.join(sorted(refused))}, which was refused",
            "nothing but tensors and the configuration of a network",
            "Do not trust this file",
        )
    if not isinstance(content, kind):
        older = isinstance(content, dict) and "state_dict" in content
        raise fail(
            f"{path} holds " + ("a checkpoint of fairchem 1" if older else "no checkpoint"),
            "an inference checkpoint of fairchem-core 2",
            "EquiformerV2 and older eSEN checkpoints need fairchem-core 1" if older else "",
        )
    content.model_config = _model(_checked(content.model_config, path), path)
    content.tasks_config = _checked(_tasks(content.tasks_config, path), path)
    return content


def _checkpoint_class():
    """Return the class of fairchem 2's checkpoints, or say how to install it."""
    found = version()
    if not found.startswith("2."):
        what = f"fairchem-core {found} is" if found else "fairchem-core is not"
        raise fail(
            f"{what} installed",
            "version 2",
            INSTALL + (" (in an environment of its own)" if found else ""),
        )
    try:
        from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint
    except ImportError as error:
        raise fail(
            f"fairchem-core {found} cannot be imported ({error})", "an intact one", INSTALL
        ) from error
    return MLIPInferenceCheckpoint


def version() -> str:
    """Return the version of fairchem-core that is installed, or nothing."""
    try:
        return importlib.metadata.version("fairchem-core")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _containers() -> list[Any]:
    """Return the classes of omegaconf's configurations, in which checkpoints hold theirs."""
    from collections import defaultdict

    from omegaconf import DictConfig, ListConfig, nodes
    from omegaconf.base import ContainerMetadata, Metadata

    leaves = [nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode]
    leaves += [nodes.BooleanNode, dict, list, int, float, str, bool, defaultdict]
    return [DictConfig, ListConfig, ContainerMetadata, Metadata, *leaves, (Any, "typing.Any")]


def _plain(value: Any) -> Any:
    """Return a configuration as dictionaries, lists and values, interpolating nothing."""
    from omegaconf import OmegaConf

    if OmegaConf.is_config(value):
        return _plain(OmegaConf.to_container(value, resolve=False))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _checked(value: Any, path: pathlib.Path) -> Any:
    """Return the configuration as plain data; raise where it asks for more than is known."""

    def check(item: Any) -> None:
        if isinstance(item, dict):
            for key, inner in item.items():
                allowed = _NAMED.get(key)
                if allowed is not None and not (isinstance(inner, str) and inner in allowed):
                    raise fail(
                        f"{path}: its configuration asks for {inner!r} as {key}",
                        "eSEN or UMA of fairchem-core 2 (escn_md, escn_moe)",
                        "Other networks, and files that want to run code, are refused",
                    )
                check(inner)
        elif isinstance(item, list):
            for inner in item:
                check(inner)
        elif isinstance(item, str) and "${" in item:
            raise fail(f"{path}: its configuration holds {item!r}", "values, not references")

    plain = _plain(value)
    check(plain)
    return plain


def _model(config: Any, path: pathlib.Path) -> dict[str, Any]:
    """Return the network's configuration without that of its training."""
    needed = {"_target_", "backbone", "heads"}
    if (
        not isinstance(config, dict)
        or not needed <= set(config)
        or not (isinstance(config["backbone"], dict) and "model" in config["backbone"])
    ):
        raise fail(f"{path} holds no configuration of a network", "backbone and heads")
    # It would load a second file, for weights that this one replaces.
    return {key: value for key, value in config.items() if key != "finetune_config"}


def _tasks(config: Any, path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the configurations of the tasks without what is for training."""
    tasks = _plain(config)
    wanted = {"_target_", "name", "property", "datasets", "normalizer"}
    if not isinstance(tasks, list) or not all(
        isinstance(t, dict) and wanted <= set(t) for t in tasks
    ):
        raise fail(f"{path} holds no tasks", f"a list of tasks, each with {sorted(wanted)}")
    return [{**task, "loss_fn": None, "metrics": []} for task in tasks]


__all__ = ["INSTALL", "read_checkpoint", "version"]
