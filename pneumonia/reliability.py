"""Is a probability what it says: reliability curve, calibration error and recalibration.

In: `probability` or log odds (N,) float64, `target` (N,) bool, and for the recalibration an
optional `weight` (..., N). Out: figures; NaN where undefined.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumonia.metrics import Array, Bools, check_columns, ratio, sigmoid


@dataclass(frozen=True)
class Reliability:
    """Bins of a calibration curve, each array (bins,): the curve and its histogram."""

    probability: Array
    observed: Array
    count: NDArray[np.int64]


def reliability(probability: Array, target: Bools, bins: int = 15) -> Reliability:
    """Mean probability and observed share of positives in bins of equal mass.

    The images are sorted by probability and cut into `bins` runs whose lengths differ by one at
    most, the longer ones first; with fewer images than bins every image is a bin. Images of one
    probability carry their common share of positives, so that their order makes no difference.
    """
    check_columns(target, probability)
    values, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    share = np.bincount(place, target, minlength=len(values)) / np.maximum(count, 1)
    order = np.argsort(probability, kind="stable")
    runs = [run for run in np.array_split(order, bins) if len(run)]
    return Reliability(
        np.array([probability[run].mean() for run in runs]),
        np.array([share[place[run]].mean() for run in runs]),
        np.array([len(run) for run in runs], np.int64),
    )


def expected_calibration_error(probability: Array, target: Bools, bins: int = 15) -> float:
    """Mean absolute difference between probability and outcome over `reliability`'s bins.

    It has no interval: its bootstrap never covers 0, and a perfect model at n = 2,668 is expected
    to show 0.019.
    """
    if not len(target):
        return float("nan")
    curve = reliability(probability, target, bins)
    return float(np.average(np.abs(curve.probability - curve.observed), weights=curve.count))


def recalibration(
    log_odds: Array,
    target: Bools,
    weight: Array | None = None,
    *,
    start: tuple[float, float] = (1.0, 0.0),
) -> tuple[Array, Array]:
    """Slope and intercept of the logistic regression of the outcome on the log odds (Cox 1958).

    1 and 0 mean calibrated; a slope below 1 means too extreme, an intercept below 0 too high
    (both are of one joint fit). Maximum likelihood without a penalty, by Newton's method on all
    rows of weights at once. NaN where no finite fit exists.

    Args:
        log_odds: (N,) of the calibrated probability.
        target: (N,) True where the image is positive.
        weight: (..., N).
        start: slope and intercept to start from; those of all images save steps.
    """
    check_columns(target, log_odds)
    weights = np.ones(len(target)) if weight is None else weight
    shape = weights.shape[:-1]
    rows = weights.reshape(math.prod(shape), len(target))
    fit = np.full((len(rows), 2), np.nan)
    open_rows = np.flatnonzero(_overlaps(log_odds, target, rows))
    for slope, intercept in (start, (0.0, 0.0)):  # from 0 where the first start led astray
        if len(open_rows):
            fit[open_rows] = _newton(log_odds, target, rows[open_rows], slope, intercept)
            open_rows = open_rows[np.isnan(fit[open_rows, 0])]
    return fit[:, 0].reshape(shape), fit[:, 1].reshape(shape)


def _overlaps(log_odds: Array, target: Bools, rows: Array) -> Bools:
    """Rows of weights (R, N) under which no threshold on the log odds parts the classes."""
    if not np.isfinite(log_odds).all():
        return np.zeros(len(rows), np.bool_)

    def bound(side: Bools, sign: float) -> Array:
        values = np.where(rows[:, side] > 0, sign * log_odds[side], -np.inf)
        bounds: Array = sign * values.max(-1, initial=-np.inf)
        return bounds

    highest = [bound(side, 1.0) for side in (~target, target)]
    lowest = [bound(side, -1.0) for side in (~target, target)]
    return (highest[0] > lowest[1]) & (highest[1] > lowest[0])


def _newton(log_odds: Array, target: Bools, rows: Array, slope: float, intercept: float) -> Array:
    """Slope and intercept (R, 2) that maximise the likelihood; NaN where it did not settle."""
    centre, spread = log_odds.mean(), log_odds.std()
    scaled = (log_odds - centre) / spread
    powers = np.stack([scaled**2, scaled, np.ones_like(scaled)], 1)  # (N, 3)
    fit = np.tile([slope * spread, intercept + slope * centre], (len(rows), 1))
    moving = np.arange(len(rows))
    for _ in range(100):
        weights = rows if len(moving) == len(rows) else rows[moving]
        expected = sigmoid(fit[moving, :1] * scaled + fit[moving, 1:])
        gradient = (weights * (target - expected)) @ powers[:, 1:]
        curvature = (weights * expected * (1 - expected)) @ powers
        step = _solve(curvature, gradient)
        step /= np.maximum(1.0, np.abs(step).max(-1, keepdims=True))  # longer ones overshoot
        fit[moving] += step
        # convergence is quadratic: after a step of 1e-6 the error is of the order of 1e-12
        moving = moving[~(np.abs(step).max(-1) < 1e-6)]
        if not len(moving):
            break
    fit[moving] = np.nan
    return np.stack([fit[:, 0] / spread, fit[:, 1] - fit[:, 0] * centre / spread], 1)


def _solve(curvature: Array, gradient: Array) -> Array:
    """Solve the symmetric 2x2 systems [[a, b], [b, c]] step = gradient, rows (a, b, c)."""
    a, b, c = np.moveaxis(curvature, -1, 0)
    u, v = np.moveaxis(gradient, -1, 0)
    determinant = a * c - b * b
    return np.stack([ratio(c * u - b * v, determinant), ratio(a * v - b * u, determinant)], -1)
