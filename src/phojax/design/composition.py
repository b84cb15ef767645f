"""Which compositions are allowed, and the real ones nearest to shares of elements.

Shares p_ke of elements e on mixture k, of which there are m_k atoms, obey

    p_ke ≥ 0,   Σ_e p_ke = 1,   Σ_k m_k Σ_e p_ke z_e = Q,
    low_e ≤ Σ_k m_k p_ke / Σ_k m_k ≤ high_e                                                (1)

z_e being charges and Q that of the mixed sites at the start. Whole numbers n_ke of atoms obey the
same with p = n / m; the nearest ones minimise Σ |n - m p|, an integer linear program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from optax.projections import projection_simplex
from scipy import optimize

from phojax.checks import fail

_EXACT = 1e-9


@dataclass(frozen=True)
class Composition:
    """The constraints of eq. (1).

    Attributes:
        elements: Symbols.
        counts: m, atoms of each mixture.
        charges: z of some elements, all of them or none.
        charge: Q.
        fractions: (low, high) of some elements, among all mixed sites.
    """

    elements: tuple[str, ...]
    counts: tuple[int, ...]
    charges: Mapping[str, float] = field(default_factory=dict)
    charge: float = 0.0
    fractions: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.charges and set(self.charges) != set(self.elements):
            raise fail(f"charges of {', '.join(self.charges)}", f"of {', '.join(self.elements)}")
        for symbol, (low, high) in self.fractions.items():
            if symbol not in self.elements or not 0 <= low <= high <= 1:
                raise fail(
                    f"a fraction of {symbol} between {low:g} and {high:g}",
                    f"of {', '.join(self.elements)}, between 0 and 1, the lower end first",
                )
        if self._trivial:
            return
        linear: dict[str, Any] = self._linear()
        found = optimize.linprog(np.zeros(self._size), **linear, bounds=(0, 1))
        if not found.success:
            raise fail(
                "constraints on the composition that contradict each other",
                "some composition that meets all of them",
                "Look at the charges and the fractions",
            )

    @property
    def _size(self) -> int:
        return len(self.counts) * len(self.elements)

    @property
    def _trivial(self) -> bool:
        return not self.fractions and len(set(self.charges.values())) <= 1

    def _rows(self, each: Mapping[str, float] | Sequence[float]) -> np.ndarray:
        """Return Σ_k m_k Σ_e c_e p_ke as a row over (mixture, element)."""
        c = [each.get(e, 0.0) for e in self.elements] if isinstance(each, Mapping) else each
        return np.outer(self.counts, np.asarray(c, float)).reshape(-1)

    def _linear(self) -> dict[str, np.ndarray]:
        one = np.repeat(np.eye(len(self.counts)), len(self.elements), axis=1)
        A, b = [*one], [1.0] * len(one)
        if len(set(self.charges.values())) > 1:
            A, b = [*A, self._rows(self.charges)], [*b, self.charge]
        out = {"A_eq": np.array(A), "b_eq": np.array(b)}
        if self.fractions:
            low, high = np.array(list(self.fractions.values())).T * sum(self.counts)
            share = np.array([self._rows({symbol: 1.0}) for symbol in self.fractions])
            out |= {"A_ub": np.concatenate([share, -share]), "b_ub": np.concatenate([high, -low])}
        return out

    def projected(self, shares: np.ndarray) -> np.ndarray:
        """Return the nearest shares, in least squares, that obey eq. (1)."""
        simple = np.stack([np.asarray(projection_simplex(jnp.asarray(row))) for row in shares])
        if self._trivial:
            return simple
        linear = self._linear()
        constraints = [
            {"type": "eq", "fun": lambda p: linear["A_eq"] @ p - linear["b_eq"],
             "jac": lambda p: linear["A_eq"]},
        ]  # fmt: skip
        if "A_ub" in linear:
            constraints.append(
                {"type": "ineq", "fun": lambda p: linear["b_ub"] - linear["A_ub"] @ p,
                 "jac": lambda p: -linear["A_ub"]},
            )  # fmt: skip
        wanted = np.asarray(shares, float).reshape(-1)
        found = optimize.minimize(
            lambda p: 0.5 * np.sum((p - wanted) ** 2), simple.reshape(-1),
            jac=lambda p: p - wanted, bounds=[(0, 1)] * self._size, constraints=constraints,
            method="SLSQP", options={"ftol": 1e-14, "maxiter": 1000},
        )  # fmt: skip
        return np.clip(found.x, 0, 1).reshape(np.shape(shares))

    def nearest_whole(self, shares: np.ndarray) -> np.ndarray | None:
        """Return whole numbers of atoms (mixture, element) nearest to shares; None for none.

        A cell may hold no whole numbers that obey eq. (1): a larger one may.
        """
        size, m = self._size, np.repeat(self.counts, len(self.elements))
        wanted = m * np.asarray(shares, float).reshape(-1)
        # Unknowns: n, and the distance d ≥ ±(n - m p) of each.
        one = np.eye(size)
        bounds = [
            _between(np.hstack([one, -one]), -np.inf, wanted),
            _between(np.hstack([one, one]), wanted, np.inf),
        ]
        linear = self._linear()
        A = linear["A_eq"] / m
        A[: len(self.counts)] *= np.asarray(self.counts)[:, None]
        b = np.concatenate([self.counts, linear["b_eq"][len(self.counts) :]])
        zero = np.zeros_like(A)
        bounds.append(_between(np.hstack([A, zero]), b - _EXACT, b + _EXACT))
        if "A_ub" in linear:
            A = linear["A_ub"] / m
            most = linear["b_ub"] + _EXACT
            bounds.append(_between(np.hstack([A, np.zeros_like(A)]), -np.inf, most))
        most_atoms: Any = np.concatenate([m, np.full(size, np.inf)])
        found = optimize.milp(
            np.concatenate([np.zeros(size), np.ones(size)]),
            integrality=np.concatenate([np.ones(size), np.zeros(size)]),
            bounds=optimize.Bounds(0, most_atoms),
            constraints=bounds,
        )
        if not found.success:
            return None
        return np.rint(found.x[:size]).astype(int).reshape(np.shape(shares))


def _between(A: np.ndarray, low: Any, high: Any) -> optimize.LinearConstraint:
    return optimize.LinearConstraint(A, low, high)


__all__ = ["Composition"]
