"""The official network with its weights, given edges and frames instead of making its own.

Two of its parts are replaced by subclasses in the instance that is built, nothing in its modules
is changed: the backbone takes its graph and frames from the caller, and the rotation of features
is differentiated (see `rotation`).

In float64 the weights and the Gaussians are those of the file; grids, rotations and weights of
degrees, which the file holds in float32 although they are numbers of mathematics, are exact.
"""

import math
from typing import Any

from phojax.checks import fail
from phojax.potentials.equiformer.checkpoint import SCALAR, TENSOR, VECTOR, Checkpoint
from phojax.potentials.equiformer.gauge import Settings
from phojax.potentials.equiformer.official import official
from phojax.potentials.equiformer.rotation import Carried, generators

try:
    import torch
except ImportError:  # told with the line that installs it
    official()
    raise

_FAIRCHEM = official()


class _Backbone(_FAIRCHEM.Backbone):
    """The official backbone, given its graph and frames instead of making them."""

    def generate_graph(self, data, **_):
        return data.graph

    def _init_edge_rot_mat(self, data, edge_index, edge_distance_vec):
        return data.rotation


class _Rotation(_FAIRCHEM.Rotation):
    """The official rotation of features, with matrices that move with the edges."""

    def __init__(self, lmax: int) -> None:
        super().__init__(lmax)
        self.register_buffer("generators", generators(lmax), persistent=False)

    def set_wigner(self, rot_mat3x3):
        frames, directions = rot_mat3x3
        super().set_wigner(frames)
        self.wigner = Carried.apply(directions, self.wigner, self.generators)
        self.wigner_inv = self.wigner.transpose(1, 2).contiguous()

    def forget(self) -> None:
        """Drop the matrices of the last call."""
        self.wigner = self.wigner_inv = None


_HEADS = {
    SCALAR: _FAIRCHEM.ScalarHead,
    VECTOR: _FAIRCHEM.VectorHead,
    TENSOR: _FAIRCHEM.TensorHead,
}


class Network(torch.nn.Module):
    """Backbone and heads, named as in the checkpoint, in one precision on one device.

    Attributes:
        targets: Kind of head -> name of its output; a tensor head that is not decomposed into
            irreducible parts has none.
        radius: Å, of the search for edges.
        highest: The highest atomic number it knows.
        neighbors, strict: See max_neighbors and enforce_max_neighbors_strictly of the backbone.
    """

    def __init__(self, made_from: Checkpoint) -> None:
        super().__init__()
        self.backbone = _made(_Backbone, "backbone", made_from.backbone)
        self.backbone.activation_checkpoint = False  # it would run again after `forget`
        for k, rotation in enumerate(self.backbone.SO3_rotation):
            self.backbone.SO3_rotation[k] = _Rotation(rotation.lmax)
        self.output_heads = torch.nn.ModuleDict()
        self.targets: dict[str, str] = {}
        self._tensor_heads: set[str] = set()
        for head in made_from.heads:
            made = _made(_HEADS[head.kind], f"head {head.name!r}", head.options, self.backbone)
            self.output_heads[head.name] = made
            if head.kind == TENSOR:
                self._tensor_heads.add(head.name)
            if head.kind != TENSOR or head.options.get("decompose"):
                self.targets[head.kind] = str(made.output_name)
        self.radius = float(self.backbone.max_radius)
        self.neighbors = int(self.backbone.max_neighbors)
        self.strict = bool(self.backbone.enforce_max_neighbors_strictly)
        self.highest = int(self.backbone.max_num_elements) - 1

    def outputs(self, data: Any, stress: bool) -> dict[str, torch.Tensor]:
        """Return the raw outputs by name."""
        found = {}
        try:
            with Settings(dtype=data.pos.dtype):
                embedding = self.backbone(data)
                for name, head in self.output_heads.items():
                    if name not in self._tensor_heads:
                        found |= head(data, embedding)
                    elif stress:
                        with Settings(attached=True):
                            found |= head(data, embedding)
        finally:
            for rotation in self.backbone.SO3_rotation:
                rotation.forget()
        return found


