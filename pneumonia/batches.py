"""Batches: the images of train and val, gathered, augmented and normalised, epoch by epoch.

No worker process and no copy per image: on a CPU a batch is gathered from the pool's memory maps
and warped by OpenCV in threads; on a GPU all images are uploaded once and batches are made
there. What an epoch holds follows from the seed and the epoch's number alone, so a training that
goes on at any step sees what it would have seen.
"""

import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor

from pneumonia import augment
from pneumonia.augment import Changes
from pneumonia.config import Config
from pneumonia.network import normalise
from pneumonia.pool import ImagePool
from pneumonia.processes import Processes

logger = logging.getLogger(__name__)

Rows = NDArray[np.int64]

# Images in the host's memory on their way to the GPU: 67 MB at 256 pixels, where all of the
# challenge's would be 1.7 GB.
_UPLOADED_AT_ONCE = 1024

ALONE = Processes()


class Batch(NamedTuple):
    """What a step needs.

    Args:
        inputs: (B, 1, h, w), normalised.
        target: (B,), 1.0 where there is lung opacity.
        rows: (B,), of the training's table.
    """

    inputs: Tensor
    target: Tensor
    rows: Rows


class Source(Protocol):
    """Where images come from."""

    def whole(self, rows: Rows) -> Tensor:
        """Whole images (B, side, side) in grey levels."""

    def crops(self, rows: Rows, changes: Changes, crop: int) -> Tensor:
        """Their crops (B, 1, crop, crop), each changed as told, normalised."""


class MappedSource:
    """Images from the pool's memory maps, warped by OpenCV in threads.

    Args:
        device: where the batches go.
    """

    def __init__(self, pool: ImagePool, device: torch.device, workers: int) -> None:
        self._pool = pool
        self._device = device
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="warp")

    def whole(self, rows: Rows) -> Tensor:
        """Whole images (B, side, side) in grey levels."""
        return self._send(self._pool.gather(rows))

    def crops(self, rows: Rows, changes: Changes, crop: int) -> Tensor:
        """Their crops (B, 1, crop, crop), each changed as told, normalised."""
        share = math.ceil(len(rows) / self._workers)
        parts = [slice(start, start + share) for start in range(0, len(rows), share)]

        def warp(part: slice) -> NDArray[np.uint8]:
            return augment.warp(self._pool.gather(rows[part]), changes.matrices[part], crop)

        if self._device.type != "cpu":  # as uint8 a batch is a quarter of what it will be there
            grey = self._send(np.concatenate(list(self._threads.map(warp, parts))))
            return normalise(augment.relight(grey.float(), *_lights(changes, self._device)))
        levels = torch.arange(256, dtype=torch.float32).expand(len(rows), 1, 256)
        tables = normalise(augment.relight(levels, *_lights(changes, self._device)))
        inputs = np.empty((len(rows), crop, crop), np.float32)

        def fill(part: slice) -> None:
            augment.look_up(warp(part), tables[part, 0, 0].numpy(), inputs[part])

        list(self._threads.map(fill, parts))
        return torch.from_numpy(inputs).unsqueeze(1)

    def _send(self, images: NDArray[np.uint8]) -> Tensor:
        tensor = torch.from_numpy(images)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


class ResidentSource:
    """Images that lie on a device as one uint8 tensor, warped there a batch at a time."""

    def __init__(self, pool: ImagePool, device: torch.device) -> None:
        shape = (len(pool), pool.side, pool.side)
        self._images = torch.empty(shape, dtype=torch.uint8, device=device)
        for start in range(0, len(pool), _UPLOADED_AT_ONCE):
            rows = np.arange(start, min(start + _UPLOADED_AT_ONCE, len(pool)))
            self._images[start : start + len(rows)] = torch.from_numpy(pool.gather(rows))

    def whole(self, rows: Rows) -> Tensor:
        """Whole images (B, side, side) in grey levels."""
        return self._images[torch.from_numpy(rows).to(self._images.device)]

    def crops(self, rows: Rows, changes: Changes, crop: int) -> Tensor:
        """Their crops (B, 1, crop, crop), each changed as told, normalised."""
        device = self._images.device
        matrices = torch.from_numpy(changes.matrices).to(device, torch.float32)
        grey = augment.warp_tensor(self.whole(rows), matrices, crop)
        return normalise(augment.relight(grey, *_lights(changes, device)))


