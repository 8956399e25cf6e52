"""The challenge's CSVs become one row per image and a table of boxes.

In: `stage_2_train_labels.csv` (a row per box, or one without a box) and, where there is one,
`stage_2_detailed_class_info.csv`. Out: labels (image_id, target, class) and boxes (image_id, x, y,
width, height in pixels of the original, origin top left). 31.6 % of the challenge's rows are
positive but 22.5 % of its images: whoever counts rows counts boxes.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pneumonia.artifacts import Facts
from pneumonia.csv_files import read_rows, refuse_rows
from pneumonia.errors import LabelError

logger = logging.getLogger(__name__)

LABELS_CSV = "stage_2_train_labels.csv"
CLASSES_CSV = "stage_2_detailed_class_info.csv"

OPACITY = "Lung Opacity"
"""The class whose images are the positives."""

BOX = ["x", "y", "width", "height"]

_LARGEST = 1e9  # pixels; keeps infinity out
_LONGEST_ID = 200  # bytes: a file name has 255, and `.dcm` and more comes behind


@dataclass(frozen=True)
class LabelTables:
    """What the readers said.

    Args:
        labels: image_id, target, class (missing where no class is known); sorted by image_id.
        boxes: image_id, x, y, width, height; sorted by all of them.
        oddities: counts of what is wrong without standing in the way.
    """

    labels: pd.DataFrame
    boxes: pd.DataFrame
    oddities: dict[str, int] = field(default_factory=dict)

    def facts(self) -> Facts:
        """Counts of images, positives and boxes, and of oddities."""
        return {
            "images": len(self.labels),
            "positives": int(self.labels["target"].sum()),
            "boxes": len(self.boxes),
            **self.oddities,
        }


def read_labels(raw: Path) -> LabelTables:
    """Read the label file, and the class file where there is one.

    A box given twice is one box; a class that contradicts the target changes nothing. Both are
    counted.

    Raises:
        LabelError: a file that breaks the layout, told with row, value and cure.
    """
    path = raw / LABELS_CSV
    if not path.exists():
        raise LabelError(
            f"{path}: expected the challenge's label file, got no such file. Put it there "
            "(data/README.md says how to get it), or make a data set with `pneumonia simulate`."
        )
    rows = read_rows(path, ["patientId", *BOX, "Target"], LabelError)
    _check_ids(path, rows)
    numbers = _read_numbers(path, rows)
    _check_boxes(path, rows, numbers)
    _check_one_target(path, rows, numbers["Target"])

    frame = numbers.assign(image_id=rows["patientId"], target=numbers["Target"] == 1)
    labels = frame[["image_id", "target"]].drop_duplicates().sort_values("image_id")
    order = ["image_id", *BOX]
    given = frame.loc[frame["target"], order]
    boxes = given.drop_duplicates().sort_values(order)
    classes, oddities = _read_classes(raw / CLASSES_CSV, labels)
    oddities["repeated_boxes"] = len(given) - len(boxes)
    for oddity, count in oddities.items():
        if count:
            logger.warning("Labels: %s %s.", f"{count:,}", oddity.replace("_", " "))
    return LabelTables(
        labels.assign(**{"class": classes}).reset_index(drop=True),
        boxes.reset_index(drop=True),
        {oddity: count for oddity, count in oddities.items() if count},
    )


def is_plain_name(image_id: str) -> bool:
    """Whether an id can be the stem of a file: no folder, nothing hidden, nothing unprintable.

    >>> is_plain_name("0004cfab-14fd-4e49-80ba-63a80b6bddd6"), is_plain_name("../x")
    (True, False)
    """
    return (
        0 < len(image_id.encode()) <= _LONGEST_ID
        and image_id.isprintable()
        and image_id == image_id.strip()
        and not image_id.startswith(".")
        and not {"/", "\\"} & {*image_id}
    )


def _check_ids(path: Path, rows: pd.DataFrame) -> None:
    bad = ~rows["patientId"].map(is_plain_name).astype(bool)
    refuse_rows(
        path,
        rows,
        bad,
        ["patientId"],
        expected="a patientId that is a plain file name (no folder, no space around it)",
        cure="Correct the id or remove the row.",
        error=LabelError,
    )


def _read_numbers(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of numbers as float64, missing ones as NaN; Target is 0 or 1."""
    numbers = pd.DataFrame(index=rows.index)
    for column in [*BOX, "Target"]:
        values = pd.to_numeric(rows[column], errors="coerce").astype("float64")
        if column == "Target":
            bad = ~values.isin([0, 1])
            expected = "a Target of 0 or 1"
        else:
            missing = rows[column].str.strip().str.lower().isin(["", "nan"])
            bad = ~(missing | values.between(-_LARGEST, _LARGEST))
            expected = "a number"
        refuse_rows(
            path,
            rows,
            bad,
            [column],
            expected=expected,
            cure="Correct the value.",
            error=LabelError,
        )
        numbers[column] = values
    return numbers


