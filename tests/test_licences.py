"""The licences that docs/security.md lists are those that the installed packages state."""

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def direct():
    """What pyproject.toml asks for, but for the peers of the benchmarks, which few install."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dask"], *extras["tensorboard"], *extras["dev"]]
    return sorted({re.match(r"[\w.-]+", requirement)[0] for requirement in asked})


def stated(package):
    """The licence of an installed package: by expression, else by classifier, else in words."""
    told = metadata(package)
    named = [
        name.rpartition(" :: ")[2]
        for name in told.get_all("Classifier") or []
        if name.startswith("License ::")
    ]
    words = (told.get("License") or "").partition("\n")[0]
    return told.get("License-Expression") or "; ".join(named) or words


def listed():
    text = (PROJECT / "docs/security.md").read_text("utf-8")
    return dict(re.findall(r"^\| `([\w.-]+)` \| (.+) \|$", text, re.MULTILINE))


def test_every_direct_dependency_is_listed_and_nothing_else():
    assert sorted(listed()) == direct()


@pytest.mark.parametrize("package", direct())
def test_listed_licence_is_that_of_the_installed_package(package):
    assert listed()[package] == stated(package)


def test_every_direct_dependency_is_pinned():
    pinned = re.findall(r"^([\w.-]+)==\S+$", (PROJECT / "constraints.txt").read_text("utf-8"), re.M)
    plain = {re.sub(r"[._-]+", "-", name).lower() for name in pinned}
    assert not [name for name in direct() if re.sub(r"[._-]+", "-", name).lower() not in plain]
