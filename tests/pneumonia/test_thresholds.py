import numpy as np
import pytest

from pneumonia.thresholds import operating_points


def draw(seed, n=200):
    rng = np.random.default_rng(seed)
    target = rng.random(n) < 0.3
    return np.round(rng.beta(1 + 2 * target, 3 - target), 2), target


def test_operating_points_hand_computed():
    probability = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.9])
    target = np.array([False, False, True, False, True, True])
    points = operating_points(probability, target)
    assert points["youden"]["threshold"] == 0.3  # as good as 0.7, and more sensitive
    assert points["sensitivity_90"]["threshold"] == 0.3
    assert points["p_0.5"]["threshold"] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_operating_points_keep_their_rules(seed):
    probability, target = draw(seed)
    points = operating_points(probability, target)

    def youden(threshold):
        called = probability >= threshold
        return called[target].mean() - called[~target].mean()

    best = max(youden(threshold) for threshold in np.unique(probability))
    assert youden(points["youden"]["threshold"]) == pytest.approx(best)
    floor = points["sensitivity_90"]["threshold"]
    assert (probability[target] >= floor).mean() >= 0.9
    assert (probability[target] > floor).mean() < 0.9


@pytest.mark.parametrize("target", [np.ones(3, bool), np.zeros(3, bool)])
def test_operating_points_one_class_is_rejected(target):
    with pytest.raises(ValueError, match="both classes"):
        operating_points(np.array([0.1, 0.5, 0.9]), target)
