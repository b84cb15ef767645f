"""Reads and sums across cells whose second derivatives are those of Bloch waves.

A displacement of the crystal that is a Bloch wave moves what is at home by t, and its image in cell
L by t exp(2πi q·L). All functions of the crystal are made of operations inside a cell, which know
nothing of that, and of reads from and sums into images, whose tangents are

    read:  t_link = t_row exp(iφ),   sum:  t_row = Σ t_link exp(-iφ),   φ = 2π q·L             (1)

The real and the imaginary part of a tangent go through side by side, as the two entries of a vmap
whose axis is named `AXIS`, and meet here alone. Where all phases are signs (2q is a reciprocal
vector) the parts do not meet, and the axis may hold the real one alone.

Under vmap over q the phases have axes at their end that the values share with them.

Which derivatives are waves depends on their order. The first ones, of an energy, have no phase: the
gradient of a crystal at rest is the same in all cells. The next ones are waves, by eq. (1). Later
ones have none again: parameters, strains and q itself are the same in all cells. Where forces are
predicted the first ones are missing. Each operation counts down how many are still to come to the
wave; whoever differentiates makes φ a variable of all of them, so that none is left out.

They are primitives and not custom_jvp functions because the rules of those are lost inside loops
that are differentiated in reverse.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

AXIS = "parts of a Bloch wave"

OF_ENERGY, OF_FORCES = 2, 1
"""Derivatives to come, the wave's included: of an energy, and of predicted forces."""


def gathered_wave(
    values: Float[Array, "row *rest"],
    index: Int[Array, " link"],
    phase: Float[Array, " link"],
    left: int = OF_ENERGY,
) -> Float[Array, "link *rest"]:
    """Return the rows at `index`."""
    return _gather.bind(values, index, phase, size=values.shape[0], left=left)


def scattered_wave(
    messages: Float[Array, "link *rest"],
    index: Int[Array, " link"],
    phase: Float[Array, " link"],
    size: int,
    left: int = OF_ENERGY,
) -> Float[Array, "row *rest"]:
    """Return per row the sum of the messages to it."""
    return _scatter.bind(messages, index, phase, size=size, left=left)


def rotated(
    part: Float[Array, "link *rest"], phase: Float[Array, "link *batch"]
) -> Float[Array, "link *rest"]:
    """Return this part (real or imaginary) of both parts times exp(i phase)."""
    links, *batch = phase.shape
    angle = phase.reshape(links, *(1,) * (part.ndim - phase.ndim), *batch).astype(part.dtype)
    other = other_part(part)
    if other is None:
        return jnp.cos(angle) * part
    sign = 2 * jax.lax.axis_index(AXIS).astype(part.dtype) - 1
    return jnp.cos(angle) * part + sign * jnp.sin(angle) * other


def other_part(part: Float[Array, "*any"]) -> Float[Array, "*any"] | None:
    """Return the imaginary part where this is the real one, and the other way round.

    None where the real part goes through alone.
    """
    if jax.lax.psum(1, AXIS) == 1:
        return None
    return jax.lax.ppermute(part, AXIS, [(0, 1), (1, 0)])


def operations_in(f: Callable, *arguments: Any) -> int:
    """Return how many reads and sums of waves a function makes, those inside loops included."""
    return str(jax.make_jaxpr(f)(*arguments)).count("bloch_")


def _read(values, index, phase, *, size, left):
    return values[index]


def _sum(messages, index, phase, *, size, left):
    return jax.ops.segment_sum(messages, index, size)


def _read_wave(t, index, phase, size):
    return rotated(t[index], phase)


def _sum_wave(t, index, phase, size):
    return jax.ops.segment_sum(rotated(t, -phase), index, size)


def _made(name: str, plain, wave) -> Primitive:
    """Return the primitive of an operation, from what it is and from its tangent by eq. (1)."""
    primitive = Primitive(name)
    primitive.def_impl(plain)

    @primitive.def_abstract_eval
    def _(x, index, phase, *, size, left):
        rows = size if plain is _sum else index.shape[0]
        return x.update(shape=(rows, *x.shape[1:]))

    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))

    def differentiated(primals, tangents, *, size, left):
        x, index, phase = primals
        t = tangents[0]
        again = left - 1

        def done(x):
            how = {"size": size, "left": again}
            return (
                primitive.bind(x, index, phase, **how) if again else plain(x, index, phase, **how)
            )

        out = done(x)
        if isinstance(t, ad.Zero):
            return out, jnp.zeros_like(out)
        return out, (wave(t, index, phase, size) if left == 1 else done(t))

    ad.primitive_jvps[primitive] = differentiated

    def batched(arguments, axes, *, size, left):
        x, index, phase = arguments
        if axes[1] is not batching.not_mapped:
            raise NotImplementedError("vmap over graphs that carry Bloch waves: use jax.lax.map")
        if axes[2] is batching.not_mapped:
            out = primitive.bind(jnp.moveaxis(x, axes[0], 1), index, phase, size=size, left=left)
            return out, 1
        count = phase.shape[axes[2]]
        if axes[0] is batching.not_mapped:
            x = jnp.broadcast_to(x[..., None], (*x.shape, count))
        else:
            x = jnp.moveaxis(x, axes[0], -1)
        phase = jnp.moveaxis(phase, axes[2], -1)
        out = primitive.bind(x, index, phase, size=size, left=left)
        return out, out.ndim - 1

    batching.primitive_batchers[primitive] = batched
    return primitive


_gather = _made("bloch_gather", _read, _read_wave)
_scatter = _made("bloch_scatter", _sum, _sum_wave)


def _transposed(other: Primitive):
    def rule(cotangent, x, index, phase, *, size, left):
        if isinstance(cotangent, ad.Zero):
            return ad.Zero(x.aval), None, None
        return other.bind(cotangent, index, phase, size=size, left=left), None, None

    return rule


ad.primitive_transposes[_gather] = _transposed(_scatter)
ad.primitive_transposes[_scatter] = _transposed(_gather)


__all__ = [
    "AXIS",
    "OF_ENERGY",
    "OF_FORCES",
    "gathered_wave",
    "operations_in",
    "other_part",
    "rotated",
    "scattered_wave",
]
