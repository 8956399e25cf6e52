"""The evaluation in sentences: what was found, what supports it, what to keep in mind.

In: `evaluation.json`. Out: text, plain or Markdown.
"""

from collections.abc import Sequence

from pneumonia.tables import (
    Evaluation,
    Table,
    answer_table,
    count,
    has_intervals,
    percent,
    tell,
    unit,
)


def headline(evaluation: Evaluation) -> str:
    """The answer in one sentence."""
    if "external" in evaluation:
        return _external_headline(evaluation)
    side = evaluation["data"]["sides"]["test"]
    if not side["images"]:
        return "There is no test side: nothing here says how good the models are on new people."
    told = [
        f"{tell(sides['test']['auroc'])} for {model}"
        for model, sides in evaluation["models"].items()
    ]
    beside = _beside(evaluation, "")
    whom = "the models had not seen"
    if unit(evaluation) == "images":
        whom = "of people of whom the models may have seen other images"
    return (
        f"On {count(side, unit(evaluation))} {whom}, the AUROC of lung opacity "
        f"against everything else is {_listed(told)}.{beside}"
    )


def reasons_to_trust(evaluation: Evaluation) -> list[str]:
    """What was done so that the figures mean something."""
    external = "external" in evaluation
    told = _nothing_fitted_here(evaluation) if external else _sides_kept_apart(evaluation)
    if has_intervals(evaluation):
        whom = "people, not images" if unit(evaluation) == "people" else "images"
        told.append(f"Intervals are 95 %, from resampling {whom}.")
    for entry in evaluation["comparisons"]:
        low = entry["difference"]["low"]
        if entry["b"] == "metadata_only" and low is not None and low > 0:
            model = entry["a"].removeprefix("metadata_only + ")
            told.append(
                f"The image adds to the header: {model} raises the AUROC of the metadata by "
                f"{tell(entry['difference'], signed=True)}."
            )
    told += [sentence for fits, sentence in _calibration(evaluation) if fits]
    return told


def reasons_for_caution(evaluation: Evaluation) -> list[str]:
    """What the figures do not say."""
    data, whom = evaluation["data"], unit(evaluation)
    told = [sentence for fits, sentence in _calibration(evaluation) if not fits]
    told += _of_people(evaluation)
    for entry in evaluation["comparisons"]:
        low = entry["difference"]["low"]
        if entry["b"] == "metadata_only" and (low is None or low <= 0):
            model = entry["a"].removeprefix("metadata_only + ")
            told.append(
                f"That the image adds anything to the header is not shown for {model}: "
                f"{tell(entry['difference'], signed=True)} in AUROC."
            )
    told.append(
        "The target is lung opacity as readers marked it, not pneumonia as diagnosed in a patient."
    )
    told.append(
        f"Positives are {percent(data['prevalence'])} of these images. Where they are rarer, a "
        "positive call is wrong more often: see PPV at other prevalences."
    )
    people = data["sides"]["test"][whom]
    if 0 < people < 200:
        intervals = "read the intervals" if has_intervals(evaluation) else "there is no interval"
        told.append(f"The test side is small ({people:,} {whom}): {intervals}.")
    if "external" in evaluation:
        told.append(
            "The figures are of this checkpoint on this sample. One other data set does not speak "
            "for the next hospital, device or year; and a test that is repeated is used up."
        )
    else:
        told.append(
            "The figures are of these checkpoints on this sample, not of the architectures, and "
            "no other hospital has been tried. Figures on val are optimistic."
        )
    return told


def summary_markdown(evaluation: Evaluation) -> str:
    """The first screen of the report as Markdown."""
    return "\n\n".join(
        [
            "# Lung opacity on chest radiographs",
            headline(evaluation),
            markdown_table(answer_table(evaluation)),
            "**What supports this**\n\n" + _bullets(reasons_to_trust(evaluation)),
            "**What to keep in mind**\n\n" + _bullets(reasons_for_caution(evaluation)),
            "Research software, not a medical device.",
        ]
    )


