"""The website's JSON: its structure, and that what the site draws obeys the equation of motion."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from phonopy_reference import converted, rocksalt, triclinic

from phojax.brillouin import band_path
from phojax.checks import InputError
from phojax.io.website import write_website_json
from phojax.modes import modes

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")


@pytest.fixture(scope="module", params=[triclinic, rocksalt], ids=["triclinic", "rocksalt"])
def case(request, tmp_path_factory):
    constants = converted(request.param())
    line = band_path(constants.supercell.primitive, spacing=0.4)
    found = modes(constants, jnp.asarray(line.q))
    path = tmp_path_factory.mktemp("website") / "crystal.json"
    write_website_json(path, line, found)
    return constants, line, found, json.loads(path.read_text()), path


def drawn(data, k, n, cells):
    """What `getVibrations` of the site computes: no phase but that of the lattice vector."""
    v = np.array(data["vectors"][k][n])
    v = v[..., 0] + 1j * v[..., 1]
    phase = np.exp(2j * np.pi * np.asarray(cells) @ np.array(data["qpoints"][k]))
    return phase[:, None, None] * v


def test_equation_of_motion(case):
    """Σ_jR Φ_i0,jR u_jR = m_i ω² u_i0 for what is drawn, with the wavenumbers of the file."""
    constants, line, _, data, _ = case
    R = np.asarray(constants.images.lattice)
    home = np.flatnonzero(np.all(R == 0, axis=1))[0]
    by_vector = np.asarray(constants.by_lattice_vector)
    masses = np.array(data["masses"])
    cm = 1 / 33.35640951981521  # THz
    from phojax.units import THZ

    for k in range(0, len(line.q), 5):
        for n in range(3 * data["natoms"]):
            u = drawn(data, k, n, R)
            force = np.einsum("rijab,rjb->ia", by_vector, u)
            nu = data["eigenvalues"][k][n] * cm
            expected = np.sign(nu) * (nu / THZ) ** 2 * masses[:, None] * u[home]
            np.testing.assert_allclose(force, expected, rtol=0, atol=1e-6)


def test_structure_of_the_file(case):
    _, line, found, data, _ = case
    n, points = len(found.structure), len(line.q)
    assert data["natoms"] == n
    assert np.shape(data["vectors"]) == (points, 3 * n, n, 3, 2)
    assert np.shape(data["eigenvalues"]) == (points, 3 * n)
    assert np.shape(data["qpoints"]) == (points, 3)
    assert len(data["distances"]) == points
    np.testing.assert_allclose(
        np.array(data["atom_pos_red"]) @ data["lattice"], data["atom_pos_car"], atol=1e-12
    )
    assert data["atom_types"] == found.structure.symbols
    assert len(data["atom_numbers"]) == n
    assert all(r >= 1 for r in data["repetitions"])
    np.testing.assert_allclose(np.sum(np.square(data["vectors"]), axis=(2, 3, 4)), 1, atol=1e-7)
    breaks = data["line_breaks"]
    assert breaks[0][0] == 0
    assert breaks[-1][1] == points
    assert all(a[1] == b[0] for a, b in itertools.pairwise(breaks))


def test_labels_survive_the_sites_table_by_distance(case):
    _, line, _, data, _ = case
    by_distance = {}
    for index, label in data["highsym_qpts"]:
        by_distance[data["distances"][index]] = label
    for segment, (start, end) in zip(line.segments, line.labels, strict=True):
        assert start in by_distance[line.distance[segment.start]].split("|")
        assert end in by_distance[line.distance[segment.stop - 1]].split("|")


def test_same_keys_as_pymatgens(case, tmp_path):
    reader = pytest.importorskip("pymatgen.io.phonopy")
    from phojax.io.bands import write_band_yaml

    _, line, found, data, _ = case
    write_band_yaml(tmp_path / "band.yaml", line, found, eigenvectors=True)
    peer = reader.get_ph_bs_symm_line(tmp_path / "band.yaml").as_phononwebsite()
    assert set(peer) <= set(data)
    np.testing.assert_allclose(data["eigenvalues"], peer["eigenvalues"], rtol=1e-6, atol=1e-5)
    ours, theirs = np.array(data["vectors"]), np.array(peer["vectors"])
    # It scales all modes by one factor.
    theirs /= np.sqrt(np.sum(theirs**2, axis=(2, 3, 4), keepdims=True))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_bad_input(case, tmp_path):
    _, _, found, _, _ = case
    other = band_path(found.structure, spacing=0.2)
    with pytest.raises(InputError, match="not those of the path"):
        write_website_json(tmp_path / "x.json", other, found)
