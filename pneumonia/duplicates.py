"""Duplicates: the same film on two sides of the split, under two names.

In: the studies with their sides, and their stored images. Out: a row per pair that stands on two
sides. A split by person cannot see these: the map calls them two people, and what was learned
from the one is asked about the other.

Compared is fine detail, an image less its own blur: broad shapes are alike in all chests. Every
pair across sides is compared at 64 pixels, and what is alike there once more at 128. Measured on
5,216 real paediatric films (Kermany et al.), no two people reach 0.79 at 128 pixels, where 99 % of
copies of one film through JPEG at quality 50, a gamma of 0.8 to 1.4 or another window reach 0.968.
A copy that is shifted, turned or cropped by some pixels is not found.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia.artifacts import Facts
from pneumonia.pool import ImagePool

COLUMNS = ("image_id", "split", "other_id", "other_split", "kind", "correlation")
LEVELS = ((64, 0.95), (128, 0.96))
"""Pixels along a side, and the correlation from which two images are alike there."""

_BLUR = 2.0  # standard deviation in pixels of a level
_ORDER = ("test", "val", "train")
_BATCH = 512
_FLAT = 1e-6  # of the squared detail, below which an image shows nothing to compare


def find_duplicates(studies: pd.DataFrame, pool: ImagePool) -> pd.DataFrame:
    """Compare every image with those of the other sides. Takes 32 KiB of memory an image.

    Args:
        studies: image_id, split, pixel_digest and geometry; a row per image of the pool, in order.
        pool: the stored images; only equal ones are found where they are smaller than 128 pixels.

    Returns:
        `COLUMNS`, one row per pair: `exact` where the stored pixels are equal, else `near`; the
        correlation is that of the fine detail at 128 pixels. Sorted; test before val before train.
    """
    sides = studies["split"].to_numpy(object)
    pairs = dict.fromkeys(_equal(studies, sides), ("exact", 1.0))
    if pool.side >= LEVELS[-1][0]:
        near = [pair for pair in _alike(studies, sides, pool) if pair not in pairs]
        pairs |= {pair: ("near", value) for pair, value in _confirm(studies, near, pool)}
    names = studies["image_id"].tolist()
    rows = [
        (names[one], sides[one], names[other], sides[other], kind, round(value, 4))
        for (one, other), (kind, value) in pairs.items()
    ]
    text = dict.fromkeys(COLUMNS[:-1], "str")
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({**text, "correlation": "float64"})
    return table.sort_values(["image_id", "other_id"], ignore_index=True)


def count_duplicates(table: pd.DataFrame, side: int) -> Facts:
    """Pairs by kind, and how many val and test images have a duplicate on a side before them.

    Args:
        table: of `find_duplicates`.
        side: of the stored images, pixels; `near` is None where they were too small to be looked
            at.
    """
    looked = side >= LEVELS[-1][0]
    return {
        "exact": int((table["kind"] == "exact").sum()),
        "near": int((table["kind"] == "near").sum()) if looked else None,
        "images": {
            name: int(table.loc[table["split"] == name, "image_id"].nunique())
            for name in ("val", "test")
        },
    }


def detail(frames: Sequence[NDArray[np.uint8]], side: int) -> NDArray[np.float32]:
    """The fine detail of frames, so that the product of two rows is their correlation.

    Args:
        frames: each (rows, columns) uint8, of any size.
        side: pixels to which each is brought.

    Returns:
        (N, side * side) float32, each row of mean 0 and length 1; all 0 for a flat image.
    """
    rows = np.empty((len(frames), side * side), np.float32)
    for row, frame in zip(rows, frames, strict=True):
        small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        fine = (small - cv2.GaussianBlur(small, (0, 0), _BLUR)).ravel()
        fine -= fine.mean()
        length = float(fine @ fine)
        row[:] = fine / np.sqrt(length) if length > _FLAT else 0.0
    return rows


def _equal(studies: pd.DataFrame, sides: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Pairs across sides whose stored pixels are the same."""
    places = pd.DataFrame({"place": np.arange(len(studies)), "pixels": studies["pixel_digest"]})
    for _, group in places[places["pixels"].duplicated(keep=False)].groupby("pixels"):
        own = group["place"].tolist()
        for one in own:
            for other in own:
                if _ORDER.index(sides[one]) < _ORDER.index(sides[other]):
                    yield one, other


def _alike(
    studies: pd.DataFrame, sides: NDArray[Any], pool: ImagePool
) -> Iterator[tuple[int, int]]:
    """Pairs across sides that are alike at the first level."""
    side, least = LEVELS[0]
    places = np.arange(len(studies))
    details = np.empty((len(places), side * side), np.float32)
    for start in range(0, len(places), _BATCH):
        some = places[start : start + _BATCH]
        details[some] = _details(studies, some, pool, side)
    for rank, name in enumerate(_ORDER[:-1]):
        others = np.flatnonzero(np.isin(sides, _ORDER[rank + 1 :]))
        beside = details[others]
        own = np.flatnonzero(sides == name)
        for start in range(0, len(own), _BATCH):
            some = own[start : start + _BATCH]
            found = np.argwhere(details[some] @ beside.T >= least)
            yield from zip(some[found[:, 0]].tolist(), others[found[:, 1]].tolist(), strict=True)


def _confirm(
    studies: pd.DataFrame, pairs: list[tuple[int, int]], pool: ImagePool
) -> Iterator[tuple[tuple[int, int], float]]:
    """Those of the pairs that are alike at the last level too, and how much."""
    side, least = LEVELS[-1]
    for start in range(0, len(pairs), _BATCH):
        some = np.array(pairs[start : start + _BATCH], np.int64)
        one, other = (_details(studies, some[:, k], pool, side) for k in (0, 1))
        alike = np.einsum("ij,ij->i", one, other, dtype=np.float64)
        for k in np.flatnonzero(alike >= least):
            yield (int(some[k, 0]), int(some[k, 1])), float(alike[k])


def _details(
    studies: pd.DataFrame, places: NDArray[np.int64], pool: ImagePool, side: int
) -> NDArray[np.float32]:
    """Fine detail of the frames of some images, without the padding, which would be alike."""
    chosen = studies.iloc[places]
    corners = chosen[["offset_y", "offset_x"]].to_numpy(np.float64)
    sizes = chosen[["rows", "columns"]].to_numpy(np.float64) * chosen[["scale"]].to_numpy()
    frames = [
        image[top : top + max(1, height), left : left + max(1, width)]
        for image, (top, left), (height, width) in zip(
            pool.gather(places), np.rint(corners).astype(int), np.rint(sizes).astype(int),
            strict=True,
        )
    ]  # fmt: skip
    return detail(frames, side)
