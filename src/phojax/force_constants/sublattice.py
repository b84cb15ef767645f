"""Phonons of part of a crystal: atoms A kept, the others B held, taken away, or following.

    frozen    B does not move:                   Φ_AA                                   (1)
    removed   B is not there:                    Φ_AA + self terms                      (2)
    relaxed   B follows without inertia:         Φ_AA − Φ_AB Φ_BB⁻¹ Φ_BA                (3)

Each is a crystal of its own on the same lattice and supercell, with the atoms A only.

(1) has no sum rule: the cage of B holds A, so nothing is free to move as a whole (`free` is
False), and its modes at Γ are oscillators like all others. In (2) the bonds from A to B are cut.
What held atom i to B is the sum Σ_j∈A Φ_ij that remains; its symmetric part is taken out of the
self term Φ_ii, which is exact where energies are sums over pairs, and the rest by the smallest
change that makes the sum rule and permutation symmetry hold (`sum_rules.projected`). (3) is the
Schur complement at each q: the limit m_B → 0, or ω far below the modes of B alone. It obeys the
sum rule where Φ does.

(1) and (3) may be taken of D(q) instead (`frozen_matrices`, `relaxed_matrices`), the non-analytic
term included. For (1) that is the same as `frozen` with the Born charges of A alone, which need
not be neutral: the charges held do not move. `relaxed` does (3) at the q-points commensurate with
the supercell, where Φ on it is exact, and returns Φ in real space.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Int

from phojax.checks import fail
from phojax.force_constants.container import ForceConstants, Images
from phojax.force_constants.sum_rules import projected
from phojax.spectral import dagger, hermitian_part
from phojax.structure import Structure, Supercell, commensurate_points, supercell

Selection = str | Sequence[int]
"""Atoms of the primitive cell: an element's symbol, or numbers counted from 0."""


def frozen(constants: ForceConstants, held: Selection) -> ForceConstants:
    """Return the force constants of the other atoms with `held` fixed in place, eq. (1).

    Differentiable in the values and masses; under jit the images and numbers must be concrete.

    Args:
        constants: eV/Å².
        held: The atoms that do not move.

    Raises:
        InputError: no such atoms, or all of them.
    """
    kept = others(constants.supercell.primitive, held)
    return replace(_restricted(constants, kept), free=False)


def removed(constants: ForceConstants, gone: Selection) -> ForceConstants:
    """Return the force constants of the other atoms without `gone`, eq. (2).

    Differentiable in the values and masses; under jit the images and numbers must be concrete.

    Args:
        constants: eV/Å².
        gone: The atoms that are taken away.

    Raises:
        InputError: no such atoms, or all of them.
    """
    kept = others(constants.supercell.primitive, gone)
    part = _restricted(constants, kept)
    cells = part.supercell
    copies = len(cells.images)
    total = part.values.sum(axis=1)
    i = np.arange(len(kept))
    # Column i·copies is the atom itself: the home cell is the first.
    own = part.values.at[i, i * copies].add(-(total + total.swapaxes(-1, -2)) / 2)
    return replace(part, values=projected(own, cells), free=True)


def relaxed(constants: ForceConstants, followers: Selection) -> ForceConstants:
    """Return the force constants of the other atoms while `followers` are at rest, eq. (3).

    Exact at the q-points commensurate with the supercell; between them it is interpolated as all
    force constants are (`relaxed_matrices` is exact everywhere). Differentiable in the values and
    masses; under jit the images and numbers must be concrete.

    Args:
        constants: eV/Å².
        followers: The atoms that follow without force on them.

    Raises:
        InputError: no such atoms, or all of them.
    """
    crystal = constants.supercell.primitive
    kept = others(crystal, followers)
    n, copies = len(crystal), len(constants.supercell.images)
    by_cell = constants.values.reshape(n, n, copies, 3, 3)
    waves = commensurate_points(constants.supercell) @ constants.supercell.images.T
    phases = jnp.exp(2j * jnp.pi * waves)
    matrices = jnp.einsum("ijLab,qL->qiajb", by_cell, phases).reshape(copies, 3 * n, 3 * n)
    effective = _schur(matrices, _rows(kept), _rows(np.setdiff1d(np.arange(n), kept)))
    effective = effective.reshape(copies, len(kept), 3, len(kept), 3)
    values = jnp.einsum("qiajb,qL->ijLab", effective, phases.conj()).real / copies
    values = values.reshape(len(kept), len(kept) * copies, 3, 3)
    return replace(_restricted(constants, kept), values=values)


