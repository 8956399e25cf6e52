"""New DICOM files through a finished model, by the way that its own images took.

Apart from `predictions`, so that the stage of that name does not depend on how files are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia.calibration import Calibration
from pneumonia.checkpoint import Checkpoint
from pneumonia.config import ShardsConfig
from pneumonia.machine import Accelerator
from pneumonia.predictions import BATCH, logits_of
from pneumonia.shards import convert_files

COLUMNS = ("file", "image_id", "logit", "probability", "positive", "reason")


def predict_files(
    checkpoint: Checkpoint,
    paths: Sequence[Path],
    decisions: Mapping[str, Any],
    *,
    shards: ShardsConfig,
    operating_point: str,
    accelerator: Accelerator,
    workers: int,
) -> pd.DataFrame:
    """Predict DICOM files, and those below folders, in the order of `convert_files`.

    Args:
        decisions: the content of the model's `operating_points.json`.
        shards: how files become images; the image size is the model's own.
        operating_point: the rule whose threshold decides what is positive.

    Returns:
        The columns of `COLUMNS`; a refused file has only a reason.
    """
    settings = replace(shards, image_size=checkpoint.image_size)
    rows: list[dict[str, Any]] = []

    def batches() -> Iterator[NDArray[np.uint8]]:
        """Batches of the files that can be read; `rows` fills up on the way."""
        batch: list[NDArray[np.uint8]] = []
        for path, image, row in convert_files(paths, settings):
            reason = None if image is not None else f"{row['reason']}: {row['detail']}"
            rows.append({"file": str(path), "image_id": row["image_id"], "reason": reason})
            if image is not None:
                batch.append(image)
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    logit = logits_of(checkpoint, batches(), accelerator=accelerator, workers=workers)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    read = table["reason"].isna().to_numpy()
    probability = Calibration(**decisions["calibration"]).probability(logit)
    threshold = decisions["operating_points"][operating_point]["threshold"]
    return table.assign(
        logit=_spread(logit, read),
        probability=_spread(probability, read),
        positive=pd.Series(_spread(probability >= threshold, read)).astype("boolean"),
    )


def _spread(values: NDArray[Any], read: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values at the rows that were read, NaN at the others."""
    column = np.full(len(read), np.nan)
    column[read] = values
    return column
