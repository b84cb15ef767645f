"""Lattices whose Gaussian averages are known exactly: quartic springs between neighbours.

    V = Σ_bonds Σ_a [½ k d_a² + c d_a³ + b d_a⁴],   d = u_j - u_i                        (1)

For any Gaussian ensemble ⟨∂²V⟩ is that of springs k_a = k + 12 b ⟨d_a²⟩ (⟨d_a⟩ = 0), bond by bond.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from phojax.convert import structure_from_ase
from phojax.finite_temperature.gaussian import gaussian, supercell_matrix
from phojax.force_constants.container import force_constants
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound
from phojax.pytree import pytree
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import space_group


@pytree()
class Graph:
    overflow: jax.Array


def _graph(crystal, capacity):
    return Graph(jnp.zeros((), bool))


def _capacity(crystal):
    return 0


def _bonds(cells: Supercell, reach: float):
    """Return (i, j) of every pair of neighbours, each once; two where they meet twice."""
    big = cells.structure
    x, A = np.asarray(big.positions), np.asarray(big.cell)
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    apart = np.linalg.norm((x[None, :, None] - x[:, None, None] + steps @ A), axis=-1)
    i, j, _ = np.nonzero((apart < reach) & (apart > 1e-6))
    keep = i < j
    return tuple(i[keep].tolist()), tuple(j[keep].tolist())


def _energy(i, j, rest, params, crystal: Structure, graph):
    u = crystal.positions - jnp.asarray(rest)
    # Dynamics fold atoms back into the cell.
    u = u - jnp.round(u @ jnp.linalg.inv(crystal.cell)) @ crystal.cell
    d = u[jnp.asarray(j)] - u[jnp.asarray(i)]
    k, c, b = params["k"], params["c"], params["b"]
    return jnp.sum(k * d**2 / 2 + c * d**3 + b * d**4)


def quartic(cells: Supercell, reach: float, k: float, b: float, c: float = 0.0) -> Potential:
    """Return (1) on one supercell; the potential knows no other."""
    i, j = _bonds(cells, reach)
    rest = tuple(map(tuple, np.asarray(cells.structure.positions).tolist()))
    params = {"k": jnp.asarray(k), "b": jnp.asarray(b), "c": jnp.asarray(c)}
    return Potential("quartic", params, Bound(_energy, (i, j, rest)), _graph, _capacity, None, 1.0)


def bonds_of(potential: Potential):
    """Return the atoms at both ends of the bonds."""
    assert isinstance(potential.energy, Bound)
    return tuple(np.array(ends) for ends in potential.energy.settings[:2])


def pair_of_atoms():
    """Return a CsCl cell of two different atoms: three oscillators of their reduced mass."""
    crystal = structure_from_ase(
        Atoms("NaCl", scaled_positions=[(0, 0, 0), (0.5,) * 3], cell=[3.5] * 3, pbc=True)
    )
    return supercell(crystal, (1, 1, 1)), space_group(crystal)


def skew_pair():
    """Return two atoms without symmetry: all relative displacements are allowed."""
    cell = [[3.5, 0.2, 0.1], [0.3, 3.9, -0.2], [0.1, 0.4, 4.3]]
    crystal = structure_from_ase(
        Atoms("NaCl", positions=[(0, 0, 0), (1.3, 1.6, 1.9)], cell=cell, pbc=True)
    )
    return supercell(crystal, (1, 1, 1)), space_group(crystal)


def simple_cubic(size: int = 3):
    """Return a simple cubic lattice of sodium, its neighbours 3 Å apart."""
    crystal = structure_from_ase(Atoms("Na", positions=[(0, 0, 0)], cell=[3.0] * 3, pbc=True))
    return supercell(crystal, (size,) * 3), space_group(crystal)


def harmonic(cells: Supercell, potential: Potential, group, extra: float):
    """Return force constants of springs k + extra."""
    from phojax.force_constants.hessian import hessian

    params = potential.params | {"k": potential.params["k"] + extra}
    return hessian(replace(potential, params=params), cells, group).force_constants


def exact_lattice(cells, model, group, T):
    """Φ of `quartic` on a lattice by its closed condition, bond by bond."""
    i, j = bonds_of(model)
    k, b = float(model.params["k"]), float(model.params["b"])
    constants = harmonic(cells, model, group, 1.0)
    n = len(cells.structure)
    springs, g = np.full((len(i), 3), k + 1.0), gaussian(constants, T)
    for _ in range(200):
        full = np.zeros((n, n, 3, 3))
        for a in range(3):
            for one, other, sign in ((i, j, -1), (j, i, -1), (i, i, 1), (j, j, 1)):
                np.add.at(full[..., a, a], (one, other), sign * springs[:, a])
        values = full[:: len(cells.images)]
        constants = force_constants(jnp.asarray(values), cells)
        np.testing.assert_allclose(
            supercell_matrix(constants), full.transpose(0, 2, 1, 3).reshape(3 * n, -1), atol=1e-9
        )
        g = gaussian(constants, T)
        E = g.vectors.reshape(n, 3, -1) / np.sqrt(g.masses)[:, None, None]
        d = E[j] - E[i]
        new = k + 12 * b * np.einsum("ban,n,ban->ba", d, g.variances, d)
        if np.abs(new - springs).max() < 1e-12:
            break
        springs = (springs + new) / 2
    return constants, g
