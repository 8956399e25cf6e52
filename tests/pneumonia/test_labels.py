import logging
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumonia.errors import LabelError
from pneumonia.labels import BOX, CLASSES_CSV, LABELS_CSV, is_plain_name, read_labels

HEADER = "patientId,x,y,width,height,Target\n"

REAL = os.environ.get("PNEUMONIA_REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL is None, reason="PNEUMONIA_REAL_DATA is not set")


@pytest.fixture
def raw(tmp_path):
    def write(labels, classes=None):
        (tmp_path / LABELS_CSV).write_text(HEADER + labels, "utf-8")
        if classes is not None:
            (tmp_path / CLASSES_CSV).write_text("patientId,class\n" + classes, "utf-8")
        return tmp_path

    return write


def test_read_labels_hand_written_rows_become_images_and_boxes(raw):
    tables = read_labels(
        raw(
            "c,10.0,20.0,30.0,40.0,1\nb,,,,,0\nc,1,2,3,4,1\na,5,6,7.5,8,1\n",
            "c,Lung Opacity\nb,Normal\nc,Lung Opacity\na,Lung Opacity\n",
        )
    )
    assert tables.labels.to_dict("list") == {
        "image_id": ["a", "b", "c"],
        "target": [True, False, True],
        "class": ["Lung Opacity", "Normal", "Lung Opacity"],
    }
    assert tables.boxes.to_numpy().tolist() == [
        ["a", 5.0, 6.0, 7.5, 8.0],
        ["c", 1.0, 2.0, 3.0, 4.0],
        ["c", 10.0, 20.0, 30.0, 40.0],
    ]
    assert tables.facts() == {"images": 3, "positives": 2, "boxes": 3}
    assert (tables.boxes.dtypes[BOX] == "float64").all()
    assert tables.labels["target"].dtype == "bool"


def test_read_labels_without_class_file_has_no_class(raw):
    tables = read_labels(raw("a,1,2,3,4,1\nb,,,,,0\n"))
    assert tables.labels["class"].isna().all()
    assert tables.facts() == {"images": 2, "positives": 1, "boxes": 1}


def test_read_labels_written_by_pandas_with_nan_and_float_targets_is_read(raw):
    tables = read_labels(raw("a,1,2,3,4,1.0\nb,NaN,nan, ,,0.0\n"))
    assert tables.facts() == {"images": 2, "positives": 1, "boxes": 1}


def test_read_labels_oddities_are_counted_and_told(raw, caplog):
    with caplog.at_level(logging.WARNING):
        tables = read_labels(
            raw(
                "a,1,2,3,4,1\na,1,2,3,4,1\nb,,,,,0\nb,,,,,0\nc,,,,,0\n",
                "a,Normal\nb,Normal\nz,Normal\n",
            )
        )
    assert tables.facts() == {
        "images": 3,
        "positives": 1,
        "boxes": 1,
        "repeated_boxes": 1,
        "images_without_class": 1,
        "classes_without_label": 1,
        "classes_that_contradict_the_target": 1,
    }
    assert tables.labels["class"].isna().tolist() == [False, False, True]
    assert "Labels: 1 classes that contradict the target." in caplog.messages


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("a,,,,,1\n", "row 2: expected a box in a row with Target 1, got x ''"),
        ("b,,,,,0\na,1,2,3,,1\n", "row 3: expected a box in a row with Target 1, got x '1'"),
        ("a,1,2,3,4,0\n", "row 2: expected no box in a row with Target 0, got x '1'"),
        ("a,,,,9,0\n", "row 2: expected no box in a row with Target 0"),
        ("a,-1,2,3,4,1\n", "row 2: expected a corner inside the frame (x and y of at least 0), "
                           "got x '-1', y '2'. Cut the box at the frame's edge."),
        ("a,1,-0.5,3,4,1\n", "got x '1', y '-0.5'"),
        ("a,1,2,0,4,1\n", "row 2: expected a box with some size (width and height above 0), "
                          "got width '0', height '4'. Correct the box or remove the row."),
        ("a,1,2,3,-4,1\n", "got width '3', height '-4'"),
        ("a,1,2,3,4,2\n", "row 2: expected a Target of 0 or 1, got Target '2'. Correct the value."),
        ("a,1,2,3,4,\n", "got Target ''"),
        ("a,1,2,3,4,yes\n", "got Target 'yes'"),
        ("a,1,2,3,4,2\nb,1,2,3,4,2\nc,1,2,3,4,5\n", "got Target '2' (2 more such rows). Correct"),
        ("a,left,2,3,4,1\n", "row 2: expected a number, got x 'left'"),
        ("a,1,2,inf,4,1\n", "row 2: expected a number, got width 'inf'"),
        ("a,1,2,3,1e300,1\n", "row 2: expected a number, got height '1e300'"),
        ("b,,,,,0\na,,,,,0\na,1,2,3,4,1\n",
         "row 4: expected one Target per image, got patientId 'a', Target '1'. Give all rows"),
        ("../x,,,,,0\n", "row 2: expected a patientId that is a plain file name"),
        ("a/b,,,,,0\n", "got patientId 'a/b'. Correct the id or remove the row."),
        ("a\\b,,,,,0\n", "got patientId 'a\\\\b'"),
        (",,,,,0\n", "got patientId ''"),
        ("..,,,,,0\n", "got patientId '..'"),
        (" a,,,,,0\n", "got patientId ' a'"),
        ("a\0b,,,,,0\n", "row 2: expected"),
        (f"{'a' * 201},,,,,0\n", "got patientId 'aaaa"),
    ],
)  # fmt: skip
def test_read_labels_refuses_with_row_value_and_cure(raw, rows, sentence):
    with pytest.raises(LabelError) as caught:
        read_labels(raw(rows))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{raw(rows) / LABELS_CSV}: ")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ("a, \n", "row 2: expected a class in printable characters, got patientId 'a', class ' '"),
        ("a,\x1b[31mNormal\n", "row 2: expected a class in printable characters"),
        ("a,Normal\na,Lung Opacity\n", "row 3: expected one class per image"),
        ("a\n", "row 2: expected 2 values, got 1"),
    ],
)
def test_read_labels_refuses_a_bad_class_file(raw, classes, sentence):
    with pytest.raises(LabelError) as caught:
        read_labels(raw("a,,,,,0\n", classes))
    assert sentence in str(caught.value)


