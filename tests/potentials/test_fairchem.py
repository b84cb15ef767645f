"""eSEN and UMA against fairchem-core's own calculator, and files that are not what they claim."""

import os
import pickle
import warnings
import zipfile
from dataclasses import replace
from functools import cache

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.forces import energy_forces_stress
from phojax.potentials import fairchem as ours
from phojax.potentials import fairchem_checkpoint
from phojax.potentials.contract import check_elements
from phojax.structure import structure

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("fairchem.core", exc_type=ImportError)
    if not fairchem_checkpoint.version().startswith("2."):
        pytest.skip("needs fairchem-core 2", allow_module_level=True)
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit.api.inference import (
        InferenceSettings,
        MLIPInferenceCheckpoint,
    )
    from fairchem.core.units.mlip_unit.predict import MLIPPredictUnit

from tiny_fairchem import SETS, UNKNOWN, written  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("fairchem")
    for kind in ("esen", "uma", "direct"):
        written(where / f"{kind}.pt", kind)
    return where


@cache
def calculator(path, dataset="omat"):
    settings = InferenceSettings(base_precision_dtype=torch.float64)
    return FAIRChemCalculator(
        MLIPPredictUnit(str(path), "cpu", inference_settings=settings), task_name=dataset
    )


def evaluated(potential, atoms):
    crystal = structure(*crystals.parts(atoms))
    check_elements(potential, crystal)
    graph = potential.graph(crystal, potential.capacity(crystal))
    return energy_forces_stress(potential, crystal, graph)


def distorted():
    """A strained, rattled salt, some of its atoms cells away from the others."""
    atoms = crystals.rattled(crystals.salt(a=5.6) * (2, 1, 1), 0.1, 0.03, seed=1)
    away = np.random.default_rng(2).integers(-2, 3, (len(atoms), 3))
    atoms.positions += away @ atoms.cell.array
    return atoms


