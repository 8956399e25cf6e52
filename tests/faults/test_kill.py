"""Runs that are killed with -9 or told to end, for real, and what the next run makes of it."""

import random
import re
import shutil
import signal
import subprocess
import time

import pytest
from harness import finish, processes_of, read_until, results, start, states, wait_until

pytestmark = pytest.mark.e2e

LONG = ["--set", "training.epochs=500", "--set", "training.patience=500"]
"""A training that is still at work when a signal comes."""


def test_killed_at_random_moments_the_next_run_ends_the_same(faults, tmp_path, long, seed):
    chance = random.Random(seed)  # noqa: S311 (no secret)
    clock = time.monotonic()
    faults.ends_equal("undisturbed run", tmp_path / "whole")
    whole = time.monotonic() - clock
    for number in range(20 if long else 4):
        which = (signal.SIGKILL, signal.SIGTERM)[number % 2]
        workspace, moment = tmp_path / f"{number}", chance.uniform(0, whole)
        process = faults.start(workspace)
        try:
            told, _ = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(which)
            told = finish(process)
        fault = f"{which.name} at a random moment"
        faults.ends_equal(fault, workspace, told=f"{moment:.1f} s of {whole:.1f} s: {told}")


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


def test_two_runs_at_once_make_every_stage_once(faults, tmp_path):
    workspace = tmp_path / "workspace"
    both = [faults.start(workspace), faults.start(workspace)]
    outputs = [finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    shards = [re.search(r"([\d,]+) new images in (\d+) pool shards", text) for text in outputs]
    assert sum(int(found[1]) for found in shards if found) == 160, outputs
    assert sum(int(found[2]) for found in shards if found) == 3, outputs
    told = [states(output) for output in outputs]
    for name in set(told[0]) - {"pool"}:
        assert sorted(states[name] for states in told) == ["cached", "ran"], (name, outputs)
    faults.is_equal("two runs at once", workspace, 0, str(outputs))
    faults.tally.append(("two runs at once", "equal"))


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
