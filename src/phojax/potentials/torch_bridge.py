"""Torch models as potentials: energies differentiated twice, predicted forces once.

`from_energy` takes a torch function E(numbers, cell, positions). One reverse pass gives the
gradients g = ∂E/∂x, G = ∂E/∂A; for second derivatives along (dx, dA) it is done once more, on
s = g·dx + G:dA, whose gradient is (dg, dG), the Hessian being symmetric.

`from_forces` takes a torch function that returns E, F and σ as they are predicted. Their change
along (dx, dA) is taken in forward mode (dual numbers), at the graph that the function makes for
the undisplaced crystal: the derivative at a frozen graph. Central differences of the forces,
`hessian(step=…)`, have the graph refreshed: where edges appear and vanish within a displacement
these are two different numbers.

One evaluation runs at a time, with as many threads as torch is set to: two of them would share
the same cores. Arrays cross over as views on a CPU; the model's own precision and device are
cast to and back.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from phojax.checks import InputError, fail
from phojax.potentials.bridge import bridged
from phojax.potentials.contract import Potential

INSTALL = 'pip install "torch>=2.6"'

_ONE_AT_A_TIME = threading.Lock()


def from_energy(
    energy: Callable[[Any, Any, Any], Any],
    *,
    name: str,
    elements: frozenset[int] | None = None,
    cutoff: float = 0.0,
    dtype: str = "float64",
    device: str = "cpu",
    provenance: str = "",
    fingerprint: str = "",
    smoothing_width: float = 0.0,
) -> Potential:
    """Return a torch energy as a potential, differentiable twice.

    Args:
        energy: (numbers (atom,) int64, cell (3, 3) Å, positions (atom, 3) Å) -> eV, a scalar
            tensor, differentiable in cell and positions; twice for force constants.
        name: As on the command line.
        elements: Atomic numbers it knows; None for all.
        cutoff: Å, for the record.
        dtype: That the model computes in.
        device: That the model is on, as torch names it.
        provenance: Where the parameters come from.
        fingerprint: A digest of the parameters.
        smoothing_width: See `Potential`.

    Raises:
        InputError: torch is not installed, or a precision or device that it does not have.
    """
    torch = imported_torch()
    model = _EnergyModel(torch, energy, *_where(torch, dtype, device))
    return bridged(
        model,
        name=name,
        elements=elements,
        derivatives=2,
        cutoff=cutoff,
        provenance=provenance,
        fingerprint=fingerprint,
        smoothing_width=smoothing_width,
    )


def from_forces(
    predict: Callable[[Any, Any, Any, bool], tuple[Any, Any, Any]],
    *,
    name: str,
    elements: frozenset[int] | None = None,
    cutoff: float = 0.0,
    dtype: str = "float64",
    device: str = "cpu",
    provenance: str = "",
    fingerprint: str = "",
    smoothing_width: float = 0.0,
    tangents_at_a_time: int = 1,
    other_gauge: Callable[[int], Potential] | None = None,
) -> Potential:
    """Return a torch model that predicts its forces as a potential.

    Args:
        predict: (numbers, cell, positions, stress) -> eV, (atom, 3) eV/Å, (3, 3) eV/Å³ or None
            where stress is False or the model has none; differentiable in forward mode.
        tangents_at_a_time: Tangents pushed through together by `torch.vmap`; 1 for a loop.
        other_gauge: See `Potential`.

    The other arguments and the errors are those of `from_energy`.
    """
    torch = imported_torch()
    model = _ForceModel(torch, predict, *_where(torch, dtype, device), tangents_at_a_time)
    return bridged(
        model,
        name=name,
        elements=elements,
        derivatives=2,
        predicts_forces=True,
        cutoff=cutoff,
        provenance=provenance,
        fingerprint=fingerprint,
        smoothing_width=smoothing_width,
        other_gauge=other_gauge,
    )


def imported_torch():
    """Return the torch module, or raise InputError with the line that installs it."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"torch is not installed; expected it for a torch model. Install it: {INSTALL}"
        ) from error
    return torch


