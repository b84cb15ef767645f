"""Covariances of mean squared displacements that are averaged over overlapping windows.

A displacement over the window [s, s + a) is Gaussian, its mean square m(τ) = 2Dτ + O φ(τ):
diffusion, and a vibration whose φ goes from 0 to 1 as it forgets where it began. Increments of a
process with stationary increments are correlated as

    c = ½ [m(|a - u|) + m(|u + b|) - m(|u|) - m(|u + b - a|)] = 2D o(u) + O η(u),   u = t - s   (1)

for the windows [s, s + a), [t, t + b); o is the length of their overlap. Squares of Gaussians
covary as 2c² (tensors: eq. 3), and so do their means over origins s and t:

    cov = 2 [4D² K_oo + 4DO K_on + O² K_nn],   K_xy(a, b) = ⟨x(t - s) y(t - s)⟩_st              (2)

For A:M, M the tensor of second moments, A a symmetric matrix, **D** and **O** tensors,

    cov = 2 [4 tr(ADAD) K_oo + 4 tr(ADAO) K_on + tr(AOAO) K_nn].                                (3)

Where D is due to rare jumps, their fourth cumulant κ per time adds, a jump being in both windows,

    κ K_e,   K_e(a, b) = ⟨o(t - s)⟩_st.                                                     (4)

For φ that jumps to 1 at once these are the covariances of Michalet, Phys. Rev. E 82, 041914 (2010),
and of Bullerjahn, von Bülow and Hummer, J. Chem. Phys. 153, 024116 (2020).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Windows:
    """Sets of windows, each of one length, at equally spaced origins, in frames.

    Attributes:
        lags: Length of the windows of each set.
        first: First origin.
        origins: How many.
        spacing: Frames between origins.
    """

    lags: Int[np.ndarray, " set"]
    first: Int[np.ndarray, " set"]
    origins: Int[np.ndarray, " set"]
    spacing: Int[np.ndarray, " set"]

    def __len__(self) -> int:
        return len(self.lags)


@dataclass(frozen=True)
class Kernels:
    """K of eqs. (2) and (4): overlaps in ps², mixed and events in ps, noise without unit."""

    overlaps: Float[np.ndarray, "set set"]
    mixed: Float[np.ndarray, "set set"]
    noise: Float[np.ndarray, "set set"]
    events: Float[np.ndarray, "set set"]

    def covariance(self, weights: tuple[float, float, float]) -> Float[np.ndarray, "set set"]:
        """Return Σ weights · K of eq. (2)."""
        return weights[0] * self.overlaps + weights[1] * self.mixed + weights[2] * self.noise


def gaussian_weights(A: np.ndarray, D: np.ndarray, O: np.ndarray) -> tuple[float, float, float]:
    """Return the factors of K_oo, K_on and K_nn in eq. (3)."""
    AD, AO = A @ D, A @ O
    return (
        8 * float(np.trace(AD @ AD)),
        8 * float(np.trace(AD @ AO)),
        2 * float(np.trace(AO @ AO)),
    )


def window_kernels(
    windows: Windows,
    forgotten: Float[np.ndarray, " frame"],
    interval_ps: float,
    rows: int | None = None,
) -> Kernels:
    """Return K for all pairs of sets.

    Args:
        windows: Sets; where spacings differ, the larger is a multiple of the smaller.
        forgotten: φ at 0, 1, 2, … frames, 0 at first; 1 from its end on.
        interval_ps: Time between frames.
        rows: Fill only so many rows (and columns) of K; by default all.
    """
    size = len(windows)
    table = np.append(forgotten, 1.0)
    out = np.zeros((4, size, size))
    for n in range(size if rows is None else rows):
        a, sa, na = (int(k[n]) for k in (windows.lags, windows.spacing, windows.origins))
        for step in np.unique(windows.spacing[n:]).tolist():
            others = n + np.flatnonzero(windows.spacing[n:] == step)
            b = windows.lags[others, None]
            base = min(sa, step)
            # a thirtieth of the memory of φ resolves it
            stride = base * max(1, len(forgotten) // (30 * base))
            shift = windows.first[others, None] - windows.first[n]
            low, high = -(b.max() + len(forgotten)), a + len(forgotten)
            u = np.arange(-(-low // stride) * stride, high + 1, stride)[None, :] + shift % base
            o = np.maximum(0, np.minimum(a, u + b) - np.maximum(0, u))
            ends = np.abs(np.stack(np.broadcast_arrays(a - u, u + b, u, u + b - a)))
            phi = table[np.minimum(ends, len(table) - 1)]
            eta = 0.5 * (phi[0] + phi[1] - phi[2] - phi[3])
            count = _pairs(u - shift, sa, na, step, windows.origins[others, None])
            weight = count * (stride / base) / (na * windows.origins[others, None])
            for kind, product in enumerate((o * o, o * eta, eta * eta, o)):
                out[kind, n, others] = out[kind, others, n] = np.sum(weight * product, axis=1)
    units = np.array([interval_ps**2, interval_ps, 1.0, interval_ps])
    return Kernels(*(out * units[:, None, None]))


def _pairs(u: np.ndarray, sa: int, na: int, sb: int, nb: np.ndarray) -> np.ndarray:
    """Return how many pairs (s, t), s = 0, sa, …, t = 0, sb, …, have t - s = u."""
    if sb >= sa:
        first = np.maximum(0, -(-u // sb))
        last = np.minimum(nb - 1, (u + (na - 1) * sa) // sb)
    else:  # count s = t - u instead
        first = np.maximum(0, -(u // sa))
        last = np.minimum(na - 1, ((nb - 1) * sb - u) // sa)
    return np.maximum(0, last - first + 1)
