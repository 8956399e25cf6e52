"""Several seeds: the ensemble, and the spread of every figure."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from pneumonia.calibration import make_predictions
from pneumonia.config import EvaluationConfig
from pneumonia.evaluation import evaluate
from pneumonia.seeds import (
    _mean_and_deviation,
    evaluate_seeds,
    make_ensemble,
    spread_over_seeds,
)

FACTS = {"grouping": "person"}
CONFIG = EvaluationConfig(n_resamples=50)


@pytest.fixture(scope="module")
def trained(studies):
    """Three trainings that agree on the images and differ in their noise."""
    rows = studies[studies["split"] != "train"].reset_index(drop=True)
    rng = np.random.default_rng(3)
    shared = rng.normal(size=len(rows)) + 1.5 * rows["target"].to_numpy(float)
    return {seed: make_predictions(rows, shared + rng.normal(size=len(rows))) for seed in (4, 0, 9)}


@pytest.fixture(scope="module")
def evaluation(studies, trained):
    first = {"custom_cnn": {4: trained[4]}, "resnet18": trained}
    return evaluate_seeds(studies, first, FACTS, CONFIG)


def test_ensemble_is_the_mean_logit_calibrated_on_val(studies, trained):
    table, decisions = make_ensemble(studies, trained)
    logits = [predicted.set_index("image_id")["logit"] for predicted, _ in trained.values()]
    mean = sum(logits) / 3
    np.testing.assert_allclose(table["logit"], mean.loc[table["image_id"]], atol=1e-12)
    a, b = decisions["calibration"]["a"], decisions["calibration"]["b"]
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-a * table["logit"] - b)))


def test_ensemble_does_not_depend_on_the_order_of_rows(studies, trained):
    moved = {
        seed: (table.sample(frac=1, random_state=1), decisions)
        for seed, (table, decisions) in trained.items()
    }
    table, decisions = make_ensemble(studies.sample(frac=1, random_state=2), moved)
    expected, decided = make_ensemble(studies, trained)
    pd.testing.assert_frame_equal(table, expected)
    assert decisions["operating_points"] == decided["operating_points"]


def test_ensemble_of_one_is_that_one(studies, trained):
    table, decisions = make_ensemble(studies, {4: trained[4]})
    pd.testing.assert_frame_equal(table, trained[4][0])
    assert decisions == trained[4][1]


def test_ensemble_of_different_noise_ranks_better_than_each(evaluation):
    spread = evaluation["models"]["resnet18"]["seeds"]["test"]["auroc"]
    ensemble = evaluation["models"]["resnet18_ensemble"]["test"]["auroc"]["value"]
    assert ensemble > max(spread["values"])


def test_spread_is_of_each_seeds_own_figures(studies, trained, evaluation):
    told = evaluation["models"]["resnet18"]["seeds"]
    assert told["seeds"] == [4, 0, 9]
    target = studies.set_index("image_id")["target"]
    aurocs, accuracies = [], []
    for table, decisions in trained.values():
        test = table[table["split"] == "test"]
        truth = target[test["image_id"]].to_numpy(bool)
        aurocs.append(roc_auc_score(truth, test["logit"]))
        threshold = decisions["operating_points"]["youden"]["threshold"]
        accuracies.append(accuracy_score(truth, test["probability"] >= threshold))
    for name, values in (("auroc", aurocs), ("accuracy", accuracies)):
        assert told["test"][name]["values"] == pytest.approx(values, abs=1e-12)
        assert told["test"][name]["mean"] == pytest.approx(np.mean(values), abs=1e-12)
        deviation = np.std(values, ddof=1)
        assert told["test"][name]["standard_deviation"] == pytest.approx(deviation, abs=1e-12)
    assert set(told["val"]) == set(told["test"])


def test_first_seed_stands_for_the_model(studies, trained, evaluation):
    table, decisions = trained[4]
    alone = evaluate(studies, {"resnet18": table}, {"resnet18": decisions}, FACTS, CONFIG)
    told = dict(evaluation["models"]["resnet18"])
    del told["seeds"]
    assert told == alone["models"]["resnet18"]


def test_one_seed_has_neither_spread_nor_ensemble(evaluation):
    assert "seeds" not in evaluation["models"]["custom_cnn"]
    assert list(evaluation["models"]) == ["custom_cnn", "resnet18", "resnet18_ensemble"]
    assert evaluation["models"]["resnet18_ensemble"]["ensemble_of"] == "resnet18"


def test_one_seed_evaluates_as_before(studies, trained):
    table, decisions = trained[4]
    expected = evaluate(studies, {"resnet18": table}, {"resnet18": decisions}, FACTS, CONFIG)
    assert evaluate_seeds(studies, {"resnet18": {4: trained[4]}}, FACTS, CONFIG) == expected


def test_mean_and_deviation_by_hand():
    figures = {seed: {"value": value, "reason": None} for seed, value in enumerate((1.0, 2.0, 6.0))}
    told = _mean_and_deviation(figures)
    assert told["mean"] == 3.0
    assert told["standard_deviation"] == pytest.approx(7**0.5)


def test_figure_that_one_seed_lacks_is_undefined_with_the_reason(studies, trained):
    """Where no image is called positive, precision is 0 / 0."""
    silent = {name: {"threshold": 2.0, "rule": ""} for name in trained[0][1]["operating_points"]}
    moved = {0: trained[0], 7: (trained[9][0], trained[9][1] | {"operating_points": silent})}
    told = spread_over_seeds(studies, moved, "youden")["test"]["precision"]
    assert told["mean"] is None
    assert told["standard_deviation"] is None
    assert told["reason"].startswith("seed 7: ")
    assert told["values"][1] is None
