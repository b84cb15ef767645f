"""The weights of EquiformerV2, rearranged for reading from a checkpoint.

Matrices act from the right (x W). The first matrix of a radial function sees the distance and the
elements at both ends of an edge; the part of the elements is multiplied out into one row for each
element. Blocks are stacked along a first axis. What the file repeats for convenience (grids, maps
of indices) is not read.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phojax.checks import fail
from phojax.potentials.equiformer_v2.checkpoint import SCALAR, TENSOR, VECTOR, Checkpoint, Head

GAUSSIANS = 600
_NORMS = ("layer_norm_sh", "rms_norm_sh", "layer_norm")
# What the code takes for granted, and what the official code takes where it is not said.
_FIXED = {
    "use_s2_act_attn": (False, False),
    "use_attn_renorm": (True, True),
    "use_gate_act": (False, False),
    "use_grid_mlp": (True, False),
    "use_sep_s2_act": (True, True),
    "use_m_share_rad": (False, False),
    "distance_function": ("gaussian", "gaussian"),
    "use_energy_lin_ref": (False, False),
}
# Of training alone, or of how the official code does what it does.
_IDLE = {
    "use_pbc", "use_pbc_single", "regress_forces", "otf_graph", "num_sphere_samples",
    "num_distance_basis", "attn_activation", "ffn_activation", "alpha_drop", "drop_path_rate",
    "proj_drop", "weight_init", "load_energy_lin_ref", "activation_checkpoint",
    "direct_forces", "regress_stress",
}  # fmt: skip
_BUFFERS = re.compile(
    r"(^|\.)(SO3_grid|SO3_rotation|mappingReduced)\.|(^|\.)(expand_index|balance_degree_weight)$"
    r"|^backbone\.(distance_expansion\.offset|energy_lin_ref)$"
)
_TENSOR_OPTIONS = {
    "output_name": "stress", "decompose": False, "edge_level_mlp": False, "num_mlp_layers": 2,
    "use_source_target_embedding": False, "extensive": False, "avg_num_nodes": 1.0,
    "default_norm_type": "layer_norm_sh",
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """What the weights do not say by their shapes (names as in fairchem's configuration)."""

    lmax: int
    mmax: int
    layers: int
    channels: int
    hidden: int
    heads: int
    alpha: int
    value: int
    ffn: int
    edge: int
    elements: int
    resolution: int | None
    norm: str
    radius: float
    neighbors: int
    strict: bool
    atoms: float
    degree: float
    embedded: bool
    shared: bool
    mean: bool
    width: float
    stress: bool
    pair: bool


def network(given: Checkpoint, dtype: str | None = None) -> tuple[Architecture, Any]:
    """Return the architecture and the parameters, by default in the widest float JAX is set to.

    Raises:
        InputError: options that this code does not have, or weights that are missing, unknown or
            of another shape.
    """
    heads = {head.kind: head for head in given.heads}
    architecture = _architecture(given, heads)
    real = jnp.dtype(dtype) if dtype else jnp.result_type(float)
    state = _State(given.state, real)
    params = parameters(architecture, heads, state)
    state.check()
    params["scales"] = _scales(given, heads)
    references = given.references
    params["references"] = np.zeros(architecture.elements) if references is None else references
    if len(params["references"]) < architecture.elements:
        raise fail(
            f"{len(params['references'])} element references",
            f"one for each of the {architecture.elements} atomic numbers",
        )
    return architecture, jax.tree.map(lambda leaf: jnp.asarray(leaf, real), params)


def _architecture(given: Checkpoint, heads: dict[str, Head]) -> Architecture:
    o = dict(given.backbone)
    for name, (needed, default) in _FIXED.items():
        if o.pop(name, default) != needed:
            raise fail(
                f"a checkpoint with {name}={given.backbone.get(name, default)!r}",
                f"{needed!r}, as in the models of OMat24",
                "equiformer-torch:FILE.pt takes it, with fairchem-core 1.10.0",
            )
    l, m = o.pop("lmax_list", [6]), o.pop("mmax_list", [2])
    if len(l) != 1 or len(m) != 1 or not 0 < m[0] <= l[0]:
        raise fail(f"lmax_list {l}, mmax_list {m}", "one lmax, one mmax of at most lmax")
    norm = o.pop("norm_type", "rms_norm_sh")
    if norm not in _NORMS:
        raise fail(f"norm_type {norm!r}", f"one of {', '.join(_NORMS)}")
    tensor = _tensor_options(heads.get(TENSOR))
    scalar = {"output_name": "energy", "reduce": "sum"} | heads[SCALAR].options
    width = _width(given)
    made = Architecture(
        lmax=int(l[0]), mmax=int(m[0]), norm=norm, width=width,
        layers=int(o.pop("num_layers", 12)), channels=int(o.pop("sphere_channels", 128)),
        hidden=int(o.pop("attn_hidden_channels", 128)), heads=int(o.pop("num_heads", 8)),
        alpha=int(o.pop("attn_alpha_channels", 32)), value=int(o.pop("attn_value_channels", 16)),
        ffn=int(o.pop("ffn_hidden_channels", 512)), edge=int(o.pop("edge_channels", 128)),
        elements=int(o.pop("max_num_elements", 90)), resolution=o.pop("grid_resolution", None),
        radius=float(o.pop("max_radius", 5.0)), neighbors=int(o.pop("max_neighbors", 500)),
        strict=bool(o.pop("enforce_max_neighbors_strictly", True)),
        # Where they are not said: means over the data of OC20, as in the official code.
        atoms=float(o.pop("avg_num_nodes", None) or 77.81317),
        degree=float(o.pop("avg_degree", None) or 23.395238876342773),
        embedded=bool(o.pop("use_atom_edge_embedding", True)),
        shared=bool(o.pop("share_atom_edge_embedding", False)),
        mean=scalar.pop("reduce") == "mean",
        stress=tensor is not None, pair=bool(tensor and tensor["use_source_target_embedding"]),
    )  # fmt: skip
    unknown = sorted(set(o) - _IDLE) + sorted(set(scalar) - {"output_name"})
    unknown += sorted(set(heads[VECTOR].options) - {"output_name"})
    if unknown:
        raise fail(f"a checkpoint with the options {', '.join(unknown)}", "options that are known")
    return made


def _tensor_options(head: Head | None) -> dict[str, Any] | None:
    """Return the options of the stress head; None where there is none that can be used."""
    if head is None:
        return None
    options = _TENSOR_OPTIONS | head.options
    for name, needed in {"edge_level_mlp": False, "num_mlp_layers": 2, "extensive": False}.items():
        if options[name] != needed:
            raise fail(f"a stress head with {name}={options[name]!r}", f"{needed!r}")
    if set(options) != set(_TENSOR_OPTIONS):
        raise fail(f"a stress head with the options {sorted(options)}", f"{list(_TENSOR_OPTIONS)}")
    if not options["decompose"]:
        raise fail("a stress head with decompose=False", "one with isotropic and other parts")
    return options


def _width(given: Checkpoint) -> float:
    """Return the exponent of the Gaussians, -1/2σ² with σ two of their spacings in float32."""
    centres = given.state.get("backbone.distance_expansion.offset")
    if centres is None or centres.shape != (GAUSSIANS,):
        raise fail("a checkpoint without the centres of its Gaussians", f"{GAUSSIANS} of them")
    centres = centres.astype(np.float32)
    return -0.5 / float(np.float32(2.0) * (centres[1] - centres[0])) ** 2


def _scales(given: Checkpoint, heads: dict[str, Head]) -> dict[str, Any]:
    """Return (rmsd, mean) of energy, forces and the two parts of the stress."""
    names = {
        "energy": heads[SCALAR].options.get("output_name", "energy"),
        "forces": heads[VECTOR].options.get("output_name", "forces"),
    }
    stress = heads[TENSOR].options.get("output_name", "stress") if TENSOR in heads else "stress"
    names |= {part: f"{stress}_{part}" for part in ("isotropic", "anisotropic")}
    found = {}
    for target, name in names.items():
        mean, rmsd = given.scales.get(name, (np.zeros(()), np.ones(())))
        found[target] = (rmsd, mean)
    return found


class _State:
    """The weights of a file, of which it is known which have been read."""

    def __init__(self, weights: dict[str, np.ndarray], dtype: Any) -> None:
        self._weights, self._dtype = weights, dtype
        self._read, self._missing, self._misshapen = set(), [], []

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        found = self._weights.get(name)
        if found is None:
            self._missing.append(name)
        elif found.shape != shape:
            self._misshapen.append(name)
        else:
            self._read.add(name)
            return found.astype(self._dtype)
        return np.zeros(shape, self._dtype)

    def check(self) -> None:
        """Raise InputError unless all weights were there and all that are there were read."""
        bad = {*self._read, *self._misshapen}
        left = [name for name in self._weights if name not in bad and not _BUFFERS.search(name)]
        wrong = {"missing": self._missing, "unknown": left, "of another shape": self._misshapen}
        for what, names in wrong.items():
            if names:
                raise fail(
                    f"the checkpoint has {len(names)} weights {what}: "
                    f"{', '.join(sorted(names)[:3])}" + (", …" if len(names) > 3 else ""),
                    f"the {len(self._read)} weights and more that its config describes",
                    "The file is incomplete, or of another version of the model",
                )


def parameters(
    a: Architecture, heads: dict[str, Head], read: Callable[..., np.ndarray]
) -> dict[str, Any]:
    """Return the parameters, each weight being read by (name in the file, *shape)."""

    def linear(name: str, inputs: int, outputs: int, bias: bool = True):
        made = {"matrix": read(f"{name}.weight", outputs, inputs).T}
        return made | ({"bias": read(f"{name}.bias", outputs)} if bias else {})

    def scaled(name: str, size: int):
        return {"scale": read(f"{name}.weight", size), "shift": read(f"{name}.bias", size)}

    def degreewise(name: str, inputs: int, outputs: int):
        weight = read(f"{name}.weight", a.lmax + 1, outputs, inputs)
        return {"matrix": weight.swapaxes(1, 2), "bias": read(f"{name}.bias", outputs)}

    def norm(name: str, size: int = a.channels):
        if a.norm == "layer_norm_sh":
            return scaled(f"{name}.norm_l0", size) | {
                "degrees": read(f"{name}.affine_weight", a.lmax, size)
            }
        return {
            "degrees": read(f"{name}.affine_weight", a.lmax + 1, size),
            "shift": read(f"{name}.affine_bias", size),
        }

    def tables(name: str):
        if not a.embedded:
            return None
        name = "backbone" if a.shared else name
        ends = ("source_embedding", "target_embedding")
        return [read(f"{name}.{end}.weight", a.elements, a.edge) for end in ends]

    def radial(name: str, outputs: int, ends):
        inputs = GAUSSIANS + (2 * a.edge if ends else 0)
        first = linear(f"{name}.net.0", inputs, a.edge)
        distance, *of_ends = np.split(first["matrix"], [GAUSSIANS, GAUSSIANS + a.edge])
        made: dict[str, Any] = {"distance": {"matrix": distance, "bias": first["bias"]}}
        if ends:
            made["ends"] = tuple(
                e.astype(float) @ w.astype(float) for e, w in zip(ends, of_ends, strict=True)
            )
        return made | {
            "norms": tuple(scaled(f"{name}.net.{k}", a.edge) for k in (1, 4)),
            "middle": linear(f"{name}.net.3", a.edge, a.edge),
            "last": linear(f"{name}.net.6", a.edge, outputs),
        }

    def convolution(name: str, inputs: int, outputs: int, extra: int):
        degrees = a.lmax + 1
        made = [linear(f"{name}.fc_m0", degrees * inputs, extra + degrees * outputs)]
        for m in range(1, a.mmax + 1):
            n = a.lmax - m + 1
            at = f"{name}.so2_m_conv.{m - 1}.fc"
            made.append(linear(at, n * inputs, 2 * n * outputs, bias=False))
        return tuple(made)

    def attention(name: str, outputs: int):
        both = 2 * a.channels
        per_edge = both * sum(a.lmax - m + 1 for m in range(a.mmax + 1))
        extra = a.heads * a.alpha + a.hidden
        return {
            "radial": radial(f"{name}.so2_conv_1.rad_func", per_edge, tables(name)),
            "first": convolution(f"{name}.so2_conv_1", both, a.hidden, extra),
            "second": convolution(f"{name}.so2_conv_2", a.hidden, a.heads * a.value, 0),
            "alpha_norm": scaled(f"{name}.alpha_norm", a.alpha),
            "alpha_dot": read(f"{name}.alpha_dot", a.heads, a.alpha),
            "project": degreewise(f"{name}.proj", a.heads * a.value, outputs),
        }

    def feed_forward(name: str, outputs: int):
        grid = [f"{name}.grid_mlp.{k}" for k in (0, 2, 4)]
        return {
            "scalar": linear(f"{name}.scalar_mlp.0", a.channels, a.ffn),
            "first": degreewise(f"{name}.so3_linear_1", a.channels, a.ffn),
            "grid": tuple(linear(at, a.ffn, a.ffn, bias=False)["matrix"] for at in grid),
            "second": degreewise(f"{name}.so3_linear_2", a.ffn, outputs),
        }

    def block(k: int):
        at = f"backbone.blocks.{k}"
        return {
            "norm_1": norm(f"{at}.norm_1"), "attention": attention(f"{at}.ga", a.channels),
            "norm_2": norm(f"{at}.norm_2"), "feed_forward": feed_forward(f"{at}.ffn", a.channels),
        }  # fmt: skip

    def stress(name: str):
        size = a.channels * (2 if a.pair else 1)
        parts = {"isotropic": "scalar_MLP", "anisotropic": "irrep2_MLP"}
        return {
            "harmonics": norm(f"{name}.sphharm_norm", 1),
            "norm": scaled(f"{name}.xedge_layer_norm", size),
            **{
                part: (
                    linear(f"{name}.block.{at}.0", size, size),
                    linear(f"{name}.block.{at}.2", size, 1),
                )
                for part, at in parts.items()
            },
        }

    degree = "backbone.edge_degree_embedding"
    named = {kind: f"output_heads.{head.name}" for kind, head in heads.items()}
    blocks = [block(k) for k in range(a.layers)]
    made = {
        "centres": read("backbone.distance_expansion.offset", GAUSSIANS),
        "embedding": read("backbone.sphere_embedding.weight", a.elements, a.channels),
        "degree": radial(f"{degree}.rad_func", (a.lmax + 1) * a.channels, tables(degree)),
        "blocks": jax.tree.map(lambda *parts: np.stack(parts), *blocks),
        "norm": norm("backbone.norm"),
        "energy": feed_forward(f"{named[SCALAR]}.energy_block", 1),
        "forces": attention(f"{named[VECTOR]}.force_block", 1),
    }
    return made | ({"stress": stress(named[TENSOR])} if a.stress else {})


__all__ = ["GAUSSIANS", "Architecture", "network", "parameters"]
