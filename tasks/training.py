"""The `training` stage, per model: fitted on train, the epoch chosen on val, in a child process."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pneumonia.artifacts import Artifact, Facts, digest_table, write_table
from pneumonia.config import PRETRAINED, Config, as_dict
from pneumonia.event_files import event_writer
from pneumonia.machine import resolve_accelerator, resolve_precision
from pneumonia.model_notes import training_note
from pneumonia.seals import digest_file
from pneumonia.trainer_process import TrainingJob, run_training
from pneumonia.workspace import Scratch
from tasks.caching import Context, Plan, Stage
from tasks.notes import key_of, progress

logger = logging.getLogger(__name__)

ROW = ("image_id", "split", "target", "pixel_digest")
"""What training reads of an image; where its pixels are stored makes no difference."""

RESOLVED = ("precision", "processes")
"""Settings that depend on the machine that trains."""


def plan(context: Context) -> Plan:
    """Read the train and val rows: new test images retrain nothing."""
    config = recipe(context.request.config, context.model, context.seed)
    studies = context.artifact("split").table("studies.parquet", ["image_id", "split", "target"])
    images = context.artifact("shards").table(
        "images.parquet", ["image_id", "pixel_digest", "pool", "row"]
    )
    rows = studies.merge(images, on="image_id", validate="1:1")
    tuning = rows[rows["split"] != "test"]
    accelerator, precision = resolve_accelerator(config), resolve_precision(config)

    def write(scratch: Scratch) -> Facts:
        studies_file = scratch.state / "studies.parquet"
        write_table(tuning.drop(columns="pixel_digest"), studies_file)
        write_table(tuning[list(ROW)], scratch.output / "rows.parquet")
        job = TrainingJob(
            model=context.model,
            config=config,
            pool=str(context.workspace.pool),
            studies=str(studies_file),
            output=str(scratch.output),
            state=str(scratch.state / "resume"),
            precision=precision,
            accelerator=accelerator,
            devices=config.runtime.devices,
        )
        request = context.request
        key = key_of(TRAINING.name, request.noted_as or request.run, context.member, "progress")
        with ExitStack() as shown:
            tell: list[Callable[[dict[str, Any]], None]] = [_tell(context.member)]
            tell.append(shown.enter_context(progress(key, config.training.epochs)))
            if config.runtime.tensorboard:
                # The key too, for a training of other data or settings is another curve.
                name = f"{context.member}-{scratch.state.name[:8]}"
                folder = Path(config.runtime.tensorboard, request.run, name)
                tell.append(shown.enter_context(event_writer(folder)))

            def tell_all(epoch: dict[str, Any]) -> None:
                for one in tell:
                    one(epoch)

            return run_training(job, lock=scratch.lock, on_epoch=tell_all)

    configuration = as_dict(config.training) | {
        "model": context.model,
        "image_size": config.shards.image_size,
        "window": config.shards.window,  # new files must be converted as these were
        "crop_size": config.crop_size,
        "precision": precision,
        "weights": _weights(config.training.weights),
    }
    del configuration["retrain_after"]  # decides whether to train, not what comes of it
    del configuration["seeds"]  # each is a training of its own
    if accelerator == "cpu" and config.runtime.devices > 1:
        configuration["processes"] = config.runtime.devices  # each normalises its own share
    inputs = {"train and val images": digest_table(tuning, ROW)}
    if config.runtime.dispatch == "deployments":
        configuration = _as_another_machine_resolved(context, configuration)
    kept = _kept(context, rows, configuration)
    return Plan(inputs if kept is None else kept.manifest.inputs, configuration, write)


def recipe(config: Config, model: str, seed: int | None = None) -> Config:
    """The recipe for one training: only some models have first weights to be given.

    Args:
        seed: None for the first.
    """
    training = config.training
    chosen = training.all_seeds[0] if seed is None else seed
    weights = training.weights if model in PRETRAINED else "none"
    return replace(config, training=replace(training, seed=chosen, seeds=(), weights=weights))


def _as_another_machine_resolved(context: Context, configuration: dict[str, Any]) -> dict[str, Any]:
    """The settings, with what a machine resolves by itself as the run's last training has it.

    A pipeline that sends its trainings elsewhere may have no GPU itself.
    """
    request = context.request
    last = context.workspace.linked(request.run, TRAINING.link_name(context.member))
    artifact = context.workspace.find(last) if last else None
    if artifact is None or request.config.training.precision != "auto":
        return configuration
    manifest = artifact.manifest
    made, wanted = (
        {name: value for name, value in settings.items() if name not in RESOLVED}
        for settings in (manifest.configuration, configuration)
    )
    if (manifest.version, made) != (TRAINING.version, wanted):
        return configuration
    there = {
        name: manifest.configuration[name] for name in RESOLVED if name in manifest.configuration
    }
    return wanted | there


def describe(facts: Facts) -> str:
    """One half line for the console."""
    return (
        f"best epoch {facts['epoch']} of {facts['epochs']}, "
        f"val log loss {facts['val_loss']:.3f}, val AUROC {facts['val_auroc']:.3f}"
    )


def _kept(context: Context, rows: pd.DataFrame, configuration: dict[str, Any]) -> Artifact | None:
    """The run's last model, where its images have changed by no more than `retrain_after`.

    A model is never kept when an image that it was fitted or tuned on now stands in test, nor when
    the run's last trainings of its other seeds are of other images, or missing: what differs
    between seeds must be the seed alone.
    """
    allowed = context.request.config.training.retrain_after
    request = context.request
    last = context.workspace.linked(request.run, TRAINING.link_name(context.member))
    if not allowed or last is None or TRAINING.name in request.refresh:
        return None
    artifact = context.workspace.find(last, hashed=request.verify)
    if artifact is None or artifact.manifest.configuration != configuration:
        return None
    if artifact.manifest.version != TRAINING.version or not _of_same_images(context):
        return None
    known = artifact.table("rows.parquet")
    tested = rows.loc[rows["split"] == "test", "image_id"]
    if known["image_id"].isin(tested).any():
        return None
    now = set(rows.loc[rows["split"] != "test", list(ROW)].itertuples(index=False, name=None))
    before = set(known[list(ROW)].itertuples(index=False, name=None))
    changed = len({image_id for image_id, *_ in now ^ before}) / len(before)
    if changed > allowed:
        return None
    if changed:
        told = (
            "%s is kept: %.1f %% of its rows have changed, training.retrain_after allows %.1f %%."
        )
        logger.info(told, artifact.reference, 100 * changed, 100 * allowed)
    return artifact


def _of_same_images(context: Context) -> bool:
    """Whether the run's last trainings of this model's seeds are all there, of the same images."""
    inputs = []
    for of_seed in context.of_each_seed().values():
        last = context.workspace.linked(context.request.run, TRAINING.link_name(of_seed.member))
        artifact = context.workspace.find(last) if last else None
        inputs.append(artifact and artifact.manifest.inputs)
    return None not in inputs and all(one == inputs[0] for one in inputs)


def _weights(weights: str) -> str:
    """What names the first weights: a word, or the digest of a file."""
    return weights if weights in {"imagenet", "none"} else digest_file(Path(weights))


def _tell(model: str) -> Callable[[dict[str, Any]], None]:
    def tell(epoch: dict[str, Any]) -> None:
        logger.info(
            "%-28s epoch %d of at most %d: train loss %.3f, val loss %.3f, val AUROC %.3f, %.1f s",
            f"  {model}", epoch["epoch"], epoch["epochs"], epoch["train_loss"], epoch["val_loss"],
            epoch["val_auroc"], epoch["seconds"],
        )  # fmt: skip

    return tell


TRAINING = Stage(
    name="training",
    version=1,
    plan=plan,
    describe=describe,
    needs=("shards", "split"),
    per_model=True,
    per_seed=True,
    runs=("pneumonia.training",),
    keyed_by_code=False,
    note=lambda context, training: training_note(training, context.member),
)
