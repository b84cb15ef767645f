"""How far phonons from a supercell are from those of the crystal, at q between those that fit it.

Force constants of a supercell give D(q) exactly where its waves fit, and interpolate elsewhere.
A potential of which D(q) is known at any q (`bloch`) tells how good that is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phojax.bloch import exact_dynamical_matrices
from phojax.bloch_supercell import exact_force_constants
from phojax.descriptors.displacements import displacement_tensor_from_matrices
from phojax.dynmat import dynamical_matrices
from phojax.potentials.contract import Potential
from phojax.structure import Supercell
from phojax.symmetry import SpaceGroup
from phojax.units import eigenvalue_from_THz, frequency_THz

POINTS = 8
_PLASTIC = 1.2207440846057596  # x⁴ = x + 1


@dataclass(frozen=True)
class SupercellCheck:
    """Exact and interpolated phonons at some q.

    Attributes:
        q: Fractional.
        exact_THz: Signed, ascending at each q.
        interpolated_THz: Likewise.
        atoms: Of the supercell.
        temperature_K: Of the displacements.
        msd_exact_A2: Mean squared displacement of the mobile ions over these q; its parts up to the
            floor are left out on both sides.
        msd_interpolated_A2: Likewise.
    """

    q: Float[np.ndarray, "q 3"]
    exact_THz: Float[np.ndarray, "q band"]
    interpolated_THz: Float[np.ndarray, "q band"]
    atoms: int
    temperature_K: float
    msd_exact_A2: float
    msd_interpolated_A2: float

    @property
    def by_band_THz(self) -> Float[np.ndarray, " band"]:
        """Largest difference of each band."""
        return np.abs(self.interpolated_THz - self.exact_THz).max(axis=0)

    @property
    def msd_error(self) -> float:
        """Relative error of the displacements; NaN where there are none."""
        if not self.msd_exact_A2 > 0:
            return float("nan")
        return self.msd_interpolated_A2 / self.msd_exact_A2 - 1

    def as_record(self) -> dict[str, Any]:
        """Return the scalars, units in the keys."""
        return {
            "points": len(self.q),
            "supercell_atoms": self.atoms,
            "difference_max_THz": float(self.by_band_THz.max()),
            "difference_by_band_THz": self.by_band_THz.tolist(),
            "msd_relative_error": self.msd_error,
            "temperature_K": self.temperature_K,
        }

    def said(self) -> str:
        """Return it in words."""
        return (
            f"beside the exact D(q) at {len(self.q)} q that do not fit it, the supercell of "
            f"{self.atoms} atoms is off by up to {self.by_band_THz.max():.2g} THz, and by "
            f"{self.msd_error:+.2%} in the MSD at {self.temperature_K:g} K"
        )


def incommensurate_points(count: int) -> Float[np.ndarray, "q 3"]:
    """Return q that fill the Brillouin zone evenly and fit no supercell (Roberts' sequence R3)."""
    step = 1 / _PLASTIC ** np.arange(1, 4)
    q = 0.5 + np.arange(1, count + 1)[:, None] * step
    return q - np.rint(q)


def supercell_check(
    potential: Potential,
    cells: Supercell,
    group: SpaceGroup | None,
    *,
    mobile: str,
    temperature: float,
    smallest_THz: float = 1e-3,
    points: int = POINTS,
    on_part: Callable[[int, int], None] = lambda done, of: None,
) -> SupercellCheck:
    """Return the check of a supercell (host); it is not built.

    Args:
        potential: That `bloch` takes; at width 0.
        cells: Of the relaxed primitive cell.
        group: Its space group; None to use none.
        mobile: Symbol of the mobile element.
        temperature: K.
        smallest_THz: Modes up to which count as no oscillators.
        points: How many q.
        on_part: Called with (points of the supercell done, of).

    Raises:
        InputError: as `bloch.exact_hessians`.
    """
    crystal = cells.primitive
    q = jnp.asarray(incommensurate_points(points))
    constants = exact_force_constants(potential, cells, group, on_part=on_part)
    matrices = (
        exact_dynamical_matrices(potential, crystal, q), dynamical_matrices(constants, q)
    )  # fmt: skip
    weights = jnp.full(points, 1 / points)
    floor = float(eigenvalue_from_THz(jnp.asarray(smallest_THz)))
    moving = np.array([symbol == mobile for symbol in crystal.symbols])
    nu, msd = [], []
    for D in matrices:
        nu.append(np.asarray(frequency_THz(jnp.asarray(np.linalg.eigvalsh(np.asarray(D))))))
        U = displacement_tensor_from_matrices(D, q, weights, crystal, temperature, floor)
        msd.append(float(np.trace(np.asarray(U), axis1=1, axis2=2)[moving].mean()))
    atoms = len(crystal) * len(cells.images)
    return SupercellCheck(np.asarray(q), nu[0], nu[1], atoms, temperature, msd[0], msd[1])


__all__ = ["SupercellCheck", "incommensurate_points", "supercell_check"]
