"""Frequencies, displacements and densities of states against Euphonic.

Its Debye-Waller factor is exp(−Σ W_ab Q_a Q_b) for an amplitude, with ħ/4m in W where U has ħ/2m
(Squires, Thermal Neutron Scattering, section 3.2): U = 2W. It has no thermal sums. It takes the
whole dipole-dipole interaction out of the force constants, by Ewald's sum, where `nac` leaves what
is within some 1/Λ in. As far as that, of the form erfc, reaches beyond the supercell, frequencies
differ; they must meet as Λ grows.

Tolerances. Without dipoles both programs do the same sums: 1e-8 THz, for constants of CODATA of
different years (1e-9 relative) and for the root of what rounding leaves of small λ.
Dipoles are left to Euphonic's Python: the C extension of its version 2.1.1 is off by up to 0.3 THz
where the dielectric tensor has off-diagonal elements.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import phonopy
import phonopy_reference as reference
import pytest
from scipy import constants as si

from phojax.brillouin import Mesh, q_mesh
from phojax.descriptors.displacements import displacement_tensors, oscillators
from phojax.descriptors.dos import gaussian_dos
from phojax.dynmat import interpolation
from phojax.force_constants.container import ForceConstants
from phojax.force_constants.sum_rules import enforced
from phojax.io.phonopy_files import write_phonopy
from phojax.modes import modes
from phojax.nac import BornCharges, Dipoles, born_charges, dipoles, neutral, padded_dipoles
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup, space_group, symmetrized_tensors
from phojax.units import eigenvalue_from_THz

euphonic = pytest.importorskip(
    "euphonic", reason="Euphonic is not installed: pip install phojax[euphonic]"
)
pytestmark = pytest.mark.filterwarnings("ignore:More than one OpenMP:UserWarning")

PLAIN, POLAR = ("triclinic", "SnO2"), ("triclinic", "NaCl")
Q = np.array([
    [0.1, 0.2, -0.3], [0.5, 0.5, 0.5], [0.013, 0, 0], [0.7, -0.4, 1.2], [0.25, 0, 0.5],
    [0.37, 0.37, 0.01], [-0.11, 0.48, 0.29], [0, 0, 0.5], [1e-3, 2e-3, -1e-3],
])  # fmt: skip
ALONG = np.array([[0.1, 0, 0], [0.1, -0.2, 0.3]])
T = np.array([0.0, 30.0, 300.0, 1200.0])
# From 2 THz, where what rounding makes of the three zeros at Γ does not reach.
WIDTH, EDGES = 0.25, np.linspace(2, 20, 60)
THZ_PER_MEV = si.e / si.h * 1e-15
# Euphonic leaves out modes below 0.01 meV.
FLOOR = float(eigenvalue_from_THz(jnp.asarray(0.01 * THZ_PER_MEV)))


@dataclass
class Case:
    """A crystal with what both programs make of it."""

    constants: ForceConstants
    born: BornCharges
    group: SpaceGroup
    meshes: tuple[Mesh, Mesh]

    def ours(self, charged: Dipoles | None = None) -> "Ours":
        """Return what we make of it."""
        rows = [Q, 0 * ALONG, *(mesh.q for mesh in self.meshes)]
        q = np.concatenate([*rows, np.zeros((14 - len(rows[-1]), 3))])
        directions, weights = np.zeros_like(q), np.zeros((2, len(q)))
        directions[len(Q) : len(Q) + 2] = ALONG
        start = len(Q) + 2
        for row, mesh in zip(weights, self.meshes, strict=True):
            row[start : start + len(mesh.q)] = mesh.weights
            start += len(mesh.q)
        given = map(jnp.asarray, (q, directions, weights, T, (EDGES[1:] + EDGES[:-1]) / 2))
        return Ours(*map(np.asarray, everything(self.constants, charged, *given)))


class Ours(NamedTuple):
    """Our frequencies in THz at Q, then at Γ from ALONG; U by mesh and temperature; DOS by atom."""

    frequencies: np.ndarray
    tensors: np.ndarray
    dos: np.ndarray


@jax.jit
def everything(constants, charged, q, directions, weights, T, grid):
    found = modes(interpolation(constants, charged), q, directions=directions)
    kept = oscillators(found, FLOOR).kept
    on = [replace(found, weights=row) for row in weights]
    U = jnp.stack([displacement_tensors(mesh, T, kept) for mesh in on])
    each = jnp.eye(len(found.structure), dtype=bool)
    return found.frequencies_THz[: len(Q) + 2], U, gaussian_dos(on[0], grid, WIDTH, each)


@pytest.fixture(scope="module")
def case(request) -> Case:
    """Return force constants that obey the sum rules, with neutral charges, and two meshes.

    One mesh is reduced by time reversal alone, one by all symmetry.
    """
    name = request.param
    if name == "triclinic":
        constants = enforced(reference.converted(reference.triclinic()))[0]
        born = made_up_charges(constants.supercell.primitive)
        group = space_group(constants.supercell.primitive)
    else:
        shared = request.getfixturevalue("shared")
        read = reference.shared_crystal(shared, name, nac=True, sum_rule=False)
        constants, p = enforced(reference.converted(read))[0], read.nac_params
        group = space_group(constants.supercell.primitive)
        born = neutral(born_charges(p["born"], p["dielectric"], p["factor"]), group)[0]
    return Case(constants, born, group, (q_mesh((3, 3, 3)), q_mesh((3, 3, 3), group)))


@pytest.fixture(scope="module")
def plain(case):
    """Return our results without dipoles, and Euphonic's force constants."""
    return case.ours(), theirs(case.constants)


