"""People are dealt into train, val and test, and every usable image gets its side.

In: labels, images, and who is who (nothing where the split is by image). Out: one row per image
that has both a label and a file. Were the challenge split by `patientId`, which names an image,
70 % of its val images would have their person in train too; so people are dealt, not images.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pneumonia.artifacts import Facts
from pneumonia.config import SplitConfig
from pneumonia.csv_files import read_rows, refuse_rows, refuse_spaces, short, unquoted
from pneumonia.errors import SplitError
from pneumonia.people import check_mapped, image_alone, name_people, patient_id, told

logger = logging.getLogger(__name__)

SIDES = ("train", "val", "test")

STUDY_COLUMNS = [
    "image_id", "patient_id", "split", "target", "class", "view", "sex", "age", "spacing",
    "rows", "columns", "scale", "offset_x", "offset_y",
]  # fmt: skip

_ROUNDING = 1e-6  # pixels, of a box that was computed


@dataclass(frozen=True)
class Split:
    """Who is where.

    Args:
        studies: `STUDY_COLUMNS`, one row per usable image, sorted by image_id.
        facts: counts per side, what was left out, and the leak of a split by image: of this one,
            else of one with the same fractions; None where persons are unknown or `split_file`
            deals by person, which names no such split.
    """

    studies: pd.DataFrame
    facts: Facts

    def to_cite(self) -> pd.DataFrame:
        """The split as `--split-file` reads it: patientId, split."""
        return self.studies[["image_id", "split"]].rename(columns={"image_id": "patientId"})


def read_split_file(path: Path) -> pd.DataFrame:
    """Read a split made elsewhere (`patientId,split`): image_id, split, sorted by image_id.

    Raises:
        SplitError: another layout, an id with space around it, another side than train, val,
            test, or an image on two.
    """
    rows = read_rows(path, ["patientId", "split"], SplitError)
    rows = rows.assign(patientId=unquoted(rows["patientId"]))
    refuse_spaces(path, rows, ["patientId"], SplitError)
    sides = ["patientId", "split"]
    refuse_rows(
        path,
        rows,
        ~rows["split"].isin(SIDES),
        sides,
        expected=f"a split of {', '.join(SIDES)}",
        cure="Correct the value.",
        error=SplitError,
    )
    refuse_rows(
        path,
        rows,
        rows["split"] != rows.groupby("patientId")["split"].transform("first"),
        sides,
        expected="one side per image",
        cure="Keep one of the image's rows.",
        error=SplitError,
    )
    table = rows[sides].rename(columns={"patientId": "image_id"})
    return table.drop_duplicates().sort_values("image_id", ignore_index=True)


def make_split(
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    images: pd.DataFrame,
    *,
    persons: pd.DataFrame | None,
    split_file: pd.DataFrame | None,
    config: SplitConfig,
    by_image: bool = False,
    persons_path: Path | None = None,
    split_path: Path | None = None,
    patient_key: bytes = b"",
) -> Split:
    """Give every image with a label and a file its person and its side.

    Args:
        labels, boxes: as `labels.read_labels` gives them.
        images: image_id, header fields and geometry.
        persons: as `persons.read_persons` gives them; None splits by image. An image that is
            not named there is a person of its own.
        split_file: as `read_split_file` gives it; images that it does not name are left out.
            None deals people by `config`.
        by_image: split by image although persons are known, which then tell the leak; persons
            of other images are as good as none.
        persons_path, split_path: where `persons` and `split_file` were read, for messages.
        patient_key: of the stored hashes of people; their sides are the same under any.

    Raises:
        SplitError: nothing to split, a map that names no image or leaves out more than
            `split.max_unmapped` of them, a box outside its image's frame, a person on two sides,
            or a side without both classes.
    """
    studies = labelled_images(labels, boxes, images)
    if by_image and persons is not None and not persons["image_id"].isin(studies["image_id"]).any():
        logger.warning("The person map names none of the images, so the leak is not known.")
        persons = None
    person, unmapped = name_people(studies["image_id"], persons, persons_path)
    if not by_image:
        check_mapped(studies["image_id"], persons, persons_path, max_unmapped=config.max_unmapped)
    single = studies["image_id"].map(image_alone)
    grouped = single if by_image else person
    studies["patient_id"] = grouped.map(lambda name: patient_id(name, patient_key))
    if split_file is None:
        studies["split"] = _deal(grouped.map(patient_id), config)
    else:
        studies["split"] = _look_up(studies["image_id"], split_file, split_path)
    leak = None
    if persons is not None and (by_image or split_file is None):
        sides = studies["split"] if by_image else _deal(single.map(patient_id), config)
        leak = {side: _leak(person, sides, side) for side in ("val", "test")}
    _tell_missing(labels, images)
    left_out = studies["split"].isna()
    studies = studies.loc[~left_out, STUDY_COLUMNS].reset_index(drop=True)
    _check_nobody_on_two_sides(studies, split_path)
    _check_classes(studies, given=split_file is not None, path=split_path)
    facts: Facts = {
        "grouping": "image" if by_image or persons is None else "person",
        "images": len(studies),
        "people": int(studies["patient_id"].nunique()),
        **count_unpaired(labels, images),
        "unmapped_images": unmapped,
        "images_not_in_split_file": int(left_out.sum()),
        "boxes_checked": int(boxes["image_id"].isin(studies["image_id"]).sum()),
        "sides": {side: _count(studies[studies["split"] == side]) for side in SIDES},
        "leak_if_split_by_image": leak,
    }
    return Split(studies, facts)


def labelled_images(
    labels: pd.DataFrame, boxes: pd.DataFrame, images: pd.DataFrame
) -> pd.DataFrame:
    """The images that have both a file and a label, by image_id.

    Raises:
        SplitError: there is none, or a box reaches outside its image's frame.
    """
    studies = images.merge(labels, on="image_id").sort_values("image_id", ignore_index=True)
    if studies.empty:
        raise SplitError(
            f"expected images with a label, got none among {len(images):,} images and "
            f"{len(labels):,} labelled ids. Check that file names and patientId agree."
        )
    _check_frames(boxes, studies)
    return studies


def count_unpaired(labels: pd.DataFrame, images: pd.DataFrame) -> Facts:
    """How many files have no label, and how many labels no file."""
    return {
        "unlabelled_files": int((~images["image_id"].isin(labels["image_id"])).sum()),
        "labels_without_file": int((~labels["image_id"].isin(images["image_id"])).sum()),
    }


def place(patient_id: str, seed: int) -> float:
    """Where a person falls in [0, 1), by a hash keyed with the seed.

    Nobody's place depends on who else there is, so new data move no one.
    """
    key = f"split {seed}".encode()
    word = hashlib.blake2b(patient_id.encode(), digest_size=8, key=key).digest()
    return (int.from_bytes(word) >> 11) / 2**53  # 53 bits: all that a float holds


def _tell_missing(labels: pd.DataFrame, images: pd.DataFrame) -> None:
    """Labelled images without a file are left out; a folder half copied looks like that."""
    missing = labels.loc[~labels["image_id"].isin(images["image_id"]), "image_id"]
    if len(missing):
        logger.warning(
            "%d of %d labelled images have no readable file and are left out (first: %s).",
            len(missing), len(labels), missing.iloc[0],
        )  # fmt: skip


def _deal(patient_ids: "pd.Series[str]", config: SplitConfig) -> "pd.Series[str]":
    """Side by side on [0, 1): test, then val, then train, so that val moves nobody in test."""
    u = patient_ids.map({name: place(name, config.seed) for name in patient_ids.unique()})
    limits = [config.test_fraction, config.test_fraction + config.val_fraction]
    sides = np.array(["test", "val", "train"])[np.searchsorted(limits, u, side="right")]
    return pd.Series(sides, patient_ids.index, dtype="str")


def _look_up(
    image_ids: "pd.Series[str]", split_file: pd.DataFrame, path: Path | None
) -> "pd.Series[str]":
    sides = image_ids.map(split_file.set_index("image_id")["split"])
    if sides.isna().all():
        raise SplitError(
            f"{told(path)}expected a split file that names these images (first: "
            f"{short(image_ids.iloc[0])}), got one that names none (first: "
            f"{short(split_file['image_id'].iloc[0])}). "
            "Give `--split-file` the split of this data set."
        )
    return sides


def _leak(person: "pd.Series[str]", sides: "pd.Series[str]", side: str) -> float | None:
    """The fraction of a side's images whose person is in train too; None for an empty side."""
    here = person[sides == side]
    return float(here.isin(person[sides == "train"]).mean()) if len(here) else None


