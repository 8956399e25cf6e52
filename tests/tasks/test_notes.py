"""Notes and progress in a real Prefect API, and what happens where it is gone."""

import json
import logging
import re
import socket
from contextvars import copy_context

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.context import SyncClientContext
from prefect.settings import PREFECT_API_URL, temporary_settings

from pneumonia.artifacts import Reference
from pneumonia.errors import ShardError
from pneumonia.notes import Note
from tasks.notes import key_of, leave, progress
from tasks.report import SERVED, page_address

pytestmark = pytest.mark.usefixtures("prefect_server")

REFERENCE = Reference("labels", "0123")
EPOCH = {"epoch": 2, "val_loss": 0.4321, "val_auroc": 0.8765}


def artifacts():
    """Of every key the newest."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(limit=200)
    newest = {}
    for artifact in sorted(found, key=lambda each: each.created):
        newest[artifact.key] = artifact
    newest.pop(None, None)  # Prefect keeps some of its own without a key
    return newest


def in_a_task(work):
    """Do some work within a task of a flow."""

    @task(name="noted")
    def noted():
        work()

    @flow(name="noted")
    def run_one():
        noted()

    run_one()


def leave_one(run, write, reason="first run"):
    leave(("labels", run), "half a line", REFERENCE, reason, write)


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("training", "main", "resnet18-seed1"), "training-main-resnet18-seed1"),
        (("training", "My_run.2", "-custom_cnn", "x"), "training-my-run-2-custom-cnn-x"),
        (("labels", "main", ""), "labels-main"),
        (("labels", "_x_", ""), "labels-x"),
    ],
)  # fmt: skip
def test_a_key_is_of_lower_case_and_single_dashes(names, key):
    assert key_of(*names) == key


def test_every_kind_of_artifact_is_kept():
    note = Note(
        "# Told",
        tables={"answer": [{"a": "1"}]},
        pictures={"first": "data:image/png;base64,AA=="},
        links={"page": "http://127.0.0.1:1/main/"},
    )
    in_a_task(lambda: leave_one("kinds", lambda: note, "a|b changed"))
    kept = artifacts()
    markdown = kept["labels-kinds"]
    assert (markdown.type, markdown.description) == ("markdown", "half a line")
    assert markdown.data == ("# Told\n\n`labels/0123` in the workspace. Why it ran: a\\|b changed.")
    assert json.loads(kept["labels-kinds-answer"].data) == [{"a": "1"}]
    assert kept["labels-kinds-first"].data == "data:image/png;base64,AA=="
    assert "http://127.0.0.1:1/main/" in kept["labels-kinds-page"].data


def test_outside_of_a_task_no_note_is_written():
    leave_one("nowhere", lambda: pytest.fail("written"))
    assert "labels-nowhere" not in artifacts()


def test_every_stage_of_a_run_leaves_its_note_and_a_cached_run_none(finished, tmp_path):
    copy = finished.copy(tmp_path)
    copy.run(run="Again_1", refresh=frozenset({"labels"}))
    kept = artifacts()
    expected = {
        "labels-main", "shards-main", "split-main", "training-main-custom-cnn",
        "predictions-main-custom-cnn", "evaluation-main", "cam-main-custom-cnn", "report-main",
    }  # fmt: skip
    assert expected <= set(kept)
    assert {kept[key].type for key in expected} == {"markdown"}
    assert all(len(kept[key].description.splitlines()) == 1 for key in expected)
    assert {key for key in kept if "again-1" in key} == {
        "labels-again-1", "report-again-1", "report-again-1-answer",
        "report-again-1-operating-points",
    }  # fmt: skip
    done = kept["training-main-custom-cnn-progress"]
    assert (done.type, float(done.data)) == ("progress", 100.0)
    assert re.fullmatch(
        r"done after epoch 1 of at most 1: val loss [0-9.]+, val AUROC [0-9.]+", done.description
    )


def test_progress_is_live_and_ends_at_100_even_early():
    seen = []

    def train():
        with progress("training-p", 8) as tell:
            seen.append(artifacts()["training-p"])
            tell(EPOCH)
            seen.append(artifacts()["training-p"])

    in_a_task(train)
    seen.append(artifacts()["training-p"])
    assert [float(each.data) for each in seen] == [0.0, 25.0, 100.0]
    last = "epoch 2 of at most 8: val loss 0.432, val AUROC 0.876"
    assert [each.description for each in seen] == [
        "no epoch of at most 8",
        last,
        f"done after {last}",
    ]


def test_a_training_that_fails_stays_where_it_was():
    def train():
        with progress("training-f", 8) as tell:
            tell(EPOCH)
            raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        in_a_task(train)
    assert float(artifacts()["training-f"].data) == 25.0


def test_a_note_that_cannot_be_made_is_told_and_harms_nothing(caplog):
    def write():
        raise ShardError("expected a shard")

    with caplog.at_level(logging.WARNING, logger="tasks.notes"):
        in_a_task(lambda: leave_one("torn", write))
    told = [record.getMessage() for record in caplog.records if record.name == "tasks.notes"]
    assert told == ["labels-torn: the note could not be made: expected a shard"]


def test_an_api_that_is_gone_is_told_once_and_harms_nothing(caplog):
    done = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/api"

        def work():
            SyncClientContext.__var__.set(None)  # the next call opens a client of its own
            with temporary_settings({PREFECT_API_URL: gone}):
                leave_one("gone", lambda: Note("x"))
                with progress("training-gone", 8) as tell:
                    tell(EPOCH)
            done.append(1)

        with caplog.at_level(logging.WARNING, logger="tasks.notes"):
            in_a_task(lambda: copy_context().run(work))
    told = [record.getMessage() for record in caplog.records if record.name == "tasks.notes"]
    assert len(told) == 1
    assert told[0].startswith("Prefect's API: expected it to keep a note, got ConnectError")
    assert done == [1]
    assert not {"labels-gone", "training-gone"} & set(artifacts())


def test_the_page_of_a_run_is_where_the_environment_says(monkeypatch, caplog):
    monkeypatch.delenv(SERVED, raising=False)
    assert page_address("main") == ""
    monkeypatch.setenv(SERVED, "http://127.0.0.1:4280/")
    assert page_address("main") == "http://127.0.0.1:4280/main/"
    assert caplog.messages == []
    monkeypatch.setenv(SERVED, "127.0.0.1:4280")
    assert page_address("main") == ""
    assert "expected the address of a server" in caplog.text
