import pytest
from workspaces import make

from pneumonia.artifacts import MANIFEST
from pneumonia.errors import ArtifactError, ConfigError, CorruptArtifactError
from pneumonia.needs import find_needs
from pneumonia.pins import drop_run, pin, unpin
from pneumonia.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def test_a_pinned_artifact_is_needed_until_its_pin_is_taken_away(workspace):
    kept = make(workspace, "labels", "one")
    assert pin(workspace, f"labels/{kept.key[:8]}") == kept
    assert find_needs(workspace).runs == {kept: frozenset({"pinned"})}
    assert (workspace.root / "runs" / "pinned" / f"labels-{kept.key}" / MANIFEST).is_file()
    assert unpin(workspace, f"labels/{kept.key}") == kept
    assert find_needs(workspace).runs == {}
    assert not (workspace.root / "runs" / "pinned").exists()


def test_a_name_of_no_artifact_is_refused(workspace):
    kept = make(workspace, "labels", "one")
    for name in (f"labels/{kept.key[:7]}", f"split/{kept.key}", kept.key, "labels/", "../x"):
        with pytest.raises(ConfigError, match="expected STAGE/KEY of one artifact"):
            pin(workspace, name)
    with pytest.raises(ConfigError, match="fits 0 of 0"):
        unpin(workspace, f"labels/{kept.key}")


def test_a_damaged_artifact_is_not_pinned(workspace):
    damaged = make(workspace, "labels", "one")
    (workspace.path(damaged) / "file").write_bytes(b"torn")
    with pytest.raises(CorruptArtifactError, match="expected a complete artifact"):
        pin(workspace, f"labels/{damaged.key}")
    assert workspace.links() == []


def test_drop_run_takes_its_links_away_and_nothing_else(workspace):
    made = make(workspace, "labels", "one")
    for run in ("main", "other"):
        workspace.link(run, "labels", made)
    note = workspace.root / "runs" / "other" / "note.txt"
    note.write_text("mine", "utf-8")
    drop_run(workspace, "other")
    assert workspace.links() == [("main/labels", made)]
    assert note.read_text("utf-8") == "mine"
    assert workspace.find(made) is not None
    with pytest.raises(ConfigError, match="expected one of its runs"):
        drop_run(workspace, "other")


def test_a_run_of_the_name_of_pins_keeps_nobody_from_unpinning(workspace):
    kept = make(workspace, "labels", "one")
    workspace.link("pinned", "labels", kept)
    pin(workspace, f"labels/{kept.key}")
    assert unpin(workspace, f"labels/{kept.key[:8]}") == kept
    assert workspace.links() == []


@pytest.mark.parametrize("linked", ["runs", "runs/evil"])
def test_a_linked_folder_of_links_is_neither_read_nor_written_nor_emptied(workspace, linked):
    made = make(workspace, "labels", "one")
    outside = workspace.root.with_name("outside")
    (outside / "evil").mkdir(parents=True)
    for folder in (outside, outside / "evil"):
        (folder / "labels").symlink_to("../../labels/" + made.key)
        (folder / "hostname").symlink_to("/etc/hostname")
    place = workspace.root / linked
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside if linked == "runs" else outside / "evil")
    before = sorted(outside.rglob("*"))
    assert workspace.links() == []
    with pytest.raises(ConfigError, match="expected one of its runs"):
        drop_run(workspace, "evil")
    for use in (lambda: workspace.linked("evil", "labels"),
                lambda: workspace.link("evil", "split", made)):  # fmt: skip
        with pytest.raises(ArtifactError, match="expected a folder, got a link"):
            use()
    assert sorted(outside.rglob("*")) == before
