"""Simulated data in the challenge's own layout and DICOM encoding, with its pitfalls built in.

A number of images and a seed go in; out come `stage_2_train_images/*.dcm`, the two CSVs with true
boxes, and `persons.csv`. Rates are the challenge's, counted in its public label and header
tables: AP films positive in 38 %, PA in 9 %; several images per person, with differing labels;
two kinds of negatives; a label row per box; ages of 148 to 155; a pixel spacing that betrays the
device. The pixels are cartoons (`phantom`), so no figure measured on them speaks of patients.
"""

import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia import phantom, secondary_capture
from pneumonia.artifacts import Facts
from pneumonia.config import IMAGES_FOLDER, SIMULATION
from pneumonia.errors import ConfigError
from pneumonia.labels import CLASSES_CSV, LABELS_CSV, OPACITY
from pneumonia.persons import PERSONS_CSV

logger = logging.getLogger(__name__)

MARKER = SIMULATION
"""Says which data set a folder is being given, and, with counts, that it holds all of it."""

VERSION = 2
"""Raised when the same arguments give another data set, so that one of an older version is told and
not taken for this. 2: fainter opacities with a wider scatter."""

NOT_NORMAL, NORMAL = "No Lung Opacity / Not Normal", "Normal"

_AP_FRACTION = 0.456
_POSITIVE = {"AP": 0.383, "PA": 0.093}
_NORMAL_AMONG_NEGATIVE = {"AP": 0.218, "PA": 0.548}
_SPACINGS = {  # mm: one device, one value
    "AP": ((0.139, 0.168, 0.171), (0.36, 0.55, 0.09)),
    "PA": ((0.139, 0.143, 0.168, 0.171, 0.194311), (0.08, 0.62, 0.15, 0.06, 0.09)),
}
_BOXES_AT_MOST = (0.43, 0.96, 0.99)  # of positives, 1, 2, 3 boxes; 3 and 4 rarer in the challenge
_ONE_IMAGE = 0.62  # of people; the others have 4.5 on average
_ODD_AGE_EVERY = 400  # images; the challenge's 5 in 26,684 would miss every small sample
_NO_BOX = (None, None, None, None)
_CONTRAST = 21.0  # grey levels of a typical opacity: a ResNet18 needs some 4 epochs to learn it


@dataclass(frozen=True)
class _Study:
    """One film: its truth, its header fields and what is drawn."""

    number: int
    image_id: str
    person: int
    view: str
    sex: str
    age: int
    spacing: float
    label: str
    body: phantom.Anatomy
    opacities: tuple[phantom.Opacity, ...]
    findings: tuple[str, ...]

    @property
    def file_name(self) -> str:
        return f"{self.image_id}.dcm"


def simulate(out: Path, n_images: int, seed: int) -> Facts:
    """Make a data set in `out`, or finish one that was begun; equal arguments give equal bytes.

    A finished one is left alone, whatever has been changed in it since.

    Returns:
        Counts of images, people, positives and boxes.

    Raises:
        ConfigError: fewer than one image, a negative seed, or a folder with other content.
    """
    if n_images < 1 or seed < 0:
        raise ConfigError(
            "simulate: expected at least 1 image and a seed of at least 0, "
            f"got {n_images} and {seed}."
        )
    identity = {"version": VERSION, "images": n_images, "seed": seed}
    with _lock(out):
        standing = _read_marker(out, identity)
        if "boxes" in standing:
            logger.info("Simulated images stand in %s already.", out)
            return standing
        _write(out / MARKER, _json(identity))
        studies = _plan(n_images, seed)
        _write_images(out / IMAGES_FOLDER, studies, seed)
        for name, table in _tables(studies).items():
            _write(out / name, table.to_csv(index=False, lineterminator="\n").encode())
        facts = {
            **identity,
            "people": len({study.person for study in studies}),
            "positives": sum(study.label == OPACITY for study in studies),
            "boxes": sum(len(study.opacities) for study in studies),
        }
        _write(out / MARKER, _json(facts))
    return facts


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing: a second process waits for the first."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"simulate: {out}: expected a folder, got a file. Choose another place."
        ) from error
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_marker(out: Path, identity: Facts) -> Facts:
    """What a folder is said to hold; empty for an empty folder.

    Raises:
        ConfigError: it holds something else.
    """
    if {path.name for path in out.iterdir()} <= {f".{MARKER}.partial"}:
        return {}
    try:
        standing = json.loads((out / MARKER).read_text("utf-8"))
        held = {name: standing[name] for name in identity}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"simulate: {out}: expected an empty or a new folder, got one with other content. "
            "Choose another."
        ) from error
    if held != identity:
        raise ConfigError(
            f"simulate: {out}: expected a folder for {_words(identity)}, got one of "
            f"{_words(held)}. Choose another, or delete it first."
        )
    return dict(standing)


def _words(facts: Facts) -> str:
    return f"{facts['images']} images of seed {facts['seed']} (version {facts['version']})"


