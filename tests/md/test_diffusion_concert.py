"""The 95 % interval of D holds D: ions that move in rigid groups, told from the scatter in time."""

import numpy as np
import pytest
import walks


@pytest.mark.parametrize(("size", "least"), [(2, 0.2), (6, 0.9)])
def test_the_95_percent_interval_holds_D_in_90_to_98_percent(size, least):
    found = walks.checked_estimates(
        0.1, lambda rng: walks.groups(rng, 0.1, size) + walks.vibration(rng)
    )
    assert np.mean([d.in_concert for d in found]) > least
    assert np.mean([d.concert for d in found]) == pytest.approx(size, rel=0.25)
