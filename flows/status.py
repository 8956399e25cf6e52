"""What stands in a workspace: fresh or stale, whole or damaged."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.preflight import check
from flows.stages import STAGES, members, walk
from pneumonia.artifacts import Reference, changes, find_damage, read_manifest
from pneumonia.errors import ConfigError, CorruptArtifactError
from pneumonia.machine import cores
from pneumonia.workspace import Workspace
from tasks.caching import Context, Request, Stage, manifest_of, reason_to_run
from tasks.shards import POOL, SHARDS, new_batches, settings


def status_lines(asked: dict[str, Any]) -> list[str]:
    """A line per stage: fresh, stale and why, or waiting for a stage before it."""
    request = Request(**asked)
    check(request, STAGES[-1].name, to_run=False)
    if not request.workspace.is_dir():
        raise ConfigError(
            f"--workspace: expected a workspace, got {request.workspace}, which is no folder. Mend "
            "the path, or make one with `pneumonia run`."
        )
    lines: list[str] = []

    def visit(stage: Stage, contexts: list[Context]) -> Iterator[Reference | None]:
        for context in contexts:
            state, told, reference = state_of(stage, context)
            lines.append(f"{stage.link_name(context.member):<28} {state:<8} {told}")
            yield reference

    walk(request, STAGES[-1].name, visit)
    return lines


def find_all_damage(root: Path) -> Iterator[str]:
    """Hash every file of every artifact; a sentence per damaged or missing one.

    Raises:
        ConfigError: there is no such workspace.
    """
    workspace = Workspace(root)
    references = workspace.references() if root.is_dir() else []
    if not references:
        raise ConfigError(
            f"--workspace: expected a folder with artifacts, got {root}, which has none. Mend the "
            "path, or make some with `pneumonia run`."
        )
    used = {reference for _, reference in workspace.links()}
    for link, reference in workspace.links():
        if reference not in references:
            yield f"runs/{link}: {reference} is missing. `pneumonia run` makes it again."
    with ThreadPoolExecutor(cores(), thread_name_prefix="verify") as threads:
        # Hashing lets go of the interpreter: each core hashes an artifact of its own.
        for found in threads.map(lambda each: _damage_of(workspace, each, used), references):
            yield from found


def _damage_of(workspace: Workspace, reference: Reference, used: set[Reference]) -> list[str]:
    """A sentence per damaged, missing or unreadable file of an artifact."""
    folder = workspace.path(reference)
    try:
        manifest = read_manifest(folder, reference)
        damage = find_damage(folder, manifest, hashed=True)
    except CorruptArtifactError as error:
        return [str(error)]
    except OSError as error:  # the disk's fault: the other artifacts are still to be told of
        return [f"{error.filename or folder}: cannot be read: {error.strerror}. Mend the disk."]
    return [f"{folder}/{each}. {_cure(reference, used)}" for each in damage]


def _cure(reference: Reference, used: set[Reference]) -> str:
    if reference in used or reference.stage == POOL.name:
        return "`pneumonia run --verify` with the settings that it was made with makes it again."
    return "No run uses it any more: delete the folder."


def state_of(stage: Stage, context: Context) -> tuple[str, str, Reference | None]:
    """Whether a stage is `fresh`, `stale` or `waiting`, why, and its artifact where it is fresh."""
    missing = _missing(stage, context)
    if missing:
        return "waiting", f"for {', '.join(missing)}; made anew only if what it reads changes", None
    new = sum(len(batch) for batch in new_batches(context)) if stage is SHARDS else 0
    if new:
        return "stale", _to_convert(new, context), None
    plan = stage.plan(context)
    manifest = manifest_of(stage, plan)
    reference = Reference(manifest.stage, manifest.key)
    artifact = context.workspace.find(reference, hashed=context.request.verify)
    if artifact is not None and plan.usable(artifact):
        return "fresh", f"{reference}: {stage.describe(artifact.manifest.facts)}", reference
    name = stage.link_name(context.member)
    run = context.request.run
    return "stale", reason_to_run(context.workspace, run, name, manifest, refresh=False), None


def _to_convert(new: int, context: Context) -> str:
    """Why files have to be converted: they are new, or their settings are."""
    last = context.workspace.linked(context.request.run, SHARDS.name)
    artifact = context.workspace.find(last) if last else None
    if artifact is None:
        return f"{new:,} new files, none converted yet"
    now = settings(context.request.config.shards)
    told = changes(artifact.manifest.configuration, now)
    if told:
        return f"{', '.join(told)}: {new:,} files to convert"
    return f"{new:,} new files since {artifact.reference.key[:8]}"


def _missing(stage: Stage, context: Context) -> list[str]:
    """What a stage reads and what is not there, by link name."""
    by_name = {other.name: other for other in STAGES}
    needed: list[str] = []
    for other in (by_name[name] for name in stage.needs):
        for model, seed in members(other, context.request):
            of_another_model = stage.per_model and other.per_model and model != context.model
            of_another_seed = stage.per_seed and other.per_seed and seed != context.seed
            if not (of_another_model or of_another_seed):
                needed.append(other.link_name(replace(context, model=model, seed=seed).member))
    return [name for name in needed if name not in context.upstream]
