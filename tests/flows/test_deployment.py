"""The README's schedule: a real server, a real worker, the deployment of prefect.yaml."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))

pytestmark = pytest.mark.e2e


@pytest.fixture
def prefect(tmp_path):
    """A server with a database of its own; runs `prefect ARGUMENTS` against it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    started = []

    def start(*arguments):
        log = (tmp_path / f"{arguments[0]}.log").open("w")
        started.append(
            subprocess.Popen(
                [PREFECT, *arguments], env=environment, cwd=tmp_path, stdout=log,
                stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
        log.close()

    def run(*arguments):
        done = subprocess.run(
            [PREFECT, *arguments], env=environment, cwd=PROJECT, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    start("server", "start", "--host", "127.0.0.1", "--port", str(port))
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
    run.start, run.url = start, url
    yield run
    for process in reversed(started):
        process.terminate()
    for process in reversed(started):
        process.wait(240)  # a busy machine ends a worker slowly


def ask(url):
    """What the API answers to a filter that lets all through."""
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def states(url):
    """The name and state of every task run."""
    return sorted((run["name"], run["state"]["name"]) for run in ask(f"{url}/task_runs/filter"))


CONFIG = {"shards": {"image_size": 32}, "split": {"val_fraction": 0.25, "test_fraction": 0.25}}


def test_the_deployment_runs_on_a_worker_and_its_second_run_is_cached(prefect, finished, tmp_path):
    copy = finished.copy(tmp_path)
    prefect("work-pool", "create", "cpu", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    prefect.start("worker", "start", "--pool", "cpu")
    asked = [
        "-p", f"raw={copy.raw}", "-p", f"workspace={tmp_path / 'served'}", "-p", "until=split",
        "-p", f"config={json.dumps(CONFIG)}",
    ]  # fmt: skip
    stages = {"labels", "shards", "split"}
    for expected in ("Completed", "Cached"):
        prefect("deployment", "run", "pipeline/rsna", *asked, "--watch")
        assert {(stage, expected) for stage in stages} <= set(states(prefect.url))
    assert (tmp_path / "served" / "runs" / "main" / "split" / "split.csv").exists()
    lines = [line["message"].split() for line in ask(f"{prefect.url}/logs/filter")]
    told = {(words[0], words[1]) for words in lines if len(words) > 1}
    assert {(stage, state) for stage in stages for state in ("ran", "cached")} <= told


def test_a_wrong_setting_is_refused_before_a_run_is_made(prefect):
    prefect("work-pool", "create", "cpu", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    with pytest.raises(AssertionError, match="epochs"):
        prefect("deployment", "run", "pipeline/rsna", "-p", 'config={"training": {"epochs": 0}}')
    assert states(prefect.url) == []
