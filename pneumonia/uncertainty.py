"""How sure a figure is: bootstrap over people, and the clustered variance of an AUROC.

In: which person each image is of, (N,), and figures as functions of weights (metrics.py). Out:
one value of each figure per resample; a 95 % interval is two percentiles of them. Images of one
person resemble each other, so people are drawn, not images: an interval over images is too
narrow. Pure arrays.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pneumonia.machine import cores
from pneumonia.metrics import Array, Bools, check_columns

Counts = NDArray[np.uint16]
Figures = Callable[[Array], Mapping[str, Array]]

QUANTILES = (0.025, 0.975)
"""Ends of every interval."""
MAX_UNDEFINED = 0.01
"""Share of resamples that may leave a figure undefined (no positive drawn, say) before its
interval is withheld: the remaining ones would speak of another population."""
_BLOCK = 1 << 18  # weights at once, 2 MiB: what a core's cache holds


def resample_people(n_people: int, n_resamples: int, seed: int) -> Counts:
    """Draw people with replacement.

    Returns:
        (n_resamples, n_people) how often each person was drawn; every row sums to n_people.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_resamples, n_people), np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, n_people, n_people), minlength=n_people)
    return counts


def bootstrap(figures: Figures, person: NDArray[np.int64], counts: Counts) -> dict[str, Array]:
    """Compute figures under every resample.

    Args:
        figures: maps weights (r, N) to named values (r,).
        person: (N,) index of each image's person, a column of `counts`.
        counts: (R, people) from `resample_people`; the same counts for two models, or for a
            part of the images, make their figures pairs.

    Returns:
        (R,) values per figure, NaN where a resample leaves it undefined.
    """
    rows = max(1, _BLOCK // max(1, len(person)))
    blocks = [counts[start : start + rows] for start in range(0, max(1, len(counts)), rows)]

    def compute(block: Counts) -> Mapping[str, Array]:
        return figures(np.take(block, person, 1).astype(np.float64))

    with ThreadPoolExecutor(cores()) as pool:  # numpy lets go of the interpreter
        parts = list(pool.map(compute, blocks))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile_interval(samples: Array) -> tuple[float, float] | None:
    """The central 95 % of resampled values (linear between order statistics).

    Returns:
        low and high, or None where there is no resample, or where more than `MAX_UNDEFINED` of
        them leave the figure undefined.

    >>> percentile_interval(np.arange(201.0))
    (5.0, 195.0)
    """
    defined = samples[~np.isnan(samples)]
    if not len(samples) or len(defined) < (1 - MAX_UNDEFINED) * len(samples):
        return None
    low, high = np.quantile(defined, QUANTILES)
    return float(low), float(high)


def bootstrap_p(samples: Array) -> float | None:
    """Two-sided p of the hypothesis that a difference is 0, by inverting the percentile interval.

    Twice the smaller share of resampled differences on either side of 0, counted so that it is
    never 0: (count + 1) / (R + 1) (Davison and Hinkley 1997, 4.2).
    """
    if percentile_interval(samples) is None:
        return None
    defined = samples[~np.isnan(samples)]
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(defined) + 1)))


def auroc_difference_error(
    first: Array, second: ArrayLike, target: Bools, person: NDArray[np.int64]
) -> float:
    """Standard error of the difference of two AUROCs on the same images of clustered people.

    Obuchowski's nonparametric variance (Biometrics 53, 1997, eq. 4-6); with one image per person
    DeLong's. It needs no resampling, so it checks the bootstrap.

    Args:
        first: (N,) score of one model.
        second: (N,) score of the other, or one number for a score that tells nothing: the
            standard error of the first AUROC alone.
        target: (N,) True where the image is positive.
        person: (N,) index of each image's person.

    Returns:
        The standard error; NaN with fewer than two people of either class.
    """
    other = np.broadcast_to(np.asarray(second, np.float64), first.shape)
    check_columns(target, first, other)
    with_positive = len(np.unique(person[target]))
    with_negative = len(np.unique(person[~target]))
    if min(with_positive, with_negative) < 2:
        return float("nan")
    n_positive, n_negative = int(target.sum()), int((~target).sum())
    placements = _placements(first, target) - _placements(other, target)
    centred = placements - placements[target].mean()
    people = int(person.max()) + 1
    of_positives = np.bincount(person[target], centred[target], minlength=people)
    of_negatives = np.bincount(person[~target], centred[~target], minlength=people)
    involved = len(np.unique(person))
    variance = (
        with_positive / (with_positive - 1) * (of_positives**2).sum() / n_positive**2
        + with_negative / (with_negative - 1) * (of_negatives**2).sum() / n_negative**2
        + 2 * involved / (involved - 1) * (of_positives @ of_negatives) / (n_positive * n_negative)
    )
    return float(np.sqrt(max(variance, 0.0)))


def _placements(score: Array, target: Bools) -> Array:
    """Of each image, the share of the other class that it stands in order with, ties half."""
    placements = np.empty(len(score))
    for side, sign in ((target, 1.0), (~target, -1.0)):
        others = np.sort(sign * score[~side])
        mine = sign * score[side]
        below = np.searchsorted(others, mine, side="left")
        up_to = np.searchsorted(others, mine, side="right")
        placements[side] = (below + up_to) / 2 / len(others)
    return placements
