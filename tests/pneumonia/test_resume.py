import hashlib

import pytest
import torch

from pneumonia import resume
from pneumonia.config import parse
from pneumonia.resume import Progress


def point(number):
    return {"weights": torch.full((50,), float(number)), "epoch": number}


def test_load_gives_back_the_latest(tmp_path):
    assert resume.load(tmp_path) is None
    for number in range(3):
        resume.save(point(number), tmp_path)
    loaded = resume.load(tmp_path)
    assert loaded["epoch"] == 2
    assert torch.equal(loaded["weights"], point(2)["weights"])


@pytest.mark.parametrize("damage", ["torn", "altered", "empty"])
def test_load_damaged_point_goes_back_to_the_one_before(tmp_path, caplog, damage):
    for number in range(3):
        resume.save(point(number), tmp_path)
    path = tmp_path / "resume.ckpt"
    whole = path.read_bytes()
    path.write_bytes(
        {"torn": whole[:-9], "altered": whole[:-9] + b"123456789", "empty": b""}[damage]
    )
    assert resume.load(tmp_path)["epoch"] == 1
    assert "resume.ckpt is torn" in caplog.text


def test_load_after_a_death_between_the_two_renames(tmp_path):
    for number in range(2):
        resume.save(point(number), tmp_path)
    (tmp_path / "resume.ckpt").rename(tmp_path / "resume.ckpt.new")
    assert resume.load(tmp_path)["epoch"] == 0


def test_load_with_both_damaged_begins_anew(tmp_path):
    for number in range(2):
        resume.save(point(number), tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"x" * 100)
    assert resume.load(tmp_path) is None


def test_load_leaves_a_point_of_another_version_aside(tmp_path, monkeypatch, caplog):
    resume.save(point(1), tmp_path)
    monkeypatch.setattr(resume, "FORMAT", resume.FORMAT + 1)
    assert resume.load(tmp_path) is None
    assert "another version" in caplog.text


def progress(epoch, best_epoch):
    best = {"epoch": best_epoch} if best_epoch else None
    return Progress({"epoch": epoch, "step": 0, "losses": [], "history": [], "best": best})


@pytest.mark.parametrize(
    ("epoch", "best_epoch", "finished"),
    [(0, None, False), (9, 9, False), (10, 10, True), (5, 3, False), (6, 3, True)],
)
def test_finished_after_all_epochs_or_when_patience_ends(epoch, best_epoch, finished):
    config = parse({"training": {"epochs": 10, "patience": 3}})
    assert progress(epoch, best_epoch).finished(config) is finished


def test_load_sealed_bytes_that_are_no_point_are_left_aside(tmp_path, caplog):
    payload = b"no archive"
    seal = hashlib.sha256(payload).hexdigest().encode()
    (tmp_path / "resume.ckpt").write_bytes(seal + payload)
    assert resume.load(tmp_path) is None
    assert "resume.ckpt holds other bytes" in caplog.text
