"""Runs compared: paired differences on the test images that two runs have in common.

In: finished runs, the first of them the reference. Out: plain values: every run's figures on its
own test side; per further run what differs, which test images both can be asked about, and the
differences there, run less reference, each run at its own frozen calibration and threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia.assessment import Side, assess
from pneumonia.comparison import COMPARED, Assessed, differences
from pneumonia.config import EvaluationConfig
from pneumonia.errors import ConfigError
from pneumonia.evaluation import find_answers, make_side
from pneumonia.metrics import Bools
from pneumonia.runs import Run, data_changes, setting_changes

FIGURES = (*COMPARED, "recall", "specificity")
"""Figures that two runs are compared in."""
TOLD = (*FIGURES, "precision", "accuracy")
"""Figures that are told of each run on its own test side."""


@dataclass(frozen=True)
class Common:
    """The test images that two runs can both be asked about.

    Args:
        rows: image_id, split (`test`), patient_id, target; sorted by image_id.
        facts: how many there are, and how many were left out for which reason.
    """

    rows: pd.DataFrame
    facts: dict[str, Any]


def compare_runs(runs: Sequence[Run], config: EvaluationConfig) -> dict[str, Any]:
    """Compare runs with the first of them.

    Args:
        runs: two or more.
        config: number of resamples and their seed; the operating points are the runs' own.

    Returns:
        `{"reference", "runs": [...], "pairs": [...]}`.

    Raises:
        ConfigError: two runs have no test image in common that can be compared.
        StaleArtifactError: a prediction is missing.
    """
    reference, *others = runs
    return {
        "reference": reference.name,
        "runs": [row for run in runs for row in _own_figures(run)],
        "pairs": [_compare(reference, run, config) for run in others],
    }


def common_test(reference: Run, run: Run) -> Common:
    """Find the images that are in test in both runs and that neither has learned from.

    An image is left out when its label differs, or when its person stands in train or val of
    either run: that run's answer would flatter. People are those of a run that is split by
    person, where one is, and the reference's before the other's.

    Raises:
        ConfigError: none is left.
    """
    pair = (reference, run)
    first, second = (one.studies.set_index("image_id").sort_index() for one in pair)
    grouped = sorted((reference, run), key=lambda one: not one.by_person)
    people = [one.studies.set_index("image_id")["patient_id"] for one in grouped]
    person = people[0].combine_first(people[1])
    tested = [rows.index[rows["split"] == "test"] for rows in (first, second)]
    tuned = [rows.index[rows["split"] != "test"] for rows in (first, second)]
    both = tested[0].intersection(tested[1])
    theirs = person.loc[both]
    seen = [theirs.isin(person.loc[images]).to_numpy() for images in tuned]
    relabelled = (first.loc[both, "target"] != second.loc[both, "target"]).to_numpy(np.bool_)
    kept = both[~(seen[0] | seen[1] | relabelled)]
    names = [one.name for one in pair]
    facts = {
        "unit": "people" if grouped[0].by_person else "images",
        "people_of": grouped[0].name,
        "test_in_both": len(both),
        "compared": len(kept),
        "people": int(person.loc[kept].nunique()),
        "positives": int(first.loc[kept, "target"].sum()),
        "labels_differ": int(relabelled.sum()),
        "person_differs": _renamed(pair, first, second, both),
        "person_learned_by": {
            name: int(mask.sum()) for name, mask in zip(names, seen, strict=True)
        },
        "image_learned_by": {
            names[0]: len(tested[1].intersection(tuned[0])),
            names[1]: len(tested[0].intersection(tuned[1])),
        },
        "only_in": {
            names[0]: len(tested[0].difference(second.index)),
            names[1]: len(tested[1].difference(first.index)),
        },
    }
    if not len(kept):
        raise ConfigError(_none_left(names, facts))
    rows = pd.DataFrame(
        {
            "image_id": kept,
            "split": "test",
            "patient_id": person.loc[kept].to_numpy(),
            "target": first.loc[kept, "target"].to_numpy(np.bool_),
        }
    )
    return Common(rows, facts)


def common_scores(reference: Run, run: Run) -> dict[str, tuple[NDArray[np.float64], Bools]]:
    """Probabilities and targets (N,) of both runs on their common test images, by label.

    Empty where the images are all of one class: there is no curve then.
    """
    rows = common_test(reference, run).rows
    target = rows["target"].to_numpy(np.bool_)
    if target.all() or not target.any():
        return {}
    return {
        label(one.name, model): (
            one.predictions[model]
            .set_index("image_id")
            .loc[rows["image_id"], "probability"]
            .to_numpy(np.float64),
            target,
        )
        for model in _shared(reference, run)
        for one in (reference, run)
    }


def label(run: str, model: str) -> str:
    """What a model of a run is called beside those of others.

    >>> label("main", "resnet18")
    'main: resnet18'
    """
    return f"{run}: {model}"


def _compare(reference: Run, run: Run, config: EvaluationConfig) -> dict[str, Any]:
    common = common_test(reference, run)
    side = make_side(common.rows, config)
    models = {}
    for model in _shared(reference, run):
        theirs, ours = (_assess(one, model, side, common.rows) for one in (run, reference))
        models[model] = {
            "blocks": {ours.name: ours.block, theirs.name: theirs.block},
            "differences": [
                entry | {"same_answers": _same_answers(entry["figure"], theirs, ours)}
                for entry in differences(side, theirs, ours, FIGURES)
            ],
        }
    return {
        "run": run.name,
        "settings": setting_changes(reference, run),
        "data": data_changes(reference, run),
        "common": common.facts,
        "models": models,
        "models_of_one": {
            one.name: [model for model in one.predictions if model not in models]
            for one in (reference, run)
        },
    }


def _assess(run: Run, model: str, side: Side, rows: pd.DataFrame) -> Assessed:
    """A run's model on the common images, at its own calibration and operating point."""
    decisions, chosen = run.decisions[model], run.evaluation["models"][model]["operating_point"]
    answers = find_answers(model, rows, run.predictions[model], decisions["calibration"])
    points = {chosen: decisions["operating_points"][chosen]}
    block, samples = assess(side, answers, points, chosen)
    return Assessed(run.name, answers, block, samples, chosen)


