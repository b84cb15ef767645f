"""Crystals to be analysed, and the padded shapes in which they go through together.

Padding is exact: padding atoms have rows of zeros in D, which are moved above the spectrum.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phojax.checks import fail
from phojax.descriptors.coupling import Bonds, padded_bonds
from phojax.dynmat import Interpolation
from phojax.nac import padded_dipoles
from phojax.pytree import pytree

_SMALL = 16  # atoms of a crystal whose modes take less time than a compilation


@pytree()
class Subject:
    """A crystal to be analysed.

    Attributes:
        held: Its force constants, laid out for interpolation.
        mobile: Its mobile ions.
        among: Their bonds to the host.
        members: The groups of atoms that densities of states are made of.
        width: Range of λ by which eigenvalues are degenerate.
    """

    held: Interpolation
    mobile: Bool[Array, " atom"]
    among: Bonds
    members: Bool[Array, "group atom"]
    width: Float[Array, ""]


class Shape(NamedTuple):
    """The padded shape that crystals share: what is compiled once."""

    atoms: int
    vectors: int
    reciprocal: int
    bonds: int
    ions: int
    groups: int
    crystals: int


def shape_of(subjects: Sequence[Subject]) -> Shape:
    """Return the smallest shape that holds all of them."""

    def largest(f):
        return max(f(s) for s in subjects)

    return Shape(
        largest(lambda s: len(s.held.crystal)),
        largest(lambda s: len(s.held.lattice)),
        largest(lambda s: len(s.held.dipoles.reciprocal) if s.held.dipoles else 0),
        largest(lambda s: len(s.among.mobile)),
        largest(lambda s: len(s.among.ions)),
        largest(lambda s: len(s.members)),
        len(subjects),
    )


def rounded(shape: Shape, *, alone: bool = False) -> Shape:
    """Return the shape with every length rounded up to one of few.

    Args:
        shape: Of crystals that go through together.
        alone: There is one, and small ones are padded to fewer sizes still: they take no time
            beside that of the compiler.
    """
    atoms = larger_size(shape.atoms)
    if alone and shape.atoms <= _SMALL:
        atoms = -(-shape.atoms // 4) * 4

    def up(count, step):
        return -(-count // step) * step

    def power(count, least):
        return max(least, 2 ** int(np.ceil(np.log2(max(1, count)))))

    return Shape(
        atoms=atoms,
        vectors=power(shape.vectors, 128),
        reciprocal=power(shape.reciprocal, 128),
        bonds=power(shape.bonds, 64),
        ions=atoms,
        groups=up(shape.groups, 4),
        crystals=2 ** int(np.ceil(np.log2(shape.crystals))),
    )


def larger_size(atoms: int) -> int:
    """Return the padded number of atoms: 1 to 6, then steps of about a fifth."""
    size = 6
    if atoms <= size:
        return atoms
    while size < atoms:
        size = int(np.ceil(1.2 * size))
    return size


def width_of(held: Interpolation) -> float:
    """Return the range of λ over Γ and the seven points halfway to reciprocal lattice vectors.

    A scale for `degenerate_blocks` that does not depend on the q-points of a calculation; by numpy,
    from the short-ranged force constants.
    """
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    sign = np.cos(np.pi * corners @ np.asarray(held.lattice).T)
    D = np.tensordot(sign, np.asarray(held.values), 1)
    root = np.repeat(1 / np.sqrt(np.asarray(held.crystal.masses)), 3)
    values = np.linalg.eigvalsh((D + D.transpose(0, 2, 1)) / 2 * root[:, None] * root)
    return float(np.ptp(values))


def padded(subject: Subject, shape: Shape) -> Subject:
    """Return the subject in a larger shape, padded by numpy: nothing to compile."""
    held = subject.held
    crystal, vectors = held.crystal, shape.vectors - len(held.lattice)
    extra = shape.atoms - len(crystal)
    assert held.exact is None or extra == 0

    def pad(values, *widths, **how):
        return jnp.asarray(np.pad(np.asarray(values), [(0, w) for w in widths], **how))

    larger = replace(
        crystal,
        positions=pad(crystal.positions, extra, 0),
        numbers=pad(crystal.numbers, extra),
        masses=pad(crystal.masses, extra, constant_values=1.0),
    )
    charged = held.dipoles
    if charged is not None:
        charged = padded_dipoles(charged, shape.atoms, shape.reciprocal)
    return Subject(
        Interpolation(
            larger,
            pad(held.lattice, vectors, 0),
            pad(held.values, vectors, 3 * extra, 3 * extra),
            charged,
            held.free,
            held.exact,
        ),
        pad(subject.mobile, extra),
        padded_bonds(subject.among, shape.bonds, shape.ions),
        pad(subject.members, shape.groups - len(subject.members), extra),
        subject.width,
    )


def stacked(subjects: Sequence[Subject]) -> Subject:
    """Return crystals of one shape as one, with a leading axis.

    Raises:
        InputError: crystals of several kinds.
    """
    kinds = {jax.tree.structure(s) for s in subjects}
    if len(kinds) > 1:
        raise fail(
            "crystals with and without dipoles, or free and held ones, in one batch",
            "crystals of one kind",
            "Sort them first",
        )
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *subjects)


__all__ = [
    "Shape",
    "Subject",
    "larger_size",
    "padded",
    "rounded",
    "shape_of",
    "stacked",
    "width_of",
]
