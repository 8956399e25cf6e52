"""The machine: its cores and GPUs, without importing torch.

The resolved precision is part of a training's key, and a cached run must not pay for torch.
"""

import csv
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pneumonia.config import Config
from pneumonia.errors import ConfigError

logger = logging.getLogger(__name__)

Precision = Literal["32", "bf16"]
Accelerator = Literal["cpu", "gpu"]

_BF16_CAPABILITY = 8.0  # Ampere is the first generation with bfloat16 arithmetic


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Args:
        memory: bytes; 0 where it is not told (a slice of a GPU).
        bf16: whether it calculates in bfloat16 itself.
    """

    name: str
    memory: int
    bf16: bool


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Processor cores that this process may use, a container's share (cgroup v2) counted."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        share, period = quota.read_text("ascii").split()
        return max(1, min(available or 1, round(int(share) / int(period))))
    except (OSError, ValueError):  # no cgroup, or `max`: no quota
        return available or 1


def workers(config: Config) -> int:
    """Threads that convert, gather, augment and predict; no result depends on their number."""
    return config.runtime.workers or cores()


def gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, as NVIDIA's driver lists them."""
    tool = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible == "":
        return []
    return select_gpus(_listing(tool), visible)


def select_gpus(listing: str, visible: str | None) -> list[Gpu]:
    """The GPUs of a listing that CUDA_VISIBLE_DEVICES names, in its order.

    Names are indices, beginnings of UUIDs, or slices (`MIG-...`, which exist only on GPUs with
    bf16); as CUDA does, the first name that fits none ends the list.

    Args:
        listing: lines of index, uuid, name, MiB, compute capability.
        visible: the variable's value, None where it is unset.

    >>> listing = "0, GPU-a1, NVIDIA H200, 143771, 9.0\\n1, GPU-b2, Tesla T4, 15360, 7.5\\n"
    >>> select_gpus(listing, "1")
    [Gpu(name='Tesla T4', memory=16106127360, bf16=False)]
    """
    rows = [[cell.strip() for cell in row] for row in csv.reader(listing.splitlines()) if row]
    found = {(index, uuid): _gpu(name, mib, cap) for index, uuid, name, mib, cap in rows}
    if visible is None:
        return list(found.values())
    chosen = []
    for name in (part.strip() for part in visible.split(",")):
        if name.startswith("MIG-"):
            chosen.append(Gpu("a slice of a GPU", 0, bf16=True))
            continue
        fitting = [gpu for (index, uuid), gpu in found.items() if _fits(name, index, uuid)]
        if not fitting:
            break
        chosen.append(fitting[0])
    return chosen


def resolve_accelerator(config: Config) -> Accelerator:
    """Where networks run on this machine.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    asked = config.runtime.accelerator
    if asked == "cpu":
        return "cpu"
    if gpus():
        return "gpu"
    if asked == "gpu":
        raise ConfigError(
            "runtime.accelerator: expected a GPU that nvidia-smi lists and CUDA_VISIBLE_DEVICES "
            "does not hide, got none. Set runtime.accelerator=cpu."
        )
    return "cpu"


def resolve_precision(config: Config) -> Precision:
    """The arithmetic of training on this machine: part of what decides a model's bytes."""
    asked = config.training.precision
    if asked != "auto":
        return asked
    on_gpu = resolve_accelerator(config) == "gpu"
    return "bf16" if on_gpu and all(gpu.bf16 for gpu in gpus()) else "32"


@cache
def _listing(tool: str) -> str:
    """What nvidia-smi tells of all GPUs; asked once, as it takes up to a second."""
    query = "--query-gpu=index,uuid,name,memory.total,compute_cap"
    try:
        return subprocess.run(  # noqa: S603 (a fixed command)
            [tool, query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi is installed but told of no GPU (%s): using the CPU.", error)
        return ""


def _gpu(name: str, mib: str, capability: str) -> Gpu:
    memory = int(mib) << 20 if mib.isdigit() else 0
    try:
        return Gpu(name, memory, bf16=float(capability) >= _BF16_CAPABILITY)
    except ValueError:  # `[N/A]`
        return Gpu(name, memory, bf16=False)


def _fits(name: str, index: str, uuid: str) -> bool:
    return name == index or (name.startswith("GPU-") and uuid.startswith(name))
