"""The `labels` stage: the challenge's CSV files as one row per image and a table of boxes."""

from pathlib import Path

from pneumonia.artifacts import Facts, write_table
from pneumonia.data_notes import labels_note
from pneumonia.labels import CLASSES_CSV, LABELS_CSV, read_labels
from pneumonia.seals import digest_file
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Stage


def plan(context: Context) -> Plan:
    """Read the two CSV files, the second where it is there."""
    raw = context.request.raw
    files = [raw / LABELS_CSV, raw / CLASSES_CSV]

    def write(scratch: Scratch) -> Facts:
        tables = read_labels(raw)
        write_table(tables.labels, scratch.output / "labels.parquet")
        write_table(tables.boxes, scratch.output / "boxes.parquet")
        return tables.facts()

    return Plan(inputs={file.name: _digest(file) for file in files}, configuration={}, write=write)


def describe(facts: Facts) -> str:
    """One half line for the console."""
    return f"{facts['images']:,} images, {facts['positives']:,} positive, {facts['boxes']:,} boxes"


def _digest(file: Path) -> str:
    return digest_file(file) if file.exists() else "absent"


LABELS = Stage(
    name="labels",
    version=1,
    plan=plan,
    describe=describe,
    note=lambda _, labels: labels_note(labels),
)
