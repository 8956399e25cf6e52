"""The workspace: where artifacts are found, built under a lock, published and linked to runs.

WORKSPACE/<stage>/<key>/       a complete artifact, never written again
WORKSPACE/pool/<key>/          a shard of images, an artifact like any other
WORKSPACE/runs/<run>/<stage>   relative link to the artifact that a run used
WORKSPACE/.state/              everything mutable: locks, work in progress, the stat cache
"""

import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pneumonia.artifacts import (
    MANIFEST,
    Artifact,
    Facts,
    Manifest,
    Reference,
    find_damage,
    list_files,
    read_manifest,
    write_manifest,
    write_record,
)
from pneumonia.errors import ArtifactError, ConfigError, CorruptArtifactError
from pneumonia.links import checked_name, read_link, read_links, run_folder
from pneumonia.locks import hold, share

logger = logging.getLogger(__name__)

OUTPUT, REPLACED = "output", "replaced"
"""In a key's scratch: what is being written, and an artifact on its way out. Neither is of use to
who comes after the process that made it."""

KEY = re.compile(r"[0-9a-f]{32}")
"""Of `artifacts.digest`; a folder of any other name is none of ours."""


@dataclass(frozen=True)
class Scratch:
    """Where a stage works.

    Args:
        output: empty at the start; becomes the artifact.
        state: kept when the work is cut short, gone once it is published: resume points.
        lock: file descriptor of the key's lock; a child process that inherits it keeps the key
            locked for as long as either lives.
    """

    output: Path
    state: Path
    lock: int


