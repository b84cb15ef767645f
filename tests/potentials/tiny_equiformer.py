"""A small EquiformerV2 with random weights, written as fairchem writes its checkpoints.

The options are those of the models trained on OMat24 (lmax 4, mmax 2, the nearest 20 neighbours
within 12 Å), with fewer layers and channels. Radial functions of random weights oscillate as
fast as their 600 Gaussians allow; `smooth` makes them vary over half an Ångström, as trained
ones do, so that finite differences mean something.
"""

import importlib.util
import sys
import types

import torch

from phojax.potentials.equiformer.official import official

torch.set_num_threads(1)  # tensors this small are only slowed down by more

BACKBONE = {
    "use_pbc": True, "use_pbc_single": True, "otf_graph": True,
    "enforce_max_neighbors_strictly": False, "max_neighbors": 20, "max_radius": 12.0,
    "max_num_elements": 96, "avg_num_nodes": 31.17, "avg_degree": 61.95, "num_layers": 2,
    "sphere_channels": 16, "attn_hidden_channels": 8, "num_heads": 2, "attn_alpha_channels": 8,
    "attn_value_channels": 8, "ffn_hidden_channels": 16, "norm_type": "layer_norm_sh",
    "lmax_list": [4], "mmax_list": [2], "grid_resolution": 18, "num_sphere_samples": 128,
    "edge_channels": 16, "use_atom_edge_embedding": True, "share_atom_edge_embedding": False,
    "use_m_share_rad": False, "distance_function": "gaussian", "num_distance_basis": 512,
    "attn_activation": "silu", "use_s2_act_attn": False, "use_attn_renorm": True,
    "ffn_activation": "silu", "use_gate_act": False, "use_grid_mlp": True,
    "use_sep_s2_act": True, "alpha_drop": 0.1, "drop_path_rate": 0.1, "proj_drop": 0.0,
    "weight_init": "uniform",
}  # fmt: skip
LARGE = {
    "num_layers": 8, "sphere_channels": 128, "attn_hidden_channels": 64, "num_heads": 8,
    "attn_alpha_channels": 64, "attn_value_channels": 16, "ffn_hidden_channels": 128,
    "edge_channels": 128,
}  # fmt: skip
HEADS = {
    "energy": {"module": "equiformer_v2_energy_head"},
    "forces": {"module": "equiformer_v2_force_head"},
    "stress": {
        "module": "rank2_symmetric_head", "output_name": "stress",
        "use_source_target_embedding": True, "decompose": True,
    },
}  # fmt: skip
OUTPUTS = {
    "energy": {"level": "system", "property": "energy"},
    "forces": {
        "level": "atom", "property": "forces",
        "train_on_free_atoms": True, "eval_on_free_atoms": True,
    },
    "stress": {
        "level": "system", "property": "stress",
        "decomposition": {
            "stress_isotropic": {"irrep_dim": 0}, "stress_anisotropic": {"irrep_dim": 2},
        },
    },
}  # fmt: skip


def content(seed: int = 0, smooth: bool = False, **changes) -> dict:
    """Return the content of a checkpoint; `changes` are options of the backbone."""
    options = BACKBONE | changes
    fairchem = official()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Module()
        model.backbone = fairchem.Backbone(**options)
        model.output_heads = torch.nn.ModuleDict(
            {
                "energy": fairchem.ScalarHead(model.backbone),
                "forces": fairchem.VectorHead(model.backbone),
                "stress": fairchem.TensorHead(
                    model.backbone, **{k: v for k, v in HEADS["stress"].items() if k != "module"}
                ),
            }
        )
    if smooth:
        _smooth(model)
    numbers = {"energy": (-0.1, 4.0), "forces": (0.0, 2.0), "stress_isotropic": (0.01, 0.05),
               "stress_anisotropic": (0.0, 0.05)}  # fmt: skip
    return {
        "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()},
        "normalizers": {
            name: {"mean": torch.tensor(mean), "rmsd": torch.tensor(rmsd)}
            for name, (mean, rmsd) in numbers.items()
        },
        "elementrefs": {"energy": {"element_references": torch.linspace(0.0, -6.0, 119)}},
        "config": {
            "task": {}, "trainer": "equiformerv2_forces", "outputs": OUTPUTS,
            "model": {
                "name": "hydra", "pass_through_head_outputs": True, "otf_graph": True,
                "backbone": {"model": "equiformer_v2_backbone", **options}, "heads": HEADS,
            },
            "loss_functions": [{"energy": {"fn": "mae", "coefficient": 1}}],
            "evaluation_metrics": {"primary_metric": "energy_mae", "metrics": {"energy": ["mae"]}},
            "optim": {"batch_size": 8, "lr_initial": 2e-4, "optimizer": "AdamW", "max_epochs": 1},
            "cmd": {"identifier": "tiny", "seed": 0, "version": "1.10.0"},
            "dataset": {"format": "ase_db", "src": "/none"}, "amp": False, "slurm": {},
        },
        "epoch": 1, "step": 1, "optimizer": {}, "scheduler": None, "amp": None,
    }  # fmt: skip


def written(path, **options):
    """Write such a checkpoint; return its path."""
    torch.save(content(**options), path)
    return path


def _smooth(model, width: float = 25.0) -> None:
    k = torch.arange(600.0)
    blur = torch.exp(-0.5 * ((k[:, None] - k) / width) ** 2)
    blur = blur / blur.pow(2).sum(1, keepdim=True).sqrt()
    for name, weight in model.named_parameters():
        if name.endswith("rad_func.net.0.weight"):
            weight.data[:, :600] = 0.15 * weight.data[:, :600] @ blur.T


class Anything:
    """A class to subclass, a function to call, a decorator: for packages of training alone."""

    def __new__(cls, *args, **_):
        return args[0] if args and callable(args[0]) else super().__new__(cls)


def official_calculator(path):
    """Return the ASE calculator of fairchem for a checkpoint, on the CPU."""
    official()
    missing = {
        "wandb": ("Settings",), "numba": ("njit", "jit"), "lmdb": ("Environment",),
        "submitit": ("AutoExecutor",), "submitit.core": (), "submitit.core.utils": ("JobPaths",
        "cloudpickle_dump"), "torch.utils.tensorboard": ("SummaryWriter",),
    }  # fmt: skip
    made = {}
    for name, contents in missing.items():
        parent = name.rpartition(".")[0]
        absent = parent in made or importlib.util.find_spec(name.partition(".")[0]) is None
        if absent or name == "torch.utils.tensorboard":
            made[name] = types.ModuleType(name)
            made[name].__path__ = []
            made[name].__dict__.update(dict.fromkeys(contents, Anything))
    sys.modules.update(made)
    try:
        import fairchem.core.models.base
        import fairchem.core.models.equiformer_v2.trainers.forces_trainer  # noqa: F401
        from fairchem.core.common.registry import registry
        from fairchem.core.common.relaxation.ase_utils import OCPCalculator
    finally:
        for name in made:
            del sys.modules[name]
    # Its own set-up imports every model, and with them packages that are not here.
    registry.register("imports_setup", True)
    return OCPCalculator(checkpoint_path=str(path), cpu=True, seed=0)
