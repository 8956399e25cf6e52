"""Runs that are killed with -9, for real, and what the next run makes of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "PNEUMONIA_FAULT_TEST"
"""In the environment of every process that a run starts, so that none is overlooked."""

CRASH = Path(__file__).parent / "crash"
SETTINGS = [
    "--models", "custom_cnn",
    "--set", "shards.image_size=32", "--set", "shards.images_per_shard=64",
    "--set", "split.val_fraction=0.25", "--set", "split.test_fraction=0.25",
    "--set", "training.weights=none", "--set", "training.epochs=1",
    "--set", "evaluation.n_resamples=50", "--set", "cam.n_images=4",
]  # fmt: skip


LONG = ["--set", "training.epochs=500", "--set", "training.patience=500"]
"""A training that is still at work when a signal comes."""


def start(raw, workspace, *more, **environment):
    """`pneumonia run` as a process that leads a group of its own, with its own Prefect API."""
    asked = ["run", "--raw", raw, "--workspace", workspace, *SETTINGS, *more]
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *asked],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=inherited | {MARK: str(workspace)} | environment,
    )  # fmt: skip


def read_until(process, words):
    """The lines that a run prints, up to the first that holds `words`."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came: {seen}")


def finish(process):
    output, _ = process.communicate(timeout=300)
    return output


def states(output):
    """The state of each stage that a run told of."""
    lines = [line.split() for line in output.splitlines()]
    return {words[0]: words[1] for words in lines if words[1:] and words[1] in {"ran", "cached"}}


def results(workspace):
    """Per artifact that the run uses, the digests of its files."""
    found = {}
    for link in sorted((workspace / "runs" / "main").iterdir()):
        manifest = json.loads((link / "manifest.json").read_text("utf-8"))
        found[link.name] = (manifest["key"], manifest["files"])
    return found


def processes_of(workspace):
    """Command lines of the living processes that a run on this workspace has started."""
    mark = f"{MARK}={workspace}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if alive and mark in environment:
            found.append(line)
    return found


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


# Work, the rename that publishes, and the link of every stage, and a shard half written.
POINTS = [
    r"open \S+/\.state/labels/\w+/output/boxes",
    r"os\.rename \S+/\.state/labels/",
    r"open \S+/\.state/pool/\w+/output/rows",
    r"os\.rename \S+/\.state/pool/",
    r"os\.rename \S+/\.state/shards/",
    r"os\.symlink \S+ \S+/\.state/links/main-shards",
    r"os\.rename \S+/\.state/split/",
    r"os\.rename \S+/\.state/training/\w+/output ",  # the parent; its child renames resume points
    r"open \S+/\.state/predictions/\w+/output/operating_points",
    r"os\.rename \S+/\.state/evaluation/",
    r"open \S+/\.state/cam/\w+/output/cam\.json",
    r"os\.rename \S+/\.state/report/",
    r"os\.rename \S+/\.state/links/main-report",
]


def test_killed_at_every_stage_a_run_goes_on_and_ends_the_same(finished, tmp_path):
    workspace = tmp_path / "workspace"
    done = set()
    for number, point in enumerate(POINTS):
        crash = {
            "PYTHONPATH": str(CRASH), "CRASH_AT": point, "CRASH_ONCE": str(tmp_path / f"{number}"),
        }  # fmt: skip
        killed = start(finished.raw, workspace, **crash)
        output = finish(killed)
        assert killed.returncode == -signal.SIGKILL, f"{point}: {output}"
        told = states(output)
        assert {name for name in done if told.get(name) == "ran"} == set(), f"{point}: {output}"
        done |= {name for name in told if name != "pool"}
        assert wait_until(lambda: not processes_of(workspace)), processes_of(workspace)
    last = start(finished.raw, workspace)
    output = finish(last)
    assert last.returncode == 0, output
    assert results(workspace) == results(finished.workspace)


def test_killed_while_training_no_process_is_left_and_the_next_run_ends_the_same(
    finished, tmp_path
):
    workspace = tmp_path / "workspace"
    shutil.copytree(finished.workspace, workspace, symlinks=True)
    for stage in ("training", "predictions", "evaluation", "cam", "report"):
        shutil.rmtree(workspace / stage)
    killed = start(finished.raw, workspace, *LONG)
    seen = read_until(killed, "epoch 1 of")
    assert any("pneumonia.training" in line for line in processes_of(workspace)), seen
    assert any("flows.embedded" in line for line in processes_of(workspace)), seen
    killed.kill()
    killed.communicate()
    assert wait_until(lambda: not processes_of(workspace)), processes_of(workspace)
    last = start(finished.raw, workspace)
    output = finish(last)
    assert last.returncode == 0, output
    assert states(output)["split"] == "cached"
    assert results(workspace) == results(finished.workspace)


def test_two_runs_at_once_make_every_stage_once(finished, tmp_path):
    workspace = tmp_path / "workspace"
    both = [start(finished.raw, workspace), start(finished.raw, workspace)]
    outputs = [finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    shards = [re.search(r"([\d,]+) new images in (\d+) pool shards", text) for text in outputs]
    assert sum(int(found[1]) for found in shards if found) == 160, outputs
    assert sum(int(found[2]) for found in shards if found) == 3, outputs
    told = [states(output) for output in outputs]
    for name in set(told[0]) - {"pool"}:
        assert sorted(states[name] for states in told) == ["cached", "ran"], (name, outputs)
    assert results(workspace) == results(finished.workspace)


def test_an_interrupted_run_ends_its_child_and_says_how_to_go_on(finished, tmp_path):
    workspace = tmp_path / "workspace"
    shutil.copytree(finished.workspace, workspace, symlinks=True)
    shutil.rmtree(workspace / "training")
    process = start(finished.raw, workspace, *LONG)
    seen = read_until(process, "epoch 1 of")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, [*seen, rest]
    assert "nothing finished is lost" in rest
    assert wait_until(lambda: not processes_of(workspace)), processes_of(workspace)
