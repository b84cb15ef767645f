"""Torch models as potentials: a Morse crystal and CHGNet in torch against JAX, predicted forces."""

from dataclasses import replace

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.convert import structure_from_ase
from phojax.force_constants.hessian import hessian
from phojax.forces import energy, energy_and_forces, evaluate
from phojax.potentials.pair import morse
from phojax.relax import relax
from phojax.structure import strained, supercell
from phojax.symmetry import primitive_cell, space_group

torch = pytest.importorskip("torch")
from phojax.potentials.torch_bridge import from_energy, from_forces  # noqa: E402

pytestmark = pytest.mark.torch

CUTOFF, DEPTH, WIDTH, LENGTH = 5.0, 0.4, 1.1, 2.7
OURS = morse(
    dict.fromkeys((("Na", "Na"), ("Na", "Cl"), ("Cl", "Cl")), (DEPTH, WIDTH, LENGTH)),
    cutoff=CUTOFF,
)
SHIFTS = torch.cartesian_prod(*[torch.arange(-3, 4)] * 3)


def morse_energy(numbers, cell, positions):
    """A loop over images, with the switch of phojax.potentials.pair."""
    shifts = SHIFTS.to(positions.dtype) @ cell
    apart = positions[None] - positions[:, None] + shifts[:, None, None]
    squared = (apart**2).sum(-1)
    near = (squared < CUTOFF**2) & (squared > 1e-12)
    r = torch.sqrt(squared[near])
    t = ((r - 0.8 * CUTOFF) / (0.2 * CUTOFF)).clamp(0, 1)
    switch = 1 - t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
    return (DEPTH * ((1 - torch.exp(-WIDTH * (r - LENGTH))) ** 2 - 1) * switch).sum() / 2


def gradients(numbers, cell, positions, stress, curl=0.0):
    """Forces and stress of `morse_energy` as predictions, and a force that is no gradient."""
    E = morse_energy(numbers, cell, positions)
    bend = torch.zeros(3, 3, dtype=positions.dtype)

    def of(x, strain):
        stretch = torch.eye(3, dtype=x.dtype) + strain
        return morse_energy(numbers, cell @ stretch, x @ stretch)

    dx, de = torch.func.grad(of, argnums=(0, 1))(positions, bend)
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]], dtype=positions.dtype)
    apart = positions - positions.mean(0)
    return E, -dx + curl * apart @ turn, (de + de.T) / 2 / torch.linalg.det(cell).abs()


@pytest.fixture(params=["energy", "forces"])
def bridge(request):
    if request.param == "energy":
        return from_energy(morse_energy, name="torch-morse")
    return from_forces(gradients, name="torch-morse-forces")


def crystal():
    return structure_from_ase(crystals.rattled(crystals.salt(a=4.3, cubic=True)))


def test_energy_forces_stress(bridge):
    for ours, theirs in zip(evaluate(OURS, crystal()), evaluate(bridge, crystal()), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-12, atol=1e-12)


def test_force_constants_and_relaxation(bridge):
    start = primitive_cell(structure_from_ase(crystals.salt(a=4.4)))
    group = space_group(start)
    found = relax(bridge, start, symmetry=group, force_tolerance=1e-6, stress_tolerance=1e-7)
    ours = relax(OURS, start, symmetry=group, force_tolerance=1e-6, stress_tolerance=1e-7)
    assert found.converged
    np.testing.assert_allclose(found.structure.cell, ours.structure.cell, atol=1e-9)
    cell = supercell(found.structure, [2, 2, 2])
    a, b = hessian(bridge, cell, group), hessian(OURS, cell, group)
    largest = float(jnp.abs(b.force_constants.values).max())
    np.testing.assert_allclose(
        a.force_constants.values, b.force_constants.values, rtol=0, atol=1e-11 * largest
    )
    assert a.antisymmetric < 1e-12
    c = hessian(bridge, cell, group, step=1e-3)
    np.testing.assert_allclose(
        c.force_constants.values, b.force_constants.values, rtol=0, atol=1e-4 * largest
    )


def test_averaged_force_constants_take_one_graph_each(bridge):
    start = primitive_cell(structure_from_ase(crystals.salt(a=4.3)))
    cell, group = supercell(start, [2, 2, 1]), space_group(start)
    given = {"width": 0.05, "pairs": 1, "key": jax.random.key(1)}
    a, b = (hessian(p, cell, group, **given).force_constants.values for p in (bridge, OURS))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * float(jnp.abs(b).max()))


def test_all_second_derivatives_of_an_energy():
    """In positions and in the cell, under jit and vmap, against JAX's own."""
    bridge = from_energy(morse_energy, name="torch-morse")

    start = crystal()
    capacities = {model.name: model.capacity(start) for model in (OURS, bridge)}

    def of(model, x, strain):
        moved = strained(replace(start, positions=x), strain)
        return energy(model, moved, model.graph(moved, capacities[model.name]))

    at = start.positions, jnp.zeros((3, 3))
    for first in (0, 1):
        for second in (0, 1):
            ours, theirs = (
                jax.jit(jax.jacfwd(jax.grad(lambda *a, m=m: of(m, *a), first), second))(*at)
                for m in (OURS, bridge)
            )
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-10 * np.abs(ours).max())
    many = jnp.stack([at[0], at[0] + 0.01])
    both = jax.vmap(jax.hessian(lambda x: of(bridge, x, at[1])))(many)
    for k in range(2):
        alone = jax.hessian(lambda x: of(OURS, x, at[1]))(many[k])
        np.testing.assert_allclose(both[k], alone, rtol=0, atol=1e-10 * np.abs(alone).max())


