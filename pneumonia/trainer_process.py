"""The parent's side of a training: start the child process, relay its epochs, end it surely.

Where several devices share the training there is a child for each, and all that is said here of
one is done for each. Knows neither torch nor Lightning.

The child (`python -m pneumonia.training JOB.json`) writes one JSON line per event on its standard
output:

    {"epoch": 3, "epochs": 30, "train_loss": ..., "val_loss": ..., "val_auroc": ..., "seconds": ...}
    {"log": "...", "level": 20}         a line of its log
    {"facts": {...}}                    it is done
    {"error": {"type": "TrainingError", "message": "..."}}

It ends by itself when its standard input closes, which happens when this process dies.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pneumonia import config as configuration
from pneumonia import errors
from pneumonia.artifacts import Facts
from pneumonia.config import Config
from pneumonia.errors import DataError, DicomError, PneumoniaError, TrainingError

logger = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, Any]], None]

STOP_SECONDS = 10.0
"""What a child has after SIGTERM to write its resume point and end."""

MEETING = "meeting"
"""File among the resume points through which the processes of one training find each other."""

Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class TrainingJob:
    """What the child process is to do, as plain values.

    Args:
        model: a name in `network.MODELS`.
        pool: folder of the image pool.
        studies: Parquet table image_id, split (train or val), target, pool, row.
        output: folder for `checkpoint.ckpt` and `history.csv`.
        state: folder for resume points; a job found there half done goes on.
        precision, accelerator: as resolved for this machine.
        devices: GPUs, or processes on a CPU, that share the training.
    """

    model: str
    config: Config
    pool: str
    studies: str
    output: str
    state: str
    precision: Literal["32", "bf16"]
    accelerator: Literal["cpu", "gpu"]
    devices: int = 1

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        content = asdict(self) | {"config": configuration.as_dict(self.config)}
        path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> "TrainingJob":
        """Read a job that `write` wrote."""
        content = json.loads(path.read_text("utf-8"))
        return cls(**content | {"config": configuration.parse(content["config"])})


def run_training(job: TrainingJob, *, lock: int, on_epoch: OnEpoch) -> Facts:
    """Train in a child process of its own and wait for it.

    Whatever ends this call (an error, Ctrl-C, a cancelled run) ends the child and all it started.

    Args:
        lock: descriptor of the artifact's lock; the child holds it too, so that nobody else
            begins the same training before it has ended.
        on_epoch: told each epoch's figures.

    Returns:
        What the child tells of the finished training.

    Raises:
        TrainingError: the training cannot go on, or its process died.
        PneumoniaError: another error of this project that the child met.
        OSError: the machine's fault; a further try goes on from the last resume point.
    """
    state = Path(job.state)
    state.mkdir(parents=True, exist_ok=True)
    job_file = state / "job.json"
    job.write(job_file)
    (state / MEETING).unlink(missing_ok=True)  # of a training that was killed
    told, tell = os.pipe()
    lives, hold = os.pipe()
    children: list[Child] = []
    try:
        try:
            for rank in range(job.devices):  # each is noted before the next is started
                child = _start(job_file, rank, job.devices, lives, tell, lock)
                children.append(child)
        finally:
            os.close(tell)
            os.close(lives)
        return _follow(children, told, on_epoch)
    finally:
        _end(children)
        os.close(hold)
        os.close(told)


def _start(job_file: Path, rank: int, devices: int, lives: int, tell: int, lock: int) -> Child:
    """Start a child; it ends when nobody holds the other end of `lives` any more."""
    return subprocess.Popen(  # noqa: S603 (this interpreter, our module)
        [sys.executable, "-m", "pneumonia.training", str(job_file)],
        stdin=lives,
        stdout=tell,
        pass_fds=(lock,),
        start_new_session=True,
        # CUDA's own order puts the fastest GPU first; nvidia-smi, whose list decided on the
        # precision, goes by the slot.
        env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        | os.environ
        | ({"LOCAL_RANK": str(rank), "WORLD_SIZE": str(devices)} if devices > 1 else {}),
    )


def _follow(children: list[Child], told: int, on_epoch: OnEpoch) -> Facts:
    """Relay the children's events until they are done."""
    for event in _events(children, told):
        if "epoch" in event:
            on_epoch(event)
        elif "log" in event:
            logger.log(event["level"], "%s", event["log"])
        elif "error" in event and not any((child.poll() or 0) < 0 for child in children):
            raise _as_error(event["error"])  # of one whose mate was killed: what it met follows
        elif "facts" in event:
            return dict(event["facts"])
    if not any(map(_failed, children)):  # they have closed their output and are about to end
        for child in children:
            child.wait(STOP_SECONDS)
    # A signal's number is below 0; whoever was killed by one comes before its mates' complaints.
    status = min((child.returncode for child in children if child.returncode), default=0)
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    raise TrainingError(
        f"training: expected a finished model, but its process ended {how}. Run again: it goes on "
        "from the last resume point. SIGKILL usually means too little memory: lower "
        "training.batch_size."
    )


def _failed(child: Child) -> bool:
    return child.poll() not in {None, 0}


def _events(children: list[Child], told: int) -> Iterator[dict[str, Any]]:
    """The children's JSON lines, until they close their output, all have ended, or one has failed.

    Wakes every second: a cancellation reaches a thread only between two of its instructions.
    """
    rest = b""
    while True:
        ended = any(map(_failed, children)) or all(child.poll() == 0 for child in children)
        if select.select([told], [], [], 0 if ended else 1.0)[0]:
            chunk = os.read(told, 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(_event, lines)
        elif ended:
            return


def _event(line: bytes) -> dict[str, Any]:
    """A line as an event; one that is none was written by a library at its import."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {"log": line.decode("utf-8", "replace"), "level": logging.INFO}


def _as_error(told: dict[str, Any]) -> Exception:
    """The child's error as one of the same class here."""
    name, message = told["type"], told["message"]
    if name == "OSError":
        return OSError(told["errno"], message)
    error_class = getattr(errors, name, None)
    if error_class is DicomError:  # takes a reason too, which a training never has to tell
        return DataError(message)
    if isinstance(error_class, type) and issubclass(error_class, PneumoniaError):
        return error_class(message)
    return RuntimeError(f"{name} in the training process: {message}")


def _end(children: list[Child]) -> None:
    """End the children and everything in their groups, gently first."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in children:
        try:
            os.killpg(child.pid, signal.SIGKILL)  # it led a group of its own
        except ProcessLookupError:
            logger.debug("A training process and its group are gone.")
        child.wait()
