"""The eight stages, who reads whom, the order that follows, and what the console says of them."""

from collections.abc import Callable, Iterable

from pneumonia.artifacts import Reference
from pneumonia.errors import ConfigError
from tasks.caching import Context, Outcome, Request, Stage
from tasks.cam import CAM
from tasks.evaluation import EVALUATION
from tasks.labels import LABELS
from tasks.predictions import PREDICTIONS
from tasks.report import REPORT
from tasks.shards import SHARDS
from tasks.split import SPLIT
from tasks.training import TRAINING

STAGES = (LABELS, SHARDS, SPLIT, TRAINING, PREDICTIONS, EVALUATION, CAM, REPORT)
NAMES = tuple(stage.name for stage in STAGES)


def stages_until(last: str, option: str = "--until") -> tuple[Stage, ...]:
    """The stages that `last` needs, and itself, in order.

    Args:
        option: what named it, for the error.

    Raises:
        ConfigError: no stage has that name.

    >>> [stage.name for stage in stages_until("split")]
    ['labels', 'shards', 'split']
    """
    by_name = {stage.name: stage for stage in STAGES}
    if last not in by_name:
        raise ConfigError(f"{option}: expected one of {', '.join(NAMES)}, got {last!r}.")
    needed = {last}
    for stage in reversed(STAGES):  # a stage stands behind all that it needs
        if stage.name in needed:
            needed.update(stage.needs)
    return tuple(stage for stage in STAGES if stage.name in needed)


Visit = Callable[[Stage, list[Context]], Iterable[Reference | None]]


def walk(request: Request, until: str, visit: Visit) -> dict[str, Reference]:
    """Visit every stage that `until` needs, with the references of what stands upstream of it.

    Args:
        visit: makes or finds a stage's artifacts, of all its members at once; None for one that
            there is none of.

    Returns:
        The references by link name (`labels`, `training-resnet18`).
    """
    references: dict[str, Reference] = {}
    for stage in stages_until(until):
        upstream = dict(references)
        contexts = [Context(request, upstream, *member) for member in members(stage, request)]
        for context, reference in zip(contexts, visit(stage, contexts), strict=True):
            if reference is not None:
                references[stage.link_name(context.member)] = reference
    return references


def members(stage: Stage, request: Request) -> list[tuple[str, int | None]]:
    """The model and seed of each artifact of a stage; None stands for the first seed."""
    if not stage.per_model:
        return [("", None)]
    further = request.config.training.all_seeds[1:] if stage.per_seed else ()
    return [(model, seed) for model in request.models for seed in (None, *further)]


def stage_line(name: str, stage: Stage, outcome: Outcome) -> str:
    """What the console says of a stage that has ended."""
    state = "cached" if outcome.cached else "ran"
    told = stage.describe(outcome.facts)
    return console_line(name, state, outcome.seconds, told, outcome.reason)


def console_line(name: str, state: str, seconds: float, told: str, reason: str = "") -> str:
    """One line of the console: what, cached or ran, how long, and what came of it."""
    line = f"{name:<28} {state:<6} {seconds:7.1f} s  {told}"
    return f"{line} ({reason})" if reason else line
