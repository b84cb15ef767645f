"""Nequix with random weights: against the same network put together from e3nn's parts, and the
laws any potential obeys."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import crystals
import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import nequix_files
import numpy as np
import pytest

from phojax.forces import energy, energy_forces_stress, evaluate
from phojax.neighbors import neighbor_list, pair_capacity
from phojax.potentials.contract import InputError
from phojax.potentials.nequix import model, nequix
from phojax.structure import padded, strained, structure, supercell

CONFIG = nequix_files.CONFIG
# No symmetry left, and thinner than the cutoff: atoms see images of themselves.
CRYSTAL = structure(*crystals.parts(crystals.rattled(crystals.salt(a=5.69) * (2, 1, 1))))


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    file = tmp_path_factory.mktemp("nequix") / "random.nqx"
    file.write_bytes(nequix_files.content())
    return nequix(file)


@partial(jax.jit, static_argnames="room")
def efs(potential, crystal, room):
    graph = potential.graph(crystal, room)
    return *energy_forces_stress(potential, crystal, graph), graph.overflow


@pytest.fixture(scope="module")
def room(potential):
    made = potential.capacity(CRYSTAL)
    return made._replace(rows=made.rows + 8)


@pytest.fixture(scope="module")
def reference(potential, room):
    e, f, s, overflow = efs(potential, CRYSTAL, room)
    assert not overflow
    assert jnp.abs(f).max() > 0.1
    return e, f, s


def from_parts(config, arrays, crystal):
    """Return the energy by e3nn's tensor products, linear maps, gate and harmonics."""
    arrays = iter([jnp.asarray(x, float) for x in arrays])
    elements, c = sorted(config["atomic_numbers"]), config["cutoff"]
    species = jnp.asarray([elements.index(z) for z in np.asarray(crystal.numbers)])
    n, lmax, p = len(species), config["lmax"], config["radial_polynomial_p"]
    pairs = neighbor_list(crystal, c, pair_capacity(crystal, c))
    at = np.flatnonzero(pairs.mask)
    i, j, L = pairs.centers.index[at], pairs.others.index[at], pairs.others.image[at]
    vectors = crystal.positions[j] + L @ crystal.cell - crystal.positions[i]
    r = jnp.linalg.norm(vectors, axis=1)[:, None]
    x = r / c
    envelope = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1)
    envelope -= p * (p + 1) / 2 * x ** (p + 2)
    k = jnp.arange(1, config["radial_basis_size"] + 1)
    basis = 2 / c * jnp.sin(k * jnp.pi * x) / r * envelope
    Y = e3nn.spherical_harmonics(
        e3nn.s2_irreps(lmax), e3nn.IrrepsArray("1o", vectors), True, "component"
    )
    hidden = e3nn.Irreps(config["hidden_irreps"])
    features = e3nn.IrrepsArray(f"{len(elements)}x0e", jax.nn.one_hot(species, len(elements)))

    def linear(weights, features, out):
        map = e3nn.FunctionalLinear(features.irreps, out)
        return jax.vmap(lambda x: map(list(weights), x))(features)

    def take(count):
        return [next(arrays) for _ in range(count)]

    (free,) = take(1)
    for layer in range(config["n_layers"]):
        out = hidden if layer < config["n_layers"] - 1 else hidden.filter("0e")
        gates = out.num_irreps - out.count("0e")
        wide = e3nn.Irreps([(out.count("0e") + gates, "0e"), *out.filter(drop="0e")])
        radial, first = take(3), take(len(features.irreps))
        second, skip = take(len(wide)), take(min(len(features.irreps), len(wide)))
        scales = take(len(wide))
        R = jax.nn.silu(jax.nn.silu(basis @ radial[0]) @ radial[1]) @ radial[2]
        sent = linear(first, features, features.irreps)[j]
        messages = e3nn.tensor_product(sent, Y, filter_ir_out=[ir for _, ir in out]) * R
        sums = e3nn.scatter_sum(messages, dst=i, output_size=n)
        mixed = linear(second, sums / np.sqrt(config["avg_n_neighbors"]), wide)
        mixed = mixed + linear(skip, features, wide)
        size = sum(jnp.sum(x**2, (1, 2)) / x.shape[2] ** 2 for x in mixed.chunks) / len(wide)
        chunks = [
            x * w[:, None] / jnp.sqrt(size + 1e-12)[:, None, None]
            for x, w in zip(mixed.chunks, scales, strict=True)
        ]
        features = e3nn.gate(
            e3nn.from_chunks(wide, chunks, (n,)),
            even_act=jax.nn.silu, odd_act=jax.nn.tanh, even_gate_act=jax.nn.silu,
        )  # fmt: skip
    per_atom = linear(take(1), features, "0e").array[:, 0]
    assert next(arrays, None) is None
    return jnp.sum(per_atom * config["scale"] + config["shift"] + free[species])


