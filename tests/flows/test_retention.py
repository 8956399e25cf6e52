"""`gc`, `pin` and `status --disk` on a finished run, and beside a run that is at work."""

import contextvars
import json
import logging
import os
import signal
import subprocess
import sys
import threading

import pandas as pd
import pytest
from workspaces import snapshot

from pneumonia.locks import hold
from pneumonia.workspace import Workspace

NOW = ("--older-than", "0")
SETTINGS = [
    "--models", "custom_cnn",
    "--set", "shards.image_size=32", "--set", "shards.images_per_shard=64",
    "--set", "split.val_fraction=0.25", "--set", "split.test_fraction=0.25",
    "--set", "training.weights=none", "--set", "evaluation.n_resamples=50",
    "--set", "cam.n_images=4",
]  # fmt: skip
EXPERIMENT = {"training.learning_rate": 0.01}


def ran(told):
    return {name for name, (state, _) in told.items() if state == "ran"}


def results(pipeline, run="main"):
    """Per link of a run, the key and the digests of the files that it stands for."""
    found = {}
    for link in sorted((pipeline.workspace / "runs" / run).iterdir()):
        manifest = json.loads((link / "manifest.json").read_text("utf-8"))
        found[link.name] = (manifest["key"], manifest["files"])
    return found


def keys(workspace):
    return set(Workspace(workspace).references())


@pytest.mark.slow
def test_a_dropped_experiment_goes_and_the_other_run_stays_cached(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    before, kept = results(copy), keys(copy.workspace)
    copy.run(EXPERIMENT, run="lr")
    made = results(copy, "lr")
    asked = ["gc", "--workspace", copy.workspace, *NOW, "--drop-run", "lr"]
    whole = snapshot(copy.workspace)
    dry = command(*asked)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert snapshot(copy.workspace) == whole
    assert "run lr: would be dropped" in dry.stdout
    assert dry.stdout.splitlines()[-1].endswith("Nothing was touched; add --delete to do it.")
    done = command(*asked, "--drop-run", "lr", "--delete")  # said twice, done once
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("run lr: dropped") == 1
    assert keys(copy.workspace) == kept
    freed = int(done.stdout.split("Deleted: ")[1].split()[0].replace(",", ""))
    assert f"Would be deleted: {freed:,} of" in dry.stdout
    assert ran(copy.run()) == set()
    assert results(copy) == before
    again = copy.run(EXPERIMENT, run="lr")
    assert ran(again) == {
        "training-custom_cnn", "predictions-custom_cnn", "evaluation", "cam-custom_cnn", "report",
    }  # fmt: skip
    assert results(copy, "lr") == made


@pytest.mark.slow
def test_a_pinned_checkpoint_outlives_its_run(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    copy.run(EXPERIMENT, run="lr", until="training")
    training = copy.linked("training-custom_cnn", "lr")
    name = f"training/{training.name[:8]}"
    pinned = command("pin", name, "--workspace", copy.workspace)
    assert (pinned.returncode, pinned.stdout) == (0, f"{name}: pinned\n")
    drop = ["gc", "--workspace", copy.workspace, *NOW, "--delete"]
    assert command(*drop, "--drop-run", "lr").returncode == 0
    assert training.is_dir()
    assert ran(copy.run(EXPERIMENT, run="again", until="training")) == set()
    assert command(*drop, "--drop-run", "again").returncode == 0
    assert command("unpin", name, "--workspace", copy.workspace).returncode == 0
    assert name in command(*drop).stdout
    assert not training.exists()


@pytest.mark.slow
def test_a_shard_of_nothing_but_a_refused_file_is_kept(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    (copy.raw / "stage_2_train_images" / "broken.dcm").write_bytes(b"\0" * 2000)
    settings = {"shards.max_quarantined": 0.5, "shards.quiet_seconds": 0}
    told = copy.run(settings, until="shards")
    assert ran(told) == {"pool", "shards"}
    quarantine = pd.read_parquet(copy.linked("shards") / "quarantine.parquet")
    assert quarantine["file"].tolist() == ["broken.dcm"]
    done = command("gc", "--workspace", copy.workspace, *NOW, "--delete")
    assert done.returncode == 0, done.stderr
    assert ran(copy.run(settings, until="shards")) == set()


@pytest.mark.slow
def test_nothing_is_deleted_while_a_run_is_at_work(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    asked = ["run", "--raw", copy.raw, "--workspace", copy.workspace, *SETTINGS, "--run", "long",
             "--set", "training.epochs=500", "--set", "training.patience=500"]  # fmt: skip
    whole = keys(copy.workspace)
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, asked)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        cwd=tmp_path,
    ) as run:  # fmt: skip
        try:
            assert any(" epoch " in line for line in run.stdout)
            refused = command("gc", "--workspace", copy.workspace, *NOW, "--delete")
            assert refused.returncode == 1
            assert "expected nobody at work in the workspace, got a run" in refused.stderr
            assert keys(copy.workspace) == whole
            listed = command("gc", "--workspace", copy.workspace, *NOW)
            assert listed.returncode == 0, listed.stderr
            assert "another process is making it" in listed.stdout
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    done = command("gc", "--workspace", copy.workspace, *NOW, "--delete")
    assert done.returncode == 0, done.stderr
    assert "a resume point, written today" in done.stdout
    assert ran(copy.run()) == set()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["predict", "none.dcm", "--model", "custom_cnn", "--out", "out.csv"], 2),
        (["compare", "main", "other"], 2),
        (["evaluate", "--raw", "none", "--model", "custom_cnn", "--out", "external"], 2),
        (["verify"], 0),
        (["status", "--disk"], 0),
        (["gc"], 0),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_a_command_that_reads_waits_for_gc(finished, tmp_path, arguments, status):
    copy = finished.copy(tmp_path)
    asked = [*arguments, "--workspace", copy.workspace]
    with hold(Workspace(copy.workspace).in_use_file, "never waited for"):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *map(str, asked)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert waiting.stdout.readline().startswith("Waiting for `pneumonia gc`")
        assert waiting.poll() is None
    waiting.communicate(timeout=120)
    assert waiting.returncode == status


def _of_pipeline(copy):
    return copy.run()


def _of_one_stage(copy):
    from flows.single import labels

    return labels(raw=copy.raw, workspace=copy.workspace, models=("custom_cnn",))


class Waited(logging.Handler):
    """Says when a line about waiting for `gc` has come."""

    def __init__(self):
        super().__init__()
        self.came = threading.Event()

    def emit(self, record):
        if "Waiting for `pneumonia gc`" in record.getMessage():
            self.came.set()


@pytest.mark.parametrize("flow", [_of_pipeline, _of_one_stage])
def test_a_flow_waits_for_gc_and_then_goes_on(finished, tmp_path, flow):
    copy, waited, ended = finished.copy(tmp_path), Waited(), []
    logger = logging.getLogger("pneumonia.locks")
    logger.addHandler(waited)
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: ended.append(context.run(flow, copy)))
    try:
        with hold(Workspace(copy.workspace).in_use_file, "never waited for"):
            thread.start()
            assert waited.came.wait(120)
            assert ended == []
        thread.join(120)
    finally:
        logger.removeHandler(waited)
    assert len(ended) == 1


