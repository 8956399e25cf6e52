"""The commands that decide what of a workspace stays: `gc`, `pin` and `unpin`."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_commands(command: Callable[[Callable[[argparse.Namespace], int], str], Any]) -> None:
    """Add the commands and their options.

    Args:
        command: adds one to the command line, given what it does and a line of help.
    """
    cleaned = command(gc, "list what no run needs any more; with --delete, delete it")
    cleaned.add_argument("--workspace", type=Path, required=True, metavar="DIR")
    cleaned.add_argument(
        "--older-than", type=_amount, default=7.0, metavar="DAYS",
        help="younger things stay; default: 7",
    )  # fmt: skip
    cleaned.add_argument(
        "--keep-size", type=_gigabytes, metavar="GB",
        help="delete, the oldest first, no more than brings the workspace down to GB",
    )  # fmt: skip
    cleaned.add_argument(
        "--drop-run", action="append", default=[], metavar="NAME", help="forget a whole run"
    )
    cleaned.add_argument("--delete", action="store_true", help="do it; otherwise it is only told")
    for function, text in ((pin, "keep one artifact, whatever runs need"), (unpin, "undo pin")):
        kept = command(function, text)
        kept.add_argument("artifact", metavar="STAGE/KEY", help="8 digits of the key are enough")
        kept.add_argument("--workspace", type=Path, required=True, metavar="DIR")


def gc(options: argparse.Namespace) -> int:
    """Say what no run needs any more, and delete it where that is asked for."""
    from flows.disk import Cleaning, cleaning_lines
    from pneumonia.retention import Rules

    rules = Rules(older_than=options.older_than, keep_size=options.keep_size)
    dropped = list(dict.fromkeys(options.drop_run))
    asked = Cleaning(rules, dropped=dropped, delete=options.delete)
    for line in cleaning_lines(options.workspace, asked):
        _tell(line)
    return 0


def pin(options: argparse.Namespace) -> int:
    """Keep one artifact, whatever runs need."""
    from flows.disk import open_workspace
    from pneumonia.pins import pin as keep

    _tell(f"{keep(open_workspace(options.workspace), options.artifact)}: pinned")
    return 0


def unpin(options: argparse.Namespace) -> int:
    """Take a pin away."""
    from flows.disk import open_workspace
    from pneumonia.pins import unpin as release

    _tell(f"{release(open_workspace(options.workspace), options.artifact)}: no longer pinned")
    return 0


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return amount


def _gigabytes(text: str) -> int:
    """Bytes of so many GB, 10**9 each."""
    return int(_amount(text) * 1e9)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
