"""One `make serve` at a time from a folder, and none before the last one's processes are gone."""

import fcntl
import os
import sys
import time

from flows.serve_settings import ServeSettings
from pneumonia.errors import PneumoniaError
from pneumonia.locks import at_once

LEFT_SECONDS = 30.0
"""For what a killed `make serve` left behind to end; 13 s at most by the keepers' own bounds."""

_POLL_SECONDS = 0.1


def lock_folder(settings: ServeSettings) -> int | None:
    """Lock the folder that is served from, for as long as this process and its children live.

    Two locks: the first is this process's and says whether it serves; the second is its
    children's too, and is free when the last of them is gone.

    Returns:
        The second's descriptor, for the children to inherit; None where another one serves, which
        is told.

    Raises:
        PneumoniaError: the processes of the last one do not end.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    own, shared = (
        os.open(settings.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for name in ("serve.lock", "children.lock")
    )
    if not at_once(own, fcntl.LOCK_EX):
        told = os.read(own, 200).decode("utf-8", "replace").strip()
        _say(f"`make serve` runs already from {settings.folder}{told and ': '}{told}")
        return None
    os.truncate(own, 0)
    os.pwrite(own, f"{settings.url}, reports {settings.reports_url}\n".encode(), 0)
    if not at_once(shared, fcntl.LOCK_EX):
        _say("Waiting for the end of what the last `make serve` left behind.")
        _await(shared, settings)
    return shared


def _await(descriptor: int, settings: ServeSettings) -> None:
    deadline = time.monotonic() + LEFT_SECONDS
    while not at_once(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            file = settings.folder / "children.lock"
            raise PneumoniaError(
                f"{file}: expected the processes of the last `make serve` to end within "
                f"{LEFT_SECONDS:.0f} s, but some have not. `fuser {file}` names them."
            )
        time.sleep(_POLL_SECONDS)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
