"""Runs a command that ends with whoever asked for it, and all that it has started with it.

    python -m flows.keeper COMMAND ...

When standard input ends, so also when the process at its other end was killed with -9, what the
command has started is asked to end, then the command is, and what is left after that is killed,
also where it made a session of its own, as the flow runs of a worker do. The same is done with
what a command leaves behind that ends by itself. The exit status is the command's.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

RUNS_SECONDS = 5.0
"""For the flow runs of a worker to tell the server that they were ended."""
NOTICE_SECONDS = 1.0
"""For the command to notice it, and to tell of those that could not."""
COMMAND_SECONDS = 3.0
"""For the command to end by itself after that."""
END_SECONDS = RUNS_SECONDS + NOTICE_SECONDS + COMMAND_SECONDS

_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input does; returns its exit status."""
    asked: list[int] = []
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    adopt_orphans()
    under_way = _Command(command)
    while not under_way.ended() and not asked:
        if select.select([0], [], [], _POLL_SECONDS)[0] and not os.read(0, 1):
            break
    under_way.end()
    status = under_way.status
    if status is None:
        return 1  # killed, and its end not seen
    return status if status >= 0 else 128 - status


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (prctl(2), Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(ancestor: int) -> dict[int, int]:
    """The living processes that stem from one, each with its parent."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if state not in "ZX":
            parents[int(file.parent.name)] = int(parent)
    found: dict[int, int] = {}
    generation = {ancestor}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation} - {*found}
        found |= {pid: parents[pid] for pid in generation}
    return found


def send(number: int, pids: Collection[int]) -> None:
    """Send a signal to processes of which some may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


class _Command:
    """A command under way, and whatever stems from it."""

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (the command that `make serve` gives)
            words, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_keeper
        )
        self.status: int | None = None

    def ended(self) -> bool:
        """Whether it has ended; collects every child that has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if not pid:
                return self.status is not None
            if pid == self._process.pid:
                self.status = self._process.returncode = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """End what it has started, then the command, then kill what is left."""
        keeper = os.getpid()
        parent = keeper if self.ended() else self._process.pid
        runs = {pid for pid, its_parent in descendants(keeper).items() if its_parent == parent}
        send(signal.SIGTERM, runs)
        self._wait(lambda: not runs & descendants(keeper).keys(), RUNS_SECONDS)
        if runs:
            self._wait(self.ended, NOTICE_SECONDS)
        if not self.ended():
            send(signal.SIGTERM, [self._process.pid])
            self._wait(self.ended, COMMAND_SECONDS)
        while left := descendants(keeper):
            send(signal.SIGKILL, left)
            self._wait(lambda: not descendants(keeper), _POLL_SECONDS)
        self._wait(self.ended, COMMAND_SECONDS)

    def _wait(self, over: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not (self.ended() and not descendants(os.getpid())) and not over():
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_SECONDS)


def _end_with_keeper() -> None:
    """Be killed when the keeper is, which then can end nothing itself."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
