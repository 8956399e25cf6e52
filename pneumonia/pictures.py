"""Pictures of a run, each a data URI with a text for those who do not see it.

In: histories, predictions, `evaluation.json`, `cam.json` with its PNG files, sample images. Out:
pictures that a page embeds. Drawing itself is `figures`.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia import figures, tables
from pneumonia.metrics import OUTCOMES, net_benefit, threshold_curve
from pneumonia.reliability import reliability

MAX_THRESHOLD = 0.6
"""Right end of the decision curve: nobody waits for more certainty to look at a film again."""

SHEET_TILE = 128
"""Pixels along an image of a sheet, at most."""

MIN_BIN = 25
"""Images in a bin of the calibration curve; 15 bins at most."""

Films = tuple[NDArray[np.uint8], pd.DataFrame]
"""(n, side, side) images, and a row of image_id, target, class and view for each."""

Scores = Mapping[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]
"""Per model probability and target (N,) of test."""


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Args:
        source: a data URI.
        alternative: what it shows, for those who do not see it.
    """

    source: str
    alternative: str

    @property
    def size(self) -> int:
        """Bytes of the picture itself."""
        data = self.source.partition(",")[2]
        return len(data) * 3 // 4 - data.count("=")


def probabilities(
    studies: pd.DataFrame, predictions: Mapping[str, pd.DataFrame]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Per model the probabilities and targets of test; empty without a test side."""
    target = studies.loc[studies["split"] == "test"].set_index("image_id")["target"]
    scores = {}
    for model, table in predictions.items():
        rows = table[table["image_id"].isin(target.index)]
        truth = target.loc[rows["image_id"]].to_numpy(np.bool_)
        if truth.any() and not truth.all():
            scores[model] = rows["probability"].to_numpy(np.float64), truth
    return scores


def training_curves(
    histories: Mapping[str, pd.DataFrame], form: figures.Form = "svg"
) -> dict[str, Picture]:
    """Learning curves of all models, the epoch that was kept marked."""
    losses, aurocs = {}, {}
    best = {model: int(history["val_loss"].argmin()) for model, history in histories.items()}
    for model, history in histories.items():
        epoch = history["epoch"].to_numpy(np.float64)
        train, val, auroc = (
            history[name].to_numpy(np.float64) for name in ("train_loss", "val_loss", "val_auroc")
        )
        losses[model] = {"train": (epoch, train), "val": (epoch, val)}
        aurocs[model] = (epoch, auroc)
    ends = ", ".join(
        f"{model} ends at a val AUROC of {line[1][-1]:.3f} after {len(line[0])} epochs"
        for model, line in aurocs.items()
        if len(line[0])
    )
    drawing = figures.learning_curves(losses, aurocs, best, form)
    return {"learning": _embedded(drawing, f"Loss and AUROC by epoch: {ends}.", form)}


def test_curves(
    evaluation: Mapping[str, Any],
    test: Mapping[str, tuple[NDArray[np.float64], NDArray[np.bool_]]],
) -> dict[str, Picture]:
    """ROC, precision-recall, calibration and decision curves of all models."""
    roc, precision, calibration, benefit = {}, {}, {}, {}
    roc_points, precision_points, areas = {}, {}, []
    threshold = np.linspace(0, MAX_THRESHOLD, 121)
    for model, (probability, target) in test.items():
        curve = threshold_curve(probability, target)
        roc[model] = (curve.fall_out, curve.recall)
        gains = np.diff(curve.recall, prepend=-1.0) > 0  # the points that the step sum adds up
        precision[model] = (curve.recall[gains], curve.precision[gains])
        calibration[model] = _reliability(probability, target)
        benefit[model] = net_benefit(probability, target, threshold)
        block = evaluation["models"][model]["test"]
        areas.append(f"{model} {tables.value(block['auroc'])}")
        recall, specificity, ppv = (
            block[name]["value"] for name in ("recall", "specificity", "precision")
        )
        roc_points[model] = (1 - specificity, recall)
        if ppv is not None:
            precision_points[model] = (recall, ppv)
    prevalence = float(target.mean())
    call_all = net_benefit(np.ones(len(target)), target, threshold)
    told = "; ".join(areas)
    return {
        "roc": _svg(figures.roc_curves(roc, roc_points), f"ROC curves. AUROC: {told}."),
        "precision": _svg(
            figures.precision_recall_curves(precision, precision_points, prevalence),
            f"Precision over sensitivity, above the prevalence of {prevalence:.3f}.",
        ),
        "calibration": _svg(
            figures.calibration_curves(calibration),
            "Observed share of positives over predicted probability, beside the diagonal.",
        ),
        "decision": _svg(
            figures.decision_curves(threshold, benefit, call_all, prevalence),
            "Net benefit over the threshold probability, beside calling everyone and no one.",
        ),
    }


def shift_curve(home: Scores, here: Scores) -> dict[str, Picture]:
    """Calibration of the one model at home and here; nothing where either lacks a class."""
    if not home or not here:
        return {}
    sides = {
        name: _reliability(*scores)
        for side, name in ((home, "home test"), (here, "here"))
        for scores in side.values()
    }
    told = "Observed share of positives over predicted probability, on the home test and here."
    return {"shift": _svg(figures.calibration_curves(sides), told)}


def histograms(test: Scores) -> dict[str, Picture]:
    """Per model the probabilities of both classes."""
    return {
        model: _svg(
            figures.histogram(
                {"negative": probability[~target], "positive": probability[target]},
                f"probability by {model}",
            ),
            f"Probabilities by {model}: median {np.median(probability[~target]):.2f} of negatives, "
            f"{np.median(probability[target]):.2f} of positives.",
        )
        for model, (probability, target) in test.items()
    }


def overview(evaluation: Mapping[str, Any], form: figures.Form = "svg") -> Picture:
    """AUROC of models and controls, one below the other."""
    rows = [
        figures.Interval(name, *_ends(block["auroc"]), note="not defined")
        for name, block in tables.blocks(evaluation, "test")
    ]
    told = "; ".join(
        f"{name} {tables.tell(block['auroc'])}" for name, block in tables.blocks(evaluation, "test")
    )
    drawing = figures.forest({"": rows}, 0.5, "AUROC on test, 95 % interval", form)
    return _embedded(drawing, f"AUROC on test: {told}.", form)


def subgroups(model: str, sides: Mapping[str, Any]) -> Picture:
    """Forest plot of a model's AUROC by subgroup."""
    groups: dict[str, list[figures.Interval]] = {}
    for group in sides["subgroups"]:
        heading = tables.GROUP_NAMES.get(group["by"], group["by"])
        label = f"{group['value']} ({group['n']:,})"
        row = figures.Interval(label, *_ends(group["auroc"]), note="too small")
        groups.setdefault(heading, []).append(row)
    whole = sides["test"]["auroc"]
    drawing = figures.forest(groups, whole["value"], "AUROC on test, 95 % interval")
    return _svg(drawing, f"AUROC of {model} by subgroup, all test images: {tables.tell(whole)}.")


def panels(model: str, cam: Mapping[str, Any], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Per outcome the panels of a model, with pictures."""
    told: dict[str, list[dict[str, Any]]] = {outcome: [] for outcome in OUTCOMES}
    for panel in cam["panels"]:
        boxes = f"{panel['boxes']} boxes" if panel["boxes"] != 1 else "1 box"
        alternative = (
            f"{panel['outcome'].capitalize()}: image {panel['image_id']} with {boxes}, and the "
            f"map of {model}, probability {panel['probability']:.2f}."
        )
        data = (folder / panel["file"]).read_bytes()
        told[panel["outcome"]].append(dict(panel) | {"picture": _png(data, alternative)})
    return told


def samples(images: NDArray[np.uint8], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Sample images with captions; `rows` has image_id, target, class and view of each."""
    told = []
    for image, row in zip(images, rows.to_dict("records"), strict=True):
        kind = row["class"] if isinstance(row["class"], str) else None
        kind = kind or ("Lung Opacity" if row["target"] else "no lung opacity")
        view = row["view"] if isinstance(row["view"], str) else "view not stated"
        caption = f"{kind}, {view}"
        picture = _png(figures.image_png(image), f"Image {row['image_id']}: {caption}.")
        told.append({"caption": caption, "picture": picture, "image_id": row["image_id"]})
    return told


def sheet(images: NDArray[np.uint8], columns: int, most_bytes: int) -> Picture:
    """Several images as one picture, row after row, reduced until it is small enough.

    Args:
        images: (n, side, side); those that fill no whole row leave their places white.
        columns: images in a row.
        most_bytes: of the picture; a pixel an image is as far as it is reduced.
    """
    side = images.shape[-1]
    reduction = -(-side // SHEET_TILE)
    while True:
        drawing = figures.image_png(_tiled(_reduced(images, reduction), columns))
        picture = _png(drawing, f"{len(images)} stored images.")
        if picture.size <= most_bytes or reduction >= side:
            return picture
        reduction += 1


def errors(images: NDArray[np.uint8], rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Per kind of error its films, as `samples` gives them, with the probability in the caption."""
    told: dict[str, list[dict[str, Any]]] = {}
    films = samples(images, rows)
    for film, row in zip(films, rows.to_dict("records"), strict=True):
        caption = f"probability {row['probability']:.3f}; {film['caption']}"
        told.setdefault(row["outcome"], []).append(film | {"caption": caption})
    return told


def _reliability(
    probability: NDArray[np.float64], target: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean probability and observed share of positives, per bin of equal mass."""
    bins = reliability(probability, target, np.clip(len(target) // MIN_BIN, 3, 15).item())
    return bins.probability, bins.observed


def _reduced(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Images (n, side, side) by the mean of squares of `factor` pixels; what is over is cut off."""
    n, side = len(images), images.shape[-1] // factor
    whole = images[:, : side * factor, : side * factor]
    means = whole.reshape(n, side, factor, side, factor).mean((2, 4))
    reduced: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return reduced


def _tiled(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Images (n, side, side) beside and below each other, each with a white line around it."""
    rows = -(-len(images) // columns)
    missing = rows * columns - len(images)
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=255)
    filled = np.pad(framed, ((0, missing), (0, 0), (0, 0)), constant_values=255)
    side = filled.shape[-1]
    placed = filled.reshape(rows, columns, side, side).transpose(0, 2, 1, 3)
    return placed.reshape(rows * side, columns * side)


def _ends(figure: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    return figure["value"], figure["low"], figure["high"]


def _svg(data: bytes, alternative: str) -> Picture:
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}", alternative)


def _embedded(data: bytes, alternative: str, form: figures.Form) -> Picture:
    return _svg(data, alternative) if form == "svg" else _png(data, alternative)


def _png(data: bytes, alternative: str) -> Picture:
    return Picture(f"data:image/png;base64,{base64.b64encode(data).decode()}", alternative)
