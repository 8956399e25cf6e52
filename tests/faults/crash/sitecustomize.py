"""Counts and kills at the points where the process that imports it changes its workspace.

A point is one change, just before it is made: a file opened to be written, a folder made, a file
or folder renamed, linked, brought to the disk or deleted. It is named by the change and its place,
`rename .state/labels/KEY/output`, so that a point has the same name in every run; its number
counts the changes of that name in one process. Just after a change is just before the next one.

POINTS_OF      the workspace; nothing is done without it
POINTS_LOG     a file that receives a line `NUMBER NAME` for each point that is passed
CRASH_AT       `NUMBER NAME`: the process kills itself there, with -9
CRASH_ONCE     a file that is made at the crash: while it stands nobody crashes again
CLOCK_BACK     seconds by which the clock of this process is behind
"""

import os
import re
import signal
import sys
import time
from pathlib import Path

workspace = os.environ.get("POINTS_OF")
log = os.environ.get("POINTS_LOG")
wanted = os.environ.get("CRASH_AT")
behind = float(os.environ.get("CLOCK_BACK", "0"))
counts: dict[str, int] = {}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {
    "open": 0, "os.mkdir": 0, "os.rename": 0, "os.symlink": 1, "os.link": 1, "os.remove": 0,
    "os.rmdir": 0, "os.truncate": 0, "fsync": 0, "shutil.rmtree": 0,
}  # fmt: skip
"""Per event of Python's audit, which of its arguments is the place that it changes."""


def place_of(value: object) -> str | None:
    """A path in the workspace, its keys and process numbers replaced by words."""
    path = os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else ""
    if not path.startswith(f"{workspace}{os.sep}"):
        return None
    inner = path[len(str(workspace)) + 1 :]
    return re.sub(r"\.\d+$", ".PROCESS", re.sub(r"[0-9a-f]{32,}", "KEY", inner))


def pass_point(event: str, arguments: tuple[object, ...]) -> None:
    """Note a change that is about to be made, and die where this is the one."""
    if event not in CHANGES:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return
    place = place_of(arguments[CHANGES[event]])
    if place is None or place.endswith(".lock"):
        return
    stands = os.path.lexists(os.fsdecode(arguments[CHANGES[event]]))  # type: ignore[arg-type]
    if stands == (event == "os.mkdir") and event in {"os.mkdir", "os.remove", "shutil.rmtree"}:
        return  # nothing is about to change
    name = f"{event.rpartition('.')[2]} {place}"
    counts[name] = counts.get(name, 0) + 1
    point = f"{counts[name]} {name}"
    if log:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{point}\n".encode())
        os.close(descriptor)
    if point == wanted:
        crash()


def crash() -> None:
    """Die at once, unless somebody has already."""
    try:
        descriptor = os.open(os.environ["CRASH_ONCE"], os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.close(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)


if workspace and (log or wanted):
    bring_to_disk = os.fsync

    def fsync(descriptor: int) -> None:
        """As `os.fsync`, which has no audit event of its own."""
        pass_point("fsync", (Path(f"/proc/self/fd/{descriptor}").readlink(),))
        bring_to_disk(descriptor)

    os.fsync = fsync
    sys.addaudithook(pass_point)

if behind:
    now = time.time
    time.time = lambda: now() - behind
