"""The evaluation in sentences: what was found, what supports it, what to keep in mind.

In: `evaluation.json`, and for the maps each model's `cam.json`. Out: text, plain or Markdown.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pneumonia.markdown import markdown_table
from pneumonia.shift import (
    calibration_fits,
    external_headline,
    nothing_fitted_here,
    told_of_calibration,
    unknown_of_people,
)
from pneumonia.tables import (
    Evaluation,
    answer_table,
    count,
    has_intervals,
    percent,
    tell,
    unit,
)

Cams = Mapping[str, Mapping[str, Any]]
"""Per model the content of `cam.json`."""

_NO_CAMS: Cams = MappingProxyType({})


def headline(evaluation: Evaluation) -> str:
    """The answer in one sentence."""
    beside = _beside(evaluation)
    if "external" in evaluation:
        return f"{external_headline(evaluation)}{beside}"
    side = evaluation["data"]["sides"]["test"]
    if not side["images"]:
        return "There is no test side: nothing here says how good the models are on new people."
    told = [
        f"{tell(sides['test']['auroc'])} for {model}"
        for model, sides in evaluation["models"].items()
    ]
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
    told = nothing_fitted_here(evaluation) if external else _sides_kept_apart(evaluation)
    if has_intervals(evaluation):
        whom = "people, not images" if unit(evaluation) == "people" else "images"
        told.append(f"Intervals are 95 %, from resampling {whom}.")
    told += [line for shown, line in _beside_metadata(evaluation) if shown]
    return told


def reasons_for_caution(evaluation: Evaluation, cams: Cams = _NO_CAMS) -> list[str]:
    """What the figures and the maps do not say."""
    data, whom = evaluation["data"], unit(evaluation)
    external = "external" in evaluation
    told = unknown_of_people(evaluation) if external else _split_by_image(evaluation)
    if external:  # not shown to be wrong is no support, so it stands here in any case
        told.insert(
            len(told) if calibration_fits(evaluation) else 0, told_of_calibration(evaluation)
        )
    if external and evaluation["external"].get("home_simulated"):
        told.insert(0, "The model learned from simulated images.")
    if data.get("simulated"):
        told.insert(0, "The images are simulated: no figure here says anything about patients.")
    told += [line for shown, line in _beside_metadata(evaluation) if not shown]
    twice = data.get("duplicates", {}).get("images", {}).get("test", 0)
    if twice:
        told.append(
            f"{twice:,} test {'image shows' if twice == 1 else 'images show'} the same film as one "
            "of train or val under another name: what was learned from it flatters there."
        )
    told += [
        f"Do not read the maps of {model}: with random weights they are as similar to the trained "
        "maps as maps of different images are, so they need not show what was learnt."
        for model, cam in cams.items()
        if cam["sanity"]["passed"] is False
    ]
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
    if external:
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


def summary_markdown(evaluation: Evaluation, cams: Cams = _NO_CAMS) -> str:
    """The first screen of the report as Markdown."""
    return "\n\n".join(
        [
            "# Lung opacity on chest radiographs",
            headline(evaluation),
            markdown_table(answer_table(evaluation)),
            "**What supports this**\n\n" + _bullets(reasons_to_trust(evaluation)),
            "**What to keep in mind**\n\n" + _bullets(reasons_for_caution(evaluation, cams)),
            "Research software, not a medical device.",
        ]
    )


def _beside(evaluation: Evaluation) -> str:
    """What the metadata alone reach, as a further sentence, where that is known."""
    control = evaluation["controls"]["metadata_only"]["test"]["auroc"]
    if control["value"] is None:
        return ""
    return f" View, sex, age and pixel spacing alone reach {tell(control)}."


def _beside_metadata(evaluation: Evaluation) -> Iterator[tuple[bool, str]]:
    """Whether an interval shows a model to be more than the metadata, and a sentence on it.

    Of an external test also whether the model, frozen, ranks better than the frozen control.
    """
    for entry in evaluation["comparisons"]:
        if entry["b"] != "metadata_only":
            continue
        model, low = entry["a"].removeprefix("metadata_only + "), entry["difference"]["low"]
        shown, by = low is not None and low > 0, tell(entry["difference"], signed=True)
        if entry["a"] == model:
            if "external" in evaluation:
                told = (
                    f"{model} ranks these images better than the metadata alone do"
                    if shown
                    else f"That {model} ranks these images better than the metadata alone do is "
                    "not shown"
                )
                yield shown, f"{told}: {by} in AUROC, in pairs."
        elif shown:
            told = f"{model} raises the AUROC of the metadata by {by}"
            yield shown, f"The image adds to the metadata: {told}."
        else:
            told = f"That the image adds anything to the metadata is not shown for {model}"
            yield shown, f"{told}: {by} in AUROC."


def _sides_kept_apart(evaluation: Evaluation) -> list[str]:
    data, told = evaluation["data"], []
    if data.get("grouping") == "person":
        leak = (data.get("leak_if_split_by_image") or {}).get("test")
        would = (
            f" Split by image, {percent(leak, 0)} of the test images would show a person of train."
            if leak is not None
            else ""
        )
        whom = "person that the map names" if data.get("unmapped_images") else "person"
        told.append(f"No {whom} stands on two sides.{would}")
    frozen = "Calibration and thresholds were chosen on val and frozen"
    tested = data["sides"]["test"]["images"] > 0
    told.append(f"{frozen}; the figures here are of test." if tested else f"{frozen}.")
    return told


def _split_by_image(evaluation: Evaluation) -> list[str]:
    if unit(evaluation) == "people":
        return []
    leak = (evaluation["data"].get("leak_if_split_by_image") or {}).get("test")
    seen = "" if leak is None else f" {percent(leak, 0)} of the test images show one of train."
    return [
        "The split is by image: a person may stand on two sides, every figure may flatter, "
        f"and intervals over images are too narrow where people have several.{seen}"
    ]


def _listed(items: Sequence[str]) -> str:
    return " and ".join(", ".join(items).rsplit(", ", 1))


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
