"""One finished run, one Prefect API and one count of endings for all tests of faults."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from harness import Faults, finish, preload

ENDINGS = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def long(request):
    """Whether all faults are tried, and not a sample of them."""
    return request.config.getoption("--long")


@pytest.fixture(scope="session")
def seed(request):
    return request.config.getoption("--seed")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The compiled shim that makes calls of the C library fail; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    built = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    build = [compiler, "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"]
    subprocess.run(build, check=True, capture_output=True)
    return built


@pytest.fixture(scope="session")
def faults(finished, prefect_server, request, library, tmp_path_factory):
    tally = request.config.stash.setdefault(ENDINGS, [])
    preload(library)
    return Faults(finished, prefect_server, tally, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def points(faults, tmp_path_factory):
    """Every point, as `NUMBER NAME`, that an undisturbed run from the beginning passes."""
    folder = tmp_path_factory.mktemp("points")
    workspace, log = folder / "workspace", folder / "log"
    process = faults.start(workspace, POINTS_OF=str(workspace), POINTS_LOG=str(log))
    output = finish(process)
    assert process.returncode == 0, output
    return list(dict.fromkeys(log.read_text("utf-8").splitlines()))


def pytest_terminal_summary(terminalreporter, config):
    """The closing table: each fault, how often it was tried, and how the runs ended."""
    counts = Counter(config.stash.get(ENDINGS, []))
    if not counts:
        return
    terminalreporter.section(f"faults, seed {config.getoption('--seed')}")
    terminalreporter.line("| fault | tried | ended equal | one clear error |")
    terminalreporter.line("|---|---|---|---|")
    for fault in sorted({fault for fault, _ in counts}):
        equal, error = counts[fault, "equal"], counts[fault, "error"]
        terminalreporter.line(f"| {fault} | {max(equal, error)} | {equal} | {error} |")
