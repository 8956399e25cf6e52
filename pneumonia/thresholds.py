"""Operating points: where a probability becomes a call, chosen on val and then frozen.

In: calibrated probabilities (N,) float64 and targets (N,) bool of the tuning set. Out: three
named thresholds, each with its rule in words. An image is called positive when its probability
is at least the threshold. Choosing and reporting on the same images flatters: report on test.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia.metrics import at_least

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NAMES = ("youden", "sensitivity_90", "p_0.5")


def operating_points(probability: Floats, target: Bools) -> dict[str, dict[str, Any]]:
    """Choose the three operating points.

    Args:
        probability: (N,) calibrated, in [0, 1].
        target: (N,) True where there is lung opacity; both classes.

    Raises:
        ValueError: one of the classes is missing.

    >>> p, y = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True])
    >>> [point["threshold"] for point in operating_points(p, y).values()]
    [0.4, 0.4, 0.5]
    """
    if target.all() or not target.any():
        raise ValueError("expected targets of both classes, got one")
    thresholds = np.unique(probability)  # rising, so sensitivity falls and specificity rises
    hits = at_least(np.sort(probability[target]), thresholds)
    alarms = at_least(np.sort(probability[~target]), thresholds)
    n_positive, n_negative = int(target.sum()), int((~target).sum())
    # in whole numbers, so that equals are equal; argmax takes the first, the most sensitive
    youden = thresholds[np.argmax(hits * n_negative - alarms * n_positive)]
    sensitive = thresholds[hits * 10 >= n_positive * 9][-1]
    return {
        "youden": {
            "threshold": float(youden),
            "rule": "largest sensitivity + specificity - 1 on val; the most sensitive if tied",
        },
        "sensitivity_90": {
            "threshold": float(sensitive),
            "rule": "highest threshold with a sensitivity of at least 0.90 on val",
        },
        "p_0.5": {"threshold": 0.5, "rule": "calibrated probability of at least 0.5"},
    }
