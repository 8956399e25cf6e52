"""Paired differences between runs: by hand, against scikit-learn, and which images take part."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from pneumonia.config import EvaluationConfig
from pneumonia.errors import ConfigError, StaleArtifactError
from pneumonia.run_comparison import FIGURES, common_scores, common_test, compare_runs

CONFIG = EvaluationConfig(n_resamples=200)
MODEL = "resnet18"


def entries(comparison, model=MODEL, pair=0):
    found = comparison["pairs"][pair]["models"][model]["differences"]
    return {entry["figure"]: entry for entry in found}


def worsened(predictions, decisions, noise=0.8, seed=5):
    """Predictions with noise on every logit, in another order."""
    rng = np.random.default_rng(seed)
    tables = {}
    for model, table in predictions.items():
        logit = table["logit"] + noise * rng.normal(size=len(table))
        fitted = decisions[model]["calibration"]
        log_odds = fitted["a"] * logit + fitted["b"]
        noisy = table.assign(logit=logit, probability=1 / (1 + np.exp(-log_odds)))
        tables[model] = noisy.sample(frac=1, random_state=seed)
    return tables


def in_test(studies):
    return studies.loc[studies["split"] == "test", "image_id"]


@pytest.fixture(scope="module")
def main(make_run):
    return make_run("main")


@pytest.fixture(scope="module")
def noisy(make_run, predictions, operating_points):
    return make_run("noisy", predictions=worsened(predictions, operating_points))


@pytest.fixture(scope="module")
def comparison(main, noisy):
    return compare_runs([main, noisy], CONFIG)


def test_differences_by_hand(make_run, studies):
    ids = ["i0", "i1", "i2", "i3"]
    tiny = studies.head(4).assign(
        image_id=ids, patient_id=ids, split="test", target=[False, False, True, True]
    )

    def run(name, probability, threshold):
        probability = np.array(probability)
        table = pd.DataFrame(
            {"image_id": ids, "split": "test", "logit": np.log(probability / (1 - probability)),
             "probability": probability}
        )  # fmt: skip
        points = {
            point: {"threshold": threshold, "rule": "by hand"}
            for point in ("youden", "sensitivity_90", "p_0.5")
        }
        decisions = {MODEL: {"calibration": {"a": 1.0, "b": 0.0}, "operating_points": points}}
        return make_run(name, studies=tiny, predictions={MODEL: table}, decisions=decisions)

    first = run("first", [0.1, 0.4, 0.35, 0.8], 0.4)
    second = run("second", [0.1, 0.2, 0.35, 0.8], 0.3)
    told = entries(compare_runs([first, second], CONFIG))
    by_hand = {
        "auroc": 1.0 - 0.75,
        "average_precision": 1.0 - (1 + 2 / 3) / 2,
        "log_loss": (np.log(1 - 0.4) - np.log(1 - 0.2)) / 4,
        "brier": (0.2**2 - 0.4**2) / 4,
        "recall": 1.0 - 0.5,  # second calls at 0.3, first at 0.4
        "specificity": 1.0 - 0.5,
    }
    assert {name: told[name]["difference"]["value"] for name in FIGURES} == pytest.approx(by_hand)
    for entry in told.values():
        assert (entry["a"], entry["b"]) == ("second", "first")
        assert entry["difference"]["reason"] == "no interval: 4 to resample, at least 10 needed"
        assert entry["p"] is None


def test_differences_are_those_of_scikit_learn(comparison, main, noisy, studies):
    rows = studies[studies["split"] == "test"].set_index("image_id")
    target = rows["target"].to_numpy(bool)
    scores = [
        run.predictions[MODEL].set_index("image_id").loc[rows.index, "probability"].to_numpy()
        for run in (noisy, main)
    ]
    for name, function in (
        ("auroc", reference.roc_auc_score),
        ("average_precision", reference.average_precision_score),
        ("log_loss", reference.log_loss),
        ("brier", reference.brier_score_loss),
    ):
        expected = function(target, scores[0]) - function(target, scores[1])
        told = entries(comparison)[name]["difference"]
        assert told["value"] == pytest.approx(expected, abs=1e-9)
        assert told["low"] < told["value"] < told["high"]


def test_interval_agrees_with_the_clustered_variance(comparison):
    entry = entries(comparison)["auroc"]
    half = (entry["difference"]["high"] - entry["difference"]["low"]) / 2
    assert half == pytest.approx(1.96 * entry["check"]["standard_error"], rel=0.25)
    assert (entry["p"] < 0.05) == (entry["difference"]["high"] < 0)


def test_a_run_beside_its_own_copy_has_not_moved(main, make_run):
    told = compare_runs([main, make_run("copy")], CONFIG)
    for model in main.predictions:
        for entry in entries(told, model).values():
            assert entry["same_answers"]
            assert entry["difference"]["value"] == 0
            assert entry["difference"]["low"] is None
            assert entry["difference"]["reason"].startswith("no interval: the same at both")


def test_swapped_runs_give_the_opposite_differences(comparison, main, noisy):
    swapped = entries(compare_runs([noisy, main], CONFIG))
    for name, entry in entries(comparison).items():
        told, other = entry["difference"], swapped[name]["difference"]
        assert other["value"] == pytest.approx(-told["value"], abs=1e-12)
        assert other["low"] == pytest.approx(-told["high"], abs=1e-12)
        assert other["high"] == pytest.approx(-told["low"], abs=1e-12)
        assert swapped[name]["p"] == entry["p"]


def test_order_of_rows_makes_no_difference_and_all_is_plain_json(
    comparison, main, make_run, studies, predictions, operating_points
):
    shuffled = make_run(
        "noisy",
        studies=studies.sample(frac=1, random_state=3),
        predictions={
            model: table.sample(frac=1, random_state=4)
            for model, table in worsened(predictions, operating_points).items()
        },
    )
    again = compare_runs([main, shuffled], CONFIG)
    assert json.dumps(again, allow_nan=False) == json.dumps(comparison, allow_nan=False)


def test_every_run_is_compared_with_the_first(main, noisy, make_run):
    told = compare_runs([main, noisy, make_run("copy")], EvaluationConfig(n_resamples=0))
    assert told["reference"] == "main"
    assert [pair["run"] for pair in told["pairs"]] == ["noisy", "copy"]
    assert [(row["run"], row["model"]) for row in told["runs"]] == [
        (run, model) for run in ("main", "noisy", "copy") for model in ("custom_cnn", "resnet18")
    ]


def test_each_run_is_called_at_its_own_operating_point(main, make_run, studies):
    other = make_run("half", point="p_0.5")
    told = compare_runs([main, other], EvaluationConfig(n_resamples=0))
    blocks = told["pairs"][0]["models"][MODEL]["blocks"]
    whole = main.evaluation["models"][MODEL]["test"]["operating_points"]
    assert blocks["main"]["recall"]["value"] == whole["youden"]["recall"]["value"]
    assert blocks["half"]["recall"]["value"] == whole["p_0.5"]["recall"]["value"]
    same = {name for name, entry in entries(told).items() if entry["same_answers"]}
    assert same == {"auroc", "average_precision", "log_loss", "brier"}
    assert blocks["main"]["n"] == (studies["split"] == "test").sum()


def test_test_images_that_the_other_run_learned_from_are_left_out(main, make_run, studies):
    people = studies.loc[studies["split"] == "test", "patient_id"].unique()
    moved = studies["patient_id"].isin(people[:50])
    leaky = make_run("leaky", studies=studies.assign(split=studies["split"].mask(moved, "train")))
    common = common_test(main, leaky)
    assert not common.rows["image_id"].isin(studies.loc[moved, "image_id"]).any()
    assert common.facts["compared"] == len(in_test(studies)) - moved.sum()
    assert common.facts["image_learned_by"] == {"main": 0, "leaky": moved.sum()}
    assert common.facts["person_learned_by"] == {"main": 0, "leaky": 0}
    backwards = common_test(leaky, main)
    assert backwards.rows.equals(common.rows)
    assert backwards.facts["image_learned_by"] == {"leaky": moved.sum(), "main": 0}


@pytest.fixture(scope="module")
def by_image(make_run, studies):
    """The same test images, but half of every other person's stand in train."""
    torn = studies["split"].mask(
        (studies["split"] == "test") & (studies.groupby("patient_id").cumcount() % 2 == 1), "train"
    )
    ids = [f"{number:032x}" for number in range(len(studies))]
    return make_run("images", studies=studies.assign(patient_id=ids, split=torn), grouping="image")


