"""Diffusion coefficients with errors that hold (PHYSICS E3).

    D = Σ_l w_l A:M(τ_l) / 2 tr A,   A the identity (n = 3), or n nᵀ for a direction (n = 1)    (1)

with the weights w of slopes.py; V(D), and from it the interval and what counts as detected, as in
estimates.py. Three things make errors larger than those of independent Gaussian ions: rare jumps,
vibrations that differ between ions, motion in concert. The errors are never made smaller, but where
ions differ for good (the scatter between them says nothing on the error of their mean), and
the sections show it.

Weights favour short lags, which are known best. Where the motion is not diffusion yet at `begin`,
the points are not on a line; then the fit begins at twice that time, and so on until they are, and
once more, as long as half the run is at least four times as long (Bullerjahn et al., J. Chem. Phys.
153, 024116 (2020), choose the time step likewise).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import stats

from phojax.checks import fail
from phojax.md.displacement_statistics import DisplacementStatistics
from phojax.md.estimates import Variance
from phojax.md.scatter import Concert, between_ions, concert
from phojax.md.slopes import Line, straight_line
from phojax.md.windows import gaussian_weights

BEGIN_ps = 2.0
"""End of the ballistic part."""

_SHORT = 4.0  # half the run should be so many times the first lag
_SUB = 0.75  # log slope of diffusion that is not yet
_POOR = 1e-3  # probability of a χ² that large
_SETTLED = 0.01  # likewise, above which a fit need not begin later


@dataclass(frozen=True)
class Diffusion:
    """A diffusion coefficient.

    Attributes:
        number: Atomic number of the ion.
        direction: "total", or the name of a direction.
        D: Å²/ps; may be negative by chance.
        standard_error: Of D, Å²/ps.
        interval: 95 %, Å²/ps; from 0 where D is below detection.
        detection_limit: What 97.5 % of estimates stay below where nothing diffuses, Å²/ps.
        intercept: Of the mean squared displacement, Å²: twice that of the vibration.
        lags_ps: Fitted.
        msd: Fitted, Å².
        weights: Of `msd` in the slope, 2 tr A D.
        chi2: Of the residuals, with len(lags_ps) - 2 degrees of freedom.
        p_value: Probability of a χ² at least as large.
        log_slope: d ln MSD / d ln τ over the last half of the lags: 1 for diffusion.
        log_slope_error: Standard error of it.
        events: Variance over that of Gaussian ions, from the scatter between ions.
        concert: Variance over that of independent ions, from the scatter between sections.
        below_detection: D is censored: nothing but `interval[1]` is known. So are curves that bend
            (subdiffusive and a poor fit): their slope only falls further.
        too_short: Half the run is less than four times the first lag.
        subdiffusive: The log slope is below 0.75, beyond its error or in a poor fit.
        begins_late: The fit begins later than asked for, because the points were not on a line.
        poor_fit: The points are not on a line (p < 0.001).
        in_concert: Sections scatter more than independent ions would (p < 0.01).
    """

    number: int
    direction: str
    D: float
    standard_error: float
    interval: tuple[float, float]
    detection_limit: float
    intercept: float
    lags_ps: Float[np.ndarray, " used"]
    msd: Float[np.ndarray, " used"]
    weights: Float[np.ndarray, " used"]
    chi2: float
    p_value: float
    log_slope: float
    log_slope_error: float
    events: float
    concert: float
    below_detection: bool
    too_short: bool
    subdiffusive: bool
    poor_fit: bool
    in_concert: bool
    begins_late: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of what is the matter."""
        names = (
            "below_detection",
            "too_short",
            "subdiffusive",
            "poor_fit",
            "in_concert",
            "begins_late",
        )
        return tuple(name for name in names if getattr(self, name))


@dataclass(frozen=True)
class DiffusionTensor:
    """The tensor of diffusion, all components from the weights of the total.

    Attributes:
        tensor: Å²/ps.
        eigenvalues: Å²/ps, ascending; noise alone parts them.
        eigenvectors: In columns.
        errors: Standard errors of the eigenvalues, Å²/ps.
        intervals: 95 % of the diffusion along the eigenvectors, Å²/ps.
        below_detection: Whether the diffusion along each eigenvector is censored.
    """

    tensor: Float[np.ndarray, "3 3"]
    eigenvalues: Float[np.ndarray, "3"]
    eigenvectors: Float[np.ndarray, "3 3"]
    errors: Float[np.ndarray, "3"]
    intervals: Float[np.ndarray, "3 2"]
    below_detection: tuple[bool, bool, bool]


