"""One file of a folder that may hold anything: its bytes and their digest, or why there are none.

In: a path. Out: bytes, within a bound and without ever waiting. This is blake3's one door.
"""

import errno
import os
import stat
from pathlib import Path

from blake3 import blake3

from pneumonia.errors import DicomError

MAX_BYTES = 1 << 28
"""Largest file that is read; an uncompressed 16-bit frame of the largest detector has 37 MB."""


def read_file(path: Path) -> bytes:
    """Read a file that may be anything, without waiting for a pipe and within a bound.

    Raises:
        DicomError: it is no regular file, cannot be opened, or is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            check_file(status)
            data = os.read(descriptor, status.st_size)
            while len(data) < status.st_size and (more := os.read(descriptor, status.st_size)):
                data += more
        finally:
            os.close(descriptor)
    except OSError as error:
        raise refusal_of(error) from error
    return data


def digest(data: bytes | memoryview, more: bytes = b"") -> str:
    """Content digest, 64 hexadecimal digits (BLAKE3: 4.6 GB/s a core against 1.8 for sha256)."""
    return str(blake3(data).update(more).hexdigest())


def check_file(status: os.stat_result) -> None:
    """Refuse what is no regular file of a size that can be a radiograph.

    Raises:
        DicomError: it is not.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = stat.filemode(status.st_mode)[0]
        raise DicomError("not_a_file", f"Expected a file, got one of kind `{kind}`.")
    if status.st_size > MAX_BYTES:
        raise DicomError(
            "too_large", f"At most {MAX_BYTES:,} bytes are read, got {status.st_size:,}."
        )


def refusal_of(error: OSError) -> DicomError:
    """What the system said, without the path."""
    if error.errno == errno.ELOOP:
        return DicomError("link_loop", "The link leads back to itself.")
    if error.errno == errno.ENXIO:
        return DicomError("not_a_file", "Expected a file, got a pipe or socket.")
    return DicomError("unreadable", f"The file cannot be read: {os.strerror(error.errno or 0)}.")
