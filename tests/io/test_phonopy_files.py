"""phonopy's files against phonopy itself: D(q) of the same force constants, without NAC."""

import lzma
import shutil

import h5py
import jax.numpy as jnp
import numpy as np
import phonopy
import pytest
import yaml
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5
from phonopy.structure.atoms import PhonopyAtoms

from phojax.checks import InputError
from phojax.force_constants import force_constants
from phojax.io.phonopy_files import read_phonopy, write_phonopy
from phojax.nac import BornCharges
from phojax.structure import structure, supercell

# Springs at random have no symmetry that phonopy would look for.
pytestmark = pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")

QS = np.random.default_rng(7).uniform(-1, 1, (4, 3))


def dynamical_matrix(constants, q):
    """D(q) as a plain sum over lattice vectors, eq. C1 of the definitions."""
    cell = constants.supercell.primitive
    x, m = np.asarray(cell.fractional), np.sqrt(np.asarray(cell.masses))
    R = np.asarray(constants.images.lattice)
    phase = np.exp(2j * np.pi * (R[:, None, None] + x[None, None] - x[None, :, None]) @ q)
    D = np.einsum("rij,rijab->iajb", phase, np.asarray(constants.by_lattice_vector))
    D = D / (m[:, None, None, None] * m[None, None, :, None])
    return D.reshape(3 * len(m), -1)


def peer_matrices(phonon, force_constants):
    """D(q) of phonopy, as it is: phonopy would average it with its adjoint."""
    peer = Phonopy(
        phonon.unitcell,
        phonon.supercell_matrix,
        primitive_matrix=phonon.primitive_matrix,
        hermitianize_dynamical_matrix=False,
    )
    peer.force_constants = force_constants
    return np.array([_peer_matrix(peer.dynamical_matrix, q) for q in QS])


def _peer_matrix(matrix, q):
    # run_qpoints would average with the adjoint whatever was asked for.
    matrix.run(q)
    return matrix.dynamical_matrix


def check_same(constants, phonon, values=None):
    ours = np.array([dynamical_matrix(constants, q) for q in QS])
    peer = peer_matrices(phonon, phonon.force_constants if values is None else values)
    np.testing.assert_allclose(ours, peer, rtol=0, atol=1e-10 * np.abs(peer).max())


