"""What a run costs that has nothing to do, by part: with a Prefect server of its own, and served.

    pneumonia bench cached [--images 200] [--rounds 5]

A small run is made first, which is not counted. Then the pipeline runs again in a process of its
own, `pneumonia run` taken apart: `import` is Python's start and all modules, `server` the wait for
the API, `stages` the flow with its eight cached stages, `end` what comes after it. Embedded, the
server starts beside the import; served, one stands on 127.0.0.1 already. Medians of the rounds.

Asked of the stages, as of a deployment from Running to Completed: at most 3 s.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from pneumonia.simulate import simulate

PARTS = ("import", "server", "stages", "end", "total")

TAKEN_APART = """
import sys, time
from flows import console, embedded
console.set_up()
with embedded.prefect_api() as wait:
    from flows.pipeline import pipeline
    from pneumonia.config import parse
    marks = [time.time()]
    wait()
    marks.append(time.time())
    settings = parse({"shards": {"image_size": 32}, "training": {"weights": "none", "epochs": 1}})
    pipeline(raw=sys.argv[1], workspace=sys.argv[2], models=("custom_cnn",), config=settings)
    marks.append(time.time())
print("marks", *marks, file=sys.stderr)
"""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(folder / "raw", arguments.images, 0)
        environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1"}
        environment.pop("PREFECT_API_URL", None)
        _run(folder, environment)
        print(f"{arguments.images} films, one model, all eight stages cached, load "
              f"{os.getloadavg()[0]:.1f}\n")  # fmt: skip
        print(f"| | {' | '.join(f'{part}, s' for part in PARTS)} |\n|---|{'---|' * len(PARTS)}")
        tell("embedded", [_run(folder, environment) for _ in range(arguments.rounds)])
        with _served(folder, environment) as served:
            _run(folder, served)
            tell("served", [_run(folder, served) for _ in range(arguments.rounds)])


def tell(way: str, rounds: list[list[float]]) -> None:
    medians = [statistics.median(part) for part in zip(*rounds, strict=True)]
    print(f"| {way} | {' | '.join(f'{seconds:.2f}' for seconds in medians)} |")


def _run(folder: Path, environment: dict[str, str]) -> list[float]:
    """Seconds of each part of one run."""
    words = [sys.executable, "-c", TAKEN_APART, folder / "raw", folder / "workspace"]
    started = time.time()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    ended = time.time()
    told = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("marks ")]
    if done.returncode or not told:
        sys.exit(f"{done.stdout}{done.stderr}the run ended with status {done.returncode}")
    marks = [started, *map(float, told[-1]), ended]
    return [*(after - before for before, after in pairwise(marks)), ended - started]


@contextmanager
def _served(folder: Path, environment: dict[str, str]):
    """A Prefect server on a free port; gives the environment that names it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    quiet = {**environment, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, *words], env=quiet, stdout=log, stderr=log)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            sys.exit(
                f"no server on {url} within two minutes: {(folder / 'server.log').read_text()}"
            )
        yield {**environment, "PREFECT_API_URL": url}
    finally:
        server.terminate()
        server.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
