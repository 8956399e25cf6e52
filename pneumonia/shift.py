"""An external test in words: what moved between the home test side and the other data set.

In: an external test's `evaluation.json`. Out: sentences and a small table of text.
"""

from collections.abc import Mapping
from typing import Any

from pneumonia.tables import Evaluation, Table, count, tell, unit

SHIFT_NAMES = {
    "prevalence": "prevalence",
    "calibration_in_the_large": "mean probability less prevalence (ideal 0)",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "PPV",
    "calibration_slope": "calibration slope (ideal 1)",
    "calibration_intercept": "calibration intercept (ideal 0)",
    "log_loss": "log loss",
    "brier": "Brier score",
}


def shift_table(evaluation: Evaluation) -> Table:
    """Home test side and the other data set beside each other."""
    shift = evaluation["external"]["shift"]
    return [
        {
            "figure": label,
            "home test": tell(shift["home"][name]),
            "here": tell(shift["here"][name]),
            "here less home": tell(shift["difference"][name], signed=True),
        }
        for name, label in SHIFT_NAMES.items()
    ]


def external_headline(evaluation: Evaluation) -> str:
    """The answer of an external test in one sentence."""
    external = evaluation["external"]
    shift = external["shift"]
    told = (
        f"External test of {external['model']} from run {external['run']}, frozen, on "
        f"{external['data']}: on {count(evaluation['data'], unit(evaluation))}, the AUROC of lung "
        f"opacity against everything else is {tell(shift['here']['auroc'])}"
    )
    if shift["home"]["n"]:
        told += f"; on the test side of its own run it is {tell(shift['home']['auroc'])}"
    return f"{told}."


def nothing_fitted_here(evaluation: Evaluation) -> list[str]:
    """Why the figures are of a model that had no part in these images."""
    left_out = evaluation["data"]["left_out"]
    told = [
        f"Weights, calibration and thresholds are those of run {evaluation['external']['run']}, "
        "unchanged: nothing was fitted or chosen on these images.",
        "No image here has the pixels or the name of one of that run, on any side",
    ]
    if any(left_out.values()):
        told[1] += (
            f"; left out for that: {left_out['same_pixels']:,} for their pixels, "
            f"{left_out['same_name']:,} more for their name"
        )
    told[1] += "."
    return told


def unknown_of_people(evaluation: Evaluation) -> list[str]:
    """What comparing images does not tell of people."""
    told = [_known_at_home(evaluation)]
    if unit(evaluation) == "images":
        told.append(
            "Who is who is not known here: each image counts as a person, and intervals over "
            "images are too narrow where people have several."
        )
    return told


def _known_at_home(evaluation: Evaluation) -> str:
    """Who here may be known to the model, as far as names tell."""
    shared = evaluation["data"]["people_of_home"]
    if shared is None:
        return (
            "Images were compared with those of the home run, people could not be: whoever was "
            "examined at both places may be known to the model."
        )
    if not shared["people"]:
        return (
            "Nobody here has the name of a person of the home run. Two hospitals name people "
            "differently, so whoever was examined at both may still be known to the model."
        )
    return (
        f"{told_of_shared(shared)} the name of a person of the home run. Hospitals may number "
        "people alike; but if they are the same people, the model knows them and the figures "
        "flatter. Find out which, and leave them out if they are."
    )


def told_of_shared(shared: Mapping[str, Any]) -> str:
    """How many people, of how many images, share a name with the home run.

    >>> told_of_shared({"people": 1, "images": 3, "sides": {"train": 1, "val": 0, "test": 0}})
    '1 person here (3 images; at home train 1, val 0, test 0) has'
    """
    one = shared["people"] == 1
    images = f"{shared['images']:,} image{'' if shared['images'] == 1 else 's'}"
    sides = ", ".join(f"{side} {count:,}" for side, count in shared["sides"].items())
    whom = f"{shared['people']:,} {'person' if one else 'people'} here"
    return f"{whom} ({images}; at home {sides}) {'has' if one else 'have'}"


def calibration_fits(evaluation: Evaluation) -> bool:
    """Whether slope, intercept and level may be ideal; not so where that is not known.

    Slope and intercept are of one fit, so a wrong level alone can hide between them: it is looked
    at by itself.
    """
    here = evaluation["external"]["shift"]["here"]
    ideals = (
        ("calibration_slope", 1),
        ("calibration_intercept", 0),
        ("calibration_in_the_large", 0),
    )
    return all(
        here[name]["low"] is not None and here[name]["low"] <= ideal <= here[name]["high"]
        for name, ideal in ideals
    )


def told_of_calibration(evaluation: Evaluation) -> str:
    """Whether the home calibration fits the other data set, with slope and intercept."""
    here = evaluation["external"]["shift"]["here"]
    slope, intercept = here["calibration_slope"], here["calibration_intercept"]
    figures = (
        f"slope {tell(slope)}, ideally 1; intercept {tell(intercept)}, ideally 0; mean probability "
        f"less prevalence {tell(here['calibration_in_the_large'], signed=True)}, ideally 0."
    )
    if slope["low"] is None or intercept["low"] is None:
        return f"Whether the home calibration fits here is not shown: {figures}"
    if calibration_fits(evaluation):
        return (
            "These images do not show that the home calibration is wrong here, which is no proof "
            f"that it is right: {figures}"
        )
    return (
        f"The home calibration does not fit here: {figures} A probability is not what it says, "
        "and a threshold need not give the sensitivity that it gave at home."
    )
