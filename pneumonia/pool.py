"""Stored images: written into pool shards, read from their memory maps.

In: the pool's folder and the rows of `images.parquet`. Out: uint8 images in the order asked for.
Everything downstream of conversion reads images here and knows nothing of DICOM.
"""

import errno
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia.artifacts import Manifest, find_damage, read_manifest
from pneumonia.errors import CorruptArtifactError, ShardError
from pneumonia.seals import check_first_use

logger = logging.getLogger(__name__)

IMAGES = "images.npy"
"""A shard's images: (n, side, side) uint8."""


def whole_shards(pool: Path, configuration: Mapping[str, Any], version: int) -> list[Manifest]:
    """The manifests of the shards that are complete and made so, in order of their keys.

    A torn or incomplete one is told in the log and left out: it is made again.
    """
    manifests = []
    for folder in sorted(pool.glob("*")):
        try:
            manifest = read_manifest(folder)
            damage = find_damage(folder, manifest, hashed=False)
            if damage:
                raise CorruptArtifactError("; ".join(damage))
            if manifest.version == version and manifest.configuration == dict(configuration):
                manifests.append(manifest)
        except CorruptArtifactError as error:
            logger.warning("Pool shard %s is left out: %s", folder.name, error)
    return manifests


class ShardFile:
    """A shard that is being written, by any number of threads.

    Images go through `pwrite` rather than a memory map: a page fault for every 4 KiB costs five
    times as much, and on a full disk kills the process where this is an error.
    """

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor = descriptor
        self._start = start

    def write(self, row: int, image: NDArray[np.uint8]) -> None:
        """Write one (side, side) image in its place."""
        written = os.pwrite(self._descriptor, image.data, self._start + row * image.nbytes)
        if written != image.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def create_shard(folder: Path, n: int, side: int) -> Iterator[ShardFile]:
    """Begin a shard of n images, black until they are written."""
    shape = (n, side, side)
    with (folder / IMAGES).open("wb") as handle:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.flush()
        start = handle.tell()
        handle.truncate(start + math.prod(shape))
        yield ShardFile(handle.fileno(), start)


class ImagePool:
    """The images that a table points at.

    Args:
        pool: the folder of pool shards, `WORKSPACE/pool`.
        images: has `image_id`, `pool` and `row`; positions count its rows from 0. `pool` is the
            key of a shard, or, for images of two workspaces, the absolute path of its folder.
    """

    def __init__(self, pool: Path, images: pd.DataFrame) -> None:
        if images.empty:
            raise ShardError("Expected at least one image, got an empty table.")
        self._pool = pool
        self._keys, self._shard = np.unique(images["pool"].astype(str), return_inverse=True)
        self._row = images["row"].to_numpy(np.int64)
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._image_ids = images["image_id"].astype(str).to_numpy(object)
        self._positions: dict[str, int] | None = None
        self.side = int(self._open(0).shape[1])

    def __len__(self) -> int:
        return len(self._row)

    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy images out of the maps.

        Args:
            positions: (n,) rows of the table, in any order, repeated or not.

        Returns:
            (n, side, side) uint8, in the order asked for.
        """
        images = np.empty((len(positions), self.side, self.side), np.uint8)
        shards, rows = self._shard[positions], self._row[positions]
        for shard in np.unique(shards):
            chosen = np.flatnonzero(shards == shard)
            images[chosen] = self._open(int(shard))[rows[chosen]]
        return images

    def gather_ids(self, image_ids: Sequence[str]) -> NDArray[np.uint8]:
        """Copy images out of the maps by name.

        Raises:
            ShardError: an image that the table does not have.
        """
        if self._positions is None:
            self._positions = {name: place for place, name in enumerate(self._image_ids)}
        missing = [name for name in image_ids if name not in self._positions]
        if missing:
            raise ShardError(
                f"{len(missing)} images are not in the pool's table (first: {missing[0]}). "
                "Run `pneumonia run --refresh shards`."
            )
        return self.gather(np.array([self._positions[name] for name in image_ids], np.int64))

    def _open(self, shard: int) -> NDArray[np.uint8]:
        """The memory map of a shard, opened once."""
        if shard not in self._maps:
            path = self._pool / str(self._keys[shard]) / IMAGES
            check_first_use(path, read_manifest(path.parent).files[IMAGES]["sha256"])
            try:
                images = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise CorruptArtifactError(
                    f"{path}: expected a shard of images, got {error}. Run the pipeline again "
                    "with --verify to make it anew."
                ) from error
            last = self._row[self._shard == shard].max()
            if images.dtype != np.uint8 or images.ndim != 3 or last >= len(images):
                raise CorruptArtifactError(
                    f"{path}: expected more than {last} uint8 images, got {images.dtype} "
                    f"{images.shape}. Run the pipeline again with --verify."
                )
            self._maps[shard] = images
        return self._maps[shard]
