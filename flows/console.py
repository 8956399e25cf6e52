"""What the terminal shows: results and progress on stdout, warnings and errors on stderr."""

import logging
import os
import sys

PREFECT_SETTINGS = {
    # The run's own lines stand in the terminal; Prefect's stand in its database and UI.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pneumonia,tasks,flows",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
}
OWN = ("flows", "tasks", "pneumonia")
TOLD = ("flows", "tasks", "pneumonia.inventory", "pneumonia.locks", "pneumonia.trainer_process")
"""Whose lines the terminal shows; what else the library tells stands in Prefect's log."""


class OneLine(logging.Formatter):
    """Lines of the log, of which none is two, and none steers the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """The line of a record; a traceback stands below it as it is."""
        return printable(super().formatMessage(record))


def printable(text: str) -> str:
    """Text from data on one line: what would end the line or steer a terminal is shown escaped.

    >>> printable("a" + chr(27) + "[31m" + chr(10) + "é")
    'a\\\\x1b[31m\\\\né'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def set_up() -> None:
    """Send this project's log lines to the terminal; call before Prefect is imported."""
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)
    told = logging.StreamHandler(sys.stdout)
    told.addFilter(lambda line: line.levelno < logging.WARNING and line.name.startswith(TOLD))
    warned = logging.StreamHandler(sys.stderr)
    warned.setLevel(logging.WARNING)
    for handler in (told, warned):
        handler.setFormatter(OneLine())
    tell_stages()
    for name in OWN:
        logging.getLogger(name).handlers = [told, warned]


def tell_stages() -> None:
    """Let this project's lines through; a worker's loggers stand at warnings otherwise."""
    for name in OWN:
        logging.getLogger(name).setLevel(logging.INFO)
