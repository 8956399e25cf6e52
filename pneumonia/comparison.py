"""Comparison: paired differences between models on the same test images.

In: the test side with resamples of its people and the answers of two models. Out: entries of
`evaluation.json`'s comparisons, a - b with interval and p. Two intervals that do not overlap are
no test, and these speak of two checkpoints on one sample, not of architectures.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pneumonia.assessment import Answers, Samples, Side, figure
from pneumonia.controls import joint_log_odds
from pneumonia.metrics import Array, Ranking
from pneumonia.uncertainty import auroc_difference_error, bootstrap, bootstrap_p

COMPARED = ("auroc", "average_precision", "log_loss", "brier")
"""Figures that two models are compared in."""


@dataclass(frozen=True)
class Assessed:
    """A model assessed on the images that it is compared on.

    Args:
        name: what the comparison calls it.
        answers: for the images of the side.
        block: its `M` there.
        samples: resampled values of its figures; empty without resamples.
        point: the operating point whose rates stand in the block.
    """

    name: str
    answers: Answers
    block: Mapping[str, Any]
    samples: Samples
    point: str

    def drawn(self, name: str) -> Array | None:
        """The resampled values of a figure or of a rate at the operating point."""
        return self.samples.get(name, self.samples.get(f"{self.point}/{name}"))


def compare_models(side: Side, models: Sequence[Assessed]) -> Iterator[dict[str, Any]]:
    """Paired differences a - b of every pair of models on test."""
    for a, b in itertools.combinations(models, 2):
        yield from differences(side, a, b)


def differences(
    side: Side, a: Assessed, b: Assessed, names: Sequence[str] = COMPARED
) -> Iterator[dict[str, Any]]:
    """Paired differences a - b of two models that are assessed on the same images.

    Args:
        names: figures of the block; a rate is that at each model's own operating point.
    """
    for name in names:
        values = [model.block[name]["value"] for model in (a, b)]
        difference = None
        first, second = a.drawn(name), b.drawn(name)
        if first is not None and second is not None and None not in values:
            difference = first - second
        check = (
            _obuchowski(a.answers.log_odds, b.answers.log_odds, side) if name == "auroc" else None
        )
        yield _comparison(a.name, b.name, name, values, difference, side) | {"check": check}


def beside_metadata(
    sides: Mapping[str, Side],
    answers: Mapping[str, Mapping[str, Answers]],
    metadata: Mapping[str, Answers] | None,
) -> Iterator[dict[str, Any]]:
    """Each model against the metadata-only control on test, in AUROC, in two ways.

    AUROC(model) - AUROC(metadata): does the model rank better than the header alone? Neither is
    fitted anew. It does not say what the image adds, since the image shows the view too; that is
    AUROC(joint) - AUROC(metadata). The joint model's two weights are fitted on val, the control
    comes from train.
    """
    val, test = sides["val"].target, sides["test"]
    if metadata is None or val.all() or not val.any():
        return
    target = np.concatenate([val, test.target])
    fit = np.arange(len(target)) < len(val)
    alone = metadata["test"].log_odds
    for model, said in answers.items():
        columns = [
            np.concatenate([source["val"].log_odds, source["test"].log_odds])
            for source in (metadata, said)
        ]
        joint = joint_log_odds(columns, target, fit)[~fit]
        yield _area_difference(model, "metadata_only", said["test"].log_odds, alone, test)
        yield _area_difference(f"metadata_only + {model}", "metadata_only", joint, alone, test)


def _area_difference(a: str, b: str, first: Array, second: Array, side: Side) -> dict[str, Any]:
    """AUROC(first) - AUROC(second) of two scores (N,) on the same images, in pairs."""
    rankings = [Ranking(scores, side.target) for scores in (first, second)]

    def difference(weight: Array) -> Samples:
        areas = [ranking.auroc(weight) for ranking in rankings]
        return {"auroc": areas[0] - areas[1]}

    samples = {} if side.counts is None else bootstrap(difference, side.person, side.counts)
    values = [float(ranking.auroc()) for ranking in rankings]
    entry = _comparison(a, b, "auroc", values, samples.get("auroc"), side)
    return entry | {"check": _obuchowski(first, second, side)}


def _comparison(
    a: str, b: str, name: str, values: list[float], samples: Array | None, side: Side
) -> dict[str, Any]:
    known = None not in values and not np.isnan(values).any()
    people = len(np.unique(side.person))
    difference = figure(
        values[0] - values[1] if known else math.nan,
        samples,
        people=people,
        reason="one of the two is undefined",
    )
    return {
        "a": a,
        "b": b,
        "figure": name,
        "difference": difference,
        "p": None if samples is None or difference["low"] is None else bootstrap_p(samples),
    }


def _obuchowski(first: Array, second: Array, side: Side) -> dict[str, Any] | None:
    """The check by a variance without resampling; None where it is undefined."""
    error = auroc_difference_error(first, second, side.target, side.person)
    if not error > 0:
        return None
    difference = Ranking(first, side.target).auroc() - Ranking(second, side.target).auroc()
    p = math.erfc(abs(float(difference)) / error / math.sqrt(2))
    return {"method": "Obuchowski 1997, clustered by person", "standard_error": error, "p": p}
