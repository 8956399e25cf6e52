import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia import artifacts
from pneumonia.artifacts import (
    Artifact,
    Manifest,
    digest,
    digest_table,
    read_manifest,
    read_table,
    write_manifest,
)
from pneumonia.errors import CorruptArtifactError

FRAME = pd.DataFrame(
    {
        "image_id": ["b", "a", "c"],
        "age": [40.0, np.nan, 151.0],
        "view": ["AP", None, "PA"],
        "target": [True, False, True],
        "row": [0, 1, 2],
    }
)
READ = ["image_id", "age", "view", "target"]


RECORD = {"started": "2026-01-01", "seconds": 1.5, "host": "a", "platform": "b"}


def manifest(**changes):
    base = {"stage": "cam", "key": "k", "version": 1, "inputs": {"boxes": "1"}}
    return Manifest(**(base | {"configuration": {"n_images": 4}} | changes))


def test_digest_is_that_of_canonical_json():
    # sha256 of the bytes {"a":1}
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"


@given(st.permutations([0, 1, 2]))
def test_table_digest_row_order_makes_no_difference(order):
    assert digest_table(FRAME.iloc[order], READ) == digest_table(FRAME, READ)


def test_table_digest_columns_not_read_make_no_difference():
    assert digest_table(FRAME.assign(row=[7, 8, 9], more="x"), READ) == digest_table(FRAME, READ)


def test_table_digest_survives_parquet(tmp_path):
    artifacts.write_table(FRAME, tmp_path / "t.parquet")
    again = artifacts.read_table(tmp_path / "t.parquet")
    assert digest_table(again, READ) == digest_table(FRAME, READ)


@pytest.mark.parametrize(
    ("column", "value"), [("age", 41.0), ("view", "PA"), ("target", False), ("age", np.nan)]
)
def test_table_digest_any_value_read_makes_a_difference(column, value):
    changed = FRAME.copy()
    changed.loc[0, column] = value
    assert digest_table(changed, READ) != digest_table(FRAME, READ)


def test_table_digest_a_value_that_moves_to_another_row_makes_a_difference():
    moved = FRAME.assign(target=[False, True, True])
    assert digest_table(moved, READ) != digest_table(FRAME, READ)


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.canonical_json(float("nan"))


def test_manifest_round_trip(tmp_path):
    artifacts.write_manifest(manifest(facts={"n": 1}), tmp_path)
    assert artifacts.read_manifest(tmp_path) == manifest(facts={"n": 1})


def test_manifest_any_altered_value_is_noticed(tmp_path):
    artifacts.write_manifest(manifest(), tmp_path)
    path = tmp_path / artifacts.MANIFEST
    path.write_text(path.read_text("utf-8").replace('"version":1', '"version":2'), "utf-8")
    with pytest.raises(CorruptArtifactError, match="its digest says"):
        artifacts.read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"digest": 3}', '"text"'])
def test_manifest_that_is_none_is_refused_with_its_path(tmp_path, text):
    (tmp_path / artifacts.MANIFEST).write_text(text, "utf-8")
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json: expected a manifest"):
        artifacts.read_manifest(tmp_path)


def test_manifest_holds_no_time_host_or_absolute_path(tmp_path):
    artifacts.write_manifest(manifest(), tmp_path)
    content = json.loads((tmp_path / artifacts.MANIFEST).read_text("utf-8"))
    assert set(content) == {
        "stage", "key", "version", "inputs", "configuration", "code", "libraries", "facts",
        "files", "digest",
    }  # fmt: skip


