"""Artifacts: immutable folders whose manifest is the proof that they are whole.

An artifact lives at `WORKSPACE/<stage>/<key>/`. Its key is a digest of what the stage read, the
settings that can change its bytes and the stage's version; its `manifest.json`, written last,
names every file with size and sha256 and carries a digest of itself. Times and host stand in
`record.json`, outside every digest but its own.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia.errors import CorruptArtifactError
from pneumonia.seals import (
    MAKE_AGAIN,
    canonical_json,
    check_first_use,
    digest_file,
    read_bounded,
    read_sealed,
    write_sealed,
)

MAX_CELLS = 1 << 26
"""Most values that a table may declare, a hundred times the challenge's: a few bytes of Parquet can
stand for any number of equal rows."""

MANIFEST = "manifest.json"
RECORD = "record.json"
_UNSEALED_RECORD = {"started", "seconds", "host", "platform"}

Facts = dict[str, Any]
"""Counts and figures of a stage, small and JSON: what a console line or a status tells."""


@dataclass(frozen=True)
class Reference:
    """The name of an artifact: small enough to pass between tasks, true on every machine."""

    stage: str
    key: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.key[:8]}"


@dataclass(frozen=True)
class Manifest:
    """What an artifact was made from and what it holds.

    Args:
        inputs: a content digest per input, only of the rows and columns that the stage reads.
        configuration: the settings that can change its bytes, as resolved.
        code: digest of the stage's library modules where the key holds it, else empty.
        libraries: versions in use when it was made; told, not keyed.
        files: per file its size in bytes and sha256.
    """

    stage: str
    key: str
    version: int
    inputs: dict[str, str]
    configuration: dict[str, Any]
    code: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on this machine."""

    path: Path
    manifest: Manifest

    @property
    def reference(self) -> Reference:
        """Its name."""
        return Reference(self.manifest.stage, self.manifest.key)

    def file(self, name: str) -> Path:
        """Where one of its files lies, its bytes checked the first time that they are used.

        Raises:
            CorruptArtifactError: they are not those of the manifest.
        """
        check_first_use(self.path / name, self.sha256(name))
        return self.path / name

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read one of its Parquet tables."""
        return read_table(self.file(name), columns)

    def json(self, name: str) -> Any:  # noqa: ANN401 (whatever the file holds)
        """Read one of its JSON files.

        Raises:
            CorruptArtifactError: its bytes are not those of the manifest, or no JSON.
        """
        path = self.file(name)
        try:
            return json.loads(read_bounded(path))
        except (ValueError, RecursionError) as error:
            raise CorruptArtifactError(
                f"{path}: expected JSON, got {error}. {MAKE_AGAIN}"
            ) from error

    def sha256(self, name: str) -> str:
        """The digest of one of its files, as its manifest states it."""
        return str(self.manifest.files[name]["sha256"])


def digest(value: object) -> str:
    """32 hexadecimal digits that name a JSON value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


def digest_table(
    frame: pd.DataFrame, columns: Sequence[str], by: Sequence[str] = ("image_id",)
) -> str:
    """Digest of a table's content: the named columns, rows in the order of `by`.

    Row order, index and further columns make no difference; missing values are one value; whole
    numbers and floats are told apart.

    >>> frame = pd.DataFrame({"image_id": ["b", "a"], "target": [True, False], "note": [1, 2]})
    >>> read = ["image_id", "target"]
    >>> digest_table(frame, read) == digest_table(frame[::-1], read)
    True
    """
    ordered = frame.sort_values(list(by), kind="stable")
    return digest([[column, _plain_values(ordered[column])] for column in columns])


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, without its index."""
    frame.to_parquet(path, index=False, compression="zstd")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table.

    Raises:
        CorruptArtifactError: the file is no table, lacks a column, or declares more than
            `MAX_CELLS` values.
    """
    try:
        declared = pq.read_metadata(path)
        if declared.num_rows * declared.num_columns > MAX_CELLS:
            raise ValueError(f"{declared.num_rows:,} rows of {declared.num_columns:,} columns")
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
    except _NO_TABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the table's
        raise CorruptArtifactError(
            f"{path}: expected a Parquet table, got {error}. {MAKE_AGAIN}"
        ) from error


