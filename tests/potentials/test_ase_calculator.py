"""ASE calculators as potentials: against ASE itself, and force constants against phonopy's."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from phonopy import Phonopy

from phojax.checks import InputError
from phojax.convert import phonopy_atoms, structure_from_ase
from phojax.force_constants.hessian import hessian
from phojax.forces import energy, evaluate
from phojax.potentials.ase_calculator import ase_calculator
from phojax.potentials.bridge import bridged
from phojax.potentials.catalogue import potential
from phojax.relax import relax
from phojax.structure import padded, strained, supercell
from phojax.symmetry import primitive_cell, space_group


class OneSpring(Calculator):
    """No stress, as many calculators of potentials have none."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions - np.round(self.atoms.positions)
        self.results = {"energy": np.sum(x**2) / 2, "forces": -x}


class Failing(EMT):
    def calculate(self, *args, **kwargs):
        raise RuntimeError("the network is on fire")


def copper(strain=0.01):
    atoms = bulk("Cu", cubic=True, a=3.6)
    rng = np.random.default_rng(0)
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_energy_forces_and_stress_are_the_calculators():
    atoms = copper()
    atoms.calc = EMT()
    E, F, stress = evaluate(ase_calculator(EMT()), structure_from_ase(atoms))
    assert float(E) == atoms.get_potential_energy()
    np.testing.assert_allclose(F, atoms.get_forces(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), rtol=0, atol=1e-12)


def test_gradient_in_the_cell_is_the_change_of_the_energy():
    crystal = structure_from_ase(copper())
    model = ase_calculator(EMT())
    graph = model.graph(crystal, ())
    bend = jnp.asarray(np.random.default_rng(2).normal(size=(3, 3)))

    def along(s):
        return energy(model, strained(crystal, s * bend), graph)

    h = 1e-5
    slope = (float(along(h)) - float(along(-h))) / (2 * h)
    assert float(jax.grad(along)(0.0)) == pytest.approx(slope, rel=1e-6)


def test_force_constants_as_phonopys_from_the_same_displacements():
    crystal = primitive_cell(structure_from_ase(bulk("Cu", a=3.6)))
    group = space_group(crystal)
    cell = supercell(crystal, [3, 3, 3])
    found = hessian(ase_calculator(EMT()), cell, group, step=0.001)
    assert found.step == 0.001
    peer = Phonopy(
        phonopy_atoms(crystal), supercell_matrix=np.diag([3, 3, 3]), primitive_matrix=np.eye(3)
    )
    peer.generate_displacements(distance=0.001, is_plusminus=True)
    forces = []
    for one in peer.supercells_with_displacements:
        atoms = Atoms(one.symbols, cell=one.cell, scaled_positions=one.scaled_positions, pbc=True)
        atoms.calc = EMT()
        forces.append(atoms.get_forces())
    peer.forces = forces
    peer.produce_force_constants(calculate_full_force_constants=False)
    peer.symmetrize_force_constants()
    ours = np.asarray(found.force_constants.values)[0]
    # phonopy displaces along another direction: differences of order h² remain.
    order = np.lexsort((np.round(np.asarray(cell.structure.fractional), 6) % 1).T)
    theirs = np.lexsort((np.round(peer.supercell.scaled_positions, 6) % 1).T)
    np.testing.assert_allclose(
        ours[order], peer.force_constants[0][theirs], rtol=0, atol=3e-6 * np.abs(ours).max()
    )


def test_relaxes_to_the_lattice_constant_of_copper():
    """3.60 Å: the effective medium theory is fitted to it (Jacobsen 1996, table 2: s₀ 2.67 a₀)."""
    found = relax(
        ase_calculator(EMT()), structure_from_ase(bulk("Cu", a=3.7)), stress_tolerance=1e-6
    )
    assert found.converged
    spacing = float(jnp.linalg.norm(found.structure.cell[0])) * np.sqrt(2)
    assert spacing == pytest.approx(3.59, abs=0.02)


def test_second_derivatives_are_refused():
    crystal = primitive_cell(structure_from_ase(bulk("Cu", a=3.6)))
    with pytest.raises(InputError, match="step=, the displacement"):
        hessian(ase_calculator(EMT()), supercell(crystal, [1, 1, 1]), space_group(crystal))
    model = ase_calculator(EMT())

    def of(x):
        moved = replace(crystal, positions=x)
        return model.energy({}, moved, model.graph(moved, ()))

    with pytest.raises(InputError, match="gives forces alone"):
        jax.hessian(of)(crystal.positions)


def test_without_stress_positions_relax_in_a_fixed_cell():
    crystal = structure_from_ase(Atoms("Na", positions=[(0.3, 0, 0)], cell=[5, 5, 5], pbc=True))
    two = structure_from_ase(
        Atoms("Na2", positions=[(0.3, 0, 0), (3.1, 2, 2)], cell=[5, 5, 5], pbc=True)
    )
    model = ase_calculator(OneSpring())
    with pytest.raises(InputError, match="gives no stress"):
        evaluate(model, crystal)
    found = relax(model, two, cell=False, force_tolerance=1e-6)
    assert found.converged
    moved = relax(model, two)
    assert not moved.converged
    # A crystal without anything to relax but its cell is not converged, either.
    one = relax(model, crystal, symmetry=space_group(crystal))
    assert not one.converged
    assert "gives no stress" in moved.message


def test_a_calculator_that_fails_says_why():
    with pytest.raises(InputError, match="RuntimeError: the network is on fire"):
        evaluate(ase_calculator(Failing()), structure_from_ase(copper()))


