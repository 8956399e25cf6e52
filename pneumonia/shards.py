"""Image shards: which files need conversion, their conversion in batches, and the table of all.

In: the folder of DICOM files and the pool of what was converted before. Out: pool artifacts, each
`images.npy` and `rows.parquet`, and the tables `images.parquet` and `quarantine.parquet`.

A batch is one unit of work: threads fill one shard. Row i of `images.npy` is file i
of the batch; that of a refused file stays black and nothing points at it.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia.artifacts import Facts, read_table, write_table
from pneumonia.config import ShardsConfig, as_dict
from pneumonia.conversion import COLUMNS, COUNTS, DECIMALS, TEXT, Recipe, Row, convert, refused
from pneumonia.errors import DicomError, QuarantineError, ShardError
from pneumonia.files import digest, read_file
from pneumonia.inventory import NOT_YET, list_dicom, scan, unsettled
from pneumonia.pool import create_shard, whole_shards
from pneumonia.seals import check_first_use

__all__ = [
    "Batch", "BatchFile", "batch_identity", "check_quarantine", "configuration", "convert_batch",
    "convert_files", "images_table", "plan_batches", "pool_index", "scan",
    "unsettled",
]  # fmt: skip

logger = logging.getLogger(__name__)

ROWS = "rows.parquet"
PASSING = frozenset({"changed", "unreadable"})
"""Reasons that belong to a moment, not to a content: such a file is tried again."""

_KEY = ["image_id", "file_digest"]
_INDEX_COLUMNS = [*_KEY, "pool", "row", *COLUMNS, "reason", "detail"]
_TABLE_COLUMNS = ["image_id", "pool", "row", "file", "file_digest", *COLUMNS]


class BatchFile(NamedTuple):
    """A file to convert.

    Args:
        file: relative to the folder of images, posix.
        digest: of the content that was found there.
        attempt: how often its conversion was cut short by the disk or by a change.
    """

    file: str
    image_id: str
    digest: str
    attempt: int = 0


Batch = tuple[BatchFile, ...]


def configuration(config: ShardsConfig) -> dict[str, Any]:
    """The settings that change a stored image, as plain values."""
    settings = as_dict(config)
    return {name: settings[name] for name in ("image_size", "window", "accept")}


def pool_index(pool: Path, configuration: Mapping[str, Any], version: int) -> pd.DataFrame:
    """What has been converted already, refused files included.

    Args:
        pool: the folder of pool artifacts.
        configuration: of `configuration`; artifacts made otherwise are left out.
        version: of the conversion.

    Returns:
        A row per (image_id, file_digest): `pool`, `row`, the columns of a conversion, `reason` and
        `detail`; sorted by these two. A passing reason is there only where nothing better is.

    Raises:
        CorruptArtifactError: a shard's rows are of the right size and other bytes. Left out, its
            images would be missing: what looks whole is not made again.
    """
    tables = [_empty_index()]
    for manifest in whole_shards(pool, configuration, version):
        rows = pool / manifest.key / ROWS
        check_first_use(rows, manifest.files[ROWS]["sha256"])
        tables.append(read_table(rows).assign(pool=manifest.key))
    index = pd.concat(tables, ignore_index=True)[_INDEX_COLUMNS]
    passing = index["reason"].isin(PASSING)
    attempts = index[passing].groupby(_KEY).size().rename("attempts")
    index = index.assign(passing=passing).sort_values([*_KEY, "passing", "pool"], kind="stable")
    index = index.drop_duplicates(_KEY).drop(columns="passing")
    index = index.merge(attempts.reset_index(), on=_KEY, how="left")
    return index.assign(attempts=index["attempts"].fillna(0).astype("int64"))


def plan_batches(files: pd.DataFrame, index: pd.DataFrame, images_per_shard: int) -> list[Batch]:
    """Deal the files that were never converted into batches.

    Args:
        files: of `scan`.
        index: of `pool_index`.

    Returns:
        Batches in order of image_id, so that a deleted shard is planned again as it was.
    """
    found = files[files["digest"].notna()].rename(columns={"digest": "file_digest"})
    found = found.merge(index[[*_KEY, "reason", "attempts"]], on=_KEY, how="left",
                        suffixes=("_scan", ""), indicator=True)  # fmt: skip
    due = (found["_merge"] == "left_only") | found["reason"].isin(PASSING)
    found = found[due].sort_values(["image_id", "file"])
    attempts = found["attempts"].fillna(0).astype("int64")
    rows = [
        BatchFile(*row)
        for row in zip(
            found["file"], found["image_id"], found["file_digest"], attempts.tolist(), strict=True
        )
    ]
    starts = range(0, len(rows), images_per_shard)
    return [tuple(rows[start : start + images_per_shard]) for start in starts]


def batch_identity(batch: Iterable[tuple[Any, ...]]) -> list[Any]:
    """What a batch is, for its key: image_ids and contents, not where the files lie.

    A file that a passing fault cut short makes another batch of the same files, so that it is
    tried again.
    """
    files = (BatchFile(*entry) for entry in batch)
    return [
        [file.image_id, file.digest, *([file.attempt] if file.attempt else [])] for file in files
    ]


def convert_batch(
    batch: Iterable[tuple[Any, ...]],
    images: Path,
    config: ShardsConfig,
    output: Path,
    *,
    workers: int,
) -> Facts:
    """Convert a batch into one shard.

    Args:
        batch: of `plan_batches`, or its entries as plain tuples.
        images: the folder that `file` of the batch is relative to.
        output: an existing folder, receives `images.npy` and `rows.parquet`.
        workers: threads.

    Returns:
        Counts of `images` and `refused` files and the `bytes` read.
    """
    recipe, files = _recipe(config), [BatchFile(*entry) for entry in batch]
    rows: list[Row] = [{} for _ in files]
    sizes = [0] * len(files)
    turn, stop = count(), threading.Event()

    def work() -> None:
        while (place := next(turn)) < len(files) and not stop.is_set():
            image, rows[place], sizes[place] = _convert_one(files[place], images, recipe)
            if image is not None:
                shard.write(place, image)

    # One long task a thread: a task an image would cost as much as its header.
    workers = max(1, min(workers, len(files)))
    cv2.setNumThreads(0)
    with (
        create_shard(output, len(files), recipe.side) as shard,
        ThreadPoolExecutor(workers, thread_name_prefix="convert") as threads,
    ):
        futures = [threads.submit(work) for _ in range(workers)]
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()
    table = _rows_table(files, rows)
    write_table(table, output / ROWS)
    good = int(table["reason"].isna().sum())
    return {"images": good, "refused": len(files) - good, "bytes": sum(sizes)}


def images_table(files: pd.DataFrame, index: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the files that stand now with what is known of their contents.

    A file that was never converted came after the batches were planned: it is told in the log and
    left to the next run.

    Returns:
        `images.parquet` and `quarantine.parquet`.
    """
    found = files[files["digest"].notna()].rename(columns={"digest": "file_digest"})
    known = found[["file", *_KEY]].merge(index, on=_KEY, how="left", indicator=True)
    new = known["_merge"] == "left_only"
    if new.any():
        logger.warning("%d files are not converted yet and left to the next run.", new.sum())
    known = known[~new]
    good = known["reason"].isna()
    images = known.loc[good, _TABLE_COLUMNS].sort_values("image_id", ignore_index=True)
    whole = {**dict.fromkeys([*COUNTS, "row"], "int64"), "patient_differs": "bool"}
    images = images.astype(whole)
    told = ["file", "image_id", "file_digest", "reason", "detail"]
    unread = files[files["digest"].isna() & (files["reason"] != NOT_YET)]
    unread = unread.assign(file_digest=None)[told]
    quarantine = pd.concat([known.loc[~good, told], unread]).astype("str")
    return images, quarantine.sort_values("file", ignore_index=True)


