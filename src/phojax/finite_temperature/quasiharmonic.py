"""Thermal expansion in the quasi-harmonic approximation, by derivatives in strain.

The cell at T is where, with E relaxed over the ions and F the vibrations' free energy,

    ∂/∂s [E(s) + pV(s) + F(s, T)] = 0,   H = ∂²/∂s² [E + pV + F]                            (1)

which Newton's method solves, E exact at every strain and F from `strained_matrices`. There

    ds/dT = H⁻¹ ∂S/∂s,   α = sym Σ_a (1 + ε)⁻¹ B_a ds_a/dT,   α_V = tr α                    (2)
    1/B_T = V tᵀ H⁻¹ t,   t_a = ∂ln V/∂s_a                                                  (3)
    C_p = C_ε + T (∂S/∂s)ᵀ H⁻¹ ∂S/∂s,   C_p - C_V = T V α_V² B_T                            (4)

To first order about the static minimum, where H₀ is V times the elastic tensor of relaxed ions,

    s = -H₀⁻¹ ∂F/∂s,   ds/dT = H₀⁻¹ ∂S/∂s;   cubic: α_V = γ C / (B V)                       (5)

from one set of derivatives at all temperatures. Ions stand where the static energy of the strained
cell is least: that is right to first order for the cell, but not where ions move with temperature
at no strain. What is anharmonic at a fixed cell is not in it.
Source: Allan, Barron, Bruno, J. Chem. Phys. 105, 8300 (1996) (ions at zero static internal stress);
Barron, Collins, White, Adv. Phys. 29, 609 (1980), section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phojax.checks import InputError, fail
from phojax.finite_temperature.strain_expansion import Local, StaticEnergy
from phojax.finite_temperature.strained_matrices import (
    StrainedMatrices,
    VibrationalPart,
    vibrational_part,
)
from phojax.structure import Structure
from phojax.units import EV_PER_A3_IN_GPA

_STEPS = 60
_LARGEST = 0.02  # strain in a step
_FARTHEST = 0.15  # strain: beyond it there is no such crystal any more
_DONE = 1e-10  # strain
_HALVINGS = 4

NO_MINIMUM, UNSTABLE, CROSSING, BEYOND = (
    "no_minimum", "unstable_modes", "modes_cross_zero", "beyond_expansion",
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """A crystal at a temperature.

    Attributes:
        temperature: K.
        crystal: Its cell by eq. (1); that of the static energy where there is none.
        strain: ε from the cell of the static energy, (3, 3); NaN where there is no minimum, as all
            that follows.
        volume: Å³.
        expansion: α of eq. (2), 1/K.
        bulk_modulus_GPa: Isothermal, eq. (3).
        free_energy: E + F, eV per cell.
        static_energy: E, eV per cell.
        entropy: eV/K per cell.
        heat_capacity_strain: C_ε, eV/K per cell.
        heat_capacity_pressure: C_p, eV/K per cell.
        heat_capacity_volume: C_V, the shape of the cell free, eV/K per cell.
        gruneisen: Mean of the Grüneisen tensors, weighed by heat capacities; NaN at 0 K.
        left_out: Modes with λ ≤ floor, which are in none of it.
        flags: What speaks against it: no_minimum, unstable_modes, modes_cross_zero,
            beyond_expansion.
    """

    temperature: float
    crystal: Structure
    strain: Float[np.ndarray, "3 3"]
    volume: float
    expansion: Float[np.ndarray, "3 3"]
    bulk_modulus_GPa: float
    free_energy: float
    static_energy: float
    entropy: float
    heat_capacity_strain: float
    heat_capacity_pressure: float
    heat_capacity_volume: float
    gruneisen: Float[np.ndarray, "3 3"]
    left_out: int
    flags: tuple[str, ...]

    @property
    def volume_expansion(self) -> float:
        """α_V, 1/K."""
        return float(np.trace(self.expansion))

    @property
    def found(self) -> bool:
        """Whether there is a minimum."""
        return NO_MINIMUM not in self.flags


@dataclass(frozen=True)
class FirstOrder:
    """Eq. (5) at a temperature.

    Attributes:
        temperature: K.
        strain: From the static minimum.
        expansion: α, 1/K.
        gruneisen: Mean Grüneisen tensor, weighed by heat capacities; NaN at 0 K.
        heat_capacity: C at the static minimum, eV/K per cell.
    """

    temperature: float
    strain: Float[np.ndarray, "3 3"]
    expansion: Float[np.ndarray, "3 3"]
    gruneisen: Float[np.ndarray, "3 3"]
    heat_capacity: float

    @property
    def volume_expansion(self) -> float:
        """α_V, 1/K."""
        return float(np.trace(self.expansion))


def first_order(
    static: StaticEnergy, matrices: StrainedMatrices, temperatures: Sequence[float]
) -> list[FirstOrder]:
    """Return eq. (5) at some temperatures (host).

    Args:
        static: About a minimum.
        matrices: Expanded there; first derivatives are enough.
        temperatures: T ≥ 0 in K.

    Raises:
        InputError: no minimum, a negative temperature.
    """
    _check(temperatures)
    local = static(np.zeros(static.here.dimension))
    H = _stiffness(static, local, np.zeros((len(static.strains),) * 2))
    if H is None:
        raise fail("a crystal that is no minimum of its energy", "a stable one")
    rest = jnp.zeros(len(static.strains))
    found = []
    for T in temperatures:
        part = vibrational_part(matrices, rest, float(T))
        s = -np.linalg.solve(H, np.asarray(part.by_strain))
        rate = np.linalg.solve(H, np.asarray(part.entropy_by_strain))
        found.append(FirstOrder(
            float(T), _tensor(static, s), _tensor(static, rate), _mean_gruneisen(static, part),
            float(part.heat_capacity),
        ))  # fmt: skip
    return found


def states(
    static: StaticEnergy, matrices: StrainedMatrices, temperatures: Sequence[float]
) -> list[State]:
    """Return the crystal at some temperatures, in their order (host).

    Each is followed from the next lower one, half-way between them where that fails; where the
    minimum ends, as it does where a crystal would fall apart, the rest is flagged.

    Args:
        static: About any cell, with its ions at rest there.
        matrices: Expanded there.
        temperatures: T ≥ 0 in K.

    Raises:
        InputError: a negative temperature.
    """
    _check(temperatures)
    y, last, lost = np.zeros(static.here.dimension), 0.0, False
    at: dict[float, State] = {}
    for T in sorted({float(T) for T in temperatures}):
        solved = None if lost else _followed(static, matrices, y, last, T, _HALVINGS)
        lost = solved is None
        if solved is None:
            at[T] = _nowhere(static, matrices, T)
            continue
        y, last = solved, T
        at[T] = _state(static, matrices, y, T)
    return [at[float(T)] for T in temperatures]


def _followed(static, matrices, y, last: float, T: float, halvings: int) -> np.ndarray | None:
    found = _newton(static, matrices, y, T)
    if found is not None or halvings == 0 or T - last < 1:
        return found
    middle = _followed(static, matrices, y, last, (last + T) / 2, halvings - 1)
    if middle is None:
        return None
    return _followed(static, matrices, middle, (last + T) / 2, T, halvings - 1)


def _newton(static: StaticEnergy, matrices, y: np.ndarray, T: float) -> np.ndarray | None:
    """Return the coordinates of eq. (1) at T; None where there is no minimum near."""
    n, y = static.ions, y.copy()
    for _ in range(_STEPS):
        s = static.strain_of(y)
        if np.linalg.norm(s) > _FARTHEST:
            return None
        try:
            local = static(y)
        except InputError:
            return None
        part = vibrational_part(matrices, jnp.asarray(s), T)
        g, K = local.slope.copy(), local.curvature.copy()
        g[n:] += np.asarray(part.by_strain) / static.scale
        K[n:, n:] += np.asarray(part.by_strain_twice) / static.scale**2
        if np.linalg.eigvalsh(K)[0] <= 0:
            return None
        move = -np.linalg.solve(K, g)
        move *= min(1.0, _LARGEST * static.scale / max(np.linalg.norm(move), 1e-300))
        y += move
        if np.linalg.norm(move) < _DONE * static.scale:
            return y
    return None


def _state(static: StaticEnergy, matrices: StrainedMatrices, y: np.ndarray, T: float) -> State:
    s = static.strain_of(y)
    local = static(y)
    part = vibrational_part(matrices, jnp.asarray(s), T)
    H = _stiffness(static, local, np.asarray(part.by_strain_twice))
    assert H is not None  # a minimum of both is one of the strains alone
    strain = _tensor(static, s)
    answers = np.linalg.inv(np.eye(3) + strain) @ static.strains  # (1 + ε)⁻¹ B_a
    by_T = np.linalg.solve(H, np.asarray(part.entropy_by_strain))
    rate = np.einsum("a,aij->ij", by_T, answers)
    alpha = (rate + rate.T) / 2
    t = np.trace(answers, axis1=1, axis2=2)
    volume = float(local.crystal.volume)
    bulk = 1 / (volume * t @ np.linalg.solve(H, t))
    C = float(part.heat_capacity)
    C_p = C + T * float(np.asarray(part.entropy_by_strain) @ by_T)
    flags = _flags(matrices, part, s)
    return State(
        T, local.crystal, strain, volume, alpha, bulk * EV_PER_A3_IN_GPA,
        local.energy + float(part.free_energy), local.energy, float(part.entropy), C, C_p,
        C_p - T * volume * np.trace(alpha) ** 2 * bulk, _mean_gruneisen(static, part),
        int(part.left_out), flags,
    )  # fmt: skip


def _flags(matrices: StrainedMatrices, part: VibrationalPart, s: np.ndarray) -> tuple[str, ...]:
    found = []
    if int(part.left_out):
        found.append(UNSTABLE)
    if int(part.left_out) != int(matrices.count_left_out(jnp.zeros(len(s)))):
        found.append(CROSSING)
    if float(matrices.distance(jnp.asarray(s))) > float(matrices.reach):
        found.append(BEYOND)
    return tuple(found)


def _nowhere(static: StaticEnergy, matrices: StrainedMatrices, T: float) -> State:
    none, nan = np.full((3, 3), np.nan), np.nan
    left_out = int(matrices.count_left_out(jnp.zeros(len(static.strains))))
    flags = (NO_MINIMUM, UNSTABLE) if left_out else (NO_MINIMUM,)
    return State(
        T, static.here.crystal, none, nan, none, nan, nan, nan, nan, nan, nan, nan, none,
        left_out, flags,
    )  # fmt: skip


def _stiffness(static: StaticEnergy, local: Local, vibrations: np.ndarray) -> np.ndarray | None:
    """Return H, eV, the ions following; None where it is not positive."""
    n, K = static.ions, local.curvature
    if n and np.linalg.eigvalsh(K[:n, :n])[0] <= 0:
        return None
    H = K[n:, n:]
    if n:
        H = H - K[n:, :n] @ np.linalg.solve(K[:n, :n], K[:n, n:])
    H = H * static.scale**2 + vibrations
    return H if np.linalg.eigvalsh(H)[0] > 0 else None


def _tensor(static: StaticEnergy, s: np.ndarray) -> np.ndarray:
    return np.einsum("a,aij->ij", s, static.strains)


def _mean_gruneisen(static: StaticEnergy, part: VibrationalPart) -> np.ndarray:
    if not float(part.heat_capacity) > 0:
        return np.full((3, 3), np.nan)
    by_strain = np.asarray(part.entropy_by_strain) / float(part.heat_capacity)
    return _tensor(static, by_strain)


def _check(temperatures: Sequence[float]) -> None:
    if not len(temperatures) or not all(np.isfinite(T) and T >= 0 for T in temperatures):
        raise fail(f"temperatures {list(temperatures)}", "some, in K, none below 0")


__all__ = [
    "BEYOND",
    "CROSSING",
    "NO_MINIMUM",
    "UNSTABLE",
    "FirstOrder",
    "State",
    "first_order",
    "states",
]
