"""The way from a crystal to D(q) through a supercell, for potentials that are averaged there."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from phojax.brillouin import Mesh
from phojax.checks import fail
from phojax.descriptors.tetrahedra import orbit_means
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.average import AveragedEnergy
from phojax.force_constants.container import ForceConstants, nearest_images
from phojax.force_constants.reduction import from_responses, independent_displacements
from phojax.force_constants.sum_rules import projected
from phojax.gradients.route import Route, by_waves, held_graph
from phojax.potentials.contract import Potential
from phojax.potentials.pair import Bound
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup


def _row(copies: int, potential: Potential, crystal: Structure, graphs, asked):
    """Return dᵀ Φ(a, ·) of the averaged energy in eV/Å²."""
    displaced, along = _displaced(copies, potential, crystal, graphs, asked)
    return jax.jvp(jax.grad(displaced), (jnp.zeros_like(along),), (along,))[1]


def _contraction(copies: int, potential: Potential, crystal: Structure, graphs, asked, cotangent):
    """Return dᵀ Φ(a, ·) c, as the second derivative of the energy that it is."""
    displaced, along = _displaced(copies, potential, crystal, graphs, asked)
    still = jnp.zeros_like(along)

    def slope(u):
        return jax.jvp(displaced, (u,), (along,))[1]

    return jax.jvp(slope, (still,), (cotangent,))[1]


def _displaced(copies: int, potential: Potential, crystal: Structure, graphs, asked):
    """Return u -> the averaged energy of displaced supercells, and the displacement of a row."""
    atom, direction = asked
    energy = potential.energy
    assert isinstance(energy, AveragedEnergy)
    along = jnp.zeros((copies * len(crystal), 3)).at[atom].set(direction)
    return (lambda u: energy.of_supercell(potential.params, crystal, u, graphs)), along


def by_supercell(potential: Potential, crystal: Structure, mesh: Mesh, group: SpaceGroup) -> Route:
    """Return the route of `hessian`: force constants of a supercell, averaged, interpolated.

    Which nearest images share a pair is that of the crystal, as long as the route is used.

    Args:
        potential: From `averaged`, which says of which supercell.
        crystal: Concrete, relaxed; with the group exactly.
        mesh: Reduced by the group.
        group: Whose symmetry all changes keep.

    Raises:
        InputError: a potential that is not averaged, a supercell that breaks the symmetry.
    """
    energy = potential.energy
    if not isinstance(energy, AveragedEnergy):
        raise fail(f"{potential.name} in a supercell", "a potential from `averaged`")
    cells = energy.cells(crystal)
    displaced = independent_displacements(cells, group)
    if len(displaced.group) < len(group):
        raise fail(
            f"a supercell {cells.matrix} that breaks the symmetry {group.symbol}",
            "one that keeps it, as `near_cubic_matrix` finds",
        )  # fmt: skip
    copies, images = energy.copies, nearest_images(cells)
    q = jnp.asarray(mesh.q, float)

    def assembled(rows, crystal: Structure):
        values = projected(jnp.asarray(from_responses(displaced, rows)), cells)
        there = replace(cells, primitive=crystal)
        return dynamical_matrices(ForceConstants(values, there, images), q)

    asked = jnp.asarray(displaced.atoms * copies), jnp.asarray(displaced.directions)
    shifts = max(1, 2 * energy.pairs)
    return Route(
        Bound(held_graph, (potential.capacity(crystal),)), Bound(_row, (copies,)),
        Bound(_contraction, (copies,)), asked, assembled, np.asarray(mesh.q),
        np.asarray(mesh.weights), np.asarray(orbit_means(group)), group, 1,
        len(displaced) * copies * len(crystal) * shifts,
    )  # fmt: skip


def route_for(
    potential: Potential, crystal: Structure, mesh: Mesh, group: SpaceGroup | None = None
) -> Route:
    """Return the route that suits a potential: of its supercell if averaged, of waves if not.

    Raises:
        InputError: as `by_waves` and `by_supercell`; an averaged potential without a group.
    """
    if isinstance(potential.energy, AveragedEnergy):
        if group is None:
            raise fail("an averaged potential without a space group", "the one of the crystal")
        return by_supercell(potential, crystal, mesh, group)
    return by_waves(potential, crystal, mesh, group)


__all__ = ["by_supercell", "route_for"]