@pytest.fixture(scope="module")
def polar(case):
    """Return our results with dipoles by phonopy's damping and by 2.2 times as much, and theirs."""
    crystal = case.constants.supercell.primitive
    far = dipoles(case.born, crystal, 3000)
    near = padded_dipoles(dipoles(case.born, crystal), len(crystal), len(far.reciprocal))
    return case.ours(near), case.ours(far), theirs(case.constants, case.born)


def made_up_charges(crystal: Structure) -> BornCharges:
    """Return charges as anisotropic as the symmetry allows, which add up to zero."""
    rng = np.random.default_rng(0)
    sign = np.where(np.isin(crystal.symbols, ["Na", "Sn"]), 1.0, -1.0)
    Z = 0.3 * rng.normal(size=(len(crystal), 3, 3)) + 1.2 * np.eye(3) * sign[:, None, None]
    eps = np.array([[3.1, 0.2, -0.1], [0.2, 2.2, 0.3], [-0.1, 0.3, 4.0]])
    return neutral(born_charges(Z, eps), space_group(crystal))[0]


def theirs(constants: ForceConstants, born: BornCharges | None = None):
    """Return Euphonic's force constants, made of the numbers of ours."""
    cells, ureg = constants.supercell, euphonic.ureg
    primitive, n, copies = cells.primitive, len(cells.primitive), len(cells.images)
    values = np.asarray(constants.values).reshape(n, n, copies, 3, 3)
    values = values.transpose(2, 0, 3, 1, 4).reshape(copies, 3 * n, 3 * n)
    atoms = euphonic.Crystal(
        np.asarray(primitive.cell) * ureg("angstrom"),
        np.asarray(primitive.fractional),
        np.asarray(primitive.symbols),
        np.asarray(primitive.masses) * ureg("amu"),
    )
    given = (atoms, values * ureg("eV/angstrom**2"), np.asarray(cells.matrix), cells.images)
    if born is None:
        return euphonic.ForceConstants(*given)
    # In units of 4πε₀, which the factor holds; the method takes atomic units for granted.
    eps = np.asarray(born.dielectric) / float(born.factor) * ureg("e**2/(angstrom*eV)")
    eps = eps.to("e**2/(bohr*hartree)")
    # The field is the second axis there, the first in phonopy and here.
    Z = np.asarray(born.charges).swapaxes(1, 2) * ureg("e")
    return euphonic.ForceConstants.from_total_fc_with_dipole(*given, born=Z, dielectric=eps)


def solved(held, q, **options):
    """Return Euphonic's modes, the sum rule taken as it is."""
    options = {"splitting": False, "use_c": held.born is None, "n_threads": 1} | options
    return held.calculate_qpoint_phonon_modes(np.asarray(q), **options)


def frequencies_THz(found) -> np.ndarray:
    """Return Euphonic's frequencies in THz."""
    return found.frequencies.to("meV").magnitude * THZ_PER_MEV


def largest(difference) -> float:
    """Return the largest component, printed for reports."""
    found = float(np.abs(difference).max())
    print(f"{found:.1e}")
    return found


@pytest.mark.parametrize("case", PLAIN, indirect=True, scope="module")
def test_frequencies(plain):
    ours, held = plain
    assert largest(ours.frequencies[: len(Q)] - frequencies_THz(solved(held, Q))) < 1e-8


