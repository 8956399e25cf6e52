"""A comparison in tables, sentences and on its page."""

import json
import re

import pytest

from pneumonia.config import EvaluationConfig
from pneumonia.run_comparison import compare_runs
from pneumonia.run_page import write_comparison
from pneumonia.run_tables import (
    cautions,
    change_table,
    common_sentences,
    difference_table,
    pair_headline,
    run_table,
    verdict,
)

NASTY = "<script>alert(1)</script>"


def entry(figure, low, high, reason=None, same=False):
    known = reason is None or reason.startswith("no interval")
    value = 0.0 if low is None else (low + high) / 2
    difference = {"value": value if known else None, "low": low, "high": high, "reason": reason}
    return {
        "a": "new",
        "b": "main",
        "figure": figure,
        "difference": difference,
        "same_answers": same,
    }


@pytest.mark.parametrize(
    ("figure", "low", "high", "told"),
    [
        ("auroc", 0.01, 0.03, "new is better: higher AUROC."),
        ("average_precision", -0.03, -0.01, "main is better: higher average precision."),
        ("log_loss", 0.01, 0.03, "main is better: lower log loss."),
        ("brier", -0.03, -0.01, "new is better: lower Brier score."),
        ("recall", 0.01, 0.03, "new has the higher sensitivity."),
        ("specificity", -0.03, -0.01, "main has the higher specificity."),
        ("auroc", -0.01, 0.03, "Not shown to differ."),
        ("auroc", 0.0, 0.03, "Not shown to differ."),
    ],
)
def test_verdict_names_a_run_only_where_the_interval_excludes_0(figure, low, high, told):
    assert verdict(entry(figure, low, high)) == told


@pytest.mark.parametrize(
    ("reason", "same", "told"),
    [
        ("no interval: 9 to resample, at least 10 needed", False,
         "No interval: 9 to resample, at least 10 needed."),
        ("one of the two is undefined", False, "Undefined: one of the two is undefined."),
        ("no interval: the same at both its ends", True, "Not moved: the same probabilities."),
    ],
)  # fmt: skip
def test_verdict_without_an_interval_gives_the_reason(reason, same, told):
    assert verdict(entry("auroc", None, None, reason, same)) == told


