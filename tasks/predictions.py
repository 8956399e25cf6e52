"""The `predictions` stage, per model: logits of val and test, calibrated on val."""

from pneumonia.artifacts import Facts, digest_table, write_json, write_table
from pneumonia.machine import resolve_accelerator, workers
from pneumonia.model_notes import predictions_note
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Stage

ROW = ("image_id", "split", "target", "pixel_digest")


def plan(context: Context) -> Plan:
    """Read the checkpoint and the val and test rows."""
    config = context.request.config
    training, shards = context.artifact("training"), context.artifact("shards")
    studies = context.artifact("split").table("studies.parquet", ["image_id", "split", "target"])
    images = shards.table("images.parquet", ["image_id", "pixel_digest", "pool", "row"])
    rows = studies[studies["split"] != "train"].merge(images, on="image_id", validate="1:1")

    def write(scratch: Scratch) -> Facts:
        import numpy as np

        from pneumonia.calibration import make_predictions
        from pneumonia.checkpoint import load
        from pneumonia.pool import ImagePool
        from pneumonia.predictions import predict_logits

        logit = predict_logits(
            load(training.file("checkpoint.ckpt")),
            ImagePool(context.workspace.pool, rows),
            np.arange(len(rows)),
            accelerator=resolve_accelerator(config),
            workers=workers(config),
        )
        table, decisions = make_predictions(rows[["image_id", "split", "target"]], logit)
        write_table(table, scratch.output / "predictions.parquet")
        write_json(decisions, scratch.output / "operating_points.json")
        return {side: int((rows["split"] == side).sum()) for side in ("val", "test")}

    inputs = {
        "checkpoint": training.sha256("checkpoint.ckpt"),
        "val and test images": digest_table(rows, ROW),
    }
    return Plan(inputs, {}, write)


def describe(facts: Facts) -> str:
    """One half line for the console."""
    return f"{facts['val']:,} val and {facts['test']:,} test images"


PREDICTIONS = Stage(
    name="predictions",
    version=1,
    plan=plan,
    describe=describe,
    needs=("shards", "split", "training"),
    per_model=True,
    per_seed=True,
    keyed_by_code=False,
    note=lambda context, predictions: predictions_note(predictions, context.member),
)