_NO_TABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    NotImplementedError, RecursionError, pa.ArrowException,
)  # fmt: skip
"""What pyarrow and pandas raise for a file that is torn or something else."""


def write_json(value: object, path: Path) -> None:
    """Write a value as readable JSON, keys in their own order, NaN refused."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", "utf-8")


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder, but for manifest and record."""
    return {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": digest_file(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {MANIFEST, RECORD}
    }


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest with a digest of itself."""
    write_sealed(dataclasses.asdict(manifest), folder / MANIFEST)


def write_record(record: Mapping[str, Any], folder: Path) -> None:
    """Write when and where an artifact was made, with a digest of itself."""
    write_sealed(record, folder / RECORD)


def read_manifest(folder: Path, expected: Reference | None = None) -> Manifest:
    """Read a manifest and check its digest of itself.

    Args:
        expected: whose manifest it should be.

    Raises:
        CorruptArtifactError: no manifest, one that was altered, or that of another artifact.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest(**read_sealed(path))
        _check_files(manifest.files)
        if expected and (manifest.stage, manifest.key) != (expected.stage, expected.key):
            raise ValueError(f"that of {manifest.stage}/{manifest.key}")
        return manifest
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptArtifactError(
            f"{path}: expected a manifest, got {error}. Run again to make the artifact anew."
        ) from error


def _check_files(files: Mapping[str, Mapping[str, Any]]) -> None:
    """See that a manifest names files of its own folder, each with size and sha256.

    Raises:
        ValueError: a name that leads out of the folder, or another value.
    """
    for name, stated in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
            raise ValueError(f"a file outside its folder, {name!r}")
        if not (isinstance(stated["size"], int) and isinstance(stated["sha256"], str)):
            raise ValueError(f"no size or no sha256 of {name!r}")


def find_damage(folder: Path, manifest: Manifest, *, hashed: bool) -> list[str]:
    """Name what is wrong with an artifact's files, one sentence each; empty when it is whole.

    Args:
        hashed: compare the sha256 of every file too, not only presence and size, and look at the
            record.
    """
    damage = []
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            damage.append(f"{name}: missing")
        elif path.stat().st_size != expected["size"]:
            damage.append(f"{name}: expected {expected['size']} bytes, got {path.stat().st_size}")
        elif hashed and digest_file(path) != expected["sha256"]:
            damage.append(f"{name}: its bytes have changed (sha256 differs)")
    if not (folder / RECORD).is_file():
        damage.append(f"{RECORD}: missing")
    elif hashed:
        damage += _record_damage(folder / RECORD)
    return damage


def _record_damage(path: Path) -> list[str]:
    """What is wrong with a record; one from before records were sealed is taken as it is."""
    try:
        if json.loads(path.read_text("utf-8")).keys() != _UNSEALED_RECORD:
            read_sealed(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{RECORD}: its bytes have changed ({error})"]
    return []


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say in words how nested settings differ.

    >>> changes({"epochs": 3, "seed": 0}, {"epochs": 5, "seed": 0})
    ['epochs 3 -> 5']
    """
    told: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            told += changes(before, after, f"{prefix}{name}.")
        elif before != after:
            told.append(f"{prefix}{name} {_short(before)} -> {_short(after)}")
    return told


def _short(value: object) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _plain_values(column: "pd.Series[Any]") -> list[Any]:
    values: Iterable[Any] = column.astype(object).tolist()
    return [_plain_value(value) for value in values]


def _plain_value(value: object) -> object:
    if isinstance(value, (str, bool, int)):
        return value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, np.generic):
        return _plain_value(value.item())
    return value
