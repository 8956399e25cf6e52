"""Class activation maps: where a model's evidence lies, scored against the radiologists' boxes.

In: a checkpoint, the images of val and test, the boxes, the model's predictions. Out:
`cam.json`, with six measures beside those of the constant map and a sanity check, and a PNG per
image of the gallery. The maps are exact: both models end in global average pooling and one linear
layer, so the mean of a map plus the bias is the logit.
"""

import copy
import functools
import hashlib
import logging
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pneumonia import agreement, network, sanity
from pneumonia.activation import class_activation_maps
from pneumonia.assessment import Side
from pneumonia.checkpoint import Checkpoint
from pneumonia.config import CamConfig, EvaluationConfig
from pneumonia.errors import StaleArtifactError
from pneumonia.figures import cam_panel
from pneumonia.localisation import (
    CONTROL_SIDE,
    THRESHOLDS,
    Heat,
    Scores,
    box_mask,
    control_map,
    enlarge,
    map_on_pixels,
    pixel_centres,
    score,
)
from pneumonia.machine import Accelerator
from pneumonia.metrics import OUTCOMES
from pneumonia.pool import ImagePool
from pneumonia.uncertainty import resample_people

logger = logging.getLogger(__name__)

BATCH = 32
BOX_SHARES = (0.05, 0.15)
"""Shares of the frame that part small, medium and large boxes (the union of an image's)."""
_TOLERANCE = 1e-2  # of a logit; the same arithmetic on another machine differs by some 1e-5

Boxes = Mapping[str, NDArray[np.float64]]
Row = Mapping[Hashable, Any]


@torch.inference_mode()
def compute_maps(
    checkpoint: Checkpoint,
    pool: ImagePool,
    image_ids: Sequence[str],
    *,
    accelerator: Accelerator,
    workers: int,
) -> tuple[Heat, NDArray[np.float64]]:
    """The maps of images and the logits they sum to, in 32 bits.

    Returns:
        (N, h, w) float32 and (N,) float64, in the order of `image_ids`.
    """
    torch.set_num_threads(workers)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    model = copy.deepcopy(checkpoint.network).to(device).to(memory_format=torch.channels_last)
    weight, bias = model.head.weight[0], float(model.head.bias[0])
    maps = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        for start in range(0, len(image_ids), BATCH):
            images = torch.from_numpy(pool.gather_ids(image_ids[start : start + BATCH]))
            features = model.features(network.normalise(images.to(device)))
            maps.append(class_activation_maps(features, weight).cpu().numpy())
    heats = np.concatenate(maps) if maps else np.empty((0, 1, 1), np.float32)
    return heats, heats.mean((1, 2), dtype=np.float64) + bias