@pytest.mark.parametrize("case", POLAR, indirect=True, scope="module")
def test_frequencies_with_dipoles(case, polar):
    """By phonopy's damping, 300 points, erfc(Λr/√ε) is 1e-5 at half of a supercell of 9 Å."""
    near, far, held = polar
    expected = frequencies_THz(solved(held, Q))
    assert largest(near.frequencies[: len(Q)] - expected) < 2e-3
    assert largest(far.frequencies[: len(Q)] - expected) < 1e-8
    assert np.abs(frequencies_THz(solved(theirs(case.constants), Q)) - expected).max() > 0.05


@pytest.mark.parametrize("case", POLAR, indirect=True, scope="module")
def test_longitudinal_and_transverse_modes(polar):
    """Γ, in Euphonic approached along the next point of the list."""
    _, far, held = polar
    for ours, direction in zip(far.frequencies[len(Q) :], ALONG, strict=True):
        expected = frequencies_THz(solved(held, [0 * direction, direction], splitting=True))[0]
        # Without what rounding makes of the three zeros.
        a, b = (np.where(np.abs(x) < 1e-4, 0, x) for x in (ours, expected))
        assert largest(np.sort(a) - np.sort(b)) < 1e-8


@pytest.mark.parametrize(
    ("case", "charged"),
    [*((name, False) for name in PLAIN), *((name, True) for name in POLAR)],
    indirect=["case"],
    scope="module",
)
def test_displacements_are_twice_the_debye_waller_exponent(case, charged, request):
    """All elements of the tensors, on a full mesh and on one reduced by symmetry."""
    *_, ours, held = request.getfixturevalue("polar" if charged else "plain")
    for mesh, rows, symmetrise in zip(case.meshes, ours.tensors, (False, True), strict=True):
        found = solved(held, mesh.q, weights=mesh.weights)
        for t, U in zip(T, rows, strict=True):
            U = symmetrized_tensors(U, case.group) if symmetrise else U
            exponent = found.calculate_debye_waller(t * euphonic.ureg("K"), symmetrise=symmetrise)
            W = exponent.debye_waller.to("angstrom**2").magnitude
            assert largest((U - 2 * W) / np.abs(U).max()) < 1e-8
    if len(case.constants.supercell.primitive) > 2:
        hot = ours.tensors[0, -1]
        assert np.abs(hot * (1 - np.eye(3))).max() > 0.01 * np.abs(hot).max()


@pytest.mark.parametrize("case", PLAIN, indirect=True, scope="module")
def test_projected_densities_of_states(case, plain):
    """Smeared by a Gaussian for every mode; Euphonic counts modes per atom of the cell."""
    ours, held = plain
    found = solved(held, case.meshes[0].q, weights=case.meshes[0].weights)
    meV = euphonic.ureg("meV")
    widths = np.full(found.frequencies.shape, WIDTH / THZ_PER_MEV) * meV
    curves = found.calculate_pdos(EDGES / THZ_PER_MEV * meV, mode_widths=widths)
    expected = curves.y_data.to("1/meV").magnitude / THZ_PER_MEV * len(ours.dos)
    assert largest((ours.dos - expected) / expected.max()) < 1e-8


@pytest.mark.parametrize("by_phonopy", [
    True,
    False,
])  # fmt: skip
def test_files_are_read_by_euphonic(tmp_path, by_phonopy):
    """What we write; and that again, read and written by phonopy."""
    constants = enforced(reference.converted(reference.triclinic()))[0]
    born = made_up_charges(constants.supercell.primitive)
    write_phonopy(tmp_path, constants, born=born)
    if by_phonopy:
        read = phonopy.load(
            tmp_path / "phonopy.yaml",
            force_constants_filename=tmp_path / "force_constants.hdf5",
            symmetrize_fc=False,
            log_level=0,
        )
        read.save(tmp_path / "phonopy.yaml", settings={"force_constants": True})
    found = euphonic.ForceConstants.from_phonopy(path=tmp_path, fc_name="force_constants.hdf5")
    # It takes phonopy's charges without turning them.
    expected = theirs(constants, replace(born, charges=born.charges.swapaxes(1, 2)))
    apart = [frequencies_THz(solved(held, Q)) for held in (found, expected)]
    # phonopy writes masses with six digits, by 1e-8 of a frequency.
    assert largest(apart[0] - apart[1]) < 1e-6
