"""EquiformerV2 against the official calculator, and its derivatives against differences."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fairchem")
pytest.importorskip("e3nn")
pytestmark = pytest.mark.torch

import tiny_equiformer as tiny  # noqa: E402

from phojax.checks import InputError  # noqa: E402
from phojax.convert import structure_from_ase  # noqa: E402
from phojax.forces import energy_and_forces  # noqa: E402
from phojax.potentials.equiformer import equiformer  # noqa: E402
from phojax.potentials.equiformer.checkpoint import checkpoint  # noqa: E402
from phojax.potentials.equiformer.gauge import edge_vectors  # noqa: E402
from phojax.potentials.equiformer.model import Equiformer  # noqa: E402
from phojax.potentials.equiformer.network import _FAIRCHEM, _Rotation  # noqa: E402

A = 5.5  # Å, of the salt; a number that float32 holds


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.written(tmp_path_factory.mktemp("tiny") / "tiny.pt", smooth=True)


@pytest.fixture(scope="module")
def model(path):
    return Equiformer(checkpoint(path))


def salt(rattle: float = 0.05, seed: int = 1, cubic: bool = False):
    atoms = crystals.salt(a=A, cubic=cubic)
    atoms.rattle(rattle, seed=seed)
    return atoms


def tensors(atoms):
    return (
        torch.tensor(atoms.numbers),
        torch.tensor(np.array(atoms.cell)),
        torch.tensor(atoms.positions),
    )


def random_vectors(model, at, seed: int, dtype=torch.float32):
    """Return the graph with the random vectors that torch's generator gives."""
    count = model.graph(*at).edges.shape[1]
    generator = torch.Generator().manual_seed(seed)
    return model.graph(*at, vectors=torch.rand(count, 3, generator=generator, dtype=dtype))


# ---------------------------------------------------------------------- values


@pytest.mark.slow
def test_same_as_the_official_calculator(path):
    theirs = tiny.official_calculator(path)
    ours = Equiformer(checkpoint(path), dtype="float32")
    outside = salt(cubic=True)
    outside.positions += [[3.0, -8.0, 0.1]]
    outside.positions[2] -= 31.0
    for atoms in (salt(cubic=True), salt(0.0), outside):
        torch.manual_seed(3)
        theirs.results = {}
        theirs.calculate(atoms, ["energy"], [])
        at = tensors(atoms)
        graph = random_vectors(ours, at, 3)
        values = [x.detach().numpy() for x in ours.predict(*at, graph=graph)]
        expected = [theirs.results[name] for name in ("energy", "forces", "stress")]
        for value, same, size in zip(values, expected, (1e2, 1, 1e-2), strict=True):
            np.testing.assert_allclose(value, same, rtol=0, atol=2e-7 * size)
        # Torch orders products differently where gradients are required: then, too, bit for bit.
        ours.network.requires_grad_(True)
        values = [x.detach().numpy() for x in ours.predict(*at, graph=graph)]
        ours.network.requires_grad_(False)
        for value, same in zip(values, expected, strict=True):
            np.testing.assert_array_equal(value, np.asarray(same, np.float32))


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def official_double(double, path):
    """Return the official backbone and heads, made in float64, with the weights of the file."""
    content = torch.load(path)
    heads = {k: v for k, v in tiny.HEADS["stress"].items() if k != "module"}
    built = torch.nn.Module()
    built.backbone = _FAIRCHEM.Backbone(**tiny.BACKBONE)
    built.output_heads = torch.nn.ModuleDict(
        {
            "energy": _FAIRCHEM.ScalarHead(built.backbone),
            "forces": _FAIRCHEM.VectorHead(built.backbone),
            "stress": _FAIRCHEM.TensorHead(built.backbone, **heads),
        }
    )
    state = {name.removeprefix("module."): x for name, x in content["state_dict"].items()}
    weights = {name for name, _ in built.named_parameters()}
    built.load_state_dict({n: x for n, x in state.items() if n in weights}, strict=False)
    gaussians = built.backbone.distance_expansion
    gaussians.offset.copy_(state["backbone.distance_expansion.offset"])
    centres = torch.linspace(0.0, 12.0, 600, dtype=torch.float32)
    gaussians.coeff = -0.5 / (2.0 * (centres[1] - centres[0])).item() ** 2
    return built.eval()


