"""The 95 % interval of a diffusion coefficient, from how its estimate scatters around any D.

    V(D) = (v₂ D² + v₁ D + v₀ + κ D) g,   μ₃(D) = (2 v₂² D³ + (κ g)² D / g) g²              (1)

v₂, v₁, v₀ are of Gaussian ions (windows.py), κ D is what rare jumps add (the scatter between ions),
g is concert (the scatter between sections). μ₃ is the third moment of χ² and Poisson variables with
the variances v₂D² and κD. The interval holds every D ≥ 0 whose 95 % range, with the quantile
corrected for skewness by Cornish and Fisher, contains the estimate. It is not symmetric where few
windows or few jumps carry the estimate, its lower end is 0 if V(0) could have made it, and
the detection limit is where that ends:

    q_p(D) = D + √V [z_p + (z_p² - 1) μ₃ / 6V^1.5],   limit = z_0.975 √V(0)                  (2)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Variance:
    """V of eq. (1).

    Attributes:
        square: v₂ g.
        linear: v₁ g.
        constant: v₀ g, (Å²/ps)².
        events: κ g, Å²/ps.
        freedom: Degrees of freedom that g is known with, inf where it does not matter.
    """

    square: float
    linear: float
    constant: float
    events: float = 0.0
    freedom: float = np.inf

    def __call__(self, D: float) -> float:
        """Return V at D, Å²/ps; negative D count as 0."""
        D = max(D, 0.0)
        return (self.square * D + self.linear + self.events) * D + self.constant

    def quantile(self, D: float, p: float) -> float:
        """Return eq. (2) for D ≥ 0."""
        return self._at(D, self._score(p))

    def _score(self, p: float) -> float:
        normal = np.isinf(self.freedom)
        return float(stats.norm.ppf(p) if normal else stats.t.ppf(p, self.freedom))

    def _at(self, D: float, z: float) -> float:
        variance = (self.square * D + self.linear + self.events) * D + self.constant
        if variance <= 0:
            return float(D)
        gamma = (2 * self.square**2 * D**2 + self.events**2) * D / variance**1.5
        width = float(variance) ** 0.5
        return float(D) + width * (z + (z * z - 1) * min(gamma, 3.0) / 6)

    def limit(self) -> float:
        """Return the detection limit, Å²/ps."""
        return self.quantile(0.0, (1 + LEVEL) / 2)

    def interval(self, estimate: float) -> tuple[float, float]:
        """Return the ends of the 95 % interval, 0 and inf where there is none."""
        z = self._score((1 + LEVEL) / 2)
        low = 0.0
        if estimate > self._at(0.0, z):
            low = _root(lambda D: self._at(D, z) - estimate, 0.0, estimate)
        # an estimate below what any D ≥ 0 gives bounds D no better than an estimate of 0
        base = max(estimate, 0.0)
        high = max(base, float(np.sqrt(self(base))), 1e-12)
        for _ in range(60):
            if self._at(high, -z) > base:
                return low, _root(lambda D: self._at(D, -z) - base, base, high)
            high *= 2
        return low, np.inf


def _root(f: Callable[[float], float], a: float, b: float) -> float:
    """Return where f, increasing, changes its sign in [a, b], by halving."""
    for _ in range(40):
        middle = 0.5 * (a + b)
        a, b = (a, middle) if f(middle) > 0 else (middle, b)
    return 0.5 * (a + b)
