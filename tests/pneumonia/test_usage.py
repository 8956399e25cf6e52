import subprocess

import pytest
from workspaces import STAGES, make, reference

from pneumonia.artifacts import Reference
from pneumonia.usage import survey
from pneumonia.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def put(path, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def kinds(workspace):
    """Kind and size of each item, by its place in the workspace."""
    return {
        str(item.path.relative_to(workspace.root)): (item.kind, item.size)
        for item in survey(workspace, STAGES)
    }


def test_everything_is_in_one_item_and_the_sizes_are_those_of_du(workspace, tmp_path):
    made = make(workspace, "labels", "one")
    workspace.link("main", "labels", made)
    (workspace.root / "outside").symlink_to(put(tmp_path / "outside", 12345))
    put(workspace.root / "notes" / "deep" / "file", 77)
    put(workspace.state / "training" / ("a" * 32) / "resume", 5)
    told = subprocess.run(
        ["du", "--apparent-size", "--block-size=1", "--all", "--separate-dirs", workspace.root],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    places = [line.split("\t") for line in told.stdout.splitlines()]
    is_folder = {p: (workspace.root / p).is_dir() and not (workspace.root / p).is_symlink()
                 for _, p in places}  # fmt: skip
    files = {place: int(size) for size, place in places if not is_folder[place]}
    items = survey(workspace, STAGES)
    assert sum(item.size for item in items) == sum(files.values())
    assert sum(item.files for item in items) == len(files)


def test_what_is_of_the_workspace_and_what_is_not(workspace):
    made, aside = make(workspace, "labels", "one"), reference("training", "aside")
    put(workspace.root / "labels" / "README")
    put(workspace.root / "labels" / "not-a-key" / "file")
    put(workspace.root / "raw" / ("a" * 32) / "film.dcm")
    put(workspace.root / "runs" / "main" / "note")
    put(workspace.state / "mine")
    put(workspace.state / "links" / "main-labels.123")
    put(workspace.state / "batches" / f"{'a' * 32}-{'b' * 32}.json")
    put(workspace.state / "batches" / "mine.json")
    put(workspace.state / "watch" / "main.json")
    put(workspace.state / "watch" / "main.77")
    put(workspace.state / "files.parquet")
    put(workspace.state / "training" / aside.key / "replaced" / "file")
    assert {place: kind for place, (kind, _) in kinds(workspace).items()} == {
        f"labels/{made.key}": "artifact",
        "labels/README": "foreign",
        "labels/not-a-key": "foreign",
        "raw": "foreign",
        "runs/main/note": "foreign",
        ".state/mine": "foreign",
        ".state/links/main-labels.123": "leftover",
        f".state/batches/{'a' * 32}-{'b' * 32}.json": "leftover",
        ".state/batches/mine.json": "foreign",
        ".state/watch/main.json": "own",
        ".state/watch/main.77": "leftover",
        ".state/files.parquet": "own",
        f".state/labels/{made.key}.lock": "own",
        f".state/training/{aside.key}": "leftover",
    }


def test_a_resume_point_is_told_from_what_is_of_no_use(workspace):
    key = reference("training", "cut short").key
    scratch = workspace.state / "training" / key
    put(scratch / "resume-3" / "state", 30)
    put(scratch / "output" / "half", 7)
    assert kinds(workspace) == {
        f".state/training/{key}": ("resume point", 30),
        f".state/training/{key}/output": ("leftover", 7),
    }


def test_the_scratch_of_a_finished_artifact_is_a_leftover(workspace):
    made = make(workspace, "training", "one")
    put(workspace.state / "training" / made.key / "resume-3", 30)
    assert kinds(workspace)[f".state/training/{made.key}"] == ("leftover", 30)


def test_links_are_never_followed(workspace, tmp_path):
    put(tmp_path / "outside" / "file", 5000)
    made = make(workspace, "labels", "one")
    (workspace.root / "labels" / ("a" * 32)).symlink_to(tmp_path / "outside")
    (workspace.root / "training").symlink_to(tmp_path / "outside")
    found = {item.path.name: item for item in survey(workspace, STAGES)}
    assert (found["a" * 32].kind, found["training"].kind) == ("foreign", "foreign")
    assert sum(item.size for item in found.values()) < 5000
    assert found[made.key].reference == Reference("labels", made.key)
