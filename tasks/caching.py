"""How a stage becomes a Prefect task whose result is cached by content.

The workspace is the only truth: a task computes its key from what the stage reads, its settings
and its version, and ends in Prefect's state `Cached` where a complete artifact stands under that
key. Prefect persists nothing, so nothing can disagree with the workspace.
"""

import errno
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.tasks import Task

from pneumonia.artifacts import Artifact, Facts, Manifest, Reference, changes, digest, read_manifest
from pneumonia.config import Config
from pneumonia.errors import CorruptArtifactError
from pneumonia.notes import Note
from pneumonia.workspace import Scratch, Workspace
from tasks.notes import leave
from tasks.source import code_digest, modules_behind

LIBRARIES = ("numpy", "opencv-python-headless", "pandas", "pydicom", "torch", "torchvision")

PASSING_FAULTS = frozenset(
    {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
)
"""Faults of a disk or a network that can pass; a full disk or a missing file cannot."""


@dataclass(frozen=True)
class Request:
    """What a run was asked for.

    Args:
        noted_as: what its notes in the UI are called after, where that is not the run.
    """

    raw: Path
    workspace: Path
    config: Config
    run: str = "main"
    models: tuple[str, ...] = ()
    persons: Path | None = None
    by_image: bool = False
    split_file: Path | None = None
    refresh: frozenset[str] = frozenset()
    verify: bool = False
    noted_as: str = ""


@dataclass(frozen=True)
class Context:
    """What a stage may look at while it plans: the request and the artifacts upstream of it.

    Args:
        upstream: references by link name (`labels`, `training-resnet18`).
        model: the model, for a stage per model.
        seed: which of its trainings, for a stage per seed; None: that of the first seed.
        batch: the key of the pool shard, for a conversion.
    """

    request: Request
    upstream: Mapping[str, Reference]
    model: str = ""
    seed: int | None = None
    batch: str = ""

    @property
    def member(self) -> str:
        """The model, and the seed where it is not the first: `resnet18`, `resnet18-seed1`."""
        return self.model if self.seed is None else f"{self.model}-seed{self.seed}"

    @property
    def workspace(self) -> Workspace:
        """The run's workspace."""
        return Workspace(self.request.workspace)

    def name(self, stage: str) -> str:
        """The link name of an upstream stage; for a stage per model, that of this member."""
        own = f"{stage}-{self.member}"
        return own if own in self.upstream else stage

    def artifact(self, stage: str) -> Artifact:
        """The upstream artifact of a stage; for a stage per model, that of this model."""
        return self.workspace.get(self.upstream[self.name(stage)])

    def artifacts(self, stage: str) -> dict[str, Artifact]:
        """The upstream artifacts of a stage per model, by model."""
        return {
            model: self.workspace.get(self.upstream[f"{stage}-{model}"])
            for model in self.request.models
        }

    def seeds(self, stage: str) -> dict[str, dict[int, Artifact]]:
        """The upstream artifacts of a stage per seed, by model and seed, the first seed first."""
        return {
            model: {
                seed: context.artifact(stage)
                for seed, context in replace(self, model=model).of_each_seed().items()
            }
            for model in self.request.models
        }

    def of_each_seed(self) -> dict[int, "Context"]:
        """This model's contexts by seed, the first seed first."""
        first, *further = self.request.config.training.all_seeds
        return {first: replace(self, seed=None)} | {
            seed: replace(self, seed=seed) for seed in further
        }


@dataclass(frozen=True)
class Plan:
    """What a stage reads and how it is set, which is its key, and the work itself.

    Args:
        inputs: content digest per input, of the rows and columns that the work reads.
        configuration: settings, as resolved, that can change the bytes written.
        write: fills `scratch.output` and returns the facts.
        usable: a last doubt about a complete artifact, for one that points to others.
    """

    inputs: dict[str, str]
    configuration: dict[str, Any]
    write: Callable[[Scratch], Facts]
    usable: Callable[[Artifact], bool] = lambda _: True


@dataclass(frozen=True)
class Outcome:
    """How a stage ended."""

    reference: Reference
    facts: Facts
    cached: bool
    reason: str
    seconds: float


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Args:
        name: the noun of its task, folder, test and deployment.
        version: raised when its output can change for the same inputs.
        plan: reads what upstream offers, says what the work would be.
        describe: its facts as half a line for the console.
        needs: the stages it reads from.
        per_model: one artifact a model.
        per_seed: one a seed too.
        runs: modules that its work runs without importing them.
        keyed_by_code: an edit of the code behind it makes it anew; for stages that take seconds.
        part_of: the stage it works for; it has no link of its own in a run then.
        note: writes what it leaves in the UI where it ran; part of no key.
    """

    name: str
    version: int
    plan: Callable[[Context], Plan]
    describe: Callable[[Facts], str]
    needs: tuple[str, ...] = ()
    per_model: bool = False
    per_seed: bool = False
    runs: tuple[str, ...] = ()
    keyed_by_code: bool = True
    part_of: str = ""
    note: Callable[[Context, Artifact], Note] | None = None
    task: Task[[Context], Outcome] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the Prefect task."""

        @task(name=self.name, **OPTIONS)
        def make_stage(context: Context) -> Outcome:
            return make(self, context, self.plan(context))

        object.__setattr__(self, "task", make_stage)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that its output depends on."""
        return modules_behind(self.plan.__module__, *self.runs)

    def link_name(self, member: str = "") -> str:
        """The name under which a run keeps its artifact: `labels`, `training-resnet18-seed1`."""
        return f"{self.name}-{member}" if self.per_model else self.name

    def run(self, context: Context) -> Outcome:
        """Run as a task of the current flow; a failure raises what the stage raised."""
        hours = context.request.config.runtime.stage_hours
        named = self.task.with_options(
            task_run_name=self.link_name(context.member), timeout_seconds=hours * 3600 or None
        )
        state: State[Outcome] = named(context, return_state=True)
        return state.result()


def make(stage: Stage, context: Context, plan: Plan) -> Outcome:
    """Serve a complete artifact or make it, and link it to the run where the stage has links."""
    clock = time.monotonic()
    request, workspace = context.request, context.workspace
    manifest = manifest_of(stage, plan)
    reference = Reference(manifest.stage, manifest.key)
    name = stage.link_name(context.member)
    refresh = bool({stage.name, stage.part_of} & request.refresh)

    def found() -> Artifact | None:
        artifact = None if refresh else workspace.find(reference, hashed=request.verify)
        return artifact if artifact and plan.usable(artifact) else None

    artifact = found()
    cached, reason = artifact is not None, "nothing it reads has changed"
    if artifact is None:
        why = reason_to_run(workspace, request.run, name, manifest, refresh=refresh)
        with workspace.lock(reference) as lock:
            artifact = found()
            cached, reason = artifact is not None, "made by another process meanwhile"
            if artifact is None:
                reason = why
                artifact = workspace.build(manifest, plan.write, lock=lock)
    if not stage.part_of:
        workspace.link(request.run, name, reference)
    outcome = Outcome(reference, artifact.manifest.facts, cached, reason, time.monotonic() - clock)
    told = stage.describe(outcome.facts)
    if stage.note is not None and not cached:
        names = (stage.name, request.noted_as or request.run, name.removeprefix(stage.name))
        leave(names, told, reference, reason, partial(stage.note, context, artifact))
    return ended(outcome, f"{reference}: {told} ({reason})")


def ended(outcome: Outcome, message: str) -> Outcome:
    """An outcome as the Prefect state that a task returns.

    Prefect takes the state for the task's own, so that the UI shows `Cached` and the message, and
    gives its data to whoever asks for the task's result: hence the type.
    """
    name = "Cached" if outcome.cached else "Completed"
    return cast("Outcome", Completed(name=name, message=message, data=outcome))


def manifest_of(stage: Stage, plan: Plan) -> Manifest:
    """The manifest that a plan's artifact will have, still without facts and files."""
    code = code_digest(stage.modules) if stage.keyed_by_code else ""
    identity = {
        "stage": stage.name,
        "version": stage.version,
        "code": code,
        "inputs": plan.inputs,
        "configuration": plan.configuration,
    }
    return Manifest(
        stage=stage.name,
        key=digest(identity),
        version=stage.version,
        code=code,
        inputs=plan.inputs,
        configuration=plan.configuration,
        libraries=library_versions(),
    )


def reason_to_run(
    workspace: Workspace, run: str, name: str, manifest: Manifest, *, refresh: bool
) -> str:
    """Say in words why a stage has to run, by comparing with what the run used last."""
    if refresh:
        return "asked for by --refresh"
    last = workspace.linked(run, name)
    if last is None:
        return "first run"
    try:
        old = read_manifest(workspace.path(last))
    except CorruptArtifactError:
        return "its artifact is missing or damaged"
    reasons = [
        f"{name} changed" if name in old.inputs else f"{name} is new"
        for name in manifest.inputs
        if manifest.inputs[name] != old.inputs.get(name)
    ]
    reasons += [f"{name} is gone" for name in old.inputs if name not in manifest.inputs]
    reasons += changes(old.configuration, manifest.configuration)
    if old.version != manifest.version:
        reasons.append(f"version {old.version} -> {manifest.version}")
    if old.code != manifest.code:
        reasons.append("its code changed")
    return ", ".join(reasons) or "its artifact is missing or damaged"


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change results."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def can_pass(_: object, __: object, state: State[Any]) -> bool:
    """Whether a failed task is worth another try (Prefect's `retry_condition_fn`)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError) and error.errno in PASSING_FAULTS


OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 3,
    "retry_delay_seconds": [2, 10, 60],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": can_pass,
}
"""How every task of the project runs: nothing stored in Prefect, retried where a fault can pass."""
