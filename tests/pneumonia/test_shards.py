"""From a folder to the pool and its tables, as the stage does it."""

import shutil

import films
import numpy as np
import pandas as pd
import pytest
from dicom_files import FILES, READABLE

from pneumonia.artifacts import (
    Manifest,
    digest,
    list_files,
    read_table,
    write_manifest,
    write_record,
)
from pneumonia.config import ShardsConfig
from pneumonia.conversion import COLUMNS
from pneumonia.dicom import REASONS
from pneumonia.errors import CorruptArtifactError, ShardError
from pneumonia.pool import ImagePool
from pneumonia.shards import (
    batch_identity,
    check_quarantine,
    configuration,
    convert_batch,
    convert_files,
    images_table,
    plan_batches,
    pool_index,
    scan,
)

CONFIG = ShardsConfig(image_size=32, images_per_shard=4)
IMAGES = ["image_id", "pool", "row", "file", "file_digest", *COLUMNS]


class House:
    """A raw folder and a workspace, driven as the stage drives them."""

    def __init__(self, root, config=CONFIG):
        self.images, self.pool, self.cache = root / "raw", root / "pool", root / "files.parquet"
        self.images.mkdir()
        self.config = config

    def put(self, name, seed=0, **changed):
        film = films.jpeg_film(films.phantom(64, 64, seed), **changed)
        (self.images / f"{name}.dcm").write_bytes(film)

    def scan(self):
        return scan(self.images, self.cache, quiet_seconds=0, workers=2)

    def index(self):
        return pool_index(self.pool, configuration(self.config), 1)

    def plan(self):
        return plan_batches(self.scan(), self.index(), self.config.images_per_shard)

    def convert(self, batch, workers=2, version=1):
        key = digest(batch_identity(batch))
        output = self.pool / key
        output.mkdir(parents=True)
        facts = convert_batch(batch, self.images, self.config, output, workers=workers)
        settings = configuration(self.config)
        manifest = Manifest("pool", key, version, {}, settings, files=list_files(output))
        write_record({}, output)
        write_manifest(manifest, output)
        return facts

    def run(self, **options):
        for batch in self.plan():
            self.convert(batch, **options)
        return images_table(self.scan(), self.index())


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    for seed, name in enumerate("fbdaec"):
        house.put(name, seed)
    return house


def content(images):
    """What downstream keys are made from: no shard, no row."""
    return images.drop(columns=["pool", "row", "decoder"])


def test_plan_batches_deals_in_order_of_image_id(house):
    batches = house.plan()
    assert [[file.image_id for file in batch] for batch in batches] == [list("abcd"), list("ef")]
    assert batch_identity(batches[1]) == [[file.image_id, file.digest] for file in batches[1]]
    assert batch_identity([tuple(file) for file in batches[1]]) == batch_identity(batches[1])


def test_run_makes_a_row_per_file_and_the_pool_serves_it(house):
    images, quarantine = house.run()
    assert images.columns.tolist() == IMAGES
    assert images["image_id"].tolist() == list("abcdef")
    assert len(quarantine) == 0
    assert images.dtypes["row"] == images.dtypes["rows"] == np.int64
    assert images.dtypes["patient_differs"] == np.bool_
    pool = ImagePool(house.pool, images)
    for position, name in enumerate("abcdef"):
        exact = films.area_average(films.phantom(64, 64, "fbdaec".index(name)), 32)
        assert np.abs(pool.gather(np.array([position]))[0] - exact).mean() < 3  # JPEG


def test_run_again_plans_nothing(house):
    before, _ = house.run()
    assert house.plan() == []
    after, _ = images_table(house.scan(), house.index())
    pd.testing.assert_frame_equal(before, after)


def test_run_after_changes_converts_only_what_changed(house):
    before, _ = house.run()
    shards = {path: path.read_bytes() for path in house.pool.rglob("*") if path.is_file()}
    house.put("g", 9)
    house.put("a", 7)
    (house.images / "b.dcm").unlink()
    (batch,) = house.plan()
    assert [file.image_id for file in batch] == ["a", "g"]
    after, _ = house.run()
    assert after["image_id"].tolist() == list("acdefg")
    assert {path: path.read_bytes() for path in shards} == shards
    kept = after["image_id"].isin(list("cdef"))
    pd.testing.assert_frame_equal(
        after[kept].reset_index(drop=True),
        before[before["image_id"].isin(list("cdef"))].reset_index(drop=True),
    )


def test_run_after_changes_equals_a_conversion_from_scratch(house):
    house.run()
    house.put("g", 9)
    house.put("a", 7)
    grown, _ = house.run()
    shutil.rmtree(house.pool)
    scratch, _ = house.run()
    pd.testing.assert_frame_equal(content(grown), content(scratch))


