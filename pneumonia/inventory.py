"""Which files stand under a folder, and what each one's content is.

In: the folder of DICOM files, which may hold anything under any name. Out: one row per `*.dcm`
with its content digest, or with the reason why it cannot be read. Size and times of a file are the
quick check, kept in a cache; the digest is the truth.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pneumonia.artifacts import read_table, write_table
from pneumonia.errors import CorruptArtifactError, DataError, DicomError
from pneumonia.files import check_file, digest, read_file, refusal_of

logger = logging.getLogger(__name__)

SUFFIX = ".dcm"
NOT_YET = "unsettled"
"""The reason of a file that is still being written: it counts as not there, not as broken."""

COLUMNS = ("file", "image_id", "size", "mtime_ns", "digest", "reason", "detail")
_Identity = tuple[int, int]
_STAMP = ("size", "mtime_ns", "ctime_ns")


@dataclass(frozen=True)
class _Stamp:
    """What tells a file from its earlier self without reading it."""

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass
class Entry:
    """A file found, as far as it is known.

    Args:
        path: what to open; need not be text.
        file: relative to the folder that was asked for, posix, always text.
        stamp: where the file was looked at.
        digest: of its content, where it was read.
        reason, detail: why it is refused.
    """

    path: Path
    file: str
    stamp: _Stamp | None = None
    digest: str | None = None
    reason: str | None = None
    detail: str | None = None

    @property
    def image_id(self) -> str:
        """The file's name without its suffix."""
        return Path(self.file).stem

    @property
    def shown(self) -> Path:
        """The path as text that can be written anywhere: what is not UTF-8 is escaped."""
        return Path(_escaped(str(self.path)))

    def refuse(self, reason: str, detail: str) -> None:
        """Note why there is no content."""
        self.reason, self.detail, self.digest = reason, detail, None


def scan(images: Path, cache: Path, *, quiet_seconds: float, workers: int) -> pd.DataFrame:
    """List the DICOM files under a folder with their content digests.

    Args:
        images: the folder; sub-folders and links are followed.
        cache: Parquet file of what was seen last time; rewritten only when that changed.
        quiet_seconds: a file modified less than this many seconds ago is looked at again after
            that time, and left to the next run, with a warning, when it is still changing.
        workers: threads that hash.

    Returns:
        `file` (relative, posix), `image_id`, `size`, `mtime_ns`, `digest`, `reason`, `detail`,
        sorted by file; either digest or reason is missing.

    Raises:
        DataError: there is no such folder.
    """
    if not images.is_dir():
        raise DataError(
            f"{images}: expected the challenge's DICOM files (RAW/stage_2_train_images/*.dcm), got "
            "no folder. Give --raw the folder that holds stage_2_train_images."
        )
    started = time.monotonic()
    entries = list(_find(images))
    known = _read_cache(cache)
    readable = [entry for entry in entries if entry.reason is None]
    for entry in readable:
        _take_stamp(entry)
        entry.digest = known.get((entry.file, entry.stamp))
    fresh = [entry for entry in readable if entry.reason is None and entry.digest is None]
    _settle(fresh, quiet_seconds)
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="hash") as threads:
        list(threads.map(_hash, [entry for entry in fresh if entry.reason is None]))
    _refuse_twins(entries)
    _write_cache(cache, entries, known)
    table = _table(entries)
    if fresh:
        logger.info(
            "Read %d new or changed ones of %d DICOM files in %.1f s.",
            len(fresh), len(entries), time.monotonic() - started,
        )  # fmt: skip
    if left := unsettled(table):
        first = table.loc[table["reason"] == NOT_YET, "file"].iloc[0]
        logger.warning("%d files still change and are left to the next run: %s.", left, first)
    return table


def unsettled(files: pd.DataFrame) -> int:
    """How many files of a scan are left to the next run, because they were still changing."""
    return int((files["reason"] == NOT_YET).sum())


