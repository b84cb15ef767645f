"""Which atom of phonopy's supercell is which of ours.

phonopy orders a supercell by its unit cell and takes as row atom i one supercell atom s(i) that
may lie a lattice vector T_i away from primitive atom i. With the supercell atom k on sublattice
j(k), N_k lattice vectors away from its primitive atom,

    Φ_phonopy[i, k] = Φ[i, j(k)·n + L],   L = N_k - T_i  modulo the supercell        (1)

where L is one of the lattice vectors inside the supercell. Full force constants have a row for
every supercell atom s, and (1) holds for each with T = N_s.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from phojax.checks import fail
from phojax.force_constants.sum_rules import cell_index
from phojax.structure import Supercell

_TOLERANCE = 1e-3  # of a lattice vector: positions in files may carry few digits


def supercell_matrix(phonon: Any) -> Int[np.ndarray, "3 3"]:
    """Return P, the supercell's vectors in units of the primitive ones, of a Phonopy object."""
    exact = phonon.supercell.cell @ np.linalg.inv(phonon.primitive.cell)
    matrix = np.rint(exact).astype(int)
    if np.abs(exact - matrix).max() > _TOLERANCE:
        raise fail(
            f"the supercell is {exact.round(3).tolist()} primitive cells",
            "integers",
            "supercell_matrix and primitive_matrix of the file do not fit together",
        )
    return matrix


def columns_in_phonopy_order(
    phonon: Any, cells: Supercell, layout: str = "compact"
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, "row k"]]:
    """Return our row of every row of phonopy's force constants, our column of every entry, eq. (1).

    Args:
        phonon: A Phonopy object; its primitive cell is that of `cells`, up to the unit of length
            and lattice vectors by which atoms are shifted.
        cells: Our supercell, of the matrix `supercell_matrix(phonon)`.
        layout: "compact" for a row per primitive atom, "full" for one per supercell atom.
    """
    primitive, big = phonon.primitive, phonon.supercell
    sublattice = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    here = np.asarray(cells.primitive.fractional)
    exact = big.positions @ np.linalg.inv(primitive.cell) - here[sublattice]
    N = np.rint(exact).astype(int)
    if np.abs(exact - N).max() > _TOLERANCE:
        raise fail(
            "atoms of the supercell are not lattice vectors away from the primitive cell",
            "translations of the primitive cell",
        )
    rows = np.asarray(primitive.p2s_map) if layout == "compact" else np.arange(len(big))
    L = cell_index(cells, N[None] - N[rows][:, None])
    return sublattice[rows], sublattice[None] * len(cells.images) + L


def same_atoms(first: Any, second: Any) -> bool:
    """Return whether two phonopy cells hold the same atoms in one order, modulo the lattice."""
    if len(first) != len(second) or not np.array_equal(first.numbers, second.numbers):
        return False
    difference = first.scaled_positions - second.scaled_positions
    close = np.abs(difference - np.rint(difference)).max() < _TOLERANCE
    return bool(close and np.allclose(first.cell, second.cell, atol=1e-3))


def atoms_in_phonopy_order(phonon: Any, cells: Supercell) -> Int[np.ndarray, " k"]:
    """Return which atom of `cells.structure` each atom of phonopy's supercell is.

    Args:
        phonon: A Phonopy object; its primitive cell is that of `cells`, in Å.
        cells: Our supercell, of the matrix `supercell_matrix(phonon)`.
    """
    primitive, big = phonon.primitive, phonon.supercell
    sublattice = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    here = np.asarray(cells.primitive.fractional)
    exact = big.positions @ np.linalg.inv(primitive.cell) - here[sublattice]
    return sublattice * len(cells.images) + cell_index(cells, np.rint(exact).astype(int))