def _check_frames(boxes: pd.DataFrame, studies: pd.DataFrame) -> None:
    framed = boxes.merge(studies[["image_id", "rows", "columns"]], on="image_id")
    bad = (framed["x"] + framed["width"] > framed["columns"] + _ROUNDING) | (
        framed["y"] + framed["height"] > framed["rows"] + _ROUNDING
    )
    if bad.any():
        first = framed[bad].iloc[0]
        raise SplitError(
            f"{bad.sum():,} boxes reach outside their image, expected all inside (first: "
            f"{first['image_id']}, x {first['x']:g}, y {first['y']:g}, width {first['width']:g}, "
            f"height {first['height']:g} in a frame of {first['columns']} x {first['rows']}). "
            "Boxes are in pixels of the original: correct the label file."
        )


def _check_nobody_on_two_sides(studies: pd.DataFrame, path: Path | None) -> None:
    sides = studies.groupby("patient_id")["split"].transform("nunique")
    if (sides > 1).any():
        torn = studies[sides > 1]
        first = torn[torn["patient_id"] == torn["patient_id"].iloc[0]].drop_duplicates("split")
        where = " and ".join(f"{row.image_id} in {row.split}" for row in first.itertuples())
        raise SplitError(
            f"{told(path)}{torn['patient_id'].nunique():,} people are on more than one side, "
            f"expected none (first: {where}). Correct the split file, or split with `--by-image`."
        )


def _check_classes(studies: pd.DataFrame, *, given: bool, path: Path | None) -> None:
    """Each side has both classes; a given split may leave test empty."""
    cure = "Correct the split file."
    if not given:
        settings = "`split.val_fraction`, `split.test_fraction` or `split.seed`"
        cure = f"Give more data, or change {settings}."
    for side in SIDES:
        counts = _count(studies[studies["split"] == side])
        negatives = counts["images"] - counts["positives"]
        if side == "test" and not counts["images"] and given:
            continue
        if not (counts["positives"] and negatives):
            raise SplitError(
                f"{told(path)}{side}: expected images of both classes, got "
                f"{counts['positives']:,} positive and {negatives:,} negative. {cure}"
            )


def _count(side: pd.DataFrame) -> Facts:
    return {
        "images": len(side),
        "people": int(side["patient_id"].nunique()),
        "positives": int(side["target"].sum()),
    }