def check_quarantine(images: pd.DataFrame, quarantine: pd.DataFrame, config: ShardsConfig) -> None:
    """Stop where too many files are broken for the rest to be trusted.

    Raises:
        QuarantineError: more than `shards.max_quarantined` of the files, or all of them.
        ShardError: there is no file.
    """
    total = len(images) + len(quarantine)
    reasons = quarantine["reason"].value_counts().sort_index()
    told = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
    first = "; ".join(
        f"{file}: {detail}"
        for file, detail in quarantine[["file", "detail"]].head(3).itertuples(index=False)
    )
    if total == 0:
        raise ShardError(
            "Expected DICOM files (*.dcm) in stage_2_train_images, got none. Copy them there."
        )
    if images.empty or len(quarantine) > config.max_quarantined * total:
        raise QuarantineError(
            f"{len(quarantine)} of {total} files are broken ({told}), more than "
            f"shards.max_quarantined={config.max_quarantined:g} allows. First: {first} "
            "Mend or remove them, or raise that fraction."
        )


def convert_files(
    paths: Sequence[Path], config: ShardsConfig
) -> Iterator[tuple[Path, NDArray[np.uint8] | None, Row]]:
    """Convert files outside any pool, one by one, as a shard would.

    Args:
        paths: files, or folders that stand for the DICOM files below them.

    Yields:
        The path as text that can be written, the (side, side) uint8 image or None, and its row
        (`image_id`, the columns of a conversion, `reason`, `detail`).
    """
    recipe = _recipe(config)
    for entry in list_dicom(paths):
        row: Row = dict.fromkeys([*COLUMNS, "reason", "detail"])
        row |= {"image_id": entry.image_id, "reason": entry.reason, "detail": entry.detail}
        image = None
        if entry.reason is None:
            try:
                image, known = convert(read_file(entry.path), entry.image_id, recipe)
            except DicomError as error:
                known = refused(error)
            row |= known
        yield entry.shown, image, row


def _recipe(config: ShardsConfig) -> Recipe:
    return Recipe(side=config.image_size, accept=config.accept, window=config.window)


def _convert_one(
    file: BatchFile, images: Path, recipe: Recipe
) -> tuple[NDArray[np.uint8] | None, Row, int]:
    """The image of one file and its row, or why it is refused, and how many bytes were read."""
    data = b""
    try:
        data = read_file(images / file.file)
        if digest(data) != file.digest:
            raise DicomError("changed", "The file is no longer what it was when it was listed.")
        return *convert(data, file.image_id, recipe), len(data)
    except DicomError as error:
        return None, refused(error), len(data)


def _rows_table(files: Sequence[BatchFile], rows: list[Row]) -> pd.DataFrame:
    """`rows.parquet`: the same columns and types whatever was found."""
    columns: dict[str, list[Any]] = {
        "image_id": [file.image_id for file in files],
        "file_digest": [file.digest for file in files],
        "row": list(range(len(files))),
    }
    for name in (*COLUMNS, "reason", "detail"):
        columns[name] = [row.get(name) for row in rows]
    return pd.DataFrame(
        {name: pd.array(values, dtype=_DTYPES[name]) for name, values in columns.items()}
    )


def _empty_index() -> pd.DataFrame:
    return pd.DataFrame(columns=_INDEX_COLUMNS).astype({**_DTYPES, "pool": "str"})


_DTYPES: dict[str, Any] = {
    **dict.fromkeys((*_KEY, "pixel_digest", *TEXT, "reason", "detail"), "str"),
    **dict.fromkeys((*COUNTS, "row"), "Int64"),
    **dict.fromkeys(DECIMALS, "float64"),
    "patient_differs": "boolean",
}
