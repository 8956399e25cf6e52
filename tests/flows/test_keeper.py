"""A kept command and all that it started end together, whoever ends first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import keeper

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="flows/keeper.py needs Linux")

SECONDS = 30
APART = (
    "import os, signal, sys, time; os.setsid(); {before}; print(os.getpid(), flush=True); {then}"
)


def words(then, before="pass"):
    """A command that makes a session of its own, as a flow run does, and tells its process ID."""
    return [sys.executable, "-c", APART.format(before=before, then=then)]


def parent_of(command, then):
    """A command that starts another one and does something else."""
    program = f"import subprocess, time; started = subprocess.Popen({command!r}); {then}"
    return [sys.executable, "-c", program]


@pytest.fixture
def keep():
    """Starts a kept command; its keeper is killed at the end if it is still there."""
    started = []

    def keep(*command):
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.keeper", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield keep
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def await_end(pid):
    deadline = time.monotonic() + SECONDS
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("program", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("os.abort()", 134)]
)
def test_the_status_is_that_of_the_command(keep, program, status):
    command = [sys.executable, "-c", f"import os; {program}"]
    assert keep(*command).wait(SECONDS) == status


def test_all_ends_with_standard_input(keep):
    kept = keep(*parent_of(words("time.sleep(600)"), "time.sleep(600)"))
    run = int(kept.stdout.readline())
    assert alive(run)
    kept.stdin.close()
    assert kept.wait(SECONDS) == 143
    assert not alive(run)


def test_what_the_command_started_is_asked_first_and_the_command_sees_it_end(keep):
    kept = keep(*parent_of(words("time.sleep(600)"), "raise SystemExit(-started.wait())"))
    kept.stdout.readline()
    kept.stdin.close()
    assert kept.wait(SECONDS) == signal.SIGTERM


def test_what_does_not_listen_is_killed(keep):
    deaf = words("time.sleep(600)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    kept = keep(*parent_of(deaf, "time.sleep(600)"))
    run = int(kept.stdout.readline())
    kept.stdin.close()
    assert kept.wait(SECONDS) == 143
    assert not alive(run)


def test_what_a_command_leaves_behind_ends_too(keep):
    kept = keep(*parent_of(words("time.sleep(600)"), "raise SystemExit(0)"))
    run = int(kept.stdout.readline())
    assert kept.wait(SECONDS) == 0
    assert not alive(run)


def test_a_command_ends_when_its_keeper_is_killed(keep):
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    kept = keep(sys.executable, "-c", program)
    command = int(kept.stdout.readline())
    kept.kill()
    await_end(command)


def test_descendants_are_found_with_their_parents():
    with subprocess.Popen(
        parent_of(words("time.sleep(600)"), "started.wait()"), stdout=subprocess.PIPE, text=True
    ) as first:
        second = int(first.stdout.readline())
        found = keeper.descendants(os.getpid())
        assert (found[first.pid], found[second]) == (os.getpid(), first.pid)
        keeper.send(signal.SIGKILL, [second, first.pid])
        first.wait(SECONDS)
        assert first.pid not in keeper.descendants(os.getpid())
        keeper.send(signal.SIGKILL, [first.pid])  # gone: nothing happens
