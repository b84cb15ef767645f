"""EquiformerV2 in JAX against the official code, on the same frames of edges.

`potentials.equiformer` runs the official modules; test_equiformer has it equal to the official
calculator bit for bit in float32, and to the official code made in float64.
"""

from dataclasses import replace
from functools import partial

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

torch = pytest.importorskip("torch")
pytest.importorskip("fairchem")
pytest.importorskip("e3nn")
pytestmark = pytest.mark.torch

import eqv2_files as files  # noqa: E402
import tiny_equiformer as tiny  # noqa: E402

from phojax.capacities import largest  # noqa: E402
from phojax.convert import structure_from_ase  # noqa: E402
from phojax.forces import energy_forces_stress, evaluate  # noqa: E402
from phojax.potentials.equiformer.checkpoint import checkpoint  # noqa: E402
from phojax.potentials.equiformer.model import Equiformer  # noqa: E402
from phojax.potentials.equiformer_v2 import equiformer_v2  # noqa: E402

OTHERS = (
    {"num_layers": 1, "lmax_list": [3], "mmax_list": [3], "norm_type": "rms_norm_sh",
     "share_atom_edge_embedding": True, "grid_resolution": None},
    {"num_layers": 3, "lmax_list": [6], "mmax_list": [3], "norm_type": "layer_norm",
     "use_atom_edge_embedding": False, "max_neighbors": 12, "max_radius": 8.0},
)  # fmt: skip


def perovskite():
    """Return a cubic cell of 5 atoms; its edges run along x, y and z."""
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Atoms("NaMgF3", scaled_positions=places, cell=[3.9] * 3, pbc=True)


def moved(atoms, size: float = 0.05):
    atoms = atoms.copy()
    atoms.rattle(size, seed=1)
    return atoms


