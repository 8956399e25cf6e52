"""Evaluation: how good the models are on people they have not seen, and how sure that is.

In: `studies`, per model its `predictions` and operating points, counts about the data. Out: the
dictionary that becomes `evaluation.json`: data, controls, models with subgroups, comparisons.
Test figures carry 95 % intervals over people; val is the tuning set, its figures carry none.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pneumonia.assessment import Answers, Side, Thresholds, assess
from pneumonia.comparison import Assessed, beside_metadata, compare_models
from pneumonia.config import EvaluationConfig
from pneumonia.controls import MIN_SHARE, metadata_log_odds, plausible_age, spacing_values
from pneumonia.errors import StaleArtifactError
from pneumonia.metrics import Bools
from pneumonia.thresholds import NAMES
from pneumonia.thresholds import operating_points as choose_points
from pneumonia.uncertainty import resample_people

logger = logging.getLogger(__name__)

MIN_CLASS = 10
"""Images of each class below which a subgroup is shown as too small."""
AGE_BANDS = ((0, 17), (18, 39), (40, 64), (65, 120))
"""Years, both ends included; below 18 the chest and its diseases are others."""
NEVER: Thresholds = {
    name: {"threshold": math.inf, "rule": "no image is called positive"} for name in NAMES
}


def evaluate(
    studies: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    operating_points: Mapping[str, Mapping[str, Any]],
    data_facts: Mapping[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Compute every figure of `evaluation.json`.

    Args:
        studies: all sides; the train rows fit the metadata-only control.
        predictions: per model image_id, split, logit, probability of the val and test images.
        operating_points: per model `{"calibration": {a, b}, "operating_points": {...}}`.
        data_facts: grouping, unlabelled_files, labels_without_file, quarantined,
            leak_if_split_by_image, and whatever else is to be told about the data.
        config: operating point of the tables, resamples and their seed.

    Raises:
        StaleArtifactError: a model has no prediction for an image of val or test.
    """
    studies = studies.sort_values("image_id", ignore_index=True)
    rows = {name: studies[studies["split"] == name] for name in ("val", "test")}
    sides = {
        "val": make_side(rows["val"], None),
        "test": make_side(rows["test"], config),
    }
    answers = {
        model: {
            name: find_answers(model, rows[name], table, operating_points[model]["calibration"])
            for name in rows
        }
        for model, table in predictions.items()
    }
    metadata = _metadata(studies, rows)
    groups = list(_subgroups(rows["test"]))
    models: dict[str, Any] = {}
    tested: list[Assessed] = []
    for model, said in answers.items():
        points = operating_points[model]["operating_points"]
        chosen = config.operating_point
        val, _ = assess(sides["val"], said["val"], points, chosen)
        test, samples = assess(sides["test"], said["test"], points, chosen)
        tested.append(Assessed(model, said["test"], test, samples, chosen))
        models[model] = {
            "val": val,
            "test": test,
            "subgroups": _assess_groups(groups, sides["test"], said["test"], points, chosen),
            "calibration": dict(operating_points[model]["calibration"]),
            "operating_point": chosen,
            "threshold": points[chosen]["threshold"],
        }
        logger.info("Evaluated %s on %d val and %d test images.", model, val["n"], test["n"])
    return {
        "data": _data(studies, data_facts),
        "controls": _controls(sides, metadata, config),
        "models": models,
        "comparisons": [
            *compare_models(sides["test"], tested),
            *beside_metadata(sides, answers, metadata),
        ],
    }


def make_side(rows: pd.DataFrame, config: EvaluationConfig | None) -> Side:
    """The images of one side; with a configuration, with resamples of its people.

    Args:
        rows: patient_id and target of each image.
    """
    people, person = np.unique(rows["patient_id"].astype(str), return_inverse=True)
    counts = None
    if config is not None:
        n_resamples = config.n_resamples if len(people) else 0
        counts = resample_people(len(people), n_resamples, config.seed)
    return Side(rows["target"].to_numpy(np.bool_), person.astype(np.int64), counts)


def find_answers(
    model: str, rows: pd.DataFrame, table: pd.DataFrame, calibration: Mapping[str, float]
) -> Answers:
    """A model's answers for the images of one side.

    Args:
        rows: image_id and split of each image.
        table: image_id, logit, probability; of more images, in any order.
        calibration: a and b of the log odds.

    Raises:
        StaleArtifactError: an image has no prediction.
    """
    told = table.set_index("image_id")[["logit", "probability"]].reindex(rows["image_id"])
    missing = told.index[told.isna().any(axis=1)]
    if len(missing):
        raise StaleArtifactError(
            f"predictions of {model}: expected a logit for each of {len(rows)} "
            f"{rows['split'].iloc[0]} images, got none for {len(missing)} (first: {missing[0]}). "
            "Make them anew: `pneumonia run` with --refresh predictions."
        )
    raw = told["logit"].to_numpy(np.float64)
    log_odds = calibration["a"] * raw + calibration["b"]
    return Answers(log_odds, told["probability"].to_numpy(np.float64), raw)