def test_float64_is_the_official_code_in_float64(model, official_double):
    at = tensors(salt())
    graph = random_vectors(model, at, 5, torch.float64)
    vector = model._vectors(*at[1:], graph.edges, graph.images, graph.wraps)
    batch = torch.zeros(len(at[0]), dtype=torch.long)
    edges = _FAIRCHEM.GraphData(
        graph.edges, vector.norm(dim=-1), vector, graph.images, None, None, batch, at[0]
    )

    class Data:
        natoms, pos, atomic_numbers = torch.tensor([len(at[0])]), at[2], at[0]

    Data.batch = batch
    backbone = official_double.backbone
    backbone.generate_graph = lambda *_, **__: edges
    torch.manual_seed(5)
    with torch.no_grad():
        found = backbone(Data)
        raw = {}
        for head in official_double.output_heads.values():
            raw |= head(Data, found)
    # What the official trainer makes of them (its scales are those of tiny.content).
    references = torch.linspace(0.0, -6.0, 119, dtype=torch.float32).double()[at[0]].sum()
    mean = {
        name: float(torch.tensor(value, dtype=torch.float32))
        for name, value in {"energy": -0.1, "iso": 0.01, "rmsd": 0.05}.items()
    }
    expected = (
        4.0 * raw["energy"][0] + mean["energy"] + references,
        2.0 * raw["forces"],
        (mean["rmsd"] * raw["stress_isotropic"].reshape(()) + mean["iso"]) * 3**0.5,
    )
    energy, forces, stress = model.predict(*at, graph=graph)
    assert float(energy) == pytest.approx(float(expected[0]), rel=1e-13)
    np.testing.assert_allclose(forces, expected[1], rtol=0, atol=1e-13)
    assert float(torch.trace(stress)) == pytest.approx(float(expected[2]), rel=1e-12)


def test_float32_is_float64_rounded(path, model):
    at = tensors(salt())
    single = Equiformer(checkpoint(path), dtype="float32").predict(*at)
    for near, exact in zip(single, model.predict(*at), strict=True):
        assert near.dtype == torch.float32
        np.testing.assert_allclose(near, exact, rtol=0, atol=2e-5 * float(exact.abs().max()))


def test_the_same_wherever_atoms_are_written(model):
    atoms, moved = salt(cubic=True), salt(cubic=True)
    moved.positions += np.array([[1, -2, 0]] * 4 + [[0, 5, -1]] * 4) @ np.array(atoms.cell)
    # Edges, and with them frames, are named by images: the gauge differs.
    for value, same in zip(
        model.predict(*tensors(moved)), model.predict(*tensors(atoms)), strict=True
    ):
        np.testing.assert_allclose(value, same, rtol=1e-4, atol=1e-6)


def test_an_atom_alone_is_refused(model):
    far = torch.tensor([11]), 13.0 * torch.eye(3).double(), torch.zeros(1, 3).double()
    with pytest.raises(InputError, match="no neighbour within 12"):
        model.predict(*far)


def test_an_unknown_element_is_refused(model):
    _, *at = tensors(salt())
    with pytest.raises(InputError, match="from 11 to 96; expected atomic numbers from 1 to 95"):
        model.predict(torch.tensor([11, 96]), *at)


def test_the_same_for_every_choice_of_cell(model):
    numbers, cell, positions = tensors(salt())
    energy, forces, stress = model.predict(numbers, cell, positions)
    size = float(forces.abs().max())
    for change in ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], [[1, 3, 0], [0, 1, 0], [-2, 0, 1]]):
        other = model.predict(numbers, torch.tensor(change).double() @ cell, positions)
        assert float(other[0]) == pytest.approx(float(energy), abs=1e-9)
        np.testing.assert_allclose(other[1], forces, rtol=0, atol=1e-5 * size)
    double = model.predict(*tensors(salt() * (2, 1, 1)))
    mean = float(torch.tensor(-0.1))  # of the scale of the energy, added once for any cell
    assert float(double[0]) - mean == pytest.approx(2 * (float(energy) - mean), abs=1e-9)
    np.testing.assert_allclose(double[1], torch.cat([forces, forces]), rtol=0, atol=1e-5 * size)
    np.testing.assert_allclose(double[2], stress, rtol=0, atol=1e-5 * float(stress.abs().max()))


# ----------------------------------------------------------------------- gauge


