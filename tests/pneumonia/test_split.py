import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import make_images, make_tables, split_tables

from pneumonia.config import SplitConfig
from pneumonia.errors import ConfigError, SplitError
from pneumonia.labels import read_labels
from pneumonia.people import PATIENT_KEY, check_same_key, key_setting, patient_id, patient_key
from pneumonia.persons import read_persons
from pneumonia.split import STUDY_COLUMNS, place

REAL = os.environ.get("PNEUMONIA_REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL is None, reason="PNEUMONIA_REAL_DATA is not set")


def sides_of(studies):
    return studies.set_index("image_id")["split"]


def test_make_split_facts_add_up_and_nobody_is_on_two_sides():
    split = split_tables(make_tables(900, 300))
    studies = split.studies
    assert list(studies.columns) == STUDY_COLUMNS
    assert studies["image_id"].is_monotonic_increasing
    assert studies.groupby("patient_id")["split"].nunique().max() == 1
    assert studies["patient_id"].str.fullmatch("[0-9a-f]{16}").all()
    sides = split.facts.pop("sides")
    assert {name: sum(side[name] for side in sides.values()) for name in sides["train"]} == {
        "images": 900,
        "people": studies["patient_id"].nunique(),
        "positives": 300,
    }
    leak = split.facts.pop("leak_if_split_by_image")
    assert 0.8 < leak["val"] <= 1
    assert 0.8 < leak["test"] <= 1
    assert split.facts == {
        "grouping": "person",
        "images": 900,
        "people": studies["patient_id"].nunique(),
        "unlabelled_files": 0,
        "labels_without_file": 0,
        "unmapped_images": 0,
        "images_not_in_split_file": 0,
        "boxes_checked": 300,
    }


def test_make_split_without_persons_is_by_image_and_knows_no_leak():
    labels, boxes, images, _ = make_tables(300, 50)
    split = split_tables((labels, boxes, images, None))
    assert split.facts["grouping"] == "image"
    assert split.facts["people"] == 300
    assert split.facts["leak_if_split_by_image"] is None


def test_make_split_by_image_with_persons_tells_its_own_leak():
    tables = make_tables(600, 200)
    split = split_tables(tables, by_image=True)
    studies = split.studies.merge(tables[3], on="image_id")
    in_train = set(studies.loc[studies["split"] == "train", "person"])
    val = studies[studies["split"] == "val"]
    assert split.facts["grouping"] == "image"
    assert split.facts["leak_if_split_by_image"]["val"] == val["person"].isin(in_train).mean()
    assert (
        split.facts["leak_if_split_by_image"]
        == (split_tables(tables).facts["leak_if_split_by_image"])
    )


def test_make_split_by_image_with_a_map_of_other_images_is_as_without_one(caplog):
    labels, boxes, images, persons = make_tables(300, 50)
    other = persons.assign(image_id="z" + persons["image_id"])
    split = split_tables((labels, boxes, images, other), by_image=True)
    without = split_tables((labels, boxes, images, None))
    assert split.studies.equals(without.studies)
    assert split.facts == without.facts
    assert "The person map names none of the images" in caplog.text


def test_make_split_one_image_per_person_cannot_leak():
    labels, boxes, images, _ = make_tables(300, 50)
    persons = pd.DataFrame({"image_id": labels["image_id"], "person": labels["image_id"]})
    leak = split_tables((labels, boxes, images, persons)).facts["leak_if_split_by_image"]
    assert leak == {"val": 0.0, "test": 0.0}


def test_make_split_unmapped_image_is_a_person_of_its_own():
    labels, boxes, images, persons = make_tables(300, 50)
    persons = persons[persons["image_id"] != "image-00007"]
    persons.loc[persons["image_id"] == "image-00008", "person"] = "image-00007"  # a namesake
    split = split_tables((labels, boxes, images, persons))
    people = split.studies.set_index("image_id")["patient_id"]
    assert split.facts["unmapped_images"] == 1
    assert (people == people["image-00007"]).sum() == 1


def test_make_split_map_with_gaps_is_refused_beyond_its_limit_and_told_below(caplog):
    labels, boxes, images, persons = make_tables(300, 50)
    gaps = labels, boxes, images, persons[:-16]
    with pytest.raises(SplitError, match=r"at least 95% of 300 images, got none for 16 \(first: "):
        split_tables(gaps)
    split = split_tables(gaps, config=SplitConfig(max_unmapped=0.06))
    assert split.facts["unmapped_images"] == 16
    assert "names nobody for 16 of 300 images" in caplog.text
    assert split_tables(gaps, by_image=True).facts["grouping"] == "image"


def test_make_split_counts_files_and_labels_that_have_no_partner(caplog):
    labels, boxes, images, persons = make_tables(300, 100)
    split = split_tables((labels[5:], boxes, images[:-7], persons))
    assert split.facts["unlabelled_files"] == 5
    assert split.facts["labels_without_file"] == 7
    assert "7 of 295 labelled images have no readable file" in caplog.text
    assert split.facts["images"] == 288


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), more=st.integers(1, 400), shuffle=st.integers(0, 99))
def test_make_split_new_data_and_their_order_move_nobody(seed, more, shuffle):
    tables = make_tables(900, 300)
    config = SplitConfig(seed=seed, val_fraction=0.2, test_fraction=0.2)
    whole = sides_of(split_tables(tables, config=config).studies)
    fewer = [table.sample(frac=1, random_state=shuffle) for table in tables]
    kept = fewer[0]["image_id"][:-more]
    fewer = [table[table["image_id"].isin(kept)] for table in fewer]
    pd.testing.assert_series_equal(
        sides_of(split_tables(fewer, config=config).studies), whole[sorted(kept)]
    )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), val=st.floats(0.05, 0.6))
