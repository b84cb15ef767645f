"""Third-order force constants in the files of phono3py and of ShengBTE, in and out.

fc3.hdf5 of phono3py holds Φ in eV/Å³ on the supercell, its atoms in phonopy's order
(`phonopy_map`), a row per primitive atom with their numbers in `p2s_map`, or one per atom.

FORCE_CONSTANTS_3RD of ShengBTE holds triplets of a primitive atom i with the atoms j in the cell
R_j and k in the cell R_k: the number of blocks, then for each its number, R_j and R_k in Å, the
numbers of i, j, k in the primitive cell from 1, and 27 lines "α β γ Φ". A supercell knows the sum
of Φ over the images of a triplet. It is put on those whose triangle has the smallest perimeter, in
equal shares where there are several:

    Φ(i; j R_j; k R_k) = w Φ_i,jL,kM,    w = 1 / number of such images                     (1)

which keeps the permutation symmetry, the space group and the sum rule. thirdorder.py and hiPhive
give the whole to one image (`images="one"`); that breaks the symmetry where there are several, and
is the same where there are none: with a cutoff below a third of the shortest vector of the
supercell's lattice. The numbers in the file refer to the primitive cell of `supercell`: give
ShengBTE that one.
"""

import os
import pathlib
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from phojax.checks import check_shape, fail
from phojax.force_constants.container import nearest_images
from phojax.force_constants.sum_rules import cell_index
from phojax.force_constants.third_container import ThirdOrder, third_order
from phojax.force_constants.third_rules import kept_triplets
from phojax.io.atomic import replacing
from phojax.io.phonopy_files import phonopy_of
from phojax.io.phonopy_map import columns_in_phonopy_order
from phojax.structure import Supercell

PathLike = str | os.PathLike
_SAME_PERIMETER = 1e-4  # Å
_NUMBERS = 1 + 6 + 3 + 27 * 4  # of a block of FORCE_CONSTANTS_3RD
_BLOCK = (
    "\n{:d}\n"
    + 2 * "{:.16e} {:.16e} {:.16e}\n"
    + "{:d} {:d} {:d}\n"
    + "".join(f"{a} {b} {c} {{:.16e}}\n" for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3))
)


def write_fc3_hdf5(
    path: PathLike, constants: ThirdOrder, *, layout: str = "compact", phonon: Any = None
) -> None:
    """Write fc3.hdf5 for phono3py; `write_phonopy` writes the phonopy.yaml that goes with it.

    With a cutoff, which triplets are within it is written as well.

    Args:
        path: The file; its folder is made where it is missing.
        constants: In eV/Å³.
        layout: "compact", a row per primitive atom, or "full", one per supercell atom.
        phonon: A Phonopy or Phono3py object whose order of atoms is taken; by default the one
            whose unit cell is our primitive cell.

    Raises:
        InputError: phonopy finds a smaller primitive cell in atoms that are all the same; another
            layout.
    """
    if layout not in ("compact", "full"):
        raise fail(f"layout {layout!r}", '"compact" or "full"')
    cells = constants.supercell
    phonon = phonopy_of(cells) if phonon is None else phonon
    rows, columns = columns_in_phonopy_order(phonon, cells, layout)
    at = rows[:, None, None], columns[:, :, None], columns[:, None, :]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("version", data=np.bytes_("phojax"))
        file.create_dataset("fc3", data=np.asarray(constants.values)[at], compression="gzip")
        file.create_dataset("p2s_map", data=np.asarray(phonon.primitive.p2s_map, np.int64))
        if constants.cutoff is not None:
            kept = kept_triplets(cells, constants.cutoff)[at].astype(np.byte)
            file.create_dataset("fc3_nonzero_indices", data=kept, compression="gzip")
            file.create_dataset("fc3_cutoff", data=float(constants.cutoff))


