"""Tables as the stages before evaluation leave them, small and drawn from a seed."""

import numpy as np
import pandas as pd
import pytest

from pneumonia.thresholds import operating_points as choose_points

CALIBRATION = {"custom_cnn": {"a": 0.8, "b": -0.3}, "resnet18": {"a": 1.1, "b": -1.0}}
SKILL = {"custom_cnn": 1.2, "resnet18": 2.2}


@pytest.fixture(scope="session")
def studies():
    """900 images of 400 people: AP 38 % positive, PA 9 %, two kinds of negatives."""
    rng = np.random.default_rng(0)
    person = np.sort(rng.integers(0, 400, 900))
    side = rng.choice(["train", "val", "test"], 400, p=[0.4, 0.2, 0.4])[person]
    view = rng.choice(["AP", "PA"], 900, p=[0.46, 0.54])
    target = rng.random(900) < np.where(view == "AP", 0.38, 0.12)
    kind = np.where(rng.random(900) < 0.43, "Normal", "No Lung Opacity / Not Normal")
    age = rng.integers(5, 95, 900).astype(float)
    age[:3], age[3:6] = 150.0, np.nan
    return pd.DataFrame(
        {
            "image_id": [f"image-{i:04d}" for i in rng.permutation(900)],
            "patient_id": [f"{p:016x}" for p in person],
            "split": side,
            "target": target,
            "class": np.where(target, "Lung Opacity", kind),
            "view": view,
            "sex": rng.choice(["F", "M"], 900),
            "age": age,
            "spacing": np.where(view == "AP", 0.139, rng.choice([0.143, 0.168], 900)),
            "rows": 1024,
            "columns": 1024,
            "scale": 0.25,
            "offset_x": 0.0,
            "offset_y": 0.0,
        }
    ).sort_values("image_id", ignore_index=True)


@pytest.fixture(scope="session")
def predictions(studies):
    """Per model the predictions of val and test."""
    rng = np.random.default_rng(1)
    rows = studies[studies["split"] != "train"]
    tables = {}
    for model, calibration in CALIBRATION.items():
        logit = rng.normal(size=len(rows)) + SKILL[model] * rows["target"].to_numpy(float)
        log_odds = calibration["a"] * logit + calibration["b"]
        table = rows[["image_id", "split"]].assign(
            logit=logit, probability=1 / (1 + np.exp(-log_odds))
        )
        tables[model] = table.reset_index(drop=True)
    return tables


@pytest.fixture(scope="session")
def operating_points(studies, predictions):
    """Per model the calibration and the operating points chosen on val."""
    target = studies.set_index("image_id")["target"]
    decisions = {}
    for model, table in predictions.items():
        val = table[table["split"] == "val"]
        decisions[model] = {
            "calibration": CALIBRATION[model],
            "operating_points": choose_points(
                val["probability"].to_numpy(), target[val["image_id"]].to_numpy(bool)
            ),
        }
    return decisions