def _data(studies: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, Any]:
    def count(rows: pd.DataFrame) -> dict[str, int]:
        return {
            "images": len(rows),
            "people": int(rows["patient_id"].nunique()),
            "positives": int(rows["target"].sum()),
        }

    everything = count(studies)
    return {
        **facts,
        "images": everything["images"],
        "people": everything["people"],
        "prevalence": everything["positives"] / len(studies) if len(studies) else None,
        "sides": {
            side: count(studies[studies["split"] == side]) for side in ("train", "val", "test")
        },
    }


def _metadata(studies: pd.DataFrame, rows: Mapping[str, pd.DataFrame]) -> dict[str, Answers] | None:
    """The metadata-only control's answers for val and test; None where it cannot be fitted."""
    log_odds = metadata_log_odds(studies)
    if log_odds is None:
        return None
    return {name: Answers.of_control(log_odds[side.index]) for name, side in rows.items()}


def _controls(
    sides: Mapping[str, Side], metadata: Mapping[str, Answers] | None, config: EvaluationConfig
) -> dict[str, Any]:
    def silent(side: Side) -> Answers:
        return Answers.of_control(np.full(len(side.target), -np.inf))

    chosen = config.operating_point
    always_negative, _ = assess(sides["test"], silent(sides["test"]), NEVER, chosen)
    val = sides["val"].target
    if metadata is None or val.all() or not val.any():
        why = "not fitted: it needs images of both classes in train and val"
        blocks = {
            name: assess(side, silent(side), NEVER, chosen, withheld=why)[0]
            for name, side in sides.items()
        }
    else:
        points = choose_points(metadata["val"].probability, val)
        blocks = {
            name: assess(side, metadata[name], points, chosen)[0] for name, side in sides.items()
        }
    return {"always_negative": {"test": always_negative}, "metadata_only": blocks}


def _assess_groups(
    groups: list[tuple[str, str, Bools]],
    side: Side,
    answers: Answers,
    points: Thresholds,
    chosen: str,
) -> list[dict[str, Any]]:
    blocks = []
    for by, value, mask in groups:
        part, said = side.part(mask), answers.part(mask)
        block, _ = assess(part, said, points, chosen, withheld=_too_small(part.target))
        blocks.append({"by": by, "value": value, **block})
    return blocks


def _too_small(target: Bools) -> str | None:
    positives, n = int(target.sum()), len(target)
    if min(positives, n - positives) >= MIN_CLASS:
        return None
    return f"too small: {positives} positive of {n}, at least {MIN_CLASS} of each class needed"


def _subgroups(rows: pd.DataFrame) -> Iterator[tuple[str, str, Bools]]:
    """Name, value and images (N,) of each subgroup; a field that no image has gives none."""
    for by in ("view", "sex"):
        yield from _groups(by, rows[by].astype(object).where(rows[by].notna(), None))
    age = plausible_age(rows["age"])
    bands = pd.Series(None, index=rows.index, dtype=object)
    for low, high in AGE_BANDS:
        bands[(age >= low) & (age < high + 1)] = f"{low}-{high}"
    bands[rows["age"].notna() & np.isnan(age)] = "impossible"
    yield from _groups("age", bands)
    spacing = pd.Series(spacing_values(rows["spacing"]), index=rows.index, dtype=object)
    shares = spacing.value_counts(normalize=True, dropna=False)
    rare = spacing.isin(shares.index[shares < MIN_SHARE]) & spacing.notna()
    yield from _groups("spacing", spacing.mask(rare, "other"))
    target = rows["target"].to_numpy(np.bool_)
    kinds = rows["class"]
    for kind in sorted(kinds[~target].dropna().unique()):
        yield "negative_class", str(kind), target | (kinds == kind).to_numpy(np.bool_)


def _groups(by: str, values: "pd.Series[Any]") -> Iterator[tuple[str, str, Bools]]:
    if values.notna().any():
        for value in sorted(values.dropna().unique()):
            yield by, str(value), (values == value).to_numpy(np.bool_)
        if values.isna().any():
            yield by, "not stated", values.isna().to_numpy(np.bool_)
