"""Sound, Debye frequencies and the missing cell of Γ: exact crystals, extrapolation, phonopy."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy.structure.atoms import PhonopyAtoms
from test_nac import charged, held_of

from phojax.brillouin import q_mesh
from phojax.checks import InputError
from phojax.descriptors import debye, dos
from phojax.descriptors.displacements import displacement_tensor, oscillators
from phojax.descriptors.tetrahedra import tetrahedron_dos, tetrahedron_neighbours
from phojax.dynmat import Interpolation, interpolation
from phojax.force_constants.container import force_constants
from phojax.force_constants.sum_rules import enforced
from phojax.nac import born_charges, neutral
from phojax.structure import structure, supercell
from phojax.symmetry import space_group, symmetrized_tensors
from phojax.units import HBAR, KB, THZ, TIME_FS, eigenvalue_from_THz
from phojax.velocities import sound_velocities

FLOOR = float(eigenvalue_from_THz(jnp.asarray(0.001)))
A, K, MASS = 3.0, 1.7, 25.0
tensors = jax.jit(displacement_tensor)


def simple_cubic(along=K, across=K):
    """Return one atom per cell with springs to its six neighbours."""
    crystal = structure(np.eye(3) * A, [[0, 0, 0]], [11], [MASS])
    cells = supercell(crystal, (3, 3, 3))
    values = np.zeros((1, 27, 3, 3))
    for column, L in enumerate(np.asarray(cells.images)):
        step = np.where(L == 2, -1, L)
        if np.abs(step).sum() == 1:
            spring = np.diag(np.where(step != 0, along, across))
            values[0, column] -= spring
            values[0, 0] += spring
    return force_constants(jnp.asarray(values), cells)


def zincblende():
    """Return a piezoelectric crystal, once it has charges."""
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cell = PhonopyAtoms(
        symbols=["Na"] * 4 + ["Cl"] * 4,
        cell=np.eye(3) * 5.69,
        scaled_positions=np.concatenate([fcc, fcc + 0.25]),
    )
    return reference.springs(cell, np.diag([2, 2, 2]), "F", cutoff=4.1, seed=3)


@dataclass
class Plain:
    """Modes on a mesh, and the displacement without correction."""

    held: Interpolation
    mesh: tuple
    shift: tuple = (0.0, 0.0, 0.0)
    reduced: bool = False

    def __post_init__(self):
        self.group = space_group(self.held.crystal) if self.reduced else None
        points = q_mesh(self.mesh, self.group, self.shift)
        found = reference.solved(self.held, jnp.asarray(points.q), jnp.asarray(points.weights))
        self.sound = debye.acoustics(self.held)
        self.found, self.kept = found, oscillators(found, FLOOR).kept

    def tensor(self, temperature):
        U = np.asarray(tensors(self.found, temperature, self.kept))
        return U if self.group is None else symmetrized_tensors(U, self.group)

    def corrected(self, temperature, width=2.0):
        extra = debye.gamma_cell_correction(self.sound, self.mesh, temperature, self.shift, width)
        return self.tensor(temperature) + extra


def test_long_wave_limit_of_a_simple_cubic_crystal():
    """λ = (2/m) Σ_a k_a (1 − cos q_a): by hand along the axes and the body diagonal."""
    long, short = 2.0, 0.5
    held = interpolation(simple_cubic(long, short))
    n = np.array([[0, 0, 1.0], np.ones(3) / np.sqrt(3)])
    slopes = np.sqrt(np.linalg.eigvalsh(debye.acoustic_matrices(debye.acoustics(held), n)))
    along = A * np.sqrt(np.array([short, short, long]) / MASS)
    np.testing.assert_allclose(slopes[0], along, rtol=1e-7)
    np.testing.assert_allclose(slopes[1], A * np.sqrt((long + 2 * short) / 3 / MASS), rtol=1e-7)
    # By second order perturbation theory instead of a fit.
    speeds = sound_velocities(held, jnp.asarray(n)).values
    np.testing.assert_allclose(speeds, slopes * 1e3 / TIME_FS, rtol=1e-7)


def test_debye_frequency_of_an_isotropic_crystal():
    sound = debye.acoustics(interpolation(simple_cubic()))
    speed = THZ * A * np.sqrt(K / MASS)  # ν/|q|
    exact = speed * (6 * np.pi**2 / A**3) ** (1 / 3)
    np.testing.assert_allclose(debye.debye_frequency(sound), exact, rtol=1e-7)
    theta = HBAR * A * np.sqrt(K / MASS) * (6 * np.pi**2 / A**3) ** (1 / 3) / KB
    np.testing.assert_allclose(debye.debye_temperature(exact), theta, rtol=1e-6)


@pytest.mark.parametrize("name", ["triclinic", "rocksalt", "zincblende"])
def test_acoustic_modes_near_gamma(name):
    """Also where dipoles make C depend on the direction: with charges, zincblende stiffens."""
    if name == "triclinic":
        held = interpolation(reference.converted(reference.triclinic()))
    else:
        held = held_of(charged(reference.rocksalt() if name == "rocksalt" else zincblende()))
    sound = debye.acoustics(held)
    assert sound.stable
    n = np.random.default_rng(0).normal(size=(12, 3))
    n = n / np.linalg.norm(n, axis=1)[:, None]
    cell = np.asarray(held.crystal.cell)
    lengths = np.repeat([2e-3, 4e-3], 12)[:, None]
    q = jnp.asarray(lengths * np.tile(n, (2, 1)) @ cell.T / (2 * np.pi))
    per_square = np.asarray(reference.solved(held, q).eigenvalues[:, :3]) / lengths**2
    limit = (4 * per_square[:12] - per_square[12:]) / 3
    C = debye.acoustic_matrices(sound, n)
    np.testing.assert_allclose(np.linalg.eigvalsh(C), limit, rtol=2e-6)
    pairs = np.stack([n[:, a] * n[:, b] for a in range(3) for b in range(a, 3)], 1)
    left = np.linalg.lstsq(pairs, C.reshape(12, 9), rcond=None)[1]
    is_quadratic = np.sqrt(left.sum()) < 1e-8 * C.max()
    assert is_quadratic == (name != "zincblende")


@pytest.mark.parametrize("mesh", [4, 6, 10])
def test_displacement_of_a_classical_simple_cubic_crystal(mesh):
    """U = (k_BT/k) W/2 with Watson's integral W = 0.505462, and the first quantum term."""
    T = 1e4
    plain = Plain(interpolation(simple_cubic()), (mesh,) * 3)
    exact = KB * T / K * 0.5054620197 / 2 + HBAR**2 / (12 * MASS * KB * T)
    np.testing.assert_allclose(plain.corrected(T)[0], exact * np.eye(3), atol=0.4 * exact / mesh**3)
    off = plain.tensor(T)[0, 0, 0] / exact - 1
    assert off < -0.4 / mesh  # what the correction had to make up for


