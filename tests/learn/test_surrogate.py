"""The surrogate on tables whose law is known; what it says outside of them; model folders."""

import json

import numpy as np
import pandas as pd
import pytest

from phojax.checks import InputError
from phojax.learn.settings import LearnSettings
from phojax.learn.store import load_model, save_model
from phojax.learn.surrogate import predicted, trained, why_untrained
from phojax.learn.target import Target
from phojax.learn.validation import cross_validated
from phojax.screening.store import Checkpoint

COLUMNS = ("msd", "centre", "density", "nothing")
QUICK = LearnSettings(members=4, folds=4, width=12, steps=200, strengths=(1.0, 10.0), trees=20)
ELEMENTS = ["Cl", "Br", "I", "S", "Se", "O", "P", "Y", "Zr"]


def _law(n, seed):
    """Return descriptors, log D by a bent law with scatter 0.3 and errors 0.1, systems."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4))
    truth = -2.3 + 0.6 * x[:, 0] - 0.3 * x[:, 1] + 0.2 * x[:, 2] ** 2
    log_D = truth + 0.3 * random.normal(size=n)
    seen = log_D + 0.1 * random.normal(size=n)
    censored = seen < -3.0
    target = Target(np.where(censored, -3.0, seen), np.where(censored, 0, 0.1), censored)
    systems = ["Na-" + "-".join(random.choice(ELEMENTS, 2, replace=False)) for _ in range(n)]
    return x, target, systems, log_D


@pytest.fixture(scope="module")
def learnt():
    x, target, systems, _ = _law(160, 0)
    return trained(x, COLUMNS, target, systems, QUICK)


def _asked(x, systems):
    frame = pd.DataFrame(x, columns=list(COLUMNS))
    return frame.assign(chemical_system=systems, id=[f"n{k}" for k in range(len(x))])


def test_a_law_is_found_again_with_intervals_that_hold(learnt):
    x, _, systems, log_D = _law(400, 1)
    found = predicted(learnt, _asked(x, systems))
    residual = (found["log10_D"] - log_D).to_numpy()
    assert np.sqrt(np.mean(residual**2)) < 0.42  # scatter alone: 0.3; of the mean: 0.8
    inside = (log_D > np.log10(found["D_low_A2_ps"])) & (log_D < np.log10(found["D_high_A2_ps"]))
    assert 0.90 <= inside.mean() <= 0.99
    assert found["outside"].mean() < 0.25
    np.testing.assert_allclose(found["D_A2_ps"], 10 ** found["log10_D"])


def test_censored_rows_are_no_measurements():
    """Limits taken for values would pull predictions up to them."""
    x, target, systems, log_D = _law(160, 2)
    low = log_D < -3.2
    censored = trained(x, COLUMNS, target, systems, QUICK)
    naive = Target(target.value, np.full(len(target), 0.1), np.zeros(len(target), bool))
    wrong = trained(x, COLUMNS, naive, systems, QUICK)
    frame = _asked(x, systems)
    a, b = (predicted(model, frame)["log10_D"].to_numpy()[low] for model in (censored, wrong))
    assert np.mean(a - log_D[low]) < np.mean(b - log_D[low]) - 0.05


def test_validation_by_systems_beside_plain_models(tmp_path):
    x, target, systems, _ = _law(160, 3)
    told = []
    checkpoint = Checkpoint(tmp_path, "key")

    def stop(stage, done, of):
        told.append((stage, done, of))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_validated(x, COLUMNS, target, systems, QUICK, checkpoint=checkpoint, progress=stop)
    assert len(list(tmp_path.glob("fold-*"))) == 2
    found = cross_validated(x, COLUMNS, target, systems, QUICK, checkpoint=checkpoint)
    labels = np.array(systems)
    assert all(len(set(found.fold[labels == s])) == 1 for s in set(systems))
    m = found.metrics
    assert set(m) == {"surrogate", "mean", "ridge", "linear Tobit", "extra trees"}
    assert m["surrogate"]["rmse"] < 0.8 * m["mean"]["rmse"]
    assert m["surrogate"]["gain_low"] > 0
    assert m["surrogate"]["nll"] < min(m["mean"]["nll"], m["extra trees"]["nll"])
    assert 0.80 <= m["surrogate"]["coverage_95_all"] <= 0.99
    assert m["surrogate"]["spearman"] > 0.7
    assert np.isfinite(found.mean["surrogate"]).all()


def test_nothing_to_learn_gives_the_mean():
    _, target, systems, _ = _law(160, 4)
    x = np.random.default_rng(9).normal(size=(160, 4))
    found = predicted(trained(x, COLUMNS, target, systems, QUICK), _asked(x, systems))
    _, _, _, log_D = _law(2000, 5)
    middle, wide = log_D.mean(), log_D.std()
    assert found["log10_D"].std() < 0.3 * wide
    assert found["log10_D"].mean() == pytest.approx(middle, abs=0.3 * wide)
    assert found["log10_D_sd"].mean() == pytest.approx(wide, rel=0.3)


def test_outside_of_training_is_said_in_words(learnt):
    x, _, systems, _ = _law(6, 5)
    x = np.clip(x, -1, 1)
    x[0, 0] = 9.0
    x[2, 1] = np.nan
    x[3, :3] = np.nan
    systems = ["Na-Cl-S", "Na-U-H", "Na-O-P", "Na-O-P", "Na-O-S", "Na-Br-Y"]
    found = predicted(learnt, _asked(x, systems).assign(stable=[True] * 5 + [False]))
    why = found["outside_why"]
    assert "msd 9 above" in why[0]
    assert "farther from the training rows" in why[0]
    assert why[1] == "elements never seen: H, U"
    assert why[2] == "unknown, though never in training: centre"
    assert found["filled_in"][2] == "centre"
    assert "3 of 4 descriptors unknown" in why[3]
    assert np.isnan(found["log10_D"][3])
    assert why[4] == ""
    assert why[5] == "dynamically unstable"
    np.testing.assert_array_equal(found["outside"], [True, True, True, True, False, True])
    with pytest.raises(InputError, match="no column centre"):
        predicted(learnt, _asked(x, systems).drop(columns="centre"))


def test_a_combination_that_never_occurred_is_far():
    random = np.random.default_rng(0)
    x, target, systems, _ = _law(160, 6)
    x[:, 1] = x[:, 0] + 0.05 * random.normal(size=160)
    model = trained(x, COLUMNS, target, systems, QUICK)
    odd = np.array([[1.5, -1.5, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    found = predicted(model, _asked(odd, ["Na-O-P"] * 2))
    np.testing.assert_array_equal(found["outside"], [True, False])
    assert "farther" in found["outside_why"][0]


def test_few_detected_or_few_systems_are_refused():
    x, target, systems, _ = _law(60, 7)
    few = np.flatnonzero(target.detected)[:29]
    assert "29 detected D (and 0 below" in why_untrained(target[few], [systems[n] for n in few])
    with pytest.raises(InputError, match="30 are needed"):
        trained(x[few], COLUMNS, target[few], np.array(systems)[few].tolist(), QUICK)
    assert "validate by systems" in why_untrained(target, ["Na-Cl"] * 60)


def test_a_model_comes_back_from_its_folder(learnt, tmp_path):
    x, _, systems, _ = _law(10, 8)
    frame = _asked(x, systems)
    for _ in range(2):  # the second takes the place of the first
        save_model(tmp_path / "model", learnt, {"key": "k", "metrics": {"rmse": None}})
    again, about = load_model(tmp_path / "model")
    assert about == {"key": "k", "metrics": {"rmse": None}}
    pd.testing.assert_frame_equal(predicted(again, frame), predicted(learnt, frame))
    assert len(list((tmp_path / "model").iterdir())) == 1


def test_other_folders_are_refused(learnt, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        load_model(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.txt").write_text("x")
    with pytest.raises(InputError, match="holds no model"):
        load_model(tmp_path / "other")
    with pytest.raises(InputError, match="holds other files"):
        save_model(tmp_path / "other", learnt, {})
    save_model(tmp_path / "small", None, {"why_untrained": "12 detected D, 30 are needed"})
    with pytest.raises(InputError, match="no trained surrogate: 12 detected D"):
        load_model(tmp_path / "small")
    with pytest.raises(InputError, match="a reason"):
        save_model(tmp_path / "small", None, {})


def test_damage_is_noticed(learnt, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, learnt, {})
    about = folder / "0" / "about" / "metadata"
    text = json.loads(about.read_text())
    about.write_text(json.dumps({**text, "version": 99}))
    with pytest.raises(InputError, match="is of version 99"):
        load_model(folder)
    text["model"]["digest"] = "0" * 64
    about.write_text(json.dumps(text))
    with pytest.raises(InputError, match="is damaged"):
        load_model(folder)
    about.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(folder)
    save_model(tmp_path / "second", learnt, {})
    for path in (tmp_path / "second" / "0" / "arrays").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="is damaged"):
        load_model(tmp_path / "second")
