"""Grüneisen parameters from third order against those of strained crystals and phono3py's.

    ∂Φ_iα,jβ/∂ε = Σ_kγ Φ_iα,jβ,kγ r_kγ under r -> r(1 + ε),    γ = -⟨e|∂D/∂ε|e⟩ / 6λ

where no atom moves by strain but with the cell, as in rock salt.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_hessian import POTENTIAL, make

from phojax.convert import phonopy_atoms, structure_from_phonopy
from phojax.force_constants.hessian import hessian
from phojax.force_constants.third_order import third_order_by_autodiff
from phojax.forces import energy_and_forces
from phojax.gruneisen import gruneisen_parameters
from phojax.io.phonopy_files import write_phonopy
from phojax.io.phonopy_map import columns_in_phonopy_order
from phojax.io.third_order_files import read_fc3_hdf5, triplet_images, write_fc3_hdf5
from phojax.modes import modes
from phojax.structure import strained, supercell

Q = np.array([[0.1, 0.2, 0.35], [0.3, -0.1, 0.05], [0.5, 0.0, 0.5], [1 / 3, 1 / 3, 0.0]])


@pytest.fixture(scope="module")
def salt():
    """54 atoms: no pair within the potential's reach has a second image."""
    cell, group = make(225)
    cell = supercell(cell.primitive, (3, 3, 3))
    third = third_order_by_autodiff(POTENTIAL, cell, group)
    return cell, group, hessian(POTENTIAL, cell, group).force_constants, third.third_order


