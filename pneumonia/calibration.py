"""Calibration: from logits to probabilities and operating points, all chosen on val."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia.errors import DataError
from pneumonia.metrics import sigmoid
from pneumonia.thresholds import operating_points

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CALIBRATED = "Platt scaling: a and b minimise the log loss on val, with Platt's smoothed targets"
_SHIFTED = "a is 1, b minimises the log loss on val: Platt scaling would turn the order round"


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = sigmoid(a logit + b), a > 0.

    Args:
        rule: how a and b were found, in words.
    """

    a: float
    b: float
    rule: str = _CALIBRATED

    def probability(self, logit: Floats) -> Floats:
        """Probabilities (N,) of lung opacity for logits (N,).

        >>> Calibration(2.0, -1.0).probability(np.array([0.5]))
        array([0.5])
        """
        return sigmoid(self.a * logit + self.b)


def make_predictions(studies: pd.DataFrame, logit: Floats) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Calibrate on val and choose the operating points there.

    Args:
        studies: image_id, split (`val` or `test`), target; one row per logit.
        logit: (N,) in the order of `studies`.

    Returns:
        The table image_id, split, logit, probability, by image_id; and the calibration and the
        operating points as plain values.
    """
    val = (studies["split"] == "val").to_numpy()
    target = studies["target"].to_numpy(dtype=np.bool_)
    calibration = fit_platt(logit[val], target[val])
    probability = calibration.probability(logit)
    table = studies[["image_id", "split"]].assign(logit=logit, probability=probability)
    points = operating_points(probability[val], target[val])
    return (
        table.sort_values("image_id", ignore_index=True),
        {"calibration": asdict(calibration), "operating_points": points},
    )


def fit_platt(logit: Floats, target: Bools) -> Calibration:
    """Fit probability = sigmoid(a logit + b) by maximum likelihood with Platt's targets.

    The targets are (P + 1) / (P + 2) and 1 / (N + 2) in place of 1 and 0 (Platt 1999, equation
    11), so that separable classes have a finite solution. Where the logits rank val no better
    than chance, a would be negative or zero and turn the ranking round; then a stays 1, only b
    is fitted, and `rule` and the log say so.

    Args:
        logit: (N,) finite.
        target: (N,) True where there is lung opacity; both classes.

    Raises:
        DataError: a logit is not finite or a class is missing.

    >>> fit_platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])).a > 0
    True
    """
    positives = int(target.sum())
    negatives = len(target) - positives
    if positives == 0 or negatives == 0:
        raise DataError(
            f"calibration: expected images of both classes on val, got {positives} positives and "
            f"{negatives} negatives. Give more data, or another split.val_fraction."
        )
    if not np.isfinite(logit).all():
        raise DataError(
            "calibration: expected finite logits on val, got "
            f"{np.count_nonzero(~np.isfinite(logit))} of {len(logit)} that are not. Train the "
            "model again with a lower training.learning_rate."
        )
    goal = np.where(target, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    ones = np.ones_like(logit)
    a, b = _fit_logistic(np.stack([logit, ones], axis=1), np.zeros_like(logit), goal)
    if a > 0:
        return Calibration(float(a), float(b))
    logger.warning("The model ranks val no better than chance: only the intercept is calibrated.")
    (b,) = _fit_logistic(ones[:, None], logit, goal)
    return Calibration(1.0, float(b), _SHIFTED)


def _fit_logistic(design: Floats, offset: Floats, goal: Floats) -> Floats:
    """Coefficients (k,) of goal ~ sigmoid(design @ coefficients + offset) by damped Newton."""

    def loss(at: Floats) -> float:
        margin = design @ at + offset
        return float(np.mean(np.logaddexp(0, margin) - goal * margin))

    coefficients = np.zeros(design.shape[1])
    for _ in range(100):
        predicted = sigmoid(design @ coefficients + offset)
        gradient = design.T @ (predicted - goal) / len(goal)
        if np.abs(gradient).max() < 1e-12:
            break
        weight = predicted * (1 - predicted) / len(goal)
        hessian = (design * weight[:, None]).T @ design + 1e-12 * np.eye(len(coefficients))
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while loss(coefficients - length * step) > loss(coefficients) and length > 1e-9:
            length /= 2
        coefficients = coefficients - length * step
    return coefficients
