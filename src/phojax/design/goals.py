"""What a design is after: functions of phonons, to be minimised, by name or of one's own.

A goal is any function of `gradients.vibrations.Vibrations` that returns a scalar; what is to grow
enters with a minus sign. A margin of stability is a penalty,

    w max(0, m - λ_low)²                                                                  (1)

with λ_low the smooth lower bound of the lowest eigenvalue and m the margin.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from phojax.checks import fail
from phojax.gradients.vibrations import Vibrations
from phojax.units import eigenvalue_from_THz

STABLE = 0.1
"""THz by which the softest mode should stay above 0."""

_STEEP = 1e4  # of the penalty, in units of the goal per (eV Å⁻² amu⁻¹)²


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
    """

    name: str
    unit: str
    largest: bool
    mobile: int
    temperature: float
    margin: float | None = STABLE

    def value(self, found: Vibrations) -> Float[Array, ""]:
        """Return the descriptor."""
        return DESCRIPTORS[self.name][1](found, found.crystal.numbers == self.mobile,
                                         self.temperature)  # fmt: skip

    def __call__(self, found: Vibrations) -> Float[Array, ""]:
        """Return what is to be minimised: the descriptor with its sign, and the penalty (1)."""
        loss = self.value(found) * (-1.0 if self.largest else 1.0)
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
) -> Goal:
    """Return a goal by name.

    Args:
        name: Of `DESCRIPTORS`.
        mobile: Atomic number of the mobile element.
        temperature: K.
        opposite: Whether to go the other way than usual.
        margin: THz that the softest mode should stay above 0; None for no penalty.

    Raises:
        InputError: a name that does not exist, a temperature below 0.
    """
    if name not in DESCRIPTORS:
        raise fail(f"objective {name!r}", f"one of {', '.join(DESCRIPTORS)}")
    if not temperature >= 0:
        raise fail(f"a temperature of {temperature} K", "0 or more")
    unit, _, largest = DESCRIPTORS[name]
    return Goal(name, unit, largest != opposite, mobile, temperature, margin)


__all__ = ["DESCRIPTORS", "STABLE", "Goal", "goal"]
