"""Controls: what can be reached without looking at the image.

In: `studies` (one row per image: view, sex, age, spacing, split, target). Out: log odds per
image from a logistic regression on those four header fields, and the joint model that adds an
image model's log odds to them. A model that does not beat the first has learnt the header.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pneumonia.metrics import Array, Bools

MAX_AGE = 120.0
"""Years; the challenge holds five ages of 148 to 155, which are typing errors."""
MIN_SHARE = 0.01
"""Values of a field that a smaller share of the images has are one value, `other`."""


def metadata_log_odds(studies: pd.DataFrame) -> Array | None:
    """Fit the metadata-only control on the train rows and apply it to every row.

    View, sex and pixel spacing (0.001 mm; a fingerprint of the device) enter as one column per
    value, missing included; age linearly, missing and impossible ages as the median.

    Returns:
        (N,) log odds in the order of `studies`, or None without train rows of both classes.
    """
    fit = (studies["split"] == "train").to_numpy(np.bool_)
    target = studies["target"].to_numpy(np.bool_)
    if not fit.any() or target[fit].all() or not target[fit].any():
        return None
    features = np.column_stack(
        [
            *(_indicators(_values(studies[name]), fit) for name in ("view", "sex")),
            _indicators(spacing_values(studies["spacing"]), fit),
            _standardised(plausible_age(studies["age"]), fit),
        ]
    )
    return fit_log_odds(features, target, fit)


def fit_log_odds(features: Array, target: Bools, fit: Bools) -> Array:
    """Logistic regression on the rows of `fit`, applied to all.

    The weak L2 penalty (C = 1 on columns of unit scale) keeps separated classes finite.

    Args:
        features: (N, F), columns of about unit scale.
        target: (N,).
        fit: (N,) rows to fit on, with both classes.
    """
    if not features.shape[1]:
        prevalence = target[fit].mean()
        return np.full(len(target), np.log(prevalence / (1 - prevalence)))
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(features[fit], target[fit])
    return np.asarray(model.decision_function(features), np.float64)


def joint_log_odds(columns: Sequence[Array], target: Bools, fit: Bools) -> Array:
    """Combine the log odds of several models by a logistic regression on the rows of `fit`."""
    return fit_log_odds(np.column_stack([_unit(column, fit) for column in columns]), target, fit)


def plausible_age(age: "pd.Series[Any]") -> Array:
    """Ages in years, NaN where missing or beyond `MAX_AGE`."""
    years = pd.to_numeric(age, errors="coerce").to_numpy(np.float64)
    return np.where((years >= 0) & (years <= MAX_AGE), years, np.nan)


def spacing_values(spacing: "pd.Series[Any]") -> NDArray[np.object_]:
    """Pixel spacings as text, `0.143 mm`; None where missing."""
    millimetres = pd.to_numeric(spacing, errors="coerce").to_numpy(np.float64)
    return np.array([None if np.isnan(mm) else f"{mm:.3f} mm" for mm in millimetres], np.object_)


def _values(column: "pd.Series[Any]") -> NDArray[np.object_]:
    return column.astype(object).where(column.notna(), None).to_numpy(np.object_)


def _indicators(values: NDArray[np.object_], fit: Bools) -> Array:
    """One 0/1 column per value but the most frequent; rare values share one column."""
    text = pd.Series(values, dtype=object).fillna("missing").astype(str)
    shares = text[fit].value_counts(normalize=True).sort_index()
    kept = shares[shares >= MIN_SHARE].sort_values(ascending=False, kind="stable").index
    pooled = text.where(text.isin(kept), "other")
    columns = [pooled == value for value in [*kept[1:], "other"]]
    told = [column.to_numpy(np.float64) for column in columns if column[fit].any()]
    return np.column_stack(told) if told else np.empty((len(text), 0))


def _standardised(values: Array, fit: Bools) -> Array:
    """A column with missing values filled by the median; none where it does not vary."""
    known = values[fit & ~np.isnan(values)]
    if not len(known) or known.min() == known.max():
        return np.empty((len(values), 0))
    return _unit(np.where(np.isnan(values), np.median(known), values), fit)[:, None]


def _unit(values: Array, fit: Bools) -> Array:
    """Scale to mean 0 and standard deviation 1 over the rows of `fit`."""
    spread = values[fit].std()
    return np.asarray((values - values[fit].mean()) / (spread if spread > 0 else 1.0), np.float64)
