"""How fast `pneumonia verify` hashes a workspace.

    pneumonia bench verify [--shards 30] [--images 1000]

A pool of shards of 256 px images of noise, written just before and so in the page cache: what is
measured is hashing, not the disk. The best of three times; `one core` hashes the same files one
after another.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flows.status import find_all_damage
from pneumonia.artifacts import Manifest, list_files, write_manifest, write_record
from pneumonia.machine import cores
from pneumonia.pool import IMAGES
from pneumonia.seals import digest_file

SIDE, ROUNDS = 256, 3
ASKED = 1.0  # GB/s, on two cores


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        images = np.random.default_rng(0).integers(0, 256, (arguments.images, SIDE, SIDE), np.uint8)
        for number in range(arguments.shards):
            _write_shard(root / "pool" / f"{number:032x}", images)
        files = sorted(root.rglob(IMAGES))
        size = sum(path.stat().st_size for path in files) / 1e9
        alone = size / _best(lambda: list(map(digest_file, files)))
        rate = size / _best(lambda: list(find_all_damage(root)))
    print(f"{size:.2f} GB in {arguments.shards} shards, in the page cache, {cores()} cores\n")
    print("| | GB/s |\n|---|---|")
    print(f"| one core | {alone:.2f} |")
    print(f"| `pneumonia verify` | {rate:.2f} |")
    print(f"\nAsked: {ASKED:.1f} GB/s on two cores; got {rate:.2f} on {cores()}.")


def _write_shard(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    np.save(folder / IMAGES, images)
    write_record({}, folder)
    whole = Manifest("pool", folder.name, 1, {}, {}, files=list_files(folder))
    write_manifest(whole, folder)


def _best(work: Callable[[], list[str]]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        clock = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - clock)
    return min(seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pneumonia bench verify", description=__doc__)
    parser.add_argument("--shards", type=int, default=30, metavar="N", help="default: 30")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="a shard")
    return parser.parse_args()


if __name__ == "__main__":
    main()
