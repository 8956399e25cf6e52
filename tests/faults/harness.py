"""Runs of the pipeline as child processes that are broken from outside, and what came of them."""

import hashlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from itertools import count
from multiprocessing import forkserver
from pathlib import Path

from server import processes

from flows.cli import main
from flows.status import find_all_damage
from pneumonia.pool import ImagePool
from pneumonia.workspace import Workspace

MARK = "PNEUMONIA_FAULT_TEST"
"""In the environment of every process that a run starts, so that none is overlooked."""

CRASH = Path(__file__).parent / "crash"
PROJECT = Path(__file__).parents[2]
STAGES = (
    "labels", "shards", "split", "training", "predictions", "evaluation", "cam", "report",
)  # fmt: skip
SETTINGS = [
    "--models", "custom_cnn",
    "--set", "shards.image_size=32", "--set", "shards.images_per_shard=64",
    "--set", "shards.quiet_seconds=0",
    "--set", "split.val_fraction=0.25", "--set", "split.test_fraction=0.25",
    "--set", "training.weights=none", "--set", "training.epochs=1",
    "--set", "evaluation.n_resamples=50", "--set", "cam.n_images=4",
]  # fmt: skip


def start(raw, workspace, *more, under=(), **environment):
    """`pneumonia run` as a process that leads a group of its own.

    It brings its own Prefect API.

    Args:
        under: a command that it is run by.
    """
    asked = ["run", "--raw", raw, "--workspace", workspace, *SETTINGS, *more]
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.Popen(
        [*under, sys.executable, "-m", "flows.cli", *asked],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=inherited | {MARK: str(workspace)} | environment,
    )  # fmt: skip


def read_until(process, words):
    """The lines that a run prints, up to the first that holds `words`."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came: {seen}")


def finish(process):
    output, _ = process.communicate(timeout=400)
    return output


def states(output):
    """The state of each stage that a run told of."""
    lines = [line.split() for line in output.splitlines()]
    return {words[0]: words[1] for words in lines if words[1:] and words[1] in {"ran", "cached"}}


def results(workspace):
    """All that must be equal: per artifact that the run uses, the digests of its files.

    Of the table of images, what counts is which images it names and their pixels, not where they
    stand in the pool. Times and host, in `record.json`, may differ.
    """
    found = {}
    for link in sorted((workspace / "runs" / "main").iterdir()):
        manifest = json.loads((link / "manifest.json").read_text("utf-8"))
        found[link.name] = (manifest["key"], manifest["files"])
    images = Workspace(workspace).finished("main", "shards").table("images.parquet")
    pixels = ImagePool(workspace / "pool", images).gather_ids(sorted(images["image_id"]))
    found["shards"] = (found["shards"][0], hashlib.sha256(pixels.tobytes()).hexdigest())
    return found


def processes_of(workspace):
    """Command lines of the living processes that a run on this workspace has started."""
    return [*processes(f"{MARK}={workspace}").values()]


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["flows.pipeline", "flows.preflight", "pneumonia.checkpoint"])


def preload(library):
    """Start the process that runs are forked from, with the shim in it where there is one."""
    if library is not None:
        os.environ["LD_PRELOAD"] = str(library)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("LD_PRELOAD", None)


class Fork:
    """A command in a process forked from one that has imported all, so hundreds are affordable.

    It is broken from outside and waited for like that of `start`.
    """

    def __init__(self, arguments, environment, output):
        self.output = output
        self.process = FORKS.Process(target=_run, args=(arguments, environment, output))
        self.process.start()

    @property
    def returncode(self):
        return self.process.exitcode

    def communicate(self, timeout):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("pneumonia run", timeout)
        return self.output.read_text("utf-8"), None

    def send_signal(self, number):
        os.kill(self.process.pid, number)


def _run(arguments, environment, output):
    """In the forked process: `pneumonia`, its lines in a file."""
    os.setsid()
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
        stream.reconfigure(line_buffering=True)
    runpy.run_path(str(CRASH / "sitecustomize.py"))
    warnings.resetwarnings()
    sys.exit(main(arguments))


class Faults:
    """Breaks runs, looks at what the next one makes of it, and counts how they ended.

    Args:
        finished: the pipeline of an undisturbed run.
        api: address of the Prefect API that the runs share.
        tally: receives `(fault, how it ended)` for the closing table.
        logs: a folder for what the forked runs print.
    """

    def __init__(self, finished, api, tally, logs):
        self.finished, self.api, self.tally, self.logs = finished, api, tally, logs
        self.equal = results(finished.workspace)
        self.numbers = count()

    def start(self, workspace, *more, raw=None, **environment):
        """A run in a forked process."""
        asked = ["--raw", raw or self.finished.raw, *SETTINGS, *more]
        return self.command("run", workspace, *asked, **environment)

    def command(self, name, workspace, *more, **environment):
        """Any of the commands in a forked process."""
        environment |= {"PYTHONPATH": f"{PROJECT}:{CRASH}", MARK: str(workspace)}
        output = self.logs / f"{next(self.numbers)}.log"
        asked = [name, "--workspace", workspace, *more]
        return Fork([str(each) for each in asked], environment, output)

    def copy(self, workspace, *stages):
        """The finished workspace once more, as it was before these stages were made."""
        shutil.copytree(self.finished.workspace, workspace, symlinks=True)
        if stages:
            shutil.rmtree(workspace / ".state")
        for stage in stages:
            shutil.rmtree(workspace / stage)
            for link in (workspace / "runs" / "main").glob(f"{stage}*"):
                link.unlink()
        return workspace

    def ends_equal(self, fault, workspace, *more, raw=None, told=""):
        """One more run; see that it ends with the results of an undisturbed one, all whole.

        Args:
            told: output of the run that met the fault, shown where this fails.
        """
        assert wait_until(lambda: not processes_of(workspace)), processes_of(workspace)
        process = self.start(workspace, *more, raw=raw)
        output = finish(process)
        self.is_equal(fault, workspace, process.returncode, f"{told}\nnext run:\n{output}")
        self.tally.append((fault, "equal"))
        return output

    def is_equal(self, fault, workspace, status, told):
        """See that a run's results are those of an undisturbed one, and all artifacts whole."""
        assert status == 0, f"{fault}: {told}"
        assert results(workspace) == self.equal, f"{fault}: {told}"
        assert list(find_all_damage(workspace)) == [], f"{fault}: {told}"

    def ended_by_error(self, fault, process, output, *words):
        """See that a run ended with one line that says what to do, and no traceback."""
        assert process.returncode in {1, 2}, f"{fault}: {process.returncode} {output}"
        assert "Traceback" not in output, f"{fault}: {output}"
        line = output.splitlines()[-1]
        assert "Error: " in line, f"{fault}: {output}"
        for word in words:
            assert word in line, f"{fault}: {word!r} is missing: {output}"
        self.tally.append((fault, "error"))

    def killed(self, process, point):
        """The output of a run that has to end by kill -9, its own or that of its training."""
        output = finish(process)
        by_child = "its process ended by SIGKILL" in output
        assert process.returncode == -signal.SIGKILL or by_child, f"{point}: {output}"
        return output
