"""The `split` stage: labels, images and persons joined, every person on one side."""

from pathlib import Path

from pneumonia.artifacts import Facts, digest_table, write_json, write_table
from pneumonia.config import as_dict
from pneumonia.errors import ConfigError
from pneumonia.split import find_persons, make_split, read_persons, read_split_file
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Request, Stage

IMAGE_COLUMNS = (
    "image_id", "rows", "columns", "scale", "offset_x", "offset_y", "view", "sex", "age", "spacing",
)  # fmt: skip
BOX_COLUMNS = ("image_id", "x", "y", "width", "height")


def plan(context: Context) -> Plan:
    """Read labels, boxes, image geometry and header fields, and who is who."""
    request, config = context.request, context.request.config.split
    labels = context.artifact("labels").table("labels.parquet")
    boxes = context.artifact("labels").table("boxes.parquet")
    images = context.artifact("shards").table("images.parquet", IMAGE_COLUMNS)
    grouping = find_grouping(request)
    persons = None if grouping is None else read_persons(grouping, config.max_match_mse)
    sides = None if request.split_file is None else read_split_file(request.split_file)

    def write(scratch: Scratch) -> Facts:
        split = make_split(labels, boxes, images, persons=persons, split_file=sides, config=config)
        write_table(split.studies, scratch.output / "studies.parquet")
        cited = split.studies[["image_id", "split"]].rename(columns={"image_id": "patientId"})
        cited.to_csv(scratch.output / "split.csv", index=False, lineterminator="\n")
        write_json(split.facts, scratch.output / "split.json")
        return split.facts

    inputs = {
        "labels": digest_table(labels, ["image_id", "target", "class"]),
        "boxes": digest_table(boxes, BOX_COLUMNS, by=BOX_COLUMNS),
        "images": digest_table(images, IMAGE_COLUMNS),
        "persons": "by image" if persons is None else digest_table(persons, ["image_id", "person"]),
        "split file": "none" if sides is None else digest_table(sides, ["image_id", "split"]),
    }
    return Plan(inputs=inputs, configuration=as_dict(config), write=write)


def find_grouping(request: Request) -> Path | None:
    """The file that says whose image is whose, or None for the split by image that was asked for.

    Raises:
        ConfigError: there is none and a split by image was not asked for.
    """
    if request.by_image:
        return None
    file = request.persons or find_persons(request.raw)
    if file is None:
        raise ConfigError(
            f"{request.raw}: expected persons.csv or the challenge's mapping JSON, got neither. "
            "Give --persons FILE, or --by-image to split by image, which lets people with several "
            "images stand on two sides."
        )
    return file


def describe(facts: Facts) -> str:
    """One half line for the console."""
    images = {side: count["images"] for side, count in facts["sides"].items()}
    sides = ", ".join(f"{side} {images[side]:,}" for side in ("train", "val", "test"))
    return f"by {facts['grouping']}: {sides} images of {facts['people']:,} people"


SPLIT = Stage(
    name="split",
    version=1,
    plan=plan,
    describe=describe,
    needs=("labels", "shards"),
)