def _check_boxes(path: Path, rows: pd.DataFrame, numbers: pd.DataFrame) -> None:
    """A positive row has a box of some size; a negative row has none."""
    positive, box = numbers["Target"] == 1, numbers[BOX]
    rules = [
        (
            positive & box.isna().any(axis=1),
            [*BOX, "Target"],
            "a box in a row with Target 1",
            "Give the box, or set Target to 0.",
        ),
        (
            ~positive & box.notna().any(axis=1),
            [*BOX, "Target"],
            "no box in a row with Target 0",
            "Remove the box, or set Target to 1.",
        ),
        (
            (box[["x", "y"]] < 0).any(axis=1),
            ["x", "y"],
            "a corner inside the frame (x and y of at least 0)",
            "Cut the box at the frame's edge.",
        ),
        (
            (box[["width", "height"]] <= 0).any(axis=1),
            ["width", "height"],
            "a box with some size (width and height above 0)",
            "Correct the box or remove the row.",
        ),
    ]
    for bad, columns, expected, cure in rules:
        refuse_rows(path, rows, bad, columns, expected=expected, cure=cure, error=LabelError)


def _check_one_target(path: Path, rows: pd.DataFrame, target: "pd.Series[float]") -> None:
    first = target.groupby(rows["patientId"]).transform("first")
    refuse_rows(
        path,
        rows,
        target != first,
        ["patientId", "Target"],
        expected="one Target per image",
        cure="Give all rows of the image the same Target.",
        error=LabelError,
    )


def _read_classes(path: Path, labels: pd.DataFrame) -> tuple["pd.Series[str]", dict[str, int]]:
    """The class of each label row, missing where none is known, and counts of oddities."""
    if not path.exists():
        return pd.Series(None, labels.index, dtype="str"), {}
    rows = read_rows(path, ["patientId", "class"], LabelError)
    refuse_rows(
        path,
        rows,
        (rows["class"].str.strip() == "") | ~rows["class"].map(str.isprintable).astype(bool),
        ["patientId", "class"],
        expected="a class in printable characters",
        cure="Give the class or remove the row.",
        error=LabelError,
    )
    first = rows.groupby("patientId")["class"].transform("first")
    refuse_rows(
        path,
        rows,
        rows["class"] != first,
        ["patientId", "class"],
        expected="one class per image",
        cure="Give all rows of the image the same class.",
        error=LabelError,
    )
    known = rows.drop_duplicates("patientId").set_index("patientId")["class"]
    classes = labels["image_id"].map(known)
    contradicts = classes.notna() & ((classes == OPACITY) != labels["target"])
    return classes, {
        "images_without_class": int(classes.isna().sum()),
        "classes_without_label": int((~known.index.isin(labels["image_id"])).sum()),
        "classes_that_contradict_the_target": int(contradicts.sum()),
    }
