"""Whether arrays are concrete: what is known on the host is computed there, nothing is compiled.

XLA compiles each operation anew for every shape, some 50 ms each; crystals have as many shapes as
there are. NumPy takes no time for arrays of a few hundred rows.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_concrete(*arrays: Any) -> bool:
    """Return whether no leaf of these pytrees is traced."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays))


def array_module(*arrays: Any) -> Any:
    """Return `numpy` where all leaves are concrete, else `jax.numpy`."""
    return np if is_concrete(*arrays) else jnp
