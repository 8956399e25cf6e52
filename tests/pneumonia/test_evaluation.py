"""Every figure of evaluation.json recomputed from the tables, and what is null and why."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from pneumonia import assessment
from pneumonia.assessment import figure
from pneumonia.config import EvaluationConfig
from pneumonia.errors import StaleArtifactError
from pneumonia.evaluation import evaluate

FACTS = {
    "grouping": "person",
    "unlabelled_files": 3,
    "labels_without_file": 2,
    "quarantined": 1,
    "leak_if_split_by_image": {"val": 0.7, "test": 0.7},
}
CONFIG = EvaluationConfig(n_resamples=200)
RATES = {
    "accuracy": reference.accuracy_score,
    "precision": reference.precision_score,
    "recall": reference.recall_score,
    "f1": reference.f1_score,
    "balanced_accuracy": reference.balanced_accuracy_score,
    "specificity": lambda y, c: reference.recall_score(~y, ~c),
    "npv": lambda y, c: reference.precision_score(~y, ~c),
}


@pytest.fixture(scope="module")
def evaluation(studies, predictions, operating_points):
    return evaluate(studies, predictions, operating_points, FACTS, CONFIG)


def join(studies, table, side):
    rows = table.merge(studies[["image_id", "target", "class", "view"]], on="image_id")
    rows = rows[rows["split"] == side]
    return rows, rows["target"].to_numpy(bool), rows["probability"].to_numpy()


def figures(block):
    """Every figure in a nest of dictionaries and lists."""
    if isinstance(block, dict):
        if set(block) == {"value", "low", "high", "reason"}:
            yield block
        else:
            for part in block.values():
                yield from figures(part)
    elif isinstance(block, list):
        for part in block:
            yield from figures(part)


@pytest.mark.parametrize("model", ["custom_cnn", "resnet18"])
@pytest.mark.parametrize("side", ["val", "test"])
def test_figures_are_those_of_scikit_learn(
    evaluation, studies, predictions, operating_points, model, side
):
    rows, target, probability = join(studies, predictions[model], side)
    block = evaluation["models"][model][side]
    assert (block["n"], block["positives"]) == (len(rows), target.sum())

    def value(name):
        return block[name]["value"]

    assert value("auroc") == pytest.approx(reference.roc_auc_score(target, probability), abs=1e-9)
    assert value("average_precision") == pytest.approx(
        reference.average_precision_score(target, probability), abs=1e-9
    )
    assert value("log_loss") == pytest.approx(reference.log_loss(target, probability), abs=1e-9)
    assert value("brier") == pytest.approx(
        reference.brier_score_loss(target, probability), abs=1e-9
    )
    raw = 1 / (1 + np.exp(-rows["logit"].to_numpy()))
    assert value("log_loss_uncalibrated") == pytest.approx(
        reference.log_loss(target, raw), abs=1e-9
    )
    for name, scores in (("ece", probability), ("ece_uncalibrated", raw)):
        runs = np.array_split(np.argsort(scores), 15)
        gaps = [abs(scores[run].mean() - target[run].mean()) * len(run) for run in runs]
        assert value(name) == pytest.approx(sum(gaps) / len(target), abs=1e-9)
    log_odds = np.log(probability / (1 - probability))[:, None]
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(log_odds, target)
    assert value("calibration_slope") == pytest.approx(fit.coef_[0, 0], abs=1e-9)
    assert value("calibration_intercept") == pytest.approx(fit.intercept_[0], abs=1e-9)
    for name, point in operating_points[model]["operating_points"].items():
        called = probability >= point["threshold"]
        told = block["operating_points"][name]
        tn, fp, fn, tp = reference.confusion_matrix(target, called).ravel().tolist()
        assert told["confusion_matrix"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
        assert told["threshold"] == point["threshold"]
        for rate, function in RATES.items():
            assert told[rate]["value"] == pytest.approx(function(target, called), abs=1e-9)
        at_five = told["at_prevalence"][0]
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        assert at_five["prevalence"] == 0.05
        assert at_five["precision"]["value"] == pytest.approx(
            0.05 * sensitivity / (0.05 * sensitivity + 0.95 * (1 - specificity)), abs=1e-9
        )


def test_ppv_at_the_prevalence_of_test_is_its_ppv_with_another_interval(
    evaluation, studies, predictions, operating_points, monkeypatch
):
    """So the page must say why two intervals stand beside one value."""
    block = evaluation["models"]["resnet18"]["test"]
    monkeypatch.setattr(assessment, "PREVALENCES", (block["positives"] / block["n"],))
    again = evaluate(studies, predictions, operating_points, FACTS, CONFIG)
    point = again["models"]["resnet18"]["test"]["operating_points"]["youden"]
    (fixed,) = point["at_prevalence"]
    for name in ("precision", "npv"):
        assert fixed[name]["value"] == pytest.approx(point[name]["value"], abs=1e-12)
    width = {
        name: told["precision"]["high"] - told["precision"]["low"]
        for name, told in (("fixed", fixed), ("found", point))
    }
    assert width["fixed"] < width["found"]


def test_block_repeats_the_chosen_operating_point(evaluation):
    block = evaluation["models"]["resnet18"]["test"]
    chosen = block["operating_points"]["youden"]
    for name in (*RATES, "confusion_matrix"):
        assert block[name] == chosen[name]


def test_another_operating_point_moves_only_the_block(
    evaluation, studies, predictions, operating_points
):
    config = EvaluationConfig(n_resamples=200, operating_point="p_0.5")
    other = evaluate(studies, predictions, operating_points, FACTS, config)
    model, before = other["models"]["resnet18"], evaluation["models"]["resnet18"]
    assert model["threshold"] == 0.5
    assert model["test"]["recall"] == before["test"]["operating_points"]["p_0.5"]["recall"]
    assert model["test"]["auroc"] == before["test"]["auroc"]


def test_test_figures_have_intervals_and_val_figures_none(evaluation):
    for model in evaluation["models"].values():
        for name, told in model["test"].items():
            if isinstance(told, dict) and "low" in told and not name.startswith("ece"):
                assert told["low"] <= told["value"] <= told["high"]
        assert all(told["low"] is None for told in figures(model["val"]))
        assert model["test"]["ece"]["low"] is None
        assert model["test"]["ece"]["reason"] is None


def test_interval_is_that_of_scikit_learn_on_drawn_people(evaluation, studies, predictions):
    _, target, probability = join(studies, predictions["resnet18"], "test")
    rows = studies[studies["split"] == "test"]
    people = np.unique(rows["patient_id"])
    places = {p: np.flatnonzero(rows["patient_id"] == p) for p in people}
    rng = np.random.default_rng(99)
    areas = []
    for _ in range(300):
        drawn = np.concatenate([places[p] for p in rng.choice(people, len(people))])
        areas.append(reference.roc_auc_score(target[drawn], probability[drawn]))
    low, high = np.quantile(areas, [0.025, 0.975])
    told = evaluation["models"]["resnet18"]["test"]["auroc"]
    assert told["low"] == pytest.approx(low, abs=0.01)
    assert told["high"] == pytest.approx(high, abs=0.01)


def test_subgroups_are_parts_of_test(evaluation, studies, predictions):
    rows, target, probability = join(studies, predictions["resnet18"], "test")
    groups = {
        (group["by"], group["value"]): group
        for group in evaluation["models"]["resnet18"]["subgroups"]
    }
    for view in ("AP", "PA"):
        mask = (rows["view"] == view).to_numpy()
        assert groups["view", view]["auroc"]["value"] == pytest.approx(
            reference.roc_auc_score(target[mask], probability[mask]), abs=1e-9
        )
    normal = target | (rows["class"] == "Normal").to_numpy()
    assert groups["negative_class", "Normal"]["n"] == normal.sum()
    assert groups["negative_class", "Normal"]["auroc"]["value"] == pytest.approx(
        reference.roc_auc_score(target[normal], probability[normal]), abs=1e-9
    )
    for by in ("view", "sex", "age", "spacing"):
        assert sum(group["n"] for (name, _), group in groups.items() if name == by) == len(rows)


def test_subgroup_too_small_is_null_with_the_reason(evaluation):
    groups = evaluation["models"]["resnet18"]["subgroups"]
    small = [g for g in groups if min(g["positives"], g["n"] - g["positives"]) < 10]
    assert small
    for group in small:
        assert all(told["value"] is None for told in figures(group))
        assert group["auroc"]["reason"].startswith("too small: ")


def test_controls_stand_beside_the_models(evaluation):
    never = evaluation["controls"]["always_negative"]["test"]
    assert never["auroc"]["value"] == 0.5
    assert never["recall"]["value"] == 0
    assert never["recall"]["low"] is None
    assert never["recall"]["reason"].startswith("no interval: the same at both its ends")
    assert never["precision"] == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no image is called positive",
    }
    assert never["log_loss"]["value"] is None
    assert never["accuracy"]["value"] == pytest.approx(1 - never["positives"] / never["n"])
    metadata = evaluation["controls"]["metadata_only"]
    assert 0.55 < metadata["test"]["auroc"]["value"] < 0.8
    assert (
        metadata["test"]["auroc"]["value"]
        < evaluation["models"]["resnet18"]["test"]["auroc"]["value"]
    )


def test_comparison_is_paired(evaluation):
    entry = next(c for c in evaluation["comparisons"] if c["figure"] == "auroc")
    assert (entry["a"], entry["b"]) == ("custom_cnn", "resnet18")
    values = [evaluation["models"][m]["test"]["auroc"]["value"] for m in (entry["a"], entry["b"])]
    told = entry["difference"]
    assert told["value"] == pytest.approx(values[0] - values[1], abs=1e-12)
    assert told["low"] < told["value"] < told["high"]
    half = (told["high"] - told["low"]) / 2
    assert half == pytest.approx(1.96 * entry["check"]["standard_error"], rel=0.25)
    assert (entry["p"] < 0.05) == (told["low"] > 0 or told["high"] < 0)


@pytest.mark.parametrize("model", ["custom_cnn", "resnet18"])
def test_model_less_metadata_is_the_paired_difference_of_the_two_rows(evaluation, model):
    entry = next(
        c for c in evaluation["comparisons"] if (c["a"], c["b"]) == (model, "metadata_only")
    )
    areas = [
        block["test"]["auroc"]
        for block in (evaluation["models"][model], evaluation["controls"]["metadata_only"])
    ]
    told = entry["difference"]
    assert told["value"] == pytest.approx(areas[0]["value"] - areas[1]["value"], abs=1e-12)
    half = (told["high"] - told["low"]) / 2
    assert half == pytest.approx(1.96 * entry["check"]["standard_error"], rel=0.25)


def test_image_adds_to_the_metadata(evaluation):
    entry = next(c for c in evaluation["comparisons"] if c["a"] == "metadata_only + resnet18")
    assert entry["b"] == "metadata_only"
    assert entry["difference"]["low"] > 0


def test_result_is_plain_json_and_the_same_again(
    evaluation, studies, predictions, operating_points
):
    shuffled = studies.sample(frac=1, random_state=0)
    again = evaluate(shuffled, predictions, operating_points, FACTS, CONFIG)
    assert json.dumps(again, allow_nan=False) == json.dumps(evaluation, allow_nan=False)


def test_data_tells_counts_and_facts(evaluation, studies):
    data = evaluation["data"]
    assert data["images"] == 900
    assert data["people"] == studies["patient_id"].nunique()
    assert data["prevalence"] == pytest.approx(studies["target"].mean())
    assert data["leak_if_split_by_image"] == {"val": 0.7, "test": 0.7}
    assert sum(side["images"] for side in data["sides"].values()) == 900


def test_no_test_side_gives_nulls_with_the_reason(studies, predictions, operating_points):
    kept = studies[studies["split"] != "test"]
    told = evaluate(kept, predictions, operating_points, FACTS, CONFIG)
    test = told["models"]["resnet18"]["test"]
    assert test["n"] == 0
    assert test["auroc"] == {"value": None, "low": None, "high": None, "reason": "no image"}
    assert all(f["value"] is None for f in figures(told["controls"]["always_negative"]))
    json.dumps(told, allow_nan=False)


def test_only_a_test_side_has_figures_but_no_metadata_control(
    studies, predictions, operating_points
):
    kept = studies[studies["split"] == "test"]
    told = evaluate(kept, predictions, operating_points, FACTS, CONFIG)
    control = told["controls"]["metadata_only"]["test"]["auroc"]
    assert control["value"] is None
    assert control["reason"].startswith("not fitted")
    assert told["models"]["resnet18"]["test"]["auroc"]["low"] is not None


def test_without_resamples_no_interval_is_invented(studies, predictions, operating_points):
    config = EvaluationConfig(n_resamples=0)
    told = evaluate(studies, predictions, operating_points, FACTS, config)
    area = told["models"]["resnet18"]["test"]["auroc"]
    assert area["low"] is None
    assert "n_resamples" in area["reason"]
    assert all(math.isnan(c["p"] or math.nan) for c in told["comparisons"])


def test_few_people_give_no_interval(studies, predictions, operating_points):
    tested = studies[studies["split"] == "test"]
    few = tested[tested["patient_id"].isin(tested["patient_id"].unique()[:9])]
    kept = pd.concat([few, studies[studies["split"] != "test"]])
    told = evaluate(kept, predictions, operating_points, FACTS, CONFIG)
    accuracy = told["models"]["resnet18"]["test"]["accuracy"]
    assert accuracy["value"] is not None
    assert accuracy["low"] is None
    assert accuracy["reason"] == "no interval: 9 to resample, at least 10 needed"
    assert all(c["p"] is None for c in told["comparisons"])


def test_missing_columns_of_metadata_give_no_subgroup(studies, predictions, operating_points):
    bare = studies.assign(view=None, sex=None, age=np.nan, spacing=np.nan)
    bare["class"] = None
    told = evaluate(bare, predictions, operating_points, FACTS, CONFIG)
    assert told["models"]["resnet18"]["subgroups"] == []
    assert told["controls"]["metadata_only"]["test"]["auroc"]["value"] == 0.5


def test_missing_prediction_is_refused(studies, predictions, operating_points):
    short = {model: table.iloc[5:] for model, table in predictions.items()}
    with pytest.raises(StaleArtifactError, match=r"got none for .* --refresh predictions"):
        evaluate(studies, short, operating_points, FACTS, CONFIG)


@pytest.mark.parametrize(
    ("rare", "reason"),
    [
        (0.9, "the same at both its ends"),  # 30 of 2,000 resamples differ
        (np.nan, "undefined in 30 of 2000 resamples"),
    ],
)
def test_no_interval_says_which_of_the_reasons_it_is(rare, reason):
    told = figure(1.0, np.r_[np.full(30, rare), np.ones(1970)])
    assert told["reason"].startswith(f"no interval: {reason}")


def test_no_interval_one_undefined_resample_is_not_the_reason():
    told = figure(1.0, np.r_[np.nan, np.ones(1999)])
    assert told["reason"].startswith("no interval: the same at both its ends")