def list_dicom(paths: Iterable[Path]) -> Iterator[Entry]:
    """The files that paths stand for: a file itself, a folder's DICOM files in order.

    Those that are refused by their name alone say so; nothing is opened but folders.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(_find(path), key=lambda entry: entry.file)
        else:
            yield _checked_name(Entry(path, path.name))


def _find(folder: Path) -> Iterator[Entry]:
    """Every `*.dcm` below a folder, and links that lead back into themselves.

    Each folder is entered once, by its own name rather than by a link to it.
    """
    entered: set[_Identity] = set()
    waiting: list[tuple[Path, str, frozenset[_Identity]]] = [(folder, "", frozenset())]
    links: list[tuple[Path, str, frozenset[_Identity]]] = []
    while waiting or links:
        place, prefix, above = waiting.pop() if waiting else links.pop(0)
        try:
            identity = _identity(place)
            items = sorted(os.scandir(place), key=lambda item: item.name)
        except OSError as error:
            if not prefix:
                raise
            yield _refused_folder(place, prefix, refusal_of(error))
            continue
        if identity in above:
            loop = DicomError("link_loop", "The link leads back to a folder that holds it.")
            yield _refused_folder(place, prefix, loop)
        if identity in entered:
            continue
        entered.add(identity)
        for item in items:
            file, path = f"{prefix}{item.name}", Path(item.path)
            if item.name.lower().endswith(SUFFIX):
                yield _checked_name(Entry(path, file))
            elif _is_folder(item):
                queue = links if item.is_symlink() else waiting
                queue.append((path, f"{file}/", above | {identity}))


def _refused_folder(place: Path, prefix: str, why: DicomError) -> Entry:
    entry = Entry(place, prefix.rstrip("/"))
    entry.refuse(why.reason, why.detail)
    return _checked_name(entry)


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a loop of links is told when it is opened
        return False


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _checked_name(entry: Entry) -> Entry:
    escaped = _escaped(entry.file)
    if escaped != entry.file:
        entry.file = escaped
        entry.refuse("name", "The file's name is not UTF-8. Rename it.")
    return entry


def _escaped(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _take_stamp(entry: Entry) -> None:
    """Look at a file's size and times; anything but a readable file is refused here."""
    try:
        status = entry.path.stat()
        check_file(status)
    except OSError as error:
        refusal = refusal_of(error)
        entry.refuse(refusal.reason, refusal.detail)
    except DicomError as refusal:
        entry.refuse(refusal.reason, refusal.detail)
    else:
        entry.stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _settle(entries: list[Entry], quiet_seconds: float) -> None:
    """Wait until files that are young have been left alone for a while."""
    now = time.time_ns()
    quiet = int(quiet_seconds * 1e9)
    # A time stamp from the future tells nothing about age, so such a file waits the full time.
    age = {id(entry): now - entry.stamp.mtime_ns for entry in entries if entry.stamp}
    young = [entry for entry in entries if entry.stamp and age[id(entry)] < quiet]
    if not young:
        return
    pause = max(quiet - max(age[id(entry)], 0) for entry in young) / 1e9
    logger.info("Waiting %.1f s for %d files written just now.", pause, len(young))
    time.sleep(pause)
    for entry in young:
        before = entry.stamp
        _take_stamp(entry)
        if entry.reason is None and entry.stamp != before:
            entry.refuse(NOT_YET, f"The file changed within {quiet_seconds:g} s.")


def _hash(entry: Entry) -> None:
    """Read a file and note its digest, unless it changes meanwhile."""
    before = entry.stamp
    try:
        content = digest(read_file(entry.path))
    except DicomError as refusal:
        entry.refuse(refusal.reason, refusal.detail)
        return
    _take_stamp(entry)
    if entry.reason is None and entry.stamp != before:
        entry.refuse(NOT_YET, "The file changed while it was read.")
    elif entry.reason is None:
        entry.digest = content


def _refuse_twins(entries: list[Entry]) -> None:
    """Two files with one stem would be one image with two contents: neither is taken."""
    by_stem: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.reason is None:
            by_stem.setdefault(entry.image_id, []).append(entry)
    for twins in by_stem.values():
        if len(twins) > 1:
            files = sorted(entry.file for entry in twins)
            for entry in twins:
                other = next(file for file in files if file != entry.file)
                entry.refuse("duplicate", f"`{other}` has the same stem. Keep one of the two.")


def _read_cache(cache: Path) -> dict[tuple[str, _Stamp | None], str]:
    """Digests by file and stamp, as of the last scan; a lost cache costs a read of every file."""
    if not cache.exists():
        return {}
    try:
        table = read_table(cache, ["file", *_STAMP, "digest"])
    except CorruptArtifactError as error:
        logger.warning("The stat cache is damaged and is made anew: %s", error)
        return {}
    rows = zip(*(table[column].tolist() for column in table.columns), strict=True)
    return {(file, _Stamp(size, mtime, ctime)): known for file, size, mtime, ctime, known in rows}


def _write_cache(
    cache: Path, entries: list[Entry], known: dict[tuple[str, _Stamp | None], str]
) -> None:
    """Keep what is known for the next scan; nothing is written where nothing changed."""
    now = {(entry.file, entry.stamp): entry.digest for entry in entries if entry.digest}
    if now == known:
        return
    rows = [
        (file, stamp.size, stamp.mtime_ns, stamp.ctime_ns, content)
        for (file, stamp), content in sorted(now.items(), key=lambda item: item[0][0])
        if stamp
    ]
    cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = cache.with_name(f".{cache.name}.{os.getpid()}")
    write_table(pd.DataFrame(rows, columns=["file", *_STAMP, "digest"]), fresh)
    fresh.replace(cache)


def _table(entries: list[Entry]) -> pd.DataFrame:
    rows = [
        (
            entry.file,
            entry.image_id,
            entry.stamp.size if entry.stamp else 0,
            entry.stamp.mtime_ns if entry.stamp else 0,
            entry.digest,
            entry.reason,
            entry.detail,
        )
        for entry in sorted(entries, key=lambda entry: entry.file)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    text = ["file", "image_id", "digest", "reason", "detail"]
    return table.astype({**dict.fromkeys(text, "str"), "size": "int64", "mtime_ns": "int64"})
