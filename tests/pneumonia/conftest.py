"""Tables as the stages leave them and a training, small and drawn from a seed."""

import numpy as np
import pandas as pd
import pytest
from shard_files import write_shard

from pneumonia import config
from pneumonia.config import EvaluationConfig
from pneumonia.evaluation import evaluate
from pneumonia.external import external_predictions
from pneumonia.runs import Run
from pneumonia.thresholds import operating_points as choose_points
from pneumonia.trainer_process import TrainingJob

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


@pytest.fixture(scope="session")
def make_run(studies, predictions, operating_points):
    """Makes what a finished run leaves; everything is the fixtures' unless it is given."""

    def make(name, **replaced):
        given = {"studies": studies, "predictions": predictions, "decisions": operating_points}
        given |= replaced
        grouping, point = given.pop("grouping", "person"), given.pop("point", "youden")
        evaluation = evaluate(
            given["studies"], given["predictions"], given["decisions"],
            {"grouping": grouping}, EvaluationConfig(n_resamples=0, operating_point=point),
        )  # fmt: skip
        ids = given["studies"]["image_id"]
        positive = ids[given["studies"]["target"]]
        tables = {
            "boxes": pd.DataFrame({"image_id": positive}).assign(
                x=10.0, y=20.0, width=100.0, height=200.0
            ),
            "files": pd.DataFrame({"image_id": ids, "file_digest": "d" + ids}),
            "manifests": {},
        }
        return Run(name=name, evaluation=evaluation, **(tables | given))

    return make


@pytest.fixture(scope="session")
def other(studies, operating_points):
    """Of another hospital: 700 images of 300 people, 12 % positive, their logits 1.5 too high."""
    rng = np.random.default_rng(5)
    target = rng.random(700) < 0.12
    rows = studies.sample(700, random_state=0).assign(
        image_id=[f"other-{i:04d}" for i in range(700)],
        patient_id=[f"other-{i % 300}" for i in range(700)],
        split="test",
        target=target,
    )
    rows = rows.reset_index(drop=True)
    logit = rng.normal(size=700) + 2.2 * target + 1.5
    return rows, external_predictions(rows, logit, operating_points["resnet18"])


@pytest.fixture(scope="session")
def make_pool():
    """Makes two shards of noise of 32 px, the positives with a bright square; returns studies."""

    def make(folder, n=48, seed=0):
        rng = np.random.default_rng(seed)
        target = np.arange(n) % 3 == 0
        images = rng.integers(60, 120, (n, 32, 32), dtype=np.uint8)
        for i in np.flatnonzero(target):
            y, x = rng.integers(4, 20, 2)
            images[i, y : y + 8, x : x + 8] += 80
        shard = np.arange(n) // (n // 2)
        for number, key in enumerate("ab"):
            write_shard(folder / "pool" / key, images[shard == number])
        return pd.DataFrame(
            {
                "image_id": [f"image-{i:03d}" for i in range(n)],
                "split": np.where(np.arange(n) < n * 2 // 3, "train", "val"),
                "target": target,
                "pool": np.array(["a", "b"])[shard],
                "row": np.arange(n) - shard * (n // 2),
            }
        )

    return make


@pytest.fixture(scope="session")
def make_job(make_pool):
    """Makes a training of three epochs of four steps over `make_pool`'s images."""

    def make(folder, *settings, studies=None, devices=1):
        studies = make_pool(folder) if studies is None else studies
        studies.to_parquet(folder / "studies.parquet", index=False)
        for name in ("output", "state"):
            (folder / name).mkdir()
        small = [
            "shards.image_size=32",
            "training.weights=none",
            "training.epochs=3",
            "training.batch_size=8",
            "runtime.workers=1",
        ]
        return TrainingJob(
            model="custom_cnn",
            config=config.parse_settings([*small, *settings]),
            pool=str(folder / "pool"),
            studies=str(folder / "studies.parquet"),
            output=str(folder / "output"),
            state=str(folder / "state"),
            precision="32",
            accelerator="cpu",
            devices=devices,
        )

    return make
