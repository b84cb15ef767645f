"""EquiformerV2 by the official fairchem code, with derivatives that are right.

The network predicts an energy, forces and a stress of its own heads; forces are not gradients
of the energy. With the raw outputs y,

    E = y_E·rmsd + mean + Σ_i ref[Z_i],   F = y_F·rmsd + mean,   σ = B (s₀, 0, s₂)          (1)

where s₀ and s₂ are the scaled isotropic and anisotropic parts of the stress and B the change of
basis to Cartesian components. The network reads the crystal through its edges only: for an edge
from atom j in image T to atom i the vector r = x_j + T·A − x_i, its length and the rotation
into its frame (see `rotation`). Edges are found by the official search, in float32 whatever the
precision of the network: within the radius, the nearest `max_neighbors` of each atom and all
that lie within 0.01 Å² (squared distance) of the next one. That set changes abruptly; a
derivative is one at a given `Graph`, and a finite difference is either at the same Graph or with
Graphs made anew: two different numbers.

In float32 values equal those of the official calculator bit for bit where random vectors are the
same. In float64 the weights, scales and Gaussian centres are those of the file; grids, rotation
matrices and weights of degrees, which approximate numbers of mathematics, are exact.
"""

import math
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from phojax.checks import fail
from phojax.potentials.equiformer.checkpoint import SCALAR, TENSOR, VECTOR, Checkpoint, Head
from phojax.potentials.equiformer.gauge import Settings, edge_vectors
from phojax.potentials.equiformer.official import official
from phojax.potentials.equiformer.rotation import Carried, carried_frames, generators

try:
    import torch
except ImportError:  # told with the line that installs it
    official()
    raise

_FAIRCHEM = official()


@dataclass(frozen=True)
class Graph:
    """The edges of a crystal and their frames: what is held fixed in a derivative.

    Attributes:
        edges: (2, E) atoms j (source) and i (target).
        images: (E, 3) lattice translations T of j, counted from the positions given.
        wraps: (n, 3) translations that bring each atom into the cell.
        directions: (E, 3) unit vectors from i to j at which the frames were made.
        frames: (E, 3, 3) rotations into the frame of the edge at those directions.
    """

    edges: torch.Tensor
    images: torch.Tensor
    wraps: torch.Tensor
    directions: torch.Tensor
    frames: torch.Tensor


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
        self.kinds: dict[str, Head] = {}
        for head in sorted(made_from.heads, key=lambda head: head.name):
            self.output_heads[head.name] = _made(
                _HEADS[head.kind], f"head {head.name!r}", head.options, self.backbone
            )
            self.kinds[head.name] = head
        self.radius = float(self.backbone.max_radius)
        self.neighbors = int(self.backbone.max_neighbors)
        self.strict = bool(self.backbone.enforce_max_neighbors_strictly)
        self.highest = int(self.backbone.max_num_elements) - 1

    def name_of(self, kind: str) -> str | None:
        """Return the name of the head of that kind, if there is one that can be used."""
        for name, head in self.kinds.items():
            if head.kind == kind and (kind != TENSOR or head.options.get("decompose")):
                return name
        return None

    def outputs(self, data: Any, stress: bool) -> dict[str, torch.Tensor]:
        """Return the raw outputs by name."""
        found = {}
        try:
            with Settings(dtype=data.pos.dtype):
                embedding = self.backbone(data)
                for name, head in self.output_heads.items():
                    if self.kinds[name].kind != TENSOR:
                        found |= head(data, embedding)
                    elif stress and name == self.name_of(TENSOR):
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
    if dtype == torch.float64:
        made = made.double()
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
            grid.to_grid_mat = (torch.einsum("mbi,am->bai", to.shb, to.sha) * gain)[..., kept]
            grid.from_grid_mat = (torch.einsum("am,mbi->bai", back.sha, back.shb) * gain)[..., kept]
    for module in made.modules():
        near = getattr(module, "balance_degree_weight", None)
        if near is not None:
            # Each is 1 / an integer.
            module.balance_degree_weight = 1 / torch.round(1 / near)


