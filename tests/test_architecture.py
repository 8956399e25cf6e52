"""What the import contract in pyproject.toml cannot say."""

import ast
import json
from pathlib import Path

import pytest

from flows.stages import STAGES
from pneumonia.config import MODELS
from tasks.shards import POOL
from tasks.source import code_digest

PROJECT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("flows", "tasks", "pneumonia") for path in (PROJECT / package).glob("*.py")
)

DOORS = {
    "blake3": {"pneumonia.files"},
    "cv2": {
        "pneumonia.augment",
        "pneumonia.duplicates",
        "pneumonia.preprocess",
        "pneumonia.shards",
    },
    "jinja2": {"pneumonia.page"},
    "matplotlib": {"pneumonia.figures"},
    "pydantic": {"pneumonia.config", "flows.parameters"},
    "pydicom": {"pneumonia.parser"},
    "pytorch_lightning": {
        "pneumonia.batches",
        "pneumonia.fitting",
        "pneumonia.processes",
        "pneumonia.training",
    },
    "simplejpeg": {"pneumonia.codestream"},
    "sklearn": {"pneumonia.controls"},
    "tensorboard": {"pneumonia.event_files"},
    "torchmetrics": {"pneumonia.fitting"},
    "torchvision": {"pneumonia.network"},
}
"""Each package of others, and the modules that may import it."""

VERSIONS = PROJECT / "tests" / "tasks" / "versions.json"


def name_of(path):
    return f"{path.parent.name}.{path.stem}"


def imported(path):
    """Top-level packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_package_of_others_comes_in_by_its_doors():
    found = {package: set() for package in DOORS}
    for path in SOURCES:
        for package in set(imported(path)) & set(DOORS):
            found[package].add(name_of(path))
    assert found == DOORS


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_too_long_to_read_at_once(path):
    assert len(path.read_text("utf-8").splitlines()) <= 320


def test_no_room_is_called_by_no_name():
    assert not {path.stem for path in SOURCES} & {"utils", "common", "helpers", "misc"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_pickle_is_loaded(path):
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    }
    loads = {"pickle.load", "pickle.loads", "load", "loads", "Unpickler", "pickle.Unpickler"}
    if "pickle" in set(imported(path)):
        assert not calls & loads
    assert "allow_pickle=True" not in path.read_text("utf-8")
    assert "weights_only=False" not in path.read_text("utf-8")


def test_every_stage_has_its_task_file():
    for stage in STAGES:
        assert (PROJECT / "tasks" / f"{stage.name}.py").is_file()


def test_the_models_of_the_configuration_are_those_of_the_network():
    from pneumonia import network

    assert tuple(network.MODELS) == MODELS


@pytest.mark.parametrize(
    "stage", [s for s in (*STAGES, POOL) if not s.keyed_by_code], ids=lambda stage: stage.name
)
def test_code_behind_a_costly_stage_is_as_recorded(stage):
    """See CONTRIBUTING.md, "Stages and their versions", when this fails."""
    recorded = json.loads(VERSIONS.read_text("utf-8"))[stage.name]
    now = {"version": stage.version, "code": code_digest(stage.modules)}
    assert now == {name: recorded[name] for name in now}, (
        f"the code behind {stage.name} has changed: raise its version in tasks/{stage.name}.py if "
        "its output can differ, then run `.venv/bin/python tests/tasks/renew_versions.py REASON`"
    )