def springs(phonon, seed=0):
    """Compact force constants of a crystal of random springs to the nearest images."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(phonon.primitive), len(phonon.supercell), 3, 3))
    return np.ascontiguousarray(values)


def low_symmetry_cell(centred):
    """A triclinic cell of five atoms; `centred`: its body-centred double."""
    rng = np.random.default_rng(3)
    cell = np.array([[3.9, 0.1, -0.2], [0.5, 4.4, 0.3], [-0.3, 0.2, 5.1]])
    x = rng.uniform(-0.3, 1.3, (5, 3))
    numbers, masses = [11, 17, 11, 9, 17], [22.5, 35.0, 22.9, 19.0, 36.5]
    if centred:
        x = np.concatenate([x, x + 0.5])
        # Pairs of the two halves are shuffled: the primitive atoms are not the first ones.
        order = rng.permutation(10)
        x = x[order]
        numbers, masses = (np.array(v * 2)[order] for v in (numbers, masses))
    return PhonopyAtoms(cell=cell, scaled_positions=x, numbers=numbers, masses=masses)


BODY_CENTRED = [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]
CASES = [
    (False, [[2, 0, 0], [0, 2, 0], [0, 0, 1]], np.eye(3)),
    (False, [[1, 1, 0], [-1, 2, 0], [1, 0, 2]], np.eye(3)),
    (True, [[2, 0, 0], [0, 1, 0], [0, 0, 2]], BODY_CENTRED),
    (True, [[0, 1, 1], [1, 0, 1], [1, 1, 0]], BODY_CENTRED),
]


@pytest.fixture(params=range(len(CASES)))
def phonon(request):
    centred, matrix, primitive = CASES[request.param]
    made = Phonopy(low_symmetry_cell(centred), matrix, primitive_matrix=primitive)
    made.force_constants = springs(made)
    return made


@pytest.mark.parametrize("kind", ["yaml", "yaml.xz", "text", "hdf5", "full text", "full hdf5"])
def test_reads_force_constants(phonon, kind, tmp_path):
    values = phonon.force_constants
    path, options = tmp_path / "phonopy_params.yaml", {}
    phonon.save(path, settings={"force_constants": kind.startswith("yaml")})
    p2s = phonon.primitive.p2s_map
    if kind == "yaml.xz":
        packed = tmp_path / "phonopy_params.yaml.xz"
        packed.write_bytes(lzma.compress(path.read_bytes()))
        path = packed
    elif "full" in kind:
        # Rows that do not belong to primitive atoms are not read.
        full = np.full((len(phonon.supercell), len(phonon.supercell), 3, 3), 7.0)
        full[p2s] = values
        options = {"force_constants": tmp_path / "constants"}
        if "text" in kind:
            write_FORCE_CONSTANTS(full, options["force_constants"])
        else:
            write_force_constants_to_hdf5(full, str(options["force_constants"]))
    elif kind == "text":
        options = {"force_constants": tmp_path / "FORCE_CONSTANTS"}
        write_FORCE_CONSTANTS(values, options["force_constants"], p2s_map=p2s)
    elif kind == "hdf5":
        options = {"force_constants": tmp_path / "fc.hdf5"}
        write_force_constants_to_hdf5(values, str(options["force_constants"]), p2s_map=p2s)
    read = read_phonopy(path, **options)
    check_same(read.force_constants, phonon)
    np.testing.assert_allclose(
        read.force_constants.supercell.primitive.masses, phonon.primitive.masses, atol=1e-6
    )
    assert read.source == f"phonopy {phonopy.__version__}"
    assert read.born is None


def with_forces(matrix=(2, 1, 1)):
    """Rocksalt with one displacement per species, forces of a known quadratic energy."""
    a = 5.6
    x = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cell = PhonopyAtoms(
        cell=np.eye(3) * a,
        scaled_positions=np.concatenate([x, x + 0.5]),
        symbols=["Na"] * 4 + ["Cl"] * 4,
        masses=[22.99] * 4 + [35.45] * 4,  # phonopy writes six decimals
    )
    phonon = Phonopy(cell, np.diag(matrix), primitive_matrix="F")
    phonon.generate_displacements(distance=0.01)
    big = phonon.supercell
    delta = big.scaled_positions[:, None] - big.scaled_positions[None]
    delta = (delta - np.rint(delta)) @ big.cell
    r = np.linalg.norm(delta, axis=-1)
    near = (r > 0.1) & (r < 0.52 * a)
    unit = delta / np.where(r > 0.1, r, 1)[..., None]
    blocks = -np.einsum("ij,ija,ijb->ijab", 1.7 * near, unit, unit) - 0.2 * near[
        ..., None, None
    ] * np.eye(3)
    blocks[np.arange(len(big)), np.arange(len(big))] = -blocks.sum(1)
    exact = blocks[np.asarray(phonon.primitive.p2s_map)]
    forces = [
        -np.einsum("jab,b->ja", blocks[:, d["number"]], d["displacement"])
        for d in phonon.dataset["first_atoms"]
    ]
    return phonon, forces, exact


@pytest.mark.parametrize("place", ["params", "FORCE_SETS option", "FORCE_SETS beside"])
def test_force_constants_from_forces(place, tmp_path):
    phonon, forces, exact = with_forces()
    phonon.save(tmp_path / "phonopy_disp.yaml")
    phonon.forces = forces
    options, peer_options = {}, {}
    path = tmp_path / "phonopy_disp.yaml"
    if place == "params":
        path = tmp_path / "phonopy_params.yaml"
        phonon.save(path)
    else:
        name = "FORCE_SETS" if "beside" in place else "sets.txt"
        phonopy.file_IO.write_FORCE_SETS(phonon.dataset, filename=tmp_path / name)
        options = {} if "beside" in place else {"force_sets": tmp_path / name}
        peer_options = {"force_sets_filename": tmp_path / name}
    read = read_phonopy(path, **options)
    # The forces are exactly linear; FORCE_SETS rounds them to 1e-10 eV/Å, over 0.01 Å.
    constants = read.force_constants
    ours = np.array([dynamical_matrix(constants, q) for q in QS])
    peer = peer_matrices(phonon, exact)
    np.testing.assert_allclose(ours, peer, rtol=0, atol=1e-8 * np.abs(peer).max())
    check_same(constants, phonopy.load(path, **peer_options, symmetrize_fc=False))
    assert any("not symmetrised" in note for note in read.notes)


def test_random_displacements_go_to_symfc(tmp_path):
    pytest.importorskip("symfc")
    phonon, _, exact = with_forces((1, 1, 1))
    full = phonopy.harmonic.force_constants.compact_fc_to_full_fc(phonon.primitive, exact)
    phonon.generate_displacements(distance=0.01, number_of_snapshots=8, random_seed=1)
    phonon.forces = -np.einsum("ijab,sjb->sia", full, phonon.dataset["displacements"])
    path = tmp_path / "phonopy_params.yaml"
    phonon.save(path)
    read = read_phonopy(path)
    ours = np.array([dynamical_matrix(read.force_constants, q) for q in QS])
    peer = peer_matrices(phonon, exact)
    np.testing.assert_allclose(ours, peer, rtol=0, atol=1e-10 * np.abs(peer).max())
    check_same(read.force_constants, phonopy.load(path, symmetrize_fc=False))
    assert any("symfc" in note for note in read.notes)


def test_old_spelling_of_units_is_read(tmp_path):
    phonon = Phonopy(low_symmetry_cell(False), [2, 1, 1], primitive_matrix=np.eye(3))
    phonon.force_constants = springs(phonon)
    path = tmp_path / "phonopy_params.yaml"
    phonon.save(path, settings={"force_constants": True})
    text = path.read_text().replace('length: "angstrom"', 'length: "Angstrom"')
    path.write_text(text.replace("eV/angstrom^2", "eV/Angstrom^2"))
    with pytest.raises(ValueError, match="conflicts"):
        phonopy.load(path)
    read = read_phonopy(path)
    check_same(read.force_constants, phonon)
    assert "old spelling" in " ".join(read.notes)


def test_units_of_other_programs(tmp_path):
    """The same crystal in Ry and Bohr (Quantum ESPRESSO) and in eV and Å."""
    from ase.units import Bohr, Rydberg

    cell = low_symmetry_cell(False)
    atomic = PhonopyAtoms(
        cell=cell.cell / Bohr,
        scaled_positions=cell.scaled_positions,
        numbers=cell.numbers,
        masses=cell.masses,
    )
    plain = Phonopy(cell, [2, 1, 1], primitive_matrix=np.eye(3))
    plain.force_constants = springs(plain)
    other = Phonopy(atomic, [2, 1, 1], primitive_matrix=np.eye(3), calculator="qe")
    other.force_constants = plain.force_constants / (Rydberg / Bohr**2)
    charges = np.array([1.0, -1.2, 1.1, -0.7, -0.2])[:, None, None] * np.eye(3)
    other.nac_params = {"born": charges, "dielectric": np.eye(3) * 2.5, "factor": 2.0}
    other.save(tmp_path / "phonopy_params.yaml", settings={"force_constants": True})
    read = read_phonopy(tmp_path / "phonopy_params.yaml")
    ours = np.array([dynamical_matrix(read.force_constants, q) for q in QS])
    peer = peer_matrices(plain, plain.force_constants)
    # phonopy and ASE carry different years of CODATA.
    np.testing.assert_allclose(ours, peer, rtol=0, atol=1e-6 * np.abs(peer).max())
    np.testing.assert_allclose(read.born.factor, 14.39964, rtol=1e-6)
    np.testing.assert_allclose(read.born.charges, charges, atol=1e-14)
    assert "qe" in " ".join(read.notes)


@pytest.mark.parametrize(
    "matrix", [[[2, 0, 0], [0, 2, 0], [0, 0, 2]], [[1, 1, 0], [-1, 2, 0], [1, 0, 2]]]
)
def test_writes_what_phonopy_and_we_read(matrix, tmp_path):
    rng = np.random.default_rng(5)
    cell = low_symmetry_cell(False)
    # Standard masses: more digits than phonopy writes of its own accord.
    primitive = structure(cell.cell, cell.positions, cell.numbers)
    cells = supercell(primitive, matrix)
    n = len(primitive)
    values = rng.normal(size=(n, n * len(cells.images), 3, 3))
    constants = force_constants(jnp.asarray(values), cells)
    born = BornCharges(
        jnp.asarray(rng.normal(size=(n, 3, 3))), jnp.eye(3) * 3.0, jnp.asarray(14.4), "wang"
    )
    write_phonopy(tmp_path, constants, born=born)

    phonon = phonopy.load(
        tmp_path / "phonopy.yaml",
        force_constants_filename=tmp_path / "force_constants.hdf5",
        is_nac=False,
    )
    check_same(constants, phonon)
    read = read_phonopy(tmp_path / "phonopy.yaml")
    back = read.force_constants
    assert back.supercell.matrix == cells.matrix
    check_same(back, phonon)
    # Atoms stay outside the cell where they were, so every entry has its old place.
    np.testing.assert_allclose(back.supercell.primitive.positions, primitive.positions, atol=1e-13)
    np.testing.assert_array_equal(np.asarray(back.values), values)
    np.testing.assert_array_equal(back.supercell.primitive.masses, primitive.masses)
    np.testing.assert_allclose(read.born.charges, born.charges, atol=1e-14)
    assert (float(read.born.factor), read.born.method) == (14.4, "wang")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["force_constants.hdf5", "phonopy.yaml"]


@pytest.mark.parametrize("text", [False, True], ids=["hdf5", "text"])
@pytest.mark.parametrize("layout", ["compact", "full"])
@pytest.mark.parametrize("matrix", [[2, 2, 1], [[1, 1, 0], [-1, 2, 0], [1, 0, 2]]])
def test_writes_both_layouts_and_formats(matrix, layout, text, tmp_path):
    cell = low_symmetry_cell(False)
    primitive = structure(cell.cell, cell.positions, cell.numbers)
    cells = supercell(primitive, matrix)
    n, atoms = len(primitive), len(primitive) * len(cells.images)
    values = np.random.default_rng(5).normal(size=(n, atoms, 3, 3))
    constants = force_constants(jnp.asarray(values), cells)
    paths = write_phonopy(tmp_path, constants, layout=layout, text=text)
    assert [p.name for p in paths] == [
        "phonopy.yaml", "FORCE_CONSTANTS" if text else "force_constants.hdf5"
    ]  # fmt: skip
    phonon = phonopy.load(
        paths[0],
        force_constants_filename=paths[1],
        is_nac=False,
        is_compact_fc=layout == "compact",
        symmetrize_fc=False,
    )
    rows = n if layout == "compact" else atoms
    assert phonon.force_constants.shape == (rows, atoms, 3, 3)
    check_same(constants, phonon)
    if layout == "full":
        # Every row is that of its primitive atom, moved: phonopy's own expansion of ours.
        p2s = phonon.primitive.p2s_map
        compact = np.ascontiguousarray(phonon.force_constants[p2s])
        expand = phonopy.harmonic.force_constants.compact_fc_to_full_fc
        np.testing.assert_allclose(phonon.force_constants, expand(phonon.primitive, compact))
    back = np.asarray(read_phonopy(paths[0]).force_constants.values)
    if text:
        np.testing.assert_allclose(back, values, rtol=0, atol=1e-15)
    else:
        np.testing.assert_array_equal(back, values)


def test_layouts_and_files_that_clash(tmp_path):
    primitive = structure(np.eye(3) * 4.0, [[0, 0, 0], [2.0, 2.0, 2.0]], [11, 17])
    constants = force_constants(jnp.zeros((2, 4, 3, 3)), supercell(primitive, [2, 1, 1]))
    with pytest.raises(InputError, match="layout 'wide'"):
        write_phonopy(tmp_path, constants, layout="wide")
    write_phonopy(tmp_path, constants)
    with pytest.raises(InputError, match=r"holds force_constants\.hdf5"):
        write_phonopy(tmp_path, constants, text=True)


@pytest.mark.parametrize("dialect", ["atoms", "without primitive", "phono3py", "fc in phono3py"])
def test_old_dialects_of_the_yaml(dialect, tmp_path):
    """What older versions wrote, made of today's file; the force constants beside it."""
    phonon = Phonopy(low_symmetry_cell(True), [2, 1, 2], primitive_matrix=BODY_CENTRED)
    phonon.force_constants = springs(phonon)
    path = tmp_path / "phonopy_disp.yaml"
    phonon.save(path, settings={"force_constants": False, "displacements": False})
    write_FORCE_CONSTANTS(
        phonon.force_constants, tmp_path / "FORCE_CONSTANTS", p2s_map=phonon.primitive.p2s_map
    )
    tree = phonopy.interface.phonopy_yaml.load_yaml(path)
    del tree["physical_unit"]
    source = "phonopy 1.11"
    if dialect == "atoms":
        # 1.10 and before: "atoms" with "position".
        for name in ("unit_cell", "primitive_cell", "supercell"):
            points = tree[name].pop("points")
            tree[name]["atoms"] = [
                {("position" if k == "coordinates" else k): v for k, v in point.items()}
                for point in points
            ]
    if dialect == "without primitive":
        del tree["primitive_matrix"]
    header = tree.pop("phonopy") | {"version": 1.11}
    if "phono3py" in dialect:
        # Its plain keys are of the third-order supercell; displacements there are pairs.
        tree["phono3py"], source = header, "phono3py 1.11"
        tree["phonon_supercell_matrix"] = tree["supercell_matrix"]
        tree["supercell_matrix"] = np.eye(3, dtype=int).tolist()
        tree["phonon_supercell"] = tree.pop("supercell")
        tree["displacements"] = [{"number": 1, "displacement": [0.03, 0, 0], "pairs": []}]
    else:
        tree["phonopy"] = header
    path.write_text(yaml.safe_dump(tree))
    options = {}
    if dialect == "fc in phono3py":
        options["force_constants"] = tmp_path / "fc2.hdf5"
        write_force_constants_to_hdf5(phonon.force_constants, str(tmp_path / "fc2.hdf5"))
    read = read_phonopy(path, **options)
    check_same(read.force_constants, phonon)
    assert read.source == source