def test_same_as_the_parts_of_e3nn(potential, reference):
    expected = from_parts(CONFIG, nequix_files.leaves(), CRYSTAL)
    assert float(reference[0]) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.slow
def test_same_as_the_parts_of_e3nn_with_other_sizes(tmp_path):
    sizes = {"hidden_irreps": "5x0e + 4x1o + 3x2e + 2x3o", "lmax": 4, "n_layers": 2}
    config = {**CONFIG, **sizes, "radial_polynomial_p": 5.0}
    (tmp_path / "x.nqx").write_bytes(nequix_files.content(config))
    e, _, _ = evaluate(nequix(tmp_path / "x.nqx"), CRYSTAL)
    expected = from_parts(config, nequix_files.leaves(config), CRYSTAL)
    assert float(e) == pytest.approx(float(expected), rel=1e-13)


def test_constant_of_the_gate():
    normalized = e3nn.normalize_function(jax.nn.silu)
    assert float(jax.nn.silu(2.0) / normalized(2.0)) == pytest.approx(model.SILU_SIZE, rel=1e-14)


def test_supercell_of_eight_cells_has_eight_times_the_energy(potential):
    small = structure(*crystals.parts(crystals.salt(a=5.69)))
    large = supercell(small, (2, 2, 2)).structure
    few, many = (potential.capacity(x) for x in (small, large))
    both = many._replace(pairs=many.pairs._replace(images=few.pairs.images))
    one, eight = (efs(potential, x, both) for x in (padded(small, 16), large))
    assert not one[-1] | eight[-1]
    assert float(eight[0]) / 8 == pytest.approx(float(one[0]), rel=1e-13)


@pytest.mark.slow
def test_padding_and_tiles_change_nothing(potential, reference, monkeypatch):
    larger = potential.capacity(padded(CRYSTAL, 7))
    larger = larger._replace(rows=2 * larger.rows)
    # Tiles of three atoms, the last one filled up.
    monkeypatch.setattr("phojax.potentials.nequix.model._TILE_CPU", 3 * larger.rows)
    e, f, s, overflow = efs(potential, padded(CRYSTAL, 7), larger)
    assert not overflow
    np.testing.assert_allclose(e, reference[0], rtol=1e-13)
    np.testing.assert_allclose(f, np.pad(reference[1], ((0, 3), (0, 0))), atol=1e-12)
    np.testing.assert_allclose(s, reference[2], atol=1e-13)


def test_permuted_rotated_reflected_translated(potential, room, reference):
    e, f, s = reference
    order = np.array([2, 0, 3, 1])
    proper, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    shift = np.array([0.3, -7.0, 2.0])
    for turn in (proper, -proper):
        other = replace(
            CRYSTAL,
            cell=CRYSTAL.cell @ turn,
            positions=((CRYSTAL.positions + shift) @ turn)[order],
            numbers=CRYSTAL.numbers[order],
        )
        e2, f2, s2, overflow = efs(potential, other, room)
        assert not overflow
        np.testing.assert_allclose(e2, e, rtol=1e-13)
        np.testing.assert_allclose(f2, (f @ turn)[order], atol=1e-12)
        np.testing.assert_allclose(s2, turn.T @ s @ turn, atol=1e-13)


def test_atom_in_another_cell_changes_nothing(potential, room, reference):
    x = CRYSTAL.positions.at[1].add(CRYSTAL.cell[0] - CRYSTAL.cell[2])
    e, f, s, overflow = efs(potential, replace(CRYSTAL, positions=x), room)
    assert not overflow
    np.testing.assert_allclose(e, reference[0], rtol=1e-13)
    np.testing.assert_allclose(f, reference[1], atol=1e-12)
    np.testing.assert_allclose(s, reference[2], atol=1e-13)


