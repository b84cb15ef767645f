"""EquiformerV2 in JAX, from checkpoints of fairchem-core 1; torch and fairchem are not needed."""

import os
import pathlib

from phojax.potentials.contract import Potential
from phojax.potentials.equiformer_v2.checkpoint import checkpoint
from phojax.potentials.equiformer_v2.graph import edge_table, table_capacity
from phojax.potentials.equiformer_v2.model import energy, predict
from phojax.potentials.equiformer_v2.weights import Architecture, network
from phojax.potentials.pair import Bound


def equiformer_v2(
    path: str | os.PathLike, *, gauge: int = 0, dtype: str | None = None
) -> Potential:
    """Return EquiformerV2 as a potential; its forces are predicted, not gradients of its energy.

    Derivatives of any order are those at a graph, which is held; `hessian(step=…)` takes
    differences with graphs made anew, which is another number where neighbours come and go.

    Args:
        path: A checkpoint of fairchem-core 1, such as eqV2_31M_omat_mp_salex.pt.
        gauge: Which frames edges have, on which results depend weakly; the potential's
            `other_gauge` returns it with others.
        dtype: "float64" or "float32", what it computes in; by default the widest float JAX is set
            to.

    Raises:
        InputError: the file is not a checkpoint of EquiformerV2, or of one with other options.
    """
    given = checkpoint(path)
    architecture, params = network(given, dtype)
    return _potential(architecture, params, gauge, pathlib.Path(path).name, given.fingerprint)


def _potential(
    architecture: Architecture, params, gauge: int, file: str, fingerprint: str
) -> Potential:
    return Potential(
        name="equiformer",
        params=params,
        energy=Bound(energy, (architecture,)),
        predict=Bound(predict, (architecture,)),
        graph=Bound(edge_table, (architecture, gauge)),
        capacity=Bound(table_capacity, (architecture,)),
        elements=frozenset(range(1, architecture.elements)),
        cutoff=architecture.radius,
        carries_waves=True,
        provenance=f"EquiformerV2 (Liao et al. 2024), {file}, SHA-256 {fingerprint}, gauge {gauge}",
        other_gauge=lambda seed: _potential(architecture, params, seed, file, fingerprint),
    )


__all__ = ["equiformer_v2"]
