"""People: the person behind each image, by the name that everything downstream knows.

In: image ids and a person map. Out: a name per image, and the hash that stands for it from then
on: a map may hold a hospital's own numbers.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pneumonia.csv_files import short
from pneumonia.errors import ConfigError, SplitError

logger = logging.getLogger(__name__)

PATIENT_KEY = "PNEUMONIA_PATIENT_KEY"
"""Names the environment's secret that stored hashes of people are keyed with. It is in no file."""

_SHORTEST_KEY = 16  # characters


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
            f"{short(image_ids.iloc[0])}), got one of {len(persons):,} rows that names none. "
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


def patient_id(person: str, key: bytes = b"") -> str:
    """The name a person has from here on: 16 hexadecimal digits, the same under every seed.

    Runs that are compared resample the same people, whatever their splits.

    Args:
        key: of `patient_key`; without one, whoever can list all names can find each by trying.

    >>> patient_id("person 00010007")
    '13af9d293de58d4c'
    """
    word = hashlib.blake2b(person.encode(), digest_size=8, key=key, person=b"patient_id")
    return word.hexdigest()


def patient_key() -> bytes:
    """The key that the environment gives for the hashes of people; empty where there is none.

    Raises:
        ConfigError: it is so short that it can be found by trying.
    """
    secret = os.environ.get(PATIENT_KEY, "")
    if not secret:
        return b""
    if len(secret) < _SHORTEST_KEY:
        raise ConfigError(
            f"{PATIENT_KEY}: expected at least {_SHORTEST_KEY} characters, got {len(secret)}. "
            "Make one with `openssl rand -hex 32` and keep it, or unset it."
        )
    return hashlib.sha256(secret.encode()).digest()


def key_setting(key: bytes) -> dict[str, str]:
    """What an artifact states of the key: a fingerprint, or nothing where there is no key."""
    if not key:
        return {}
    fingerprint = hashlib.blake2b(b"fingerprint", digest_size=8, key=key).hexdigest()
    return {"patient_key": fingerprint}


def check_same_key(stated: Mapping[str, Any], key: bytes) -> None:
    """See that people are hashed as in another workspace, or nobody would be known again.

    Args:
        stated: the configuration of the split there.

    Raises:
        ConfigError: they are not.
    """
    here, there = key_setting(key).get("patient_key"), stated.get("patient_key")
    if here != there:
        told = [f"the key {word}" if word else "no key" for word in (there, here)]
        raise ConfigError(
            f"{PATIENT_KEY}: expected what the home run's people are hashed with ({told[0]}), got "
            f"{told[1]}. Set it as for the home run."
        )


def told(path: Path | None) -> str:
    """The file that a sentence is about, where it is known."""
    return f"{path}: " if path else ""
