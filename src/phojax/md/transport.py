"""All of transport at one temperature: what a run, or anybody's trajectory, has to say.

Runs of ours and trajectories of others go the same way once they are `Observed`.
"""

from dataclasses import dataclass, replace

import numpy as np

from phojax.checks import InputError
from phojax.md.channels import Channels, Percolation, channels, percolation
from phojax.md.collective import Conductivity, collective_diffusion, conductivity
from phojax.md.density import (
    smoothed,
)
from phojax.md.diffusion import (
    Diffusion,
    DiffusionTensor,
    diffusion,
    diffusion_axes,
    diffusion_tensor,
)
from phojax.md.framework import FrameworkCheck, framework_check
from phojax.md.observed import Observed
from phojax.md.through_origin import ThroughOrigin, through_origin
from phojax.md.vdos import (
    VibrationalDos,
    vdos_from_vacf,
)

SMOOTHING = 0.3
"""Å, width of the Gaussian that densities are smoothed with before channels are looked for."""

HIGHEST_THz = 40.0
"""Above this nothing but hydrogen vibrates; what a thermostat leaves there is no vibration."""


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


__all__ = ["SMOOTHING", "HIGHEST_THz", "Transport", "transport"]