def test_a_failure_is_not_hidden_by_the_want_of_stress():
    class Ends(OneSpring):
        def calculate(self, *args, **kwargs):
            if getattr(self, "calls", 0):
                raise RuntimeError("out of fuel")
            self.calls = 1
            super().calculate(*args, **kwargs)

    crystal = structure_from_ase(Atoms("Na", positions=[(0.3, 0, 0)], cell=[5, 5, 5], pbc=True))
    model = ase_calculator(Ends())
    evaluate(model, crystal, stress=False)
    with pytest.raises(InputError, match="out of fuel"):
        evaluate(model, replace(crystal, positions=crystal.positions + 0.1), stress=False)


def test_padding_and_batches():
    crystal = structure_from_ase(copper())
    model = ase_calculator(EMT())
    wide = padded(crystal, 7)
    E, F, _ = evaluate(model, wide)
    assert float(E) == float(evaluate(model, crystal)[0])
    assert np.all(np.asarray(F)[4:] == 0)

    def of(x):
        moved = replace(crystal, positions=x)
        return model.energy({}, moved, model.graph(moved, ()))

    two = jnp.stack([crystal.positions, crystal.positions * 1.01])
    found = jax.jit(jax.vmap(jax.value_and_grad(of)))(two)
    for k in range(2):
        E, g = jax.value_and_grad(of)(two[k])
        np.testing.assert_allclose(found[0][k], E, rtol=1e-14)
        np.testing.assert_allclose(found[1][k], g, rtol=0, atol=1e-13)


def test_by_name(tmp_path):
    assert potential("ase:ase.calculators.emt:EMT").derivatives == 1
    file = tmp_path / "mine.py"
    file.write_text("from ase.calculators.emt import EMT\ndef make():\n    return EMT()\n")
    assert potential(f"ase:{file}:make").name == f"ase:{file}:make"
    with pytest.raises(InputError, match="module:attribute"):
        potential("ase:nothing")
    with pytest.raises(InputError, match="No module named"):
        potential("ase:no_such_module:thing")
    with pytest.raises(InputError, match="an ASE calculator"):
        ase_calculator(object())
    with pytest.raises(InputError, match="cannot be read"):
        potential(f"ase:{tmp_path}/none.py:make")


def test_code_of_ones_own_leaves_a_fingerprint(tmp_path):
    """With another calculator in the same file results must not pass for done before."""
    file = tmp_path / "mine.py"
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from ase.calculators.emt import EMT\n"
        "@dataclass\n"
        "class Options:\n"
        "    scale: float = 1.0\n"
        "def make():\n    return EMT()\n"
    )
    file.write_text(text)
    first = potential(f"ase:{file}:make").fingerprint
    assert potential(f"ase:{file}:make").fingerprint == first
    file.write_text(text + "# changed\n")
    assert potential(f"ase:{file}:make").fingerprint != first


def test_code_that_ends_or_fails_is_told(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("def boom():\n    raise ValueError('x')\ndef gone():\n    raise SystemExit(3)\n"
                    "number = 3\n")  # fmt: skip
    for kind in ("ase", "python"):
        with pytest.raises(InputError, match="ValueError: x"):
            potential(f"{kind}:{file}:boom")
        with pytest.raises(InputError, match="SystemExit: 3"):
            potential(f"{kind}:{file}:gone")
        with pytest.raises(InputError, match="expected a"):
            potential(f"{kind}:{file}:number")
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(InputError, match="cannot be imported"):
        potential(f"ase:{file}:boom")


@pytest.mark.parametrize("shape", [(1, 3), (3,), (), (3, 4)])
def test_results_of_a_wrong_shape_are_refused(shape):
    class Wrong(Calculator):
        implemented_properties = ("energy", "forces", "stress")

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": 1.0, "forces": np.zeros(shape), "stress": np.zeros(6)}

    with pytest.raises(InputError, match="Error"):
        evaluate(ase_calculator(Wrong()), structure_from_ase(copper()))


def test_predicted_results_of_a_wrong_shape_are_refused():
    class Spread:
        def values(self, numbers, cell, positions):
            return 1.0, np.ones((1, 3)), np.zeros((3, 3))

        def changes(self, *args):
            raise NotImplementedError

    model = bridged(Spread(), name="spread", elements=None, derivatives=1, predicts_forces=True)
    with pytest.raises(InputError, match=r"results of shapes \(\), \(1, 3\), \(3, 3\)"):
        evaluate(model, structure_from_ase(copper()))


_STRESS = """
import jax, threading
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
from phojax.potentials.bridge import bridged
from phojax.structure import Structure

class Springs:
    def values(self, numbers, cell, x):
        return (x**2).sum() / 2, x, np.zeros((3, 3))
    def changes(self, numbers, cell, x, d_cell, dx):
        return (x * dx).sum((1, 2)), dx, np.zeros((len(dx), 3, 3))

model = bridged(Springs(), name="springs", elements=None, derivatives=2)
n = 60
def of(x):
    crystal = Structure(jnp.eye(3), x, jnp.ones(n, int), jnp.ones(n))
    return model.energy({}, crystal, model.graph(crystal, ()))

@jax.jit
def work(x):
    def step(x, _):
        big = jnp.tanh(jnp.ones((300, 300)) @ jnp.ones((300, 300)))
        return x - 0.1 * jax.grad(of)(x) + 0 * big[0, 0], jax.hessian(of)(x).sum()
    return jax.lax.scan(step, x, None, length=30)

def loop():
    for _ in range(10):
        jax.block_until_ready(work(jnp.ones((n, 3))))

threads = [threading.Thread(target=loop) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
print("done")
"""


def test_callbacks_of_several_threads_do_not_wait_for_each_other():
    ran = subprocess.run(
        [sys.executable, "-c", _STRESS], capture_output=True, text=True, timeout=180, check=False
    )
    assert ran.stdout.strip() == "done", ran.stderr[-2000:]