CRYSTALS = {
    "salt": crystals.salt(a=5.5),
    "salt, moved": moved(crystals.salt(a=5.5)),
    "one atom": bulk("Cu", "fcc", a=3.6),
    "perovskite": perovskite(),
    "perovskite, moved": moved(perovskite()),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.written(tmp_path_factory.mktemp("tiny") / "tiny.pt", smooth=True)


def inside(atoms, size: int):
    """Return the structure with padding up to `size` atoms."""
    crystal, more = structure_from_ase(atoms), size - len(atoms)
    return replace(
        crystal,
        positions=jnp.pad(crystal.positions, ((0, more), (0, 0))),
        numbers=jnp.pad(crystal.numbers, (0, more)),
        masses=jnp.pad(crystal.masses, (0, more), constant_values=1.0),
    )


@partial(jax.jit, static_argnames="capacity")
def predicted(potential, crystal, capacity):
    graph = potential.graph(crystal, capacity)
    return energy_forces_stress(potential, crystal, graph), graph


def tensors(atoms):
    cell, positions = torch.tensor(np.array(atoms.cell)), torch.tensor(atoms.positions)
    return torch.tensor(atoms.numbers), cell, positions


def same_frames(model, atoms, graph):
    """Return the graph of the official code with the frames of ours; edges must be the same."""
    made = model.graph(*tensors(atoms))
    at, mask = graph.neighbors, np.asarray(graph.neighbors.mask)
    rows = np.stack([at.others.index, at.centers.index, *np.asarray(at.others.image).T], axis=1)
    place = {tuple(row): k for k, row in enumerate(rows.tolist()) if mask[k]}
    j, i = made.edges
    images = made.images + (made.wraps[j] - made.wraps[i]).long()
    named = torch.cat([made.edges, images.T]).T.tolist()
    assert sorted(map(tuple, named)) == sorted(place)
    order = [place[tuple(name)] for name in named]
    return replace(made, frames=torch.tensor(np.asarray(graph.frames)[order]).to(model.dtype))


def compared(potential, model, atoms, capacity, size: int, tolerance: float):
    (E, F, stress), graph = predicted(potential, inside(atoms, size), capacity)
    assert not graph.overflow
    theirs = model.predict(*tensors(atoms), graph=same_frames(model, atoms, graph))
    E2, F2, stress2 = (x.detach().numpy() for x in theirs)
    assert float(E) == pytest.approx(float(E2), rel=tolerance)
    # Forces of perfect crystals vanish, up to the grid.
    scale = max(np.abs(F2).max(), 1e-2)
    np.testing.assert_allclose(F[: len(atoms)], F2, rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(stress, stress2, rtol=0, atol=tolerance * np.abs(stress2).max())


def test_same_as_the_official_code_in_float64_and_float32(path):
    potential = equiformer_v2(path)
    size = max(map(len, CRYSTALS.values()))
    capacity = largest([potential.capacity(inside(atoms, size)) for atoms in CRYSTALS.values()])
    for model, mine, tolerance in (
        (Equiformer(checkpoint(path)), potential, 1e-11),
        (Equiformer(checkpoint(path), dtype="float32"), potential.astype(jnp.float32), 1e-5),
    ):
        for atoms in CRYSTALS.values():
            compared(mine, model, atoms, capacity, size, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("options", OTHERS, ids=["lmax 3", "lmax 6"])
def test_same_as_the_official_code_with_other_options(tmp_path, options):
    path = tiny.written(tmp_path / "tiny.pt", smooth=True, **options)
    atoms = CRYSTALS["perovskite, moved"]
    potential = equiformer_v2(path)
    capacity = potential.capacity(inside(atoms, 5))
    compared(potential, Equiformer(checkpoint(path)), atoms, capacity, 5, 1e-11)


@pytest.mark.slow
def test_same_as_the_official_code_for_a_hundred_atoms(path):
    atoms = moved(perovskite() * (5, 2, 2))
    potential = equiformer_v2(path)
    capacity = potential.capacity(structure_from_ase(atoms))
    compared(potential, Equiformer(checkpoint(path)), atoms, capacity, 100, 1e-10)


@pytest.mark.slow
def test_same_as_the_official_calculator(path):
    """Its frames are random: what they matter is in the tolerance."""
    atoms = CRYSTALS["perovskite, moved"]
    theirs = tiny.official_calculator(path)
    torch.manual_seed(0)
    theirs.calculate(atoms, ["energy"], [])
    E, F, stress = evaluate(equiformer_v2(path).astype(jnp.float32), structure_from_ase(atoms))
    assert float(E) == pytest.approx(float(theirs.results["energy"]), rel=1e-5)
    other = np.asarray(theirs.results["forces"])
    np.testing.assert_allclose(F, other, rtol=0, atol=1e-3 * np.abs(other).max())
    np.testing.assert_allclose(stress, theirs.results["stress"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_change_of_forces_is_that_of_the_bridge(path):
    potential, model = equiformer_v2(path), Equiformer(checkpoint(path))
    for atoms in (CRYSTALS["salt"], CRYSTALS["salt, moved"]):
        crystal = structure_from_ase(atoms)
        capacity = potential.capacity(structure_from_ase(CRYSTALS["salt"]))
        _, graph = predicted(potential, crystal, capacity)
        step = np.random.default_rng(0).normal(size=(2, 3))
        change = _change(potential, crystal, graph, jnp.asarray(step))
        at = tensors(atoms)
        same = same_frames(model, atoms, graph)

        def forces(x, at=at, same=same):
            return model.predict(at[0], at[1], x, stress=False, graph=same)[1]

        theirs = torch.func.jvp(forces, (at[2],), (torch.tensor(step),))[1].detach().numpy()
        np.testing.assert_allclose(change, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())


@jax.jit
def _change(potential, crystal, graph, step):
    def forces(x):
        return potential.predict(potential.params, replace(crystal, positions=x), graph)[1]

    return jax.jvp(forces, (crystal.positions,), (step,))[1]


def test_files_written_with_and_without_torch_are_read_alike(tmp_path):
    given = files.content()
    with_torch = {
        **given,
        "state_dict": {name: torch.tensor(x) for name, x in given["state_dict"].items()},
        "elementrefs": {"energy": {"element_references": torch.linspace(0, -6, 119).double()}},
        "normalizers": {
            name: {key: torch.tensor(x) for key, x in value.items()}
            for name, value in given["normalizers"].items()
        },
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3), "step": 1}}},
        "best_val_metric": np.float64(0.5),
    }
    torch.save(with_torch, tmp_path / "with.pt")
    files.written(tmp_path / "without.pt", given)
    pair = [equiformer_v2(tmp_path / f"{name}.pt").params for name in ("with", "without")]
    for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-12)
