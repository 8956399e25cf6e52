"""A split made elsewhere: how it is read, obeyed and refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from people import make_tables, split_tables

from pneumonia.csv_files import write_rows
from pneumonia.errors import SplitError
from pneumonia.split import Split, read_split_file


def test_make_split_split_file_by_image_tells_the_leak_of_the_split_in_use():
    labels, boxes, images, persons = make_tables(300, 300)
    persons["person"] = persons["image_id"]
    persons.loc[[3, 250, 299], "person"] = "torn"
    written = pd.DataFrame(
        {"image_id": labels["image_id"], "split": ["train"] * 200 + ["val"] * 100}
    )
    tables = (labels, boxes, images, persons)
    split = split_tables(tables, split_file=written, by_image=True)
    assert split.facts["leak_if_split_by_image"] == {"val": 0.02, "test": None}
    unused = split_tables(tables, split_file=written[4:], by_image=True)  # 3 is in no side then
    assert unused.facts["leak_if_split_by_image"] == {"val": 0.0, "test": None}


def test_make_split_split_file_by_person_knows_no_split_by_image():
    labels, boxes, images, persons = make_tables(300, 300)
    persons["person"] = persons["image_id"]
    written = pd.DataFrame(
        {"image_id": labels["image_id"], "split": ["train"] * 200 + ["val"] * 100}
    )
    split = split_tables((labels, boxes, images, persons), split_file=written)
    assert split.facts["grouping"] == "person"
    assert split.facts["leak_if_split_by_image"] is None


def test_make_split_split_file_is_obeyed_and_counts_what_it_leaves_out():
    tables = make_tables(300, 300)
    written = pd.DataFrame(
        {
            "image_id": tables[0]["image_id"],
            "split": ["train"] * 200 + ["val"] * 60 + ["test"] * 40,
        }
    )
    labels, boxes, images, _ = tables
    persons = pd.DataFrame({"image_id": labels["image_id"], "person": labels["image_id"]})
    split = split_tables((labels, boxes, images, persons), split_file=written[10:])
    assert split.studies["split"].tolist() == written["split"][10:].tolist()
    assert split.facts["images_not_in_split_file"] == 10
    again = split.to_cite().rename(columns={"patientId": "image_id"})
    assert split_tables((labels, boxes, images, persons), split_file=again).studies.equals(
        split.studies
    )


def test_make_split_split_file_without_test_is_allowed():
    tables = make_tables(300, 300)
    labels, boxes, images, _ = tables
    written = pd.DataFrame(
        {"image_id": labels["image_id"], "split": ["train"] * 200 + ["val"] * 100}
    )
    split = split_tables((labels, boxes, images, None), split_file=written)
    assert split.facts["sides"]["test"] == {"images": 0, "people": 0, "positives": 0}


def test_make_split_person_on_two_sides_raises():
    labels, boxes, images, persons = make_tables(300, 300)
    persons["person"] = persons["image_id"]
    persons.loc[[3, 250], "person"] = "torn"
    written = pd.DataFrame(
        {"image_id": labels["image_id"], "split": ["train"] * 200 + ["val"] * 100}
    )
    with pytest.raises(SplitError) as caught:
        split_tables((labels, boxes, images, persons), split_file=written)
    assert str(caught.value) == (
        "1 people are on more than one side, expected none (first: image-00003 in train and "
        "image-00250 in val). Correct the split file, or split with `--by-image`."
    )
    split_tables((labels, boxes, images, persons), split_file=written, by_image=True)


@pytest.mark.parametrize("side", ["train", "val", "test"])
@pytest.mark.parametrize("target", [True, False])
def test_make_split_side_without_both_classes_raises(side, target):
    labels, boxes, images, _ = make_tables(300, 300)
    written = labels.assign(split=np.arange(300) % 4).replace(
        {"split": {0: "train", 1: "val", 2: "test", 3: "train"}}
    )
    written = written[(written["split"] != side) | (written["target"] == target)]
    with pytest.raises(SplitError, match=f"^{side}: expected images of both classes, got "):
        split_tables((labels, boxes, images, None), split_file=written[["image_id", "split"]])


def test_make_split_split_file_of_another_data_set_raises():
    tables = make_tables(300, 100)
    wrong = pd.DataFrame({"image_id": ["z"], "split": ["train"]})
    with pytest.raises(SplitError, match=r"\(first: 'image-00000'\).*first: 'z'"):
        split_tables(tables, split_file=wrong)


def test_make_split_refusals_name_the_map_or_the_split_file():
    labels, boxes, images, persons = make_tables(300, 300)
    files = {"persons_path": Path("raw/persons.csv"), "split_path": Path("our/split.csv")}
    other = persons.assign(image_id="z" + persons["image_id"])
    with pytest.raises(SplitError, match=r"^raw/persons\.csv: expected a person map that names"):
        split_tables((labels, boxes, images, other), **files)
    one = pd.DataFrame({"image_id": ["image-00000"], "split": ["train"]})
    with pytest.raises(SplitError, match=r"^our/split\.csv: train: .*\. Correct the split file\.$"):
        split_tables((labels, boxes, images, persons), split_file=one, **files)
    wrong = one.assign(image_id="z")
    with pytest.raises(SplitError, match=r"^our/split\.csv: expected a split file that names"):
        split_tables((labels, boxes, images, persons), split_file=wrong, **files)
    torn = labels[["image_id"]].assign(split=np.where(np.arange(300) < 200, "train", "val"))
    with pytest.raises(SplitError, match=r"^our/split\.csv: \d+ people are on more than one side"):
        split_tables((labels, boxes, images, persons), split_file=torn, **files)


def test_read_split_file_is_sorted_and_repeats_count_once(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("patientId,split,note\nb,val,1\na,train,2\nb,val,3\n")
    assert read_split_file(path).to_dict("list") == {
        "image_id": ["a", "b"],
        "split": ["train", "val"],
    }


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("a,train\nb,dev\n", "row 3: expected a split of train, val, test, got patientId 'b', "
                             "split 'dev'. Correct the value."),
        ("a,train\na,val\n", "row 3: expected one side per image, got patientId 'a', split 'val'"),
        ("a,train\na ,val\n", "row 3: expected patientId with no space around, got patientId 'a '. "
                              "Correct the value."),
        ("a,train\n,val\n", "row 3: expected patientId with no space around, got patientId ''"),
        ("", "expected rows below the header, got none"),
    ],
)  # fmt: skip
def test_read_split_file_refuses_with_row_value_and_cure(tmp_path, rows, sentence):
    path = tmp_path / "split.csv"
    path.write_text("patientId,split\n" + rows)
    with pytest.raises(SplitError) as caught:
        read_split_file(path)
    assert sentence in str(caught.value)


def test_split_file_image_whose_name_is_a_formula_comes_back_as_it_is(tmp_path):
    names = ["=1+1", "-a", "'=b", "plain"]
    studies = pd.DataFrame({"image_id": names, "split": ["train", "val", "test", "train"]})
    path = tmp_path / "split.csv"
    write_rows(Split(studies, {}).to_cite(), path)
    assert "\n'=1+1,train\n" in path.read_text()
    assert dict(read_split_file(path).to_numpy()) == dict(studies.to_numpy())
