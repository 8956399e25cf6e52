"""What the `split` stage says of people whose names may be no public ones."""

import json

import pandas as pd
import pytest

from pneumonia.config import SIMULATION, parse
from pneumonia.people import PATIENT_KEY
from pneumonia.persons import OFFICIAL_MAPPING, PERSONS_CSV, read_persons
from tasks.caching import Request
from tasks.split import warn_of_hashes_without_key

WARNED = "stored as hashes without a key"


@pytest.fixture
def asked(tmp_path, caplog, monkeypatch):
    """What is said of a person map with these columns; in the raw folder, unless elsewhere."""
    monkeypatch.delenv(PATIENT_KEY, raising=False)
    (tmp_path / "raw").mkdir()

    def ask(name=PERSONS_CSV, folder="raw", by_image=False, **columns):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        rows = {column: [value] for column, value in columns.items()}
        if path.suffix == ".json":
            path.write_text(json.dumps(pd.DataFrame(rows).to_dict("records")), "utf-8")
        else:
            pd.DataFrame(rows).to_csv(path, index=False)
        request = Request(tmp_path / "raw", tmp_path / "w", parse({}), by_image=by_image)
        warn_of_hashes_without_key(request, path, read_persons(path, 10.0), "Set a key.")
        return caplog.text

    return ask


OWN = {"patientId": "a", "person": "00004711"}
NIH = {"patientId": "a", "nih_image": "00010007_003.png"}
MAPPED = {"subset_img_id": "a", "img_id": "00010007_003.png"}


@pytest.mark.parametrize("columns", [OWN, {"patientId": "a", "nih_image": "MRN4711_1.png"}])
def test_a_map_with_names_of_its_own_and_no_key_is_warned_of(asked, columns):
    told = asked(**columns)
    assert WARNED in told
    assert "Set a key." in told
    assert "4711" not in told


def test_public_names_are_not_warned_of(asked):
    assert not asked(**NIH)
    assert not asked(OFFICIAL_MAPPING, **MAPPED)


def test_keyed_hashes_and_images_alone_are_not_warned_of(asked, monkeypatch):
    assert not asked(by_image=True, **OWN)
    monkeypatch.setenv(PATIENT_KEY, "k" * 32)
    assert not asked(**OWN)


def test_simulated_people_are_not_warned_of_and_others_beside_them_are(asked, tmp_path):
    (tmp_path / "raw" / SIMULATION).write_text("{}", "utf-8")
    assert not asked(**OWN)
    assert WARNED in asked(folder="elsewhere", **OWN)


def test_a_run_warns_where_it_finds_the_split_too(finished, tmp_path, caplog):
    copy = finished.copy(tmp_path)
    (copy.raw / SIMULATION).unlink()
    copy.run(until="split", refresh=frozenset({"split"}))
    assert caplog.text.count(WARNED) == 1
    assert copy.run(until="split")["split"].state == "cached"
    assert caplog.text.count(WARNED) == 2