def markdown_table(rows: Table) -> str:
    """A table as Markdown; cells keep to themselves whatever they hold."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _external_headline(evaluation: Evaluation) -> str:
    external = evaluation["external"]
    shift = external["shift"]
    told = (
        f"External test of {external['model']} from run {external['run']}, frozen, on "
        f"{external['data']}: on {count(evaluation['data'], unit(evaluation))}, the AUROC of lung "
        f"opacity against everything else is {tell(shift['here']['auroc'])}"
    )
    if shift["home"]["n"]:
        told += f"; on the test side of its own run it is {tell(shift['home']['auroc'])}"
    return f"{told}.{_beside(evaluation, ', weighed as at home,')}"


def _beside(evaluation: Evaluation, how: str) -> str:
    """What the header alone reaches, as a further sentence, where that is known."""
    control = evaluation["controls"]["metadata_only"]["test"]["auroc"]
    if control["value"] is None:
        return ""
    return f" View, sex, age and pixel spacing alone{how} reach {tell(control)}."


def _sides_kept_apart(evaluation: Evaluation) -> list[str]:
    data, told = evaluation["data"], []
    if data.get("grouping") == "person":
        leak = (data.get("leak_if_split_by_image") or {}).get("test")
        would = (
            f" Split by image, {percent(leak, 0)} of the test images would show a person of train."
            if leak is not None
            else ""
        )
        told.append(f"No person stands on two sides.{would}")
    frozen = "Calibration and thresholds were chosen on val and frozen"
    tested = data["sides"]["test"]["images"] > 0
    told.append(f"{frozen}; the figures here are of test." if tested else f"{frozen}.")
    return told


def _nothing_fitted_here(evaluation: Evaluation) -> list[str]:
    left_out = evaluation["data"]["left_out"]
    told = [
        f"Weights, calibration and thresholds are those of run {evaluation['external']['run']}, "
        "unchanged: nothing was fitted or chosen on these images.",
        "No image here has the pixels or the name of one that the model was trained or tuned on",
    ]
    if any(left_out.values()):
        told[1] += (
            f"; left out for that: {left_out['same_pixels']:,} for their pixels, "
            f"{left_out['same_name']:,} more for their name"
        )
    told[1] += "."
    return told


def _of_people(evaluation: Evaluation) -> list[str]:
    """What is not known of people, or leaks through them."""
    if "external" in evaluation:
        told = [
            "Images were compared with those of the home run, people could not be: whoever was "
            "examined at both places may be known to the model."
        ]
        if unit(evaluation) == "images":
            told.append(
                "Who is who is not known here: each image counts as a person, and intervals over "
                "images are too narrow where people have several."
            )
        return told
    if unit(evaluation) == "people":
        return []
    leak = (evaluation["data"].get("leak_if_split_by_image") or {}).get("test")
    seen = "" if leak is None else f" {percent(leak, 0)} of the test images show one of train."
    return [
        "The split is by image: a person may stand on two sides, every figure may flatter, "
        f"and intervals over images are too narrow where people have several.{seen}"
    ]


def _calibration(evaluation: Evaluation) -> list[tuple[bool, str]]:
    """Whether the home calibration fits the other data set, and the sentence; or nothing."""
    if "external" not in evaluation:
        return []
    here = evaluation["external"]["shift"]["here"]
    slope, intercept = here["calibration_slope"], here["calibration_intercept"]
    if slope["low"] is None or intercept["low"] is None:
        return [(False, "Whether the home calibration fits here is not shown.")]
    figures = f"slope {tell(slope)}, ideally 1; intercept {tell(intercept)}, ideally 0."
    if slope["low"] <= 1 <= slope["high"] and intercept["low"] <= 0 <= intercept["high"]:
        return [(True, f"Nothing speaks against the home calibration here: {figures}")]
    return [
        (
            False,
            f"The home calibration does not fit here: {figures} A probability is not what it "
            "says, and thresholds cut elsewhere than they did: calibrate anew before any use.",
        )
    ]


def _listed(items: Sequence[str]) -> str:
    return " and ".join(", ".join(items).rsplit(", ", 1))


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
