import shutil
import subprocess
import sys
import threading

import pytest

from pneumonia.artifacts import MANIFEST, Manifest, Reference, digest
from pneumonia.errors import ArtifactError, ConfigError, CorruptArtifactError
from pneumonia.links import checked_name
from pneumonia.workspace import Workspace

MADE = Manifest(stage="labels", key="k1", version=1, inputs={"a": "1"}, configuration={})
REFERENCE = Reference("labels", "k1")


def write(scratch):
    (scratch.output / "folder").mkdir()
    (scratch.output / "folder" / "table").write_bytes(b"content")
    return {"images": 3}


def build(workspace, work=write, manifest=MADE):
    with workspace.lock(Reference(manifest.stage, manifest.key)) as lock:
        return workspace.build(manifest, work, lock=lock)


def test_build_publishes_a_complete_artifact_and_leaves_no_scratch(tmp_path):
    workspace = Workspace(tmp_path)
    built = build(workspace)
    found = workspace.find(REFERENCE, hashed=True)
    assert found == built
    assert found.manifest.facts == {"images": 3}
    assert found.manifest.files.keys() == {"folder/table"}
    assert not (tmp_path / ".state" / "labels" / "k1").exists()


def test_build_that_fails_publishes_nothing_and_keeps_its_state(tmp_path):
    workspace = Workspace(tmp_path)

    def fail(scratch):
        (scratch.state / "resume").write_text("epoch 3", "utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        build(workspace, fail)
    assert workspace.find(REFERENCE) is None

    def go_on(scratch):
        assert (scratch.state / "resume").read_text("utf-8") == "epoch 3"
        assert list(scratch.output.iterdir()) == []
        return write(scratch)

    build(workspace, go_on)
    assert workspace.find(REFERENCE) is not None


def test_find_an_artifact_without_manifest_is_none(tmp_path):
    workspace = Workspace(tmp_path)
    (build(workspace).path / MANIFEST).unlink()
    assert workspace.find(REFERENCE) is None


def test_find_a_damaged_artifact_is_none_and_told(tmp_path, caplog):
    workspace = Workspace(tmp_path)
    (build(workspace).path / "folder" / "table").unlink()
    assert workspace.find(REFERENCE) is None
    assert "folder/table: missing" in caplog.text


def test_find_hashed_sees_altered_bytes(tmp_path):
    workspace = Workspace(tmp_path)
    (build(workspace).path / "folder" / "table").write_bytes(b"Content")
    assert workspace.find(REFERENCE) is not None
    assert workspace.find(REFERENCE, hashed=True) is None


def test_get_a_missing_artifact_says_how_to_make_it(tmp_path):
    with pytest.raises(CorruptArtifactError, match="Run the pipeline again"):
        Workspace(tmp_path).get(REFERENCE)


def test_build_replaces_a_damaged_artifact(tmp_path):
    workspace = Workspace(tmp_path)
    (build(workspace).path / "folder" / "table").write_bytes(b"bad")
    build(workspace)
    assert workspace.find(REFERENCE, hashed=True) is not None


def test_discard_takes_a_damaged_artifact_away_and_leaves_a_whole_one(tmp_path):
    workspace = Workspace(tmp_path)
    built = build(workspace)
    workspace.discard(REFERENCE)
    assert workspace.find(REFERENCE) is not None
    (built.path / "folder" / "table").write_bytes(b"Content")  # as long, but altered
    workspace.discard(REFERENCE)
    assert workspace.find(REFERENCE) is None
    assert not built.path.exists()


def test_discard_takes_a_whole_artifact_when_asked(tmp_path):
    workspace = Workspace(tmp_path)
    build(workspace)
    workspace.discard(REFERENCE, damaged_only=False)
    assert workspace.find(REFERENCE) is None


def test_a_moved_workspace_is_as_good(tmp_path):
    workspace = Workspace(tmp_path / "here")
    build(workspace)
    workspace.link("main", "labels", REFERENCE)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = Workspace(tmp_path / "there")
    assert moved.find(REFERENCE, hashed=True) is not None
    assert (tmp_path / "there/runs/main/labels/folder/table").read_bytes() == b"content"


def test_link_is_relative_replaced_and_not_rewritten(tmp_path):
    workspace = Workspace(tmp_path)
    build(workspace)
    workspace.link("main", "labels", REFERENCE)
    link = tmp_path / "runs/main/labels"
    assert str(link.readlink()) == "../../labels/k1"
    before = link.lstat().st_mtime_ns
    workspace.link("main", "labels", REFERENCE)
    assert link.lstat().st_mtime_ns == before
    workspace.link("main", "labels", Reference("labels", "k2"))
    assert workspace.linked("main", "labels") == Reference("labels", "k2")
    assert workspace.linked("other", "labels") is None


@pytest.mark.parametrize("target", ["..", "../..", "../../..", "labels", "/", "../../labels/.."])
def test_links_that_name_no_artifact_are_none_of_ours(tmp_path, target):
    workspace = Workspace(tmp_path)
    build(workspace)
    workspace.link("main", "labels", REFERENCE)
    (tmp_path / "runs/main/split").symlink_to(target)
    assert workspace.linked("main", "split") is None
    assert workspace.links() == [("main/labels", REFERENCE)]
    workspace.link("main", "split", REFERENCE)
    assert workspace.linked("main", "split") == REFERENCE


def test_link_that_leads_elsewhere_is_looked_for_in_this_workspace(tmp_path):
    elsewhere = Workspace(tmp_path / "elsewhere")
    build(elsewhere)
    workspace = Workspace(tmp_path / "workspace")
    place = workspace.root / "runs/main/labels"
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere.path(REFERENCE))
    assert workspace.linked("main", "labels") == REFERENCE
    with pytest.raises(CorruptArtifactError, match="expected a complete artifact"):
        workspace.finished("main", "labels")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/etc", "a\0b", "x" * 101, "-rf"])
def test_names_that_could_leave_the_workspace_are_refused(name):
    with pytest.raises(ConfigError, match="expected a name of letters"):
        checked_name(name)


def test_a_file_in_the_place_of_the_workspace_is_told(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ArtifactError, match="expected a folder, got a file"):
        build(Workspace(tmp_path / "file"))


HOLD = """
import sys
from pathlib import Path
from pneumonia.artifacts import Reference
from pneumonia.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock(Reference("labels", "k1")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_dies_with_its_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        holder.kill()  # kill -9: nothing of the holder's runs any more
        with Workspace(tmp_path).lock(REFERENCE):
            pass
    assert holder.returncode == -9


def test_lock_that_another_holds_is_waited_for_and_that_is_told(tmp_path, caplog):
    caplog.set_level("INFO", "pneumonia.locks")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        waiting = threading.Thread(target=lambda: holder.communicate(b""))
        threading.Timer(0.2, waiting.start).start()  # whenever it ends, the lock is had after it
        with Workspace(tmp_path).lock(REFERENCE):
            assert "Waiting for another process that is making labels/k1" in caplog.text
        waiting.join()


def test_references_lists_all_stages_but_not_the_links(tmp_path):
    workspace = Workspace(tmp_path)
    keys = digest("labels"), digest("pool")
    build(workspace, manifest=Manifest("labels", keys[0], 1, {}, {}))
    build(workspace, manifest=Manifest("pool", keys[1], 1, {}, {}))
    (tmp_path / "raw" / "stage_2_train_images").mkdir(parents=True)  # a neighbour, none of ours
    workspace.link("main", "labels", Reference("labels", keys[0]))
    assert workspace.references() == [Reference("labels", keys[0]), Reference("pool", keys[1])]