class Equiformer:
    """EquiformerV2 in one precision, on one device, with frames fixed by one seed.

    Attributes:
        network: The network.
        gauge: The seed of the frames.
        dtype, device: Of the network; what comes in is cast.
    """

    def __init__(
        self,
        made_from: Checkpoint,
        *,
        dtype: str = "float64",
        device: str | torch.device = "cpu",
        gauge: int = 0,
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise fail(f"dtype is {dtype!r}", "'float32' or 'float64'")
        self.dtype, self.device, self.gauge = getattr(torch, dtype), torch.device(device), gauge
        self.network = network(made_from, self.dtype, self.device)
        self.fingerprint = made_from.fingerprint
        self._lock = threading.Lock()
        self._scales = {
            name: (mean.to(self.device, self.dtype), rmsd.to(self.device, self.dtype))
            for name, (mean, rmsd) in made_from.scales.items()
        }
        references = made_from.references
        self._references = None if references is None else references.to(self.device, self.dtype)
        self._basis = _FAIRCHEM.tensor_basis(2).to(self.device, self.dtype)
        if self.dtype == torch.float64:  # rows are orthonormal: entries are ± 1/√k
            near = self._basis
            exact = near.sign() * torch.sqrt(torch.round(6 * near**2) / 6)
            self._basis = exact
        self._prime()

    def with_gauge(self, gauge: int) -> "Equiformer":
        """Return the same network, weights shared, with other frames."""
        other = object.__new__(Equiformer)
        other.__dict__ = {**self.__dict__, "gauge": gauge}
        return other

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that it knows."""
        return frozenset(range(1, self.network.highest + 1))

    def graph(self, numbers, cell, positions, *, vectors: torch.Tensor | None = None) -> Graph:
        """Return the edges and frames of a crystal, made in float32 by the official search.

        Args:
            numbers: (n,) atomic numbers.
            cell: (3, 3) Å, rows.
            positions: (n, 3) Å, anywhere.
            vectors: (E, 3) in [0, 1), in place of those of the gauge.

        Raises:
            InputError: an atom without a neighbour within the radius.
        """
        with torch.no_grad():
            cell, positions = (x.detach().to(self.device) for x in (cell, positions))
            fractional = torch.linalg.solve(cell.T.double(), positions.T.double()).T
            wraps = -torch.floor(fractional)
            inside = positions.double() + wraps @ cell.double()
            near = SimpleNamespace(
                pos=inside.float(),
                cell=cell.float()[None],
                natoms=torch.tensor([len(positions)], device=self.device),
            )
            edges, offsets, _ = _FAIRCHEM.radius_graph(
                near, self.network.radius, self.network.neighbors, self.network.strict
            )
            images = offsets.long()
            self._check_degrees(edges, len(positions))
            vector = self._vectors(cell, positions, edges, images, wraps)
            if vectors is None:
                along = images + (wraps[edges[0]] - wraps[edges[1]]).long()
                vectors = edge_vectors(self.gauge, torch.cat([edges, along.T]))
            with Settings(vectors=vectors.to(self.device, self.dtype)):
                frames = _FAIRCHEM.edge_frames(vector)
            return Graph(edges, images, wraps, _unit(vector), frames)

    def predict(self, numbers, cell, positions, stress: bool = True, graph: Graph | None = None):
        """Return energy (eV), forces (n, 3) eV/Å and stress (3, 3) eV/Å³, at `graph`.

        Differentiable in cell and positions, forward and reverse, at the graph: that of the
        point itself unless one is given. Stress is None without a stress head or if not wanted;
        its sign is ASE's (positive under tension).

        Args:
            numbers: (n,) atomic numbers.
            cell: (3, 3) Å, rows.
            positions: (n, 3) Å.
            stress: Whether to evaluate the stress.
            graph: Edges and frames of a crystal near by; frames are carried along.
        """
        numbers = numbers.to(self.device).long()
        cell, positions = cell.to(self.device), positions.to(self.device)
        fresh = graph is None
        at = self.graph(numbers, cell, positions) if graph is None else graph
        vector = self._vectors(cell, positions, at.edges, at.images, at.wraps)
        directions = _unit(vector)
        frames = at.frames
        if not fresh:
            with torch.no_grad():
                frames = carried_frames(frames, at.directions, directions.detach())
        batch = torch.zeros_like(numbers)
        data = SimpleNamespace(
            natoms=torch.full((1,), len(positions), device=self.device),
            pos=vector.new_zeros(len(positions), 3),  # only its dtype and device are read
            atomic_numbers=numbers,
            batch=batch,
            rotation=(frames, directions),
            graph=_FAIRCHEM.GraphData(
                edge_index=at.edges,
                edge_distance=vector.norm(dim=-1),
                edge_distance_vec=vector,
                cell_offsets=at.images,
                offset_distances=None,
                neighbors=None,
                batch_full=batch,
                atomic_numbers_full=numbers,
            ),
        )
        with self._lock:
            found = self.network.outputs(data, stress)
        return self._energy(found, data), self._forces(found), self._stress(found, stress)

    def _vectors(self, cell, positions, edges, images, wraps):
        """Return the vectors of the edges, in the order of operations of the official code."""
        inside = (positions.double() + wraps @ cell.double()).to(self.dtype)
        j, i = edges
        lattice = cell.to(self.dtype).expand(len(j), 3, 3)
        shifts = images.to(self.dtype).view(-1, 1, 3).bmm(lattice).view(-1, 3)
        return inside[j] - inside[i] + shifts

    def _check_degrees(self, edges, count: int) -> None:
        alone = count - int(torch.unique(edges[1]).numel())
        if alone:
            raise fail(
                f"{alone} atoms have no neighbour within {self.network.radius} Å",
                "a crystal in which every atom has one",
            )

    def _scaled(self, found, name: str):
        value = found[name]
        if name in self._scales:
            mean, rmsd = self._scales[name]
            value = value * rmsd + mean
        return value

    def _output(self, kind: str) -> str | None:
        head = self.network.name_of(kind)
        return None if head is None else self.network.output_heads[head].output_name

    def _energy(self, found, data):
        energy = self._scaled(found, self._output(SCALAR)).view(1)
        if self._references is not None:
            each = self._references[data.atomic_numbers]
            energy = energy.index_add(0, data.batch, each)
        return energy.reshape(())

    def _forces(self, found):
        return self._scaled(found, self._output(VECTOR))

    def _stress(self, found, wanted: bool):
        name = self._output(TENSOR)
        if not wanted or name is None:
            return None
        isotropic = self._scaled(found, f"{name}_isotropic").view(1, 1)
        anisotropic = self._scaled(found, f"{name}_anisotropic").view(1, 5)
        nothing = torch.zeros_like(anisotropic[:, :3])
        parts = torch.cat([isotropic, nothing, anisotropic], dim=1)
        return torch.einsum("ba,cb->ca", self._basis, parts).view(3, 3)

    def _prime(self) -> None:
        """Run once: the official modules keep index tables from their first call on."""
        like = {"device": self.device, "dtype": torch.float64}
        numbers = torch.ones(1, dtype=torch.long, device=self.device)
        with torch.no_grad():
            cell = self.network.radius / 2 * torch.eye(3, **like)
            self.predict(numbers, cell, torch.zeros(1, 3, **like), True)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm(dim=-1, keepdim=True)


__all__ = ["Equiformer", "Graph", "Network", "network"]
