"""Displaced supercells and the forces on their atoms: what force constants are made from.

Two kinds of sets. Single displacements: one atom moved by ±h along each of the directions that
determine Φ by symmetry (`reduction`); then, with F₀ left out by the two signs,

    dᵀ Φ(a, ·) = -[F(+h d) - F(-h d)] / 2h                                          (1)

The minus is left out where an operation of the site takes d to -d: it follows by symmetry.
Random displacements: every atom of a supercell moved by the same distance in a direction of its
own, uniform on the sphere; one such supercell holds as many equations as it has coordinates.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phojax.checks import check_finite, check_shape, fail
from phojax.force_constants.container import ForceConstants, force_constants
from phojax.force_constants.reduction import (
    CANDIDATES,
    Displacements,
    from_responses,
    smallest_span,
)
from phojax.force_constants.sum_rules import cell_index, preserving
from phojax.forces import energy_and_forces
from phojax.potentials.contract import Potential, check_elements, why
from phojax.structure import Structure, Supercell
from phojax.symmetry import SpaceGroup


@dataclass(frozen=True)
class DisplacementSet:
    """Displaced copies of a supercell.

    Attributes:
        supercell: Undisplaced.
        displacements: (set, atom, 3) Å, in the order of `supercell.structure`.
        forces: (set, atom, 3) eV/Å; None where they are not known yet.
        distance: Å, of the atoms that are moved.
        seed: Of random directions; None for single displacements.
    """

    supercell: Supercell
    displacements: Float[np.ndarray, "set atom 3"]
    forces: Float[np.ndarray, "set atom 3"] | None
    distance: float
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.displacements)

    def structure(self, number: int) -> Structure:
        """Return the displaced supercell of that number, from 0 on."""
        rest = self.supercell.structure
        return replace(rest, positions=rest.positions + self.displacements[number])


def single_displacements(
    supercell: Supercell, group: SpaceGroup, distance: float = 0.01
) -> DisplacementSet:
    """Return the fewest displacements of one atom each that determine Φ by symmetry.

    Args:
        supercell: Its primitive cell must have the group exactly (`symmetry.symmetrized`).
        group: Of the primitive cell.
        distance: h, Å.

    Raises:
        InputError: a distance that is not positive.
    """
    _check_distance(distance)
    group = preserving(group, supercell)
    copies = len(supercell.images)
    moves = []
    for a in np.unique(group.orbits):
        for d in _fewest(group.rotations_cartesian[group.permutation[:, a] == a]):
            move = np.zeros((len(supercell.primitive) * copies, 3))
            move[a * copies] = distance * d
            moves.append(move)
    return DisplacementSet(supercell, np.array(moves), None, distance)


def random_displacements(
    supercell: Supercell, count: int = 30, distance: float = 0.03, seed: int = 0
) -> DisplacementSet:
    """Return supercells with every atom moved by `distance` (Å) in a random direction.

    Raises:
        InputError: a distance or a count that is not positive.
    """
    _check_distance(distance)
    if count < 1:
        raise fail(f"{count} displaced supercells", "at least 1")
    shape = (count, len(supercell.primitive) * len(supercell.images), 3)
    moves = np.asarray(jax.random.normal(jax.random.key(seed), shape, float))
    moves = moves * (distance / np.linalg.norm(moves, axis=2, keepdims=True))
    return DisplacementSet(supercell, moves, None, distance, seed)


def with_forces(given: DisplacementSet, forces: Float[np.ndarray, "set atom 3"]) -> DisplacementSet:
    """Return the set with forces in eV/Å, in its order of supercells and atoms.

    Raises:
        InputError: forces of another shape, or not finite.
    """
    check_shape("forces", forces, given.displacements.shape, "one per displaced atom")
    check_finite("forces", forces, "Repeat the calculations that they come from")
    return replace(given, forces=np.asarray(forces, float))


def computed_forces(
    potential: Potential,
    given: DisplacementSet,
    *,
    batch: int | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> DisplacementSet:
    """Return the set with the forces of a potential, several supercells at a time.

    Args:
        potential: Any.
        given: The set.
        batch: Supercells at a time; by default 1 on a CPU and 16 elsewhere.
        on_part: Called with (supercells done, in all).

    Raises:
        InputError: unknown elements, or forces that are not finite.
    """
    crystal = given.supercell.structure
    check_elements(potential, crystal)
    size = batch or (1 if jax.default_backend() == "cpu" else 16)
    capacity = potential.capacity(crystal)
    found = np.empty_like(given.displacements)
    for start in range(0, len(given), size):
        # All parts have one shape: the last one is filled up with its last supercell.
        mine = np.minimum(np.arange(start, start + size), len(given) - 1)
        moves = jnp.asarray(given.displacements[mine])
        forces, overflow = _forces(potential, crystal, moves, capacity)
        if overflow:
            capacity = _largest(potential, [given.structure(k) for k in mine])
            forces, overflow = _forces(potential, crystal, moves, capacity)
        if overflow or not np.all(np.isfinite(forces)):
            raise fail(
                f"{potential.name} returned forces that are not finite{why(potential)}",
                "finite ones",
                "Lower the distance of the displacements, or use another potential",
            )
        part = np.asarray(forces)[: len(given) - start]
        found[start : start + len(part)] = part
        if on_part is not None:
            on_part(start + len(part), len(given))
    return with_forces(given, found)


def force_constants_from_single(given: DisplacementSet, group: SpaceGroup) -> ForceConstants:
    """Return Φ by eq. (1) from a set of single displacements, sum rules not enforced.

    Args:
        given: With forces; made by `single_displacements`, or any set of one moved atom each.
        group: Of the primitive cell.

    Raises:
        InputError: no forces, more than one atom moved, or displacements that do not determine
            Φ with this symmetry.
    """
    if given.forces is None:
        raise fail("displacements without forces", "forces, by `with_forces` or `computed_forces`")
    copies = len(given.supercell.images)
    moved = np.abs(given.displacements).max(axis=2) > 1e-10
    if not np.all(moved.sum(axis=1) == 1):
        raise fail("supercells with several atoms moved", "one moved atom each", "Fit them instead")
    where = moved.argmax(axis=1)
    displacements, forces = _in_first_cell(given, where)
    where -= where % copies
    steps = displacements[np.arange(len(given)), where]
    # A row per displacement; opposite ones are averaged where both are there.
    atoms, directions, responses = [], [], []
    used = np.zeros(len(given), bool)
    for k, (a, step) in enumerate(zip(where, steps, strict=True)):
        if used[k]:
            continue
        length = np.linalg.norm(step)
        opposite = np.flatnonzero((where == a) & (np.abs(steps + step).max(axis=1) < 1e-6))
        pair = [k, *opposite[:1]]
        used[pair] = True
        signs = np.array([1.0, -1.0])[: len(pair)]
        response = -np.einsum("s,sia->ia", signs, forces[pair]) / (length * len(pair))
        atoms.append(a // copies)
        directions.append(step / length)
        responses.append(response)
    known = Displacements(
        np.array(atoms), np.array(directions), preserving(group, given.supercell), given.supercell
    )
    _check_determined(known)
    values = from_responses(known, jnp.asarray(np.array(responses)))
    return force_constants(values, given.supercell)


def _in_first_cell(given: DisplacementSet, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return moves and forces, each moved by a lattice vector: atom `where` to the home cell."""
    cells = given.supercell
    images = np.asarray(cells.images)
    moves = given.displacements.copy()
    forces = np.array(given.forces)
    n = len(cells.primitive)
    for k, L in enumerate(images[where % len(images)]):
        # What arrives at lattice vector M comes from M + L.
        comes = cell_index(cells, images + L)
        columns = (np.arange(n)[:, None] * len(images) + comes).ravel()
        moves[k], forces[k] = moves[k, columns], forces[k, columns]
    return moves, forces


