"""Notes in Prefect: what a stage that ran leaves in the UI, and how far a training is.

In: a note of the library, or a training's epochs. Out: Prefect artifacts of the current task run.
Their keys are the same from run to run, so the UI shows the last version and those before it.

A stage has done its work when its note is made, so no fault of a note or of Prefect's API fails
it: it is told once, and nothing more is sent for that flow run.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pneumonia.artifacts import Reference
from pneumonia.errors import PneumoniaError
from pneumonia.markdown import escaped
from pneumonia.notes import Note

logger = logging.getLogger(__name__)

RETRIES = 1
"""Of a call to the API: Prefect's own five would hold a training up for a minute."""

_FAILED: set[UUID] = set()
"""Flow runs (of a task without a flow, the task run) for which a call has failed."""


def key_of(*names: str) -> str:
    """Prefect's key for some names: lower case, digits and single dashes; empty ones left out.

    >>> key_of("training", "lr_3e.4", "custom_cnn-seed1")
    'training-lr-3e-4-custom-cnn-seed1'
    """
    return re.sub("[^a-z0-9]+", "-", "-".join(filter(None, names)).lower()).strip("-")


def leave(
    names: tuple[str, ...],
    description: str,
    reference: Reference,
    reason: str,
    write: Callable[[], Note],
) -> None:
    """Leave a note in the UI; outside a task run it is not even written.

    Args:
        names: what its key is made of: stage, run and, where there are several, member.
        description: one line.
        reference: the artifact it tells of.
        reason: why the stage ran.
        write: makes the note.
    """
    if TaskRunContext.get() is None:
        return
    key = key_of(*names)
    try:
        note = write()
    except Exception as error:  # the artifact is complete, whatever a picture meets
        expected = isinstance(error, (PneumoniaError, OSError))
        logger.warning("%s: the note could not be made: %s", key, error, exc_info=not expected)
        return
    why = f"`{reference.stage}/{reference.key}` in the workspace. Why it ran: {escaped(reason)}."
    kinds: list[tuple[Callable[..., Any], Mapping[str, Any]]] = [
        (create_markdown_artifact, {"": f"{note.markdown}\n\n{why}"}),
        (create_table_artifact, note.tables),
        (create_image_artifact, note.pictures),
        (create_link_artifact, note.links),
    ]
    for create, contents in kinds:
        for ending, content in contents.items():
            named = {"key": key_of(key, ending), "description": description}
            _send(partial(create, content, **named))


@contextmanager
def progress(key: str, epochs: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show live how far a training is; where it ends well, at 100 %, however early.

    Args:
        epochs: there are at most.

    Yields:
        What takes the figures of an epoch: `epoch`, `val_loss` and `val_auroc`.
    """
    last = "no epoch"
    artifact = None
    if TaskRunContext.get() is not None:
        told = f"{last} of at most {epochs}"
        artifact = _send(partial(create_progress_artifact, 0.0, key=key, description=told))

    def show(percent: float, told: str) -> None:
        if artifact is not None:
            _send(partial(update_progress_artifact, artifact, percent, description=told))

    def tell(epoch: Mapping[str, Any]) -> None:
        nonlocal last
        last = (
            f"epoch {epoch['epoch']} of at most {epochs}: val loss {epoch['val_loss']:.3f}, "
            f"val AUROC {epoch['val_auroc']:.3f}"
        )
        show(100 * epoch["epoch"] / epochs, last)

    yield tell
    show(100.0, f"done after {last}")


def _send(call: Callable[[], Any]) -> Any:  # noqa: ANN401 (Prefect types each as a coroutine too)
    """Make one call to the API; None where it failed, now or before in this flow run."""
    context = TaskRunContext.get()
    if context is None:
        return None
    run = context.task_run.flow_run_id or context.task_run.id
    if run in _FAILED:
        return None
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RETRIES}):
            return call()
    except Exception as error:  # noqa: BLE001 (whatever the client raises is no fault of the stage)
        _FAILED.add(run)
        logger.warning(
            "Prefect's API: expected it to keep a note, got %s: %s. The run goes on; it leaves no "
            "further notes.", type(error).__name__, error,
        )  # fmt: skip
        return None