def make_cam(
    checkpoint: Checkpoint,
    pool: ImagePool,
    studies: pd.DataFrame,
    boxes: pd.DataFrame,
    predictions: pd.DataFrame,
    operating_points: Mapping[str, Any],
    config: CamConfig,
    evaluation: EvaluationConfig,
    output: Path,
    *,
    accelerator: Accelerator,
    workers: int,
    others: Sequence[Checkpoint] = (),
) -> dict[str, Any]:
    """Score the maps of one model, draw its gallery into `output` and return `cam.json`.

    The cut of the scaled map is chosen on the positives of val, for model and control alike;
    the figures are of the positives of test. Everything is measured on the grid of the original
    pixels, padding left out. IoU of a map of few cells is capped: 0.57 with 7x7, 0.74 with 14x14.

    Args:
        pool: has the images of val and test.
        studies: all sides; the boxes of train positives make the control.
        operating_points: the model's, as in `operating_points.json`.
        others: the same model trained with other seeds; their maps tell the repeatability.

    Raises:
        StaleArtifactError: the predictions are of another checkpoint, or an image has none.
    """
    drawn = {str(name): rows for name, rows in boxes.groupby("image_id")}
    by_image = {
        name: rows[["x", "y", "width", "height"]].to_numpy(np.float64)
        for name, rows in drawn.items()
    }
    table = studies.sort_values("image_id").merge(
        predictions[["image_id", "logit", "probability"]], on="image_id", how="left"
    )
    positive = table["target"].to_numpy(np.bool_) & table["image_id"].isin(list(by_image))
    scored = table[positive & table["split"].isin(["val", "test"])]
    threshold = operating_points["operating_points"][evaluation.operating_point]["threshold"]
    gallery = choose_gallery(table[table["split"] == "test"], threshold, config.n_images)
    needed = pd.concat([scored, gallery]).drop_duplicates("image_id")
    compute = functools.partial(compute_maps, accelerator=accelerator, workers=workers)
    heats, logit = compute(checkpoint, pool, needed["image_id"].tolist())
    _check_logits(checkpoint.model, needed, logit)
    maps = dict(zip(needed["image_id"], heats, strict=True))
    train = table[positive & (table["split"] == "train")]
    control = control_map(
        [by_image[name] for name in train["image_id"]], train[["rows", "columns"]].to_numpy()
    )
    no_control = None if len(train) else "no positive image in train to make the control of"
    lattice = checkpoint.network.origin, float(checkpoint.network.stride)
    told = _score_all(scored, maps, control, by_image, lattice, evaluation, workers, no_control)
    tested = scored[scored["split"] == "test"]
    checked = _check_sanity(checkpoint, pool, tested)
    names = tested["image_id"].tolist()
    by_seed = [compute(other, pool, names)[0] for other in others]
    logger.info("%s: scored the maps of %d positive test images.", checkpoint.model, told["n"])
    panels = _draw_gallery(gallery, maps, lattice, by_image, pool, output)
    return {
        "model": checkpoint.model,
        **told,
        "sanity": checked,
        "repeatability": agreement.repeatability(
            [[maps[name] for name in names], *by_seed], _side(tested, evaluation)
        ),
        "control_images": len(train),
        "cells": list(heats.shape[1:]),
        "operating_point": evaluation.operating_point,
        "probability_threshold": threshold,
        **panels,
    }


