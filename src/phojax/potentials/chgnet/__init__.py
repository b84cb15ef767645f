"""CHGNet in JAX, with the weights of the chgnet distribution; torch is not needed."""

import os
import pathlib

from phojax.potentials.chgnet.graph import CUTOFF, bond_graph, graph_capacity
from phojax.potentials.chgnet.model import energy, mixed_energy
from phojax.potentials.chgnet.weights import checkpoint_path, parameters
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound

SMOOTHING_WIDTH = 0.03
"""Å; chosen in benchmarks/width.py: the surface is rough at 0.01 Å (see there)."""


def chgnet(path: str | os.PathLike | None = None) -> Potential:
    """Return CHGNet 0.3.0 as a potential; its energy is that of the whole cell in eV.

    Args:
        path: A checkpoint of that architecture; that of the installed chgnet by default.

    Raises:
        InputError: chgnet is not installed, or the file cannot be read as plain tensors.
    """
    file = checkpoint_path() if path is None else pathlib.Path(path)
    return Potential(
        name="chgnet",
        carries_waves=True,
        in_tiles=True,
        params=parameters(file),
        energy=energy,
        graph=bond_graph,
        capacity=graph_capacity,
        elements=frozenset(range(1, 95)),
        cutoff=CUTOFF,
        smoothing_width=SMOOTHING_WIDTH,
        mixed=_mixed,
        provenance=f"CHGNet 0.3.0 (Deng et al. 2023), {file.name}",
    )


def _mixed(elements: tuple[int, ...]):
    return Bound(mixed_energy, (elements,)), graph_capacity


__all__ = ["chgnet"]