@pytest.mark.parametrize("kind", ["esen", "uma", "direct"])
@pytest.mark.parametrize("atoms", [crystals.salt(a=5.6), distorted()], ids=["perfect", "distorted"])
def test_same_as_the_calculator(folder, kind, atoms):
    atoms = atoms.copy()
    path = folder / f"{kind}.pt"
    e, f, s = evaluated(ours.fairchem(path, device="cpu"), atoms)
    atoms.calc = calculator(path)
    assert float(e) == pytest.approx(atoms.get_potential_energy(), abs=1e-11)
    np.testing.assert_allclose(f, atoms.get_forces(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(s, atoms.get_stress(voigt=False), rtol=0, atol=1e-13)
    assert np.abs(f).max() > 1e-3 or len(atoms) == 2


def test_task_charge_and_spin_are_those_of_the_calculator(folder):
    path, atoms = folder / "uma.pt", crystals.salt(a=5.6)
    results = set()
    for dataset, charge, spin in (("omat", 0, 0), ("omol", 0, 1), ("omol", 1, 2)):
        atoms.info = {"charge": charge, "spin": spin}
        atoms.calc = calculator(path, dataset)
        e, *_ = evaluated(
            ours.fairchem(path, task=dataset, device="cpu", charge=charge, spin=spin), atoms
        )
        assert float(e) == pytest.approx(atoms.get_potential_energy(), abs=1e-11)
        results.add(float(e))
    assert len(results) == 3
    default = ours.network(path, task="omol", device="cpu")
    assert (default.charge, default.spin) == (0, 1)


@pytest.mark.parametrize("kind", ["esen", "uma"])
@pytest.mark.parametrize("atoms", [crystals.salt(a=5.6), distorted()], ids=["perfect", "distorted"])
def test_second_derivatives_are_those_of_finite_differences(folder, kind, atoms):
    """Rocksalt has edges along all axes, ±y among them, where frames are singular."""
    potential = ours.fairchem(folder / f"{kind}.pt", device="cpu")
    cell, x, numbers = crystals.parts(atoms)
    crystal = structure(cell, x, numbers)
    graph = potential.graph(crystal, potential.capacity(crystal))

    def energy(x):
        return potential.energy(potential.params, replace(crystal, positions=x), graph)

    gradient = jax.jit(jax.grad(energy))

    d = np.random.default_rng(0).normal(size=x.shape)
    exact = np.asarray(jax.jvp(gradient, (jnp.asarray(x),), (jnp.asarray(d),))[1])

    def difference(h):
        return np.asarray(gradient(x + h * d) - gradient(x - h * d)) / (2 * h)

    h = 2e-4
    richardson = (4 * difference(h / 2) - difference(h)) / 3
    assert np.abs(exact).max() > 1e-2
    np.testing.assert_allclose(exact, richardson, rtol=0, atol=1e-9)


def test_predicted_forces_have_the_derivative_of_finite_differences(folder):
    network = ours.network(folder / "direct.pt", device="cpu")
    assert network.direct
    atoms = distorted()
    z, A, x = (torch.tensor(v) for v in (atoms.numbers, atoms.cell.array, atoms.positions))
    d = torch.tensor(np.random.default_rng(0).normal(size=x.shape))

    def forces(x):
        return network.predict(z, A, x, True)[1]

    with torch.no_grad():
        exact = torch.func.jvp(forces, (x,), (d,))[1]
        h = 1e-4
        found = (forces(x + h * d) - forces(x - h * d)) / (2 * h)
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(exact, found, rtol=0, atol=1e-6)
    assert network.predict(z, A, x, False)[2] is None


def test_results_repeat_and_do_not_hang_on_the_choice_of_atoms_cell(folder):
    network = ours.network(folder / "esen.pt", device="cpu")
    atoms = distorted()

    def energy(atoms):
        return float(
            network.energy(
                *(torch.tensor(v) for v in (atoms.numbers, atoms.cell.array, atoms.positions))
            )
        )

    state = torch.get_rng_state()
    first = energy(atoms)
    assert energy(atoms) == first
    assert torch.equal(state, torch.get_rng_state())
    inside = atoms.copy()
    inside.wrap()
    assert energy(inside) == pytest.approx(first, abs=1e-12)
    assert energy(atoms * (1, 2, 1)) == pytest.approx(2 * first - 0.3, abs=1e-11)  # mean: once
    assert torch.get_default_dtype() == torch.float32


def test_single_precision_is_near_double(folder):
    path, atoms = folder / "uma.pt", distorted()
    exact = evaluated(ours.fairchem(path, device="cpu"), atoms)
    near = evaluated(ours.fairchem(path, device="cpu", dtype="float32"), atoms)
    assert 0 < abs(float(near[0] - exact[0])) < 1e-5
    np.testing.assert_allclose(near[1], exact[1], rtol=0, atol=1e-5)


def test_elements_without_a_reference_energy_are_refused(folder):
    potential = ours.fairchem(folder / "esen.pt", device="cpu")
    assert potential.elements == frozenset(range(1, 100)) - set(UNKNOWN)
    atoms = crystals.salt(a=5.6)
    atoms.symbols[0] = "Po"
    with pytest.raises(InputError, match="holds Po"):
        evaluated(potential, atoms)


def test_fingerprint_tells_files_and_tasks_apart(folder):
    prints = {
        ours.fairchem(folder / f"{kind}.pt", task=dataset, device="cpu").fingerprint
        for kind in ("esen", "uma")
        for dataset in SETS
    }
    assert len(prints) == 4


# Files that are not what they claim.


class Runs:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("unsafe", ["", "1"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch, unsafe):
    """Whatever the environment tells torch, as some packages have it."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", unsafe)
    mark, path = tmp_path / "ran", tmp_path / "bad.pt"
    torch.save(MLIPInferenceCheckpoint({"x": Runs(mark)}, {}, {}, {}), path)
    with pytest.raises(InputError, match=r"asks for \w+\.mkdir, which was refused"):
        ours.network(path)
    assert not mark.exists()
    # It would have run.
    torch.load(path, weights_only=False)
    assert mark.exists()


def a_target(where):
    """Return a change of the configuration that has hydra run os.mkdir."""

    def change(model, tasks):
        tasks[0]["normalizer"] = {"_target_": "os.mkdir", "path": str(where)}

    return change


def a_module(model, tasks):
    model["heads"]["efs"]["head_cls"] = "this.antigravity"


def a_network(model, tasks):
    model["backbone"]["model"] = "EScAIP_backbone"


def a_reference(model, tasks):
    tasks[0]["name"] = "${oc.env:HOME}"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("target", "asks for 'os.mkdir' as _target_"),
        (a_module, "asks for 'this.antigravity' as head_cls"),
        (a_network, "asks for 'EScAIP_backbone' as model"),
        (a_reference, "values, not references"),
    ],
)
def test_configurations_that_ask_for_more_are_refused(tmp_path, change, match):
    mark = tmp_path / "ran"
    change = a_target(mark) if change == "target" else change
    path = written(tmp_path / "bad.pt", change=change)
    with pytest.raises(InputError, match=match):
        ours.network(path)
    assert not mark.exists()


def test_a_second_file_is_not_opened(tmp_path, folder):
    def change(model, tasks):
        model["finetune_config"] = {"starting_checkpoint": str(tmp_path / "elsewhere.pt")}

    path = written(tmp_path / "tuned.pt", change=change)
    assert ours.network(path, device="cpu").dataset == "omat"


def test_damaged_and_foreign_files_are_told_apart(tmp_path, folder):
    whole = (folder / "esen.pt").read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        ours.network(cut)
    with pytest.raises(InputError, match="does not exist"):
        ours.network(tmp_path / "none.pt")
    old = tmp_path / "old.pt"
    torch.save({"state_dict": {}, "config": {}}, old)
    with pytest.raises(InputError, match="fairchem 1"):
        ours.network(old)
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(InputError, match="cannot be read"):
        ours.network(foreign)
    legacy = tmp_path / "legacy.pt"
    legacy.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="no zip file"):
        ours.network(legacy)


@pytest.mark.parametrize(("model", "tasks"), [({}, []), ({"_target_": 1}, [1]), (None, None)])
def test_checkpoints_without_a_network_or_tasks_are_told(tmp_path, model, tasks):
    path = tmp_path / "empty.pt"
    torch.save(MLIPInferenceCheckpoint(model, {}, {}, tasks), path)
    with pytest.raises(InputError):
        ours.network(path)


def test_weights_that_do_not_fit_are_told(tmp_path):
    def change(model, tasks):
        model["backbone"]["sphere_channels"] = 16

    path = written(tmp_path / "misfit.pt", change=change)
    with pytest.raises(InputError, match="cannot be built by fairchem-core 2"):
        ours.network(path)


def test_high_orders_are_refused(tmp_path):
    path = written(tmp_path / "high.pt", lmax=5, mmax=2)
    with pytest.raises(InputError, match="lmax is 5"):
        ours.network(path)


def test_options_that_do_not_exist_are_told(folder):
    path = folder / "esen.pt"
    with pytest.raises(InputError, match=r"no energy for the task 'oc20'.*\['omat', 'omol'\]"):
        ours.network(path, task="oc20")
    with pytest.raises(InputError, match="float64 or float32"):
        ours.network(path, dtype="float16")
    with pytest.raises(InputError, match="device 'nowhere'"):
        ours.network(path, device="nowhere")


@pytest.mark.parametrize(("version", "match"), [("", "is not installed"), ("1.10.0", "1.10.0 is")])
def test_install_line_where_fairchem_is_missing_or_old(folder, monkeypatch, version, match):
    monkeypatch.setattr(fairchem_checkpoint, "version", lambda: version)
    with pytest.raises(InputError, match=rf"{match}.*expected version 2.*pip install"):
        ours.network(folder / "esen.pt")
