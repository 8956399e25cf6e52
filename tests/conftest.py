"""Tests never touch the user's own Prefect: they have a home and a server of their own."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from flows import console, embedded

_HOME = tempfile.TemporaryDirectory(prefix="pneumonia-prefect-")
os.environ["PREFECT_HOME"] = _HOME.name  # before anything imports Prefect
for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
    os.environ.pop(name, None)
console.set_up()

SMALL = {
    "shards": {"image_size": 32, "images_per_shard": 64, "quiet_seconds": 0},
    "split": {"val_fraction": 0.25, "test_fraction": 0.25},
    "training": {"weights": "none", "epochs": 1},
    "evaluation": {"n_resamples": 50},
    "cam": {"n_images": 4},
}
"""Settings that make a run a matter of seconds."""


def pytest_addoption(parser):
    """`pytest tests/faults --long --seed 1`: all faults instead of a sample of them."""
    parser.addoption("--long", action="store_true", help="tests/faults: try every fault")
    parser.addoption("--seed", type=int, default=0, help="tests/faults: of what is random")


Told = namedtuple("Told", "state reason")


@pytest.fixture(scope="session")
def prefect_server():
    """A real Prefect API for flows that are run in this process."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with embedded.prefect_api() as wait:
        wait()
        url = os.environ["PREFECT_API_URL"]
        with temporary_settings({PREFECT_API_URL: url}):
            yield url


@pytest.fixture(scope="session")
def small():
    """Settings of a small run, for flows that another process runs."""
    return SMALL


class Pipeline:
    """Runs the pipeline in this process and keeps what the console was told of each stage."""

    def __init__(self, raw, workspace):
        self.raw, self.workspace = raw, workspace

    def run(self, settings=(), **asked):
        from flows.pipeline import pipeline
        from pneumonia.config import parse

        values = {section: dict(fields) for section, fields in SMALL.items()}
        for name, value in dict(settings).items():
            section, _, field = name.partition(".")
            values.setdefault(section, {})[field] = value
        lines = Lines()
        logger = logging.getLogger("flows")
        logger.addHandler(lines)
        try:
            asked = {"models": ("custom_cnn",)} | asked
            pipeline(raw=self.raw, workspace=self.workspace, config=parse(values), **asked)
        finally:
            logger.removeHandler(lines)
        return lines.told

    def copy(self, folder):
        """The same raw folder and workspace once more, to be changed freely."""
        shutil.copytree(self.raw, folder / "raw")
        shutil.copytree(self.workspace, folder / "workspace", symlinks=True)
        return Pipeline(folder / "raw", folder / "workspace")

    def linked(self, name, run="main"):
        return (self.workspace / "runs" / run / name).resolve()


class Lines(logging.Handler):
    """What the stage lines say: {name: (state, reason)}."""

    def __init__(self):
        super().__init__()
        self.told = {}

    def emit(self, record):
        words = record.getMessage().split()
        if len(words) > 3 and words[1] in {"ran", "cached"} and words[3] == "s":
            reason = record.getMessage().rpartition("(")[2].rstrip(")")
            self.told[words[0]] = Told(words[1], reason)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, prefect_server):  # noqa: ARG001
    """A finished run of the small CNN on 160 simulated images; copy it before changing it."""
    from pneumonia.simulate import simulate

    folder = tmp_path_factory.mktemp("finished")
    simulate(folder / "raw", 160, 1)
    pipeline = Pipeline(folder / "raw", folder / "workspace")
    pipeline.first = pipeline.run()
    return pipeline


@pytest.fixture
def command(tmp_path):
    """Runs `pneumonia ARGUMENTS` in a process of its own; returns it with its output."""

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=options.pop("timeout", 300),
            cwd=options.pop("cwd", tmp_path), **options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def real_data():
    """The folder of real labels and images that PNEUMONIA_REAL_DATA names."""
    folder = os.environ.get("PNEUMONIA_REAL_DATA")
    if not folder:
        pytest.skip("PNEUMONIA_REAL_DATA names no folder with real labels and images")
    return Path(folder)
