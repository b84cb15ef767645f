"""Frames of a molecular-dynamics run at equal intervals, positions unwrapped."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from phojax.checks import check_finite, check_shape, fail


@dataclass(frozen=True)
class Trajectory:
    """Frames at equal intervals of time, in host memory.

    Attributes:
        positions: Cartesian, Å, continuous in time (never wrapped back into the cell).
        cell: Lattice vectors as rows, Å; one for all frames.
        numbers: Atomic numbers, the same in every frame.
        masses: amu.
        interval_ps: Time between frames.
        velocities: Å/ps; None where there are none.
        notes: What its reader had to assume or to mend.
    """

    positions: Float[np.ndarray, "frame atom 3"]
    cell: Float[np.ndarray, "3 3"]
    numbers: Int[np.ndarray, " atom"]
    masses: Float[np.ndarray, " atom"]
    interval_ps: float
    velocities: Float[np.ndarray, "frame atom 3"] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        atoms = len(self.numbers)
        check_shape("positions", self.positions, (None, atoms, 3), "frames of the same atoms")
        check_shape("cell", self.cell, (3, 3))
        check_shape("masses", self.masses, (atoms,), "one per atom")
        check_finite("positions", self.positions)
        if not self.interval_ps > 0:
            raise fail(f"{self.interval_ps} ps between frames", "a positive time")

    def __len__(self) -> int:
        return len(self.positions)


def host_of(numbers: Int[np.ndarray, " atom"], mobile: int) -> np.ndarray:
    """Return which atoms define the frame of reference: the non-mobile ones, all if none (E2)."""
    real = numbers > 0
    host = real & (numbers != mobile)
    return host if host.any() else real


def without_drift(
    positions: Float[np.ndarray, "frame atom 3"],
    masses: Float[np.ndarray, " atom"],
    host: np.ndarray,
) -> Float[np.ndarray, "frame atom 3"]:
    """Return positions from which the motion of the host's centre of mass is subtracted.

    Args:
        positions: Å, unwrapped.
        masses: amu.
        host: Which atoms make up the host.
    """
    weights = np.where(host, masses, 0.0)
    centre = np.einsum("i,tia->ta", weights / weights.sum(), positions)
    return positions - (centre - centre[0])[:, None]
