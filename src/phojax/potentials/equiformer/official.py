"""The modules of fairchem-core 1.10.0 that EquiformerV2 consists of, imported without the rest.

`import fairchem.core` also brings in training, data bases and downloads, and fails where their
packages are absent. None of that is needed here: packages that are missing are replaced by empty
stand-ins while the import runs, and the stand-ins are taken out again. A package that is
installed is never replaced. The one function that is needed, torch_scatter's sum over indices,
is written out below.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
import threading
import types
from typing import Any

from phojax.checks import InputError, fail

VERSION = "1.10.0"
INSTALL = (
    "pip install --no-deps fairchem-core==1.10.0 e3nn==0.6.0 opt_einsum_fx==0.1.4 "
    "torch-geometric==2.8.1 psutil xxhash   (beside torch; --no-deps because fairchem-core "
    "1.10.0 asks for numpy 1)"
)
_NEEDED = ("torch", "fairchem", "e3nn", "opt_einsum_fx", "torch_geometric", "psutil", "xxhash")
_PACKAGE = "fairchem.core.models.equiformer_v2"
_IMPORTING = threading.Lock()


def official() -> types.SimpleNamespace:
    """Return the classes and functions of fairchem-core that make up EquiformerV2.

    Raises:
        InputError: a package that is needed is not installed, or fairchem-core is another
            version; the message quotes the line that installs it.
    """
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise fail(
            f"{', '.join(absent)} not installed", "the packages that EquiformerV2 runs on", INSTALL
        )
    version = importlib.metadata.version("fairchem-core")
    if version != VERSION:
        raise fail(
            f"fairchem-core is version {version}",
            f"{VERSION}, the last one with EquiformerV2 (2.x has other models)",
            INSTALL,
        )
    try:
        with _IMPORTING:
            return _modules()
    except ImportError as error:
        raise InputError(f"fairchem-core cannot be imported: {error}. {INSTALL}") from error


def _modules() -> types.SimpleNamespace:
    stand_ins = _stand_ins()
    sys.modules.update(stand_ins)
    try:
        # e3nn must come first: fairchem only looks for it among the loaded modules.
        o3 = importlib.import_module("e3nn.o3")
        backbone = importlib.import_module(f"{_PACKAGE}.equiformer_v2")
        heads = importlib.import_module(f"{_PACKAGE}.heads")
        base = importlib.import_module("fairchem.core.models.base")
        utils = importlib.import_module("fairchem.core.common.utils")
        frames = importlib.import_module(f"{_PACKAGE}.edge_rot_mat")
        so3 = importlib.import_module(f"{_PACKAGE}.so3")
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    return types.SimpleNamespace(
        Backbone=backbone.EquiformerV2Backbone,
        ScalarHead=heads.EqV2ScalarHead,
        VectorHead=heads.EqV2VectorHead,
        TensorHead=heads.Rank2SymmetricTensorHead,
        GraphData=base.GraphData,
        Rotation=so3.SO3_Rotation,
        wigner_D=so3.wigner_D,
        radius_graph=utils.radius_graph_pbc,
        tensor_basis=utils.cg_change_mat,
        edge_frames=frames.init_edge_rot_mat,
        ToS2Grid=o3.ToS2Grid,
        FromS2Grid=o3.FromS2Grid,
    )


def _stand_ins() -> dict[str, types.ModuleType]:
    """Return stand-ins for the packages that are absent; nothing in them is called but scatter."""
    contents: dict[str, dict[str, Any]] = {
        "torch_scatter": {"scatter": scatter},
        "lmdb": {},
        "huggingface_hub": {"hf_hub_download": None},
        "pydantic": {"AnyUrl": str, "BaseModel": types.SimpleNamespace},
    }
    made = {}
    for name, content in contents.items():
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            made[name] = types.ModuleType(name)
            made[name].__dict__.update(content)
    return made


def scatter(src, index, dim: int = -1, out=None, dim_size: int | None = None, reduce: str = "sum"):
    """Return sums or means of the slices of `src` that share an index (1-d) along `dim`.

    The part of torch_scatter.scatter that the stress head uses, differentiable to any order.

    Raises:
        NotImplementedError: any other use.
    """
    if out is not None or reduce not in ("sum", "add", "mean") or index.dim() != 1:
        raise NotImplementedError(
            "torch_scatter is not installed: only sums and means of a 1-d index"
        )
    size = int(index.max()) + 1 if dim_size is None else dim_size
    dim = dim % src.dim()
    shape = (*src.shape[:dim], size, *src.shape[dim + 1 :])
    total = src.new_zeros(shape).index_add(dim, index, src)
    if reduce != "mean":
        return total
    count = src.new_zeros(size).index_add(0, index, src.new_ones(len(index))).clamp(min=1)
    return total / count.view([-1 if axis == dim else 1 for axis in range(src.dim())])
