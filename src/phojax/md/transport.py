"""All of transport at one temperature: what a run, or anybody's trajectory, has to say.

Runs of ours sum things up on the device, trajectories of others are summed up here; from there on
both go the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

from phojax.checks import InputError, fail
from phojax.md.accumulators import Accumulators, statistics
from phojax.md.arrhenius import Arrhenius, arrhenius, arrhenius_fit
from phojax.md.channels import Channels, Percolation, channels, percolation
from phojax.md.collective import Conductivity, collective_diffusion, conductivity
from phojax.md.density import (
    IonDensity,
    density_from_counts,
    grid_shape,
    ion_density,
    smoothed,
)
from phojax.md.diffusion import (
    Diffusion,
    DiffusionTensor,
    diffusion,
    diffusion_axes,
    diffusion_tensor,
)
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.displacements import displacement_statistics, merged, single_origin_msd
from phojax.md.framework import FrameworkCheck, framework_check, polyanion_check
from phojax.md.systems import Systems
from phojax.md.through_origin import ThroughOrigin, through_origin
from phojax.md.trajectory import Trajectory
from phojax.md.vdos import (
    VelocityAutocorrelation,
    VibrationalDos,
    vdos_from_vacf,
    velocity_autocorrelation,
)

SECTIONS = 8
"""Parts of a trajectory whose scatter is looked at."""

SMOOTHING = 0.3
"""Å, width of the Gaussian that densities are smoothed with before channels are looked for."""

_TEMPERATURE_OFF = (0.5, 1.5)  # kinetic over stated temperature, beyond which something is wrong

_NOT_DIFFUSION = {
    "framework_moves": "the framework moves",
    "subdiffusive": "displacements do not grow in proportion to time",
    "too_short": "the run is too short",
}

HIGHEST_THz = 40.0
"""Above this nothing but hydrogen vibrates; what a thermostat leaves there is no vibration."""


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


@dataclass(frozen=True)
class Transport:
    """What follows; None where it could not be had, with the reason in `notes`.

    Attributes:
        observed: From what.
        total: Diffusion of the mobile ions.
        axes: Along x, y, z.
        tensor: With its principal axes.
        paper: Through the origin, of displacements from the first frame, mean over replicas.
        collective: Of the sum over all mobile ions.
        conduction: Conductivities and Haven ratio, where a temperature is known.
        framework: Whether the host stays in place, by element, by lines with an intercept.
        framework_paper: By lines through the origin.
        vdos: Vibrational densities of states.
        channels: Of the smoothed density, 90 % of the ions inside.
        opening: How they open as the threshold falls.
        notes: Why things are missing.
    """

    observed: Observed
    total: Diffusion | None
    axes: tuple[Diffusion, Diffusion, Diffusion] | None
    tensor: DiffusionTensor | None
    paper: ThroughOrigin | None
    collective: Diffusion | None
    conduction: Conductivity | None
    framework: FrameworkCheck | None
    framework_paper: FrameworkCheck | None
    vdos: VibrationalDos | None
    channels: Channels | None
    opening: Percolation | None
    notes: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of what is the matter."""
        names = [] if self.total is None else list(self.total.flags)
        if self.framework is not None and not self.framework.holds:
            whole = self.observed.polyanions
            names.append("polyanions_rotate" if whole and whole.holds else "framework_moves")
        if self.observed.temperature_off:
            names.append("temperature_off")
        return tuple(names)


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


