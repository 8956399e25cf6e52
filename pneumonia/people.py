"""People: the person behind each image, by the name that everything downstream knows.

In: image ids and a person map. Out: a name per image, and the hash that stands for it from then
on: a map may hold a hospital's own numbers.
"""

import hashlib
import logging
from pathlib import Path

import pandas as pd

from pneumonia.errors import SplitError

logger = logging.getLogger(__name__)


def name_people(
    image_ids: "pd.Series[str]", persons: pd.DataFrame | None, path: Path | None
) -> tuple["pd.Series[str]", int]:
    """Name each image's person, and count the images that the map does not name.

    Raises:
        SplitError: the map names none of them.
    """
    alone = image_ids.map(image_alone)
    if persons is None:
        return alone, 0
    person = image_ids.map(persons.set_index("image_id")["person"])
    if person.isna().all():
        raise SplitError(
            f"{told(path)}expected a person map that names these images (first: "
            f"{image_ids.iloc[0]}), got one that names none (first: "
            f"{next(iter(persons['image_id']), 'no row')}). "
            "Give `--persons` the map of this data set, or split with `--by-image`."
        )
    return ("person " + person).fillna(alone), int(person.isna().sum())


def check_mapped(
    image_ids: "pd.Series[str]",
    persons: pd.DataFrame | None,
    path: Path | None,
    *,
    max_unmapped: float,
) -> None:
    """A map that was not extended with the data leaks people: each of its gaps is a new person.

    Raises:
        SplitError: it leaves out more than the fraction `max_unmapped` of the images.
    """
    if persons is None:
        return
    gaps = image_ids[~image_ids.isin(persons["image_id"])]
    if len(gaps) > max_unmapped * len(image_ids):
        raise SplitError(
            f"{told(path)}expected a person for at least {1 - max_unmapped:.0%} of "
            f"{len(image_ids):,} images, got none for {len(gaps):,} (first: {gaps.iloc[0]}). "
            "Complete the map, or raise `split.max_unmapped`: each of them is then a person of "
            "its own, on any side."
        )
    if len(gaps):
        logger.warning(
            "The person map names nobody for %d of %d images (first: %s): each is taken for a "
            "person of its own.", len(gaps), len(image_ids), gaps.iloc[0],
        )  # fmt: skip


def image_alone(image_id: str) -> str:
    """The name of a person known by one image alone; no map's person has it."""
    return f"image {image_id}"


def patient_id(person: str) -> str:
    """The name a person has from here on: 16 hexadecimal digits, the same under every seed.

    Runs that are compared resample the same people, whatever their splits.

    >>> patient_id("person 00010007")
    '13af9d293de58d4c'
    """
    return hashlib.blake2b(person.encode(), digest_size=8, person=b"patient_id").hexdigest()


def told(path: Path | None) -> str:
    """The file that a sentence is about, where it is known."""
    return f"{path}: " if path else ""
