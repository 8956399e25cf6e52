"""The pipeline: every stage in order, as one Prefect flow."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from flows.console import tell_stages
from flows.preflight import check, needs
from flows.stages import walk
from pneumonia.artifacts import Reference
from pneumonia.config import MODELS, Config
from pneumonia.errors import ConfigError
from pneumonia.machine import workers
from tasks.caching import Context, Outcome, Request, Stage
from tasks.report import REPORT, publish
from tasks.shards import SHARDS, convert_shard, find_files

logger = logging.getLogger("flows.pipeline")  # a worker loads this file under another name

SHARDS_AT_ONCE = 2
"""Shards in work at once: one decodes while the other is hashed and brought to the disk."""


@flow(name="pipeline", persist_result=False)
def pipeline(
    raw: Annotated[Path, Field(description="Folder with the challenge's files.")],
    workspace: Annotated[Path, Field(description="Folder for everything the pipeline makes.")],
    persons: Annotated[Path | None, Field(description="Map from image to person.")] = None,
    by_image: Annotated[bool, Field(description="Split by image; people may leak.")] = False,
    split_file: Annotated[Path | None, Field(description="A given split to obey.")] = None,
    models: Annotated[tuple[str, ...], Field(description="Models to train.")] = MODELS,
    run: Annotated[str, Field(description="Name of the run whose links move.")] = "main",
    config: Annotated[Config, Field(description="The recipe.")] = Config(),  # noqa: B008 (frozen)
    until: Annotated[str, Field(description="The last stage.")] = "report",
    refresh: Annotated[frozenset[str], Field(description="Stages to make anew.")] = frozenset(),
    verify: Annotated[bool, Field(description="Hash all files before trusting them.")] = False,
) -> None:
    """Bring a run up to date: do what its inputs and settings need, and nothing else.

    Raises:
        PneumoniaError: whatever a stage found wrong, as it said it.
    """
    tell_stages()
    request = Request(
        raw=raw,
        workspace=workspace,
        config=config,
        run=run,
        models=models,
        persons=persons,
        by_image=by_image,
        split_file=split_file,
        refresh=frozenset(refresh),
        verify=verify,
    )
    check(request, until)
    logger.info("%s", needs(request, until))

    outcomes: dict[str, Outcome] = {}

    def visit(stage: Stage, context: Context) -> Reference:
        if stage is SHARDS:
            convert_new_files(context)
        outcome = outcomes[stage.name] = stage.run(context)
        logger.info("%s", stage_line(stage.link_name(context.member), stage, outcome))
        return outcome.reference

    references = walk(request, until, visit)
    if REPORT.name in references:
        publish(request, references, pictures=not outcomes[REPORT.name].cached)
        logger.info("Report: %s", workspace / "runs" / run / REPORT.name / "report.html")


def convert_new_files(context: Context) -> None:
    """Convert what is new or changed in the raw folder, a Prefect task per pool shard."""
    keys = find_files(context)
    if not keys:
        return
    clock = time.monotonic()
    config = context.request.config
    convert = conversion.with_options(task_runner=task_runner(config))
    if config.runtime.task_runner == "dask":  # a process a core, so a thread each
        single = replace(config, runtime=replace(config.runtime, workers=1))
        context = replace(context, request=replace(context.request, config=single))
    shards, images = convert(context, keys)
    seconds = time.monotonic() - clock
    if shards:  # else another process made them all meanwhile
        told = f"{images:,} new images in {shards:,} pool shards"
        logger.info("%s", _line("pool", "ran", seconds, told))


@flow(name="conversion", persist_result=False, validate_parameters=False)
def conversion(context: Context, keys: list[str]) -> tuple[int, int]:
    """Convert the batches that wait under these keys; returns shards made here and their images."""
    futures = [
        convert_shard.with_options(task_run_name=f"pool-{key[:8]}").submit(
            replace(context, batch=key)
        )
        for key in keys
    ]
    shards = images = 0
    for done, future in enumerate(futures, start=1):
        outcome = future.result()
        if not outcome.cached:
            shards, images = shards + 1, images + outcome.facts["images"]
        if done < len(keys) and done * 10 // len(keys) > (done - 1) * 10 // len(keys):
            logger.info("  pool: %d of %d shards, %s images", done, len(keys), f"{images:,}")
    return shards, images


def task_runner(config: Config) -> TaskRunner[Any]:
    """What runs the conversion: threads of this process, or a Dask cluster on this machine.

    Raises:
        ConfigError: Dask is asked for and not installed.
    """
    if config.runtime.task_runner == "threads":
        return ThreadPoolTaskRunner(max_workers=SHARDS_AT_ONCE)
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise ConfigError(
            "runtime.task_runner: expected the packages of the `dask` extra, got none. "
            "Install them with `pip install 'pneumonia[dask]'`, or set runtime.task_runner=threads."
        ) from None
    cluster = {"n_workers": workers(config), "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=cluster)


def stage_line(name: str, stage: Stage, outcome: Outcome) -> str:
    """What the console says of a stage that has ended."""
    state = "cached" if outcome.cached else "ran"
    return _line(name, state, outcome.seconds, stage.describe(outcome.facts), outcome.reason)


def _line(name: str, state: str, seconds: float, told: str, reason: str = "") -> str:
    line = f"{name:<28} {state:<6} {seconds:7.1f} s  {told}"
    return f"{line} ({reason})" if reason else line
