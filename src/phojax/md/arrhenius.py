"""Activation energies from diffusion at several temperatures.

    ln D = ln D₀ - E_a / k_B T                                                             (1)
    -ln L = Σ (ln D_i - ln D(T_i))² / 2σ_i² - Σ_censored ln Φ(z - z D(T_i) / D_lim,i)          (2)

by maximum likelihood. σ_i is the error of ln D_i. Of a temperature below detection only that is
known: an estimate scatters by D_lim / z around D, z = 1.96, and stayed below D_lim. Left out, such
temperatures bias E_a towards small values, because where chance made D large it was not censored.

Where the points scatter more than their errors allow (p < 0.05) errors are made larger by
√(χ²/ν) and the interval is that of Student's t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, stats

from phojax.checks import check_shape, fail
from phojax.md.diffusion import Diffusion
from phojax.units import KB

_Z = float(stats.norm.ppf(0.975))
_ROOM_K = 300.0


@dataclass(frozen=True)
class Arrhenius:
    """A fit of eq. (1).

    Attributes:
        activation_meV: E_a.
        activation_error_meV: Standard error; NaN where nothing is known of it.
        activation_interval_meV: 95 %.
        prefactor: D₀, Å²/ps.
        log_prefactor_error: Standard error of ln D₀.
        covariance: Of (ln D₀, E_a in meV).
        quantile: That the intervals are made with.
        detected: How many temperatures were not censored.
        censored: How many were, and took part as such.
        chi2: Of the detected ones, with detected - 2 degrees of freedom; NaN without errors.
        p_value: Of it, NaN likewise.
        not_on_a_line: p < 0.05: errors are from the scatter.
    """

    activation_meV: float
    activation_error_meV: float
    activation_interval_meV: tuple[float, float]
    prefactor: float
    log_prefactor_error: float
    covariance: Float[np.ndarray, "2 2"]
    quantile: float
    detected: int
    censored: int
    chi2: float
    p_value: float
    not_on_a_line: bool

    def diffusion_at(self, temperature_K: float = _ROOM_K) -> tuple[float, tuple[float, float]]:
        """Return D at a temperature, Å²/ps, and its 95 % interval."""
        slope = np.array([1.0, -1e-3 / (KB * temperature_K)])
        log = float(slope @ [np.log(self.prefactor), self.activation_meV])
        half = self.quantile * float(np.sqrt(slope @ self.covariance @ slope))
        with np.errstate(over="ignore"):
            return float(np.exp(log)), (float(np.exp(log - half)), float(np.exp(log + half)))


def arrhenius(
    temperatures_K: Sequence[float] | Float[np.ndarray, " t"],
    found: Sequence[Diffusion],
    *,
    use_censored: bool = True,
) -> Arrhenius:
    """Return the fit of diffusion coefficients with errors.

    Args:
        temperatures_K: One per coefficient.
        found: Diffusion coefficients; those below detection count as censored.
        use_censored: Whether those take part in the fit.

    Raises:
        InputError: fewer than two temperatures above detection.
    """
    censored = np.array([d.below_detection for d in found], bool)
    sigma = np.array([1.0 if c else _log_error(d) for d, c in zip(found, censored, strict=True)])
    keep = np.ones(len(found), bool) if use_censored else ~censored
    check_shape("temperatures_K", temperatures_K, (len(found),), "one per coefficient")
    return arrhenius_fit(
        np.asarray(temperatures_K, float)[keep],
        np.array([d.D for d in found], float)[keep],
        sigma[keep],
        censored=censored[keep],
        limits=np.array([d.detection_limit for d in found], float)[keep],
    )


def arrhenius_fit(
    temperatures_K: Float[np.ndarray, " t"],
    D: Float[np.ndarray, " t"],
    log_errors: Float[np.ndarray, " t"] | None = None,
    *,
    censored: Bool[np.ndarray, " t"] | None = None,
    limits: Float[np.ndarray, " t"] | None = None,
) -> Arrhenius:
    """Return the fit of eq. (2); without errors all points weigh the same, as in `paper` fits.

    Args:
        temperatures_K: T.
        D: Å²/ps; of censored ones it is not looked at.
        log_errors: Standard errors of ln D; without them the error is from the scatter, and needs
            three temperatures: it is NaN for two.
        censored: Which are below detection; needs errors and limits.
        limits: Detection limits, Å²/ps.

    Raises:
        InputError: shapes that do not fit, D ≤ 0 that is not censored, errors that are not
            positive, fewer than two different temperatures above detection.
    """
    T = np.asarray(temperatures_K, float)
    hidden = np.zeros(len(T), bool) if censored is None else np.asarray(censored, bool)
    for name, value in (("D", D), ("censored", hidden), ("log_errors", log_errors)):
        if value is not None:
            check_shape(name, value, T.shape, "one per temperature")
    shown = ~hidden
    if len(np.unique(T[shown])) < 2 or not np.all(T > 0):
        raise fail(
            f"{len(np.unique(T[shown]))} temperatures with diffusion above its detection limit",
            "at least 2 (3 for an error from their scatter), all above 0 K",
            "Run longer, or at higher temperatures",
        )
    if not np.all(np.asarray(D)[shown] > 0):
        raise fail("D that is not positive", "positive D, or marked as censored")
    if log_errors is not None and not np.all(np.asarray(log_errors)[shown] > 0):
        raise fail("errors of ln D that are not positive", "positive errors")
    if hidden.any() and (log_errors is None or limits is None):
        raise fail("censored temperatures without errors or limits", "both", "Leave them out")
    X = np.stack([np.ones_like(T), -1e-3 / (KB * T)], axis=1)  # ln D₀, E_a / meV
    y = np.log(np.asarray(D, float)[shown])
    sigma = np.ones(len(y)) if log_errors is None else np.asarray(log_errors, float)[shown]
    A = X[shown] / sigma[:, None]
    # in coordinates in which the detected points have unit covariance the minimum is easy to find
    to_fit = np.linalg.inv(np.linalg.cholesky(A.T @ A)).T
    start = to_fit.T @ A.T @ (y / sigma)
    if hidden.any():
        assert limits is not None
        caps = np.asarray(limits, float)[hidden]
        if not np.all(caps > 0):
            raise fail("detection limits that are not positive", "positive limits")
        rows = X[hidden] @ to_fit

        def minus_log(c):
            ratio = np.exp(np.minimum(rows @ c - np.log(caps), 50))
            return 0.5 * np.sum((c - start) ** 2) - np.sum(stats.norm.logcdf(_Z - _Z * ratio))

        best = optimize.minimize(minus_log, start, method="BFGS", options={"gtol": 1e-8}).x
        inner = np.linalg.inv(_hessian(minus_log, best))
    else:
        best, inner = start, np.eye(2)
    found = to_fit @ best
    covariance = to_fit @ inner @ to_fit.T
    chi2 = float(np.sum(((y - X[shown] @ found) / sigma) ** 2))
    left = len(y) - 2
    p = float(stats.chi2.sf(chi2, left)) if left > 0 and log_errors is not None else np.nan
    misfit = bool(p < 0.05)
    quantile = _Z
    if log_errors is None or misfit:
        covariance = covariance * (chi2 / left if left > 0 else np.nan)
        quantile = float(stats.t.ppf(0.975, left)) if left > 0 else np.nan
    error = np.sqrt(np.diag(covariance))
    Ea = float(found[1])
    return Arrhenius(
        activation_meV=Ea,
        activation_error_meV=float(error[1]),
        activation_interval_meV=(
            Ea - quantile * float(error[1]),
            Ea + quantile * float(error[1]),
        ),
        prefactor=float(np.exp(found[0])),
        log_prefactor_error=float(error[0]),
        covariance=covariance,
        quantile=quantile,
        detected=int(shown.sum()),
        censored=int(hidden.sum()),
        chi2=chi2 if log_errors is not None else float("nan"),
        p_value=p,
        not_on_a_line=misfit,
    )


def _log_error(d: Diffusion) -> float:
    """Return the error of ln D, from the interval where it has two ends."""
    low, high = d.interval
    if low > 0 and np.isfinite(high):
        return float(np.log(high / low)) / (2 * _Z)
    return d.standard_error / d.D


def _hessian(f, at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    out = np.empty((2, 2))
    for a in range(2):
        for b in range(2):
            one, two = step * np.eye(2)[a], step * np.eye(2)[b]
            up = f(at + one + two) - f(at + one - two)
            down = f(at - one + two) - f(at - one - two)
            out[a, b] = (up - down) / (4 * step**2)
    return out
