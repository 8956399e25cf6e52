import errno
import os
import time

import films
import pytest

from pneumonia.errors import DataError
from pneumonia.files import digest
from pneumonia.inventory import COLUMNS, list_dicom, scan
from pneumonia.shards import unsettled

FILM = films.jpeg_film(films.phantom())


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "raw" / "stage_2_train_images"
    (images / "more").mkdir(parents=True)
    for name in ("b.dcm", "a.DCM", "more/c.dcm"):
        (images / name).write_bytes(name.encode())
    (images / "notes.txt").write_text("no film")
    return images


@pytest.fixture
def look(folder, tmp_path):
    def look(quiet_seconds=0.0):
        return scan(folder, tmp_path / "files.parquet", quiet_seconds=quiet_seconds, workers=2)

    return look


def refusals(table):
    refused = table[table["reason"].notna()]
    assert refused["digest"].isna().all()
    return dict(zip(refused["file"], refused["reason"], strict=True))


def test_scan_lists_every_dicom_file_sorted(look):
    table = look()
    assert tuple(table.columns) == COLUMNS
    assert table["file"].tolist() == ["a.DCM", "b.dcm", "more/c.dcm"]
    assert table["image_id"].tolist() == ["a", "b", "c"]
    assert table["digest"].tolist() == [digest(name.encode()) for name in table["file"]]
    assert table["size"].tolist() == [5, 5, 10]
    assert not refusals(table)


def test_scan_missing_folder_tells_layout_and_cure(tmp_path):
    with pytest.raises(DataError, match=r"RAW/stage_2_train_images/\*\.dcm.*Give --raw"):
        scan(tmp_path / "nowhere", tmp_path / "files.parquet", quiet_seconds=0, workers=1)


def test_scan_empty_folder_is_an_empty_table(tmp_path):
    table = scan(tmp_path, tmp_path / "files.parquet", quiet_seconds=0, workers=1)
    assert len(table) == 0
    assert tuple(table.columns) == COLUMNS


def test_scan_again_reads_nothing_and_writes_nothing(look, folder, tmp_path, monkeypatch):
    before = look()
    cache = tmp_path / "files.parquet"
    written = cache.stat().st_mtime_ns
    monkeypatch.setattr("pneumonia.inventory.read_file", lambda path: pytest.fail(f"read {path}"))
    assert look().equals(before)
    assert cache.stat().st_mtime_ns == written
    (folder / "b.dcm").unlink()
    assert look()["file"].tolist() == ["a.DCM", "more/c.dcm"]


def test_scan_touched_file_keeps_its_digest(look, folder):
    before = look()
    os.utime(folder / "b.dcm", ns=(1, 1))
    after = look()
    assert after["digest"].tolist() == before["digest"].tolist()
    assert after["mtime_ns"][1] == 1


def test_scan_changed_file_has_another_digest(look, folder):
    before = look()
    stamp = (folder / "b.dcm").stat().st_mtime_ns
    (folder / "b.dcm").write_bytes(b"other")  # as many bytes, and the old time put back
    os.utime(folder / "b.dcm", ns=(stamp, stamp))
    after = look()
    assert (after["digest"] != before["digest"]).tolist() == [False, True, False]


def test_scan_damaged_cache_is_made_anew(look, tmp_path):
    before = look()
    (tmp_path / "files.parquet").write_bytes(b"no table")
    assert look().equals(before)
    assert look().equals(before)


def test_scan_hostile_entries_become_rows_with_reasons(look, folder):
    os.mkfifo(folder / "pipe.dcm")
    (folder / "self.dcm").symlink_to("self.dcm")
    (folder / "dangling.dcm").symlink_to("nowhere")
    (folder / "folder.dcm").mkdir()
    (folder / "zero.dcm").symlink_to("/dev/zero")
    (folder / "more" / "up").symlink_to("..")
    (folder / "more" / "b.dcm").write_bytes(b"another b")
    started = time.monotonic()
    table = look()
    assert time.monotonic() - started < 5
    assert refusals(table) == {
        "pipe.dcm": "not_a_file",
        "self.dcm": "link_loop",
        "dangling.dcm": "unreadable",
        "folder.dcm": "not_a_file",
        "zero.dcm": "not_a_file",
        "more/up": "link_loop",
        "b.dcm": "duplicate",
        "more/b.dcm": "duplicate",
    }
    assert table.loc[table["digest"].notna(), "file"].tolist() == ["a.DCM", "more/c.dcm"]
    assert "`more/b.dcm`" in table.set_index("file")["detail"]["b.dcm"]


