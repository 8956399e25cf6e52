"""How near a training comes to what a GPU can do.

    pneumonia bench gpu        the same as `pneumonia bench training`, where there is one


Measured are the GPU's bf16 matrix products and its copies in memory, the images a second of the
training, the time that its input and augmentation take alone, and the greatest difference between
the two augmentation back ends. Counted are the operations of a forward and a backward pass
(torch's own counter) and the bytes that its kernels read and write, each tensor once a kernel.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import training
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pneumonia import augment
from pneumonia.batches import Epoch, MappedSource, ResidentSource, TrainingData, open_source
from pneumonia.machine import cores
from pneumonia.network import STD, build
from pneumonia.pool import ImagePool
from pneumonia.trainer_process import TrainingJob

GPU = torch.device("cuda")
CPU = torch.device("cpu")
CHALLENGE = 21_000
"""Images of train, where the challenge's are split 80 : 10 : 10."""
ASKED_SHARE = 0.05
LARGEST_DIFFERENCE = 0.53
"""Half a grey level, and what the two round differently."""


class Bytes(TorchDispatchMode):
    """Counts what the operations inside it read and write; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [
                leaf for leaf in tree_leaves((args, kwargs, result)) if torch.is_tensor(leaf)
            ]
            self.count += sum(tensor.nbytes for tensor in tensors)
        return result


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("bench gpu: expected a GPU that torch can use, got none.")
    training.main()


def tell(job: TrainingJob, rate: float) -> None:
    """Print the shares for a training that does `rate` images a second."""
    side, batch = job.config.crop_size, job.config.training.batch_size
    studies = pd.read_parquet(job.studies)
    pool, rows = ImagePool(Path(job.pool), studies), np.arange(len(studies))
    operations = operations_an_image(job.model, side)
    moved = bytes_an_image(job.model, side, job.precision)
    products, copies = matrix_products(), copied_bytes()
    data = TrainingData(
        open_source(pool, GPU, cores(), 0.5),
        studies["target"].to_numpy(),
        rows,
        rows[:0],
        job.config,
    )
    share = seconds_of(lambda: _drain(Epoch(data, 0, 0))) / (data.steps * batch) * rate
    print(f"\n| `{job.model}`, {side} px, batch {batch}, {job.precision} | |\n|---|---|")
    print(f"| images/s | {rate:,.0f} |")
    print(f"| epoch of {CHALLENGE:,} images, s | {CHALLENGE / rate:.2f} |")
    print(f"| GFLOP an image, forward and backward | {operations / 1e9:.1f} |")
    print(f"| bf16 matrix products, TFLOP/s | {products / 1e12:.0f} |")
    print(f"| share of the limit of arithmetic | {rate * operations / products:.1%} |")
    print(f"| MB an image that its kernels read and write | {moved / 1e6:.0f} |")
    print(f"| copies in the GPU's memory, TB/s | {copies / 1e12:.2f} |")
    print(f"| share of the limit of memory | {rate * moved / copies:.1%} |")
    print(f"| input and augmentation, share of a step | {share:.1%} |")
    print(f"| difference of the back ends, grey levels | {difference(pool, side):.3f} |")
    print(f"Asked: input and augmentation at most {ASKED_SHARE:.0%} of a step, the back ends at "
          f"most {LARGEST_DIFFERENCE} grey levels apart.")  # fmt: skip


def operations_an_image(model: str, side: int) -> float:
    """Floating-point operations of a forward and a backward pass."""
    network = build(model)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 1, side, side)).sum().backward()
    return counter.get_total_flops() / 2


def bytes_an_image(model: str, side: int, precision: str, device: torch.device = GPU) -> float:
    """Bytes that the kernels of a forward and a backward pass read and write, weights left out."""
    network, counted = build(model).to(device, memory_format=torch.channels_last), []
    for images in (2, 4):
        inputs = torch.zeros(images, 1, side, side, device=device)
        with Bytes() as counter:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = network(inputs)
            logits.float().sum().backward()
        counted.append(counter.count)
    return (counted[1] - counted[0]) / 2


def matrix_products(n: int = 8192) -> float:
    """Operations a second of bf16 matrix products."""
    a, b = (torch.randn(n, n, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b)


def copied_bytes(n: int = 1 << 30) -> float:
    """Bytes a second that a copy within the GPU reads and writes."""
    a, b = (torch.zeros(n, device=GPU, dtype=torch.uint8) for _ in range(2))
    return 2 * n / seconds_of(lambda: b.copy_(a))


def difference(pool: ImagePool, crop: int, device: torch.device = GPU, n: int = 256) -> float:
    """The most that OpenCV's crops and the GPU's differ, before contrast makes more of it."""
    rows = np.arange(min(n, len(pool)))
    changes = augment.draw(
        np.random.default_rng(0), len(rows), side=pool.side, crop=crop, strength=1.0, flip=True
    )
    plain = replace(changes, contrast=np.ones(len(rows)), brightness=np.zeros(len(rows)))
    on_cpu, on_device = (
        source.crops(rows, plain, crop).cpu()
        for source in (MappedSource(pool, CPU, cores()), ResidentSource(pool, device))
    )
    return 255 * STD * float((on_cpu - on_device).abs().max())


def seconds_of(work: Callable[[], object], rounds: int = 10) -> float:
    """The shortest time of a piece of work on the GPU, the first ones left out."""
    shortest = math.inf
    for turn in range(rounds + 3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if turn >= 3:
            shortest = min(shortest, time.perf_counter() - started)
    return shortest


def _drain(epoch: Epoch) -> None:
    for _ in epoch:
        pass


if __name__ == "__main__":
    main()
