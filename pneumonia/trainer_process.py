"""The parent's side of a training: start the child process, relay its epochs, end it surely.

Knows neither torch nor Lightning. The child (`python -m pneumonia.training JOB.json`) writes one
JSON line per event on its standard output:

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
    """

    model: str
    config: Config
    pool: str
    studies: str
    output: str
    state: str
    precision: Literal["32", "bf16"]
    accelerator: Literal["cpu", "gpu"]

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
    process = subprocess.Popen(  # noqa: S603 (this interpreter, our module)
        [sys.executable, "-m", "pneumonia.training", str(job_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(lock,),
        start_new_session=True,
        # CUDA's own order puts the fastest GPU first; nvidia-smi, whose list decided on the
        # precision, goes by the slot.
        env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | os.environ,
    )
    try:
        return _follow(process, on_epoch)
    finally:
        _end(process)


def _follow(process: "subprocess.Popen[bytes]", on_epoch: OnEpoch) -> Facts:
    """Relay the child's events until it is done."""
    for event in _events(process):
        if "epoch" in event:
            on_epoch(event)
        elif "log" in event:
            logger.log(event["level"], "%s", event["log"])
        elif "error" in event:
            raise _as_error(event["error"])
        elif "facts" in event:
            return dict(event["facts"])
    status = process.wait(STOP_SECONDS)
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    raise TrainingError(
        f"training: expected a finished model, but its process ended {how}. Run again: it goes on "
        "from the last resume point. SIGKILL usually means too little memory: lower "
        "training.batch_size."
    )


def _events(process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """The child's JSON lines, until it closes its output or ends.

    Wakes every second: a cancellation reaches a thread only between two of its instructions.
    """
    stream = process.stdout
    if stream is None:  # never: it is a pipe
        return
    rest = b""
    while True:
        ended = process.poll() is not None
        if select.select([stream], [], [], 0 if ended else 1.0)[0]:
            chunk = os.read(stream.fileno(), 1 << 16)
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


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the child and everything in its group, gently first."""
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    try:
        os.killpg(process.pid, signal.SIGKILL)  # it led a group of its own
    except ProcessLookupError:
        logger.debug("The training process and its group are gone.")
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