def diffusion(
    statistics: DisplacementStatistics,
    number: int | None = None,
    *,
    begin_ps: float = BEGIN_ps,
    direction: Float[np.ndarray, "3"] | None = None,
) -> Diffusion:
    """Return the diffusion coefficient of an element in Å²/ps.

    Args:
        statistics: Of one run, or merged ones.
        number: Atomic number, the mobile ion by default.
        begin_ps: First lag of the fit, or a later one; see the module's header. The last is half
            the run.
        direction: Along this vector; by default a third of the trace of the tensor.

    Raises:
        InputError: an element that is not there, a run without two lags to fit.
    """
    z = _number(statistics, number)
    A, name = _functional(direction)
    moments = statistics.moments(z)

    def fit(begin: float) -> Diffusion:
        line = straight_line(statistics, moments, A, begin)
        return estimated(statistics, moments, line, A, name, z, concert(statistics, z, line))

    return _settled(fit, begin_ps)


def diffusion_axes(
    statistics: DisplacementStatistics, number: int | None = None, *, begin_ps: float = BEGIN_ps
) -> tuple[Diffusion, Diffusion, Diffusion]:
    """Return the diffusion along x, y and z (n = 1); see `diffusion`."""
    x, y, z = np.eye(3)
    return (
        diffusion(statistics, number, begin_ps=begin_ps, direction=x),
        diffusion(statistics, number, begin_ps=begin_ps, direction=y),
        diffusion(statistics, number, begin_ps=begin_ps, direction=z),
    )


def diffusion_tensor(
    statistics: DisplacementStatistics, number: int | None = None, *, begin_ps: float = BEGIN_ps
) -> DiffusionTensor:
    """Return the tensor of diffusion, whose trace is three times the total; see `diffusion`."""
    z = _number(statistics, number)
    moments = statistics.moments(z)
    begin = diffusion(statistics, z, begin_ps=begin_ps).lags_ps[0]
    line = straight_line(statistics, moments, np.eye(3), float(begin))
    tensor = np.einsum("l,lab->ab", line.slope, moments[line.used]) / 2
    values, vectors = np.linalg.eigh(tensor)
    together = concert(statistics, z, line)
    along = []
    for n in range(3):
        A, name = _functional(vectors[:, n])
        along.append(estimated(statistics, moments, line, A, name, z, together))
    a, b, c = along
    return DiffusionTensor(
        tensor,
        values,
        vectors,
        np.array([d.standard_error for d in along]),
        np.array([d.interval for d in along]),
        (a.below_detection, b.below_detection, c.below_detection),
    )


def estimated(
    statistics: DisplacementStatistics,
    moments: Float[np.ndarray, "lag 3 3"],
    line: Line,
    A: Float[np.ndarray, "3 3"],
    direction: str,
    number: int,
    together: Concert | None,
) -> Diffusion:
    """Return what a line says on A:M; `together` is None for a single walker, all ions as one."""
    n = float(np.trace(A))
    msd = np.einsum("lab,ab->l", moments[line.used], A)
    D, intercept = float(line.slope @ msd) / (2 * n), float(line.offset @ msd)
    variance, heavy = _variance(statistics, line, A, D, number, together)
    se = float(np.sqrt(variance(D)))
    low, high = variance.interval(D)
    limit = variance.limit()
    factors = gaussian_weights(A, line.diffusion, line.vibration)
    if together is not None:
        factors = (*factors[:2], factors[2] * _uneven(statistics, line, A, number))
    ions = 1 if together is None else int(np.sum(number == statistics.numbers))
    covariance = line.kernels.covariance(factors) / (ions * line.runs)
    inflation = (se * 2 * n) ** 2 / max(float(line.slope @ covariance @ line.slope), 1e-300)
    covariance = covariance * max(1.0, inflation)
    residuals = msd - 2 * n * D * line.lags_ps - intercept
    chi2 = _chi2(residuals, covariance, line.lags_ps)
    left = len(msd) - 2
    p = float(stats.chi2.sf(chi2, left)) if left > 0 else 1.0
    alpha, alpha_error = _log_slope(line.lags_ps, msd, covariance)
    subdiffusive = bool(alpha + (0 if p < _POOR else 2 * alpha_error) < _SUB)
    if subdiffusive and p < _POOR:
        low = 0.0
    # Not the longest lag: where sums are kept at few lags it can be shorter by a quarter.
    half = statistics.frames * statistics.interval_ps / 2
    g = together or Concert()
    alone = stats.chi2.sf(g.ratio * g.freedom, g.freedom) if g.freedom > 0 else 1.0
    return Diffusion(
        number=number,
        direction=direction,
        D=D,
        standard_error=se,
        interval=(low, high),
        detection_limit=limit,
        intercept=intercept,
        lags_ps=line.lags_ps,
        msd=msd,
        weights=line.slope,
        chi2=chi2,
        p_value=p,
        log_slope=alpha,
        log_slope_error=alpha_error,
        events=heavy,
        concert=g.ratio,
        below_detection=low <= 0,
        too_short=bool(half < _SHORT * line.lags_ps[0]),
        subdiffusive=subdiffusive,
        poor_fit=p < _POOR,
        in_concert=bool(alone < 0.01),
    )


