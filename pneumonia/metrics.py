"""Classification figures as pure functions over float64 arrays, each with optional weights.

In: `target` (N,) bool, a score, probability or log odds (N,) float64, and where a function takes
it a `weight` (..., N): how often each image counts, one row per bootstrap resample. Out: one
figure per row of weights, shape (...,); NaN where it is undefined, never 0. Definitions:
EVALUATION.md of the project's documents, told again at each function.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

OUTCOMES = ("true positive", "false positive", "false negative", "true negative")

UNDEFINED: Mapping[str, str] = {
    "accuracy": "no image",
    "precision": "no image is called positive",
    "recall": "no positive image",
    "specificity": "no negative image",
    "npv": "no image is called negative",
    "f1": "no image is positive or called positive",
    "balanced_accuracy": "needs images of both classes",
    "auroc": "needs images of both classes",
    "average_precision": "no positive image",
    "log_loss": "infinite: a probability of 0 or 1 against the label, or no image",
    "brier": "no image",
    "ece": "no image",
    "calibration_slope": "no finite fit: needs both classes, overlapping, and a varying score",
    "calibration_intercept": "no finite fit: needs both classes, overlapping, and a varying score",
}
"""Why a figure can be NaN."""


@dataclass(frozen=True)
class Confusion:
    """Weighted counts of a decision, each of shape (...,)."""

    tn: Array
    fp: Array
    fn: Array
    tp: Array


def confusion(target: Bools, called: Bools, weight: Array | None = None) -> Confusion:
    """Count true and false calls.

    Args:
        target: (N,) True where the image shows lung opacity.
        called: (N,) True where it is called positive.
        weight: (..., N) how often each image counts; 1 without it.
    """
    check_columns(target, called)
    cells = np.stack([~target & ~called, ~target & called, target & ~called, target & called], 1)
    counts = _weight(target, weight) @ cells.astype(np.float64)  # (..., 4)
    return Confusion(*np.moveaxis(counts, -1, 0))


def rates(counts: Confusion) -> dict[str, Array]:
    """The seven rates of a confusion matrix; precision is PPV, recall is sensitivity.

    >>> one = rates(Confusion(*np.array([50.0, 10.0, 5.0, 15.0])))
    >>> {name: round(float(rate), 3) for name, rate in one.items()}["precision"]
    0.6
    """
    tn, fp, fn, tp = counts.tn, counts.fp, counts.fn, counts.tp
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tp + tn, tp + tn + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
    }


def predictive_values(
    recall: ArrayLike, specificity: ArrayLike, prevalence: float
) -> tuple[Array, Array]:
    """PPV and NPV of a test as they would be at another prevalence (Bayes).

    >>> ppv, npv = predictive_values(0.8, 0.9, prevalence=0.05)
    >>> round(float(ppv), 3), round(float(npv), 3)
    (0.296, 0.988)
    """
    sensitive, specific = np.asarray(recall, np.float64), np.asarray(specificity, np.float64)
    true_positive = sensitive * prevalence
    true_negative = specific * (1 - prevalence)
    false_positive = (1 - specific) * (1 - prevalence)
    false_negative = (1 - sensitive) * prevalence
    return (
        ratio(true_positive, true_positive + false_positive),
        ratio(true_negative, true_negative + false_negative),
    )


class Ranking:
    """Images in the order of a score, sorted once and weighted as often as one likes.

    Args:
        score: (N,) larger means more likely positive; equal scores are ties.
        target: (N,) True where the image is positive.
    """

    def __init__(self, score: Array, target: Bools) -> None:
        check_columns(target, score)
        self._order = np.argsort(score, kind="stable")
        self._positive = np.flatnonzero(target[self._order])  # places in the order
        self._is_negative = (~target[self._order]).astype(np.float64)
        ordered = score[self._order]
        # of each positive: how many images score lower, and how many not higher
        self._below = np.searchsorted(ordered, ordered[self._positive], side="left")
        self._up_to = np.searchsorted(ordered, ordered[self._positive], side="right")
        self._n = len(score)

    def auroc(self, weight: Array | None = None) -> Array:
        """Area under the ROC curve: the share of positive-negative pairs in order, ties half."""
        ordered = self._ordered(weight)
        negatives = _running(ordered * self._is_negative)  # (..., N + 1)
        lower = (negatives[..., self._below] + negatives[..., self._up_to]) / 2
        positives = ordered[..., self._positive]
        return ratio((positives * lower).sum(-1), positives.sum(-1) * negatives[..., -1])

    def average_precision(self, weight: Array | None = None) -> Array:
        """Average precision: the step sum of precision over the gains in recall, no trapezoid."""
        ordered = self._ordered(weight)
        everything = _running(ordered)
        negatives = _running(ordered * self._is_negative)
        # of each positive: what stands at or above its score
        called = everything[..., -1:] - everything[..., self._below]
        wrongly = negatives[..., -1:] - negatives[..., self._below]
        positives = ordered[..., self._positive]
        gained = np.where(positives > 0, positives * (1 - ratio(wrongly, called)), 0.0)
        return ratio(gained.sum(-1), positives.sum(-1))

    def _ordered(self, weight: Array | None) -> Array:
        if weight is None:
            return np.ones(self._n)
        return np.take(weight, self._order, axis=-1)


def auroc(score: Array, target: Bools, weight: Array | None = None) -> Array:
    """Area under the ROC curve.

    >>> float(auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])))
    0.75
    """
    return Ranking(score, target).auroc(weight)


def average_precision(score: Array, target: Bools, weight: Array | None = None) -> Array:
    """Average precision (step sum).

    >>> ranked = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    >>> round(float(average_precision(*ranked)), 4)
    0.8333
    """
    return Ranking(score, target).average_precision(weight)


def log_loss(log_odds: Array, target: Bools, weight: Array | None = None) -> Array:
    """Mean negative log likelihood, in nats; NaN where it is infinite.

    Takes log odds, not probabilities: they keep the loss of a confident error exact.
    """
    check_columns(target, log_odds)
    losses = np.logaddexp(0.0, np.where(target, -log_odds, log_odds))
    if not np.isfinite(losses).all():
        return np.full(_weight(target, weight).shape[:-1], np.nan)
    return mean(losses, weight)


def brier(probability: Array, target: Bools, weight: Array | None = None) -> Array:
    """Mean squared difference between probability and outcome (0 or 1)."""
    check_columns(target, probability)
    return mean((probability - target) ** 2, weight)


def net_benefit(probability: Array, target: Bools, threshold: Array) -> Array:
    """Net benefit of calling positive at or above each threshold (Vickers and Elkin 2006).

    True positives less false positives weighed by the odds of the threshold, per image: a
    threshold of 0.2 says that one missed opacity is worth four false alarms.

    Args:
        probability: (N,) calibrated.
        target: (N,).
        threshold: (T,) in [0, 1).

    >>> truth = np.array([True, False, False, False])
    >>> net_benefit(np.ones(4), truth, np.array([0.2])).round(4).tolist()  # call everyone
    [0.0625]
    """
    check_columns(target, probability)
    if ((threshold < 0) | (threshold >= 1)).any():
        raise ValueError("expected every `threshold` in [0, 1)")
    true, false = (
        at_least(np.sort(side), threshold) for side in (probability[target], probability[~target])
    )
    return ratio(true - false * threshold / (1 - threshold), float(len(target)))


@dataclass(frozen=True)
class Curve:
    """What each distinct threshold gives, the highest first; arrays (thresholds + 1,)."""

    threshold: Array
    recall: Array
    fall_out: Array
    precision: Array


def threshold_curve(score: Array, target: Bools) -> Curve:
    """Recall (sensitivity), fall-out (1 - specificity) and precision at every distinct score.

    The first point calls nothing positive (threshold infinity, precision 1 by convention).
    """
    check_columns(target, score)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)
    true = np.cumsum(target[order])[ends].astype(np.float64)
    called = ends + 1.0
    n_positive, n_negative = target.sum(), (~target).sum()
    return Curve(
        np.r_[np.inf, score[order][ends]],
        np.r_[0.0, ratio(true, float(n_positive))],
        np.r_[0.0, ratio(called - true, float(n_negative))],
        np.r_[1.0, ratio(true, called)],
    )


def sigmoid(log_odds: Array) -> Array:
    """Probability of log odds; small ones keep all their digits, and nothing overflows.

    >>> sigmoid(np.array([-np.inf, -800.0, 0.0, 800.0])).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    small = np.exp(-np.abs(log_odds))
    return np.asarray(np.where(log_odds >= 0, 1.0, small) / (1 + small), np.float64)


