"""The weights of CHGNet 0.3.0, read from the files of the chgnet distribution as data.

The checkpoint is read as data (`torch_files`); neither torch nor chgnet is imported.

The network is rearranged for reading from it: matrices act from the right (x W), the core and
the gate of a gated layer stand side by side.
"""

import importlib.metadata
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phojax.checks import InputError, fail
from phojax.potentials import torch_files

INSTALL = "pip install --no-deps chgnet==0.4.2"
_CHECKPOINT = "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"

# What the code in `model` takes for granted; a checkpoint that differs is another network.
_ARCHITECTURE = {
    "atom_fea_dim": 64,
    "bond_fea_dim": 64,
    "angle_fea_dim": 64,
    "num_radial": 31,
    "num_angular": 31,
    "n_conv": 4,
    "mlp_first": True,
    "non_linearity": "silu",
    "atom_graph_cutoff": 6,
    "bond_graph_cutoff": 3,
    "cutoff_coeff": 8,
    "gMLP_norm": "layer",
    "readout_norm": "layer",
}


def checkpoint_path() -> pathlib.Path:
    """Return where the installed chgnet distribution keeps its 0.3.0 checkpoint.

    Raises:
        InputError: no such distribution, or one without that file.
    """
    try:
        distribution = importlib.metadata.distribution("chgnet")
    except importlib.metadata.PackageNotFoundError:
        raise fail(
            "the chgnet distribution is not installed", "its weights (torch is not needed)", INSTALL
        ) from None
    path = pathlib.Path(str(distribution.locate_file(_CHECKPOINT)))
    if not path.is_file():
        raise fail(f"{path} does not exist", "the checkpoint of chgnet 0.4.2", INSTALL)
    return path


def parameters(path: pathlib.Path) -> dict[str, Any]:
    """Return the parameters that the energy depends on, in the widest float JAX is set to.

    Raises:
        InputError: a file that cannot be read as tensors, or another architecture.
    """
    content = read_checkpoint(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not {"state_dict", "model_args"} <= set(model):
        raise fail(f"{path} holds no model", "a checkpoint of CHGNet", INSTALL)
    for name, value in _ARCHITECTURE.items():
        if model["model_args"].get(name) != value:
            raise fail(
                f"{path}: {name} is {model['model_args'].get(name)!r}",
                f"{value!r}, as in CHGNet 0.3.0",
                INSTALL,
            )
    try:
        tree = _network(model["state_dict"])
    except (KeyError, ValueError, TypeError, AttributeError) as missing:
        raise fail(f"{path}: {missing} is missing or misshapen", "CHGNet 0.3.0", INSTALL) from None
    real = jnp.result_type(float)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, real), tree)


def read_checkpoint(path: pathlib.Path) -> Any:
    """Return the content of a torch zip file, tensors as NumPy arrays; runs nothing from it.

    Raises:
        InputError: not such a file, truncated, or with anything in it that is not plain data.
    """

    def refused(word: str) -> InputError:
        return fail(
            f"{path} asks for {word}, which was refused",
            "nothing but tensors and dictionaries",
            f"Do not trust this file; {INSTALL}",
        )

    about = ("an undamaged torch checkpoint", f"Install it again: {INSTALL}")
    return torch_files.arrays(path, torch_files.content(path, *about, refused), *about)


def _network(state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the nested parameters (see `model` for what they do)."""

    def gated(prefix: str, layers: tuple[int, ...]):
        def both(part):
            return [state[f"{prefix}.{half}.{part}"] for half in ("mlp_core", "mlp_gate")]

        def norm(part):
            return np.stack([state[f"{prefix}.{half}.{part}"] for half in ("bn1", "bn2")])

        first, *more = layers
        return {
            "inner": np.concatenate([w.T for w in both(f"layers.{first}.weight")], axis=1),
            "inner_bias": np.concatenate(both(f"layers.{first}.bias")),
            "outer": tuple(np.stack([w.T for w in both(f"layers.{k}.weight")]) for k in more),
            "outer_bias": tuple(np.stack(both(f"layers.{k}.bias")) for k in more),
            "scale": norm("weight"),
            "shift": norm("bias"),
        }

    def convolution(prefix: str, name: str):
        out = state[f"{prefix}.mlp_out.layers.1.weight"].T
        return {"gated": gated(f"{prefix}.{name}", (0, 3)), "out": out}

    basis = "bond_basis_expansion.rbf_expansion_"
    return {
        "atom": state["atom_embedding.embedding.weight"],
        "reference": state["composition_model.fc.weight"].reshape(-1),
        "far_frequencies": state[f"{basis}ag.frequencies"],
        "near_frequencies": state[f"{basis}bg.frequencies"],
        "angle_frequencies": state["angle_basis_expansion.fourier_expansion.frequencies"],
        "bond": state["bond_embedding.weight"].T,
        "far_weight": state["bond_weights_ag.weight"].T,
        "near_weight": state["bond_weights_bg.weight"].T,
        "angle": state["angle_embedding.weight"].T,
        "atom_conv": tuple(convolution(f"atom_conv_layers.{k}", "twoBody_atom") for k in range(4)),
        "bond_conv": tuple(convolution(f"bond_conv_layers.{k}", "twoBody_bond") for k in range(3)),
        # The third update of the angles never reaches the energy.
        "angle_update": tuple(gated(f"angle_layers.{k}.twoBody_bond", (1,)) for k in range(2)),
        "readout_norm": {
            "scale": state["readout_norm.weight"],
            "shift": state["readout_norm.bias"],
        },
        "readout": tuple(
            {"matrix": state[f"mlp.layers.{k}.weight"].T, "bias": state[f"mlp.layers.{k}.bias"]}
            for k in (0, 2, 4, 7)
        ),
    }
