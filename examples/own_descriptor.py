"""A descriptor of your own in ten lines, and its gradient.

Any function of `Vibrations` (dynamical matrices, crystal, energy) that JAX can trace is a
descriptor, and its derivatives come with it, the relaxation included. Here: how far the thermal
ellipsoids of sodium are from spheres,

    s = 1 - (tr U)² / 3 tr U²,    0 for a sphere, 2/3 for a needle,

in a wurtzite of point ions. Does pressure make them rounder, and would heavier sodium?

    python examples/own_descriptor.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import phojax as px
from phojax.descriptors.displacements import displacement_tensor_from_matrices
from phojax.gradients.supercells import route_for
from phojax.gradients.total import value_and_gradient
from phojax.implicit import minimum
from phojax.potentials.ewald import ewald, summed
from phojax.potentials.pair import buckingham
from phojax.structure import structure

jax.config.update("jax_enable_x64", True)  # before the potential's parameters are made
GPA = 0.006241509  # eV/Å³
IONS = summed(
    buckingham({("Na", "Cl"): (1092.3, 0.321, 0.0)}, cutoff=7.0),
    ewald({"Na": 1.0, "Cl": -1.0}, cutoff=6.0),
)


def no_spheres(found, T=300.0, floor=1e-6):
    """Return s, averaged over the sodium ions."""
    U = displacement_tensor_from_matrices(
        found.matrices, found.q, found.weights, found.crystal, T, floor
    )
    trace, square = jnp.trace(U, axis1=1, axis2=2), jnp.einsum("iab,iab->i", U, U)
    sodium = found.crystal.numbers == 11
    s = found.equivalent @ (1 - trace**2 / (3 * square))  # equivalent atoms share one value
    return jnp.sum(jnp.where(sodium, s, 0)) / jnp.sum(sodium)


def main(say=print):
    """Return s and its gradient."""
    a, c, u = 4.72, 5.58, 0.49
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    x = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, u], [2 / 3, 1 / 3, 0.5 + u]]
    crystal = structure(cell, np.array(x) @ cell, [11, 11, 17, 17])
    group = px.space_group(crystal)

    here, how = minimum(IONS, px.symmetrized(crystal, group), symmetry=group)
    mesh = px.gamma_mesh((2, 2, 1), None)  # all points: U of each atom, not only sums
    found = value_and_gradient(no_spheres, here, route_for(IONS, here.crystal, mesh, None))
    say(f"s = {found.value:.4f}, relaxed in {how.steps} steps, {found.rows} rows of D(q)")
    say(f"ds/dp = {found.by_pressure * GPA:+.5f} per GPa, the crystal relaxed at every pressure")
    say(f"ds/dm = {found.by_masses[:2].sum():+.2e} per amu of all sodium")
    return found


if __name__ == "__main__":
    main()
