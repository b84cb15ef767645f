"""What is seen of a crystal at one temperature, in a run of ours or in anybody's trajectory.

Runs of ours sum things up on the device, trajectories of others are summed up here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

from phojax.checks import fail
from phojax.md.accumulators import Accumulators, statistics
from phojax.md.density import (
    IonDensity,
    density_from_counts,
    grid_shape,
    ion_density,
)
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.displacements import displacement_statistics, merged, single_origin_msd
from phojax.md.framework import FrameworkCheck, polyanion_check
from phojax.md.systems import Systems
from phojax.md.trajectory import Trajectory
from phojax.md.vdos import (
    VelocityAutocorrelation,
    velocity_autocorrelation,
)

SECTIONS = 8
"""Parts of a trajectory whose scatter is looked at."""

_TEMPERATURE_OFF = (0.5, 1.5)  # kinetic over stated temperature, beyond which something is wrong


@dataclass(frozen=True)
class Observed:
    """What was seen of one crystal at one temperature, replicas taken together.

    Attributes:
        temperature_K: That of the thermostat, or as said by the user; None where unknown.
        statistics: Of displacements.
        first_msd: Per replica, displacements from the first frame, Å², frame 0 included.
        vacf: Of velocities; None where frames are too few.
        density: Of the mobile ions; None where nothing was counted.
        cell: Lattice vectors as rows, Å.
        numbers: Atomic numbers.
        masses: amu.
        replicas: How many.
        polyanions: Whether the host's polyanions stay in place, where a trajectory is there.
    """

    temperature_K: float | None
    statistics: DisplacementStatistics
    first_msd: tuple[Float[np.ndarray, "frame species 3"], ...]
    vacf: VelocityAutocorrelation | None
    density: IonDensity | None
    cell: Float[np.ndarray, "3 3"]
    numbers: np.ndarray
    masses: np.ndarray
    replicas: int
    polyanions: FrameworkCheck | None = None

    @property
    def mobile(self) -> int:
        """Atomic number of the mobile ion."""
        return self.statistics.mobile

    @property
    def kinetic_K(self) -> float:
        """Kinetic temperature over all atoms, K; NaN where no velocities are known."""
        if self.vacf is None:
            return float("nan")
        atoms = np.array(self.vacf.atoms)
        return float(self.vacf.temperatures_K @ atoms / atoms.sum())

    @property
    def temperature_off(self) -> bool:
        """Whether the atoms move at quite another temperature than the one stated."""
        if self.temperature_K is None or self.vacf is None:
            return False
        low, high = _TEMPERATURE_OFF
        ratio = self.kinetic_K / self.temperature_K
        # Differences over long intervals miss much of the motion: little is no wonder then.
        return ratio > high or (ratio < low and not self.vacf.differenced)

    @property
    def ions_per_A3(self) -> float:
        """Number density of the mobile ions."""
        ions = int(np.sum(self.numbers == self.mobile))
        return ions / abs(float(np.linalg.det(self.cell)))


def observed_of_sums(
    sums: Accumulators,
    systems: Systems,
    numbers: Sequence[int],
    first_msd: Sequence[Float[np.ndarray, "frame species 3"]],
    mobile: int,
    interval_ps: float,
) -> Observed:
    """Return what was summed up of some systems, replicas of each other.

    Args:
        sums: Of the run.
        systems: What moved.
        numbers: Which of them.
        first_msd: Displacements from the first frame, of each.
        mobile: Atomic number of the mobile element.
        interval_ps: Time between frames.

    Raises:
        InputError: no system with two frames.
    """
    counted = np.asarray(sums.counted)
    kept = [n for n in numbers if counted[n] >= 2]
    if not kept:
        raise fail("no two frames of a sane system", "a run that lasts")
    longest = max(int(counted[n]) for n in kept)
    # One that was stopped early says little that the others do not say better.
    whole = [n for n in kept if counted[n] == longest]
    found = [statistics(sums, systems, n, mobile, interval_ps) for n in whole]
    real = np.asarray(systems.real[whole[0]])
    Z = np.asarray(systems.crystals.numbers[whole[0]])[real]
    cell = np.asarray(systems.crystals.cell[whole[0]])
    species = found[0].species
    shape = tuple(int(n) for n in np.asarray(sums.grid[whole[0]]))
    counts = sum(np.asarray(sums.density[n])[: int(np.prod(shape))] for n in whole)
    return Observed(
        temperature_K=float(systems.temperatures[whole[0]]),
        statistics=found[0] if len(found) == 1 else merged(found),
        first_msd=tuple(
            _from_rest(first_msd[list(numbers).index(n)][: int(counted[n]), : len(species)])
            for n in whole
        ),
        vacf=_vacf_of(sums, whole, Z, species, longest, interval_ps),
        density=density_from_counts(
            np.asarray(counts).reshape(shape), len(whole) * longest, cell, mobile
        ),
        cell=cell,
        numbers=Z,
        masses=np.asarray(systems.crystals.masses[whole[0]])[real],
        replicas=len(whole),
    )


def observed_of_trajectory(
    run: Trajectory, mobile: int, temperature_K: float | None, *, spacing: float = 0.2
) -> Observed:
    """Return what is to be seen in a trajectory.

    Args:
        run: Frames.
        mobile: Atomic number of the mobile element.
        temperature_K: K, where it is known.
        spacing: Å, of the density grid.

    Raises:
        InputError: no mobile ion, fewer than 2 frames.
    """
    if not np.any(run.numbers == mobile):
        there = ", ".join(chemical_symbols[z] for z in np.unique(run.numbers))
        raise fail(
            f"the trajectory holds {there}",
            f"the mobile element {chemical_symbols[mobile]}",
            "Name another one with --mobile",
        )
    grid_shape(run.cell, spacing)
    return Observed(
        temperature_K=temperature_K,
        statistics=displacement_statistics(run, mobile, sections=min(SECTIONS, len(run))),
        first_msd=(single_origin_msd(run, mobile),),
        vacf=velocity_autocorrelation(run) if len(run) >= 8 else None,
        density=ion_density(run, mobile, spacing=spacing),
        cell=run.cell,
        numbers=run.numbers,
        masses=run.masses,
        replicas=1,
        polyanions=polyanion_check(run, mobile, early=True) if len(run) >= 5 else None,
    )


def _from_rest(msd: Float[np.ndarray, "frame species 3"]) -> Float[np.ndarray, "later species 3"]:
    """Return the displacements with those of the first frame itself."""
    return np.concatenate([np.zeros((1, *msd.shape[1:])), msd])


def _vacf_of(
    sums: Accumulators, which: list[int], numbers, species: tuple[int, ...], frames, interval_ps
) -> VelocityAutocorrelation | None:
    origins = sum(np.asarray(sums.vacf_origins[n]) for n in which)
    totals = sum(np.asarray(sums.vacf[n])[:, : len(species)] for n in which)
    kept = np.asarray(origins) > 0
    if kept.sum() < 5:
        return None
    return VelocityAutocorrelation(
        np.asarray(totals)[kept] / np.asarray(origins)[kept][:, None],
        interval_ps,
        species,
        tuple(int(np.sum(numbers == z)) for z in species),
        frames,
    )


__all__ = ["SECTIONS", "Observed", "observed_of_sums", "observed_of_trajectory"]
