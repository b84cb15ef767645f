"""D(q) from the primitive cell against supercells, and what it refuses."""

import os
import pathlib
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.bloch import (
    check_beside_doubled_cell,
    exact,
    exact_dynamical_matrices,
    exact_hessians,
)
from phojax.bloch_columns import bloch_column, bloch_contraction, bloch_hessians
from phojax.bloch_supercell import exact_force_constants, independent_columns
from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.descriptors.debye import acoustic_matrices, acoustics
from phojax.descriptors.displacements import (
    displacement_tensor,
    displacement_tensor_from_matrices,
    oscillators,
)
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.hessian import hessian
from phojax.modes import modes
from phojax.neighbors import gather, scatter, separations
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import Bound, buckingham, lennard_jones, pair_graph, pair_room, springs
from phojax.screening.prepare import planned
from phojax.screening.row import row_from_potential
from phojax.screening.settings import PhononSettings
from phojax.screening.supercell_check import supercell_check
from phojax.structure import strained, structure, supercell
from phojax.symmetry import space_group
from phojax.velocities import group_velocities

SHARED = pathlib.Path(os.environ.get("PHOJAX_SHARED", "../shared"))


def triclinic():
    cell = np.array([[3.9, 0.2, 0.0], [0.3, 4.1, 0.1], [-0.2, 0.4, 4.4]])
    x = np.array([[0.02, 0.01, 0.0], [0.48, 0.55, 0.46], [0.1, 0.6, 0.3]]) @ cell
    return structure(cell, x, np.array([11, 17, 11]))


def rocksalt(a=5.64):
    cell = a / 2 * (np.ones((3, 3)) - np.eye(3))
    return structure(cell, np.array([[0, 0, 0], [a / 2] * 3]), np.array([11, 17]))


def layered(loops: bool) -> Potential:
    """Three layers of messages, in a loop of JAX's or one after the other."""
    rng = np.random.default_rng(0)
    F, cutoff = 6, 4.5
    names = {"a": (3, F, F), "b": (3, F, F), "c": (3, 5, F), "d": (3, F, F), "out": (F, 1),
             "species": (2, F)}  # fmt: skip
    params = {name: jnp.asarray(0.5 * rng.normal(size=size)) for name, size in names.items()}

    def energy(params, crystal, neighbors):
        r = jnp.linalg.norm(separations(crystal, neighbors), axis=1)
        window = jnp.where(r < cutoff, (1 - jnp.minimum(r / cutoff, 1) ** 2) ** 4, 0)[:, None]
        basis = window * jnp.exp(-2 * (r[:, None] - jnp.linspace(1, 4, 5)) ** 2)
        h = params["species"][(crystal.numbers == 17).astype(int)]

        def layer(h, w):
            sent = gather(h, neighbors.others) @ w["a"] + gather(h, neighbors.centers) @ w["b"]
            message = jnp.tanh(sent) * (basis @ w["c"])
            received = scatter(message, neighbors.centers, len(h))
            return h + jnp.tanh(received @ w["d"]), None

        each = {k: params[k] for k in "abcd"}
        if loops:
            h, _ = jax.lax.scan(jax.checkpoint(layer), h, each)
        else:
            for n in range(3):
                h, _ = layer(h, {k: v[n] for k, v in each.items()})
        return jnp.sum(jnp.tanh(h) @ params["out"])

    return Potential(
        "layers", params, energy, Bound(pair_graph, (cutoff,)), Bound(pair_room, (cutoff,)), None,
        cutoff,
    )  # fmt: skip


def salt(charges):
    short = buckingham({("Na", "Cl"): (1256.3, 0.3169, 0.0), ("Na", "Na"): (424.0, 0.3169, 1.05),
                        ("Cl", "Cl"): (3488.0, 0.3169, 72.4)}, cutoff=6.0)  # fmt: skip
    return summed(short, ewald(charges, cutoff=6.0))


