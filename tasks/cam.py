"""The `cam` stage, per model: class activation maps, drawn and scored against the boxes."""

from pneumonia.artifacts import Facts, digest, digest_table, write_json
from pneumonia.config import as_dict
from pneumonia.machine import resolve_accelerator, workers
from pneumonia.model_notes import cam_note
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Stage

STUDY_COLUMNS = (
    "image_id", "patient_id", "split", "target", "view", "rows", "columns", "scale", "offset_x",
    "offset_y",
)  # fmt: skip
BOX_COLUMNS = ("image_id", "x", "y", "width", "height")
PREDICTION_COLUMNS = ("image_id", "split", "logit", "probability")


def plan(context: Context) -> Plan:
    """Read the checkpoint, the images of val and test, all boxes, and this model's predictions."""
    config = context.request.config
    training, predictions = context.artifact("training"), context.artifact("predictions")
    studies = context.artifact("split").table("studies.parquet", STUDY_COLUMNS)
    images = context.artifact("shards").table(
        "images.parquet", ["image_id", "pixel_digest", "pool", "row"]
    )
    images = images[images["image_id"].isin(studies.loc[studies["split"] != "train", "image_id"])]
    boxes = context.artifact("labels").table("boxes.parquet", BOX_COLUMNS)
    table = predictions.table("predictions.parquet", PREDICTION_COLUMNS)
    decisions = predictions.json("operating_points.json")
    _, *others = context.seeds("training")[context.model].items()

    def write(scratch: Scratch) -> Facts:
        from pneumonia.cam import make_cam
        from pneumonia.checkpoint import load
        from pneumonia.pool import ImagePool

        scores = make_cam(
            load(training.file("checkpoint.ckpt")),
            ImagePool(context.workspace.pool, images),
            studies,
            boxes,
            table,
            decisions,
            config.cam,
            config.evaluation,
            scratch.output,
            accelerator=resolve_accelerator(config),
            workers=workers(config),
            others=[load(other.file("checkpoint.ckpt")) for _, other in others],
        )
        write_json(scores, scratch.output / "cam.json")
        return {
            "n": scores["n"],
            "pointing": scores["pointing"]["value"],
            "control": scores["constant_map"]["pointing"]["value"],
        }

    inputs = {
        "checkpoint": training.sha256("checkpoint.ckpt"),
        **{f"checkpoint of seed {seed}": other.sha256("checkpoint.ckpt") for seed, other in others},
        "val and test images": digest_table(images, ["image_id", "pixel_digest"]),
        "studies": digest_table(studies, STUDY_COLUMNS),
        "boxes": digest_table(boxes, BOX_COLUMNS, by=BOX_COLUMNS),
        "predictions": digest([digest_table(table, PREDICTION_COLUMNS), decisions]),
    }
    configuration = {"cam": as_dict(config.cam), "evaluation": as_dict(config.evaluation)}
    return Plan(inputs, configuration, write)


def describe(facts: Facts) -> str:
    """One half line for the console."""
    if facts["pointing"] is None:
        return f"{facts['n']:,} positives with boxes"
    return (
        f"points into a box on {facts['pointing']:.0%} of {facts['n']:,} positives, "
        f"the constant map on {facts['control']:.0%}"
    )


CAM = Stage(
    name="cam",
    version=1,
    plan=plan,
    describe=describe,
    needs=("labels", "shards", "split", "training", "predictions"),
    per_model=True,
    note=lambda _, cam: cam_note(cam),
)
