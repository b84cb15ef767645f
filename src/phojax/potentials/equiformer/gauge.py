"""What the official code leaves to global state, set per call and per thread.

Three things in it depend on global state or cannot be chosen from outside: the precision of
constants it makes on the way (torch's default), the random vectors that fix the frames of edges
(torch's global generator) and the detaches in its stress head. `Settings` answers those calls
itself while it is active, in its own thread only; no module and no generator is changed.

The random vectors are a hash of the edge and of a seed, so that an edge keeps its frame when
other edges come and go, and on every device.
"""

from typing import Any

from phojax.potentials.equiformer.official import official

try:
    import torch
    from torch.overrides import TorchFunctionMode
except ImportError:  # told with the line that installs it
    official()
    raise

_FACTORIES = frozenset({torch.zeros, torch.ones, torch.full, torch.tensor})
# Odd 64-bit multipliers as signed numbers (splitmix64: Steele, Lea, Flood 2014).
_MIX = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
_GOLDEN = -0x61C8864680B583EB


class Settings(TorchFunctionMode):
    """While active: constants in `dtype`, `vectors` for random ones, nothing detached.

    Args:
        dtype: Of floating-point constants made without a dtype; None leaves them alone.
        vectors: What rand_like returns; None leaves it alone.
        attached: Whether `detach` does nothing.
    """

    def __init__(self, dtype=None, vectors=None, attached: bool = False) -> None:
        super().__init__()
        self._dtype, self._vectors, self._attached = dtype, vectors, attached

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.detach and self._attached:
            return args[0]
        if func is torch.rand_like and self._vectors is not None:
            return self._vectors
        made = func(*args, **(kwargs or {}))
        if func in _FACTORIES and self._dtype is not None and "dtype" not in (kwargs or {}):
            return made.to(self._dtype) if made.is_floating_point() else made
        return made


def edge_vectors(seed: int, edges: torch.Tensor) -> torch.Tensor:
    """Return a vector in [0, 1)³ for each edge, float32: a hash of the seed and of its column.

    Args:
        seed: The gauge; any integer that fits in 64 bits.
        edges: (k, E) int64, the numbers that make an edge what it is.
    """
    state = torch.full_like(edges[0], seed)
    for row in edges:
        state = _mixed(state + _GOLDEN) ^ row
    parts = []
    for _ in range(3):
        state = state + _GOLDEN
        # 24 bits are what float32 holds exactly.
        parts.append(_shifted(_mixed(state), 40).to(torch.float32) / 2**24)
    return torch.stack(parts, dim=-1)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shifted(x, 30)) * _MIX[0]
    x = (x ^ _shifted(x, 27)) * _MIX[1]
    return x ^ _shifted(x, 31)


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Return x moved right with zeros filled in (int64 >> keeps the sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