CASES = {
    "pairs": lambda: (
        lennard_jones({("Na", "Na"): (0.01, 3.0), ("Na", "Cl"): (0.02, 2.5),
                       ("Cl", "Cl"): (0.01, 3.4)}, cutoff=6.5), triclinic(),
    ),
    "layers": lambda: (layered(False), triclinic()),
    "layers in a loop": lambda: (layered(True), triclinic()),
    "charges": lambda: (salt({"Na": 0.5, "Cl": -1.0}), triclinic()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equal_to_a_supercell_where_its_waves_fit(case):
    model, crystal = CASES[case]()
    matrix = np.array([[2, 0, 0], [0, 3, 0], [1, 0, 2]])
    cells = supercell(crystal, matrix)
    constants = hessian(model, cells, space_group(crystal)).force_constants
    q = np.array(
        [m @ np.linalg.inv(matrix).T for m in ([0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 2, 3])]
    )
    wanted = np.asarray(dynamical_matrices(constants, jnp.asarray(q)))
    found = np.asarray(exact_dynamical_matrices(model, crystal, q, columns=4))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    # and all of them together are the force constants
    exact = exact_force_constants(model, cells, space_group(crystal), at_a_time=5)
    scale = np.abs(np.asarray(constants.values)).max()
    np.testing.assert_allclose(exact.values, constants.values, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("case", CASES)
def test_a_contraction_of_a_column_and_its_derivatives(case):
    """Between two waves is the same as of the gradient along one, in value and derivatives."""
    model, crystal = CASES[case]()
    graph = model.graph(crystal, model.capacity(crystal))
    rng = np.random.default_rng(0)
    u = jnp.zeros((3, 3)).at[1].set(rng.normal(size=3))
    c = jnp.asarray(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))

    def at(x, strain, factor):
        model_at = replace(model, params=jax.tree.map(lambda p: p * factor, model.params))
        return model_at, strained(replace(crystal, positions=x), strain), graph

    def plain(real, q, towards, *where):
        return jnp.sum((c * bloch_column(*at(*where), q, towards, u, real)).real)

    def between_waves(real, q, towards, *where):
        return bloch_contraction(*at(*where), q, towards, u, c, real)

    where = crystal.positions, jnp.zeros((3, 3)), 1.1
    for real, q, towards in (
        (False, [0.1, 0.2, 0.3], [0, 0, 0]), (False, [0, 0, 0], [0, 0, 1]),
        (True, [0.5, 0, 0.5], [0, 0, 0]),
    ):  # fmt: skip
        given = jnp.asarray(q, float), jnp.asarray(towards, float), *where
        wanted, found = (
            jax.jit(jax.value_and_grad(partial(f, real), (2, 3, 4)))(*given)
            for f in (plain, between_waves)
        )
        for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12 * np.abs(a).max())


def test_symmetry_leaves_few_points():
    model, crystal = potential("ions:NaCl"), rocksalt()
    group, cells = space_group(crystal), supercell(crystal, (4, 4, 4))
    asked = independent_columns(cells, group)
    assert asked.points == 8  # of 64
    assert len(asked) == 18  # of 8 * 6: little groups relate them
    reduced = exact_force_constants(model, cells, group)
    whole = exact_force_constants(model, cells)
    scale = np.abs(np.asarray(whole.values)).max()
    np.testing.assert_allclose(reduced.values, whole.values, rtol=0, atol=1e-10 * scale)


def test_charges_have_a_non_analytic_limit():
    model, crystal = salt({"Na": 1.0, "Cl": -1.0}), rocksalt()
    toward = np.array([[0.0, 0, 0], [1, 0, 0], [1, 2, -1]])
    limit = np.asarray(exact_hessians(model, crystal, np.zeros((3, 3)), toward))
    close = np.asarray(exact_hessians(model, crystal, 1e-5 * toward))
    np.testing.assert_allclose(limit[1:], close[1:], atol=1e-6 * np.abs(limit).max())
    # Lyddane, Sachs, Teller: the part of K = 0 is 4π k_e/V Z Z' n n.
    n = toward[2] @ np.linalg.inv(np.asarray(crystal.cell)).T
    n /= np.linalg.norm(n)
    Z = np.repeat([1.0, -1.0], 3) * np.tile(n, 2)
    extra = 4 * np.pi * 14.3996454784936 / float(crystal.volume) * np.outer(Z, Z)
    np.testing.assert_allclose(limit[2] - limit[0], extra, atol=1e-8 * np.abs(extra).max())


@pytest.mark.parametrize(
    "model", [layered(True), salt({"Na": 0.5, "Cl": -1.0})], ids=["layers", "charges"]
)
def test_gradients_in_q_positions_cell_and_parameters(model):
    crystal = triclinic()
    capacity = model.capacity(crystal)
    graph = model.graph(crystal, capacity)
    rng = np.random.default_rng(3)
    size = 3 * len(crystal)
    W = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))

    def number(q, x, strain, factor):
        moved = replace(
            crystal, positions=x @ (jnp.eye(3) + strain), cell=crystal.cell @ (jnp.eye(3) + strain)
        )
        params = jax.tree.map(lambda leaf: leaf * factor, model.params)
        H = bloch_hessians(replace(model, params=params), moved, graph, q[None])[0]
        return jnp.sum((W * H).real)

    at = (jnp.array([0.21, -0.13, 0.4]), crystal.positions, jnp.zeros((3, 3)), jnp.array(1.0))
    slopes = jax.jit(jax.grad(number, argnums=(0, 1, 2, 3)))(*at)
    value = jax.jit(number)
    for place, slope in enumerate(slopes):
        d = rng.normal(size=np.shape(slope))
        h = 1e-4
        ends = [
            value(*(a + s * h * d if n == place else a for n, a in enumerate(at))) for s in (1, -1)
        ]
        ends2 = [
            value(*(a + s * h / 2 * d if n == place else a for n, a in enumerate(at)))
            for s in (1, -1)
        ]
        coarse, fine = (ends[0] - ends[1]) / (2 * h), (ends2[0] - ends2[1]) / h
        wanted = (4 * fine - coarse) / 3
        np.testing.assert_allclose(np.sum(slope * d), wanted, rtol=1e-6)


