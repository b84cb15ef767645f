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
