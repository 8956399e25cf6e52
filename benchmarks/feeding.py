"""How fast a training is fed, beside the ways it is done elsewhere.

    pneumonia bench feeding [--images 1024] [--side 256] [--batch 32] [--workers 2] [--rounds 5]

From stored images of --side to normalised float32 batches of crops of 7/8 of it (224), each image
turned, scaled, shifted, mirrored, and changed in contrast and brightness within the same ranges.
All ways run in every round, one after the other; a pass of each before the first round warms up
and starts the workers. A ratio is the median over rounds of one round's two times. Images are
noise, which no way minds, and lie in the page cache.

- notebook style: a Dataset over one .npy a file, / 255, float16; torchvision's transforms a sample
- the same, but stored in 8 bits and changed as PIL images, which torchvision does faster
- MONAI's CacheDataset, everything in memory, metadata off; where the `bench` extra is installed
- a batch through torch's affine_grid and grid_sample, on the CPU
- this: `pneumonia.batches`, a MappedSource in an Epoch, with as many threads as others have workers
- its gather alone: copies out of the memory maps

Slow ways see fewer images a round. Processor time is that of the process and its workers: trust
it, and not the wall time, where anything else runs on the machine.
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pneumonia import augment
from pneumonia.artifacts import Manifest, list_files, write_manifest, write_record
from pneumonia.augment import Changes
from pneumonia.batches import Epoch, MappedSource, TrainingData
from pneumonia.config import Config, parse
from pneumonia.machine import cores
from pneumonia.network import MEAN, STD, normalise
from pneumonia.pool import ImagePool, create_shard

THIS, NOTEBOOK = "this", "notebook style"
ASKED = {0: 10, 2: 5}  # times the notebook style, by its workers

STRENGTH = Config().training.augmentation
ANGLE = float(np.rad2deg(augment.MAX_ANGLE)) * STRENGTH
SHIFT = augment.MAX_SHIFT * STRENGTH
SMALLEST, LARGEST = (float(np.exp(sign * augment.MAX_LOG_SCALE * STRENGTH)) for sign in (-1, 1))
CONTRAST = augment.MAX_LOG_CONTRAST * STRENGTH
BRIGHTNESS = augment.MAX_BRIGHTNESS * STRENGTH / 255

Way = Callable[[], Iterator]
"""Goes once through its images; yields batches, or pairs of a batch and its targets."""


class Files(Dataset):
    """One image a file, as notebooks keep them.

    Args:
        transform: of what a file holds; for `as_floats` a tensor (1, h, w) in 0 to 1.
    """

    def __init__(self, paths: list[Path], target: np.ndarray, transform: Callable) -> None:
        self.paths, self.target, self.transform = paths, target, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        return self.transform(np.load(self.paths[index])), float(self.target[index])


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        ways = ways_to_feed(Path(scratch), arguments)
        for way in ways.values():
            _pass(way)
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                spent[name].append(_pass(way))
        tell(spent, arguments)


def tell(spent: dict[str, list[tuple[float, float]]], arguments: argparse.Namespace) -> None:
    crop = crop_of(arguments.side)
    print(f"{arguments.side} px to crops of {crop}, batches of {arguments.batch}, {cores()} of "
          f"{os.cpu_count()} cores, torch's threads {arguments.threads}, load "
          f"{os.getloadavg()[0]:.1f}, median of {arguments.rounds} rounds")  # fmt: skip
    if not find_spec("monai"):
        print("MONAI is not installed: left out. Install the extra `bench` to have it.")
    this = f"{THIS}, {arguments.workers} threads"
    wall, processor = ({name: [pair[i] for pair in told] for name, told in spent.items()}
                       for i in (0, 1))  # fmt: skip
    print(
        "| way | images/s | this is faster, times | processor ms an image "
        "| this takes less, times |\n|---|---|---|---|---|"
    )
    for name in spent:
        print(f"| {name} | {1 / statistics.median(wall[name]):,.0f} | "
              f"{_ratio(wall[name], wall[this]):.2f} | "
              f"{statistics.median(processor[name]) * 1e3:.3f} | "
              f"{_ratio(processor[name], processor[this]):.2f} |")  # fmt: skip
    for workers, asked in ASKED.items():
        name = f"{NOTEBOOK}, {workers} workers"
        if name in spent:
            ratio = _ratio(wall[name], wall[this])
            print(f"Asked: {asked} times the {name}; got {ratio:.1f}.")


def ways_to_feed(folder: Path, arguments: argparse.Namespace) -> dict[str, Way]:
    """The ways by name; each is given its images in the form it wants."""
    n, side, batch = arguments.images, arguments.side, arguments.batch
    studies = make_pool(folder, n, side)
    pool, target = ImagePool(folder / "pool", studies), studies["target"].to_numpy()
    workers = sorted({0, arguments.workers})
    ways: dict[str, Way] = {}
    floats, bytes_ = write_files(folder, pool, max(batch, n // 4))
    for name, paths, transform in (
        (NOTEBOOK, floats, as_floats(crop_of(side))),
        ("the same on 8-bit PIL images", bytes_, as_pictures(crop_of(side))),
    ):
        files = Files(paths, target, transform)
        ways |= {f"{name}, {k} workers": loader(files, batch, k).__iter__ for k in workers}
    if find_spec("monai"):
        cached = monai_cache(bytes_[: max(batch, n // 8)], target, crop_of(side))
        ways |= {
            f"MONAI CacheDataset, {k} workers": loader(cached, batch, k).__iter__ for k in workers
        }
    data = training_data(studies, pool, side, batch, arguments.workers)
    ways["affine_grid, grid_sample a batch"] = lambda: _by_grid(data, pool)
    ways[f"{THIS}, {arguments.workers} threads"] = lambda: _epochs(data)
    ways["its gather alone"] = lambda: _gathered(data, pool)
    return ways


def make_pool(folder: Path, n: int, side: int) -> pd.DataFrame:
    """A pool of images of noise in shards of 512, a third of them positive; all of them train."""
    rng = np.random.default_rng(0)
    row = np.arange(n)
    for start in range(0, n, 512):
        shard = folder / "pool" / f"{start // 512:04d}"
        shard.mkdir(parents=True)
        with create_shard(shard, min(512, n - start), side) as file:
            for k in range(min(512, n - start)):
                file.write(k, rng.integers(0, 256, (side, side), np.uint8))
        whole = Manifest("pool", shard.name, 1, {}, {}, files=list_files(shard))
        write_record({}, shard)
        write_manifest(whole, shard)
    return pd.DataFrame(
        {
            "image_id": [f"image-{i:06d}" for i in row],
            "split": "train",
            "target": row % 3 == 0,
            "pool": [f"{i // 512:04d}" for i in row],
            "row": row % 512,
        }
    )


def write_files(folder: Path, pool: ImagePool, n: int) -> tuple[list[Path], list[Path]]:
    """The first n images of the pool as a file each: / 255 in float16, and as they are."""
    places = [[folder / kind / f"{i}.npy" for i in range(n)] for kind in ("float16", "uint8")]
    for paths in places:
        paths[0].parent.mkdir()
    for i, (as_float, as_byte) in enumerate(zip(*places, strict=True)):
        image = pool.gather(np.array([i]))[0]
        np.save(as_float, (image / 255).astype(np.float16))
        np.save(as_byte, image)
    return places[0], places[1]


def as_floats(crop: int) -> Callable:
    """Torchvision's transforms on a tensor, as notebooks have them."""
    return transforms.Compose(
        [
            _to_float32,
            transforms.ToTensor(),
            *_changes(),
            transforms.CenterCrop(crop),
            transforms.Normalize(MEAN, STD),
        ]
    )


