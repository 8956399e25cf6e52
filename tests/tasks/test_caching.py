import errno
import shutil

import pytest
from prefect import flow

from pneumonia.artifacts import Reference
from pneumonia.config import Config
from pneumonia.errors import DataError
from pneumonia.workspace import Workspace
from tasks.caching import Context, Plan, Request, Stage

pytestmark = pytest.mark.usefixtures("prefect_server")


class Recorder:
    """A stage that writes one file and counts how often; what it reads can be set."""

    def __init__(self, **settings):
        self.written = 0
        self.faults = []
        self.inputs = {"boxes": "1"}
        self.configuration = {"n_images": 4}
        self.stage = Stage(
            name="cam",
            version=settings.pop("version", 1),
            plan=self.plan,
            describe=lambda facts: f"{facts['n']} maps",
            **settings,
        )

    def plan(self, _context):
        return Plan(dict(self.inputs), dict(self.configuration), self.write)

    def write(self, scratch):
        self.written += 1
        if self.faults:
            raise self.faults.pop(0)
        (scratch.output / "map").write_text(str(self.written), "utf-8")
        return {"n": self.written}

    def run(self, tmp_path, **request):
        asked = Request(raw=tmp_path, workspace=tmp_path / "ws", config=Config(), **request)

        @flow(name="test")
        def run_one():
            return self.stage.run(Context(asked, {}, "m"))

        return run_one()


def test_first_run_writes_and_second_is_cached(tmp_path):
    recorder = Recorder()
    first, second = recorder.run(tmp_path), recorder.run(tmp_path)
    assert (first.cached, first.reason) == (False, "first run")
    assert (second.cached, second.reason) == (True, "nothing it reads has changed")
    assert first.reference == second.reference
    assert recorder.written == 1
    assert Workspace(tmp_path / "ws").linked("main", "cam") == first.reference


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": {"boxes": "2"}}, "boxes changed"),
        ({"inputs": {"boxes": "1", "views": "1"}}, "views is new"),
        ({"inputs": {}}, "boxes is gone"),
        ({"configuration": {"n_images": 8}}, "n_images 4 -> 8"),
    ],
)
def test_a_change_runs_again_and_says_why(tmp_path, change, reason):
    recorder = Recorder()
    recorder.run(tmp_path)
    for name, value in change.items():
        setattr(recorder, name, value)
    outcome = recorder.run(tmp_path)
    assert (outcome.cached, outcome.reason, recorder.written) == (False, reason, 2)


def test_another_version_runs_again(tmp_path):
    Recorder().run(tmp_path)
    assert Recorder(version=2).run(tmp_path).reason == "version 1 -> 2"


def test_refresh_runs_again_under_the_same_key(tmp_path):
    recorder = Recorder()
    first = recorder.run(tmp_path)
    again = recorder.run(tmp_path, refresh=frozenset({"cam"}))
    assert (again.cached, again.reason) == (False, "asked for by --refresh")
    assert again.reference == first.reference
    assert (Workspace(tmp_path / "ws").path(again.reference) / "map").read_text() == "2"


def test_a_deleted_artifact_is_made_again(tmp_path):
    recorder = Recorder()
    first = recorder.run(tmp_path)
    shutil.rmtree(Workspace(tmp_path / "ws").path(first.reference))
    assert recorder.run(tmp_path).reason == "its artifact is missing or damaged"


def test_altered_bytes_are_made_again_only_when_verified(tmp_path):
    recorder = Recorder()
    first = recorder.run(tmp_path)
    (Workspace(tmp_path / "ws").path(first.reference) / "map").write_text("9", "utf-8")
    assert recorder.run(tmp_path).cached
    assert not recorder.run(tmp_path, verify=True).cached


def test_runs_have_links_of_their_own(tmp_path):
    recorder = Recorder()
    first = recorder.run(tmp_path)
    recorder.configuration = {"n_images": 8}
    second = recorder.run(tmp_path, run="experiment")
    workspace = Workspace(tmp_path / "ws")
    assert workspace.linked("main", "cam") == first.reference
    assert workspace.linked("experiment", "cam") == second.reference


def test_a_stage_per_model_is_linked_with_the_models_name(tmp_path):
    outcome = Recorder(per_model=True).run(tmp_path)
    assert Workspace(tmp_path / "ws").linked("main", "cam-m") == outcome.reference


def test_an_error_of_the_data_is_raised_as_it_is_and_not_tried_again(tmp_path):
    recorder = Recorder()
    recorder.faults = [DataError("told in one sentence")]
    with pytest.raises(DataError, match="told in one sentence"):
        recorder.run(tmp_path)
    assert recorder.written == 1


def test_a_full_disk_is_not_tried_again(tmp_path):
    recorder = Recorder()
    recorder.faults = [OSError(errno.ENOSPC, "No space left on device")]
    with pytest.raises(OSError, match="No space left"):
        recorder.run(tmp_path)
    assert recorder.written == 1


@pytest.mark.slow
def test_a_fault_that_can_pass_is_tried_again(tmp_path):
    recorder = Recorder()
    recorder.faults = [OSError(errno.EIO, "Input/output error")]
    outcome = recorder.run(tmp_path)
    assert (outcome.facts, recorder.written) == ({"n": 2}, 2)


def test_the_workspace_is_the_only_truth(tmp_path):
    recorder = Recorder()
    recorder.run(tmp_path)
    shutil.move(tmp_path / "ws", tmp_path / "moved")
    asked = Request(raw=tmp_path, workspace=tmp_path / "moved", config=Config())

    @flow(name="test")
    def run_one():
        return recorder.stage.run(Context(asked, {}, "m"))

    assert run_one().cached


def test_context_finds_the_models_own_artifact():
    context = Context(
        Request(raw=None, workspace=None, config=None),
        {"training-a": Reference("training", "1"), "labels": Reference("labels", "2")},
        "a",
    )
    assert context.name("training") == "training-a"
    assert context.name("labels") == "labels"