def test_run_deleted_shard_is_made_again_as_it_was(house):
    before, _ = house.run()
    shutil.rmtree(house.pool / before["pool"][4])
    assert [file.image_id for file in house.plan()[0]] == ["e", "f"]
    after, _ = house.run()
    pd.testing.assert_frame_equal(before, after)


def test_run_renamed_file_is_another_image_and_moved_file_the_same(house):
    house.run()
    (house.images / "sub").mkdir()
    (house.images / "a.dcm").rename(house.images / "sub" / "a.dcm")
    assert house.plan() == []
    images, _ = images_table(house.scan(), house.index())
    assert images["file"][0] == "sub/a.dcm"
    (house.images / "b.dcm").rename(house.images / "z.dcm")
    assert [file.image_id for file in house.plan()[0]] == ["z"]


def test_run_refused_files_are_remembered_and_told(house):
    (house.images / "x.dcm").write_bytes(b"no film")
    house.put("y", changed={0x00080060: ("CS", "MR")})
    (house.images / "twin").mkdir()
    shutil.copy(house.images / "a.dcm", house.images / "twin" / "a.dcm")
    images, quarantine = house.run()
    assert images["image_id"].tolist() == list("bcdef")
    assert quarantine[["file", "reason"]].to_numpy().tolist() == [
        ["a.dcm", "duplicate"],
        ["twin/a.dcm", "duplicate"],
        ["x.dcm", "not_dicom"],
        ["y.dcm", "modality"],
    ]
    assert quarantine.columns.tolist() == ["file", "image_id", "file_digest", "reason", "detail"]
    assert house.plan() == []  # not decoded again, but when the file changes
    house.put("y", 3)
    assert [file.image_id for file in house.plan()[0]] == ["y"]


def test_convert_batch_threads_change_no_byte(house, tmp_path):
    (house.images / "x.dcm").write_bytes(b"no film")
    (batch,) = plan_batches(house.scan(), house.index(), 100)
    written = []
    for workers in (1, 3):
        output = tmp_path / str(workers)
        output.mkdir()
        facts = convert_batch(batch, house.images, CONFIG, output, workers=workers)
        assert (facts["images"], facts["refused"]) == (6, 1)
        assert facts["bytes"] == sum(path.stat().st_size for path in house.images.glob("*.dcm"))
        written.append([path.read_bytes() for path in sorted(output.iterdir())])
    assert written[0] == written[1]
    assert sorted(path.name for path in output.iterdir()) == ["images.npy", "rows.parquet"]


def test_convert_batch_refused_file_leaves_its_row_black(house, tmp_path):
    (house.images / "b.dcm").write_bytes(b"no film")
    (batch, _) = house.plan()
    convert_batch(batch, house.images, CONFIG, tmp_path, workers=1)
    stored = np.load(tmp_path / "images.npy")
    rows = read_table(tmp_path / "rows.parquet")
    assert stored.shape == (4, 32, 32)
    assert not stored[1].any()
    assert rows["reason"].tolist()[1] == "not_dicom"
    assert rows["row"].tolist() == [0, 1, 2, 3]


def test_run_takes_every_test_file_of_pydicom_in_one_go(tmp_path):
    house = House(tmp_path, ShardsConfig(image_size=32, accept=("*",), max_quarantined=1.0))
    for name, path in FILES.items():
        shutil.copy(path, house.images / name)
    images, quarantine = house.run()
    assert len(FILES) >= 100
    assert set(images["file"]) == set(READABLE)
    assert set(quarantine["file"]) == set(FILES) - set(READABLE)
    assert set(quarantine["reason"]) <= set(REASONS)
    assert all(quarantine["detail"].str.endswith("."))
    stored = ImagePool(house.pool, images).gather(np.arange(len(images)))
    assert (stored.reshape(len(images), -1).max(axis=1) > 0).all()  # none is black


def test_convert_batch_all_refused_still_writes_a_shard(house):
    for path in house.images.glob("*.dcm"):
        path.write_bytes(b"no film")
    images, quarantine = house.run()
    assert len(images) == 0
    assert set(quarantine["reason"]) == {"not_dicom"}


@pytest.mark.parametrize("fault", ["changed", "unreadable"])
def test_run_passing_fault_is_told_and_tried_again(house, fault):
    batches = house.plan()
    original = (house.images / "e.dcm").read_bytes()
    if fault == "changed":
        (house.images / "e.dcm").write_bytes(b"something else")
    else:
        (house.images / "e.dcm").unlink()
    for batch in batches:
        house.convert(batch)
    (house.images / "e.dcm").write_bytes(original)
    images, quarantine = images_table(house.scan(), house.index())
    assert quarantine[["file", "reason"]].to_numpy().tolist() == [["e.dcm", fault]]
    (batch,) = house.plan()
    assert [file.image_id for file in batch] == ["e"]
    assert batch_identity(batch) != batch_identity([file[:3] for file in batch])
    images, quarantine = house.run()
    assert images["image_id"].tolist() == list("abcdef")
    assert len(quarantine) == 0
    assert house.plan() == []