def _settled(fit: Callable[[float], Diffusion], begin_ps: float) -> Diffusion:
    """Return the first of fits that begin later and later whose points are on a line."""

    def later(found: Diffusion) -> Diffusion | None:
        if found.lags_ps[-1] < 2 * _SHORT * found.lags_ps[0]:
            return None
        return replace(fit(2 * float(found.lags_ps[0])), begins_late=True)

    found = fit(begin_ps)
    while found.p_value < _SETTLED:
        if (after := later(found)) is None:
            return found
        found = after
    # what is left where points begin to look like a line is still a bias of some errors
    return (later(found) or found) if found.begins_late else found


def _number(statistics: DisplacementStatistics, number: int | None) -> int:
    z = statistics.mobile if number is None else number
    if z not in statistics.species:
        raise fail(f"element {z}", f"one of {statistics.species}")
    return z


def _functional(direction: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Return A, and the name of what it measures."""
    if direction is None:
        return np.eye(3), "total"
    n = np.asarray(direction, float)
    if n.shape != (3,) or not np.linalg.norm(n) > 0:
        raise fail(f"direction {direction}", "a vector of three numbers, not zero")
    n = n / np.linalg.norm(n)
    axis = np.flatnonzero(np.abs(n) > 1 - 1e-9)
    return np.outer(n, n), "xyz"[axis[0]] if len(axis) else "along a direction"


def _variance(
    statistics, line: Line, A: np.ndarray, D: float, number: int, together: Concert | None
) -> tuple[Variance, float]:
    """Return V of estimates.py, and by how much single ions scatter more than Gaussian ones."""
    B = A / (2 * np.trace(A))  # D = slope of B:M
    parts = line.variances()
    uneven = _uneven(statistics, line, A, number) if together is not None else 1.0
    noise = gaussian_weights(B, line.diffusion, line.vibration)[2] * parts[2] * uneven
    if together is None:
        y, ions = np.array([D]), 1
    else:
        y = between_ions(statistics, number, line, B)
        ions = len(y)
    seen = y.var(ddof=1) if ions > 1 else 0.0
    shape = np.eye(3)
    if 2 * np.sqrt(noise / ions) < D:
        shape = line.diffusion / max(D, float(np.trace(line.diffusion @ A) / np.trace(A)))
    square, linear, _ = gaussian_weights(B, shape, line.vibration) * parts
    gaussian = Variance(square, linear, noise)
    heavy = seen / max(gaussian(D), 1e-300) if ions > 1 else 1.0
    extra = max(0.0, seen - gaussian(D)) * (1.0 if together is None else together.events)
    events = 0.0
    if 2 * np.sqrt(noise / ions) < D:
        events = extra / D
    else:
        noise += extra
    g, freedom = _inflation(together)
    scale = g / ions
    return (
        Variance(square * scale, linear * scale, noise * scale, events * scale, freedom),
        float(heavy),
    )


def _inflation(together: Concert | None) -> tuple[float, float]:
    """Return the factor on the variance, not below 1, and its degrees of freedom."""
    if together is None or together.freedom <= 0 or together.ratio <= 1:
        return 1.0, np.inf
    return together.ratio, together.freedom / (1 - 1 / together.ratio) ** 2


def _uneven(statistics, line: Line, A: np.ndarray, number: int) -> float:
    """Return ⟨O²⟩ / ⟨O⟩² over the ions: those of large amplitude make most of the noise."""
    members = statistics.atoms[line.used][:, number == statistics.numbers]
    offsets = np.einsum("l,liab,ab->i", line.offset, members, A)
    factors = gaussian_weights(A, line.diffusion, line.vibration)
    by_chance = float(np.dot(factors, line.offset_variances()))
    if len(offsets) < 2 or offsets.mean() <= 0:
        return 1.0
    apart = max(0.0, float(offsets.var(ddof=1)) - 2 * by_chance)
    return 1 + apart / float(offsets.mean()) ** 2


def _chi2(residuals: np.ndarray, covariance: np.ndarray, tau: np.ndarray) -> float:
    """Return the sum of squares of what is left, in the directions that no line has."""
    X = np.stack([tau, np.ones_like(tau)], axis=1)
    basis = np.linalg.svd(X)[0][:, 2:]
    if not basis.size:
        return 0.0
    inside = basis.T @ covariance @ basis
    r = basis.T @ residuals
    return float(r @ np.linalg.pinv(inside, hermitian=True, rcond=1e-12) @ r)


def _log_slope(tau: np.ndarray, msd: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    late = np.arange(len(tau)) >= min(len(tau) // 2, len(tau) - 2)
    if np.any(msd[late] <= 0):
        return np.nan, np.nan
    x = np.log(tau[late])
    w = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    relative = covariance[np.ix_(late, late)] / np.outer(msd[late], msd[late])
    return float(w @ np.log(msd[late])), float(np.sqrt(w @ relative @ w))
