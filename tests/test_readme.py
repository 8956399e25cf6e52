"""The README keeps its word: its commands run, its paths exist, its table is the pipeline."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import parser
from flows.stages import STAGES

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text("utf-8")
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")]
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.partition("#")[0].strip()
]

SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def of(program):
    """The README's calls of a program, as lists of words."""
    found = [shlex.split(line) for line in COMMANDS]
    return [words[1:] for words in found if words[0].rpartition("/")[2] == program]


def test_the_readme_has_commands_to_test():
    assert len(of("pneumonia")) >= 10
    assert len(of("make")) >= 3


@pytest.mark.parametrize("words", of("pneumonia"), ids=" ".join)
def test_every_call_of_pneumonia_is_understood(words):
    whole = ["--raw", "RAW", "--workspace", "WORKSPACE"]
    options = parser().parse_args(
        [w for word in words for w in (whole if word == "..." else [word])]
    )
    assert callable(options.command)


@pytest.mark.parametrize("words", of("make"), ids=" ".join)
def test_every_call_of_make_has_its_target(words):
    targets = re.findall(r"^([a-z0-9-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert words[0] in targets


def test_the_five_line_start_works(tmp_path, command):
    start = [words for words in of("pneumonia") if "data/sim/raw" in words]
    assert [words[0] for words in start] == ["simulate", "run"]
    for words in start:
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/sim/workspace/runs/main/split/split.csv").is_file()


def test_the_training_loop_of_ones_own_trains(tmp_path, finished):
    (tmp_path / "data/demo").mkdir(parents=True)
    (tmp_path / "data/demo/workspace").symlink_to(finished.workspace)
    [source] = SNIPPETS
    shown = "\nsteps = int(next(iter(optimiser.state.values()))['step'])"
    shown += "\nprint(steps, len(train), loss.isfinite().item(), type(image_ids[0]).__name__)\n"
    done = subprocess.run(
        [sys.executable, "-c", source + shown],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "80", "True", "str"]


def test_the_table_of_stages_is_the_pipeline():
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert rows == [stage.name for stage in STAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_tree_names_folders_that_exist():
    tree = README.partition("## The tree")[2]
    folders = re.findall(r"^    (\w+)/ ", tree, re.MULTILINE)
    assert folders == [
        "flows", "tasks", "pneumonia", "data", "tests", "benchmarks", "docs",
    ]  # fmt: skip
    assert all((PROJECT / folder).is_dir() for folder in folders)


def test_the_changelog_names_the_version():
    version = re.search(
        r'^version = "(.+)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert version
    assert f"## {version.group(1)}" in (PROJECT / "CHANGELOG.md").read_text("utf-8")