def test_frames_depend_on_the_seed_alone(model):
    at = tensors(salt())
    state = torch.random.get_rng_state()
    first = model.predict(*at)[1]
    torch.manual_seed(99)
    again = model.predict(*at)[1]
    torch.random.set_rng_state(state)
    model.predict(*at)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    other = model.with_gauge(1).predict(*at)[1]
    assert not torch.equal(first, other)
    np.testing.assert_allclose(first, other, rtol=0, atol=1e-3 * float(first.abs().max()))


def test_vectors_are_uniform_and_belong_to_their_edge():
    edges = torch.cartesian_prod(*[torch.arange(-4, 5)] * 5).T
    vectors = edge_vectors(7, edges)
    count = vectors.numel()
    assert vectors.min() >= 0
    assert vectors.max() < 1
    assert abs(float(vectors.mean()) - 0.5) < 5 / np.sqrt(12 * count)
    correlation = np.corrcoef(np.hstack([vectors, edge_vectors(8, edges)]).T) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(edges.shape[1])
    some = torch.tensor([5, 90, 3])
    assert torch.equal(edge_vectors(7, edges[:, some]), vectors[some])


# ----------------------------------------------------------------- derivatives


def tangent(at, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    like = {"generator": generator, "dtype": torch.float64}
    return 0.1 * torch.randn(3, 3, **like), torch.randn(at[2].shape, **like)


def along(model, at, **options):
    return lambda cell, x: model.predict(at[0], cell, x, True, **options)


def differences(function, at, step, h: float):
    """Return central differences, the error of order h² removed (Richardson)."""

    def central(h):
        ends = [
            function(*(x + sign * h * d for x, d in zip(at[1:], step, strict=True)))
            for sign in (1, -1)
        ]
        return [(p - m) / (2 * h) for p, m in zip(*ends, strict=True)]

    return [(4 * near - far) / 3 for near, far in zip(central(h / 2), central(h), strict=True)]


@pytest.mark.parametrize("rattle", [0.0, 0.05])
@pytest.mark.parametrize("which", ["positions", "cell"])
def test_change_is_that_of_differences_at_the_same_graph(model, rattle, which):
    at = tensors(salt(rattle))
    if rattle == 0.0:  # frames of edges along every axis, both ways
        directions = model.graph(*at).directions
        for axis in torch.cat([torch.eye(3), -torch.eye(3)]).double():
            assert (directions @ axis).max() > 1 - 1e-12
    step = tangent(at)
    step = (0 * step[0], step[1]) if which == "positions" else (step[0], 0 * step[1])
    found = torch.func.jvp(along(model, at), at[1:], step)[1]
    expected = differences(along(model, at, graph=model.graph(*at)), at, step, 1e-3)
    sizes = [5.0, float(expected[1].abs().max()), float(expected[2].abs().max())]
    if which == "positions" and rattle == 0.0:  # σ is even about the perfect crystal, E too
        sizes[2] = 1e-2
    for value, same, size in zip(found, expected, sizes, strict=True):
        np.testing.assert_allclose(value, same, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize("rattle", [0.0, 0.05])
def test_a_translation_changes_nothing(model, rattle):
    at = tensors(salt(rattle))
    step = 0 * at[1], torch.tensor([0.3, -1.0, 0.5]).double().expand(at[2].shape)
    for change in torch.func.jvp(along(model, at), at[1:], step)[1]:
        assert float(change.abs().max()) < 1e-12


def test_a_rotation_turns_forces_and_stress(model):
    at = tensors(salt())
    values = along(model, at)(*at[1:])
    x, y, z = 0.3, -1.0, 0.5
    turn = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]).double()
    energy, forces, stress = torch.func.jvp(
        along(model, at), at[1:], (at[1] @ turn.T, at[2] @ turn.T)
    )[1]
    # The network turns with the crystal only as far as the grid of its non-linearity is fine:
    # rotated by 0.3, forces differ by 2e-4 of their size, at a slope of 5e-3. Held rotations
    # would leave the forces where they are: 100 %.
    fine = 2e-2
    assert abs(float(energy)) < 1e-4
    for change, expected, value in (
        (forces, values[1] @ turn.T, values[1]),
        (stress, turn @ values[2] + values[2] @ turn.T, values[2]),
    ):
        np.testing.assert_allclose(change, expected, rtol=0, atol=fine * float(value.abs().max()))


