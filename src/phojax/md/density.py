"""Where ions have been: their number density on a grid that fills the cell.

    ρ(x) = counts(x) / (frames · volume of a grid cell),   Σ_x ρ(x) ΔV = N                    (1)

Point (i, j, k) of an (n₁, n₂, n₃) grid lies at i/n₁ a₁ + j/n₂ a₂ + k/n₃ a₃ and counts the ions
nearest to it along the lattice vectors. The frame of reference is the centre of mass of the other
elements (PHYSICS E2, E7).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from phojax.checks import check_finite, check_shape, fail
from phojax.md.trajectory import Trajectory, host_of, without_drift

_AT_A_TIME = 1 << 20  # positions sorted into the grid together


@dataclass(frozen=True)
class IonDensity:
    """Eq. (1).

    Attributes:
        values: 1/Å³.
        cell: Lattice vectors as rows, Å.
        number: Atomic number of the ion.
        samples: Positions that were counted.
    """

    values: Float[np.ndarray, "x y z"]
    cell: Float[np.ndarray, "3 3"]
    number: int
    samples: int

    @property
    def voxel(self) -> float:
        """Volume of a grid cell in Å³."""
        return float(abs(np.linalg.det(self.cell)) / self.values.size)


def grid_shape(cell: Float[np.ndarray, "3 3"], spacing: float = 0.2) -> tuple[int, int, int]:
    """Return the fewest points along each vector that are at most `spacing` (Å) apart.

    Raises:
        InputError: a spacing that is not positive, or more than 2e8 points.
    """
    if not spacing > 0:
        raise fail(f"a spacing of {spacing} Å", "a positive length")
    # a vector of 6.000000001 Å has 30 intervals of 0.2 Å, not 31
    lengths = np.linalg.norm(cell, axis=1)
    x, y, z = (max(1, int(np.ceil(a / spacing - 1e-6))) for a in lengths)
    if x * y * z > 2e8:
        raise fail(f"a grid of {x} × {y} × {z} points", "at most 2e8", "Use a larger spacing")
    return x, y, z


def counts_on_grid(
    positions: Float[np.ndarray, "*sample 3"],
    cell: Float[np.ndarray, "3 3"],
    shape: tuple[int, int, int],
) -> Int[np.ndarray, "x y z"]:
    """Return how many of the positions (Å, wrapped or not) are nearest to each grid point."""
    flat = positions.reshape(-1, 3)
    inverse, n = np.linalg.inv(cell), np.array(shape)
    counts = np.zeros(int(np.prod(n)), int)
    for first in range(0, len(flat), _AT_A_TIME):
        index = np.rint(flat[first : first + _AT_A_TIME] @ inverse * n).astype(int) % n
        where = np.ravel_multi_index((index[:, 0], index[:, 1], index[:, 2]), shape)
        counts += np.bincount(where, minlength=len(counts))
    return counts.reshape(shape)


def density_from_counts(
    counts: Int[np.ndarray, "x y z"], frames: int, cell: Float[np.ndarray, "3 3"], number: int
) -> IonDensity:
    """Return eq. (1) of counts accumulated over `frames` frames.

    Raises:
        InputError: nothing counted.
    """
    samples = int(counts.sum())
    if samples == 0 or frames < 1:
        raise fail(f"{samples} counts in {frames} frames", "an element of the run")
    volume = abs(np.linalg.det(cell)) / counts.size
    return IonDensity(counts / (frames * volume), np.asarray(cell, float), int(number), samples)


def ion_density(run: Trajectory, number: int, *, spacing: float = 0.2) -> IonDensity:
    """Return the density of an element, the motion of the host subtracted.

    Args:
        run: Frames.
        number: Atomic number.
        spacing: Å between grid points, at most.

    Raises:
        InputError: an element that the run does not have.
    """
    some = run.numbers == number
    if not some.any():
        raise fail(f"element {number}", f"one of {sorted(set(run.numbers.tolist()))}")
    still = without_drift(run.positions, run.masses, host_of(run.numbers, number))
    counts = counts_on_grid(still[:, some], run.cell, grid_shape(run.cell, spacing))
    return density_from_counts(counts, len(run), run.cell, number)


def smoothed(density: IonDensity, width: float) -> IonDensity:
    """Return the density convolved with a periodic Gaussian of standard deviation `width` (Å).

    Exact for any lattice (in reciprocal space). What the finite grid makes negative is set to zero
    and the number of ions restored.

    Raises:
        InputError: a width below the spacing of the grid, which could not hold the Gaussian.
    """
    shape = density.values.shape
    check_finite("density", density.values)
    steps = density.cell / np.array(shape)[:, None]
    widest = float(np.linalg.norm(steps, axis=1).max())
    if width < widest:
        raise fail(f"a width of {width} Å", f"at least the spacing of the grid, {widest:.3g} Å")
    axes = [np.fft.fftfreq(n, 1 / n) for n in shape[:2]] + [np.arange(shape[2] // 2 + 1.0)]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    k = 2 * np.pi * index @ np.linalg.inv(density.cell).T
    damping = np.exp(-0.5 * width**2 * np.sum(k**2, axis=-1))
    values = np.fft.irfftn(np.fft.rfftn(density.values) * damping, shape, axes=(0, 1, 2))
    values = np.maximum(values, 0.0)
    values *= density.values.sum() / values.sum()
    return IonDensity(values, density.cell, density.number, density.samples)


def check_density(density: IonDensity) -> None:
    """Raise InputError unless the density is one: finite, not negative, somewhere positive."""
    check_shape("density", density.values, (None, None, None))
    check_finite("density", density.values)
    if density.values.min() < 0 or not density.values.max() > 0:
        raise fail("a density that is negative or zero everywhere", "ions somewhere")
