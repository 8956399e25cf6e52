"""Locks on files: had by one process or shared by several, gone with the processes that have them.

A lock file is never taken away. Whoever had opened it and waits would then get the lock of a file
that nobody else finds any more, while the next one makes a new file and locks that: two would have
what one may have. It is empty and costs an entry in a folder.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def hold(path: Path, waiting: str) -> Iterator[int]:
    """Have a lock alone, waiting for whoever has it.

    Args:
        waiting: told in the log where it has to be waited for.

    Yields:
        Its descriptor; a child process that inherits it has the lock for as long as either lives.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o644)
    try:
        _wait(descriptor, fcntl.LOCK_EX, waiting)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def share(path: Path, waiting: str, *, make: bool) -> Iterator[None]:
    """Have a lock with others that share it, waiting for whoever has it alone.

    Args:
        make: make the file where there is none; otherwise nothing is written, nor locked then.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPEN | (os.O_CREAT if make else 0), 0o644)
    except (FileNotFoundError, NotADirectoryError):
        if make:
            raise
        yield
        return
    try:
        _wait(descriptor, fcntl.LOCK_SH, waiting)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Have a lock alone where nobody has it, without waiting.

    Yields:
        Whether it was free.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o644)
    try:
        yield at_once(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def is_held(path: Path, *, shared: bool = False) -> bool:
    """Whether a process has a lock; writes nothing.

    Args:
        shared: whether it counts too that it is shared.
    """
    try:
        descriptor = os.open(path, (os.O_RDWR if shared else os.O_RDONLY) | _OPEN)
    except FileNotFoundError:
        return False
    try:
        return not at_once(descriptor, fcntl.LOCK_EX if shared else fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def at_once(descriptor: int, kind: int) -> bool:
    """Have the lock of an open file without waiting; False where another has it.

    Args:
        kind: `fcntl.LOCK_EX`, or `LOCK_SH`.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(descriptor: int, kind: int, waiting: str) -> None:
    if not at_once(descriptor, kind):
        logger.info("%s", waiting)
        fcntl.flock(descriptor, kind)