class Epoch:
    """The training batches of one epoch, from a step on; of each, this process's share.

    Each training image comes at most once; where the last batch would be smaller than the others
    it is left out, another time another one's.
    """

    def __init__(self, data: "TrainingData", epoch: int, first_step: int) -> None:
        self._data = data
        self._first_step = first_step
        training = data.config.training
        generator = np.random.default_rng([training.seed, epoch])
        self._order = generator.permutation(data.train)
        self._changes = augment.draw(
            generator,
            len(self._order),
            side=data.config.shards.image_size,
            crop=data.config.crop_size,
            strength=training.augmentation,
            flip=training.flip,
        )

    def __len__(self) -> int:
        return self._data.steps - self._first_step

    def __iter__(self) -> Iterator[Batch]:
        size, crop = self._data.config.training.batch_size, self._data.config.crop_size
        processes = self._data.processes
        for step in range(self._first_step, self._data.steps):
            part = slice(step * size, (step + 1) * size)
            rows, changes = self._order[part], self._changes[part]
            # Equal shares, so that the mean of the shares' means is that of the batch.
            own = processes.share(len(rows) // processes.count * processes.count)
            yield self._data.batch(
                self._data.source.crops(rows[own], changes[own], crop), rows[own]
            )


class Whole:
    """This process's share of the val images, whole and unchanged, in the order of the table."""

    def __init__(self, data: "TrainingData") -> None:
        self._data = data
        self._rows = data.val[data.processes.share(len(data.val))]
        self._size = 2 * data.config.training.batch_size  # no gradients to keep

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._rows), self._size):
            rows = self._rows[start : start + self._size]
            yield self._data.batch(normalise(self._data.source.whole(rows)), rows)


class TrainingData(lightning.LightningDataModule):
    """Lightning's view of the images: a new `Epoch` each epoch, the same val images each time.

    Args:
        target: (N,) of the pool's images.
        train, val: positions in the pool.
        first_epoch, first_step: where a training that was cut short goes on.
        processes: those that share the training.
    """

    def __init__(
        self,
        source: Source,
        target: NDArray[np.bool_],
        train: Rows,
        val: Rows,
        config: Config,
        *,
        first_epoch: int = 0,
        first_step: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.source = source
        self.processes = processes
        self.train = train
        self.val = val
        self.config = config
        self.target = torch.tensor(target, dtype=torch.float32)
        self._first_epoch = first_epoch
        self._first_step = first_step

    @property
    def steps(self) -> int:
        """Training steps in a whole epoch."""
        return max(1, len(self.train) // self.config.training.batch_size)

    def batch(self, inputs: Tensor, rows: Rows) -> Batch:
        """Join images to their targets."""
        return Batch(inputs, self.target[rows].to(inputs.device), rows)

    def train_dataloader(self) -> Epoch:
        """The epoch that Lightning is about to run."""
        passed = self.trainer.current_epoch if self.trainer else 0
        return Epoch(self, self._first_epoch + passed, self._first_step if passed == 0 else 0)

    def val_dataloader(self) -> Whole:
        """The val images."""
        return Whole(self)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:  # noqa: ANN401, ARG002 (Lightning's signature)
        """Leave a batch where its source has put it."""
        return batch


def open_source(
    pool: ImagePool, device: torch.device, workers: int, memory_fraction: float
) -> Source:
    """The images on the device where they fit there, else from the memory maps.

    Args:
        memory_fraction: of the device's free memory that they may take.
    """
    if device.type != "cuda":
        return MappedSource(pool, device, workers)
    free, _ = torch.cuda.mem_get_info(device)
    if len(pool) * pool.side**2 <= memory_fraction * free:
        return ResidentSource(pool, device)
    logger.info(
        "%d images of %d px do not fit on the GPU: batches are sent one by one.",
        len(pool),
        pool.side,
    )
    return MappedSource(pool, device, workers)


def _lights(changes: Changes, device: torch.device) -> tuple[Tensor, Tensor]:
    contrast = torch.from_numpy(changes.contrast).to(device, torch.float32)
    return contrast, torch.from_numpy(changes.brightness).to(device, torch.float32)
