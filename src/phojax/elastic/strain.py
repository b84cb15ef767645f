"""The elastic tensor from finite strains, the ions relaxed in each of them.

With σ the stress of a crystal stretched by F = √(1 + 2η), η = ±h along one component of Kelvin's
notation, the stress that belongs to η is

    S = J F⁻¹ σ F⁻¹,  J = det F;     C_·k = [S(h) - S(-h)] / 2h + O(h²)                  (1)

at the ions' places of least energy (their space group being that of the strained crystal). It asks
for forces and stress alone, so it serves any potential; over strains of h it also looks past the
roughness of a surface. Its error goes as h²: 7e-4 of the largest constant at 0.005 in a wurtzite
with Morse bonds.
Source: Wallace, Thermodynamics of Crystals (1972), section 2 (the stress S).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from phojax.checks import fail
from phojax.elastic.notation import BASIS, NAMES, ROOTS, kelvin_vector
from phojax.elastic.result import ElasticResult, in_GPa, remarks_on
from phojax.elastic.symmetric import (
    from_strain_responses,
    independent_strains,
    without_symmetry,
)
from phojax.force_constants.hessian import averaged_surface
from phojax.potentials.contract import Potential, check_elements
from phojax.relax import Relaxation, Surface, potential_surface, relax_on
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import SpaceGroup, near_cubic_matrix, space_group
from phojax.units import EV_PER_A3_IN_GPA


def elastic_tensor_from_strain(
    potential: Potential,
    crystal: Structure,
    group: SpaceGroup | None = None,
    *,
    step: float = 0.005,
    width: float = 0.0,
    cells: Supercell | None = None,
    pairs: int = 6,
    key: jax.Array | None = None,
    force_tolerance: float = 1e-4,
    max_steps: int = 200,
    on_part: Callable[[int, int], None] | None = None,
) -> ElasticResult:
    """Return the elastic tensor with relaxed ions from central differences of the stress.

    Args:
        potential: Any that gives stress.
        crystal: The relaxed primitive cell, exactly symmetric where a group is given.
        group: Its space group: fewer strains, and the tensor has its symmetry exactly; None for
            no use of symmetry.
        step: h of eq. (1).
        width: σ in Å of an average over displacements of a supercell (`tensor`); 0 for none.
        cells: That supercell; by default the near-cubic one of at least 80 atoms.
        pairs: ± pairs of displacements in the average.
        key: Random key of the average, of seed 0 by default.
        force_tolerance: eV/Å, of the ions in strained crystals.
        max_steps: Evaluations at most for each strained crystal.
        on_part: Called with (strained crystals finished, strained crystals in all).

    Raises:
        InputError: unknown elements, a step outside (0, 0.1], values that are not finite.
    """
    check_elements(potential, crystal)
    if not 0 < step <= 0.1:
        raise fail(f"a strain of {step}", "one above 0 and up to 0.1, such as 0.005")
    found_group = space_group(crystal) if group is None else group
    strains = independent_strains(without_symmetry(found_group) if group is None else found_group)
    surface = potential_surface(potential, crystal)
    if width > 0:
        cells = cells or supercell(crystal, near_cubic_matrix(crystal, found_group))
        key = jax.random.key(0) if key is None else key
        surface = averaged_surface(potential, cells, width, pairs, key)
    _, force, stress = _finite(surface(crystal), potential)

    clamped, relaxed, forces, moves = [], [], [], []
    unconverged: list[str] = []
    for row, component in enumerate(strains.components):
        ends = []
        for sign in (1, -1):
            if on_part is not None:
                on_part(2 * row + len(ends), 2 * len(strains))
            ends.append(
                _strained(
                    surface,
                    crystal,
                    sign * step * BASIS[component],
                    strains.keeping(component),
                    potential,
                    force_tolerance,
                    max_steps,
                )
            )
            if not ends[-1].relaxation.converged:
                at = NAMES[component]
                unconverged.append(f"{at} {sign * step:+g}: {ends[-1].relaxation.message}")
        first, second = ends
        clamped.append((first.clamped - second.clamped) / (2 * step))
        relaxed.append((first.relaxed - second.relaxed) / (2 * step))
        forces.append((first.forces - second.forces) / (2 * step))
        moves.append((first.moves - second.moves) / (2 * step))
    if on_part is not None:
        on_part(2 * len(strains), 2 * len(strains))

    C0, internal, _ = from_strain_responses(strains, jnp.stack(clamped), jnp.stack(forces))
    C, u, residual = from_strain_responses(strains, jnp.stack(relaxed), jnp.stack(moves))
    stress = stress * EV_PER_A3_IN_GPA
    force_max = float(np.sqrt((force**2).sum(axis=1).max()))
    averaged = f"{potential.name}{f' averaged over {width:g} Å' if width > 0 else ''}"
    remarks = remarks_on(averaged, stress, force_max, None, True)
    if unconverged:
        remarks += ("ions not relaxed under strain: " + "; ".join(unconverged),)
    return ElasticResult(
        structure=crystal,
        tensor_GPa=in_GPa(C + C.T) / 2,
        clamped_GPa=in_GPa(C0 + C0.T) / 2,
        internal_strain=np.moveaxis(np.asarray(internal), -1, 0) / ROOTS[:, None, None],
        displacements=np.moveaxis(np.asarray(u), -1, 0) / ROOTS[:, None, None],
        stress_GPa=stress,
        force_max_eV_A=force_max,
        asymmetry_GPa=float(np.abs(in_GPa(C - C.T)).max()),
        symmetry_residual_GPa=float(jnp.abs(residual).max()) * EV_PER_A3_IN_GPA,
        lowest_optic_eV_A2=None,
        width=width,
        step=step,
        columns=2 * len(strains),
        remarks=remarks,
    )


@dataclass(frozen=True)
class _End:
    """A strained crystal: S of eq. (1) in eV/Å³ and Kelvin's notation, -∂E/∂u and u."""

    clamped: np.ndarray
    relaxed: np.ndarray
    forces: np.ndarray
    moves: np.ndarray
    relaxation: Relaxation