def _own_figures(run: Run) -> list[dict[str, Any]]:
    """A row per model: its figures on the run's own test side."""
    data = run.evaluation["data"]
    return [
        {
            "run": run.name,
            "model": model,
            "grouping": data["grouping"],
            "simulated": bool(data.get("simulated")),
            "images": sides["test"]["n"],
            "people": data["sides"]["test"]["people"],
            "positives": sides["test"]["positives"],
            "operating_point": sides["operating_point"],
            "threshold": sides["threshold"],
            **{name: sides["test"][name] for name in TOLD},
        }
        for model, sides in run.evaluation["models"].items()
    ]


def _shared(reference: Run, run: Run) -> list[str]:
    """The models that both have, by name: another architecture is another question."""
    return [model for model in reference.predictions if model in run.predictions]


def _same_answers(figure: str, a: Assessed, b: Assessed) -> bool:
    """Whether a figure cannot differ: the same probabilities, or calls where it is of calls."""
    if figure in COMPARED:
        return np.array_equal(a.answers.log_odds, b.answers.log_odds)
    calls, others = (one.answers.probability >= _threshold(one) for one in (a, b))
    return np.array_equal(calls, others)


def _threshold(model: Assessed) -> float:
    return float(model.block["operating_points"][model.point]["threshold"])


def _renamed(
    pair: tuple[Run, Run], first: pd.DataFrame, second: pd.DataFrame, both: "pd.Index[str]"
) -> int:
    """How many images belong to another person in the other run, where both know people."""
    if not all(run.by_person for run in pair):
        return 0
    return int((first.loc[both, "patient_id"] != second.loc[both, "patient_id"]).sum())


def _none_left(names: Sequence[str], facts: dict[str, Any]) -> str:
    return (
        f"{names[0]} and {names[1]}: expected test images that both can be asked about, got none: "
        f"{facts['test_in_both']:,} are in test in both, of which "
        f"{facts['labels_differ']:,} have another label and "
        f"{max(facts['person_learned_by'].values()):,} a person that one run learned from; "
        f"{sum(facts['image_learned_by'].values()):,} test images of one are in train "
        "or val of the other. Compare runs with the same split seed and fractions."
    )
