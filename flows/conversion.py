"""New and changed files into pool shards: a Prefect flow of its own, a task per shard."""

import logging
import time
from dataclasses import replace
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.installation import check_same, installation
from flows.stages import console_line
from pneumonia.config import Config
from pneumonia.errors import ConfigError
from pneumonia.machine import workers
from tasks.caching import Context
from tasks.shards import convert_shard, find_files

logger = logging.getLogger(__name__)

SHARDS_AT_ONCE = 2
"""Shards in work at once: one decodes while the other is hashed and brought to the disk."""


def convert_new_files(context: Context) -> int:
    """Convert what is new or changed in the raw folder; returns how many images came of it."""
    keys = find_files(context)
    if not keys:
        return 0
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
        logger.info("%s", console_line("pool", "ran", seconds, told))
    return images


@flow(
    name="conversion", flow_run_name="conversion", persist_result=False, validate_parameters=False
)
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
    """What runs the conversion: threads of this process, or a Dask cluster, here or elsewhere.

    Raises:
        ConfigError: Dask is asked for and not installed, its scheduler does not answer, or one of
            its workers has another installation.
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
    address = config.runtime.dask_scheduler
    if address:
        _check_workers(address)
        return DaskTaskRunner(address=address)
    cluster = {"n_workers": workers(config), "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=cluster)


def _check_workers(address: str) -> None:
    """See that a Dask cluster answers, has workers, and that they run this installation."""
    from distributed import Client

    try:
        with Client(address, timeout="10s") as client:  # type: ignore[no-untyped-call]
            found: dict[str, dict[str, str]] = client.run(installation)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"runtime.dask_scheduler: expected a Dask scheduler at {address}, got {error}. Start "
            "it (`dask scheduler`), or unset the setting for a cluster of this machine's cores."
        ) from None
    if not found:
        raise ConfigError(
            f"runtime.dask_scheduler: expected workers at {address}, got none. Start some: "
            f"`dask worker {address} --nthreads 1`, where this project is installed."
        )
    for worker, theirs in found.items():
        check_same(theirs, installation(), where=f"Dask's worker {worker}")
