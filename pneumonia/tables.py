"""Every figure of a run as small tables of text: for the report, for Prefect, for Markdown.

In: `evaluation.json` and `cam.json`. Out: lists of plain dictionaries whose keys are the
headings. A figure that is undefined is told with its reason.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Table = list[dict[str, str]]
Evaluation = Mapping[str, Any]

CONTROLS = {"metadata_only": "metadata only", "always_negative": "always negative"}
FIGURE_NAMES = {
    "auroc": "AUROC", "average_precision": "average precision", "log_loss": "log loss",
    "brier": "Brier score",
}  # fmt: skip
POINT_NAMES = {
    "youden": "Youden", "sensitivity_90": "sensitivity 0.90 on val", "p_0.5": "probability 0.5",
}  # fmt: skip
GROUP_NAMES = {
    "view": "view", "sex": "sex", "age": "age, years", "spacing": "pixel spacing",
    "negative_class": "all positives against", "boxes": "area of the boxes",
}  # fmt: skip
MEASURE_NAMES = {
    "pointing": "pointing",
    "iou": "IoU",
    "dice": "Dice",
    "cnr": "CNR",
    "auprc": "AUPRC",
    "energy_in_boxes": "energy in boxes",
}

INTERVAL_DECIDES = (
    "The interval decides: a difference is shown where it excludes 0. p stands beside it for "
    "orientation: the bootstrap's is read off the same resamples and a little larger where they "
    "are few, Obuchowski's, for AUROC, assumes a normal distribution. Near 0.05 they may disagree "
    "with the interval."
)
"""Which of an interval and two p values to believe, for whoever finds them at odds."""


def tell(
    figure: Mapping[str, Any], digits: int = 3, *, signed: bool = False, why: bool = True
) -> str:
    """A figure as text, with its interval, or `why` there is none where one was meant.

    >>> tell({"value": 0.8812, "low": 0.852, "high": 0.9071, "reason": None})
    '0.881 (0.852 to 0.907)'
    >>> tell({"value": None, "low": None, "high": None, "reason": "no image"})
    'undefined: no image'
    >>> tell({"value": 1.0, "low": None, "high": None, "reason": "no interval: 9 to resample"})
    '1.000 (no interval: 9 to resample)'
    """
    if figure["value"] is None:
        reason = str(figure["reason"])
        known = [word for word in ("too small", "not fitted") if reason.startswith(word)]
        return known[0] if known else f"undefined: {reason}"
    form = f"{'+' if signed else ''}.{digits}f"
    if figure["low"] is None:
        told = format(figure["value"], form)
        reason = figure["reason"] if why else figure["reason"] and "no interval"
        return told if reason is None else f"{told} ({reason})"
    low, high = (format(figure[end], form) for end in ("low", "high"))
    return f"{figure['value']:{form}} ({low} to {high})"


def value(figure: Mapping[str, Any], digits: int = 3) -> str:
    """A figure's value alone, a dash where it is undefined.

    >>> value({"value": None, "low": None, "high": None, "reason": "no image"})
    '\N{EN DASH}'
    """
    return "\N{EN DASH}" if figure["value"] is None else f"{figure['value']:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in per cent.

    >>> percent(0.2253)
    '22.5 %'
    """
    return "\N{EN DASH}" if share is None else f"{100 * share:.{digits}f} %"


