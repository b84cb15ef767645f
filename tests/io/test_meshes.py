"""mesh.hdf5 beside the file that phonopy writes for the same mesh."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from phonopy_reference import constants_ratio, converted, rocksalt, triclinic

from phojax.brillouin import gamma_mesh, q_mesh
from phojax.checks import InputError
from phojax.io.meshes import write_mesh_hdf5
from phojax.modes import modes
from phojax.symmetry import space_group

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")


def load(path):
    with h5py.File(path) as file:
        return {name: (data[()], data.dtype.kind) for name, data in file.items()}


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0.5, 0.5)])
def test_same_as_phonopys(shift, tmp_path):
    phonon = triclinic()
    phonon.run_mesh(
        (3, 2, 2),
        # phonopy shifts even meshes of its own accord; both are told what to do.
        is_gamma_center=not any(shift),
        shift=None if not any(shift) else [0.5, 0, 0],
        with_eigenvectors=True,
        with_group_velocities=True,
    )
    phonon.mesh.write_hdf5(tmp_path / "theirs.hdf5")
    peer = load(tmp_path / "theirs.hdf5")
    constants = converted(phonon)
    mesh = q_mesh((3, 2, 2), None, shift)
    found = modes(constants, jnp.asarray(mesh.q))
    # The same point of each pair ±q: phonopy's rows in our order, velocities turned with q.
    order, sign = [], []
    for q in mesh.q:
        apart = np.stack([peer["qpoint"][0] - q, peer["qpoint"][0] + q])
        match = np.argwhere(np.abs(apart - np.rint(apart)).max(-1) < 1e-8)
        assert len(match) >= 1
        order.append(match[0][1])
        sign.append(1 - 2 * match[0][0])
    assert sorted(order) == list(range(len(peer["qpoint"][0])))
    velocities = peer["group_velocity"][0][order] * np.array(sign)[:, None, None]
    write_mesh_hdf5(tmp_path / "mesh.hdf5", mesh, found, group_velocities=velocities)
    ours = load(tmp_path / "mesh.hdf5")
    assert set(ours) == set(peer)
    for name in ours:
        assert ours[name][0].shape == peer[name][0].shape, name
        assert ours[name][1] == peer[name][1], name
    np.testing.assert_array_equal(ours["mesh"][0], peer["mesh"][0])
    np.testing.assert_array_equal(ours["weight"][0], peer["weight"][0][order])
    nu, theirs = ours["frequency"][0], peer["frequency"][0][order] / constants_ratio()
    np.testing.assert_allclose(nu * np.abs(nu), theirs * np.abs(theirs), atol=1e-8)
    # Columns are modes; away from degeneracies they agree up to a phase.
    for row, (match, s) in enumerate(zip(order, sign, strict=True)):
        e, theirs = ours["eigenvector"][0][row], peer["eigenvector"][0][match]
        theirs = theirs if s > 0 else theirs.conj()
        shift_q = mesh.q[row] - s * peer["qpoint"][0][match]
        x = np.asarray(found.structure.fractional)
        theirs = theirs * np.repeat(np.exp(-2j * np.pi * x @ shift_q), 3)[:, None]
        gaps = np.diff(nu[row] ** 2, prepend=-9, append=9e9)
        alone = np.minimum(gaps[1:], gaps[:-1]) > 1e-3
        overlap = np.abs(np.sum(e.conj() * theirs, axis=0))
        np.testing.assert_allclose(overlap[alone], 1, atol=1e-7)


def test_irreducible_mesh(tmp_path):
    phonon = rocksalt()
    phonon.run_mesh((4, 4, 4), is_gamma_center=True)
    phonon.mesh.write_hdf5(tmp_path / "theirs.hdf5")
    constants = converted(phonon)
    mesh = gamma_mesh((4, 4, 4), space_group(constants.supercell.primitive))
    write_mesh_hdf5(
        tmp_path / "mesh.hdf5", mesh, modes(constants, jnp.asarray(mesh.q)), eigenvectors=False
    )
    ours, peer = load(tmp_path / "mesh.hdf5"), load(tmp_path / "theirs.hdf5")
    assert set(ours) == set(peer) == {"mesh", "qpoint", "weight", "frequency"}
    assert ours["weight"][0].sum() == 64
    # The irreducible points may be others of their stars: compare sorted.
    a, b = (
        np.array(sorted(np.append(w, np.round(nu**2 / r**2, 6)).tolist() for w, nu in zip(
            f["weight"][0], f["frequency"][0], strict=True)))
        for f, r in ((ours, 1.0), (peer, constants_ratio()))
    )  # fmt: skip
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_bad_input(tmp_path):
    constants = converted(triclinic())
    mesh, other = gamma_mesh((2, 2, 2)), gamma_mesh((2, 2, 3))
    found = modes(constants, jnp.asarray(mesh.q))
    with pytest.raises(InputError, match="not those of the mesh"):
        write_mesh_hdf5(tmp_path / "mesh.hdf5", other, found)
    with pytest.raises(InputError, match="group velocities has shape"):
        write_mesh_hdf5(tmp_path / "mesh.hdf5", mesh, found, group_velocities=np.zeros((1, 2, 3)))
    assert not list(tmp_path.iterdir())
