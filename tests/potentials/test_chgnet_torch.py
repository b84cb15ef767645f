"""CHGNet against the chgnet package, which runs on torch, in float64 and in float32."""

import warnings
from functools import partial

import crystals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from ase.spacegroup import crystal as in_space_group

from phojax.forces import energy_forces_stress
from phojax.potentials.chgnet import chgnet, weights
from phojax.potentials.chgnet.graph import Capacity, graph_capacity
from phojax.structure import padded, structure

torch = pytest.importorskip("torch")
pytest.importorskip("pymatgen")
pytest.importorskip("chgnet.model.model", exc_type=ImportError)

from chgnet.graph import converter, crystalgraph  # noqa: E402
from chgnet.model import model as theirs  # noqa: E402
from pymatgen.io.ase import AseAtomsAdaptor  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow]

GPA = 160.21766208  # eV/Å³, as the package has it


def reference(network, atoms):
    """Return energy (eV), forces (eV/Å) and stress (eV/Å³) from the package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = network.predict_graph(
            network.graph_converter(AseAtomsAdaptor.get_structure(atoms)), task="efs"
        )
    return float(found["e"]) * len(atoms), found["f"].astype(float), found["s"] / GPA


@pytest.fixture
def double(monkeypatch):
    """The package's network, graph and element energies in float64."""
    for module in (converter, crystalgraph, theirs):
        monkeypatch.setattr(module, "TORCH_DTYPE", torch.float64)
    network = theirs.CHGNet.load(use_device="cpu", verbose=False).double()

    def composition(graphs):
        counts = [torch.bincount(g.atomic_number - 1, minlength=94).double() for g in graphs]
        return torch.stack([count / count.sum() for count in counts])

    network.composition_model._assemble_graphs = composition
    return network


@pytest.fixture(scope="module")
def single():
    return theirs.CHGNet.load(use_device="cpu", verbose=False)


def made_here():
    """Return three crystals: with bonds in line, with many angles, and with no near bond."""
    tin_oxide = in_space_group(
        ("Sn", "O"), [(0, 0, 0), (0.306, 0.306, 0)], spacegroup=136,
        cellpar=[4.737, 4.737, 3.186, 90, 90, 90],
    )  # fmt: skip
    return [crystals.salt(a=5.69) * (2, 1, 1), tin_oxide, bulk("Na", "bcc", a=4.29)]


def from_data(shared):
    return [read(file) for file in sorted((shared / "data" / "structures").glob("*.cif"))]


@partial(jax.jit, static_argnames="room")
def efs(potential, crystal, room):
    graph = potential.graph(crystal, room)
    return *energy_forces_stress(potential, crystal, graph), graph.overflow


def ours(potential, many):
    """Return results for all structures, in one shape so that it is compiled once."""
    made = [structure(*crystals.parts(atoms)) for atoms in many]
    rooms = [graph_capacity(x) for x in made]
    pairs = rooms[0].pairs._replace(
        images=tuple(int(n) for n in np.max([r.pairs.images for r in rooms], axis=0)),
        pairs=max(r.pairs.pairs for r in rooms),
    )
    room = Capacity(pairs, *(int(n) for n in np.max([r[1:] for r in rooms], axis=0)))
    size = max(len(x) for x in made)
    for x in made:
        e, f, s, overflow = efs(potential, padded(x, size), room)
        assert not overflow
        yield float(e), np.asarray(f)[: len(x)], np.asarray(s)


def rattled(many):
    for k, atoms in enumerate(many):
        atoms.rattle(0.05, seed=k)
    return many


def agree(network, many):
    """Compare both programs in float64, to the tolerances of the project."""
    for atoms, (e, f, s) in zip(many, ours(chgnet(), many), strict=True):
        e0, f0, s0 = reference(network, atoms)
        name = atoms.get_chemical_formula()
        assert abs(e - e0) / len(atoms) < 1e-6, name
        np.testing.assert_allclose(f, f0, rtol=0, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(s, s0, rtol=0, atol=1e-8, err_msg=name)


def rounding_of_both(network, many):
    """Return the largest and the mean error of float32 against float64: ours and theirs."""
    exact = list(ours(chgnet(), many))
    near = list(ours(chgnet().astype(jnp.float32), many))
    far = [reference(network, atoms) for atoms in many]

    def errors(results, k):
        return np.concatenate(
            [
                np.ravel(r[k] - x[k]) / (1 if k else len(x[1]))
                for r, x in zip(results, exact, strict=True)
            ]
        )

    measures = (lambda x: np.abs(x).max(), lambda x: np.sqrt(np.mean(x**2)))
    return {
        (name, m): (measures[m](errors(near, k)), measures[m](errors(far, k)))
        for k, name in enumerate(("energy", "forces", "stress"))
        for m in range(2)
    }


def test_same_as_torch_on_crystals_made_here(double):
    agree(double, rattled(made_here()))


def test_same_as_torch_on_perfect_crystals(double):
    agree(double, made_here())


def test_same_as_torch_on_the_data(double, shared):
    agree(double, rattled(from_data(shared)))


def test_float32_loses_no_more_than_torch_does_here(single):
    for name, (mine, torchs) in rounding_of_both(single, rattled(made_here())).items():
        assert mine < 2 * torchs, name


def test_float32_loses_no_more_than_torch_does_on_the_data(single, shared):
    for name, (mine, torchs) in rounding_of_both(single, rattled(from_data(shared))).items():
        assert mine < 2 * torchs, name


def test_tensors_are_those_that_torch_reads():
    path = weights.checkpoint_path()
    mine = weights.read_checkpoint(path)["model"]["state_dict"]
    torchs = torch.load(path, map_location="cpu", weights_only=True)["model"]["state_dict"]
    assert mine.keys() == torchs.keys()
    assert len(mine) == 136
    for name, tensor in torchs.items():
        np.testing.assert_array_equal(mine[name], tensor.numpy(), err_msg=name)
