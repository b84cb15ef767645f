"""Expansion of a hexagonal crystal against cells relaxed again; sodium chloride's volumes."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import phonopy
import pytest

from phojax.brillouin import gamma_mesh, q_mesh
from phojax.dynmat import dynamical_matrices, interpolation
from phojax.elastic.tensor import elastic_tensor
from phojax.finite_temperature.quasiharmonic import first_order
from phojax.finite_temperature.strain_expansion import StaticEnergy
from phojax.finite_temperature.strained_matrices import (
    gruneisen_of_volume,
    through_volumes,
    vibrational_part,
)
from phojax.finite_temperature.thermal_expansion import thermal_expansion
from phojax.force_constants.sum_rules import enforced
from phojax.gradients.route import by_waves, evaluated
from phojax.gruneisen import mean_gruneisen
from phojax.io.phonopy_files import read_phonopy
from phojax.nac import neutral
from phojax.potentials.pair import morse
from phojax.relax import potential_surface, relax_on
from phojax.structure import strained, structure
from phojax.symmetry import space_group
from phojax.units import EV_PER_A3_IN_GPA

# --- wurtzite ----------------------------------------------------------------------------------

T = 300.0


def bonds():
    like = {("Na", "Na"): (0.1, 1.2, 4.3), ("Cl", "Cl"): (0.14, 1.2, 4.3)}
    return morse({("Na", "Cl"): (0.5, 1.5, 2.4), **like}, cutoff=6.0)


def wurtzite():
    """Return P6₃mc: two lengths of the cell and one of the atoms are free."""
    a, c, u = 4.1, 6.7, 0.375
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    x = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, u], [2 / 3, 1 / 3, 0.5 + u]]
    return structure(cell, np.array(x) @ cell, [11, 11, 17, 17])


@pytest.mark.slow
def test_a_hexagonal_crystal_expands_as_cells_relaxed_again():
    """Both axes, against a free energy that is computed anew in every strained cell."""
    model, group = bonds(), space_group(wurtzite())
    mesh = gamma_mesh((2, 2, 1), group)
    dT, h = 30.0, 2e-3
    found = thermal_expansion(model, wurtzite(), mesh, group, [T - dT, T, T + dT])
    route = by_waves(model, found.at_rest, mesh, group)
    surface = potential_surface(model, found.at_rest)

    def free_energies(strain):
        """Return E + F at both temperatures, the ions relaxed by other means."""
        start = strained(found.at_rest, jnp.asarray(np.diag([strain[0], strain[0], strain[1]])))
        again = relax_on(surface, start, cell=False, symmetry=group, force_tolerance=1e-9)
        assert again.converged
        rows = evaluated(route, model, again.structure)
        D = route.assembled(rows, again.structure)
        held = replace(found.matrices, value=D, crystal=again.structure)
        rest = jnp.zeros(2)
        return np.array([
            again.energy_eV + float(held.thermodynamics(rest, t).free_energy)
            for t in (T - dT, T + dT)
        ])  # fmt: skip

    # Slopes vanish where the cell is said to be at each temperature: what is left of them, by the
    # curvature found in the same differences, is how far off the cell is.
    states = found.states[0], found.states[2]
    for number, state in enumerate(states):
        at = np.array([state.strain[0, 0], state.strain[2, 2]])
        F = {
            (i, j): free_energies(at + h * np.array([i, j]))[number]
            for i in (-1, 0, 1) for j in (-1, 0, 1)
        }  # fmt: skip
        slope = np.array([F[1, 0] - F[-1, 0], F[0, 1] - F[0, -1]]) / (2 * h)
        mixed = (F[1, 1] - F[1, -1] - F[-1, 1] + F[-1, -1]) / (4 * h**2)
        bend = np.array([
            [(F[1, 0] - 2 * F[0, 0] + F[-1, 0]) / h**2, mixed],
            [mixed, (F[0, 1] - 2 * F[0, 0] + F[0, -1]) / h**2],
        ])  # fmt: skip
        off = np.linalg.solve(bend, slope)
        # Differences themselves are off by h² times the third derivative.
        assert np.abs(off).max() < 5e-5
        assert np.abs(off).max() < 0.02 * np.abs(at).max()
    cool, warm = (np.log1p(np.array([s.strain[0, 0], s.strain[2, 2]])) for s in states)
    alpha = np.diag(found.states[1].expansion)
    assert alpha[0] == pytest.approx(alpha[1], rel=1e-9)
    np.testing.assert_allclose(alpha[[0, 2]], (warm - cool) / (2 * dT), rtol=0.02, atol=1e-8)
    assert abs(alpha[2] - alpha[0]) > 1e-6
    # Under isotropic stress the shape changes as well: C_V and the heat capacity at fixed cell
    # differ.
    state = found.states[1]
    alpha_bulk = T * state.volume * state.volume_expansion**2 * state.bulk_modulus_GPa
    assert state.heat_capacity_pressure - state.heat_capacity_volume == pytest.approx(
        alpha_bulk / EV_PER_A3_IN_GPA, rel=1e-9
    )
    assert state.heat_capacity_volume >= state.heat_capacity_strain
    # The strain to first order, from the same crystal's elastic constants.
    static = StaticEnergy(model, found.at_rest, group)
    [linear] = first_order(static, found.matrices, [T])
    C = elastic_tensor(model, found.at_rest, group).tensor_GPa / EV_PER_A3_IN_GPA
    part = vibrational_part(found.matrices, jnp.zeros(2), T)
    push = np.einsum("a,aij->ij", part.entropy_by_strain, found.matrices.strains)
    response = np.linalg.solve(C, [*np.diag(push), 0, 0, 0])
    np.testing.assert_allclose(
        np.diag(linear.expansion), response[:3] / float(found.at_rest.volume), rtol=1e-6
    )


# --- three volumes of sodium chloride ----------------------------------------------------------


@pytest.fixture(scope="module")
def volumes(shared):
    """phonopy's three volumes: our interpolations of them, and its own objects."""
    held, peers = [], []
    for name in ("0.995", "1.00", "1.005"):
        path = shared / "data" / "oracles" / "NaCl" / f"phonopy_params_NaCl-{name}.yaml.xz"
        read = read_phonopy(path)
        group = space_group(read.force_constants.supercell.primitive)
        held.append(interpolation(enforced(read.force_constants)[0], neutral(read.born, group)[0]))
        peers.append(phonopy.load(path, log_level=0))
    return held, peers