def _plan(n_images: int, seed: int) -> list[_Study]:
    """Decide everything but the pixels."""
    rng = np.random.default_rng((seed, 0))
    sizes = np.where(rng.random(n_images) < _ONE_IMAGE, 1, 1 + rng.geometric(1 / 3.5, n_images))
    person = np.repeat(np.arange(n_images), sizes)[:n_images]
    bed, illness = rng.normal(size=(2, n_images))
    is_ap = _highest(1.5 * bed[person] + rng.gumbel(size=n_images), _AP_FRACTION)
    sickness = 1.5 * illness[person] + rng.gumbel(size=n_images)
    positive, normal = np.zeros((2, n_images), np.bool_)
    for view in ("AP", "PA"):
        inside = is_ap == (view == "AP")
        positive[inside] = _highest(sickness[inside], _POSITIVE[view])
        negative = inside & ~positive
        normal[negative] = _highest(-sickness[negative], _NORMAL_AMONG_NEGATIVE[view])
    n_boxes = np.zeros(n_images, np.int64)
    order = rng.permutation(np.flatnonzero(positive))
    rank = np.arange(1, order.size + 1) / max(1, order.size)
    n_boxes[order] = 1 + np.searchsorted(_BOXES_AT_MOST, rank)  # the last has four
    sex = np.where(rng.random(n_images) < 0.57, "M", "F")[person]
    age = np.clip(rng.normal(47, 17, n_images), 1, 95).astype(np.int64)[person]
    odd = rng.choice(n_images, -(-n_images // _ODD_AGE_EVERY), replace=False)
    age[odd] = rng.integers(148, 156, odd.size)
    studies = []
    for number in range(n_images):
        view = "AP" if is_ap[number] else "PA"
        label = OPACITY if positive[number] else NORMAL if normal[number] else NOT_NORMAL
        film = np.random.default_rng((seed, 1, number))
        human = np.random.default_rng((seed, 2, int(person[number])))
        body = phantom.draw_anatomy(human, film, view=view)
        spacings, shares = _SPACINGS[view]
        studies.append(
            _Study(
                number=number,
                image_id=str(uuid.UUID(bytes=film.bytes(16), version=4)),
                person=int(person[number]),
                view=view,
                sex=str(sex[number]),
                age=int(age[number]),
                spacing=float(film.choice(spacings, p=shares)),
                label=label,
                body=body,
                opacities=phantom.place_opacities(
                    body, int(n_boxes[number]), film, contrast=_CONTRAST
                ),
                findings=_choose_findings(label, view, film),
            )
        )
    return studies


def _highest(score: NDArray[np.float64], fraction: float) -> NDArray[np.bool_]:
    """Mark the given fraction of the scores, from the top: rates hold in small data sets too."""
    chosen = np.zeros(score.size, np.bool_)
    chosen[np.argsort(-score, kind="stable")[: round(fraction * score.size)]] = True
    return chosen


def _choose_findings(label: str, view: str, film: np.random.Generator) -> tuple[str, ...]:
    """What else the film shows: always something in `Not Normal`, so that it is the harder kind.

    Lines and devices are commoner in bed, with and without an opacity.
    """
    if label == NORMAL:
        return ()
    weights = np.array([4.0, 1.0, 2.0, 1.0, 1.0] if view == "AP" else [1.0, 1.0, 2.0, 3.0, 3.0])
    count = film.integers(1, 3) if label == NOT_NORMAL else film.integers(0, 2)
    return tuple(film.choice(phantom.FINDINGS, count, replace=False, p=weights / weights.sum()))


def _tables(studies: list[_Study]) -> dict[str, pd.DataFrame]:
    """The CSVs, by name: labels and classes repeat an image for each of its boxes."""
    boxes: list[tuple[object, ...]] = []
    classes: list[tuple[str, str]] = []
    for study in sorted(studies, key=lambda study: study.image_id):
        rows = [cloud.box() for cloud in study.opacities]
        boxes += [(study.image_id, *box, 1) for box in rows] or [(study.image_id, *_NO_BOX, 0)]
        classes += [(study.image_id, study.label)] * max(1, len(rows))
    corners = ["x", "y", "width", "height"]
    labels = pd.DataFrame(boxes, columns=["patientId", *corners, "Target"])
    persons = sorted((study.image_id, f"{study.person:08d}") for study in studies)
    return {
        LABELS_CSV: labels.astype(dict.fromkeys(corners, "float64")),
        CLASSES_CSV: pd.DataFrame(classes, columns=["patientId", "class"]),
        PERSONS_CSV: pd.DataFrame(persons, columns=["patientId", "person"]),
    }


def _write_images(folder: Path, studies: list[_Study], seed: int) -> None:
    """Draw and write the films that the folder does not hold yet."""
    folder.mkdir(exist_ok=True)
    present = {path.name for path in folder.iterdir()}
    missing = [study for study in studies if study.file_name not in present]
    if not missing:
        return

    def write_one(study: _Study) -> None:
        film = np.random.default_rng((seed, 3, study.number))
        image = phantom.draw(study.body, study.opacities, study.findings, film)
        content = secondary_capture.wrap(
            phantom.encode_jpeg(image),
            side=phantom.SIDE,
            image_id=study.image_id,
            view=study.view,
            sex=study.sex,
            age=study.age,
            spacing=study.spacing,
        )
        _write(folder / study.file_name, content)

    started = time.monotonic()
    with ThreadPoolExecutor() as pool:  # Pillow and NumPy's loops run beside each other
        for done, _ in enumerate(pool.map(write_one, missing), start=1):
            if done % 2000 == 0:
                logger.info("Drew %s of %s images.", f"{done:,}", f"{len(missing):,}")
    seconds = time.monotonic() - started
    logger.info("Simulated %s images in %s in %.1f s.", f"{len(missing):,}", folder, seconds)


def _json(facts: Facts) -> bytes:
    return (json.dumps(facts, indent=2) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
