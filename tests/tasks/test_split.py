"""What the `split` stage says of people whose names may be no public ones."""

import json

import pandas as pd
import pytest

from pneumonia.config import SIMULATION
from pneumonia.people import PATIENT_KEY
from pneumonia.persons import OFFICIAL_MAPPING, PERSONS_CSV
from tasks.split import warn_of_hashes_without_key

WARNED = "stored as hashes without a key"


@pytest.fixture
def raw(tmp_path):
    """A raw folder with one person map of each form."""
    own = pd.DataFrame({"patientId": ["a"], "person": ["4711"]})
    own.to_csv(tmp_path / PERSONS_CSV, index=False)
    public = pd.DataFrame({"patientId": ["a"], "nih_image": ["00010007_003.png"]})
    public.to_csv(tmp_path / "nih.csv", index=False)
    mapping = [{"subset_img_id": "a", "img_id": "00010007_003.png"}]
    (tmp_path / OFFICIAL_MAPPING).write_text(json.dumps(mapping), "utf-8")
    return tmp_path


def test_a_map_with_names_of_its_own_and_no_key_is_warned_of(raw, caplog):
    warn_of_hashes_without_key(raw, raw / PERSONS_CSV, b"")
    assert WARNED in caplog.text
    assert PATIENT_KEY in caplog.text
    assert "4711" not in caplog.text


@pytest.mark.parametrize(
    ("name", "key"),
    [(PERSONS_CSV, b"k" * 32), ("nih.csv", b""), (OFFICIAL_MAPPING, b""), (None, b"")],
)
def test_public_names_keyed_hashes_and_no_map_are_not_warned_of(raw, caplog, name, key):
    warn_of_hashes_without_key(raw, name and raw / name, key)
    assert not caplog.text


def test_simulated_people_are_not_warned_of(raw, caplog):
    (raw / SIMULATION).write_text("{}", "utf-8")
    warn_of_hashes_without_key(raw, raw / PERSONS_CSV, b"")
    assert not caplog.text


def test_a_run_warns_when_it_makes_the_split_and_not_when_it_finds_it(finished, tmp_path, caplog):
    copy = finished.copy(tmp_path)
    (copy.raw / SIMULATION).unlink()
    copy.run(until="split", refresh=("split",))
    assert caplog.text.count(WARNED) == 1
    copy.run(until="split")
    assert caplog.text.count(WARNED) == 1