def test_writes_left_handed_cells(tmp_path):
    """A left-handed primitive cell, and a supercell of the other hand."""
    cell = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * 2.8
    values = np.random.default_rng(2).normal(size=(2, 16, 3, 3))
    for n, (sign, P) in enumerate([(-1, [2, 2, 2]), (1, [[0, 0, 2], [0, 2, 0], [2, 0, 0]])]):
        primitive = structure(sign * cell, [[0, 0, 0], sign * cell.sum(0) / 2], [11, 17])
        constants = force_constants(jnp.asarray(values), supercell(primitive, P))
        write_phonopy(tmp_path / str(n), constants)
        read = read_phonopy(tmp_path / str(n) / "phonopy.yaml").force_constants
        ours, back = ([dynamical_matrix(c, q) for q in QS] for c in (constants, read))
        np.testing.assert_allclose(back, ours, rtol=0, atol=1e-13)


def test_written_values_come_back_bit_by_bit(tmp_path):
    primitive = structure(np.eye(3) * 4.0, [[0, 0, 0], [2.0, 2.0, 2.0]], [11, 17])
    cells = supercell(primitive, [2, 2, 3])
    values = np.random.default_rng(1).normal(size=(2, 24, 3, 3)) * 1e-3
    write_phonopy(tmp_path / "new" / "folder", force_constants(jnp.asarray(values), cells))
    back = read_phonopy(tmp_path / "new" / "folder" / "phonopy.yaml")
    np.testing.assert_array_equal(np.asarray(back.force_constants.values), values)