def test_what_cannot_carry_waves_is_refused():
    crystal = rocksalt()
    q = np.array([[0.1, 0.0, 0.0]])

    def blind(params, crystal, neighbors):  # reads without gather
        x = crystal.positions
        apart = x[neighbors.others.index] - x[neighbors.centers.index]
        apart = apart + neighbors.others.image @ crystal.cell
        squared = jnp.where(neighbors.mask, jnp.sum(apart**2, axis=1), 1e4)
        return params * jnp.sum(jnp.exp(-squared / 8))

    def half_blind(params, crystal, neighbors):  # a sum without scatter
        r = jnp.linalg.norm(separations(crystal, neighbors), axis=1)
        density = jax.ops.segment_sum(jnp.exp(-r), neighbors.others.index, len(crystal))
        return params * jnp.sum(jnp.sqrt(density))

    graph = Bound(pair_graph, (4.5,)), Bound(pair_room, (4.5,))
    with pytest.raises(InputError, match="other means"):
        exact_hessians(Potential("blind", jnp.ones(()), blind, *graph, None, 4.5), crystal, q)
    half = Potential("half", jnp.ones(()), half_blind, *graph, None, 4.5)
    exact_hessians(half, triclinic(), q)  # wrong, and not seen by looking at it
    with pytest.raises(InputError, match="½ 0 0"):
        check_beside_doubled_cell(half, triclinic())
    check_beside_doubled_cell(layered(True), triclinic())
    for whole in (exact, lambda model, crystal: exact_force_constants(
        model, supercell(crystal, (2, 1, 1))
    )):  # fmt: skip
        with pytest.raises(InputError, match="½ 0 0"):
            whole(half, triclinic())
    with pytest.raises(InputError, match="supercell"):
        exact_hessians(potential("ase:ase.calculators.lj:LennardJones"), crystal, q)
    with pytest.raises(InputError, match="q has shape"):
        exact_hessians(potential("ions:NaCl"), crystal, q[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chgnet", "nequix"])
def test_networks(name):
    if name == "nequix":
        weights = SHARED / "models" / "nequix-mp-1-pft.nqx"
        if not weights.exists():
            pytest.skip(f"needs {weights}")
        name = f"nequix:{weights}"
    model, crystal = potential(name), rocksalt()
    cells = supercell(crystal, (2, 2, 2))
    group = space_group(crystal)
    constants = hessian(model, cells, group).force_constants
    q = jnp.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.5, 0.0]])
    wanted = np.asarray(dynamical_matrices(constants, q))
    found = np.asarray(exact_dynamical_matrices(model, crystal, q))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def test_everything_that_takes_force_constants_takes_a_potential():
    """Where forces end inside the supercell, interpolation is exact as well."""
    model = lennard_jones({("Na", "Na"): (0.01, 3.0), ("Na", "Cl"): (0.02, 2.5),
                           ("Cl", "Cl"): (0.01, 3.4)}, cutoff=6.0)  # fmt: skip
    crystal = triclinic()
    constants = hessian(model, supercell(crystal, (4, 4, 4)), space_group(crystal)).force_constants
    held = exact(model, crystal)
    mesh = gamma_mesh((3, 3, 2), space_group(crystal))
    ends = []
    for source in (constants, held):
        found = modes(source, jnp.asarray(mesh.q), jnp.asarray(mesh.weights))
        kept = oscillators(found, 1e-6).kept
        U = displacement_tensor(found, 300.0, kept)
        ends.append((found.eigenvalues, U, group_velocities(source, found).vectors))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * float(jnp.abs(a).max()))


