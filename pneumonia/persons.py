"""Who is who: the person behind each image, which the challenge's `patientId` does not tell.

In: the challenge's official mapping to NIH ChestX-ray14 (JSON), or a CSV. Out: image_id, person.
A refusal shows the number of the row and no value of it: a person may have a hospital's number for
a name, and columns may be interchanged.
"""

import json
from pathlib import Path

import pandas as pd

from pneumonia.csv_files import read_content, read_header, read_rows, refuse_rows, refuse_spaces
from pneumonia.errors import SplitError

PERSONS_CSV = "persons.csv"
OFFICIAL_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def find_persons(raw: Path) -> Path | None:
    """The person map that lies with the raw files: `persons.csv`, else the official JSON."""
    for name in (PERSONS_CSV, OFFICIAL_MAPPING):
        if (raw / name).is_file():
            return raw / name
    return None


def read_persons(path: Path, max_match_mse: float) -> pd.DataFrame:
    """Read who is who: image_id, person, sorted by image_id.

    Args:
        path: the official JSON (`subset_img_id`, `img_id`), or a CSV with `patientId` and either
            `person` or `nih_image`, whose part before the last `_` names the person.
        max_match_mse: rows of a CSV with a `match_mse` of at least this are left out: not
            believed. A row without one is kept.

    Raises:
        SplitError: neither form, a name with space around it, or an image with two persons.
    """
    if path.suffix.lower() == ".json":
        persons = _read_mapping(path)
    else:
        persons = _read_csv(path, max_match_mse)
    refuse_spaces(path, persons, ["image_id", "person"], SplitError, shown=[])
    refuse_rows(
        path,
        persons,
        persons["person"] != persons.groupby("image_id")["person"].transform("first"),
        [],
        expected="one person per image",
        cure="Keep one of the image's rows.",
        error=SplitError,
    )
    return persons.drop_duplicates("image_id").sort_values("image_id", ignore_index=True)


def has_own_names(path: Path, persons: pd.DataFrame) -> bool:
    """Whether the people of a map have names that may be a hospital's numbers.

    Public are those of NIH ChestX-ray14, eight digits that its images' names begin with.

    Args:
        persons: what was read from the map.
    """
    by_images = path.suffix.lower() == ".json" or "person" not in read_header(path, SplitError)
    return not (by_images and persons["person"].str.fullmatch(r"\d{8}").all())


def _read_mapping(path: Path) -> pd.DataFrame:
    """The challenge's official mapping of its images to NIH ChestX-ray14."""
    content = read_content(path, "a JSON file", SplitError)
    try:
        entries = json.loads(content)
        if not isinstance(entries, list):
            raise TypeError(f"a JSON {type(entries).__name__}")
        table = pd.DataFrame(
            [(entry["subset_img_id"], entry["img_id"]) for entry in entries],
            columns=["image_id", "nih_image"],
            index=range(1, len(entries) + 1),
            dtype="str",
        )
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise SplitError(
            f"{path}: expected a JSON list of objects with subset_img_id and img_id, got "
            f"{type(problem).__name__}: {str(problem)[:100]}. Restore the file, or give a CSV."
        ) from problem
    return table[["image_id"]].assign(person=_person_of(path, table))


def _read_csv(path: Path, max_match_mse: float) -> pd.DataFrame:
    rows = read_rows(path, ["patientId"], SplitError, private=True)
    table = rows.rename(columns={"patientId": "image_id"})
    if "match_mse" in table:
        table = _believed(path, table, max_match_mse)
    if "person" in table:
        refuse_rows(
            path,
            table,
            table["person"].str.strip() == "",
            [],
            expected="a person",
            cure="Name one, or remove the row: the image is then a person of its own.",
            error=SplitError,
        )
        return table[["image_id", "person"]]
    if "nih_image" not in table:
        raise SplitError(
            f"{path}: row 1: expected a column person or nih_image beside patientId, got none. "
            "Correct the header."
        )
    return table[["image_id"]].assign(person=_person_of(path, table))


def _believed(path: Path, table: pd.DataFrame, max_match_mse: float) -> pd.DataFrame:
    """The rows whose match was not measured to be a bad one."""
    error = pd.to_numeric(table["match_mse"], errors="coerce")
    refuse_rows(
        path,
        table,
        error.isna() & (table["match_mse"].str.strip() != ""),
        ["match_mse"],
        expected="a number or nothing",
        cure="Correct the value.",
        error=SplitError,
    )
    return table[~(error >= max_match_mse)]


def _person_of(path: Path, table: pd.DataFrame) -> "pd.Series[str]":
    """The NIH patient: `00010007` of `00010007_003.png`."""
    person = table["nih_image"].str.extract(r"^(\w+)_\d+\.png$", expand=False)
    refuse_rows(
        path,
        table,
        person.isna(),
        [],
        expected="an NIH image named <person>_<number>.png",
        cure="Correct the name or remove the row.",
        error=SplitError,
    )
    return person