def test_make_split_another_val_fraction_never_changes_test(seed, val):
    tables = make_tables(600, 600)
    config = SplitConfig(seed=seed, val_fraction=0.2, test_fraction=0.2)
    first = split_tables(tables, config=config).studies
    second = split_tables(tables, config=replace(config, val_fraction=val)).studies
    assert first["image_id"][first["split"] == "test"].tolist() == (
        second["image_id"][second["split"] == "test"].tolist()
    )


def test_make_split_another_seed_moves_people_but_renames_nobody():
    tables = make_tables(600, 200)
    first = split_tables(tables, config=SplitConfig(seed=1)).studies
    second = split_tables(tables, config=SplitConfig(seed=2)).studies
    assert first["patient_id"].tolist() == second["patient_id"].tolist()
    assert 0.1 < (first["split"] != second["split"]).mean() < 0.6


def test_place_is_uniform_and_independent_between_seeds():
    places = np.array([[place(patient_id(str(i)), seed) for i in range(2000)] for seed in (0, 1)])
    for row in places:
        counts, _ = np.histogram(row, bins=10, range=(0, 1))
        assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001
    assert abs(np.corrcoef(places)[0, 1]) < 3.3 / np.sqrt(2000)
    assert places.min() >= 0
    assert places.max() < 1


def test_place_and_patient_id_stay_what_they_are():
    assert patient_id("person 00010007") == "13af9d293de58d4c"


def test_make_split_key_changes_the_stored_people_and_nothing_else():
    tables = make_tables(300, 150)
    plain, keyed, again = (
        split_tables(tables, patient_key=key).studies for key in (b"", b"k" * 32, b"k" * 32)
    )
    assert keyed.equals(again)
    assert keyed.drop(columns="patient_id").equals(plain.drop(columns="patient_id"))
    assert not set(keyed["patient_id"]) & set(plain["patient_id"])
    pairs = set(zip(plain["patient_id"], keyed["patient_id"], strict=True))
    assert len(pairs) == plain["patient_id"].nunique() == keyed["patient_id"].nunique()


def test_patient_key_is_of_the_environment_and_its_fingerprint_tells_it_apart(monkeypatch):
    monkeypatch.delenv(PATIENT_KEY, raising=False)
    assert patient_key() == b""
    assert key_setting(b"") == {}
    stated = []
    for secret in ("first secret of a hospital", "second secret of a hospital"):
        monkeypatch.setenv(PATIENT_KEY, secret)
        stated.append(key_setting(patient_key()))
        assert secret not in str(stated)
        check_same_key(stated[-1], patient_key())
    assert stated[0] != stated[1]
    with pytest.raises(ConfigError, match=r"hashed with \(the key .{16}\), got the key .{16}\."):
        check_same_key(stated[0], patient_key())
    with pytest.raises(ConfigError, match=r"hashed with \(no key\), got the key"):
        check_same_key({}, patient_key())


def test_patient_key_that_can_be_found_by_trying_is_refused_unshown(monkeypatch):
    monkeypatch.setenv(PATIENT_KEY, "hunter2")
    with pytest.raises(ConfigError, match=r"at least 16 characters, got 7") as caught:
        patient_key()
    assert "hunter2" not in str(caught.value)
    assert place("13af9d293de58d4c", 56) == 0.49357678477673717


def test_make_split_too_few_people_raises_with_the_cure():
    tables = make_tables(12, 4)
    with pytest.raises(SplitError, match=r"Give more data, or change `split\.val_fraction`"):
        split_tables(tables)


def test_make_split_empty_test_side_is_an_error_unless_a_split_file_asks_for_it():
    labels, boxes, images, persons = make_tables(400, 200)
    people = {person: place(patient_id(f"person {person}"), 56) for person in persons["person"]}
    keep = persons.loc[persons["person"].map(people) >= 0.1, "image_id"]
    images = images[images["image_id"].isin(keep)]
    with pytest.raises(SplitError, match=r"^test: expected images of both classes, got 0 positive"):
        split_tables((labels, boxes, images, persons))


