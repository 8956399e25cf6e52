import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pneumonia.calibration import Calibration, fit_platt, make_predictions
from pneumonia.errors import DataError

FLAGS = [False, True]


def simulated(n=4000, a=0.6, b=-1.2, seed=0):
    """Logits whose true calibration is known."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, n)
    return logit, rng.random(n) < Calibration(a, b).probability(logit)


def test_fit_platt_finds_the_true_calibration():
    calibration = fit_platt(*simulated(200_000))
    assert calibration.a == pytest.approx(0.6, abs=0.01)
    assert calibration.b == pytest.approx(-1.2, abs=0.02)


def test_fit_platt_agrees_with_scikit_learn_but_for_the_smoothed_targets():
    logit, target = simulated(5000)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], target)
    got = fit_platt(logit, target)
    assert got.a == pytest.approx(reference.coef_[0, 0], rel=0.01)
    assert got.b == pytest.approx(reference.intercept_[0], rel=0.01)


def test_fit_platt_by_hand_of_two_values():
    """Two logits are a table of two rates: the fit meets the smoothed ones exactly."""
    logit = np.repeat([-1.0, 1.0], [8, 8])
    target = np.arange(16) % 8 < np.repeat([2, 6], 8)  # 2 of 8, 6 of 8
    rates = np.array([2, 6]) / 8 * 9 / 10 + np.array([6, 2]) / 8 / 10  # P = N = 8
    log_odds = np.log(rates / (1 - rates))
    got = fit_platt(logit, target)
    assert got.a == pytest.approx((log_odds[1] - log_odds[0]) / 2)
    assert got.b == pytest.approx(log_odds.mean(), abs=1e-9)


def test_fit_platt_of_separable_classes_is_finite():
    got = fit_platt(np.array([-900.0, -800.0, 700.0, 900.0]), np.repeat(FLAGS, 2))
    assert np.isfinite([got.a, got.b]).all()
    assert got.a > 0


@given(shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_fit_platt_takes_back_shift_and_scale_of_the_logits(shift, scale):
    logit, target = simulated(300)
    expected = fit_platt(logit, target).probability(logit)
    moved = logit * scale + shift
    np.testing.assert_allclose(fit_platt(moved, target).probability(moved), expected, atol=1e-7)


def test_fit_platt_meets_the_prevalence():
    logit, target = simulated(3000)
    probability = fit_platt(logit, target).probability(logit)
    assert probability.mean() == pytest.approx(target.mean(), abs=2e-3)


def test_fit_platt_never_turns_the_order_round(caplog):
    """A model that ranks val worse than chance: the intercept alone is calibrated, and told."""
    logit, target = simulated(1000)
    calibration = fit_platt(-logit, target)
    assert calibration.a == 1.0
    assert "a is 1" in calibration.rule
    assert "no better than chance" in caplog.text
    probability = calibration.probability(-logit)
    assert probability.mean() == pytest.approx(target.mean(), abs=2e-3)


def test_fit_platt_of_equal_logits_is_the_prevalence():
    target = np.repeat(FLAGS, [30, 10])
    probability = fit_platt(np.full(40, 2.0), target).probability(np.array([2.0]))
    assert probability[0] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("logit", "target", "told"),
    [
        ([0.0, np.nan], [True, False], "finite logits on val, got 1 of 2.*training.learning_rate"),
        ([0.0, np.inf], [True, False], "finite logits on val, got 1 of 2.*training.learning_rate"),
        ([0.0, 1.0], [True, True], "both classes on val, got 2 positives and 0.*val_fraction"),
        ([], [], "both classes on val, got 0 positives and 0 negatives"),
    ],
)
def test_fit_platt_refuses_what_has_no_fit_and_says_the_cure(logit, target, told):
    with pytest.raises(DataError, match=told):
        fit_platt(np.array(logit, dtype=float), np.array(target, dtype=bool))


def test_probability_of_extreme_logits_neither_overflows_nor_leaves_its_range():
    probability = Calibration(1.0, 0.0).probability(np.array([-1e4, -1.0, 0.0, 1.0, 1e4]))
    assert probability[[0, 2, 4]].tolist() == [0.0, 0.5, 1.0]
    assert probability[1] + probability[3] == pytest.approx(1.0)


def test_make_predictions_fits_on_val_alone_and_sorts_by_image():
    logit, target = simulated(400)
    studies = pd.DataFrame(
        {
            "image_id": [f"image-{i:03d}" for i in range(399, -1, -1)],
            "split": np.where(np.arange(400) < 200, "val", "test"),
            "target": target,
        }
    )
    table, decisions = make_predictions(studies, logit)
    assert list(table.columns) == ["image_id", "split", "logit", "probability"]
    assert table["image_id"].is_monotonic_increasing
    assert np.array_equal(table["logit"], logit[::-1])
    on_val = fit_platt(logit[:200], target[:200])
    assert decisions["calibration"] == {"a": on_val.a, "b": on_val.b, "rule": on_val.rule}
    flipped = studies.assign(target=np.where(studies["split"] == "test", ~target, target))
    assert make_predictions(flipped, logit)[1] == decisions
