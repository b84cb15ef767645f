"""The 95 % interval of D holds D: ions that know nothing of each other.

It does so in 90 to 98 % of 200 walks: a binomial of 95 % stays inside those ends at ± 2 to 3 σ.
"""

import numpy as np
import pytest
import walks
from scipy.spatial.transform import Rotation

_TURN = Rotation.from_euler("zyx", [20, 35, 50], degrees=True).as_matrix()
TENSOR = _TURN @ np.diag([0.01, 0.05, 0.3]) @ _TURN.T

KINDS = {
    "independent": (0.1, lambda rng: walks.brownian(rng, 0.1)),
    "vibrating": (0.02, lambda rng: walks.brownian(rng, 0.02) + walks.vibration(rng)),
    # 27 jumps in all
    "few hops": (0.02, lambda rng: walks.hops(rng, 0.02) + walks.vibration(rng)),
    "anisotropic": (0.12, lambda rng: walks.anisotropic(rng, TENSOR) + walks.vibration(rng)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_95_percent_interval_holds_D_in_90_to_98_percent(kind):
    found = walks.checked_estimates(*KINDS[kind])
    assert np.mean([d.in_concert for d in found]) < 0.06
