"""EquiformerV2 in JAX: laws that hold for any weights, and derivatives against differences."""

import os
from dataclasses import replace
from functools import partial

import crystals
import eqv2_files as files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.bloch import check_offers_exact
from phojax.bloch_columns import bloch_column
from phojax.capacities import grown, largest
from phojax.checks import InputError
from phojax.convert import structure_from_ase
from phojax.forces import energy_forces_stress, evaluate
from phojax.potentials.catalogue import potential as by_name
from phojax.potentials.contract import check_elements
from phojax.potentials.equiformer_v2 import equiformer_v2
from phojax.potentials.equiformer_v2.graph import Capacity
from phojax.potentials.equiformer_v2.rotations import frames
from phojax.structure import supercell

ARCHITECTURE = files.SMALL
ROWS = 26


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    return equiformer_v2(files.written(tmp_path_factory.mktemp("eqv2") / "small.pt"))


def salt(rattle: float = 0.0, seed: int = 1):
    """Rock salt, longer along z: its sites are centres of inversion, of which degree 2 is left."""
    atoms = crystals.salt(a=5.5)
    atoms.set_cell(np.array(atoms.cell) @ np.diag([1, 1, 1.06]), scale_atoms=True)
    if rattle:
        atoms.rattle(rattle, seed=seed)
    return structure_from_ase(atoms)


def in_another_cell(crystal):
    return replace(crystal, cell=jnp.array([[1, 1.0, 0], [0, 1, 0], [-1, 0, 1]]) @ crystal.cell)


def room(potential, crystal) -> Capacity:
    return potential.capacity(crystal)._replace(rows=ROWS)


@pytest.fixture(scope="module")
def predicted(potential):
    """Return a compiled function of crystals: energy, forces, stress at graphs made anew."""
    capacity = largest([room(potential, x) for x in (salt(0.1), in_another_cell(salt(0.1)))])

    @jax.jit
    def of(crystal):
        graph = potential.graph(crystal, capacity)
        return energy_forces_stress(potential, crystal, graph), graph.overflow

    def checked(crystal):
        found, overflow = of(crystal)
        assert not overflow
        return found

    return checked


@pytest.fixture(scope="module")
def held(potential):
    """Return the perfect crystal, and its forces and their change at its graph."""
    crystal = salt()
    graph = graph_of(potential, crystal, room(potential, salt()))

    @jax.jit
    def change(x, u, w):
        def forces(x):
            moved = replace(crystal, positions=x)
            return potential.predict(potential.params, moved, graph)[1]

        def along_u(x):
            return jax.jvp(forces, (x,), (u,))

        (value, first), (_, second) = jax.jvp(along_u, (x,), (w,))
        return value, first, second

    return crystal, change


@partial(jax.jit, static_argnames="capacity")
def graph_of(potential, crystal, capacity):
    return potential.graph(crystal, capacity)


def test_edges_are_the_nearest_neighbours_and_those_about_as_near(potential):
    for crystal in (salt(), salt(0.1)):
        graph = graph_of(potential, crystal, room(potential, salt()))
        assert not graph.overflow
        x, cell = np.asarray(crystal.positions), np.asarray(crystal.cell)
        shifts = np.stack(np.meshgrid(*3 * [np.arange(-4, 5)], indexing="ij"), -1).reshape(-1, 3)
        at = graph.neighbors
        mask = np.asarray(at.mask)
        for i in range(2):
            squares = np.sum((x[:, None] + shifts @ cell - x[i]) ** 2, axis=-1).T.ravel()
            near = np.sort(squares[(squares > 1e-4) & (squares <= ARCHITECTURE.radius**2)])
            wanted = near[near <= near[ARCHITECTURE.neighbors] + 0.01]
            mine = mask & (np.asarray(at.centers.index) == i)
            j, L = np.asarray(at.others.index)[mine], np.asarray(at.others.image)[mine]
            found = np.sum((x[j] + L @ cell - x[i]) ** 2, axis=-1)
            np.testing.assert_allclose(np.sort(found), wanted, rtol=1e-12)
            assert len({(a, *b) for a, b in zip(j.tolist(), L.tolist(), strict=True)}) == len(j)


