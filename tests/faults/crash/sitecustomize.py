"""Kills the process that imports it (kill -9) at a point named from outside.

CRASH_AT is a regular expression over "event argument argument ..." of Python's audit events
(`os.rename /a /b`, `open /a w`), CRASH_SKIP how many matches to let pass first. CRASH_ONCE names a
file that is made at the crash: while it stands nobody crashes again.
"""

import os
import re
import signal
import sys

pattern = os.environ.get("CRASH_AT")
if pattern:
    expression = re.compile(pattern)
    once = os.environ["CRASH_ONCE"]
    left = [int(os.environ.get("CRASH_SKIP", "0"))]

    def crash(event: str, arguments: tuple[object, ...]) -> None:
        if not event.startswith(("os.", "open", "subprocess.")):
            return
        if not expression.search(" ".join([event, *map(str, arguments)])):
            return
        if left[0]:
            left[0] -= 1
            return
        try:
            descriptor = os.open(once, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return
        os.close(descriptor)
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(crash)