def network(made_from: Checkpoint, dtype: torch.dtype, device: torch.device) -> Network:
    """Return the network of a checkpoint with its weights, frozen.

    Raises:
        InputError: options the architecture does not have, or weights of another shape.
    """
    # Initial weights are drawn and thrown away: the global generator must not notice.
    with torch.random.fork_rng(devices=[]):
        made = Network(made_from)
    _load(made, made_from.state)
    made = made.eval().requires_grad_(False)
    # The width of the Gaussians, two spacings, follows from centres in float32.
    gaussians = made.backbone.distance_expansion
    spacing = made_from.state["backbone.distance_expansion.offset"][:2].float().diff()
    gaussians.coeff = -0.5 / (2.0 * spacing).item() ** 2
    made = made.to(dtype)
    if dtype == torch.float64:
        _sharpen(made)
    return made.to(device)


def _made(kind: Any, name: str, options: dict[str, Any], *first: Any) -> Any:
    try:
        return kind(*first, **options)
    except Exception as error:
        raise fail(
            f"the checkpoint's {name} cannot be built ({type(error).__name__}: {error})",
            "options that fairchem-core 1.10.0 knows",
        ) from error


def _load(made: Network, state: dict[str, torch.Tensor]) -> None:
    own = made.state_dict()
    wrong = {
        "missing": sorted(set(own) - set(state)),
        "unknown": sorted(set(state) - set(own)),
        "of another shape": sorted(
            name for name in set(own) & set(state) if own[name].shape != state[name].shape
        ),
    }
    for what, names in wrong.items():
        if names:
            raise fail(
                f"the checkpoint has {len(names)} weights {what}: {', '.join(names[:3])}"
                + (", …" if len(names) > 3 else ""),
                f"the {len(own)} weights of the architecture that its config describes",
                "The file is incomplete, or of another version of the model",
            )
    made.load_state_dict(state)


def _sharpen(made: Network) -> None:
    """Replace the float32 approximations of numbers of mathematics by exact ones, in place."""
    backbone = made.backbone
    size = backbone.grid_resolution
    for row in backbone.SO3_grid:
        for grid in row:
            resolution = (size, size) if size else (grid.lat_resolution, grid.long_resolution)
            kept = grid.mapping.coefficient_idx(grid.lmax, grid.mmax)
            options = {"normalization": "component", "dtype": torch.float64}
            to = _FAIRCHEM.ToS2Grid(grid.lmax, resolution, **options)
            back = _FAIRCHEM.FromS2Grid(resolution, grid.lmax, **options)
            # Degrees of which only orders up to mmax are kept count for the others, too.
            gain = torch.ones((grid.lmax + 1) ** 2, dtype=torch.float64)
            for degree in range(grid.mmax + 1, grid.lmax + 1):
                gain[degree**2 : (degree + 1) ** 2] = math.sqrt(
                    (2 * degree + 1) / (2 * grid.mmax + 1)
                )
            there = torch.einsum("mbi,am->bai", to.shb, to.sha)
            and_back = torch.einsum("am,mbi->bai", back.sha, back.shb)
            and_back = and_back * _latitude_weights(there, and_back)
            grid.to_grid_mat = (there * gain)[..., kept]
            grid.from_grid_mat = (and_back * gain)[..., kept]
    for module in made.modules():
        near = getattr(module, "balance_degree_weight", None)
        if near is not None:
            # Each is 1 / an integer.
            module.balance_degree_weight = 1 / torch.round(1 / near)


def _latitude_weights(to_grid: torch.Tensor, from_grid: torch.Tensor) -> torch.Tensor:
    """Return what makes the quadrature exact: e3nn computes its weights in float32.

    Those of B latitudes θ_b = π (2b + 1) / 2B are proportional to
    sin θ_b Σ_k sin((2k + 1) θ_b) / (2k + 1), k < B/2 (Driscoll and Healy 1994), and a constant
    survives the way to the grid and back.
    """
    count = from_grid.shape[0]
    theta = math.pi * (2 * torch.arange(count, dtype=torch.float64) + 1) / (2 * count)
    odd = 2 * torch.arange(count // 2, dtype=torch.float64) + 1
    exact = torch.sin(theta) * (torch.sin(odd * theta[:, None]) / odd).sum(1)
    ratio = (exact / from_grid[:, 0, 0])[:, None, None]
    return ratio / (to_grid * from_grid * ratio)[..., 0].sum()


__all__ = ["Network", "network"]
