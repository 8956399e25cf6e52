"""The `split` stage: labels, images and persons joined, every person on one side.

Duplicates that stand on two sides all the same, under two names, are listed.
"""

import logging
from pathlib import Path

import pandas as pd

from pneumonia.artifacts import Artifact, Facts, digest_table, write_json, write_table
from pneumonia.config import SIMULATION, as_dict
from pneumonia.csv_files import write_rows
from pneumonia.data_notes import split_note
from pneumonia.errors import ConfigError, StaleArtifactError
from pneumonia.people import PATIENT_KEY, key_setting, patient_key
from pneumonia.persons import find_persons, has_own_names, read_persons
from pneumonia.split import make_split, read_split_file
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Request, Stage

logger = logging.getLogger(__name__)

IMAGE_COLUMNS = (
    "image_id", "pixel_digest", "rows", "columns", "scale", "offset_x", "offset_y", "view", "sex",
    "age", "spacing",
)  # fmt: skip
LABEL_COLUMNS = ("image_id", "target", "class")
BOX_COLUMNS = ("image_id", "x", "y", "width", "height")
_CURE = (
    f"Unless the names are public, set {PATIENT_KEY}, run again and delete what was made without "
    "it (docs/security.md)."
)
STORED = ("pool", "row")
"""Where an image is stored: read to look at its pixels, no part of what it is."""


def plan(context: Context) -> Plan:
    """Read labels, boxes, image geometry and header fields, and who is who."""
    request, config = context.request, context.request.config.split
    labels = context.artifact("labels").table("labels.parquet")
    boxes = context.artifact("labels").table("boxes.parquet")
    images = context.artifact("shards").table("images.parquet", [*IMAGE_COLUMNS, *STORED])
    grouping = find_grouping(request)
    persons = None if grouping is None else read_persons(grouping, config.max_match_mse)
    key = patient_key()
    warn_of_hashes_without_key(request, grouping, persons, _CURE)
    sides = None if request.split_file is None else read_split_file(request.split_file)

    def write(scratch: Scratch) -> Facts:
        from pneumonia.duplicates import count_duplicates, find_duplicates
        from pneumonia.pool import ImagePool

        split = make_split(
            labels, boxes, images, persons=persons, split_file=sides,
            config=config, by_image=request.by_image, persons_path=grouping,
            split_path=request.split_file, patient_key=key,
        )  # fmt: skip
        write_table(split.studies, scratch.output / "studies.parquet")
        write_rows(split.to_cite(), scratch.output / "split.csv")
        stored = split.studies.merge(images[["image_id", "pixel_digest", *STORED]], on="image_id")
        pool = ImagePool(context.workspace.pool, stored)
        duplicates = find_duplicates(stored, pool)
        write_table(duplicates, scratch.output / "duplicates.parquet")
        facts = {**split.facts, "duplicates": count_duplicates(duplicates, pool.side)}
        write_json(facts, scratch.output / "split.json")
        return facts

    inputs = {
        "labels": digest_table(labels, LABEL_COLUMNS),
        "boxes": digest_table(boxes, BOX_COLUMNS, by=BOX_COLUMNS),
        "images": digest_table(images, IMAGE_COLUMNS),
        "persons": "none" if persons is None else digest_table(persons, ["image_id", "person"]),
        "split file": "none" if sides is None else digest_table(sides, ["image_id", "split"]),
    }
    settings = as_dict(config) | {"by_image": request.by_image} | key_setting(key)
    return Plan(inputs, settings, write)


def find_grouping(request: Request) -> Path | None:
    """The file that says whose image is whose.

    A split by image reads it too, where there is one, to tell how large its leak is.

    Raises:
        ConfigError: there is none and a split by image was not asked for.
    """
    file = request.persons or find_persons(request.raw)
    if file is None and not request.by_image:
        raise ConfigError(
            f"{request.raw}: expected persons.csv or the challenge's mapping JSON, got neither. "
            "Give --persons FILE, or --by-image to split by image, which lets people with several "
            "images stand on two sides."
        )
    return file


def warn_of_hashes_without_key(
    request: Request, grouping: Path | None, persons: pd.DataFrame | None, cure: str
) -> None:
    """Say that people's names could be found out, where they may be no public ones.

    Args:
        grouping: the file that `persons` was read from.
        cure: the sentence that ends it.
    """
    if grouping is None or persons is None or request.by_image or patient_key():
        return
    simulated = grouping.parent == request.raw and (request.raw / SIMULATION).is_file()
    if not simulated and has_own_names(grouping, persons):
        logger.warning(
            "%s: its people are stored as hashes without a key, and whoever can list all names "
            "that a person may have can find each by trying. %s", grouping, cure,
        )  # fmt: skip


def check_split(run: str, labels: Artifact, shards: Artifact, split: Artifact) -> None:
    """See that a run's split is of the labels, boxes and images that the run has now.

    Raises:
        StaleArtifactError: one of them was made anew and the split was not.
    """
    boxes = labels.table("boxes.parquet", BOX_COLUMNS)
    stated = {
        "labels": digest_table(labels.table("labels.parquet", LABEL_COLUMNS), LABEL_COLUMNS),
        "boxes": digest_table(boxes, BOX_COLUMNS, by=BOX_COLUMNS),
        "images": digest_table(shards.table("images.parquet", IMAGE_COLUMNS), IMAGE_COLUMNS),
    }
    for what, told in stated.items():
        if split.manifest.inputs[what] != told:
            raise StaleArtifactError(
                f"{split.reference}: expected one made from the {what} that the run {run!r} has "
                "now, got one from before they changed. Bring the run up to date with "
                "`pneumonia run`."
            )


def describe(facts: Facts) -> str:
    """One half line for the console."""
    images = {side: count["images"] for side, count in facts["sides"].items()}
    sides = ", ".join(f"{side} {images[side]:,}" for side in ("train", "val", "test"))
    told = f"by {facts['grouping']}: {sides} images of {facts['people']:,} people"
    found = facts["duplicates"]
    pairs = found["exact"] + (found["near"] or 0)
    counts = {
        "labels without a file": facts["labels_without_file"],
        "files without a label": facts["unlabelled_files"],
        "images without a person in the map": facts["unmapped_images"],
        "pairs of one film on two sides": pairs,
    }
    return "; ".join([told, *(f"{name}: {count:,}" for name, count in counts.items() if count)])


SPLIT = Stage(
    name="split",
    version=1,
    plan=plan,
    describe=describe,
    needs=("labels", "shards"),
    note=lambda _, split: split_note(split),
)
