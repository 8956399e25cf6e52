"""Look at the raw folder, and have the pipeline started where something has changed.

A light flow for a short schedule: it converts, trains and writes nothing but a note of what it has
told. The trigger in prefect.yaml starts the pipeline on its event.
"""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import events
from flows import parameters as asked
from flows.console import tell_stages
from flows.deployments import name_run
from flows.preflight import check
from flows.stages import walk
from flows.status import state_of
from pneumonia.artifacts import Reference, digest
from pneumonia.config import MODELS, Config, as_dict
from pneumonia.shards import batch_identity
from pneumonia.workspace import Workspace
from tasks.caching import Context, Request, Stage, manifest_of
from tasks.shards import SHARDS, new_batches
from tasks.split import SPLIT

logger = logging.getLogger("flows.watch")  # a worker may load this file under another name

Found = Literal["changed", "told", "unchanged"]


@flow(
    name="watch",
    description="Have the pipeline started where labels, files or the map of people have changed.",
    flow_run_name=name_run,
    persist_result=False,
)
@asked.described
def watch(
    raw: asked.Raw,
    workspace: asked.Workspace,
    persons: asked.Persons = None,
    by_image: asked.ByImage = False,
    split_file: asked.SplitFile = None,
    run: asked.Run = "main",
    config: asked.Config = Config(),  # noqa: B008 (frozen)
) -> State[str]:
    """Emit `pneumonia.data.changed` where labels, files or the map of people have changed.

    A change is told once; files still being copied wait. The flow run is tagged `changed`, `told`
    (the pipeline has not taken it in yet) or `unchanged`, which the list of runs shows.
    """
    tell_stages()
    request = Request(
        raw=raw,
        workspace=workspace,
        config=config,
        run=run,
        models=MODELS,
        persons=persons,
        by_image=by_image,
        split_file=split_file,
    )
    check(request, SPLIT.name)
    with Workspace(workspace).in_use(make=False):
        changes, seen = look(request)
    told = "; ".join(f"{name}: {why}" for name, why in changes.items())
    note = workspace / ".state" / "watch" / f"{run}.json"
    if not changes:
        return _ended("unchanged", "nothing has changed")
    if _last_told(note) == seen:
        return _ended("told", f"told before, and the pipeline has not taken it in yet: {told}")
    logger.info("%s", told)
    events.tell(events.DATA_CHANGED, run, told, parameters=_parameters(request))
    ended = _ended("changed", told)  # which shows that the API has taken what was told
    _write(note, seen)
    return ended


def look(request: Request) -> tuple[dict[str, str], str]:
    """What has changed since the run was brought up to date, as far as its split.

    Returns:
        Why, by stage; and a digest of what stands there now.
    """
    changes: dict[str, str] = {}
    seen: list[object] = []

    def visit(stage: Stage, contexts: list[Context]) -> list[Reference | None]:
        [context] = contexts  # none of these stages is per model
        state, why, reference = state_of(stage, context)
        if state == "waiting":  # for a stage before it, which is told already
            return [None]
        if stage is SHARDS:
            seen.extend(batch_identity(batch) for batch in new_batches(context))
        seen.append(manifest_of(stage, stage.plan(context)).key)
        if state == "stale":
            changes[stage.name] = why
        return [reference]

    walk(request, SPLIT.name, visit)
    return changes, digest(seen)


def _parameters(request: Request) -> dict[str, Any]:
    """What the pipeline is started with: what the watch was asked for, its paths as they stand.

    A relative one starts from `PNEUMONIA_HOME` of the machine that runs the pipeline.
    """
    places = {
        name: None if path is None else str(path)
        for name, path in (
            ("raw", request.raw),
            ("workspace", request.workspace),
            ("persons", request.persons),
            ("split_file", request.split_file),
        )
    }
    config = as_dict(request.config)
    return {**places, "by_image": request.by_image, "run": request.run, "config": config}


def _last_told(note: Path) -> str | None:
    """The digest of what was told last; a note that cannot be read tells it once more."""
    try:
        return str(json.loads(note.read_text("utf-8"))["seen"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(note: Path, seen: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(f".{os.getpid()}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    fresh.write_text(json.dumps({"seen": seen, "told": now}) + "\n", "utf-8")
    fresh.replace(note)


def _ended(found: Found, told: str) -> State[str]:
    """The flow run's end, marked for the list of runs."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.id), tags=sorted({*flow_run.tags, found}))
    return Completed(message=told, data=told)
