"""How fast a network is trained, beside a bare PyTorch loop and beside other ways to feed one.

    pneumonia bench training [--model resnet18] [--side 128] [--batch 32] [--rounds 3] [--cpu]

The bare loop has its inputs prepared on the device and does what none can leave out: forward, loss,
backward, AdamW, learning rate; channels_last, and bf16 on a GPU, as this project has it. "This" is
`pneumonia.training.train`, with Lightning, on a pool of images of noise: each of its steps also
draws and makes its batch from stored images, averages the weights and looks at the loss. Counted
are its steps from an epoch's start to its last step; validation, resume points and the first epoch
are not. The other ways take their turn between two of its epochs, in the same process; a ratio is
the median over rounds of one round's two times.

Lightning's own cost is measured where a step is short, beside a loop that does by hand all that a
step of this project does: a network of one convolution, 2 images of 16 px, one core. There the
median step of a round counts.

Wall time means little while anything else runs on the machine: --cpu counts processor time
instead, all of it on one core, with others' loaders in this process.

On a GPU the defaults are 224 px, batches of 256, 21,000 images, and benchmarks/gpu.py follows:
the shares of the machine's limits, of input and augmentation, and whether both back ends agree.
"""

import argparse
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import feeding
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from pneumonia import network
from pneumonia.batches import Epoch, TrainingData, open_source
from pneumonia.child_process import Stop
from pneumonia.config import parse
from pneumonia.machine import cores
from pneumonia.network import Classifier, build
from pneumonia.optimisation import Average, make_optimiser, one_cycle
from pneumonia.pool import ImagePool
from pneumonia.trainer_process import TrainingJob
from pneumonia.training import train

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
BARE, THIS, BY_HAND = "bare loop, inputs prepared", "this, with Lightning", "the same by hand"
ASKED_RATIO, ASKED_MS = 0.95, 1.0
VAL = 64
WEIGHT_DECAY, LEARNING_RATE = 0.05, 1e-4

Clock = Callable[[], float]
Turn = Callable[[], tuple[float, int]]
"""Trains for a while: the seconds that it took, and the images."""


@dataclass
class Watch(Stop):
    """Never stops a training, and notes when it was asked to: once a step, at its end."""

    clock: Clock
    listening: bool = False
    times: list[float] = field(default_factory=list)

    @property
    def signal(self) -> None:
        self.times.append(self.clock())


class Loop:
    """A bare training loop; the network and its optimiser stay from turn to turn."""

    def __init__(self, model: str, precision: str, steps: int) -> None:
        built = build(model).to(DEVICE, memory_format=torch.channels_last)
        self.network = built.train()
        self.optimiser = make_optimiser(self.network, LEARNING_RATE, WEIGHT_DECAY)
        self.schedule = LambdaLR(self.optimiser, lambda step: one_cycle(step, steps, 0.1))
        self.autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16")
        self.weight = torch.tensor(2.0, device=DEVICE)

    def step(self, inputs: Tensor, target: Tensor) -> Tensor:
        with self.autocast:
            logits = self.network(inputs)
        loss = binary_cross_entropy_with_logits(logits.float(), target, pos_weight=self.weight)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return loss

    def turn(self, batches: Iterable[tuple[Tensor, Tensor]], clock: Clock) -> tuple[float, int]:
        images, started = 0, clock()
        for inputs, target in batches:
            self.step(inputs, target)
            images += len(target)
        wait()
        return clock() - started, images


def main() -> None:
    arguments = _arguments()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    clock, unit = time.perf_counter, "wall time"
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})  # before torch starts its threads
    if arguments.cpu:
        clock, unit = time.process_time, "processor time of one core"
    print(f"{cores_of(everywhere)} of {os.cpu_count()} cores, "
          f"{torch.cuda.get_device_name() if ON_GPU else 'no GPU'}, {unit}, load "
          f"{os.getloadavg()[0]:.1f}, {arguments.rounds} rounds")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        tell_lightning(Path(scratch) / "small", arguments.rounds, clock)
        if not arguments.cpu:
            os.sched_setaffinity(0, everywhere)
        (Path(scratch) / "large").mkdir()
        job = make_job(Path(scratch) / "large", arguments)
        rate = tell_throughput(job, arguments, clock)
        if ON_GPU:
            import gpu

            gpu.tell(job, rate)


