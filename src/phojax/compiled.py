"""Compiled functions are let go before the system's limit on memory maps ends the process.

XLA maps memory for every function that it compiles on a CPU, about seven regions each, and Linux
allows a process 65 530 of them by default (vm.max_map_count). Crystals of many shapes reach that
after some dozens, and the compiler then dies of it. Nothing but time is lost by letting go: what is
needed again is compiled again.
"""

import gc
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_MAPS = pathlib.Path("/proc/self/maps")
_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")


def let_go_of_compiled(share: float = 0.4) -> bool:
    """Drop all compiled functions where more than this share of the allowed maps is in use.

    Returns:
        Whether they were dropped; False where the system does not tell.
    """
    try:
        limit = int(_LIMIT.read_text())
        with _MAPS.open("rb") as file:
            used = sum(1 for _ in file)
    except (OSError, ValueError):
        return False
    if used <= share * limit:
        return False
    jax.clear_caches()
    gc.collect()
    return True


def side_by_side(f: Callable, *arguments: Any) -> Any:
    """Return f over the leading axis of all arguments; traceable.

    One after the other on a CPU, where side by side costs more.
    """
    count = jax.tree.leaves(arguments)[0].shape[0]
    if count == 1:
        found = f(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: jnp.asarray(x)[None], found)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda given: f(*given), arguments)
    return jax.vmap(f)(*arguments)
