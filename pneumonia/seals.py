"""Digests of files: one that a file carries of itself, and one that a manifest names of it.

In: a path. Out: whether its bytes are those that were written.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pneumonia.errors import CorruptArtifactError

MAKE_AGAIN = "Run with --verify to make it again."

MAX_JSON = 1 << 28
"""Largest JSON file that is read, bytes."""

_used: set[tuple[str, int, int, int, str]] = set()
"""Files that this process has hashed and found whole: path, inode, size, time, sha256."""


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal.

    Raises:
        OSError: it cannot be read; the error names the file.
    """
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:  # a failed read names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_first_use(path: Path, sha256: str) -> None:
    """Hash a file of an artifact the first time that this process uses it.

    A damaged disk alters bytes without altering sizes, and an image or a weight of other bits is
    still an image or a weight. Later uses are trusted as long as it is the same file of the same
    size and time.

    Raises:
        CorruptArtifactError: its bytes are not those of the manifest.
    """
    try:
        status = path.stat()
        this = (str(path), status.st_ino, status.st_size, status.st_mtime_ns, sha256)
        whole = this in _used or digest_file(path) == sha256
    except FileNotFoundError as error:
        raise CorruptArtifactError(
            f"{path}: expected a file of an artifact, got none. {MAKE_AGAIN}"
        ) from error
    if not whole:
        raise CorruptArtifactError(
            f"{path}: expected the bytes that its manifest names, got others (sha256 differs). "
            f"{MAKE_AGAIN}"
        )
    _used.add(this)


def read_bounded(path: Path) -> str:
    """The text of a JSON file.

    Raises:
        ValueError: it is larger than any that this project writes.
    """
    size = path.stat().st_size
    if size > MAX_JSON:
        raise ValueError(f"{size:,} bytes, more than {MAX_JSON:,}")
    return path.read_text("utf-8")


def write_sealed(content: Mapping[str, Any], path: Path) -> None:
    """Write a value with a digest of itself."""
    path.write_text(_sealed(content), "utf-8")


def _sealed(content: Mapping[str, Any]) -> str:
    """A value as canonical JSON that carries a digest of the rest."""
    seal = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return canonical_json({**content, "digest": seal}) + "\n"


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file.

    Raises:
        ValueError: a byte of it has changed, be it one that JSON makes nothing of: `1e-5` and
            `1E-5` are one number.
    """
    text = read_bounded(path)
    content = dict(json.loads(text))
    claimed = content.pop("digest")
    actual = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    if claimed != actual:
        raise ValueError(f"its digest says {claimed[:8]}, its content {actual[:8]}")
    if text != _sealed(content):
        raise ValueError("other bytes for the same content")
    return content
