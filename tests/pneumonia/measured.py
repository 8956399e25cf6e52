"""Conversions in a process of their own, with their time and the memory they took.

A test process that has held gigabytes before shows no growth: what was freed is given out again,
and its peak is behind it.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from pneumonia.conversion import Recipe, convert
from pneumonia.errors import DicomError


@dataclass(frozen=True)
class Measured:
    """What a call did: its result, the seconds and the growth of resident memory at its peak."""

    result: object
    seconds: float
    growth: int  # KiB


@contextmanager
def child_process():
    """A function that measures calls in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as child:
        yield lambda function, *arguments: child.submit(_measure, function, arguments).result()


def converted(data, side=32):
    """The reason why a file of any modality is refused, and the sentence; or None and its shape."""
    try:
        image, _ = convert(data, "x", Recipe(side, ("*",), 0))
    except DicomError as error:
        return error.reason, error.detail
    return None, image.shape


def hold(mebibytes):
    """Take memory and give it back."""
    return int(np.ones(mebibytes << 20, np.uint8)[-1])


def _measure(function, arguments):
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
    before, started = _status("VmRSS"), time.monotonic()
    result = function(*arguments)
    return Measured(result, time.monotonic() - started, _status("VmHWM") - before)


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