# Bad input: each message names the file and what to do.


@pytest.fixture
def calculation(tmp_path):
    phonon, forces, _ = with_forces()
    phonon.save(tmp_path / "phonopy_disp.yaml")
    phonon.forces = forces
    phonopy.file_IO.write_FORCE_SETS(phonon.dataset, filename=tmp_path / "sets.txt")
    phonon.save(tmp_path / "params.yaml")
    return tmp_path


def test_without_forces(calculation):
    with pytest.raises(InputError, match=r"phonopy_disp\.yaml holds neither.*--force-sets"):
        read_phonopy(calculation / "phonopy_disp.yaml")


def test_missing_empty_and_foreign_files(calculation):
    disp = calculation / "phonopy_disp.yaml"
    with pytest.raises(InputError, match=r"nothing\.yaml does not exist"):
        read_phonopy(calculation / "nothing.yaml")
    (calculation / "empty.yaml").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.yaml is empty"):
        read_phonopy(calculation / "empty.yaml")
    (calculation / "band.yaml").write_text("nqpoint: 3\nphonon: []\n")
    with pytest.raises(InputError, match=r"band\.yaml holds no unit cell"):
        read_phonopy(calculation / "band.yaml")
    (calculation / "text.yaml").write_text("just words")
    with pytest.raises(InputError, match=r"text\.yaml is not a YAML file of phonopy"):
        read_phonopy(calculation / "text.yaml")
    with pytest.raises(InputError, match=r"no_sets does not exist"):
        read_phonopy(disp, force_sets=calculation / "no_sets")
    with pytest.raises(InputError, match=r"no_fc\.hdf5 does not exist"):
        read_phonopy(disp, force_constants=calculation / "no_fc.hdf5")
    with pytest.raises(InputError, match=r"sets\.txt: reading it fails.*BORN"):
        read_phonopy(disp, force_sets=calculation / "sets.txt", born=calculation / "sets.txt")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_truncated_files(calculation, part):
    for name in ("params.yaml", "sets.txt"):
        whole = (calculation / name).read_bytes()
        (calculation / f"cut_{name}").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match=r"cut_params\.yaml"):
        read_phonopy(calculation / "cut_params.yaml")
    with pytest.raises(InputError, match=r"cut_sets\.txt"):
        read_phonopy(calculation / "phonopy_disp.yaml", force_sets=calculation / "cut_sets.txt")
    packed = lzma.compress((calculation / "params.yaml").read_bytes())
    (calculation / "cut.yaml.xz").write_bytes(packed[: int(part * len(packed))])
    with pytest.raises(InputError, match=r"cut\.yaml\.xz"):
        read_phonopy(calculation / "cut.yaml.xz")


