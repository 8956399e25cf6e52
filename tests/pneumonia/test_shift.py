"""An external test in words, and on its page."""

import copy

import pytest
from pages import NASTY, Page, render

from pneumonia.config import EvaluationConfig
from pneumonia.external import evaluate_external
from pneumonia.shift import SHIFT_NAMES, calibration_fits, shift_table, told_of_calibration
from pneumonia.summary import headline, reasons_for_caution, reasons_to_trust
from pneumonia.tables import data_table, tell

MODEL = "resnet18"
FACTS = {
    "grouping": "person", "unlabelled_files": 0, "labels_without_file": 0, "quarantined": 0,
    "leak_if_split_by_image": None, "left_out": {"same_pixels": 3, "same_name": 1},
    "people_of_home": {"people": 2, "images": 5, "sides": {"train": 1, "val": 0, "test": 1}},
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluation(studies, predictions, operating_points, other):
    return evaluate_external(
        (studies, predictions[MODEL]),
        other,
        operating_points[MODEL],
        FACTS,
        EvaluationConfig(n_resamples=60),
        {"model": MODEL, "run": "main", "data": NASTY},
    )


def with_calibration(evaluation, slope, intercept):
    changed = copy.deepcopy(evaluation)
    here = changed["external"]["shift"]["here"]
    level = None if slope[0] is None else 0.0
    here["calibration_in_the_large"] = {
        "value": level, "low": level, "high": level, "reason": "none"
    }  # fmt: skip
    for name, (low, high) in (("slope", slope), ("intercept", intercept)):
        value = None if low is None else (low + high) / 2
        here[f"calibration_{name}"] = {"value": value, "low": low, "high": high, "reason": "none"}
    return changed


@pytest.mark.parametrize(
    ("slope", "intercept", "fits", "told"),
    [
        ((0.9, 1.1), (-0.1, 0.1), True, "do not show that"),
        ((0.7, 0.9), (-0.1, 0.1), False, "does not fit here"),
        ((0.9, 1.1), (0.1, 0.3), False, "does not fit here"),
        ((None, None), (None, None), False, "is not shown"),
    ],
)
def test_calibration_fits_where_both_intervals_hold_the_ideal(
    evaluation, slope, intercept, fits, told
):
    changed = with_calibration(evaluation, slope, intercept)
    assert calibration_fits(changed) == fits
    sentence = told_of_calibration(changed)
    assert told in sentence
    assert sentence not in reasons_to_trust(changed)
    assert (reasons_for_caution(changed)[0] == sentence) != fits
    assert sentence in reasons_for_caution(changed)


def test_calibration_of_a_wrong_level_does_not_fit_though_slope_and_intercept_may(evaluation):
    changed = with_calibration(evaluation, (0.9, 1.1), (-0.1, 0.1))
    level = {"value": 0.04, "low": 0.02, "high": 0.06, "reason": None}
    changed["external"]["shift"]["here"]["calibration_in_the_large"] = level
    assert not calibration_fits(changed)
    assert "+0.040" in told_of_calibration(changed)


def test_headline_names_model_run_and_data_and_claims_nothing_of_people(evaluation):
    told = headline(evaluation)
    assert told.startswith(f"External test of {MODEL} from run main, frozen, on {NASTY}: on 700 ")
    shift = evaluation["external"]["shift"]
    assert tell(shift["here"]["auroc"]) in told
    assert tell(shift["home"]["auroc"]) in told
    assert "had not seen" not in told


def test_sentences_are_those_of_an_external_test(evaluation):
    trust, caution = reasons_to_trust(evaluation), reasons_for_caution(evaluation)
    assert any("left out for that: 3 for their pixels, 1 more" in line for line in trust)
    assert not any("two sides" in line or "chosen on val" in line for line in trust)
    assert not any("no other hospital" in line or "split is by image" in line for line in caution)
    shared = "2 people here (5 images; at home train 1, val 0, test 1) have the name of a person"
    assert any(line.startswith(shared) for line in caution)


@pytest.mark.parametrize(
    ("shared", "told"),
    [
        (None, "people could not be"),
        ({"people": 0, "images": 0, "sides": {}}, "Nobody here has the name of a person of the"),
    ],
)
def test_people_of_other_names_or_none_may_still_be_known(evaluation, shared, told):
    data = evaluation["data"] | {"people_of_home": shared}
    caution = reasons_for_caution(evaluation | {"data": data})
    (line,) = [line for line in caution if told in line]
    assert "known to the model" in line
    assert not any("figures flatter" in line for line in caution)


def test_model_beside_the_control_is_told_on_the_side_that_its_interval_speaks_for(evaluation):
    entry = evaluation["comparisons"][0]
    assert (entry["a"], entry["b"]) == (MODEL, "metadata_only")
    better = f"{MODEL} ranks these images better than the metadata alone do"
    told = f"{better}: {tell(entry['difference'], signed=True)} in AUROC, in pairs."
    assert entry["difference"]["low"] > 0
    assert told in reasons_to_trust(evaluation)
    weak = copy.deepcopy(evaluation)
    weak["comparisons"][0]["difference"] |= {"value": 0.01, "low": -0.02, "high": 0.04}
    not_shown = f"That {better} is not shown: +0.010 (-0.020 to +0.040) in AUROC, in pairs."
    assert not_shown in reasons_for_caution(weak)
    assert not any(better in line for line in reasons_to_trust(weak))


def test_shift_table_has_every_figure_of_both_sides(evaluation):
    rows = shift_table(evaluation)
    assert [row["figure"] for row in rows] == list(SHIFT_NAMES.values())
    assert set(SHIFT_NAMES) == set(evaluation["external"]["shift"]["difference"])
    assert rows[0]["here less home"].startswith("-")  # 12 % positive, and more at home


def test_data_table_has_the_sides_of_home_and_the_other_data(evaluation, studies):
    rows = {row["side"]: row for row in data_table(evaluation)}
    assert list(rows) == ["home train", "home val", "home test", "test: the other data"]
    at_home = studies[studies["split"] == "test"]
    assert rows["home test"]["images"] == f"{len(at_home):,}"
    assert rows["home test"]["positive"] == f"{at_home['target'].sum():,}"
    assert rows["test: the other data"]["images"] == "700"


def test_page_says_what_it_is_and_escapes_the_name_of_the_data(
    evaluation, studies, predictions, other, tmp_path
):
    home = studies, {MODEL: predictions[MODEL]}
    _, text = render(tmp_path, evaluation, other[0], {MODEL: other[1]}, home=home)
    assert "<script" not in text
    assert f"<title>External test of {MODEL} from run main on &lt;script&gt;" in text
    page = Page(text)
    assert "Shift" in page.text
    beside = evaluation["comparisons"][0]["difference"]
    assert f"<span>{beside['value']:+.3f} <small>{beside['low']:+.3f} to" in text
    assert "People here who have the name of one of the home run: 2 (images: 5)." in page.text
    assert "does it rank better than view, sex, age and pixel spacing alone?" in page.text
    assert [attributes for tag, attributes in page.tags if tag == "img" and "here." in
            attributes["alt"]]  # fmt: skip
    for untrue in ("no other hospital has been tried", "torchxrayvision", "The split is by"):
        assert untrue not in page.text


def test_page_of_one_class_is_written(studies, predictions, operating_points, other, tmp_path):
    rows, table = other[0].assign(target=False), other[1]
    told = evaluate_external(
        (studies, predictions[MODEL]), (rows, table), operating_points[MODEL], FACTS,
        EvaluationConfig(n_resamples=20), {"model": MODEL, "run": "main", "data": "other"},
    )  # fmt: skip
    home = studies, {MODEL: predictions[MODEL]}
    _, text = render(tmp_path, told, rows, {MODEL: table}, home=home)
    assert "undefined" in Page(text).text
