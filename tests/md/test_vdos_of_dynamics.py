"""The spectrum of moving atoms is that of the phonons: a harmonic crystal's centres agree."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from dynamics import Protocol, at_temperatures, salt_of_springs

from phojax.md.observed import observed_of_sums
from phojax.md.run import run
from phojax.md.transport import transport
from phojax.units import frequency_THz


def test_centres_are_those_of_the_modes():
    """Per element: the mean frequency of the modes, weighted by how much they move it."""
    crystal, potential = salt_of_springs((1, 1, 1))
    capacity = potential.capacity(crystal)
    graph = potential.graph(crystal, capacity)

    def energy(x):
        at = replace(crystal, positions=x.reshape(-1, 3))
        return potential.energy(potential.params, at, graph)

    root = np.repeat(np.sqrt(np.asarray(crystal.masses)), 3)
    hessian = np.asarray(jax.hessian(energy)(crystal.positions.ravel()))
    values, vectors = np.linalg.eigh(hessian / np.outer(root, root))
    moving = values > 1e-6
    frequencies = np.asarray(frequency_THz(jnp.asarray(values[moving])))
    share = vectors[:, moving] ** 2
    replicas = 24
    given = at_temperatures(crystal, [20.0] * replicas, "Na", replicas=range(replicas))
    # So weak a friction leaves hardly a tail; replicas make up for how slowly it mixes.
    protocol = Protocol(
        timestep_fs=2.0, friction_per_ps=0.2, equilibration_steps=10_000, steps=6_000,
        frame_every=5, vacf_window_ps=10.0, stop_melted=False,
    )  # fmt: skip
    found = run(potential, given, protocol)
    centres = []
    for n in range(replicas):
        seen = observed_of_sums(
            found.sums, given, [n], [found.series.first_msd[:, n]], 11, protocol.interval_ps
        )
        centres.append(transport(seen).vdos.centre_vibrational_THz)
    centres = np.array(centres)
    for column, number in enumerate((11, 17)):
        of = np.repeat(np.asarray(crystal.numbers) == number, 3)
        weights = share[of].sum(0)
        wanted = (weights * frequencies).sum() / weights.sum()
        mean = centres[:, column].mean()
        error = centres[:, column].std(ddof=1) / np.sqrt(replicas)
        # The friction's tail and the window move a centre by less than a hundredth.
        assert abs(mean - wanted) < 5 * error + 0.01 * wanted
        assert error < 0.02 * wanted