def at_least(
    values: NDArray[np.floating[Any]], bounds: NDArray[np.floating[Any]]
) -> NDArray[np.int64]:
    """How many of `values`, which are sorted upwards, are at least each of `bounds`.

    >>> at_least(np.array([0.1, 0.4, 0.4]), np.array([0.0, 0.4, 0.5])).tolist()
    [3, 2, 0]
    """
    return np.asarray(len(values) - np.searchsorted(values, bounds, side="left"), np.int64)


def mean(values: Array, weight: Array | None = None) -> Array:
    """Weighted mean of (N,) values for each row of weights."""
    if weight is None:
        weight = np.ones(len(values))
    return ratio(weight @ values, weight.sum(-1))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Divide; NaN where the denominator is 0."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    )
    quotient = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below != 0)
    return quotient


def check_columns(target: Bools, *columns: NDArray[Any]) -> None:
    """Refuse columns of another length or kind than one value per image.

    Raises:
        ValueError: `target` is not boolean, shapes differ, or a score is NaN.
    """
    if target.dtype != np.bool_:
        raise ValueError(f"expected `target` of booleans, got {target.dtype}")
    for column in columns:
        if column.shape != target.shape or target.ndim != 1:
            raise ValueError(
                f"expected arrays of one shape (N,), got {target.shape} and {column.shape}"
            )
        if column.dtype.kind == "f" and np.isnan(column).any():
            raise ValueError("expected no NaN among scores")


def _running(values: Array) -> Array:
    """Sums of the first 0, 1, ..., N values of each row."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def _weight(target: Bools, weight: Array | None) -> Array:
    return np.ones(len(target)) if weight is None else weight