def transport(observed: Observed, *, begin_ps: float = 2.0, charge: float = 1.0) -> Transport:
    """Return all that follows from what was seen; what cannot be had is left out and said.

    Args:
        observed: At one temperature.
        begin_ps: Where the ballistic part ends.
        charge: Of a mobile ion, in e.
    """
    missing: dict[str, list[str]] = {}

    def tried(what: str, of):
        try:
            return of()
        except InputError as error:
            missing.setdefault(str(error), []).append(what)
            return None

    stats, T = observed.statistics, observed.temperature_K
    z, species = observed.mobile, observed.statistics.species
    alone = all(kind in (0, z) for kind in species)  # no framework
    volume = abs(float(np.linalg.det(observed.cell)))
    first = np.mean([x[: min(map(len, observed.first_msd))] for x in observed.first_msd], axis=0)
    spectrum = None
    if observed.vacf is None:
        missing["fewer than 8 frames"] = ["vibrational density of states"]
    else:
        vacf = observed.vacf
        highest = None if np.any(observed.numbers == 1) else HIGHEST_THz
        spectrum = tried(
            "vibrational density of states",
            lambda: vdos_from_vacf(
                vacf.values, vacf.interval_ps, vacf.species, highest_THz=highest,
                differenced=vacf.differenced,
            ),
        )  # fmt: skip
    density = observed.density
    smooth = None if density is None else smoothed(density, SMOOTHING)
    found = Transport(
        observed=observed,
        total=tried("diffusion coefficient", lambda: diffusion(stats, begin_ps=begin_ps)),
        axes=tried("diffusion by axis", lambda: diffusion_axes(stats, begin_ps=begin_ps)),
        tensor=tried("diffusion tensor", lambda: diffusion_tensor(stats, begin_ps=begin_ps)),
        paper=tried(
            "fit through the origin",
            lambda: through_origin(first[:, species.index(z)], stats.interval_ps),
        ),
        collective=tried(
            "collective diffusion", lambda: collective_diffusion(stats, begin_ps=begin_ps)
        ),
        conduction=None
        if T is None
        else tried(
            "conductivity",
            lambda: conductivity(stats, volume, T, charge=charge, begin_ps=begin_ps),
        ),
        # Lines through the origin take the vibrations of a short run for diffusion.
        framework=None
        if alone
        else tried(
            "check of the framework",
            lambda: framework_check(first, species, z, stats.interval_ps, early=True),
        ),
        framework_paper=None
        if alone
        else tried(
            "check of the framework", lambda: framework_check(first, species, z, stats.interval_ps)
        ),
        vdos=spectrum,
        channels=None if smooth is None else tried("channels", lambda: channels(smooth)),
        opening=None if smooth is None else tried("opening", lambda: percolation(smooth)),
        notes=(),
    )
    notes = [f"no {', '.join(whats)}: {why}" for why, whats in missing.items()]
    if observed.temperature_off:
        notes.append(
            f"the atoms move as at {observed.kinetic_K:.3g} K, not {T:g} K: check the temperature "
            "and the time between frames"
        )
    return replace(found, notes=tuple(notes))


@dataclass(frozen=True)
class Activation:
    """Fits over temperatures; None where there are too few.

    Attributes:
        fit: With errors, censored temperatures as such.
        paper: Of the fits through the origin.
        notes: Why one is missing.
        left_out: Of each of the runs, whether it takes no part because it shows no diffusion yet.
    """

    fit: Arrhenius | None
    paper: Arrhenius | None
    notes: tuple[str, ...]
    left_out: tuple[bool, ...]


def activation(found: Sequence[Transport]) -> Activation:
    """Return the activation energy from several temperatures; those whose host moves left out."""
    notes: list[str] = []
    kept = []
    known = [o for o in found if o.observed.temperature_K is not None and o.total is not None]
    several = len({one.observed.temperature_K for one in known}) > 1
    for one in known:
        why = [said for flag, said in _NOT_DIFFUSION.items() if flag in one.flags]
        if one.total is not None and one.total.below_detection and not one.total.poor_fit:
            # Flat because nothing diffuses: a bound, which is what the fit needs.
            why = [said for said in why if said != _NOT_DIFFUSION["subdiffusive"]]
        if not why:
            kept.append(one)
        elif several:
            T = one.observed.temperature_K
            notes.append(f"{T:g} K takes no part in the activation energy: {', '.join(why)}")
    left_out = tuple(
        any(one is other for other in known) and not any(one is other for other in kept)
        for one in found
    )
    T = np.array([one.observed.temperature_K for one in kept], float)
    if len(np.unique(T)) < 2:
        if several:
            notes.append("no activation energy: fewer than two temperatures take part")
        return Activation(None, None, tuple(notes), left_out)
    fit = paper = None
    try:
        fit = arrhenius(T, [one.total for one in kept if one.total is not None])
    except InputError as error:
        notes.append(f"no activation energy: {error}")
    origin = np.array([np.nan if one.paper is None else one.paper.average for one in kept])
    try:
        paper = arrhenius_fit(T[origin > 0], origin[origin > 0])
    except InputError as error:
        notes.append(f"no activation energy by fits through the origin: {error}")
    return Activation(fit, paper, tuple(notes), left_out)


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


__all__ = [
    "Activation",
    "HIGHEST_THz",
    "Observed",
    "Transport",
    "activation",
    "observed_of_sums",
    "observed_of_trajectory",
    "transport",
]
