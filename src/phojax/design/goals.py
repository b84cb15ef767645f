"""What a design is after: functions of phonons, to be minimised, by name or of one's own.

A goal is any function of `gradients.vibrations.Vibrations` that returns a scalar; what is to grow
enters with a minus sign. A margin of stability is a penalty, and so is a limit to a descriptor x,

    w max(0, m - λ_low)²,    (max(0, low - x, x - high) / s)²                              (1)

with λ_low the smooth lower bound of the lowest eigenvalue, m the margin, and s a hundredth of the
limit. Steps beyond a limit by more than s are not taken for results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.checks import fail
from phojax.gradients.vibrations import Vibrations
from phojax.units import eigenvalue_from_THz

STABLE = 0.1
"""THz by which the softest mode should stay above 0."""

_STEEP = 1e4  # of the penalty, in units of the goal per (eV Å⁻² amu⁻¹)²


@dataclass(frozen=True)
class Limit:
    """Ends between which a descriptor should stay, in its own unit; None for no end."""

    name: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.name not in DESCRIPTORS:
            raise fail(f"a limit to {self.name!r}", f"one of {', '.join(DESCRIPTORS)}")
        ends = [end for end in (self.low, self.high) if end is not None]
        if not ends or ends != sorted(ends):
            raise fail(
                f"limits {self.low} and {self.high} to {self.name}",
                "one end or two, the lower one first",
            )

    @property
    def softness(self) -> float:
        """s of eq. (1)."""
        return max(abs(end) for end in (self.low, self.high) if end is not None) / 100 or 0.01

    def beyond(self, value: Float[Array, ""]) -> Float[Array, ""]:
        """Return by how many s a value is beyond its limits."""
        low = -jnp.inf if self.low is None else self.low
        high = jnp.inf if self.high is None else self.high
        return jnp.maximum(0.0, jnp.maximum(low - value, value - high)) / self.softness


@dataclass(frozen=True)
class Goal:
    """A descriptor and whether it is to grow.

    Attributes:
        name: Of the descriptor.
        unit: Of its values.
        largest: Whether more is better.
        mobile: Atoms of this number are the mobile ones.
        temperature: K.
        margin: THz, see the header; None for no penalty.
        limits: To other descriptors, or to this one.
    """

    name: str
    unit: str
    largest: bool
    mobile: int
    temperature: float
    margin: float | None = STABLE
    limits: tuple[Limit, ...] = ()

    def value(self, found: Vibrations, name: str | None = None) -> Float[Array, ""]:
        """Return the descriptor, or another one for the same ions and temperature."""
        mobile = found.crystal.numbers == self.mobile
        return jnp.asarray(DESCRIPTORS[name or self.name][1](found, mobile, self.temperature))

    def beyond(self, found: Vibrations) -> dict[str, float]:
        """Return what is beyond its limit by more than s, and its value (concrete)."""
        values = {limit.name: self.value(found, limit.name) for limit in self.limits}
        return {limit.name: float(values[limit.name]) for limit in self.limits
                if limit.beyond(values[limit.name]) > 1}  # fmt: skip

    def __call__(self, found: Vibrations) -> Float[Array, ""]:
        """Return what is to be minimised: the descriptor with its sign, and the penalty (1)."""
        loss = self.value(found) * (-1.0 if self.largest else 1.0)
        for limit in self.limits:
            loss = loss + limit.beyond(self.value(found, limit.name)) ** 2
        if self.margin is None:
            return loss
        short = eigenvalue_from_THz(jnp.asarray(self.margin)) - found.lowest_eigenvalue_smooth()
        return loss + _STEEP * jnp.maximum(short, 0.0) ** 2


Descriptor = Callable[[Vibrations, Array, float], Array]

DESCRIPTORS: dict[str, tuple[str, Descriptor, bool]] = {
    "msd": ("Å²", lambda v, atoms, T: v.msd(atoms, T), True),
    "msd-max": ("Å²", lambda v, atoms, T: v.msd_max(atoms, T), True),
    "pdos-centre": ("THz", lambda v, atoms, T: v.pdos_centre(atoms), False),
    "acoustic-cutoff": ("THz", lambda v, atoms, T: v.acoustic_top(), False),
    "softest": ("eV Å⁻² amu⁻¹", lambda v, atoms, T: v.lowest_eigenvalue_smooth(), True),
    "coupling": ("", lambda v, atoms, T: v.neighbour_correlation(atoms, T), False),
    "formation-energy": ("eV/atom", lambda v, atoms, T: v.energy / len(v.crystal), False),
    "free-energy": ("eV", lambda v, atoms, T: v.free_energy(T), False),
    "volume": ("Å³", lambda v, atoms, T: v.crystal.volume, False),
}
"""Names: unit, function of (vibrations, mobile atoms, K), whether more is better."""


def goal(
    name: str,
    mobile: int,
    temperature: float,
    *,
    opposite: bool = False,
    margin: float | None = STABLE,
    limits: Sequence[Limit] = (),
) -> Goal:
    """Return a goal by name.

    Args:
        name: Of `DESCRIPTORS`.
        mobile: Atomic number of the mobile element.
        temperature: K.
        opposite: Whether to go the other way than usual.
        margin: THz that the softest mode should stay above 0; None for no penalty.
        limits: To descriptors.

    Raises:
        InputError: a name that does not exist, a temperature below 0, limits that contradict.
    """
    if name not in DESCRIPTORS:
        raise fail(f"objective {name!r}", f"one of {', '.join(DESCRIPTORS)}")
    if not temperature >= 0:
        raise fail(f"a temperature of {temperature} K", "0 or more")
    for other in {limit.name for limit in limits}:
        low = max([x.low for x in limits if x.name == other and x.low is not None], default=-np.inf)
        high = min(
            [x.high for x in limits if x.name == other and x.high is not None], default=np.inf
        )
        if low > high:
            raise fail(f"limits to {other} that leave nothing between {low:g} and {high:g}",
                       "limits that some value meets")  # fmt: skip
    unit, _, largest = DESCRIPTORS[name]
    return Goal(name, unit, largest != opposite, mobile, temperature, margin, tuple(limits))


__all__ = ["DESCRIPTORS", "STABLE", "Goal", "Limit", "goal"]
