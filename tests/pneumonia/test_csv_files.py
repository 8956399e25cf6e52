import csv
import os
import re
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.csv_files import MAX_BYTES, read_content, read_rows, unquoted, write_rows
from pneumonia.errors import LabelError, SplitError


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_read_rows_keeps_text_and_numbers_rows_as_a_spreadsheet_does(written):
    rows = read_rows(written('a,b\n1,x\n\n2,"y,\nz"\n,nan\n'), ["a"], LabelError)
    assert rows.to_dict("list") == {"a": ["1", "2", ""], "b": ["x", "y,\nz", "nan"]}
    assert rows.index.tolist() == [2, 4, 5]  # row 3 is empty; the value with a line break is in 4


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("3", "row 5: expected 2 values, got 1"),
        ('3,"x"y', "row 5: expected comma-separated values, got "),
        ('3,"x\ny', "row 5: expected comma-separated values, got unexpected end of data"),
        (b"3,\xff", "row 5: expected UTF-8, got byte 0xff"),
    ],
)
def test_read_rows_line_breaks_in_a_value_do_not_shift_the_row_of_a_refusal(
    written, last, sentence
):
    before = b'a,b\n"1\n1\n1",2\n\n"2\r\n2",2\n'
    with pytest.raises(LabelError, match=sentence):
        read_rows(written(before + (last if isinstance(last, bytes) else last.encode())), [],
                  LabelError)  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_read_rows_byte_order_mark_and_line_ends_make_no_difference(written, end):
    rows = read_rows(written("﻿a,b\n1,2\n".replace("\n", end)), ["a", "b"], LabelError)
    assert rows.to_dict("list") == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "expected rows, got an empty file. Restore the file."),
        (" \n \n", "expected rows, got an empty file"),
        (b"\xef\xbb\xbf", "row 1: expected the columns a, b, got ''; missing a, b"),
        ("a,b\n", "expected rows below the header, got none"),
        ("a,c\n1,2\n", "row 1: expected the columns a, b, got 'a, c'; missing b"),
        ("a,b,a\n1,2,3\n", "row 1: expected every column once, got 'a' again"),
        ("a,b\n1,2\n3\n", "row 3: expected 2 values, got 1. Correct or remove the row."),
        ("a,b\n1,2,3\n", "row 2: expected 2 values, got 3"),
        ('a,b\n1,2\n3,"x"y\n', "row 3: expected comma-separated values, got "),
        ('a,b\n1,2\n3,"x\n', "row 3: expected comma-separated values, got unexpected end of data"),
        (b"a,b\n1,2\n3,\xff\n", "row 3: expected UTF-8, got byte 0xff. Save the file as UTF-8."),
        ("a,b\n1,2\n".encode("utf-16"), "row 1: expected UTF-8, got byte 0xff"),
    ],
)
def test_read_rows_refuses_with_row_value_and_cure(written, content, sentence):
    with pytest.raises(LabelError) as caught:
        read_rows(written(content), ["a", "b"], LabelError)
    assert sentence in str(caught.value)
    assert "table.csv: " in str(caught.value)


def test_read_content_missing_file_or_folder_raises_the_named_error(tmp_path):
    with pytest.raises(SplitError, match=r"expected a CSV file, got: No such file or directory"):
        read_content(tmp_path / "absent.csv", "a CSV file", SplitError)
    with pytest.raises(LabelError, match=r"expected a CSV file, got: Is a directory"):
        read_rows(tmp_path, ["a"], LabelError)


def test_read_content_pipe_device_and_nul_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(SplitError, match=r"expected a CSV file, got: no regular file"):
            read_content(path, "a CSV file", SplitError)
    with pytest.raises(SplitError, match=r"expected a CSV file, got embedded null byte"):
        read_content(Path("a\0b.csv"), "a CSV file", SplitError)


def test_read_content_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: no disk is used
    with pytest.raises(SplitError, match=r"at most 67,108,864 bytes, got 67,108,865"):
        read_content(path, "a CSV file", SplitError)


PLANTED = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+1", "'plain",
    "plain", "a=b", "x;=1+1", "x\t@a", "x\n-1", "x;'=1", "x;y", "\uff1d1", "\t\t=1",
]  # fmt: skip


def test_write_rows_no_text_is_a_formula_and_unquoted_gives_it_back(tmp_path):
    path = tmp_path / "table.csv"
    write_rows(pd.DataFrame({"name": PLANTED, "logit": range(-5, len(PLANTED) - 5)}), path)
    rows = read_rows(path, ["name"], SplitError)
    assert unquoted(rows["name"]).tolist() == PLANTED
    assert rows["logit"].tolist() == [
        str(number) for number in range(-5, len(PLANTED) - 5)
    ]  # numbers stay
    for separator in ",;\t":  # which a spreadsheet takes depends on where its owner lives
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter=separator) for cell in row]
        begun = [cell for cell in cells if re.match(r"[=+\-@\t\r\n\uff1d]", cell)]
        assert [cell for cell in begun if not re.match(r"-\d", cell)] == []


@given(st.lists(st.text("='+;\t\r\n-ab@,\"\uff0b", min_size=1), min_size=1))
def test_write_rows_unquoted_gives_any_text_back(names):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        write_rows(pd.DataFrame({"name": names, "number": range(len(names))}), path)
        assert unquoted(read_rows(path, ["name"], SplitError)["name"]).tolist() == names


def test_write_rows_leaves_plain_tables_as_they_were(tmp_path):
    table = pd.DataFrame({"name": ["a", None], "part": pd.Categorical(["x", "y"]), "n": [1.5, -2]})
    write_rows(table, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == table.to_csv(index=False)
