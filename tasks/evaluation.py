"""The `evaluation` stage: every figure about all models, on val and test."""

from typing import Any

import pandas as pd

from pneumonia.artifacts import Facts, digest, digest_table, write_json
from pneumonia.config import SIMULATION, as_dict
from pneumonia.model_notes import evaluation_note
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Stage

STUDY_COLUMNS = (
    "image_id", "patient_id", "split", "target", "class", "view", "sex", "age", "spacing",
)  # fmt: skip
PREDICTION_COLUMNS = ("image_id", "split", "logit", "probability")


def plan(context: Context) -> Plan:
    """Read the predictions of all models, the studies, and what is known of the data."""
    config = context.request.config.evaluation
    split, shards = context.artifact("split"), context.artifact("shards")
    studies = split.table("studies.parquet", STUDY_COLUMNS)
    trained = {
        model: {
            seed: (
                artifact.table("predictions.parquet", PREDICTION_COLUMNS),
                artifact.json("operating_points.json"),
            )
            for seed, artifact in artifacts.items()
        }
        for model, artifacts in context.seeds("predictions").items()
    }
    data_facts = split.json("split.json") | {"quarantined": shards.manifest.facts["quarantined"]}
    del data_facts["boxes_checked"]  # a box that is added changes no figure
    data_facts |= {"simulated": (context.request.raw / SIMULATION).is_file()}

    def write(scratch: Scratch) -> Facts:
        from pneumonia.seeds import evaluate_seeds

        evaluation = evaluate_seeds(studies, trained, data_facts, config)
        write_json(evaluation, scratch.output / "evaluation.json")
        return {"test_auroc": _test_auroc(evaluation)}

    inputs = {
        "studies": digest_table(studies, STUDY_COLUMNS),
        "data facts": digest(data_facts),
        **{
            f"predictions of {_told(model, number, seed)}": digest_predictions(*told)
            for model, seeds in trained.items()
            for number, (seed, told) in enumerate(seeds.items())
        },
    }
    return Plan(inputs, as_dict(config), write)


def digest_predictions(table: pd.DataFrame, decisions: Any) -> str:  # noqa: ANN401 (any JSON)
    """What an evaluation reads of a model's predictions, as its manifest states it."""
    return digest([digest_table(table, PREDICTION_COLUMNS), decisions])


def _told(model: str, number: int, seed: int) -> str:
    return model if number == 0 else f"{model} with seed {seed}"


def describe(facts: Facts) -> str:
    """One half line for the console."""
    figures = (f"{name} {_interval(figure)}" for name, figure in facts["test_auroc"].items())
    return "test AUROC: " + ", ".join(figures)


def _test_auroc(evaluation: dict[str, Any]) -> dict[str, Any]:
    models = {model: sides["test"]["auroc"] for model, sides in evaluation["models"].items()}
    control = evaluation["controls"]["metadata_only"]["test"]["auroc"]
    return {**models, "metadata only": control}


def _interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return f"undefined ({figure['reason']})"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


EVALUATION = Stage(
    name="evaluation",
    version=1,
    plan=plan,
    describe=describe,
    needs=("shards", "split", "predictions"),
    note=lambda _, evaluation: evaluation_note(evaluation),
)
