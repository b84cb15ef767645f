"""Frozen dataclasses that JAX treats as pytrees.

`jax.tree_util.register_dataclass` rebuilds a node through its constructor. Batches (vmap) and
JAX's own placeholders would then have to pass the shape annotations of a single node, which are
checked at construction under test. Here a node is rebuilt without calling the constructor.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar, dataclass_transform

import jax

_C = TypeVar("_C", bound=type)


@dataclass_transform(frozen_default=True)
def pytree(*, static: tuple[str, ...] = ()) -> Callable[[_C], _C]:
    """Return a class decorator: frozen dataclass, registered as a pytree node.

    Args:
        static: Names of the fields that are hashable and not traced.
    """

    def decorate(cls: _C) -> _C:
        cls = dataclasses.dataclass(frozen=True)(cls)
        data = tuple(f.name for f in dataclasses.fields(cls) if f.name not in static)

        def rebuild(aux, children):
            node = object.__new__(cls)
            for name, value in zip((*data, *static), (*children, *aux), strict=True):
                object.__setattr__(node, name, value)
            return node

        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda node: (
                tuple((jax.tree_util.GetAttrKey(n), getattr(node, n)) for n in data),
                tuple(getattr(node, n) for n in static),
            ),
            rebuild,
            lambda node: (
                tuple(getattr(node, n) for n in data),
                tuple(getattr(node, n) for n in static),
            ),
        )
        return cls

    return decorate
