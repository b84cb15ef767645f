"""EquiformerV2 through the official fairchem-core 1.10.0, on torch, from a checkpoint."""

import os

from phojax.potentials.contract import Potential


def equiformer(
    path: str | os.PathLike,
    *,
    dtype: str = "float64",
    device: str | None = None,
    gauge: int = 0,
    tangents_at_a_time: int = 4,
) -> Potential:
    """Return EquiformerV2 as a potential; its forces are predicted, not gradients of its energy.

    Args:
        path: A checkpoint of fairchem-core 1, such as eqV2_31M_omat_mp_salex.pt.
        dtype: "float64" or "float32", what the network computes in.
        device: As torch names it; a GPU where there is one by default.
        gauge: Seed of the frames of the edges, on which results depend weakly; the potential's
            `other_gauge` returns it with another seed.
        tangents_at_a_time: Columns of a Jacobian that are computed together: up to two times
            faster than one by one, for as many times the memory of one.

    Raises:
        InputError: packages are missing, or the file is not a checkpoint of EquiformerV2.
    """
    from phojax.potentials.equiformer.official import official

    official()  # before torch is imported: it may be what is missing
    import pathlib

    import torch

    from phojax.potentials.equiformer.checkpoint import checkpoint
    from phojax.potentials.equiformer.model import Equiformer

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    made = Equiformer(checkpoint(path), dtype=dtype, device=device, gauge=gauge)
    return _potential(made, pathlib.Path(path).name, tangents_at_a_time)


def _potential(model, file: str, at_a_time: int) -> Potential:
    from phojax.potentials import torch_bridge

    return torch_bridge.from_forces(
        model.predict,
        name="equiformer",
        elements=model.elements,
        cutoff=model.network.radius,
        # Coordinates cross in float64; the network casts them after edges are wrapped.
        dtype="float64",
        device=str(model.device),
        provenance=f"EquiformerV2 (Liao et al. 2024), {file}, gauge {model.gauge}",
        fingerprint=model.fingerprint,
        tangents_at_a_time=at_a_time,
        other_gauge=lambda seed: _potential(model.with_gauge(seed), file, at_a_time),
    )


__all__ = ["equiformer"]