def frozen_matrices(
    D: Complex[Array, "q mode mode"], crystal: Structure, held: Selection
) -> Complex[Array, "q kept kept"]:
    """Return D(q) of the other atoms with `held` fixed: rows and columns left out.

    Args:
        D: Of the whole crystal, eV Å⁻² amu⁻¹.
        crystal: Its primitive cell.
        held: The atoms that do not move.

    Raises:
        InputError: no such atoms, or all of them.
    """
    kept = _rows(others(crystal, held))
    return D[:, kept[:, None], kept]


def relaxed_matrices(
    D: Complex[Array, "q mode mode"], crystal: Structure, followers: Selection
) -> Complex[Array, "q kept kept"]:
    """Return D(q) of the other atoms while `followers` are at rest, eq. (3).

    NaN or large where the followers alone have zero modes. Their masses do not matter.

    Args:
        D: Of the whole crystal, eV Å⁻² amu⁻¹.
        crystal: Its primitive cell.
        followers: The atoms that follow without force on them.

    Raises:
        InputError: no such atoms, or all of them.
    """
    kept = others(crystal, followers)
    return _schur(D, _rows(kept), _rows(np.setdiff1d(np.arange(len(crystal)), kept)))


def others(crystal: Structure, chosen: Selection) -> Int[np.ndarray, " kept"]:
    """Return the numbers of the atoms that are not chosen, ascending (concrete structures only).

    Raises:
        InputError: no such atoms, none, or all of them.
    """
    count = len(crystal)
    if isinstance(chosen, str):
        symbols = np.array(crystal.symbols)
        given = np.flatnonzero(symbols == chosen)
        if not len(given):
            raise fail(f"sublattice {chosen}", f"one of {', '.join(sorted(set(crystal.symbols)))}")
    else:
        given = np.asarray(chosen)
        whole = given.ndim == 1 and given.size > 0 and given.dtype.kind in "iu"
        if not whole or given.min() < 0 or given.max() >= count:
            raise fail(
                f"sublattice {np.asarray(chosen).tolist()}",
                f"an element or numbers of atoms from 0 to {count - 1}",
            )
    kept = np.setdiff1d(np.arange(count), given)
    if not len(kept):
        raise fail("a sublattice of all atoms", "some that remain")
    return kept


def _rows(atoms: np.ndarray) -> np.ndarray:
    return (3 * atoms[:, None] + np.arange(3)).reshape(-1)


def _smaller(cells: Supercell, kept: np.ndarray) -> Supercell:
    crystal = cells.primitive
    part = replace(
        crystal,
        positions=crystal.positions[kept],
        numbers=crystal.numbers[kept],
        masses=crystal.masses[kept],
    )
    return supercell(part, cells.matrix)


def _restricted(constants: ForceConstants, kept: np.ndarray) -> ForceConstants:
    cells = constants.supercell
    copies = len(cells.images)
    columns = (kept[:, None] * copies + np.arange(copies)).reshape(-1)
    values = constants.values[kept[:, None], columns]
    return ForceConstants(values, _smaller(cells, kept), _restricted_images(constants, kept))


def _restricted_images(constants: ForceConstants, kept: np.ndarray) -> Images:
    """Return the nearest images of the pairs kept: which they are depends on no other atom."""
    copies = len(constants.supercell.images)
    whole = constants.images
    row, column = np.asarray(whole.row), np.asarray(whole.column)
    inside = np.isin(row, kept) & np.isin(column // copies, kept)
    row, column = row[inside], column[inside]
    at, new_at = np.unique(np.asarray(whole.at)[inside], return_inverse=True)
    return Images(
        jnp.asarray(np.asarray(whole.lattice)[at]),
        jnp.asarray(np.searchsorted(kept, row), jnp.int32),
        jnp.asarray(np.searchsorted(kept, column // copies) * copies + column % copies, jnp.int32),
        jnp.asarray(new_at, jnp.int32),
        jnp.asarray(np.asarray(whole.share)[inside]),
    )


def _schur(
    matrices: Complex[Array, "q mode mode"], A: np.ndarray, B: np.ndarray
) -> Complex[Array, "q kept kept"]:
    coupling = matrices[:, B[:, None], A]
    response = jnp.linalg.solve(matrices[:, B[:, None], B], coupling)
    return hermitian_part(matrices[:, A[:, None], A] - dagger(coupling) @ response)
