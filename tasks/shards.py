"""The `shards` stage: files become images in pool shards, and one table points into the pool.

Three tasks: `files` looks at the raw folder and deals new and changed files into batches, `pool`
converts one batch into one shard, `shards` writes the table. A batch waits for its task as a
small file in `.state/batches/`, so that tasks pass nothing but keys.
"""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task

from pneumonia.artifacts import Artifact, Facts, Reference, digest, digest_table, write_table
from pneumonia.config import IMAGES_FOLDER, ShardsConfig
from pneumonia.data_notes import shards_note
from pneumonia.machine import workers
from pneumonia.pool import whole_shards
from pneumonia.shards import (
    Batch,
    BatchFile,
    batch_identity,
    check_quarantine,
    configuration,
    convert_batch,
    images_table,
    plan_batches,
    pool_index,
    scan,
    unsettled,
)
from pneumonia.workspace import Scratch
from tasks.caching import OPTIONS, Context, Outcome, Plan, Stage, ended, make, manifest_of

VERSION = 1

_TURN = threading.Lock()
"""Whose batch has this process's decoding threads: the next one decodes while this one is hashed
and brought to the disk. Side by side they would come to that point together, and all would wait."""


@task(name="files", **OPTIONS)
def find_files(context: Context) -> list[str]:
    """Look at the raw folder; returns the keys of the pool shards that are to be made."""
    request = context.request
    anew = SHARDS.name in request.refresh
    if request.verify or anew:
        _discard_shards(context, damaged_only=not anew)
    keys = []
    for batch in new_batches(context):
        key = manifest_of(POOL, _pool_plan(context, batch)).key
        waiting = _waiting(replace(context, batch=key))
        waiting.parent.mkdir(parents=True, exist_ok=True)
        fresh = waiting.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(batch), "utf-8")
        fresh.replace(waiting)
        keys.append(key)
    return keys


def _discard_shards(context: Context, *, damaged_only: bool) -> None:
    """Take away the pool shards of these settings, or those of them that are damaged."""
    made = whole_shards(context.workspace.pool, *_conversion(context))
    shards = [Reference(POOL.name, manifest.key) for manifest in made]
    discard = partial(context.workspace.discard, damaged_only=damaged_only)
    with ThreadPoolExecutor(workers(context.request.config)) as threads:
        list(threads.map(discard, shards))  # whose errors are raised here


def new_batches(context: Context) -> list[Batch]:
    """The files that have no image in the pool yet, a batch per shard to be made."""
    per_shard = context.request.config.shards.images_per_shard
    return plan_batches(_files(context), _index(context), per_shard)


@task(name="pool", **OPTIONS)
def convert_shard(context: Context) -> Outcome:
    """Convert the batch that waits under the context's key into a pool shard."""
    try:
        plan = plan_pool(context)
    except FileNotFoundError:  # taken away by whoever published this key
        shard = context.workspace.get(Reference(POOL.name, context.batch))
        reason = "made by another process meanwhile"
        return ended(Outcome(shard.reference, shard.manifest.facts, True, reason, 0.0), reason)
    outcome = make(POOL, context, plan)
    _waiting(context).unlink(missing_ok=True)
    return outcome


def plan_pool(context: Context) -> Plan:
    """Read the batch that waits under the context's key."""
    batch = json.loads(_waiting(context).read_text("utf-8"))
    return _pool_plan(context, tuple(BatchFile(*file) for file in batch))


def plan(context: Context) -> Plan:
    """Read the raw folder and the pool; files not yet converted are left to the next run."""
    request = context.request
    index = _index(context)
    files = _files(context)
    images, quarantine = images_table(files, index)
    config = request.config.shards

    def write(scratch: Scratch) -> Facts:
        check_quarantine(images, quarantine, config)
        write_table(images, scratch.output / "images.parquet")
        write_table(quarantine, scratch.output / "quarantine.parquet")
        reasons = quarantine["reason"].value_counts().sort_index()
        return {
            "images": len(images),
            "quarantined": len(quarantine),
            "reasons": {str(reason): int(count) for reason, count in reasons.items()},
            "unsettled": unsettled(files),
            "patient_differs": int(images["patient_differs"].sum()),
            "side": config.image_size,
        }

    def points_to_complete_shards(artifact: Artifact) -> bool:
        pools = artifact.table("images.parquet", ["pool"])["pool"]
        return set(pools) <= set(index["pool"])

    inputs = {
        "files": digest_table(images, ["image_id", "file_digest"]),
        "refused files": digest_table(quarantine, ["file", "file_digest", "reason"], by=["file"]),
    }
    return Plan(inputs, settings(config), write, usable=points_to_complete_shards)


def settings(config: ShardsConfig) -> dict[str, Any]:
    """The settings that can change the table of images, or whether there is one."""
    return {**configuration(config), "max_quarantined": config.max_quarantined}


def describe(facts: Facts) -> str:
    """One half line for the console."""
    told = f"{facts['images']:,} images of {facts['side']} pixels"
    if facts["quarantined"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in facts["reasons"].items())
        told += f", {facts['quarantined']:,} in quarantine ({reasons})"
    if facts["unsettled"]:
        told += f", {facts['unsettled']:,} still being copied and left to the next run"
    return told


def _pool_plan(context: Context, batch: Batch) -> Plan:
    request = context.request
    config = request.config.shards
    folder = request.raw / IMAGES_FOLDER

    def write(scratch: Scratch) -> Facts:
        with _TURN:
            return convert_batch(
                batch, folder, config, scratch.output, workers=workers(request.config)
            )

    return Plan({"files": digest(batch_identity(batch))}, configuration(config), write)


def _files(context: Context) -> pd.DataFrame:
    request = context.request
    return scan(
        request.raw / IMAGES_FOLDER,
        context.workspace.state / "files.parquet",
        quiet_seconds=request.config.shards.quiet_seconds,
        workers=workers(request.config),
    )


def _index(context: Context) -> pd.DataFrame:
    return pool_index(context.workspace.pool, *_conversion(context))


def _conversion(context: Context) -> tuple[dict[str, Any], int]:
    """How shards are made now: the settings that change an image, and the version."""
    return configuration(context.request.config.shards), VERSION


def _waiting(context: Context) -> Path:
    """Where a batch waits: named for its key and for the raw folder that its paths belong to."""
    raw = digest(str(context.request.raw.absolute()))
    return context.workspace.state / "batches" / f"{context.batch}-{raw}.json"


POOL = Stage(
    name="pool",
    version=VERSION,
    plan=plan_pool,
    describe=lambda facts: f"{facts['images']:,} images",
    keyed_by_code=False,
    part_of="shards",
)

SHARDS = Stage(
    name="shards",
    version=VERSION,
    plan=plan,
    describe=describe,
    keyed_by_code=False,
    note=lambda context, shards: shards_note(shards, context.workspace.pool),
)
