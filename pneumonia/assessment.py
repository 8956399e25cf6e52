"""Assessment: every figure of one model on one set of images, with its interval or its reason.

In: the images of a side (target, person, resamples of its people) and a model's answers for
them. Out: a block `M` of `evaluation.json`, each figure `{"value", "low", "high", "reason"}`: a
value is null where it is undefined and the reason says why; low and high are null where no
interval is meant (val, calibration error), and with a reason where it cannot be had.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia.metrics import (
    UNDEFINED,
    Array,
    Bools,
    Ranking,
    brier,
    confusion,
    log_loss,
    predictive_values,
    rates,
    sigmoid,
)
from pneumonia.reliability import expected_calibration_error, recalibration
from pneumonia.uncertainty import Counts, Figures, bootstrap, percentile_interval

Figure = dict[str, Any]
Samples = dict[str, Array]

RATES = ("accuracy", "precision", "recall", "specificity", "npv", "f1", "balanced_accuracy")
MIN_PEOPLE = 10
"""People below which a bootstrap over them is no interval: it can only repeat the few it has."""
WITHOUT_INTERVAL = ("ece", "ece_uncalibrated")
PREVALENCES = (0.05, 0.10, 0.225)
"""Shares of positives at which PPV and NPV are told again: those of the challenge were raised."""


@dataclass(frozen=True)
class Side:
    """Images of one side.

    Args:
        target: (N,) True where the image shows lung opacity.
        person: (N,) column of `counts`.
        counts: (R, people) resamples of the people; None where no interval is meant.
    """

    target: Bools
    person: NDArray[np.int64]
    counts: Counts | None = None

    def part(self, mask: Bools) -> "Side":
        """Some of the images, under the same resamples."""
        return replace(self, target=self.target[mask], person=self.person[mask])


@dataclass(frozen=True)
class Answers:
    """What a model says about the images of a side.

    Args:
        log_odds: (N,) of the calibrated probability; -inf is a probability of 0.
        probability: (N,) calibrated, as predicted: a threshold is one of these very numbers, and
            the same sum in another order may miss it by the last digit.
        raw: (N,) log odds before calibration; None for a control, which has none.
    """

    log_odds: Array
    probability: Array
    raw: Array | None = None

    @classmethod
    def of_control(cls, log_odds: Array) -> "Answers":
        """Of something that is not calibrated on val."""
        return cls(log_odds, sigmoid(log_odds))

    def part(self, mask: Bools) -> "Answers":
        """The answers for some of the images."""
        raw = None if self.raw is None else self.raw[mask]
        return Answers(self.log_odds[mask], self.probability[mask], raw)


Thresholds = Mapping[str, Mapping[str, Any]]
"""Operating points by name: `threshold` on the probability (infinity: never) and `rule`."""


def assess(
    side: Side, answers: Answers, points: Thresholds, chosen: str, *, withheld: str | None = None
) -> tuple[dict[str, Any], Samples]:
    """Compute the block `M` of one model on one side or a part of it.

    Args:
        points: operating points.
        chosen: the one whose confusion matrix and rates stand in the block itself.
        withheld: why every figure is to be null, if so; counts are told all the same.

    Returns:
        the block, and the resampled values of its figures for paired comparisons.
    """
    n, positives = len(side.target), int(side.target.sum())
    called = {name: answers.probability >= point["threshold"] for name, point in points.items()}
    compute = _figures(side.target, answers, called)
    values = {name: float(value[0]) for name, value in compute(np.ones((1, n))).items()}
    values |= _calibration_errors(side.target, answers)
    barrier = withheld if n else "no image"
    samples = (
        bootstrap(compute, side.person, side.counts)
        if side.counts is not None and barrier is None
        else {}
    )
    people = len(np.unique(side.person))

    def told(name: str) -> Figure:
        if barrier is not None:
            return figure(math.nan, reason=barrier)
        no_interval = side.counts is None or name in WITHOUT_INTERVAL
        why = _why_undefined(name, answers)
        return figure(
            values[name], None if no_interval else samples.get(name), people=people, reason=why
        )

    def at(name: str) -> dict[str, Any]:
        counts = confusion(side.target, called[name])
        return {
            "confusion_matrix": {
                cell: int(getattr(counts, cell)) for cell in ("tn", "fp", "fn", "tp")
            },
            **{rate: told(f"{name}/{rate}") for rate in RATES},
        }

    block = {
        "n": n,
        "positives": positives,
        **at(chosen),
        **{name: told(name) for name in values if "/" not in name},
        "operating_points": {
            name: {
                "threshold": point["threshold"] if math.isfinite(point["threshold"]) else None,
                "rule": point["rule"],
                **at(name),
                "at_prevalence": [
                    {
                        "prevalence": share,
                        "precision": told(f"{name}/precision/{share}"),
                        "npv": told(f"{name}/npv/{share}"),
                    }
                    for share in PREVALENCES
                ],
            }
            for name, point in points.items()
        },
    }
    return block, samples


def figure(
    value: float,
    samples: Array | None = None,
    *,
    people: int = MIN_PEOPLE,
    reason: str | None = None,
) -> Figure:
    """A value with its interval, or with the reason why either is missing.

    Args:
        value: NaN where undefined.
        samples: (R,) resampled values; None where no interval is meant.
        people: whom the value comes from; of fewer than `MIN_PEOPLE` there is no interval.
        reason: why the value is undefined, if it is.

    >>> figure(0.5)
    {'value': 0.5, 'low': None, 'high': None, 'reason': None}
    """
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None, "reason": reason or "undefined"}
    if samples is None:
        return {"value": value, "low": None, "high": None, "reason": None}
    if people < MIN_PEOPLE:
        why = f"{people} to resample, at least {MIN_PEOPLE} needed"
    elif not len(samples):
        why = "no resamples were asked for (evaluation.n_resamples is 0)"
    elif (interval := percentile_interval(samples)) is None:
        why = f"undefined in {int(np.isnan(samples).sum())} of {len(samples)} resamples"
    elif interval[0] == interval[1]:  # 7 of 7 found is not a sensitivity of exactly 1
        why = "the same at both its ends, which tells nothing of people not seen"
    else:
        return {"value": value, "low": interval[0], "high": interval[1], "reason": None}
    return {"value": value, "low": None, "high": None, "reason": f"no interval: {why}"}


def _figures(target: Bools, answers: Answers, called: Mapping[str, Bools]) -> Figures:
    """The figures that have intervals, as one function of weights (r, N)."""
    ranking = Ranking(answers.log_odds, target)
    probability = answers.probability
    slope, intercept = (float(term) for term in recalibration(answers.log_odds, target))
    start = (1.0, 0.0) if math.isnan(slope) else (slope, intercept)

    def compute(weight: Array) -> Samples:
        slopes, intercepts = recalibration(answers.log_odds, target, weight, start=start)
        figures = {
            "auroc": ranking.auroc(weight),
            "average_precision": ranking.average_precision(weight),
            "log_loss": log_loss(answers.log_odds, target, weight),
            "log_loss_uncalibrated": _undefined(weight)
            if answers.raw is None
            else log_loss(answers.raw, target, weight),
            "brier": brier(probability, target, weight),
            "calibration_slope": slopes,
            "calibration_intercept": intercepts,
        }
        for name, calls in called.items():
            here = rates(confusion(target, calls, weight))
            figures |= {f"{name}/{rate}": value for rate, value in here.items()}
            for share in PREVALENCES:
                ppv, npv = predictive_values(here["recall"], here["specificity"], share)
                figures |= {f"{name}/precision/{share}": ppv, f"{name}/npv/{share}": npv}
        return figures

    return compute


def _calibration_errors(target: Bools, answers: Answers) -> dict[str, float]:
    raw = math.nan
    if answers.raw is not None:
        raw = expected_calibration_error(sigmoid(answers.raw), target)
    return {
        "ece": expected_calibration_error(answers.probability, target),
        "ece_uncalibrated": raw,
    }


def _why_undefined(name: str, answers: Answers) -> str:
    if name.endswith("_uncalibrated") and answers.raw is None:
        return "a control has no logit to calibrate"
    _, _, rate = name.partition("/")
    if "/" in rate:
        return "a class is missing, or no image is called so"
    return UNDEFINED[(rate or name).removesuffix("_uncalibrated")]


def _undefined(weight: Array) -> Array:
    return np.full(weight.shape[:-1], np.nan)