def from_third_order(found, third):
    """γ of modes without degeneracy, from the images of `triplet_images`."""
    cells = third.supercell
    values = np.asarray(third.values)
    wanted = np.abs(values).max(axis=(3, 4, 5)) > 1e-10
    atoms, R, share = triplet_images(cells, wanted)
    i, j, k = atoms.T
    copies, x = len(cells.images), np.asarray(cells.primitive.positions)
    a, m = np.asarray(cells.primitive.cell), np.asarray(cells.primitive.masses)
    to = x[k // copies] + R[:, 1] @ a - x[i]
    change = np.einsum("e,eabc,ec->eab", share, values[i, j, k], to)
    change /= np.sqrt(m[i] * m[j // copies])[:, None, None]
    reach = x[j // copies] + R[:, 0] @ a - x[i]
    out = []
    for q, e in zip(np.asarray(found.q), np.asarray(found.eigenvectors), strict=True):
        phase = np.exp(1j * reach @ (2 * np.pi * np.linalg.inv(a) @ q))
        D = np.zeros((len(m), len(m), 3, 3), complex)
        np.add.at(D, (i, j // copies), phase[:, None, None] * change)
        out.append(np.einsum("nia,ijab,njb->n", e.conj(), D, e).real)
    return -np.array(out) / 6 / np.asarray(found.eigenvalues)


def block_means(values, found):
    """Values averaged over modes of one frequency: what degeneracy leaves defined."""
    same = np.abs(found[:, :, None] - found[:, None]) < 1e-4
    return (same * values[:, None]).sum(axis=-1) / same.sum(axis=-1)


def test_strain_and_third_order_are_the_same(salt):
    cell, group, second, third = salt
    found = modes(second, jnp.asarray(Q))
    nu = np.asarray(found.frequencies_THz)

    def by_strain(step):
        less, more = (
            hessian(
                POTENTIAL,
                supercell(strained(cell.primitive, s * step * jnp.eye(3)), cell.matrix),
                group,
            ).force_constants
            for s in (-1, 1)
        )
        return np.asarray(gruneisen_parameters(found, less, more))

    wide, narrow = by_strain(1e-3), by_strain(5e-4)
    wanted = (4 * narrow - wide) / 3
    ours = from_third_order(found, third)
    assert np.abs(ours).max() > 1
    np.testing.assert_allclose(block_means(ours, nu), block_means(wanted, nu), atol=1e-7)


def test_phono3py_takes_the_file(salt, tmp_path):
    """Its Grüneisen parameters are ours; its phonon lifetimes are finite."""
    phono3py = pytest.importorskip("phono3py")
    from phono3py.file_IO import read_fc3_from_hdf5
    from phono3py.phonon3.gruneisen import Gruneisen

    cell, _, second, third = salt
    write_phonopy(tmp_path, second)
    write_fc3_hdf5(tmp_path / "fc3.hdf5", third)
    write_fc3_hdf5(tmp_path / "full.hdf5", third, layout="full")
    files = {"fc3_filename": tmp_path / "fc3.hdf5"}
    files |= {"fc2_filename": tmp_path / "force_constants.hdf5"}
    ph = phono3py.load(tmp_path / "phonopy.yaml", log_level=0, **files)
    # Their order of atoms, from the object of theirs.
    rows, columns = columns_in_phonopy_order(ph, cell)
    ours = np.asarray(third.values)
    same = ours[rows[:, None, None], columns[:, :, None], columns[:, None]]
    np.testing.assert_array_equal(ph.fc3, same)
    assert read_fc3_from_hdf5(tmp_path / "full.hdf5").shape == (54, 54, 54, 3, 3, 3)
    np.testing.assert_array_equal(
        read_fc3_hdf5(tmp_path / "fc3.hdf5", cell, phonon=ph).values, third.values
    )

    peer = Gruneisen(ph.fc2, ph.fc3, ph.supercell, ph.primitive)
    peer.set_qpoints(Q)
    peer.run()
    found = modes(second, jnp.asarray(Q))
    nu = np.asarray(found.frequencies_THz)
    theirs = np.trace(np.asarray(peer.gruneisen_parameters), axis1=-2, axis2=-1) / 3
    mine = from_third_order(found, third)
    np.testing.assert_allclose(block_means(mine, nu), block_means(theirs, nu), atol=1e-6)

    ph.mesh_numbers = [5, 5, 5]
    ph.init_phph_interaction()
    at = [float(nu[0, 0]), float(nu[0, 3])]
    made = ph.run_imag_self_energy([1, 7], [300], frequency_points=at)
    widths = np.array([np.asarray(one) for one in made.gammas])
    assert np.all(np.isfinite(widths))
    assert widths.max() > 0


def test_differences_made_by_phono3py():
    """Its own symmetry-reduced displacements with forces of the same potential, 16 atoms."""
    phono3py = pytest.importorskip("phono3py")
    cell, group = make(225)
    third = third_order_by_autodiff(POTENTIAL, cell, group).third_order
    capacity = POTENTIAL.capacity(cell.structure)
    ours = np.asarray(third.values)

    @jax.jit
    def forces(x, crystal):
        moved = replace(crystal, positions=x)
        return energy_and_forces(POTENTIAL, moved, POTENTIAL.graph(moved, capacity))[1]

    apart = []
    for distance in (0.02, 0.01):
        matrix = np.asarray(cell.matrix)
        matrix = matrix * round(np.sign(np.linalg.det(matrix)))
        ph = phono3py.Phono3py(
            phonopy_atoms(cell.primitive), matrix.T, primitive_matrix=np.eye(3), log_level=0
        )
        ph.generate_displacements(distance=distance, is_plusminus=True)
        crystal = structure_from_phonopy(ph.supercell)
        ph.forces = np.array(
            [forces(jnp.asarray(s.positions), crystal) for s in ph.supercells_with_displacements]
        )
        ph.produce_fc3(is_compact_fc=True)
        rows, columns = columns_in_phonopy_order(ph, cell)
        same = ours[rows[:, None, None], columns[:, :, None], columns[:, None]]
        apart.append(ph.fc3 - same)
    wide, narrow = (np.abs(off).max() for off in apart)
    assert np.log2(wide / narrow) == pytest.approx(2, abs=0.1)
    assert np.abs(4 * apart[1] - apart[0]).max() / 3 < 1e-4
    assert np.abs(ours).max() > 1
