"""A training small enough to be run many times: 48 images of 32 pixels, three epochs."""

import numpy as np
import pandas as pd

from pneumonia import config
from pneumonia.pool import IMAGES
from pneumonia.trainer_process import TrainingJob

SIDE = 32
SETTINGS = (
    f"shards.image_size={SIDE}",
    "training.weights=none",
    "training.epochs=3",
    "training.batch_size=8",
    "runtime.accelerator=cpu",
    "runtime.workers=1",
)


def make_pool(folder, n=48, seed=0):
    """Two shards of noise, the positives with a bright square; returns the studies."""
    rng = np.random.default_rng(seed)
    target = np.arange(n) % 3 == 0
    images = rng.integers(60, 120, (n, SIDE, SIDE), dtype=np.uint8)
    for image in (images[i] for i in np.flatnonzero(target)):
        y, x = rng.integers(4, SIDE - 12, 2)
        image[y : y + 8, x : x + 8] += 80
    shard = np.arange(n) // (n // 2)
    for key in ("a", "b"):
        (folder / "pool" / key).mkdir(parents=True)
        np.save(folder / "pool" / key / IMAGES, images[shard == "ab".index(key)])
    return pd.DataFrame(
        {
            "image_id": [f"image-{i:03d}" for i in range(n)],
            "split": np.where(np.arange(n) < n * 2 // 3, "train", "val"),
            "target": target,
            "pool": np.array(["a", "b"])[shard],
            "row": np.arange(n) - shard * (n // 2),
        }
    )


def make_job(folder, *settings, model="custom_cnn", studies=None):
    """A job over `make_pool`'s images, in empty folders."""
    if studies is None:
        studies = make_pool(folder)
    studies.to_parquet(folder / "studies.parquet", index=False)
    for name in ("output", "state"):
        (folder / name).mkdir()
    return TrainingJob(
        model=model,
        config=config.parse_settings([*SETTINGS, *settings]),
        pool=str(folder / "pool"),
        studies=str(folder / "studies.parquet"),
        output=str(folder / "output"),
        state=str(folder / "state"),
        precision="32",
        accelerator="cpu",
    )
