"""Third-order force constants through files: ours, and the readers of phono3py and hiPhive."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.convert import ase_atoms
from phojax.force_constants.container import nearest_images
from phojax.force_constants.third_container import third_order
from phojax.force_constants.third_rules import enforced, kept_triplets
from phojax.io.phonopy_files import phonopy_of
from phojax.io.third_order_files import (
    read_fc3_hdf5,
    read_shengbte_third,
    triplet_images,
    write_fc3_hdf5,
    write_shengbte_third,
)
from phojax.structure import structure, supercell

SKEWED = np.array([[4.0, 0.3, 0.0], [1.6, 4.4, 0.2], [-0.9, 1.1, 5.2]])


def made(matrix=(2, 2, 2), cutoff=None, away=1):
    """Random Φ with permutation symmetry and the sum rule, in a triclinic crystal."""
    x = np.array([[0.0, 0.0, 0.0], [0.43, 0.52, 0.47]]) @ SKEWED
    x[1] += away * (SKEWED[0] - SKEWED[2])  # atoms need not lie in the cell
    cells = supercell(structure(SKEWED, x, [11, 17]), matrix)
    n, N = len(x), len(cells.structure)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(n, N, N, 3, 3, 3)))
    return enforced(third_order(values, cells, cutoff))[0]


@pytest.mark.parametrize("matrix", [(2, 2, 2), ((0, 1, 1), (1, 0, 1), (1, 1, 0)), (3, 1, 2)])
@pytest.mark.parametrize("layout", ["compact", "full"])
def test_hdf5_round_trip(tmp_path, matrix, layout):
    held = made(matrix, cutoff=4.5)
    write_fc3_hdf5(tmp_path / "new" / "fc3.hdf5", held, layout=layout)
    back = read_fc3_hdf5(tmp_path / "new" / "fc3.hdf5", held.supercell)
    assert jnp.array_equal(back.values, held.values)
    assert back.cutoff == 4.5
    n, N = held.values.shape[:2]
    with h5py.File(tmp_path / "new" / "fc3.hdf5") as file:
        assert file["fc3"].shape[0] == (n if layout == "compact" else N)
        zero = np.asarray(file["fc3_nonzero_indices"]) == 0
        assert zero.any() == (N > 4)  # the smallest cell has no pair as long
        assert np.all(np.asarray(file["fc3"])[zero] == 0)


def by_position(held, x):
    """Φ(s, t, u) of atoms at Cartesian positions x, from ours by position alone."""
    cells = held.supercell
    ours, lattice = np.asarray(cells.structure.positions), np.asarray(cells.structure.cell)
    home = np.asarray(cells.primitive.positions)
    inverse = np.linalg.inv(lattice)

    def index(points):
        apart = (points[..., None, :] - ours) @ inverse
        distance = np.linalg.norm((apart - np.rint(apart)) @ lattice, axis=-1)
        assert distance.min(axis=-1).max() < 1e-6
        return distance.argmin(axis=-1)

    kind = index(x) // len(cells.images)
    columns = index(x[None] - (x - home[kind])[:, None])  # seen from s, brought home
    return np.asarray(held.values)[kind[:, None, None], columns[:, :, None], columns[:, None]]


def test_full_layout_holds_the_atoms_of_phonopys_supercell(tmp_path):
    held = made(((0, 1, 1), (1, 0, 1), (1, 1, 0)))
    write_fc3_hdf5(tmp_path / "fc3.hdf5", held, layout="full")
    with h5py.File(tmp_path / "fc3.hdf5") as file:
        whole = np.asarray(file["fc3"])
    phonon = phonopy_of(held.supercell)
    np.testing.assert_array_equal(whole, by_position(held, phonon.supercell.positions))
    np.testing.assert_allclose(whole, whole.transpose(2, 1, 0, 5, 4, 3), atol=1e-13)


@pytest.mark.parametrize("images", ["shared", "one"])
def test_shengbte_round_trip(tmp_path, images):
    held = made((2, 1, 2), cutoff=4.5)
    count = write_shengbte_third(tmp_path / "FORCE_CONSTANTS_3RD", held, images=images)
    back = read_shengbte_third(tmp_path / "FORCE_CONSTANTS_3RD", held.supercell)
    assert jnp.abs(back.values - held.values).max() < 1e-15
    nonzero = int((np.abs(np.asarray(held.values)).max(axis=(3, 4, 5)) > 0).sum())
    assert count == nonzero if images == "one" else count > nonzero
    # Folded into a smaller supercell, images add up: the whole is kept.
    small = read_shengbte_third(
        tmp_path / "FORCE_CONSTANTS_3RD", supercell(held.supercell.primitive, (1, 1, 1))
    )
    folded = held.values.reshape(2, 2, 4, 2, 4, 3, 3, 3).sum(axis=(2, 4))
    assert jnp.abs(small.values - folded).max() < 1e-13


def test_shengbte_lines(tmp_path):
    """The first block, written out."""
    held = made((2, 2, 2), cutoff=3.8)
    path = tmp_path / "FORCE_CONSTANTS_3RD"
    count = write_shengbte_third(path, held)
    lines = path.read_text().splitlines()
    assert int(lines[0]) == count
    assert len(lines) == 1 + 32 * count
    assert lines[1:3] == ["", "1"]
    assert [float(x) for line in lines[3:5] for x in line.split()] == [0] * 6
    assert lines[5].split() == ["1", "1", "1"]
    assert [line.split()[:3] for line in lines[6:33]] == [
        [a, b, c] for a in "123" for b in "123" for c in "123"
    ]
    values = np.array([float(line.split()[3]) for line in lines[6:33]]).reshape(3, 3, 3)
    np.testing.assert_allclose(values, held.values[0, 0, 0], rtol=1e-15)
    # Vectors are lattice vectors of the cells that j and k lie in, Å.
    blocks = np.array(" ".join(lines[1:]).split(), float).reshape(count, -1)
    cells = blocks[:, 1:7].reshape(-1, 3) @ np.linalg.inv(SKEWED)
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-12)


@pytest.mark.parametrize("matrix", [(2, 1, 1), ((1, 0, 0), (1, 1, 0), (0, -1, 1))])
def test_images_of_triplets_are_the_smallest(matrix):
    """Against all pairs of images within ±4 supercells."""
    cells = made(matrix).supercell
    n, N = len(cells.primitive), len(cells.structure)
    copies = N // n
    atoms, lattice, share = triplet_images(cells, np.ones((n, N, N), bool))
    home = np.asarray(cells.primitive.positions)
    total = np.zeros((n, N, N))
    np.add.at(total, tuple(atoms.T), share)
    np.testing.assert_allclose(total, 1, atol=1e-12)

    x = np.asarray(cells.structure.positions)
    steps = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    steps = steps @ np.asarray(cells.structure.cell)
    for i, j, k in [(0, 1, N - 1), (1, 0, N - 2), (1, N - 1, N - 1), (0, N - 1, 0)]:
        to_j, to_k = x[j] + steps - home[i], x[k] + steps - home[i]
        reach = np.linalg.norm(to_j, axis=1)[:, None] + np.linalg.norm(to_k, axis=1)
        between = np.linalg.norm(to_j[:, None] - to_k, axis=-1)
        least = (reach + between).min()
        count = (reach + between < least + 1e-4).sum()
        mine = np.flatnonzero((atoms == (i, j, k)).all(axis=1))
        assert len(mine) == count
        R = lattice[mine] @ SKEWED
        to_j, to_k = R[:, 0] + home[j // copies] - home[i], R[:, 1] + home[k // copies] - home[i]
        perimeter = sum(np.linalg.norm(v, axis=1) for v in (to_j, to_k, to_j - to_k))
        np.testing.assert_allclose(perimeter, least, atol=1e-9)


def test_within_a_third_of_the_supercell_every_pair_is_at_its_nearest_image():
    cells = supercell(made((1, 1, 1)).supercell.primitive, (4, 4, 4))
    near = nearest_images(cells)
    one = np.asarray(near.share) == 1.0
    row, column = np.asarray(near.row)[one], np.asarray(near.column)[one]
    R = np.zeros((2, len(cells.structure), 3), int)
    R[row, column] = np.asarray(near.lattice)[np.asarray(near.at)[one]]
    wanted = kept_triplets(cells, 5.2)
    atoms, lattice, share = triplet_images(cells, wanted)
    assert np.all(share == 1)
    assert len(atoms) == wanted.sum() > 50
    np.testing.assert_array_equal(lattice[:, 0], R[atoms[:, 0], atoms[:, 1]])
    np.testing.assert_array_equal(lattice[:, 1], R[atoms[:, 0], atoms[:, 2]])


def test_bad_files(tmp_path):
    held = made((1, 1, 2))
    cells = held.supercell
    with pytest.raises(InputError, match="layout 'wide'"):
        write_fc3_hdf5(tmp_path / "fc3.hdf5", held, layout="wide")
    with pytest.raises(InputError, match="no file"):
        read_fc3_hdf5(tmp_path / "fc3.hdf5", cells)
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(InputError, match=r"text\.hdf5 cannot be read"):
        read_fc3_hdf5(tmp_path / "text.hdf5", cells)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["force_constants"] = np.zeros(3)
    with pytest.raises(InputError, match="holds force_constants; expected a dataset fc3"):
        read_fc3_hdf5(tmp_path / "other.hdf5", cells)
    write_fc3_hdf5(tmp_path / "fc3.hdf5", held)
    with pytest.raises(InputError, match="has shape"):
        read_fc3_hdf5(tmp_path / "fc3.hdf5", supercell(cells.primitive, (1, 2, 2)))
    with h5py.File(tmp_path / "fc3.hdf5", "r+") as file:
        file["p2s_map"][...] = [0, 1]
    with pytest.raises(InputError, match="primitive atoms"):
        read_fc3_hdf5(tmp_path / "fc3.hdf5", cells)

    path = tmp_path / "FORCE_CONSTANTS_3RD"
    with pytest.raises(InputError, match="cannot be read"):
        read_shengbte_third(path, cells)
    with pytest.raises(InputError, match="images 'all'"):
        write_shengbte_third(path, held, images="all")
    with pytest.raises(InputError, match="no component above"):
        write_shengbte_third(path, held, smallest=1e3)
    write_shengbte_third(path, held)
    text = path.read_text()
    for wrong, message in (
        (text[:-40], "is not FORCE_CONSTANTS_3RD"),
        ("", "is not FORCE_CONSTANTS_3RD"),
        (text.replace("\n1 1 2\n", "\n1 1 3\n"), "atoms up to 3"),
        (text.replace("1 1 1 ", "1 1 4 "), "axes 1 to 4"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=message):
            read_shengbte_third(path, cells)
    path.write_text(text)
    other = structure(1.1 * SKEWED, np.asarray(cells.primitive.positions), [11, 17])
    with pytest.raises(InputError, match="not lattice vectors"):
        read_shengbte_third(path, supercell(other, (1, 1, 2)))


def wrapped(cells):
    """ASE's atoms in the supercell, as hiPhive asks for."""
    atoms = ase_atoms(cells.structure)
    atoms.wrap()
    return atoms


def test_hiphive_reads_the_same(tmp_path):
    hiphive = pytest.importorskip("hiphive")
    for matrix, cutoff, images in (((3, 3, 3), 4.0, "shared"), ((2, 1, 2), 4.5, "one")):
        held = made(matrix, cutoff=cutoff, away=0)
        path = tmp_path / "FORCE_CONSTANTS_3RD"
        write_shengbte_third(path, held, images=images)
        cells = held.supercell
        theirs = hiphive.ForceConstants.read_shengBTE(
            wrapped(cells), str(path), ase_atoms(cells.primitive)
        ).get_fc_array(order=3)
        ours = np.asarray(held.values)
        assert np.abs(theirs[:: len(cells.images)] - ours).max() < 1e-14
        # Theirs, written by them, read by us: ten decimals.
        fcs = hiphive.ForceConstants.from_arrays(wrapped(cells), fc3_array=theirs)
        if images == "shared":
            fcs.write_to_shengBTE(str(path), ase_atoms(cells.primitive), cutoff=4.0)
            back = read_shengbte_third(path, cells).values
            assert jnp.abs(back - held.values).max() < 1e-9
