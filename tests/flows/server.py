"""A real Prefect server with workers, in a folder of its own, for the tests of operation."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))

MARK = "PNEUMONIA_OPERATION_TEST"
"""In the environment of every process of a server or a worker, so that none is overlooked."""

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds=240, told=lambda: ""):
    """Wait for something to be true; what it was in the end."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for nothing: {told()}"
        time.sleep(0.1)
    return found


def processes(mark, words=""):
    """Ids and command lines of what lives with this `NAME=value` in its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if alive and mark.encode() in environment and words in line:
            found[int(folder.name)] = line
    return found


class Server:
    """A server, its database, the deployments of prefect.yaml, and workers; all end with it."""

    def __init__(self, folder, **environment):
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_UI_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",  # as for anyone; quiet in tests else
            MARK: str(folder),
            **environment,
        }
        self.started = []

    def start(self):
        """Start the server (again, on the same port and database) and wait until it answers."""
        arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        process = self._start("server", *arguments)
        wait_until(self._answers, 120, (self.folder / "server.log").read_text)
        return process

    def deploy(self):
        """Make pools and deployments; their schedules rest: only runs of the tests are made."""
        for pool in ("cpu", "gpu"):
            self.prefect("work-pool", "create", pool, "--type", "process")
        self.prefect("--no-prompt", "deploy", "--all")
        for deployment in self.ask("/deployments/filter", {}):
            for schedule in deployment["schedules"]:
                path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
                self.ask(path, {"active": False}, "PATCH")

    def worker(self, pool, name, *, limit=None):
        """Start a worker and wait until the server has heard of it."""
        limited = ["--limit", str(limit)] if limit else []
        process = self._start(name, "worker", "start", "--pool", pool, "--name", name, *limited)

        def heard():
            found = self.ask(f"/work_pools/{pool}/workers/filter", {})
            return any(one["name"] == name and one["status"] == "ONLINE" for one in found)

        wait_until(heard, 120, (self.folder / f"{name}.log").read_text)
        return process

    def prefect(self, *arguments, status=0):
        """What `prefect ARGUMENTS` prints; it must end with this status."""
        return self.run(PREFECT, *arguments, status=status)

    def run(self, *command, status=0):
        """What a command that knows this server prints; it must end with this status."""
        done = subprocess.run(
            command, env=self.environment, cwd=PROJECT, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def send(self, deployment, **parameters):
        """`prefect deployment run`; returns the flow run's id."""
        words = []
        for name, value in parameters.items():
            plain = isinstance(value, (str, Path))
            words += ["-p", f"{name}={value if plain else json.dumps(value)}"]
        told = self.prefect("deployment", "run", deployment, *words)
        return next(line.split()[-1] for line in told.splitlines() if "UUID" in line)

    def ended(self, run):
        """The flow run with this id, once it has ended."""

        def final():
            found = self.flow_run(run)
            return found if found["state"]["type"] in FINAL else None

        return wait_until(final, 600, lambda: self.flow_run(run)["state"])

    def carry_out(self, deployment, **parameters):
        """Send a run and wait for its end."""
        return self.ended(self.send(deployment, **parameters))

    def flow_run(self, run):
        return self.ask(f"/flow_runs/{run}")

    def executed(self, run):
        """Whether the worker has done with a flow run: its last event of it is there."""
        event = {"name": ["prefect.worker.executed-flow-run"]}
        related = {"id": [f"prefect.flow-run.{run}"]}
        asked = {"filter": {"event": event, "related": related}}
        return bool(self.ask("/events/filter", asked)["events"])

    def children(self, run):
        """The flow runs that a flow run has started, by name."""
        found = self.ask(
            "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        )
        return {child["name"]: child for child in found}

    def task_states(self, run):
        """Names and states of a flow run's task runs."""
        found = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return {task["name"]: task["state"]["name"] for task in found}

    def seconds_running(self, run):
        """From the first state Running to the end."""
        states = self.ask(f"/flow_run_states/?flow_run_id={run}")
        first = next(state for state in states if state["name"] == "Running")
        return moment(states[-1]["timestamp"]) - moment(first["timestamp"])

    def logs(self, run):
        """The messages of a flow run."""
        asked = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.ask("/logs/filter", asked)]

    def ask(self, path, body=None, method=None):
        """What the API answers to a GET, or to a POST of this body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def processes(self, words=""):
        return processes(f"{MARK}={self.folder}", words)

    def end(self):
        """End all that was started here, and what that has started."""
        for process in reversed(self.started):
            process.terminate()
        for process in reversed(self.started):
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in self.processes():
            os.kill(left, signal.SIGKILL)

    def _answers(self):
        try:
            self.ask("/health")
        except OSError:
            return False
        return True

    def _start(self, name, *arguments):
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [PREFECT, *arguments], env=self.environment, cwd=self.folder, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process


@contextmanager
def served(folder):
    """A server with deployments and a worker of the pool `cpu` that looks for work each second."""
    server = Server(folder, PREFECT_WORKER_QUERY_SECONDS="1")
    try:
        server.process = server.start()
        server.deploy()
        server.worker("cpu", "cpu-1")
        yield server
    finally:
        server.end()


def moment(timestamp):
    """Seconds since 1970 of a timestamp of the API."""
    from datetime import datetime

    return datetime.fromisoformat(timestamp).timestamp()