def _fewest(site: np.ndarray) -> list[np.ndarray]:
    """Return the fewest signed directions that determine the row of an atom with this site group.

    Of as few as there are, those that span space best.
    """
    costs = [1 if np.any(np.abs(site @ d + d).max(axis=1) < 1e-6) else 2 for d in CANDIDATES]
    best, chosen = (np.inf, 0.0), ()
    for size in (1, 2, 3):
        for picked in itertools.combinations(range(len(CANDIDATES)), size):
            cost = sum(costs[k] for k in picked)
            if cost > best[0]:
                continue
            span = smallest_span(site, [CANDIDATES[k] for k in picked])
            # Rounded, so that simple directions win, which stand first.
            if span > 1e-2 and (cost, -round(span, 2)) < best:
                best, chosen = (cost, -round(span, 2)), picked
    return [sign * CANDIDATES[k] for k in chosen for sign in ((1, -1) if costs[k] == 2 else (1,))]


def _check_distance(distance: float) -> None:
    if not 0 < distance < 1:
        raise fail(f"displacements of {distance} Å", "a positive length below 1 Å")


def _check_determined(known: Displacements) -> None:
    """Raise InputError unless every atom is reached and moved along three directions."""
    group = known.group
    for a in np.unique(group.orbits):
        mine = [k for k, atom in enumerate(known.atoms) if group.orbits[atom] == group.orbits[a]]
        spanned = 0
        if mine:
            b = known.atoms[mine[0]]
            site = group.rotations_cartesian[group.permutation[:, b] == b]
            turned = [known.directions[k] @ R.T for k in mine for R in site]
            spanned = int(np.linalg.matrix_rank(np.array(turned), tol=1e-2))
        if spanned < 3:
            raise fail(
                f"displacements along {spanned} independent directions of atom {a}",
                "3, the site's symmetry counted",
                "Use single_displacements with the same space group",
            )


@partial(jax.jit, static_argnames="capacity")
def _forces(potential, crystal: Structure, moves, capacity):
    def one(move):
        moved = replace(crystal, positions=crystal.positions + move)
        graph = potential.graph(moved, capacity)
        return energy_and_forces(potential, moved, graph)[1], graph.overflow

    found, overflow = jax.lax.map(one, moves, batch_size=len(moves))
    return found, jnp.any(overflow)


def _largest(potential: Potential, crystals: list[Structure]):
    """Return a capacity that holds for all: that of the crystal which needs most."""
    return max((potential.capacity(crystal) for crystal in crystals), key=_numbers)


def _numbers(capacity) -> list[int]:
    return [int(x) for x in jax.tree.leaves(capacity)]


__all__ = [
    "DisplacementSet",
    "computed_forces",
    "force_constants_from_single",
    "random_displacements",
    "single_displacements",
    "with_forces",
]
