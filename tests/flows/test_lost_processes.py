"""Processes of a served run that are killed with -9 in the middle of training."""

import os
import signal

import pandas as pd
import pytest
from server import served, wait_until

pytestmark = pytest.mark.e2e

EPOCHS = 60
"""Enough that the training is still at work when the second epoch is on the disk."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("lost")) as server:
        yield server


@pytest.fixture
def asked(finished, tmp_path, small):
    copy = finished.copy(tmp_path)
    training = {**small["training"], "epochs": EPOCHS, "patience": EPOCHS}
    return {
        "raw": copy.raw,
        "workspace": copy.workspace,
        "models": ["custom_cnn"],
        "until": "training",
        "config": {**small, "training": training},
    }


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    """The weights and the history of the same training, left in peace."""
    pipeline = finished.copy(tmp_path_factory.mktemp("undisturbed"))
    pipeline.run(
        {"training.epochs": EPOCHS, "training.patience": EPOCHS},
        until="training",
    )
    return ended_as(pipeline.workspace)


def ended_as(workspace):
    """What a training has come to: the bytes of its weights, and its epochs."""
    training = workspace / "runs" / "main" / "training-custom_cnn"
    history = pd.read_csv(training / "history.csv")
    return (training / "checkpoint.ckpt").read_bytes(), history.to_dict("list")


def wait_for_the_second_epoch(workspace):
    wait_until(lambda: list(workspace.glob(".state/training/*/resume/resume.previous.ckpt")))


def kill(server, words):
    """Kill the processes with these words in their command line."""
    for process in server.processes(words):
        os.kill(process, signal.SIGKILL)


def went_on(server, run):
    """Whether its last training began behind the first epoch."""
    told = [line for line in server.logs(run) if line.startswith("Training custom_cnn on")]
    return bool(told) and "from epoch 1," not in told[-1]  # a killed process took lines along


def retry(server, run):
    """Retry a crashed run, which has to complete from where it was."""
    server.prefect("flow-run", "retry", run)
    wait_until(lambda: server.flow_run(run)["state"]["type"] != "CRASHED")
    assert server.ended(run)["state"]["type"] == "COMPLETED"
    wait_until(lambda: went_on(server, run), 30)


def test_a_killed_flow_is_crashed_and_its_retry_goes_on_from_the_last_epoch(
    server, asked, undisturbed
):
    run = server.send("pipeline/rsna", **asked)
    wait_for_the_second_epoch(asked["workspace"])
    kill(server, "prefect.engine")
    assert server.ended(run)["state"]["type"] == "CRASHED"
    wait_until(lambda: not server.processes("pneumonia.training"), 15)
    wait_until(lambda: server.executed(run), 60)  # it reports the crash a second time until then
    retry(server, run)
    assert ended_as(asked["workspace"]) == undisturbed


def test_a_killed_worker_takes_its_flow_along_and_another_worker_goes_on(
    server, asked, undisturbed
):
    """The flow's next line goes nowhere, which ends it."""
    run = server.send("pipeline/rsna", **asked)
    wait_for_the_second_epoch(asked["workspace"])
    kill(server, "worker start")
    assert server.ended(run)["state"]["type"] == "CRASHED"
    wait_until(lambda: not server.processes("pneumonia.training"), 15)
    server.worker("cpu", "cpu-2")
    retry(server, run)
    assert ended_as(asked["workspace"]) == undisturbed


def test_a_run_outlives_its_server(server, asked, undisturbed):
    run = server.send("pipeline/rsna", **asked)
    wait_for_the_second_epoch(asked["workspace"])
    server.process.kill()
    server.process.wait()
    server.process = server.start()
    assert server.ended(run)["state"]["type"] == "COMPLETED"
    assert ended_as(asked["workspace"]) == undisturbed
