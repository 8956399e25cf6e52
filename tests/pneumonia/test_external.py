"""Another data set as the test side of a finished run, and the shift between the two."""

import numpy as np
import pandas as pd
import pytest
from people import make_tables, split_tables
from sklearn.metrics import roc_auc_score

from pneumonia.config import EvaluationConfig
from pneumonia.errors import ConfigError, SplitError
from pneumonia.evaluation import evaluate
from pneumonia.external import (
    SHIFT,
    evaluate_external,
    external_predictions,
    external_studies,
    in_place_of_test,
    measure_shift,
)
from pneumonia.people import patient_id
from pneumonia.split import STUDY_COLUMNS

MODEL = "resnet18"
CONFIG = EvaluationConfig(n_resamples=100)
NAMES = {"model": MODEL, "run": "main", "data": "other/raw"}
FACTS = {
    "grouping": "person", "unlabelled_files": 0, "labels_without_file": 0, "quarantined": 0,
    "leak_if_split_by_image": None, "left_out": {"same_pixels": 0, "same_name": 0},
    "people_of_home": None,
}  # fmt: skip


def other_set(n_images=30):
    labels, boxes, images, persons = make_tables(n_images, 10)
    return labels, boxes, images.assign(pixel_digest=images["image_id"] + " pixels"), persons


def known(names=(), pixels=()):
    rows = [(name, "other pixels") for name in names] + [("another", of) for of in pixels]
    return pd.DataFrame(rows, columns=["image_id", "pixel_digest"], dtype="str")


@pytest.fixture
def home(studies, predictions):
    return studies, predictions[MODEL]


@pytest.fixture
def decisions(operating_points):
    return operating_points[MODEL]


def test_external_studies_are_all_test_and_nobody_has_a_home_name():
    labels, boxes, images, persons = other_set()
    studies, facts = external_studies(labels, boxes, images, known(), persons=persons)
    assert list(studies.columns) == STUDY_COLUMNS
    assert set(studies["split"]) == {"test"}
    assert len(studies) == 30
    assert studies["patient_id"].nunique() == persons["person"].nunique()
    assert facts["grouping"] == "person"
    again, facts = external_studies(labels, boxes, images, known(), persons=None)
    assert facts["grouping"] == "image"
    assert again["patient_id"].nunique() == 30
    assert not set(again["patient_id"]) & set(studies["patient_id"])


def test_external_studies_names_no_person_as_the_home_run_would():
    labels, boxes, images, persons = make_tables(300, 100)
    images = images.assign(pixel_digest=images["image_id"])
    at_home = split_tables((labels, boxes, images, persons)).studies
    studies, _ = external_studies(labels, boxes, images, known(), persons=persons)
    assert not set(studies["patient_id"]) & set(at_home["patient_id"])


def test_external_studies_leave_out_what_the_home_run_has():
    labels, boxes, images, persons = other_set()
    seen = known(
        names=["image-00003", "image-00004"], pixels=["image-00007 pixels", "image-00003 pixels"]
    )
    studies, facts = external_studies(labels, boxes, images, seen, persons=persons)
    left_out = {"image-00003", "image-00004", "image-00007"}
    assert set(images["image_id"]) - set(studies["image_id"]) == left_out
    assert facts["left_out"] == {"same_pixels": 2, "same_name": 1}


def test_external_studies_count_people_named_as_at_home_on_the_images_that_are_left():
    labels, boxes, images, persons = other_set()
    persons = persons.assign(person=[f"{number // 3}" for number in range(30)])  # 3 images each
    of_home = {"0": "train", "1": "test", "4": "val", "70": "train"}
    home = pd.DataFrame(
        [(patient_id(f"person {name}"), side) for name, side in of_home.items() for _ in range(2)],
        columns=["patient_id", "split"],
    )
    seen = known(names=["image-00000", "image-00003", "image-00004", "image-00005"])
    _, facts = external_studies(
        labels, boxes, images, seen, persons=persons, home_people=home
    )  # fmt: skip
    sides = {"train": 1, "val": 1, "test": 0}
    assert facts["people_of_home"] == {"people": 2, "images": 5, "sides": sides}


@pytest.mark.parametrize("unknown", ["here", "at home"])
def test_external_studies_count_no_people_where_they_are_not_known(unknown):
    labels, boxes, images, persons = other_set()
    home = pd.DataFrame({"patient_id": ["a"], "split": ["train"]})
    _, facts = external_studies(
        labels, boxes, images, known(),
        persons=None if unknown == "here" else persons,
        home_people=None if unknown == "at home" else home,
    )  # fmt: skip
    assert facts["people_of_home"] is None


def test_external_studies_count_files_and_labels_without_a_partner():
    labels, boxes, images, persons = other_set()
    _, facts = external_studies(labels[3:], boxes, images[:-2], known(), persons=persons)
    assert (facts["unlabelled_files"], facts["labels_without_file"]) == (3, 2)


def test_external_studies_map_with_gaps_is_refused_beyond_its_limit():
    labels, boxes, images, persons = other_set()
    gaps = persons[3:]
    with pytest.raises(SplitError, match=r"at least 95% of 30 images, got none for 3 "):
        external_studies(labels, boxes, images, known(), persons=gaps, max_unmapped=0.05)
    _, facts = external_studies(labels, boxes, images, known(), persons=gaps, max_unmapped=0.1)
    assert facts["unmapped_images"] == 3


def test_external_studies_of_the_home_run_itself_raise():
    labels, boxes, images, persons = other_set()
    with pytest.raises(ConfigError, match=r"got 30, of which 30 have the pixels and 0 more"):
        external_studies(labels, boxes, images, images, persons=persons)


