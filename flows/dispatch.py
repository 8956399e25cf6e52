"""Trainings as flow runs of their own, on the workers that serve the pool of `training`.

With `runtime.dispatch=deployments` the pipeline sends each training that must run to the
deployment `training/<its own name>` and waits. Where two workers serve the pool, both models train
side by side; where one does, one after the other. What comes of it is found in the workspace,
which must be on a file system that all machines share.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.deployments import sibling
from flows.installation import installation
from pneumonia.artifacts import Reference
from pneumonia.config import as_dict
from pneumonia.errors import ConfigError, TrainingError
from tasks.caching import Context, Request, manifest_of
from tasks.training import TRAINING

logger = logging.getLogger("flows.dispatch")  # a worker may load this file under another name

POLL_SECONDS = 2.0

PATIENCE_SECONDS = 60.0
"""How long a training may wait for a worker before that is told."""

ATTEMPTS = 3
"""Times that a training is sent whose process or worker died; each goes on where the last was."""


@dataclass
class Sent:
    """A training that was sent, and how often it has been."""

    context: Context
    run: FlowRun
    attempt: int = 1
    told: bool = False

    @property
    def name(self) -> str:
        """Its link name, `training-resnet18`."""
        return TRAINING.link_name(self.context.member)


def dispatch(contexts: list[Context]) -> tuple[list[Context], list[str]]:
    """Have all trainings made that are not there yet.

    Returns:
        The contexts with which this run finds them: none of them asks to refresh any more; and
        the names of those that were sent.

    Raises:
        ConfigError: there is no such deployment, or its workers see another workspace.
        TrainingError: one failed, or its processes died three times.
    """
    waiting = [context for context in contexts if not is_made(context)]
    if waiting:
        deployment = sibling(TRAINING.name)
        with _ended_with_this_run() as (client, running):
            for context in waiting:
                running.append(Sent(context, _send(deployment, context)))
                logger.info("%s is sent to %s.", running[-1].name, deployment)
            _wait(client, deployment, running)
    found = [_without_refresh(context) for context in contexts]
    for context in found:
        if not is_made(context):
            raise ConfigError(
                f"runtime.dispatch: expected {TRAINING.link_name(context.member)} in "
                f"{context.request.workspace} once its run had ended, got none. The workers of "
                "the pool must see the same workspace, on a shared file system, under this path."
            )
    return found, [TRAINING.link_name(context.member) for context in waiting]


def is_made(context: Context) -> bool:
    """Whether the training stands in the workspace, made here or by a worker."""
    if TRAINING.name in context.request.refresh:
        return False
    manifest = manifest_of(TRAINING, TRAINING.plan(context))
    reference = Reference(manifest.stage, manifest.key)
    found = context.workspace.find(reference, hashed=context.request.verify)
    return found is not None


def parameters(context: Context) -> dict[str, Any]:
    """What the deployment of `training` is asked for, as plain values.

    Its runs train in their own process, and only there is the training made anew where that is
    asked for.
    """
    request = context.request
    here = replace(request.config.runtime, dispatch="in_process")
    seed = request.config.training.all_seeds[0] if context.seed is None else context.seed
    return {
        **_plain(request),
        "config": as_dict(replace(request.config, runtime=here)),
        "refresh": TRAINING.name in request.refresh,
        "model": context.model,
        "seed": seed,
        "sender": installation(),
    }


def _plain(request: Request) -> dict[str, Any]:
    values = asdict(request)
    for name in ("raw", "workspace", "persons", "split_file"):
        values[name] = None if values[name] is None else str(values[name])
    for name in ("config", "refresh", "models", "noted_as"):
        del values[name]
    return values


def _without_refresh(context: Context) -> Context:
    request = context.request
    return replace(context, request=replace(request, refresh=request.refresh - {TRAINING.name}))


def _send(deployment: str, context: Context) -> FlowRun:
    try:
        run = run_deployment(deployment, parameters=parameters(context), timeout=0)
        return cast("FlowRun", run)  # no coroutine: a flow of this project is not async
    except ObjectNotFound:
        raise ConfigError(
            f"runtime.dispatch: expected the deployment {deployment}, got none of that name. "
            "Make it (`prefect deploy --all`), or set runtime.dispatch=in_process."
        ) from None


def _wait(client: SyncPrefectClient, deployment: str, running: list[Sent]) -> None:
    """Wait until all that were sent have completed; send again what lost its process."""
    while running:
        time.sleep(POLL_SECONDS)
        for sent in list(running):
            sent.run = client.read_flow_run(sent.run.id)
            state = sent.run.state
            if state is None or not state.is_final():
                _tell_if_late(sent)
            elif state.is_completed():
                running.remove(sent)
                logger.info("%s has ended: %s", sent.name, state.message or state.name)
            elif state.is_crashed() and sent.attempt < ATTEMPTS:
                logger.warning("%s lost its process and is sent again.", sent.name)
                running[running.index(sent)] = Sent(
                    sent.context, _send(deployment, sent.context), sent.attempt + 1
                )
            else:
                raise TrainingError(
                    f"{sent.name}: expected its run {sent.run.name!r} to complete, got "
                    f"{state.name}: {state.message or 'without a message'}. Mend that and retry "
                    "this run: it goes on from the last resume point."
                )


def _tell_if_late(sent: Sent) -> None:
    """Say once that no worker has taken a run for a while."""
    state, due = sent.run.state, sent.run.expected_start_time
    waits = state is not None and state.type is StateType.SCHEDULED and due is not None
    if waits and not sent.told and due is not None:
        seconds = (datetime.now(UTC) - due).total_seconds()
        if seconds > PATIENCE_SECONDS:
            pool = sent.run.work_pool_name or "gpu"
            logger.warning(
                "%s has waited %.0f s for a worker. Each that serves the pool %s takes one at a "
                "time; start one more with `prefect worker start --pool %s --limit 1`.",
                sent.name, seconds, pool, pool,
            )  # fmt: skip
            sent.told = True


@contextmanager
def _ended_with_this_run() -> Iterator[tuple[SyncPrefectClient, list[Sent]]]:
    """Cancel what was sent and is still at work when this run is cancelled or fails."""
    running: list[Sent] = []
    with get_client(sync_client=True) as client:
        try:
            yield client, running
        except BaseException:
            for sent in running:
                _cancel(client.set_flow_run_state, sent)
            raise


def _cancel(set_state: Callable[..., Any], sent: Sent) -> None:
    run: UUID = sent.run.id
    try:
        set_state(run, Cancelling(message="The run that sent it has ended."))
    except Exception as error:  # noqa: BLE001 (whatever ended this run comes first)
        logger.warning("%s could not be cancelled: %s", sent.name, error)
