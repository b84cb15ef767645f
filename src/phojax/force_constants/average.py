"""A potential averaged over Gaussian displacements of a supercell, as a potential of its own.

    E_σ(cell) = ⟨E(supercell + σξ)⟩ / copies                                                (1)

with the same ± pairs of ξ that `hessian` takes with the same key: its Hessian is eq. (2) there, its
minima are those of `averaged_surface`. σξ are lengths: they do not stretch with the cell. Being an
energy in JAX, (1) has derivatives in everything its potential has, parameters and shares included.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phojax.capacities import largest
from phojax.checks import fail
from phojax.force_constants.parts import Ensemble, gaussian_displacements
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound
from phojax.pytree import pytree
from phojax.structure import Structure, Supercell

Matrix = tuple[tuple[int, int, int], ...]


@pytree()
class Graphs:
    """Graphs of a supercell at every displacement of an average.

    Attributes:
        each: Pytree of stacked graphs.
        overflow: Whether one of them did.
    """

    each: Any
    overflow: Bool[Array, ""]


@dataclass(frozen=True)
class AveragedEnergy:
    """Eq. (1) as the `energy` of a potential.

    Attributes:
        energy: Of the potential averaged.
        matrix: Of the supercell.
        width: σ, Å.
        pairs: Of displacements; 0 where the width is.
        seed: Data of the random key.
    """

    energy: Callable
    matrix: Matrix
    width: float
    pairs: int
    seed: tuple[int, ...]

    @property
    def copies(self) -> int:
        """Cells in the supercell."""
        return abs(round(float(np.linalg.det(np.asarray(self.matrix)))))

    def cells(self, primitive: Structure) -> Supercell:
        """Return the supercell of a primitive cell; traceable."""
        return Supercell(primitive, self.matrix)

    def shifts(self, atoms: int) -> Float[Array, "shift atom 3"]:
        """Return σξ and -σξ of all pairs for a supercell of some atoms; one of zeros at width 0."""
        if self.width == 0:
            return jnp.zeros((1, atoms, 3))
        key = jax.random.wrap_key_data(jnp.asarray(self.seed, jnp.uint32))
        each = [self.width * gaussian_displacements(key, pair, atoms) for pair in range(self.pairs)]
        return jnp.stack([*each, *(-xi for xi in each)])

    def of_supercell(
        self, params: Any, primitive: Structure, u: Float[Array, "atom 3"], graphs: Graphs
    ) -> Float[Array, ""]:
        """Return the average of the supercell whose atoms are displaced by u, in eV; traceable."""
        crystal = self.cells(primitive).structure
        x = crystal.positions + u

        @jax.checkpoint  # or every displacement would be remembered whole
        def one(shift, graph):
            return self.energy(params, replace(crystal, positions=x + shift), graph)

        each = jax.lax.map(lambda given: one(*given), (self.shifts(len(crystal)), graphs.each))
        return each.mean()

    def __call__(self, params: Any, primitive: Structure, graphs: Graphs) -> Float[Array, ""]:
        still = jnp.zeros((self.copies * len(primitive), 3))
        return self.of_supercell(params, primitive, still, graphs) / self.copies


def averaged(
    potential: Potential, cells: Supercell, width: float, pairs: int, key: jax.Array | None
) -> Potential:
    """Return the potential of the primitive cell whose energy is eq. (1).

    Args:
        potential: With an energy in JAX.
        cells: Which copies there are; its primitive cell is that of no one.
        width: σ, Å; 0 for the supercell as it is.
        pairs: Number of ± pairs where the width is not 0.
        key: Random key; needed where the width is not 0.

    Raises:
        InputError: a potential without an energy in JAX; as `hessian` for width, pairs and key.
    """
    Ensemble(width, pairs, key)
    if potential.on_host or not potential.conservative:
        raise fail(
            f"the average of {potential.name}, which has no energy in JAX",
            "a potential that has", "`averaged_surface` relaxes with any",
        )  # fmt: skip
    seed = () if width == 0 or key is None else tuple(np.asarray(jax.random.key_data(key)).tolist())
    energy = AveragedEnergy(potential.energy, cells.matrix, width, pairs if width else 0, seed)
    return replace(
        potential,
        name=f"{potential.name} averaged over {width:g} Å in {energy.copies} cells",
        energy=energy,
        graph=Bound(_graphs, (energy, potential.graph)),
        capacity=Bound(_capacity, (energy, potential.capacity)),
        smoothing_width=0.0,
        other_gauge=None,
        reaching=None,
        carries_waves=False,
        mixed=None if potential.mixed is None else Bound(_mixed, (energy, potential.mixed)),
    )


def _graphs(energy: AveragedEnergy, graph: Callable, primitive: Structure, capacity) -> Graphs:
    crystal = energy.cells(primitive).structure

    def one(shift):
        return graph(replace(crystal, positions=crystal.positions + shift), capacity)

    each = jax.lax.map(one, energy.shifts(len(crystal)))
    return Graphs(each, jnp.any(each.overflow))


def _capacity(energy: AveragedEnergy, capacity: Callable, primitive: Structure):
    crystal = energy.cells(primitive).structure
    shifts = np.asarray(energy.shifts(len(crystal)))
    return largest(
        [capacity(replace(crystal, positions=crystal.positions + shift)) for shift in shifts]
    )


def _mixed(energy: AveragedEnergy, mixed: Callable, numbers: tuple[int, ...]):
    inner, capacity = mixed(numbers)
    averaged_energy = replace(energy, energy=inner)
    return averaged_energy, Bound(_capacity, (averaged_energy, capacity))


__all__ = ["AveragedEnergy", "Graphs", "averaged"]