def test_in_place_of_test_keeps_train_and_val(home, other):
    studies = in_place_of_test(home[0], other[0])
    counts = studies["split"].value_counts()
    assert counts["test"] == 700
    assert counts["val"] == (home[0]["split"] == "val").sum()
    assert list(studies.columns) == list(home[0].columns)


def test_shift_home_figures_are_those_of_the_run(home, other, decisions):
    run = evaluate(home[0], {MODEL: home[1]}, {MODEL: decisions}, FACTS, CONFIG)
    shift = measure_shift(MODEL, home, other, decisions, CONFIG)
    test = run["models"][MODEL]["test"]
    for name in set(SHIFT) - {"prevalence", "calibration_in_the_large"}:
        assert shift["home"][name] == test[name]
    assert shift["home"]["n"] == test["n"]
    assert shift["operating_point"] == run["models"][MODEL]["operating_point"]
    assert shift["thresholds"]["youden"] == run["models"][MODEL]["threshold"]


def test_shift_here_agrees_with_scikit_learn(home, other, decisions):
    shift = measure_shift(MODEL, home, other, decisions, CONFIG)
    target, probability = other[0]["target"].to_numpy(), other[1]["probability"].to_numpy()
    threshold = decisions["operating_points"]["youden"]["threshold"]
    assert shift["here"]["prevalence"]["value"] == pytest.approx(target.mean(), abs=1e-12)
    level = probability.mean() - target.mean()
    assert shift["here"]["calibration_in_the_large"]["value"] == pytest.approx(level, abs=1e-12)
    assert shift["here"]["auroc"]["value"] == pytest.approx(roc_auc_score(target, probability))
    assert shift["here"]["recall"]["value"] == (probability[target] >= threshold).mean()
    for name in SHIFT:
        here, at_home, less = (shift[side][name] for side in ("here", "home", "difference"))
        assert less["value"] == pytest.approx(here["value"] - at_home["value"], abs=1e-12)
        assert less["low"] < less["value"] < less["high"]


def test_shift_of_logits_is_found_in_the_intercept(home, other, decisions):
    """Log odds raised by d move the intercept by -slope d, exactly."""
    rows, table = other
    a, d = decisions["calibration"]["a"], 0.7
    raised = external_predictions(rows, table["logit"].to_numpy() + d / a, decisions)
    before, after = (
        measure_shift(MODEL, home, (rows, told), decisions, CONFIG)["here"]
        for told in (table, raised)
    )
    slope = before["calibration_slope"]["value"]
    assert after["calibration_slope"]["value"] == pytest.approx(slope, abs=1e-6)
    moved = after["calibration_intercept"]["value"] - before["calibration_intercept"]["value"]
    assert moved == pytest.approx(-slope * d, abs=1e-6)
    assert after["auroc"] == before["auroc"]


def test_shift_between_equal_samples_is_nought_with_an_interval(home, decisions):
    """Two samples of one size are drawn from one seed; they must not be taken for pairs."""
    rows = home[0][home[0]["split"] == "test"].reset_index(drop=True)
    shift = measure_shift(MODEL, home, (rows, home[1]), decisions, CONFIG)
    difference = shift["difference"]["auroc"]
    assert difference["value"] == 0
    width = difference["high"] - difference["low"]
    own = shift["home"]["auroc"]["high"] - shift["home"]["auroc"]["low"]
    assert width == pytest.approx(np.sqrt(2) * own, rel=0.35)


def test_shift_without_a_home_test_side_is_undefined_with_its_reason(home, other, decisions):
    studies = home[0][home[0]["split"] != "test"]
    shift = measure_shift(MODEL, (studies, home[1]), other, decisions, CONFIG)
    assert shift["home"]["n"] == 0
    assert shift["home"]["prevalence"]["reason"] == "no image"
    assert shift["difference"]["auroc"]["reason"] == "one of the two is undefined"
    assert shift["here"]["auroc"]["value"] is not None


def test_evaluate_external_counts_the_other_images_alone(home, other, decisions):
    told = evaluate_external(home, other, decisions, FACTS, CONFIG, NAMES)
    assert (told["data"]["images"], told["data"]["people"]) == (700, 300)
    assert told["data"]["prevalence"] == other[0]["target"].mean()
    assert told["external"]["model"] == MODEL
    block = told["models"][MODEL]
    assert block["test"]["auroc"] == told["external"]["shift"]["here"]["auroc"]
    assert block["val"]["n"] == (home[0]["split"] == "val").sum()
    assert block["threshold"] == decisions["operating_points"]["youden"]["threshold"]
    assert block["calibration"] == decisions["calibration"]


def test_evaluate_external_controls_and_joint_model_are_fitted_at_home(home, other, decisions):
    """Other people change what the controls reach, never what was fitted."""
    told = evaluate_external(home, other, decisions, FACTS, CONFIG, NAMES)
    run = evaluate(home[0], {MODEL: home[1]}, {MODEL: decisions}, FACTS, CONFIG)
    assert told["controls"]["metadata_only"]["val"] == run["controls"]["metadata_only"]["val"]
    assert told["models"][MODEL]["val"] == run["models"][MODEL]["val"]
    pairs = [(entry["a"], entry["b"]) for entry in told["comparisons"]]
    assert pairs == [(MODEL, "metadata_only"), (f"metadata_only + {MODEL}", "metadata_only")]


def test_evaluate_external_sets_the_model_beside_the_control_in_pairs(home, other, decisions):
    told = evaluate_external(home, other, decisions, FACTS, CONFIG, NAMES)
    entry = told["comparisons"][0]
    blocks = told["models"][MODEL]["test"], told["controls"]["metadata_only"]["test"]
    areas = [block["auroc"]["value"] for block in blocks]
    assert entry["difference"]["value"] == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert entry["difference"]["low"] < entry["difference"]["value"] < entry["difference"]["high"]
