"""The page stands alone, escapes what it is given, and tells what evaluation.json says."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from pages import Page, make_cams, make_sanity, render

from pneumonia import tables
from pneumonia.config import EvaluationConfig
from pneumonia.evaluation import evaluate
from pneumonia.summary import (
    headline,
    reasons_for_caution,
    reasons_to_trust,
    summary_markdown,
)
from pneumonia.tables import answer_table, cam_table, p_value, sanity_table, tell

FACTS = {
    "grouping": "person",
    "unlabelled_files": 3,
    "labels_without_file": 2,
    "quarantined": 2,
    "leak_if_split_by_image": {"val": 0.71, "test": 0.69},
}


@pytest.fixture(scope="module")
def evaluation(studies, predictions, operating_points):
    return evaluate(studies, predictions, operating_points, FACTS, EvaluationConfig(n_resamples=60))


@pytest.fixture(scope="module")
def page(evaluation, studies, predictions, tmp_path_factory):
    _, text = render(tmp_path_factory.mktemp("report"), evaluation, studies, predictions)
    return text


def test_report_needs_nothing_from_outside(page):
    for tag, attributes in Page(page).tags:
        assert tag not in {"script", "iframe", "object", "video", "audio", "form"}
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
        assert not [name for name in attributes if name.startswith("on")]
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_report_shows_what_files_hold_as_text(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


def test_report_every_picture_has_an_alternative_text(page):
    pictures = [attributes for tag, attributes in Page(page).tags if tag == "img"]
    assert len(pictures) >= 12
    for attributes in pictures:
        assert len(attributes["alt"]) > 15
        assert re.match(r"data:image/(svg\+xml|png);base64,", attributes["src"])


def test_report_opens_with_the_answer(page, evaluation):
    text = Page(page[page.index("<body>") :]).text
    first = text[: text.index("Data and split")]
    for model, sides in evaluation["models"].items():
        assert model in first
        assert tell(sides["test"]["auroc"]) in first
    assert tell(evaluation["controls"]["metadata_only"]["test"]["auroc"]) in first
    assert "not a medical device" in first
    assert "What they do not say" in first


def test_report_headings_do_not_skip_a_level(page):
    levels = [int(tag[1]) for tag, _ in Page(page).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_report_again_is_the_same(page, evaluation, studies, predictions, tmp_path):
    facts, again = render(tmp_path, evaluation, studies, predictions)
    assert again == page
    assert facts["bytes"] == len(again.encode())


def test_report_without_a_test_side_says_so(studies, predictions, operating_points, tmp_path):
    kept = studies[studies["split"] != "test"]
    told = evaluate(kept, predictions, operating_points, FACTS, EvaluationConfig(n_resamples=10))
    _, text = render(tmp_path, told, kept, predictions)
    assert "There is no test side" in text
    assert "nan" not in Page(text).text.lower().replace("financ", "")


def test_report_without_header_fields_or_maps_is_written(
    studies, predictions, operating_points, tmp_path
):
    bare = studies.assign(view=None, sex=None, age=np.nan, spacing=np.nan)
    bare["class"] = None
    told = evaluate(bare, predictions, operating_points, FACTS, EvaluationConfig(n_resamples=10))
    nothing = pd.DataFrame({"file": [], "image_id": [], "reason": [], "detail": []})
    _, text = render(tmp_path, told, bare, predictions, cams={}, quarantine=nothing)
    assert "not stated" in text


def test_headline_split_by_image_does_not_claim_new_people(evaluation):
    by_image = {**evaluation, "data": {**evaluation["data"], "grouping": "image"}}
    assert "had not seen" in headline(evaluation)
    assert "had not seen" not in headline(by_image)
    assert "No person stands on two sides" in reasons_to_trust(evaluation)[0]
    assert not [line for line in reasons_to_trust(by_image) if line.startswith("No person")]
    assert reasons_for_caution(by_image)[0].startswith("The split is by image")


def test_report_split_by_image_speaks_of_images(studies, predictions, operating_points, tmp_path):
    alone = studies.assign(patient_id=studies["image_id"])
    facts = FACTS | {"grouping": "image"}
    told = evaluate(alone, predictions, operating_points, facts, EvaluationConfig(n_resamples=60))
    _, page = render(tmp_path, told, alone, predictions)
    text = " ".join(Page(page[page.index("<body>") :]).text.split())
    assert "from resampling images." in text
    assert "intervals over images" in text
    assert "same test images, from resampling images." in text
    assert "69 % of the test images show a person of train" in text
    assert not re.search(r"resampling people|over people|[0-9] people", text)
    assert "people" not in tables.data_table(told)[0]


def test_report_split_by_person_speaks_of_people(page, evaluation):
    text = " ".join(Page(page[page.index("<body>") :]).text.split())
    assert f"images of {evaluation['data']['people']:,} people" in text
    assert "95 % intervals over people" in text
    assert "would show a person of train" in text
    assert "people" in tables.data_table(evaluation)[0]


@pytest.mark.parametrize("people", [0, 9, None])
def test_no_sentence_on_intervals_or_test_where_there_are_none(
    studies, predictions, operating_points, tmp_path, people
):
    """No test side; nine people in it; no resamples asked for."""
    tested = studies[studies["split"] == "test"]
    kept = tested[tested["patient_id"].isin(tested["patient_id"].unique()[:people])]
    kept = pd.concat([kept, studies[studies["split"] != "test"]])
    config = EvaluationConfig(n_resamples=0 if people is None else 60)
    told = evaluate(kept, predictions, operating_points, FACTS, config)
    sentences = [*reasons_to_trust(told), *reasons_for_caution(told)]
    assert not [line for line in sentences if "Intervals are" in line or "read the" in line]
    assert any("figures here are of test" in line for line in sentences) == (people != 0)
    assert any(line.startswith("The test side is small") for line in sentences) == (people != 0)
    _, page = render(tmp_path, told, kept, predictions)
    assert "95 % intervals over" not in page


def test_image_that_adds_nothing_is_a_caution(evaluation):
    weak = json.loads(json.dumps(evaluation))
    for entry in weak["comparisons"]:
        entry["difference"] |= {"value": 0.01, "low": -0.02, "high": 0.04}
    assert any("is not shown for resnet18" in line for line in reasons_for_caution(weak))
    assert not any("adds to the metadata" in line for line in reasons_to_trust(weak))


def test_report_shows_the_surest_errors_and_the_digest_of_the_split(page):
    assert "The surest errors of resnet18" in page
    assert "probability 0.900; " in page
    assert "0123abcd" * 8 in page


def test_report_of_one_seed_says_nothing_of_seeds(page):
    assert "Over seeds" not in page
    assert "Repeatability" not in page


def test_report_tells_the_spread_over_seeds(evaluation, studies, predictions, tmp_path):
    one = {"mean": 0.9123, "standard_deviation": 0.0121, "values": [0.90, 0.924], "reason": None}
    none = {
        "mean": None,
        "standard_deviation": None,
        "values": [0.5, None],
        "reason": "seed 7: 0/0",
    }
    names = ("auroc", "average_precision", "log_loss", "brier", "recall", "specificity")
    spread = {"seeds": [3, 7], "test": dict.fromkeys(names, one) | {"recall": none}}
    models = evaluation["models"] | {
        "resnet18": evaluation["models"]["resnet18"] | {"seeds": spread}
    }
    _, text = render(tmp_path, evaluation | {"models": models}, studies, predictions)
    told = " ".join(Page(text).text.split())
    assert "Over seeds" in told
    assert "0.912 \N{PLUS-MINUS SIGN} 0.012" in told
    assert "0.900 to 0.924" in told
    assert "undefined: seed 7: 0/0" in told


def test_people_that_the_map_does_not_name_are_no_part_of_the_claim(evaluation):
    gaps = evaluation | {"data": evaluation["data"] | {"unmapped_images": 3}}
    assert any(line.startswith("No person stands on two") for line in reasons_to_trust(evaluation))
    assert any(line.startswith("No person that the map names") for line in reasons_to_trust(gaps))


def test_report_lists_films_that_stand_on_two_sides(evaluation, studies, predictions, tmp_path):
    found = {"exact": 0, "near": 1, "images": {"val": 0, "test": 1}}
    told = evaluation | {"data": evaluation["data"] | {"duplicates": found}}
    _, page = render(tmp_path, told, studies, predictions)
    assert "0 pairs with equal pixels, 1 nearly equal" in page
    assert "1 test image shows the same film as one of train or val" in page
    assert "Films on two sides (the first 1;" in page


def test_answer_table_has_models_and_controls(evaluation):
    names = [row[""] for row in answer_table(evaluation)]
    assert names == ["custom_cnn", "resnet18", "metadata only", "always negative"]
    precision = answer_table(evaluation)[-1]["PPV"]
    assert precision == "undefined: no image is called positive"


def test_subgroups_have_intervals_of_every_figure(evaluation, page):
    rows = {row["group"]: row for row in tables.subgroup_table(evaluation)}
    for group in evaluation["models"]["resnet18"]["subgroups"]:
        if group["by"] == "view":
            row = rows[f"view: {group['value']}"]
            assert group["recall"]["low"] < group["recall"]["value"] < group["recall"]["high"]
            assert row["resnet18: sensitivity"] == tell(group["recall"])
            assert row["resnet18: specificity"] == tell(group["specificity"])
            ends = f"{group['recall']['low']:.3f} to {group['recall']['high']:.3f}"
            assert f"<small>{ends}</small>" in page[page.index("Subgroups of test, at") :]


def test_report_says_why_there_is_no_interval(studies, predictions, operating_points, tmp_path):
    """Nine people in test: every figure has a value and none an interval."""
    tested = studies[studies["split"] == "test"]
    few = tested[tested["patient_id"].isin(tested["patient_id"].unique()[:9])]
    kept = pd.concat([few, studies[studies["split"] != "test"]])
    told = evaluate(kept, predictions, operating_points, FACTS, EvaluationConfig(n_resamples=60))
    _, page = render(tmp_path, told, kept, predictions)
    reason = "9 to resample, at least 10 needed"
    assert told["models"]["resnet18"]["test"]["recall"]["reason"] == f"no interval: {reason}"
    assert f'<p class="note">No interval: (a) {reason}.</p>' in page
    assert "<small>no interval (a)</small>" in page
    assert f"(no interval: {reason})" in headline(told)


def test_cam_table_shows_the_control_beside_the_model(tmp_path):
    cams = {model: cam for model, (cam, _) in make_cams(tmp_path, ["resnet18"]).items()}
    rows = cam_table(cams)
    assert [row["map"] for row in rows] == ["resnet18", "constant map", "difference"]
    assert rows[2]["IoU"] == "+0.500 (+0.400 to +0.600)"
    assert {row["CNR"].partition(", ")[2] for row in rows} == {"defined on 27 of 30"}


def test_report_says_on_how_many_images_a_measure_of_the_maps_is_defined(page):
    assert page.count("<small>defined on 27 of 30</small>") == 2 * 3
    assert "stand on the images where both maps define it" in page


def test_sanity_table_shows_each_depth_beside_the_random_pairs():
    none = {"images": 0, "layers": [], "random_pairs": None, "passed": None, "reason": "no image"}
    cams = {"resnet18": {"sanity": make_sanity()}, "custom_cnn": {"sanity": none}}
    assert sanity_table(cams) == [
        {
            "maps of": "resnet18",
            "random to head": "0.310",
            "random to stem": "0.050",
            "different images": "0.300",
            "falls below": "yes",
        },
        {
            "maps of": "custom_cnn",
            "random to head": "\N{EN DASH}",
            "random to stem": "\N{EN DASH}",
            "different images": "\N{EN DASH}",
            "falls below": "undefined: no image",
        },
    ]


def test_maps_that_fail_their_sanity_check_are_a_caution_on_the_first_screen(
    evaluation, studies, predictions, tmp_path
):
    cams = make_cams(tmp_path, predictions)
    cams["resnet18"][0]["sanity"] = make_sanity(passed=False)
    (tmp_path / "page").mkdir()
    _, page = render(tmp_path / "page", evaluation, studies, predictions, cams=cams)
    text = Page(page[page.index("<body>") :]).text
    first = text[: text.index("Data and split")]
    assert "Do not read the maps of resnet18" in first
    assert "Do not read the maps of custom_cnn" not in text
    told = summary_markdown(evaluation, {model: cam for model, (cam, _) in cams.items()})
    assert "Do not read the maps of resnet18" in told


def test_report_says_what_the_sanity_of_the_maps_means(page):
    text = " ".join(Page(page[page.index("<body>") :]).text.split())
    assert "weights are replaced by random ones" in text
    assert "Do not read the maps" not in text


def test_report_says_which_of_interval_and_p_decides(page):
    text = " ".join(Page(page).text.split())
    assert "The interval decides: a difference is shown where it excludes 0." in text
    assert "p, Obuchowski" in text


def test_report_says_why_ppv_has_two_intervals(page):
    text = " ".join(Page(page).text.split())
    assert "The prevalence is held fixed here" in text
    assert "at the same prevalence the value is the same, the interval is another" in text


def test_summary_markdown_is_a_whole_table(evaluation):
    text = summary_markdown(evaluation)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert len({line.count("|") for line in rows}) == 1
    assert "not a medical device" in text


@pytest.mark.parametrize(("p", "told"), [(0.0004, "< 0.001"), (0.05, "0.050"), (1.0, "1.000")])
def test_p_value_is_never_told_as_zero(p, told):
    assert p_value(p) == told