def test_read_labels_missing_file_names_both_ways_out(tmp_path):
    with pytest.raises(LabelError, match=r"got no such file\..*README.*`pneumonia simulate`"):
        read_labels(tmp_path)


def test_read_labels_missing_column_is_named(tmp_path):
    (tmp_path / LABELS_CSV).write_text("patientId,x,y,width,Target\na,,,,0\n")
    with pytest.raises(LabelError, match=r"row 1: expected the columns .*; missing height"):
        read_labels(tmp_path)


@pytest.mark.parametrize("name", ["0004cfab-14fd", "IM-0001.2", "Müller 3", "-a", "a:b", "x..y"])
def test_is_plain_name_file_stems_pass(name):
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "/a", "a\\b", "a\n", "a\t", "a ", "\u200ba", "é" * 101]
)
def test_is_plain_name_other_names_do_not(name):
    assert not is_plain_name(name)


@given(st.text(max_size=12))
def test_is_plain_name_never_leaves_its_folder(name):
    if is_plain_name(name):
        folder = Path("/raw/images")
        assert (folder / f"{name}.dcm").parent == folder
        assert os.path.normpath(folder / name) == str(folder / name)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_read_labels_order_of_rows_makes_no_difference(tmp_path_factory, data):
    rows = ["a,1,2,3,4,1", "a,5,2,3,4,1", "b,,,,,0", "c,1,2,3,4,1", "d,,,,,0", "a,1,9,3,4,1"]
    tables = []
    for order in (rows, data.draw(st.permutations(rows))):
        folder = tmp_path_factory.mktemp("raw")
        (folder / LABELS_CSV).write_text(HEADER + "\n".join(order) + "\n")
        tables.append(read_labels(folder))
    pd.testing.assert_frame_equal(tables[0].labels, tables[1].labels)
    pd.testing.assert_frame_equal(tables[0].boxes, tables[1].boxes)


@pytest.mark.rsna
@needs_real_data
def test_read_labels_real_challenge_has_its_known_counts():
    tables = read_labels(Path(REAL, "rsna"))
    assert tables.facts() == {"images": 26_684, "positives": 6_012, "boxes": 9_555}
    assert tables.labels["class"].value_counts().to_dict() == {
        "No Lung Opacity / Not Normal": 11_821,
        "Normal": 8_851,
        "Lung Opacity": 6_012,
    }
    assert tables.labels["image_id"].is_monotonic_increasing
    assert tables.boxes["image_id"].value_counts().value_counts().to_dict() == {
        1: 2_614, 2: 3_266, 3: 119, 4: 13,
    }  # fmt: skip