class Workspace:
    """A folder of artifacts, safe to share between processes and to move."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.pool = self.root / "pool"
        self.state = self.root / ".state"
        self.in_use_file = self.state / "in-use"

    def path(self, reference: Reference) -> Path:
        """Where an artifact lives, or would."""
        return self.root / checked_name(reference.stage) / checked_name(reference.key)

    def find(self, reference: Reference, *, hashed: bool = False) -> Artifact | None:
        """The complete artifact under this name, or None; damage is told in the log.

        Args:
            hashed: re-hash every file, not only compare presence and size.
        """
        folder = self.path(reference)
        if not (folder / MANIFEST).exists():
            return None
        try:
            manifest = read_manifest(folder, reference)
        except CorruptArtifactError as error:
            logger.warning("%s", error)
            return None
        damage = find_damage(folder, manifest, hashed=hashed)
        if damage:
            logger.warning("%s is damaged and will be made again: %s", reference, "; ".join(damage))
            return None
        return Artifact(folder, manifest)

    def get(self, reference: Reference) -> Artifact:
        """The complete artifact under this name.

        Raises:
            CorruptArtifactError: it is missing or damaged.
        """
        artifact = self.find(reference)
        if artifact is None:
            raise CorruptArtifactError(
                f"{self.path(reference)}: expected a complete artifact, got none. "
                "Run the pipeline again to make it."
            )
        return artifact

    def lock(self, reference: Reference) -> AbstractContextManager[int]:
        """Hold an artifact's lock, waiting for whoever has it; it dies with its process."""
        waiting = f"Waiting for another process that is making {reference}."
        return hold(self.lock_file(reference), waiting)

    def lock_file(self, reference: Reference) -> Path:
        """Where an artifact's lock is, in a folder that exists."""
        path = self.state / checked_name(reference.stage) / f"{checked_name(reference.key)}.lock"
        _make_folder(path.parent)
        return path

    def in_use(self, *, make: bool = True) -> AbstractContextManager[None]:
        """Keep `gc` from deleting anything: what is found here stays, linked or not yet.

        Args:
            make: False for whoever must write nothing, not even the lock's empty file; where no
                run has been at work yet, nothing is held then.
        """
        if make:
            _make_folder(self.state)
        waiting = "Waiting for `pneumonia gc`, which is deleting from this workspace."
        return share(self.in_use_file, waiting, make=make)

    def build(
        self, manifest: Manifest, write: Callable[[Scratch], Facts], *, lock: int
    ) -> Artifact:
        """Do the work and publish what it wrote; call while holding the lock.

        Args:
            manifest: without facts and files.
            write: fills `scratch.output`, returns the facts.
        """
        reference = Reference(manifest.stage, manifest.key)
        state = self.state / reference.stage / reference.key
        output = state / OUTPUT
        leftover = state if (self.path(reference) / MANIFEST).exists() else output
        if leftover.exists():  # of a process that is gone: we hold its lock
            shutil.rmtree(leftover)
        _make_folder(output)
        started, clock = datetime.now(UTC), time.monotonic()
        facts = write(Scratch(output, state, lock))
        write_record(
            {
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - clock, 3),
                "host": platform.node(),
                "platform": platform.platform(),
            },
            output,
        )
        complete = replace(manifest, facts=facts, files=list_files(output))
        write_manifest(complete, output)
        self._publish(output, reference)
        shutil.rmtree(state)
        return Artifact(self.path(reference), complete)

    def discard(self, reference: Reference, *, damaged_only: bool = True) -> None:
        """Take an artifact away, its manifest first, so that nothing takes the rest for whole.

        Args:
            damaged_only: keep it where all its bytes are as its manifest says.
        """
        with self.lock(reference):
            if damaged_only and self.find(reference, hashed=True) is not None:
                return
            self.remove(reference)

    def remove(self, reference: Reference) -> None:
        """Take an artifact away; call while holding its lock.

        What is cut short leaves a folder without manifest, or one aside in its scratch.
        """
        folder, state = self.path(reference), self.state / reference.stage / reference.key
        if folder.exists():
            _make_folder(state)
            _move_aside(folder, state / REPLACED)
            _sync(folder.parent)
            delete(state / REPLACED)
        if state.is_dir() and not any(state.iterdir()):
            state.rmdir()  # else there are resume points in it

    def link(self, run: str, name: str, reference: Reference) -> None:
        """Note that `run` uses this artifact; nothing is written where it is so noted already."""
        place = run_folder(self.root, run) / checked_name(name)
        target = Path("..", "..", reference.stage, reference.key)
        if place.is_symlink() and place.readlink() == target:
            return
        _make_folder(place.parent)
        fresh = self.state / "links" / f"{run}-{name}.{os.getpid()}"
        _make_folder(fresh.parent)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(place)

    def linked(self, run: str, name: str) -> Reference | None:
        """The artifact that `run` used last under this name, complete or not."""
        return read_link(run_folder(self.root, run) / checked_name(name))

    def finished(self, run: str, name: str) -> Artifact:
        """The complete artifact that `run` uses under a link name (`training-resnet18`).

        Raises:
            ConfigError: there is no such run, or it has not come so far.
            CorruptArtifactError: it is missing or damaged.
        """
        reference = self.linked(run, name)
        if reference is None:
            self.links_of(run)
            raise ConfigError(
                f"{self.root}: expected the run {run!r} to have finished {name}, got no such "
                "artifact. Name another model, run or workspace, or run the pipeline first."
            )
        return self.get(reference)

    def links_of(self, run: str) -> list[str]:
        """The link names of a run, in order.

        Raises:
            ConfigError: there is no such run.
        """
        checked_name(run)
        links = sorted(link.partition("/") for link, _ in self.links())
        runs = sorted({name for name, _, _ in links})
        if run not in runs:
            raise ConfigError(
                f"{self.root}: expected one of its runs ({', '.join(runs) or 'it has none'}), got "
                f"{run!r}. Name one of them, or another workspace."
            )
        return [link for name, _, link in links if name == run]

    def references(self) -> list[Reference]:
        """Every artifact of the workspace, complete or not, pool shards included."""
        return [
            Reference(folder.parent.name, folder.name)
            for folder in sorted(self.root.glob("*/*"))
            if folder.is_dir() and KEY.fullmatch(folder.name)
        ]

    def links(self) -> list[tuple[str, Reference]]:
        """Every link of every run, as `run/name`, and the artifact it names."""
        return read_links(self.root)

    def _publish(self, output: Path, reference: Reference) -> None:
        """Rename a finished folder into place, moving a damaged or older one aside first."""
        for path in [*output.rglob("*"), output]:
            _sync(path)
        place = self.path(reference)
        _make_folder(place.parent)
        if place.exists():
            _move_aside(place, output.with_name(REPLACED))
        output.rename(place)
        _sync(place.parent)


def delete(path: Path) -> None:
    """Delete a file, a link but not what it leads to, or a folder with all it holds, if any."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{path}: expected a folder, got a file. Choose another workspace."
        ) from error


def _move_aside(place: Path, aside: Path) -> None:
    """Move an artifact out of sight, its manifest gone first, so that it never looks whole."""
    delete(aside)
    (place / MANIFEST).unlink(missing_ok=True)
    place.rename(aside)


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk, so that a manifest never outlives its files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
