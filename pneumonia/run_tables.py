"""A comparison of runs as tables and sentences: for the console and for the page.

In: what `run_comparison.compare_runs` gives. Out: lists of plain dictionaries whose keys are the
headings, and sentences. Only an interval of a paired difference decides what is more than noise:
whether the intervals of two runs overlap is no test.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pneumonia.tables import FIGURE_NAMES, POINT_NAMES, Table, count, p_value, tell, value

Comparison = Mapping[str, Any]
Pair = Mapping[str, Any]

RATE_NAMES = {"recall": "sensitivity", "specificity": "specificity"}
HIGHER_IS_BETTER = {"auroc": True, "average_precision": True, "log_loss": False, "brier": False}
"""Rates are not among them: sensitivity is bought with specificity."""


def run_table(comparison: Comparison) -> Table:
    """A row per run and model: its figures on its own test side."""
    return [
        {
            "run": row["run"],
            "model": row["model"],
            "images": f"{row['images']:,}",
            "people": f"{row['people']:,}" if row["grouping"] == "person" else "not known",
            "positive": f"{row['positives']:,}",
            "AUROC": tell(row["auroc"]),
            "average precision": value(row["average_precision"]),
            "log loss": value(row["log_loss"]),
            "Brier score": value(row["brier"]),
            "sensitivity": value(row["recall"]),
            "specificity": value(row["specificity"]),
            "PPV": value(row["precision"]),
            "accuracy": value(row["accuracy"]),
        }
        for row in comparison["runs"]
    ]


def point_table(comparison: Comparison) -> Table:
    """Where each model's probability becomes a call."""
    return [
        {
            "run": row["run"],
            "model": row["model"],
            "operating point": POINT_NAMES.get(row["operating_point"], row["operating_point"]),
            "threshold": f"{row['threshold']:.3f}",
        }
        for row in comparison["runs"]
    ]


def difference_table(comparison: Comparison, pair: Pair) -> Table:
    """Both runs' figures on the common images, their paired differences and a verdict each."""
    names = (comparison["reference"], pair["run"])
    return [
        {
            "model": model,
            "figure": figure_name(entry["figure"]),
            **{name: value(compared["blocks"][name][entry["figure"]]) for name in names},
            "difference": tell(entry["difference"], signed=True),
            "p": p_value(entry["p"]),
            "p, Obuchowski": p_value((entry["check"] or {}).get("p")),
            "verdict": verdict(entry),
        }
        for model, compared in pair["models"].items()
        for entry in compared["differences"]
    ]


def change_table(pair: Pair) -> Table:
    """What differs between two runs, settings before data."""
    rows = [
        {"what": stage, "difference": "; ".join(told) or "made anew from the same"}
        for stage, told in pair["settings"].items()
    ]
    data = "; ".join(pair["data"]) or "the same images, sides, labels, boxes and people"
    return [*rows, {"what": "data", "difference": data}]


def verdict(entry: Mapping[str, Any]) -> str:
    """Whether a difference is more than the chance of who is in test, as a sentence.

    Args:
        entry: a paired difference a - b, and whether both gave the very same answers.

    >>> moved = {"value": 0.02, "low": 0.01, "high": 0.03, "reason": None}
    >>> entry = {"a": "new", "b": "main", "figure": "log_loss", "difference": moved}
    >>> verdict(entry | {"same_answers": False})
    'More than noise: worse in new.'
    """
    difference = entry["difference"]
    if difference["value"] is None:
        return f"Undefined: {difference['reason']}."
    if entry["same_answers"]:
        what = "calls" if entry["figure"] in RATE_NAMES else "probabilities"
        return f"Not moved: the same {what}."
    if difference["low"] is None:
        return f"{str(difference['reason']).capitalize()}."
    if not is_more_than_noise(difference):
        return "Not shown to be more than noise."
    risen = difference["value"] > 0
    better = HIGHER_IS_BETTER.get(entry["figure"])
    words = ("higher", "lower") if better is None else ("better", "worse")
    return f"More than noise: {words[risen != (better is not False)]} in {entry['a']}."


def is_more_than_noise(difference: Mapping[str, Any]) -> bool:
    """Whether a paired difference has an interval and that excludes 0."""
    return difference["low"] is not None and not difference["low"] <= 0 <= difference["high"]


