"""What of a workspace may go, and how it goes.

In: what stands in it and what its runs need. Out: what goes, each with a reason, in its order.
"""

import json
import logging
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from pneumonia.artifacts import MANIFEST, RECORD, Reference, read_manifest
from pneumonia.errors import ArtifactError, CorruptArtifactError
from pneumonia.locks import attempt, is_held
from pneumonia.needs import Needs, damage_of
from pneumonia.usage import Item, contents
from pneumonia.workspace import Workspace, delete

logger = logging.getLogger(__name__)

_DAY = 86_400.0  # seconds
_USELESS, _USABLE = 0, 1


@dataclass(frozen=True)
class Rules:
    """What may go.

    Args:
        older_than: days; what may be of use yet and was made later stays.
        keep_size: bytes; no more goes than it takes to come down to these.
    """

    older_than: float
    keep_size: int | None = None


@dataclass(frozen=True)
class Removal:
    """An item that goes, or stays though no run needs it, and why."""

    item: Item
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a workspace can be rid of.

    Args:
        removals: in the order in which they go.
        kept: what nothing needs and yet stays, each with the reason.
        size: bytes of the whole workspace before.
    """

    removals: tuple[Removal, ...]
    kept: tuple[Removal, ...]
    size: int

    @property
    def freed(self) -> int:
        """Bytes of what goes."""
        return sum(removal.item.size for removal in self.removals)


def plan_removals(
    workspace: Workspace, items: Sequence[Item], needs: Needs, rules: Rules, now: datetime
) -> Plan:
    """Choose what goes: what is of no use at all, then what no run needs, the oldest first.

    Args:
        items: of `usage.survey`.
        now: with a time zone.
    """
    candidates: list[tuple[int, float, Removal]] = []
    kept = []
    for item in items:
        if item.kind in {"own", "foreign"} or (
            item.kind == "artifact" and item.reference in needs.runs
        ):
            continue
        days = _age(item, now)
        rank, reason = _reason_to_go(workspace, item, days)
        objection = _objection(workspace, item)
        if not objection and rank == _USABLE and days < rules.older_than:
            objection = f"younger than {rules.older_than:g} days"
        if objection:
            kept.append(Removal(item, objection))
        else:
            candidates.append((rank, -days, Removal(item, reason)))
    size = sum(item.size for item in items)
    rest, removals = size, []
    for _, _, removal in sorted(candidates, key=lambda candidate: candidate[:2]):
        if rules.keep_size is None or rest > rules.keep_size:
            removals.append(removal)
            rest -= removal.item.size
        else:
            kept.append(Removal(removal.item, "the workspace is small enough with it"))
    return Plan(tuple(removals), tuple(kept), size)


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Have a workspace to oneself, so that no run goes on from what is about to go.

    Raises:
        ArtifactError: a run or another command is at work in it; nothing is waited for.
    """
    workspace.state.mkdir(exist_ok=True)
    with attempt(workspace.in_use_file) as free:
        busy = _making(workspace) if free else "a run or another command that is at work there"
        if busy:
            raise ArtifactError(
                f"{workspace.root}: expected nobody at work in the workspace, got {busy}. Nothing "
                "was deleted: try again when it has ended."
            )
        yield


def remove(workspace: Workspace, plan: Plan) -> Iterator[Removal]:
    """Carry a plan out, one by one; call while alone in the workspace.

    Yields:
        What has gone; an item whose lock is held by then stays and is told in the log.

    Raises:
        ArtifactError: a link has moved meanwhile, so the plan speaks of another workspace.
    """
    links = workspace.links()
    for removal in plan.removals:
        item = removal.item
        if item.reference is None:
            delete(item.path)
            yield removal
            continue
        with attempt(workspace.lock_file(item.reference)) as free:
            if not free:
                logger.warning("%s stays: another process is making it.", item.reference)
                continue
            if workspace.links() != links:
                raise ArtifactError(
                    f"{workspace.root}: expected the links of all runs to stay as they were, got "
                    "others. What was deleted before was needed by none. Ask again."
                )
            if item.kind == "artifact":
                workspace.remove(item.reference)
            else:
                delete(item.path)
        yield removal


def _making(workspace: Workspace) -> str:
    """Who has the lock of a key: a process that outlives its run for some seconds, say."""
    for path in sorted(workspace.state.glob("*/*.lock")):
        if is_held(path):
            return f"a process that is making {Reference(path.parent.name, path.stem)}"
    return ""


def _reason_to_go(workspace: Workspace, item: Item, days: float) -> tuple[int, str]:
    """Why nobody needs an item, and its rank: what is of no use goes first."""
    if item.kind == "leftover":
        return _USELESS, "left by work that was cut short"
    if item.kind == "resume point":
        return _USABLE, f"a resume point, written {_ago(days)}"
    if item.reference and damage_of(workspace, item.reference):
        return _USELESS, "no run needs it, and it is damaged"
    return _USABLE, f"no run needs it, made {_ago(days)}"


def _objection(workspace: Workspace, item: Item) -> str:
    """Why an item that nobody needs stays all the same, or nothing."""
    if item.reference is None:
        return ""
    if is_held(workspace.state / item.reference.stage / f"{item.reference.key}.lock"):
        return "another process is making it"
    if item.kind == "artifact":
        strange = _strange(item)
        return f"it holds {strange}, which no stage has written" if strange else ""
    return ""


def _strange(item: Item) -> str:
    """A file in an artifact's folder that its manifest does not name, or anything but a file."""
    try:
        named = {*read_manifest(item.path, item.reference).files, MANIFEST, RECORD}
    except CorruptArtifactError:  # nothing tells what belongs to it
        named = None
    for path, status in contents(item.path):
        name = path.relative_to(item.path).as_posix()
        if not stat.S_ISREG(status.st_mode) or (named is not None and name not in named):
            return name
    return ""


def _age(item: Item, now: datetime) -> float:
    """Days since an item was made.

    The time in an artifact's record is copied with it, that of a file often is not. Where there is
    no such record, its newest file tells. What comes from the future, by a clock that was set
    back, is new.
    """
    made = item.newest
    if item.kind == "artifact":
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((item.path / RECORD).read_text("utf-8"))
            made = datetime.fromisoformat(record["started"]).timestamp()
    return max(0.0, (now.timestamp() - made) / _DAY)


def _ago(days: float) -> str:
    return "today" if days < 1 else "1 day ago" if days < 2 else f"{int(days):,} days ago"