@pytest.mark.parametrize("person_first", [True, False])
def test_people_are_those_of_the_run_that_knows_them(main, by_image, studies, person_first):
    pair = (main, by_image) if person_first else (by_image, main)
    common = common_test(*pair)
    assert (common.facts["unit"], common.facts["people_of"]) == ("people", "main")
    known = studies.set_index("image_id")
    rows = common.rows.set_index("image_id")
    assert (rows["patient_id"] == known.loc[rows.index, "patient_id"]).all()
    single = known[known["split"] == "test"].groupby("patient_id").filter(lambda g: len(g) == 1)
    assert set(rows.index) == set(single.index)  # of the others it has learned
    learned = common.facts["person_learned_by"]
    assert learned["images"] == common.facts["test_in_both"] - len(rows)
    assert learned["main"] == 0


def test_people_of_no_run_are_images(by_image):
    facts = common_test(by_image, by_image).facts
    assert facts["unit"] == "images"
    assert facts["people"] == facts["compared"]


def test_an_image_of_another_person_is_counted_and_the_reference_believed(main, make_run, studies):
    tested = in_test(studies).iloc[0]
    renamed = studies["patient_id"].mask(studies["image_id"] == tested, "f" * 16)
    common = common_test(main, make_run("renamed", studies=studies.assign(patient_id=renamed)))
    assert common.facts["person_differs"] == 1
    rows = common.rows.set_index("image_id")
    assert rows.loc[tested, "patient_id"] != "f" * 16


