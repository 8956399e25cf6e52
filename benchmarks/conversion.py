"""How fast one DICOM file becomes one stored image, beside the ways it is done elsewhere.

    pneumonia bench conversion [FOLDER] [--side 256] [--images 512] [--rounds 7]

All ways run in one process, one after the other in every round, on the same files, which are in
the page cache, and write into a fresh folder; the median round counts. FOLDER holds films as the
challenge's; without it, films are simulated. MONAI and torchxrayvision take part where the `bench`
extra is installed.

Wall time means little while anything else runs on the machine: --cpu counts the processor time
of the single-threaded ways instead.
"""

import argparse
import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.pixels import get_decoder

from pneumonia.codestream import decode_jpeg, scale_for
from pneumonia.config import ShardsConfig
from pneumonia.elements import walk
from pneumonia.files import digest
from pneumonia.shards import BatchFile, convert_batch
from pneumonia.simulate import simulate

THIS = "this, 1 thread"

Way = Callable[[Path], object]
"""Converts all files once, into a folder if it writes at all."""


def main() -> None:
    arguments = _arguments()
    cv2.setNumThreads(0)
    warnings.filterwarnings("ignore", module=r"(pydicom|monai)\.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder
        if folder is None:
            simulate(Path(scratch) / "raw", arguments.images, 0)
            folder = Path(scratch) / "raw" / "stage_2_train_images"
        paths = sorted(folder.glob("*.dcm"))[: arguments.images]
        clock = time.process_time if arguments.cpu else time.perf_counter
        ways = ways_to_convert(paths, arguments.side)
        if arguments.cpu:
            ways.pop("this, 2 threads")
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                out = Path(scratch) / "out"
                out.mkdir()
                started = clock()
                way(out)
                spent[name].append((clock() - started) / len(paths))
                shutil.rmtree(out)
    tell(spent, arguments, len(paths))


def tell(spent: dict[str, list[float]], arguments: argparse.Namespace, images: int) -> None:
    median = {name: statistics.median(times) for name, times in spent.items()}
    unit = "processor time" if arguments.cpu else "wall time"
    print(f"{images} films to {arguments.side} px, {os.cpu_count()} cores, median {unit} of "
          f"{arguments.rounds} rounds")  # fmt: skip
    print("| way | ms an image | images/s | times this, 1 thread |\n|---|---|---|---|")
    for name, seconds in median.items():
        ratio = seconds / median[THIS]
        print(f"| {name} | {seconds * 1e3:.2f} | {1 / seconds:,.0f} | {ratio:.2f} |")


def ways_to_convert(paths: list[Path], side: int) -> dict[str, Way]:
    """Each way converts all files once."""
    data = [path.read_bytes() for path in paths]
    found = [(each, walk(each)) for each in data]
    frames = [each[slice(*elements.pixel_data)] for each, elements in found if elements is not None]
    batch = [
        BatchFile(path.name, path.stem, digest(each))
        for path, each in zip(paths, data, strict=True)
    ]
    del data, found
    rows, columns = cv2.imdecode(np.frombuffer(frames[0], np.uint8), cv2.IMREAD_GRAYSCALE).shape
    scale = scale_for(rows, columns, side)
    config = ShardsConfig(image_size=side)
    by_pillow = get_decoder("1.2.840.10008.1.2.4.50").as_array

    def pixels(path: Path) -> np.ndarray:
        return by_pillow(pydicom.dcmread(path), decoding_plugin="pillow")[0]

    def bare(_: Path) -> None:
        for frame in frames:
            decode_jpeg(frame, rows, columns, scale)

    def this(out: Path, workers: int) -> None:
        convert_batch(batch, paths[0].parent, config, out, workers=workers)

    def naive(out: Path) -> None:
        for path in paths:
            np.save(out / f"{path.stem}.npy", cv2.resize(pixels(path), (side, side)))

    def notebook(out: Path) -> None:
        for path in paths:
            image = cv2.resize(pixels(path) / 255, (side, side))
            np.save(out / f"{path.stem}.npy", image.astype(np.float16))

    ways: dict[str, Way] = {
        f"bare decode at 1/{scale}": bare,
        THIS: lambda out: this(out, 1),
        "this, 2 threads": lambda out: this(out, 2),
        "naive: pydicom, Pillow, OpenCV": naive,
        "notebook: / 255, float16": notebook,
    }
    return ways | _peers(paths, side)


def _peers(paths: list[Path], side: int) -> dict[str, Way]:
    """What others' loaders do up to an array; they write nothing."""
    peers: dict[str, Way] = {}
    if find_spec("monai"):
        logging.getLogger("monai").setLevel(logging.ERROR)
        from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize

        steps = [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Resize((side, side), mode="area"),
        ]
        chain = Compose(steps)
        peers["MONAI LoadImage, Resize"] = lambda _: [chain(path) for path in paths]
    if find_spec("torchxrayvision"):
        import torchxrayvision as xrv

        resize = xrv.datasets.XRayResizer(side, engine="skimage")
        peers["torchxrayvision read_xray_dcm, XRayResizer"] = lambda _: [
            resize(xrv.utils.read_xray_dcm(path)[None]) for path in paths
        ]
    return peers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
