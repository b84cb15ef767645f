"""How does the thermal motion of Na in rock salt depend on each force constant and each mass?

In a harmonic crystal the mean-square displacement of an atom is a sum over all modes,

    <u²> = (1/m) Σ_q w_q Tr [g(D(q))]_ii,   g(λ) = ħ coth(ħ√λ / 2k_BT) / 2√λ,

so it has a derivative even where modes are degenerate and single eigenvectors have none. Reverse
mode gives the derivative with respect to every force constant for about the price of the sum.
Here the crystal is that of point ions with Born-Mayer repulsion; any potential will do.

A law to check it against: D scales with Φ, and where k_BT exceeds all ħω, <u²> = k_BT Tr Φ⁻¹, so
Σ Φ ∂<u²>/∂Φ = -<u²> up to quantum corrections of order (ħω/k_BT)².
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

import phojax as px

jax.config.update("jax_enable_x64", True)

TEMPERATURE = 2000.0  # K: classical for modes of some THz


def main() -> dict[str, float]:
    a = 5.632  # Å, where this potential has its minimum
    crystal = px.structure.structure(
        [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]],
        [[0, 0, 0], [a / 2, a / 2, a / 2]],
        [11, 17],
    )
    group = px.space_group(crystal)
    cell = px.supercell(crystal, [3, 3, 3])
    constants = px.hessian(px.potential("ions:NaCl"), cell, group).force_constants
    mesh = px.gamma_mesh((6, 6, 6), group)
    q, weights = jnp.asarray(mesh.q), jnp.asarray(mesh.weights)

    @jax.jit
    def displacement_of_sodium(values, masses):
        primitive = replace(crystal, masses=masses)
        bent = replace(
            constants, values=values, supercell=replace(constants.supercell, primitive=primitive)
        )
        D = px.dynamical_matrices(bent, q)
        U = px.displacement_tensor_from_matrices(D, q, weights, primitive, TEMPERATURE, 0.0)
        return jnp.trace(U[0])

    arguments = constants.values, crystal.masses
    value = displacement_of_sodium(*arguments)
    by_constants, by_masses = jax.grad(displacement_of_sodium, argnums=(0, 1))(*arguments)
    scaling = jnp.sum(constants.values * by_constants) / value
    return {
        "msd_A2": float(value),
        "scaling_exponent": float(scaling),
        "largest_gradient_A4_eV": float(jnp.abs(by_constants).max()),
        "mass_exponent_Na": float(by_masses[0] * crystal.masses[0] / value),
    }


if __name__ == "__main__":
    found = main()
    print(f"<u²> of Na at {TEMPERATURE:g} K: {found['msd_A2']:.4f} Å²")
    print(f"d ln<u²> / d lnΦ: {found['scaling_exponent']:.4f}  (classical: -1)")
    print(f"d ln<u²> / d ln m(Na): {found['mass_exponent_Na']:.4f}  (classical: 0)")