def as_pictures(crop: int) -> Callable:
    """The same on 8-bit images, a tensor at the end."""
    return transforms.Compose(
        [
            transforms.ToPILImage(),
            *_changes(),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def _changes() -> list[Callable]:
    return [
        transforms.RandomAffine(
            ANGLE,
            translate=(SHIFT, SHIFT),
            scale=(SMALLEST, LARGEST),
            interpolation=transforms.InterpolationMode.BILINEAR,
        ),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(brightness=BRIGHTNESS, contrast=CONTRAST),
    ]


def _to_float32(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32)


def monai_cache(paths: list[Path], target: np.ndarray, crop: int) -> Dataset:
    """MONAI's CacheDataset: files read once, then changed from memory."""
    warnings.filterwarnings("ignore", module=r"monai\.")
    logging.getLogger("monai").setLevel(logging.ERROR)
    from monai.data import CacheDataset, set_track_meta
    from monai.transforms import (
        Compose,
        Lambda,
        NormalizeIntensity,
        RandAffine,
        RandFlip,
        RandScaleIntensity,
        RandShiftIntensity,
    )

    set_track_meta(False)
    steps = [
        Lambda(_read),
        RandAffine(
            prob=1.0,
            rotate_range=np.deg2rad(ANGLE),
            translate_range=SHIFT * np.load(paths[0]).shape[0],
            scale_range=(SMALLEST - 1, LARGEST - 1),
            spatial_size=(crop, crop),
            padding_mode="zeros",
            cache_grid=True,
        ),
        RandFlip(prob=0.5, spatial_axis=1),
        RandScaleIntensity(CONTRAST, prob=1.0),
        RandShiftIntensity(255 * BRIGHTNESS, prob=1.0),
        NormalizeIntensity(255 * MEAN, 255 * STD),
    ]
    cached = CacheDataset(paths, Compose(steps), progress=False, num_workers=1)
    return Joined(cached, target)


class Joined(Dataset):
    """Images and their targets."""

    def __init__(self, images: Dataset, target: np.ndarray) -> None:
        self.images, self.target = images, target

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        return self.images[index], float(self.target[index])


def _read(path: Path) -> np.ndarray:
    return np.load(path)[None].astype(np.float32)


def loader(data: Dataset, batch: int, workers: int) -> DataLoader:
    """A loader whose workers stay."""
    return DataLoader(
        data,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )


def training_data(
    studies: pd.DataFrame, pool: ImagePool, side: int, batch: int, threads: int
) -> TrainingData:
    """What a training of this project takes its epochs from."""
    config = parse({"shards": {"image_size": side}, "training": {"batch_size": batch}})
    rows = np.arange(len(studies))
    source = MappedSource(pool, torch.device("cpu"), threads)
    return TrainingData(source, studies["target"].to_numpy(), rows, rows[:0], config)


def crop_of(side: int) -> int:
    return parse({"shards": {"image_size": side}}).crop_size


def _epochs(data: TrainingData) -> Iterator[torch.Tensor]:
    for epoch in range(4):
        for batch in Epoch(data, epoch, 0):
            yield batch.inputs


def _gathered(data: TrainingData, pool: ImagePool) -> Iterator[np.ndarray]:
    for epoch in range(4):
        order = np.random.default_rng(epoch).permutation(data.train)
        yield from map(pool.gather, _cut(order, data.config.training.batch_size))


def _by_grid(data: TrainingData, pool: ImagePool) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(0)
    order = rng.permutation(data.train)[
        : max(data.config.training.batch_size, len(data.train) // 4)
    ]
    crop = data.config.crop_size
    changes = augment.draw(rng, len(order), side=pool.side, crop=crop, strength=STRENGTH, flip=True)
    for place in _cut(np.arange(len(order)), data.config.training.batch_size):
        part = slice(place[0], place[-1] + 1)
        theta = torch.from_numpy(theta_of(changes[part], pool.side, crop)).float()
        grey = torch.from_numpy(pool.gather(order[part]))[:, None].float()
        grid = affine_grid(theta, [len(theta), 1, crop, crop], align_corners=False)
        sampled = grid_sample(grey, grid, align_corners=False).squeeze(1)
        lights = (torch.from_numpy(getattr(changes, name)[part]).float()
                  for name in ("contrast", "brightness"))  # fmt: skip
        yield normalise(augment.relight(sampled, *lights))


def theta_of(changes: Changes, side: int, crop: int) -> np.ndarray:
    """The matrices of `changes` in affine_grid's coordinates: -1 to 1 from edge to edge."""
    pixel = np.array([[crop / 2, 0, (crop - 1) / 2], [0, crop / 2, (crop - 1) / 2], [0, 0, 1]])
    theta = changes.matrices @ pixel * (2 / side)
    theta[:, :, 2] += 1 / side - 1
    return theta


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _pass(way: Way) -> tuple[float, float]:
    """Wall and processor seconds an image."""
    images = 0
    wall, processor = time.perf_counter(), _processor_seconds()
    for batch in way():
        images += len(batch[0] if isinstance(batch, (list, tuple)) else batch)
    return (time.perf_counter() - wall) / images, (_processor_seconds() - processor) / images


def _processor_seconds() -> float:
    """Of this process and of the workers that it has."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # proc(5): utime, stime
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _ratio(seconds: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="and threads of this project's way")
    parser.add_argument("--threads", type=int, default=cores(), help="of torch; default: cores")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