def choose_gallery(test: pd.DataFrame, threshold: float, n_images: int) -> pd.DataFrame:
    """An equal share of each outcome, by a hash of image_id: not by how well they look.

    Returns:
        rows of `test` with their `outcome`; fewer where an outcome is rare.
    """
    called = test["probability"].to_numpy() >= threshold
    target = test["target"].to_numpy(np.bool_)
    outcome = np.select(
        [target & called, ~target & called, target & ~called], OUTCOMES[:3], OUTCOMES[3]
    )
    ordered = _by_lot(test.assign(outcome=outcome))
    shares = [
        ordered[ordered["outcome"] == name].head((n_images + 3 - i) // 4)
        for i, name in enumerate(OUTCOMES)
    ]
    return pd.concat(shares)


def _by_lot(rows: pd.DataFrame) -> pd.DataFrame:
    lot = [hashlib.sha256(name.encode()).hexdigest() for name in rows["image_id"]]
    return rows.assign(lot=lot).sort_values("lot").drop(columns="lot")


def _check_sanity(
    checkpoint: Checkpoint, pool: ImagePool, positives: pd.DataFrame
) -> dict[str, Any]:
    """The check on one image a person, chosen by lot."""
    rows = _by_lot(positives).drop_duplicates("patient_id").head(sanity.IMAGES)
    draw = functools.partial(network.build, checkpoint.model, fine_maps=checkpoint.fine_maps)
    return sanity.check_maps(checkpoint.network, draw, pool.gather_ids(rows["image_id"].tolist()))


def _check_logits(model: str, rows: pd.DataFrame, logit: NDArray[np.float64]) -> None:
    predicted = rows["logit"].to_numpy(np.float64)
    wrong = ~(np.abs(predicted - logit) <= _TOLERANCE * (1 + np.abs(logit)))
    if wrong.any():
        first = rows["image_id"].to_numpy()[wrong][0]
        raise StaleArtifactError(
            f"predictions of {model}: expected the logits of this checkpoint, got others for "
            f"{wrong.sum()} images (first: {first}). Make them anew: "
            "`pneumonia run` with --refresh predictions."
        )


def _score_all(
    scored: pd.DataFrame,
    maps: Mapping[str, Heat],
    control: Heat,
    boxes: Boxes,
    lattice: tuple[float, float],
    config: EvaluationConfig,
    workers: int,
    no_control: str | None,
) -> dict[str, Any]:
    """Thresholds from val, figures from test: model, control, their difference and subgroups."""

    def measure(row: Row) -> tuple[Scores, Scores, float]:
        rows, columns = int(row["rows"]), int(row["columns"])
        mask = box_mask(boxes[row["image_id"]], rows, columns)
        offset = float(row["offset_y"]), float(row["offset_x"])
        own = map_on_pixels(maps[row["image_id"]], lattice, mask.shape, float(row["scale"]), offset)
        stretched = enlarge(
            control,
            pixel_centres(rows, CONTROL_SIDE / rows),
            pixel_centres(columns, CONTROL_SIDE / columns),
        )
        return score(own, mask), score(stretched, mask), float(mask.mean())

    with ThreadPoolExecutor(workers) as threads:  # sorting lets go of the interpreter
        results = list(threads.map(measure, scored.to_dict("records")))
    own, constant = [result[0] for result in results], [result[1] for result in results]
    shares = [result[2] for result in results]
    is_test = (scored["split"] == "test").to_numpy(np.bool_)
    test, tested, tuned = scored[is_test], np.flatnonzero(is_test), np.flatnonzero(~is_test)
    images = _side(test, config)
    cuts = [agreement.choose_threshold([one[i] for i in tuned]) for one in (own, constant)]
    values, control_values = (
        agreement.columns([one[i] for i in tested], cut)
        for one, cut in zip((own, constant), cuts, strict=True)
    )
    groups: dict[str, list[str | None]] = {
        "view": [view if isinstance(view, str) else None for view in test["view"]],
        "boxes": [_size(shares[i]) for i in tested],
    }
    told = agreement.compare_maps(values, control_values, images, no_control=no_control)
    told["constant_map"]["threshold"] = float(THRESHOLDS[cuts[1]])
    return {
        "n": len(test),
        "threshold": float(THRESHOLDS[cuts[0]]),
        **told,
        "subgroups": agreement.by_group(
            groups, values, control_values, images, no_control=no_control
        ),
    }


def _side(positives: pd.DataFrame, config: EvaluationConfig) -> Side:
    """Positive images with resamples of their people."""
    people, person = np.unique(positives["patient_id"].astype(str), return_inverse=True)
    counts = resample_people(len(people), config.n_resamples if len(people) else 0, config.seed)
    return Side(np.ones(len(positives), np.bool_), person.astype(np.int64), counts)


def _size(share: float) -> str:
    small, large = (f"{limit:.0%}" for limit in BOX_SHARES)
    if share < BOX_SHARES[0]:
        return f"below {small} of the frame"
    return f"{small} to {large}" if share < BOX_SHARES[1] else f"above {large}"


def _draw_gallery(
    gallery: pd.DataFrame,
    maps: Mapping[str, Heat],
    lattice: tuple[float, float],
    boxes: Boxes,
    pool: ImagePool,
    output: Path,
) -> dict[str, Any]:
    """A PNG per image, all on one scale."""
    values = np.array([maps[name] for name in gallery["image_id"]], np.float64)
    low, high = np.quantile(values, [0.01, 0.99]).tolist() if values.size else (0.0, 0.0)
    panels = []
    for number, row in enumerate(gallery.to_dict("records"), 1):
        heat = map_on_pixels(maps[row["image_id"]], lattice, (pool.side, pool.side))
        own = boxes.get(row["image_id"], np.empty((0, 4)))
        stored = own * row["scale"] + np.array([row["offset_x"], row["offset_y"], 0, 0])
        image = pool.gather_ids([row["image_id"]])[0]
        file = f"{number:02d}-{str(row['outcome']).replace(' ', '-')}.png"
        panel = cam_panel(image, heat, stored, (low, high))
        (output / file).write_bytes(panel)
        panels.append(
            {
                "file": file,
                "image_id": row["image_id"],
                "outcome": row["outcome"],
                "probability": float(row["probability"]),
                "boxes": len(own),
            }
        )
    return {"panels": panels, "scale": [low, high]}