def test_shapes_that_do_not_fit(calculation):
    disp = calculation / "phonopy_disp.yaml"
    with h5py.File(calculation / "fc.hdf5", "w") as file:
        file["force_constants"] = np.zeros((2, 32, 3, 3))
    with pytest.raises(InputError, match=r"fc\.hdf5 have shape \(2, 32, 3, 3\); expected \(2, 16"):
        read_phonopy(disp, force_constants=calculation / "fc.hdf5")
    small, forces, _ = with_forces((1, 1, 1))
    small.forces = forces
    phonopy.file_IO.write_FORCE_SETS(small.dataset, filename=calculation / "small.txt")
    with pytest.raises(InputError, match=r"small\.txt.*16 atoms"):
        read_phonopy(disp, force_sets=calculation / "small.txt")
    with h5py.File(calculation / "empty.hdf5", "w"):
        pass
    with pytest.raises(InputError, match=r"empty\.hdf5"):
        read_phonopy(disp, force_constants=calculation / "empty.hdf5")


def test_nan_forces(calculation):
    text = (calculation / "sets.txt").read_text().splitlines()
    text[-1] = "nan 0.0 0.0"
    (calculation / "nan.txt").write_text("\n".join(text))
    with pytest.raises(InputError, match=r"nan\.txt.*NaN"):
        read_phonopy(calculation / "phonopy_disp.yaml", force_sets=calculation / "nan.txt")


