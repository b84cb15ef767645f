"""Parts that keep chemical systems together, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from phojax.checks import InputError
from phojax.learn.folds import grouped_folds


def test_parts_are_as_even_as_those_of_scikit_learn():
    random = np.random.default_rng(0)
    systems = [f"Na-{n}" for n in random.geometric(0.05, 150)]
    found = grouped_folds(systems, 5)
    theirs = [len(test) for _, test in GroupKFold(5).split(systems, groups=systems)]
    assert np.ptp(np.bincount(found)) <= np.ptp(theirs)
    assert np.bincount(found).sum() == 150
    for name in set(systems):
        assert len(set(found[np.array(systems) == name])) == 1


def test_detected_rows_are_dealt_evenly():
    systems = [f"s{n // 2}" for n in range(80)]
    detected = np.arange(80) < 20
    found = grouped_folds(systems, 5, detected=detected, seed=1)
    np.testing.assert_array_equal(np.bincount(found[detected]), [4] * 5)
    np.testing.assert_array_equal(np.bincount(found), [16] * 5)
    assert (grouped_folds(systems, 5, detected=detected, seed=1) == found).all()


def test_few_systems():
    assert set(grouped_folds(["a", "b", "b"], 5)) == {0, 1}
    with pytest.raises(InputError, match="holds chemical systems together"):
        grouped_folds(["a", "a"], 5)
