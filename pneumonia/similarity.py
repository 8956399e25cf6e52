"""Similarity of maps: how much of one map's structure another one has.

In: two maps of cells, scaled to [0, 1]. Out: their SSIM (Wang et al. 2004, IEEE Transactions on
Image Processing 13, eq. 13). Pure arrays.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIGMA, REACH = 1.5, 5
"""Wang's window: a Gaussian, its standard deviation and where it is cut off, in cells."""
_C1, _C2 = 0.01**2, 0.03**2  # Wang's constants for values in [0, 1]


def scale(heat: NDArray[np.floating[Any]]) -> Array:
    """A map between its least value, 0, and its largest, 1; 0 everywhere where it is constant.

    >>> scale(np.array([[-1.0, 0.0, 3.0]])).tolist()
    [[0.0, 0.25, 1.0]]
    """
    raised = heat.astype(np.float64) - heat.min()
    height = raised.max()
    return np.asarray(raised / height if height > 0 else np.zeros_like(raised), np.float64)


def ssim(first: Array, second: Array) -> float:
    """Structural similarity: 1 for the same map, about 0 for maps without common structure.

    Mean over a window around every cell. At the edge the window is that of the cells there are:
    a map of 4 x 4 cells is narrower than Wang's 11 x 11.

    Args:
        first: (h, w) in [0, 1].
        second: (h, w) in [0, 1].

    Returns:
        In [-1, 1]; below 0 where one is high where the other is low.

    Raises:
        ValueError: shapes differ, there is no cell, or a value is outside [0, 1].
    """
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise ValueError(
            f"expected two maps of one shape (h, w), got {first.shape}, {second.shape}"
        )
    for heat in (first, second):
        if not (heat.min() >= 0 and heat.max() <= 1):  # nor NaN
            raise ValueError(f"expected values in [0, 1], got {heat.min():g} to {heat.max():g}")
    down, across = (_window(cells) for cells in first.shape)

    def local(values: Array) -> Array:
        return np.asarray(down @ values @ across.T, np.float64)

    mean_a, mean_b = local(first), local(second)
    variance_a, variance_b = local(first**2) - mean_a**2, local(second**2) - mean_b**2
    covariance = local(first * second) - mean_a * mean_b
    alike = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    largest = (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    return float(np.mean(alike / largest))


def _window(cells: int) -> Array:
    """Weights (cells, cells) of the window around each cell; rows sum to 1."""
    distance = np.subtract.outer(np.arange(cells), np.arange(cells))
    weights = np.where(np.abs(distance) <= REACH, np.exp(-0.5 * (distance / SIGMA) ** 2), 0.0)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float64)