def test_what_a_bridge_cannot_do_is_refused():
    bridge = from_energy(morse_energy, name="torch-morse")
    predicts = from_forces(gradients, name="torch-forces")
    start = crystal()

    def of(model):
        def at(x):
            moved = replace(start, positions=x)
            return energy(model, moved, model.graph(moved, ()))

        return at

    with pytest.raises(InputError, match="third derivatives of torch-morse"):
        jax.jacfwd(jax.hessian(of(bridge)))(start.positions)
    with pytest.raises(InputError, match="energy_and_forces"):
        jax.grad(of(predicts))(start.positions)

    def forces(x):
        moved = replace(start, positions=x)
        return energy_and_forces(predicts, moved, predicts.graph(moved, ()))[1]

    with pytest.raises(InputError, match="third derivatives of torch-forces"):
        jax.jacfwd(jax.jacfwd(forces))(start.positions)


def test_antisymmetric_part_of_predicted_forces():
    """Φ = S + curl·T with T antisymmetric: the ratio is that of their norms."""
    curl = 0.3
    start = primitive_cell(structure_from_ase(crystals.salt(a=4.3)))
    cell = supercell(start, [1, 1, 1])
    # Without symmetry: the force that is added has none.
    group = space_group(start).subset(np.arange(48) == 0)
    assert np.array_equal(group.rotations[0], np.eye(3))
    model = from_forces(lambda *a: gradients(*a, curl=curl), name="curl")
    found = hessian(model, cell, group)
    n = 2
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]])
    added = np.kron(np.eye(n) - 1 / n, -curl * turn.T)
    exact = np.asarray(hessian(OURS, cell, group).force_constants.values)
    symmetric = exact.transpose(0, 2, 1, 3).reshape(6, 6)
    expected = np.linalg.norm(added) / np.linalg.norm(symmetric)
    assert found.antisymmetric == pytest.approx(expected, rel=1e-8)
    assert found.residuals.permutation == pytest.approx(np.abs(added).max(), rel=1e-8)
    np.testing.assert_allclose(found.force_constants.values, exact, rtol=0, atol=1e-10)


def test_dynamics_in_a_scan():
    """Velocity Verlet over the bridge inside `lax.scan` follows that over JAX."""
    start = crystal()

    def run(model):
        capacity = model.capacity(start)

        def forces(x):
            moved = replace(start, positions=x)
            return energy_and_forces(model, moved, model.graph(moved, capacity))[1]

        def step(state, _):
            x, v, F = state
            v = v + 0.05 * F / start.masses[:, None]
            x = x + 0.1 * v
            F = forces(x)
            return (x, v + 0.05 * F / start.masses[:, None], F), None

        first = start.positions, jnp.zeros_like(start.positions), forces(start.positions)
        return jax.jit(lambda s: jax.lax.scan(step, s, None, length=20)[0])(first)[0]

    np.testing.assert_allclose(
        run(from_energy(morse_energy, name="torch-morse")), run(OURS), rtol=0, atol=1e-11
    )


def test_single_precision_is_cast_in_and_out():
    model = from_energy(morse_energy, name="torch-morse", dtype="float32")
    found, exact = evaluate(model, crystal()), evaluate(OURS, crystal())
    assert found[1].dtype == jnp.float64
    np.testing.assert_allclose(found[1], exact[1], rtol=0, atol=1e-4)
    assert np.abs(np.asarray(found[1] - exact[1])).max() > 0


def test_torch_chgnet_is_the_native_one():
    """Energy, forces and one row of force constants, both in float64."""
    pytest.importorskip("chgnet.model.model", exc_type=ImportError)
    from torch_chgnet import chgnet_energy

    from phojax.potentials.chgnet import chgnet

    native = chgnet().astype(jnp.float64)
    bridge = from_energy(chgnet_energy(), name="torch-chgnet")
    atoms = structure_from_ase(crystals.rattled(crystals.salt(cubic=True), 0.05))
    for ours, theirs in zip(evaluate(native, atoms), evaluate(bridge, atoms), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-7)

    def row(model):
        graph = model.graph(atoms, model.capacity(atoms))

        def gradient(x):
            return -energy_and_forces(model, replace(atoms, positions=x), graph)[1]

        along = jnp.zeros_like(atoms.positions).at[0, 0].set(1.0)
        return jax.jit(lambda x: jax.jvp(gradient, (x,), (along,))[1])(atoms.positions)

    ours = row(native)
    np.testing.assert_allclose(row(bridge), ours, rtol=0, atol=1e-6 * np.abs(ours).max())
