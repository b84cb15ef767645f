"""Diffusion of charge: collective diffusion, the Haven ratio and the ionic conductivity.

    D_c = lim ⟨|Σ_i Δr_i|²⟩ / 6 N τ,   H = D* / D_c                                        (1)
    σ = n q² D / k_B T                                                                     (2)

D* is that of single ions; with it (2) is the Nernst-Einstein conductivity (Haven ratio 1), with D_c
the conductivity, correlations between ions of this element included. n is their number density.
A run has one sum over all ions: D_c is less certain than D* by about the root of their number.
Positions are relative to the host. Source: Murch, Solid State Ionics 7, 177 (1982).
"""

from dataclasses import dataclass

import numpy as np
from scipy import constants

from phojax.checks import fail
from phojax.md.diffusion import BEGIN_ps, Diffusion, diffusion, estimated
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.slopes import straight_line

NERNST_EINSTEIN = constants.e**2 / constants.k * 1e20
"""σ in S/cm of n = 1 Å⁻³, D = 1 Å²/ps, T = 1 K and charge 1 (1.8592e5)."""


@dataclass(frozen=True)
class Conductivity:
    """Eq. (2) in S/cm, with 95 % intervals.

    Attributes:
        temperature_K: T.
        number_density: n, Å⁻³.
        charge: q in units of e.
        tracer: From D*: Haven ratio 1.
        tracer_interval: Of it.
        collective: From D_c: Haven ratio as found.
        collective_interval: Of it.
        haven_ratio: H of eq. (1).
        haven_interval: Of it.
        below_detection: D* is censored: `tracer_interval[1]` bounds the conductivity.
        collective_below_detection: D_c is censored.
    """

    temperature_K: float
    number_density: float
    charge: float
    tracer: float
    tracer_interval: tuple[float, float]
    collective: float
    collective_interval: tuple[float, float]
    haven_ratio: float
    haven_interval: tuple[float, float]
    below_detection: bool
    collective_below_detection: bool


def collective_diffusion(
    statistics: DisplacementStatistics, number: int | None = None, *, begin_ps: float = BEGIN_ps
) -> Diffusion:
    """Return D_c of eq. (1) in Å²/ps; what it holds is per ion.

    Args:
        statistics: Of one run, or merged ones.
        number: Atomic number, the mobile ion by default.
        begin_ps: First lag of the fit.

    Raises:
        InputError: all atoms are of that element (their sum is at rest), or as `diffusion`.
    """
    z = statistics.mobile if number is None else number
    if z not in statistics.species:
        raise fail(f"element {z}", f"one of {statistics.species}")
    if len(statistics.species) < 2:
        raise fail("a single element", "a host, against which charge moves")
    count = int(np.sum(statistics.numbers == z))
    moments = statistics.collective[:, statistics.species.index(z)] / count
    line = straight_line(statistics, moments, np.eye(3), begin_ps)
    return estimated(statistics, moments, line, np.eye(3), "total", z, None)


def haven_ratio(tracer: Diffusion, collective: Diffusion) -> tuple[float, tuple[float, float]]:
    """Return H and its 95 % interval, the errors of both taken as independent on log scales.

    They are positively correlated, so that the interval is rather too wide. Its upper end is inf
    where D_c is below detection, its lower end 0 where D* is; H is NaN where D_c ≤ 0.
    """
    H = tracer.D / collective.D if collective.D > 0 else float("nan")
    low, high = 0.0, float("inf")
    if tracer.interval[0] > 0:
        base = tracer.D / max(collective.D, 1e-300)
        down = np.log(tracer.D / tracer.interval[0])
        more = np.log(collective.interval[1] / max(collective.D, 1e-300))
        low = float(base * np.exp(-np.hypot(down, more)))
    if collective.interval[0] > 0 and tracer.D > 0:
        up = np.log(tracer.interval[1] / tracer.D)
        less = np.log(collective.D / collective.interval[0])
        high = float(H * np.exp(np.hypot(up, less)))
    return H, (low, high)


def conductivity(
    statistics: DisplacementStatistics,
    volume: float,
    temperature_K: float,
    *,
    charge: float = 1.0,
    number: int | None = None,
    begin_ps: float = BEGIN_ps,
) -> Conductivity:
    """Return eq. (2), with and without the Haven ratio.

    Args:
        statistics: Of one run, or merged ones.
        volume: Of the cell, Å³.
        temperature_K: T.
        charge: Of an ion, in e.
        number: Atomic number, the mobile ion by default.
        begin_ps: First lag of the fits, or a later one if D* needs it.

    Raises:
        InputError: volume, temperature or charge without meaning, or as `collective_diffusion`.
    """
    if not (volume > 0 and temperature_K > 0 and charge != 0):
        raise fail(
            f"volume {volume} Å³, temperature {temperature_K} K, charge {charge}",
            "positive volume and temperature, a charge that is not 0",
        )
    alone = diffusion(statistics, number, begin_ps=begin_ps)
    together = collective_diffusion(statistics, number, begin_ps=float(alone.lags_ps[0]))
    n = float(np.sum(statistics.numbers == alone.number)) / volume
    H, interval = haven_ratio(alone, together)

    def sigma(D: float) -> float:
        return nernst_einstein(D, n, temperature_K, charge)

    return Conductivity(
        temperature_K=temperature_K,
        number_density=n,
        charge=charge,
        tracer=sigma(alone.D),
        tracer_interval=(sigma(alone.interval[0]), sigma(alone.interval[1])),
        collective=sigma(together.D),
        collective_interval=(sigma(together.interval[0]), sigma(together.interval[1])),
        haven_ratio=H,
        haven_interval=interval,
        below_detection=alone.below_detection,
        collective_below_detection=together.below_detection,
    )


def nernst_einstein(
    D: float, number_density: float, temperature_K: float, charge: float = 1.0
) -> float:
    """Return eq. (2) in S/cm, for D in Å²/ps, n in Å⁻³ and the charge in e."""
    return NERNST_EINSTEIN * number_density * charge**2 * D / temperature_K
