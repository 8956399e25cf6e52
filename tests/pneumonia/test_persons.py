import json

import pytest

from pneumonia.errors import SplitError
from pneumonia.persons import OFFICIAL_MAPPING, PERSONS_CSV, find_persons, read_persons


@pytest.fixture
def written(tmp_path):
    def write(content, name="map.csv"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def as_dict(table):
    assert list(table.columns) == ["image_id", "person"]
    return dict(zip(table["image_id"], table["person"], strict=True))


def test_find_persons_takes_the_csv_before_the_official_mapping(tmp_path):
    assert find_persons(tmp_path) is None
    (tmp_path / OFFICIAL_MAPPING).touch()
    assert find_persons(tmp_path) == tmp_path / OFFICIAL_MAPPING
    (tmp_path / PERSONS_CSV).touch()
    assert find_persons(tmp_path) == tmp_path / PERSONS_CSV


def test_read_persons_csv_with_person_is_sorted_and_kept_as_text(written):
    path = written("patientId,person,note\nb,0017,x\na,0017,y\nb,0017,z\n")
    assert as_dict(read_persons(path, 10.0)) == {"a": "0017", "b": "0017"}
    assert read_persons(path, 10.0)["image_id"].tolist() == ["a", "b"]


def test_read_persons_all_three_forms_give_the_same_people(written):
    official = [
        {"subset_img_id": "b", "img_id": "00010007_003.png", "orig_labels": ["Mass"]},
        {"subset_img_id": "a", "img_id": "00010007_012.png"},
    ]
    forms = [
        written(official, "official.json"),
        written("patientId,nih_image\na,00010007_012.png\nb,00010007_003.png\n", "nih.csv"),
        written("patientId,person\na,00010007\nb,00010007\n", "person.csv"),
    ]
    assert [as_dict(read_persons(path, 10.0)) for path in forms] == [
        {"a": "00010007", "b": "00010007"}
    ] * 3


def test_read_persons_unbelieved_matches_are_left_out(written):
    path = written(
        "patientId,nih_image,match_mse\na,1_1.png,9.99\nb,1_2.png,10\nd,,812.5\ne,2_1.png,0\n"
    )
    assert as_dict(read_persons(path, 10.0)) == {"a": "1", "e": "2"}
    assert as_dict(read_persons(path, 9.0)) == {"e": "2"}


def test_read_persons_match_that_was_not_measured_is_kept(written):
    path = written("patientId,nih_image,match_mse\na,1_1.png,\nb,1_2.png, \nc,2_1.png,10\n")
    assert as_dict(read_persons(path, 10.0)) == {"a": "1", "b": "1"}


def test_read_persons_column_person_with_a_match_obeys_the_limit_too(written):
    path = written("patientId,person,match_mse\na,7,9.99\nb,7,10\nc,,812.5\nd,7,\n")
    assert as_dict(read_persons(path, 10.0)) == {"a": "7", "d": "7"}


@pytest.mark.parametrize("row", ["b,7 ", "b, 7", " b,7", "b,7\t", ",7"])
def test_read_persons_space_around_a_name_is_refused_not_a_second_person(written, row):
    with pytest.raises(SplitError) as caught:
        read_persons(written(f"patientId,person\na,7\n{row}\n"), 10.0)
    assert "row 3: expected image_id and person with no space around, got none such" in (
        str(caught.value)
    )


@pytest.mark.parametrize("name", [" a", "", None])
def test_read_persons_json_id_with_space_or_nothing_is_refused(written, name):
    entries = [{"subset_img_id": name, "img_id": "1_1.png"}]
    with pytest.raises(SplitError, match="row 1: expected image_id and person with no space"):
        read_persons(written(entries, "map.json"), 10.0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("patientId\na\n", "row 1: expected a column person or nih_image beside patientId, got "
                           "none. Correct the header."),
        ("image,person\na,1\n", "row 1: expected the columns patientId"),
        ("patientId,person\na,1\nb, \n", "row 3: expected a person, got none such. "
                                         "Name one, or remove the row"),
        ("patientId,person\na,1\nb,2\na,2\n", "row 4: expected one person per image, got none such."
                                              " Keep one of the image's rows."),
        ("patientId,nih_image\na,00010007.png\n",
         "row 2: expected an NIH image named <person>_<number>.png, got none such. "),
        ("patientId,nih_image,match_mse\na,1_1.png,low\n",
         "row 2: expected a number or nothing, got match_mse 'low'"),
    ],
)  # fmt: skip
def test_read_persons_csv_refuses_with_row_value_and_cure(written, content, sentence):
    with pytest.raises(SplitError) as caught:
        read_persons(written(content), 10.0)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "{}",
        "3",
        '[{"img_id": "1_1.png"}]',
        "[1]",
        '{"a": {"img_id": "1_1.png"}}',
        "null",
    ],
)
def test_read_persons_other_json_is_refused(written, content):
    with pytest.raises(SplitError, match=r"map\.json: expected (a JSON list|rows)"):
        read_persons(written(content, "map.json"), 10.0)


def test_read_persons_json_entry_with_two_persons_is_refused(written):
    entries = [{"subset_img_id": "a", "img_id": f"{person}_1.png"} for person in (1, 2)]
    with pytest.raises(SplitError, match="row 2: expected one person per image"):
        read_persons(written(entries, "map.json"), 10.0)


def test_read_persons_missing_file_is_refused(tmp_path):
    with pytest.raises(SplitError, match="expected a JSON file, got: No such file"):
        read_persons(tmp_path / "absent.json", 10.0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("patientId,person\na,HOSP-4711\na,HOSP-4712\n", "row 3: "),
        ("patientId,person\na,HOSP-4711 \n", "row 2: "),
        ("patientId,nih_image\na,HOSP-4711\n", "row 2: "),
        ("a,HOSP-4711\nb,HOSP-4712\n", "row 1: "),
        ("patientId,HOSP-4711\na,HOSP-4712\n", "row 1: "),
        ("patientId,HOSP-4711,HOSP-4711\na,1,1\n", "row 1: "),
        ([{"subset_img_id": "a", "img_id": "HOSP-4711"}], "row 1: "),
    ],
)
def test_read_persons_refusal_shows_the_row_and_no_person(written, content, told):
    path = written(content, "map.csv" if isinstance(content, str) else "map.json")
    with pytest.raises(SplitError) as caught:
        read_persons(path, 10.0)
    assert told in str(caught.value)
    assert "HOSP" not in str(caught.value)
