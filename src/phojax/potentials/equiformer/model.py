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

Given the same random vectors, values in float32 equal those of the official calculator: bit for
bit while the weights require gradients, as they do there, and to the last digits when frozen, as
they are here (torch then orders some products differently).
"""

import threading
from dataclasses import dataclass
from types import SimpleNamespace

from phojax.checks import fail
from phojax.potentials.equiformer.checkpoint import SCALAR, TENSOR, VECTOR, Checkpoint
from phojax.potentials.equiformer.gauge import Settings, edge_vectors
from phojax.potentials.equiformer.network import network
from phojax.potentials.equiformer.official import official
from phojax.potentials.equiformer.rotation import carried_frames

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
            with Settings(dtype=torch.float32):
                edges, offsets, _ = _FAIRCHEM.radius_graph(
                    near, self.network.radius, self.network.neighbors, self.network.strict
                )
            images = offsets.long()
            self._check_degrees(edges, len(positions))
            vector = self._vectors(cell, positions, edges, images, wraps)
            along = images + (wraps[edges[0]] - wraps[edges[1]]).long()
            drawn = edge_vectors(self.gauge, torch.cat([edges, along.T]))
            chosen = drawn if vectors is None else vectors
            with Settings(vectors=chosen.to(self.device, self.dtype)):
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

        Raises:
            InputError: an element it does not know, or an atom without a neighbour.
        """
        numbers = numbers.to(self.device).long()
        self._check_numbers(numbers)
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

    def _check_numbers(self, numbers) -> None:
        low, high = int(numbers.min()), int(numbers.max())
        if low < 1 or high > self.network.highest:
            raise fail(
                f"numbers run from {low} to {high}",
                f"atomic numbers from 1 to {self.network.highest}",
            )

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

    def _energy(self, found, data):
        energy = self._scaled(found, self.network.targets[SCALAR]).view(1)
        if self._references is not None:
            each = self._references[data.atomic_numbers]
            energy = energy.index_add(0, data.batch, each)
        return energy.reshape(())

    def _forces(self, found):
        return self._scaled(found, self.network.targets[VECTOR])

    def _stress(self, found, wanted: bool):
        name = self.network.targets.get(TENSOR)
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


__all__ = ["Equiformer", "Graph"]
