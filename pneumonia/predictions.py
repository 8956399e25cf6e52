"""Predictions: a checkpoint's logits of whole images."""

import copy
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from pneumonia.checkpoint import Checkpoint
from pneumonia.errors import ConfigError
from pneumonia.machine import Accelerator
from pneumonia.network import normalise
from pneumonia.pool import ImagePool

Floats = NDArray[np.float64]

# Every forward pass has this many images (the last is filled up), so that the same kernels
# calculate an image's logit whoever else is predicted with it.
BATCH = 16


def predict_logits(
    checkpoint: Checkpoint,
    pool: ImagePool,
    positions: NDArray[np.int64],
    *,
    accelerator: Accelerator,
    workers: int,
) -> Floats:
    """Logits (N,) of the pool's images at `positions` (N,), in that order.

    Raises:
        ConfigError: the pool's images are of another size than the model was trained on.
    """
    if pool.side != checkpoint.image_size:
        raise ConfigError(
            f"shards.image_size: expected {checkpoint.image_size}, the size that this "
            f"{checkpoint.model} was trained on, got a pool of {pool.side}. Set "
            f"shards.image_size={checkpoint.image_size}, or train a model of the other size."
        )
    batches = (pool.gather(positions[i : i + BATCH]) for i in range(0, len(positions), BATCH))
    return logits_of(checkpoint, batches, accelerator=accelerator, workers=workers)


@torch.inference_mode()
def logits_of(
    checkpoint: Checkpoint,
    batches: Iterable[NDArray[np.uint8]],
    *,
    accelerator: Accelerator,
    workers: int,
) -> Floats:
    """Logits (N,) of batches (at most BATCH, side, side) of whole images.

    Always in 32 bits: the figures should not depend on the machine more than they must.
    """
    torch.set_num_threads(workers)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    model = copy.deepcopy(checkpoint.network).to(device).to(memory_format=torch.channels_last)
    logits = [np.empty(0)]
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        for images in batches:
            filled = np.concatenate([images, np.repeat(images[-1:], BATCH - len(images), axis=0)])
            inputs = normalise(torch.from_numpy(filled).to(device))
            logits.append(model(inputs)[: len(images)].cpu().numpy().astype(np.float64))
    return np.concatenate(logits)
