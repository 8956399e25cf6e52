"""What all figures of an evaluation cost at the challenge's size.

    pneumonia bench evaluation [--images 26684] [--people 11400] [--resamples 2000]

Labels and scores are drawn from a seed, with the challenge's numbers: 26,684 images, 22.5 %
positive, AUROC about 0.88, many images of a few people. Every image stands on test, so that all
figures are of all images; val and train are small, and figures of val have no resamples.

The bootstrap is that of all figures of one model on all test images, three operating points
included. The whole evaluation is two models with every subgroup, the controls and the comparisons:
nearly each of these is a bootstrap of its own.
"""

import argparse
import os
import time

import numpy as np
import pandas as pd

from pneumonia.assessment import Answers, Side, assess
from pneumonia.config import EvaluationConfig
from pneumonia.evaluation import evaluate
from pneumonia.machine import cores
from pneumonia.thresholds import operating_points
from pneumonia.uncertainty import resample_people

MODELS = {"first": 1.55, "second": 1.7}
"""Standard deviations between the means of the classes."""
FEW = 2000  # images of train and of val


def main() -> None:
    arguments = _arguments()
    rng = np.random.default_rng(0)
    studies = make_studies(arguments.images, arguments.people, rng)
    predictions = {model: make_predictions(studies, skill, rng) for model, skill in MODELS.items()}
    decisions = {model: _decide(studies, table) for model, table in predictions.items()}
    config = EvaluationConfig(n_resamples=arguments.resamples)
    test = studies[studies["split"] == "test"]
    print(f"{len(test):,} test images of {test['patient_id'].nunique():,} people, "
          f"{arguments.resamples:,} resamples, {cores()} of {os.cpu_count()} cores")  # fmt: skip
    print("| what | wall, s | processor, s |\n|---|---|---|")
    for model, table in predictions.items():
        told = _bootstrap(test, table, decisions[model], config)
        print(f"| bootstrap of all figures, model `{model}` | {told[0]:.1f} | {told[1]:.1f} |")
    wall, processor = time.perf_counter(), time.process_time()
    evaluation = evaluate(studies, predictions, decisions, {"grouping": "person"}, config)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    groups = len(evaluation["models"]["first"]["subgroups"])
    print(f"| the whole evaluation: 2 models, {groups} subgroups each, 2 controls, comparisons | "
          f"{wall:.1f} | {processor:.1f} |")  # fmt: skip


def make_studies(n_images: int, n_people: int, rng: np.random.Generator) -> pd.DataFrame:
    """Test of `n_images`, and some of train and val, whose people are others."""
    n = n_images + 2 * FEW
    side = np.repeat(["test", "train", "val"], [n_images, FEW, FEW])
    # a few people own many images: shares fall off like a power of the rank
    share = np.arange(1, n_people + 1) ** -0.5
    person = np.where(
        side == "test",
        rng.choice(n_people, n, p=share / share.sum()),
        n_people + rng.integers(0, FEW, n) + np.where(side == "val", FEW, 0),
    )
    view = rng.choice(["AP", "PA"], n, p=[0.456, 0.544])
    target = rng.random(n) < np.where(view == "AP", 0.383, 0.093)
    kind = rng.choice(["Normal", "No Lung Opacity / Not Normal"], n, p=[0.43, 0.57])
    return pd.DataFrame(
        {
            "image_id": [f"image-{number:06d}" for number in range(n)],
            "patient_id": [f"{number:06d}" for number in person],
            "split": side,
            "target": target,
            "class": np.where(target, "Lung Opacity", kind),
            "view": view,
            "sex": rng.choice(["F", "M"], n),
            "age": np.clip(rng.normal(47, 17, n), 1, 95).round(),
            "spacing": rng.choice([0.139, 0.143, 0.168, 0.171], n),
        }
    )


def make_predictions(studies: pd.DataFrame, skill: float, rng: np.random.Generator) -> pd.DataFrame:
    """Calibrated answers for val and test."""
    rows = studies[studies["split"] != "train"]
    logit = rng.normal(size=len(rows)) + skill * (rows["target"].to_numpy(np.float64) - 0.5)
    log_odds = skill * logit + np.log(0.225 / 0.775)
    return rows[["image_id", "split"]].assign(logit=logit, probability=1 / (1 + np.exp(-log_odds)))


def _decide(studies: pd.DataFrame, table: pd.DataFrame) -> dict:
    val = table[table["split"] == "val"].merge(studies[["image_id", "target"]], on="image_id")
    logit, log_odds = val["logit"].to_numpy(), np.log(1 / (1 / val["probability"].to_numpy() - 1))
    slope, shift = np.polyfit(logit, log_odds, 1)
    points = operating_points(val["probability"].to_numpy(), val["target"].to_numpy(bool))
    return {"calibration": {"a": slope, "b": shift}, "operating_points": points}


def _bootstrap(
    test: pd.DataFrame, table: pd.DataFrame, decisions: dict, config: EvaluationConfig
) -> tuple[float, float]:
    """Wall and processor seconds of one model's figures with their intervals."""
    people, person = np.unique(test["patient_id"], return_inverse=True)
    rows = table.set_index("image_id").loc[test["image_id"]]
    probability, logit = rows["probability"].to_numpy(), rows["logit"].to_numpy()
    answers = Answers(np.log(probability / (1 - probability)), probability, logit)
    wall, processor = time.perf_counter(), time.process_time()
    counts = resample_people(len(people), config.n_resamples, config.seed)
    side = Side(test["target"].to_numpy(np.bool_), person.astype(np.int64), counts)
    assess(side, answers, decisions["operating_points"], config.operating_point)
    return time.perf_counter() - wall, time.process_time() - processor


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=26_684)
    parser.add_argument("--people", type=int, default=11_400)
    parser.add_argument("--resamples", type=int, default=2000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
