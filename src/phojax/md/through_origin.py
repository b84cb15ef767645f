"""Diffusion as in the paper: a line through the origin, displacements from the first frame only.

    D_α = Σ_t t M_α(t) / 2 Σ_t t²,   D = (D_x + D_y + D_z) / 3,   maximum = max_α D_α        (1)

Kept for comparison with published numbers. Where nothing diffuses, M_α = 2⟨u_α²⟩ at all t, and
(1) is not zero but

    D_α = 1.5 ⟨u_α²⟩ / t_max,                                                              (2)

proportional to the mean squared displacement by construction.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from phojax.checks import check_finite, check_shape, fail

WARNING = (
    "fits through the origin return about 1.5 <u^2> / t_max where nothing diffuses: "
    "proportional to the vibration, not to diffusion"
)


@dataclass(frozen=True)
class ThroughOrigin:
    """Eq. (1), Å²/ps.

    Attributes:
        average: Mean of the axes.
        maximum: Of the largest axis.
        axes: Of x, y and z.
        at_rest: What eq. (2) would be if all displacement were vibration: where D is not well
            above, it says nothing about diffusion.
    """

    average: float
    maximum: float
    axes: Float[np.ndarray, "3"]
    at_rest: Float[np.ndarray, "3"]


def through_origin(msd: Float[np.ndarray, "frame 3"], interval_ps: float) -> ThroughOrigin:
    """Return eq. (1) of an element.

    Args:
        msd: Mean squared displacement from the first frame, per axis, Å², frame 0 included.
        interval_ps: Time between frames.

    Raises:
        InputError: fewer than two frames, values that are not finite.
    """
    check_shape("msd", msd, (None, 3), "one column per axis")
    check_finite("msd", msd, "Leave out the frames after a run that ended early")
    if len(msd) < 2:
        raise fail(f"{len(msd)} frames", "at least 2")
    t = np.arange(len(msd)) * interval_ps
    axes = t @ msd / (2 * t @ t)
    at_rest = artefact(msd[1:].mean(axis=0) / 2, float(t[-1]))
    return ThroughOrigin(float(axes.mean()), float(axes.max()), axes, at_rest)


def artefact(vibration: Float[np.ndarray, "3"], longest_ps: float) -> Float[np.ndarray, "3"]:
    """Return eq. (2) in Å²/ps, for ⟨u_α²⟩ of x, y and z in Å²."""
    return 1.5 * vibration / longest_ps
