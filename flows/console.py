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
OWN_LOGGERS = ("pneumonia", "tasks", "flows")


def set_up() -> None:
    """Send this project's log lines to the terminal; call before Prefect is imported."""
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)
    told = logging.StreamHandler(sys.stdout)
    told.addFilter(lambda record: record.levelno < logging.WARNING)
    warned = logging.StreamHandler(sys.stderr)
    warned.setLevel(logging.WARNING)
    for name in OWN_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [told, warned]
