"""Each figure against a hand-computed case, a property, a rejection and a reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics.functional import classification as torch_reference

from pneumonia.metrics import (
    Confusion,
    Ranking,
    at_least,
    auroc,
    average_precision,
    brier,
    confusion,
    log_loss,
    mean,
    net_benefit,
    predictive_values,
    rates,
    sigmoid,
    threshold_curve,
)


def draw(seed, n=300, ties=False):
    rng = np.random.default_rng(seed)
    target = rng.random(n) < 0.3
    log_odds = rng.normal(size=n) + target - 1
    return (np.round(log_odds, 1) if ties else log_odds), target


def test_rates_hand_computed():
    counts = Confusion(*np.array([60.0, 15.0, 5.0, 20.0]))
    told = {name: float(value) for name, value in rates(counts).items()}
    assert told == pytest.approx(
        {
            "accuracy": 0.8,
            "precision": 20 / 35,
            "recall": 0.8,
            "specificity": 0.8,
            "npv": 60 / 65,
            "f1": 40 / 60,
            "balanced_accuracy": 0.8,
        }
    )


def test_rates_nothing_called_positive_leaves_precision_undefined_not_zero():
    target = np.array([True, False, False])
    told = rates(confusion(target, np.zeros(3, bool)))
    assert np.isnan(told["precision"])
    assert told["recall"] == 0
    assert told["npv"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_rates_agree_with_torchmetrics(seed):
    log_odds, target = draw(seed)
    probability = sigmoid(log_odds)
    told = rates(confusion(target, probability >= 0.4))
    pair = torch.tensor(probability), torch.tensor(target.astype(int))
    # torchmetrics calls positive above the threshold, this project at it: the same here, no tie
    for name, function in {
        "accuracy": torch_reference.binary_accuracy,
        "precision": torch_reference.binary_precision,
        "recall": torch_reference.binary_recall,
        "specificity": torch_reference.binary_specificity,
        "npv": torch_reference.binary_negative_predictive_value,
        "f1": torch_reference.binary_f1_score,
    }.items():
        assert float(told[name]) == pytest.approx(float(function(*pair, threshold=0.4)), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_ranking_figures_agree_with_scikit_learn(seed, ties):
    score, target = draw(seed, ties=ties)
    assert auroc(score, target) == pytest.approx(reference.roc_auc_score(target, score), abs=1e-12)
    assert average_precision(score, target) == pytest.approx(
        reference.average_precision_score(target, score), abs=1e-12
    )


def test_ranking_figures_agree_with_torchmetrics():
    score, target = draw(5, ties=True)
    pair = torch.tensor(sigmoid(score)), torch.tensor(target.astype(int))
    assert float(auroc(score, target)) == pytest.approx(
        float(torch_reference.binary_auroc(*pair)), abs=1e-6
    )
    assert float(average_precision(score, target)) == pytest.approx(
        float(torch_reference.binary_average_precision(*pair)), abs=1e-6
    )


@pytest.mark.parametrize("ties", [False, True])
def test_weights_equal_repeated_images(ties):
    log_odds, target = draw(1, n=60, ties=ties)
    counts = np.random.default_rng(2).integers(0, 4, (5, 60)).astype(float)
    ranking = Ranking(log_odds, target)
    for i, row in enumerate(counts.astype(int)):
        repeated = np.repeat(log_odds, row), np.repeat(target, row)
        assert ranking.auroc(counts)[i] == pytest.approx(auroc(*repeated))
        assert ranking.average_precision(counts)[i] == pytest.approx(average_precision(*repeated))
        assert log_loss(log_odds, target, counts)[i] == pytest.approx(log_loss(*repeated))
        probability = sigmoid(log_odds)
        assert brier(probability, target, counts)[i] == pytest.approx(
            brier(sigmoid(repeated[0]), repeated[1])
        )
        assert (
            confusion(target, log_odds >= 0, counts).tp[i]
            == (repeated[1] & (repeated[0] >= 0)).sum()
        )


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_figures_do_not_depend_on_order(seed):
    log_odds, target = draw(seed, n=40, ties=True)
    shuffled = np.random.default_rng(seed).permutation(40)
    for figure in (auroc, average_precision, log_loss):
        one, other = figure(log_odds, target), figure(log_odds[shuffled], target[shuffled])
        assert one == pytest.approx(other, nan_ok=True, abs=1e-12)


def test_auroc_reversed_score_is_the_complement():
    score, target = draw(3, ties=True)
    assert auroc(-score, target) == pytest.approx(1 - auroc(score, target))


def test_auroc_constant_score_is_a_half_and_its_precision_the_prevalence():
    target = np.array([True, False, False, False])
    assert auroc(np.zeros(4), target) == 0.5
    assert average_precision(np.zeros(4), target) == 0.25


@pytest.mark.parametrize("target", [np.ones(3, bool), np.zeros(3, bool), np.zeros(0, bool)])
def test_auroc_one_class_is_undefined(target):
    assert np.isnan(auroc(np.arange(len(target), dtype=float), target))


def test_log_loss_and_brier_agree_with_scikit_learn():
    log_odds, target = draw(4)
    probability = sigmoid(log_odds)
    assert log_loss(log_odds, target) == pytest.approx(
        reference.log_loss(target, probability), abs=1e-12
    )
    assert brier(probability, target) == pytest.approx(
        reference.brier_score_loss(target, probability), abs=1e-12
    )


def test_log_loss_confident_error_stays_exact():
    assert log_loss(np.array([-800.0]), np.array([True])) == 800.0


def test_log_loss_infinite_is_undefined():
    assert np.isnan(log_loss(np.array([-np.inf, 0.0]), np.array([True, False])))


def test_predictive_values_agree_with_the_counts_at_their_own_prevalence():
    ppv, npv = predictive_values(20 / 25, 60 / 75, prevalence=0.25)
    assert (float(ppv), float(npv)) == pytest.approx((20 / 35, 60 / 65))


def test_net_benefit_hand_computed():
    probability = np.array([0.9, 0.6, 0.4, 0.1])
    target = np.array([True, False, True, False])
    benefit = net_benefit(probability, target, np.array([0.0, 0.5, 0.6, 0.95]))
    assert benefit == pytest.approx([0.5, 0.0, 0.25 - 0.25 * 1.5, 0.0])


def test_net_benefit_threshold_of_one_is_rejected():
    with pytest.raises(ValueError, match="threshold"):
        net_benefit(np.array([0.5]), np.array([True]), np.array([1.0]))


@pytest.mark.parametrize("ties", [False, True])
def test_threshold_curve_agrees_with_scikit_learn(ties):
    score, target = draw(6, ties=ties)
    curve = threshold_curve(score, target)
    fall_out, recall, threshold = reference.roc_curve(target, score, drop_intermediate=False)
    assert curve.recall == pytest.approx(recall)
    assert curve.fall_out == pytest.approx(fall_out)
    assert curve.threshold == pytest.approx(threshold)
    precision, _, _ = reference.precision_recall_curve(target, score)
    assert curve.precision[::-1] == pytest.approx(precision)


def test_mean_without_weight_is_the_mean():
    assert mean(np.array([1.0, 2.0, 6.0])) == 3


@pytest.mark.parametrize(
    ("score", "target", "word"),
    [
        (np.zeros(3), np.zeros(2, bool), "shape"),
        (np.zeros(3), np.zeros(3), "booleans"),
        (np.array([0.0, np.nan]), np.zeros(2, bool), "NaN"),
    ],
)
def test_columns_of_the_wrong_kind_are_rejected(score, target, word):
    with pytest.raises(ValueError, match=word):
        auroc(score, target)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=20))
def test_sigmoid_and_its_complement_add_up_to_one_and_keep_their_digits(values):
    log_odds = np.array(values)
    low, high = sigmoid(-np.abs(log_odds)), sigmoid(np.abs(log_odds))
    np.testing.assert_allclose(low + high, 1, rtol=1e-15)
    np.testing.assert_allclose(low / high, np.exp(-np.abs(log_odds)), rtol=1e-12)


def test_at_least_counts_as_a_comparison_does():
    values = np.sort(np.random.default_rng(3).integers(0, 9, 50) / 8)
    bounds = np.linspace(-0.2, 1.2, 30)
    expected = (values[:, None] >= bounds).sum(0)
    np.testing.assert_array_equal(at_least(values, bounds), expected)
