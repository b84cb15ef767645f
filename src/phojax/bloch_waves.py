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
predicted the first ones are missing. Where Φ(q) is wanted between two waves, both are taken of the
energy before all others; in their product, summed over both parts,

    Re[c exp(iφ)] Re[u exp(iφ)] + Im[c exp(iφ)] Im[u exp(iφ)] = Re[c* u],                      (2)

there is no phase left. Each operation knows which derivatives are still to come (`Order`), and
whether it is a read of a wave itself; whoever differentiates makes φ a variable of all of them, so
that none is left out.

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

Order = tuple[bool, ...]
"""Derivatives to come, the first one first: whether each is along a wave; those after have none."""

OF_ENERGY: Order = (False, True)
OF_FORCES: Order = (True,)
BETWEEN_WAVES: Order = (True, True)


def gathered_wave(
    values: Float[Array, "row *rest"],
    index: Int[Array, " link"],
    phase: Float[Array, " link"],
    order: Order = OF_ENERGY,
) -> Float[Array, "link *rest"]:
    """Return the rows at `index`."""
    return _gather.bind(values, index, phase, size=values.shape[0], order=order, turned=False)


def scattered_wave(
    messages: Float[Array, "link *rest"],
    index: Int[Array, " link"],
    phase: Float[Array, " link"],
    size: int,
    order: Order = OF_ENERGY,
) -> Float[Array, "row *rest"]:
    """Return per row the sum of the messages to it."""
    return _scatter.bind(messages, index, phase, size=size, order=order, turned=False)


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


def _read(values, index, phase, size, turned):
    read = values[index]
    return rotated(read, phase) if turned else read


def _sum(messages, index, phase, size, turned):
    return jax.ops.segment_sum(rotated(messages, -phase) if turned else messages, index, size)


def _made(name: str, operation: Callable) -> Primitive:
    """Return the primitive of an operation that eq. (1) is the tangent of."""
    primitive = Primitive(name)

    def plain(x, index, phase, *, size, order, turned):
        return operation(x, index, phase, size, turned)

    primitive.def_impl(plain)

    @primitive.def_abstract_eval
    def _(x, index, phase, *, size, order, turned):
        rows = size if operation is _sum else index.shape[0]
        return x.update(shape=(rows, *x.shape[1:]))

    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))

    def differentiated(primals, tangents, *, size, order, turned):
        x, index, phase = primals
        t = tangents[0]
        along_wave, *later = order

        def done(x, turned):
            if not later:
                return operation(x, index, phase, size, turned)
            return primitive.bind(x, index, phase, size=size, order=tuple(later), turned=turned)

        out = done(x, turned)
        # Of a wave along a wave nothing is turned: eq. (2).
        return out, jnp.zeros_like(out) if isinstance(t, ad.Zero) else done(t, turned != along_wave)

    ad.primitive_jvps[primitive] = differentiated

    def batched(arguments, axes, *, size, order, turned):
        x, index, phase = arguments
        if axes[1] is not batching.not_mapped:
            raise NotImplementedError("vmap over graphs that carry Bloch waves: use jax.lax.map")
        if turned:
            raise NotImplementedError("vmap between the two derivatives along waves")
        how = {"size": size, "order": order, "turned": turned}
        if axes[2] is batching.not_mapped:
            return primitive.bind(jnp.moveaxis(x, axes[0], 1), index, phase, **how), 1
        count = phase.shape[axes[2]]
        if axes[0] is batching.not_mapped:
            x = jnp.broadcast_to(x[..., None], (*x.shape, count))
        else:
            x = jnp.moveaxis(x, axes[0], -1)
        out = primitive.bind(x, index, jnp.moveaxis(phase, axes[2], -1), **how)
        return out, out.ndim - 1

    batching.primitive_batchers[primitive] = batched
    return primitive


_gather = _made("bloch_gather", _read)
_scatter = _made("bloch_scatter", _sum)


def _transposed(other: Primitive):
    def rule(cotangent, x, index, phase, *, size, order, turned):
        if isinstance(cotangent, ad.Zero):
            return ad.Zero(x.aval), None, None
        # Against the wave: φ changes its sign with read and sum, so turned ones stay turned.
        given = {"size": size, "order": order, "turned": turned}
        return other.bind(cotangent, index, phase, **given), None, None

    return rule


ad.primitive_transposes[_gather] = _transposed(_scatter)
ad.primitive_transposes[_scatter] = _transposed(_gather)


__all__ = [
    "AXIS",
    "BETWEEN_WAVES",
    "OF_ENERGY",
    "OF_FORCES",
    "Order",
    "gathered_wave",
    "operations_in",
    "other_part",
    "rotated",
    "scattered_wave",
]
