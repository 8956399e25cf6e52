"""What `pneumonia gc` and `pneumonia status --disk` say of a workspace, and gc's doing."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.stages import NAMES
from pneumonia.artifacts import Reference
from pneumonia.errors import ConfigError
from pneumonia.needs import Needs, find_needs
from pneumonia.pins import drop_run
from pneumonia.retention import Plan, Removal, Rules, alone, plan_removals, remove
from pneumonia.usage import Item, survey
from pneumonia.workspace import Workspace
from tasks.external import EXTERNAL
from tasks.shards import POOL

logger = logging.getLogger(__name__)

HOLDING = (POOL.name, *NAMES, EXTERNAL)
"""Names that a folder of artifacts can have, in the order in which they are listed."""


@dataclass(frozen=True)
class Cleaning:
    """What `gc` was asked for.

    Args:
        rules: what may go.
        dropped: runs whose links go too.
        delete: do it; otherwise it is only told.
    """

    rules: Rules
    dropped: Sequence[str] = ()
    delete: bool = False


def cleaning_lines(root: Path, asked: Cleaning) -> Iterator[str]:
    """Say what goes and why, stage by stage, and where it is asked for delete it.

    Yields:
        Lines for the console, while it is done.

    Raises:
        ConfigError: there is no such workspace, or no such run.
        ArtifactError: a run is at work in it, and nothing was deleted.
    """
    workspace = open_workspace(root)
    for run in asked.dropped:
        workspace.links_of(run)
    with alone(workspace) if asked.delete else workspace.in_use(make=False):
        needs = find_needs(workspace, asked.dropped)
        for doubt in needs.doubts:
            logger.warning("%s. `pneumonia run` with its settings makes it again.", doubt)
        items = survey(workspace, HOLDING)
        plan = plan_removals(workspace, items, needs, asked.rules, datetime.now(UTC))
        for run in asked.dropped if asked.delete else ():
            drop_run(workspace, run)
        yield from (f"run {run}: {_done('dropped', asked)}" for run in asked.dropped)
        freed = 0
        if asked.delete:
            for removal in remove(workspace, plan):
                freed += removal.item.size
                yield _removal_line(workspace, removal)
        else:
            yield from _plan_lines(workspace, plan)
        yield from _staying(plan, items)
        yield _summary(plan, freed, asked)


def disk_lines(root: Path) -> Iterator[str]:
    """Say where the space of a workspace is: by stage, and by run; writes nothing.

    Raises:
        ConfigError: there is no such workspace.
    """
    workspace = open_workspace(root)
    with workspace.in_use(make=False):
        needs, items = find_needs(workspace), survey(workspace, HOLDING)
    yield f"{'':<28} {'items':>7} {'needed':>17} {'not needed':>17} {'bytes':>17}"
    for name, group in _by_place(items).items():
        needed = sum(item.size for item in group if _stays(item, needs))
        size = sum(item.size for item in group)
        yield f"{name:<28} {len(group):>7,} {needed:>17,} {size - needed:>17,} {size:>17,}"
    needed = sum(item.size for item in items if _stays(item, needs))
    size = sum(item.size for item in items)
    yield f"{'total':<28} {len(items):>7,} {needed:>17,} {size - needed:>17,} {size:>17,}"
    yield from _run_lines(items, needs)


def open_workspace(root: Path) -> Workspace:
    """The workspace in a folder.

    Raises:
        ConfigError: the folder holds none.
    """
    workspace = Workspace(root)
    if not (workspace.state.is_dir() or workspace.references()):
        raise ConfigError(
            f"--workspace: expected a workspace, got {root}, which holds no artifact. Mend the "
            "path, or make one with `pneumonia run`."
        )
    return workspace


def _plan_lines(workspace: Workspace, plan: Plan) -> Iterator[str]:
    """What would go, stage by stage, each under what its stage comes to."""
    by_path = {removal.item.path: removal for removal in plan.removals}
    for name, group in _by_place([removal.item for removal in plan.removals]).items():
        yield _line(name, sum(item.size for item in group), _count(len(group)))
        for item in group:
            yield f"  {_removal_line(workspace, by_path[item.path])}"


def _staying(plan: Plan, items: Sequence[Item]) -> Iterator[str]:
    """What no run needs and yet stays, counted by reason."""
    reasons: dict[str, list[Item]] = defaultdict(list)
    for removal in plan.kept:
        reasons[f"needed by no run, but {removal.reason}"].append(removal.item)
    for item in items:
        if item.kind == "foreign":
            reasons["not of the pipeline's making, so never touched"].append(item)
    for reason, group in reasons.items():
        told = f"{_count(len(group))}: {reason}"
        yield _line("stays", sum(item.size for item in group), told)


def _summary(plan: Plan, freed: int, asked: Cleaning) -> str:
    budget = asked.rules.keep_size
    freed = freed if asked.delete else plan.freed
    over = plan.size - freed - budget if budget is not None else 0
    missed = f" That is {over:,} bytes over --keep-size." if over > 0 else ""
    if not plan.removals and not asked.dropped:
        return f"Nothing to delete of {plan.size:,} bytes.{missed}"
    done = _done("deleted", asked).capitalize()
    told = f"{done}: {freed:,} of {plan.size:,} bytes.{missed}"
    return told if asked.delete else f"{told} Nothing was touched; add --delete to do it."


def _run_lines(items: Sequence[Item], needs: Needs) -> Iterator[str]:
    """What each run needs, and what of that no other run does."""
    sizes = {item.reference: item.size for item in items if item.kind == "artifact"}
    runs = sorted({run for users in needs.runs.values() for run in users})
    for run in runs:
        used = {name: users for name, users in needs.runs.items() if run in users}
        size = sum(sizes.get(name, 0) for name in used)
        alone_in = sum(sizes.get(name, 0) for name, users in used.items() if users == {run})
        count = f"{len(used):,} artifact{'' if len(used) == 1 else 's'}"
        told = f"needs {count}, {alone_in:,} bytes of them no other run does"
        yield f"{f'run {run}':<28} {size:>17,}  {told}"


def _stays(item: Item, needs: Needs) -> bool:
    """Whether an item is needed, as far as `status` tells: by a run, or by the workspace itself."""
    return item.kind == "own" or (item.kind == "artifact" and item.reference in needs.runs)


def _by_place(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Items by stage, then those that are no artifacts by kind; only what there is."""
    kinds = {"own": "links and locks", "foreign": "unknown files"}
    order = [*HOLDING, "leftovers", "resume points", *kinds.values()]
    groups: dict[str, list[Item]] = {name: [] for name in order}
    for item in items:
        if item.kind == "artifact" and item.reference is not None:
            groups[item.reference.stage].append(item)
        else:
            groups[kinds.get(item.kind, f"{item.kind}s")].append(item)
    return {name: group for name, group in groups.items() if group}


def _name(workspace: Workspace, item: Item) -> str:
    if item.kind == "artifact" and item.reference is not None:
        return str(item.reference)
    place = item.path.relative_to(workspace.root)
    if item.reference is not None and len(place.parts) > 2:
        stage, key, *rest = place.parts[1:]
        return "/".join([".state", str(Reference(stage, key)), *rest])
    return str(place)


def _done(word: str, asked: Cleaning) -> str:
    return word if asked.delete else f"would be {word}"


def _count(number: int) -> str:
    return f"{number:,} item{'' if number == 1 else 's'}"


def _removal_line(workspace: Workspace, removal: Removal) -> str:
    return _line(_name(workspace, removal.item), removal.item.size, removal.reason)


def _line(name: str, size: int, told: str) -> str:
    return f"{name:<40} {size:>17,}  {told}"
