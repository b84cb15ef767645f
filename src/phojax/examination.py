"""What a potential is worth for lattice dynamics, measured on one crystal.

Laws that an exact potential obeys, with x positions, A the cell, R a rotation:

    E(x R, A R) = E(x, A),   F(x R, A R) = F R                       equivariance         (1)
    E, F of a supercell = those of its copies                          periodic images      (2)
    Σ_i F_i = 0                                                        net force            (3)
    F = -∂E/∂x,  V σ = ∂E/∂ε,  by central differences of E             forces, stress       (4)
    ∂F/∂x = (∂F/∂x)ᵀ                                                  symmetry of J        (5)

and how smooth its surface is: one row of force constants by automatic differentiation, by
central differences over several steps, and averaged over Gaussian displacements of several
widths (`force_constants.noise`). On a smooth surface they agree but for h² and σ² of the
anharmonicity; on a rough one the row at width 0 says little about atoms that move.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk
from ase.data import chemical_symbols

from phojax.convert import structure_from_ase
from phojax.force_constants.noise import averaged_row, jacobian, row_noise, spread
from phojax.force_constants.reduction import independent_displacements
from phojax.forces import evaluate
from phojax.potentials.contract import Potential
from phojax.structure import Structure, strained, supercell
from phojax.symmetry import near_cubic_matrix, primitive_cell, space_group

STEPS = (0.001, 0.003, 0.01, 0.03)
"""Å, of the central differences."""

WIDTHS = (0.003, 0.01, 0.03, 0.06)
"""Å, of the averages."""

ROUGH = 0.05
"""A row that changes by more than this between 0 and 0.01 Å makes a surface rough."""

_ATOMS = 60  # of the supercell for the row and for the time
_PAIRS = 3  # ± pairs of an average
_RATTLE = 0.05  # Å
_H = 1e-3  # Å, and dimensionless for strain, of eq. (4)


@dataclass(frozen=True)
class Examination:
    """The measures of one potential on one crystal; ratios are relative to the norm compared with.

    Attributes:
        potential: Its name.
        crystal: Formula and number of atoms of the cell examined.
        conservative: Whether it says that forces are the gradient of its energy.
        derivatives: How often it says that it can be differentiated; None for any number.
        rotation_energy_eV_atom: Eq. (1).
        rotation_forces: Eq. (1), relative.
        images_energy_eV_atom: Eq. (2), a cell against its supercell.
        images_forces: Eq. (2), relative.
        net_force: Eq. (3), against the root of the sum of squares of the forces.
        force_against_energy: Eq. (4), relative error along one random direction.
        stress_against_energy: Eq. (4), likewise; None where there is no stress.
        antisymmetric: Eq. (5), ‖J - Jᵀ‖ / ‖J + Jᵀ‖.
        by_step: Step in Å -> relative change of the row against automatic differentiation (or
            the smallest step, where there is none).
        by_width: Width in Å -> likewise, of the averaged row against the plain one.
        gauge: Change of the row with other arbitrary choices; None where there are none.
        rough: Whether a step of 0.01 Å changes the row by more than `ROUGH`.
        ms_per_atom: Time of energy, forces and stress, ms per atom, compilation left out.
        atoms_timed: Of the cell that was timed.
    """

    potential: str
    crystal: str
    conservative: bool
    derivatives: int | None
    rotation_energy_eV_atom: float
    rotation_forces: float
    images_energy_eV_atom: float
    images_forces: float
    net_force: float
    force_against_energy: float
    stress_against_energy: float | None
    antisymmetric: float
    by_step: dict[float, float]
    by_width: dict[float, float]
    gauge: float | None
    rough: bool
    ms_per_atom: float
    atoms_timed: int


def default_crystal(potential: Potential) -> Structure:
    """Return rocksalt NaCl, or where that is not known the crystal of the first element that is."""
    known = potential.elements
    if known is None or {11, 17} <= known:
        return structure_from_ase(bulk("NaCl", "rocksalt", a=5.64))
    return structure_from_ase(bulk(chemical_symbols[min(known)]))


def examined(
    potential: Potential,
    crystal: Structure | None = None,
    report: Callable[[str, int, int], None] = lambda stage, done, of: None,
) -> Examination:
    """Return the measures of a potential.

    Args:
        potential: In the precision that is to be examined.
        crystal: Concrete, at or near its minimum; `default_crystal` where None.
        report: Called with (stage, done, of).

    Raises:
        InputError: unknown elements, or values that are not finite.
    """
    given = default_crystal(potential) if crystal is None else crystal
    primitive = primitive_cell(given)
    group = space_group(primitive)
    bent = _bent(primitive if len(primitive) > 1 else supercell(primitive, [2, 1, 1]).structure)
    report("equivariance", 0, 5)
    energy, forces, stress = _plain(potential, bent)
    turned = _turned(bent)
    there = _plain(potential, turned[0])
    count = len(bent)
    report("periodic images", 1, 5)
    double = supercell(bent, [2, 1, 1])
    of_double = _plain(potential, double.structure)
    report("energy against forces and stress", 2, 5)
    force_error, stress_error = _against_energy(potential, bent, forces, stress)
    report("Jacobian", 3, 5)
    J = jacobian(potential, bent, step=_H if potential.derivatives == 1 else None)
    report("smoothness", 4, 5)
    large = supercell(primitive, near_cubic_matrix(primitive, group, _ATOMS, 5 * _ATOMS))
    rows = independent_displacements(large, group)
    which = {"atom": int(rows.atoms[0]) * len(large.images), "direction": rows.directions[0]}
    noise = row_noise(potential, large.structure, steps=STEPS, **which)
    by_width = {
        width: spread(
            averaged_row(
                potential, large.structure, width, _PAIRS, jax.random.key(0), **which,
                step=min(STEPS) if potential.derivatives == 1 else None,
            ),
            noise.row,
        )
        for width in WIDTHS
    }  # fmt: skip
    return Examination(
        potential=potential.name,
        crystal=f"{_formula(primitive)}, {len(primitive)} atoms, {group.symbol}",
        conservative=potential.conservative,
        derivatives=potential.derivatives,
        rotation_energy_eV_atom=abs(there[0] - energy) / count,
        rotation_forces=spread(there[1], forces @ turned[1]),
        images_energy_eV_atom=abs(of_double[0] / 2 - energy) / count,
        images_forces=spread(of_double[1], np.repeat(forces, 2, axis=0)),
        net_force=float(np.linalg.norm(forces.sum(0)) / np.linalg.norm(forces)),
        force_against_energy=force_error,
        stress_against_energy=stress_error,
        antisymmetric=float(np.linalg.norm(J - J.T) / np.linalg.norm(J + J.T)),
        by_step=noise.differences,
        by_width=by_width,
        gauge=noise.gauge,
        rough=noise.differences[0.01] > ROUGH,
        ms_per_atom=_time(potential, large.structure),
        atoms_timed=len(large.structure),
    )


def _bent(crystal: Structure) -> Structure:
    """Return the crystal without symmetry: strained by a per cent, atoms moved by `_RATTLE`."""
    rng = np.random.default_rng(0)
    moved = strained(crystal, jnp.asarray(0.01 * rng.normal(size=(3, 3))))
    shift = jnp.asarray(_RATTLE * rng.normal(size=moved.positions.shape))
    return replace(moved, positions=moved.positions + shift)


def _turned(crystal: Structure) -> tuple[Structure, np.ndarray]:
    """Return the crystal after a random rotation, x R, and R."""
    R, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    R = R * np.sign(np.linalg.det(R))
    turned = replace(crystal, cell=crystal.cell @ R, positions=crystal.positions @ R)
    return turned, R


def _plain(potential: Potential, crystal: Structure) -> tuple[float, np.ndarray, np.ndarray]:
    E, F, stress = evaluate(potential, crystal, stress=False)
    return float(E), np.asarray(F, float), np.asarray(stress, float)


def _against_energy(potential, crystal: Structure, forces, stress) -> tuple[float, float | None]:
    """Return the relative errors of eq. (4) along a random direction each."""
    rng = np.random.default_rng(2)
    along = rng.normal(size=forces.shape)
    along /= np.linalg.norm(along)
    bend = rng.normal(size=(3, 3))
    bend = (bend + bend.T) / np.linalg.norm(bend + bend.T)

    def slope(moved: Callable[[float], Structure]) -> float:
        """Four points: the error is of order h⁴."""
        E = {k: _plain(potential, moved(k * _H))[0] for k in (-2, -1, 1, 2)}
        return (8 * (E[1] - E[-1]) - (E[2] - E[-2])) / (12 * _H)

    by_force = -np.sum(forces * along)
    numeric = slope(lambda s: replace(crystal, positions=crystal.positions + s * along))
    force_error = abs(by_force - numeric) / np.linalg.norm(forces)
    if not np.all(np.isfinite(stress)):
        return force_error, None
    by_stress = float(crystal.volume) * np.sum(stress * bend)
    numeric = slope(lambda s: strained(crystal, jnp.asarray(s * bend)))
    scale = float(crystal.volume) * np.linalg.norm(stress)
    return float(force_error), float(abs(by_stress - numeric) / scale)


def _time(potential: Potential, crystal: Structure) -> float:
    """Return the time of an evaluation in ms per atom: the best of three, compiled before."""
    capacity = potential.capacity(crystal)
    best = np.inf
    for k in range(4):
        # Never the same crystal twice: calculators remember the last one.
        moved = replace(crystal, positions=crystal.positions + 1e-4 * k)
        begin = time.perf_counter()
        jax.block_until_ready(evaluate(potential, moved, capacity, stress=False))
        best = min(best, time.perf_counter() - begin)
    return 1e3 * best / len(crystal)


def _formula(crystal: Structure) -> str:
    symbols = crystal.symbols
    return "".join(
        f"{s}{symbols.count(s) if symbols.count(s) > 1 else ''}" for s in dict.fromkeys(symbols)
    )


__all__ = ["Examination", "default_crystal", "examined"]