@pytest.mark.parametrize("name", ["triclinic", pytest.param("zincblende", marks=pytest.mark.slow)])
def test_meshes_agree(name):
    """Coarse and fine, of unequal divisions, through Γ or not, whatever width and temperature."""
    if name == "triclinic":
        held = interpolation(reference.converted(reference.triclinic()))
    else:
        held = held_of(charged(zincblende()))
    coarse, fine = Plain(held, (4, 5, 3)), Plain(held, (8, 10, 6))
    shifted = Plain(held, (4, 5, 3), (0.5, 0.5, 0.5))
    for T in (0.0, 300.0):
        best = fine.corrected(T)
        size = np.abs(best).max()
        bound = 0.5 / 60 * size
        first = coarse.corrected(T)
        np.testing.assert_allclose(first, best, atol=bound)
        np.testing.assert_allclose(shifted.corrected(T), best, atol=bound)
        np.testing.assert_allclose(coarse.corrected(T, width=3.0), first, atol=1e-3 * size)
        improved = np.abs(first - best).max() / np.abs(coarse.tensor(T) - best).max()
        assert improved < 0.1


@pytest.mark.parametrize("nac", [pytest.param(False, marks=pytest.mark.slow), True])
def test_meshes_of_NaCl_give_the_extrapolated_displacement(shared, nac):
    """Na at 300 K on 8³, 16³, 24³: within 0.5 % of the 1/n extrapolation of the plain values."""
    crystal = reference.shared_crystal(shared, "NaCl", nac=True)
    fc, _ = enforced(reference.converted(crystal))
    p = crystal.nac_params
    group = space_group(fc.supercell.primitive)
    born, _ = neutral(born_charges(p["born"], p["dielectric"], p["factor"]), group)
    held = interpolation(fc, born if nac else None)
    meshes = [Plain(held, (n,) * 3, reduced=True) for n in (8, 16, 24)]
    plain = [mesh.tensor(300.0)[0, 0, 0] for mesh in meshes]
    limit = (24 * plain[2] - 16 * plain[1]) / 8
    np.testing.assert_allclose(limit, 0.0252 if nac else 0.0256, atol=5e-5)
    for mesh in meshes:
        # Five times better than asked for.
        np.testing.assert_allclose(mesh.corrected(300.0)[0], limit * np.eye(3), atol=1e-3 * limit)


