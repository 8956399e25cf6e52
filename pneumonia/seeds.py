"""Seeds: what several trainings of one model say together, and how far their figures lie apart.

In: per model and seed the predictions of val and test and what was decided on val. Out:
`evaluation.json` with the ensembles among the models, and with the `seeds` of each.

An interval says what other people in test could have changed. The spread says what other random
first weights, another order and other augmentation do change, on the same people (Bouthillier et
al. 2021, arXiv:2103.03098); the one holds nothing of the other.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pneumonia.assessment import Figure, assess
from pneumonia.calibration import make_predictions
from pneumonia.config import EvaluationConfig
from pneumonia.evaluation import evaluate, find_answers, make_side

Trained = Mapping[int, tuple[pd.DataFrame, Mapping[str, Any]]]
"""Per seed `predictions.parquet` and `operating_points.json`; the first seed is the model."""


def ensemble_name(model: str) -> str:
    """How the ensemble of a model's seeds is called.

    >>> ensemble_name("resnet18")
    'resnet18_ensemble'
    """
    return f"{model}_ensemble"


def evaluate_seeds(
    studies: pd.DataFrame,
    trained: Mapping[str, Trained],
    data_facts: Mapping[str, Any],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """`evaluate` for models of which some were trained with several seeds.

    The first seed's training stands for the model, whatever the others came to. Where there are
    others, the model has `seeds` as well, and its ensemble stands beside it among the models.

    Args:
        trained: per model and seed.

    Returns:
        `evaluation.json`.
    """
    told: dict[str, tuple[pd.DataFrame, Mapping[str, Any]]] = {
        model: next(iter(seeds.values())) for model, seeds in trained.items()
    }
    told |= make_ensembles(studies, trained)
    predictions = {name: table for name, (table, _) in told.items()}
    decisions = {name: decided for name, (_, decided) in told.items()}
    evaluation = evaluate(studies, predictions, decisions, data_facts, config)
    for model, seeds in trained.items():
        if len(seeds) > 1:
            spread = spread_over_seeds(studies, seeds, config.operating_point)
            evaluation["models"][model]["seeds"] = spread
            evaluation["models"][ensemble_name(model)]["ensemble_of"] = model
    return evaluation


def make_ensembles(
    studies: pd.DataFrame, trained: Mapping[str, Trained]
) -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """The ensemble of each model that was trained with several seeds, by its name."""
    return {
        ensemble_name(model): make_ensemble(studies, seeds)
        for model, seeds in trained.items()
        if len(seeds) > 1
    }


def make_ensemble(studies: pd.DataFrame, trained: Trained) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The ensemble's predictions: the mean logit, then calibrated and cut on val like any model.

    Args:
        studies: image_id, split, target of val and test at least.

    Returns:
        predictions and decisions, as of a model.
    """
    rows = studies.loc[studies["split"] != "train", ["image_id", "split", "target"]]
    rows = rows.sort_values("image_id", ignore_index=True)
    logits = [
        table.set_index("image_id")["logit"].loc[rows["image_id"]].to_numpy(np.float64)
        for table, _ in trained.values()
    ]
    return make_predictions(rows, np.mean(logits, axis=0))


def spread_over_seeds(studies: pd.DataFrame, trained: Trained, chosen: str) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure, each seed at its own threshold.

    Args:
        studies: image_id, patient_id, split, target.
        chosen: the operating point of the tables.

    Returns:
        seeds; and for val and test, by figure, mean, standard_deviation (n - 1) and values in
        the order of the seeds: null with the reason where one is undefined.
    """
    told: dict[str, Any] = {"seeds": list(trained)}
    for name in ("val", "test"):
        rows = studies[studies["split"] == name].sort_values("image_id", ignore_index=True)
        side = make_side(rows, None)
        blocks = {}
        for seed, (table, decisions) in trained.items():
            answers = find_answers(f"seed {seed}", rows, table, decisions["calibration"])
            blocks[seed], _ = assess(side, answers, decisions["operating_points"], chosen)
        told[name] = _spread(blocks)
    return told


def _spread(blocks: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name, told in next(iter(blocks.values())).items() if _is_figure(told)]
    return {
        name: _mean_and_deviation({seed: block[name] for seed, block in blocks.items()})
        for name in names
    }


def _mean_and_deviation(figures: Mapping[int, Figure]) -> dict[str, Any]:
    values = [figure["value"] for figure in figures.values()]
    undefined = [f"seed {seed}: {f['reason']}" for seed, f in figures.items() if f["value"] is None]
    if undefined:
        reason = "; ".join(undefined)
        return {"mean": None, "standard_deviation": None, "values": values, "reason": reason}
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    deviation = math.sqrt(squares / (len(values) - 1))
    return {"mean": mean, "standard_deviation": deviation, "values": values, "reason": None}


def _is_figure(told: Any) -> bool:  # noqa: ANN401 (any part of a block)
    return isinstance(told, Mapping) and "value" in told