def test_other_displacements_are_told(calculation):
    dataset = phonopy.file_IO.parse_FORCE_SETS(filename=calculation / "sets.txt")
    dataset["first_atoms"][0]["displacement"] *= 2
    phonopy.file_IO.write_FORCE_SETS(dataset, filename=calculation / "other.txt")
    with pytest.warns(UserWarning, match="differ"):
        read = read_phonopy(calculation / "phonopy_disp.yaml", force_sets=calculation / "other.txt")
    assert any("differ" in note for note in read.notes)


# The oracles: files written by other versions of phonopy and phono3py.


def test_oracle_NaCl(shared):
    path = shared / "data/oracles/NaCl/phonopy_params_NaCl-1.00.yaml.xz"
    read = read_phonopy(path)
    check_same(read.force_constants, phonopy.load(path, symmetrize_fc=False))
    assert read.source == "phonopy 2.11.0"
    np.testing.assert_allclose(read.born.charges[0], -read.born.charges[1], atol=1e-12)


@pytest.mark.parametrize("name", ["NaCl", "SnO2"])
def test_oracle_force_sets(shared, name):
    folder = shared / "data/oracles" / name
    path, sets = folder / f"phonopy_disp_{name}.yaml", folder / f"FORCE_SETS_{name}"
    read = read_phonopy(path, force_sets=sets, born=folder / f"BORN_{name}")
    peer = phonopy.load(
        path,
        force_sets_filename=sets,
        born_filename=folder / f"BORN_{name}",
        symmetrize_fc=False,
    )
    check_same(read.force_constants, peer)
    np.testing.assert_allclose(read.born.charges, peer.nac_params["born"], atol=1e-14)