def pair_headline(comparison: Comparison, pair: Pair) -> str:
    """The answer for two runs in a few sentences: what moved, model by model."""
    facts = pair["common"]
    where = count({"images": facts["compared"], **facts}, facts["unit"])
    told = [f"{pair['run']} less {comparison['reference']}, on {where} that both have in test."]
    told += [_moved(model, compared["differences"]) for model, compared in pair["models"].items()]
    if not pair["models"]:
        told.append("They share no model.")
    everything = [e for compared in pair["models"].values() for e in compared["differences"]]
    if everything and all(entry["same_answers"] for entry in everything) and pair["data"]:
        told.append("Where figures of the own test sides differ, it is the data that moved them.")
    return " ".join(told)


def _moved(model: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """What moved of one model, in one sentence."""
    if all(entry["same_answers"] for entry in entries):
        return f"{model} gives the same answers in both."
    area = next(entry for entry in entries if entry["figure"] == "auroc")
    told = "AUROC " + tell(area["difference"], signed=True)
    if area["same_answers"]:
        told = "the same AUROC"
    moved = [
        figure_name(entry["figure"]) for entry in entries if is_more_than_noise(entry["difference"])
    ]
    which = f"more than noise in {', '.join(moved)}" if moved else "no figure moved beyond noise"
    return f"{model}: {told}; {which}."


def common_sentences(comparison: Comparison, pair: Pair) -> list[str]:
    """Which test images are compared, which are left out and why, and who is resampled."""
    facts, names = pair["common"], (comparison["reference"], pair["run"])
    told = [
        f"Compared: {facts['compared']:,} of {facts['test_in_both']:,} images that are in test in "
        f"both, {facts['positives']:,} positive.",
        *_left_out(facts, names),
    ]
    if facts["person_differs"]:
        told.append(
            f"{facts['person_differs']:,} of the images in test in both belong to another person "
            f"in {names[1]}: people are those of {names[0]}."
        )
    for name, models in pair["models_of_one"].items():
        if models:
            told.append(f"Not compared: {', '.join(models)}, only in {name}.")
    if facts["unit"] == "people":
        whose = "" if facts["people_of"] == names[0] else f" ({facts['people_of']} knows them)"
        return [*told, f"Intervals are 95 %, from resampling people{whose}."]
    return [
        *told,
        "Who is who is not known: intervals are 95 % over images, and too narrow where people "
        "have several.",
    ]


def _left_out(facts: Mapping[str, Any], names: tuple[str, str]) -> Iterator[str]:
    if facts["labels_differ"]:
        yield f"Left out: {facts['labels_differ']:,} whose label differs between the runs."
    for name, other in (names, names[::-1]):
        if learned := facts["person_learned_by"][name]:
            yield (
                f"Warning, left out: {learned:,} whose person stands in train or val of {name}, "
                f"whose figures they would flatter."
            )
        if learned := facts["image_learned_by"][name]:
            yield (
                f"Warning, left out: {learned:,} test images of {other} that stand in train or "
                f"val of {name}, whose figures they would flatter."
            )
        if only := facts["only_in"][name]:
            yield f"Left out: {only:,} test images of {name} that {other} does not have."


def cautions(comparison: Comparison) -> list[str]:
    """What a comparison does not say."""
    told = sum(
        len(compared["differences"])
        for pair in comparison["pairs"]
        for compared in pair["models"].values()
    )
    simulated = list(dict.fromkeys(row["run"] for row in comparison["runs"] if row["simulated"]))
    return [
        *(
            f"The images of {run} are simulated: no figure of it says anything about patients."
            for run in simulated
        ),
        f"Every look at test uses it up: of {told:,} differences with 95 % intervals one in "
        "twenty is expected to pass for more than noise where nothing has changed, and a run that "
        "is chosen by its figures on test has no test left.",
        "Noise is the chance of who is in test. That of a training is not in it: the same "
        "settings with another training.seed move the figures too.",
        "Two intervals of the first table that overlap, or do not, are no test: read the "
        "differences.",
    ]


def figure_name(figure: str) -> str:
    """A figure in words.

    >>> figure_name("recall")
    'sensitivity'
    """
    return {**FIGURE_NAMES, **RATE_NAMES}[figure]
