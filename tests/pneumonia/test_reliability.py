import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pneumonia.reliability import expected_calibration_error, recalibration, reliability


def draw(seed, n=400):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 1.5, n)
    return log_odds, rng.random(n) < 1 / (1 + np.exp(-log_odds))


def test_reliability_hand_computed():
    probability = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    target = np.array([False, False, True, True, True])
    curve = reliability(probability, target, bins=2)
    assert curve.count.tolist() == [3, 2]
    assert curve.probability == pytest.approx([0.2, 0.85])
    assert curve.observed == pytest.approx([1 / 3, 1])
    error = expected_calibration_error(probability, target, bins=2)
    assert error == pytest.approx((3 * abs(0.2 - 1 / 3) + 2 * 0.15) / 5)


def test_calibration_error_is_that_of_numpy_without_ties():
    log_odds, target = draw(0)
    probability = 1 / (1 + np.exp(-log_odds))
    runs = np.array_split(np.argsort(probability), 15)
    gaps = [abs(probability[run].mean() - target[run].mean()) * len(run) for run in runs]
    assert expected_calibration_error(probability, target) == pytest.approx(
        sum(gaps) / len(target), abs=1e-12
    )


def test_calibration_error_does_not_depend_on_the_order_of_ties():
    probability = np.repeat([0.2, 0.7], 20)
    target = np.arange(40) % 3 == 0
    order = np.random.default_rng(0).permutation(40)
    error = expected_calibration_error(probability, target)
    assert error == pytest.approx(expected_calibration_error(probability[order], target[order]))


def test_calibration_error_of_a_perfect_model_is_not_zero():
    # why it has no interval: 0.019 is expected of a perfect model of AUROC 0.88 at n = 2,668
    shift = 1.66  # of two unit normals with that AUROC
    errors = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        target = rng.random(2668) < 0.225
        score = rng.normal(size=2668) + shift * target
        log_odds = shift * score - shift**2 / 2 + np.log(0.225 / 0.775)
        errors.append(expected_calibration_error(1 / (1 + np.exp(-log_odds)), target))
    assert np.mean(errors) == pytest.approx(0.019, abs=0.0015)


def test_calibration_error_of_no_image_is_undefined():
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


@pytest.mark.parametrize("seed", range(4))
def test_recalibration_agrees_with_scikit_learn(seed):
    log_odds, target = draw(seed)
    slope, intercept = recalibration(2 * log_odds + 1, target)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    model.fit((2 * log_odds + 1)[:, None], target)
    assert float(slope) == pytest.approx(model.coef_[0, 0], abs=1e-9)
    assert float(intercept) == pytest.approx(model.intercept_[0], abs=1e-9)


def test_recalibration_undoes_a_shift_and_a_stretch():
    rng = np.random.default_rng(0)
    truth = rng.normal(-1, 1.5, 200_000)
    target = rng.random(200_000) < 1 / (1 + np.exp(-truth))
    slope, intercept = recalibration(2 * truth + 1, target)
    assert float(slope) == pytest.approx(0.5, abs=0.01)
    assert float(intercept) == pytest.approx(-0.5, abs=0.02)


def test_recalibration_weights_equal_repeated_images_from_any_start():
    log_odds, target = draw(1, n=80)
    counts = np.random.default_rng(1).integers(0, 3, (6, 80)).astype(float)
    slopes, intercepts = recalibration(log_odds, target, counts, start=(30.0, -40.0))
    for row, slope, intercept in zip(counts.astype(int), slopes, intercepts, strict=True):
        alone = recalibration(np.repeat(log_odds, row), np.repeat(target, row))
        assert (slope, intercept) == pytest.approx([float(term) for term in alone], abs=1e-8)


@pytest.mark.parametrize(
    ("log_odds", "target"),
    [
        ([0.0, 1.0, 2.0, 3.0], [False, False, True, True]),  # separated
        ([0.0, 1.0, 1.0, 3.0], [False, False, True, True]),  # touching
        ([3.0, 2.0, 1.0, 0.0], [False, False, True, True]),  # separated the wrong way
        ([1.0, 1.0, 1.0, 1.0], [False, False, True, True]),  # constant
        ([0.0, 1.0, 2.0, 3.0], [True, True, True, True]),  # one class
        ([-np.inf, 1.0, 0.0, 3.0], [False, False, True, True]),  # a probability of 0
    ],
)
def test_recalibration_without_a_finite_fit_is_undefined(log_odds, target):
    slope, intercept = recalibration(np.array(log_odds), np.array(target))
    assert np.isnan(slope)
    assert np.isnan(intercept)
