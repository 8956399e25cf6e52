"""Agreement of maps with boxes over many images: means, intervals and the control beside them.

In: the scores of a model's maps and of the constant map for the same positive images, the maps
of its other seeds, and the people they are of. Out: the parts of `cam.json`. Pure arrays.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pneumonia.assessment import Figure, Side, figure
from pneumonia.localisation import MEASURES, Heat, Scores
from pneumonia.metrics import Array, Bools, mean
from pneumonia.similarity import scale, ssim
from pneumonia.uncertainty import bootstrap

Columns = Mapping[str, Array]
"""Per measure one value per image, (N,); NaN where undefined."""

MIN_IMAGES = 10
"""Positive images below which a subgroup is shown as too small."""


def choose_threshold(scores: Sequence[Scores]) -> int:
    """The place in `THRESHOLDS` with the largest mean IoU, on val; the lowest if several.

    Raises:
        ValueError: there is no image to choose on.
    """
    if not scores:
        raise ValueError("expected at least one positive image to choose a threshold on")
    return int(np.argmax(np.mean([one.iou for one in scores], axis=0)))


def columns(scores: Sequence[Scores], threshold: int) -> Columns:
    """The six measures of each image, IoU and Dice at one of `THRESHOLDS`."""
    return {
        "pointing": _column([one.pointing for one in scores]),
        "iou": _column([one.iou[threshold] for one in scores]),
        "dice": _column([one.dice[threshold] for one in scores]),
        "cnr": _column([one.cnr for one in scores]),
        "auprc": _column([one.auprc for one in scores]),
        "energy_in_boxes": _column([one.energy_in_boxes for one in scores]),
    }


def compare_maps(
    values: Columns,
    control: Columns,
    side: Side,
    *,
    withheld: str | None = None,
    no_control: str | None = None,
) -> dict[str, Any]:
    """Mean of each measure for the model's maps and the constant map, and the difference.

    All three are over the same images, those where both maps define the measure, so that they
    add up: energy is undefined where a map is nowhere positive, CNR where boxes fill the frame.
    Where the control is withheld, the model's are over the images where its own map does.

    Args:
        withheld: why every figure is to be null, if so.
        no_control: why those of the control are, if so.

    Returns:
        the model's figures by measure; `defined`, on how many images each stands; and by measure
        again `constant_map` and `difference`, the model less the constant map.
    """
    without = withheld or no_control
    told: dict[str, Any] = {"defined": {}, "constant_map": {}, "difference": {}}
    for name in MEASURES:
        own = values[name]
        other = own if no_control else control[name]
        defined = ~np.isnan(own + other)
        part = side.part(defined)
        told["defined"][name] = int(defined.sum())
        nothing = "defined in no image" if len(defined) else "no positive image"
        model, constant, difference = _means(own[defined], other[defined], part)
        told[name] = _told(*model, part, withheld, nothing)
        told["constant_map"][name] = _told(*constant, part, without, nothing)
        told["difference"][name] = _told(*difference, part, without, nothing)
    return told


def by_group(
    groups: Mapping[str, Sequence[str | None]],
    values: Columns,
    control: Columns,
    side: Side,
    *,
    no_control: str | None = None,
) -> list[dict[str, Any]]:
    """Model and control in each subgroup.

    Args:
        groups: per grouping the value of each image; None belongs to no group.
        no_control: why the control is withheld, if it is.
    """
    told = []
    for by, labels in groups.items():
        own = np.array(labels, object)
        for value in sorted({label for label in labels if label is not None}):
            mask = own == value
            n, part = int(mask.sum()), side.part(mask)
            few = f"too small: {n} positive images, at least {MIN_IMAGES} needed"
            figures = compare_maps(
                _part(values, mask), _part(control, mask), part,
                withheld=few if n < MIN_IMAGES else None, no_control=no_control,
            )  # fmt: skip
            del figures["difference"]
            told.append({"by": by, "value": value, "n": n, **figures})
    return told


def repeatability(maps: Sequence[Sequence[Heat] | Heat], side: Side) -> Figure:
    """How alike the maps are that trainings with different seeds make of one image.

    Per image the mean SSIM of each pair's maps, scaled to [0, 1]; then the mean over images.

    Args:
        maps: per seed (N, h, w).
        side: the N images.
    """
    if len(maps) < 2:
        return figure(math.nan, reason="the maps are of one training")
    scaled = [[scale(heat) for heat in heats] for heats in maps]
    values = np.array(
        [
            np.mean([ssim(*pair) for pair in itertools.combinations(of_image, 2)])
            for of_image in zip(*scaled, strict=True)
        ]
    )
    own, *_ = _means(values, values, side)
    return _told(*own, side, None, "no positive image")


def _part(values: Columns, mask: Bools) -> Columns:
    return {name: column[mask] for name, column in values.items()}


def _means(own: Array, other: Array, side: Side) -> list[tuple[float, Array | None]]:
    """Means of two columns (N,) and of their difference, each with its resampled values."""

    def compute(weight: Array) -> dict[str, Array]:
        means = mean(own, weight), mean(other, weight)
        return {"own": means[0], "other": means[1], "difference": means[0] - means[1]}

    values = compute(np.ones((1, len(own))))
    samples = {} if side.counts is None else bootstrap(compute, side.person, side.counts)
    return [(float(value[0]), samples.get(name)) for name, value in values.items()]


def _told(
    value: float, samples: Array | None, side: Side, withheld: str | None, nothing: str
) -> Figure:
    if withheld is not None or not len(side.target):
        return figure(math.nan, reason=withheld or nothing)
    return figure(value, samples, people=len(np.unique(side.person)))


def _column(values: list[float]) -> Array:
    return np.array(values, np.float64)
