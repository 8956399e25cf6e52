"""Finished runs of one workspace side by side, for the console and as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pneumonia.artifacts import Artifact, digest_table
from pneumonia.config import EvaluationConfig
from pneumonia.errors import ConfigError, StaleArtifactError
from pneumonia.run_tables import (
    cautions,
    change_table,
    common_sentences,
    difference_table,
    pair_headline,
    run_table,
)
from pneumonia.runs import Run
from pneumonia.tables import Table
from pneumonia.workspace import Workspace
from tasks.evaluation import EVALUATION, PREDICTION_COLUMNS, STUDY_COLUMNS, digest_predictions
from tasks.labels import LABELS
from tasks.predictions import PREDICTIONS
from tasks.shards import SHARDS
from tasks.split import BOX_COLUMNS, SPLIT, check_split
from tasks.training import TRAINING


def compare_lines(names: Sequence[str], *, workspace: Path, out: Path | None) -> list[str]:
    """Compare runs with the first of them; writes nothing in the workspace.

    Args:
        names: of two or more different runs.
        out: a page to write as well.

    Returns:
        lines for the console.

    Raises:
        ConfigError: the runs cannot be compared, or `out` is no place for a file.
        StaleArtifactError: a run was changed and not brought up to date.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"compare: expected two or more different runs, got {' '.join(names)}. Name each once; "
            "`pneumonia run --run NAME` makes another."
        )
    if out is not None:
        _check_out(out, workspace)
    runs = [read_run(workspace, name) for name in names]
    from pneumonia.run_comparison import compare_runs

    evaluation = Workspace(workspace).finished(names[0], EVALUATION.name)
    comparison = compare_runs(runs, EvaluationConfig(**evaluation.manifest.configuration))
    if out is not None:
        from pneumonia.run_page import write_comparison

        write_comparison(out, comparison, runs)
    return _lines(comparison)


def read_run(root: Path, name: str) -> Run:
    """Read what a finished run left.

    Raises:
        ConfigError: there is no such run, or it has no evaluation.
        StaleArtifactError: its artifacts do not belong together.
    """
    evaluation = Workspace(root).finished(name, EVALUATION.name)
    told = evaluation.json("evaluation.json")
    labels, shards, split = (
        Workspace(root).finished(name, stage.name) for stage in (LABELS, SHARDS, SPLIT)
    )
    artifacts = {LABELS.name: labels, SHARDS.name: shards, SPLIT.name: split}
    studies = split.table("studies.parquet", STUDY_COLUMNS)
    boxes = labels.table("boxes.parquet", BOX_COLUMNS)
    images = shards.table("images.parquet", ["image_id", "file_digest"])
    check_split(name, labels, shards, split)
    claims = [(evaluation, "studies", digest_table(studies, STUDY_COLUMNS))]
    predictions, decisions = {}, {}
    for model in [name for name, block in told["models"].items() if "ensemble_of" not in block]:
        training = Workspace(root).finished(name, TRAINING.link_name(model))
        predicted = Workspace(root).finished(name, PREDICTIONS.link_name(model))
        artifacts |= {TRAINING.link_name(model): training, PREDICTIONS.link_name(model): predicted}
        predictions[model] = predicted.table("predictions.parquet", PREDICTION_COLUMNS)
        decisions[model] = predicted.json("operating_points.json")
        stated = digest_predictions(predictions[model], decisions[model])
        claims += [
            (predicted, "checkpoint", training.sha256("checkpoint.ckpt")),
            (evaluation, f"predictions of {model}", stated),
        ]
    for artifact, what, digest in claims:
        _check_belongs(name, artifact, what, digest)
    artifacts[EVALUATION.name] = evaluation
    return Run(
        name=name,
        evaluation=told,
        studies=studies,
        predictions=predictions,
        decisions=decisions,
        boxes=boxes,
        files=images,
        manifests={link: artifact.manifest for link, artifact in artifacts.items()},
    )


def aligned(table: Table) -> list[str]:
    """A table as lines of equal columns; a heading of several words stands in several lines.

    >>> aligned([{"run": "main", "log loss": "0.412"}])
    ['      log', 'run   loss', 'main  0.412']
    """
    headings = [name.split() for name in table[0]]
    height = max(map(len, headings))
    columns = [
        [*[""] * (height - len(words)), *words, *(row[name] for row in table)]
        for words, name in zip(headings, table[0], strict=True)
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _lines(comparison: Mapping[str, Any]) -> list[str]:
    lines = ["Each run on its own test side, at its own operating point:", ""]
    lines += aligned(run_table(comparison))
    for pair in comparison["pairs"]:
        lines += ["", *pair_headline(comparison, pair), "", "What differs:"]
        lines += [f"  {row['what']}: {row['difference']}" for row in change_table(pair)]
        lines += ["", "On the common test images:"]
        lines += [f"  {sentence}" for sentence in common_sentences(comparison, pair)]
        if pair["models"]:
            lines += ["", *aligned(difference_table(comparison, pair))]
    return [*lines, "", "Keep in mind:", *(f"  {line}" for line in cautions(comparison))]


def _check_belongs(run: str, artifact: Artifact, what: str, digest: str) -> None:
    """Refuse a run of which a stage was made anew and what follows it was not."""
    if artifact.manifest.inputs[what] != digest:
        raise StaleArtifactError(
            f"{artifact.reference}: expected one made from the {what} that the run {run!r} has "
            "now, got one from before they changed. Bring the run up to date with `pneumonia run`."
        )


def _check_out(out: Path, workspace: Path) -> None:
    place = out.absolute().resolve()
    if not place.parent.is_dir() or place.is_dir():
        raise ConfigError(f"--out: expected a file in a folder that exists, got {out}.")
    if place.is_relative_to(workspace.absolute().resolve()):
        raise ConfigError(
            f"--out: expected a file outside the workspace, whose artifacts are never written "
            f"again, got {out}. Choose another place."
        )
