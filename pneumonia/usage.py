"""What stands in a workspace and how large it is: each file in one place, links never followed.

In: a workspace and the names of its stages. Out: items, which together hold every file and link of
the folder once. Sizes are apparent: bytes of files and lengths of links, nothing for folders.
"""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pneumonia.artifacts import MANIFEST, Reference
from pneumonia.links import RUNS
from pneumonia.workspace import KEY, OUTPUT, REPLACED, Workspace

Kind = Literal["artifact", "leftover", "resume point", "own", "foreign"]

_BATCH = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.(json|[0-9]+)")
_LINK = re.compile(r".+\.[0-9]+")
_FRESH = re.compile(r"(\.files\.parquet|copy)\.[0-9]+")
_NOTE = re.compile(r".+\.json")
"""What a process writes before it renames it into place ends in the number of that process."""


@dataclass(frozen=True)
class Item:
    """Something in a workspace that stays or goes as a whole.

    Args:
        kind: an artifact; a leftover, of no use once the process that left it is gone; a resume
            point, with which a training can go on; the workspace's own links, locks, notes and
            stat cache; or foreign, which no part of the pipeline has made.
        size: bytes of its files.
        files: how many.
        newest: when one of them was last written, in seconds since 1970.
        reference: the artifact that it is or was to become, if any.
    """

    kind: Kind
    path: Path
    size: int
    files: int
    newest: float
    reference: Reference | None = None


def survey(workspace: Workspace, stages: Collection[str]) -> list[Item]:
    """Everything that stands in a workspace, each file in one item.

    Args:
        stages: the names that a folder of artifacts can have.
    """
    return list(_survey(workspace, stages))


def contents(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file and link of a folder, or the file or link itself; what vanishes is left out."""
    with suppress(FileNotFoundError):
        if _is_folder(path):
            for child in sorted(path.iterdir()):
                yield from contents(child)
        else:
            yield path, path.lstat()


def _survey(workspace: Workspace, stages: Collection[str]) -> Iterator[Item]:
    for path in _children(workspace.root):
        if path == workspace.state and _is_folder(path):
            yield from _of_state(workspace, stages)
        elif path.name == RUNS and _is_folder(path):
            yield from _of_runs(path)
        elif path.name in stages and _is_folder(path):
            for folder in _children(path):
                yield _of_stage(folder)
        else:
            yield _item("foreign", path)


def _of_stage(folder: Path) -> Item:
    if _is_folder(folder) and KEY.fullmatch(folder.name):
        return _item("artifact", folder, Reference(folder.parent.name, folder.name))
    return _item("foreign", folder)


def _of_runs(runs: Path) -> Iterator[Item]:
    for run in _children(runs):
        for place in _children(run) if _is_folder(run) else [run]:
            own = place.is_symlink() and place != run
            yield _item("own" if own else "foreign", place)


def _of_state(workspace: Workspace, stages: Collection[str]) -> Iterator[Item]:
    own = {workspace.in_use_file, workspace.state / "files.parquet"}
    forms = {"batches": _BATCH, "links": _LINK}
    for path in _children(workspace.state):
        if path.name in stages and _is_folder(path):
            for child in _children(path):
                yield from _of_keys(workspace, child)
        elif path.name in forms and _is_folder(path):
            for child in _children(path):
                ours = forms[path.name].fullmatch(child.name) and not _is_folder(child)
                yield _item("leftover" if ours else "foreign", child)
        elif path.name == "watch" and _is_folder(path):
            for child in _children(path):
                yield _item(_kind_of_note(child), child)
        elif _is_folder(path) or path.is_symlink():
            yield _item("foreign", path)
        elif path in own:
            yield _item("own", path)
        else:
            yield _item("leftover" if _FRESH.fullmatch(path.name) else "foreign", path)


def _kind_of_note(path: Path) -> Kind:
    """A note of what `watch` has told of a run, or one that was being written."""
    if _is_folder(path) or path.is_symlink():
        return "foreign"
    if _NOTE.fullmatch(path.name):
        return "own"
    return "leftover" if _LINK.fullmatch(path.name) else "foreign"


def _of_keys(workspace: Workspace, path: Path) -> Iterator[Item]:
    """A key's lock, or its scratch: a training's resume points and what is of no use any more."""
    reference = Reference(path.parent.name, path.stem if path.suffix == ".lock" else path.name)
    if not KEY.fullmatch(reference.key) or path.is_symlink() or path.is_file() != bool(path.suffix):
        yield _item("foreign", path)
    elif path.suffix:
        yield _item("own", path, reference)
    else:
        children = _children(path)
        useless = [child for child in children if child.name in {OUTPUT, REPLACED}]
        if len(useless) == len(children) or (workspace.path(reference) / MANIFEST).exists():
            yield _item("leftover", path, reference)
            return
        for child in useless:
            yield _item("leftover", child, reference)
        yield _item("resume point", path, reference, without=useless)


def _item(
    kind: Kind,
    path: Path,
    reference: Reference | None = None,
    without: Collection[Path] = (),
) -> Item:
    found = [
        status
        for child in ([path] if not without else _children(path))
        if child not in without
        for _, status in contents(child)
    ]
    newest = max((status.st_mtime for status in found), default=0.0)
    return Item(kind, path, sum(s.st_size for s in found), len(found), newest, reference)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:  # it was there a moment ago
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