def read_fc3_hdf5(path: PathLike, cells: Supercell, phonon: Any = None) -> ThirdOrder:
    """Return third-order force constants (eV/Å³) from phono3py's fc3.hdf5, full or compact.

    As they are: nothing is symmetrised (`third_rules.enforced`). Of a full file the rows of
    the primitive atoms are taken.

    Args:
        path: fc3.hdf5.
        cells: The supercell of that calculation.
        phonon: A Phonopy or Phono3py object with the order of atoms of the file; by default the
            one whose unit cell is our primitive cell.

    Raises:
        InputError: naming the file, where it is missing, has no fc3, or does not fit the cells.
    """
    phonon = phonopy_of(cells) if phonon is None else phonon
    if not pathlib.Path(path).is_file():
        raise fail(f"no file {path}", "fc3.hdf5 of phono3py")
    try:
        with h5py.File(path, "r") as file:
            if "fc3" not in file:
                raise fail(f"{path} holds {', '.join(file) or 'nothing'}", "a dataset fc3")
            given = np.asarray(file["fc3"])
            p2s = np.asarray(file["p2s_map"]) if "p2s_map" in file else None
            cutoff = float(np.asarray(file["fc3_cutoff"])) if "fc3_cutoff" in file else None
    except OSError as error:
        raise fail(f"{path} cannot be read ({error})", "an HDF5 file") from error
    expected = np.asarray(phonon.primitive.p2s_map)
    rows, columns = columns_in_phonopy_order(phonon, cells)
    n, N = columns.shape
    if given.shape[:1] == (N,) and n != N:
        given = given[expected]
    check_shape(f"fc3 of {path}", given, (n, N, N, 3, 3, 3), "or as many rows as atoms")
    if p2s is not None and not np.array_equal(p2s, expected):
        raise fail(
            f"{path} has the primitive atoms {p2s.tolist()} of its supercell",
            f"{expected.tolist()}",
            "Pass phonon=, an object of the calculation that wrote it",
        )
    ours = np.empty_like(given)
    ours[rows[:, None, None], columns[:, :, None], columns[:, None, :]] = given
    return third_order(jnp.asarray(ours), cells, cutoff)


def write_shengbte_third(
    path: PathLike,
    constants: ThirdOrder,
    *,
    images: str = "shared",
    smallest: float = 1e-10,
) -> int:
    """Write FORCE_CONSTANTS_3RD for ShengBTE; return the number of blocks.

    Args:
        path: The file; its folder is made where it is missing.
        constants: In eV/Å³.
        images: "shared", eq. (1), or "one": the first of them gets the whole.
        smallest: Triplets without a component above it are not written, eV/Å³.

    Raises:
        InputError: other `images`; no triplet at all.
    """
    if images not in ("shared", "one"):
        raise fail(f"images {images!r}", '"shared" or "one"')
    values = np.asarray(constants.values)
    cells = constants.supercell
    wanted = np.abs(values).max(axis=(3, 4, 5)) > smallest
    if not wanted.any():
        raise fail(f"no component above {smallest} eV/Å³", "third-order force constants to write")
    atoms, lattice, share = triplet_images(cells, wanted)
    if images == "one":
        _, first = np.unique(atoms, axis=0, return_index=True)
        atoms, lattice, share = atoms[first], lattice[first], np.ones(len(first))
    vectors = (lattice @ np.asarray(cells.primitive.cell)).reshape(-1, 6)
    copies = len(cells.images)
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.write(f"{len(atoms)}\n")
        for number, (at, R, w) in enumerate(zip(atoms, vectors, share, strict=True), 1):
            i, j, k = at
            known = i + 1, j // copies + 1, k // copies + 1
            phi = (w * values[i, j, k]).reshape(-1)
            file.write(_BLOCK.format(number, *R, *known, *phi))
    return len(atoms)


