"""A fairchem checkpoint of EquiformerV2 as tensors of torch, for the official code.

What it holds, and how it is read as data, says `equiformer_v2.checkpoint`.
"""

import os
from dataclasses import dataclass
from typing import Any

from phojax.checks import InputError
from phojax.potentials.equiformer.official import official
from phojax.potentials.equiformer_v2.checkpoint import SCALAR, TENSOR, VECTOR, Head
from phojax.potentials.equiformer_v2.checkpoint import checkpoint as as_arrays

try:
    import torch
except ImportError:  # told with the line that installs it
    official()
    raise


@dataclass(frozen=True)
class Checkpoint:
    """As `equiformer_v2.checkpoint.Checkpoint`, with tensors in place of arrays."""

    backbone: dict[str, Any]
    heads: tuple[Head, ...]
    state: dict[str, torch.Tensor]
    scales: dict[str, tuple[torch.Tensor, torch.Tensor]]
    references: torch.Tensor | None
    fingerprint: str


def checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Return the content of a fairchem checkpoint, checked; runs nothing from the file.

    Raises:
        InputError: as `equiformer_v2.checkpoint.checkpoint`.
    """
    given = as_arrays(path)
    return Checkpoint(
        backbone=given.backbone,
        heads=given.heads,
        state={name: torch.from_numpy(x) for name, x in given.state.items()},
        scales={
            name: (torch.as_tensor(mean), torch.as_tensor(rmsd))
            for name, (mean, rmsd) in given.scales.items()
        },
        references=None if given.references is None else torch.from_numpy(given.references),
        fingerprint=given.fingerprint,
    )


__all__ = ["SCALAR", "TENSOR", "VECTOR", "Checkpoint", "Head", "InputError", "checkpoint"]