@pytest.fixture(scope="module")
def runs(make_run, predictions):
    """A reference, a run whose models have changed places, and one that only has one of them."""
    turned = dict(zip(predictions, reversed(predictions.values()), strict=True))
    points = make_run("main").decisions
    turned_points = dict(zip(points, reversed(points.values()), strict=True))
    model = "resnet18"
    return [
        make_run("main"),
        make_run(NASTY, predictions=turned, decisions=turned_points),
        make_run("one", predictions={model: predictions[model]},
                 decisions={model: points[model]}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def comparison(runs):
    return compare_runs(runs, EvaluationConfig(n_resamples=200))


@pytest.fixture(scope="module")
def page(comparison, runs, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_comparison(file, comparison, runs)
    return file.read_text("utf-8")


def test_tables_have_a_row_per_run_and_model_and_per_figure(comparison):
    assert [row["run"] for row in run_table(comparison)] == ["main"] * 2 + [NASTY] * 2 + ["one"]
    moved, same = (difference_table(comparison, pair) for pair in comparison["pairs"])
    assert len(moved) == 2 * 6
    assert moved[0]["verdict"] == f"{NASTY} is better: higher AUROC."
    assert moved[6]["verdict"] == "main is better: higher AUROC."
    assert {row["verdict"] for row in same} == {
        "Not moved: the same probabilities.", "Not moved: the same calls.",
    }  # fmt: skip
    assert {row["p, Obuchowski"] for row in moved if row["figure"] != "AUROC"} == {"\N{EN DASH}"}


def test_headline_names_what_moved(comparison):
    moved, same = (" ".join(pair_headline(comparison, pair)) for pair in comparison["pairs"])
    assert moved.startswith(f"{NASTY} against main on ")
    assert f"differences are {NASTY} less main." in moved
    assert f"; better in {NASTY}: AUROC" in moved  # custom_cnn
    assert "; better in main: AUROC" in moved  # resnet18
    assert "beyond the chance of which people are in the test sample" in moved
    assert "randomness of training" in moved
    assert same.endswith("resnet18 gives the same answers in both.")


def test_headline_tells_what_the_data_moved_from_what_the_model_did(make_run, studies):
    tested = studies.loc[studies["split"] == "test", "image_id"]
    fewer = studies[~studies["image_id"].isin(tested.iloc[:9])]
    config = EvaluationConfig(n_resamples=50)
    comparison = compare_runs([make_run("main"), make_run("fewer", studies=fewer)], config)
    told = " ".join(pair_headline(comparison, comparison["pairs"][0]))
    assert told.endswith("it is the data that moved them.")
    comparison = compare_runs([make_run("main"), make_run("point", point="p_0.5")], config)
    told = " ".join(pair_headline(comparison, comparison["pairs"][0]))
    blocks = comparison["pairs"][0]["models"]["resnet18"]["blocks"]
    assert blocks["point"]["recall"]["value"] > blocks["main"]["recall"]["value"]
    assert "resnet18: the same AUROC; higher in point: sensitivity; higher in main: spec" in told
    assert "The thresholds differ: read sensitivity and specificity together." in told
    assert "data" not in told


def test_sentences_say_what_was_compared_and_what_not(comparison):
    told = common_sentences(comparison, comparison["pairs"][1])
    assert told[0].startswith("Compared: ")
    assert "Not compared: custom_cnn, only in main." in told
    assert told[-1] == "Intervals are 95 %, from resampling people."
    assert not any("calls an image" in line for line in told)


def test_sentences_warn_of_images_that_were_learned(runs, studies, make_run):
    tested = studies.loc[studies["split"] == "test", "image_id"].iloc[0]
    torn = studies["split"].mask(studies["image_id"] == tested, "train")
    ids = [f"{number:032x}" for number in range(len(studies))]
    leaky = make_run("images", studies=studies.assign(patient_id=ids, split=torn), grouping="image")
    comparison = compare_runs([leaky, runs[0]], EvaluationConfig(n_resamples=0))
    told = common_sentences(comparison, comparison["pairs"][0])
    assert (
        "Warning, left out: 1 test images of main that stand in train or val of images, whose "
        "figures they would flatter." in told
    )
    assert told[-1] == "Intervals are 95 %, from resampling people (main knows them)."
    assert run_table(comparison)[0]["people"] == "not known"


def test_sentences_of_runs_by_image_say_that_intervals_are_too_narrow(studies, make_run):
    ids = [f"{number:032x}" for number in range(len(studies))]
    pair = [
        make_run(name, studies=studies.assign(patient_id=ids), grouping="image") for name in "ab"
    ]
    comparison = compare_runs(pair, EvaluationConfig(n_resamples=0))
    assert "too narrow" in common_sentences(comparison, comparison["pairs"][0])[-1]
    assert change_table(comparison["pairs"][0]) == [
        {"what": "data", "difference": "the same images, sides, labels, boxes and people"}
    ]


def test_sentences_say_that_rates_at_other_thresholds_are_read_together(make_run):
    runs = [make_run("main"), make_run("point", point="p_0.5")]
    comparison = compare_runs(runs, EvaluationConfig(n_resamples=0))
    told = common_sentences(comparison, comparison["pairs"][0])
    at = f"from {comparison['runs'][1]['threshold']:.3f} in main and from 0.500 in point"
    (line,) = [line for line in told if line.startswith(f"resnet18 calls an image positive {at}: ")]
    assert "sensitivity and specificity must be read together" in line


def test_headline_with_nothing_shown_names_no_run(comparison):
    quiet = json.loads(json.dumps(comparison))
    for compared in quiet["pairs"][0]["models"].values():
        for entry in compared["differences"]:
            entry["difference"] |= {"value": 0.01, "low": -0.01, "high": 0.03}
    told = " ".join(pair_headline(quiet, quiet["pairs"][0]))
    assert told.count("no figure is shown to differ") == 2
    assert "better" not in told
    assert "thresholds" not in told


def test_cautions_say_what_an_interval_covers(comparison):
    told = cautions(comparison)
    assert "of 18 differences" in told[0]
    assert told[1].startswith("An interval covers the chance of which people are in the test")
    assert not [line for line in told if "noise" in line.lower()]


def test_page_needs_nothing_from_outside_and_escapes(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 5
    assert "default-src 'none'" in page
    assert set(re.findall(r'(?:src|href)="([a-z]+:)', page)) == {"data:"}


def test_page_says_which_of_interval_and_p_decides(page):
    assert page.count("The interval decides: a difference is shown where it excludes 0.") == 2


def test_page_shows_curves_of_every_pair_with_alternative_texts(page):
    pictures = re.findall(
        r'<img class="" src="data:image/svg\+xml;base64,[^"]+" alt="([^"]+)"', page
    )
    assert len(pictures) == 2 * 4
    assert "main: resnet18" in pictures[0]
    assert page.index("against main on") < page.index("<table")


@pytest.mark.parametrize(
    ("simulated", "badge"),
    [(["main", NASTY, "one"], "simulated images"), (["one"], "simulated images in one"), ([], "")],
)
def test_page_of_simulated_images_says_so_beside_its_title(
    comparison, runs, tmp_path, simulated, badge
):
    told = comparison | {
        "runs": [row | {"simulated": row["run"] in simulated} for row in comparison["runs"]]
    }
    write_comparison(tmp_path / "page.html", told, runs)
    text = (tmp_path / "page.html").read_text("utf-8")
    header = text[text.index("<header") : text.index("</header>")]
    badges = re.findall(r'<span class="device">([^<]*)</span>', header)
    assert badges == ["research software, not a medical device", badge][: 1 + bool(badge)]


def test_page_without_curves_says_so(make_run, studies, tmp_path):
    """The common test images are all negative."""
    gone = studies[(studies["split"] != "test") | ~studies["target"]]
    pair = [make_run("main"), make_run("negatives", studies=gone)]
    comparison = compare_runs(pair, EvaluationConfig(n_resamples=20))
    write_comparison(tmp_path / "page.html", comparison, pair)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "There are no curves" in text
    assert "Undefined: one of the two is undefined." in text