def _where(torch, dtype: str, device: str):
    """Return torch's precision and device, or raise InputError for what there is not."""
    precision = getattr(torch, dtype, None)
    if precision not in (torch.float64, torch.float32):
        raise fail(f"dtype {dtype!r}", "float64 or float32")
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise fail(f"device {device!r} ({said})", "one that torch can use, such as cpu") from error
    return precision, where


class _Tensors:
    """How arrays become tensors of the model, and tensors arrays."""

    def __init__(self, torch, dtype, device) -> None:
        self.torch, self.dtype, self.device = torch, dtype, device

    def tensor(self, array: np.ndarray):
        # XLA's buffers are not to be written to: from_numpy shares them, so no in-place work.
        if not array.flags.writeable:
            array = array.copy()
        return self.torch.from_numpy(array).to(self.device, self.dtype)

    def integers(self, array: np.ndarray):
        return self.torch.from_numpy(np.asarray(array, np.int64)).to(self.device)

    def array(self, tensor) -> np.ndarray:
        return tensor.detach().to("cpu", self.torch.float64).numpy()


class _EnergyModel(_Tensors):
    def __init__(self, torch, energy, dtype, device) -> None:
        super().__init__(torch, dtype, device)
        self._energy = energy

    def values(self, numbers, cell, positions):
        with _ONE_AT_A_TIME, self.torch.enable_grad():
            E, _, gradients = self._gradients(numbers, cell, positions, False)
            G, g = map(self.array, gradients)
            return float(E.detach()), g, G

    def changes(self, numbers, cell, positions, d_cell, d_positions):
        with _ONE_AT_A_TIME, self.torch.enable_grad():
            _, at, (G, g) = self._gradients(numbers, cell, positions, True)
            rows = []
            for dA, dx in zip(map(self.tensor, d_cell), map(self.tensor, d_positions), strict=True):
                s = (G * dA).sum() + (g * dx).sum()
                found = self.torch.autograd.grad(s, at, retain_graph=True, materialize_grads=True)
                rows.append([self.array(x) for x in found])
            g_now, G_now = self.array(g), self.array(G)
        dG, dg = (np.stack(x) for x in zip(*rows, strict=True))
        dE = np.sum(g_now * d_positions, axis=(1, 2)) + np.sum(G_now * d_cell, axis=(1, 2))
        return dE, dg, dG

    def _gradients(self, numbers, cell, positions, again: bool):
        at = [self.tensor(x).requires_grad_() for x in (cell, positions)]
        E = self._energy(self.integers(numbers), *at)
        found = self.torch.autograd.grad(E, at, create_graph=again, materialize_grads=True)
        return E, at, found


class _ForceModel(_Tensors):
    def __init__(self, torch, predict, dtype, device, at_a_time: int) -> None:
        super().__init__(torch, dtype, device)
        self._predict, self._at_a_time = predict, at_a_time

    def values(self, numbers, cell, positions):
        with _ONE_AT_A_TIME, self.torch.no_grad():
            E, F, stress = self._predict(
                self.integers(numbers), self.tensor(cell), self.tensor(positions), True
            )
        nothing = np.full((3, 3), np.nan)
        return float(E), self.array(F), nothing if stress is None else self.array(stress)

    def changes(self, numbers, cell, positions, d_cell, d_positions):
        at = self.tensor(cell), self.tensor(positions)
        which = self.integers(numbers)

        def outputs(A, x):
            E, F, stress = self._predict(which, A, x, True)
            return E.reshape(()), F, self.torch.zeros_like(A) if stress is None else stress

        def change(dA, dx):
            return self.torch.func.jvp(outputs, at, (dA, dx))[1]

        along = self.tensor(d_cell), self.tensor(d_positions)
        with _ONE_AT_A_TIME, self.torch.no_grad():
            if self._at_a_time > 1:
                found = self.torch.vmap(change, chunk_size=self._at_a_time)(*along)
            else:
                each = [change(dA, dx) for dA, dx in zip(*along, strict=True)]
                found = [self.torch.stack(x) for x in zip(*each, strict=True)]
        dE, dF, d_stress = map(self.array, found)
        return dE, dF, d_stress


__all__ = ["INSTALL", "from_energy", "from_forces", "imported_torch"]