def test_make_split_nothing_to_split_raises():
    labels, boxes, images, persons = make_tables(30, 10)
    with pytest.raises(SplitError, match="expected images with a label, got none among 0 images"):
        split_tables((labels, boxes, images[:0], persons))


def test_make_split_map_of_another_data_set_raises():
    labels, boxes, images, persons = make_tables(300, 100)
    for wrong in (persons.assign(image_id="z" + persons["image_id"]), persons[:0]):
        with pytest.raises(SplitError, match=r"expected a person map that names these images"):
            split_tables((labels, boxes, images, wrong))


@pytest.mark.parametrize(("column", "value"), [("width", 1014.5), ("height", 1005.0)])
def test_make_split_box_outside_its_frame_raises(column, value):
    labels, boxes, images, persons = make_tables(300, 100)
    boxes.loc[boxes["image_id"] == "image-00006", column] = value
    with pytest.raises(SplitError) as caught:
        split_tables((labels, boxes, images, persons))
    assert "1 boxes reach outside their image, expected all inside (first: image-00006, x 10" in (
        str(caught.value)
    )
    assert "in a frame of 1024 x 1024" in str(caught.value)


def test_make_split_box_that_touches_the_edge_is_inside():
    labels, boxes, images, persons = make_tables(300, 100)
    split_tables((labels, boxes.assign(width=1014.0, height=1004.0), images, persons))


def test_make_split_box_of_an_image_without_file_is_not_checked():
    labels, boxes, images, persons = make_tables(300, 100)
    boxes.loc[boxes["image_id"] == "image-00006", "width"] = 5000.0
    images = images[images["image_id"] != "image-00006"]
    assert split_tables((labels, boxes, images, persons)).facts["boxes_checked"] == 99


@pytest.fixture(scope="module")
def challenge():
    """The challenge's own tables: labels, boxes, images (no pixels), persons by matched image."""
    folder = Path(REAL, "rsna")
    tables = read_labels(folder)
    headers = pd.read_csv(folder / "stage_2_train_images_dicom_headers.csv")
    images = make_images(headers["PatientID"]).assign(view=headers["ViewPosition"])
    return tables.labels, tables.boxes, images, read_persons(folder / "rsna_to_nih_match.csv", 10.0)


@pytest.mark.rsna
@needs_real_data
def test_make_split_real_challenge_by_person_shares_no_person(challenge):
    split = split_tables(challenge)
    persons = challenge[3]
    assert len(persons) == 26_586
    sides = persons.assign(split=persons["image_id"].map(sides_of(split.studies)))
    assert sides.groupby("person")["split"].nunique().max() == 1
    assert split.facts["images"] == 26_684
    assert split.facts["boxes_checked"] == 9_555
    assert split.facts["unmapped_images"] == 98
    assert split.facts["people"] == persons["person"].nunique() + 98
    for side, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert split.facts["sides"][side]["images"] / 26_684 == pytest.approx(share, abs=0.01)


@pytest.mark.rsna
@needs_real_data
def test_make_split_real_challenge_by_image_leaks_seven_of_ten(challenge):
    split = split_tables(challenge, by_image=True)
    leak = split.facts["leak_if_split_by_image"]
    assert 0.65 <= leak["val"] <= 0.72
    assert 0.65 <= leak["test"] <= 0.72
    persons = challenge[3].set_index("image_id")["person"]
    studies = split.studies.assign(person=split.studies["image_id"].map(persons))
    train = set(studies.loc[studies["split"] == "train", "person"].dropna())
    val = studies[studies["split"] == "val"]
    assert leak["val"] == pytest.approx(val["person"].isin(train).mean(), abs=1e-12)


@pytest.mark.rsna
@needs_real_data
def test_default_seed_has_the_best_balanced_sides_of_the_first_hundred(challenge):
    """Balance: the largest difference, over sides, to the whole in positives or in AP films."""
    studies = split_tables(challenge).studies
    people, number = np.unique(studies["patient_id"], return_inverse=True)
    marks = np.column_stack([studies["target"], studies["view"] == "AP"]).astype(float)
    config = SplitConfig()
    limits = [config.test_fraction, config.test_fraction + config.val_fraction]
    worst = []
    for seed in range(100):
        u = np.array([place(person, seed) for person in people])
        side = np.searchsorted(limits, u, side="right")[number]
        rates = [marks[side == which].mean(axis=0) for which in range(3)]
        worst.append(np.abs(rates - marks.mean(axis=0)).max())
    assert np.argmin(worst) == config.seed
    assert worst[config.seed] == pytest.approx(0.0076, abs=1e-4)