def blocks(evaluation: Evaluation, side: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and block of every model, then of the controls, that have one on this side."""
    for model, sides in evaluation["models"].items():
        yield model, sides[side]
    for control, name in CONTROLS.items():
        if side in evaluation["controls"][control]:
            yield name, evaluation["controls"][control][side]


def answer_table(evaluation: Evaluation) -> Table:
    """Models and controls on test at the chosen operating point."""
    return [
        {
            "": name,
            "AUROC": tell(block["auroc"]),
            "average precision": tell(block["average_precision"]),
            "sensitivity": tell(block["recall"]),
            "specificity": tell(block["specificity"]),
            "PPV": tell(block["precision"]),
            "accuracy": tell(block["accuracy"]),
        }
        for name, block in blocks(evaluation, "test")
    ]


def operating_table(evaluation: Evaluation) -> Table:
    """Every model at every operating point, on test."""
    return [
        {
            "model": model,
            "operating point": POINT_NAMES.get(name, name),
            "threshold": f"{point['threshold']:.3f}",
            "sensitivity": tell(point["recall"]),
            "specificity": tell(point["specificity"]),
            "PPV": tell(point["precision"]),
            "NPV": tell(point["npv"]),
            "F1": tell(point["f1"]),
            "accuracy": tell(point["accuracy"]),
            "balanced accuracy": tell(point["balanced_accuracy"]),
        }
        for model, sides in evaluation["models"].items()
        for name, point in sides["test"]["operating_points"].items()
    ]


def prevalence_table(evaluation: Evaluation) -> Table:
    """PPV and NPV at the chosen operating point, restated for other prevalences."""
    return [
        {
            "model": model,
            "prevalence": percent(row["prevalence"]),
            "PPV": tell(row["precision"]),
            "NPV": tell(row["npv"]),
        }
        for model, sides in evaluation["models"].items()
        for row in sides["test"]["operating_points"][sides["operating_point"]]["at_prevalence"]
    ]


def calibration_table(evaluation: Evaluation) -> Table:
    """Calibration on test, before and after Platt scaling."""
    return [
        {
            "model": model,
            "slope (ideal 1)": tell(block["calibration_slope"]),
            "intercept (ideal 0)": tell(block["calibration_intercept"]),
            "Brier score": tell(block["brier"]),
            "log loss, before": tell(block["log_loss_uncalibrated"]),
            "after": tell(block["log_loss"]),
            "ECE, before": tell(block["ece_uncalibrated"]),
            "after ": tell(block["ece"]),
        }
        for model, block in (
            (model, sides["test"]) for model, sides in evaluation["models"].items()
        )
    ]


def comparison_table(evaluation: Evaluation) -> Table:
    """Paired differences on test."""
    return [
        {
            "a": entry["a"].replace("metadata_only", "metadata"),
            "less b": entry["b"].replace("metadata_only", "metadata"),
            "figure": FIGURE_NAMES[entry["figure"]],
            "difference": tell(entry["difference"], signed=True),
            "p": p_value(entry["p"]),
            "p, Obuchowski": p_value((entry.get("check") or {}).get("p")),
        }
        for entry in evaluation["comparisons"]
    ]


def subgroup_table(evaluation: Evaluation) -> Table:
    """Every subgroup of test, the models side by side."""
    models = evaluation["models"]
    rows = []
    for groups in zip(*(sides["subgroups"] for sides in models.values()), strict=True):
        first = groups[0]
        row = {
            "group": f"{GROUP_NAMES.get(first['by'], first['by'])}: {first['value']}",
            "images": f"{first['n']:,}",
            "positive": f"{first['positives']:,}",
        }
        for model, group in zip(models, groups, strict=True):
            row[f"{model}: AUROC"] = tell(group["auroc"])
            row[f"{model}: sensitivity"] = tell(group["recall"])
            row[f"{model}: specificity"] = tell(group["specificity"])
        rows.append(row)
    return rows


def cam_table(cams: Mapping[str, Mapping[str, Any]]) -> Table:
    """Agreement of maps and boxes: every model, its control, and the difference.

    A figure that does not stand on all images says on how many.
    """
    rows = []
    for model, cam in cams.items():
        for name, part, signed in (
            (model, cam, False),
            ("constant map", cam["constant_map"], False),
            ("difference", cam["difference"], True),
        ):
            told = {
                label: tell(part[measure], signed=signed) + _on_part(cam, measure)
                for measure, label in MEASURE_NAMES.items()
            }
            rows.append({"map": name, **told})
    return rows


def _on_part(cam: Mapping[str, Any], measure: str) -> str:
    defined, n = cam["defined"][measure], cam["n"]
    return "" if defined in {0, n} else f", defined on {defined:,} of {n:,}"


def sanity_table(cams: Mapping[str, Mapping[str, Any]]) -> Table:
    """Similarity to the trained maps as weights become random, stage after stage."""
    checks = {model: cam["sanity"] for model, cam in cams.items()}
    names = dict.fromkeys(
        layer["randomised"] for check in checks.values() for layer in check["layers"]
    )
    rows = []
    for model, check in checks.items():
        told = {layer["randomised"]: f"{layer['ssim']:.3f}" for layer in check["layers"]}
        pairs, verdict = check["random_pairs"], {True: "yes", False: "no"}.get(check["passed"])
        row = {"maps of": model}
        row |= {f"random to {name}": told.get(name, "\N{EN DASH}") for name in names}
        row["different images"] = "\N{EN DASH}" if pairs is None else f"{pairs:.3f}"
        row["falls below"] = verdict or f"undefined: {check['reason']}"
        rows.append(row)
    return rows


def unit(evaluation: Evaluation) -> str:
    """What was dealt to the sides and is resampled: people, or images where it is by image."""
    return "images" if evaluation["data"].get("grouping") == "image" else "people"


def has_intervals(evaluation: Evaluation) -> bool:
    """Whether the AUROC of any model on test has an interval."""
    blocks = (sides["test"] for sides in evaluation["models"].values())
    return any(block["auroc"]["low"] is not None for block in blocks)


def count(counted: Mapping[str, Any], whom: str) -> str:
    """How many images, and of how many people where those are known.

    >>> count({"images": 1200, "people": 900}, "people")
    '1,200 images of 900 people'
    >>> count({"images": 1200, "people": 1200}, "images")
    '1,200 images'
    """
    images = f"{counted['images']:,} images"
    return images if whom == "images" else f"{images} of {counted['people']:,} people"


def data_table(evaluation: Evaluation) -> Table:
    """Images, people and positives of each side; no people where the split is by image."""
    by_person = unit(evaluation) == "people"
    return [
        {
            "side": side,
            "images": f"{counted['images']:,}",
            **({"people": f"{counted['people']:,}"} if by_person else {}),
            "positive": f"{counted['positives']:,}",
            "prevalence": percent(counted["positives"] / counted["images"])
            if counted["images"]
            else "\N{EN DASH}",
        }
        for side, counted in _sides(evaluation).items()
    ]


def _sides(evaluation: Evaluation) -> Mapping[str, Mapping[str, int]]:
    """Counts per side; of an external test those of the home run too, named as such."""
    sides: Mapping[str, Mapping[str, int]] = evaluation["data"]["sides"]
    if "external" not in evaluation:
        return sides
    home = evaluation["external"]["shift"]["home"]
    return {
        "home train": sides["train"],
        "home val": sides["val"],
        "home test": {**home, "images": home["n"]},
        "test: the other data": sides["test"],
    }


def p_value(p: float | None) -> str:
    """A p value as one writes it.

    >>> p_value(0.00021), p_value(0.042), p_value(None)
    ('< 0.001', '0.042', '\N{EN DASH}')
    """
    if p is None:
        return "\N{EN DASH}"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duplicate_table(pairs: Iterable[Mapping[Any, Any]]) -> Table:
    """Pairs of one film under two names: rows of `duplicates.find_duplicates`."""
    return [
        {
            "image": str(row["image_id"]),
            "side": str(row["split"]),
            "is": "equal to" if row["kind"] == "exact" else "nearly",
            "image ": str(row["other_id"]),
            "side ": str(row["other_split"]),
        }
        for row in pairs
    ]