def tell_throughput(job: TrainingJob, arguments: argparse.Namespace, clock: Clock) -> float:
    """Print the table of images a second; this project's."""
    turns, passes = turns_of(job, arguments, clock), []

    def this(times: list[float]) -> None:
        images = (len(times) - 1) * job.config.training.batch_size
        spent = {THIS: (times[-1] - times[0]) / images}
        for name, turn in turns.items():
            seconds, images = turn()
            spent[name] = seconds / images
        passes.append(spent)

    run_watched(job, clock, this)
    told = {name: [each[name] for each in passes[1:]] for name in (BARE, THIS, *list(turns)[1:])}
    kind = f"`{job.model}`, {job.config.crop_size} px, batch {job.config.training.batch_size}"
    print(f"\n| {kind}, {job.precision} bits | images/s | of the bare loop |\n|---|---|---|")
    for name, seconds in told.items():
        ratio = statistics.median(a / b for a, b in zip(told[BARE], seconds, strict=True))
        print(f"| {name} | {1 / statistics.median(seconds):,.1f} | {ratio:.3f} |")
        if name == THIS:
            got = f"Asked of this: {ASKED_RATIO} of the bare loop; got {ratio:.3f}."
    if not find_spec("monai"):
        print("MONAI is not installed: left out. Install the extra `bench` to have it.")
    print(got)
    return 1 / statistics.median(told[THIS])