def test_pool_index_leaves_out_other_settings_versions_and_damage(house, caplog):
    house.run()
    settings = configuration(CONFIG)
    assert len(pool_index(house.pool, settings, 2)) == 0
    assert len(pool_index(house.pool, {**settings, "image_size": 64}, 1)) == 0
    first, second = sorted(house.pool.iterdir())
    (first / "images.npy").write_bytes(b"short")
    (second / "manifest.json").write_text("{}")
    assert len(house.index()) == 0
    assert "images.npy: expected" in caplog.text
    assert [len(batch) for batch in house.plan()] == [4, 2]


def test_pool_index_of_rows_of_other_bytes_is_refused(house):
    """Left out, its images would be missing from the table, for the shard still looks whole."""
    house.run()
    first = min(house.pool.iterdir())
    rows = bytearray((first / "rows.parquet").read_bytes())
    rows[len(rows) // 2] ^= 1
    (first / "rows.parquet").write_bytes(rows)
    with pytest.raises(CorruptArtifactError, match=r"rows\.parquet: .* got others .* --verify"):
        house.index()


def test_pool_index_missing_pool_is_empty(tmp_path):
    index = pool_index(tmp_path / "nowhere", configuration(CONFIG), 1)
    assert len(index) == 0
    assert {"image_id", "file_digest", "pool", "row", "reason", "detail"} <= set(index.columns)


def test_images_table_leaves_late_files_to_the_next_run(house, caplog):
    house.run()
    house.put("late")
    images, quarantine = images_table(house.scan(), house.index())
    assert images["image_id"].tolist() == list("abcdef")
    assert len(quarantine) == 0
    assert "1 files are not converted yet" in caplog.text


def test_images_table_unsettled_file_is_not_counted_as_broken(house):
    house.run()
    files = house.scan()
    files.loc[0, ["digest", "reason", "detail"]] = [None, "unsettled", "The file changed."]
    images, quarantine = images_table(files, house.index())
    assert len(images) == 5
    assert len(quarantine) == 0


def test_check_quarantine_counts_per_reason_and_names_the_first(house):
    for name in "xy":
        (house.images / f"{name}.dcm").write_bytes(b"no film")
    images, quarantine = house.run()
    check_quarantine(images, quarantine, ShardsConfig(max_quarantined=0.25))
    with pytest.raises(ShardError, match=r"2 of 8 files are broken \(not_dicom 2\).*x\.dcm: "):
        check_quarantine(images, quarantine, ShardsConfig(max_quarantined=0.24))


def test_check_quarantine_nothing_at_all_raises(tmp_path):
    house = House(tmp_path)
    with pytest.raises(ShardError, match="Expected DICOM files"):
        check_quarantine(*house.run(), CONFIG)


def test_check_quarantine_all_refused_raises_whatever_is_allowed(house):
    images, _ = house.run()
    refused = images[["file", "image_id", "file_digest"]].assign(reason="colour", detail="Red.")
    with pytest.raises(ShardError, match="6 of 6 files"):
        check_quarantine(images.iloc[:0], refused, ShardsConfig(max_quarantined=1.0))


def test_configuration_holds_what_changes_an_image():
    accept = ["CR", "DX", "RG", "OT"]
    assert configuration(CONFIG) == {"image_size": 32, "window": 0, "accept": accept}


def test_convert_files_equals_what_the_pool_holds(house):
    images, _ = house.run()
    (house.images / "x.dcm").write_bytes(b"no film")
    missing = house.images / "gone" / "m.dcm"
    results = list(convert_files([missing, house.images], CONFIG))
    assert [path.stem for path, _, _ in results] == ["m", *"abcdefx"]
    pool = ImagePool(house.pool, images)
    for position, (_, image, row) in enumerate(results[1:-1]):
        assert np.array_equal(image, pool.gather(np.array([position]))[0])
        assert row["pixel_digest"] == images["pixel_digest"][position]
        assert row["reason"] is None
    for (_, image, row), reason in zip(
        [results[0], results[-1]], ["unreadable", "not_dicom"], strict=True
    ):
        assert image is None
        assert (row["reason"], row["pixel_digest"]) == (reason, None)
        assert set(COLUMNS) < set(row)


def test_run_mixed_header_fields_keep_their_types(house):
    house.put("y", changed={0x00185101: None, 0x00101010: None, 0x00100040: None})
    house.put("z", changed={0x00185101: ("CS", "ap"), 0x00101010: ("AS", "150")})
    images = house.run()[0].set_index("image_id")
    assert images.loc["z", ["view", "age", "sex"]].tolist() == ["AP", 150.0, "F"]
    assert images.loc["y", ["view", "age", "sex"]].isna().all()