def slope(f, h):
    """Return the derivative of f at 0 from four points: error h⁴."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def test_forces_are_minus_the_slope_of_the_energy(potential, room, reference):
    for atom, axis in ((0, 0), (1, 2), (3, 1)):

        def along(h, atom=atom, axis=axis):
            x = CRYSTAL.positions.at[atom, axis].add(h)
            return efs(potential, replace(CRYSTAL, positions=x), room)[0]

        np.testing.assert_allclose(-slope(along, 1e-3), reference[1][atom, axis], atol=1e-8)


def test_stress_is_the_slope_in_the_strain(potential, room, reference):
    for a, b in ((0, 0), (1, 2)):
        step = np.zeros((3, 3))
        step[a, b] += 0.5
        step[b, a] += 0.5

        def along(h, step=step):
            return efs(potential, strained(CRYSTAL, jnp.asarray(h * step)), room)[0]

        found = slope(along, 1e-3) / CRYSTAL.volume
        np.testing.assert_allclose(found, reference[2][a, b], atol=1e-8)


@partial(jax.jit, static_argnames="room")
def products(potential, crystal, tangents, room):
    """Return Hessian-vector products for a block of directions."""
    graph = potential.graph(crystal, room)

    def gradient(x):
        return jax.grad(lambda x: energy(potential, replace(crystal, positions=x), graph))(x)

    return jax.vmap(lambda t: jax.jvp(gradient, (crystal.positions,), (t,))[1])(tangents)


@pytest.mark.slow
def test_hessian(potential, room):
    """It is the slope of the forces, symmetric, free of rigid shifts, and finite with bonds in
    line and along the axes."""
    every = jnp.asarray(np.eye(12).reshape(12, 4, 3))
    block = products(potential, CRYSTAL, every, room)
    for k in (0, 7):

        def along(h, k=k):
            x = CRYSTAL.positions + h * every[k]
            return -efs(potential, replace(CRYSTAL, positions=x), room)[1]

        np.testing.assert_allclose(slope(along, 1e-3), block[k], atol=1e-8)
    perfect = structure(*crystals.parts(crystals.salt(a=5.69) * (2, 1, 1)))
    for found in (block, products(potential, perfect, every, room)):
        hessian = np.asarray(found).reshape(12, 12)
        assert np.all(np.isfinite(hessian))
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-11)
        np.testing.assert_allclose(np.asarray(found).sum(1), 0, atol=1e-11)


@pytest.mark.slow
def test_third_derivative_is_the_slope_of_the_second(potential, room):
    rng = np.random.default_rng(2)
    t, u, v = jnp.asarray(rng.normal(size=(3, 4, 3)) / 4)
    graph = potential.graph(CRYSTAL, room)

    def of(x):
        return energy(potential, replace(CRYSTAL, positions=x), graph)

    def gradient_along(x):
        return jnp.vdot(jax.grad(of)(x), t)

    second = jax.jit(lambda x: jax.jvp(gradient_along, (x,), (u,))[1])
    third = jax.jit(lambda x: jax.jvp(second, (x,), (v,))[1])(CRYSTAL.positions)
    found = slope(lambda h: second(CRYSTAL.positions + h * v), 1e-3)
    np.testing.assert_allclose(found, third, rtol=1e-6)


def test_energy_is_continuous_at_the_cutoff(potential, room):
    c, e = CONFIG["cutoff"], {}
    for distance in (3.5, c - 1e-3, c + 1e-3, 8.0):
        x = structure(np.eye(3) * 20, [[0, 0, 0], [distance, 0, 0]], [11, 17])
        e[distance], f, s, overflow = efs(potential, padded(x, 4), room)
        assert not overflow
        assert np.all(np.isfinite(f))
        assert np.all(np.isfinite(s))
    assert np.abs(f).max() == 0
    assert abs(e[3.5] - e[8.0]) > 0.01
    assert e[c + 1e-3] == e[8.0]
    assert float(e[c - 1e-3]) == pytest.approx(float(e[8.0]), abs=1e-7)


def test_overflow_of_pairs_and_of_rows(potential):
    room = potential.capacity(CRYSTAL)
    graph = jax.jit(potential.graph, static_argnums=1)
    assert not graph(CRYSTAL, room).overflow
    assert graph(CRYSTAL, room._replace(rows=8)).overflow
    assert graph(CRYSTAL, room._replace(pairs=room.pairs._replace(pairs=40))).overflow


@pytest.mark.slow
def test_float32_parameters_give_a_float32_network(potential, room, reference):
    single = potential.astype(jnp.float32)
    assert {x.dtype for x in jax.tree.leaves(single.params)} == {np.dtype("float32")}
    e, f, _, _ = efs(single, CRYSTAL, room)
    assert 0 < abs(e - reference[0]) < 1e-4
    assert 0 < jnp.abs(f - reference[1]).max() < 1e-3 * jnp.abs(reference[1]).max()


def test_other_elements_are_refused(potential):
    assert potential.elements == {8, 11, 17}
    with pytest.raises(InputError, match="the structure holds Ar"):
        evaluate(potential, structure(*crystals.parts(crystals.fcc())))


def test_neither_nequix_nor_torch_is_imported(tmp_path):
    (tmp_path / "x.nqx").write_bytes(nequix_files.content())
    code = (
        f"import sys; from phojax.potentials.nequix import nequix; nequix({str(tmp_path)!r} + "
        "'/x.nqx'); print([m for m in ('nequix', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
