"""What a molecular-dynamics run does, in people's units; everything here is in the record."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from phojax.checks import fail
from phojax.units import TIME_FS


@dataclass(frozen=True)
class Protocol:
    """Settings of a run; the defaults are those of PHYSICS E1.

    Attributes:
        ensemble: "nvt" (Langevin, BAOAB) or "nve" (velocity Verlet).
        timestep_fs: fs.
        friction_per_ps: 1/ps, of the thermostat.
        equilibration_steps: Steps before anything is accumulated.
        steps: Steps of production.
        frame_every: Steps between frames, which is when things are accumulated.
        seed: Of initial velocities and noise.
        skin: Å by which the neighbour list reaches farther, so that it lasts several steps.
        vacf_window_ps: Longest time of the velocity autocorrelation.
        density_spacing: Å, of the density grid.
        sections: Parts of the run whose scatter is known.
        stop_melted: Stop a system at a tenth of the run where its framework does not hold (E4).

    Raises:
        InputError: values without meaning.
    """

    ensemble: str = "nvt"
    timestep_fs: float = 1.5
    friction_per_ps: float = 1.0
    equilibration_steps: int = 10_000
    steps: int = 40_000
    frame_every: int = 4
    seed: int = 0
    skin: float = 0.0
    vacf_window_ps: float = 10.0
    density_spacing: float = 0.2
    sections: int = 8
    stop_melted: bool = True

    def __post_init__(self) -> None:
        if self.ensemble not in ("nvt", "nve"):
            raise fail(f"ensemble {self.ensemble!r}", "nvt or nve")
        for name in ("timestep_fs", "vacf_window_ps", "density_spacing"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise fail(f"{name} {value}", "a positive number")
        for name in ("friction_per_ps", "skin"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise fail(f"{name} {value}", "a number that is not negative")
        if self.ensemble == "nvt" and self.friction_per_ps == 0:
            raise fail("a friction of 0", "a positive one", "Without a thermostat it is nve")
        for name, least in (
            ("steps", 1), ("frame_every", 1), ("sections", 1), ("equilibration_steps", 0),
            ("seed", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise fail(f"{name} {getattr(self, name)}", f"at least {least}")
        if self.steps < 2 * self.frame_every:
            raise fail(
                f"{self.steps} steps with a frame every {self.frame_every}",
                "at least two frames",
                "Make more steps, or frames more often",
            )

    @property
    def equilibration_frames(self) -> int:
        """Frames of the equilibration, the last one begun counted whole."""
        return -(-self.equilibration_steps // self.frame_every)

    @property
    def frames(self) -> int:
        """Frames of production, the last one begun counted whole."""
        return -(-self.steps // self.frame_every)

    @property
    def interval_ps(self) -> float:
        """Time between frames."""
        return self.frame_every * self.timestep_fs * 1e-3

    @property
    def timestep(self) -> float:
        """The time step in internal units."""
        return self.timestep_fs / TIME_FS

    @property
    def friction(self) -> float:
        """The friction in internal units."""
        return self.friction_per_ps * 1e-3 * TIME_FS

    @property
    def vacf_frames(self) -> int:
        """Lags of the velocity autocorrelation, 0 included, in frames; at most half the run."""
        wanted = round(self.vacf_window_ps / self.interval_ps) + 1
        return max(2, min(wanted, self.frames // 2))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for a record."""
        return asdict(self)
