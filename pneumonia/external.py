"""External test: what a finished model, frozen, is worth on another data set, and what shifts.

In: labels and images of the other data set; studies and predictions of the home run, which made
the model. Out: the other images as the test side in place of the home run's, and the dictionary
that becomes the external test's `evaluation.json`, which sets home test and other side by side.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pneumonia.artifacts import Facts
from pneumonia.assessment import RATES, Figure, Samples, assess, figure
from pneumonia.calibration import Calibration, Floats
from pneumonia.config import EvaluationConfig
from pneumonia.errors import NothingLeftError
from pneumonia.evaluation import evaluate, find_answers, make_side
from pneumonia.metrics import Array
from pneumonia.people import check_mapped, name_people, patient_id
from pneumonia.split import SIDES, STUDY_COLUMNS, count_unpaired, labelled_images
from pneumonia.uncertainty import bootstrap

SHIFT = (
    "prevalence", "calibration_in_the_large", "auroc", "average_precision", "log_loss", "brier",
    "calibration_slope", "calibration_intercept", "recall", "specificity", "precision",
)  # fmt: skip
"""Figures that the home test side and the other data set are compared in. Calibration in the large
is the mean probability less the share of positives: 0 where the level is right."""


def external_studies(
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    images: pd.DataFrame,
    known: pd.DataFrame,
    *,
    persons: pd.DataFrame | None,
    persons_path: Path | None = None,
    max_unmapped: float = 0.0,
    home_people: pd.DataFrame | None = None,
    patient_key: bytes = b"",
) -> tuple[pd.DataFrame, Facts]:
    """Make every image of another data set that has a label and a file a study of test.

    An image of the home run has no place here: the model was fitted, tuned or tested on it. It is
    known by its pixels; and one of its name is left out too, since it may be the same film,
    encoded anew.

    Args:
        labels, boxes: as `labels.read_labels` gives them.
        images: image_id, pixel_digest, header fields and geometry.
        known: image_id and pixel_digest of the home run's images.
        persons: as `persons.read_persons` gives them; None takes each image for a person of its
            own. People have other names than at home: number 7 of one hospital need not be that
            of another. How many would have the same is counted.
        persons_path: where `persons` were read, for messages.
        max_unmapped: fraction of images that the map may leave out.
        home_people: patient_id and split of the home run's images; None where it is by image.
        patient_key: that their patient_id is hashed with.

    Returns:
        `split.STUDY_COLUMNS` by image_id, and counts, among them of what was `left_out`.

    Raises:
        NothingLeftError: no image is left: it is the home run's own data set.
        SplitError: the map names none or too few, or a box lies outside its frame.
    """
    studies = labelled_images(labels, boxes, images)
    person, unmapped = name_people(studies["image_id"], persons, persons_path)
    check_mapped(studies["image_id"], persons, persons_path, max_unmapped=max_unmapped)
    same_pixels = studies["pixel_digest"].isin(known["pixel_digest"])
    same_name = ~same_pixels & studies["image_id"].isin(known["image_id"])
    named = person.map(lambda name: patient_id(name, patient_key))  # as the home run would
    away = ("external " + person).map(lambda name: patient_id(name, patient_key))
    studies = studies.assign(patient_id=away, split="test")
    left = ~(same_pixels | same_name)
    kept = studies.loc[left, STUDY_COLUMNS].reset_index(drop=True)
    if kept.empty:
        raise NothingLeftError(
            f"expected images that the home run does not have, got {len(studies):,}, of which "
            f"{int(same_pixels.sum()):,} have the pixels and {int(same_name.sum()):,} more the "
            "name of one of its own. Give another data set, or rename files and labels where only "
            "the names agree."
        )
    return kept, {
        "grouping": "image" if persons is None else "person",
        **count_unpaired(labels, images),
        "unmapped_images": unmapped,
        "leak_if_split_by_image": None,
        "left_out": {"same_pixels": int(same_pixels.sum()), "same_name": int(same_name.sum())},
        "people_of_home": None
        if persons is None or home_people is None
        else _people_of_home(named[left], home_people),
    }


def _people_of_home(named: "pd.Series[str]", home: pd.DataFrame) -> Facts:
    """Images whose person has the name of one of the home run, and those people by their side."""
    side = home.drop_duplicates("patient_id").set_index("patient_id")["split"]
    shared = named[named.isin(side.index)]
    counts = side.loc[shared.unique()].value_counts()
    return {
        "people": int(shared.nunique()),
        "images": len(shared),
        "sides": {name: int(counts.get(name, 0)) for name in SIDES},
    }


def in_place_of_test(home: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The home run's rows (studies or predictions) with `other` as the test side."""
    return pd.concat([home[home["split"] != "test"], other[home.columns]], ignore_index=True)


