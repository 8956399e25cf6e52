"""The child's side of a process that a run starts: end with the parent, tell events, stop on time.

Knows neither torch nor what the child does.
"""

import json
import logging
import os
import select
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 8.0


class Stop:
    """Set by SIGTERM or SIGINT; whoever does the work looks at it and ends at the next good moment.

    Where that moment does not come within eight seconds, the process ends anyway.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.listening = False

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT."""
        self.listening = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            timer = threading.Timer(_GRACE_SECONDS, os._exit, (128 + number,))
            timer.daemon = True
            timer.start()


class EventLog(logging.Handler):
    """Tells events, log lines among them, as JSON lines on what was the standard output.

    From then on whatever else is written to the standard output goes to standard error.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Write one event."""
        self._events.write(json.dumps(event) + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Write one log line."""
        self.tell({"log": self.format(record), "level": record.levelno})


def end_with_parent() -> None:
    """End this process and its group within seconds of the parent's death.

    The parent holds the other end of standard input. Should another of its children have
    inherited that end, the changed parent still tells.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            if select.select([0], [], [], _POLL_SECONDS)[0] and not os.read(0, 1 << 12):
                break
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