def test_gruneisen_parameters_of_three_volumes_are_phonopys(volumes, shared):
    """Of the parabola's slope, against the published secants: 1 % of the edge apart."""
    held, _ = volumes
    listed = json.loads(
        (shared / "data" / "oracles" / "expected" / "NaCl_gruneisen.json").read_text()
    )["values"]
    table = np.asarray(listed["g_mesh"])
    weights = np.asarray(listed["g_mesh_weights"], float)
    found = through_volumes(*held, table[:, :3], weights / weights.sum())
    modes, gamma = gruneisen_of_volume(found)
    np.testing.assert_allclose(modes.frequencies_THz, table[:, 3:9], atol=2e-5)
    np.testing.assert_allclose(gamma, table[:, 9:], rtol=2e-3, atol=2e-3)
    # Mean parameters are slopes of the entropy.
    for T in (100.0, 300.0):
        part = vibrational_part(found, jnp.zeros(1), T)
        mean = float(part.entropy_by_strain[0] / part.heat_capacity) / np.sqrt(3)
        assert mean == pytest.approx(float(mean_gruneisen(modes, gamma, T)), rel=1e-9)


def test_free_energies_at_three_volumes_are_phonopys(volumes):
    """The parabola goes through all three, and its slope is that of phonopy's free energies."""
    held, peers = volumes
    mesh = q_mesh((4, 4, 4), None, (0.5,) * 3)
    found = through_volumes(*held, mesh.q, mesh.weights)
    lengths = [float(h.crystal.volume) ** (1 / 3) for h in held]
    s = [np.sqrt(3) * (length / lengths[1] - 1) for length in lengths]
    F = []
    for peer, x, one in zip(peers, s, held, strict=True):
        D = found.at(jnp.asarray([x]))
        np.testing.assert_allclose(
            D, dynamical_matrices(one, jnp.asarray(mesh.q)), atol=1e-12 * float(jnp.abs(D).max())
        )
        peer.run_mesh([4, 4, 4], is_gamma_center=False)
        peer.run_thermal_properties(t_min=300, t_max=300, t_step=10)
        theirs = peer.thermal_properties.free_energy[0] / 96.48533212
        ours = float(found.thermodynamics(jnp.asarray([x]), 300.0).free_energy)
        assert ours == pytest.approx(theirs, abs=2e-6)
        F.append(theirs)
    slope = float(vibrational_part(found, jnp.zeros(1), 300.0).by_strain[0])
    assert slope == pytest.approx((F[2] - F[0]) / (s[2] - s[0]), rel=2e-3)
