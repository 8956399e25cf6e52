"""What the whole `shards` stage costs: from scratch, in memory, and after an update of the data.

    pneumonia bench shards [--images 8000] [--many 20000] [--films DIR]

Every run is `pneumonia run --until shards` in a process of its own on simulated films, which are
in the page cache. Its cost is its wall time beyond that of the same run again, which finds
everything made. The naive loop is what one would write first: pydicom's `pixel_array` by Pillow,
OpenCV's default resize, one `.npy` a file, in one process.

Then, on --many films: the peak memory beside that of a tenth of them, and the cost of an update of
100 new, 50 changed and 50 removed files, whose result is compared with a conversion from scratch.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.pixels import get_decoder

from pneumonia.simulate import simulate

SIDE = 256
ADDED, CHANGED, REMOVED = 100, 50, 50


@dataclass(frozen=True)
class Ran:
    seconds: float
    mebibytes: float


def main() -> None:
    arguments = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # minutes of work is told as it comes
    with tempfile.TemporaryDirectory() as scratch:
        folder, films = Path(scratch), arguments.films or Path(scratch)
        simulate(films / f"{arguments.images}", arguments.images, 0)
        simulate(films / f"{arguments.many}", arguments.many, 1)
        simulate(films / "more", ADDED + CHANGED, 2)
        print(f"{os.cpu_count()} cores; films are simulated, 1024 x 1024 to {SIDE} px")
        _whole_stage(films / f"{arguments.images}", folder)
        _memory_and_update(films / f"{arguments.many}", films / "more", folder)


def _whole_stage(raw: Path, folder: Path) -> None:
    images = len(_films(raw))
    naive = _naive(raw / "stage_2_train_images", folder / "naive")
    first = _run(raw, folder / "workspace")
    again = _run(raw, folder / "workspace")
    stage = first.seconds - again.seconds
    print(f"\n| {images:,} films | s | images/s | |\n|---|---|---|---|")
    print(f"| naive loop, one process | {naive:.1f} | {images / naive:,.0f} | 1 |")
    what = f"a first run ({first.seconds:.1f} s) less a cached one ({again.seconds:.1f} s)"
    print(
        f"| the stage: {what} | {stage:.1f} | {images / stage:,.0f} | {naive / stage:.2f} times |"
    )
    shutil.rmtree(folder / "workspace")


def _memory_and_update(films: Path, more: Path, folder: Path) -> None:
    many = len(_films(films))
    raw, few = _every(1, films, folder / "many"), _every(10, films, folder / "few")
    workspace = folder / "grown"
    small = _run(few, folder / "small")
    large = _run(raw, workspace)
    cached = _run(raw, workspace)
    print(f"\n| | {len(_films(few)):,} films | {many:,} films |\n|---|---|---|")
    print(f"| peak memory, MiB | {small.mebibytes:,.0f} | {large.mebibytes:,.0f} |")
    print(f"| first run, s | {small.seconds:.1f} | {large.seconds:.1f} |")
    before = _pool(workspace)
    _update(raw, more)
    updated = _run(raw, workspace)
    after = _pool(workspace)
    one = (large.seconds - cached.seconds) / many
    bound = (ADDED + CHANGED) * one + 2
    cost = updated.seconds - cached.seconds
    print(
        f"\n{ADDED} added, {CHANGED} changed, {REMOVED} removed: {updated.seconds:.1f} s, "
        f"{cost:.2f} s beyond a cached run ({cached.seconds:.1f} s); "
        f"{ADDED + CHANGED} conversions and 2 s are {bound:.2f} s."
    )
    untouched = all(after.get(path) == stamp for path, stamp in before.items())
    print(f"Pool shards that stood before are untouched: {untouched}.")
    _run(raw, folder / "scratch")
    same = _images(workspace).equals(_images(folder / "scratch"))
    print(f"Equal by image_id to a conversion from scratch, pixels included: {same}.")
    if not (untouched and same):
        sys.exit(1)


def _naive(images: Path, out: Path) -> float:
    out.mkdir()
    by_pillow = get_decoder("1.2.840.10008.1.2.4.50").as_array
    cv2.setNumThreads(0)
    started = time.perf_counter()
    for path in sorted(images.glob("*.dcm")):
        pixels = by_pillow(pydicom.dcmread(path), decoding_plugin="pillow")[0]
        np.save(out / f"{path.stem}.npy", cv2.resize(pixels, (SIDE, SIDE)))
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def _run(raw: Path, workspace: Path) -> Ran:
    """One run of the stage: its wall time, and the peak memory of its largest process."""
    asked = ["run", "--raw", raw, "--workspace", workspace, "--until", "shards"]
    settings = ["--set", "shards.quiet_seconds=0", "--set", f"shards.image_size={SIDE}"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *asked, *settings], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the run ended with status {process.returncode}")
    return Ran(seconds, usage.ru_maxrss / 1024)


def _every(step: int, raw: Path, out: Path) -> Path:
    """Every film, or every tenth, once more, as links to the same bytes."""
    (out / "stage_2_train_images").mkdir(parents=True)
    for path in _films(raw)[::step]:
        (out / "stage_2_train_images" / path.name).symlink_to(path.absolute())
    return out


def _update(raw: Path, more: Path) -> None:
    fresh, standing = _films(more), _films(raw)
    for path in standing[:REMOVED]:
        path.unlink()
    for old, new in zip(standing[REMOVED : REMOVED + CHANGED], fresh[:CHANGED], strict=True):
        old.unlink()
        shutil.copy(new, old)
    for new in fresh[CHANGED:]:
        shutil.copy(new, raw / "stage_2_train_images")


def _films(raw: Path) -> list[Path]:
    return sorted((raw / "stage_2_train_images").glob("*.dcm"))


def _pool(workspace: Path) -> dict[Path, tuple[int, int, int]]:
    """What would change if a file of the pool were written."""
    found = {path: path.stat() for path in (workspace / "pool").rglob("*") if path.is_file()}
    return {path: (at.st_ino, at.st_size, at.st_mtime_ns) for path, at in found.items()}


def _images(workspace: Path) -> pd.DataFrame:
    """The table of images without where each is stored; the pixels stand in it as digests."""
    table = pd.read_parquet(workspace / "runs" / "main" / "shards" / "images.parquet")
    return table.drop(columns=["pool", "row"]).sort_values("image_id", ignore_index=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--films", type=Path, help="where the simulated films are kept, if at all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
