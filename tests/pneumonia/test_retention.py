import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from workspaces import STAGES, make, make_pool, make_shards, reference, snapshot

from pneumonia.artifacts import MANIFEST, RECORD
from pneumonia.errors import ArtifactError
from pneumonia.needs import find_needs
from pneumonia.retention import Rules, alone, plan_removals, remove
from pneumonia.usage import survey
from pneumonia.workspace import Workspace

HOLD = """
import sys
from pathlib import Path
from pneumonia.artifacts import Reference
from pneumonia.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
with workspace.lock(Reference(*sys.argv[2:])) if sys.argv[2:] else workspace.in_use():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def started(*arguments):
    """A process that holds a lock, or the workspace, until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"held\n"
    return process


def plan(workspace, older_than=0.0, keep_size=None, now=None, dropped=()):
    items = survey(workspace, STAGES)
    rules = Rules(older_than, keep_size)
    return plan_removals(
        workspace, items, find_needs(workspace, dropped), rules, now or datetime.now(UTC)
    )


def going(plan):
    return [removal.item.path.name for removal in plan.removals]


def staying(plan):
    return {removal.item.path.name: removal.reason for removal in plan.kept}


def make_aged(workspace, name, days, stage="labels"):
    """An artifact whose record says that it was made so many days ago."""
    made = make(workspace, stage, name)
    path = workspace.path(made) / RECORD
    told = json.loads(path.read_text("utf-8"))
    told["started"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    path.write_text(json.dumps(told), "utf-8")
    return made


def test_what_no_run_needs_goes_the_oldest_first_and_what_is_young_stays(workspace):
    used, old, older, young = (
        make_aged(workspace, name, days)
        for name, days in [("used", 90), ("old", 20), ("older", 30), ("young", 9)]
    )
    workspace.link("main", "labels", used)
    planned = plan(workspace, older_than=10)
    assert going(planned) == [older.key, old.key]
    assert [removal.reason for removal in planned.removals] == [
        "no run needs it, made 30 days ago", "no run needs it, made 20 days ago",
    ]  # fmt: skip
    assert staying(planned) == {young.key: "younger than 10 days"}


def test_age_is_what_the_record_says_and_the_future_is_new(workspace):
    copied, future = make_aged(workspace, "copied", 40), make_aged(workspace, "future", -40)
    os.utime(workspace.path(copied) / MANIFEST)  # written again just now
    no_record = make(workspace, "labels", "no record")
    (workspace.path(no_record) / RECORD).unlink()  # which makes it damaged
    planned = plan(workspace, older_than=1)
    assert set(going(planned)) == {copied.key, no_record.key}
    assert staying(planned).keys() == {future.key}


def test_keep_size_lets_go_no_more_than_it_takes(workspace):
    made = [make_aged(workspace, str(days), days) for days in (30, 20, 10)]
    size = plan(workspace).size
    one = survey(workspace, STAGES)[-1].size
    planned = plan(workspace, keep_size=size - one - 1)
    assert going(planned) == [made[0].key, made[1].key]
    assert staying(planned) == {made[2].key: "the workspace is small enough with it"}
    assert planned.freed == 2 * one
    assert going(plan(workspace, keep_size=size)) == []


def test_leftovers_go_first_whatever_their_age_and_resume_points_by_age(workspace):
    make_aged(workspace, "old", 30)
    batch = workspace.state / "batches" / f"{'a' * 32}-{'b' * 32}.json"
    resume = workspace.state / "training" / ("c" * 32) / "resume"
    for path in (batch, resume):
        path.parent.mkdir(parents=True)
        path.write_text("x", "utf-8")
    planned = plan(workspace, older_than=5)
    assert going(planned)[0] == batch.name
    assert staying(planned) == {"c" * 32: "younger than 5 days"}
    later = datetime.now(UTC) + timedelta(days=6)
    assert going(plan(workspace, older_than=5, now=later))[-1] == "c" * 32


def test_damaged_and_needed_stays_and_damaged_and_unneeded_goes_at_once(workspace):
    needed, unneeded = make(workspace, "labels", "needed"), make(workspace, "labels", "unneeded")
    workspace.link("main", "labels", needed)
    for made in (needed, unneeded):
        (workspace.path(made) / MANIFEST).write_text("{", "utf-8")
    planned = plan(workspace, older_than=100)
    assert going(planned) == [unneeded.key]
    assert planned.removals[0].reason == "no run needs it, and it is damaged"
    assert len(find_needs(workspace).doubts) == 1


def test_an_artifact_that_holds_what_no_stage_has_written_stays(workspace, tmp_path):
    (tmp_path / "outside").write_text("mine", "utf-8")
    linked, noted = make(workspace, "labels", "linked"), make(workspace, "labels", "noted")
    (workspace.path(linked) / "link").symlink_to(tmp_path / "outside")
    (workspace.path(noted) / "notes.txt").write_text("mine", "utf-8")
    assert staying(plan(workspace)) == {
        linked.key: "it holds link, which no stage has written",
        noted.key: "it holds notes.txt, which no stage has written",
    }


def test_remove_leaves_all_that_is_needed_and_all_that_is_foreign(workspace, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "film.dcm").write_bytes(b"raw")
    used, unused = make_pool(workspace, "used", ["1"]), make_pool(workspace, "unused", ["2"])
    table = make_shards(workspace, "table", [used])
    workspace.link("main", "shards", table)
    (workspace.root / "labels").mkdir()
    (workspace.root / "labels" / ("a" * 32)).symlink_to(outside)
    (workspace.root / "training").symlink_to(outside)
    (workspace.root / "notes.txt").write_text("mine", "utf-8")
    before = {path for path in workspace.root.rglob("*") if unused.key not in str(path)}
    with alone(workspace):
        gone = [removal.item.reference for removal in remove(workspace, plan(workspace))]
    assert gone == [unused]
    assert not workspace.path(unused).exists()
    after = {path for path in workspace.root.rglob("*") if unused.key not in str(path)}
    assert after == before | {workspace.in_use_file}
    assert (outside / "film.dcm").read_bytes() == b"raw"
    assert workspace.find(table, hashed=True) is not None


def test_planning_writes_nothing(workspace):
    make(workspace, "labels", "one")
    before = snapshot(workspace.root)
    assert len(plan(workspace).removals) == 1
    assert snapshot(workspace.root) == before


def test_nothing_is_deleted_while_a_process_uses_the_workspace(workspace):
    make(workspace, "labels", "one")
    with started(workspace.root) as user:
        with pytest.raises(ArtifactError, match="got a run or another command"), alone(workspace):
            pass
        user.kill()
    with alone(workspace):  # a lock dies with its process
        pass


def test_nothing_is_deleted_while_a_child_that_outlived_its_run_holds_a_key(workspace):
    made = make(workspace, "training", "one")
    with started(workspace.root, made.stage, made.key) as child:
        assert staying(plan(workspace)) == {made.key: "another process is making it"}
        with pytest.raises(ArtifactError, match=f"a process that is making {made}"):  # noqa: SIM117
            with alone(workspace):
                pass
        child.kill()


def test_what_is_locked_between_plan_and_removal_stays_and_is_told(workspace, caplog):
    first, second = make_aged(workspace, "first", 2), make_aged(workspace, "second", 1)
    planned = plan(workspace)
    with started(workspace.root, first.stage, first.key) as other:
        gone = [removal.item.reference for removal in remove(workspace, planned)]
        other.kill()
    assert gone == [second]
    assert workspace.find(first) is not None
    assert f"{first} stays: another process is making it" in caplog.text


def test_a_link_made_between_plan_and_removal_ends_it(workspace, caplog):
    caplog.set_level(logging.WARNING)
    make_aged(workspace, "first", 2)
    second = make_aged(workspace, "second", 1)
    removals = remove(workspace, plan(workspace))
    next(removals)
    workspace.link("main", "labels", second)
    with pytest.raises(ArtifactError, match="expected the links of all runs to stay"):
        next(removals)
    assert workspace.find(second) is not None


def test_a_removal_that_is_cut_short_leaves_nothing_that_looks_whole(workspace, monkeypatch):
    made = make(workspace, "labels", "one")

    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk, alone(workspace):
        disk.setattr(shutil, "rmtree", fail)
        with pytest.raises(OSError, match="Input/output error"):
            list(remove(workspace, plan(workspace)))
    assert not workspace.path(made).exists()
    assert going(plan(workspace)) == [made.key]  # aside, and a leftover now
    with alone(workspace):
        list(remove(workspace, plan(workspace)))
    assert going(plan(workspace)) == []
    assert not (workspace.state / "labels" / made.key).exists()


def test_a_link_to_an_artifact_that_is_missing_is_no_reason_to_delete_another(workspace):
    workspace.link("main", "labels", reference("labels", "missing"))
    unneeded = make(workspace, "labels", "unneeded")
    assert going(plan(workspace)) == [unneeded.key]