def test_a_capacity_that_does_not_hold_says_so(potential):
    crystal = salt()
    capacity = potential.capacity(crystal)
    few = capacity._replace(rows=4)
    assert graph_of(potential, crystal, few).overflow
    assert grown(few, 6.0).rows >= capacity.rows
    assert largest([few, capacity]) == capacity


def test_frames_turn_edges_to_y_also_along_y(potential):
    n = np.concatenate([np.eye(3), -np.eye(3), np.random.default_rng(0).normal(size=(20, 3))])
    n = jnp.asarray(n / np.linalg.norm(n, axis=1, keepdims=True))
    for gauge in (0, 3):
        R = frames(n, gauge)
        np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.broadcast_to(np.eye(3), R.shape),
                                   atol=1e-14)  # fmt: skip
        np.testing.assert_allclose(jnp.einsum("eij,ej->ei", R, n), np.tile([0, 1, 0], (26, 1)),
                                   atol=1e-14)  # fmt: skip
        np.testing.assert_allclose(np.linalg.det(R), 1, rtol=1e-14)


@pytest.mark.slow
def test_turned_crystals_have_turned_forces(potential):
    """Up to what the grid of the non-linearity leaves: less, the finer it is."""
    crystal = salt(0.1)
    graph = graph_of(potential, crystal, room(potential, salt()))
    Q = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    Q *= np.linalg.det(Q)
    turned = replace(crystal, positions=crystal.positions @ Q.T, cell=crystal.cell @ Q.T)
    turned_graph = graph_of(potential, turned, room(potential, salt()))
    off = []
    for resolution in (8, 24):
        architecture = replace(
            ARCHITECTURE, resolution=resolution, width=potential.predict.settings[0].width
        )
        predict = jax.jit(lambda c, g, a=architecture: potential.predict.function(
            a, potential.params, c, g))  # fmt: skip
        E, F, _ = predict(crystal, graph)
        E2, F2, stress2 = predict(turned, turned_graph)
        assert float(E2) == pytest.approx(float(E), abs=1e-4)
        size = np.abs(F).max()
        off.append(np.abs(F2 - F @ Q.T).max() / size)
        assert np.linalg.eigvalsh(stress2)[0] < np.linalg.eigvalsh(stress2)[2]
    assert off[0] < 1e-2
    assert off[1] < 1e-2 * off[0]


def test_the_order_and_the_images_of_atoms_do_not_matter(predicted):
    crystal = salt(0.1)
    E, F, stress = predicted(crystal)
    swapped = replace(
        crystal, positions=crystal.positions[::-1], numbers=crystal.numbers[::-1],
        masses=crystal.masses[::-1],
    )  # fmt: skip
    moved = replace(crystal, positions=crystal.positions + jnp.array([[3, -1, 0], [0, 2, 1.0]])
                    @ crystal.cell)  # fmt: skip
    other = in_another_cell(crystal)
    for same, order in ((swapped, [1, 0]), (moved, [0, 1]), (other, [0, 1])):
        E2, F2, stress2 = predicted(same)
        assert float(E2) == pytest.approx(float(E), rel=1e-12)
        np.testing.assert_allclose(F2, F[jnp.array(order)], rtol=0, atol=1e-10 * np.abs(F).max())
        np.testing.assert_allclose(stress2, stress, rtol=0, atol=1e-10 * np.abs(stress).max())


def padded(crystal, size: int):
    more = size - len(crystal)
    return replace(
        crystal,
        positions=jnp.pad(crystal.positions, ((0, more), (0, 0))),
        numbers=jnp.pad(crystal.numbers, (0, more)),
        masses=jnp.pad(crystal.masses, (0, more), constant_values=1.0),
    )