def read_shengbte_third(path: PathLike, cells: Supercell) -> ThirdOrder:
    """Return third-order force constants (eV/Å³) from FORCE_CONSTANTS_3RD, as they are.

    Images of a triplet that the supercell's translations connect are added up.

    Args:
        path: The file.
        cells: The supercell they are to live in; the file's cell is its primitive one.

    Raises:
        InputError: naming the file, where it is missing, broken, or does not fit the cells.
    """
    try:
        words = pathlib.Path(path).read_text().split()
        count = int(words[0])
        numbers = np.array(words[1:], float).reshape(count, _NUMBERS)
    except OSError as error:
        raise fail(f"{path} cannot be read ({error})", "a text file") from error
    except (ValueError, IndexError) as error:
        raise fail(
            f"{path} is not FORCE_CONSTANTS_3RD ({error})",
            f"a number of blocks and {_NUMBERS} numbers in each",
        ) from error
    n, copies = len(cells.primitive), len(cells.images)
    i, j, k = np.rint(numbers[:, 7:10]).astype(int).T - 1
    exact = numbers[:, 1:7].reshape(-1, 2, 3) @ np.linalg.inv(np.asarray(cells.primitive.cell))
    lattice = np.rint(exact).astype(int)
    table = numbers[:, 10:].reshape(-1, 27, 4)
    axes = np.rint(table[..., :3]).astype(int) - 1
    if min(i.min(), j.min(), k.min()) < 0 or max(i.max(), j.max(), k.max()) >= n:
        raise fail(f"{path} numbers atoms up to {max(i.max(), j.max(), k.max()) + 1}", f"1 to {n}")
    if np.abs(exact - lattice).max() > 1e-3:
        raise fail(
            f"{path} has cells that are not lattice vectors of the primitive cell",
            "the primitive cell of the calculation that wrote it",
        )
    if axes.min() < 0 or axes.max() > 2:
        raise fail(f"{path} numbers axes {axes.min() + 1} to {axes.max() + 1}", "1 to 3")
    where = np.arange(count)[:, None]
    blocks = np.zeros((count, 3, 3, 3))
    blocks[where, axes[..., 0], axes[..., 1], axes[..., 2]] = table[..., 3]
    L, M = cell_index(cells, lattice).T
    values = np.zeros((n, n * copies, n * copies, 3, 3, 3))
    np.add.at(values, (i, j * copies + L, k * copies + M), blocks)
    return third_order(jnp.asarray(values), cells)


def triplet_images(
    cells: Supercell, wanted: Bool[np.ndarray, "i jL kM"]
) -> tuple[Int[np.ndarray, "entry 3"], Int[np.ndarray, "entry 2 3"], Float[np.ndarray, " entry"]]:
    """Return the images of triplets with the smallest perimeter, and their shares, eq. (1).

    Args:
        cells: The supercell; concrete.
        wanted: Which triplets.

    Returns:
        (i, j·L, k·M), the lattice vectors R_j and R_k in units of the primitive ones, and w.
    """
    primitive = cells.primitive
    cell, x = np.asarray(primitive.cell), np.asarray(primitive.positions)
    n, copies = len(primitive), len(cells.images)
    j = np.repeat(np.arange(n), copies)
    near = _near_lattice_vectors(cells)  # (i, jL, image, 3)
    atoms, lattice, shares = [], [], []
    for a in range(n):
        reach = near[a] @ cell + (x[j] - x[a])[:, None]  # (jL, image, 3) Å
        far = np.linalg.norm(reach, axis=-1)
        for b in np.flatnonzero(wanted[a].any(axis=1)):
            c = np.flatnonzero(wanted[a, b])
            apart = np.linalg.norm(reach[c][:, None] - reach[b][None, :, None], axis=-1)
            around = far[b][None, :, None] + far[c][:, None] + apart  # (kM, image, image)
            least = around.min(axis=(1, 2), keepdims=True)
            at, s, t = np.nonzero(around <= least + _SAME_PERIMETER)
            atoms.append(np.stack([np.full(len(at), a), np.full(len(at), b), c[at]], 1))
            lattice.append(np.stack([near[a, b, s], near[a, c[at], t]], 1))
            shares.append(1.0 / np.bincount(at)[at])
    return np.concatenate(atoms), np.concatenate(lattice), np.concatenate(shares)


def _near_lattice_vectors(cells: Supercell) -> Int[np.ndarray, "i jL image 3"]:
    """Return 27 lattice vectors R_j of every pair, around one of its nearest images."""
    from ase.geometry import minkowski_reduce

    found = nearest_images(cells)
    n, copies = len(cells.primitive), len(cells.images)
    nearest = np.zeros((n, n * copies, 3), int)
    nearest[np.asarray(found.row), np.asarray(found.column)] = np.asarray(found.lattice)[
        np.asarray(found.at)
    ]
    P = np.asarray(cells.matrix)
    _, operation = minkowski_reduce(P @ np.asarray(cells.primitive.cell))
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return nearest[:, :, None] + steps @ (np.rint(operation).astype(int) @ P)
