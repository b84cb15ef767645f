"""Nequix in JAX, from the files of its releases; the nequix package is not needed."""

import os
import pathlib

from phojax.checks import fail
from phojax.potentials.contract import Potential
from phojax.potentials.nequix.download import RELEASES, released_file, sha256
from phojax.potentials.nequix.graph import neighbor_table, table_capacity
from phojax.potentials.nequix.model import energy, mixed_energy
from phojax.potentials.nequix.weights import Architecture, network
from phojax.potentials.pair import Bound


def nequix(source: str | os.PathLike = "oam-1-pft") -> Potential:
    """Return a Nequix model as a potential; its energy is that of the whole cell in eV.

    Args:
        source: The name of a release (`download.RELEASES`), looked for in the cache folder
            ($PHOJAX_CACHE, else phojax/ in the user's), else downloaded into it; or the path of
            a .nqx file.

    Raises:
        InputError: a release that cannot be had, or a file that cannot be read as such a network.
    """
    named = isinstance(source, str) and source in RELEASES
    if not named and not pathlib.Path(source).is_file():
        raise fail(
            f"Nequix {os.fspath(source)!r}",
            f"a file that exists, or one of {', '.join(RELEASES)}",
        )
    path = released_file(str(source)) if named else pathlib.Path(source)
    sizes, params = network(path)
    return Potential(
        name=f"nequix:{source}" if named else "nequix",
        carries_waves=True,
        params=params,
        energy=Bound(energy, (sizes,)),
        graph=Bound(neighbor_table, (sizes.cutoff,)),
        capacity=Bound(table_capacity, (sizes.cutoff,)),
        elements=frozenset(sizes.numbers),
        cutoff=sizes.cutoff,
        mixed=Bound(_mixed, (sizes,)),
        provenance=f"Nequix (Koker et al. 2025), {path.name}, SHA-256 {sha256(path)}",
    )


def _mixed(sizes: Architecture, elements: tuple[int, ...]):
    return Bound(mixed_energy, (sizes, elements)), Bound(table_capacity, (sizes.cutoff,))


__all__ = ["nequix"]