def test_images_with_another_label_are_left_out_and_counted(main, make_run, studies):
    changed = studies["image_id"].isin(in_test(studies).iloc[:7])
    other = make_run("relabelled", studies=studies.assign(target=studies["target"] ^ changed))
    common = common_test(main, other)
    assert common.facts["labels_differ"] == 7
    assert common.facts["compared"] == common.facts["test_in_both"] - 7
    assert not common.rows["image_id"].isin(studies.loc[changed, "image_id"]).any()


def test_images_of_one_run_alone_are_counted(main, make_run, studies):
    gone = in_test(studies).iloc[:5]
    fewer = make_run("fewer", studies=studies[~studies["image_id"].isin(gone)])
    assert common_test(main, fewer).facts["only_in"] == {"main": 5, "fewer": 0}


def test_no_common_test_image_is_refused(main, make_run, studies):
    turned = studies["split"].map({"test": "train", "train": "test", "val": "val"})
    rng = np.random.default_rng(0)
    tables = {
        model: pd.DataFrame({"image_id": studies["image_id"], "split": turned}).assign(
            logit=rng.normal(size=len(studies)), probability=rng.random(len(studies))
        )
        for model in main.predictions
    }
    other = make_run("turned", studies=studies.assign(split=turned), predictions=tables)
    with pytest.raises(ConfigError, match=r"main and turned: expected test images .* got none"):
        compare_runs([main, other], CONFIG)


def test_only_models_of_the_same_name_are_compared(main, make_run, predictions, operating_points):
    one = make_run(
        "one",
        predictions={MODEL: predictions[MODEL]},
        decisions={MODEL: operating_points[MODEL]},
    )
    pair = compare_runs([main, one], EvaluationConfig(n_resamples=0))["pairs"][0]
    assert list(pair["models"]) == [MODEL]
    assert pair["models_of_one"] == {"main": ["custom_cnn"], "one": []}
    assert list(common_scores(main, one)) == ["main: resnet18", "one: resnet18"]


def test_missing_prediction_is_refused(main, make_run, studies, predictions):
    whole = make_run("short")
    tested = set(in_test(studies))
    short = {
        model: table[~table["image_id"].isin(sorted(tested)[:2])]
        for model, table in predictions.items()
    }
    broken = type(whole)(**(vars(whole) | {"predictions": short}))
    with pytest.raises(StaleArtifactError, match="got none for 2"):
        compare_runs([main, broken], CONFIG)
