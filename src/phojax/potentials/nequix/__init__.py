"""Nequix in JAX, from the files of its released models; the nequix package is not needed."""

import os
import pathlib

from phojax.potentials.contract import Potential
from phojax.potentials.nequix.graph import neighbor_table, table_capacity
from phojax.potentials.nequix.model import energy
from phojax.potentials.nequix.weights import network
from phojax.potentials.pair import Bound


def nequix(source: str | os.PathLike = "oam-1-pft") -> Potential:
    path = pathlib.Path(source)
    sizes, params = network(path)
    return Potential(
        name="nequix",
        params=params,
        energy=Bound(energy, (sizes,)),
        graph=Bound(neighbor_table, (sizes.cutoff,)),
        capacity=Bound(table_capacity, (sizes.cutoff,)),
        elements=frozenset(sizes.numbers),
        cutoff=sizes.cutoff,
    )


__all__ = ["nequix"]