def _strained(
    surface: Surface,
    crystal: Structure,
    eta: np.ndarray,
    group: SpaceGroup,
    potential: Potential,
    force_tolerance: float,
    max_steps: int,
) -> _End:
    values, vectors = np.linalg.eigh(np.eye(3) + 2 * eta)
    F = (vectors * np.sqrt(values)) @ vectors.T
    back, J = np.linalg.inv(F), float(np.linalg.det(F))
    start = replace(
        crystal,
        cell=crystal.cell @ jnp.asarray(F),
        positions=crystal.positions @ jnp.asarray(F),
    )

    def lagrangian(stress) -> np.ndarray:
        return np.asarray(kelvin_vector(jnp.asarray(J * back @ stress @ back)))

    _, forces, stress = _finite(surface(start), potential)
    clamped = lagrangian(stress)
    found = relax_on(
        surface,
        start,
        cell=False,
        force_tolerance=force_tolerance,
        max_steps=max_steps,
        symmetry=group,
        conservative=potential.conservative,
    )
    _, _, stress = _finite(surface(found.structure), potential)
    moves = np.asarray(found.structure.positions) @ back - np.asarray(crystal.positions)
    return _End(clamped, lagrangian(stress), forces @ F, moves - moves.mean(axis=0), found)


def _finite(found, potential: Potential) -> tuple[float, np.ndarray, np.ndarray]:
    energy, forces, stress = (np.asarray(x, float) for x in found)
    if not (np.all(np.isfinite(forces)) and np.all(np.isfinite(stress))):
        raise fail(
            f"{potential.name} returned forces or a stress that are not finite",
            "finite ones",
            "Choose a potential that gives a stress, or check for overlapping atoms",
        )
    return float(energy), forces, stress
