"""Workspaces moved, mounted elsewhere or half copied; clocks that are set, files that change."""

import os
import random
import shutil
import threading
import time

import pytest
from harness import finish, states

pytestmark = pytest.mark.e2e

DAYS = 86400


def test_a_moved_workspace_is_as_it_was(faults, tmp_path):
    faults.copy(tmp_path / "here" / "workspace")
    shutil.copytree(faults.finished.raw, tmp_path / "there" / "raw")
    moved = (tmp_path / "here" / "workspace").rename(tmp_path / "there" / "other name")
    (tmp_path / "mounted").symlink_to(tmp_path / "there")
    seen = tmp_path / "mounted" / moved.name
    output = faults.ends_equal("moved", seen, raw=tmp_path / "mounted" / "raw")
    assert set(states(output).values()) == {"cached"}, output


def test_a_half_copied_workspace_is_made_whole(faults, tmp_path, long, seed):
    """As a copy leaves it that ended early: its last file cut, or named and empty."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    whole = faults.finished.workspace
    paths = sorted(path for path in whole.rglob("*") if path.is_file() or path.is_symlink())
    for number in range(10 if long else 2):
        workspace = tmp_path / f"{number}"
        copied = chance.sample(paths, chance.randrange(1, len(paths)))
        for path in copied:
            place = workspace / path.relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place, follow_symlinks=False)
        last = next(workspace / path.relative_to(whole) for path in copied if path.is_file())
        os.truncate(last, chance.randrange(last.stat().st_size + 1))
        faults.ends_equal("half copied", workspace, told=f"{len(copied)} files, {last} cut")


@pytest.mark.parametrize("days", [1, -1], ids=["back", "forth"])
def test_a_clock_that_is_set_makes_no_difference(faults, tmp_path, days):
    workspace = faults.copy(tmp_path / "workspace", "labels", "split", "report")
    output = finish(faults.start(workspace, CLOCK_BACK=str(days * DAYS)))
    told = {name for name, state in states(output).items() if state == "ran"}
    assert told == {"labels", "split", "report"}, output
    faults.ends_equal("clock set", workspace, told=output)


def test_files_from_the_future_are_told_and_left_until_their_time(faults, tmp_path):
    """A camera's clock may be ahead: such a file may still be being written for all one knows."""
    shutil.copytree(faults.finished.raw, tmp_path / "raw")
    film = min((tmp_path / "raw").rglob("*.dcm"))
    ahead = time.time() + DAYS
    os.utime(film, (ahead, ahead))
    workspace = faults.copy(tmp_path / "workspace")
    faults.ends_equal("a file from the future", workspace, raw=tmp_path / "raw")


def test_a_file_that_changes_while_it_is_read_is_read_again(faults, tmp_path):
    shutil.copytree(faults.finished.raw, tmp_path / "raw")
    films = sorted((tmp_path / "raw").rglob("*.dcm"))[:20]
    whole = [film.read_bytes() for film in films]
    workspace = tmp_path / "workspace"
    over = threading.Event()

    def change():
        while not over.is_set():
            for film, content in zip(films, whole, strict=True):
                film.write_bytes(content[: len(content) // 2])
                film.write_bytes(content)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        output = finish(faults.start(workspace, "--until", "shards"))
    finally:
        over.set()
        writer.join()
    assert "Traceback" not in output
    faults.ends_equal("files that change while they are read", workspace,
                      raw=tmp_path / "raw", told=output)  # fmt: skip
