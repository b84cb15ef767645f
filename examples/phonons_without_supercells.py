"""Phonons at any q from the primitive cell alone, with a potential of one's own.

    python examples/phonons_without_supercells.py

A phonon moves the copies of an atom in all cells, each with the phase exp(iq·L) of its cell. What
a potential computes inside a cell knows nothing of that. Only two of its operations see other
cells: reading what belongs to a neighbour, and summing up what neighbours send. `gather` and
`scatter` are these two, and their derivatives carry the phase. So write the energy with them, and
its second derivative along a wave is a column of D(q): exact, from one cell, however far the
potential reaches.
"""

import jax
import jax.numpy as jnp
import numpy as np

from phojax.bloch import check_beside_doubled_cell, exact
from phojax.bloch_supercell import exact_force_constants
from phojax.dynmat import dynamical_matrices
from phojax.neighbors import gather, scatter, separations
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound, pair_graph, pair_room
from phojax.structure import structure, supercell
from phojax.symmetry import space_group
from phojax.units import frequency_THz

jax.config.update("jax_enable_x64", True)
CUTOFF = 6.0  # Å


def energy(params, crystal, neighbors):
    """A metal: atoms repel each other, and are held by the root of the density about them, which
    is smoothed over neighbours once more: the energy reaches twice the cutoff."""
    r = jnp.linalg.norm(separations(crystal, neighbors), axis=1)
    window = jnp.where(r < CUTOFF, (1 - jnp.minimum(r / CUTOFF, 1) ** 2) ** 4, 0)
    near = window * jnp.exp(-r / params["length"])
    density = scatter(near, neighbors.centers, len(crystal))
    smooth = density + scatter(near * gather(density, neighbors.others), neighbors.centers,
                               len(crystal))  # fmt: skip
    repulsion = params["hard"] * scatter(near**3, neighbors.centers, len(crystal))
    return jnp.sum(repulsion - params["bond"] * jnp.sqrt(smooth))


PARAMS = {"length": jnp.array(1.4), "hard": jnp.array(400.0), "bond": jnp.array(1.1)}
METAL = Potential("metal", PARAMS, energy, Bound(pair_graph, (CUTOFF,)),
                  Bound(pair_room, (CUTOFF,)), None, CUTOFF)  # fmt: skip


def frequencies(source, q):
    """THz, ascending."""
    D = np.asarray(dynamical_matrices(source, jnp.asarray(q)[None]))[0]
    return np.asarray(frequency_THz(jnp.asarray(np.linalg.eigvalsh(D))))


def main() -> dict[int, float]:
    """Print one q beside ever larger supercells; return their errors in THz."""
    a = 4.3  # Å, face-centred cubic, where this potential has its minimum
    crystal = structure(a / 2 * (np.ones((3, 3)) - np.eye(3)), np.zeros((1, 3)), np.array([11]))
    check_beside_doubled_cell(METAL, crystal)  # is every read a gather, and every sum a scatter?
    q, group, errors = np.array([0.13, 0.21, -0.08]), space_group(crystal), {}
    truth = frequencies(exact(METAL, crystal), q)
    print(f"exact, one atom:    {truth} THz")
    for n in (2, 3, 4, 6, 8):
        found = frequencies(exact_force_constants(METAL, supercell(crystal, (n,) * 3), group), q)
        errors[n] = float(np.abs(found - truth).max())
        print(f"supercell of {n**3:3d}:   {found} THz, off by {errors[n]:.1e}")
    return errors


if __name__ == "__main__":
    main()
