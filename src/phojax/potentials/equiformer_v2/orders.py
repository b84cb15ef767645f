"""Coefficients of features by degree l and order m, and grids on the sphere.

A feature has (lmax + 1)² coefficients of real spherical harmonics in e3nn's convention: the polar
axis is y, those of l = 1 are x, y, z. They are kept by degree,

    (0, 0), (1, -1), (1, 0), (1, 1), (2, -2), …                                              (1)

and in the frame of an edge by order, those with |m| <= mmax alone,

    m = 0: l = 0 … lmax;   m = 1: l = 1 … lmax, then m = -1: l = 1 … lmax;   m = ±2: …        (2)

so that what a rotation about the edge mixes stands together (paper, sect. 3.2). Degrees of which
orders are missing count for the missing ones by the factor

    g_l = √((2l + 1) / (2 mmax + 1))  for l > mmax,  1 otherwise                              (3)

where they leave the frame and on grids. A grid has latitudes β_b = π (b + ½) / B and longitudes
α_a = 2π a / A; functions go there and back ("component" normalisation of e3nn) by

    to:    √(4π / (lmax + 1)) / √(2l + 1) Y_lm(β, α)                                          (4)
    back:  √(4π (lmax + 1)) √(2l + 1) w_b B² / A Y_lm(β, α)                                   (5)
    w_b = 2/B³ sin β_b Σ_k sin((2k + 1) β_b) / (2k + 1),   k < B/2                            (6)

with the weights of Driscoll and Healy (1994), which integrate polynomials of degree < B exactly.
Source: Liao, Wood, Das, Smidt, ICLR 2024 (arXiv:2306.12059).
"""

import functools
import math

import numpy as np
from jaxtyping import Float


def degrees(lmax: int) -> np.ndarray:
    """Return l of each coefficient in the order (1)."""
    return np.repeat(np.arange(lmax + 1), 2 * np.arange(lmax + 1) + 1)


@functools.cache
def kept(lmax: int, mmax: int) -> tuple[tuple[int, int], ...]:
    """Return (l, m) in the order (2)."""
    found = [(l, 0) for l in range(lmax + 1)]
    for m in range(1, mmax + 1):
        found += [(l, s * m) for s in (1, -1) for l in range(m, lmax + 1)]
    return tuple(found)


def gains(lmax: int, mmax: int) -> Float[np.ndarray, " kept"]:
    """Return the factors of eq. (3) in the order (2)."""
    return np.array([_gain(l, mmax) for l, _ in kept(lmax, mmax)])


@functools.cache
def grid(
    lmax: int, mmax: int, resolution: int | None
) -> tuple[Float[np.ndarray, "point kept"], Float[np.ndarray, "kept point"]]:
    """Return the matrices of eqs. (4) and (5), with eq. (3), in the order (2).

    Args:
        lmax, mmax: Of the functions.
        resolution: B = A; where None, just enough for functions of these degrees.
    """
    B = resolution or 2 * (lmax + 1)
    A = resolution or (2 * mmax + 3 if lmax == mmax else 2 * mmax + 1)
    beta = math.pi * (np.arange(B) + 0.5) / B
    alpha = 2 * math.pi * np.arange(A) / A
    odd = 2 * np.arange(B // 2) + 1
    sums = (np.sin(odd * beta[:, None]) / odd).sum(1)
    weights = 2 / B**3 * np.sin(beta) * sums * B**2 / A
    to, back = [], []
    for l, m in kept(lmax, mmax):
        Y = np.outer(_polar(l, abs(m), beta), _azimuthal(m, alpha))
        size, gain = math.sqrt(2 * l + 1), _gain(l, mmax)
        to.append(math.sqrt(4 * math.pi / (lmax + 1)) / size * gain * Y)
        back.append(math.sqrt(4 * math.pi * (lmax + 1)) * size * gain * weights[:, None] * Y)
    return np.stack(to, -1).reshape(B * A, -1), np.stack(back).reshape(-1, B * A)


def by_degree(lmax: int) -> np.ndarray:
    """Return where each coefficient of the order (1) stands in the order (2), mmax = lmax."""
    place = {lm: k for k, lm in enumerate(kept(lmax, lmax))}
    return np.array([place[l, m] for l in range(lmax + 1) for m in range(-l, l + 1)])


def _gain(l: int, mmax: int) -> float:
    return math.sqrt((2 * l + 1) / (2 * mmax + 1)) if l > mmax else 1.0


def _polar(l: int, m: int, beta: np.ndarray) -> np.ndarray:
    """Return √((2l+1)/4π (l-m)!/(l+m)!) P_l^m(cos β) without the sign (-1)^m."""
    y, s = np.cos(beta), np.sin(beta)
    P = math.prod(range(1, 2 * m, 2)) * s**m
    before = np.zeros_like(P)
    for k in range(m + 1, l + 1):
        P, before = ((2 * k - 1) * y * P - (k + m - 1) * before) / (k - m), P
    factor = math.factorial(l - m) / math.factorial(l + m)
    return math.sqrt((2 * l + 1) / (4 * math.pi) * factor) * P


def _azimuthal(m: int, alpha: np.ndarray) -> np.ndarray:
    if m == 0:
        return np.ones_like(alpha)
    return math.sqrt(2) * (np.cos(m * alpha) if m > 0 else np.sin(-m * alpha))


__all__ = ["by_degree", "degrees", "gains", "grid", "kept"]
