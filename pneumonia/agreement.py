"""Agreement of maps with boxes over many images: means, intervals and the control beside them.

In: the scores of a model's maps and of the constant map for the same positive images, and the
people they are of. Out: the parts of `cam.json`. Pure arrays.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pneumonia.assessment import Figure, Side, figure
from pneumonia.localisation import MEASURES, Scores
from pneumonia.metrics import Array, Bools, ratio
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


def average(values: Columns, side: Side, *, withheld: str | None = None) -> dict[str, Figure]:
    """Mean of each measure over the images where it is defined, with its interval over people."""
    return _told({name: [values[name]] for name in MEASURES}, side, withheld)


def difference(
    values: Columns, control: Columns, side: Side, *, withheld: str | None = None
) -> dict[str, Figure]:
    """Mean of the model's map less that of the control, over the same resamples."""
    return _told({name: [values[name], control[name]] for name in MEASURES}, side, withheld)


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
            small = few if n < MIN_IMAGES else None
            model = average(_part(values, mask), part, withheld=small)
            constant = average(_part(control, mask), part, withheld=small or no_control)
            told.append({"by": by, "value": value, "n": n, **model, "constant_map": constant})
    return told


def _part(values: Columns, mask: Bools) -> Columns:
    return {name: column[mask] for name, column in values.items()}


def _told(terms: Mapping[str, list[Array]], side: Side, withheld: str | None) -> dict[str, Figure]:
    """Per measure a figure: the mean of the first term, less that of the second if there is one."""

    def compute(weight: Array) -> dict[str, Array]:
        return {name: _contrast(columns, weight) for name, columns in terms.items()}

    n, people = len(side.target), len(np.unique(side.person))
    withheld = withheld if n else "no positive image"
    if withheld is not None:
        return {name: figure(math.nan, reason=withheld) for name in terms}
    values = compute(np.ones((1, n)))
    samples = {} if side.counts is None else bootstrap(compute, side.person, side.counts)
    return {
        name: figure(
            float(values[name][0]),
            samples.get(name),
            people=people,
            reason="undefined in every image",
        )
        for name in terms
    }


def _contrast(terms: list[Array], weight: Array) -> Array:
    defined = ~np.isnan(np.stack(terms)).any(0)
    means = [
        ratio(weight @ np.where(defined, column, 0.0), weight @ defined.astype(np.float64))
        for column in terms
    ]
    return means[0] if len(means) == 1 else means[0] - means[1]


def _column(values: list[float]) -> Array:
    return np.array(values, np.float64)
