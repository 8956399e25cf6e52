"""The processes that `make serve` holds: started, started again, and ended with it.

Each runs below a keeper (`flows/keeper.py`), whose standard input is the reading end of a pipe.
To end is to close the writing end, and the system does that too where this process is killed.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from flows.embedded import START_SECONDS
from flows.serve_settings import CHECKOUT
from pneumonia.errors import PneumoniaError

PREFECT = (sys.executable, "-m", "prefect")
"""The words that Prefect's own commands begin with."""

DEATHS_AT_MOST = 5
"""Within a minute; then something is wrong that starting again does not mend."""
DEATHS_SECONDS = 60.0

_POLL_SECONDS = 0.1


class Lifeline:
    """A pipe that nothing is written to: its reading end ends when every holder has let go."""

    def __init__(self) -> None:
        self.end, self.held = os.pipe()

    def release(self) -> None:
        """Let go of it here; a second call does nothing."""
        if self.held >= 0:
            os.close(self.held)
            self.held = -1


class Child:
    """A command under a keeper, with a log of its own.

    Args:
        name: what the console calls it; its log is `<name>.log`.
        command: what to run.
        folder: of the logs.
        lifeline: the child ends when this does.
        held: descriptors that must stay open for as long as it lives.
        environment: of the command.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        lifeline: Lifeline,
        held: Sequence[int],
        environment: Mapping[str, str],
    ) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._command = [sys.executable, "-m", "flows.keeper", *command]
        self._lifeline, self._held, self._environment = lifeline, held, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: list[float] = []
        if self.log.exists():
            self.log.replace(folder / f"{name}.previous.log")

    def start(self) -> None:
        """Start it; its output is added to its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, commands of ours)
                self._command,
                cwd=CHECKOUT,
                env=self._environment,
                stdin=self._lifeline.end,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self._held,
                start_new_session=True,  # Ctrl-C is this process's: it decides who ends first
            )

    @property
    def pid(self) -> int:
        """Of its keeper, 0 where it was not started."""
        return self._process.pid if self._process else 0

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll() if self._process else None

    def await_answer(self, url: str, answers: Callable[[], bool]) -> None:
        """Wait until it answers.

        Args:
            url: where, for the messages.
            answers: says whether it does.

        Raises:
            PneumoniaError: it has ended, or does not answer in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if self.status is not None:
                raise PneumoniaError(
                    f"{url}: expected {self.name} to start, but it ended with status "
                    f"{self.status}. {self.log} says why."
                )
            if time.monotonic() > deadline:
                raise PneumoniaError(
                    f"{url}: expected an answer of {self.name} within {START_SECONDS} s, got "
                    f"none. {self.log} says why."
                )
            time.sleep(_POLL_SECONDS)

    def next_pause(self) -> float:
        """Note a death, and say how many seconds to wait before the next start.

        Raises:
            PneumoniaError: it has died too often within a minute.
        """
        now = time.monotonic()
        self._deaths = [when for when in self._deaths if now - when < DEATHS_SECONDS] + [now]
        if len(self._deaths) >= DEATHS_AT_MOST:
            raise PneumoniaError(
                f"{self.name} has ended {len(self._deaths)} times within a minute, the last time "
                f"with status {self.status}. {self.log} says why."
            )
        return float(2 ** (len(self._deaths) - 1))


def wait(children: Iterable[Child], seconds: float) -> bool:
    """Wait until all have ended; False where the time was too short."""
    deadline = time.monotonic() + seconds
    waiting = [child for child in children if child.pid]
    while any(child.status is None for child in waiting):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
