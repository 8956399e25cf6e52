"""Everything on one machine: server, pools, deployments, automations, workers and reports.

`make serve`, or `python -m flows.serve`; `flows/serve_settings.py` is the list of its variables.
Exit status: 0 stopped, or served already; 1 it could not go on; 2 a variable is wrong.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from flows import embedded, keeper, server
from flows.automations import HEARTBEAT_ENVIRONMENT, set_up
from flows.children import PREFECT, Child, Lifeline, wait
from flows.serve_lock import lock_folder
from flows.serve_settings import LOOPBACK, ServeSettings, read_settings
from pneumonia.errors import ConfigError, PneumoniaError
from pneumonia.machine import gpus
from pneumonia.people import PATIENT_KEY

CPU_RUNS = 4
"""Flow runs of the pool `cpu` at once: most of them wait for a training or are cached."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.1


class Serve:
    """One serving: the children, in two groups that end one after the other.

    The server's lifeline is also held by the keepers of the workers, so that flow runs that are
    ended can still tell the server, whichever way this process ends.
    """

    def __init__(self, settings: ServeSettings, lock: int) -> None:
        self.settings = settings
        self.work, self.rest = Lifeline(), Lifeline()
        self.workers: list[Child] = []
        self.others: list[Child] = []
        self._lock = lock
        in_memory = Path("/dev/shm")  # noqa: S108 (a folder there is made anew, for this user)
        self._temporary = in_memory / f"pneumonia-serve-{os.getuid()}-{settings.reports_port}"

    @property
    def _secrets(self) -> bool:
        """Whether the environment of flow runs holds what no disk may hold."""
        return self.settings.auth is not None or bool(os.environ.get(PATIENT_KEY))

    def start(self) -> None:
        """Start everything, in the order in which each needs the one before."""
        settings = self.settings
        shutil.rmtree(self._temporary, ignore_errors=True)  # of one that was killed
        if self._secrets:
            self._temporary.mkdir(mode=0o700)
        if server.answers(settings.url):
            server.check_found(settings)
            _say(f"server       {settings.url}, which runs already and is left running at the end")
        else:
            self._start_server()
        for line in set_up():
            _say(line)
        self._deploy()
        self._start_workers()
        self._start_reports()

    def watch(self) -> None:
        """Start again what ends by itself, until a signal comes.

        Raises:
            PneumoniaError: one of them has ended too often.
        """
        due: dict[Child, float] = {}
        while True:
            time.sleep(_POLL_SECONDS)
            for child in (*self.others, *self.workers):
                if child.status is None or time.monotonic() < due.get(child, 0):
                    continue
                if child in due:
                    del due[child]
                    child.start()
                    continue
                self._kill_strays()
                status, pause = child.status, child.next_pause()
                due[child] = time.monotonic() + pause
                _warn(
                    f"{child.name} has ended with status {status} and is started again in "
                    f"{pause:.0f} s; {child.log} says why."
                )

    def stop(self) -> None:
        """End the workers and their runs, then the rest; nothing is left."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # it is under way
        self.work.release()
        wait(self.workers, keeper.END_SECONDS + 1)
        self.rest.release()
        wait(self.others, keeper.COMMAND_SECONDS + 1)
        while left := keeper.descendants(os.getpid()):
            keeper.send(signal.SIGKILL, left)
            wait((*self.workers, *self.others), 1)
            time.sleep(_POLL_SECONDS)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _kill_strays(self) -> None:
        """Kill what a keeper left that was itself killed: it came to this process."""
        mine = os.getpid()
        kept = {child.pid for child in (*self.others, *self.workers)}
        for pid, parent in keeper.descendants(mine).items():
            if parent == mine and pid not in kept:
                keeper.send(signal.SIGKILL, {pid, *keeper.descendants(pid)})

    def _start_server(self) -> None:
        settings = self.settings
        server.check_free(settings.host, settings.port, "PORT")
        environment = os.environ | server.environment(settings)
        child = self._child("server", server.command(settings), environment, server=True)
        self.others.append(child)
        child.start()
        child.await_answer(settings.url, lambda: server.answers(settings.url))
        _say(f"server       {settings.url}{' (asks for a password)' if settings.auth else ''}")

    def _start_workers(self) -> None:
        for name, pool, limit, device in self._workers():
            more = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
            worker = self._child(name, _worker(name, pool, limit), self._environment() | more)
            self.workers.append(worker)
            worker.start()
            where = f", CUDA_VISIBLE_DEVICES={device}" if device is not None else ""
            _say(f"{name:<13}worker of pool {pool}, at most {_count(limit, 'run')} at once{where}")
        if None in self.settings.gpu_workers:
            _say("             nvidia-smi lists no GPU: the worker of pool gpu trains on the CPU")

    def _start_reports(self) -> None:
        settings = self.settings
        words = ["flows.reports", str(settings.workspace), str(settings.reports_port)]
        child = self._child(
            "reports", [sys.executable, "-m", *words], dict(os.environ), server=True
        )
        self.others.append(child)
        child.start()
        child.await_answer(
            settings.reports_url, lambda: server.listens(LOOPBACK, settings.reports_port)
        )
        _say(f"reports      of {settings.workspace}")

    def _deploy(self) -> None:
        command = [*PREFECT, "--no-prompt", "deploy", "--all"]
        deploy = self._child("deploy", command, self._environment())
        deploy.start()
        wait([deploy], embedded.START_SECONDS)
        if deploy.status != 0:
            raise PneumoniaError(
                f"prefect.yaml: expected its deployments to be made, got status {deploy.status}. "
                f"{deploy.log} says why."
            )
        _say("deployments  those of prefect.yaml")

    def _workers(self) -> list[tuple[str, str, int, str | None]]:
        """Name, pool, flow runs at once and CUDA_VISIBLE_DEVICES of each worker."""
        on_gpu = enumerate(self.settings.gpu_workers, start=1)
        return [
            ("cpu-1", "cpu", CPU_RUNS, None),
            *((f"gpu-{index}", "gpu", 1, device) for index, device in on_gpu),
        ]

    def _environment(self) -> dict[str, str]:
        """What workers have in their environment and pass on to their flow runs.

        While a run goes, Prefect keeps the environment in a temporary file of the user's own; where
        a password or a key is in it that file is in memory, not on a disk.
        """
        environment = os.environ | HEARTBEAT_ENVIRONMENT | {
            "PREFECT_LOGGING_EXTRA_LOGGERS": "pneumonia,tasks,flows",
            "PNEUMONIA_REPORTS_URL": self.settings.reports_url,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi counts them
        }  # fmt: skip
        if self._secrets:
            environment["TMPDIR"] = str(self._temporary)
        return environment

    def _child(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        server: bool = False,
    ) -> Child:
        return Child(
            name,
            command,
            folder=self.settings.folder,
            lifeline=self.rest if server else self.work,
            held=[self._lock] if server else [self._lock, self.rest.held],
            environment=environment,
        )


def main() -> int:
    """Serve until a signal comes; returns the exit status."""
    try:
        if sys.platform != "linux":
            raise ConfigError(
                f"make serve: expected Linux, which lets it end all that it starts, got "
                f"{sys.platform}. README.md says how to start server and worker by hand."
            )
        settings = read_settings(os.environ, len(gpus()))
        lock = lock_folder(settings)
        return 0 if lock is None else _serve(settings, lock)
    except KeyboardInterrupt:  # before anything was started
        return 0
    except (PneumoniaError, OSError) as error:
        _warn(f"{type(error).__name__}: {error}")
        return 2 if isinstance(error, ConfigError) else 1


def _serve(settings: ServeSettings, lock: int) -> int:
    embedded.bypass_proxy(settings.host)
    os.environ.pop("POSTGRES", None)  # it may hold a password, which only the server needs
    os.environ.update({"DO_NOT_TRACK": "1", "PREFECT_API_URL": f"{settings.url}/api"})
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets SIGHUP
            signal.signal(number, _interrupt)
    server.check_free(LOOPBACK, settings.reports_port, "REPORTS_PORT")
    keeper.adopt_orphans()
    serve = Serve(settings, lock)
    try:
        serve.start()
        _say(f"\nPrefect  {settings.url}\nReports  {settings.reports_url}")
        _say(f"Logs     {settings.folder}\nCtrl-C stops all.")
        serve.watch()
    except KeyboardInterrupt:
        _say("Stopping: workers first, then reports and server.")
    finally:
        serve.stop()
    return 0


def _worker(name: str, pool: str, limit: int) -> list[str]:
    words = ["worker", "start", "--pool", pool, "--name", name, "--limit", str(limit)]
    return [*PREFECT, *words]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _warn(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