def test_oracle_NaMgF3(shared):
    folder = shared / "data/oracles/NaMgF3"
    path = folder / "phono3py_params_NaMgF3.yaml.xz"
    read = read_phonopy(path, force_constants=folder / "fc2_NaMgF3.hdf5")
    held = phonopy.interface.phonopy_yaml.PhonopyYaml().read(path)
    peer = Phonopy(held.unitcell, held.supercell_matrix, primitive_matrix=held.primitive_matrix)
    with h5py.File(folder / "fc2_NaMgF3.hdf5") as file:
        check_same(read.force_constants, peer, file["force_constants"][:])
    assert read.source.startswith("phono3py")
    assert read.born.charges.shape == (20, 3, 3)


def test_oracle_files_found_beside_the_yaml(shared, tmp_path):
    folder = shared / "data/oracles/SnO2"
    shutil.copy(folder / "phonopy_disp_SnO2.yaml", tmp_path)
    shutil.copy(folder / "FORCE_SETS_SnO2", tmp_path / "FORCE_SETS")
    shutil.copy(folder / "BORN_SnO2", tmp_path / "BORN")
    read = read_phonopy(tmp_path / "phonopy_disp_SnO2.yaml")
    assert read.born is None
    assert any("BORN is there but" in note for note in read.notes)
