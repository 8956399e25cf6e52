"""What `training`, `predictions`, `evaluation`, `cam` and `report` have to show of the models.

In: an artifact. Out: a note.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia import tables
from pneumonia.artifacts import Artifact
from pneumonia.markdown import escaped, markdown_table, turned
from pneumonia.notes import MAX_PICTURE_BYTES, Note, fact_table, page, section, share, shown


def training_note(training: Artifact, member: str) -> Note:
    """The curves, the epoch that was kept, and all epochs.

    Args:
        member: the model, with its seed where that is not the first.
    """
    from pneumonia.pictures import training_curves

    history = pd.read_csv(training.path / "history.csv")
    facts = training.manifest.facts
    curves = training_curves({member: history}, "png")["learning"]
    epochs = [
        {
            "epoch": str(int(row["epoch"])),
            "train loss": f"{row['train_loss']:.4f}",
            "val loss": f"{row['val_loss']:.4f}",
            "val AUROC": f"{row['val_auroc']:.3f}",
            "learning rate": f"{row['learning_rate']:.2g}",
            "": "kept" if row["epoch"] == facts["epoch"] else "",
        }
        for row in history.to_dict("records")
    ]
    told = (
        f"Epoch {facts['epoch']} of {facts['epochs']} is kept, the one with the smallest loss on "
        f"val: {facts['val_loss']:.4f}, with an AUROC of {facts['val_auroc']:.3f}. Figures on val "
        f"are optimistic. The model has {facts['parameters']:,} parameters."
    )
    return Note(
        page(
            f"Training of {escaped(member)}",
            told,
            shown("the learning curves", curves),
            section("Epochs", markdown_table(epochs)),
        )
    )


def predictions_note(predictions: Artifact, member: str) -> Note:
    """The calibration, and the thresholds with the rule that each was chosen by.

    Args:
        member: the model, with its seed where that is not the first.
    """
    decisions = predictions.json("operating_points.json")
    table = predictions.table("predictions.parquet", ["split", "probability"])
    calibration = decisions["calibration"]
    thresholds = [
        {
            "operating point": tables.POINT_NAMES.get(name, name),
            "threshold": f"{point['threshold']:.4f}",
            **{
                f"called positive on {side}": share(int((chances >= point["threshold"]).sum()), n)
                for side, chances, n in _sides(table)
            },
        }
        for name, point in decisions["operating_points"].items()
    ]
    return Note(
        page(
            f"Predictions of {escaped(member)}",
            fact_table({f"{side} images": f"{n:,}" for side, _, n in _sides(table)}),
            section(
                "Calibration",
                f"probability = sigmoid(a logit + b) with a = {calibration['a']:.4f}, "
                f"b = {calibration['b']:+.4f}. {escaped(calibration['rule'])}.",
            ),
            section(
                "Thresholds, chosen on val and frozen",
                markdown_table(thresholds),
                "\n".join(_rules(decisions["operating_points"])),
            ),
        )
    )


def evaluation_note(evaluation: Artifact) -> Note:
    """The answer on test, with intervals; every operating point."""
    from pneumonia.pictures import overview
    from pneumonia.summary import headline

    told = evaluation.json("evaluation.json")
    return Note(
        page(
            "Evaluation",
            escaped(headline(told)),
            markdown_table(_brief(tables.answer_table(told))),
            shown("the AUROC of models and controls", overview(told, "png")),
            section("Operating points, on test", *_points(tables.operating_table(told))),
            section("Calibration, on test", markdown_table(turned(tables.calibration_table(told)))),
            section("Comparisons, in pairs", markdown_table(tables.comparison_table(told))),
        )
    )


def cam_note(cam: Artifact) -> Note:
    """How well the maps agree with the boxes, beside the constant map, and the first of each kind.

    The first map has a page of its own too.
    """
    from pneumonia.pictures import panels

    scores = cam.json("cam.json")
    model = scores["model"]
    firsts = [kind[0] for kind in panels(model, scores, cam.path).values() if kind]
    maps = [
        section(
            f"{panel['outcome'].capitalize()}, probability {panel['probability']:.2f}",
            shown(panel["file"], panel["picture"]),
        )
        for panel in firsts
    ]
    small = [panel["picture"] for panel in firsts if panel["picture"].size <= MAX_PICTURE_BYTES]
    scale = "Image with its boxes, and under its map: what each place adds to the logit."
    return Note(
        page(
            f"Class activation maps of {escaped(model)}",
            f"Scored on {scores['n']:,} positive test images with boxes, beside a constant map: "
            "the mean box map of the training positives.",
            markdown_table(_brief(turned(tables.cam_table({model: scores})))),
            section("Do the maps depend on the weights", _dependence(model, scores)),
            scale if maps else "No map was drawn.",
            *maps,
        ),
        pictures={"first": small[0].source} if small else {},
    )


def report_note(
    evaluation: Artifact, cams: Mapping[str, Artifact], place: str, address: str
) -> Note:
    """The first screen of the report, its tables, and where it is.

    Args:
        cams: by model.
        place: of the report in the workspace.
        address: of its page, where one is served; empty where none is.
    """
    from pneumonia.summary import summary_markdown

    told = evaluation.json("evaluation.json")
    summary = summary_markdown(told, {model: cam.json("cam.json") for model, cam in cams.items()})
    served = f"[its page](<{address}>), and " if address else ""
    return Note(
        f"{summary}\n\nThe whole report: {served}`{place}` in the workspace.",
        tables={
            "answer": tables.answer_table(told),
            "operating-points": tables.operating_table(told),
        },
        links={"page": address} if address else {},
    )


def _sides(table: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.float64], int]]:
    """Name, probabilities and number of the images of each side that has some."""
    for side in ("val", "test"):
        chances = table.loc[table["split"] == side, "probability"].to_numpy(np.float64)
        if len(chances):
            yield side, chances, len(chances)


def _rules(points: Mapping[str, Any]) -> Iterator[str]:
    """What each threshold was chosen by, a line each."""
    for name, point in points.items():
        yield f"- {escaped(tables.POINT_NAMES.get(name, name))}: {escaped(point['rule'])}"


def _points(rows: tables.Table) -> Iterator[str]:
    """A table a model, its operating points side by side: all figures of one fit on a page."""
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        yield f"### {escaped(model)}"
        figures = [{name: row[name] for name in row if name != "model"} for row in own]
        yield markdown_table(_brief(turned(figures)))


def _brief(rows: tables.Table) -> tables.Table:
    """A table that says of a figure that it has no interval; why, the report has room for."""
    why = re.compile(r"\(no interval: [^)]*\)")
    return [{name: why.sub("(no interval)", cell) for name, cell in row.items()} for row in rows]


def _dependence(model: str, scores: Mapping[str, Any]) -> str:
    """What random weights do to the maps, and what another seed does."""
    passed = scores["sanity"]["passed"]
    told = {
        True: "They do: with random weights the maps become others.",
        False: "**Do not read these maps: with random weights they stay as similar to the trained "
        "ones as maps of different images are.**",
    }.get(passed, "Not known.")
    again = scores["repeatability"]
    seeds = f"Repeatability over seeds (mean SSIM): {tables.tell(again)}."
    return "\n\n".join(
        [
            told,
            markdown_table(turned(tables.sanity_table({model: scores}))),
            seeds if again["value"] is not None else "",
        ]
    ).strip()