@pytest.mark.slow
def test_padding_is_exact_and_batches_are_crystals_one_by_one(potential, predicted):
    several = [salt(0.1, seed) for seed in (1, 2)]
    together = [padded(crystal, 3) for crystal in several]
    capacity = largest([room(potential, crystal) for crystal in together])
    capacity = capacity._replace(rows=ROWS + 2)

    @jax.jit
    @jax.vmap
    def of(crystal):
        graph = potential.graph(crystal, capacity)
        return energy_forces_stress(potential, crystal, graph), graph.overflow

    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *together)
    (E, F, stress), overflow = of(stacked)
    assert not np.any(overflow)
    for k, crystal in enumerate(several):
        one = predicted(crystal)
        assert float(E[k]) == pytest.approx(float(one[0]), rel=1e-13)
        np.testing.assert_allclose(F[k, :2], one[1], rtol=0, atol=1e-11 * np.abs(one[1]).max())
        np.testing.assert_array_equal(F[k, 2], 0)
        np.testing.assert_allclose(stress[k], one[2], rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_change_of_forces_is_that_of_differences_on_a_perfect_crystal(held):
    crystal, change = held
    rng = np.random.default_rng(0)
    x, u, w = crystal.positions, *(jnp.asarray(rng.normal(size=(2, 3))) for _ in range(2))
    _, first, second = change(x, u, w)
    n = potential_directions(crystal)
    assert np.any(np.abs(np.abs(n[:, 1]) - 1) < 1e-12)  # edges along ±y are among them
    for derivative, part, along in ((first, 0, u), (second, 1, w)):
        errors = []
        for h in (2e-5, 5e-6):
            ends = [change(x + s * h * along, u, w)[part] for s in (1, -1)]
            difference = (ends[0] - ends[1]) / (2 * h)
            errors.append(np.abs(difference - derivative).max() / np.abs(derivative).max())
        # Differences err as h²: down to where they round.
        assert errors[1] < 1e-6
        assert errors[1] < 0.2 * errors[0]


def potential_directions(crystal):
    x, cell = np.asarray(crystal.positions), np.asarray(crystal.cell)
    shifts = np.stack(np.meshgrid(*3 * [np.arange(-1, 2)], indexing="ij"), -1).reshape(-1, 3)
    apart = x[1] - x[0] + shifts @ cell
    apart = apart[np.linalg.norm(apart, axis=1) < 3]
    return apart / np.linalg.norm(apart, axis=1, keepdims=True)


@pytest.mark.slow
def test_single_precision_is_double_precision_rounded(potential, predicted):
    crystal = salt(0.1)
    single = evaluate(potential.astype(jnp.float32), crystal)
    for near, exact in zip(single, predicted(crystal), strict=True):
        np.testing.assert_allclose(near, exact, rtol=0, atol=1e-5 * float(np.abs(exact).max()))


@pytest.mark.slow
def test_by_name_with_another_gauge_and_without_stress(tmp_path, potential, predicted):
    path = files.written(tmp_path / "no_stress.pt", a=replace(ARCHITECTURE, stress=False))
    made = by_name(f"equiformer:{path}")
    assert made.name == f"equiformer:{path}"
    assert not made.conservative
    crystal = salt(0.1)
    _, F, stress = evaluate(made, crystal, stress=False)
    assert np.all(np.isnan(stress))
    assert np.all(np.isfinite(F))
    assert made.other_gauge is not None
    other = made.other_gauge(3)
    assert "gauge 3" in other.provenance
    F2 = evaluate(other, crystal, stress=False)[1]
    off = np.abs(F2 - F).max() / np.abs(F).max()
    assert 0 < off < 1e-2
    with pytest.raises(InputError, match="Xe"):
        check_elements(made, replace(crystal, numbers=jnp.array([11, 54])))


@pytest.mark.slow
def test_waves_of_the_primitive_cell_are_those_of_a_supercell(potential):
    """The Jacobian of predicted forces, which takes one derivative where energies take two."""
    crystal = salt(0.1)
    q = jnp.array([1 / 3, 0, 0])
    u = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3)))
    capacity = room(potential, crystal)

    @jax.jit
    def column(q, u):
        graph = potential.graph(crystal, capacity)
        return bloch_column(potential, crystal, graph, q, jnp.zeros(3), u)

    cells = supercell(crystal, (3, 1, 1))
    whole = cells.structure
    large = room(potential, whole)

    @jax.jit
    def changed(t):
        graph = potential.graph(whole, large)

        def slope(x):
            return -energy_forces_stress(potential, replace(whole, positions=x), graph)[1]

        return jax.jvp(slope, (whole.positions,), (t,))[1]

    home = np.exp(2j * np.pi * np.asarray(crystal.fractional @ q))
    images = np.exp(2j * np.pi * np.asarray(cells.images) @ np.asarray(q))
    phases = (home[:, None] * images).reshape(-1, 1)  # atoms in the order j·L
    first, second = np.arange(2), np.zeros(2, int)
    for atom in range(2):
        one = np.zeros((2, 3))
        one[atom] = u[atom]
        t = phases * np.repeat(one, 3, axis=0)
        response = np.asarray(changed(jnp.asarray(t.real)) + 1j * changed(jnp.asarray(t.imag)))
        wanted = home.conj()[:, None] * response.reshape(2, 3, 3)[first, second]
        found = column(q, jnp.asarray(one))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    with pytest.raises(InputError, match="forces are predicted"):
        check_offers_exact(potential, crystal)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-done",)