def test_find_damage_names_missing_short_and_altered_files(tmp_path):
    for name in ("kept", "short", "altered", "missing"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    artifacts.write_record(RECORD, tmp_path)
    whole = manifest(files=artifacts.list_files(tmp_path))
    assert artifacts.find_damage(tmp_path, whole, hashed=True) == []
    (tmp_path / "short").write_bytes(b"short")
    (tmp_path / "altered").write_bytes(b"Altered" * 100)
    (tmp_path / "missing").unlink()
    found = artifacts.find_damage(tmp_path, whole, hashed=True)
    assert found == [
        "altered: its bytes have changed (sha256 differs)",
        "missing: missing",
        "short: expected 500 bytes, got 5",
    ]
    assert artifacts.find_damage(tmp_path, whole, hashed=False) == found[1:]


def test_read_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table at all PAR1")
    with pytest.raises(CorruptArtifactError, match="expected a Parquet table"):
        artifacts.read_table(tmp_path / "t.parquet")


def test_changes_tell_nested_settings():
    old = {"training": {"epochs": 3, "seed": 0}, "cam": {"n": 1}}
    new = {"training": {"epochs": 5, "seed": 0}, "cam": {"n": 1}, "run": None}
    assert artifacts.changes(old, new) == ["training.epochs 3 -> 5"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\0b", ""])
def test_manifest_that_names_a_file_outside_its_folder_is_refused(tmp_path, name):
    files = {name: {"size": 1, "sha256": "0" * 64}}
    write_manifest(Manifest("labels", "k", 1, {}, {}, files=files), tmp_path)
    with pytest.raises(CorruptArtifactError, match=r"a file outside its folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("stated", [{"size": "1", "sha256": ""}, {"size": 1, "sha256": 2}, {}, 3])
def test_manifest_whose_files_have_no_size_or_digest_is_refused(tmp_path, stated):
    write_manifest(Manifest("labels", "k", 1, {}, {}, files={"a": stated}), tmp_path)
    with pytest.raises(CorruptArtifactError, match=r"expected a manifest"):
        read_manifest(tmp_path)


def test_manifest_of_deep_brackets_is_refused_by_name(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(CorruptArtifactError, match=r"expected a manifest"):
        read_manifest(tmp_path)


def test_read_table_that_declares_more_values_than_any_data_set_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "table.parquet"
    pd.DataFrame({"row": [0] * 1000, "age": [1.0] * 1000}).to_parquet(path)
    assert len(read_table(path)) == 1000
    monkeypatch.setattr(artifacts, "MAX_CELLS", 1999)
    with pytest.raises(CorruptArtifactError, match=r"got 1,000 rows of 2 columns"):
        read_table(path)


def test_json_of_an_artifact_that_is_none_is_refused_by_name(tmp_path):
    (tmp_path / "facts.json").write_text("{")
    files = artifacts.list_files(tmp_path)
    artifact = Artifact(tmp_path, Manifest("labels", "k", 1, {}, {}, files=files))
    with pytest.raises(CorruptArtifactError, match=r"facts\.json: expected JSON"):
        artifact.json("facts.json")


def test_manifest_whose_bytes_differ_for_the_same_content_is_refused(tmp_path):
    """A flipped bit makes `1E-05` of `1e-05`, which is the same number to a reader of JSON."""
    artifacts.write_manifest(manifest(facts={"rate": 1e-05}), tmp_path)
    path = tmp_path / artifacts.MANIFEST
    path.write_text(path.read_text("utf-8").replace("1e-05", "1E-05"), "utf-8")
    with pytest.raises(CorruptArtifactError, match="other bytes for the same content"):
        artifacts.read_manifest(tmp_path)


def test_every_flipped_bit_of_a_record_is_damage(tmp_path):
    artifacts.write_record(RECORD, tmp_path)
    path = tmp_path / artifacts.RECORD
    written = path.read_bytes()
    assert artifacts.find_damage(tmp_path, manifest(files={}), hashed=True) == []
    for place in range(len(written) * 8):
        flipped = bytearray(written)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        (damage,) = artifacts.find_damage(tmp_path, manifest(files={}), hashed=True)
        assert damage.startswith("record.json: its bytes have changed"), place


def test_a_record_from_before_records_were_sealed_is_taken_and_a_missing_one_is_damage(tmp_path):
    artifacts.write_json(RECORD, tmp_path / artifacts.RECORD)
    assert artifacts.find_damage(tmp_path, manifest(files={}), hashed=True) == []
    (tmp_path / artifacts.RECORD).unlink()
    told = artifacts.find_damage(tmp_path, manifest(files={}), hashed=True)
    assert told == ["record.json: missing"]


def test_file_of_other_bytes_is_refused_at_its_first_use(tmp_path):
    (tmp_path / "a.json").write_text("[1]", "utf-8")
    whole = artifacts.Artifact(tmp_path, manifest(files=artifacts.list_files(tmp_path)))
    assert whole.json("a.json") == [1]
    (tmp_path / "a.json").write_text("[3]", "utf-8")
    with pytest.raises(CorruptArtifactError, match=r"a\.json: .* got others .* --verify"):
        whole.json("a.json")
    (tmp_path / "a.json").unlink()
    with pytest.raises(CorruptArtifactError, match=r"a\.json: .* got none"):
        whole.json("a.json")