def turns_of(job: TrainingJob, arguments: argparse.Namespace, clock: Clock) -> dict[str, Turn]:
    """The bare loop on prepared inputs, and fed as others feed theirs, a few batches a turn."""
    batch, crop = job.config.training.batch_size, job.config.crop_size
    pool = ImagePool(Path(job.pool), pd.read_parquet(job.studies))
    # a turn of the loop sees no more images than memory holds easily
    few = min(len(pool) - VAL, 16 * batch)
    prepared = [
        (torch.randn(batch, 1, crop, crop, device=DEVICE), torch.ones(batch, device=DEVICE))
        for _ in range(few // batch)
    ]
    target = np.arange(few) % 3 == 0
    floats, bytes_ = feeding.write_files(Path(job.pool).parent, pool, few)
    workers = 0 if arguments.cpu else arguments.workers
    sets = {"notebook style": feeding.Files(floats, target, feeding.as_floats(crop))}
    if find_spec("monai"):
        sets["MONAI CacheDataset"] = feeding.monai_cache(bytes_, target, crop)
    fed: dict[str, Iterable] = {BARE: prepared}
    for name, images in sets.items():
        loader = feeding.loader(images, batch, workers)
        fed[f"bare loop, fed by {name}, {workers} workers"] = Sent(loader)
    turns: dict[str, Turn] = {}
    for name, batches in fed.items():
        loop = Loop(job.model, job.precision, 1000)
        turns[name] = lambda loop=loop, batches=batches: loop.turn(batches, clock)
    return turns


@dataclass(frozen=True)
class Sent:
    """A loader's batches on the device."""

    loader: DataLoader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, target in self.loader:
            yield inputs.to(DEVICE), target.float().to(DEVICE)


def tell_lightning(folder: Path, rounds: int, clock: Clock) -> None:
    """Print what Lightning costs a step."""
    folder.mkdir()
    network.MODELS = {**network.MODELS, "tiny": _tiny}
    small = argparse.Namespace(
        model="tiny", side=16, stored=16, batch=2, images=1000, rounds=rounds, precision="32"
    )
    job = make_job(folder, small)
    job = replace(job, config=parse(settings_of(small) | {"runtime": {"workers": 1}}))
    studies = pd.read_parquet(job.studies)
    pool, train_rows = ImagePool(Path(job.pool), studies), np.arange(len(studies) - VAL)
    source = open_source(pool, DEVICE, 1, 0.5)
    data = TrainingData(source, studies["target"].to_numpy(), train_rows, train_rows, job.config)
    by_hand, bare = Loop(job.model, "32", 1000), Loop(job.model, "32", 1000)
    average = Average(by_hand.network, data.steps)
    prepared = next(iter(Epoch(data, 0, 0)))
    every = 50 if ON_GPU else 1
    found: dict[str, list[float]] = {name: [] for name in (BARE, THIS, BY_HAND)}

    def epoch_by_hand() -> list[float]:
        times, losses = [clock()], []
        for step, batch in enumerate(Epoch(data, len(found[THIS]), 0), start=1):
            torch.manual_seed(step)
            losses.append(by_hand.step(batch.inputs, batch.target).detach())
            average.update(by_hand.network, step)
            if step % every == 0:
                if not all(map(math.isfinite, torch.stack(losses).tolist())):
                    raise ArithmeticError("expected finite losses")
                losses = []
            times.append(clock())
        return times

    def epoch_bare() -> list[float]:
        times = [clock()]
        for _ in range(data.steps):
            bare.step(prepared.inputs, prepared.target)
            times.append(clock())
        return times

    def round_of(times: list[float]) -> None:
        for name, each in ((THIS, times), (BY_HAND, epoch_by_hand()), (BARE, epoch_bare())):
            found[name].append(float(np.median(np.diff(each))) * 1e3)

    run_watched(job, clock, round_of)
    told = {name: times[1:] for name, times in found.items()}
    print("\n| a step of one convolution, 2 images of 16 px | ms |\n|---|---|")
    for name in (BARE, BY_HAND, THIS):
        print(f"| {name} | {statistics.median(told[name]):.2f} |")
    cost = statistics.median(a - b for a, b in zip(told[THIS], told[BY_HAND], strict=True))
    print(f"Asked of Lightning: at most {ASKED_MS} ms a step; got {cost:.2f} ms.")


def _tiny(**_: bool) -> Classifier:
    convolution = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
    return Classifier(torch.nn.Sequential(convolution, torch.nn.ReLU()), 8, 2, 0.0)


def run_watched(job: TrainingJob, clock: Clock, after_epoch: Callable[[list[float]], None]) -> None:
    """Train; after each epoch tell the times of its start and of the end of each of its steps."""
    watch = Watch(clock)
    watch.times.append(clock())
    steps = len(pd.read_parquet(job.studies)) - VAL
    steps //= job.config.training.batch_size

    def on_epoch(_: dict) -> None:
        wait()
        if not steps < len(watch.times) <= steps + 2:
            raise RuntimeError(f"expected a look at `stop` a step, got {len(watch.times)} looks")
        after_epoch([watch.times[0], *watch.times[-steps:]])
        watch.times = []
        watch.times.append(clock())

    train(job, on_epoch=on_epoch, stop=watch)


def make_job(folder: Path, asked: argparse.Namespace) -> TrainingJob:
    """A training over a pool of images of noise, the last of them val."""
    studies = feeding.make_pool(folder, asked.images + VAL, asked.stored)
    studies.loc[studies.index >= asked.images, "split"] = "val"
    studies.to_parquet(folder / "studies.parquet", index=False)
    for name in ("output", "state"):
        (folder / name).mkdir()
    return TrainingJob(
        model=asked.model,
        config=parse(settings_of(asked)),
        pool=str(folder / "pool"),
        studies=str(folder / "studies.parquet"),
        output=str(folder / "output"),
        state=str(folder / "state"),
        precision=asked.precision,
        accelerator="gpu" if ON_GPU else "cpu",
    )


def settings_of(asked: argparse.Namespace) -> dict:
    epochs = asked.rounds + 1
    training = {"epochs": epochs, "patience": epochs, "batch_size": asked.batch}
    training |= {"weights": "none", "crop_size": asked.side, "learning_rate": LEARNING_RATE}
    return {"shards": {"image_size": asked.stored}, "training": training}


def wait() -> None:
    """Until the device is done."""
    if ON_GPU:
        torch.cuda.synchronize()


def cores_of(affinity: set[int]) -> int:
    return len(affinity) if cores() == 1 else cores()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--side", type=int, default=224 if ON_GPU else 128, help="of the crops")
    parser.add_argument("--batch", type=int, default=256 if ON_GPU else 32)
    parser.add_argument("--images", type=int, default=21_000 if ON_GPU else 128)
    parser.add_argument("--precision", choices=["32", "bf16"], default="bf16" if ON_GPU else "32")
    parser.add_argument("--workers", type=int, default=2, help="of others' loaders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    arguments.stored = arguments.side * 8 // 7
    return arguments


if __name__ == "__main__":
    main()
