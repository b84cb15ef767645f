"""Values that phonopy's own tests list, of NaCl and SnO2, to the tolerance each file names.

"Symmetrised" means there: phonopy's `symmetrize_force_constants`, which is alternating projection
onto the sum rule and permutation symmetry; here `sum_rules.enforced`, the projection onto both.
Frequencies carry constants of another year, 1e-7 relative.
"""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from phonopy.physical_units import get_physical_units

from phojax.brillouin import q_mesh
from phojax.descriptors import dos
from phojax.descriptors.displacements import displacement_tensor, oscillators
from phojax.descriptors.tetrahedra import tetrahedron_dos, tetrahedron_neighbours
from phojax.descriptors.thermodynamics import J_per_K_mol, kJ_per_mol, thermodynamics
from phojax.dynmat import dynamical_matrices, interpolation
from phojax.force_constants.sum_rules import enforced
from phojax.nac import born_charges, neutral
from phojax.symmetry import space_group, symmetrized_tensors
from phojax.units import HBAR, KB, eigenvalue_from_THz

matrices = jax.jit(dynamical_matrices)
FLOOR = float(eigenvalue_from_THz(jnp.asarray(0.01)))


@pytest.fixture(scope="module")
def listed(shared):
    """Return the contents of an oracle by name."""
    folder = shared / "data" / "oracles" / "expected"
    return lambda name: json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def held(shared):
    """Return the interpolation of a crystal, with or without sum rules and dipoles, each once."""
    made = {}

    def make(name, *, nac=True, symmetrised=True):
        key = name, nac, symmetrised
        if key not in made:
            crystal = reference.shared_crystal(shared, name, nac=True, sum_rule=False)
            fc = reference.converted(crystal)
            fc = enforced(fc)[0] if symmetrised else fc
            born = None
            if nac:
                p = crystal.nac_params
                born = born_charges(p["born"], p["dielectric"], p["factor"])
                born, _ = neutral(born, space_group(fc.supercell.primitive))
            made[key] = interpolation(fc, born)
            if not symmetrised:
                made[key] = as_phonopys(made[key])
        return made[key]

    return make


def as_phonopys(held):
    """Return what takes the translations at Γ for modes like others.

    Without sum rules they are not at 0 and mix with the others; here they are kept apart unless
    the crystal counts as held.
    """
    return replace(held, free=False)


def on_mesh(held, n, *, reduced=True):
    mesh = q_mesh((n, n, n), space_group(held.crystal) if reduced else None)
    return reference.solved(held, jnp.asarray(mesh.q), jnp.asarray(mesh.weights)), mesh


def test_sum_rules_are_enforced_as_by_phonopy(shared):
    """To what phonopy's alternating projection leaves after its default number of rounds."""
    crystal = reference.shared_crystal(shared, "NaCl", sum_rule=False)
    ours, _ = enforced(reference.converted(crystal))
    crystal.symmetrize_force_constants()
    theirs = reference.converted(crystal).values
    np.testing.assert_allclose(ours.values, theirs, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("freqs_full_fcsym_ref", {}),
        ("freqs_compact_fcsym_ref", {}),
        ("freqs_nofcsym", {"symmetrised": False}),
        ("freqs_nonac_ref", {"nac": False}),
    ],
)
def test_frequencies_of_NaCl_on_a_mesh(listed, held, key, settings):
    file = listed("NaCl_mesh_333")
    found, _ = on_mesh(held("NaCl", **settings), 3)
    np.testing.assert_array_equal(np.rint(27 * found.weights), file["meta"]["weights"])
    nu = reference.solved(held("NaCl", **settings), jnp.asarray(file["meta"]["qpoints"]))
    expected = np.reshape(file["values"][key], (4, 6))
    np.testing.assert_allclose(nu.frequencies_THz, expected, atol=file["meta"]["atol"])
    np.testing.assert_allclose(found.frequencies_THz, expected, atol=file["meta"]["atol"])


def test_dynamical_matrices_of_NaCl(listed, held):
    values = listed("NaCl_dynmat")["values"]
    for name, nac in (("dynmat_ref", False), ("dynmat_gonze_lee_ref", True)):
        for place, q in (("000", 0.0), ("252525", 0.25), ("555", 0.5)):
            if f"{name}_{place}" not in values:
                continue
            pairs = np.reshape(values[f"{name}_{place}"], (6, 6, 2))
            D = matrices(held("NaCl", nac=nac), jnp.full((1, 3), q))[0]
            np.testing.assert_allclose(D, pairs[..., 0] + 1j * pairs[..., 1], atol=1e-6)


def test_longitudinal_and_transverse_modes_of_NaCl(listed, held):
    file = listed("NaCl_gamma_LOTO")
    gamma, along = jnp.zeros((1, 3)), jnp.asarray([[1.0, 0, 0]])
    for key, directions in (("without", None), ("nac_dir_100", along)):
        nu = reference.solved(held("NaCl"), gamma, directions=directions).frequencies_THz[0]
        np.testing.assert_allclose(nu, file["values"][key], atol=file["meta"]["atol"])


