"""band.yaml beside the file that phonopy writes for the same path, and in its readers."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from phonopy_reference import constants_ratio, converted, rocksalt, triclinic

from phojax.brillouin import band_path
from phojax.checks import InputError
from phojax.io.bands import write_band_yaml
from phojax.modes import modes

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")


@pytest.fixture(scope="module", params=[triclinic, rocksalt], ids=["triclinic", "rocksalt"])
def both(request, tmp_path_factory):
    """Our file, phonopy's file and what went into ours, for one crystal."""
    folder = tmp_path_factory.mktemp("bands")
    phonon = request.param()
    constants = converted(phonon)
    line = band_path(constants.supercell.primitive, spacing=0.4)
    found = modes(constants, jnp.asarray(line.q))
    ends = [line.q[s.stop - 1] for s in line.segments]
    starts = [line.q[s.start] for s in line.segments[1:]]
    connected = [bool(np.allclose(a, b)) for a, b in zip(ends, starts, strict=False)] + [False]
    labels = []
    for pair, goes_on in zip(line.labels, [False, *connected], strict=False):
        labels += list(pair[1:] if goes_on else pair)
    phonon.run_band_structure(
        [line.q[s] for s in line.segments],
        with_eigenvectors=True,
        with_group_velocities=True,
        path_connections=connected,
        labels=labels,
    )
    phonon.write_yaml_band_structure(filename=folder / "theirs.yaml")
    velocities = np.concatenate(phonon.band_structure.group_velocities)
    write_band_yaml(
        folder / "band.yaml", line, found, group_velocities=velocities, eigenvectors=True
    )
    return folder, line, found, velocities


def load(path):
    return yaml.load(path.read_text(), yaml.CSafeLoader)


def test_same_as_phonopys(both):
    folder, _, _, _ = both
    ours, theirs = load(folder / "band.yaml"), load(folder / "theirs.yaml")
    assert set(theirs) <= set(ours)
    for key in ("nqpoint", "npath", "segment_nqpoint", "labels", "natom"):
        assert ours[key] == theirs[key], key
    for key in ("reciprocal_lattice", "lattice"):
        np.testing.assert_allclose(ours[key], theirs[key], atol=1e-8)
    for a, b in zip(ours["points"], theirs["points"], strict=True):
        assert a["symbol"] == b["symbol"]
        np.testing.assert_allclose(a["coordinates"], b["coordinates"], atol=1e-12)
        np.testing.assert_allclose(a["mass"], b["mass"], atol=1e-6)
    scale = constants_ratio()
    for a, b in zip(ours["phonon"], theirs["phonon"], strict=True):
        assert set(a) - {"label"} == set(b)
        np.testing.assert_allclose(a["q-position"], b["q-position"], atol=1e-7)
        np.testing.assert_allclose(a["distance"], b["distance"], atol=2e-7)
        assert [set(band) for band in a["band"]] == [set(band) for band in b["band"]]
        nu, peer = (np.array([band["frequency"] for band in x["band"]]) for x in (a, b))
        # Near zero a rounding error of λ is a large one of its root.
        np.testing.assert_allclose(nu * np.abs(nu), peer * np.abs(peer) / scale**2, atol=1e-7)
        v, peer = (np.array([band["group_velocity"] for band in x["band"]]) for x in (a, b))
        np.testing.assert_allclose(v, peer, atol=1e-7)


def test_eigenvectors_are_in_phonopys_phases(both):
    """Each of ours lies in the span of phonopy's with its frequency."""
    folder, _, _, _ = both
    ours, theirs = load(folder / "band.yaml"), load(folder / "theirs.yaml")
    for a, b in zip(ours["phonon"], theirs["phonon"], strict=True):
        nu = np.array([band["frequency"] for band in b["band"]])
        e, peer = (np.array([band["eigenvector"] for band in x["band"]]) @ [1, 1j] for x in (a, b))
        e, peer = (x.reshape(len(nu), -1) for x in (e, peer))
        same = np.abs(nu[:, None] ** 2 - nu**2) < 1e-4
        overlap = np.sum(np.abs(e.conj() @ peer.T) ** 2 * same, axis=1)
        np.testing.assert_allclose(overlap, 1, atol=1e-6)


def test_pymatgen_reads_it(both):
    reader = pytest.importorskip("pymatgen.io.phonopy")
    folder, line, found, _ = both
    bands = reader.get_ph_bs_symm_line(folder / "band.yaml")
    np.testing.assert_allclose(bands.bands.T, found.frequencies_THz, atol=1e-9)
    named = {q.label for q in bands.qpoints if q.label}
    assert named == {label for pair in line.labels for label in pair}
    assert len(bands.branches) >= 1
    # Its displacements carry the phase of the atom; so e comes back.
    x = np.asarray(found.structure.fractional)
    phase = np.exp(2j * np.pi * np.asarray(found.q) @ x.T)
    root = np.sqrt(np.asarray(found.masses))
    e = np.swapaxes(bands.eigendisplacements, 0, 1) * root[:, None] / phase[:, None, :, None]
    norm = np.linalg.norm(e[0, 0]) / np.linalg.norm(found.eigenvectors[0, 0])
    np.testing.assert_allclose(e / norm, found.eigenvectors, atol=1e-6)


def test_phonopy_bandplot_reads_it(both):
    folder, line, found, _ = both
    command = "from phonopy.scripts.phonopy_bandplot import run; run()"
    text = subprocess.run(
        [sys.executable, "-c", command, "--gnuplot", str(folder / "band.yaml")],
        capture_output=True,
        text=True,
        check=False,  # it ends with status 1 after --gnuplot
    ).stdout
    rows = [row.split() for row in text.splitlines() if row.strip() and row[0] != "#"]
    distance, frequency = np.array(rows, float).T
    count = found.eigenvalues.shape[1]
    np.testing.assert_allclose(
        np.sort(distance), np.sort(np.tile(line.distance / (2 * np.pi), count)), atol=1e-6
    )
    np.testing.assert_allclose(
        np.sort(frequency), np.sort(np.ravel(found.frequencies_THz)), atol=1e-6
    )


def test_without_options_and_bad_input(both, tmp_path):
    _, line, found, velocities = both
    write_band_yaml(tmp_path / "new" / "band.yaml", line, found)
    first = load(tmp_path / "new" / "band.yaml")["phonon"][0]["band"][0]
    assert set(first) == {"frequency"}
    with pytest.raises(InputError, match="group velocities has shape"):
        write_band_yaml(tmp_path / "band.yaml", line, found, group_velocities=velocities[1:])
    other = band_path(found.structure, spacing=0.2)
    with pytest.raises(InputError, match="not those of the path"):
        write_band_yaml(tmp_path / "band.yaml", other, found)
    assert not (tmp_path / "band.yaml").exists()
