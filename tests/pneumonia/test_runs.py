"""What differs between two runs, in words."""

import dataclasses

import pytest

from pneumonia.artifacts import Manifest
from pneumonia.runs import data_changes, setting_changes


def manifest(stage="training", **replaced):
    given = {
        "stage": stage, "key": "a", "version": 1, "inputs": {"train and val images": "1"},
        "configuration": {"learning_rate": 0.001, "seed": 0}, "libraries": {"torch": "2.8"},
    } | replaced  # fmt: skip
    return Manifest(**given)


@pytest.fixture(scope="module")
def before(make_run):
    return make_run("before", manifests={"training-resnet18": manifest()})


def changed(run, **fields):
    return dataclasses.replace(run, name="after", **fields)


def first_of(studies, split, count):
    return studies["image_id"].isin(studies.loc[studies["split"] == split, "image_id"][:count])


def test_nothing_differs_between_a_run_and_its_copy(before):
    shuffled = changed(
        before,
        studies=before.studies.sample(frac=1, random_state=0),
        boxes=before.boxes.sample(frac=1, random_state=0),
        files=before.files.sample(frac=1, random_state=0),
    )
    assert data_changes(before, shuffled) == []
    assert setting_changes(before, shuffled) == {}


def test_images_added_and_removed_are_counted_by_side(before):
    fewer = before.studies[~first_of(before.studies, "test", 3)]
    fewer = fewer[~first_of(fewer, "val", 1)]
    after = changed(before, studies=fewer)
    assert data_changes(before, after) == ["4 images removed (test 3, val 1)"]
    assert data_changes(after, before) == ["4 images added (test 3, val 1)"]


def test_moved_and_relabelled_images_are_told_with_the_way(before):
    studies = before.studies
    moved, flipped = first_of(studies, "test", 2), first_of(studies, "train", 40)
    positive = int(studies.loc[flipped, "target"].sum())
    after = changed(
        before,
        studies=studies.assign(
            split=studies["split"].mask(moved, "train"), target=studies["target"] ^ flipped
        ),
    )
    assert data_changes(before, after) == [
        "2 images moved between sides (test to train 2)",
        f"labels of 40 images changed (now negative {positive}, now positive {40 - positive})",
    ]


def test_boxes_files_classes_fields_and_people_are_told(before):
    studies, boxes = before.studies, before.boxes
    one = studies["image_id"] == boxes["image_id"].iloc[0]
    two = first_of(studies, "val", 2)
    after = changed(
        before,
        studies=studies.assign(
            **{"class": studies["class"].mask(two, None)},
            age=studies["age"].mask(one, 33.5),
            patient_id=studies["patient_id"].mask(one, "f" * 16),
        ),
        boxes=boxes.assign(width=boxes["width"].where(boxes.index != boxes.index[0], 99.0)),
        files=before.files.assign(file_digest=before.files["file_digest"].mask(two, "other")),
    )
    assert data_changes(before, after) == [
        "classes of 2 images changed",
        "header fields of 1 image changed",
        "boxes of 1 image changed",
        "files of 2 images changed",
        "people of 1 image changed",
    ]


def test_boxes_of_images_that_only_one_run_has_are_no_change(before):
    first = before.boxes["image_id"].iloc[0]
    after = changed(
        before,
        studies=before.studies[before.studies["image_id"] != first],
        boxes=before.boxes[before.boxes["image_id"] != first],
    )
    assert [line for line in data_changes(before, after) if "boxes" in line] == []


def test_another_grouping_is_told_and_not_taken_for_other_people(before, make_run):
    ids = before.studies["image_id"].str.replace("image-", "f")
    other = make_run("after", studies=before.studies.assign(patient_id=ids), grouping="image")
    assert data_changes(before, other) == ["before is split by person", "after is split by image"]


def test_settings_inputs_code_and_libraries_are_told_by_stage(before):
    new = manifest(
        key="b", version=2, code="c", libraries={"torch": "2.9"},
        inputs={"train and val images": "2"}, configuration={"learning_rate": 0.01, "seed": 0},
    )  # fmt: skip
    after = changed(before, manifests={"training-resnet18": new})
    assert setting_changes(before, after) == {
        "training-resnet18": [
            "learning_rate 0.001 -> 0.01",
            "reads other train and val images",
            "version 1 -> 2",
            "other code",
            "torch 2.8 -> 2.9",
        ]
    }


def test_a_stage_or_an_input_of_one_run_alone_is_told(before):
    more = manifest("evaluation", key="c", inputs={"predictions of custom_cnn": "1"})
    less = manifest("evaluation", key="d", inputs={})
    old = changed(before, manifests={"evaluation": more, **before.manifests})
    new = dataclasses.replace(old, name="new", manifests={"evaluation": less})
    assert setting_changes(old, new) == {
        "evaluation": ["reads predictions of custom_cnn only in after"],
        "training-resnet18": ["only in after"],
    }
