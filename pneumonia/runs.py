"""Runs beside each other: what a run leaves to compare, and in words what differs between two.

In: the tables and manifests of finished runs. Out: sentences on settings and on data, so that
one sees why a figure may have moved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pneumonia.artifacts import Manifest, changes

BOX = ["x", "y", "width", "height"]
HEADER = ("view", "sex", "age", "spacing")


@dataclass(frozen=True)
class Run:
    """What a finished run left.

    Args:
        name: of the run.
        evaluation: its `evaluation.json`.
        studies: image_id, patient_id, split, target, class, view, sex, age, spacing.
        predictions: per model image_id, split, logit, probability of val and test.
        decisions: per model `{"calibration": {a, b}, "operating_points": {...}}`.
        boxes: image_id, x, y, width, height.
        files: image_id, file_digest: which content each image was read from.
        manifests: by link name (`labels`, `training-resnet18`).
    """

    name: str
    evaluation: Mapping[str, Any]
    studies: pd.DataFrame
    predictions: Mapping[str, pd.DataFrame]
    decisions: Mapping[str, Mapping[str, Any]]
    boxes: pd.DataFrame
    files: pd.DataFrame
    manifests: Mapping[str, Manifest]

    @property
    def by_person(self) -> bool:
        """Whether its patient_id names a person, not an image."""
        return bool(self.evaluation["data"]["grouping"] == "person")


def setting_changes(before: Run, after: Run) -> dict[str, list[str]]:
    """Say per stage how two runs differ: settings, what was read, code and libraries.

    Returns:
        By link name; a stage whose artifact is the same in both runs is left out.
    """
    told: dict[str, list[str]] = {}
    for stage in {**before.manifests, **after.manifests}:
        old, new = before.manifests.get(stage), after.manifests.get(stage)
        if old is None or new is None:
            told[stage] = [f"only in {before.name if new is None else after.name}"]
        elif old.key != new.key:
            told[stage] = [
                *changes(old.configuration, new.configuration),
                *_input_changes(before.name, old.inputs, after.name, new.inputs),
                *_making_changes(old, new),
            ]
    return told


def data_changes(before: Run, after: Run) -> list[str]:
    """Say in words how the images, sides, labels, boxes and people of two runs differ."""
    old, new = (run.studies.set_index("image_id").sort_index() for run in (before, after))
    told = []
    for change, rows in (("added", new.drop(old.index, errors="ignore")),
                         ("removed", old.drop(new.index, errors="ignore"))):  # fmt: skip
        if len(rows):
            told.append(f"{_images(len(rows))} {change} ({_counts(rows['split'])})")
    both = old.index.intersection(new.index)
    old, new = old.loc[both], new.loc[both]
    moved = old["split"] != new["split"]
    if moved.any():
        ways = old.loc[moved, "split"] + " to " + new.loc[moved, "split"]
        told.append(f"{_images(int(moved.sum()))} moved between sides ({_counts(ways)})")
    relabelled = old["target"] != new["target"]
    if relabelled.any():
        ways = new.loc[relabelled, "target"].map({True: "now positive", False: "now negative"})
        told.append(f"labels of {_images(int(relabelled.sum()))} changed ({_counts(ways)})")
    other = {
        "classes": _differ(old["class"], new["class"]) & ~relabelled,
        "header fields": pd.concat([_differ(old[name], new[name]) for name in HEADER], axis=1).any(
            axis=1
        ),
        "boxes": pd.Series(both.isin(_changed_boxes(before.boxes, after.boxes)), both),
        "files": _differ(*(_digests(run, both) for run in (before, after))),
    }
    told += [
        f"{what} of {_images(int(mask.sum()))} changed"
        for what, mask in other.items()
        if mask.any()
    ]
    return told + _people_changes(before, after, old["patient_id"], new["patient_id"])


def _input_changes(
    before: str, old: Mapping[str, str], after: str, new: Mapping[str, str]
) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name in old and name in new:
            if old[name] != new[name]:
                yield f"reads other {name}"
        else:
            yield f"reads {name} only in {before if name in old else after}"


def _making_changes(old: Manifest, new: Manifest) -> list[str]:
    told = [] if old.version == new.version else [f"version {old.version} -> {new.version}"]
    told += [] if old.code == new.code else ["other code"]
    return told + changes(old.libraries, new.libraries)


def _people_changes(
    before: Run, after: Run, old: "pd.Series[str]", new: "pd.Series[str]"
) -> list[str]:
    if before.by_person != after.by_person:
        by = {run.name: "person" if run.by_person else "image" for run in (before, after)}
        return [f"{name} is split by {unit}" for name, unit in by.items()]
    renamed = int((old != new).sum())
    return [f"people of {_images(renamed)} changed"] if renamed else []


def _changed_boxes(old: pd.DataFrame, new: pd.DataFrame) -> set[str]:
    """The images whose boxes are not the same ones."""
    key = ["image_id", *BOX]
    merged = old[key].merge(new[key], how="outer", indicator=True)
    return set(merged.loc[merged["_merge"] != "both", "image_id"])


def _digests(run: Run, image_ids: "pd.Index[str]") -> "pd.Series[str]":
    return run.files.set_index("image_id")["file_digest"].reindex(image_ids)


def _differ(old: "pd.Series[Any]", new: "pd.Series[Any]") -> "pd.Series[bool]":
    """Whether two columns differ, two missing values being equal."""
    return ~((old == new) | (old.isna() & new.isna())).fillna(False).astype(bool)


def _counts(values: "pd.Series[str]") -> str:
    counts = values.value_counts().sort_index()
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
