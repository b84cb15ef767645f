"""Small crystals that move: shared by the tests of the dynamics."""

import jax.numpy as jnp
import numpy as np
from ase.build import bulk

from phojax.md.integrator import advanced, started
from phojax.md.protocol import Protocol
from phojax.md.systems import systems
from phojax.potentials.pair import lennard_jones, springs
from phojax.structure import structure

ARGON = lennard_jones({("Ar", "Ar"): (0.0104, 3.40)}, cutoff=7.0)


def argon(repeat=(2, 2, 2), a=5.26):
    atoms = bulk("Ar", "fcc", a=a, cubic=True) * repeat
    return structure(atoms.cell[:], atoms.positions, atoms.numbers)


def salt_of_springs(repeat=(2, 2, 2), a=5.6):
    """Return rock salt whose ions hang on springs to their first and second neighbours."""
    atoms = bulk("NaCl", "rocksalt", a=a, cubic=True) * repeat
    near, far = a / 2, a / np.sqrt(2)
    pairs = {("Na", "Cl"): (3.0, near), ("Na", "Na"): (0.6, far), ("Cl", "Cl"): (0.9, far)}
    potential = springs(pairs, cutoff=1.1 * far)
    return structure(atoms.cell[:], atoms.positions, atoms.numbers), potential


def moved(potential, given, protocol, frames, *, capacity, skin=0.0, state=None):
    """Return state, frames and overflow after some frames from the start, or from a state."""
    if state is None:
        state, _ = started(potential, given, capacity)
    return advanced(
        potential, given, state, jnp.int32(frames), protocol.timestep, protocol.friction,
        capacity=capacity, longest=frames, every=protocol.frame_every,
        thermostat=protocol.ensemble == "nvt", skin=skin,
    )  # fmt: skip


def at_temperatures(crystal, temperatures, mobile="Ar", **more):
    return systems([crystal] * len(temperatures), temperatures, mobile, **more)


__all__ = ["ARGON", "Protocol", "argon", "at_temperatures", "moved", "salt_of_springs", "systems"]