def test_gradient_of_displacements_on_the_exact_mesh():
    model, crystal = layered(True), triclinic()
    # its random surface has no minimum here: springs that hold every atom in the crystal
    model = summed(model, springs({("Na", "Cl"): (6.0, 2.5), ("Na", "Na"): (6.0, 2.5),
                                   ("Cl", "Cl"): (6.0, 2.5)}, cutoff=5.2))  # fmt: skip
    held = exact(model, crystal)
    mesh = gamma_mesh((2, 2, 2), None)
    q, weights = jnp.asarray(mesh.q), jnp.asarray(mesh.weights)
    lowest = np.linalg.eigvalsh(np.asarray(dynamical_matrices(held, q[1:]))).min()
    assert lowest > 1e-3

    @jax.jit
    def msd(strain, factor):
        turn = jnp.eye(3) + strain
        moved = replace(crystal, positions=crystal.positions @ turn, cell=crystal.cell @ turn)
        params = jax.tree.map(lambda leaf: leaf * factor, model.params)
        part = replace(held.exact, potential=replace(model, params=params))
        D = dynamical_matrices(replace(held, crystal=moved, exact=part), q)
        return jnp.trace(displacement_tensor_from_matrices(D, q, weights, moved, 300.0, 1e-6)[0])

    at = (jnp.zeros((3, 3)), jnp.array(1.0))
    slopes = jax.grad(msd, argnums=(0, 1))(*at)
    d = np.random.default_rng(5).normal(size=(3, 3))
    h = 1e-4
    for change, slope in (
        (lambda s: msd(s * d, 1.0), np.sum(slopes[0] * d)), (lambda s: msd(at[0], 1 + s), slopes[1])
    ):  # fmt: skip
        coarse = (change(h) - change(-h)) / (2 * h)
        fine = (change(h / 2) - change(-h / 2)) / h
        np.testing.assert_allclose(slope, (4 * fine - coarse) / 3, rtol=1e-6)


def test_a_supercell_that_is_large_enough_and_one_that_is_not():
    model = lennard_jones({("Na", "Na"): (0.01, 3.0), ("Na", "Cl"): (0.02, 2.5),
                           ("Cl", "Cl"): (0.01, 3.4)}, cutoff=6.0)  # fmt: skip
    crystal = triclinic()
    how = {"mobile": "Na", "temperature": 300.0}
    large = supercell_check(model, supercell(crystal, (4, 4, 4)), None, **how)
    assert large.by_band_THz.max() < 1e-6
    assert abs(large.msd_error) < 1e-9
    small = supercell_check(model, supercell(crystal, (1, 1, 1)), None, **how)
    assert small.by_band_THz.max() > 0.05
    assert len(small.as_record()["difference_by_band_THz"]) == 9
    assert "off by up to" in small.said()
    q = small.q
    for n in range(1, 9):  # none of them fits a supercell of this many cells
        assert np.all(np.abs(n * q - np.rint(n * q)).max(axis=1) > 1e-3)


