"""`make serve` for real: from nothing, twice, killed, with a password, with PostgreSQL."""

import base64
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from server import free_port, wait_until

from pneumonia.simulate import simulate

PROJECT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
POSTGRES = Path("/usr/lib/postgresql/15/bin")

START_SECONDS, END_SECONDS = 240, 15
SETTINGS = {"shards": {"image_size": 32}, "split": {"val_fraction": 0.25, "test_fraction": 0.25}}
TWO_GPUS = "0, GPU-a1, NVIDIA H200, 143771, 9.0\n1, GPU-b2, NVIDIA H200, 143771, 9.0\n"

pytestmark = pytest.mark.e2e


def read(file):
    """What a file of /proc holds, nothing where the process has ended."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


class Serving:
    """`python -m flows.serve` with ports, a PREFECT_HOME and a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        port, reports_port = free_port(), free_port()
        self.url, self.reports = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{reports_port}"
        self.marker = f"SERVE_FOLDER={folder / 'serve'}"
        self.environment = {name: value for name, value in os.environ.items() if value} | {
            "PREFECT_HOME": str(folder / "prefect"),
            "SERVE_FOLDER": str(folder / "serve"),
            "WORKSPACE": str(folder / "workspace"),
            "PORT": str(port),
            "REPORTS_PORT": str(reports_port),
            "GPU_WORKERS": "0",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = None

    def call(self, **variables):
        """Begin to serve, without waiting for anything."""
        out, err = ((self.folder / name).open("w") for name in ("out", "err"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"], env=self.environment | variables, cwd=PROJECT,
            stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip
        out.close()
        err.close()
        return self.process

    def start(self, **variables):
        self.call(**variables)
        wait_until(
            lambda: "Ctrl-C stops all." in self.out or self.process.poll() is not None,
            START_SECONDS, self.all_told,
        )  # fmt: skip
        assert self.process.poll() is None, self.all_told()

    @property
    def out(self):
        return (self.folder / "out").read_text("utf-8")

    @property
    def err(self):
        return (self.folder / "err").read_text("utf-8")

    def all_told(self):
        logs = sorted((self.folder / "serve").glob("*.log"))
        return "\n".join([self.out, self.err, *(f"{log}:\n{log.read_text()}" for log in logs)])

    def processes(self):
        """Every living process that stems from it, with its command line."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            if self.marker.encode() in read(place / "environ").split(b"\0"):
                words = read(place / "cmdline").decode().split("\0")
                if words[0]:
                    found[int(place.name)] = " ".join(words).strip()
        return found

    def pid(self, *words):
        """The process of a command, not its keeper, where it is alive."""
        for pid, line in self.processes().items():
            if "flows.keeper" not in line and all(word in line for word in words):
                return pid
        return None

    def ask(self, path, auth=None):
        """What the API answers to a filter that lets all through."""
        headers = {"Content-Type": "application/json"}
        if auth:
            headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
        asked = urllib.request.Request(f"{self.url}/api/{path}", data=b"{}", headers=headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def answers(self):
        try:
            with urllib.request.urlopen(f"{self.url}/api/health", timeout=5) as answer:
                return json.load(answer) is True
        except OSError:
            return False

    def end(self, number=signal.SIGINT):
        """Send a signal; returns the exit status once nothing is left."""
        self.process.send_signal(number)
        self.await_nothing()
        return self.process.wait(END_SECONDS)

    def await_nothing(self):
        def gone():
            self.process.poll()
            return not self.processes()

        wait_until(gone, END_SECONDS, lambda: f"left: {self.processes()}")

    def clean_up(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def serving(tmp_path):
    serving = Serving(tmp_path)
    yield serving
    serving.clean_up()


def names(serving, what, auth=None):
    return sorted(found["name"] for found in serving.ask(f"{what}/filter", auth))


def test_from_nothing_to_all_and_ctrl_c_leaves_nothing(serving, tmp_path):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat <<END\n{TWO_GPUS}END\n")
    tool.chmod(0o755)
    path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    serving.environment.pop("CUDA_VISIBLE_DEVICES", None)
    serving.start(PATH=path, GPU_WORKERS="2")
    assert f"Prefect  {serving.url}\nReports  {serving.reports}\n" in serving.out
    assert names(serving, "work_pools") == ["cpu", "gpu"]
    automations = names(serving, "automations")
    assert automations.count("pneumonia heartbeat") == 1
    deployments = names(serving, "deployments")
    assert deployments
    with urllib.request.urlopen(serving.reports, timeout=30) as answer:
        assert b"There is no workspace" in answer.read()

    for name, device in (("gpu-1", b"0"), ("gpu-2", b"1"), ("cpu-1", None)):
        worker = wait_until(lambda name=name: serving.pid("worker", name), 30)
        has = dict(
            line.partition(b"=")[::2] for line in read(Path(f"/proc/{worker}/environ")).split(b"\0")
        )
        assert has.get(b"CUDA_VISIBLE_DEVICES") == device
        assert has[b"PNEUMONIA_REPORTS_URL"].decode() == serving.reports
        assert has[b"PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == b"30"
    workers = [{"cpu-1"}, {"gpu-1", "gpu-2"}]
    for pool, expected in zip(("cpu", "gpu"), workers, strict=True):
        wait_until(
            lambda pool=pool, expected=expected: (
                set(names(serving, f"work_pools/{pool}/workers")) == expected
            ),
            60, serving.all_told,
        )  # fmt: skip

    second = subprocess.run(
        [sys.executable, "-m", "flows.serve"], env=serving.environment, cwd=PROJECT,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 0
    assert "runs already" in second.stdout
    assert serving.url in second.stdout

    assert serving.end(signal.SIGINT) == 0
    assert serving.err == ""
    serving.start()
    assert names(serving, "work_pools") == ["cpu", "gpu"]
    assert names(serving, "automations") == automations
    assert names(serving, "deployments") == deployments
    assert serving.end(signal.SIGTERM) == 0


def test_what_dies_is_started_again_and_what_is_killed_leaves_nothing(serving):
    serving.start()
    for name, words in {
        "server": ("prefect", "server", "start"),
        "cpu-1": ("worker", "cpu-1"),
        "reports": ("flows.reports",),
    }.items():
        before = wait_until(lambda words=words: serving.pid(*words), 30)
        os.kill(before, signal.SIGKILL)
        wait_until(
            lambda words=words, before=before: serving.pid(*words) not in {None, before},
            60, serving.all_told,
        )  # fmt: skip
        told = f"{name} has ended with status 137 and is started again in 1 s; "
        assert f"{told}{serving.folder / 'serve' / name}.log says why." in serving.err
    wait_until(serving.answers, 60, serving.all_told)

    keeper = next(pid for pid, line in serving.processes().items() if "keeper" in line)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: "status -9" in serving.err, 30, serving.all_told)
    wait_until(serving.answers, 60, serving.all_told)

    serving.process.kill()
    serving.await_nothing()
    serving.start()
    assert serving.answers()
    for deaths in range(1, 6):
        os.kill(wait_until(lambda: serving.pid("flows.reports"), 30), signal.SIGKILL)
        wait_until(lambda deaths=deaths: serving.err.count("reports has ended") == deaths, 30)
    assert "reports has ended 5 times within a minute, the last time with status" in serving.err
    assert f"{serving.folder / 'serve' / 'reports.log'} says why." in serving.err
    serving.await_nothing()
    assert serving.process.wait(END_SECONDS) == 1


def test_ctrl_c_while_it_starts_leaves_nothing(serving):
    serving.call()
    wait_until(lambda: serving.pid("prefect", "server", "start"), 30)
    assert serving.end(signal.SIGINT) == 0
    assert serving.err == ""


def test_a_server_that_runs_already_is_used_and_left_running(serving):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(serving.environment["PORT"])))
        listener.listen(128)
        own = {name: value for name, value in serving.environment.items() if name != "SERVE_FOLDER"}
        found = subprocess.Popen(
            [sys.executable, "-m", "flows.embedded", str(listener.fileno())],
            env=own, cwd=PROJECT, stdin=subprocess.PIPE, pass_fds=[listener.fileno()],
        )  # fmt: skip
    try:
        wait_until(serving.answers, START_SECONDS)
        for name, value in (
            ("POSTGRES", "postgresql://user@127.0.0.1/none"),
            ("PREFECT_API_AUTH_STRING", "user:word"),
        ):
            assert serving.call(**{name: value}).wait(60) == 2
            assert f"{name}: expected" in serving.err
            assert len(serving.err.splitlines()) == 1
        serving.start()
        assert f"{serving.url}, which runs already and is left running at the end" in serving.out
        assert names(serving, "work_pools") == ["cpu", "gpu"]
        assert serving.end() == 0
        assert serving.answers()
    finally:
        found.communicate(timeout=30)


def test_a_port_that_is_taken_is_told(serving):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(serving.environment["REPORTS_PORT"])))
        taken.listen()
        assert serving.call().wait(60) == 2
    assert "REPORTS_PORT: expected a free port on 127.0.0.1" in serving.err
    assert serving.end() == 2


RUN = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def sleeper(mark: str = ""):
    Path(mark).write_text(str(os.getpid()))
    time.sleep(600)
"""


def states(serving, mark):
    """The states of the sleepers that were given this mark, `""` for those of the schedule."""
    runs = [run for run in serving.ask("flow_runs/filter") if "sleeper" in run["tags"]]
    return [run["state"]["name"] for run in runs if run["parameters"].get("mark", "") == mark]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_flow_runs_end_with_it_and_the_server_is_told(serving, tmp_path, number):
    serving.start()
    (tmp_path / "sleepers.py").write_text(RUN)
    client = serving.environment | {"PREFECT_API_URL": f"{serving.url}/api"}
    del client["SERVE_FOLDER"]
    mark = tmp_path / "mark"
    for words in (
        ["--no-prompt", "deploy", "sleepers.py:sleeper", "--name", "long", "--pool", "cpu",
         "--tag", "sleeper", "--cron", "0 0 1 1 *"],
        ["deployment", "run", "sleeper/long", "-p", f"mark={mark}"],
    ):  # fmt: skip
        done = subprocess.run(
            [PREFECT, *words], env=client, cwd=tmp_path, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: mark.exists() and mark.read_text(), 90, serving.all_told)
    assert int(mark.read_text()) in serving.processes()
    wait_until(lambda: "Scheduled" in states(serving, ""), 90, serving.all_told)

    serving.end(number)
    serving.start()
    assert states(serving, str(mark)) == ["Crashed"]
    assert serving.end() == 0


class Traces:
    """Looks for words that must stand nowhere, in files and on command lines."""

    def __init__(self, folder, *words):
        self.folder = folder
        self.words = [word.encode() for word in words]

    def on_command_lines(self):
        return [
            line
            for place in Path("/proc").glob("[0-9]*/cmdline")
            if any(word in (line := read(place)) for word in self.words)
        ]

    def in_files(self):
        return [
            file
            for file in self.folder.rglob("*")
            if file.is_file() and any(word in read(file) for word in self.words)
        ]


def test_a_password_is_asked_for_and_stands_nowhere(serving, tmp_path):
    auth = "clinic:" + "w0rd-" * 4 + "end"
    traces = Traces(tmp_path, auth.partition(":")[2], base64.b64encode(auth.encode()).decode())
    serving.start(PREFECT_API_AUTH_STRING=auth)
    with pytest.raises(urllib.error.HTTPError) as refused:
        serving.ask("deployments/filter")
    refused.value.close()
    assert refused.value.code == 401
    assert names(serving, "work_pools", auth) == ["cpu", "gpu"]

    name = f"pneumonia-serve-{os.getuid()}-{serving.environment['REPORTS_PORT']}"
    temporary = Path("/dev/shm") / name  # noqa: S108 (named by flows/serve.py)
    worker = wait_until(lambda: serving.pid("worker", "cpu-1"), 30)
    environ = read(Path(f"/proc/{worker}/environ")).split(b"\0")
    assert f"TMPDIR={temporary}".encode() in environ
    assert temporary.stat().st_mode & 0o777 == 0o700
    other = serving.environment | {
        "SERVE_FOLDER": str(tmp_path / "other"), "REPORTS_PORT": str(free_port()),
    }  # fmt: skip
    for given, told in (({}, "got none"), ({"PREFECT_API_AUTH_STRING": "a:b"}, "got another")):
        refused = subprocess.run(
            [sys.executable, "-m", "flows.serve"], env=other | given, cwd=PROJECT,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert refused.returncode == 2
        assert f"that the running server asks for, {told}." in refused.stderr
    simulate(tmp_path / "raw", 60, 0)
    client = serving.environment | {
        "PREFECT_API_URL": f"{serving.url}/api",
        "PREFECT_API_AUTH_STRING": auth,
    }
    del client["SERVE_FOLDER"]
    settings = [
        words
        for section, fields in SETTINGS.items()
        for name, value in fields.items()
        for words in ("--set", f"{section}.{name}={value}")
    ]
    asked = ["--raw", tmp_path / "raw", "--workspace", tmp_path / "workspace", "--until", "split"]
    by_command = [sys.executable, "-m", "flows.cli", "run", *map(str, asked), *settings]
    by_deployment = [
        PREFECT, "deployment", "run", "pipeline/rsna", "--watch", "-p", f"raw={tmp_path / 'raw'}",
        "-p", f"workspace={tmp_path / 'served'}", "-p", "until=split",
        "-p", f"config={json.dumps(SETTINGS)}",
    ]  # fmt: skip
    for command in (by_command, by_deployment):
        with (tmp_path / "client.log").open("w") as log:
            run = subprocess.Popen(
                command, env=client, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT
            )
        while run.poll() is None:
            assert traces.on_command_lines() == []
            assert traces.in_files() == []
        assert run.returncode == 0, (tmp_path / "client.log").read_text() + serving.all_told()
    assert (tmp_path / "served" / "runs" / "main" / "split" / "split.csv").exists()
    runs = serving.ask("flow_runs/filter", auth)
    assert [run["state"]["name"] for run in runs].count("Completed") >= 2

    assert serving.end() == 0
    assert traces.in_files() == []
    assert not temporary.exists()


@pytest.fixture
def postgres():
    """A PostgreSQL server of its own on a free port of 127.0.0.1; gives its address."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip(f"PostgreSQL is not installed at {POSTGRES}")
    as_user = []
    folder = Path(tempfile.mkdtemp(prefix="pneumonia-postgres-"))
    if os.getuid() == 0:  # which PostgreSQL refuses
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL refuses to run as root, and there is no user `postgres`")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]

    def run(tool, *words):
        command = [*as_user, str(POSTGRES / tool), *words]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, [file.read_text() for file in folder.glob("*.log")]

    port, password = free_port(), "w0rd-of-the-database"
    (folder / "password").write_text(password, "ascii")
    (folder / "password").chmod(0o644)
    run("initdb", "--pgdata", "data", "--username", "prefect", "--auth", "scram-sha-256",
        "--pwfile", "password", "--no-sync")  # fmt: skip
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    run("pg_ctl", "--pgdata", "data", "--log", "postgres.log", "--options", options, "start")
    yield f"postgresql://prefect:{password}@127.0.0.1:{port}/postgres"
    run("pg_ctl", "--pgdata", "data", "--mode", "fast", "stop")
    shutil.rmtree(folder)


def carried_out(serving, folder):
    """The flow run of `pipeline/rsna` on simulated images, once it has ended."""
    settings = {
        **SETTINGS,
        "training": {"weights": "none", "epochs": 1},
        "evaluation": {"n_resamples": 50},
        "cam": {"n_images": 4},
    }
    asked = {
        "raw": str(folder / "raw"), "workspace": str(folder / "workspace"),
        "models": json.dumps(["custom_cnn"]), "config": json.dumps(settings),
    }  # fmt: skip
    words = [word for name, value in asked.items() for word in ("-p", f"{name}={value}")]
    done = subprocess.run(
        [PREFECT, "deployment", "run", "pipeline/rsna", "--watch", *words],
        env=serving.environment | {"PREFECT_API_URL": f"{serving.url}/api"}, cwd=PROJECT,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr + serving.all_told()
    runs = serving.ask("flow_runs/filter")
    ours = [run for run in runs if run["parameters"].get("workspace") == asked["workspace"]]
    return max(ours, key=lambda run: run["created"])


def test_postgres_holds_everything_and_its_password_stands_nowhere(serving, postgres, tmp_path):
    traces = Traces(tmp_path, "w0rd-of-the-database")
    serving.start(POSTGRES=postgres)
    assert names(serving, "work_pools") == ["cpu", "gpu"]
    assert traces.on_command_lines() == []
    simulate(tmp_path / "raw", 160, 1)
    for told in ("160 new images; ran labels, ", "nothing has changed: 8 cached"):
        run = carried_out(serving, tmp_path)
        assert (run["state"]["name"], run["state"]["message"][: len(told)]) == ("Completed", told)
    with urllib.request.urlopen(f"{serving.reports}/main/", timeout=30) as page:
        assert b"<title>" in page.read()
    assert serving.end() == 0
    assert traces.in_files() == []
    assert not list((tmp_path / "prefect").glob("*.db"))
    serving.start(POSTGRES=postgres)
    assert names(serving, "automations").count("pneumonia heartbeat") == 1
    worker = wait_until(lambda: serving.pid("worker", "cpu-1"), 30)
    assert b"w0rd-of-the-database" not in read(Path(f"/proc/{worker}/environ"))
    assert serving.end() == 0