def test_status_of_the_disk_adds_up_and_writes_nothing(finished, tmp_path, command):
    copy = finished.copy(tmp_path)
    (copy.workspace / "notes.txt").write_bytes(b"x" * 1000)
    before = snapshot(copy.workspace)
    done = command("status", "--workspace", copy.workspace, "--disk")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(copy.workspace) == before
    rows = [line.rsplit(maxsplit=4) for line in done.stdout.splitlines()[1:-1]]
    table = {name.strip(): [int(n.replace(",", "")) for n in rest] for name, *rest in rows}
    total = table.pop("total")
    assert total == [sum(column) for column in zip(*table.values(), strict=True)]
    on_disk = [p.lstat().st_size for p in copy.workspace.rglob("*")
               if p.is_symlink() or not p.is_dir()]  # fmt: skip
    assert total[3] == sum(on_disk)
    assert total[0] >= 8
    assert table["unknown files"] == [1, 0, 1000, 1000]
    assert table["training"][2] == 0
    assert done.stdout.splitlines()[-1].startswith("run main ")


def test_what_is_no_workspace_is_refused_and_stays_as_it_was(tmp_path, command):
    (tmp_path / "file").write_bytes(b"mine")
    for arguments in (
        ["gc", "--delete", *NOW], ["status", "--disk"], ["pin", "labels/" + "a" * 32],
        ["unpin", "labels/" + "a" * 32],
    ):  # fmt: skip
        done = command(*arguments, "--workspace", tmp_path)
        assert done.returncode == 2
        assert "--workspace: expected a workspace, got" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_wrong_amounts_and_unknown_runs_are_refused(finished, command):
    for amount in ("x", "-1", "nan", "inf"):
        done = command("gc", "--workspace", finished.workspace, f"--older-than={amount}")
        assert done.returncode == 2
        assert "expected a number of at least 0" in done.stderr
    unknown = command("gc", "--workspace", finished.workspace, "--drop-run", "nobody", "--delete")
    assert unknown.returncode == 2
    assert "expected one of its runs (main), got 'nobody'" in unknown.stderr
    bare = command("status", "--workspace", finished.workspace)
    assert bare.returncode == 2
    assert "expected --raw DIR, or --disk" in bare.stderr