def near_springs():
    """A surface of many bodies with a minimum, known to carry waves or not."""
    model = summed(layered(True), springs({("Na", "Cl"): (6.0, 2.82), ("Na", "Na"): (3.0, 3.99),
                                           ("Cl", "Cl"): (3.0, 3.99)}, cutoff=4.5))  # fmt: skip
    return replace(model, name="own", carries_waves=False)


def test_both_routes_of_a_calculation_are_the_same():
    model, crystal = near_springs(), rocksalt()
    settings = PhononSettings(relax=False, supercell_atoms=16, width=0.0, mesh=(2, 2, 2))
    assert not planned(crystal, model, settings).by_waves  # nobody has looked at it
    assert planned(crystal, replace(model, carries_waves=True), settings).by_waves
    results = {}
    for route in ("supercell", "primitive"):
        asked = replace(settings, force_constants_from=route)
        results[route] = row_from_potential("x", crystal, model, asked)
    here, there = results["supercell"], results["primitive"]
    assert here.record["force_constants"]["from"] == "supercell"
    assert there.record["force_constants"]["from"] == "primitive cell"
    a, b = (np.asarray(r.force_constants.values) for r in (here, there))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * np.abs(a).max())
    assert there.record["force_constants"]["hessian_vector_products"] < 18


def test_a_row_with_nothing_interpolated():
    model, crystal = near_springs(), rocksalt()
    settings = PhononSettings(relax=False, supercell_atoms=64, width=0.0, mesh=(2, 2, 2))
    whole = row_from_potential("x", crystal, model, settings)
    exact_one = row_from_potential("x", crystal, model, replace(settings, exact=True))
    assert whole.record["interpolated"]
    assert not exact_one.record["interpolated"]
    # At points of the mesh, which all fit this supercell, there is nothing to interpolate.
    a, b = whole.analysis.on_mesh, exact_one.analysis.on_mesh
    np.testing.assert_array_equal(a.q, b.q)
    np.testing.assert_allclose(a.eigenvalues, b.eigenvalues, atol=1e-10 * a.eigenvalues.max())
    for key, rel in (("msd_total_mean_A2", 1e-8), ("heat_capacity_eV_K_per_cell", 1e-8)):
        assert exact_one.record[key]["300"] == pytest.approx(whole.record[key]["300"], rel=rel)
    # between them there is
    k = exact_one.record["debye_temperature_K"], whole.record["debye_temperature_K"]
    assert k[0] == pytest.approx(k[1], rel=0.01)
    assert k[0] != pytest.approx(k[1], rel=1e-9)


def test_averages_need_supercells():
    model = replace(near_springs(), smoothing_width=0.03)
    for asked in ({"exact": True}, {"force_constants_from": "primitive"}):
        with pytest.raises(InputError, match="width 0"):
            planned(rocksalt(), model, PhononSettings(**asked))
        with pytest.raises(InputError, match="width 0"):
            PhononSettings(**asked, width=0.03)
    # and what cannot do without them says so before anything is computed
    host = potential("ase:ase.calculators.lj:LennardJones")
    for asked in ({"exact": True}, {"force_constants_from": "primitive"}):
        with pytest.raises(InputError, match="another program"):
            planned(rocksalt(), host, PhononSettings(**asked))
    with pytest.raises(InputError, match="auto, primitive or supercell"):
        PhononSettings(force_constants_from="nothing")


def test_the_long_wave_limit_of_charges_is_known_or_refused():
    sound = acoustics(exact(potential("ions:NaCl"), rocksalt()))
    n = np.array([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]])
    n /= np.linalg.norm(n, axis=1)[:, None]
    k = 2e-3
    q = k * n @ np.asarray(rocksalt().cell).T / (2 * np.pi)
    D = exact_dynamical_matrices(potential("ions:NaCl"), rocksalt(), q)
    wanted = np.linalg.eigvalsh(np.asarray(D))[:, :3]
    found = np.linalg.eigvalsh(acoustic_matrices(sound, k * n))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    with pytest.raises(InputError, match="piezoelectric"):
        acoustics(exact(salt({"Na": 0.5, "Cl": -1.0}), triclinic()))