def test_scan_links_to_files_and_folders_are_followed_once(look, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.dcm").write_bytes(b"d")
    (folder / "one").symlink_to(tmp_path / "elsewhere")
    (folder / "two").symlink_to(tmp_path / "elsewhere")
    (folder / "e.dcm").symlink_to(tmp_path / "elsewhere" / "d.dcm")
    (folder / "again").symlink_to("more")
    table = look()
    assert not refusals(table)
    assert table["file"].tolist() == ["a.DCM", "b.dcm", "e.dcm", "more/c.dcm", "one/d.dcm"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_scan_unreadable_file_is_tried_again_once_it_can_be_read(look, folder):
    (folder / "b.dcm").chmod(0)
    assert refusals(look()) == {"b.dcm": "unreadable"}
    (folder / "b.dcm").chmod(0o644)
    assert not refusals(look())


def test_scan_folder_that_cannot_be_listed_is_told(look, monkeypatch):
    listed = os.scandir

    def scandir(place):
        if place.name == "more":
            raise PermissionError(errno.EACCES, "denied")
        return listed(place)

    monkeypatch.setattr("pneumonia.inventory.os.scandir", scandir)
    assert refusals(look()) == {"more": "unreadable"}


def test_scan_name_that_is_no_text_is_refused(look, folder):
    (folder / os.fsdecode(b"bad-\xff.dcm")).write_bytes(b"x")
    assert refusals(look()) == {r"bad-\udcff.dcm": "name"}


def test_scan_young_file_is_waited_for(look, folder):
    old = time.time() - 60
    for path in folder.rglob("*.*"):
        os.utime(path, (old, old))
    (folder / "new.dcm").write_bytes(b"new")
    started = time.monotonic()
    table = look(quiet_seconds=0.5)
    assert 0.2 < time.monotonic() - started < 2
    assert "new.dcm" in table.loc[table["digest"].notna(), "file"].tolist()
    started = time.monotonic()
    look(quiet_seconds=0.5)
    assert time.monotonic() - started < 0.3  # known, so not waited for again


def test_scan_file_that_keeps_changing_is_left_to_the_next_run(look, folder, monkeypatch, caplog):
    def write_on(_pause):
        with (folder / "b.dcm").open("ab") as handle:
            handle.write(b"more")

    monkeypatch.setattr("pneumonia.inventory.time.sleep", write_on)
    table = look(quiet_seconds=30)
    assert refusals(table) == {"b.dcm": "unsettled"}
    assert unsettled(table) == 1
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["1 files still change and are left to the next run: b.dcm."]


def test_scan_settled_files_warn_of_nothing(look, caplog):
    assert unsettled(look()) == 0
    assert "WARNING" not in caplog.text


def test_scan_time_stamp_from_the_future_is_waited_for_once(look, folder):
    ahead = time.time() + 3600
    os.utime(folder / "b.dcm", (ahead, ahead))
    started = time.monotonic()
    assert not refusals(look(quiet_seconds=0.3))
    assert time.monotonic() - started < 2


def test_list_dicom_folders_stand_for_their_files(folder, tmp_path):
    other = tmp_path / "film.bin"
    found = list(list_dicom([other, folder]))
    names = ["a.DCM", "b.dcm", "more/c.dcm"]
    assert [entry.path for entry in found] == [other, *(folder / name for name in names)]
    assert [entry.file for entry in found] == ["film.bin", *names]
    assert [entry.image_id for entry in found] == ["film", "a", "b", "c"]


def test_list_dicom_name_that_is_no_text_is_escaped_and_refused_its_folder_not(tmp_path):
    place = tmp_path / os.fsdecode(b"r\xe4um")
    place.mkdir()
    for name in (b"bad-\xff.dcm", b"good.dcm"):
        (place / os.fsdecode(name)).write_bytes(b"x")
    below = list(list_dicom([place]))
    itself = list(
        list_dicom([place / os.fsdecode(name) for name in (b"bad-\xff.dcm", b"good.dcm")])
    )
    for found in (below, itself):
        assert [entry.file for entry in found] == [r"bad-\udcff.dcm", "good.dcm"]
        assert [entry.reason for entry in found] == ["name", None]
        assert [str(entry.shown) for entry in found] == [
            rf"{tmp_path}/r\udce4um/bad-\udcff.dcm", rf"{tmp_path}/r\udce4um/good.dcm"
        ]  # fmt: skip