def test_the_shipped_rule_is_another_derivative(model, monkeypatch):
    at, step = tensors(salt()), tangent(tensors(salt()))
    right = torch.func.jvp(along(model, at), at[1:], step)[1][1]

    def held(self, given):
        _FAIRCHEM.Rotation.set_wigner(self, given[0])

    monkeypatch.setattr(_Rotation, "set_wigner", held)
    shipped = torch.func.jvp(along(model, at), at[1:], step)[1][1]
    assert float((shipped - right).norm() / right.norm()) > 0.1


def test_reverse_is_the_transpose_of_forward(model):
    at = tensors(salt(0.0))
    step = tangent(at)
    forward = torch.func.jvp(along(model, at), at[1:], step)[1]
    leaves = [x.clone().requires_grad_() for x in at[1:]]
    outputs = along(model, at)(*leaves)
    weights = [torch.randn_like(x) for x in outputs]
    back = torch.autograd.grad(outputs, leaves, weights)
    ahead = sum((w * x).sum() for w, x in zip(weights, forward, strict=True))
    behind = sum((g * d).sum() for g, d in zip(back, step, strict=True))
    assert float(behind) == pytest.approx(float(ahead), rel=1e-10)


def test_second_derivatives_are_those_of_differences(model):
    at = tensors(salt())
    _, step = tangent(at, 1)
    weights = torch.randn(at[2].shape, dtype=torch.float64)
    graph = model.graph(*at)

    def gradient(x, keep: bool = False):
        x = x.clone().requires_grad_()
        forces = model.predict(at[0], at[1], x, False, graph)[1]
        return x, torch.autograd.grad((forces * weights).sum(), x, create_graph=keep)[0]

    x, g = gradient(at[2], True)
    found = torch.autograd.grad((g * step).sum(), x)[0]

    def function(_, x):
        return (gradient(x)[1],)

    expected = differences(function, at, (0 * at[1], step), 1e-3)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_tangents_together_are_tangents_one_by_one(model):
    at = tensors(salt(0.0))
    steps = [tangent(at, seed) for seed in range(3)]

    def change(*step):
        return torch.func.jvp(along(model, at), at[1:], step)[1]

    together = torch.vmap(change)(*(torch.stack(x) for x in zip(*steps, strict=True)))
    for k, step in enumerate(steps):
        for value, same in zip(change(*step), together, strict=True):
            np.testing.assert_allclose(value, same[k], rtol=1e-10, atol=1e-13)


# ------------------------------------------------------------------- behaviour


def test_threads_do_not_disturb_each_other(model):
    crystals_made = [tensors(salt(seed=seed)) for seed in range(4)]
    alone = [model.predict(*at) for at in crystals_made]
    start = threading.Barrier(4)

    def predict(at):
        start.wait()
        return model.predict(*at)

    with ThreadPoolExecutor(4) as pool:
        for together, expected in zip(pool.map(predict, crystals_made), alone, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(together, expected, strict=True))


def test_official_modules_are_left_as_they_were(model):
    so3 = sys.modules["fairchem.core.models.equiformer_v2.so3"]
    assert so3.SO3_Rotation.set_wigner.__module__ == so3.__name__
    assert "torch_scatter" not in sys.modules or sys.modules["torch_scatter"].__spec__
    assert "lmdb" not in sys.modules or sys.modules["lmdb"].__spec__
    assert all(rotation.wigner is None for rotation in model.network.backbone.SO3_rotation)


def test_as_a_potential(path, model):
    atoms = salt()
    crystal = structure_from_ase(atoms)
    made = equiformer(path, device="cpu")
    energy, forces = energy_and_forces(made, crystal, made.graph(crystal, made.capacity(crystal)))
    expected = model.predict(*tensors(atoms))
    assert float(energy) == pytest.approx(float(expected[0]), rel=1e-12)
    np.testing.assert_allclose(forces, expected[1], rtol=0, atol=1e-12)
    step = tangent(tensors(atoms))[1]

    def forces_at(x):
        moved = replace(crystal, positions=x)
        return energy_and_forces(made, moved, made.graph(moved, made.capacity(moved)))[1]

    change = jax.jvp(forces_at, (crystal.positions,), (jnp.asarray(step),))[1]
    at = tensors(atoms)
    same = torch.func.jvp(along(model, at), at[1:], (0 * at[1], step))[1][1]
    np.testing.assert_allclose(change, same, rtol=0, atol=1e-12)
    assert made.other_gauge is not None
    other = made.other_gauge(1)
    assert "gauge 1" in other.provenance
    assert other.fingerprint == made.fingerprint
    assert made.elements == frozenset(range(1, 96))
    assert made.cutoff == 12.0
