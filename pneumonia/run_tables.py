"""A comparison of runs as tables and sentences: for the console and for the page.

In: what `run_comparison.compare_runs` gives. Out: lists of plain dictionaries whose keys are the
headings, and sentences. Only the interval of a paired difference decides whether one is named:
whether the intervals of two runs overlap is no test. It covers the chance of which people are in
the test sample, not the randomness of training.
"""

from collections.abc import Iterator, Mapping
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
            "difference": tell(entry["difference"], signed=True, why=False),  # the verdict says it
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
    """Which run a figure speaks for, as a sentence; none where the interval holds 0.

    Args:
        entry: a paired difference a - b, and whether both gave the very same answers.

    >>> moved = {"value": 0.02, "low": 0.01, "high": 0.03, "reason": None}
    >>> entry = {"a": "new", "b": "main", "figure": "log_loss", "difference": moved}
    >>> verdict(entry | {"same_answers": False})
    'main is better: lower log loss.'
    """
    difference = entry["difference"]
    if difference["value"] is None:
        return f"Undefined: {difference['reason']}."
    if entry["same_answers"]:
        what = "calls" if entry["figure"] in RATE_NAMES else "probabilities"
        return f"Not moved: the same {what}."
    if difference["low"] is None:
        return f"{str(difference['reason']).capitalize()}."
    if not is_shown(difference):
        return "Not shown to differ."
    run, what = _ahead(entry), figure_name(entry["figure"])
    if entry["figure"] in RATE_NAMES:
        return f"{run} has the higher {what}."
    return f"{run} is better: {'higher' if HIGHER_IS_BETTER[entry['figure']] else 'lower'} {what}."


def is_shown(difference: Mapping[str, Any]) -> bool:
    """Whether a paired difference has an interval and that excludes 0."""
    return difference["low"] is not None and not difference["low"] <= 0 <= difference["high"]


def _ahead(entry: Mapping[str, Any]) -> str:
    """The run with the better figure, or with the higher one where neither is better."""
    risen = entry["difference"]["value"] > 0
    return str(entry["a" if risen == HIGHER_IS_BETTER.get(entry["figure"], True) else "b"])


def pair_headline(comparison: Comparison, pair: Pair) -> list[str]:
    """The answer for two runs in sentences: what is compared, and what moved, model by model."""
    facts = pair["common"]
    where = count({"images": facts["compared"], **facts}, facts["unit"])
    names = pair["run"], comparison["reference"]
    told = [
        f"{names[0]} against {names[1]} on {where} that both have in test; differences are "
        f"{names[0]} less {names[1]}."
    ]
    told += [_moved(comparison, pair, model) for model in pair["models"]]
    if not pair["models"]:
        told.append("They share no model.")
    everything = [e for compared in pair["models"].values() for e in compared["differences"]]
    if not all(entry["same_answers"] for entry in everything):
        told.append(
            f"A run is named where its figure differs beyond the chance of which {facts['unit']} "
            "are in the test sample; the randomness of training is not in that."
        )
    elif everything and pair["data"]:
        told.append("Where figures of the own test sides differ, it is the data that moved them.")
    return told


def _moved(comparison: Comparison, pair: Pair, model: str) -> str:
    """What moved of one model and for which run it speaks, in a sentence or two."""
    entries = pair["models"][model]["differences"]
    if all(entry["same_answers"] for entry in entries):
        return f"{model} gives the same answers in both."
    area = next(entry for entry in entries if entry["figure"] == "auroc")
    told = "AUROC " + tell(area["difference"], signed=True)
    if area["same_answers"]:
        told = "the same AUROC"
    named: dict[str, list[str]] = {}
    for entry in entries:
        if is_shown(entry["difference"]):
            how = "higher" if entry["figure"] in RATE_NAMES else "better"
            named.setdefault(f"{how} in {_ahead(entry)}", []).append(figure_name(entry["figure"]))
    which = "; ".join(f"{how}: {', '.join(figures)}" for how, figures in named.items())
    sentence = f"{model}: {told}; {which or 'no figure is shown to differ'}."
    rates = any(how.startswith("higher") for how in named)
    if rates and _thresholds(comparison, pair, model):
        sentence += " The thresholds differ: read sensitivity and specificity together."
    return sentence


def _thresholds(comparison: Comparison, pair: Pair, model: str) -> str:
    """From which probability each run calls positive; nothing where it is the same."""
    at = {row["run"]: row["threshold"] for row in comparison["runs"] if row["model"] == model}
    told = [f"from {at[name]:.3f} in {name}" for name in (comparison["reference"], pair["run"])]
    return "" if told[0].split()[1] == told[1].split()[1] else " and ".join(told)


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
    told += [
        f"{model} calls an image positive {at}: sensitivity and specificity must be read together, "
        "for a threshold buys one with the other."
        for model in pair["models"]
        if (at := _thresholds(comparison, pair, model))
    ]
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
    units = dict.fromkeys(pair["common"]["unit"] for pair in comparison["pairs"])
    return [
        *(
            f"The images of {run} are simulated: no figure of it says anything about patients."
            for run in _simulated(comparison)
        ),
        f"Every look at test uses it up: of {told:,} differences with 95 % intervals one in "
        "twenty is expected to exclude 0 where nothing has changed, and a run that is chosen by "
        "its figures on test has no test left.",
        f"An interval covers the chance of which {' or '.join(units)} are in the test sample. The "
        "randomness of training is not in it: the same settings with another training.seed move "
        "the figures too.",
        "Two intervals of the first table that overlap, or do not, are no test: read the "
        "differences.",
    ]


def simulated_badge(comparison: Comparison) -> str:
    """What stands beside a page's title of simulated images, and of which runs; else nothing."""
    simulated = _simulated(comparison)
    if not simulated:
        return ""
    everywhere = all(row["simulated"] for row in comparison["runs"])
    return "simulated images" + ("" if everywhere else f" in {', '.join(simulated)}")


def _simulated(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(row["run"] for row in comparison["runs"] if row["simulated"]))


def figure_name(figure: str) -> str:
    """A figure in words.

    >>> figure_name("recall")
    'sensitivity'
    """
    return {**FIGURE_NAMES, **RATE_NAMES}[figure]
