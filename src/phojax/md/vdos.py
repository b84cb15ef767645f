"""Vibrational densities of states from velocities.

    C_s(τ) = Σ_(i in s) m_i ⟨v_i(t₀) · v_i(t₀ + τ)⟩                                         (1)
    g_s(ν) = 4 / C_s(0) ∫_0^∞ w(τ) C_s(τ) cos(2πντ) dτ,   w(τ) = cos²(πτ / 2W), τ < W        (2)
    centre = ∫ν g_s dν / ∫g_s dν                                                            (3)

C_s(0) = 3 N_s k_B T. In a classical harmonic crystal every mode holds k_B T, so that (2) is the
density of states projected on s, smeared by the transform of the Hann window (half of the peak
is 1/W wide), and (3) the mean frequency of its modes. g_s(0) is not zero where atoms diffuse:
D = k_B T g_s(0) / 4 m for an element; (3) is therefore given over all ν > 0 and without what is
below 0.1 THz (PHYSICS E5). The mass-weighted total comes last, after the species.

A thermostat with friction γ (Langevin) broadens every line to a Lorentzian, whose tail γ/π²ν² moves
(3) by γ/π² ln(ν₂/ν₁) between ν₁ and ν₂: 0.15 THz for 1 ps⁻¹ from 20 THz to the end of the grid at
83 THz (6 fs between frames), and without bound as frames come closer. `highest_THz`, above the
highest vibration, ends the integrals where nothing but the tail is left.

Where a run holds no velocities they are central differences of positions, which see a motion of
frequency ν reduced by sin(x)/x, x = 2πν dt. (2) is divided by its square up to three quarters of
the highest frequency, where that factor is 0.09; beyond, nothing is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import constants

from phojax.checks import check_finite, check_shape, fail
from phojax.md.trajectory import Trajectory

DIFFUSIVE_THz = 0.1
"""Below this the motion counts as diffusive (PHYSICS E5)."""

_REACH = 0.75  # of the highest frequency, that central differences are corrected up to
_AT_A_TIME = 16  # atoms transformed together
KELVIN = constants.atomic_mass * 1e4 / constants.k
"""K of 1 amu Å²/ps² (1.2027)."""


@dataclass(frozen=True)
class VelocityAutocorrelation:
    """Eq. (1) of a run.

    Attributes:
        values: amu Å²/ps², by species in the order of `species`.
        interval_ps: Between lags; the first is 0.
        species: Atomic numbers, ascending.
        atoms: How many of each.
        frames: Length of the run.
        differenced: Whether the velocities are central differences of positions.
    """

    values: Float[np.ndarray, "lag species"]
    interval_ps: float
    species: tuple[int, ...]
    atoms: tuple[int, ...]
    frames: int
    differenced: bool = False

    @property
    def temperatures_K(self) -> Float[np.ndarray, " species"]:
        """Kinetic temperature of each species, its momentum as a whole included."""
        return self.values[0] * KELVIN / (3 * np.array(self.atoms))


@dataclass(frozen=True)
class VibrationalDos:
    """Densities of states by species, the mass-weighted total last.

    Attributes:
        frequencies_THz: From 0.
        density: Eq. (2) in 1/THz: the integral over all frequencies is 1.
        species: Atomic numbers, ascending; 0 for the total.
        window_ps: W.
        resolution_THz: Width of a sharp line at half of its height.
        centre_all_THz: Eq. (3) over ν > 0, up to `highest_THz` where that was given.
        centre_vibrational_THz: Eq. (3) over ν > 0.1 THz, likewise.
        diffusive_share: Integral of (2) below 0.1 THz.
        differenced: Whether central differences have been corrected for.
        notes: What a reader should know.
    """

    frequencies_THz: Float[np.ndarray, " f"]
    density: Float[np.ndarray, "f group"]
    species: tuple[int, ...]
    window_ps: float
    resolution_THz: float
    centre_all_THz: Float[np.ndarray, " group"]
    centre_vibrational_THz: Float[np.ndarray, " group"]
    diffusive_share: Float[np.ndarray, " group"]
    differenced: bool = False
    notes: tuple[str, ...] = ()


def velocity_autocorrelation(
    run: Trajectory, *, longest_ps: float = 10.0
) -> VelocityAutocorrelation:
    """Return eq. (1) with all time origins, the motion of the centre of mass subtracted.

    Args:
        run: Frames; without velocities they are differenced.
        longest_ps: Longest lag; cut to half of the run.

    Raises:
        InputError: fewer than 8 frames.
    """
    if len(run) < 8:
        raise fail(f"{len(run)} frames", "at least 8", "Run longer or write frames more often")
    differenced = run.velocities is None
    source = run.positions if run.velocities is None else run.velocities
    frames = len(source) - 2 if differenced else len(source)
    lags = min(round(longest_ps / run.interval_ps), frames // 2) + 1
    length = 1 << (frames + lags - 1).bit_length()  # no overlap with what wraps around
    share = run.masses / run.masses.sum()
    centre = _velocities(np.einsum("i,tia->ta", share, source), run.interval_ps, differenced)
    species = np.unique(run.numbers)
    spectra = np.zeros((length // 2 + 1, len(species)))
    for first in range(0, len(run.numbers), _AT_A_TIME):
        some = slice(first, first + _AT_A_TIME)
        v = _velocities(source[:, some], run.interval_ps, differenced) - centre[:, None]
        transform = np.fft.rfft(v, length, axis=0)
        power = np.sum(transform.real**2 + transform.imag**2, axis=2) * run.masses[some]
        spectra += power @ (run.numbers[some, None] == species).astype(float)
    sums = np.fft.irfft(spectra, length, axis=0)[:lags]
    return VelocityAutocorrelation(
        sums / (frames - np.arange(lags))[:, None],
        run.interval_ps,
        tuple(int(z) for z in species),
        tuple(int(np.sum(run.numbers == z)) for z in species),
        frames,
        differenced,
    )


def _velocities(source: np.ndarray, interval: float, differenced: bool) -> np.ndarray:
    return (source[2:] - source[:-2]) / (2 * interval) if differenced else source


def vdos(
    run: Trajectory,
    *,
    window_ps: float = 10.0,
    padding: int = 4,
    highest_THz: float | None = None,
) -> VibrationalDos:
    """Return the densities of states of a run; see `vdos_from_vacf`."""
    found = velocity_autocorrelation(run, longest_ps=window_ps)
    notes = []
    reached = found.interval_ps * (len(found.values) - 1)
    if reached < 0.99 * window_ps:
        notes.append(f"the run allows a window of {reached:.3g} ps, not {window_ps:.3g} ps")
    return vdos_from_vacf(
        found.values,
        found.interval_ps,
        found.species,
        window_ps=min(window_ps, reached),
        padding=padding,
        highest_THz=highest_THz,
        differenced=found.differenced,
        notes=notes,
    )


def vdos_from_vacf(
    vacf: Float[np.ndarray, "lag species"],
    interval_ps: float,
    species: Sequence[int],
    *,
    window_ps: float | None = None,
    padding: int = 4,
    highest_THz: float | None = None,
    differenced: bool = False,
    notes: Sequence[str] = (),
) -> VibrationalDos:
    """Return the densities of states that belong to autocorrelations.

    Args:
        vacf: Eq. (1), amu Å²/ps² (any unit that all species share), lags from 0.
        interval_ps: Between lags.
        species: Atomic number of each column.
        window_ps: W of eq. (2); by default and at most the longest lag.
        padding: The frequencies are at most 1 / (2 W padding) apart.
        highest_THz: Where the integrals of (3) and of the diffusive share end; by default with the
            grid.
        differenced: Whether the velocities are central differences of positions.
        notes: Kept with the result.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a species that is at rest,
            a window shorter than 4 intervals.
    """
    check_shape("vacf", vacf, (None, len(species)), "one column per species")
    check_finite("vacf", vacf)
    if not np.all(vacf[0] > 0):
        raise fail("a species without kinetic energy", "atoms that move")
    longest = (len(vacf) - 1) * interval_ps
    window = longest if window_ps is None else min(window_ps, longest)
    points = round(window / interval_ps)
    if points < 4 or padding < 1:
        raise fail(
            f"frames {interval_ps:.3g} ps apart, a window of {window:.3g} ps, padding {padding}",
            "a window of at least 4 frames, a padding of at least 1",
            "Write frames more often, or run longer",
        )
    total = np.concatenate([vacf, vacf.sum(axis=1, keepdims=True)], axis=1)[: points + 1]
    hann = np.cos(0.5 * np.pi * np.arange(points + 1) / points) ** 2
    # an even function of τ: its cosine transform, trapezoids, is that of a periodic sequence
    size = (1 << (padding * points - 1).bit_length()) + 1
    padded = np.zeros((size, total.shape[1]))
    padded[: points + 1] = hann[:, None] * total / total[0]
    even = np.concatenate([padded, padded[-2:0:-1]])
    density = 2 * interval_ps * np.fft.rfft(even, axis=0).real
    frequencies = np.arange(size) / (2 * interval_ps * (size - 1))
    told = list(notes)
    if differenced:
        density, frequencies, missing = _corrected(density, frequencies, interval_ps)
        told.append(
            "velocities are central differences of positions, corrected by (x/sin x)², "
            f"x = 2πν dt, up to {frequencies[-1]:.3g} THz; {missing:.2g} of the (uncorrected) "
            "density lay beyond"
        )
    resolution = 1 / (points * interval_ps)
    if resolution > DIFFUSIVE_THz:
        told.append(
            f"lines are {resolution:.2g} THz wide: what is below {DIFFUSIVE_THz} THz is not "
            f"resolved; use a window of {1 / DIFFUSIVE_THz:.0f} ps or more"
        )
    inside = frequencies <= (np.inf if highest_THz is None else highest_THz)
    if frequencies[inside][-1] <= DIFFUSIVE_THz:
        raise fail(f"highest_THz {highest_THz}", f"more than {DIFFUSIVE_THz} THz")
    if not inside.all():
        beyond = 1 - np.trapezoid(density[inside, -1], frequencies[inside])
        told.append(f"{beyond:.2g} of the density lies above {highest_THz:g} THz and is left out")
    everything, centre_all = _integrals(frequencies[inside], density[inside], 0.0)
    vibrational, centre_vibrational = _integrals(
        frequencies[inside], density[inside], DIFFUSIVE_THz
    )
    return VibrationalDos(
        frequencies,
        density,
        (*(int(z) for z in species), 0),
        points * interval_ps,
        resolution,
        centre_all,
        centre_vibrational,
        1 - vibrational / everything,
        differenced,
        tuple(told),
    )


def _corrected(
    density: np.ndarray, frequencies: np.ndarray, interval: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return density and frequencies in reach of the correction, and the share out of reach."""
    kept = frequencies <= _REACH / (2 * interval)
    missing = 1 - float(np.trapezoid(density[kept, -1], frequencies[kept]))
    density, frequencies = density[kept], frequencies[kept]
    density = density / np.sinc(2 * frequencies * interval)[:, None] ** 2
    return density / np.trapezoid(density, frequencies, axis=0), frequencies, missing


def _integrals(
    frequencies: np.ndarray, density: np.ndarray, low: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return ∫g dν over ν > low and eq. (3) over the same range."""
    above = frequencies > low
    at_low = [np.interp(low, frequencies, column) for column in density.T]
    nu = np.concatenate([[low], frequencies[above]])
    g = np.concatenate([[at_low], density[above]])
    area = np.trapezoid(g, nu, axis=0)
    return area, np.trapezoid(nu[:, None] * g, nu, axis=0) / area
