"""Event files: the epochs of a training for TensorBoard, on request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pneumonia.errors import ConfigError

SCALARS = ("train_loss", "val_loss", "val_auroc", "learning_rate", "seconds")


def check_tensorboard() -> None:
    """See that the package is there, before any work.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "runtime.tensorboard: expected the package of the `tensorboard` extra, got none. "
            "Install it with `pip install 'pneumonia[tensorboard]'`, or leave the setting out."
        )


@contextmanager
def event_writer(folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What writes an epoch's figures into a new event file in `folder`, as soon as it is told.

    A training that goes on writes a further file; TensorBoard shows them as one.
    """
    from tensorboard.summary import Writer

    writer = Writer(str(folder))

    def write(epoch: dict[str, Any]) -> None:
        for name in SCALARS:
            writer.add_scalar(name, epoch[name], step=epoch["epoch"])
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