def test_displacements_of_NaCl(listed, held):
    file = listed("NaCl_thermal_displacements_555")
    found, _ = on_mesh(held("NaCl"), 5)
    kept = oscillators(found, FLOOR).kept
    group = space_group(found.structure)
    for T, U in zip(file["values"]["T"], file["values"]["U_A2"], strict=True):
        ours = symmetrized_tensors(np.asarray(displacement_tensor(found, T, kept)), group)
        along = np.diagonal(ours, axis1=1, axis2=2).reshape(-1)
        np.testing.assert_allclose(along, U, atol=file["meta"]["atol"])


def test_displacement_tensors_of_SnO2(listed, held):
    file = listed("SnO2_thermal_displacement_matrices_555")
    found, _ = on_mesh(held("SnO2"), 5)
    kept = oscillators(found, FLOOR).kept
    group = space_group(found.structure)
    for T, U in zip(file["values"]["T"], file["values"]["U_A2"], strict=True):
        ours = symmetrized_tensors(np.asarray(displacement_tensor(found, T, kept)), group)
        np.testing.assert_allclose(ours, U, atol=file["meta"]["atol"])


@pytest.mark.parametrize("symmetrised", [True, False])
def test_thermal_properties_of_NaCl(listed, held, symmetrised):
    """The file of densities of states holds those of force constants that are not symmetrised."""
    if symmetrised:
        file = listed("NaCl_thermal_properties_555")
        expected = [file["values"][key] for key in ("temps", "fes", "entropies", "cvs")]
    else:
        expected = np.reshape(listed("NaCl_dos_555_nofcsym")["values"]["tp_str"], (4, 10))
    found, _ = on_mesh(held("NaCl", symmetrised=symmetrised), 5)
    kept = oscillators(found, FLOOR).kept
    T, F, S, C = np.asarray(expected)
    # Its constants are of another year, by up to 2e-6: ħω is a times ours, and its kB b times.
    units = get_physical_units()
    a, b, c = (
        units.DefaultToTHz * units.THzToEv / HBAR,
        units.KB / KB,
        units.EvTokJmol / kJ_per_mol(jnp.asarray(1.0)),
    )
    ours = jax.vmap(lambda T: thermodynamics(found, T, kept))(jnp.asarray(T) * b / a)
    np.testing.assert_allclose(c * a * kJ_per_mol(ours.free_energy), F, atol=1e-5)
    np.testing.assert_allclose(c * b * J_per_K_mol(ours.entropy), S, atol=1e-5)
    np.testing.assert_allclose(c * b * J_per_K_mol(ours.heat_capacity), C, atol=1e-5)


@pytest.mark.parametrize("method", ["smearing", "tetrahedra"])
def test_densities_of_states_of_NaCl(listed, held, method):
    file = listed("NaCl_dos_555_nofcsym")
    long = "_thm" if method == "tetrahedra" else ""
    nu, total = np.reshape(file["values"][f"tdos{long}_str"], (-1, 2)).T
    _, na, cl = np.reshape(file["values"][f"pdos{long}_str"], (-1, 3)).T
    # Their total is a sum over irreducible points, their projection over all.
    for reduced, rows in ((True, [total]), (False, [na, cl])):
        found, mesh = on_mesh(held("NaCl", symmetrised=False), 5, reduced=reduced)
        groups = jnp.ones((1, 2)) if reduced else jnp.eye(2)
        if method == "tetrahedra":
            neighbours = tetrahedron_neighbours(mesh, found.structure)
            ours = tetrahedron_dos(found, neighbours, jnp.asarray(nu), groups)
        else:
            width = float(found.frequencies_THz.max() - found.frequencies_THz.min()) / 100
            ours = dos.gaussian_dos(found, jnp.asarray(nu), width, groups.astype(bool))
        print(method, reduced, np.abs(ours - np.stack(rows)).max())
        np.testing.assert_allclose(ours, np.stack(rows), atol=file["meta"]["atol"])


def test_moments_of_NaCl(listed, held):
    """Raw moments of order 0 to 2, of all modes and of those from 3 to 4 THz.

    Means over x, y, z of normalised moments: by symmetry the moments of the sum.
    """
    file = listed("NaCl_moments_13")
    found, _ = on_mesh(held("NaCl", symmetrised=False), 13)
    _, groups = dos.species_groups(found.structure)
    kept = oscillators(found, FLOOR).kept
    nu = found.frequencies_THz
    for rows, counted in (
        (file["values"][:3], kept),
        (file["values"][3:], (nu > 3) & (nu < 4)),
    ):
        ours = dos.moments(found, groups, counted)
        np.testing.assert_allclose(np.ones(3), rows[0])
        np.testing.assert_allclose(ours.centre, rows[1], atol=file["meta"]["atol"])
        second = ours.deviation**2 + ours.centre**2
        np.testing.assert_allclose(second, rows[2], atol=file["meta"]["atol"])
