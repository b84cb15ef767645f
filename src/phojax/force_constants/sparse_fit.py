"""Least squares with a penalty on Σ|y|, for many sets of data at once.

    y(λ) = argmin ½ yᵀ G y - b·y + λ ‖y‖₁                                                     (1)

is found from G = AᵀA and b = AᵀF alone. Optimality (Karush, Kuhn, Tucker), with g = b - G y:

    g_j = λ sign(y_j) where y_j ≠ 0,     |g_j| <= λ elsewhere                                    (2)

The largest departure from (2), divided by λ, is what a solution is judged by and carries along.
Proximal gradient steps with momentum come first, on the device and for all sets at once (Beck,
Teboulle, SIAM J. Imaging Sci. 2, 183 (2009); the momentum starts anew when it points uphill:
O'Donoghue, Candès, Found. Comput. Math. 15, 715 (2015)). Where they are slow, the equations (2)
are solved on the support they found, one sign or member of it corrected at a time (feature-sign
search: Lee, Battle, Raina, Ng, NIPS 19 (2007)), which is exact. A path of λ is walked from the
largest down, each solution being the start of the next.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import linalg

from phojax.checks import check_float64

_STEPS = 300  # proximal steps between two looks at the support
_ROUNDS = 40
_STILL = 1e-14
_CORRECTIONS = 60  # of the support in a round


@dataclass(frozen=True)
class SparseSolutions:
    """Solutions of (1) for one λ.

    Attributes:
        values: y of each set.
        violation: Largest departure from (2), in units of λ.
        steps: Proximal steps taken.
    """

    values: Float[np.ndarray, "set unknown"]
    violation: Float[np.ndarray, " set"]
    steps: int


class SparseProblems:
    """G and b of several sets, with the step lengths of their proximal gradients."""

    def __init__(
        self,
        gram: Float[np.ndarray, "set unknown unknown"],
        right: Float[np.ndarray, "set unknown"],
    ):
        """Keep the arrays on the device.

        Raises:
            InputError: where JAX is set to float32.
        """
        self.gram, self.right = gram, right
        self._G, self._b = jnp.asarray(gram), jnp.asarray(right)
        check_float64("the Gram matrices of a sparse fit", self._G)
        self._lipschitz = _largest_eigenvalues(self._G)

    @property
    def largest_penalty(self) -> float:
        """The smallest λ for which y = 0 solves every set."""
        return float(np.abs(self.right).max())

    def solutions(
        self,
        penalty: float,
        start: Float[np.ndarray, "set unknown"] | None = None,
        tolerance: float = 1e-6,
    ) -> SparseSolutions:
        """Return the solutions of (1) for λ = `penalty`.

        Args:
            penalty: λ.
            start: Where to begin; 0 by default.
            tolerance: Of (2), in units of λ. What is not reached stands in `violation`.
        """
        y = np.zeros_like(self.right) if start is None else np.asarray(start)
        steps = 0
        worst = np.full(len(y), np.inf)
        for _ in range(_ROUNDS):
            before = y
            found = _proximal(
                self._G, self._b, self._lipschitz, jnp.asarray(y), penalty, tolerance, _STEPS
            )
            y, worst = np.array(found[0]), np.array(found[1])
            steps += int(found[2].max())
            for k in np.flatnonzero(worst > tolerance):
                y[k] = _corrected(self.gram[k], self.right[k], y[k], penalty, tolerance)
                worst[k] = violation(self.gram[k], self.right[k], y[k], penalty)
            if np.all(worst <= tolerance):
                break
            if np.abs(y - before).max() <= _STILL * np.abs(y).max():
                break  # as far as rounding goes
        return SparseSolutions(y, worst, steps)


def violation(G, b, y, penalty: float) -> float:
    """Return the largest departure of y from (2), in units of λ."""
    return float(_violation(np, G, np.asarray(b), np.asarray(y), penalty))


def _violation(xp, G, b, y, penalty):
    g = b - G @ y
    off = xp.where(y != 0, xp.abs(g - penalty * xp.sign(y)), xp.maximum(xp.abs(g) - penalty, 0.0))
    return off.max() / penalty


@jax.jit
def _largest_eigenvalues(G: Float[Array, "set unknown unknown"]) -> Float[Array, " set"]:
    """Return upper bounds of the largest eigenvalues, tight to about 1 %."""

    def one(matrix):
        # tr(Gᵖ)^(1/p) is never below the largest eigenvalue; squaring makes p = 2⁹.
        def squared(_, carry):
            power, log = carry
            norm = jnp.linalg.norm(power)
            power = power / jnp.where(norm > 0, norm, 1.0)
            return power @ power, 2 * (log + jnp.log(jnp.where(norm > 0, norm, 1.0)))

        power, log = jax.lax.fori_loop(0, 9, squared, (matrix, 0.0))
        return jnp.exp((jnp.log(jnp.maximum(jnp.trace(power), 1e-300)) + log) / 2**9)

    return jax.lax.map(one, G)


@partial(jax.jit, static_argnames="most")
def _proximal(
    G: Float[Array, "set unknown unknown"],
    b: Float[Array, "set unknown"],
    lipschitz: Float[Array, " set"],
    start: Float[Array, "set unknown"],
    penalty,
    tolerance,
    most: int,
) -> tuple[Float[Array, "set unknown"], Float[Array, " set"], Int[Array, " set"]]:
    """Return y, its violation and the steps taken, at most `most`, for each set."""

    def one(G, b, lipschitz, start):
        def step(_, state):
            y, ahead, t = state
            moved = ahead + (b - G @ ahead) / lipschitz
            new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - penalty / lipschitz, 0.0)
            uphill = jnp.dot(ahead - new, new - y) > 0
            t = jnp.where(uphill, 1.0, t)
            t_new = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
            ahead = new + jnp.where(uphill, 0.0, (t - 1) / t_new) * (new - y)
            return new, ahead, t_new

        def going(state):
            return (state[1] > tolerance) & (state[2] < most)

        def several(state):
            # The conditions cost as much as a step: looked at after every ten.
            moved = jax.lax.fori_loop(0, 10, step, state[0])
            return moved, _violation(jnp, G, b, moved[0], penalty), state[2] + 10

        momentum = (start, start, jnp.ones((), start.dtype))
        begin = momentum, _violation(jnp, G, b, start, penalty), jnp.zeros((), int)
        moved, off, count = jax.lax.while_loop(going, several, begin)
        return moved[0], off, count

    return jax.vmap(one)(G, b, lipschitz, start)


def _corrected(G, b, y, penalty: float, tolerance: float) -> np.ndarray:
    """Return y after at most `_CORRECTIONS` solutions of (2) on a support, each lowering (1)."""
    y = y.copy()
    for _ in range(_CORRECTIONS):
        g = b - G @ y
        sign = np.sign(y)
        held = y != 0
        settled = np.all(np.abs(g - penalty * sign)[held] <= tolerance * penalty)
        if settled:
            outside = np.where(held, 0.0, np.abs(g) - penalty)
            worst = int(outside.argmax())
            if outside[worst] <= tolerance * penalty:
                return y
            held[worst], sign[worst] = True, np.sign(g[worst])
        S = np.flatnonzero(held)
        try:
            factor = linalg.cho_factor(G[np.ix_(S, S)], check_finite=False)
        except linalg.LinAlgError:  # dependent columns: leave it to the proximal steps
            return y
        there = linalg.cho_solve(factor, b[S] - penalty * sign[S], check_finite=False)
        # As far along the line as no sign changes; what arrives at 0 leaves the support.
        here = y[S]
        crossing = (here != 0) & (np.sign(there) != sign[S])
        entering_wrong = (here == 0) & (np.sign(there) != sign[S])
        if np.any(entering_wrong):
            return y
        if np.any(crossing):
            share = here[crossing] / (here[crossing] - there[crossing])
            first = share.min()
            y[S] = here + first * (there - here)
            y[S[np.flatnonzero(crossing)[share.argmin()]]] = 0.0
        else:
            y[S] = there
    return y