def test_fitted_frequency_is_phonopys():
    crystal = reference.rocksalt()
    crystal.run_mesh([4] * 3, is_gamma_center=True, is_mesh_symmetry=False)
    crystal.run_total_dos(freq_min=0, freq_max=9, freq_pitch=0.1)
    theirs = crystal.total_dos
    theirs.run_debye_frequency()
    nu, curve = jnp.asarray(theirs.frequency_points), jnp.asarray(theirs.dos)
    ours = debye.fitted_debye_frequency(nu, curve, 2)
    np.testing.assert_allclose(ours, theirs.debye_frequency, rtol=1e-6)
    theirs.run_debye_frequency(freq_max_fit=1.5)
    count = int(1.5 / 9 * len(nu))
    ours = debye.fitted_debye_frequency(nu, curve, 2, jnp.arange(len(nu)) < count)
    np.testing.assert_allclose(ours, theirs.debye_frequency, rtol=1e-6)


def test_fitted_frequency_tends_to_the_exact_one():
    held = interpolation(simple_cubic())
    points = q_mesh((16, 16, 16), space_group(held.crystal))
    found = reference.solved(held, jnp.asarray(points.q), jnp.asarray(points.weights))
    nu = jnp.linspace(0, 0.15 * float(found.frequencies_THz.max()), 30)
    _, groups = dos.species_groups(found.structure)
    curve = tetrahedron_dos(found, tetrahedron_neighbours(points, found.structure), nu, groups)[0]
    fitted = debye.fitted_debye_frequency(nu, curve, 1, nu > 0)
    exact = debye.debye_frequency(debye.acoustics(held))
    np.testing.assert_allclose(fitted, exact, rtol=0.03)


def test_what_has_no_long_wave_limit():
    fc = simple_cubic(1.0, -0.1)
    sound = debye.acoustics(interpolation(fc))
    assert not sound.stable
    assert np.isnan(debye.debye_frequency(sound))
    assert np.isnan(debye.gamma_cell_correction(sound, (4, 4, 4), 300.0)).all()
    with pytest.raises(InputError, match="sum rule"):
        debye.acoustics(replace(fc, values=fc.values.at[0, 0].add(0.01 * jnp.eye(3))))
    with pytest.raises(InputError, match="held"):
        debye.acoustics(replace(interpolation(fc), free=False))
    with pytest.raises(InputError, match="three integers"):
        debye.gamma_cell_correction(sound, (4, 0, 4), 300.0)