def test_a_file_that_would_run_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = files.written(tmp_path / "evil.pt", files.content() | {"optimizer": Harmful()})
    with pytest.raises(InputError, match=r"evil\.pt.*mkdir was refused.*without running code"):
        equiformer_v2(path)
    assert not (tmp_path / "harm-done").exists()


@pytest.mark.parametrize(
    ("where", "to", "message"),
    [
        (("config", "model", "backbone", "model"), "escn", "checkpoint of 'escn'"),
        (("config", "model", "backbone", "use_gate_act"), True, "equiformer-torch:FILE.pt takes"),
        (("config", "model", "backbone", "mmax_list"), [1, 2], "one lmax, one mmax"),
        (("config", "model", "backbone", "new_option"), 3, "options new_option"),
        (("config", "model", "backbone", "num_layers"), 3, "weights missing"),
        (("config", "model", "backbone", "num_layers"), 1, "weights unknown"),
        (("config", "model", "backbone", "ffn_hidden_channels"), 8, "of another shape"),
        (("config", "model", "heads", "stress", "extensive"), True, "extensive=True"),
        (("normalizers", "forces", "rmsd"), "text", "expected a tensor"),
        (("elementrefs", "energy", "element_references"), np.zeros(5), "5 element references"),
    ],
)
def test_another_content_is_refused(tmp_path, where, to, message):
    given = files.content()
    inner = given
    for name in where[:-1]:
        inner[name] = dict(inner[name])
        inner = inner[name]
    inner[where[-1]] = to
    with pytest.raises(InputError, match=message):
        equiformer_v2(files.written(tmp_path / "other.pt", given))


def test_older_names_and_wrappers_mean_the_same(tmp_path, potential):
    given = files.content()
    given["state_dict"] = {f"module.{name}": x for name, x in given["state_dict"].items()}
    scales = given["normalizers"]
    for new, old in {"energy": "target", "forces": "grad_target"}.items():
        value = scales.pop(new)
        scales[old] = {"mean": value["mean"], "std": value["rmsd"]}
    other = equiformer_v2(files.written(tmp_path / "older.pt", given))
    for one, same in zip(*map(jax.tree.leaves, (other.params, potential.params)), strict=True):
        np.testing.assert_array_equal(one, same)
