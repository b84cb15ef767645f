"""Small checkpoints of EquiformerV2 with random weights, written without torch.

The weights are named as fairchem names them (`tiny_equiformer` writes such files with fairchem
itself). Radial functions vary over half an Ångström, so that finite differences mean something.
"""

import io
import pickle
import sys
import types
import zipfile
from dataclasses import asdict

import numpy as np
import pytest

from phojax.potentials.equiformer_v2.checkpoint import SCALAR, TENSOR, VECTOR, Head
from phojax.potentials.equiformer_v2.weights import GAUSSIANS, Architecture, parameters

SMALL = Architecture(
    lmax=2, mmax=1, layers=2, channels=4, hidden=4, heads=2, alpha=4, value=3, ffn=4, edge=6,
    elements=20, resolution=8, norm="layer_norm_sh", radius=6.0, neighbors=8, strict=False,
    atoms=31.17, degree=20.0, embedded=True, shared=False, mean=False, width=0.0, stress=True,
    pair=True,
)  # fmt: skip
HEADS = {
    "energy": {"module": "equiformer_v2_energy_head"},
    "forces": {"module": "equiformer_v2_force_head"},
    "stress": {
        "module": "rank2_symmetric_head", "output_name": "stress",
        "use_source_target_embedding": True, "decompose": True,
    },
}  # fmt: skip
_OPTIONS = {
    "layers": "num_layers", "channels": "sphere_channels", "hidden": "attn_hidden_channels",
    "heads": "num_heads", "alpha": "attn_alpha_channels", "value": "attn_value_channels",
    "ffn": "ffn_hidden_channels", "edge": "edge_channels", "elements": "max_num_elements",
    "resolution": "grid_resolution", "norm": "norm_type", "radius": "max_radius",
    "neighbors": "max_neighbors", "strict": "enforce_max_neighbors_strictly",
    "atoms": "avg_num_nodes", "degree": "avg_degree", "embedded": "use_atom_edge_embedding",
    "shared": "share_atom_edge_embedding",
}  # fmt: skip


def weights(a: Architecture, seed: int = 0, size: float = 2.0) -> dict[str, np.ndarray]:
    """Return random weights by their names; `size` is that of matrices over the usual one."""
    rng, state = np.random.default_rng(seed), {}

    def drawn(name: str, *shape: int) -> np.ndarray:
        if name.endswith("offset"):
            state[name] = np.linspace(0, a.radius, *shape, dtype=np.float32)
        elif name not in state:
            scale = "norm" in name or name.endswith(("net.1.weight", "net.4.weight"))
            values = rng.uniform(-1, 1, shape) * size / np.sqrt(shape[-1] if len(shape) > 1 else 9)
            values = 1 + 0.1 * values if scale and not name.endswith("bias") else values
            if name.endswith("rad_func.net.0.weight"):
                values[:, :GAUSSIANS] = 0.15 * values[:, :GAUSSIANS] @ _blur()
            state[name] = values.astype(np.float32)
        return state[name].astype(float)

    kinds = {"energy": SCALAR, "forces": VECTOR} | ({"stress": TENSOR} if a.stress else {})
    heads = {kind: Head(name, kind, {}) for name, kind in kinds.items()}
    parameters(a, heads, drawn)
    return state


def _blur(width: float = 25.0) -> np.ndarray:
    k = np.arange(float(GAUSSIANS))
    blur = np.exp(-0.5 * ((k[:, None] - k) / width) ** 2)
    return blur / np.sqrt((blur**2).sum(1, keepdims=True))


def content(a: Architecture = SMALL, seed: int = 0) -> dict:
    """Return what a checkpoint of that network holds."""
    given = asdict(a)
    backbone = {option: given[name] for name, option in _OPTIONS.items()}
    backbone |= {"model": "equiformer_v2_backbone", "lmax_list": [a.lmax], "mmax_list": [a.mmax],
                 "use_grid_mlp": True, "use_pbc": True}  # fmt: skip
    heads = HEADS if a.stress else {k: HEADS[k] for k in ("energy", "forces")}
    numbers = {"energy": (-0.1, 4.0), "forces": (0.0, 2.0), "stress_isotropic": (0.01, 0.05),
               "stress_anisotropic": (0.0, 0.05)}  # fmt: skip
    return {
        "state_dict": {f"module.{name}": x for name, x in weights(a, seed).items()},
        "normalizers": {
            name: {"mean": np.float32(mean) * np.ones(1, np.float32), "rmsd": rmsd}
            for name, (mean, rmsd) in numbers.items()
        },
        "elementrefs": {"energy": {"element_references": np.linspace(0.0, -6.0, 119)}},
        "config": {"model": {"name": "hydra", "backbone": backbone, "heads": heads}},
    }


class _FloatStorage:
    pass


class _DoubleStorage:
    pass


def _rebuild(*_):
    pass


class _Pickler(pickle.Pickler):
    """Writes arrays as torch writes tensors, and their values into an archive."""

    def __init__(self, buffer, archive: zipfile.ZipFile) -> None:
        super().__init__(buffer, protocol=2)
        self._archive, self._count = archive, 0

    def persistent_id(self, obj):
        if not isinstance(obj, memoryview):
            return None
        key, values = str(self._count), np.asarray(obj)
        self._count += 1
        self._archive.writestr(f"archive/data/{key}", values.tobytes())
        kind = _FloatStorage if values.dtype == np.float32 else _DoubleStorage
        return "storage", kind, key, "cpu", values.size

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray):
            dense = np.ascontiguousarray(obj)
            strides = tuple(step // dense.itemsize for step in dense.strides)
            flat = memoryview(dense.reshape(-1))
            return _rebuild, (flat, 0, dense.shape, strides, False, None)
        return NotImplemented


def written(path, given: dict | None = None, **options):
    """Write a checkpoint as torch does; return its path."""
    named = {_FloatStorage: "FloatStorage", _DoubleStorage: "DoubleStorage"}
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind, name in named.items():
        kind.__module__, kind.__qualname__ = "torch", name
        setattr(torch, name, kind)
    _rebuild.__module__, _rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(path, "w") as archive:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        _Pickler(buffer, archive).dump(content(**options) if given is None else given)
        archive.writestr("archive/data.pkl", buffer.getvalue())
    return path
