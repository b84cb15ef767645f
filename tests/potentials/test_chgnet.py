"""CHGNet against the laws any potential obeys, its images, and its reader of weights."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.forces import energy, energy_forces_stress
from phojax.neighbors import gather, neighbor_list, separations
from phojax.potentials.chgnet import chgnet, weights
from phojax.potentials.chgnet.graph import CUTOFF, NEAR, bond_graph, graph_capacity
from phojax.structure import padded, strained, structure, supercell

if not any((p / "chgnet" / "pretrained").is_dir() for p in map(weights.pathlib.Path, sys.path)):
    pytest.skip(f"no weights: {weights.INSTALL}", allow_module_level=True)

POTENTIAL = chgnet()
# Two formula units of rock salt, no symmetry left, thinner than the cutoff in every direction.
ATOMS = crystals.rattled(crystals.salt(a=5.69) * (2, 1, 1), amplitude=0.1)
CRYSTAL = structure(*crystals.parts(ATOMS))


def moved(x):
    return replace(CRYSTAL, positions=x)


# One of the atoms in another cell; room for both.
ELSEWHERE = moved(CRYSTAL.positions.at[1].add(CRYSTAL.cell[0] - CRYSTAL.cell[2]))
ROOM = graph_capacity(ELSEWHERE, margin=1.3)
EYE = jnp.asarray(np.eye(12).reshape(12, 4, 3))
graph_of = jax.jit(bond_graph, static_argnums=1)


@partial(jax.jit, static_argnames="room")
def efs(crystal, room=ROOM):
    graph = bond_graph(crystal, room)
    return *energy_forces_stress(POTENTIAL, crystal, graph), graph.overflow


@partial(jax.jit, static_argnames="room")
def energy_only(crystal, room):
    graph = bond_graph(crystal, room)
    return jnp.where(graph.overflow, jnp.nan, energy(POTENTIAL, crystal, graph))


@jax.jit
def products(crystal, tangents):
    """Return Hessian-vector products for a block of directions."""
    graph = bond_graph(crystal, ROOM)

    def gradient(x):
        return jax.grad(lambda x: energy(POTENTIAL, replace(crystal, positions=x), graph))(x)

    return jax.vmap(lambda t: jax.jvp(gradient, (crystal.positions,), (t,))[1])(tangents)


@pytest.fixture(scope="module")
def reference():
    e, f, s, overflow = efs(CRYSTAL)
    assert not overflow
    assert jnp.abs(f).max() > 0.1
    return e, f, s


def test_supercell_of_64_atoms_has_32_times_the_energy_of_two():
    small = structure(*crystals.parts(crystals.salt(a=5.69)))
    large = supercell(small, [[-2, 2, 2], [2, -2, 2], [2, 2, -2]]).structure
    assert len(large) == 64
    one, many = (float(energy_only(x, graph_capacity(x))) for x in (small, large))
    assert many / 32 == pytest.approx(one, rel=1e-12, abs=0)


@pytest.mark.slow
def test_padding_and_tiles_change_nothing(reference, monkeypatch):
    larger = graph_capacity(CRYSTAL, margin=2.0)
    assert larger != ROOM
    monkeypatch.setattr("phojax.potentials.chgnet.model._TILE", larger.far // 2)
    assert larger.angles > larger.far // 2  # both kinds of rows are in tiles
    e, f, s, overflow = efs(padded(CRYSTAL, 6), room=larger)
    assert not overflow
    np.testing.assert_allclose(e, reference[0], rtol=1e-12)
    np.testing.assert_allclose(f, np.pad(reference[1], ((0, 2), (0, 0))), atol=1e-12)
    np.testing.assert_allclose(s, reference[2], atol=1e-12)


def test_permuted_rotated_translated(reference):
    e, f, s = reference
    order = np.array([2, 0, 3, 1])
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    shift = np.array([0.3, -7.0, 2.0])
    other = replace(
        CRYSTAL,
        cell=CRYSTAL.cell @ turn,
        positions=((CRYSTAL.positions + shift) @ turn)[order],
        numbers=CRYSTAL.numbers[order],
        masses=CRYSTAL.masses[order],
    )
    e2, f2, s2, overflow = efs(other)
    assert not overflow
    np.testing.assert_allclose(e2, e, rtol=1e-12)
    np.testing.assert_allclose(f2, (f @ turn)[order], atol=1e-11)
    np.testing.assert_allclose(s2, turn.T @ s @ turn, atol=1e-12)


def test_atom_in_another_cell_changes_nothing(reference):
    e, f, s, overflow = efs(ELSEWHERE)
    assert not overflow
    np.testing.assert_allclose(e, reference[0], rtol=1e-12)
    np.testing.assert_allclose(f, reference[1], atol=1e-11)
    np.testing.assert_allclose(s, reference[2], atol=1e-12)


def test_forces_are_minus_the_slope_of_the_energy(reference):
    x, h = CRYSTAL.positions, 1e-5
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        up, down = (efs(moved(x.at[atom, axis].add(sign * h)))[0] for sign in (1, -1))
        np.testing.assert_allclose(-(up - down) / (2 * h), reference[1][atom, axis], atol=1e-7)


def test_stress_is_the_slope_in_the_strain(reference):
    h = 1e-5
    for a, b in ((0, 0), (1, 2)):
        step = np.zeros((3, 3))
        step[a, b] += h / 2
        step[b, a] += h / 2
        up, down = (efs(strained(CRYSTAL, jnp.asarray(sign * step)))[0] for sign in (1, -1))
        slope = (up - down) / (2 * h) / CRYSTAL.volume
        np.testing.assert_allclose(slope, reference[2][a, b], atol=1e-8)


@pytest.mark.slow
def test_hessian_vector_products_are_slopes_of_the_forces():
    t = np.random.default_rng(5).normal(size=(4, 3))
    t /= np.linalg.norm(t)
    exact = jnp.einsum("kia,k->ia", products(CRYSTAL, EYE), t.ravel())
    errors = []
    for h in (1e-4, 1e-5):
        up, down = (efs(moved(CRYSTAL.positions + sign * h * t))[1] for sign in (1, -1))
        errors.append(float(jnp.abs(-(up - down) / (2 * h) - exact).max()))
    assert errors[1] < 1e-6
    assert errors[1] < errors[0] / 10 or errors[0] < 1e-8


@pytest.mark.slow
def test_second_derivatives_of_a_perfect_crystal_are_finite():
    # Bonds in line on both sides of every atom, where arccos has no derivative of its own.
    perfect = structure(*crystals.parts(crystals.salt(a=5.69) * (2, 1, 1)))
    block = products(perfect, EYE)
    hessian = np.asarray(block).reshape(12, 12)
    assert np.all(np.isfinite(hessian))
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-9)
    np.testing.assert_allclose(np.asarray(block).sum(1), 0, atol=1e-9)


def test_every_pair_refers_to_its_bond_in_the_right_cell():
    crystal, g = ELSEWHERE, graph_of(ELSEWHERE, ROOM)
    assert not g.overflow

    # Every pair of atoms is in one of the lists, once.
    def rows(pairs):
        assert not np.any(pairs.centers.image)
        columns = (pairs.centers.index, pairs.others.index, pairs.others.image)
        return np.column_stack(columns)[np.asarray(pairs.mask)]

    once = np.concatenate([rows(g.near), rows(g.far)])
    there_and_back = np.concatenate([once, np.column_stack([once[:, 1::-1], -once[:, 2:]])])
    wanted = rows(neighbor_list(crystal, CUTOFF, ROOM.pairs))
    order = [np.lexsort(x.T) for x in (there_and_back, wanted)]
    np.testing.assert_array_equal(there_and_back[order[0]], wanted[order[1]])

    vectors = separations(crystal, g.near)
    middles = gather(crystal.positions, g.near.centers) + vectors / 2

    def absolute(points, at):
        return gather(points, at) + at.image @ crystal.cell

    center = absolute(crystal.positions, g.angle_centers)
    arms = [2 * (absolute(middles, at) - center) for at in (g.angle_first, g.angle_second)]
    at = np.asarray(g.angle_first.mask)
    n1, n2 = (np.asarray(arm)[at] for arm in arms)
    # The sign makes arms of bond vectors, which run from or to the centre.
    along = [gather(vectors, link) for link in (g.angle_first, g.angle_second)]
    cosine = np.asarray(jnp.sum(along[0] * along[1], -1) * g.angle_sign)[at]
    np.testing.assert_allclose(cosine, np.sum(n1 * n2, -1), atol=1e-12)

    # All ordered pairs of different neighbours within 3 Å, each once.
    x, cell = np.asarray(crystal.positions), np.asarray(crystal.cell)
    grid = np.array(list(np.ndindex(9, 9, 9))) - 4
    expected = []
    for i in range(len(x)):
        arm = (x[None] - x[i] + (grid @ cell)[:, None]).reshape(-1, 3)
        arm = arm[(np.linalg.norm(arm, axis=1) < NEAR) & (np.linalg.norm(arm, axis=1) > 1e-6)]
        expected += [(i, *a, *b) for k, a in enumerate(arm) for m, b in enumerate(arm) if k != m]
    found = np.column_stack([np.asarray(g.angle_centers.index)[at], n1, n2])
    assert len(found) == len(expected) > 50
    assert ordered(found) == ordered(expected)


def ordered(rows):
    return sorted(map(tuple, np.round(np.asarray(rows), 6) + 0.0))


@pytest.mark.parametrize("field", ["pairs", "near", "far", "angles"])
def test_every_capacity_that_is_too_small_overflows(field):
    small = ROOM.pairs._replace(pairs=40) if field == "pairs" else 4
    assert graph_of(CRYSTAL, ROOM._replace(**{field: small})).overflow
    assert not graph_of(CRYSTAL, ROOM).overflow


def test_without_angles_and_without_neighbors():
    # Beyond the reach of angles, then of everything: two energies of single atoms.
    e = {}
    for distance in (3.5, 5.999, 6.001, 8.0):
        x = structure(np.eye(3) * 20, [[0, 0, 0], [distance, 0, 0]], [11, 17])
        e[distance], f, s, overflow = efs(padded(x, 4))
        assert not overflow
        assert np.all(np.isfinite(f))
        assert np.all(np.isfinite(s))
    assert np.abs(f).max() == 0
    assert abs(e[3.5] - e[8.0]) > 0.01
    assert e[6.001] == e[8.0]
    assert float(e[5.999]) == pytest.approx(float(e[6.001]), abs=1e-8)


def test_float32_parameters_give_a_float32_network(reference):
    single = POTENTIAL.astype(jnp.float32)
    assert {x.dtype for x in jax.tree.leaves(single.params)} == {np.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(POTENTIAL.params)} == {np.dtype("float64")}
    e = jax.jit(lambda x: energy(single, x, bond_graph(x, ROOM)))(CRYSTAL)
    assert 0 < abs(e - reference[0]) < 1e-4


def test_neither_torch_nor_chgnet_is_imported():
    code = (
        "import sys; from phojax.potentials.chgnet import chgnet; chgnet(); "
        "print([m for m in ('torch', 'chgnet', 'pymatgen') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def archive(path, pickled: bytes, storages=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/data.pkl", pickled)
        for key, raw in storages:
            file.writestr(f"model/data/{key}", raw)
    return path


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-done",)


def test_a_pickle_that_would_run_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = archive(tmp_path / "evil.pth.tar", pickle.dumps({"model": Harmful()}))
    with pytest.raises(InputError, match=r"evil\.pth\.tar asks for \w+\.mkdir, which was refused"):
        chgnet(file)
    assert not (tmp_path / "harm-done").exists()


@pytest.mark.parametrize(
    "name", ["torch LongTensor", "torch._utils _rebuild_parameter", "builtins eval", "os system"]
)
def test_every_other_name_is_refused(tmp_path, name):
    module, attribute = name.split()
    pickled = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(InputError, match=f"{module}.{attribute}, which was refused"):
        weights.read_checkpoint(archive(tmp_path / "x.pth", pickled))


def test_damaged_files_are_refused_by_name(tmp_path):
    whole = weights.checkpoint_path().read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no zip")
    for name in ("short.pth", "text.pth", "absent.pth"):
        with pytest.raises(InputError, match=name):
            chgnet(tmp_path / name)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", FloatStorage, "0", "cpu", 4) if isinstance(obj, Storage) else None

    class FloatStorage:
        pass

    class Tensor:
        def __reduce__(self):
            return rebuild, (Storage(), 0, (8,), (1,), False, None)

    def rebuild():
        pass

    buffer = io.BytesIO()
    for thing, module, name in ((FloatStorage, "torch", "FloatStorage"),
                                (rebuild, "torch._utils", "_rebuild_tensor_v2")):  # fmt: skip
        thing.__module__, thing.__qualname__ = module, name
    torch, utils = type(sys)("torch"), type(sys)("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(buffer, protocol=2).dump(Tensor())
    file = archive(tmp_path / "x.pth", buffer.getvalue(), [("0", bytes(16))])
    with pytest.raises(InputError, match="beyond its storage"):
        weights.read_checkpoint(file)


def test_without_the_distribution_the_error_says_how_to_install_it(monkeypatch):
    def absent(name):
        raise weights.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(weights.importlib.metadata, "distribution", absent)
    with pytest.raises(InputError, match=r"pip install --no-deps chgnet==0\.4\.2"):
        chgnet()


def test_another_architecture_is_refused(tmp_path):
    model = {"state_dict": {}, "model_args": {"atom_fea_dim": 32}}
    file = archive(tmp_path / "other.pth", pickle.dumps({"model": model}, protocol=2))
    with pytest.raises(InputError, match="atom_fea_dim is 32; expected 64"):
        chgnet(file)
