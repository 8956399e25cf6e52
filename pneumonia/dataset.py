"""A finished split as a plain PyTorch data set, for a training loop of one's own.

In: a workspace and the name of a run. Out: one image, its target and its name at a time, as
`torch.utils.data.DataLoader` takes them. The pipeline's own training does not go this way: it
makes whole batches at once (`pneumonia.batches`), many times as fast.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pneumonia.errors import ConfigError, StaleArtifactError
from pneumonia.pool import ImagePool
from pneumonia.split import SIDES
from pneumonia.workspace import Workspace


class PneumoniaDataset(Dataset[tuple[Any, int, str]]):
    """One side of a run's split.

    An item is (image, target, image_id): the whole stored image, (1, side, side) uint8, larger is
    brighter, or what `transform` makes of it; 1 where there is lung opacity, else 0; its name.

    It may be pickled and sent to worker processes: images stay in the files, whose memory maps
    each process opens at its first item.

    Args:
        workspace: folder of a workspace whose run has finished `shards` and `split`.
        split: `train`, `val` or `test`.
        run: the run's name.
        transform: called with the uint8 tensor of each image, as torchvision's are.

    Raises:
        ConfigError: no such side, no such run, or it has not come so far.
        StaleArtifactError: the split is of other images than the run has now.
    """

    def __init__(
        self,
        workspace: str | Path,
        split: str = "train",
        run: str = "main",
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        if split not in SIDES:
            raise ConfigError(f"split: expected one of {', '.join(SIDES)}, got {split!r}.")
        place = Workspace(Path(workspace))
        images = place.finished(run, "shards").table("images.parquet", ["image_id", "pool", "row"])
        sides = place.finished(run, "split")
        studies = sides.table("studies.parquet")
        missing = studies.loc[~studies["image_id"].isin(images["image_id"]), "image_id"]
        if len(missing):
            raise StaleArtifactError(
                f"{sides.reference}: expected a split of the images that the run {run!r} has now, "
                f"got one with {len(missing):,} others (first: {missing.iloc[0]}). Bring the run "
                "up to date with `pneumonia run`."
            )
        self.studies = studies[studies["split"] == split].reset_index(drop=True)
        """A row per item: image_id, patient_id, target, class, view, sex, age and more."""
        self.transform = transform
        self._target = self.studies["target"].to_numpy(np.int64)
        self._image_ids = self.studies["image_id"].astype(str).tolist()
        self._folder = place.pool
        self._stored = self.studies[["image_id"]].merge(images, on="image_id", validate="1:1")
        self._pool: ImagePool | None = None

    def __len__(self) -> int:
        return len(self._target)

    def __getitem__(self, index: int) -> tuple[Any, int, str]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        if self._pool is None:
            self._pool = ImagePool(self._folder, self._stored)
        image = torch.from_numpy(self._pool.gather(np.array([index])))  # (1, side, side)
        transformed = image if self.transform is None else self.transform(image)
        return transformed, int(self._target[index]), self._image_ids[index]

    def __getstate__(self) -> dict[str, Any]:
        """All but the memory maps, which pickle would copy."""
        return self.__dict__ | {"_pool": None}
