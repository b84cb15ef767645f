"""What pairs, atoms and modes are worth: identities, and force constants that are changed."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from phojax.bloch_supercell import exact_force_constants
from phojax.brillouin import gamma_mesh
from phojax.checks import InputError
from phojax.dynmat import dynamical_matrices
from phojax.gradients.route import by_waves
from phojax.gradients.sensitivity import (
    mesh_of,
    mode_sensitivity,
    mode_shares,
    pair_sensitivity,
    scaling_of_all,
    shells,
)
from phojax.gradients.total import value_and_gradient
from phojax.gradients.tuning import held
from phojax.modes import degenerate_blocks, eigenpairs_at
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.structure import commensurate_points, structure, supercell
from phojax.symmetry import space_group, symmetrized
from phojax.units import frequency_THz

T = 300.0


def ions():
    repulsion = buckingham(
        {("Na", "Cl"): (1092.3, 0.321, 0.0), ("Cl", "Cl"): (1500.0, 0.33, 20.0)}, cutoff=7.0
    )
    return summed(repulsion, ewald({"Na": 1.0, "Cl": -1.0}, cutoff=6.0))


def wurtzite():
    """Return Na and Cl in P6₃mc, near the minimum of these ions."""
    a, c, u = 4.62, 6.22, 0.44
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    x = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, u], [2 / 3, 1 / 3, 0.5 + u]]
    crystal = structure(cell, np.array(x) @ cell, [11, 11, 17, 17])
    return symmetrized(crystal, space_group(crystal))


def msd(found):
    return found.msd(found.crystal.numbers == 11, T)


def msd_when_hot(found):
    return found.msd(found.crystal.numbers == 11, 1e5)


def centre(found):
    return found.pdos_centre(found.crystal.numbers == 11)


class Case:
    """A crystal, its supercell, and the gradients of some functions."""

    def __init__(self):
        self.model, self.crystal = ions(), wurtzite()
        self.group = space_group(self.crystal)
        self.cells = supercell(self.crystal, (3, 3, 2))
        self.route = by_waves(self.model, self.crystal, mesh_of(self.cells), self.group)
        here = held(self.model, self.crystal)
        self.found = {
            f: value_and_gradient(f, here, self.route) for f in (msd, msd_when_hot, centre)
        }

    @property
    def vibrations(self):
        return self.found[msd].vibrations


@pytest.fixture(scope="module")
def case():
    made = Case()
    assert made.vibrations.count_left_out() == 0
    assert len(made.route.q) < len(commensurate_points(made.cells)) / 2
    return made


def derivative(f, h):
    return (4 * (f(h / 2) - f(-h / 2)) / h - (f(h) - f(-h)) / (2 * h)) / 3


@pytest.mark.parametrize("objective", [msd, centre])
def test_the_worth_of_pairs_atoms_and_modes_adds_up(case, objective):
    found = case.found[objective]
    total = scaling_of_all(found)

    def scaled(t):
        return float(
            objective(replace(case.vibrations, matrices=case.vibrations.matrices * (1 + t)))
        )

    np.testing.assert_allclose(total, derivative(scaled, 1e-3), rtol=1e-8)
    pairs = pair_sensitivity(found, case.cells, case.group)
    np.testing.assert_allclose(pairs.scaling.sum(), total, rtol=1e-10)
    np.testing.assert_allclose(pairs.by_atom.sum(), total, rtol=1e-10)
    of_shells = shells(pairs, case.cells, case.group)
    np.testing.assert_allclose(sum(s.scaling for s in of_shells), total, rtol=1e-10)
    assert sum(s.count for s in of_shells) == pytest.approx(
        (pairs.distance.size - len(case.crystal)) / 2
    )
    np.testing.assert_allclose(mode_sensitivity(found).scaling.sum(), total, rtol=1e-10)


def test_scaling_laws_of_displacements(case):
    """d goes as 1/m at given frequencies; when it is hot as 1/Φ, and masses do not matter."""
    for objective in (msd, msd_when_hot):
        found = case.found[objective]
        by_masses = found.by_masses @ np.asarray(case.crystal.masses)
        np.testing.assert_allclose(scaling_of_all(found) + by_masses, -found.value, rtol=1e-9)
    np.testing.assert_allclose(scaling_of_all(found), -found.value, rtol=1e-6)
    assert scaling_of_all(case.found[msd]) > -0.999 * case.found[msd].value


def test_modes_one_by_one(case):
    """Degenerate ones together: λ changed, its eigenvectors held."""
    found = case.found[msd]
    of_modes = mode_sensitivity(found)
    D, q = case.vibrations.matrices, case.vibrations.q
    values, E = eigenpairs_at(D, q, case.crystal)
    np.testing.assert_allclose(of_modes.frequencies_THz, frequency_THz(values))
    labels = np.asarray(degenerate_blocks(values))
    degenerate = 0
    for point, block in ((0, 1), (1, 0), (1, 2), (len(q) - 1, 3)):
        inside = np.flatnonzero(labels[point] == block)
        degenerate += len(inside) > 1
        e = E[point][:, inside]
        change = jnp.zeros_like(D).at[point].set((e * values[point, inside]) @ e.conj().T)

        def changed(t, change=change):
            return float(msd(replace(case.vibrations, matrices=D + t * change)))

        np.testing.assert_allclose(
            of_modes.scaling[point, inside].sum(), derivative(changed, 1e-3), rtol=1e-7
        )
    assert degenerate
    assert np.ptp(of_modes.scaling[0][labels[0] == 0]) == 0
    shares = mode_shares(case.vibrations, case.crystal.numbers == 11, T)
    np.testing.assert_allclose(shares.sum(), found.value, rtol=1e-10)
    assert np.all(shares[of_modes.rigid] == 0)
    assert of_modes.rigid.sum() == 3


def test_pairs_one_by_one(case):
    """A shell scaled, and one pair changed in each of its nine components; sums kept at zero."""
    found = case.found[msd]
    pairs = pair_sensitivity(found, case.cells, case.group)
    held = exact_force_constants(case.model, case.cells, case.group)
    values, n = np.asarray(held.values), len(case.crystal)
    copies = values.shape[1] // n
    points = commensurate_points(case.cells)
    everywhere = {"q": jnp.asarray(points), "weights": jnp.full(len(points), 1 / len(points))}

    def value(changed):
        changed = changed.copy()
        for i in range(n):
            changed[i, i * copies] -= changed[i].sum(axis=0)
        D = dynamical_matrices(replace(held, values=jnp.asarray(changed)), everywhere["q"])
        return float(msd(replace(case.vibrations, matrices=D, **everywhere)))

    np.testing.assert_allclose(value(values), found.value, rtol=1e-9)
    first = shells(pairs, case.cells, case.group)
    for shell in (first[0], first[3]):
        orbit = np.asarray(case.group.orbits)
        mine = np.abs(pairs.distance - shell.distance) < 0.01
        kinds = {shell.orbits, shell.orbits[::-1]}
        mine &= np.array([[(a, b) in kinds for b in np.repeat(orbit, copies)] for a in orbit])
        assert mine.sum() == pytest.approx(2 * shell.count)
        wanted = derivative(
            lambda t, mine=mine: value(values * (1 + t * mine[..., None, None])), 1e-3
        )
        np.testing.assert_allclose(shell.scaling, wanted, rtol=1e-6)
    i, cell = 0, 5
    L = np.asarray(case.cells.images)[cell]
    j = 2
    period = np.diag(np.asarray(case.cells.matrix))
    back = int(np.flatnonzero(np.all(case.cells.images == (-L) % period, axis=1))[0])
    slopes = []
    for a in range(3):
        for b in range(3):

            def changed(t, a=a, b=b):
                new = values.copy()
                new[i, j * copies + cell, a, b] += t
                new[j, i * copies + back, b, a] += t
                return value(new)

            slopes.append(derivative(changed, 1e-4))
    np.testing.assert_allclose(pairs.slope[i, j * copies + cell], np.linalg.norm(slopes), rtol=1e-5)


def test_another_mesh_is_refused(case):
    route = by_waves(case.model, case.crystal, gamma_mesh((2, 2, 2), case.group), case.group)
    other = replace(case.found[msd], vibrations=replace(
        case.vibrations, q=jnp.asarray(route.q), weights=jnp.asarray(route.weights),
        matrices=case.vibrations.matrices[: len(route.q)],
    ))  # fmt: skip
    with pytest.raises(InputError, match="mesh_of"):
        pair_sensitivity(other, case.cells, case.group)
