"""Resume points: the state of a training on disk, whole or not at all.

Each file begins with the digest of the rest, so a torn one is known; the one before is kept for
that case. The disk is not waited for: what a power cut tears, the digest tells.
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pneumonia.checkpoint import dump
from pneumonia.config import Config
from pneumonia.network import UNREADABLE

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised when `Progress` or what `fitting` adds to it changes: an older point is left aside."""

_LATEST = "resume.ckpt"
_PREVIOUS = "resume.previous.ckpt"
_DIGEST_LENGTH = 64  # sha256, hexadecimal


class Progress:
    """Where a training stands, beside its tensors.

    Args:
        resumed: the content of a resume point; None at the beginning.
    """

    def __init__(self, resumed: dict[str, Any] | None) -> None:
        told = resumed or {"epoch": 0, "step": 0, "losses": [], "history": [], "best": None}
        self.epoch: int = told["epoch"]  # from 0; the one that runs
        self.step: int = told["step"]  # of this epoch; the next to do
        self.losses: list[float] = told["losses"]  # of this epoch's steps
        self.history: list[dict[str, float]] = told["history"]
        self.best: dict[str, Any] | None = told["best"]  # epoch (from 1), figures, state_dict

    def finished(self, config: Config) -> bool:
        """Whether all epochs are done, or too many in a row were no better than the best."""
        waited = self.epoch - self.best["epoch"] if self.best else 0
        return self.epoch >= config.training.epochs or waited >= config.training.patience


def save(content: Mapping[str, Any], folder: Path) -> None:
    """Write a resume point of tensors and plain values, keeping the one before it."""
    payload = dump({**content, "format": FORMAT})
    latest = folder / _LATEST
    fresh = folder / f"{_LATEST}.new"
    with fresh.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode("ascii"))
        file.write(payload)
    if latest.exists():
        latest.replace(folder / _PREVIOUS)
    fresh.replace(latest)


def load(folder: Path) -> dict[str, Any] | None:
    """The latest whole resume point, or None; one that cannot be used is told in the log."""
    for name in (_LATEST, _PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        data = path.read_bytes()
        payload = data[_DIGEST_LENGTH:]
        if data[:_DIGEST_LENGTH] != hashlib.sha256(payload).hexdigest().encode("ascii"):
            logger.warning("%s is torn: its digest differs. Going back to an earlier one.", name)
            continue
        try:
            content = dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
        except UNREADABLE as error:
            logger.warning("%s holds other bytes (%s): left aside.", name, type(error).__name__)
            continue
        if content.pop("format", None) == FORMAT:
            return content
        logger.warning("%s is of another version: left aside.", name)
    return None