def external_predictions(
    studies: pd.DataFrame, logit: Floats, decisions: Mapping[str, Any]
) -> pd.DataFrame:
    """Calibrated predictions of the studies, by the model's own calibration.

    Args:
        studies: of `external_studies`; one row per logit.
        logit: (N,).
        decisions: the content of the model's `operating_points.json`.

    Returns:
        image_id, split, logit, probability, as a run's predictions are.
    """
    probability = Calibration(**decisions["calibration"]).probability(logit)
    return studies[["image_id", "split"]].assign(logit=logit, probability=probability)


def evaluate_external(
    home: tuple[pd.DataFrame, pd.DataFrame],
    other: tuple[pd.DataFrame, pd.DataFrame],
    decisions: Mapping[str, Any],
    data_facts: Mapping[str, Any],
    config: EvaluationConfig,
    names: Mapping[str, Any],
) -> dict[str, Any]:
    """Compute every figure of the external test.

    Val, the controls' fit and the joint model's fit are the home run's; test is the other data
    set. `data` counts the other images alone, but for its `sides`. `external` holds `names` and
    the `shift`.

    Args:
        home: studies and predictions of the run that made the model.
        other: of `external_studies` and `external_predictions`.
        decisions: the content of the model's `operating_points.json`, used as it is.
        data_facts: of `external_studies`, with `quarantined`.
        names: `model`, `run`, `data` and `home_simulated`, for whoever reads the figures.

    Raises:
        StaleArtifactError: a home image has no prediction.
    """
    model = names["model"]
    studies, predictions = (in_place_of_test(*pair) for pair in zip(home, other, strict=True))
    evaluation = evaluate(studies, {model: predictions}, {model: decisions}, data_facts, config)
    tested = evaluation["data"]["sides"]["test"]
    evaluation["data"] |= {
        "images": tested["images"],
        "people": tested["people"],
        "prevalence": tested["positives"] / tested["images"],
    }
    shift = measure_shift(model, home, other, decisions, config)
    return {"external": {**names, "shift": shift}, **evaluation}


def measure_shift(
    model: str,
    home: tuple[pd.DataFrame, pd.DataFrame],
    other: tuple[pd.DataFrame, pd.DataFrame],
    decisions: Mapping[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Set the figures of the home test side beside those of the other data set.

    The two are independent samples, so an interval of their difference resamples the people of
    each. Resamples of one stand against those of the other in reverse order: both are drawn from
    one seed, and in the same order two sides of one size would be drawn alike.

    Returns:
        `home`, `here`: n, people, positives and the figures of `SHIFT`; `difference`: here less
        home; `operating_point` and, per rule, the `thresholds`: the same on both sides.
    """
    points, chosen = decisions["operating_points"], config.operating_point
    studies, predictions = home
    tested = studies[studies["split"] == "test"].reset_index(drop=True)
    at_home, home_samples = _measure(model, (tested, predictions), decisions, config)
    here, samples = _measure(model, other, decisions, config)
    people = min(at_home["people"], here["people"])
    difference = {}
    for name in SHIFT:
        values = [side[name]["value"] for side in (here, at_home)]
        known = None not in values
        first, second = (each.get(_sample_name(name, chosen)) for each in (samples, home_samples))
        difference[name] = figure(
            values[0] - values[1] if known else math.nan,
            None if first is None or second is None else first - second[::-1],
            people=people,
            reason="one of the two is undefined",
        )
    return {
        "home": at_home,
        "here": here,
        "difference": difference,
        "operating_point": chosen,
        "thresholds": {name: point["threshold"] for name, point in points.items()},
    }


def _measure(
    model: str,
    side: tuple[pd.DataFrame, pd.DataFrame],
    decisions: Mapping[str, Any],
    config: EvaluationConfig,
) -> tuple[dict[str, Any], Samples]:
    """The figures of one side, and their resampled values by `_sample_name`."""
    rows, predictions = side
    images = make_side(rows, config)
    answers = find_answers(model, rows, predictions, decisions["calibration"])
    points = decisions["operating_points"]
    block, samples = assess(images, answers, points, config.operating_point)
    people = int(rows["patient_id"].nunique())
    target = images.target.astype(np.float64)
    columns = {"prevalence": target, "calibration_in_the_large": answers.probability - target}
    if samples and images.counts is not None:

        def means(weight: Array) -> Samples:
            total = weight.sum(axis=-1)
            return {name: weight @ column / total for name, column in columns.items()}

        samples = samples | bootstrap(means, images.person, images.counts)
    told: dict[str, Figure] = {
        name: figure(
            float(column.mean()) if len(rows) else math.nan,
            samples.get(name),
            people=people,
            reason="no image",
        )
        for name, column in columns.items()
    }
    return {
        "n": block["n"],
        "people": people,
        "positives": block["positives"],
        **{name: told.get(name) or block[name] for name in SHIFT},
    }, samples


def _sample_name(figure_name: str, chosen: str) -> str:
    """How `assess` names the resampled values of a figure."""
    return f"{chosen}/{figure_name}" if figure_name in RATES else figure_name
